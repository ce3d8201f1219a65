//! The extended protocol byte by byte: parameters as text, pipelines, errors up to Sync.

use bytes::BytesMut;
use pgward_tests::{Frame, WireClient};
use pgward_wire::frontend;

use crate::{shared, tags};

async fn session() -> WireClient {
    let pgward = shared().await;
    WireClient::login(pgward.port("general"), "app", "demo-app").await
}

/// Bind of the unnamed statement with one parameter as text.
fn put_bind(out: &mut BytesMut, value: &str) {
    let mut body = b"\0\0\0\0\0\x01".to_vec();
    body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
    body.extend(value.as_bytes());
    body.extend([0, 0]);
    put(out, b'B', &body);
}

fn put(out: &mut BytesMut, tag: u8, body: &[u8]) {
    out.extend([tag]);
    out.extend((u32::try_from(body.len()).unwrap() + 4).to_be_bytes());
    out.extend(body);
}

/// The first column of each DataRow.
fn values(frames: &[Frame]) -> Vec<String> {
    let value = |frame: &Frame| String::from_utf8_lossy(&frame.body[6..]).into_owned();
    frames.iter().filter(|frame| frame.tag == b'D').map(value).collect()
}

const READ: &str = "SELECT current_setting('cluster_name') FROM patients WHERE id = $1";

#[tokio::test]
async fn a_parameter_as_text_places_the_statement() {
    let (pgward, mut client) = (shared().await, session().await);
    let mut out = BytesMut::new();
    frontend::put_parse(&mut out, b"", READ.as_bytes(), &[]);
    put_bind(&mut out, &pgward.patient("eu-west", 0).id.to_string());
    put(&mut out, b'E', b"\0\0\0\0\0");
    frontend::put_sync(&mut out);
    client.send(&out).await;
    let frames = client.until_ready().await;
    assert_eq!(tags(&frames), "12DCZ");
    let node = &values(&frames)[0];
    assert!(node.starts_with("eu-west-patients/replica-"), "{node}");
}

#[tokio::test]
async fn a_pipeline_of_two_regions_is_answered_in_order() {
    let (pgward, mut client) = (shared().await, session().await);
    let mut out = BytesMut::new();
    for region in ["us-west", "ap-south"] {
        frontend::put_parse(&mut out, b"", READ.as_bytes(), &[]);
        put_bind(&mut out, &pgward.patient(region, 0).id.to_string());
        put(&mut out, b'E', b"\0\0\0\0\0");
        frontend::put_sync(&mut out);
    }
    client.send(&out).await;
    for shard in ["us-west-patients/", "ap-south-patients/"] {
        let frames = client.until_ready().await;
        assert_eq!(tags(&frames), "12DCZ");
        assert!(values(&frames)[0].starts_with(shard), "{:?}", values(&frames));
    }
}

#[tokio::test]
async fn after_an_error_everything_up_to_sync_is_skipped() {
    let (pgward, mut client) = (shared().await, session().await);
    let mut out = BytesMut::new();
    frontend::put_parse(&mut out, b"", READ.as_bytes(), &[]);
    put_bind(&mut out, "nonsense");
    put(&mut out, b'E', b"\0\0\0\0\0");
    put_bind(&mut out, &pgward.patient("us-east", 0).id.to_string());
    put(&mut out, b'E', b"\0\0\0\0\0");
    frontend::put_sync(&mut out);
    client.send(&out).await;
    let frames = client.until_ready().await;
    assert_eq!(tags(&frames).replace('1', ""), "EZ", "{frames:?}");
    let error = frames.iter().find(|frame| frame.tag == b'E').unwrap();
    assert_eq!(error.field(b'C').unwrap(), "PW007");
}

