//! Cancel requests: each reaches what runs for the session that it names, and nothing else.

use pgward_tests::{Frame, WireClient};

use crate::shared;

/// The packet that cancels what runs for the session that was greeted so, behind its length.
fn request(greeting: &[Frame]) -> Vec<u8> {
    let key = greeting.iter().find(|frame| frame.tag == b'K').expect("a key");
    let len = u32::try_from(key.body.len() + 8).expect("a short key");
    [&len.to_be_bytes()[..], &80_877_102u32.to_be_bytes(), &key.body].concat()
}

/// Sends it, and waits until PgWard has closed the connection, as libpq does.
async fn cancel(port: u16, request: &[u8]) {
    let mut connection = WireClient::open(port).await;
    connection.send(request).await;
    assert_eq!(connection.frame().await, None, "nothing is answered");
}

/// Waits until this many statements with this text run on a server.
async fn until_running(node: &str, text: &str, number: i64) {
    let server = shared().await.on_server(node).await;
    let sql =
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE $1 AND pid <> pg_backend_pid()";
    for _ in 0..400 {
        let running: i64 = server.query_one(sql, &[&format!("%{text}%")]).await.unwrap().get(0);
        if running == number {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{text} does not run {number} times");
}

#[tokio::test]
async fn a_key_of_either_protocol_cancels_its_session_alone() {
    let pgward = shared().await;
    let port = pgward.port("general");
    let id = pgward.patient("us-west", 30).id;
    for minor in [0, 2] {
        let (mut one, greeting) = WireClient::greeted(port, "app", "demo-app", minor, &[]).await;
        let (mut other, _) = WireClient::greeted(port, "app", "demo-app", minor, &[]).await;
        let sleep = |seconds: u8| {
            format!(
                "BEGIN; UPDATE patients SET updated_at = now() WHERE id = '{id}' AND pg_sleep({seconds}) IS NULL; ROLLBACK /* key of 3.{minor} */"
            )
        };
        let (sleep_long, sleep_short) = (sleep(60), sleep(2));
        let running = async {
            until_running("us-west-patients/primary", &format!("pg_sleep(60)%key of 3.{minor}"), 1).await;
            let mut wrong = request(&greeting);
            *wrong.last_mut().unwrap() ^= 0x80;
            cancel(port, &wrong).await;
            cancel(port, &request(&greeting)).await;
        };
        let (cancelled, undisturbed, ()) = tokio::join!(one.query(&sleep_long), other.query(&sleep_short), running);
        let error = cancelled.iter().find(|frame| frame.tag == b'E').expect("the statement is cancelled");
        assert_eq!(error.field(b'C').as_deref(), Some("57014"));
        assert!(undisturbed.iter().all(|frame| frame.tag != b'E'));
    }
}
