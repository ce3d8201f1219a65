//! A replica is lost under load: nobody who reads notices.

use std::process::Command;

use pgward::demo::data::Patient;
use pgward::demo::postgres::Shutdown;
use pgward_tests::{Deployment, Options, one};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::load::Readers;
use crate::{in_time, mark, records_since, start, until};

const REPLICAS: [&str; 2] = ["us-east-patients/replica-1", "us-east-patients/replica-2"];

/// One region with two replicas, whose loss is noticed soon.
async fn watched_closely() -> Deployment {
    let tune = |layout: &mut pgward::demo::layout::Layout| {
        layout.health = "interval = \"1s\"\ntimeout = \"1s\"\n".to_owned();
    };
    start(Options { shards: 1, replicas: 2, patients: 80, tune }).await
}

async fn back_in_use(pgward: &Deployment, node: &str) {
    let mark = mark(pgward);
    let used = || async { records_since(pgward, mark).iter().any(|record| record["node"] == node) };
    until("the replica is used again", used).await;
}

/// Why decisions behind this mark passed the node over.
fn passed_over(pgward: &Deployment, node: &str, mark: u64) -> Vec<String> {
    let records = records_since(pgward, mark);
    let candidates = records.iter().flat_map(|record| record["candidates"].as_array()).flatten();
    let of_node = candidates.filter(|candidate| candidate["node"] == node);
    of_node.filter_map(|candidate| Some(candidate["passed_over"].as_str()?.to_owned())).collect()
}

async fn declared_down(pgward: &Deployment, node: &str, mark: u64) {
    let down = || async { passed_over(pgward, node, mark).iter().any(|why| why == "down") };
    until("decisions pass the node over as down", down).await;
}

#[tokio::test]
async fn reads_go_on_without_an_error_when_replicas_are_killed_one_after_the_other() {
    let pgward = watched_closely().await;
    let readers = Readers::start(&pgward, "us-east").await;
    readers.go_on(20).await;
    for node in REPLICAS {
        let mark = mark(&pgward);
        pgward.node(node).crash();
        readers.go_on(50).await;
        declared_down(&pgward, node, mark).await;
        pgward.node(node).start().unwrap();
        back_in_use(&pgward, node).await;
    }
    assert_eq!(readers.stop().await, [""; 0]);
}

/// The replica where this is being read, with a superuser's session there; none if the read is over before it is seen.
async fn replica_reading<T>(pgward: &Deployment, what: &str, read: &JoinHandle<T>) -> Option<(&'static str, Client)> {
    let servers = [pgward.on_server(REPLICAS[0]).await, pgward.on_server(REPLICAS[1]).await];
    let reading = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() AND query LIKE '%{what}%'"
    );
    let here = std::cell::Cell::new(None);
    until("a replica reads", || async {
        for (n, server) in servers.iter().enumerate() {
            if one(server, &reading).await.unwrap() == "1" {
                here.set(Some(n));
            }
        }
        here.get().is_some() || read.is_finished()
    })
    .await;
    let n = here.get()?;
    Some((REPLICAS[n], servers.into_iter().nth(n).unwrap()))
}

/// A read that takes so long that something can happen to its server, in a transaction of its own each time.
async fn read_slowly(client: Client, patient: Patient, simple: bool) -> Vec<String> {
    let sql = |id: &str| {
        format!(
            "SELECT family_name, (SELECT count(*) FROM generate_series(1, 6000000)) AS slow FROM patients WHERE id = {id}"
        )
    };
    let name = if simple {
        let told = client.simple_query(&sql(&format!("'{}'", patient.id))).await;
        told.map(|told| told.iter().filter_map(first_column).collect())
    } else {
        let rows = client.query(&sql("$1"), &[&patient.id]).await;
        rows.map(|rows| rows.iter().map(|row| row.get(0)).collect())
    };
    name.unwrap_or_else(|error| vec![format!("{error:?}")])
}

fn first_column(message: &SimpleQueryMessage) -> Option<String> {
    if let SimpleQueryMessage::Row(row) = message { row.get(0).map(str::to_owned) } else { None }
}

/// The servers of a node that has crashed, or is stopped at once, say goodbye in a notice, in the midst of a statement.
async fn a_read_goes_on_elsewhere_when(end: impl AsyncFn(&Deployment, &str, &Client)) {
    let pgward = watched_closely().await;
    for simple in [true, false] {
        let patient = pgward.patient("us-east", 0);
        // One that the primary answers, for want of a replica that is back, is read again.
        let (mark, read, node, server) = loop {
            let mark = mark(&pgward);
            let read = tokio::spawn(read_slowly(pgward.app().await, patient.clone(), simple));
            if let Some((node, server)) = replica_reading(&pgward, "AS slow", &read).await {
                break (mark, read, node, server);
            }
            assert_eq!(read.await.unwrap(), [patient.family_name]);
        };
        end(&pgward, node, &server).await;
        assert_eq!(in_time("the read", read).await.unwrap(), [patient.family_name], "simple: {simple}");
        let asked: Vec<Value> = records_since(&pgward, mark).into_iter().filter(|r| r["kind"] == "read").collect();
        let last = asked.last().unwrap();
        assert!(asked.iter().any(|record| record["node"] == node) && last["node"] != node, "{asked:?}");
        pgward.node(node).start().unwrap();
    }
}

#[tokio::test]
async fn a_read_goes_on_elsewhere_when_another_backend_of_its_replica_crashes() {
    a_read_goes_on_elsewhere_when(async |_, _, server| {
        let pid = one(server, "SELECT pg_backend_pid()").await.unwrap();
        assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
    })
    .await;
}

#[tokio::test]
async fn a_read_goes_on_elsewhere_when_its_replica_is_stopped_at_once() {
    a_read_goes_on_elsewhere_when(async |pgward, node, _| pgward.node(node).stop(Shutdown::Immediate)).await;
}

#[tokio::test]
async fn reads_go_on_without_an_error_when_a_replica_answers_nothing_any_more() {
    let pgward = watched_closely().await;
    let readers = Readers::start(&pgward, "us-east").await;
    readers.go_on(20).await;
    for node in REPLICAS {
        let mark = mark(&pgward);
        pgward.node(node).pause();
        readers.go_on(50).await;
        declared_down(&pgward, node, mark).await;
        pgward.node(node).resume();
        back_in_use(&pgward, node).await;
    }
    assert_eq!(readers.stop().await, [""; 0]);
}

#[tokio::test]
async fn the_primary_answers_reads_when_no_replica_is_left_and_the_audit_says_so() {
    let pgward = watched_closely().await;
    let readers = Readers::start(&pgward, "us-east").await;
    readers.go_on(20).await;
    let mark = mark(&pgward);
    REPLICAS.iter().for_each(|node| pgward.node(node).crash());
    readers.go_on(50).await;
    assert_eq!(readers.stop().await, [""; 0]);
    let records = records_since(&pgward, mark);
    let read = records.iter().rev().find(|record| record["kind"] == "read").unwrap();
    assert_eq!(read["node"], "us-east-patients/primary", "{read}");
    assert_eq!(read["reason"], "no replica", "{read}");
}
