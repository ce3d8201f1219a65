//! Transaction mode: servers shared by the clients of the same startup packet and password.

use std::collections::BTreeSet;

use bytes::BytesMut;
use pgward_tests::{PlainPooler, ROLE_PASSWORD, WireClient, answers, one, sqlstate};
use tokio_postgres::{Client, NoTls};

use crate::shared;

const PID: &str = "SELECT pg_backend_pid()";

/// A session by these words in the connection string.
async fn open(pgward: &PlainPooler, words: &str) -> Client {
    let config = format!("host=127.0.0.1 port={} dbname=postgres {words}", pgward.port("transaction-trust"));
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    client
}

async fn refusal(config: &str) -> tokio_postgres::error::DbError {
    let error = tokio_postgres::connect(config, NoTls).await.map(drop).unwrap_err();
    error.as_db_error().unwrap_or_else(|| panic!("{error:?}")).clone()
}

#[tokio::test]
async fn clients_alike_share_servers_and_others_do_not() {
    let pgward = shared().await;
    let mut servers = BTreeSet::new();
    for _ in 0..10 {
        let client = open(pgward, "user=trusted application_name=alike").await;
        servers.insert(answers(&client, PID).await);
        let other = open(pgward, "user=trusted application_name=other").await;
        let (mine, its) = (answers(&client, PID).await, answers(&other, PID).await);
        assert_ne!(mine, its);
        assert_eq!(answers(&other, "SHOW application_name").await, "other");
    }
    let (first, second) = (
        open(pgward, "user=trusted application_name=alike").await,
        open(pgward, "user=trusted application_name=alike").await,
    );
    // Idle ones are lent again: those that were used last first.
    assert_eq!(answers(&first, PID).await, answers(&second, PID).await);
    first.batch_execute("BEGIN").await.unwrap();
    let held = answers(&first, PID).await;
    assert_ne!(answers(&second, PID).await, held, "a transaction keeps its server");
    assert_eq!(answers(&first, PID).await, held);
    first.batch_execute("COMMIT").await.unwrap();
}

#[tokio::test]
async fn a_password_is_proved_to_the_server_at_each_login() {
    let pgward = shared().await;
    for user in ["by_scram", "by_md5", "in_clear"] {
        let client = pgward.connect("transaction", user).await.unwrap();
        assert_eq!(answers(&client, "SELECT session_user").await, user);
        // More than the one that was opened at login.
        client.batch_execute("BEGIN").await.unwrap();
        let other = pgward.connect("transaction", user).await.unwrap();
        other.batch_execute("BEGIN").await.unwrap();
        assert_ne!(answers(&client, PID).await, answers(&other, PID).await);
        let wrong = pgward.url("transaction", user, "postgres").replace(ROLE_PASSWORD, "wrong");
        let error = refusal(&wrong).await;
        assert_eq!(error.code().code(), "28P01", "{error:?}");
        assert_eq!(error.message(), format!("password authentication failed for user \"{user}\""));
    }
    let error = refusal(&pgward.url("transaction", "trusted", "postgres")).await;
    assert_eq!(error.code().code(), "28000", "who proves nothing comes in by a listener that trusts: {error:?}");
    let error = refusal(&pgward.url("transaction-trust", "trusted", "nowhere")).await;
    assert_eq!((error.code().code(), error.message()), ("3D000", "database \"nowhere\" does not exist"));
}

#[tokio::test]
async fn a_password_that_was_changed_lets_nobody_in_any_more() {
    let pgward = shared().await;
    let superuser = pgward.on_server().await;
    superuser.batch_execute("CREATE ROLE changing LOGIN PASSWORD 'of-a-role'").await.unwrap();
    let client = pgward.connect("transaction", "changing").await.unwrap();
    assert_eq!(answers(&client, "SELECT 1").await, "1");
    superuser.batch_execute("ALTER ROLE changing PASSWORD 'another'").await.unwrap();
    assert_eq!(refusal(&pgward.url("transaction", "changing", "postgres")).await.code().code(), "28P01");
    let url = pgward.url("transaction", "changing", "postgres").replace(ROLE_PASSWORD, "another");
    tokio_postgres::connect(&url, NoTls).await.map(drop).unwrap();
}