#[tokio::test]
async fn bytes_one_at_a_time_are_a_session_too() {
    let (pgward, mut client) = (shared().await, session().await);
    let mut out = BytesMut::new();
    frontend::put_parse(&mut out, b"", READ.as_bytes(), &[]);
    put_bind(&mut out, &pgward.patient("us-west", 1).id.to_string());
    put(&mut out, b'E', b"\0\0\0\0\0");
    frontend::put_sync(&mut out);
    for byte in out {
        client.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(tags(&client.until_ready().await), "12DCZ");
}

/// Parse, Bind and Execute of the unnamed statement with one parameter.
fn put_statement(out: &mut BytesMut, sql: &str, value: &str) {
    frontend::put_parse(out, b"", sql.as_bytes(), &[]);
    put_bind(out, value);
    put(out, b'E', b"\0\0\0\0\0");
}

#[tokio::test]
async fn a_pipeline_that_reads_first_may_write() {
    let (pgward, mut client) = (shared().await, session().await);
    let id = pgward.patient("eu-west", 30).id.to_string();
    let write = "UPDATE patients SET critical = critical WHERE id = $1 RETURNING current_setting('cluster_name')";
    let mut out = BytesMut::new();
    put_statement(&mut out, READ, &id);
    put_statement(&mut out, write, &id);
    frontend::put_sync(&mut out);
    client.send(&out).await;
    let frames = client.until_ready().await;
    assert_eq!(tags(&frames), "12DC12DCZ", "{frames:?}");
    assert_eq!(values(&frames), ["eu-west-patients/primary"; 2]);
    // Nor is it known what comes behind a Flush.
    out.clear();
    put_statement(&mut out, READ, &id);
    frontend::put_flush(&mut out);
    client.send(&out).await;
    let mut first = Vec::new();
    while first.last() != Some(&b'C') {
        first.push(client.frame().await.unwrap().tag);
    }
    out.clear();
    put_statement(&mut out, write, &id);
    frontend::put_sync(&mut out);
    client.send(&out).await;
    assert_eq!(tags(&client.until_ready().await), "12DCZ");
}

#[tokio::test]
async fn what_fails_to_be_described_fails_its_transaction() {
    let (pgward, mut client) = (shared().await, session().await);
    let patient = pgward.patient("eu-west", 31).id;
    assert_eq!(client.query("BEGIN").await.last().unwrap().body, b"T");
    let mut out = BytesMut::new();
    frontend::put_parse(&mut out, b"wrong", b"SELECT nosuch FROM patients WHERE id = $1", &[]);
    frontend::put_sync(&mut out);
    client.send(&out).await;
    let frames = client.until_ready().await;
    assert_eq!((tags(&frames).as_str(), frames[0].field(b'C').unwrap().as_str()), ("EZ", "42703"));
    assert_eq!(frames.last().unwrap().body, b"E");
    let frames = client.query(&format!("UPDATE patients SET critical = critical WHERE id = '{patient}'")).await;
    assert_eq!((tags(&frames).as_str(), frames[0].field(b'C').unwrap().as_str()), ("EZ", "25P02"));
    let frames = client.query("COMMIT").await;
    assert_eq!(frames[0].body, b"ROLLBACK\0");
    assert_eq!(frames.last().unwrap().body, b"I");
}

#[tokio::test]
async fn an_unnamed_statement_is_destroyed_by_its_successor_whatever_becomes_of_that() {
    let mut client = session().await;
    for refused in ["SELEC", "SELECT nosuch"] {
        let mut out = BytesMut::new();
        frontend::put_parse(&mut out, b"", b"SELECT 1", &[]);
        frontend::put_sync(&mut out);
        frontend::put_parse(&mut out, b"", refused.as_bytes(), &[]);
        frontend::put_sync(&mut out);
        put(&mut out, b'B', b"\0\0\0\0\0\0\0\0");
        frontend::put_sync(&mut out);
        client.send(&out).await;
        assert_eq!(tags(&client.until_ready().await), "1Z");
        assert_eq!(tags(&client.until_ready().await), "EZ", "{refused}");
        let frames = client.until_ready().await;
        assert_eq!((tags(&frames).as_str(), frames[0].field(b'C').unwrap().as_str()), ("EZ", "26000"), "{refused}");
    }
}

/// PostgreSQL says "cached plan must not change result type" to each session that prepared the statement before. Here a
/// client shares its server's statement with others, and cannot know when it was prepared.
#[tokio::test]
async fn a_statement_whose_table_changed_is_prepared_anew() {
    let pgward = shared().await;
    let (one, mut other) = (pgward.app().await, pgward.app().await);
    one.simple_query("DROP TABLE IF EXISTS pgbench_tellers").await.unwrap();
    one.simple_query("CREATE TABLE pgbench_tellers (tid int)").await.unwrap();
    one.simple_query("INSERT INTO pgbench_tellers VALUES (1)").await.unwrap();
    // Replicas answer reads, and may be behind.
    pgward.cluster().await_replay().await.unwrap();
    let (read, write) = (
        "SELECT * FROM pgbench_tellers WHERE tid = $1",
        "UPDATE pgbench_tellers SET tid = tid WHERE tid = $1 RETURNING *",
    );
    let kept = (one.prepare(read).await.unwrap(), one.prepare(write).await.unwrap());
    for _ in 0..4 {
        one.query(&kept.0, &[&1]).await.unwrap();
        one.query(&kept.1, &[&1]).await.unwrap();
    }
    let altered = pgward.on_server("us-east-patients/primary").await;
    for columns in 2..5 {
        altered.simple_query(&format!("ALTER TABLE pgbench_tellers ADD COLUMN more_{columns} int")).await.unwrap();
        pgward.cluster().await_replay().await.unwrap();
        for sql in [read, write].repeat(4) {
            // As long as `one` holds the statement, `other` shares it.
            let rows = other.query(sql, &[&1]).await.unwrap();
            assert_eq!(rows[0].len(), columns, "{sql}");
        }
    }

    // In a transaction there is nothing to be said anew; the server learns from it.
    let statement = other.prepare(write).await.unwrap();
    altered.simple_query("ALTER TABLE pgbench_tellers ADD COLUMN last int").await.unwrap();
    pgward.cluster().await_replay().await.unwrap();
    let transaction = other.transaction().await.unwrap();
    // Of a server that had not prepared it before, the driver has a column more than it knows of, which it may refuse.
    let error = transaction.query(&statement, &[&1]).await.err();
    let code = error.as_ref().and_then(tokio_postgres::Error::code);
    assert!(code.is_none_or(|code| code.code() == "0A000"), "{error:?}");
    transaction.rollback().await.unwrap();
    assert_eq!(other.query(write, &[&1]).await.unwrap()[0].len(), 5);
    other.simple_query("DROP TABLE pgbench_tellers").await.unwrap();
}

/// As PostgreSQL, which skips the Close and the Parse and keeps the statement.
#[tokio::test]
async fn a_close_behind_an_error_does_not_happen() {
    let pgward = shared().await;
    let mut client = WireClient::login(pgward.port("general"), "app", "demo-app").await;
    let mut out = BytesMut::new();
    frontend::put_parse(&mut out, b"kept", b"SELECT 1", &[]);
    frontend::put_sync(&mut out);
    client.send(&out).await;
    assert_eq!(tags(&client.until_ready().await), "1Z");

    out.clear();
    frontend::put_parse(&mut out, b"bad", b"SELECT no_such_column", &[]);
    frontend::put_close_statement(&mut out, b"kept");
    frontend::put_parse(&mut out, b"kept", b"SELECT 2", &[]);
    frontend::put_sync(&mut out);
    client.send(&out).await;
    assert_eq!(tags(&client.until_ready().await), "EZ");

    out.clear();
    put(&mut out, b'B', b"\0kept\0\0\0\0\0\0\0");
    put(&mut out, b'E', b"\0\0\0\0\0");
    frontend::put_close_statement(&mut out, b"kept");
    frontend::put_parse(&mut out, b"kept", b"SELECT 3", &[]);
    frontend::put_sync(&mut out);
    client.send(&out).await;
    let frames = client.until_ready().await;
    assert_eq!(tags(&frames), "2DC31Z");
    assert_eq!(&frames[1].body[6..], b"1");
}

#[tokio::test]
async fn a_client_has_so_many_prepared_statements_and_no_more() {
    let mut client = session().await;
    let mut out = BytesMut::new();
    for n in 0..10_001 {
        // Their Parse is answered without a server.
        frontend::put_parse(&mut out, format!("s{n}").as_bytes(), b"COMMIT", &[]);
    }
    frontend::put_sync(&mut out);
    client.send(&out).await;
    let frames = client.until_ready().await;
    assert_eq!(tags(&frames[10_000..]), "EZ");
    assert_eq!(frames[10_000].field(b'C').unwrap(), "54000");

    out.clear();
    frontend::put_close_statement(&mut out, b"s17");
    frontend::put_parse(&mut out, b"another", b"COMMIT", &[]);
    frontend::put_sync(&mut out);
    client.send(&out).await;
    assert_eq!(tags(&client.until_ready().await), "31Z");

    let mut client = session().await;
    out.clear();
    let large = [b"SELECT 1 -- ".to_vec(), vec![b'x'; 17 << 20]].concat();
    frontend::put_parse(&mut out, b"large", &large, &[]);
    frontend::put_sync(&mut out);
    client.send(&out).await;
    let frames = client.until_ready().await;
    assert_eq!((tags(&frames).as_str(), frames[0].field(b'C').unwrap().as_str()), ("EZ", "54000"));
}

/// More statements than a server keeps, again and again, each answered by its own.
#[tokio::test]
async fn a_server_closes_what_was_unused_for_longest() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let mut statements = Vec::new();
    for n in 0..700 {
        statements.push(client.prepare(&format!("SELECT {n}, $1::int")).await.unwrap());
    }
    for round in 0..3i32 {
        for (n, statement) in (0i32..).zip(&statements) {
            let row = client.query_one(statement, &[&round]).await.unwrap();
            assert_eq!((row.get::<_, i32>(0), row.get::<_, i32>(1)), (n, round));
        }
    }
}

