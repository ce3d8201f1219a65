//! The audit log is complete: every statement of every kind has its records, numbered without a gap, and nothing in
//! them says who a patient is.

use std::pin::pin;

use bytes::Bytes;
use futures_util::{SinkExt, TryStreamExt};
use pgward::demo::data::Patient;
use pgward::demo::layout::{Layout, User};
use pgward_tests::{Options, Records};
use serde_json::Value;
use tokio_postgres::Client;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::{assert_no_gap, start};

/// Sessions at the same time, each with a user of its own.
const USERS: [&str; 4] = ["counted-0", "counted-1", "counted-2", "counted-3"];

/// How often each says everything.
const ROUNDS: u32 = 5;

/// A literal, a parameter and a value of a COPY row that stand nowhere else.
const SECRET: [&str; 3] = ["Zweiblütige-Literal", "Zweiblütige-Parameter", "Zweiblütige-Zeile"];

fn counted(layout: &mut Layout) {
    layout.users.extend(USERS.map(User::new));
}

/// What a session expects of its next record: the kind of what was forwarded, or the SQLSTATE of a refusal.
type Expected = Result<&'static str, &'static str>;

const READ: Expected = Ok("read");
const WRITE: Expected = Ok("write");

/// A session that notes which records its statements must have left.
struct Counted {
    client: Client,
    expected: Vec<Expected>,
}

impl Counted {
    async fn simple(&mut self, sql: &str, expected: &[Expected]) {
        let refused = expected.iter().find_map(|record| record.err());
        match (self.client.simple_query(sql).await, refused) {
            (Ok(_), None) => {}
            (Err(error), Some(sqlstate)) => assert_eq!(error.code().unwrap().code(), sqlstate, "{sql}: {error:?}"),
            (answer, _) => panic!("{sql}: {answer:?}"),
        }
        self.expected.extend(expected);
    }

    async fn copy(&mut self, sql: &str, rows: String, expected: Expected) {
        let copied = async {
            let mut sink = pin!(self.client.copy_in(sql).await?);
            sink.send(Bytes::from(rows)).await?;
            sink.finish().await
        };
        let refused = copied.await.err().map(|error| error.code().unwrap().code().to_owned());
        assert_eq!(refused.as_deref(), expected.err());
        self.expected.push(expected);
    }

    /// Every kind of statement once.
    async fn everything(&mut self, east: &Patient, west: &Patient, round: u32) {
        let [literal, parameter, row] = SECRET;
        let (id, other) = (east.id, west.id);

        self.simple(&format!("SELECT '{literal}' FROM patients WHERE id = '{id}'"), &[READ]).await;
        self.simple(&format!("SELECT mrn FROM patients WHERE mrn = '{}' AND id = '{id}'", east.mrn), &[READ]).await;
        self.simple(&format!("UPDATE patients SET updated_at = now() WHERE id = '{id}'"), &[WRITE]).await;
        let both = format!(
            "SELECT 1 FROM patients WHERE id = '{id}'; DELETE FROM allergies WHERE patient_id = '{id}' AND \
             substance = '{literal}'"
        );
        self.simple(&both, &[READ, WRITE]).await;
        // Refused by the router, by the parser; accepted and then an error of the server.
        self.simple(&format!("SELECT 1 FROM patients WHERE family_name = '{literal}'"), &[Err("PW001")]).await;
        let two = format!("SELECT '{literal}' FROM patients WHERE id IN ('{id}', '{other}')");
        self.simple(&two, &[Err("PW002")]).await;
        self.simple(&format!("SELECT '{literal}' FROM patients WHERE id = '{id}' AND"), &[Err("42601")]).await;
        let nobody = Uuid::from_u128(0xdead);
        self.simple(&format!("SELECT 1 FROM patients WHERE id = '{nobody}'"), &[Err("PW004")]).await;
        self.client.simple_query(&format!("SELECT 1/0 FROM patients WHERE id = '{id}'")).await.unwrap_err();
        self.expected.push(READ);

        // The ends of a block decide nothing.
        self.simple("BEGIN", &[]).await;
        self.simple(&format!("SELECT 1 FROM patients WHERE id = '{id}' FOR UPDATE"), &[WRITE]).await;
        self.simple(&format!("SELECT 1 FROM patients WHERE id = '{id}'"), &[READ]).await;
        self.simple("COMMIT", &[]).await;

        for _ in 0..2 {
            let sql = "SELECT $2::text FROM patients WHERE id = $1";
            self.client.query_typed(sql, &[(&id, Type::UUID), (&parameter, Type::TEXT)]).await.unwrap();
            self.expected.push(READ);
        }
        let prepared = self.client.prepare("SELECT $2::text FROM patients WHERE id = $1").await.unwrap();
        for id in [id, other, id] {
            self.client.query(&prepared, &[&id, &parameter]).await.unwrap();
            self.expected.push(READ);
        }
        let refused = self.client.query(&prepared, &[&nobody, &parameter]).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "PW004");
        self.expected.push(Err("PW004"));

