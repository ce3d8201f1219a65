//! Emergencies go to the primary, from whoever may call one.

use pgward_tests::{answered_by, answers, sqlstate};

use crate::shared;

#[tokio::test]
async fn the_emergency_port_reads_from_the_primary() {
    let pgward = shared().await;
    let client = pgward.connect("emergency", "dispatcher").await;
    for region in ["us-east", "eu-west"] {
        let node = answered_by(&client, &pgward.patient(region, 0)).await;
        assert_eq!(node, format!("{region}-patients/primary"));
    }
}

#[tokio::test]
async fn a_dispatcher_may_ask_for_an_emergency_and_end_it() {
    let pgward = shared().await;
    let client = pgward.connect("general", "dispatcher").await;
    let patient = pgward.patient("us-west", 0);
    assert!(answered_by(&client, &patient).await.contains("/replica-"));
    client.simple_query("SET pgward.priority = 'emergency'").await.unwrap();
    assert_eq!(answers(&client, "SHOW pgward.priority").await, "emergency");
    assert_eq!(answered_by(&client, &patient).await, "us-west-patients/primary");
    client.simple_query("RESET pgward.priority").await.unwrap();
    assert!(answered_by(&client, &patient).await.contains("/replica-"));
}

#[tokio::test]
async fn nobody_rises_above_the_ceiling() {
    let pgward = shared().await;
    let nurse = pgward.connect("general", "nurse").await;
    nurse.simple_query("SET pgward.priority = 'critical'").await.unwrap();
    assert_eq!(sqlstate(nurse.simple_query("SET pgward.priority = 'emergency'").await), "PW009");
    assert_eq!(answers(&nurse, "SHOW pgward.priority").await, "critical");
    let analyst = pgward.connect("general", "analyst").await;
    assert_eq!(sqlstate(analyst.simple_query("SET pgward.priority = 'normal'").await), "PW009");
}
