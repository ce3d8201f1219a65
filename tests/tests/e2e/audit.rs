//! One record for each decision, refusals included, and no patient in it.

use pgward_tests::answers;

use crate::shared;

/// No other test comes by this port as the analyst.
#[tokio::test]
async fn as_many_statements_as_records() {
    let pgward = shared().await;
    let client = pgward.connect("strict-ap", "analyst").await;
    let of_this_test = |record: &&serde_json::Value| record["listener"] == "strict-ap";
    let before = pgward.records().decisions_of("analyst").into_iter().filter(of_this_test).count();

    let own = pgward.patient("ap-south", 50);
    let foreign = pgward.patient("us-east", 50);
    for _ in 0..20 {
        answers(&client, &format!("SELECT family_name FROM patients WHERE id = '{}'", own.id)).await;
        client.simple_query(&format!("SELECT * FROM patients WHERE id = '{}'", foreign.id)).await.unwrap_err();
        client.simple_query("SELECT count(*) FROM patients").await.unwrap_err();
    }

    let records = pgward.records();
    let decisions: Vec<_> = records.decisions_of("analyst").into_iter().filter(of_this_test).skip(before).collect();
    assert_eq!(decisions.len(), 60);
    for of_one_round in decisions.chunks(3) {
        let [read, foreign, nobody] = of_one_round else { panic!("three statements a round") };
        assert_eq!(read["outcome"], "forwarded");
        assert_eq!(read["kind"], "analytics");
        assert_eq!(read["shard"], "ap-south-patients");
        assert_eq!(read["patients"].as_array().unwrap().len(), 1);
        assert_eq!((&foreign["outcome"], &foreign["sqlstate"]), (&"refused".into(), &"PW005".into()));
        assert_eq!((&nobody["outcome"], &nobody["sqlstate"]), (&"refused".into(), &"PW001".into()));
    }
}

#[tokio::test]
async fn sequence_numbers_have_no_gaps() {
    let pgward = shared().await;
    let client = pgward.app().await;
    answers(&client, "SELECT 1").await;
    let records = pgward.records();
    for (record, expected) in records.all.iter().zip(records.all[0]["seq"].as_u64().unwrap()..) {
        assert_eq!(record["seq"], expected);
    }
}

#[tokio::test]
async fn no_patient_and_no_literal_stands_in_the_log() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let patient = pgward.patient("us-east", 51);
    let id = patient.id;
    answers(&client, &format!("SELECT 'a-literal-of-mine' FROM patients WHERE id = '{id}'")).await;
    client.simple_query(&format!("SELECT 'a-literal-of-mine' FROM patients WHERE id = '{id}' AND")).await.unwrap_err();
    client.query("SELECT $2::text FROM patients WHERE id = $1", &[&id, &"a-parameter-of-mine"]).await.unwrap();

    let text = pgward.records().text;
    let id = id.to_string();
    for secret in [&*id, &id.replace('-', ""), "a-literal-of-mine", "a-parameter-of-mine"] {
        assert!(!text.contains(secret), "{secret}");
    }
}
