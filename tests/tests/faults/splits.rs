//! A COPY over two shards when servers, PgWard, or both are lost between its steps: all or nothing, also after restarts.
//!
//! A server is stopped between steps by what waits on it: a deferred trigger holds its PREPARE TRANSACTION up until an
//! advisory lock is free.

use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt;
use pgward::demo::instance::Instance;
use pgward::demo::layout::{Layout, SERVER_ROLE};
use pgward::demo::postgres::Shutdown;
use pgward_tests::{Deployment, Options, answers};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Error};
use uuid::Uuid;

use crate::{PGWARD, in_time, start, until};

const EAST: &str = "us-east-patients/primary";
const WEST: &str = "us-west-patients/primary";
const COPY: &str = "COPY allergies (patient_id, substance, reaction, severity) FROM STDIN";
const PREPARED: &str = "SELECT count(*) FROM pg_prepared_xacts WHERE gid LIKE 'pgward:demo:%'";

async fn two_shards() -> Deployment {
    let tune = |layout: &mut Layout| {
        layout.health = "interval = \"1s\"\ntimeout = \"1s\"\n".to_owned();
        layout.wait_timeout = Some("2s");
        layout.proxy.push_str("connect_timeout = \"2s\"\n");
    };
    start(Options { shards: 2, replicas: 0, patients: 40, tune }).await
}

/// 1000 rows for each shard.
fn rows(pgward: &Deployment, substance: &str) -> String {
    let ids: [Uuid; 2] = ["us-east", "us-west"].map(|region| pgward.patient(region, 3).id);
    ids.map(|id| format!("{id}\t{substance}\tRash\tmild\n")).concat().repeat(1000)
}

async fn copy(client: &Client, rows: String) -> Result<u64, Error> {
    let mut sink = Box::pin(client.copy_in(COPY).await?);
    sink.send(Bytes::from(rows)).await?;
    sink.as_mut().finish().await
}

/// A COPY that goes on by itself.
async fn copying(pgward: &Deployment, substance: &str) -> JoinHandle<Result<u64, Error>> {
    let (client, rows) = (pgward.app().await, rows(pgward, substance));
    tokio::spawn(async move { copy(&client, rows).await })
}

async fn count(pgward: &Deployment, node: &str, substance: &str) -> String {
    let server = pgward.on_server(node).await;
    answers(&server, &format!("SELECT count(*) FROM allergies WHERE substance = '{substance}'")).await
}

async fn counts(pgward: &Deployment, substance: &str) -> [String; 2] {
    [count(pgward, EAST, substance).await, count(pgward, WEST, substance).await]
}

async fn prepared(pgward: &Deployment, node: &str) -> String {
    answers(&pgward.on_server(node).await, PREPARED).await
}

async fn nothing_is_left_prepared(pgward: &Deployment) {
    until("all is ended", || async { prepared(pgward, EAST).await == "0" && prepared(pgward, WEST).await == "0" })
        .await;
}

/// Makes transactions with new allergies wait at their end on the western server, as long as the returned session lives.
async fn hold_west_up(pgward: &Deployment) -> Client {
    let west = pgward.on_server(WEST).await;
    west.batch_execute(
        "CREATE OR REPLACE FUNCTION wait_for_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             PERFORM pg_advisory_lock(7), pg_advisory_unlock(7);
             RETURN NULL;
         END $$;
         DROP TRIGGER IF EXISTS wait_for_it ON allergies;
         CREATE CONSTRAINT TRIGGER wait_for_it AFTER INSERT ON allergies DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION wait_for_it();
         SELECT pg_advisory_lock(7)",
    )
    .await
    .unwrap();
    west
}

async fn let_go(held: &Client) {
    held.batch_execute("SELECT pg_advisory_unlock(7)").await.unwrap();
}

/// No transaction waits at its end there any more.
async fn west_is_through(pgward: &Deployment) {
    let west = pgward.on_server(WEST).await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'PREPARE TRANS%'";
    until("the west is through", || async { answers(&west, waiting).await == "0" }).await;
}

async fn east_has_prepared(pgward: &Deployment) {
    until("the east has prepared", || async { prepared(pgward, EAST).await == "1" }).await;
}

#[track_caller]
fn code(result: &Result<u64, Error>) -> String {
    let error = result.as_ref().expect_err("the COPY fails");
    error.as_db_error().unwrap_or_else(|| panic!("an error of a server, not {error:?}")).code().code().to_owned()
}

