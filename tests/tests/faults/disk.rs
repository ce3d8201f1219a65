//! The audit log's disk takes nothing any more: everything is refused but emergencies, and their records are there
//! when it does again.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;

use pgward_tests::{Deployment, Options, answers, sqlstate};

use crate::{assert_no_gap, in_time, mark, records_since, start, until};

/// Sets how large the files may be that PgWard writes.
fn limit(pgward: &Deployment, bytes: &str) {
    let pid = pgward.with_instance(|instance| instance.pid()).to_string();
    let prlimit = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}:")]).output().unwrap();
    assert!(prlimit.status.success(), "{prlimit:?}");
}

/// The answer's first line to each of the checks: all clients, emergencies alone.
fn ready(pgward: &Deployment) -> [String; 2] {
    ["/health/ready", "/health/ready/emergency"].map(|path| {
        let mut http = TcpStream::connect((Ipv4Addr::LOCALHOST, pgward.layout().http_port)).unwrap();
        http.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
        let mut page = String::new();
        http.read_to_string(&mut page).unwrap();
        page.lines().next().unwrap_or_default().to_owned()
    })
}

#[tokio::test]
async fn without_a_log_only_emergencies_go_on_and_they_are_recorded_later() {
    let pgward = start(Options { shards: 1, replicas: 1, patients: 80, tune: |_| {} }).await;
    let (client, other) = (pgward.app().await, pgward.app().await);
    let dispatcher = pgward.connect("emergency", "dispatcher").await;
    let patient = pgward.patient("us-east", 0);
    let id = patient.id;
    let read = format!("SELECT family_name FROM patients WHERE id = '{id}'");
    let write = |mrn: &str| format!("UPDATE patients SET mrn = '{mrn}' WHERE id = '{id}'");
    answers(&client, &read).await;

    // Half a record fits: what is torn must be mended.
    let mark = mark(&pgward);
    limit(&pgward, &(mark + 100).to_string());
    for _ in 0..3 {
        let refused = in_time("a read", client.simple_query(&read)).await;
        let error = refused.unwrap_err();
        let told = error.as_db_error().unwrap_or_else(|| panic!("{error:?}: {}", pgward.log()));
        assert_eq!(told.code().code(), "58030");
        assert!(told.hint().is_some(), "{told:?}");
        assert_eq!(sqlstate(client.simple_query(&write("REFUSED")).await), "58030");
        assert_eq!(sqlstate(other.query("SELECT mrn FROM patients WHERE id = $1", &[&id]).await), "58030");
    }
    for n in 0..5 {
        in_time("an emergency", dispatcher.simple_query(&write(&format!("SAVED-{n}")))).await.unwrap();
        assert_eq!(answers(&dispatcher, &read).await, patient.family_name);
    }
    assert!(std::fs::metadata(pgward.files().audit()).unwrap().len() <= mark + 100);
    assert_eq!(ready(&pgward), ["HTTP/1.1 503 Service Unavailable", "HTTP/1.1 200 OK"]);

    limit(&pgward, "unlimited");
    let spooled = || {
        let records = records_since(&pgward, mark);
        records.into_iter().filter(|record| record["user"] == "dispatcher").collect::<Vec<_>>()
    };
    until("the emergencies' records are in the file", || async { spooled().len() >= 10 }).await;
    assert_eq!(spooled().len(), 10);
    assert_eq!(ready(&pgward), ["HTTP/1.1 200 OK"; 2]);
    assert!(spooled().iter().all(|record| record["spooled"] == true && record["kind"] == "emergency"));

    let mrn = answers(&client, &format!("SELECT mrn FROM patients WHERE id = '{id}' FOR SHARE")).await;
    assert_eq!(mrn, "SAVED-4");
    client.simple_query(&write("AFTER")).await.unwrap();
    other.query("SELECT mrn FROM patients WHERE id = $1", &[&id]).await.unwrap();
    let records = pgward.records().all;
    assert_no_gap(&records);
    assert!(!records.iter().any(|record| record["lost"].as_u64().is_some_and(|lost| lost > 0)));
}
