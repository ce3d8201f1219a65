//! Cancels at random times against short statements, while neighbours use the same servers.
//!
//! PGWARD_CANCELS is how many; `make test` sends two thousand. `scripts/cancels` sends 100 000.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use pgward::demo::layout::Layout;
use pgward_tests::{Deployment, Options, answers};
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{CancelToken, Client, Error, NoTls};

use crate::start;

const CANCELS: u64 = 2000;

/// Few servers, so that each goes from hand to hand, and enough for all: nobody may have to wait for long.
fn shared_by_all(layout: &mut Layout) {
    layout.pools = [(1, 1), (4, 8), (1, 1), (1, 1)];
    layout.proxy += "max_cancels_per_second = 1000000\n";
}

/// What a session's statements came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Came {
    done: u64,
    cancelled: u64,
    failed: Vec<String>,
}

impl Came {
    fn note<T>(&mut self, result: Result<T, Error>) {
        match result {
            Ok(_) => self.done += 1,
            Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) => self.cancelled += 1,
            Err(error) => self.failed.push(format!("{error:?}")),
        }
    }
}

/// Short statements one after the other: a Query, the extended protocol, a transaction.
async fn work(client: Client, id: uuid::Uuid, stop: Arc<AtomicBool>) -> Came {
    let mut came = Came::default();
    let sql = format!("SELECT pg_sleep(0.003) FROM patients WHERE id = '{id}'");
    // BEGIN goes to the server with it: a cancel that hits the one must not leave the other to commit by itself.
    let undone = format!("UPDATE patients SET family_name = 'committed' WHERE id = '{id}'");
    while !stop.load(Ordering::Relaxed) {
        came.note(client.simple_query(&sql).await);
        came.note(client.query("SELECT pg_sleep(0.002) FROM patients WHERE id = $1", &[&id]).await);
        came.note(client.batch_execute("BEGIN").await);
        came.note(client.simple_query(&undone).await);
        // The ROLLBACK of a failed transaction may be cancelled, too, which leaves it open.
        loop {
            let ended = client.batch_execute("ROLLBACK").await;
            let goes_on = ended.is_ok() || client.is_closed();
            came.note(ended);
            if goes_on {
                break;
            }
        }
    }
    came
}

/// Cancels what this session runs, until `left` is used up, at times that follow no pattern.
async fn cancel(token: CancelToken, mut seed: u64, left: Arc<AtomicU64>) {
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        tokio::time::sleep(Duration::from_micros((seed >> 33) % 4000)).await;
        token.cancel_query(NoTls).await.expect("PgWard takes cancel requests");
    }
}

/// Sessions on the primary since it has started.
async fn opened(pgward: &Deployment) -> i64 {
    let server = pgward.on_server("us-east-patients/primary").await;
    server.query_one("SELECT sum(sessions)::int8 FROM pg_stat_database", &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_neighbour_is_hit_and_no_server_is_lost() {
    let wanted = std::env::var("PGWARD_CANCELS").map_or(CANCELS, |number| number.parse().expect("a number"));
    let pgward = start(Options { shards: 1, replicas: 0, patients: 80, tune: shared_by_all }).await;
    let before = opened(&pgward).await;
    let (stop, left) = (Arc::<AtomicBool>::default(), Arc::new(AtomicU64::new(wanted)));
    let (mut victims, mut neighbours, mut cancels) = (Vec::new(), Vec::new(), Vec::new());
    let begun = std::time::Instant::now();
    for n in 0..5 {
        let (client, id) = (pgward.app().await, pgward.patient("us-east", n).id);
        if n < 2 {
            for half in 0..2 {
                cancels.push(tokio::spawn(cancel(client.cancel_token(), 2 * n as u64 + half, Arc::clone(&left))));
            }
        }
        let list: &mut Vec<JoinHandle<Came>> = if n < 2 { &mut victims } else { &mut neighbours };
        list.push(tokio::spawn(work(client, id, Arc::clone(&stop))));
    }
    for task in cancels {
        task.await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);

    let mut hit = 0;
    for victim in victims {
        let came = victim.await.unwrap();
        println!("a victim:    {} done, {} cancelled", came.done, came.cancelled);
        assert_eq!(came.failed, Vec::<String>::new());
        hit += came.cancelled;
    }
    for neighbour in neighbours {
        let came = neighbour.await.unwrap();
        println!("a neighbour: {} done, {} cancelled", came.done, came.cancelled);
        assert_eq!((came.cancelled, came.failed), (0, Vec::new()), "a neighbour was hit");
        assert!(came.done > 0);
    }
    assert!(hit > 0, "no cancel has hit anything");
    let opened = opened(&pgward).await - before;
    println!("{wanted} cancels in {:?}, {opened} connections opened meanwhile", begun.elapsed());
    assert!(opened < 10 + i64::try_from(wanted).unwrap() / 100, "{opened} connections were opened anew");
    let server = pgward.on_server("us-east-patients/primary").await;
    let committed = "SELECT count(*) FROM patients WHERE family_name = 'committed'";
    assert_eq!(answers(&server, committed).await, "0", "a statement ran outside of its transaction");
    every_server_is_there(&pgward).await;
}

/// Transactions that hold as many servers as class normal may have of the pool: none was lost.
async fn every_server_is_there(pgward: &Deployment) {
    let mut holders = Vec::new();
    for n in 0..5 {
        let client = pgward.app().await;
        client.batch_execute("BEGIN").await.unwrap();
        let id = pgward.patient("us-east", n).id;
        answers(&client, &format!("SELECT id FROM patients WHERE id = '{id}' FOR UPDATE")).await;
        holders.push(client);
    }
}
