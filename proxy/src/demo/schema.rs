//! Tables, roles and reference codes, made on each primary directly: schema changes and writes to reference tables do
//! not go through PgWard.

use std::fmt::Write;

use anyhow::{Context, Result};

use super::cluster::{Cluster, DATABASE};
use super::postgres::Postgres;

/// The tables.
pub const TABLES: &str = include_str!("schema.sql");

/// Codes of the reference table, one a line: code, tab, title.
const ICD10: &str = include_str!("icd10.tsv");

/// The ICD-10-CM codes of the reference table, with their titles.
pub fn icd10() -> impl Iterator<Item = (&'static str, &'static str)> {
    ICD10.lines().filter_map(|line| line.split_once('\t'))
}

/// Makes the database with its tables on every primary, and the role that PgWard logs in as.
///
/// # Errors
/// A server refuses; the error names it.
pub async fn create(cluster: &Cluster, role: &str, password: &str) -> Result<()> {
    let shards = cluster.shards.iter().map(|shard| create_on(cluster, &shard.primary, role, password));
    futures_util::future::try_join_all(shards).await.map(drop)
}

async fn create_on(cluster: &Cluster, primary: &Postgres, role: &str, password: &str) -> Result<()> {
    let setup = async {
        let client = cluster.superuser(primary, "postgres").await?;
        client.batch_execute(&format!("CREATE DATABASE {DATABASE}")).await?;
        let client = cluster.superuser(primary, DATABASE).await?;
        // One round trip and one transaction.
        client.batch_execute(&[TABLES, &codes(), &privileges(role, password)].concat()).await?;
        anyhow::Ok(())
    };
    setup.await.with_context(|| format!("cannot make the schema on {}", primary.name()))
}

fn codes() -> String {
    let mut sql = String::from("INSERT INTO icd10_codes (code, title) VALUES ");
    for (n, (code, title)) in icd10().enumerate() {
        let comma = if n == 0 { "" } else { ", " };
        write!(sql, "{comma}('{code}', '{}')", title.replace('\'', "''")).expect("a String takes all");
    }
    sql + ";\n"
}

/// Reads and writes, no ownership. pg_monitor lets PgWard's probes see replication; CREATE lets `pgbench -i` and the
/// like make local tables.
fn privileges(role: &str, password: &str) -> String {
    format!(
        "CREATE ROLE {role} LOGIN PASSWORD '{password}' IN ROLE pg_monitor;
         GRANT USAGE, CREATE ON SCHEMA public TO {role};
         GRANT SELECT, INSERT, UPDATE, DELETE ON patients, encounters, medications, observations, allergies TO {role};
         GRANT SELECT ON icd10_codes TO {role};"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_whole_and_unique() {
        let codes: std::collections::BTreeSet<_> = icd10().map(|(code, _)| code).collect();
        assert_eq!(codes.len(), ICD10.lines().count());
        assert!(icd10().all(|(code, title)| code.len() >= 3 && !title.is_empty()));
    }
}
