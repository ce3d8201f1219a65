//! A COPY with rows of several shards: on all of them or on none.

use std::fmt::Write;
use std::pin::pin;

use bytes::{Bytes, BytesMut};
use futures_util::SinkExt;
use pgward_tests::{Deployment, WireClient, answers, sqlstate};
use pgward_wire::frontend;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::copying::copy;
use crate::{shared, tags};

const REGIONS: [&str; 4] = ["us-east", "us-west", "eu-west", "ap-south"];

/// A patient of each region.
fn patients(pgward: &Deployment, n: usize) -> [Uuid; 4] {
    REGIONS.map(|region| pgward.patient(region, n).id)
}

/// Rows with this substance on each shard.
async fn counts(pgward: &Deployment, substance: &str) -> [usize; 4] {
    let mut counts = [0; 4];
    for (count, region) in counts.iter_mut().zip(REGIONS) {
        let server = pgward.on_server(&format!("{region}-patients/primary")).await;
        let sql = format!("SELECT count(*) FROM allergies WHERE substance LIKE '{substance}'");
        *count = answers(&server, &sql).await.parse().unwrap();
    }
    counts
}

async fn delete(pgward: &Deployment, substance: &str) {
    for region in REGIONS {
        let server = pgward.on_server(&format!("{region}-patients/primary")).await;
        let sql = format!("DELETE FROM allergies WHERE substance LIKE '{substance}'");
        server.simple_query(&sql).await.unwrap();
    }
}

