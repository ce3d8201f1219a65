//! Clients that send more than they read, or than a server answers: they wait, and nothing is lost.

use std::time::Duration;

use bytes::BytesMut;
use pgward_tests::{WireClient, answers, sqlstate};
use pgward_wire::{frame, frontend};

use crate::shared;

async fn session() -> WireClient {
    WireClient::login(shared().await.port("general"), "app", "demo-app").await
}

/// A thousand of this Query.
fn thousand(sql: &str) -> BytesMut {
    let mut queries = BytesMut::new();
    for _ in 0..1000 {
        frontend::put_query(&mut queries, sql.as_bytes());
    }
    queries
}

/// Sends these queries again and again until nothing more is taken: how many bytes were.
async fn until_unheard(client: &mut WireClient, queries: &BytesMut) -> usize {
    let mut sent = 0;
    // More than all buffers on the way hold, of the client's and of the answers.
    while sent < 64 * 1024 * 1024 {
        let taken = client.send_in(Duration::from_secs(1), queries).await;
        sent += taken;
        if taken < queries.len() {
            return sent;
        }
    }
    panic!("all of it was taken");
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_not_heard_any_more() {
    let mut client = session().await;
    until_unheard(&mut client, &thousand("refused, for its syntax")).await;

    let mut client = session().await;
    let queries = thousand("SHOW pgward.priority");
    let sent = until_unheard(&mut client, &queries).await;
    for _ in 0..sent / (queries.len() / 1000) {
        assert_eq!(client.until_ready().await.last().map(|frame| frame.tag), Some(b'Z'));
    }
    // The rest of the one that was cut, which there is room for now.
    client.send(&queries[sent % queries.len()..]).await;
    assert_eq!(client.until_ready().await.last().map(|frame| frame.tag), Some(b'Z'));
}

#[tokio::test]
async fn a_long_segment_is_answered_in_order() {
    let mut client = session().await;
    // Without a Sync, and so without a server: text that would be kept for it.
    let text = format!("SELECT '{}'", "x".repeat(300_000));
    let mut segment = BytesMut::new();
    for _ in 0..20 {
        frontend::put_parse(&mut segment, b"", text.as_bytes(), &[]);
    }
    // Behind a server that is busy.
    frontend::put_parse(&mut segment, b"", b"SELECT pg_sleep(1)", &[]);
    frame::put(&mut segment, b'B', b"\0\0\0\0\0\0\0\0");
    frame::put(&mut segment, b'E', b"\0\0\0\0\0");
    frontend::put_flush(&mut segment);
    for _ in 0..20_000 {
        frontend::put_close_statement(&mut segment, b"unknown");
    }
    frontend::put_parse(&mut segment, b"", b"SELECT 1/0", &[]);
    frame::put(&mut segment, b'B', b"\0\0\0\0\0\0\0\0");
    frame::put(&mut segment, b'E', b"\0\0\0\0\0");
    for _ in 0..20_000 {
        frontend::put_close_statement(&mut segment, b"unknown");
    }
    frontend::put_sync(&mut segment);
    client.send(&segment).await;
    let tags: String = client.until_ready().await.iter().map(|frame| char::from(frame.tag)).collect();
    let expected = format!("{}12DC{}1EZ", "1".repeat(20), "3".repeat(20_000));
    assert!(tags == expected, "{} answers", tags.len());
    let again = client.query("SELECT 1").await;
    assert_eq!(again.iter().map(|frame| char::from(frame.tag)).collect::<String>(), "TDCZ");
}

#[tokio::test]
async fn an_error_in_a_long_segment_ends_it() {
    let mut client = session().await;
    let text = format!("SELECT '{}'", "x".repeat(200_000));
    let mut segment = BytesMut::new();
    for _ in 0..10 {
        frontend::put_parse(&mut segment, b"", text.as_bytes(), &[]);
    }
    frontend::put_parse(&mut segment, b"", b"SELECT FROM nowhere", &[]);
    frontend::put_parse(&mut segment, b"", text.as_bytes(), &[]);
    frontend::put_sync(&mut segment);
    client.send(&segment).await;
    let tags: String = client.until_ready().await.iter().map(|frame| char::from(frame.tag)).collect();
    assert_eq!(tags, "1111111111EZ");
}

/// A value of so many bytes.
fn value(bytes: usize) -> String {
    format!("'{}'", "v".repeat(bytes))
}

#[tokio::test]
async fn settings_are_kept_up_to_a_limit() {
    let client = shared().await.app().await;
    let set = async |sql: String| client.simple_query(&sql).await.map(drop);
    assert_eq!(sqlstate(set(format!("SET app.big = {}", value(70_000))).await), "54000");
    set(format!("SET app.one = {}", value(40_000))).await.unwrap();
    assert_eq!(sqlstate(set(format!("SET app.two = {}", value(40_000))).await), "54000");
    assert_eq!(sqlstate(set(format!("SELECT set_config('app.two', {}, false)", value(40_000))).await), "54000");
    assert_eq!(answers(&client, "SELECT length(current_setting('app.one'))").await, "40000");
    // One value for another, and one that is gone, make room.
    set(format!("SET app.one = {}", value(41_000))).await.unwrap();
    set("RESET app.one".to_owned()).await.unwrap();
    set(format!("SET app.two = {}", value(40_000))).await.unwrap();
    assert_eq!(answers(&client, "SELECT length(current_setting('app.two'))").await, "40000");
}

#[tokio::test]
async fn what_a_transaction_changes_is_kept_up_to_a_limit() {
    let client = shared().await.app().await;
    for (begin, sql, most) in [
        ("BEGIN", format!("SET LOCAL app.here = {}", value(30_000)), 2),
        ("BEGIN", format!("SET app.here = {}", value(30_000)), 2),
        ("BEGIN", format!("SAVEPOINT s /* {} */", value(20_000)), 3),
        ("BEGIN; SELECT 1", format!("SET app.here = {}", value(40_000)), 6),
    ] {
        client.simple_query(begin).await.unwrap();
        for _ in 0..most {
            client.simple_query(&sql).await.unwrap();
        }
        assert_eq!(sqlstate(client.simple_query(&sql).await), "54000", "{begin} {}", &sql[..20]);
        assert_eq!(sqlstate(client.simple_query("SELECT 1").await), "25P02");
        client.simple_query("ROLLBACK").await.unwrap();
        assert_eq!(answers(&client, "SELECT coalesce(current_setting('app.here', true), '')").await, "");
    }
    let long = format!("BEGIN /* {} */", value(70_000));
    assert_eq!(sqlstate(client.simple_query(&long).await), "54000");
    assert_eq!(answers(&client, "SELECT 1").await, "1");
}
