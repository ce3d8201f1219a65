//! A server is stopped under an open transaction: what was done there is gone, and nobody is told otherwise.

use std::time::{Duration, Instant};

use pgward::demo::postgres::Shutdown;
use pgward_tests::{Deployment, Options, answers, sqlstate};
use tokio_postgres::Client;

use crate::{start, watchful};

/// A transaction with a savepoint and an update, whose primary has been stopped and started since.
async fn interrupted() -> (Deployment, Client) {
    let pgward = start(Options { shards: 1, replicas: 1, patients: 80, tune: watchful }).await;
    let client = pgward.app().await;
    let id = pgward.patient("us-east", 0).id;
    client.simple_query("BEGIN").await.unwrap();
    client.simple_query("SAVEPOINT before").await.unwrap();
    client.simple_query(&format!("UPDATE patients SET mrn = 'LOST' WHERE id = '{id}'")).await.unwrap();
    let primary = pgward.node("us-east-patients/primary");
    primary.stop(Shutdown::Fast);
    primary.start().unwrap();
    (pgward, client)
}

/// Waits until the primary is known to be up again.
async fn writes_are_taken(pgward: &Deployment, id: &str) {
    let other = pgward.app().await;
    let write = format!("UPDATE patients SET mrn = mrn WHERE id = '{id}'");
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(error) = other.simple_query(&write).await {
        assert!(Instant::now() < deadline, "{error:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn nothing_was_written(pgward: &Deployment) {
    let primary = pgward.on_server("us-east-patients/primary").await;
    assert_eq!(answers(&primary, "SELECT count(*) FROM patients WHERE mrn = 'LOST'").await, "0");
}

#[tokio::test]
async fn a_commit_of_what_is_lost_is_an_error() {
    let (pgward, client) = interrupted().await;
    assert_eq!(sqlstate(client.simple_query("COMMIT").await), "08006");
    // Nothing is open any more.
    client.simple_query("BEGIN READ ONLY").await.unwrap();
    answers(&client, "SELECT 1").await;
    client.simple_query("ROLLBACK").await.unwrap();
    nothing_was_written(&pgward).await;
}

#[tokio::test]
async fn no_savepoint_brings_back_what_is_lost() {
    let (pgward, client) = interrupted().await;
    assert_eq!(sqlstate(client.simple_query("ROLLBACK TO before").await), "08006");
    assert_eq!(sqlstate(client.simple_query("ROLLBACK TO before").await), "25P02");
    client.simple_query("ROLLBACK").await.unwrap();
    nothing_was_written(&pgward).await;
}

/// What it was begun with is lost, too: a chained one would be none.
#[tokio::test]
async fn no_transaction_is_chained_to_what_is_lost() {
    let (pgward, client) = interrupted().await;
    assert_eq!(sqlstate(client.simple_query("ROLLBACK AND CHAIN; SELECT 1").await), "0A000");
    assert_eq!(sqlstate(client.simple_query("ROLLBACK AND CHAIN").await), "0A000");
    let id = pgward.patient("us-east", 0).id;
    let write = format!("UPDATE patients SET mrn = 'LOST' WHERE id = '{id}'");
    assert_eq!(sqlstate(client.simple_query(&write).await), "25P02");
    writes_are_taken(&pgward, &id.to_string()).await;
    client.simple_query(&format!("ROLLBACK; {}", write.replace("LOST", "FOUND"))).await.unwrap();
    client.simple_query("ROLLBACK").await.unwrap();
    nothing_was_written(&pgward).await;
    let primary = pgward.on_server("us-east-patients/primary").await;
    assert_eq!(answers(&primary, "SELECT count(*) FROM patients WHERE mrn = 'FOUND'").await, "1");
}
