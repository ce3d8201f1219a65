//! PgWard is told to stop: transactions may finish, and those that do not are told so.

use std::time::{Duration, Instant};

use pgward_tests::{Deployment, Options, WireClient};
use rustix::process::Signal;

use crate::start;

/// A client in a transaction on a server.
async fn in_transaction(pgward: &Deployment, n: usize) -> WireClient {
    let mut client = WireClient::login(pgward.port("general"), "app", "demo-app").await;
    let read = format!("BEGIN; SELECT 1 FROM patients WHERE id = '{}'", pgward.patient("us-east", n).id);
    assert_eq!(client.query(&read).await.last().unwrap().body, b"T");
    client
}

#[tokio::test]
async fn transactions_may_finish_and_those_that_do_not_are_told() {
    let pgward = start(Options { shards: 1, replicas: 0, patients: 40, ..Options::default() }).await;
    let (mut finishes, mut stays) = (in_transaction(&pgward, 0).await, in_transaction(&pgward, 1).await);
    pgward.with_instance(|instance| instance.signal(Signal::TERM)).unwrap();
    let told = Instant::now();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let frames = finishes.query("COMMIT").await;
    assert_eq!(frames[0].body, b"COMMIT\0");
    // Its transaction is over: it is sent away at once.
    assert_eq!(finishes.frame().await.and_then(|frame| frame.field(b'C')).as_deref(), Some("57P01"));
    // This one when `drain_timeout` is.
    assert_eq!(stays.frame().await.and_then(|frame| frame.field(b'C')).as_deref(), Some("57P01"));
    assert!(told.elapsed() > Duration::from_secs(2), "it had time to finish");
}

#[tokio::test]
async fn the_control_socket_is_gone_with_its_proxy() {
    let pgward = start(Options { shards: 1, replicas: 0, patients: 40, ..Options::default() }).await;
    let socket = pgward.files().dir.join("pgward.sock");
    assert!(socket.exists());
    assert!(pgward.with_instance(|instance| instance.stop()).unwrap().success());
    assert!(!socket.exists());
}
