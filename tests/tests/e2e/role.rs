//! Who a session is and how its names are read. SET ROLE: only to roles that the operator lets a user set, on every server, never for anybody else, and in the record.

use bytes::BytesMut;
use pgward::demo::layout::{SERVER_ROLE, User};
use pgward_tests::{Deployment, Options, WireClient, answers, sqlstate};
use pgward_wire::{frame, frontend};

const READER: &str = "ward_reader";

/// Two regions whose primaries know the role; `app` may set it.
async fn deployment() -> Deployment {
    let options = Options {
        replicas: 0,
        tune: |layout| {
            layout.users =
                vec![User { may_set_role: &[READER, "nobody_has_it"], ..User::new("app") }, User::new("nurse")];
            // One server for all: what is left on it is seen by the next.
            layout.pools = [(0, 1), (0, 1), (0, 1), (0, 1)];
        },
        ..Options::default()
    };
    let pgward = Deployment::start(env!("CARGO_BIN_EXE_pgward-under-test"), options).await.unwrap();
    for node in ["us-east-patients/primary", "us-west-patients/primary"] {
        let server = pgward.on_server(node).await;
        server
            .batch_execute(&format!(
                "CREATE ROLE {READER}; GRANT {READER} TO {SERVER_ROLE}; GRANT SELECT ON patients TO {READER}"
            ))
            .await
            .unwrap();
    }
    pgward
}

fn who(pgward: &Deployment, region: &str) -> String {
    format!("SELECT current_user FROM patients WHERE id = '{}'", pgward.patient(region, 1).id)
}

/// The roles of the records of a user's forwarded statements on patients, in their order.
fn roles(pgward: &Deployment, user: &str) -> Vec<Option<String>> {
    let records = pgward.records();
    let decisions = records.decisions_of(user).into_iter();
    decisions
        .filter(|record| record["outcome"] == "forwarded" && !record["patients"].as_array().unwrap().is_empty())
        .map(|record| record["role"].as_str().map(str::to_owned))
        .collect()
}

#[tokio::test]
async fn a_role_follows_its_session_and_stays_with_it() {
    let pgward = deployment().await;
    let (east, west) = (who(&pgward, "us-east"), who(&pgward, "us-west"));
    let before = roles(&pgward, "app").len();
    let (client, other) = (pgward.app().await, pgward.connect("general", "nurse").await);
    let change = format!("UPDATE patients SET critical = true WHERE id = '{}'", pgward.patient("us-west", 1).id);

    client.simple_query(&format!("SET ROLE {READER}")).await.unwrap();
    for sql in [&east, &west] {
        assert_eq!(answers(&client, sql).await, READER);
        assert_eq!(answers(&other, sql).await, SERVER_ROLE);
    }
    assert_eq!(sqlstate(client.simple_query(&change).await), "42501");
    // RESET ALL leaves the role, as on a server.
    client.simple_query("RESET ALL").await.unwrap();
    assert_eq!(answers(&client, &west).await, READER);
    client.simple_query("SET ROLE NONE").await.unwrap();
    assert_eq!(answers(&client, &west).await, SERVER_ROLE);
    client.simple_query(&format!("SELECT set_config('role', '{READER}', false)")).await.unwrap();
    assert_eq!(answers(&client, &west).await, READER);
    client.simple_query("RESET ROLE").await.unwrap();
    client.simple_query(&change).await.unwrap();

    let reader = Some(READER.to_owned());
    let want = [reader.clone(), reader.clone(), reader.clone(), reader.clone(), None, reader, None];
    assert_eq!(roles(&pgward, "app")[before..], want);
    assert_eq!(roles(&pgward, "nurse"), [None, None]);
}