fn put_bind_of(out: &mut BytesMut, statement: &[u8]) {
    put(out, b'B', &[b"\0", statement, b"\0\0\0\0\0\0\0"].concat());
}

#[tokio::test]
async fn what_no_value_makes_acceptable_is_refused_at_its_parse() {
    let (pgward, mut client) = (shared().await, session().await);
    let since = pgward.records().all.len();
    let statements: [(&[u8], &str); 2] = [(b"SELECT * FROM nobody_declared", "PW003"), (b"CALL p()", "PW008")];
    for (sql, code) in statements {
        let mut out = BytesMut::new();
        frontend::put_parse(&mut out, b"refused", sql, &[]);
        frontend::put_describe_statement(&mut out, b"refused");
        frontend::put_sync(&mut out);
        put_bind_of(&mut out, b"refused");
        frontend::put_sync(&mut out);
        client.send(&out).await;
        let frames = client.until_ready().await;
        assert_eq!((tags(&frames).as_str(), frames[0].field(b'C').unwrap().as_str()), ("EZ", code));
        let frames = client.until_ready().await;
        assert_eq!((tags(&frames).as_str(), frames[0].field(b'C').unwrap().as_str()), ("EZ", "26000"));
    }
    let records = pgward.records();
    let records = records.decisions_from(since, "general", &client.address());
    let codes: Vec<_> = records.iter().map(|record| record["sqlstate"].as_str().unwrap()).collect();
    assert_eq!(codes, ["PW003", "PW008"], "each once");
}

