//! A replica is lost under load: nobody who reads notices.

use pgward_tests::{Deployment, Options};

use crate::load::Readers;
use crate::{mark, records_since, start, until};

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
