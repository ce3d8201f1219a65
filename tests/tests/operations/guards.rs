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

/// A function in C that is of no extension counts by its library: `johab` stands for one that nobody has looked into.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_read_no_table_unseen() {
    let pgward = two_shards().await;
    on_the_servers(
        &pgward,
        "CREATE FUNCTION ours(text) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
         CREATE FUNCTION johab(int, int, cstring, internal, int, bool) RETURNS int
             LANGUAGE c IMMUTABLE STRICT AS '$libdir/utf8_and_johab', 'johab_to_utf8'",
    )
    .await;
    let client = pgward.app().await;
    let refused = async |sql: &str, expected: &str| {
        assert_eq!(sqlstate(client.simple_query(sql).await), expected, "{sql}");
        assert_eq!(answers(&client, "SELECT ours('x')").await, "1");
    };
    refused("SELECT johab(1, 2, 'x', 'y', 1, true)", "PW008").await;
    refused("SELECT ('SELECT to_tsvector(family_name) FROM patients'::text).ts_stat", "PW008").await;
    refused("SELECT lo_get(1::oid)", "PW008").await;
    refused("SELECT healthcare.pg_catalog.query_to_xml('SELECT 1', true, true, '')", "0A000").await;

    // The operator may vouch for one; the server's own word is the answer then.
    let whole = std::fs::read_to_string(pgward.files().config()).unwrap();
    let vouched = format!("{whole}\n[[functions]]\nname = \"johab\"\nvolatility = \"immutable\"\n");
    let (accepted, said) = reload(&pgward, &vouched);
    assert!(accepted, "{said}");
    refused("SELECT johab(1, 2, 'x', 'y', 1, true)", "0A000").await;
}

/// The same with contrib's, where the servers have them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_of_extensions_read_no_table_unseen() {
    let pgward = two_shards().await;
    let server = pgward.on_server("us-east-patients/primary").await;
    if answers(&server, "SELECT count(*) FROM pg_available_extensions WHERE name = 'dblink'").await == "0" {
        println!("skipped: the servers have no contrib modules");
        return;
    }
    on_the_servers(
        &pgward,
        "CREATE SCHEMA dblink; CREATE EXTENSION dblink SCHEMA dblink; CREATE EXTENSION tablefunc;
         CREATE EXTENSION pgcrypto; CREATE EXTENSION pg_prewarm",
    )
    .await;
    let client = pgward.app().await;
    for sql in [
        "SELECT dblink.dblink_build_sql_insert('patients', '1', 1, '{x}', '{y}')",
        "SELECT pg_prewarm('patients')",
        "SELECT ('patients'::text::regclass).pg_prewarm",
        "SELECT normal_rand(1, 1, 1)",
    ] {
        assert_eq!(sqlstate(client.simple_query(sql).await), "PW008", "{sql}");
        assert_eq!(answers(&client, "SELECT length(digest('x', 'sha256'))").await, "32");
    }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_patients_do_not_change_with_those_of_local_tables() {
    let pgward = two_shards().await;
    let whole = std::fs::read_to_string(pgward.files().config()).unwrap();
    let locals = ["wards", "clinics", "all_clinics", "people"];
    let declared = locals.map(|name| format!("[[tables]]\nname = \"{name}\"\nkind = \"local\"\n\n")).concat();
    std::fs::write(pgward.files().config(), whole.replacen("[[tables]]", &format!("{declared}[[tables]]"), 1)).unwrap();
    on_the_servers(
        &pgward,
        "CREATE TABLE clinics (id int PRIMARY KEY, name text);
         CREATE TABLE wards (id int PRIMARY KEY, name text, clinic int REFERENCES clinics ON DELETE CASCADE);
         CREATE VIEW all_clinics AS SELECT * FROM clinics;
         CREATE TABLE people (note text);
         INSERT INTO clinics SELECT 1, 'c'; INSERT INTO wards SELECT 1, 'w', 1;
         GRANT ALL ON clinics, wards, all_clinics, people TO PUBLIC;
         ALTER TABLE encounters ADD ward int DEFAULT 1 REFERENCES wards ON DELETE CASCADE ON UPDATE CASCADE",
    )
    .await;
    let server = pgward.on_server("us-east-patients/primary").await;
    let client = pgward.app().await;
    let encounters = answers(&server, "SELECT count(*) FROM encounters").await;
    assert_ne!(encounters, "0");
    for sql in [
        "DELETE FROM wards",
        "DELETE FROM clinics WHERE id = 1",
        "DELETE FROM all_clinics",
        "UPDATE wards SET id = 2",
        "INSERT INTO wards VALUES (1, 'w', 1) ON CONFLICT (id) DO UPDATE SET id = 3",
        "TRUNCATE clinics CASCADE",
    ] {
        assert_eq!(sqlstate(client.simple_query(sql).await), "PW008", "{sql}");
    }
    assert_eq!(answers(&server, "SELECT count(*) FROM encounters WHERE ward = 1").await, encounters);
    for sql in
        ["UPDATE wards SET name = 'x' WHERE id = 1", "INSERT INTO wards VALUES (9, 'w', 1)", "DELETE FROM people"]
    {
        client.simple_query(sql).await.unwrap();
    }
    let said = check_live(&pgward);
    for what in
        ["rows of public.encounters change with those of public.wards, a local table", "of public.clinics, a local"]
    {
        assert!(said.contains(what), "{what}: {said}");
    }

    // A foreign key that does nothing is no reason to refuse.
    let plain = "ALTER TABLE encounters DROP CONSTRAINT encounters_ward_fkey, ADD FOREIGN KEY (ward) REFERENCES wards";
    on_the_servers(&pgward, plain).await;
    client.simple_query("DELETE FROM wards WHERE id = 9").await.unwrap();
    assert_eq!(sqlstate(client.simple_query("DELETE FROM wards").await), "23503");
}

