//! What stands on the servers behind PgWard's back, and would lead a statement to rows that it does not name.

use pgward_tests::{Deployment, Options, answers, sqlstate};

use crate::reload::reload;
use crate::start;

/// Runs this on the primaries of both shards as their superuser, then has the proxy look at them anew.
async fn on_the_servers(pgward: &Deployment, sql: &str) {
    for shard in ["us-east-patients/primary", "us-west-patients/primary"] {
        pgward.on_server(shard).await.batch_execute(sql).await.unwrap();
    }
    let whole = std::fs::read_to_string(pgward.files().config()).unwrap();
    let (accepted, said) = reload(pgward, &whole);
    assert!(accepted, "{said}");
}

async fn two_shards() -> Deployment {
    start(Options { shards: 2, replicas: 0, patients: 80, ..Options::default() }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_of_extensions_read_no_table_unseen() {
    let pgward = two_shards().await;
    on_the_servers(
        &pgward,
        "CREATE SCHEMA dblink; CREATE EXTENSION dblink SCHEMA dblink; CREATE EXTENSION tablefunc;
         CREATE EXTENSION pgcrypto; CREATE EXTENSION pg_freespacemap; CREATE EXTENSION pg_prewarm;
         CREATE FUNCTION ours(text) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
         CREATE FUNCTION wrapped(text) RETURNS SETOF record LANGUAGE c AS '$libdir/tablefunc', 'crosstab'",
    )
    .await;
    let client = pgward.app().await;
    for sql in [
        "SELECT dblink.dblink_build_sql_insert('patients', '1', 1, '{x}', '{y}')",
        "SELECT pg_prewarm('patients')",
        "SELECT ('patients'::text::regclass).pg_prewarm",
        "SELECT normal_rand(1, 1, 1)",
        "SELECT * FROM wrapped('SELECT id::text, region::text, mrn::text FROM patients') AS t(a text, b text)",
        "SELECT ('SELECT to_tsvector(family_name) FROM patients'::text).ts_stat",
        "SELECT lo_get(1::oid)",
    ] {
        assert_eq!(sqlstate(client.simple_query(sql).await), "PW008", "{sql}");
        assert_eq!(answers(&client, "SELECT 1").await, "1");
    }
    let database = "SELECT healthcare.pg_catalog.query_to_xml('SELECT 1', true, true, '')";
    assert_eq!(sqlstate(client.simple_query(database).await), "0A000");
    assert_eq!(answers(&client, "SELECT length(digest('x', 'sha256')) + ours('x')").await, "33");

    // The operator may vouch for one.
    let whole = std::fs::read_to_string(pgward.files().config()).unwrap();
    let vouched = format!("{whole}\n[[functions]]\nname = \"normal_rand\"\nvolatility = \"volatile\"\n");
    let (accepted, said) = reload(&pgward, &vouched);
    assert!(accepted, "{said}");
    assert_eq!(answers(&client, "SELECT count(*) FROM normal_rand(3, 1, 1)").await, "3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strings_end_where_the_routing_saw_their_end() {
    let pgward = two_shards().await;
    on_the_servers(
        &pgward,
        "ALTER DATABASE healthcare SET standard_conforming_strings = off;
         CREATE FUNCTION escapes(text) RETURNS text LANGUAGE sql AS $$SELECT set_config($1, 'off', false)$$",
    )
    .await;
    pgward.restart(env!("CARGO_BIN_EXE_pgward-under-test")).await.unwrap();
    let patient = pgward.patient("us-east", 0);
    // With escapes, the first string would end behind OR.
    let two_readings = format!(r"SELECT count(*) FROM patients WHERE id = '{}' AND '\' <> ' OR true --'", patient.id);
    let client = pgward.app().await;
    assert_eq!(answers(&client, "SHOW standard_conforming_strings").await, "on");
    assert_eq!(answers(&client, &two_readings).await, "1");

    // A client cannot switch it off by any way that shows.
    for sql in [
        "SET standard_conforming_strings = off",
        "SET LOCAL \"Standard_Conforming_Strings\" TO 'f'",
        "SELECT set_config('standard_conforming_strings', 'off', false)",
        "SELECT set_config('Standard_conforming_strings', 'off', true) FROM icd10_codes",
        "UPDATE pg_settings SET setting = 'off' WHERE name = 'standard_conforming_strings'",
        "ALTER ROLE app SET standard_conforming_strings = off",
        "ALTER DATABASE healthcare SET standard_conforming_strings = off",
        "ALTER SYSTEM SET standard_conforming_strings = off",
    ] {
        let refused = sqlstate(client.simple_query(sql).await);
        assert!(["0A000", "PW008"].contains(&&*refused), "{sql}: {refused}");
    }
    let asking = format!("{}?options=-cstandard_conforming_strings%3Doff", pgward.url("general", "app"));
    let begun = tokio_postgres::connect(&asking, tokio_postgres::NoTls).await;
    assert_eq!(sqlstate(begun.map(|_| ())), "0A000");
    // DEFAULT and RESET go back to what PgWard asked for.
    for sql in ["SET standard_conforming_strings TO DEFAULT", "RESET standard_conforming_strings", "RESET ALL"] {
        client.simple_query(sql).await.unwrap();
        assert_eq!(answers(&client, &two_readings).await, "1", "{sql}");
    }
    // What a function does is not seen before it is done: its server is given up then.
    let outcome = sqlstate(client.simple_query("SELECT escapes('standard_conforming_strings')").await);
    assert_eq!(outcome, "08007");
    assert_eq!(answers(&client, &two_readings).await, "1");
}
