//! Session mode: the client's own server, by its own startup packet and proof, and every message as sent.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use pgward_tests::{Frame, ROLE_PASSWORD, WireClient, answers, sqlstate};

use crate::shared;

/// A session by this startup packet, whose user needs no password; what was said up to ReadyForQuery or an error.
async fn started(params: &[(&str, &str)]) -> (WireClient, Vec<Frame>) {
    let mut client = WireClient::open(shared().await.port("session-trust")).await;
    let mut packet = BytesMut::new();
    pgward_wire::startup::put(&mut packet, params.iter().copied());
    client.send(&packet).await;
    let said = client.until_ready().await;
    (client, said)
}

async fn trusted() -> (WireClient, Vec<Frame>) {
    started(&[("user", "trusted"), ("database", "postgres")]).await
}

fn tags(frames: &[Frame]) -> String {
    frames.iter().map(|frame| char::from(frame.tag)).collect()
}

/// The value of the first row.
fn value(frames: &[Frame]) -> String {
    let row = frames.iter().find(|frame| frame.tag == b'D').unwrap_or_else(|| panic!("a row: {frames:?}"));
    String::from_utf8_lossy(&row.body[6..]).into_owned()
}

#[tokio::test]
async fn every_proof_that_a_server_may_ask_for_is_passed_on() {
    let pgward = shared().await;
    for user in ["by_scram", "by_md5", "in_clear"] {
        let client = pgward.connect("session", user).await.unwrap();
        assert_eq!(answers(&client, "SELECT session_user").await, user);
        let wrong = pgward.url("session", user, "postgres").replace(ROLE_PASSWORD, "wrong");
        let error = tokio_postgres::connect(&wrong, tokio_postgres::NoTls).await.map(drop).unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "28P01");
        assert_eq!(error.message(), format!("password authentication failed for user \"{user}\""));
    }
}

#[tokio::test]
async fn who_need_not_prove_anything_to_the_server_comes_in_by_a_listener_that_trusts_alone() {
    let pgward = shared().await;
    let client = pgward.connect("session-trust", "trusted").await.unwrap();
    assert_eq!(answers(&client, "SELECT session_user").await, "trusted");
    let error = pgward.connect("session", "trusted").await.map(drop).unwrap_err();
    let error = error.downcast::<tokio_postgres::Error>().unwrap();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "28000");
    assert!(error.message().contains("proves nothing about this client"), "{error:?}");
    assert!(error.hint().is_some_and(|hint| hint.contains("pg_hba.conf")), "{error:?}");
}

#[tokio::test]
async fn the_servers_errors_at_login_are_told_as_they_are() {
    let pgward = shared().await;
    for params in [
        &[("user", "trusted"), ("database", "no such database")][..],
        &[("user", "trusted"), ("database", "postgres"), ("options", "-c no_such_parameter=1")],
        &[("user", "trusted"), ("database", "postgres"), ("work_mem", "much")],
        &[("user", "trusted"), ("database", "postgres"), ("options", "--bad")],
    ] {
        let (mut client, said) = started(params).await;
        assert_eq!(tags(&said).chars().last(), Some('E'), "{said:?}");
        assert!(client.frame().await.is_none(), "it is disconnected");
        let mut direct = WireClient::open(pgward.server_port()).await;
        let mut packet = BytesMut::new();
        pgward_wire::startup::put(&mut packet, params.iter().copied());
        direct.send(&packet).await;
        let mut want = direct.until_ready().await;
        // The word of the server before it looks at the parameters.
        want.retain(|frame| frame.tag == b'E');
        assert_eq!(said.last(), want.last());
    }
}

#[tokio::test]
async fn startup_parameters_reach_the_server_as_sent() {
    let (mut client, said) = started(&[
        ("user", "trusted"),
        ("database", "postgres"),
        ("options", "-c search_path=a,b -c work_mem=5MB -c statement_timeout=0"),
        ("DateStyle", "German"),
        ("client_encoding", "LATIN1"),
        ("application_name", "suites"),
        ("custom.setting", "x y"),
    ])
    .await;
    let reported = |name: &str| {
        let begins = format!("{name}\0");
        let status = said.iter().rfind(|frame| frame.tag == b'S' && frame.body.starts_with(begins.as_bytes()));
        String::from_utf8_lossy(&status.unwrap().body[begins.len()..]).trim_end_matches('\0').to_owned()
    };
    assert_eq!(reported("DateStyle"), "German, DMY");
    assert_eq!(reported("client_encoding"), "LATIN1");
    assert_eq!(reported("application_name"), "suites");
    assert_eq!(reported("session_authorization"), "trusted");
    for (name, want) in [("search_path", "a,b"), ("work_mem", "5MB"), ("custom.setting", "x y")] {
        assert_eq!(value(&client.query(&format!("SHOW {name}")).await), want, "{name}");
    }
}

