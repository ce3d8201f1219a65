//! What one client can make PgWard hold, whatever it sends and however little it reads.

use std::time::Duration;

use bytes::BytesMut;
use pgward_tests::{Options, WireClient};
use pgward_wire::{frame, frontend};

use crate::copy::{bounded, peak};
use crate::start;

#[tokio::test]
#[ignore = "hundreds of MB: cargo test -p pgward-tests --test operations bounded -- --ignored --nocapture"]
async fn memory_is_bounded_whatever_one_client_sends() {
    let pgward = start(Options { shards: 1, replicas: 0, patients: 8, ..Options::default() }).await;
    let session = async || WireClient::login(pgward.port("general"), "app", "demo-app").await;
    let value = |bytes: usize, n: usize| format!("'{n}{}'", "v".repeat(bytes));
    let (before, mega) = (peak(&pgward), 1024 * 1024);

    let mut client = session().await;
    let mut unread = BytesMut::new();
    for _ in 0..800_000 {
        frontend::put_query(&mut unread, b"SHOW pgward.priority");
    }
    client.send_in(Duration::from_secs(1), &unread).await;
    bounded(&pgward, before, "a client that reads nothing");

    let mut client = session().await;
    for n in 0..150 {
        let mut parse = BytesMut::new();
        frontend::put_parse(&mut parse, b"", format!("SELECT {}", value(mega, n)).as_bytes(), &[]);
        client.send(&parse).await;
    }
    client.send(b"S\0\0\0\x04").await;
    assert_eq!(client.until_ready().await.len(), 151);
    bounded(&pgward, before, "150 MB of Parse before their Sync");

    for n in 0..1500 {
        client.query(&format!("SET app.big = {}", value(60_000, n))).await;
    }
    bounded(&pgward, before, "90 MB of settings, one after the other");

    client.query("BEGIN").await;
    for n in 0..100 {
        client.query(&format!("SET LOCAL app.big = {}", value(mega, n))).await;
    }
    bounded(&pgward, before, "100 MB of a transaction without a server");

    let mut client = session().await;
    let mut busy = BytesMut::new();
    frontend::put_parse(&mut busy, b"", b"SELECT pg_sleep(3)", &[]);
    frame::put(&mut busy, b'B', b"\0\0\0\0\0\0\0\0");
    frame::put(&mut busy, b'E', b"\0\0\0\0\0");
    frontend::put_flush(&mut busy);
    for _ in 0..1_000_000 {
        frontend::put_close_statement(&mut busy, b"unknown");
    }
    client.send_in(Duration::from_secs(1), &busy).await;
    bounded(&pgward, before, "a million replies behind a server that is busy");
}