/// As asyncpg asks for the types of columns before a binary COPY.
#[tokio::test]
async fn a_patient_table_without_a_patient_is_described_and_not_read() {
    let (pgward, mut client) = (shared().await, session().await);
    let since = pgward.records().all.len();
    let mut out = BytesMut::new();
    frontend::put_parse(&mut out, b"columns", b"SELECT family_name FROM patients LIMIT 1", &[]);
    frontend::put_describe_statement(&mut out, b"columns");
    frontend::put_sync(&mut out);
    put_bind_of(&mut out, b"columns");
    frontend::put_sync(&mut out);
    client.send(&out).await;
    assert_eq!(tags(&client.until_ready().await), "1tTZ");
    let frames = client.until_ready().await;
    assert_eq!((tags(&frames).as_str(), frames[0].field(b'C').unwrap().as_str()), ("EZ", "PW001"));
    let records = pgward.records();
    let records = records.decisions_from(since, "general", &client.address());
    assert_eq!(records.iter().map(|record| record["sqlstate"].as_str()).collect::<Vec<_>>(), [Some("PW001")]);
}

#[tokio::test]
async fn a_refused_parse_fails_its_transaction() {
    let (pgward, mut client) = (shared().await, session().await);
    let read = format!("SELECT 1 FROM patients WHERE id = '{}'", pgward.patient("eu-west", 32).id);
    // Before the transaction has a server, and after.
    for read in [None, Some(&read)] {
        client.query("BEGIN").await;
        if let Some(read) = read {
            assert_eq!(tags(&client.query(read).await), "TDCZ");
        }
        let mut out = BytesMut::new();
        frontend::put_parse(&mut out, b"", b"SELECT * FROM nobody_declared", &[]);
        frontend::put_sync(&mut out);
        client.send(&out).await;
        let frames = client.until_ready().await;
        assert_eq!((tags(&frames).as_str(), frames[0].field(b'C').unwrap().as_str()), ("EZ", "PW003"));
        assert_eq!(frames.last().unwrap().body, b"E");
        let frames = client.query("COMMIT").await;
        assert_eq!(frames[0].body, b"ROLLBACK\0");
    }
}

