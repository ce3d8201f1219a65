//! statement_timeout in force where PgWard itself has something to say to a server: it stops PgWard's words as it would
//! the client's.

use pgward::demo::layout::Layout;
use pgward_tests::{Deployment, Options, answers, one, sqlstate};

use crate::start;

/// One server for all.
fn single(layout: &mut Layout) {
    layout.pools = [(1, 1), (1, 1), (1, 1), (1, 1)];
    layout.wait_timeout = Some("20s");
}

fn rename(pgward: &Deployment, name: &str) -> String {
    format!("UPDATE patients SET family_name = '{name}' WHERE id = '{}'", pgward.patient("us-east", 0).id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_of_whoever_had_the_server_before_stops_nobody_else() {
    let pgward = start(Options { shards: 1, replicas: 0, patients: 8, tune: single }).await;
    let (limited, other) = (pgward.app().await, pgward.app().await);
    limited.batch_execute("SET statement_timeout = '1ms'").await.unwrap();
    // Telling a server this takes longer than the limit.
    other.batch_execute(&format!("SET its.parameter = '{}'", "long".repeat(1_000_000))).await.unwrap();
    for (n, name) in ["by Query", "by parameter", "in a transaction"].into_iter().enumerate() {
        // Stopped itself, or not.
        let id = pgward.patient("us-east", 0).id;
        let _either = one(&limited, &format!("SELECT 1 FROM patients WHERE id = '{id}'")).await;
        match n {
            0 => other.batch_execute(&rename(&pgward, name)).await.unwrap(),
            1 => assert_eq!(other.execute(&rename(&pgward, name), &[]).await.unwrap(), 1),
            _ => other.batch_execute(&format!("BEGIN; {}; COMMIT", rename(&pgward, name))).await.unwrap(),
        }
        let server = pgward.on_server("us-east-patients/primary").await;
        let found = answers(&server, &format!("SELECT family_name FROM patients WHERE id = '{id}'")).await;
        assert_eq!(found, name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_stops_begin_leaves_no_statement_to_run_without() {
    let pgward = start(Options { shards: 1, replicas: 0, patients: 8, tune: single }).await;
    let client = pgward.app().await;
    client.batch_execute("SET statement_timeout = '1ms'").await.unwrap();
    let slow = format!("BEGIN /* {} */", "long ".repeat(2_000_000));
    client.batch_execute(&slow).await.unwrap();
    assert_eq!(sqlstate(client.batch_execute(&rename(&pgward, "without BEGIN")).await), "57014");
    assert_eq!(sqlstate(client.batch_execute("SELECT 1").await), "25P02");
    client.batch_execute("ROLLBACK").await.unwrap();
    let server = pgward.on_server("us-east-patients/primary").await;
    let committed = "SELECT count(*) FROM patients WHERE family_name = 'without BEGIN'";
    assert_eq!(answers(&server, committed).await, "0");
}
