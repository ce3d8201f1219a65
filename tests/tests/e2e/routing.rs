//! Each form of a statement reaches a server of its patient's shard; the server itself says which it is.

use pgward::demo::data::REGIONS;
use pgward::demo::layout::PLACES;
use pgward_tests::{answered_by, answers};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::shared;

const NODE: &str = "current_setting('cluster_name')";

fn shard_of(region: &str) -> &'static str {
    PLACES.iter().find(|place| place.patients == region).unwrap().shard
}

#[tokio::test]
async fn a_read_goes_to_a_replica_of_the_patients_region() {
    let pgward = shared().await;
    let client = pgward.app().await;
    for region in REGIONS {
        let node = answered_by(&client, &pgward.patient(region, 0)).await;
        assert!(node.starts_with(&format!("{}/replica-", shard_of(region))), "{region}: {node}");
    }
}

#[tokio::test]
async fn the_servers_own_port_is_the_one_that_is_configured() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let patient = pgward.patient("us-west", 0);
    let port = answers(&client, &format!("SELECT inet_server_port() FROM patients WHERE id = '{}'", patient.id)).await;
    let node = pgward.cluster().by_port(port.parse().unwrap()).unwrap();
    assert!(node.name().starts_with("us-west-patients/replica-"), "{}", node.name());
}

#[tokio::test]
async fn every_form_of_a_read_is_placed() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let id = pgward.patient("eu-west", 1).id;
    let second = pgward.patient("eu-west", 2).id;
    for sql in [
        format!("SELECT {NODE} FROM patients WHERE id = '{id}'"),
        format!("SELECT {NODE} FROM public.patients p WHERE p.id = '{id}'::uuid AND critical IS NOT NULL"),
        format!("SELECT {NODE} FROM patients WHERE uuid '{id}' = id"),
        format!("SELECT {NODE} FROM patients WHERE id = CAST('{}' AS uuid)", id.to_string().to_uppercase()),
        format!("SELECT {NODE} FROM patients WHERE id IN ('{id}', '{second}') LIMIT 1"),
        format!("SELECT {NODE} FROM patients WHERE id = ANY ('{{{id},{second}}}') LIMIT 1"),
        format!("SELECT {NODE} FROM patients WHERE id = ANY (ARRAY['{id}', '{second}']::uuid[]) LIMIT 1"),
        format!("SELECT min({NODE}) FROM patients WHERE id = '{id}' OR id = '{second}'"),
        format!(
            "SELECT min({NODE}) FROM patients p JOIN encounters e ON e.patient_id = p.id JOIN observations o ON \
             o.patient_id = e.patient_id WHERE p.id = '{id}'"
        ),
        format!("SELECT min({NODE}) FROM patients p, encounters e WHERE e.patient_id = '{id}' AND p.id = e.patient_id"),
        format!("WITH one AS (SELECT * FROM patients WHERE id = '{id}') SELECT {NODE} FROM one"),
        format!("SELECT {NODE} FROM (SELECT id FROM patients WHERE id = '{id}') AS one"),
        format!(
            "SELECT min({NODE}) FROM encounters e JOIN icd10_codes c ON c.code = e.icd10 WHERE e.patient_id = '{id}'"
        ),
        format!(
            "SELECT {NODE} FROM patients WHERE id = '{id}' UNION SELECT {NODE} FROM patients WHERE id = '{second}'"
        ),
        format!("/* who */ SELECT {NODE} FROM \"patients\" -- is it?\n WHERE \"id\" = '{id}';"),
    ] {
        let node = answers(&client, &sql).await;
        assert!(node.starts_with("eu-west-patients/replica-"), "{sql}: {node}");
    }
}

#[tokio::test]
async fn what_may_write_goes_to_the_primary() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let id = pgward.patient("ap-south", 1).id;
    for sql in [
        format!("UPDATE patients SET updated_at = now() WHERE id = '{id}' RETURNING {NODE}"),
        format!(
            "INSERT INTO allergies (patient_id, substance, reaction, severity) VALUES ('{id}', 'Dust', 'Rash', 'mild') \
             RETURNING {NODE}"
        ),
        format!("DELETE FROM allergies WHERE patient_id = '{id}' AND substance = 'Dust' RETURNING {NODE}"),
        format!("SELECT {NODE} FROM patients WHERE id = '{id}' FOR UPDATE"),
        format!("SELECT {NODE} FROM patients WHERE id = '{id}' AND random() >= 0"),
        format!(
            "WITH changed AS (UPDATE patients SET updated_at = now() WHERE id = '{id}' RETURNING id) SELECT {NODE} FROM \
             changed"
        ),
    ] {
        assert_eq!(answers(&client, &sql).await, "ap-south-patients/primary", "{sql}");
    }
}