        let into = "COPY allergies (patient_id, substance, reaction, severity) FROM STDIN";
        let line = |id| format!("{id}\t{row}\tRash\tmild\n");
        self.copy(into, line(id).repeat(3), WRITE).await;
        self.copy(into, line(nobody), Err("PW004")).await;
        let out = format!("COPY (SELECT substance FROM allergies WHERE patient_id = '{id}') TO STDOUT");
        self.client.copy_out(&out).await.unwrap().try_collect::<Vec<_>>().await.unwrap();
        self.expected.push(READ);

        let new = Uuid::from_u128(u128::from(round) << 64 | id.as_u128() >> 64);
        let insert = format!(
            "INSERT INTO patients (id, region, mrn, family_name, given_name, birth_date, sex) \
             VALUES ('{new}', 'us-east', '{literal}-{new}', '{literal}', '{literal}', '2000-01-01', 'unknown')"
        );
        self.simple(&insert, &[WRITE]).await;
    }
}

fn of_user(records: &Records, user: &str) -> Vec<Result<String, String>> {
    let of = |record: &&Value| match record["sqlstate"].as_str() {
        Some(sqlstate) => Err(sqlstate.to_owned()),
        None => Ok(record["kind"].as_str().unwrap().to_owned()),
    };
    records.decisions_of(user).iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_statement_has_its_records_and_no_patient_stands_in_them() {
    let pgward = start(Options { shards: 2, replicas: 1, patients: 80, tune: counted }).await;
    let mut sessions = Vec::new();
    for (n, user) in USERS.into_iter().enumerate() {
        let mut session = Counted { client: pgward.connect("general", user).await, expected: Vec::new() };
        let (east, west) = (pgward.patient("us-east", n), pgward.patient("us-west", n));
        sessions.push(tokio::spawn(async move {
            for round in 0..ROUNDS {
                session.everything(&east, &west, round).await;
            }
            session.expected
        }));
    }
    for (session, user) in sessions.into_iter().zip(USERS) {
        let expected = session.await.unwrap();
        let expected: Vec<_> = expected.into_iter().map(|e| e.map(str::to_owned).map_err(str::to_owned)).collect();
        let found = of_user(&pgward.records(), user);
        let differs = expected.iter().zip(&found).position(|(expected, found)| expected != found);
        assert_eq!(differs, None, "{user}: expected {expected:?}, found {found:?}");
        assert_eq!(expected.len(), found.len(), "{user}");
    }

    let records = pgward.records();
    assert_no_gap(&records.all);
    for region in ["us-east", "us-west"] {
        for patient in (0..20).map(|n| pgward.patient(region, n)) {
            let (id, mrn) = (patient.id.to_string(), &*patient.mrn);
            for told in [&*id, &id.replace('-', ""), mrn, patient.family_name, patient.given_name, &patient.birth_date]
            {
                assert!(!records.text.contains(told), "{told} stands in the audit log");
            }
        }
    }
    for told in SECRET.into_iter().chain(["Zweibl", "2000-01-01", "0000-0000-"]) {
        assert!(!records.text.contains(told), "{told} stands in the audit log");
    }
    // Patients are there, as keyed hashes, and the same patient is always the same one.
    let hashes = |record: &&Value| record["patients"].as_array().cloned().unwrap_or_default();
    let named: Vec<Value> = records.decisions_of(USERS[0]).iter().flat_map(hashes).collect();
    assert!(named.iter().all(|hash| hash.as_str().is_some_and(|hash| hash.len() == 32)), "{named:?}");
    let distinct: std::collections::HashSet<&str> = named.iter().filter_map(Value::as_str).collect();
    // One's own, the other region's, nobody, and those registered.
    assert_eq!(distinct.len(), 3 + ROUNDS as usize);
}
