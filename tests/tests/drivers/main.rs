//! Real drivers do the same through PgWard as on a server. Each is a program of `tests/drivers` that prints a line for
//! each of its steps: run on the primary of its patient's shard, then through PgWard, it must print the same lines.
#![allow(missing_docs, clippy::unwrap_used)]

mod compare;
mod programs;

use compare::same_lines;
use programs::{Program, cargo, go, java, node, psql, python, ruby};

#[tokio::test]
async fn psycopg3() {
    same_lines(0, &python("psycopg3")).await;
}

#[tokio::test]
async fn asyncpg() {
    same_lines(1, &python("asyncpg")).await;
}

#[tokio::test]
async fn node_postgres() {
    same_lines(2, &node("node_postgres")).await;
}

#[tokio::test]
async fn postgres_js() {
    same_lines(3, &node("postgres_js")).await;
}

#[tokio::test]
async fn psql_and_pgbench() {
    same_lines(4, &psql()).await;
}

#[tokio::test]
async fn tokio_postgres() {
    same_lines(5, &Program::new("tokio_postgres", env!("CARGO_BIN_EXE_driver-tokio-postgres"), &[])).await;
}

#[tokio::test]
async fn jdbc() {
    same_lines(6, &java()).await;
}

#[tokio::test]
async fn lib_pq() {
    same_lines(7, &go()).await;
}

#[tokio::test]
async fn ruby_pg() {
    same_lines(8, &ruby()).await;
}

#[tokio::test]
async fn sqlalchemy() {
    same_lines(9, &python("sqlalchemy")).await;
}

#[tokio::test]
async fn sqlx() {
    same_lines(10, &cargo("sqlx")).await;
}