/// Nothing is left prepared anywhere.
async fn nothing_prepared(pgward: &Deployment) {
    for region in REGIONS {
        let server = pgward.on_server(&format!("{region}-patients/primary")).await;
        let sql = "SELECT count(*) FROM pg_prepared_xacts WHERE gid LIKE 'pgward:%'";
        // Others split, too.
        for _ in 0..100 {
            if answers(&server, sql).await == "0" {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!(answers(&server, sql).await, "0", "{region}");
    }
}

const TEXT: &str = "COPY allergies (patient_id, substance, reaction, severity) FROM STDIN";
const CSV: &str = "COPY allergies (patient_id, substance, reaction, severity) FROM STDIN (FORMAT csv, HEADER)";

/// SQLSTATE, MESSAGE and CONTEXT.
fn said<T: std::fmt::Debug>(result: Result<T, tokio_postgres::Error>) -> (String, String, String) {
    let error = result.expect_err("an error was expected");
    let error = error.as_db_error().unwrap_or_else(|| panic!("an error of a server, not {error}"));
    (error.code().code().to_owned(), error.message().to_owned(), error.where_().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn text_csv_and_binary_rows_go_each_to_its_shard() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let ids = patients(pgward, 40);
    let mut text = String::new();
    let mut csv = "patient,\"substance\nof it\",reaction,severity\n".to_owned();
    for n in 0..400 {
        let id = ids[n % 4];
        writeln!(text, "{id}\tSplit text {n}\\\nline\tRash\tmild").unwrap();
        writeln!(csv, "{id},\"Split csv, \"\"{n}\"\"\nline\",Rash,mild").unwrap();
    }
    assert_eq!(copy(&client, TEXT, &text).await.unwrap(), 400);
    // The last row without its newline.
    assert_eq!(copy(&client, CSV, csv.trim_end()).await.unwrap(), 400);
    let binary = "COPY allergies (patient_id, substance, reaction, severity) FROM STDIN (FORMAT binary)";
    let types = [Type::UUID, Type::TEXT, Type::TEXT, Type::TEXT];
    let mut writer = pin!(BinaryCopyInWriter::new(client.copy_in(binary).await.unwrap(), &types));
    for n in 0..400 {
        writer.as_mut().write(&[&ids[n % 4], &format!("Split binary {n}"), &"Rash", &"mild"]).await.unwrap();
    }
    assert_eq!(writer.finish().await.unwrap(), 400);
    for substance in ["Split text %\nline", "Split csv, \"%\"\nline", "Split binary %"] {
        assert_eq!(counts(pgward, substance).await, [100; 4], "{substance}");
    }
    for (n, region) in REGIONS.iter().enumerate() {
        let server = pgward.on_server(&format!("{region}-patients/primary")).await;
        let sql = "SELECT DISTINCT patient_id::text FROM allergies WHERE substance LIKE 'Split %'";
        assert_eq!(answers(&server, sql).await, ids[n].to_string());
    }
    nothing_prepared(pgward).await;
    delete(pgward, "Split %").await;
}

#[tokio::test]
async fn a_hundred_thousand_rows_are_all_there() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let ids: Vec<[Uuid; 4]> = (41..45).map(|n| patients(pgward, n)).collect();
    let mut sink = pin!(client.copy_in(TEXT).await.unwrap());
    for chunk in 0..120 {
        let mut rows = String::new();
        for n in 0..1000 {
            let id = ids[(chunk + n) % 4][n * 7 % 4];
            writeln!(rows, "{id}\tMany\tRash\tmild").unwrap();
        }
        sink.send(Bytes::from(rows)).await.unwrap();
    }
    assert_eq!(sink.finish().await.unwrap(), 120_000);
    assert_eq!(counts(pgward, "Many").await, [30_000; 4]);
    delete(pgward, "Many").await;
}

#[tokio::test]
async fn a_row_that_no_server_takes_is_named_by_the_line_of_the_file() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let ids = patients(pgward, 45);
    let nobody = Uuid::from_u128(0xdead);
    for (last, code, message, context) in [
        // The server of the second shard says so, of the 201st row that it gets.
        (format!("{},Bad,Rash,lethal", ids[1]), "23514", "violates check constraint", "COPY allergies, line 803:"),
        (format!("{},Bad,Rash", ids[1]), "22P04", "missing data for column \"severity\"", "COPY allergies, line 803:"),
        (format!("{nobody},Bad,Rash,mild"), "PW004", "line 803 of the COPY: the directory does not know", ""),
        (",Bad,Rash,mild".to_owned(), "PW012", "line 803 of the COPY has no patient key: it is NULL", ""),
    ] {
        let mut rows = "patient,\"a\nb\",reaction,severity\n".to_owned();
        for n in 0..800 {
            writeln!(rows, "{},Bad,Rash,mild", ids[n % 4]).unwrap();
        }
        writeln!(rows, "{last}").unwrap();
        for n in 0..800 {
            writeln!(rows, "{},Bad,Rash,mild", ids[n % 4]).unwrap();
        }
        let (was, said, place) = said(copy(&client, CSV, &rows).await);
        assert_eq!(was, code, "{said}");
        assert!(said.contains(message), "{said}");
        assert!(place.starts_with(context), "{place}, not {context}");
        assert_eq!(counts(pgward, "Bad").await, [0; 4], "{message}");
        assert_eq!(answers(&client, "SELECT 1").await, "1");
    }
    // In text a server counts rows, whatever newlines are in them; in binary there are no lines.
    let mut text = String::new();
    for n in 0..40 {
        writeln!(text, "{}\tBad\\\n\tRash\tmild", ids[n % 4]).unwrap();
    }
    let (code, _, place) = said(copy(&client, TEXT, &format!("{text}{}\tBad\tRash\tlethal\n", ids[2])).await);
    assert_eq!(code, "23514");
    assert!(place.starts_with("COPY allergies, line 81:"), "{place}");
    let binary = "COPY allergies (patient_id, substance, reaction, severity) FROM STDIN (FORMAT binary)";
    let types = [Type::UUID, Type::TEXT, Type::TEXT, Type::TEXT];
    let mut writer = pin!(BinaryCopyInWriter::new(client.copy_in(binary).await.unwrap(), &types));
    for n in 0..41 {
        let severity = if n == 37 { "lethal" } else { "mild" };
        writer.as_mut().write(&[&ids[n % 4], &"Bad", &"Rash", &severity]).await.unwrap();
    }
    let (code, _, place) = said(writer.finish().await);
    assert_eq!((&*code, &*place), ("23514", "COPY allergies, line 38"));
    assert_eq!(counts(pgward, "Bad%").await, [0; 4]);
    nothing_prepared(pgward).await;
}

#[tokio::test]
async fn what_fails_at_the_very_end_of_one_shard_leaves_nothing_on_the_others() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let ids = patients(pgward, 46);
    let west = pgward.on_server("us-west-patients/primary").await;
    west.batch_execute(
        "CREATE FUNCTION refuse_late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF new.substance = 'Late' THEN RAISE unique_violation USING MESSAGE = 'late'; END IF;
             RETURN NULL;
         END $$;
         CREATE CONSTRAINT TRIGGER refuse_late AFTER INSERT ON allergies DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION refuse_late()",
    )
    .await
    .unwrap();
    let rows: String = ids.iter().map(|id| format!("{id}\tLate\tRash\tmild\n")).collect();
    let (code, message, _) = said(copy(&client, TEXT, &rows).await);
    assert_eq!((&*code, &*message), ("23505", "late"));
    // One shard alone: at its COMMIT.
    let (code, ..) = said(copy(&client, TEXT, &format!("{}\tLate\tRash\tmild\n", ids[1])).await);
    assert_eq!(code, "23505");
    assert_eq!(counts(pgward, "Late").await, [0; 4]);
    nothing_prepared(pgward).await;
    west.batch_execute("DROP TRIGGER refuse_late ON allergies; DROP FUNCTION refuse_late()").await.unwrap();
}