async fn copies_again(pgward: &Deployment) {
    let client = pgward.app().await;
    until("the COPY goes again", || async { matches!(copy(&client, rows(pgward, "again")).await, Ok(2000)) }).await;
    assert_eq!(counts(pgward, "again").await, ["1000", "1000"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_lost_before_the_decision_undoes_the_other() {
    let pgward = two_shards().await;
    // Before it has prepared: the west, which waits.
    let held = hold_west_up(&pgward).await;
    let copying_now = copying(&pgward, "before").await;
    east_has_prepared(&pgward).await;
    pgward.node(WEST).crash();
    drop(held);
    assert_eq!(code(&in_time("the COPY", copying_now).await.unwrap()), "08006");
    pgward.node(WEST).start().unwrap();
    nothing_is_left_prepared(&pgward).await;
    assert_eq!(counts(&pgward, "before").await, ["0", "0"]);

    // When it has prepared: the east, which waits for the west.
    let held = hold_west_up(&pgward).await;
    until("the nodes are up", || async { copies_at_all(&pgward, &held).await }).await;
    let copying_now = copying(&pgward, "prepared").await;
    east_has_prepared(&pgward).await;
    pgward.node(EAST).crash();
    assert_eq!(code(&in_time("the COPY", copying_now).await.unwrap()), "08006");
    // The west was not waited for, and prepares when nobody is there any more.
    let_go(&held).await;
    west_is_through(&pgward).await;
    pgward.node(EAST).start().unwrap();
    nothing_is_left_prepared(&pgward).await;
    assert_eq!(counts(&pgward, "prepared").await, ["0", "0"]);
    copies_again(&pgward).await;
}

/// Whether rows of one shard are taken on both; the lock is not in their way then.
async fn copies_at_all(pgward: &Deployment, held: &Client) -> bool {
    let_go(held).await;
    let client = pgward.app().await;
    let both = copy(&client, rows(pgward, "ready")).await.is_ok();
    held.batch_execute("SELECT pg_advisory_lock(7)").await.unwrap();
    both
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_lost_behind_the_decision_is_told_when_it_is_back() {
    let pgward = two_shards().await;
    let held = hold_west_up(&pgward).await;
    let copying_now = copying(&pgward, "decided").await;
    east_has_prepared(&pgward).await;
    // It hears nothing any more, and the west prepares: the decision is made.
    pgward.node(EAST).pause();
    let_go(&held).await;
    let result = in_time("the COPY", copying_now).await.unwrap();
    assert_eq!(code(&result), "08007");
    let error = result.unwrap_err();
    let error = error.as_db_error().unwrap();
    let message = format!("this COPY is committed, but {EAST} could not be told yet");
    assert_eq!(error.message(), message);
    assert!(error.hint().unwrap().starts_with("Do not send the rows again"), "{error:?}");
    assert_eq!(count(&pgward, WEST, "decided").await, "1000");
    pgward.node(EAST).crash();
    pgward.node(EAST).start().unwrap();
    nothing_is_left_prepared(&pgward).await;
    assert_eq!(counts(&pgward, "decided").await, ["1000", "1000"]);
    copies_again(&pgward).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pgward_killed_before_the_decision_rolls_back_and_behind_it_commits() {
    let pgward = two_shards().await;
    // Among the rows.
    let client = pgward.app().await;
    let mut sink = Box::pin(client.copy_in(COPY).await.unwrap());
    sink.send(Bytes::from(rows(&pgward, "rows"))).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    pgward.restart(PGWARD).await.unwrap();
    assert!(sink.as_mut().finish().await.is_err());
    assert_eq!(counts(&pgward, "rows").await, ["0", "0"]);

    // The east has prepared, and the west does so when PgWard is gone.
    let held = hold_west_up(&pgward).await;
    let copying_now = copying(&pgward, "undecided").await;
    east_has_prepared(&pgward).await;
    pgward.with_instance(Instance::kill).unwrap();
    assert!(in_time("the COPY", copying_now).await.unwrap().unwrap_err().as_db_error().is_none());
    assert_eq!(prepared(&pgward, EAST).await, "1");
    pgward.restart(PGWARD).await.unwrap();
    until("the east has rolled back", || async { prepared(&pgward, EAST).await == "0" }).await;
    let_go(&held).await;
    west_is_through(&pgward).await;
    nothing_is_left_prepared(&pgward).await;
    assert_eq!(counts(&pgward, "undecided").await, ["0", "0"]);

    // The decision is made, and the east does not hear of it before all is lost.
    held.batch_execute("SELECT pg_advisory_lock(7)").await.unwrap();
    let copying_now = copying(&pgward, "decided").await;
    east_has_prepared(&pgward).await;
    pgward.node(EAST).pause();
    let_go(&held).await;
    until("the west has committed", || async { count(&pgward, WEST, "decided").await == "1000" }).await;
    pgward.with_instance(Instance::kill).unwrap();
    drop(in_time("the COPY", copying_now).await.unwrap().unwrap_err());
    pgward.node(EAST).crash();
    pgward.node(EAST).start().unwrap();
    assert_eq!(prepared(&pgward, EAST).await, "1");
    pgward.restart(PGWARD).await.unwrap();
    nothing_is_left_prepared(&pgward).await;
    assert_eq!(counts(&pgward, "decided").await, ["1000", "1000"]);
    // The west has committed, which nobody has noted.
    until("it is said", || async { pgward.log().contains("a transaction that was decided is not prepared here") })
        .await;
    copies_again(&pgward).await;
}

/// Prepares a transaction of nobody's in the name of this commit log, as the session's user `login` with `role` set.
async fn leave_prepared(pgward: &Deployment, node: &str, login: &str, role: &str, words: &str) {
    let log = pgward.files().config().with_file_name("directory.db.commits");
    let log = std::fs::read_to_string(log).unwrap();
    let name = log.split('"').nth(3).unwrap();
    let sql = format!(
        "SET SESSION AUTHORIZATION {login}; SET ROLE {role}; BEGIN; PREPARE TRANSACTION 'pgward:demo:{name}:0:{words}'"
    );
    let server = pgward.on_server(node).await;
    for statement in sql.split(';') {
        server.batch_execute(statement).await.unwrap();
    }
}

/// Its owner is the role that was set, which is no server role.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_prepared_in_another_role_is_ended() {
    let pgward = two_shards().await;
    let west = pgward.on_server(WEST).await;
    west.batch_execute(&format!("CREATE ROLE \"a \"\"reader\"; GRANT \"a \"\"reader\" TO {SERVER_ROLE}"))
        .await
        .unwrap();
    // One that no server role may end does not stand in the way of the others.
    leave_prepared(&pgward, WEST, "postgres", "postgres", "stuck").await;
    leave_prepared(&pgward, WEST, SERVER_ROLE, "\"a \"\"reader\"", "reader").await;
    let owner = "SELECT owner FROM pg_prepared_xacts WHERE gid LIKE '%:reader'";
    assert_eq!(answers(&west, owner).await, "a \"reader");
    until("the role's is ended", || async { prepared(&pgward, WEST).await == "1" }).await;
    until("the other is said", || async { pgward.log().contains(":stuck of postgres: as ") }).await;
    let gid = answers(&west, "SELECT gid FROM pg_prepared_xacts").await;
    assert!(gid.ends_with(":stuck"), "{gid}");
    west.batch_execute(&format!("ROLLBACK PREPARED '{gid}'")).await.unwrap();
}

/// A standby shows nothing of what it has received prepared. Looked at before its health is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_in_recovery_is_not_believed() {
    let tune = |layout: &mut Layout| layout.health = "interval = \"1h\"\n".to_owned();
    let pgward = start(Options { shards: 2, replicas: 0, patients: 40, tune }).await;
    leave_prepared(&pgward, WEST, "postgres", "postgres", "stuck").await;
    let west = pgward.node(WEST);
    west.stop(Shutdown::Fast);
    std::fs::write(west.dir().join("standby.signal"), "").unwrap();
    west.start().unwrap();
    assert_eq!(prepared(&pgward, WEST).await, "0", "it has one");
    until("it is not believed", || async { pgward.log().contains("the server is in recovery: what it has") }).await;
    west.stop(Shutdown::Fast);
    std::fs::remove_file(west.dir().join("standby.signal")).unwrap();
    west.start().unwrap();
    assert_eq!(prepared(&pgward, WEST).await, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_prepares_nothing_refuses_in_words() {
    let pgward = two_shards().await;
    pgward.on_server(WEST).await.batch_execute("ALTER SYSTEM SET max_prepared_transactions = 0").await.unwrap();
    pgward.node(WEST).stop(Shutdown::Fast);
    pgward.node(WEST).start().unwrap();
    let client = pgward.app().await;
    until("PgWard has seen it", || async { copy(&client, rows(&pgward, "refused")).await.is_err_and(is_refusal) })
        .await;
    assert_eq!(counts(&pgward, "refused").await, ["0", "0"]);
    // One shard needs none.
    let west = pgward.patient("us-west", 3).id;
    assert_eq!(copy(&client, format!("{west}\talone\tRash\tmild\n")).await.unwrap(), 1);
}

/// Sets how large the files may be that PgWard writes.
fn limit(pgward: &Deployment, bytes: &str) {
    let pid = pgward.with_instance(|instance| instance.pid()).to_string();
    let prlimit = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}:")]).output().unwrap();
    assert!(prlimit.status.success(), "{prlimit:?}");
}

/// An emergency goes on while the audit log takes nothing, but not without its decision.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_that_cannot_be_written_is_none() {
    let pgward = two_shards().await;
    let client = pgward.connect("emergency", "dispatcher").await;
    let log = pgward.files().config().with_file_name("directory.db.commits");
    let length = || std::fs::metadata(&log).unwrap().len();
    // The limit is one for all files: what PgWard says of its own must stay below it.
    let ids = ["us-east", "us-west"].map(|region| pgward.patient(region, 3).id);
    let two = ids.map(|id| format!("{id}\tbefore\tRash\tmild\n")).concat();
    for _ in 0..100 {
        copy(&client, two.clone()).await.unwrap();
    }
    until("the last is noted", || async { std::fs::read_to_string(&log).unwrap().matches("done").count() == 100 })
        .await;
    let before = length();
    assert!(before > std::fs::metadata(pgward.files().log()).unwrap().len() + 8192);
    // Half a line fits: what is torn must be mended.
    limit(&pgward, &(before + 20).to_string());
    for _ in 0..2 {
        assert_eq!(code(&in_time("the COPY", copy(&client, rows(&pgward, "unwritten"))).await), "58030");
        assert_eq!((prepared(&pgward, EAST).await, prepared(&pgward, WEST).await), ("0".into(), "0".into()));
        assert_eq!(length(), before);
    }
    assert_eq!(counts(&pgward, "unwritten").await, ["0", "0"]);
    limit(&pgward, "unlimited");
    assert_eq!(copy(&client, rows(&pgward, "written")).await.unwrap(), 2000);
    assert_eq!(counts(&pgward, "written").await, ["1000", "1000"]);
    assert!(length() > before);
}

fn is_refusal(error: Error) -> bool {
    let Some(error) = error.as_db_error() else { return false };
    error.code().code() == "55000"
        && error.message() == format!("rows of several shards cannot be copied: {WEST} does not prepare transactions")
        && error.hint().is_some_and(|hint| hint.contains("max_prepared_transactions"))
}

/// A cancel that comes while the first server is brought to the session's settings: the COPY is not told to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_before_the_first_server_has_heard_is_not_lost() {
    let tune = |layout: &mut Layout| layout.health = "interval = \"1h\"\n".to_owned();
    let pgward = start(Options { shards: 2, replicas: 0, patients: 40, tune }).await;
    let row = format!("{}\tunheard\tRash\tmild\n", pgward.patient("us-west", 3).id);
    // Leaves a server with other settings.
    assert_eq!(copy(&pgward.app().await, row.clone()).await.unwrap(), 1);
    let client = pgward.app().await;
    client.batch_execute("SET application_name = 'unheard'").await.unwrap();
    let token = client.cancel_token();
    pgward.node(WEST).pause();
    let copying = tokio::spawn(async move { copy(&client, row).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    token.cancel_query(tokio_postgres::NoTls).await.unwrap();
    pgward.node(WEST).resume();
    assert_eq!(code(&in_time("the COPY", copying).await.unwrap()), "57014");
    assert_eq!(count(&pgward, WEST, "unheard").await, "1");
}

/// Each holds a server that the other waits for: the waits end, and with them what was held.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_wait_for_each_others_servers_do_not_for_ever() {
    let tune = |layout: &mut Layout| {
        layout.pools = [(1, 1), (1, 1), (1, 1), (1, 1)];
        layout.wait_timeout = Some("1s");
    };
    let pgward = start(Options { shards: 2, replicas: 0, patients: 40, tune }).await;
    let [east, west] = ["us-east", "us-west"].map(|region| pgward.patient(region, 3).id);
    let row = |id: Uuid| Bytes::from(format!("{id}\tcrossed\tRash\tmild\n"));
    let (one, other) = (pgward.app().await, pgward.app().await);
    let mut sinks = [Box::pin(one.copy_in(COPY).await.unwrap()), Box::pin(other.copy_in(COPY).await.unwrap())];
    for (sink, first) in sinks.iter_mut().zip([east, west]) {
        sink.send(row(first)).await.unwrap();
        sink.flush().await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    for (sink, second) in sinks.iter_mut().zip([west, east]) {
        sink.send(row(second)).await.unwrap();
        sink.flush().await.unwrap();
    }
    let [a, b] = &mut sinks;
    let (a, b) = tokio::join!(in_time("one", a.as_mut().finish()), in_time("the other", b.as_mut().finish()));
    let stored = [&a, &b].iter().filter(|result| result.is_ok()).count();
    assert!(stored < 2);
    for failed in [&a, &b].into_iter().filter(|result| result.is_err()) {
        assert_eq!(code(failed), "53300");
    }
    assert_eq!(counts(&pgward, "crossed").await, [stored.to_string(), stored.to_string()]);
    assert_eq!(copy(&one, rows(&pgward, "again")).await.unwrap(), 2000);
    assert_eq!(copy(&other, rows(&pgward, "again")).await.unwrap(), 2000);
}
