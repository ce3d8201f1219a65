//! What is not about patients: reference tables, local tables, catalogs, statements without tables.

use pgward_tests::answers;

use crate::shared;

const NODE: &str = "current_setting('cluster_name')";

#[tokio::test]
async fn a_reference_table_is_read_at_home() {
    let pgward = shared().await;
    for (listener, home) in [("general", "us-east-patients/"), ("strict-ap", "ap-south-patients/")] {
        let client = pgward.connect(listener, "app").await;
        let node = answers(&client, &format!("SELECT {NODE} FROM icd10_codes WHERE code = 'I10'")).await;
        assert!(node.starts_with(home), "{listener}: {node}");
    }
}

#[tokio::test]
async fn catalogs_and_statements_without_tables_are_answered_at_home() {
    let pgward = shared().await;
    let client = pgward.connect("strict-ap", "app").await;
    assert!(answers(&client, &format!("SELECT {NODE}")).await.starts_with("ap-south-patients/"));
    let sql = "SELECT count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE \
               n.nspname = 'public' AND c.relkind = 'r' AND c.relname IN ('patients', 'encounters')";
    assert_eq!(answers(&client, sql).await, "2");
    let sql =
        "SELECT count(*) FROM information_schema.columns WHERE table_name = 'patients' AND column_name = 'region'";
    assert_eq!(answers(&client, sql).await, "1");
}

#[tokio::test]
async fn local_tables_live_on_the_home_shard() {
    let pgward = shared().await;
    let client = pgward.app().await;
    client.simple_query("DROP TABLE IF EXISTS pgbench_history").await.unwrap();
    client.simple_query("CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int)").await.unwrap();
    client.simple_query("INSERT INTO pgbench_history VALUES (1, 1, 1, 42)").await.unwrap();
    let there = pgward.on_server("us-east-patients/primary").await;
    assert_eq!(answers(&there, "SELECT delta FROM pgbench_history").await, "42");
    client.simple_query("DROP TABLE pgbench_history").await.unwrap();
    assert_eq!(answers(&there, "SELECT to_regclass('pgbench_history')").await, "NULL");
}
