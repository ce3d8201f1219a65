//! What becomes of clients, data and audit when something breaks: servers, clients, PgWard itself, the disk. Each test
//! has a deployment of its own, as small as it can be.
#![allow(missing_docs, clippy::unwrap_used)]

mod completeness;
mod disk;
mod killed;
mod load;
mod primary;
mod replica;
mod splits;
mod vanish;

use std::io::{Read, Seek, SeekFrom};
use std::time::{Duration, Instant};

use pgward_tests::{Deployment, Options};
use serde_json::Value;

const PGWARD: &str = env!("CARGO_BIN_EXE_pgward-under-test");

/// A generous end to every wait: nothing here takes so long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

async fn start(options: Options) -> Deployment {
    Deployment::start(PGWARD, options).await.unwrap()
}

/// Where the audit log ends now.
fn mark(pgward: &Deployment) -> u64 {
    std::fs::metadata(pgward.files().audit()).unwrap().len()
}

/// The records behind a mark.
fn records_since(pgward: &Deployment, mark: u64) -> Vec<Value> {
    let mut file = std::fs::File::open(pgward.files().audit()).unwrap();
    file.seek(SeekFrom::Start(mark)).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    let complete = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
    complete.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Sequence numbers go on by one, over restarts too.
#[track_caller]
fn assert_no_gap(records: &[Value]) {
    let first = records[0]["seq"].as_u64().unwrap();
    for (record, expected) in records.iter().zip(first..) {
        assert_eq!(record["seq"], expected, "{record}");
    }
}

/// Waits until this is so.
#[track_caller]
fn until<'a, F: Future<Output = bool> + 'a>(
    what: &'a str,
    mut holds: impl FnMut() -> F + 'a,
) -> impl Future<Output = ()> + 'a {
    let caller = std::panic::Location::caller();
    async move {
        let deadline = Instant::now() + PATIENCE;
        while !holds().await {
            assert!(Instant::now() < deadline, "{caller}: {what} did not come true");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// What may take long only if it hangs.
async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("{what} hangs"))
}
