//! PREPARE, EXECUTE and DEALLOCATE of statements on patient tables: kept by the session, executed on the shard of the
//! patient that each EXECUTE names, and answered as a server answers a Query.

use pgward_tests::{Deployment, Frame, WireClient, answers, sqlstate};
use pgward_wire::frontend;

use crate::shared;

async fn session() -> WireClient {
    WireClient::login(shared().await.port("general"), "app", "demo-app").await
}

/// The tags of an answer, an error with its SQLSTATE, and the status.
fn tags(frames: &[Frame]) -> String {
    let tag = |frame: &Frame| match frame.tag {
        b'E' => frame.field(b'C').unwrap(),
        b'Z' => format!(" {}", String::from_utf8_lossy(&frame.body)),
        b'C' => format!("C({})", String::from_utf8_lossy(&frame.body[..frame.body.len() - 1])),
        // What another client has set on the server before.
        b'S' => String::new(),
        tag => char::from(tag).to_string(),
    };
    frames.iter().map(tag).collect()
}

/// The first column of the first row.
fn value(frames: &[Frame]) -> String {
    let row = frames.iter().find(|frame| frame.tag == b'D').unwrap_or_else(|| panic!("no row: {}", tags(frames)));
    String::from_utf8_lossy(&row.body[6..]).into_owned()
}

async fn asked(client: &mut WireClient, sql: &str) -> String {
    tags(&client.query(sql).await)
}

fn id(pgward: &Deployment, region: &str, n: usize) -> String {
    pgward.patient(region, n).id.to_string()
}

const READ: &str = "PREPARE q (uuid) AS SELECT current_setting('cluster_name') FROM patients WHERE id = $1;";
const WRITE: &str = "UPDATE patients SET mrn = mrn, critical = $2 WHERE id = $1";

#[tokio::test]
async fn each_execute_goes_to_its_patients_shard() {
    let (pgward, mut client) = (shared().await, session().await);
    assert_eq!(asked(&mut client, READ).await, "C(PREPARE) I");
    for region in ["eu-west", "us-west", "ap-south", "us-east", "eu-west"] {
        let id = id(pgward, region, 70);
        for sql in [format!("EXECUTE q('{id}')"), format!("EXECUTE q (uuid '{id}') ;")] {
            let frames = client.query(&sql).await;
            assert_eq!(tags(&frames), "TDC(SELECT 1) I");
            assert!(value(&frames).starts_with(&format!("{region}-patients/replica-")), "{}", value(&frames));
        }
    }
    // Nothing keeps a server.
    let patients = id(pgward, "us-west", 70);
    let sql = format!("SELECT current_setting('cluster_name') FROM patients WHERE id = '{patients}'");
    assert!(value(&client.query(&sql).await).starts_with("us-west-patients/"));
}

#[tokio::test]
async fn writes_answer_no_columns_and_go_to_the_primary() {
    let (pgward, mut client) = (shared().await, session().await);
    assert_eq!(asked(&mut client, &format!("PREPARE w AS {WRITE}")).await, "C(PREPARE) I");
    let returning = format!("PREPARE r (uuid, bool) AS {WRITE} RETURNING current_setting('cluster_name')");
    assert_eq!(asked(&mut client, &returning).await, "C(PREPARE) I");
    for region in ["eu-west", "us-east"] {
        let id = id(pgward, region, 71);
        assert_eq!(asked(&mut client, &format!("EXECUTE w('{id}', TRUE)")).await, "C(UPDATE 1) I");
        let frames = client.query(&format!("EXECUTE r('{id}'::uuid, FALSE)")).await;
        assert_eq!(tags(&frames), "TDC(UPDATE 1) I");
        assert_eq!(value(&frames), format!("{region}-patients/primary"));
    }
}

