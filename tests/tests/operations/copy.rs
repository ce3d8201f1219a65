//! A COPY of any size goes through a small PgWard: whoever is slow, client or server, holds up the other.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{SinkExt, TryStreamExt};
use pgward_tests::{Deployment, Options, answers};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::start;

const ROWS: usize = 38_000;
/// Bytes of the long value of a row: 300 MB in all.
const VALUE: usize = 8_000;
/// What PgWard may grow by: buffers of the way, and the allocator's slack.
const GROWTH_MAX_KB: u64 = 16 * 1024;

#[tokio::test]
#[ignore = "six COPYs of 300 MB take most of a minute: cargo test -p pgward-tests --test operations bounded -- --ignored --nocapture"]
async fn memory_is_bounded_whatever_the_size_of_a_copy_and_whoever_is_slow() {
    let pgward = start(Options { shards: 1, replicas: 0, patients: 40, ..Options::default() }).await;
    let client = pgward.app().await;
    let id = pgward.patient("us-east", 1).id;
    let primary = pgward.on_server("us-east-patients/primary").await;

    // Buffers that are made once are there before the first measurement.
    copy_in(&client, id, "text", 400, &AtomicU64::new(0)).await;
    let before = peak(&pgward);
    for format in ["text", "csv", "binary"] {
        let rows = copy_in(&client, id, format, ROWS, &AtomicU64::new(0)).await;
        assert_eq!(rows, ROWS as u64);
        bounded(&pgward, before, &format!("300 MB in, {format}"));
        delete(&primary).await;
    }

    // The server takes nothing until the lock is gone.
    let other = pgward.on_server("us-east-patients/primary").await;
    other.simple_query("BEGIN; LOCK allergies IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let sent = AtomicU64::new(0);
    let stalled = async {
        let stalled_at = until_stalled(&sent).await;
        bounded(&pgward, before, &format!("a server that waits for a lock, {stalled_at} KB sent"));
        assert!(stalled_at < 64 * 1024, "the client was let send {stalled_at} KB");
        other.simple_query("COMMIT").await.unwrap();
    };
    let (rows, ()) = tokio::join!(copy_in(&client, id, "text", ROWS, &sent), stalled);
    assert_eq!(rows, ROWS as u64);
    bounded(&pgward, before, "300 MB in, behind a lock");

    let statement = format!("COPY (SELECT substance FROM allergies WHERE patient_id = '{id}') TO STDOUT");
    assert!(copy_out(&client, &statement, async || {}).await > ROWS * VALUE);
    bounded(&pgward, before, "300 MB out");
    let slow = async || {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'";
        while answers(&primary, waits).await != "1" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bounded(&pgward, before, "a client that does not read");
    };
    assert!(copy_out(&client, &statement, slow).await > ROWS * VALUE);
    bounded(&pgward, before, "300 MB out, to a slow client");
}

#[tokio::test]
#[ignore = "two COPYs of 300 MB: cargo test -p pgward-tests --test operations bounded -- --ignored --nocapture"]
async fn memory_is_bounded_where_rows_go_to_several_shards_and_one_of_them_is_slow() {
    let pgward = start(Options { shards: 2, replicas: 0, patients: 40, ..Options::default() }).await;
    let client = pgward.app().await;
    let ids = ["us-east", "us-west"].map(|region| pgward.patient(region, 1).id);
    rows_of_both(&client, ids, 400, &AtomicU64::new(0)).await;
    let before = peak(&pgward);
    assert_eq!(rows_of_both(&client, ids, ROWS, &AtomicU64::new(0)).await, ROWS as u64);
    bounded(&pgward, before, "300 MB for two shards");

    // One of them takes nothing until the lock is gone: the client waits, and the other shard with it.
    let west = pgward.on_server("us-west-patients/primary").await;
    west.simple_query("BEGIN; LOCK allergies IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let sent = AtomicU64::new(0);
    let stalled = async {
        let stalled_at = until_stalled(&sent).await;
        bounded(&pgward, before, &format!("a shard that waits for a lock, {stalled_at} KB sent"));
        assert!(stalled_at < 64 * 1024, "the client was let send {stalled_at} KB");
        west.simple_query("COMMIT").await.unwrap();
    };
    let (rows, ()) = tokio::join!(rows_of_both(&client, ids, ROWS, &sent), stalled);
    assert_eq!(rows, ROWS as u64);
    bounded(&pgward, before, "300 MB for two shards, one behind a lock");
}

/// Rows of two patients in turn.
async fn rows_of_both(client: &Client, ids: [Uuid; 2], rows: usize, sent: &AtomicU64) -> u64 {
    let substance = "Pollen, ".repeat(VALUE / 8);
    let both = Bytes::from(ids.map(|id| format!("{id}\t{substance}\tRash\tmild\n")).concat());
    let statement = "COPY allergies (patient_id, substance, reaction, severity) FROM STDIN";
    let mut sink = pin!(client.copy_in(statement).await.unwrap());
    for _ in 0..rows / 2 {
        sink.send(both.clone()).await.unwrap();
        sent.fetch_add(both.len() as u64, Ordering::Relaxed);
    }
    sink.finish().await.unwrap()
}

async fn copy_in(client: &Client, id: Uuid, format: &str, rows: usize, sent: &AtomicU64) -> u64 {
    let substance = "Pollen, ".repeat(VALUE / 8);
    let (before, row) = match format {
        "text" => (vec![], format!("{id}\t{substance}\tRash\tmild\n").into_bytes()),
        "csv" => (vec![], format!("{id},\"{substance}\",Rash,mild\n").into_bytes()),
        _ => (
            b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec(),
            tuple(&[id.as_bytes(), substance.as_bytes(), b"Rash", b"mild"]),
        ),
    };
    let statement = format!("COPY allergies (patient_id, substance, reaction, severity) FROM STDIN (FORMAT {format})");
    let mut sink = pin!(client.copy_in(&statement).await.unwrap());
    sink.send(Bytes::from(before)).await.unwrap();
    // Messages of several rows, which end within one.
    let (piece, mut left) = (Bytes::from(row.repeat(8)), rows * row.len());
    let mut at = 0;
    while left > 0 {
        let length = left.min(20_011).min(piece.len() - at);
        sink.send(piece.slice(at..at + length)).await.unwrap();
        sent.fetch_add(length as u64, Ordering::Relaxed);
        left -= length;
        at = (at + length) % piece.len();
    }
    sink.finish().await.unwrap()
}

fn tuple(columns: &[&[u8]]) -> Vec<u8> {
    let mut tuple = BytesMut::new();
    tuple.put_i16(columns.len() as i16);
    for column in columns {
        tuple.put_i32(column.len() as i32);
        tuple.put_slice(column);
    }
    tuple.to_vec()
}

/// Bytes that came; `meanwhile` runs when the first have.
async fn copy_out(client: &Client, statement: &str, meanwhile: impl AsyncFn()) -> usize {
    let mut out = pin!(client.copy_out(statement).await.unwrap());
    let mut bytes = out.try_next().await.unwrap().unwrap().len();
    meanwhile().await;
    while let Some(data) = out.try_next().await.unwrap() {
        bytes += data.len();
    }
    bytes
}

async fn delete(primary: &Client) {
    primary.simple_query("DELETE FROM allergies WHERE substance LIKE 'Pollen, %'").await.unwrap();
}

/// Waits until nothing more is taken for a second; KB until then.
async fn until_stalled(sent: &AtomicU64) -> u64 {
    let (mut last, mut same) = (0, 0);
    while same < 10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = sent.load(Ordering::Relaxed);
        same = if now == last && now > 0 { same + 1 } else { 0 };
        last = now;
    }
    last / 1024
}

/// The most memory that PgWard ever had, in KB.
pub(crate) fn peak(pgward: &Deployment) -> u64 {
    let pid = pgward.with_instance(|instance| instance.pid());
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells it");
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

pub(crate) fn bounded(pgward: &Deployment, before: u64, what: &str) {
    let now = peak(pgward);
    println!("{what}: at most {now} KB, {} KB more than before", now.saturating_sub(before));
    assert!(now.saturating_sub(before) < GROWTH_MAX_KB, "{what}: from {before} KB to {now} KB");
}
