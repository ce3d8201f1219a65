//! PgWard is killed with SIGKILL under load: what a client was told is in the files.

use pgward::demo::data::Patient;
use pgward::demo::instance::Instance;
use pgward::demo::layout::{Layout, User};
use pgward_tests::{Deployment, Options, answers};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::{PGWARD, assert_no_gap, in_time, start};

/// Workers, each with a user of its own, so that its records can be counted.
const USERS: [&str; 4] = ["worker-0", "worker-1", "worker-2", "worker-3"];

fn workers(layout: &mut Layout) {
    layout.users.extend(USERS.map(User::new));
}

/// What a worker was told before its connection broke.
#[derive(Default)]
struct Told {
    answers: usize,
    registered: Vec<Uuid>,
}

/// Reads, writes and registers patients until PgWard is gone.
async fn work(client: Client, patient: Patient, first_new: u128) -> Told {
    let mut told = Told::default();
    let read = client.prepare("SELECT family_name FROM patients WHERE id = $1").await.unwrap();
    let write = format!("UPDATE patients SET updated_at = now() WHERE id = '{}'", patient.id);
    for n in 0.. {
        let new = Uuid::from_u128(first_new + n);
        let answer = match n % 3 {
            0 => client.query_one(&read, &[&patient.id]).await.map(drop),
            1 => client.simple_query(&write).await.map(drop),
            _ => client.simple_query(&insert(new)).await.map(drop),
        };
        match answer {
            Ok(()) => told.answers += 1,
            Err(error) => {
                assert!(client.is_closed(), "{error:?}");
                return told;
            }
        }
        if n % 3 == 2 {
            told.registered.push(new);
        }
    }
    unreachable!("the loop has no end")
}

fn insert(id: Uuid) -> String {
    format!(
        "INSERT INTO patients (id, region, mrn, family_name, given_name, birth_date, sex) \
         VALUES ('{id}', 'us-east', 'KILL-{id}', 'New', 'Patient', '2000-01-01', 'unknown')"
    )
}

/// Records of what these workers asked. A kill may come between two pages of a write: what was to be recorded by it was
/// not forwarded, and the torn end is cut off at the next start.
fn recorded(pgward: &Deployment) -> Vec<usize> {
    let records = pgward.records();
    assert_no_gap(&records.all);
    USERS.iter().map(|user| records.decisions_of(user).len()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_is_in_the_audit_log_and_who_was_registered_is_found() {
    let pgward = start(Options { shards: 1, replicas: 1, patients: 80, tune: workers }).await;
    for round in 0..3_u128 {
        let before = recorded(&pgward);
        assert!(pgward.records().text.ends_with('\n'), "the last record is torn");
        let mut working = Vec::new();
        for (n, user) in USERS.into_iter().enumerate() {
            let client = pgward.connect("general", user).await;
            let first_new = (round * 4 + n as u128 + 1) << 32;
            working.push(tokio::spawn(work(client, pgward.patient("us-east", n), first_new)));
        }
        tokio::time::sleep(std::time::Duration::from_millis(400)).await;
        pgward.with_instance(Instance::kill).unwrap();

        let mut registered = Vec::new();
        let after = recorded(&pgward);
        for (n, worker) in working.into_iter().enumerate() {
            let told = in_time("a worker", worker).await.unwrap();
            let records = after[n] - before[n];
            assert!(told.answers > 0);
            // The last statement may have been decided and not answered.
            assert!(
                (told.answers..=told.answers + 1).contains(&records),
                "{} answers, {records} records",
                told.answers
            );
            registered.extend(told.registered);
        }

        pgward.restart(PGWARD).await.unwrap();
        assert!(!registered.is_empty());
        let client = pgward.app().await;
        for id in registered {
            let found = answers(&client, &format!("SELECT mrn FROM patients WHERE id = '{id}' FOR SHARE")).await;
            assert_eq!(found, format!("KILL-{id}"));
        }
    }
}
