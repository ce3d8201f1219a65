//! A server that has only described a statement: what the session does meanwhile is not its own.

use bytes::BytesMut;
use pgward::demo::layout::Layout;
use pgward_tests::{Deployment, Frame, Options, WireClient, answers};
use pgward_wire::{frame, frontend};

use crate::start;

/// So few servers that the next session has the same.
fn tiny(layout: &mut Layout) {
    layout.pools = [(1, 1), (1, 3), (1, 1), (1, 1)];
}

async fn deployment() -> (Deployment, WireClient) {
    let pgward = start(Options { shards: 1, replicas: 0, patients: 80, tune: tiny }).await;
    let client = WireClient::login(pgward.port("general"), "app", "demo-app").await;
    (pgward, client)
}

fn tags(frames: &[Frame]) -> String {
    frames.iter().map(|frame| char::from(frame.tag)).collect()
}

/// Parse of `sql` as the unnamed statement, Bind, Execute.
fn run(out: &mut BytesMut, sql: &str) {
    frontend::put_parse(out, b"", sql.as_bytes(), &[]);
    frame::put(out, b'B', b"\0\0\0\0\0\0\0\0");
    frame::put(out, b'E', b"\0\0\0\0\0");
}

#[tokio::test]
async fn its_settings_are_known_though_the_session_forgets_its_own() {
    let (pgward, mut client) = deployment().await;
    client.query("SET app.mine = 'secret'").await;
    let mut out = BytesMut::new();
    frontend::put_parse(&mut out, b"", b"SELECT 1", &[]);
    frontend::put_flush(&mut out);
    run(&mut out, "DISCARD ALL");
    frontend::put_sync(&mut out);
    client.send(&out).await;
    assert_eq!(tags(&client.until_ready().await), "112CZ");
    for _ in 0..4 {
        let other = pgward.app().await;
        let seen = answers(&other, "SELECT coalesce(current_setting('app.mine', true), '')").await;
        assert_eq!(seen, "", "another session's setting");
    }
}

#[tokio::test]
async fn when_it_is_lost_the_transaction_that_has_no_server_yet_fails() {
    let (pgward, mut client) = deployment().await;
    client.query("BEGIN").await;
    let mut out = BytesMut::new();
    frontend::put_parse(&mut out, b"s", b"SELECT 1", &[]);
    frontend::put_flush(&mut out);
    client.send(&out).await;
    assert_eq!(client.frame().await.expect("ParseComplete").tag, b'1');
    let primary = pgward.on_server("us-east-patients/primary").await;
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'pgward_app'";
    answers(&primary, end).await;

    let id = pgward.patient("us-east", 0).id;
    let write = format!("UPDATE patients SET mrn = 'LOST' WHERE id = '{id}'");
    let mut failed = false;
    for sql in [&write[..], &write, "COMMIT"] {
        let frames = client.query(sql).await;
        failed |= frames.iter().any(|frame| frame.tag == b'E');
    }
    assert!(failed, "the client hears of it");
    assert_eq!(answers(&primary, "SELECT count(*) FROM patients WHERE mrn = 'LOST'").await, "0");
}

/// The server dies when it has been told that the segment is over, and not answered: it had nothing of the client's to
/// lose.
#[tokio::test]
async fn when_it_is_lost_as_it_is_left_every_query_is_answered() {
    let (pgward, mut client) = deployment().await;
    let primary = pgward.on_server("us-east-patients/primary").await;
    let backends = "FROM pg_stat_activity WHERE usename = 'pgward_app' AND application_name <> 'pgward probe'";
    let id = pgward.patient("us-east", 0).id;
    let write = format!("UPDATE patients SET mrn = mrn WHERE id = '{id}'");
    for block in [false, true] {
        if block {
            client.query("BEGIN").await;
        }
        let mut out = BytesMut::new();
        frontend::put_parse(&mut out, b"", b"SELECT 1", &[]);
        frontend::put_flush(&mut out);
        client.send(&out).await;
        assert_eq!(client.frame().await.expect("ParseComplete").tag, b'1');

        let pids = answers(&primary, &format!("SELECT string_agg(pid::text, ' ') {backends}")).await;
        signal("-STOP", &pids);
        let mut query = BytesMut::new();
        frontend::put_query(&mut query, write.as_bytes());
        client.send(&query).await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        answers(&primary, &format!("SELECT count(pg_terminate_backend(pid)) {backends}")).await;
        signal("-CONT", &pids);
        let answer = tags(&client.until_ready().await);
        if block {
            assert!(["EZ", "CZ"].contains(&&*answer), "{answer}");
            client.query("ROLLBACK").await;
        } else {
            assert_eq!(answer, "CZ", "the query had not been sent anywhere");
        }
    }
}

fn signal(signal: &str, pids: &str) {
    let sent = std::process::Command::new("kill").arg(signal).args(pids.split(' ')).status().expect("kill runs");
    assert!(sent.success());
}
