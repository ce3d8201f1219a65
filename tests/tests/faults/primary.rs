//! The primary is lost: a clear error, nothing half-done, and the same sessions go on when it is back.

use std::time::Duration;

use pgward::demo::data::Patient;
use pgward_tests::{Deployment, Options, WireClient};
use tokio_postgres::{Client, Error};

use crate::load::Readers;
use crate::{in_time, start, until};

const PRIMARY: &str = "us-east-patients/primary";

async fn watched_closely() -> Deployment {
    let tune = |layout: &mut pgward::demo::layout::Layout| {
        layout.health = "interval = \"1s\"\ntimeout = \"1s\"\n".to_owned();
        layout.wait_timeout = Some("2s");
        layout.proxy.push_str("connect_timeout = \"2s\"\n");
    };
    start(Options { shards: 1, replicas: 1, patients: 80, tune }).await
}

fn insert(patient: &Patient, substance: &str) -> String {
    format!(
        "INSERT INTO allergies (patient_id, substance, reaction, severity) \
         VALUES ('{}', '{substance}', 'Hives', 'mild')",
        patient.id
    )
}

/// Adds an allergy of this name.
async fn add(client: &Client, patient: &Patient, substance: &str) -> Result<(), Error> {
    in_time("an INSERT", client.simple_query(&insert(patient, substance))).await.map(drop)
}

/// Allergies of this name, as the server itself has them.
async fn count(pgward: &Deployment, substance: &str) -> i64 {
    let server = pgward.on_server(PRIMARY).await;
    server.query_one("SELECT count(*) FROM allergies WHERE substance = $1", &[&substance]).await.unwrap().get(0)
}

/// The SQLSTATE of an error that says the node is lost or cannot be reached.
#[track_caller]
fn lost(result: Result<(), Error>) -> String {
    let error = result.unwrap_err();
    let told = error.as_db_error().unwrap_or_else(|| panic!("the session was ended: {error:?}"));
    assert!(["08001", "08006", "08007", "53300", "57P01", "PW011"].contains(&told.code().code()), "{told:?}");
    told.code().code().to_owned()
}

async fn writes_work_again(client: &Client, patient: &Patient) {
    until("the session writes again", || async { add(client, patient, "after").await.is_ok() }).await;
}

#[tokio::test]
async fn writes_fail_clearly_and_reads_go_on_until_the_primary_is_back() {
    let pgward = watched_closely().await;
    let patient = pgward.patient("us-east", 10);
    let client = pgward.app().await;
    let readers = Readers::start(&pgward, "us-east").await;
    add(&client, &patient, "before").await.unwrap();
    readers.go_on(10).await;

    pgward.node(PRIMARY).crash();
    for n in 0..20 {
        lost(add(&client, &patient, "meanwhile").await);
        tokio::time::sleep(Duration::from_millis(10 * n)).await;
    }
    readers.go_on(50).await;

    pgward.node(PRIMARY).start().unwrap();
    writes_work_again(&client, &patient).await;
    assert_eq!(readers.stop().await, [""; 0]);
    assert_eq!(count(&pgward, "before").await, 1);
    assert_eq!(count(&pgward, "meanwhile").await, 0);
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_not_said_to_have_failed() {
    let pgward = watched_closely().await;
    let patient = pgward.patient("us-east", 11);
    let client = pgward.app().await;
    let update =
        format!("UPDATE patients SET updated_at = now() WHERE id = '{}' AND pg_sleep(30) IS NOT NULL", patient.id);
    let (answer, ()) = tokio::join!(in_time("an UPDATE", client.simple_query(&update)), async {
        let server = pgward.on_server(PRIMARY).await;
        let busy = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'UPDATE%' AND state = 'active'";
        let runs = || async { server.query_one(busy, &[]).await.unwrap().get::<_, i64>(0) == 1 };
        until("the UPDATE runs", runs).await;
        pgward.node(PRIMARY).crash();
    });
    assert_eq!(lost(answer.map(drop)), "08007");
    pgward.node(PRIMARY).start().unwrap();
    writes_work_again(&client, &patient).await;
}

#[tokio::test]
async fn an_open_transaction_fails_and_needs_a_rollback() {
    let pgward = watched_closely().await;
    let patient = pgward.patient("us-east", 12);
    let mut client = WireClient::login(pgward.port("general"), "app", "demo-app").await;
    for sql in ["BEGIN", &insert(&patient, "in it")] {
        assert_eq!(said(&mut client, sql).await.1, "T");
    }

    pgward.node(PRIMARY).crash();
    let (answer, status) = said(&mut client, &insert(&patient, "in it")).await;
    assert!(["08006", "08007", "25P02"].contains(&&*answer), "{answer}");
    assert_eq!(status, "E");
    assert_eq!(said(&mut client, &insert(&patient, "in it")).await, ("25P02".to_owned(), "E".to_owned()));
    pgward.node(PRIMARY).start().unwrap();
    assert_eq!(said(&mut client, &insert(&patient, "in it")).await, ("25P02".to_owned(), "E".to_owned()));
    // As a server answers the COMMIT of a failed transaction.
    assert_eq!(said(&mut client, "COMMIT").await, ("ROLLBACK".to_owned(), "I".to_owned()));

    let client = pgward.app().await;
    writes_work_again(&client, &patient).await;
    assert_eq!(count(&pgward, "in it").await, 0);
}

/// SQLSTATE or command tag, and the transaction status.
async fn said(client: &mut WireClient, sql: &str) -> (String, String) {
    let frames = client.query(sql).await;
    let error = frames.iter().find(|frame| frame.tag == b'E').and_then(|frame| frame.field(b'C'));
    let text = |tag| frames.iter().find(|frame| frame.tag == tag).map(|frame| String::from_utf8_lossy(&frame.body));
    let answer = error.or_else(|| text(b'C').map(|tag| tag.trim_end_matches('\0').to_owned()));
    (answer.expect("an answer"), text(b'Z').expect("ReadyForQuery").into_owned())
}

#[tokio::test]
async fn a_primary_that_answers_nothing_keeps_nobody_waiting_for_ever() {
    let pgward = watched_closely().await;
    let patient = pgward.patient("us-east", 13);
    let clients = [pgward.app().await, pgward.app().await, pgward.app().await];
    let readers = Readers::start(&pgward, "us-east").await;
    readers.go_on(10).await;

    pgward.node(PRIMARY).pause();
    for client in &clients {
        lost(add(client, &patient, "meanwhile").await);
    }
    readers.go_on(50).await;

    pgward.node(PRIMARY).resume();
    for client in &clients {
        writes_work_again(client, &patient).await;
    }
    assert_eq!(readers.stop().await, [""; 0]);
}