#[tokio::test]
async fn only_who_may_write_to_all_shards_may_split() {
    let pgward = shared().await;
    let strict = pgward.connect("strict-ap", "app").await;
    let (east, south) = (pgward.patient("us-east", 47).id, pgward.patient("ap-south", 47).id);
    let rows = format!("{south}\tStrict\tRash\tmild\n{east}\tStrict\tRash\tmild\n");
    let (code, message, _) = said(copy(&strict, TEXT, &rows).await);
    assert_eq!(code, "PW005");
    assert!(message.starts_with("line 2 of the COPY: a patient of region us-east may not be reached"), "{message}");
    assert_eq!(counts(pgward, "Strict").await, [0; 4]);
    assert_eq!(copy(&strict, TEXT, &format!("{south}\tStrict\tRash\tmild\n")).await.unwrap(), 1);
    delete(pgward, "Strict").await;
}

#[tokio::test]
async fn each_shard_has_its_record_with_its_patients() {
    let pgward = shared().await;
    let mut client = WireClient::login(pgward.port("general"), "app", "demo-app").await;
    let ids = patients(pgward, 48);
    let rows: String = [0, 1, 0, 2].iter().map(|n| format!("{}\tRecorded\tRash\tmild\n", ids[*n])).collect();
    let since = pgward.records().all.len();
    let mut bytes = BytesMut::new();
    frontend::put_query(&mut bytes, TEXT.as_bytes());
    pgward_wire::frame::put(&mut bytes, b'd', rows.as_bytes());
    bytes.extend(b"c\0\0\0\x04");
    client.send(&bytes).await;
    let frames = client.until_ready().await;
    assert_eq!(tags(&frames), "GCZ");
    assert_eq!(frames[1].body, b"COPY 4\0");
    let records = pgward.records();
    let decisions = records.decisions_from(since, "general", &client.address());
    assert_eq!(decisions.len(), 3, "{decisions:#?}");
    for (decision, (node, lines)) in decisions.iter().zip([
        ("us-east-patients/primary", &["copy line 1"][..]),
        ("us-west-patients/primary", &["copy line 2"]),
        ("eu-west-patients/primary", &["copy line 4"]),
    ]) {
        let text = decision.to_string();
        assert!(text.contains(node), "{text}");
        assert!(lines.iter().all(|line| text.contains(line)), "{text}");
        assert!(!text.contains(&ids[0].to_string()), "{text}");
    }
    delete(pgward, "Recorded").await;
}

