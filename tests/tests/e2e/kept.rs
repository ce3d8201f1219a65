//! Sessions that keep their server, and those that have no reason to.

use pgward_tests::{WireClient, answers, sqlstate};

use crate::shared;

#[tokio::test]
async fn who_listens_hears_while_idle() {
    let pgward = shared().await;
    let mut listener = WireClient::login(pgward.port("general"), "app", "demo-app").await;
    listener.query("LISTEN arrivals").await;
    let speaker = pgward.app().await;
    for word in ["first", "second"] {
        speaker.simple_query(&format!("NOTIFY arrivals, '{word}'")).await.unwrap();
        let heard = listener.frame().await.unwrap();
        assert_eq!(heard.tag, b'A');
        assert!(heard.body.ends_with(format!("arrivals\0{word}\0").as_bytes()), "{heard:?}");
    }
}

#[tokio::test]
async fn a_transaction_whose_server_was_ended_is_lost_and_holds_no_locks() {
    let pgward = shared().await;
    let mut client = WireClient::login(pgward.port("general"), "app", "demo-app").await;
    let patient = pgward.patient("us-west", 32).id;
    let sql = format!("BEGIN; SELECT pg_backend_pid() FROM patients WHERE id = '{patient}' FOR UPDATE");
    let frames = client.query(&sql).await;
    let row = frames.iter().find(|frame| frame.tag == b'D').expect("the backend's process id");
    let pid = String::from_utf8_lossy(&row.body[6..]).into_owned();
    pgward
        .on_server("us-west-patients/primary")
        .await
        .simple_query(&format!("SELECT pg_terminate_backend({pid})"))
        .await
        .unwrap();
    let other = pgward.app().await;
    let write = format!("UPDATE patients SET critical = critical WHERE id = '{patient}'");
    other.simple_query(&write).await.unwrap();
    let frames = client.query(&write).await;
    let error = frames.iter().find(|frame| frame.tag == b'E').expect("the transaction is lost");
    assert_eq!(error.field(b'C').unwrap(), "08006");
}

#[tokio::test]
async fn what_pools_reset_sessions_with_keeps_no_server() {
    let pgward = shared().await;
    let client = pgward.app().await;
    for region in ["us-east", "eu-west", "ap-south"] {
        let id = pgward.patient(region, 33).id;
        client.simple_query("SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;").await.unwrap();
        let sql = format!("SELECT current_setting('cluster_name') FROM patients WHERE id = '{id}'");
        assert!(answers(&client, &sql).await.starts_with(region), "{region}");
    }
}

#[tokio::test]
async fn an_advisory_lock_excludes_in_read_only_transactions_too() {
    let pgward = shared().await;
    let (holder, other) = (pgward.app().await, pgward.app().await);
    holder.simple_query("BEGIN READ ONLY").await.unwrap();
    assert_eq!(answers(&holder, "SELECT pg_try_advisory_xact_lock(4711)").await, "t");
    assert_eq!(answers(&other, "SELECT pg_try_advisory_xact_lock(4711)").await, "f");
    holder.simple_query("ROLLBACK").await.unwrap();
    // Once the transaction is on a replica it is too late for one.
    let id = pgward.patient("us-east", 33).id;
    holder.simple_query("BEGIN READ ONLY").await.unwrap();
    answers(&holder, &format!("SELECT given_name FROM patients WHERE id = '{id}'")).await;
    assert_eq!(sqlstate(holder.simple_query("SELECT pg_try_advisory_xact_lock(4711)").await), "0A000");
    holder.simple_query("ROLLBACK").await.unwrap();
}

#[tokio::test]
async fn what_keeps_a_server_never_keeps_a_replica() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let id = pgward.patient("us-east", 34).id;
    client.simple_query("BEGIN READ ONLY").await.unwrap();
    client.simple_query("DECLARE held CURSOR WITH HOLD FOR SELECT 1").await.unwrap();
    client.simple_query("COMMIT").await.unwrap();
    assert_eq!(answers(&client, "FETCH held").await, "1");
    client.simple_query(&format!("UPDATE patients SET critical = critical WHERE id = '{id}'")).await.unwrap();
}
