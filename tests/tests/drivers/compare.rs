//! The same steps on a server and through PgWard.

use pgward::demo::cluster::DATABASE;
use pgward::demo::layout::{Layout, SERVER_ROLE};
use pgward_tests::{Deployment, Options, SERVER_PASSWORD};
use tokio::sync::{OnceCell, Semaphore};

use crate::programs::{Program, Run};

/// Tables that the programs may write: a local one for values of all types, the patient's own for the rest.
const TABLES: &str = "CREATE TABLE pgbench_history (
        driver text, id integer, payload bytea, tags text[], key uuid, doc jsonb, seen timestamptz, amount numeric,
        note text, PRIMARY KEY (driver, id));
     GRANT SELECT, INSERT, UPDATE, DELETE ON pgbench_history TO pgward_app";

static DEPLOYMENT: OnceCell<Deployment> = OnceCell::const_new();

/// Small machines have room for the connections of this many programs beside the servers.
static AT_ONCE: Semaphore = Semaphore::const_new(2);

async fn deployment() -> &'static Deployment {
    let start = || async {
        let options = Options { tune: |layout: &mut Layout| layout.max_connections = 300, ..Options::default() };
        let pgward = Deployment::start(env!("CARGO_BIN_EXE_pgward-under-test"), options).await?;
        pgward.on_server("us-east-patients/primary").await.batch_execute(TABLES).await?;
        pgward.cluster().await_replay().await?;
        anyhow::Ok(pgward)
    };
    DEPLOYMENT.get_or_init(|| async { start().await.expect("the deployment starts") }).await
}

/// Whether PGWARD_TEST_DRIVERS has this driver, or is not set.
fn wanted(driver: &str) -> bool {
    let Some(list) = std::env::var_os("PGWARD_TEST_DRIVERS") else { return true };
    let wanted = list.to_string_lossy().split(',').any(|name| name.trim() == driver);
    if !wanted {
        eprintln!("{driver} is left out: PGWARD_TEST_DRIVERS does not have it");
    }
    wanted
}

/// Runs it directly, then through PgWard, with patient number `n` of us-east, which no other driver uses.
pub(crate) async fn same_lines(n: usize, program: &Program) {
    if !wanted(program.driver) {
        return;
    }
    program.assert_installed();
    let pgward = deployment().await;
    let _turn = AT_ONCE.acquire().await.unwrap();
    let patient = pgward.patient("us-east", n).id.to_string();
    let port = pgward.node("us-east-patients/primary").port();
    let direct = format!("postgresql://{SERVER_ROLE}:{SERVER_PASSWORD}@127.0.0.1:{port}/{DATABASE}");
    let direct = program.run(&direct, &patient).await;
    let through = program.run(&pgward.url("general", "app"), &patient).await;
    assert_same(program.driver, &direct, &through);
}

/// Both ran to their end, and printed the same.
fn assert_same(driver: &str, direct: &Run, through: &Run) {
    let ended = |run: &Run| run.success && run.lines.last().is_some_and(|line| line == "end:");
    let same = direct.lines == through.lines && ended(direct) && ended(through);
    assert!(
        same,
        "{driver} does not do the same on a server and through PgWard:\n{}\nand said on the server: {}\nthrough PgWard: {}",
        side_by_side(&direct.lines, &through.lines),
        direct.stderr,
        through.stderr
    );
}

/// All lines of both, as far as there is room for them; then those that differ, whole.
fn side_by_side(left: &[String], right: &[String]) -> String {
    let cut = |line: Option<&String>| line.map_or_else(String::new, |line| line.chars().take(58).collect());
    let (mut table, mut differing) = (String::new(), String::new());
    for n in 0..left.len().max(right.len()) {
        let (left, right) = (left.get(n), right.get(n));
        let mark = if left == right { ' ' } else { '|' };
        table += &format!("{:<58} {mark} {}\n", cut(left), cut(right));
        if left != right {
            differing += &format!("on the server:  {left:?}\nthrough PgWard: {right:?}\n");
        }
    }
    table + &differing
}

#[test]
fn differences_are_marked_and_shown_whole() {
    let lines = |lines: &[&str]| lines.iter().map(ToString::to_string).collect::<Vec<_>>();
    let long = "x".repeat(80);
    let shown = side_by_side(&lines(&["login: a", &long]), &lines(&["login: a"]));
    assert_eq!(shown.lines().filter(|line| line.contains(" | ")).count(), 1, "{shown}");
    assert!(shown.contains("login: a                                                     login: a"), "{shown}");
    assert!(shown.contains(&long) && shown.contains("through PgWard: None"), "{shown}");
}
