//! Clients that vanish, lie or overdo it, and leave no trace with anybody else.

use std::time::Duration;

use bytes::BytesMut;
use pgward_tests::{WireClient, answers};
use pgward_wire::frontend;

use crate::shared;

async fn session() -> WireClient {
    let pgward = shared().await;
    WireClient::login(pgward.port("general"), "app", "demo-app").await
}

fn query(sql: &str) -> BytesMut {
    let mut out = BytesMut::new();
    frontend::put_query(&mut out, sql.as_bytes());
    out
}

/// More often than there are servers in the pool: each vanishing must give its server back or close it.
#[tokio::test]
async fn clients_that_vanish_in_a_transaction_leave_nothing_locked() {
    let pgward = shared().await;
    let id = pgward.patient("us-west", 40).id;
    let update = format!("UPDATE patients SET updated_at = now() WHERE id = '{id}'");
    for _ in 0..40 {
        let mut client = session().await;
        client.query("BEGIN").await;
        client.query(&update).await;
        drop(client);
    }
    let client = pgward.app().await;
    let updated = tokio::time::timeout(Duration::from_secs(5), client.simple_query(&update));
    updated.await.expect("nothing holds the row").unwrap();
}

#[tokio::test]
async fn clients_that_vanish_at_any_byte_do_not_matter() {
    let pgward = shared().await;
    let id = pgward.patient("us-west", 41).id;
    let whole = query(&format!("UPDATE patients SET updated_at = now() WHERE id = '{id}'"));
    for cut in [1, 4, 5, 6, whole.len() / 2, whole.len() - 1, whole.len()] {
        let mut client = session().await;
        client.send(&whole[..cut]).await;
        drop(client);
    }
    let client = pgward.app().await;
    assert_eq!(answers(&client, "SELECT 1").await, "1");
}

#[tokio::test]
async fn a_vanished_copy_leaves_no_rows() {
    let pgward = shared().await;
    let id = pgward.patient("us-west", 42).id;
    let mut client = session().await;
    client.send(&query("COPY allergies (patient_id, substance, reaction, severity) FROM STDIN")).await;
    assert_eq!(client.frame().await.unwrap().tag, b'G');
    let row = format!("{id}\tVanished\tRash\tmild\n");
    let mut data = BytesMut::from(&b"d"[..]);
    data.extend((u32::try_from(row.len()).unwrap() + 4).to_be_bytes());
    data.extend(row.as_bytes());
    client.send(&data).await;
    drop(client);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let primary = pgward.on_server("us-west-patients/primary").await;
    assert_eq!(answers(&primary, "SELECT count(*) FROM allergies WHERE substance = 'Vanished'").await, "0");
}

#[tokio::test]
async fn lies_about_lengths_end_one_session_with_an_error() {
    let pgward = shared().await;
    for lie in [
        // A length below that of the length field itself.
        &b"Q\0\0\0\x03"[..],
        // A query without its NUL, and with bytes behind it.
        b"Q\0\0\0\x0cSELECT 1",
        b"Q\0\0\0\x0eSELECT 1\0\0",
        // Two gigabytes, which nobody must reserve.
        b"Q\x7f\xff\xff\xff",
        // A body where there is none.
        b"S\0\0\0\x05\0",
        b"H\0\0\0\x08SyncS\0\0\0\x04",
        // A type that does not exist.
        b"y\0\0\0\x04",
    ] {
        let mut client = session().await;
        client.send(lie).await;
        let frames = client.until_ready().await;
        let error = frames.iter().find(|frame| frame.tag == b'E').unwrap_or_else(|| panic!("{lie:?}: {frames:?}"));
        let code = error.field(b'C').unwrap();
        assert!(["08P01", "54000"].contains(&code.as_str()), "{lie:?}: {code}");
    }
    let client = pgward.app().await;
    assert_eq!(answers(&client, "SELECT 1").await, "1");
}

#[tokio::test]
async fn a_startup_packet_that_is_too_large_is_refused() {
    let pgward = shared().await;
    let mut client = WireClient::open(pgward.port("general")).await;
    client.send(&1_000_000_u32.to_be_bytes()).await;
    client.send(&[0, 3, 0, 0]).await;
    if let Some(frame) = client.frame().await {
        assert_eq!(frame.tag, b'E');
    }
    assert_eq!(client.frame().await, None);
}
