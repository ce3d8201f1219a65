//! Shards and replicas come and go by reload, and no client sees an error.

use std::time::Duration;

use pgward_tests::{Deployment, Options, answered_by, sqlstate};

use crate::load::Load;
use crate::{start, watchful};

/// The control socket answers when the new configuration is in force.
fn reload(pgward: &Deployment, toml: &str) -> (bool, String) {
    let config = pgward.files().config();
    std::fs::write(&config, toml).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_pgward-under-test"))
        .args(["reload", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_and_a_shard_come_and_go_under_load() {
    let pgward = start(Options { shards: 2, replicas: 2, patients: 80, tune: watchful }).await;
    let whole = std::fs::read_to_string(pgward.files().config()).unwrap();
    let replica = pgward.node("us-east-patients/replica-2").port();
    let without_replica: String =
        whole.lines().filter(|line| !line.contains(&format!(":{replica}/"))).map(|line| format!("{line}\n")).collect();
    let west = whole.find("[[shards]]\nid = \"us-west-patients\"").unwrap();
    let end = west + whole[west..].find("[pools.").unwrap();
    let without_shard = [&whole[..west], &whole[end..]].concat();

    let patients = [pgward.patient("us-east", 0), pgward.patient("us-east", 1)];
    let load = Load::start(&pgward, 8, &patients).await;
    for toml in [&without_replica, &whole, &without_shard, &whole] {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let (accepted, said) = reload(&pgward, toml);
        assert!(accepted, "{said}");
    }
    tokio::time::sleep(Duration::from_millis(400)).await;
    let outcome = load.stop().await;
    assert!(outcome.errors.is_empty(), "{} answered, then {:?}", outcome.answered, outcome.errors);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_shard_serves_nobody_and_a_refused_file_changes_nothing() {
    let pgward = start(Options { shards: 2, replicas: 1, patients: 80, tune: watchful }).await;
    let whole = std::fs::read_to_string(pgward.files().config()).unwrap();
    let client = pgward.app().await;
    let patient = pgward.patient("us-west", 0);

    let (accepted, said) = reload(&pgward, &whole.replace("key_type = \"uuid\"", "key_typ = \"uuid\""));
    assert!(!accepted);
    assert!(said.contains("key_type"), "{said}");
    assert_eq!(answered_by(&client, &patient).await, "us-west-patients/replica-1");

    let west = whole.find("[[shards]]\nid = \"us-west-patients\"").unwrap();
    let end = west + whole[west..].find("[pools.").unwrap();
    let (accepted, said) = reload(&pgward, &[&whole[..west], &whole[end..]].concat());
    assert!(accepted, "{said}");
    let read = format!("SELECT 1 FROM patients WHERE id = '{}'", patient.id);
    assert_eq!(sqlstate(client.simple_query(&read).await), "PW010");

    assert!(reload(&pgward, &whole).0);
    assert_eq!(answered_by(&client, &patient).await, "us-west-patients/replica-1");
}
