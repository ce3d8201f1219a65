//! A pool that is used up: a deadline and a clear error for the others, and emergencies as if nothing were.

use std::time::{Duration, Instant};

use pgward::demo::layout::Layout;
use pgward_tests::{Options, answered_by, answers, sqlstate};

use crate::start;

fn small(layout: &mut Layout) {
    layout.pools = [(1, 2), (1, 8), (1, 2), (1, 4)];
    layout.wait_timeout = Some("700ms");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_pool_has_a_deadline_and_emergencies_do_not_wait() {
    let pgward = start(Options { shards: 1, replicas: 1, patients: 80, tune: small }).await;
    let write = |n| format!("UPDATE patients SET updated_at = now() WHERE id = '{}'", pgward.patient("us-east", n).id);

    // Transactions that hold their server, until there is none left for their class; some are kept for higher classes.
    let mut holders = Vec::new();
    let (late, waited) = loop {
        let client = pgward.app().await;
        client.simple_query("BEGIN").await.unwrap();
        let begun = Instant::now();
        match client.simple_query(&write(holders.len())).await {
            Ok(_) => holders.push(client),
            refused => {
                assert_eq!(sqlstate(refused), "53300");
                break (client, begun.elapsed());
            }
        }
    };
    assert!((2..=8).contains(&holders.len()), "{} transactions", holders.len());
    assert!((Duration::from_millis(600)..Duration::from_secs(3)).contains(&waited), "{waited:?}");
    late.simple_query("ROLLBACK").await.unwrap();

    let dispatcher = pgward.connect("emergency", "dispatcher").await;
    let begun = Instant::now();
    assert_eq!(answered_by(&dispatcher, &pgward.patient("us-east", 10)).await, "us-east-patients/primary");
    dispatcher.simple_query(&write(11)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(600), "{:?}", begun.elapsed());

    // Reads have a pool of their own, on another node.
    answers(&late, &format!("SELECT family_name FROM patients WHERE id = '{}'", pgward.patient("us-east", 0).id)).await;

    holders[0].simple_query("COMMIT").await.unwrap();
    late.simple_query(&write(12)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_keep_a_server_leave_some_to_the_others() {
    let pgward = start(Options { shards: 1, replicas: 0, patients: 80, tune: small }).await;
    // Half of the pool's eight.
    let mut keepers = Vec::new();
    for _ in 0..4 {
        let client = pgward.app().await;
        client.simple_query("LISTEN something").await.unwrap();
        keepers.push(client);
    }
    let client = pgward.app().await;
    let refused = client.simple_query("CREATE TEMP TABLE pgbench_mine (a int)").await.unwrap_err();
    let error = refused.as_db_error().unwrap();
    assert_eq!((error.code().code(), error.hint().is_some()), ("53300", true), "{error}");
    assert!(error.message().contains("general") && error.detail().unwrap().contains("temporary table"), "{error:?}");
    assert_eq!(sqlstate(client.query("SELECT pg_advisory_lock(1)", &[]).await), "53300");
    // Neither the transaction that was refused nor anybody else is hindered.
    client.simple_query("BEGIN").await.unwrap();
    assert_eq!(sqlstate(client.simple_query("LISTEN something").await), "53300");
    client.simple_query("ROLLBACK").await.unwrap();
    let write = format!("UPDATE patients SET updated_at = now() WHERE id = '{}'", pgward.patient("us-east", 1).id);
    client.simple_query(&write).await.unwrap();
    keepers[0].simple_query("LISTEN another").await.unwrap();

    drop(keepers.pop());
    let begun = Instant::now();
    while let Err(error) = client.simple_query("LISTEN something").await {
        assert!(begun.elapsed() < Duration::from_secs(10), "{error:?}");
    }
}

/// Three connections, one of which is kept for emergencies that find their own pool used up.
fn tiny(layout: &mut Layout) {
    layout.pools = [(1, 1), (1, 3), (1, 1), (1, 1)];
    layout.wait_timeout = Some("500ms");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_third_transaction_is_told_when_to_come_back_and_then_it_may() {
    let pgward = start(Options { shards: 1, replicas: 0, patients: 80, tune: tiny }).await;
    let write = |n| format!("UPDATE patients SET updated_at = now() WHERE id = '{}'", pgward.patient("us-east", n).id);
    let mut clients = Vec::new();
    for n in 0..3 {
        let client = pgward.app().await;
        client.simple_query("BEGIN").await.unwrap();
        if n < 2 {
            client.simple_query(&write(n)).await.unwrap();
        }
        clients.push(client);
    }
    // Two emergencies at once: one in a pool of their own, one in the share that is kept for them.
    let emergencies =
        [pgward.connect("emergency", "dispatcher").await, pgward.connect("emergency", "dispatcher").await];
    for (n, emergency) in emergencies.iter().enumerate() {
        emergency.simple_query("BEGIN").await.unwrap();
        emergency.simple_query(&write(10 + n)).await.unwrap();
    }

    let begun = Instant::now();
    let refused = clients[2].simple_query(&write(2)).await.unwrap_err();
    let waited = begun.elapsed();
    let told = refused.as_db_error().unwrap();
    assert_eq!(told.code().code(), "53300");
    assert!(told.hint().is_some_and(|hint| hint.contains("retry")), "{told:?}");
    assert!((Duration::from_millis(450)..Duration::from_secs(2)).contains(&waited), "{waited:?}");
    clients[2].simple_query("ROLLBACK").await.unwrap();

    // A statement that is waiting gets the server that becomes free.
    let third = write(2);
    let (waiting, ()) = tokio::join!(clients[2].simple_query(&third), async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        clients[0].simple_query("COMMIT").await.unwrap();
    });
    waiting.unwrap();
    for client in clients.iter().chain(&emergencies) {
        client.simple_query("COMMIT").await.unwrap();
    }
    // Everything works for everybody, many times over.
    for round in 0..5 {
        for client in clients.iter().chain(&emergencies) {
            client.simple_query(&write(round)).await.unwrap();
        }
    }
}

/// One server for the ordinary, one for emergencies.
fn single(layout: &mut Layout) {
    layout.pools = [(1, 1), (1, 1), (1, 1), (1, 1)];
    layout.wait_timeout = Some("60s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_waits_for_a_server_is_cancelled() {
    let pgward = start(Options { shards: 1, replicas: 0, patients: 80, tune: single }).await;
    let write = |n| format!("UPDATE patients SET mrn = 'WAITED' WHERE id = '{}'", pgward.patient("us-east", n).id);
    for (listener, user) in [("general", "app"), ("emergency", "dispatcher")] {
        let mut holders = Vec::new();
        // Emergencies may use the other pools' servers, too.
        for n in 0..if user == "app" { 1 } else { 3 } {
            let holder = pgward.connect(listener, user).await;
            holder.simple_query("BEGIN").await.unwrap();
            let held = tokio::time::timeout(Duration::from_millis(700), holder.simple_query(&write(n))).await;
            let Ok(held) = held else { break };
            held.unwrap();
            holders.push(holder);
        }
        let client = pgward.connect(listener, user).await;
        let (cancel, late) = (client.cancel_token(), write(19));
        let (waited, ()) = tokio::join!(client.simple_query(&late), async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            cancel.cancel_query(tokio_postgres::NoTls).await.unwrap();
        });
        assert_eq!(sqlstate(waited), "57014", "{user}");
        // The session is as before, in a transaction and without.
        client.simple_query("BEGIN").await.unwrap();
        let (waited, ()) = tokio::join!(client.simple_query(&late), async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            cancel.cancel_query(tokio_postgres::NoTls).await.unwrap();
        });
        assert_eq!(sqlstate(waited), "57014", "{user}");
        assert_eq!(sqlstate(client.simple_query(&late).await), "25P02");
        client.simple_query("ROLLBACK").await.unwrap();
        for holder in &holders {
            holder.simple_query("ROLLBACK").await.unwrap();
        }
        drop(holders);
        answers(&client, "SELECT 1").await;
        let server = pgward.on_server("us-east-patients/primary").await;
        assert_eq!(answers(&server, "SELECT count(*) FROM patients WHERE mrn = 'WAITED'").await, "0");
    }
    assert!(pgward.records().text.contains("ended the wait"), "a cancel is recorded");
}
