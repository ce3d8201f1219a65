//! An INSERT touches the rows of the patients that it names, and of nobody else.

use pgward_tests::{answers, sqlstate};

use crate::shared;

const COLUMNS: &str = "(id, region, mrn, family_name, given_name, birth_date, sex)";
const PRIMARY: &str = "us-east-patients/primary";

/// The values of a row of `patients`.
fn row(id: &str, region: &str, mrn: &str) -> String {
    format!("('{id}', {region}, '{mrn}', 'Other', 'x', '2000-01-01', 'other')")
}

/// A unique index of another column than the key finds anybody's row.
#[tokio::test]
async fn on_conflict_changes_no_row_of_another_patient() {
    let pgward = shared().await;
    let (client, server) = (pgward.app().await, pgward.on_server(PRIMARY).await);
    let (own, other) = (pgward.patient("us-east", 30), pgward.patient("us-east", 31));
    let (own_id, new_id) = (own.id.to_string(), "00000000-0000-4000-8000-0000000c1001");
    let row_of_other = format!("SELECT p::text FROM patients p WHERE id = '{}'", other.id);
    let before = answers(&server, &row_of_other).await;
    for id in [&*own_id, new_id] {
        let values = row(id, "'us-east'", &other.mrn);
        let insert = format!("INSERT INTO patients {COLUMNS} VALUES {values}");
        for conflict in [
            "(mrn) DO UPDATE SET family_name = 'HACKED' RETURNING *",
            "ON CONSTRAINT patients_mrn_key DO UPDATE SET family_name = 'HACKED' RETURNING *",
            "(mrn) DO UPDATE SET family_name = 'HACKED' WHERE patients.id = excluded.id OR true",
        ] {
            let sql = format!("{insert} ON CONFLICT {conflict}");
            assert_eq!(sqlstate(client.simple_query(&sql).await), "PW001", "{sql}");
            let sql = format!("WITH i AS ({sql}) SELECT 1");
            assert_eq!(sqlstate(client.simple_query(&sql).await), "PW001", "{sql}");
        }
        let sql = format!(
            "INSERT INTO patients {COLUMNS} VALUES ($1, $2, $3, 'Other', 'x', '2000-01-01', 'other') ON CONFLICT (mrn) \
             DO UPDATE SET family_name = 'HACKED'"
        );
        let id: uuid::Uuid = id.parse().unwrap();
        assert_eq!(sqlstate(client.execute(&sql, &[&id, &"us-east", &other.mrn]).await), "PW001");
    }
    assert_eq!(answers(&server, &row_of_other).await, before);
    let sql = format!("SELECT * FROM patients WHERE id = '{new_id}'");
    assert_eq!(sqlstate(client.simple_query(&sql).await), "PW004", "registered by a refused statement");

    // The row in conflict is another patient's: the condition keeps it as it is.
    let insert = format!("INSERT INTO patients {COLUMNS} VALUES {}", row(&own_id, "'us-east'", &other.mrn));
    let sql = format!(
        "WITH i AS ({insert} ON CONFLICT (mrn) DO UPDATE SET family_name = 'HACKED' WHERE patients.id = excluded.id \
         RETURNING *) SELECT count(*) FROM i"
    );
    assert_eq!(answers(&client, &sql).await, "0");
    assert_eq!(answers(&server, &row_of_other).await, before);

    // One's own row is updated, found by the key.
    let insert = format!("INSERT INTO patients {COLUMNS} VALUES {}", row(&own_id, "'us-east'", &own.mrn));
    let sql = format!("{insert} ON CONFLICT (id) DO UPDATE SET sex = patients.sex RETURNING id");
    assert_eq!(answers(&client, &sql).await, own_id);
}

/// A star in a row moves what stands behind it: another's key would stand where one's own is read.
#[tokio::test]
async fn nothing_is_read_behind_a_star() {
    let pgward = shared().await;
    let (client, server) = (pgward.app().await, pgward.on_server(PRIMARY).await);
    let (own, other) = (pgward.patient("us-east", 30).id, pgward.patient("us-east", 31).id);
    let sql = format!(
        "SELECT p.id FROM patients p, (SELECT 1 AS a, '{own}'::uuid AS b) s WHERE (s.*, p.id) = (1, '{own}', '{other}')"
    );
    assert_eq!(answers(&server, &sql).await, other.to_string(), "what the server makes of it");
    assert_eq!(sqlstate(client.simple_query(&sql).await), "PW001");
}

