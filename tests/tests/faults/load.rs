//! Readers that go on until they are told to stop, and remember every error.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pgward::demo::data::Patient;
use pgward_tests::Deployment;
use tokio::task::JoinHandle;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

use crate::until;

/// How a reader asks.
#[derive(Clone, Copy, Debug)]
enum Way {
    Simple,
    /// Parse, Bind, Describe, Execute, Sync in one go.
    Extended,
    /// Prepared for each execution, which is two round trips and a Close.
    PreparedAnew,
    /// Prepared once.
    Prepared,
}

const WAYS: [Way; 4] = [Way::Simple, Way::Extended, Way::PreparedAnew, Way::Prepared];

/// Readers under way.
pub(crate) struct Readers {
    stop: Arc<AtomicBool>,
    done: Vec<Arc<AtomicU64>>,
    tasks: Vec<JoinHandle<Vec<String>>>,
}

impl Readers {
    /// Two readers for each way to ask, each with a session and a patient of its own.
    pub(crate) async fn start(pgward: &Deployment, region: &str) -> Self {
        let mut readers = Self { stop: Arc::default(), done: Vec::new(), tasks: Vec::new() };
        for (n, way) in WAYS.into_iter().chain(WAYS).enumerate() {
            let (client, patient) = (pgward.app().await, pgward.patient(region, n));
            let (stop, done) = (Arc::clone(&readers.stop), Arc::<AtomicU64>::default());
            readers.done.push(Arc::clone(&done));
            readers.tasks.push(tokio::spawn(read(client, patient, way, stop, done)));
        }
        readers
    }

    /// Waits until every reader has been answered so many times more.
    pub(crate) async fn go_on(&self, more: u64) {
        let goals: Vec<u64> = self.done.iter().map(|done| done.load(Ordering::Relaxed) + more).collect();
        until("every reader is answered", || async {
            let mut each = self.done.iter().zip(&goals);
            each.all(|(done, goal)| done.load(Ordering::Relaxed) >= *goal)
                || self.tasks.iter().any(JoinHandle::is_finished)
        })
        .await;
    }

    /// Ends the readers; their errors, of which there should be none.
    pub(crate) async fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut errors = Vec::new();
        for task in self.tasks {
            errors.extend(crate::in_time("a reader", task).await.unwrap());
        }
        errors
    }
}

async fn read(client: Client, patient: Patient, way: Way, stop: Arc<AtomicBool>, done: Arc<AtomicU64>) -> Vec<String> {
    const SQL: &str = "SELECT family_name FROM patients WHERE id = $1";
    let mut errors = Vec::new();
    let prepared = client.prepare(SQL).await.unwrap();
    while !stop.load(Ordering::Relaxed) && errors.len() < 3 {
        let answer = match way {
            Way::Simple => simple(&client, &patient).await,
            Way::Extended => client.query_typed(SQL, &[(&patient.id, Type::UUID)]).await.map(|rows| rows[0].get(0)),
            Way::PreparedAnew => client.query_one(SQL, &[&patient.id]).await.map(|row| row.get(0)),
            Way::Prepared => client.query_one(&prepared, &[&patient.id]).await.map(|row| row.get(0)),
        };
        match answer {
            Ok(name) if name == patient.family_name => drop(done.fetch_add(1, Ordering::Relaxed)),
            Ok(name) => errors.push(format!("{way:?}: {name} instead of {}", patient.family_name)),
            Err(error) => errors.push(format!("{way:?}: {error:?}")),
        }
        // A little air for the servers, which share the machine.
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    errors
}

async fn simple(client: &Client, patient: &Patient) -> Result<String, Error> {
    let messages =
        client.simple_query(&format!("SELECT family_name FROM patients WHERE id = '{}'", patient.id)).await?;
    let row = messages.iter().find_map(|m| if let SimpleQueryMessage::Row(row) = m { row.get(0) } else { None });
    Ok(row.unwrap_or("nobody").to_owned())
}
