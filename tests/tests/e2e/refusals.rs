//! What cannot be placed is refused, each with its SQLSTATE, and the session goes on.

use pgward_tests::{answers, sqlstate};
use tokio_postgres::types::ToSql;

use crate::shared;

#[tokio::test]
async fn each_refusal_has_its_sqlstate() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let east = pgward.patient("us-east", 3).id;
    let west = pgward.patient("eu-west", 3).id;
    let unknown = "00000000-0000-4000-8000-00000000dead";
    let new_patient = |id: &str, region: &str| {
        format!(
            "INSERT INTO patients (id, region, mrn, family_name, given_name, birth_date, sex) VALUES ('{id}', '{region}', \
             'REFUSED', 'a', 'b', '2000-01-01', 'unknown')"
        )
    };
    for (sql, expected) in [
        ("SELECT count(*) FROM patients".to_owned(), "PW001"),
        ("SELECT * FROM patients WHERE family_name = 'Smith'".to_owned(), "PW001"),
        ("DELETE FROM encounters".to_owned(), "PW001"),
        (format!("SELECT * FROM patients WHERE id <> '{east}'"), "PW001"),
        (format!("SELECT * FROM patients WHERE id = '{east}' OR critical"), "PW001"),
        (format!("SELECT * FROM patients p JOIN encounters e ON true WHERE p.id = '{east}'"), "PW001"),
        (format!("SELECT * FROM patients WHERE id IN ('{east}', '{west}')"), "PW002"),
        (format!("SELECT * FROM patients p, encounters e WHERE p.id = '{east}' AND e.patient_id = '{west}'"), "PW002"),
        ("SELECT * FROM notes_nobody_declared".to_owned(), "PW003"),
        (format!("SELECT * FROM patients WHERE id = '{unknown}'"), "PW004"),
        ("SELECT * FROM patients WHERE id = 'nonsense'".to_owned(), "PW007"),
        ("UPDATE icd10_codes SET title = 'x' WHERE code = 'I10'".to_owned(), "PW008"),
        ("DROP TABLE patients".to_owned(), "PW008"),
        ("TRUNCATE encounters".to_owned(), "PW008"),
        (
            "INSERT INTO pgbench_history (tid, note[(SELECT count(*) FROM patients)]) VALUES (1, 'x')".to_owned(),
            "PW001",
        ),
        (
            "ALTER TABLE pgbench_history ADD COLUMN z text DEFAULT \
             query_to_xml('SELECT count(*) FROM patients', true, false, '')::text"
                .to_owned(),
            "PW008",
        ),
        ("CREATE POLICY p ON pgbench_history USING (EXISTS (SELECT 1 FROM patients))".to_owned(), "PW008"),
        ("COPY pgbench_history FROM STDIN WHERE pg_try_advisory_lock(4242)".to_owned(), "0A000"),
        ("SET search_path = pg_temp, public".to_owned(), "0A000"),
        ("SELECT query FROM pg_stat_activity".to_owned(), "PW001"),
        ("SELECT pg_terminate_backend(pid) FROM pg_stat_activity".to_owned(), "0A000"),
        (format!("SELECT 1{}", "+a".repeat(1 << 20)), "54000"),
        ("SET pgward.priority = 'emergency'".to_owned(), "PW009"),
        (new_patient(unknown, "atlantis"), "PW010"),
        (new_patient(&east.to_string(), "eu-west"), "PW013"),
        ("SELEC 1".to_owned(), "42601"),
    ] {
        println!("{sql:.200}");
        assert_eq!(sqlstate(client.simple_query(&sql).await), expected);
        assert_eq!(answers(&client, "SELECT 1").await, "1");
    }
}

#[tokio::test]
async fn a_refusal_says_nothing_of_the_patient() {
    let pgward = shared().await;
    let client = pgward.connect("strict-ap", "app").await;
    let patient = pgward.patient("us-east", 4);
    let sql = format!("SELECT * FROM patients WHERE id = '{}'", patient.id);
    let error = client.simple_query(&sql).await.unwrap_err();
    let said = format!("{:?}", error.as_db_error().unwrap());
    assert!(!said.contains(&patient.id.to_string()), "{said}");
}

/// The strict port stands in ap-south-1, which the other regions prohibit.
#[tokio::test]
async fn an_origin_reaches_only_regions_that_let_it_in() {
    let pgward = shared().await;
    let client = pgward.connect("strict-ap", "app").await;
    for region in ["us-east", "us-west", "eu-west"] {
        let id = pgward.patient(region, 5).id;
        for sql in [
            format!("SELECT * FROM patients WHERE id = '{id}'"),
            format!("UPDATE patients SET critical = true WHERE id = '{id}'"),
        ] {
            assert_eq!(sqlstate(client.simple_query(&sql).await), "PW005", "{sql}");
        }
        let read = "SELECT family_name FROM patients WHERE id = $1";
        assert_eq!(sqlstate(client.query(read, &[&id]).await), "PW005", "{region}");
    }
    let at_home = pgward.patient("ap-south", 5);
    let sql = format!("SELECT family_name FROM patients WHERE id = '{}'", at_home.id);
    assert_eq!(answers(&client, &sql).await, at_home.family_name);
}

type Params<'a> = [&'a (dyn ToSql + Sync); 1];

#[tokio::test]
async fn a_refused_parameter_leaves_the_pipeline_usable() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let read = client.prepare("SELECT family_name FROM patients WHERE id = $1").await.unwrap();
    let (known, unknown) = (pgward.patient("us-east", 6), uuid::Uuid::from_u128(0xdead));
    let (known_id, unknown_id): (Params<'_>, Params<'_>) = ([&known.id], [&unknown]);
    let (first, second, third) = tokio::join!(
        client.query_one(&read, &known_id),
        client.query_one(&read, &unknown_id),
        client.query_one(&read, &known_id),
    );
    assert_eq!(first.unwrap().get::<_, String>(0), known.family_name);
    assert_eq!(sqlstate(second), "PW004");
    assert_eq!(third.unwrap().get::<_, String>(0), known.family_name);
}

#[tokio::test]
async fn wrong_passwords_and_strangers_do_not_come_in() {
    let pgward = shared().await;
    let port = pgward.port("general");
    for user in ["app:wrong", "nobody:demo-nobody"] {
        let url = format!("postgresql://{user}@127.0.0.1:{port}/healthcare");
        assert_eq!(sqlstate(pgward::demo::cluster::connect(&url).await.map_err(db_error).map(drop)), "28P01", "{user}");
    }
    let url = format!("postgresql://app:demo-app@127.0.0.1:{port}/elsewhere");
    assert_eq!(sqlstate(pgward::demo::cluster::connect(&url).await.map_err(db_error).map(drop)), "3D000");
}

fn db_error(error: anyhow::Error) -> tokio_postgres::Error {
    error.downcast().expect("an error of the connection")
}