/// A row whose region is not the directory's is stored nowhere, however its region is written.
#[tokio::test]
async fn no_row_is_stored_with_a_region_that_contradicts_the_directory() {
    let pgward = shared().await;
    let (client, server) = (pgward.app().await, pgward.on_server(PRIMARY).await);
    let elsewhere = "SELECT count(*) FROM patients WHERE region <> 'us-east'";
    let (known, new) = (pgward.patient("us-east", 32).id.to_string(), "00000000-0000-4000-8000-0000000c2001");
    for id in [&*known, new] {
        let values = |region: &str| format!("INSERT INTO patients {COLUMNS} VALUES {}", row(id, region, "C2"));
        let merge = |source: &str, region: &str| {
            format!(
                "MERGE INTO patients p USING (VALUES {source}) s(id, region) ON p.id = s.id WHEN NOT MATCHED THEN \
                 INSERT {COLUMNS} VALUES (s.id, {region}, 'C2', 'a', 'b', '2000-01-01', 'other')"
            )
        };
        let with = |source: &str, region: &str| {
            format!(
                "WITH s(id, r) AS (VALUES {source}) INSERT INTO patients {COLUMNS} SELECT id, {region}, 'C2', 'a', 'b', \
                 date '2000-01-01', 'other' FROM s"
            )
        };
        let source = format!("('{id}'::uuid, 'eu-west')");
        for sql in [
            values("lower('EU-WEST')"),
            values("'eu-west'::varchar(20)"),
            values("(SELECT 'eu-west')"),
            values("DEFAULT"),
            values("NULL"),
            with(&source, "r"),
            with(&source, "lower('EU-WEST')"),
            merge(&source, "s.region"),
            merge(&source, "lower(s.region)"),
            format!("{}, {}", values("'us-east'"), row(id, "lower('EU-WEST')", "C2")),
        ] {
            assert_eq!(sqlstate(client.simple_query(&sql).await), "PW013", "{sql}");
        }
        let compared = if id == new { "PW004" } else { "PW013" };
        for sql in [with(&source, "'eu-west'"), merge(&source, "'eu-west'")] {
            assert_eq!(sqlstate(client.simple_query(&sql).await), compared, "{sql}");
        }
        let sql = format!("INSERT INTO patients {COLUMNS} VALUES ($1, $2, 'C2', 'a', 'b', '2000-01-01', 'other')");
        let uuid: uuid::Uuid = id.parse().unwrap();
        assert_eq!(sqlstate(client.execute(&sql, &[&uuid, &None::<&str>]).await), "PW013");
    }
    assert_eq!(answers(&server, elsewhere).await, "0");
    assert_eq!(answers(&server, "SELECT count(*) FROM patients WHERE mrn = 'C2'").await, "0");
    let sql = format!("SELECT * FROM patients WHERE id = '{new}'");
    assert_eq!(sqlstate(client.simple_query(&sql).await), "PW004", "registered by a refused statement");
}

/// Only what is executed registers.
#[tokio::test]
async fn explain_registers_nobody() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let id = "00000000-0000-4000-8000-0000000c3001";
    let insert = format!("INSERT INTO patients {COLUMNS} VALUES {}", row(id, "'eu-west'", "C3"));
    for explain in ["EXPLAIN", "EXPLAIN (VERBOSE, ANALYZE off)"] {
        client.simple_query(&format!("{explain} {insert}")).await.unwrap();
        let sql = format!("SELECT * FROM patients WHERE id = '{id}'");
        assert_eq!(sqlstate(client.simple_query(&sql).await), "PW004", "{explain}");
    }
    let known = pgward.patient("us-east", 33).id.to_string();
    let insert = format!("EXPLAIN INSERT INTO patients {COLUMNS} VALUES {}", row(&known, "'eu-west'", "C3"));
    assert_eq!(sqlstate(client.simple_query(&insert).await), "PW013");
}
