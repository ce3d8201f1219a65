//! Whose records a cursor reads stands in the records of FETCH and MOVE, too.

use bytes::BytesMut;
use pgward_tests::{Deployment, WireClient};
use pgward_wire::frontend;
use serde_json::Value;

use crate::{shared, told};

async fn client(pgward: &Deployment) -> (WireClient, usize) {
    let client = WireClient::login(pgward.port("general"), "app", "demo-app").await;
    (client, pgward.records().all.len())
}

/// The statement that one cursor reads by.
fn declare(name: &str, pgward: &Deployment, n: usize) -> String {
    let id = pgward.patient("us-east", n).id;
    format!("DECLARE {name} CURSOR FOR SELECT family_name FROM patients WHERE id = '{id}'")
}

async fn each(client: &mut WireClient, texts: &[&str]) {
    for sql in texts {
        let frames = client.query(sql).await;
        assert!(
            frames.iter().all(|frame| frame.tag != b'E'),
            "{sql}: {:?}",
            frames.iter().map(told).collect::<Vec<_>>()
        );
    }
}

/// What the session's records say of whom they read: patients, home, permit, and where the patients were seen.
fn touched(pgward: &Deployment, client: &WireClient, since: usize) -> Vec<([Value; 3], Value)> {
    let records = pgward.records();
    let of = |record: &&Value| {
        let evidence = record["evidence"].clone();
        (["patients", "home", "permit"].map(|field| record[field].clone()), evidence)
    };
    records.decisions_from(since, "general", &client.address()).iter().map(of).collect()
}

/// That these name nobody.
fn assert_nobody((said, evidence): &([Value; 3], Value)) {
    let empty = |value: &Value| value.as_array().is_none_or(Vec::is_empty);
    assert!(empty(&said[0]) && said[1].is_null() && empty(evidence), "{said:?}");
}

#[tokio::test]
async fn a_fetch_names_the_patients_of_its_declare() {
    let pgward = shared().await;
    let (mut client, since) = client(pgward).await;
    let (one, other) = (declare("one", pgward, 60), declare("other", pgward, 61));
    let texts = ["BEGIN", &one, &other, "FETCH one", "MOVE other", "SAVEPOINT s", "FETCH other", "CLOSE one", "COMMIT"];
    each(&mut client, &texts).await;
    each(&mut client, &["BEGIN", "DECLARE one CURSOR FOR SELECT 1", "FETCH one", "ROLLBACK"]).await;
    let said = touched(pgward, &client, since);
    let [one, other, fetch_one, move_other, fetch_other, close, rest @ ..] = &said[..] else { panic!("{said:?}") };
    assert!(one.0[0].as_array().is_some_and(|patients| patients.len() == 1) && one.0[1] == "us-east", "{one:?}");
    assert_ne!(one.0[0], other.0[0]);
    assert_eq!((&fetch_one.0, &move_other.0, &fetch_other.0), (&one.0, &other.0, &other.0));
    for fetch in [fetch_one, move_other, fetch_other] {
        assert_eq!(fetch.1, serde_json::json!(["cursor"]));
    }
    assert_nobody(close);
    assert_eq!(rest.len(), 2);
    rest.iter().for_each(assert_nobody);
}

#[tokio::test]
async fn a_cursor_with_hold_names_them_behind_its_transaction() {
    let pgward = shared().await;
    let (mut client, since) = client(pgward).await;
    let held = declare("held", pgward, 62).replace("CURSOR", "CURSOR WITH HOLD");
    each(&mut client, &[&held, "FETCH held", "BEGIN", "MOVE held", "COMMIT", "FETCH held", "CLOSE held"]).await;
    let said = touched(pgward, &client, since);
    let [declared, fetched @ .., closed] = &said[..] else { panic!("{said:?}") };
    assert_eq!((declared.0[1].as_str(), fetched.len()), (Some("us-east"), 3), "{said:?}");
    assert!(fetched.iter().all(|fetch| fetch.0 == declared.0), "{said:?}");
    assert_nobody(closed);
    let frames = client.query("SELECT 1 FROM pg_cursors").await;
    assert!(frames.iter().all(|frame| frame.tag != b'D'), "it is closed");
}

#[tokio::test]
async fn so_does_a_fetch_in_the_same_message_or_pipeline() {
    let pgward = shared().await;
    let (mut client, since) = client(pgward).await;
    let declare = declare("c", pgward, 63);
    each(&mut client, &[&format!("BEGIN; {declare}; FETCH c; COMMIT")]).await;
    let mut pipeline = BytesMut::new();
    for sql in ["BEGIN", &declare, "FETCH c", "COMMIT"] {
        frontend::put_parse(&mut pipeline, b"", sql.as_bytes(), &[]);
        frontend::put_bind_renamed(&mut pipeline, b"\0\0\0\0\0\0\0\0", b"");
        frontend::put_execute(&mut pipeline, b"");
    }
    frontend::put_sync(&mut pipeline);
    client.send(&pipeline).await;
    let frames: Vec<String> = client.until_ready().await.iter().map(told).collect();
    assert!(frames.contains(&"CFETCH 1".to_owned()), "{frames:?}");
    let said = touched(pgward, &client, since);
    let named: Vec<_> = said.iter().filter(|(said, _)| said[1] == "us-east").collect();
    assert_eq!(named.len(), 4, "{said:?}");
    assert!(named.iter().all(|(said, _)| *said == named[0].0), "{said:?}");
}

#[tokio::test]
async fn a_session_has_no_more_cursors_than_are_remembered() {
    let pgward = shared().await;
    let (mut client, _) = client(pgward).await;
    each(&mut client, &["BEGIN"]).await;
    for n in 0..1000 {
        each(&mut client, &[&declare(&format!("c{n}"), pgward, 64)]).await;
    }
    let one_more = declare("one_more", pgward, 64);
    each(&mut client, &["CLOSE c7", &one_more, "DECLARE nobody CURSOR FOR SELECT 1", "SAVEPOINT s"]).await;
    let refused = client.query(&declare("too_many", pgward, 64)).await;
    assert_eq!(told(&refused[0]), "E54000");
    each(&mut client, &["ROLLBACK TO s", "CLOSE ALL", &declare("again", pgward, 64), "FETCH again", "ROLLBACK"]).await;
}