#[tokio::test]
async fn a_transactions_role_ends_with_it() {
    let pgward = deployment().await;
    let west = who(&pgward, "us-west");
    let before = roles(&pgward, "app").len();
    let client = pgward.app().await;
    let local = format!("SET LOCAL ROLE {READER}");
    // Before the transaction has a server, and after.
    for steps in [vec!["BEGIN", &local, &west], vec!["BEGIN", &west, &local, &west]] {
        for step in &steps {
            client.simple_query(step).await.unwrap();
        }
        assert_eq!(answers(&client, &west).await, READER);
        client.simple_query("COMMIT").await.unwrap();
        assert_eq!(answers(&client, &west).await, SERVER_ROLE);
    }
    for (end, after) in [("ROLLBACK", SERVER_ROLE), ("COMMIT", READER)] {
        client.simple_query("BEGIN").await.unwrap();
        client.simple_query(&format!("SET ROLE {READER}")).await.unwrap();
        assert_eq!(answers(&client, &west).await, READER);
        client.simple_query(end).await.unwrap();
        assert_eq!(answers(&client, &west).await, after);
    }
    let (own, reader) = (None, Some(READER.to_owned()));
    let want = [&reader, &reader, &own, &own, &reader, &reader, &own, &reader, &own, &reader, &reader];
    assert_eq!(roles(&pgward, "app")[before..].iter().collect::<Vec<_>>(), want);

    // Which savepoint is meant is not followed, so neither is the role that would hold after it.
    for steps in [["SAVEPOINT a", &local], [&local, "SAVEPOINT a"]] {
        client.simple_query("BEGIN").await.unwrap();
        for step in steps {
            client.simple_query(step).await.unwrap();
        }
        assert_eq!(sqlstate(client.simple_query("ROLLBACK TO a").await), "0A000");
        client.simple_query("ROLLBACK").await.unwrap();
    }
}

#[tokio::test]
async fn a_role_that_is_not_allowed_is_refused_in_every_form() {
    let pgward = deployment().await;
    let (app, nurse) = (pgward.app().await, pgward.connect("general", "nurse").await);
    for (client, role) in [(&nurse, READER), (&app, "postgres"), (&app, SERVER_ROLE)] {
        for sql in [
            format!("SET ROLE {role}"),
            format!("SET LOCAL ROLE '{role}'"),
            format!("SET role TO {role}"),
            format!("SELECT set_config('role', '{role}', false)"),
            format!("SELECT 1; SET ROLE {role}"),
        ] {
            assert_eq!(sqlstate(client.simple_query(&sql).await), "42501", "{sql}");
            client.simple_query("BEGIN").await.unwrap();
            assert_eq!(sqlstate(client.simple_query(&sql).await), "42501", "{sql}");
            client.simple_query("ROLLBACK").await.unwrap();
            let prepared = client.execute(&sql, &[]).await;
            assert!(prepared.is_err(), "{sql}");
        }
        assert_eq!(answers(client, "SELECT current_user").await, SERVER_ROLE);
    }
    // Allowed, but not known to the servers: their error.
    assert_eq!(sqlstate(app.simple_query("SET ROLE nobody_has_it").await), "22023");
    let set = format!("SET ROLE {READER}");
    assert_eq!(sqlstate(app.simple_query(&format!("{set}; SELECT 1")).await), "0A000");
    for sql in ["RESET SESSION AUTHORIZATION", "SET SESSION AUTHORIZATION DEFAULT", "SET SESSION AUTHORIZATION app"] {
        assert_eq!(sqlstate(app.simple_query(sql).await), "0A000", "{sql}");
    }
}