fn check_live(pgward: &Deployment) -> String {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_pgward-under-test"))
        .args(["check", "--live"])
        .arg(pgward.files().config())
        .output()
        .unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bare_name_means_the_declared_table_or_nothing() {
    let pgward = two_shards().await;
    let patient = pgward.patient("us-east", 0).id;
    let client = pgward.app().await;
    let bare = format!("SELECT count(*) FROM patients WHERE id = '{patient}'");
    let full = format!("SELECT count(*) FROM public.patients WHERE id = '{patient}'");

    // In a schema that no session looks into, it is nobody's business.
    let archive = "CREATE SCHEMA archive; CREATE TABLE archive.patients AS TABLE public.patients WITH NO DATA";
    on_the_servers(&pgward, archive).await;
    assert_eq!(answers(&client, &bare).await, "1");
    assert!(!check_live(&pgward).contains("archive.patients"));

    // In the one of "$user", of a role's or of the database's path it is.
    for (make, schema, unmake) in [
        (
            "CREATE SCHEMA pgward_app; CREATE VIEW pgward_app.patients AS TABLE public.patients; GRANT ALL ON SCHEMA pgward_app TO PUBLIC;
             GRANT ALL ON pgward_app.patients TO PUBLIC",
            "pgward_app",
            "DROP SCHEMA pgward_app CASCADE",
        ),
        (
            "ALTER ROLE pgward_app SET search_path = public, archive",
            "archive",
            "ALTER ROLE pgward_app RESET search_path",
        ),
        (
            "ALTER DATABASE healthcare SET search_path = \"$user\", \"archive\", public",
            "archive",
            "ALTER DATABASE healthcare RESET search_path",
        ),
    ] {
        on_the_servers(&pgward, make).await;
        for sql in [&bare, &format!("DELETE FROM patients WHERE id = '{patient}'")] {
            assert_eq!(sqlstate(client.simple_query(sql).await), "PW003", "{make}: {sql}");
        }
        assert_eq!(answers(&client, &full).await, "1");
        assert!(check_live(&pgward).contains(&format!("has {schema}.patients, which is not declared")));
        on_the_servers(&pgward, unmake).await;
        assert_eq!(answers(&client, &bare).await, "1", "{unmake}");
    }
    assert_eq!(sqlstate(client.simple_query("CREATE TEMP TABLE patients (id uuid)").await), "PW008");
}
