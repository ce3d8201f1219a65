//! What a session sets stays with it, whichever server serves it, and never reaches another session.

use std::time::Duration;

use pgward::demo::layout::SERVER_ROLE;
use pgward_tests::{WireClient, answers, sqlstate};

use crate::shared;

#[tokio::test]
async fn settings_follow_the_session_over_all_servers() {
    let pgward = shared().await;
    let client = pgward.app().await;
    client.simple_query("SET statement_timeout = '12345ms'; SET TIME ZONE 'Asia/Kolkata'").await.unwrap();
    for region in ["us-east", "us-west", "eu-west", "ap-south"] {
        let id = pgward.patient(region, 20).id;
        let sql = format!(
            "SELECT current_setting('statement_timeout') || ' ' || current_setting('TimeZone') FROM patients WHERE id = \
             '{id}'"
        );
        assert_eq!(answers(&client, &sql).await, "12345ms Asia/Kolkata", "{region}");
    }
    assert_eq!(answers(&client, "SHOW statement_timeout").await, "12345ms");
}

#[tokio::test]
async fn a_parameter_that_no_server_has_heard_of_yet_is_reported_when_one_has() {
    let pgward = shared().await;
    let mut client = WireClient::login(pgward.port("general"), "app", "demo-app").await;
    let id = pgward.patient("eu-west", 22).id;
    let read = format!("SELECT birth_date FROM patients WHERE id = '{id}'");
    // Before a row is read by it, whether the server hears of it in the transaction or ahead of a later statement.
    for (at, sql) in
        ["BEGIN", "SET datestyle TO 'German'", &read, "COMMIT", "SET datestyle TO 'SQL, DMY'", &read].iter().enumerate()
    {
        let frames = client.query(sql).await;
        let told = frames.iter().rposition(|frame| frame.tag == b'S' && frame.body.starts_with(b"DateStyle\0"));
        let row = frames.iter().position(|frame| frame.tag == b'T');
        match at {
            2 => assert!(told.is_some() && told < row, "{frames:?}"),
            4 => assert!(told.is_some(), "{frames:?}"),
            _ => {}
        }
    }
}

/// A right on a parameter is given on one shard only.
#[tokio::test]
async fn a_statement_does_not_run_where_its_settings_are_refused() {
    let pgward = shared().await;
    let home = pgward.on_server("us-east-patients/primary").await;
    home.simple_query(&format!("GRANT SET ON PARAMETER log_duration TO {SERVER_ROLE}")).await.unwrap();
    pgward.cluster().await_replay().await.unwrap();
    let asked = [("log_duration", "off")];
    let (mut client, _) = WireClient::greeted(pgward.port("general"), "app", "demo-app", 0, &asked).await;
    let write = |region, name| {
        let id = pgward.patient(region, 24).id;
        format!("UPDATE patients SET family_name = '{name}' WHERE id = '{id}'")
    };
    let frames = client.query(&write("us-east", "accepted")).await;
    assert!(frames.iter().any(|frame| frame.tag == b'C'), "{frames:?}");
    let frames = client.query(&write("eu-west", "refused")).await;
    assert_eq!(frames[0].field(b'C').unwrap(), "42501");
    let elsewhere = pgward.on_server("eu-west-patients/primary").await;
    assert_eq!(answers(&elsewhere, "SELECT count(*) FROM patients WHERE family_name = 'refused'").await, "0");
}

#[tokio::test]
async fn settings_never_reach_another_session() {
    let pgward = shared().await;
    let id = pgward.patient("us-east", 21).id;
    let read = format!("SELECT current_setting('statement_timeout') FROM patients WHERE id = '{id}'");
    for _ in 0..10 {
        let client = pgward.app().await;
        client.simple_query("SET statement_timeout = '54321ms'").await.unwrap();
        assert_eq!(answers(&client, &read).await, "54321ms");
        let other = pgward.app().await;
        assert_eq!(answers(&other, &read).await, "0");
    }
}

#[tokio::test]
async fn a_setting_of_a_rolled_back_block_is_gone() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let id = pgward.patient("us-east", 22).id;
    let read = format!("SELECT current_setting('statement_timeout') FROM patients WHERE id = '{id}'");
    client.simple_query("BEGIN").await.unwrap();
    client.simple_query("SET statement_timeout = '777ms'").await.unwrap();
    assert_eq!(answers(&client, &read).await, "777ms");
    client.simple_query("ROLLBACK").await.unwrap();
    assert_eq!(answers(&client, &read).await, "0");
    client.simple_query("BEGIN; SET LOCAL statement_timeout = '888ms'").await.unwrap();
    assert_eq!(answers(&client, &read).await, "888ms");
    client.simple_query("COMMIT").await.unwrap();
    assert_eq!(answers(&client, &read).await, "0");
}

#[tokio::test]
async fn a_running_statement_is_cancelled() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let id = pgward.patient("eu-west", 23).id;
    let cancel = client.cancel_token();
    let asleep = format!("SELECT pg_sleep(60) FROM patients WHERE id = '{id}'");
    let (slept, ()) = tokio::join!(client.simple_query(&asleep), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        cancel.cancel_query(tokio_postgres::NoTls).await.unwrap();
    });
    assert_eq!(sqlstate(slept), "57014");
    assert_eq!(answers(&client, "SELECT 1").await, "1");
}
