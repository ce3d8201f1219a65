//! Parameters of a session in its transactions: as on a server for the client itself, and never seen by another.

use bytes::BytesMut;
use pgward_tests::{Frame, WireClient, answers};
use pgward_wire::{frame, frontend};
use tokio_postgres::Client;

use crate::shared;

async fn session() -> WireClient {
    WireClient::login(shared().await.port("general"), "app", "demo-app").await
}

fn put_portal(out: &mut BytesMut, sql: &str, max_rows: u32) {
    frontend::put_parse(out, b"", sql.as_bytes(), &[]);
    frame::put(out, b'B', b"\0\0\0\0\0\0\0\0");
    frame::put(out, b'E', &[&b"\0"[..], &max_rows.to_be_bytes()].concat());
}

/// The only value of the only row.
fn value(frames: &[Frame]) -> Option<String> {
    let row = frames.iter().find(|frame| frame.tag == b'D')?;
    Some(String::from_utf8_lossy(&row.body[6..]).into_owned())
}

/// What new clients find set on the servers of the home shard's primary, several of them.
async fn found_by_others(expression: &str) -> Vec<String> {
    let pgward = shared().await;
    let mut found = Vec::new();
    // Each keeps its server, so that each has another.
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..4 {
        let client = pgward.app().await;
        client.simple_query("BEGIN").await.unwrap();
        found.push(answers(&client, &format!("SELECT {expression}")).await);
        clients.push(client);
    }
    found
}

/// The portal is not run to its end, and neither side hears of its CommandComplete.
#[tokio::test]
async fn what_a_suspended_portal_set_is_the_sessions_alone() {
    let mut client = session().await;
    let mut out = BytesMut::new();
    put_portal(&mut out, "SELECT set_config('app.suspended', 'mine', false)", 1);
    frontend::put_sync(&mut out);
    for _ in 0..2 {
        client.send(&out).await;
        let tags: String = client.until_ready().await.iter().map(|frame| char::from(frame.tag)).collect();
        assert_eq!(tags, "12DsZ");
        let read = "SELECT current_setting('app.suspended', true)";
        assert_eq!(value(&client.query(read).await).as_deref(), Some("mine"));
        let mut other = session().await;
        for _ in 0..4 {
            assert_ne!(value(&other.query(read).await).as_deref(), Some("mine"));
        }
    }
    for found in found_by_others("current_setting('app.suspended', true)").await {
        assert_ne!(found, "mine");
    }
}
