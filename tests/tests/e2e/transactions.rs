//! BEGIN to COMMIT is one transaction on one server.

use pgward_tests::{WireClient, answers, sqlstate};

use crate::shared;

const NODE: &str = "current_setting('cluster_name')";

#[tokio::test]
async fn a_transaction_sees_its_own_writes_and_rolls_back() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let id = pgward.patient("eu-west", 10).id;
    let read = format!("SELECT given_name || ' on ' || {NODE} FROM patients WHERE id = '{id}'");
    let before = answers(&client, &format!("SELECT given_name FROM patients WHERE id = '{id}'")).await;

    client.simple_query("BEGIN").await.unwrap();
    client.simple_query(&format!("UPDATE patients SET given_name = 'Changed' WHERE id = '{id}'")).await.unwrap();
    assert_eq!(answers(&client, &read).await, "Changed on eu-west-patients/primary");
    client.simple_query("ROLLBACK").await.unwrap();

    let primary = pgward.on_server("eu-west-patients/primary").await;
    assert_eq!(answers(&primary, &format!("SELECT given_name FROM patients WHERE id = '{id}'")).await, before);
}

#[tokio::test]
async fn a_transaction_is_begun_under_either_name() {
    let mut client = WireClient::login(shared().await.port("general"), "app", "demo-app").await;
    for (sql, tag) in [("/* x */ START TRANSACTION", "START TRANSACTION"), ("-- START\nBEGIN", "BEGIN")] {
        let frames = client.query(sql).await;
        assert_eq!(frames[0].body, [tag.as_bytes(), b"\0"].concat());
        client.query("ROLLBACK").await;
    }
}

#[tokio::test]
async fn a_committed_write_is_on_the_primary() {
    let pgward = shared().await;
    let mut client = pgward.app().await;
    let id = pgward.patient("us-west", 10).id;
    let transaction = client.transaction().await.unwrap();
    let sql = "UPDATE patients SET given_name = $2 WHERE id = $1";
    assert_eq!(transaction.execute(sql, &[&id, &"Committed"]).await.unwrap(), 1);
    transaction.commit().await.unwrap();
    let primary = pgward.on_server("us-west-patients/primary").await;
    let name = answers(&primary, &format!("SELECT given_name FROM patients WHERE id = '{id}'")).await;
    assert_eq!(name, "Committed");
}

#[tokio::test]
async fn a_read_only_transaction_may_use_a_replica() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let id = pgward.patient("ap-south", 10).id;
    client.simple_query("BEGIN READ ONLY").await.unwrap();
    let node = answers(&client, &format!("SELECT {NODE} FROM patients WHERE id = '{id}'")).await;
    assert!(node.starts_with("ap-south-patients/replica-"), "{node}");
    let again = answers(&client, &format!("SELECT min({NODE}) FROM encounters WHERE patient_id = '{id}'")).await;
    assert_eq!(again, node);
    let write = format!("UPDATE patients SET critical = true WHERE id = '{id}'");
    assert_eq!(sqlstate(client.simple_query(&write).await), "25006");
    client.simple_query("ROLLBACK").await.unwrap();
}

#[tokio::test]
async fn another_patient_of_the_same_shard_is_fine_and_another_shard_is_refused() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let of = |region, n| format!("SELECT family_name FROM patients WHERE id = '{}'", pgward.patient(region, n).id);
    client.simple_query("BEGIN").await.unwrap();
    answers(&client, &of("us-east", 11)).await;
    answers(&client, &of("us-east", 12)).await;
    assert_eq!(sqlstate(client.simple_query(&of("eu-west", 11)).await), "PW006");
    // As after any error, until the block ends.
    assert_eq!(sqlstate(client.simple_query(&of("us-east", 11)).await), "25P02");
    client.simple_query("ROLLBACK").await.unwrap();
    answers(&client, &of("eu-west", 11)).await;
}