/// No server has been asked: the error answers the Parse, and nothing behind it has happened.
#[tokio::test]
async fn what_fails_before_it_has_a_server_is_answered_in_turn_and_truly() {
    let mut client = session().await;
    let mut out = BytesMut::new();
    frontend::put_parse(&mut out, b"kept", b"SELECT 1", &[]);
    frontend::put_sync(&mut out);
    client.send(&out).await;
    assert_eq!(tags(&client.until_ready().await), "1Z");

    out.clear();
    frontend::put_parse(&mut out, b"wrong", b"SELECT nosuch FROM patients WHERE id = $1", &[]);
    frontend::put_describe_statement(&mut out, b"wrong");
    frontend::put_close_statement(&mut out, b"kept");
    frontend::put_parse(&mut out, b"", READ.as_bytes(), &[]);
    put_bind(&mut out, "nonsense");
    frontend::put_sync(&mut out);
    for statement in [&b"wrong"[..], b"kept"] {
        put_bind_of(&mut out, statement);
        put(&mut out, b'E', b"\0\0\0\0\0");
        frontend::put_sync(&mut out);
    }
    client.send(&out).await;
    let frames = client.until_ready().await;
    assert_eq!((tags(&frames).as_str(), frames[0].field(b'C').unwrap().as_str()), ("EZ", "PW007"));
    let frames = client.until_ready().await;
    assert_eq!((tags(&frames).as_str(), frames[0].field(b'C').unwrap().as_str()), ("EZ", "26000"));
    assert_eq!(tags(&client.until_ready().await), "2DCZ", "it is not closed");
}

#[tokio::test]
async fn what_stands_before_a_copy_or_a_query_is_answered_by_a_server() {
    let mut client = session().await;
    let mut out = BytesMut::new();
    frontend::put_parse(&mut out, b"described", b"SELECT 1 AS one", &[]);
    frontend::put_describe_statement(&mut out, b"described");
    frontend::put_parse(&mut out, b"", b"COPY encounters FROM STDIN", &[]);
    put(&mut out, b'B', b"\0\0\0\0\0\0\0\0");
    put(&mut out, b'E', b"\0\0\0\0\0");
    frontend::put_sync(&mut out);
    put(&mut out, b'f', b"no rows\0");
    frontend::put_sync(&mut out);
    client.send(&out).await;
    let frames = client.until_ready().await;
    assert_eq!(tags(&frames), "1tT12GEZ", "{frames:?}");

    out.clear();
    frontend::put_parse(&mut out, b"", b"SELECT nosuch", &[]);
    frontend::put_query(&mut out, b"BEGIN");
    frontend::put_sync(&mut out);
    client.send(&out).await;
    let frames = client.until_ready().await;
    assert_eq!((tags(&frames).as_str(), frames[0].field(b'C').unwrap().as_str()), ("EZ", "42703"));
    assert_eq!(frames[1].body, b"I", "the Query is skipped");

    out.clear();
    frontend::put_parse(&mut out, b"", b"SELECT 1", &[]);
    frontend::put_query(&mut out, b"BEGIN");
    client.send(&out).await;
    let frames = client.until_ready().await;
    assert_eq!(tags(&frames), "1CZ");
    assert_eq!(frames[2].body, b"T");
}

/// Servers of version 18 leave such a transaction open and say that there is none.
#[tokio::test]
async fn a_query_does_not_stand_behind_an_execute_without_its_sync() {
    let (pgward, mut client) = (shared().await, session().await);
    let id = pgward.patient("us-east", 61).id;
    let insert = |what: &str| {
        format!(
            "INSERT INTO allergies (patient_id, substance, reaction, severity) VALUES ('{id}', '{what}', 'Rash', 'mild')"
        )
    };
    let left = format!("SELECT count(*) FROM allergies WHERE patient_id = '{id}' AND substance LIKE 'Unsynced%'");
    let server = pgward.on_server("us-east-patients/primary").await;
    for (block, flush, behind) in [
        (false, false, insert("Unsynced, too")),
        (false, true, "BEGIN".to_owned()),
        (true, false, "COMMIT".to_owned()),
        (false, false, "PREPARE of_query AS SELECT 1".to_owned()),
        (false, false, "COPY allergies (patient_id, substance) FROM STDIN".to_owned()),
    ] {
        if block {
            client.query("BEGIN").await;
        }
        let mut out = BytesMut::new();
        frontend::put_parse(&mut out, b"", insert("Unsynced").as_bytes(), &[]);
        put(&mut out, b'B', b"\0\0\0\0\0\0\0\0");
        put(&mut out, b'E', b"\0\0\0\0\0");
        if flush {
            put(&mut out, b'H', b"");
        }
        frontend::put_query(&mut out, behind.as_bytes());
        frontend::put_sync(&mut out);
        client.send(&out).await;
        let frames = client.until_ready().await;
        assert_eq!(tags(&frames), "12CEZ", "{behind}");
        assert_eq!(frames[3].field(b'C').as_deref(), Some("0A000"));
        assert_eq!(tags(&client.until_ready().await), "Z");
        if block {
            client.query("ROLLBACK").await;
        }
        assert_eq!(values(&client.query(&left).await), ["0"], "{behind}");
        assert_eq!(pgward_tests::answers(&server, &left).await, "0", "{behind}");
    }
}