#[tokio::test]
async fn in_a_transaction_all_of_it_is_of_one_shard() {
    let (pgward, mut client) = (shared().await, session().await);
    let (east, west) = (id(pgward, "us-east", 72), id(pgward, "us-west", 72));
    assert_eq!(asked(&mut client, "BEGIN").await, "C(BEGIN) T");
    // Before the transaction has a server, and behind that.
    assert_eq!(asked(&mut client, READ).await, "C(PREPARE) T");
    assert_eq!(asked(&mut client, &format!("EXECUTE q('{west}')")).await, "TDC(SELECT 1) T");
    assert_eq!(asked(&mut client, &format!("PREPARE w (uuid, bool) AS {WRITE}")).await, "C(PREPARE) T");
    assert_eq!(asked(&mut client, &format!("EXECUTE w('{west}', NULL)")).await, "23502 E");
    for sql in [READ, "EXECUTE w('', TRUE)", "DEALLOCATE q"] {
        assert_eq!(asked(&mut client, sql).await, "25P02 E", "{sql}");
    }
    assert_eq!(asked(&mut client, "ROLLBACK").await, "C(ROLLBACK) I");
    // What is prepared stays.
    assert_eq!(asked(&mut client, "BEGIN").await, "C(BEGIN) T");
    assert_eq!(asked(&mut client, &format!("EXECUTE w('{west}', FALSE)")).await, "C(UPDATE 1) T");
    assert_eq!(asked(&mut client, &format!("EXECUTE q('{east}')")).await, "PW006 E");
    assert_eq!(asked(&mut client, "COMMIT").await, "C(ROLLBACK) I");
    assert_eq!(asked(&mut client, &format!("EXECUTE q('{east}')")).await, "TDC(SELECT 1) I");
}

#[tokio::test]
async fn what_fails_is_not_prepared_and_fails_the_transaction() {
    let mut client = session().await;
    for (sql, code) in [
        ("PREPARE q AS SELECT nothing FROM patients WHERE id = $1", "42703"),
        ("PREPARE q AS SELECT 1 FROM patients WHERE id = 'nonsense'", "22P02"),
        ("PREPARE q (mine) AS SELECT 1 FROM patients WHERE id = $1", "0A000"),
        ("PREPARE q (varchar(3)) AS SELECT 1 FROM patients WHERE id = $1", "0A000"),
        ("PREPARE q AS SELECT pg_advisory_lock(1) FROM patients WHERE id = $1", "0A000"),
        ("PREPARE pgward_q AS SELECT 1 FROM patients WHERE id = $1", "0A000"),
        ("PREPARE q AS SELECT 1 FROM patients WHERE id = $1; SELECT 1", "0A000"),
        ("PREPARE q AS SELECT FROM WHERE", "42601"),
    ] {
        assert_eq!(asked(&mut client, sql).await, format!("{code} I"), "{sql}");
        assert_eq!(asked(&mut client, "EXECUTE q(NULL)").await, "26000 I", "{sql}");
        assert_eq!(asked(&mut client, "BEGIN").await, "C(BEGIN) T");
        assert_eq!(asked(&mut client, sql).await, format!("{code} E"), "{sql}");
        assert_eq!(asked(&mut client, READ).await, "25P02 E", "{sql}");
        assert_eq!(asked(&mut client, "ROLLBACK").await, "C(ROLLBACK) I");
    }
    let frames = client.query("PREPARE é AS SELECT nothing FROM patients WHERE id = $1").await;
    assert_eq!(frames.iter().find_map(|frame| frame.field(b'P')).unwrap(), "21", "in characters of the client's text");
    assert_eq!(asked(&mut client, READ).await, "C(PREPARE) I");
    assert_eq!(asked(&mut client, READ).await, "42P05 I");
    assert_eq!(asked(&mut client, "PREPARE q AS SELECT 1").await, "42P05 I");
}

