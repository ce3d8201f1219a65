//! Clients that close their side, or are gone, with messages under way: what they sent whole is done.

use std::time::Duration;

use bytes::BytesMut;
use pgward_tests::{SERVER_PASSWORD, WireClient, answers};
use pgward_wire::{frame, frontend};

use crate::{shared, told};

const NODE: &str = "us-west-patients/primary";

async fn session() -> WireClient {
    WireClient::login(shared().await.port("general"), "app", "demo-app").await
}

fn queries(all: &[&str]) -> BytesMut {
    let mut bytes = BytesMut::new();
    for sql in all {
        frontend::put_query(&mut bytes, sql.as_bytes());
    }
    bytes
}

/// Parse, Bind, Execute.
fn run(bytes: &mut BytesMut, sql: &str) {
    frontend::put_parse(bytes, b"", sql.as_bytes(), &[]);
    frame::put(bytes, b'B', b"\0\0\0\0\0\0\0\0");
    frame::put(bytes, b'E', b"\0\0\0\0\0");
}

/// Sends these bytes and closes this side; all that is told after that.
async fn last_words(mut client: WireClient, bytes: &[u8]) -> Vec<String> {
    client.send(bytes).await;
    client.close_side().await;
    let mut words = Vec::new();
    while let Some(frame) = client.frame().await {
        words.push(told(&frame));
    }
    words
}

#[tokio::test]
async fn what_is_whole_when_a_client_closes_its_side_is_done_and_answered() {
    let pgward = shared().await;
    let id = pgward.patient("us-west", 45).id;
    let insert = format!(
        "INSERT INTO allergies (patient_id, substance, reaction, severity) VALUES ('{id}', 'Closing', 'Rash', 'mild')"
    );
    let read = format!("SELECT family_name FROM patients WHERE id = '{id}'");
    let copy = "COPY allergies (patient_id, substance, reaction, severity) FROM STDIN";
    let row = format!("{id}\tClosing\tRash\tmild\n");
    let (insert, read) = (insert.as_str(), read.as_str());
    let goodbye = b"X\0\0\0\x04";

    let mut segments = BytesMut::new();
    for _ in 0..3 {
        run(&mut segments, insert);
        frontend::put_sync(&mut segments);
    }
    let mut open = segments.clone();
    run(&mut open, insert);
    let mut copied = queries(&[copy]);
    frame::put(&mut copied, b'd', row.as_bytes());
    let half_copied = copied.clone();
    frame::put(&mut copied, b'c', b"");
    let three = queries(&[insert; 3]);
    let scripts = [
        [&three[..], goodbye].concat(),
        three.to_vec(),
        [&three[..], b"Q\0\0\0\x50INSERT"].concat(),
        [&segments[..], goodbye].concat(),
        open.to_vec(),
        [&copied[..], &three, goodbye].concat(),
        queries(&[read, insert, read, "SELECT 1/0", read]).to_vec(),
        queries(&["BEGIN", insert, read, insert, "COMMIT", read]).to_vec(),
        queries(&["BEGIN", insert, read]).to_vec(),
        [&queries(&[read; 50])[..], goodbye].concat(),
    ];
    let witness = pgward.on_server(NODE).await;
    let taken = "WITH old AS (DELETE FROM allergies WHERE substance = 'Closing' RETURNING 1) SELECT count(*) FROM old";
    pgward.cluster().await_replay().await.unwrap();
    for (n, script) in scripts.iter().enumerate() {
        let direct = WireClient::login(pgward.node(NODE).port(), "postgres", SERVER_PASSWORD).await;
        let expected = last_words(direct, script).await;
        let rows = answers(&witness, taken).await;
        for _ in 0..3 {
            assert_eq!(last_words(session().await, script).await, expected, "script {n}");
            assert_eq!(answers(&witness, taken).await, rows, "script {n}");
        }
    }
    // A server has more to say of this.
    last_words(session().await, &half_copied).await;
    assert_eq!(answers(&witness, taken).await, "0");
    // What no server answers.
    let own = last_words(session().await, &[&queries(&["SHOW pgward.priority"])[..], goodbye].concat()).await;
    assert_eq!(own, ["T", "D", "CSHOW", "ZI"]);
}

/// Waits until these servers together count so many by this query.
async fn until(nodes: &[&str], sql: &str, expected: i64) {
    let mut servers = Vec::new();
    for node in nodes {
        servers.push(shared().await.on_server(node).await);
    }
    for _ in 0..400 {
        let mut sum = 0;
        for server in &servers {
            sum += answers(server, sql).await.parse::<i64>().unwrap();
        }
        if sum == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{sql}: not {expected}");
}

#[tokio::test]
async fn what_is_whole_when_a_client_is_gone_is_done() {
    let pgward = shared().await;
    let id = pgward.patient("us-west", 46).id;
    let insert = format!(
        "INSERT INTO allergies (patient_id, substance, reaction, severity) VALUES ('{id}', 'Gone', 'Rash', 'mild')"
    );
    // The first is under way when the client goes.
    let script = queries(&["SELECT pg_sleep(0.5)", &insert, &insert, "SHOW pgward.priority", &insert]);
    for reset in [true, false] {
        let mut client = session().await;
        client.send(&script).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        if reset {
            client.reset();
        } else {
            drop(client);
        }
        until(&[NODE], "SELECT count(*) FROM allergies WHERE substance = 'Gone'", 3).await;
        let server = pgward.on_server(NODE).await;
        server.simple_query("DELETE FROM allergies WHERE substance = 'Gone'").await.unwrap();
    }
}

#[tokio::test]
async fn a_read_that_runs_for_nobody_is_cancelled() {
    // Long.
    let read = "SELECT count(*) /* for nobody */ FROM generate_series(1, 100000) a, generate_series(1, 100000) b";
    let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%for nobody%' AND state = 'active' AND pid <> pg_backend_pid()";
    let nodes = ["us-east-patients/primary", "us-east-patients/replica-1", "us-east-patients/replica-2"];
    for (reset, goodbye) in [(true, false), (false, false), (false, true)] {
        let mut client = session().await;
        client.send(&queries(&[read])).await;
        if goodbye {
            client.send(b"X\0\0\0\x04").await;
        }
        until(&nodes, running, 1).await;
        if reset {
            client.reset();
        } else {
            drop(client);
        }
        until(&nodes, running, 0).await;
    }
}
