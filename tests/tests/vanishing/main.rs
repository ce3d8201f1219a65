//! Clients that vanish at any byte of anything they say or hear, while pgbench works beside them by all three protocols:
//! pgbench sees no error, and afterwards no server, no permit and no trace is left of them.
//!
//! `scripts/vanish` runs it for five minutes; `make test` for some seconds, with one worker and with two.
#![allow(missing_docs, clippy::unwrap_used)]

mod bench;
mod chance;
mod client;
mod line;
mod quiet;
mod script;

use std::time::{Duration, Instant, SystemTime};

use bench::Bench;
use client::Vanishing;
use pgward::demo::layout::{Layout, User};
use pgward_tests::{Deployment, Options};

const SECONDS: u64 = 10;

const SHARDS: [&str; 2] = ["us-east-patients", "us-west-patients"];

/// One after the other: both use the machine up.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_harmed_with_one_worker() {
    vanish(|layout| tune(layout, 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_harmed_with_two_workers() {
    vanish(|layout| tune(layout, 2)).await;
}

/// Few enough servers that each goes from hand to hand, and waits that only a lost permit makes end.
fn tune(layout: &mut Layout, workers: u32) {
    layout.pools = [(1, 3), (1, 10), (1, 3), (1, 6)];
    layout.wait_timeout = Some("60s");
    layout.proxy += &format!("workers = {workers}\nmax_cancels_per_second = 1000000\n");
    layout.users.push(User { pool_mode: Some("session"), ..User::new("keeper") });
}

async fn vanish(tune: fn(&mut Layout)) {
    let _turn = TURN.lock().await;
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let seconds = number("PGWARD_VANISH_SECONDS").unwrap_or(SECONDS);
    let now = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    let seed = number("PGWARD_VANISH_SEED").unwrap_or_else(now);
    println!("PGWARD_VANISH_SEED={seed}");

    let options = Options { shards: 2, replicas: 1, patients: 80, tune };
    let pgward = Deployment::start(env!("CARGO_BIN_EXE_pgward-under-test"), options).await.unwrap();
    let descriptors = quiet::descriptors(&pgward).await;
    let mut bench = Bench::start(&pgward, seconds);
    let vanishing = Vanishing::start(&pgward, seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end && bench.is_running() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let tally = in_time("the last clients", vanishing.stop()).await;
    let done = in_time("pgbench", async { tokio::task::spawn_blocking(|| bench.end()).await.unwrap() }).await;

    for (sort, ends) in tally {
        println!("{sort:32} {ends:?}");
    }
    println!("pgbench's transactions: {done:?}");
    bench::assert_ledger(&pgward, &done).await;
    quiet::assert_quiet(&pgward, descriptors).await;
    quiet::assert_nothing_left(&pgward).await;
    quiet::assert_servers_are_clean(&pgward).await;
    println!("{} audit records", quiet::assert_audit_has_no_gap(&pgward));
    let log = std::fs::read_to_string(pgward.files().log()).unwrap();
    assert!(!log.contains("panicked"), "{}", pgward.log());
}

/// What may take long only if it hangs.
async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(90), work).await.unwrap_or_else(|_| panic!("{what} hangs"))
}