#[tokio::test]
async fn an_execute_brings_a_literal_for_each_parameter() {
    let (pgward, mut client) = (shared().await, session().await);
    let id = id(pgward, "eu-west", 73);
    assert_eq!(asked(&mut client, READ).await, "C(PREPARE) I");
    for (list, code) in [
        ("".to_owned(), "42601"),
        (format!("('{id}', 1)"), "42601"),
        ("(NULL)".to_owned(), "PW007"),
        ("('nonsense')".to_owned(), "PW007"),
        ("('00000000-0000-4000-8000-00000000dead')".to_owned(), "PW004"),
        (format!("('{id}'::text)"), "0A000"),
        (format!("('{id}' || '')"), "0A000"),
        ("(gen_random_uuid())".to_owned(), "0A000"),
        (format!("('{id}'); SELECT 1"), "0A000"),
    ] {
        let frames = client.query(&format!("EXECUTE q{list}")).await;
        assert_eq!(tags(&frames), format!("{code} I"), "{list}");
        assert!(!frames.iter().any(|frame| String::from_utf8_lossy(&frame.body).contains(&id)), "{frames:?}");
    }
    for sql in [
        format!("EXPLAIN EXECUTE q('{id}')"),
        format!("CREATE TABLE pg_temp.t AS EXECUTE q('{id}')"),
        format!("CREATE TABLE app_log_copy AS EXECUTE q('{id}')"),
    ] {
        assert_eq!(asked(&mut client, &sql).await, "0A000 I", "{sql}");
    }
    assert_eq!(asked(&mut client, "EXECUTE nobody('x')").await, "26000 I");
    assert_eq!(asked(&mut client, &format!("EXECUTE q('{id}')")).await, "TDC(SELECT 1) I");
}

#[tokio::test]
async fn names_are_those_of_the_protocol_too() {
    let (pgward, mut client) = (shared().await, session().await);
    let id = id(pgward, "ap-south", 74);
    let mut out = bytes::BytesMut::new();
    frontend::put_parse(&mut out, b"Of Protocol", b"SELECT given_name FROM patients WHERE id = $1", &[]);
    frontend::put_sync(&mut out);
    client.send(&out).await;
    assert_eq!(tags(&client.until_ready().await), "1 I");
    assert_eq!(asked(&mut client, &format!("EXECUTE \"Of Protocol\"('{id}')")).await, "TDC(SELECT 1) I");
    assert_eq!(asked(&mut client, READ).await, "C(PREPARE) I");
    let bind = [&b"\0q\0\0\0\0\x01\0\0\0\x24"[..], id.as_bytes(), b"\0\0"].concat();
    let mut out = bytes::BytesMut::new();
    pgward_wire::frame::put(&mut out, b'B', &bind);
    frontend::put_execute(&mut out, b"");
    frontend::put_sync(&mut out);
    client.send(&out).await;
    assert_eq!(tags(&client.until_ready().await), "2DC(SELECT 1) I");
    // By the extended protocol the SQL forms are refused.
    for (sql, code) in [
        (format!("EXECUTE q('{id}')"), "0A000"),
        ("PREPARE r AS SELECT 1 FROM patients WHERE id = $1".to_owned(), "0A000"),
    ] {
        let mut out = bytes::BytesMut::new();
        frontend::put_parse(&mut out, b"", sql.as_bytes(), &[]);
        frontend::put_sync(&mut out);
        client.send(&out).await;
        assert_eq!(tags(&client.until_ready().await), format!("{code} I"), "{sql}");
    }
    assert_eq!(asked(&mut client, "DEALLOCATE q").await, "C(DEALLOCATE) I");
    for sql in ["DEALLOCATE q", "EXECUTE q(NULL)"] {
        assert_eq!(asked(&mut client, sql).await, "26000 I", "{sql}");
    }
    assert_eq!(asked(&mut client, READ).await, "C(PREPARE) I");
    assert_eq!(asked(&mut client, "DISCARD ALL").await, "C(DISCARD ALL) I");
    assert_eq!(asked(&mut client, "EXECUTE q(NULL)").await, "26000 I");
    assert_eq!(asked(&mut client, READ).await, "C(PREPARE) I");
    assert_eq!(asked(&mut client, "DEALLOCATE ALL").await, "C(DEALLOCATE ALL) I");
    assert_eq!(asked(&mut client, READ).await, "C(PREPARE) I");
}