#[tokio::test]
async fn new_patients_are_registered_only_if_all_of_the_copy_is_stored() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let columns = "COPY patients (id, region, mrn, family_name, given_name, birth_date, sex) FROM STDIN (FORMAT csv)";
    let id = |n: u128| Uuid::from_u128(0x2000_4000_8000_0000_0000_1000 + n);
    let row = |n: u128, region: &str, sex: &str| format!("{},{region},SPLIT {n},New,Patient,2000-01-01,{sex}\n", id(n));
    let find = |n: u128| format!("SELECT mrn || current_setting('cluster_name') FROM patients WHERE id = '{}'", id(n));

    let failing = [row(1, "us-east", "unknown"), row(2, "ap-south", "unknown"), row(3, "us-west", "unheard-of")];
    assert_eq!(sqlstate(copy(&client, columns, &failing.concat()).await), "23514");
    assert_eq!(sqlstate(client.simple_query(&find(1)).await), "PW004");
    // Nor where all are of one shard, and its server refuses a row at once, or all in the end.
    let alone = [row(4, "us-east", "unknown"), row(5, "us-east", "unheard-of")].concat();
    assert_eq!(sqlstate(copy(&client, columns, &alone).await), "23514");
    let server = pgward.on_server("us-east-patients/primary").await;
    let check = "CREATE FUNCTION none_called_late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.given_name = 'Late' THEN RAISE EXCEPTION 'late' USING ERRCODE = '23514'; END IF;
            RETURN NULL;
        END $$;
        CREATE CONSTRAINT TRIGGER none_called_late AFTER INSERT ON patients DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION none_called_late()";
    server.batch_execute(check).await.unwrap();
    let late = sqlstate(copy(&client, columns, &row(6, "us-east", "unknown").replace("Patient", "Late")).await);
    server.batch_execute("DROP FUNCTION none_called_late CASCADE").await.unwrap();
    assert_eq!(late, "23514");
    for n in 4..7 {
        assert_eq!(sqlstate(client.simple_query(&find(n)).await), "PW004", "{n}");
        assert_eq!(copy(&client, columns, &row(n, "us-west", "unknown")).await.unwrap(), 1, "{n}");
        client.simple_query(&format!("DELETE FROM patients WHERE id = '{}'", id(n))).await.unwrap();
    }
    // So the region may be another when it is sent again.
    let good = [row(1, "us-west", "unknown"), row(2, "ap-south", "unknown"), row(3, "us-west", "unknown")];
    assert_eq!(copy(&client, columns, &good.concat()).await.unwrap(), 3);
    pgward.cluster().await_replay().await.unwrap();
    for (n, region) in [(1, "us-west"), (2, "ap-south"), (3, "us-west")] {
        let said = answers(&client, &find(n)).await;
        assert!(said.starts_with(&format!("SPLIT {n}{region}-patients/")), "{said}");
        client.simple_query(&format!("DELETE FROM patients WHERE id = '{}'", id(n))).await.unwrap();
    }
}

#[tokio::test]
async fn the_extended_protocol_copies_to_several_shards_and_goes_on() {
    let pgward = shared().await;
    let mut client = WireClient::login(pgward.port("general"), "app", "demo-app").await;
    let ids = patients(pgward, 49);
    let begin = |bytes: &mut BytesMut| {
        frontend::put_parse(bytes, b"", TEXT.as_bytes(), &[]);
        bytes.extend(b"B\0\0\0\x0c\0\0\0\0\0\0\0\0E\0\0\0\x09\0\0\0\0\0");
    };
    let rows =
        |severity: &str| -> String { ids.iter().map(|id| format!("{id}\tExtended\tRash\t{severity}\n")).collect() };
    let next = |bytes: &mut BytesMut| {
        frontend::put_parse(bytes, b"", b"SELECT 7", &[]);
        bytes.extend(b"B\0\0\0\x0c\0\0\0\0\0\0\0\0E\0\0\0\x09\0\0\0\0\0");
        frontend::put_sync(bytes);
    };
    for (severity, end, answer) in [
        ("mild", &b"c\0\0\0\x04"[..], "12GCZ12DCZ"),
        ("no", b"c\0\0\0\x04", "12GEZ12DCZ"),
        ("mild", b"f\0\0\0\x05\0", "12GEZ12DCZ"),
    ] {
        let mut bytes = BytesMut::new();
        begin(&mut bytes);
        pgward_wire::frame::put(&mut bytes, b'd', rows(severity).as_bytes());
        bytes.extend(end);
        frontend::put_sync(&mut bytes);
        // In the same write: it waits for the answer before it.
        next(&mut bytes);
        client.send(&bytes).await;
        let frames = [client.until_ready().await, client.until_ready().await].concat();
        assert_eq!(tags(&frames), answer, "{severity}");
    }
    assert_eq!(counts(pgward, "Extended").await, [1; 4]);
    delete(pgward, "Extended").await;
}