#[tokio::test]
async fn a_parameter_places_each_execution_of_one_statement() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let read = client.prepare("SELECT current_setting('cluster_name') FROM patients WHERE id = $1").await.unwrap();
    for n in 0..3 {
        for region in REGIONS {
            let row = client.query_one(&read, &[&pgward.patient(region, n).id]).await.unwrap();
            let node: String = row.get(0);
            assert!(node.starts_with(&format!("{}/replica-", shard_of(region))), "{region}: {node}");
        }
    }
}

#[tokio::test]
async fn an_array_parameter_places_a_statement() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let ids: Vec<Uuid> = (0..5).map(|n| pgward.patient("us-west", n).id).collect();
    let sql = "SELECT id, current_setting('cluster_name') FROM patients WHERE id = ANY ($1)";
    let rows = client.query(sql, &[&ids]).await.unwrap();
    assert_eq!(rows.len(), 5);
    assert!(rows.iter().all(|row| row.get::<_, String>(1).starts_with("us-west-patients/replica-")));
}

#[tokio::test]
async fn writes_by_parameters_reach_the_primary() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let id = pgward.patient("us-west", 7).id;
    let sql = "INSERT INTO observations (patient_id, loinc, name, value, unit, observed_at) VALUES ($1, $2, 'x', 1, '1', \
               now()), ($1, $2, 'y', 2, '1', now()) RETURNING current_setting('cluster_name')";
    let rows = client.query(sql, &[&id, &"test-by-parameters"]).await.unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].get::<_, String>(0), "us-west-patients/primary");
    let sql = "DELETE FROM observations WHERE patient_id = $1 AND loinc = $2";
    assert_eq!(client.execute(sql, &[&id, &"test-by-parameters"]).await.unwrap(), 2);
}

/// A patient exists only after the INSERT that carries the region.
#[tokio::test]
async fn an_insert_that_carries_its_region_registers_the_patient() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let id = Uuid::from_u128(0x1000_4000_8000_0000_0000_0001);
    let insert = format!(
        "INSERT INTO patients (id, region, mrn, family_name, given_name, birth_date, sex) VALUES ('{id}', 'eu-west', \
         'NEW-1', 'New', 'Patient', '2000-01-01', 'unknown') RETURNING {NODE}"
    );
    assert_eq!(answers(&client, &insert).await, "eu-west-patients/primary");
    let update = format!("UPDATE patients SET critical = true WHERE id = '{id}' RETURNING {NODE}");
    assert_eq!(answers(&client, &update).await, "eu-west-patients/primary");

    let by_parameter = "INSERT INTO patients (id, region, mrn, family_name, given_name, birth_date, sex) VALUES ($1, $2, \
                        'NEW-2', 'New', 'Patient', '2000-01-01', 'unknown')";
    let second = Uuid::from_u128(0x1000_4000_8000_0000_0000_0002);
    assert_eq!(client.execute(by_parameter, &[&second, &"ap-south"]).await.unwrap(), 1);
    delete(&client, second, "ap-south-patients/primary").await;
    delete(&client, id, "eu-west-patients/primary").await;
}

async fn delete(client: &Client, id: Uuid, node: &str) {
    let sql = format!("DELETE FROM patients WHERE id = '{id}' RETURNING {NODE}");
    assert_eq!(answers(client, &sql).await, node);
}

/// A string goes on behind a newline, and comments may stand between. Said twice each: what a text is like is remembered.
#[tokio::test]
async fn a_key_in_several_parts_is_read_as_the_server_reads_it() {
    let pgward = shared().await;
    let (client, server) = (pgward.app().await, pgward.on_server("eu-west-patients/primary").await);
    let id = pgward.patient("eu-west", 33).id.to_string();
    let (one, other) = id.split_at(11);
    let betweens = [
        "\n",
        " -- c\n ",
        "--c\n",
        "\n -- c\n ",
        " -- c\n -- d\n\n",
        " -- it's\n",
        " -- $$\n",
        " -- /*\n",
        "\r",
        " -- c\r ",
        "\x0c\n",
        " ",
        "",
        " /* c */\n ",
        "\n/* c */ ",
        "\n-- c ",
        " - \n",
        "\n+",
    ];
    for between in betweens.iter().chain(&betweens) {
        for prefix in ["", "E", "U&"] {
            let key = format!("{prefix}'{one}'{between}'{other}'");
            let sql = format!("SELECT family_name || {NODE} FROM patients WHERE id = {key}");
            let whole = |text: String| text.replace("replica-1", "primary").replace("replica-2", "primary");
            let told = match client.simple_query(&sql).await {
                Ok(_) => Ok(whole(answers(&client, &sql).await)),
                Err(error) => Err(error.code().unwrap().code().to_owned()),
            };
            match server.simple_query(&sql).await {
                Ok(_) => assert_eq!(told, Ok(answers(&server, &sql).await), "{sql:?}"),
                // What is no key to the server is none here.
                Err(_) => {
                    let code = told.expect_err(&sql);
                    assert!(["42601", "PW001", "PW007"].contains(&&*code), "{sql:?}: {code}");
                }
            }
        }
    }
}