/// A Query's own end of the segment would end one that the client has not.
#[tokio::test]
async fn a_segment_without_its_sync_is_ended_first() {
    let (pgward, mut client) = (shared().await, session().await);
    let id = id(pgward, "us-east", 75);
    assert_eq!(asked(&mut client, READ).await, "C(PREPARE) I");
    for sql in [format!("EXECUTE q('{id}')"), READ.replace('q', "other")] {
        let mut out = bytes::BytesMut::new();
        frontend::put_parse(&mut out, b"", b"SELECT 1 FROM patients WHERE id = $1", &[]);
        let bind = [&b"\0\0\0\0\0\x01\0\0\0\x24"[..], id.as_bytes(), b"\0\0"].concat();
        pgward_wire::frame::put(&mut out, b'B', &bind);
        frontend::put_execute(&mut out, b"");
        frontend::put_query(&mut out, sql.as_bytes());
        client.send(&out).await;
        assert_eq!(tags(&client.until_ready().await), "12DC(SELECT 1)0A000 I", "{sql}");
    }
    assert_eq!(asked(&mut client, &format!("EXECUTE q('{id}')")).await, "TDC(SELECT 1) I");
}

/// The table changes between two executions; nobody but the proxy hears of it.
#[tokio::test]
async fn a_statement_whose_table_has_changed_is_prepared_anew() {
    let mut client = session().await;
    for sql in ["DROP TABLE IF EXISTS pgbench_branches", "CREATE TABLE pgbench_branches (bid int)"] {
        client.query(sql).await;
    }
    // A replica parses it.
    shared().await.cluster().await_replay().await.unwrap();
    let mut out = bytes::BytesMut::new();
    let write = b"INSERT INTO pgbench_branches VALUES ($1) RETURNING *";
    frontend::put_parse(&mut out, b"branch", write, &[]);
    frontend::put_sync(&mut out);
    client.send(&out).await;
    assert_eq!(tags(&client.until_ready().await), "1 I");
    for columns in 1..4_u8 {
        for _ in 0..4 {
            let frames = client.query("EXECUTE branch(1)").await;
            assert_eq!(tags(&frames), "TDC(INSERT 0 1) I");
            assert_eq!(frames[1].body[1], columns);
        }
        client.query(&format!("ALTER TABLE pgbench_branches ADD COLUMN more_{columns} int")).await;
    }
    let frames = client.query("BEGIN; SELECT count(*) FROM pgbench_branches; COMMIT").await;
    assert_eq!(value(&frames), "12", "each was done once");
    client.query("DROP TABLE pgbench_branches").await;
}

#[tokio::test]
async fn each_execute_is_recorded_and_its_values_are_not() {
    let pgward = shared().await;
    let mut client = session().await;
    let (own, unknown) = (id(pgward, "eu-west", 76), "00000000-0000-4000-8000-00000000dead");
    let before = pgward.records().all.len();
    assert_eq!(asked(&mut client, READ).await, "C(PREPARE) I");
    assert_eq!(asked(&mut client, &format!("EXECUTE q('{own}')")).await, "TDC(SELECT 1) I");
    assert_eq!(asked(&mut client, &format!("EXECUTE q('{unknown}')")).await, "PW004 I");
    assert_eq!(asked(&mut client, "EXECUTE q(lower('x')::uuid)").await, "0A000 I");
    assert_eq!(asked(&mut client, "EXECUTE q").await, "42601 I");
    let records = pgward.records();
    let records_of: Vec<_> = records.decisions_from(before, "general", &client.address());
    let told: Vec<_> =
        records_of.iter().map(|record| (record["outcome"].as_str().unwrap(), &record["sqlstate"])).collect();
    assert_eq!(
        told,
        [("forwarded", &serde_json::Value::Null), ("refused", &"PW004".into()), ("refused", &"0A000".into())]
    );
    assert_eq!(records_of[0]["shard"], "eu-west-patients");
    assert_eq!(records_of[0]["patients"].as_array().unwrap().len(), 1);
    assert!(!records.text.contains(&own));
}