/// PostgreSQL undoes a COPY with what fails behind it before the Sync. Here it may be committed by then.
#[tokio::test]
async fn nothing_may_follow_a_copy_before_its_sync() {
    let pgward = shared().await;
    let mut client = WireClient::login(pgward.port("general"), "app", "demo-app").await;
    let ids = patients(pgward, 51);
    let run = |bytes: &mut BytesMut, sql: &str| {
        frontend::put_parse(bytes, b"", sql.as_bytes(), &[]);
        bytes.extend(b"B\0\0\0\x0c\0\0\0\0\0\0\0\0E\0\0\0\x09\0\0\0\0\0");
    };
    let failing = format!("INSERT INTO allergies (patient_id, substance) VALUES ('{}', NULL)", ids[0]);
    let (close, flush) = (&b"C\0\0\0\x06P\0"[..], &b"H\0\0\0\x04"[..]);
    // By itself, of one shard or of several, and on a server that the pipeline has already.
    for (before, of, between, behind, answer, stored) in [
        (None, &ids[..], &b""[..], Some(&failing[..]), "12GEZ", 0),
        (None, &ids[..1], b"", Some(&failing), "12GEZ", 0),
        (None, &ids, close, Some("SELECT 1"), "12GEZ", 0),
        (None, &ids, close, None, "12GC3Z", 1),
        (None, &ids, flush, Some(&failing), "12GCEZ", 1),
        (Some("SELECT 1"), &ids[..1], b"", Some(&failing), "12DC12GEZ", 0),
        (Some("SELECT 1"), &ids[..1], b"", None, "12DC12GCZ", 1),
        (Some("SELECT 1"), &ids[..1], flush, Some(&failing), "12DC12GCEZ", 0),
    ] {
        let mut bytes = BytesMut::new();
        before.iter().for_each(|sql| run(&mut bytes, sql));
        run(&mut bytes, TEXT);
        let rows: String = of.iter().map(|id| format!("{id}\tFollowed\tRash\tmild\n")).collect();
        pgward_wire::frame::put(&mut bytes, b'd', rows.as_bytes());
        bytes.extend(b"c\0\0\0\x04");
        bytes.extend(between);
        behind.iter().for_each(|sql| run(&mut bytes, sql));
        frontend::put_sync(&mut bytes);
        // At once, and the end of the rows before what follows is there.
        for cut in
            [bytes.len(), bytes.len() - 5, bytes.windows(5).rposition(|five| five == b"c\0\0\0\x04").unwrap() + 5]
        {
            client.send(&bytes[..cut]).await;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            client.send(&bytes[cut..]).await;
            let frames = client.until_ready().await;
            assert_eq!(tags(&frames), answer, "{before:?} {of:?} {behind:?}");
            if let Some(error) = frames.iter().find(|frame| frame.tag == b'E') {
                assert_eq!(error.field(b'C').as_deref(), Some("0A000"));
                let told = ["Nothing of the COPY stays.", "The COPY before it is not undone by this."][stored];
                assert_eq!(error.field(b'D').as_deref(), Some(told));
            }
            let counted: usize = counts(pgward, "Followed").await.iter().sum();
            assert_eq!(counted, stored * of.len(), "{before:?} {of:?} {behind:?}");
            assert_eq!(tags(&client.query("SELECT 1").await), "TDCZ");
            delete(pgward, "Followed").await;
        }
    }
    // A client that goes without its Sync has not ended its transaction.
    let mut bytes = BytesMut::new();
    run(&mut bytes, TEXT);
    pgward_wire::frame::put(&mut bytes, b'd', format!("{}\tFollowed\tRash\tmild\n", ids[0]).as_bytes());
    bytes.extend(b"c\0\0\0\x04X\0\0\0\x04");
    client.send(&bytes).await;
    while client.frame().await.is_some() {}
    assert_eq!(counts(pgward, "Followed").await, [0; 4]);
}

