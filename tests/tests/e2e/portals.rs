//! Portals of statements that PgWard answers itself behave as a server's do: each sequence is said to a server, too.

use bytes::BytesMut;
use pgward::demo::layout::SERVER_ROLE;
use pgward_tests::{Frame, SERVER_PASSWORD, WireClient};
use pgward_wire::{frame, frontend};

use crate::shared;

/// Messages of a segment, by their first letter: `Q`uery, `P`arse, `B`ind and `E`xecute of the portal and the statement
/// of a name.
#[derive(Clone, Copy)]
enum Say {
    Query(&'static str),
    Parse(&'static str, &'static str),
    Describe(&'static str),
    Bind(&'static str),
    Execute(&'static str),
    Sync,
}
use Say::{Bind, Describe, Execute, Parse, Query, Sync};

fn put(out: &mut BytesMut, say: Say) {
    match say {
        Query(sql) => frontend::put_query(out, sql.as_bytes()),
        Parse(name, sql) => frontend::put_parse(out, name.as_bytes(), sql.as_bytes(), &[]),
        Describe(name) => frame::put(out, b'D', &[b"S", name.as_bytes(), b"\0"].concat()),
        Bind(name) => {
            let body = [name.as_bytes(), b"\0", name.as_bytes(), b"\0\0\0\0\0\0\0"].concat();
            frame::put(out, b'B', &body);
        }
        Execute(name) => frame::put(out, b'E', &[name.as_bytes(), b"\0\0\0\0\0"].concat()),
        Sync => frontend::put_sync(out),
    }
}

/// Tags, with SQLSTATE or status.
fn told(frame: &Frame) -> String {
    match frame.tag {
        b'E' => frame.field(b'C').unwrap(),
        b'C' | b'Z' => String::from_utf8_lossy(&frame.body).trim_end_matches('\0').to_owned(),
        tag => char::from(tag).to_string(),
    }
}

async fn say(client: &mut WireClient, segment: &[Say]) -> Vec<String> {
    let mut said = Vec::new();
    for one in segment.split_inclusive(|say| matches!(say, Query(_) | Sync)) {
        let mut out = BytesMut::new();
        one.iter().for_each(|say| put(&mut out, *say));
        client.send(&out).await;
        said.extend(client.until_ready().await.iter().map(told));
    }
    said
}

#[tokio::test]
async fn a_portal_that_ran_answers_as_on_a_server() {
    let pgward = shared().await;
    let server = pgward.node("us-east-patients/primary").port();
    let sequences: [&[Say]; 12] = [
        &[Parse("", "BEGIN"), Bind(""), Execute(""), Execute(""), Sync, Query("ROLLBACK")],
        &[Query("BEGIN"), Parse("", "COMMIT"), Bind(""), Execute(""), Execute(""), Sync],
        &[Query("BEGIN"), Parse("", "SAVEPOINT a"), Bind(""), Execute(""), Execute(""), Sync, Query("ROLLBACK")],
        &[Query("BEGIN"), Parse("a", "SET work_mem TO '2MB'"), Bind("a"), Execute("a"), Sync, Execute("a"), Sync],
        &[Execute("a"), Sync, Query("ROLLBACK"), Query("DEALLOCATE ALL")],
        &[Parse("", ""), Bind(""), Execute(""), Execute(""), Sync],
        &[Query("BEGIN"), Parse("b", "COMMIT"), Bind("b"), Sync, Query("COMMIT"), Query("BEGIN"), Execute("b"), Sync],
        &[Query("ROLLBACK"), Query("DEALLOCATE ALL")],
        // In a failed transaction that has a server, and in one that has none.
        &[Query("BEGIN"), Query("SAVEPOINT a"), Query("SELECT 1/0"), Parse("", "RELEASE a"), Sync],
        &[Parse("", "SELECT 1"), Sync, Parse("", "ROLLBACK TO a"), Sync, Query("ROLLBACK")],
        &[Query("BEGIN"), Query("SAVEPOINT a"), Parse("", "SELEC"), Sync, Parse("", "RELEASE a"), Sync],
        &[Parse("", "SELECT 1"), Sync, Parse("", "ROLLBACK"), Sync, Query("ROLLBACK")],
    ];
    let mut direct = WireClient::login(server, SERVER_ROLE, SERVER_PASSWORD).await;
    let mut client = WireClient::login(pgward.port("general"), "app", "demo-app").await;
    for (n, sequence) in sequences.into_iter().enumerate() {
        assert_eq!(say(&mut client, sequence).await, say(&mut direct, sequence).await, "sequence {n}");
    }
}

#[tokio::test]
async fn a_setting_of_pgwards_own_is_shown_once() {
    let mut client = WireClient::login(shared().await.port("general"), "app", "demo-app").await;
    let show = [Parse("", "SHOW pgward.priority"), Bind(""), Execute(""), Execute(""), Sync];
    assert_eq!(say(&mut client, &show).await, ["1", "2", "D", "SHOW", "SHOW", "I"]);
}

#[tokio::test]
async fn a_client_has_so_many_portals_and_no_more() {
    let mut client = WireClient::login(shared().await.port("general"), "app", "demo-app").await;
    let mut out = BytesMut::new();
    put(&mut out, Query("BEGIN"));
    put(&mut out, Parse("s", "COMMIT"));
    for n in 0..10_001 {
        let body = [format!("p{n}").as_bytes(), b"\0s\0\0\0\0\0\0\0"].concat();
        frame::put(&mut out, b'B', &body);
    }
    put(&mut out, Sync);
    client.send(&out).await;
    client.until_ready().await;
    let frames = client.until_ready().await;
    assert_eq!(frames.len(), 10_003);
    assert_eq!(frames[10_001].field(b'C').unwrap(), "54000");
    assert_eq!(say(&mut client, &[Query("ROLLBACK"), Bind("s"), Sync]).await, ["ROLLBACK", "I", "2", "I"]);
}

/// Bound while the transaction had no server.
#[tokio::test]
async fn a_portal_from_before_the_server_is_no_commit() {
    let mut client = WireClient::login(shared().await.port("general"), "app", "demo-app").await;
    let bound = [Query("BEGIN"), Parse("c", "COMMIT"), Bind("c"), Sync, Query("SELECT 1"), Execute("c"), Sync];
    let answers = say(&mut client, &bound).await;
    assert_eq!(answers[answers.len() - 2..], ["0A000", "E"], "{answers:?}");
    assert_eq!(say(&mut client, &[Query("ROLLBACK")]).await, ["ROLLBACK", "I"]);
}

/// What waits for a server to be described may fail there.
#[tokio::test]
async fn what_stands_behind_a_failure_does_not_run() {
    let pgward = shared().await;
    let server = pgward.node("us-east-patients/primary").port();
    let nowhere = "SELECT nowhere";
    let sequences: [&[Say]; 10] = [
        &[Query("BEGIN"), Parse("x", nowhere), Describe("x"), Parse("", "COMMIT"), Bind(""), Execute(""), Sync],
        &[Query("SELECT 1"), Query("ROLLBACK")],
        &[Parse("x", nowhere), Describe("x"), Parse("", "BEGIN"), Bind(""), Execute(""), Sync, Query("SELECT 1")],
        &[Parse("x", nowhere), Parse("", "DISCARD ALL"), Bind(""), Execute(""), Sync, Query("SELECT 1")],
        &[Parse("y", "SELECT 1"), Describe("y"), Parse("", "BEGIN"), Bind(""), Execute(""), Sync, Query("SELECT 1")],
        &[Parse("", "COMMIT"), Bind(""), Execute(""), Sync, Bind("y"), Sync],
        // Skipped behind the error, and done without one.
        &[
            Parse("f", "SELECT 1/0"),
            Bind("f"),
            Execute("f"),
            Parse("", "DEALLOCATE ALL"),
            Bind(""),
            Execute(""),
            Sync,
            Bind("y"),
            Sync,
        ],
        &[Bind("y"), Execute("y"), Parse("", "DEALLOCATE y"), Bind(""), Execute(""), Sync, Bind("y"), Sync],
        // Answered where no Sync stands between.
        &[Parse("", "SELECT 1"), Query("BEGIN"), Query("COMMIT")],
        &[Parse("", "SELECT 1"), Query("")],
    ];
    let mut direct = WireClient::login(server, SERVER_ROLE, SERVER_PASSWORD).await;
    let mut client = WireClient::login(pgward.port("general"), "app", "demo-app").await;
    for (n, sequence) in sequences.into_iter().enumerate() {
        assert_eq!(say(&mut client, sequence).await, say(&mut direct, sequence).await, "sequence {n}");
    }
}