/// What has no patient table is the server's still, and keeps it.
#[tokio::test]
async fn statements_without_patients_keep_their_server() {
    let pgward = shared().await;
    let client = pgward.app().await;
    client.simple_query("PREPARE l AS SELECT pg_backend_pid()").await.unwrap();
    let pid = answers(&client, "EXECUTE l").await;
    assert_eq!(answers(&client, "SELECT pg_backend_pid()").await, pid);
    client.simple_query(READ).await.unwrap();
    let (own, foreign) = (id(pgward, "us-east", 77), id(pgward, "eu-west", 77));
    assert!(answers(&client, &format!("EXECUTE q('{own}')")).await.starts_with("us-east-patients/"));
    assert_eq!(sqlstate(client.simple_query(&format!("EXECUTE q('{foreign}')")).await), "PW006");
    client.simple_query("DEALLOCATE q").await.unwrap();
    assert_eq!(answers(&client, "EXECUTE l").await, pid);
}

#[tokio::test]
async fn queries_in_one_write_are_answered_in_order() {
    let (pgward, mut client) = (shared().await, session().await);
    let mut out = bytes::BytesMut::new();
    frontend::put_query(&mut out, READ.as_bytes());
    for region in ["us-west", "eu-west"] {
        frontend::put_query(&mut out, format!("EXECUTE q('{}')", id(pgward, region, 78)).as_bytes());
    }
    frontend::put_query(&mut out, READ.as_bytes());
    frontend::put_query(&mut out, b"EXECUTE q(NULL)");
    client.send(&out).await;
    assert_eq!(tags(&client.until_ready().await), "C(PREPARE) I");
    for shard in ["us-west-patients/", "eu-west-patients/"] {
        let frames = client.until_ready().await;
        assert_eq!(tags(&frames), "TDC(SELECT 1) I");
        assert!(value(&frames).starts_with(shard), "{}", value(&frames));
    }
    assert_eq!(tags(&client.until_ready().await), "42P05 I");
    assert_eq!(tags(&client.until_ready().await), "PW007 I");
}

#[tokio::test]
async fn prepared_statements_of_both_sorts_are_limited_together() {
    let mut client = session().await;
    let mut out = bytes::BytesMut::new();
    for n in 0..10_000 {
        // Their Parse is answered without a server.
        frontend::put_parse(&mut out, format!("s{n}").as_bytes(), b"COMMIT", &[]);
    }
    frontend::put_sync(&mut out);
    client.send(&out).await;
    client.until_ready().await;
    assert_eq!(asked(&mut client, READ).await, "54000 I");
    assert_eq!(asked(&mut client, "EXECUTE s17").await, "0A000 I", "no query");
    assert_eq!(asked(&mut client, "DEALLOCATE s17").await, "C(DEALLOCATE) I");
    assert_eq!(asked(&mut client, READ).await, "C(PREPARE) I");
}

/// As by the protocol: it may be described, and is refused when it is to run.
#[tokio::test]
async fn a_statement_without_a_patient_is_prepared_and_not_run() {
    let mut client = session().await;
    assert_eq!(asked(&mut client, "PREPARE all_of_them AS SELECT family_name FROM patients").await, "C(PREPARE) I");
    assert_eq!(asked(&mut client, "EXECUTE all_of_them").await, "PW001 I");
}