/// What is sent behind an error belongs to the COPY that has failed.
#[tokio::test]
async fn rows_behind_an_error_are_passed_over() {
    let pgward = shared().await;
    let mut client = WireClient::login(pgward.port("general"), "app", "demo-app").await;
    let ids = patients(pgward, 50);
    let mut bytes = BytesMut::new();
    frontend::put_query(&mut bytes, TEXT.as_bytes());
    for severity in ["mild", "no", "mild"] {
        let rows: String = ids.iter().map(|id| format!("{id}\tBehind\tRash\t{severity}\n")).collect();
        pgward_wire::frame::put(&mut bytes, b'd', rows.repeat(3000).as_bytes());
    }
    bytes.extend(b"c\0\0\0\x04");
    client.send(&bytes).await;
    let frames = client.until_ready().await;
    assert_eq!(tags(&frames), "GEZ");
    assert_eq!(frames[1].field(b'C').as_deref(), Some("23514"));
    assert_eq!(tags(&client.query("SELECT 1").await), "TDCZ");
    assert_eq!(counts(pgward, "Behind").await, [0; 4]);
}

#[tokio::test]
async fn a_cancelled_copy_leaves_nothing() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let ids = patients(pgward, 51);
    let west = pgward.on_server("us-west-patients/primary").await;
    // The second shard's COPY waits.
    west.batch_execute("BEGIN; LOCK allergies IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let rows: String = ids.iter().map(|id| format!("{id}\tCancelled\tRash\tmild\n")).collect();
    let token = client.cancel_token();
    let cancel = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        token.cancel_query(tokio_postgres::NoTls).await.unwrap();
    };
    let (result, ()) = tokio::join!(copy(&client, TEXT, &rows), cancel);
    assert_eq!(sqlstate(result), "57014");
    west.batch_execute("COMMIT").await.unwrap();
    assert_eq!(counts(pgward, "Cancelled").await, [0; 4]);
    assert_eq!(answers(&client, "SELECT 1").await, "1");
    nothing_prepared(pgward).await;
}

#[tokio::test]
async fn a_client_that_vanishes_among_its_rows_leaves_nothing() {
    let pgward = shared().await;
    let ids = patients(pgward, 52);
    let mut client = WireClient::login(pgward.port("general"), "app", "demo-app").await;
    let rows: String = ids.iter().map(|id| format!("{id}\tVanished\tRash\tmild\n")).collect();
    let mut bytes = BytesMut::new();
    frontend::put_query(&mut bytes, TEXT.as_bytes());
    pgward_wire::frame::put(&mut bytes, b'd', rows.repeat(500).as_bytes());
    client.send(&bytes).await;
    assert_eq!(client.frame().await.unwrap().tag, b'G');
    drop(client);
    // It had sent its rows whole: as on a server, they stay.
    let mut client = WireClient::login(pgward.port("general"), "app", "demo-app").await;
    let rows: String = ids.iter().map(|id| format!("{id}\tStayed\tRash\tmild\n")).collect();
    let mut bytes = BytesMut::new();
    frontend::put_query(&mut bytes, TEXT.as_bytes());
    pgward_wire::frame::put(&mut bytes, b'd', rows.as_bytes());
    bytes.extend(b"c\0\0\0\x04");
    client.send(&bytes).await;
    drop(client);
    for _ in 0..100 {
        if counts(pgward, "Stayed").await == [1; 4] {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(counts(pgward, "Stayed").await, [1; 4]);
    assert_eq!(counts(pgward, "Vanished").await, [0; 4]);
    nothing_prepared(pgward).await;
    delete(pgward, "Stayed").await;
}

/// What a session has set holds on each shard: a date of its own style.
#[tokio::test]
async fn the_sessions_settings_hold_on_each_shard() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let columns = "COPY patients (id, region, mrn, family_name, given_name, birth_date, sex) FROM STDIN (FORMAT csv)";
    let id = |n: u128| Uuid::from_u128(0x2000_4000_8000_0000_0000_2000 + n);
    let rows: String = (0u128..4)
        .map(|n| format!("{},{},SET {n},New,Patient,31.12.2000,unknown\n", id(n), REGIONS[n as usize]))
        .collect();
    assert_eq!(sqlstate(copy(&client, columns, &rows).await), "22008");
    client.batch_execute("SET DateStyle = 'German'").await.unwrap();
    assert_eq!(copy(&client, columns, &rows).await.unwrap(), 4);
    for n in 0..4 {
        let delete = format!("DELETE FROM patients WHERE id = '{}' RETURNING birth_date::text", id(n));
        assert_eq!(answers(&client, &delete).await, "31.12.2000");
    }
}