#[tokio::test]
async fn a_role_asked_for_at_startup_is_judged_as_well() {
    let pgward = deployment().await;
    let url = |user, role| format!("{}?options=-c%20role%3D{role}", pgward.url("general", user));
    let (client, connection) = tokio_postgres::connect(&url("app", READER), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(answers(&client, &who(&pgward, "us-west")).await, READER);
    client.simple_query("SET ROLE NONE").await.unwrap();
    assert_eq!(answers(&client, &who(&pgward, "us-west")).await, SERVER_ROLE);
    client.simple_query("RESET ROLE").await.unwrap();
    assert_eq!(answers(&client, &who(&pgward, "us-west")).await, READER);
    for (user, role) in [("nurse", READER), ("app", "postgres")] {
        let refused = tokio_postgres::connect(&url(user, role), tokio_postgres::NoTls).await.map(|_| ());
        assert_eq!(sqlstate(refused), "42501");
    }
}

/// A membership that is taken away leaves nothing to run as the login itself.
#[tokio::test]
async fn no_statement_runs_without_its_role() {
    let pgward = deployment().await;
    let (client, other) = (pgward.app().await, pgward.connect("general", "nurse").await);
    client.simple_query(&format!("SET ROLE {READER}")).await.unwrap();
    let west = who(&pgward, "us-west");
    assert_eq!(answers(&client, &west).await, READER);
    assert_eq!(answers(&other, &west).await, SERVER_ROLE);
    let server = pgward.on_server("us-west-patients/primary").await;
    server.batch_execute(&format!("REVOKE {READER} FROM {SERVER_ROLE}")).await.unwrap();
    let change = format!("UPDATE patients SET critical = true WHERE id = '{}'", pgward.patient("us-west", 2).id);
    let error = client.simple_query(&change).await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!((error.code().code(), error.message()), ("42501", "permission denied to set role \"ward_reader\""));
    assert_eq!(answers(&other, &west).await, SERVER_ROLE);
}

/// What stands behind SET ROLE in a pipeline could not be recorded with its role.
#[tokio::test]
async fn nothing_stands_behind_a_change_of_role_in_its_pipeline() {
    let pgward = deployment().await;
    let mut client = WireClient::login(pgward.port("general"), "app", "demo-app").await;
    let west = who(&pgward, "us-west");
    let set = format!("SET ROLE {READER}");
    let mut out = BytesMut::new();
    for sql in [&set, &west] {
        frontend::put_parse(&mut out, b"", sql.as_bytes(), &[]);
        frame::put(&mut out, b'B', b"\0\0\0\0\0\0\0\0");
        frame::put(&mut out, b'E', b"\0\0\0\0\0");
    }
    frontend::put_sync(&mut out);
    client.send(&out).await;
    let frames = client.until_ready().await;
    let errors: Vec<_> = frames.iter().filter(|frame| frame.tag == b'E').collect();
    assert_eq!(errors[0].field(b'C').unwrap(), "0A000", "{frames:?}");
    assert!(roles(&pgward, "app").iter().all(Option::is_none));
}

/// The same text of the same client or of two is another statement where its table is another one.
#[tokio::test]
async fn a_prepared_statement_is_of_the_tables_that_its_search_path_names() {
    let pgward = deployment().await;
    let (one, mut other) = (pgward.app().await, pgward.app().await);
    let home = pgward.on_server("us-east-patients/primary").await;
    home.batch_execute(&format!(
        "CREATE SCHEMA \"{SERVER_ROLE}\" AUTHORIZATION {SERVER_ROLE};
         CREATE TABLE \"{SERVER_ROLE}\".pgbench_branches (bid text, more int);
         INSERT INTO \"{SERVER_ROLE}\".pgbench_branches VALUES ('own', 2);
         GRANT ALL ON \"{SERVER_ROLE}\".pgbench_branches TO {SERVER_ROLE};
         DROP TABLE IF EXISTS public.pgbench_branches;
         CREATE TABLE public.pgbench_branches (bid int);
         INSERT INTO public.pgbench_branches VALUES (1);
         GRANT ALL ON public.pgbench_branches TO {SERVER_ROLE}"
    ))
    .await
    .unwrap();
    let sql = "UPDATE pgbench_branches SET bid = $1 RETURNING *";
    one.batch_execute("SET search_path = public").await.unwrap();
    other.batch_execute("SET search_path = '$user', public").await.unwrap();
    let (of_public, of_own) = (one.prepare(sql).await.unwrap(), other.prepare(sql).await.unwrap());
    for _ in 0..3 {
        assert_eq!(one.query(&of_public, &[&1]).await.unwrap()[0].len(), 1);
        assert_eq!(other.query(&of_own, &[&"own"]).await.unwrap()[0].len(), 2);
    }
    // In a transaction, where nothing could be said anew.
    let transaction = other.transaction().await.unwrap();
    assert_eq!(transaction.query(&of_own, &[&"own"]).await.unwrap()[0].len(), 2);
    transaction.batch_execute("SET LOCAL search_path = public").await.unwrap();
    let inside = transaction.prepare(sql).await.unwrap();
    assert_eq!(transaction.query(&inside, &[&1]).await.unwrap()[0].len(), 1);
    transaction.commit().await.unwrap();
    let transaction = other.transaction().await.unwrap();
    assert_eq!(transaction.query(&of_own, &[&"own"]).await.unwrap()[0].len(), 2);
    transaction.commit().await.unwrap();

    // The same for the role: its rows are others.
    home.batch_execute(&format!(
        "CREATE POLICY of_all ON public.pgbench_branches USING (current_user <> '{READER}');
         ALTER TABLE public.pgbench_branches ENABLE ROW LEVEL SECURITY;
         GRANT SELECT ON public.pgbench_branches TO {READER}"
    ))
    .await
    .unwrap();
    let read = "SELECT bid FROM public.pgbench_branches";
    one.batch_execute(&format!("SET ROLE {READER}")).await.unwrap();
    let (as_reader, as_login) = (one.prepare(read).await.unwrap(), other.prepare(read).await.unwrap());
    for _ in 0..3 {
        assert_eq!(one.query(&as_reader, &[]).await.unwrap().len(), 0);
        assert_eq!(other.query(&as_login, &[]).await.unwrap().len(), 1);
    }
}
