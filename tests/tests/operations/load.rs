//! Clients that go on while something happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pgward::demo::data::Patient;
use pgward_tests::{Deployment, one};
use tokio::task::JoinHandle;

/// Running readers.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    readers: Vec<JoinHandle<Outcome>>,
}

/// What readers saw.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Reads that were answered.
    pub(crate) answered: usize,
    /// What the others got.
    pub(crate) errors: Vec<String>,
    /// The longest that one took.
    pub(crate) slowest: Duration,
}

impl Load {
    /// So many readers, each of which reads one of these patients again and again, half of them by a prepared
    /// statement.
    pub(crate) async fn start(pgward: &Deployment, readers: usize, patients: &[Patient]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut running = Vec::new();
        for n in 0..readers {
            let client = pgward.app().await;
            let (stop, id) = (Arc::clone(&stop), patients[n % patients.len()].id);
            running.push(tokio::spawn(async move {
                let mut outcome = Outcome::default();
                let text = format!("SELECT family_name FROM patients WHERE id = '{id}'");
                while !stop.load(Ordering::Relaxed) {
                    let begun = std::time::Instant::now();
                    let read = if n % 2 == 0 {
                        one(&client, &text).await.map(drop)
                    } else {
                        client.query_one("SELECT family_name FROM patients WHERE id = $1", &[&id]).await.map(drop)
                    };
                    outcome.slowest = outcome.slowest.max(begun.elapsed());
                    match read {
                        Ok(()) => outcome.answered += 1,
                        Err(error) => outcome.errors.push(format!("{error:?}")),
                    }
                    if client.is_closed() {
                        break;
                    }
                }
                outcome
            }));
        }
        Self { stop, readers: running }
    }

    /// Lets the readers finish what they are at.
    pub(crate) async fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Outcome::default();
        for reader in self.readers {
            let outcome = tokio::time::timeout(Duration::from_secs(20), reader).await.expect("a read ends").unwrap();
            sum.answered += outcome.answered;
            sum.errors.extend(outcome.errors);
            sum.slowest = sum.slowest.max(outcome.slowest);
        }
        sum
    }
}