#[tokio::test]
async fn what_a_session_leaves_behind_keeps_its_server_and_reaches_nobody_else() {
    let pgward = shared().await;
    let words = "user=trusted application_name=leaving";
    for (leave, look, mine) in [
        ("SET work_mem = '9MB'", "SHOW work_mem", "9MB"),
        ("SELECT set_config('work_mem', '10MB', false)", "SHOW work_mem", "10MB"),
        ("DO $$ BEGIN PERFORM set_config('work_mem', '11MB', false); END $$", "SHOW work_mem", "11MB"),
        ("CREATE TEMP TABLE t AS SELECT 7 AS a", "SELECT a FROM t", "7"),
        ("CREATE FUNCTION pg_temp.seven() RETURNS int LANGUAGE sql AS 'SELECT 7'", "SELECT pg_temp.seven()", "7"),
        ("PREPARE p AS SELECT 7", "EXECUTE p", "7"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 7", "FETCH c", "7"),
        (
            "SELECT pg_advisory_lock(7)",
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
            "1",
        ),
        ("SET ROLE NONE", "SELECT current_user", "trusted"),
    ] {
        let client = open(pgward, words).await;
        client.batch_execute(leave).await.unwrap_or_else(|error| panic!("{leave}: {error:?}"));
        let pid = answers(&client, PID).await;
        let other = open(pgward, words).await;
        other.batch_execute("BEGIN; SELECT 1; COMMIT").await.unwrap();
        assert_eq!(answers(&client, PID).await, pid, "{leave}: it keeps its server");
        assert_ne!(answers(&other, PID).await, pid, "{leave}: and nobody else has it");
        assert_eq!(answers(&client, look).await, mine, "{leave}");
        drop(client);
    }
    // Wiped when their clients had left; whoever gets one now finds it as it was at its start.
    for _ in 0..20 {
        let client = open(pgward, words).await;
        assert_eq!(answers(&client, "SHOW work_mem").await, "4MB");
        assert_eq!(sqlstate(one(&client, "SELECT a FROM t").await), "42P01");
        assert_eq!(sqlstate(one(&client, "EXECUTE p").await), "26000");
    }
}

#[tokio::test]
async fn what_functions_leave_behind_reaches_nobody() {
    let pgward = shared().await;
    pgward
        .on_server()
        .await
        .batch_execute(
            "CREATE FUNCTION public.sets() RETURNS int LANGUAGE plpgsql AS \
             'BEGIN PERFORM set_config(''work_mem'', ''13MB'', false); RETURN 1; END'",
        )
        .await
        .unwrap();
    let words = "user=trusted application_name=functions";
    let client = open(pgward, words).await;
    for _ in 0..10 {
        assert_eq!(answers(&client, "SELECT public.sets()").await, "1");
        let other = open(pgward, words).await;
        assert_eq!(answers(&other, "SHOW work_mem").await, "4MB");
        assert_eq!(answers(&client, "SHOW work_mem").await, "4MB");
    }
}

#[tokio::test]
async fn named_statements_keep_the_server_and_unnamed_ones_follow_the_client() {
    let pgward = shared().await;
    let client = open(pgward, "user=trusted application_name=prepared").await;
    let statement = client.prepare("SELECT $1::int + 1").await.unwrap();
    for n in 0..5 {
        assert_eq!(client.query_one(&statement, &[&n]).await.unwrap().get::<_, i32>(0), n + 1);
    }

    let mut packet = BytesMut::new();
    let params = [("user", "trusted"), ("database", "postgres"), ("application_name", "unnamed")];
    pgward_wire::startup::put(&mut packet, params);
    let mut client = WireClient::open(pgward.port("transaction-trust")).await;
    client.send(&packet).await;
    client.until_ready().await;
    let mut parse = BytesMut::new();
    pgward_wire::frontend::put_parse(&mut parse, b"", b"SELECT pg_backend_pid()", &[]);
    pgward_wire::frontend::put_sync(&mut parse);
    client.send(&parse).await;
    assert_eq!(client.until_ready().await.iter().map(|frame| frame.tag).collect::<Vec<_>>(), b"1Z");
    let mut run = BytesMut::new();
    pgward_wire::frame::put(&mut run, b'B', b"\0\0\0\0\0\0\0\0");
    pgward_wire::frame::put(&mut run, b'E', b"\0\0\0\0\0");
    pgward_wire::frontend::put_sync(&mut run);
    for _ in 0..3 {
        // Somebody else takes the server that has heard it.
        let other = open(pgward, "user=trusted application_name=unnamed").await;
        other.batch_execute("BEGIN").await.unwrap();
        answers(&other, "SELECT 1").await;
        client.send(&run).await;
        let answer = client.until_ready().await;
        assert_eq!(answer.iter().map(|frame| frame.tag).collect::<Vec<_>>(), b"2DCZ", "{answer:?}");
        other.batch_execute("COMMIT").await.unwrap();
    }
    // A Query destroys it.
    client.query("SELECT 1").await;
    client.send(&run).await;
    let answer = client.until_ready().await;
    assert_eq!(answer[0].field(b'C').as_deref(), Some("26000"), "{answer:?}");
}

#[tokio::test]
async fn no_statement_is_refused() {
    let pgward = shared().await;
    let client = open(pgward, "user=trusted application_name=anything").await;
    assert_eq!(sqlstate(client.simple_query("this is no SQL").await), "42601");
    assert_eq!(sqlstate(client.simple_query("CREATE ROLE nobody").await), "42501");
    client.batch_execute("SELECT 1; SELECT 2").await.unwrap();
    client.batch_execute("PREPARE TRANSACTION 'outside of one, which is a warning'").await.unwrap();
    let words = "user=trusted application_name=unreadable options='-c standard_conforming_strings=off'";
    let client = open(pgward, words).await;
    let pid = answers(&client, PID).await;
    let other = open(pgward, words).await;
    assert_ne!(answers(&other, PID).await, pid, "what cannot be read keeps its server");
    assert_eq!(answers(&client, PID).await, pid);
}

#[tokio::test]
async fn there_are_no_more_pools_than_may_be() {
    let pgward = PlainPooler::start(env!("CARGO_BIN_EXE_pgward-under-test"), "max_pools = 2").await.unwrap();
    let first = open(&pgward, "user=trusted application_name=a").await;
    let second = open(&pgward, "user=trusted application_name=b").await;
    let config = format!(
        "host=127.0.0.1 port={} dbname=postgres user=trusted application_name=c",
        pgward.port("transaction-trust")
    );
    let error = refusal(&config).await;
    assert_eq!(error.code().code(), "53300");
    assert!(error.detail().is_some_and(|detail| detail.contains("max_pools")), "{error:?}");
    assert_eq!(answers(&first, "SELECT 1").await, "1");
    // One that nobody uses any more makes room, with its connections.
    drop(second);
    let mut tries = 0;
    while let Err(error) = tokio_postgres::connect(&config, NoTls).await.map(drop) {
        assert_eq!(error.code().unwrap().code(), "53300");
        tries += 1;
        assert!(tries < 500, "{error:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Servers of version 18 leave the transaction of such a Query open and say that there is none.
#[tokio::test]
async fn a_transaction_that_is_left_open_unsaid_reaches_nobody() {
    let pgward = shared().await;
    let superuser = pgward.on_server().await;
    superuser.batch_execute("CREATE TABLE kept (a int); GRANT ALL ON kept TO PUBLIC").await.unwrap();
    let words = "user=trusted application_name=unsynced";
    let mut packet = BytesMut::new();
    let params = [("user", "trusted"), ("database", "postgres"), ("application_name", "unsynced")];
    pgward_wire::startup::put(&mut packet, params);
    let mut client = WireClient::open(pgward.port("transaction-trust")).await;
    client.send(&packet).await;
    client.until_ready().await;
    for round in 1..=3 {
        let mut bytes = BytesMut::new();
        pgward_wire::frontend::put_parse(&mut bytes, b"", b"SELECT 1", &[]);
        pgward_wire::frame::put(&mut bytes, b'B', b"\0\0\0\0\0\0\0\0");
        pgward_wire::frame::put(&mut bytes, b'E', b"\0\0\0\0\0");
        pgward_wire::frontend::put_query(&mut bytes, b"SELECT 2");
        pgward_wire::frontend::put_sync(&mut bytes);
        client.send(&bytes).await;
        let tags: Vec<u8> = client.until_ready().await.iter().map(|frame| frame.tag).collect();
        assert_eq!(tags, b"12DCTDCZ");
        client.until_ready().await;
        let other = open(pgward, words).await;
        other.batch_execute("INSERT INTO kept VALUES (1)").await.unwrap();
        assert_eq!(answers(&superuser, "SELECT count(*) FROM kept").await, round.to_string());
    }
    superuser.batch_execute("DROP TABLE kept").await.unwrap();
}