#[tokio::test]
async fn an_error_aborts_the_block_and_savepoints_save_it() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let id = pgward.patient("us-east", 13).id;
    let read = format!("SELECT family_name FROM patients WHERE id = '{id}'");
    let wrong = format!("SELECT 1 / (birth_date - birth_date) FROM patients WHERE id = '{id}'");

    client.simple_query("BEGIN").await.unwrap();
    answers(&client, &read).await;
    assert_eq!(sqlstate(client.simple_query(&wrong).await), "22012");
    assert_eq!(sqlstate(client.simple_query(&read).await), "25P02");
    client.simple_query("COMMIT").await.unwrap();

    client.simple_query("BEGIN").await.unwrap();
    answers(&client, &read).await;
    client.simple_query("SAVEPOINT here").await.unwrap();
    assert_eq!(sqlstate(client.simple_query(&wrong).await), "22012");
    client.simple_query("ROLLBACK TO here").await.unwrap();
    answers(&client, &read).await;
    client.simple_query("COMMIT").await.unwrap();
    answers(&client, &read).await;
}

#[tokio::test]
async fn several_statements_of_one_message_are_one_transaction() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let id = pgward.patient("us-west", 14).id;
    let insert = |substance: &str| {
        format!(
            "INSERT INTO allergies (patient_id, substance, reaction, severity) VALUES ('{id}', '{substance}', 'Rash', \
             'mild');"
        )
    };
    let count = format!("SELECT count(*) FROM allergies WHERE patient_id = '{id}' AND substance LIKE 'Batch%'");
    let failing = [insert("Batch 1"), insert("Batch 2"), format!("SELECT 1 / 0 FROM patients WHERE id = '{id}'")];
    assert_eq!(sqlstate(client.simple_query(&failing.concat()).await), "22012");
    let primary = pgward.on_server("us-west-patients/primary").await;
    assert_eq!(answers(&primary, &count).await, "0");
    client.simple_query(&[insert("Batch 1"), insert("Batch 2")].concat()).await.unwrap();
    assert_eq!(answers(&primary, &count).await, "2");
    let delete = format!("DELETE FROM allergies WHERE patient_id = '{id}' AND substance LIKE 'Batch%'");
    client.simple_query(&delete).await.unwrap();
}

/// The answers to a Query: the first value of each row, the tags, an SQLSTATE, and the transaction's status.
async fn told(client: &mut WireClient, sql: &str) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    let frames = client.query(sql).await;
    let one = |frame: &pgward_tests::Frame| match frame.tag {
        b'D' => Some(text(&frame.body[6..])),
        b'C' | b'Z' => Some(text(&frame.body)),
        b'E' => frame.field(b'C'),
        _ => None,
    };
    frames.iter().filter_map(one).collect::<Vec<_>>().join(" | ")
}

/// Here the transaction has no server when it fails.
#[tokio::test]
async fn what_ends_a_failed_transaction_may_stand_before_other_statements() {
    let mut client = WireClient::login(shared().await.port("general"), "app", "demo-app").await;
    let fail = "SELECT * FROM nobody_declared";
    let cases: [(&[&str], &str, &str); 7] = [
        (&[], "ROLLBACK; SELECT 1", "ROLLBACK | 1 | SELECT 1 | I"),
        (&[], "COMMIT; SELECT 1", "ROLLBACK | 1 | SELECT 1 | I"),
        (&[], "ROLLBACK; BEGIN READ ONLY; SHOW transaction_read_only", "ROLLBACK | BEGIN | on | SHOW | T"),
        (&[], "ROLLBACK AND CHAIN; SELECT 1", "ROLLBACK | 1 | SELECT 1 | T"),
        (
            &["SAVEPOINT a", "SET work_mem TO '77kB'", "SAVEPOINT b"],
            "ROLLBACK TO b; SHOW work_mem",
            "ROLLBACK | 77kB | SHOW | T",
        ),
        (&[], "SELECT 1; ROLLBACK", "25P02 | E"),
        (&[], "ROLLBACK TO nosuch; SELECT 1", "3B001 | E"),
    ];
    for (steps, sql, answer) in cases {
        told(&mut client, "BEGIN").await;
        for step in steps {
            told(&mut client, step).await;
        }
        assert_eq!(told(&mut client, fail).await, "PW003 | E");
        assert_eq!(told(&mut client, sql).await, answer, "{sql}");
        told(&mut client, "ROLLBACK").await;
    }
}
