//! Clients that fall silent with a transaction open.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use pgward::demo::layout::Layout;
use pgward_tests::{Options, WireClient, answers};
use pgward_wire::{frame, frontend};

use crate::start;

fn impatient(layout: &mut Layout) {
    layout.proxy.push_str("idle_in_transaction_timeout = \"1s\"\n");
}

/// Both keep a server from others: the one that said BEGIN, and the one whose Sync does not come.
#[tokio::test]
async fn who_is_silent_in_a_transaction_is_sent_away_also_behind_a_flush() {
    let pgward = start(Options { shards: 1, replicas: 0, patients: 80, tune: impatient }).await;
    let id = pgward.patient("us-east", 0).id;
    let write = format!("UPDATE patients SET mrn = 'SILENT' WHERE id = '{id}'");

    let mut begun = WireClient::login(pgward.port("general"), "app", "demo-app").await;
    begun.query("BEGIN").await;
    begun.query(&write).await;
    let mut flushed = WireClient::login(pgward.port("general"), "app", "demo-app").await;
    let mut out = BytesMut::new();
    let other = format!("UPDATE patients SET mrn = 'SILENT' WHERE id = '{}'", pgward.patient("us-east", 1).id);
    frontend::put_parse(&mut out, b"", other.as_bytes(), &[]);
    frame::put(&mut out, b'B', b"\0\0\0\0\0\0\0\0");
    frame::put(&mut out, b'E', b"\0\0\0\0\0");
    frontend::put_flush(&mut out);
    flushed.send(&out).await;
    for tag in *b"12C" {
        assert_eq!(flushed.frame().await.expect("the answer").tag, tag);
    }

    let silent = Instant::now();
    for client in [&mut begun, &mut flushed] {
        let farewell = client.frame().await.expect("a word before the end");
        assert_eq!((farewell.tag, farewell.field(b'C').unwrap().as_str()), (b'E', "25P03"));
        assert!(client.frame().await.is_none());
    }
    assert!(silent.elapsed() < Duration::from_secs(20), "{:?}", silent.elapsed());
    let primary = pgward.on_server("us-east-patients/primary").await;
    assert_eq!(answers(&primary, "SELECT count(*) FROM patients WHERE mrn = 'SILENT'").await, "0");
}

/// What a server says unasked begins no transaction.
#[tokio::test]
async fn who_only_listens_is_not_idle_in_a_transaction() {
    let pgward = start(Options { shards: 1, replicas: 0, patients: 80, tune: impatient }).await;
    let mut listener = WireClient::login(pgward.port("general"), "app", "demo-app").await;
    listener.query("LISTEN arrivals").await;
    let speaker = pgward.app().await;
    for word in ["first", "second"] {
        speaker.simple_query(&format!("NOTIFY arrivals, '{word}'")).await.unwrap();
        assert_eq!(listener.frame().await.expect("the listener is still there").tag, b'A', "{word}");
        // Longer than anybody may be silent in a transaction, and than it takes to be found.
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    let frames = listener.query("SELECT 1").await;
    assert_eq!(frames.iter().map(|frame| char::from(frame.tag)).collect::<String>(), "TDCZ");
}

/// A statement that waited in the proxy for the answer to another is running, and its client has nothing to say.
#[tokio::test]
async fn who_waits_for_a_long_statement_is_not_idle_in_a_transaction() {
    let pgward = start(Options { shards: 1, replicas: 0, patients: 80, tune: impatient }).await;
    let mut client = WireClient::login(pgward.port("general"), "app", "demo-app").await;
    client.query("BEGIN").await;
    let mut both = BytesMut::new();
    frontend::put_query(&mut both, b"SELECT 1");
    frontend::put_query(&mut both, b"SELECT pg_sleep(4)");
    client.send(&both).await;
    for _ in 0..2 {
        let frames = client.until_ready().await;
        assert_eq!(frames.iter().map(|frame| char::from(frame.tag)).collect::<String>(), "TDCZ");
    }
}
