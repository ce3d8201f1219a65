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

/// Refused by PgWard or, where it is a parameter that only a server knows, by that.
#[tokio::test]
async fn no_value_stands_in_the_records_of_what_is_refused_nor_in_refusals() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let patient = pgward.patient("us-east", 52).id;
    let read = format!("SELECT 1 FROM patients WHERE id = '{patient}'");
    let moved = format!(
        "INSERT INTO patients (id, region, mrn, family_name, given_name, birth_date, sex) \
         VALUES ('{patient}', 'VALUEOFMINE', 'x', 'x', 'x', '2000-01-01', 'other')"
    );
    let of_the_proxy = [
        "SET search_path = 'VALUEOFMINE'",
        "SET search_path = public, \"VALUEOFMINE\"",
        "SELECT set_config('search_path', 'VALUEOFMINE', false)",
        "SET pgward.priority = 'VALUEOFMINE'",
        "SET client_encoding = 'VALUEOFMINE'",
        "SET standard_conforming_strings = 'VALUEOFMINE'",
        "SET ROLE 'VALUEOFMINE'",
        "SELECT .5VALUEOFMINE FROM",
        "EXECUTE \"of nobody\"('VALUEOFMINE')",
        &moved,
    ];
    for sql in of_the_proxy {
        let error = client.simple_query(sql).await.unwrap_err();
        assert!(!format!("{error:?}").contains("VALUEOFMINE"), "{sql}: {error:?}");
    }
    // The server's words are for the client alone.
    client.simple_query("BEGIN; SET LOCAL work_mem = 'VALUEOFMINE'").await.unwrap_err();
    client.simple_query("ROLLBACK").await.unwrap();
    client.simple_query("BEGIN").await.unwrap();
    client.simple_query("SET work_mem = 'VALUEOFMINE'").await.unwrap();
    let error = client.simple_query(&read).await.unwrap_err();
    assert!(format!("{error:?}").contains("VALUEOFMINE"), "{error:?}");
    for options in ["-c%20pgward.priority=VALUEOFMINE", "-c%20work_mem=VALUEOFMINE", "VALUEOFMINE", "-c%20VALUEOFMINE"]
    {
        let url = format!("{}?options={options}", pgward.url("general", "app"));
        let error = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.err().unwrap();
        let by_a_server = options.contains("work_mem");
        assert_eq!(format!("{error:?}").contains("VALUEOFMINE"), by_a_server, "{options}: {error:?}");
    }
    let records = pgward.records();
    assert!(records.all.iter().any(|record| record["event"] == "login_refused"));
    assert!(records.all.iter().any(|record| record["reason"] == "not sent"));
    assert!(!records.text.contains("VALUEOFMINE"));
    assert!(!pgward.log().contains("VALUEOFMINE"));
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