#[tokio::test]
async fn the_process_id_is_the_servers_and_cancels() {
    let pgward = shared().await;
    let (mut client, said) = trusted().await;
    let key = &said.iter().find(|frame| frame.tag == b'K').unwrap().body;
    let pid = i32::from_be_bytes(key[..4].try_into().unwrap());
    assert_eq!(value(&client.query("SELECT pg_backend_pid()").await), pid.to_string());

    // The key is not the server's own, which would cancel by the server's port too.
    let mut query = BytesMut::new();
    pgward_wire::frontend::put_query(&mut query, b"SELECT pg_sleep(60)");
    client.send(&query).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut cancel = BytesMut::new();
    pgward_wire::frontend::put_cancel(&mut cancel, pid, &key[4..]);
    let mut direct = WireClient::open(pgward.server_port()).await;
    direct.send(&cancel).await;
    assert!(direct.frame().await.is_none());
    let mut through = WireClient::open(pgward.port("session")).await;
    through.send(&cancel).await;
    assert!(through.frame().await.is_none());
    let answer = client.until_ready().await;
    let error = answer.iter().find(|frame| frame.tag == b'E').unwrap();
    assert_eq!(error.field(b'C').as_deref(), Some("57014"), "{answer:?}");
    assert_eq!(value(&client.query("SELECT 1").await), "1");
}

