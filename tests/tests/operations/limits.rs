//! statement_timeout in force where PgWard itself has something to say to a server: it stops PgWard's words as it would
//! the client's.

use std::time::Duration;

use pgward::demo::layout::{Layout, SERVER_ROLE};
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
    limited.batch_execute("SET statement_timeout = '200ms'").await.unwrap();
    let server = pgward.on_server("us-east-patients/primary").await;
    let id = pgward.patient("us-east", 0).id;
    for (n, (name, language)) in
        [("by Query", "german"), ("by parameter", "dutch"), ("in a transaction", "danish")].into_iter().enumerate()
    {
        other.batch_execute(&format!("SET default_text_search_config = 'pg_catalog.{language}'")).await.unwrap();
        assert_eq!(one(&limited, &format!("SELECT 1 FROM patients WHERE id = '{id}'")).await.unwrap(), "1");
        // Telling a server of a language that it has not looked up takes longer than the limit.
        server.batch_execute("BEGIN; LOCK TABLE pg_catalog.pg_ts_config").await.unwrap();
        let write = async {
            match n {
                0 => other.batch_execute(&rename(&pgward, name)).await.unwrap(),
                1 => assert_eq!(other.execute(&rename(&pgward, name), &[]).await.unwrap(), 1),
                _ => other.batch_execute(&format!("BEGIN; {}; COMMIT", rename(&pgward, name))).await.unwrap(),
            }
        };
        let unlock = async {
            tokio::time::sleep(Duration::from_millis(600)).await;
            server.batch_execute("COMMIT").await.unwrap();
        };
        tokio::join!(write, unlock);
        let found = answers(&server, &format!("SELECT family_name FROM patients WHERE id = '{id}'")).await;
        assert_eq!(found, name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_stops_begin_leaves_no_statement_to_run_without() {
    let pgward = start(Options { shards: 1, replicas: 0, patients: 8, tune: single }).await;
    let client = pgward.app().await;
    client.batch_execute("SET statement_timeout = '1ms'").await.unwrap();
    // As long as may be kept; whether it takes a server longer than the limit depends on the machine.
    let slow = format!("BEGIN READ WRITE{}", ", READ WRITE".repeat(5_400));
    for _ in 0..20 {
        client.batch_execute(&slow).await.unwrap();
        if client.batch_execute(&rename(&pgward, "without BEGIN")).await.is_err() {
            assert_eq!(sqlstate(client.batch_execute("SELECT 1").await), "25P02");
        }
        client.batch_execute("ROLLBACK").await.unwrap();
    }
    let server = pgward.on_server("us-east-patients/primary").await;
    let committed = "SELECT count(*) FROM patients WHERE family_name = 'without BEGIN'";
    assert_eq!(answers(&server, committed).await, "0");
}

/// A right is taken away after it was used: what had been accepted is refused, and so is the way back from it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_behind_parameters_that_are_not_accepted_any_more_is_told_to_be_in_doubt() {
    let pgward = start(Options { shards: 1, replicas: 0, patients: 8, tune: single }).await;
    let home = pgward.on_server("us-east-patients/primary").await;
    let right = |what: &str| format!("{what} {SERVER_ROLE}");
    home.batch_execute(&right("GRANT SET ON PARAMETER log_duration TO")).await.unwrap();
    let (setter, bystander) = (pgward.app().await, pgward.app().await);
    setter.batch_execute("SET log_duration = on").await.unwrap();
    for client in [&setter, &bystander, &setter] {
        client.batch_execute(&rename(&pgward, "accepted")).await.unwrap();
    }
    home.batch_execute(&right("REVOKE SET ON PARAMETER log_duration FROM")).await.unwrap();
    // Its server cannot be rid of what the other has set, and has heard the write behind the RESET.
    assert_eq!(sqlstate(bystander.batch_execute(&rename(&pgward, "in doubt")).await), "08007");
    for name in ["again", "and again"] {
        bystander.batch_execute(&rename(&pgward, name)).await.unwrap();
        assert_eq!(sqlstate(setter.batch_execute(&rename(&pgward, "refused")).await), "42501");
        let id = pgward.patient("us-east", 0).id;
        let found = answers(&home, &format!("SELECT family_name FROM patients WHERE id = '{id}'")).await;
        assert_eq!(found, name);
    }
}