#[tokio::test]
async fn no_statement_is_refused_and_all_state_stays() {
    let pgward = shared().await;
    let client = pgward.connect("session", "by_scram").await.unwrap();
    assert_eq!(answers(&client, "SHOW work_mem").await, "7MB", "of ALTER ROLE");
    for sql in [
        "CREATE TEMP TABLE t (a int); INSERT INTO t VALUES (1), (2)",
        "PREPARE p AS SELECT count(*) FROM t",
        "DECLARE c CURSOR WITH HOLD FOR SELECT a FROM t ORDER BY a",
        "DO $$ BEGIN PERFORM set_config('work_mem', '9MB', false); END $$",
        "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 42'",
        "SET pgward.anything = 'is the server''s own'",
    ] {
        client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
    assert_eq!(answers(&client, "EXECUTE p").await, "2");
    assert_eq!(answers(&client, "FETCH 1 FROM c").await, "1");
    assert_eq!(answers(&client, "SHOW work_mem").await, "9MB");
    assert_eq!(answers(&client, "SELECT pg_temp.f()").await, "42");
    assert_eq!(answers(&client, "SHOW pgward.anything").await, "is the server's own");
    assert_eq!(sqlstate(client.simple_query("this is no SQL").await), "42601");
    let typed = client.query_one("SELECT $1::int + $2::int", &[&20, &22]).await.unwrap();
    assert_eq!(typed.get::<_, i32>(0), 42);
}

#[tokio::test]
async fn a_function_is_called_by_its_message() {
    let (mut client, _) = trusted().await;
    let mut call = BytesMut::new();
    let mut body = BytesMut::new();
    // int4pl(40, 2), in binary both ways.
    body.put_u32(177);
    body.put_slice(b"\0\x01\0\x01\0\x02");
    for argument in [40, 2] {
        body.put_u32(4);
        body.put_i32(argument);
    }
    body.put_slice(b"\0\x01");
    pgward_wire::frame::put(&mut call, b'F', &body);
    client.send(&call).await;
    let answer = client.until_ready().await;
    assert_eq!(tags(&answer), "VZ", "{answer:?}");
    assert_eq!(answer[0].body, b"\0\0\0\x04\0\0\0\x2a");

    call.clear();
    body[..4].copy_from_slice(&[0xff; 4]);
    pgward_wire::frame::put(&mut call, b'F', &body);
    client.send(&call).await;
    assert_eq!(tags(&client.until_ready().await), "EZ");
    assert_eq!(value(&client.query("SELECT 1").await), "1");
}

#[tokio::test]
async fn notifications_arrive_while_nothing_is_asked() {
    let (mut client, _) = trusted().await;
    client.query("LISTEN news").await;
    let other = shared().await.connect("session", "by_scram").await.unwrap();
    other.batch_execute("NOTIFY news, 'now'").await.unwrap();
    let told = client.frame().await.unwrap();
    assert_eq!((told.tag, &told.body[4..]), (b'A', &b"news\0now\0"[..]));
}

#[tokio::test]
async fn rows_are_copied_in_both_directions_and_both_protocols() {
    let (mut client, _) = trusted().await;
    client.query("CREATE TEMP TABLE rows (a int)").await;
    let mut bytes = BytesMut::new();
    pgward_wire::frontend::put_query(&mut bytes, b"COPY rows FROM STDIN");
    pgward_wire::frame::put(&mut bytes, b'd', b"1\n2\n");
    pgward_wire::frame::put(&mut bytes, b'c', b"");
    client.send(&bytes).await;
    assert_eq!(tags(&client.until_ready().await), "GCZ");

    // Parse, Bind, Execute and a Sync that the server ignores behind it, as libpq sends them; then the rows.
    bytes.clear();
    pgward_wire::frontend::put_parse(&mut bytes, b"", b"COPY rows FROM STDIN", &[]);
    pgward_wire::frame::put(&mut bytes, b'B', b"\0\0\0\0\0\0\0\0");
    pgward_wire::frame::put(&mut bytes, b'E', b"\0\0\0\0\0");
    pgward_wire::frontend::put_sync(&mut bytes);
    client.send(&bytes).await;
    let mut said = String::new();
    while !said.ends_with('G') {
        said.push(char::from(client.frame().await.unwrap().tag));
    }
    assert_eq!(said, "12G");
    bytes.clear();
    pgward_wire::frame::put(&mut bytes, b'd', b"3\n");
    pgward_wire::frame::put(&mut bytes, b'c', b"");
    pgward_wire::frontend::put_sync(&mut bytes);
    client.send(&bytes).await;
    assert_eq!(tags(&client.until_ready().await), "CZ");
    assert_eq!(tags(&client.query("COPY rows TO STDOUT").await), "HdddcCZ");

    bytes.clear();
    pgward_wire::frontend::put_query(&mut bytes, b"COPY rows FROM STDIN");
    pgward_wire::frame::put(&mut bytes, b'd', b"not a number\n");
    pgward_wire::frame::put(&mut bytes, b'd', b"4\n");
    pgward_wire::frame::put(&mut bytes, b'c', b"");
    client.send(&bytes).await;
    assert_eq!(tags(&client.until_ready().await), "GEZ");
    assert_eq!(value(&client.query("SELECT count(*) FROM rows").await), "3");
}

#[tokio::test]
async fn the_servers_last_words_are_told_and_nothing_behind_them() {
    let pgward = shared().await;
    let (mut client, said) = trusted().await;
    let pid = i32::from_be_bytes(said.iter().find(|frame| frame.tag == b'K').unwrap().body[..4].try_into().unwrap());
    let superuser = pgward.on_server().await;
    assert_eq!(answers(&superuser, &format!("SELECT pg_terminate_backend({pid})")).await, "t");
    let last = client.frame().await.unwrap();
    assert_eq!((last.tag, last.field(b'C').as_deref()), (b'E', Some("57P01")));
    assert!(client.frame().await.is_none());
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_server_along() {
    let pgward = shared().await;
    let superuser = pgward.on_server().await;
    for farewell in [&b"X\0\0\0\x04"[..], b""] {
        let (mut client, said) = trusted().await;
        let pid =
            i32::from_be_bytes(said.iter().find(|frame| frame.tag == b'K').unwrap().body[..4].try_into().unwrap());
        client.query("CREATE TEMP TABLE gone_with_it ()").await;
        client.send(farewell).await;
        drop(client);
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
        let mut looks = 0;
        while answers(&superuser, &sql).await != "0" {
            looks += 1;
            assert!(looks < 500, "server {pid} is still there");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn replication_is_refused_in_words() {
    let (_, said) = started(&[("user", "trusted"), ("database", "postgres"), ("replication", "database")]).await;
    assert_eq!(said[0].field(b'C').as_deref(), Some("0A000"));
}

#[tokio::test]
async fn each_statement_has_its_record_with_the_target_and_no_patient() {
    let pgward = shared().await;
    let client = pgward.connect("session", "by_md5").await.unwrap();
    client.simple_query("SELECT 'secret', 1").await.unwrap();
    client.query("SELECT $1::int", &[&1]).await.unwrap();
    let records = pgward.records();
    let mine = records.decisions_of("by_md5");
    assert!(mine.len() >= 2, "{mine:?}");
    for record in mine {
        assert_eq!(record["node"], "only/primary");
        assert_eq!(record["reason"], "plain");
        assert_eq!(record["patients"].as_array().map(Vec::len), Some(0));
        assert!(!record.to_string().contains("secret"));
    }
}
