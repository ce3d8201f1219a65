//! COPY: every row is looked at, and nothing is half done.

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, TryStreamExt};
use pgward_tests::{Deployment, WireClient, answers, sqlstate};
use pgward_wire::frontend;
use std::pin::pin;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};
use uuid::Uuid;

use crate::shared;

pub(crate) async fn copy(client: &Client, statement: &str, rows: &str) -> Result<u64, Error> {
    let mut sink = pin!(client.copy_in(statement).await?);
    // Cut where no row ends.
    for piece in rows.as_bytes().chunks(37) {
        sink.send(Bytes::copy_from_slice(piece)).await?;
    }
    sink.finish().await
}

#[tokio::test]
async fn rows_of_one_shard_are_copied_in_and_out() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let ids: Vec<Uuid> = (30..33).map(|n| pgward.patient("us-west", n).id).collect();
    let rows: String = ids.iter().map(|id| format!("{id}\tCopied\tRash\tmild\n")).collect();
    let statement = "COPY allergies (patient_id, substance, reaction, severity) FROM STDIN";
    assert_eq!(copy(&client, statement, &rows).await.unwrap(), 3);

    let id = ids[0];
    let out =
        format!("COPY (SELECT substance FROM allergies WHERE patient_id = '{id}' AND substance = 'Copied') TO STDOUT");
    let primary = pgward.on_server("us-west-patients/primary").await;
    assert_eq!(answers(&primary, "SELECT count(*) FROM allergies WHERE substance = 'Copied'").await, "3");
    pgward.cluster().await_replay().await.unwrap();
    let copied: Vec<Bytes> = client.copy_out(&out).await.unwrap().try_collect().await.unwrap();
    assert_eq!(copied.concat(), b"Copied\n");
    primary.simple_query("DELETE FROM allergies WHERE substance = 'Copied'").await.unwrap();
}

#[tokio::test]
async fn rows_of_two_shards_are_refused_as_a_whole_in_a_transaction_block() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let (east, west) = (pgward.patient("us-east", 30).id, pgward.patient("eu-west", 30).id);
    let rows = format!("{east}\tTwice\tRash\tmild\n{west}\tTwice\tRash\tmild\n");
    let statement = "COPY allergies (patient_id, substance, reaction, severity) FROM STDIN";
    client.batch_execute("BEGIN").await.unwrap();
    // By then the first row has fixed the shard, or not yet.
    let code = sqlstate(copy(&client, statement, &rows).await);
    assert!(["PW002", "PW006"].contains(&code.as_str()), "{code}");
    assert_eq!(sqlstate(client.simple_query("SELECT 1").await), "25P02");
    client.batch_execute("ROLLBACK").await.unwrap();
    for node in ["us-east-patients/primary", "eu-west-patients/primary"] {
        let server = pgward.on_server(node).await;
        assert_eq!(answers(&server, "SELECT count(*) FROM allergies WHERE substance = 'Twice'").await, "0", "{node}");
    }
    assert_eq!(answers(&client, "SELECT 1").await, "1");
}

#[tokio::test]
async fn rows_of_nobody_are_refused() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let statement = "COPY allergies (patient_id, substance, reaction, severity) FROM STDIN";
    for (rows, expected) in [
        ("00000000-0000-4000-8000-00000000dead\tX\tRash\tmild\n", "PW004"),
        ("nonsense\tX\tRash\tmild\n", "PW012"),
        ("\\N\tX\tRash\tmild\n", "PW012"),
        ("\n", "PW012"),
    ] {
        assert_eq!(sqlstate(copy(&client, statement, rows).await), expected, "{rows}");
        assert_eq!(answers(&client, "SELECT 1").await, "1");
    }
}

/// MESSAGE and HINT.
fn said<T: std::fmt::Debug>(result: Result<T, Error>) -> (String, String) {
    let error = result.expect_err("an error was expected");
    let error = error.as_db_error().expect("an error of a server");
    (error.message().to_owned(), error.hint().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn an_error_names_the_line_at_which_its_row_begins() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let (east, west) = (pgward.patient("us-east", 32).id, pgward.patient("eu-west", 32).id);
    let nobody = Uuid::from_u128(0xdead);
    let copy_csv = "COPY allergies (patient_id, substance, reaction, severity) FROM STDIN (FORMAT csv, HEADER)";
    let row = |id: &str| format!("{id},\"Two\nlines\",Rash,mild\n");
    let rows = |most: usize, last: &str| {
        format!("patient,substance,reaction,severity\n{}{}", row(&east.to_string()).repeat(most), row(last))
    };
    let shards = "its patient is on another shard than the rows before it";
    for (last, what, hint) in [
        ("", " has no patient key: it is NULL".to_owned(), "nothing of it stays."),
        (&*nobody.to_string(), ": the directory does not know this patient".to_owned(), "Nothing of this COPY stays."),
        (&*west.to_string(), format!(": {shards}"), "Nothing of this COPY stays."),
    ] {
        // At once, and when rows have gone to a server.
        for most in [1, 400] {
            let line = 2 + 2 * most;
            // Only in a transaction block are rows of several shards refused.
            client.batch_execute("BEGIN").await.unwrap();
            let (message, hinted) = said(copy(&client, copy_csv, &rows(most, last)).await);
            client.batch_execute("ROLLBACK").await.unwrap();
            assert_eq!(message, format!("line {line} of the COPY{what}"));
            assert!(hinted.ends_with(hint), "{hinted}");
        }
    }
    let server = pgward.on_server("us-east-patients/primary").await;
    assert_eq!(answers(&server, "SELECT count(*) FROM allergies WHERE substance LIKE 'Two%'").await, "0");
}

/// What psql says when it is asked this, on both its channels.
async fn psql(pgward: &Deployment, command: String) -> String {
    psql_says(pgward, &[command]).await
}

async fn psql_says(pgward: &Deployment, commands: &[String]) -> String {
    let mut psql = std::process::Command::new("psql");
    psql.args(["-X", "-w"]).args(commands.iter().flat_map(|command| ["-c", command])).arg(pgward.url("general", "app"));
    let output = tokio::task::spawn_blocking(move || psql.output()).await.unwrap().unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[tokio::test]
async fn psql_copies_and_reads_what_is_wrong_where() {
    let pgward = shared().await;
    let (east, west) = (pgward.patient("us-east", 34).id, pgward.patient("eu-west", 34).id);
    let dir = tempfile::tempdir().unwrap();
    let (csv, binary) = (dir.path().join("rows.csv"), dir.path().join("rows.binary"));
    let (csv_name, binary_name) = (csv.display(), binary.display());
    let columns = "allergies (substance, patient_id, reaction, severity)";
    let copy_csv = format!("\\copy {columns} FROM '{csv_name}' (FORMAT csv, HEADER)");
    let header = "substance,patient_id,reaction,severity";
    std::fs::write(&csv, format!("{header}\n\"From\npsql\",{east},Rash,mild\nFrom psql,{east},Rash,mild\n")).unwrap();
    assert_eq!(psql(pgward, copy_csv.clone()).await, "COPY 2\n");

    // What PostgreSQL writes in the binary format is read in it.
    pgward.cluster().await_replay().await.unwrap();
    let query = format!("SELECT substance, patient_id, reaction, severity FROM allergies WHERE patient_id = '{east}'");
    let out = psql(pgward, format!("\\copy ({query} AND substance LIKE 'From%') TO '{binary_name}' (FORMAT binary)"));
    assert_eq!(out.await, "COPY 2\n");
    let copy_binary = format!("\\copy {columns} FROM '{binary_name}' (FORMAT binary)");
    assert_eq!(psql(pgward, copy_binary).await, "COPY 2\n");

    std::fs::write(&csv, format!("{header}\n\"From\npsql\",{east},Rash,mild\nFrom psql,{west},Rash,mild\n")).unwrap();
    let said = psql_says(pgward, &["BEGIN".to_owned(), copy_csv.clone()]).await;
    let shards = "ERROR:  line 4 of the COPY: its patient is on another shard than the rows before it\n";
    assert!(said.contains(shards), "{said}");
    assert!(
        said.ends_with(
            "HINT:  Send the COPY outside of a transaction block, or one COPY for the patients of each shard. \
                       Nothing of this COPY stays.\n"
        ),
        "{said}"
    );
    std::fs::write(&csv, format!("{header}\nFrom psql,{east},Rash,mild\nFrom psql,,Rash,mild\n")).unwrap();
    let expected = "ERROR:  line 3 of the COPY has no patient key: it is NULL\n\
                    HINT:  The patient key is column 2 of each row, of type uuid. Correct the row and send the COPY \
                    again: nothing of it stays.\n";
    assert_eq!(psql(pgward, copy_csv).await, expected);

    let primary = pgward.on_server("us-east-patients/primary").await;
    assert_eq!(answers(&primary, "SELECT count(*) FROM allergies WHERE substance LIKE 'From%psql'").await, "4");
    primary.simple_query("DELETE FROM allergies WHERE substance LIKE 'From%psql'").await.unwrap();
}

/// Rows of the allergies table in the binary format, as drivers write them.
async fn copy_binary(client: &Client, rows: &[(Option<Uuid>, &str)]) -> Result<u64, Error> {
    let statement = "COPY allergies (substance, patient_id, reaction, severity) FROM STDIN (FORMAT binary)";
    let sink = client.copy_in(statement).await?;
    let types = [Type::TEXT, Type::UUID, Type::TEXT, Type::TEXT];
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &types));
    for (id, substance) in rows {
        writer.as_mut().write(&[substance, id, &"Rash", &"mild"]).await?;
    }
    writer.finish().await
}

#[tokio::test]
async fn binary_rows_are_copied_in() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let ids: Vec<Uuid> = (33..36).map(|n| pgward.patient("us-west", n).id).collect();
    // Longer than a message of the driver, so that messages end within rows; and one with more than a read.
    let long = "Binary ".repeat(20_000);
    let mut rows: Vec<(Option<Uuid>, &str)> = ids.iter().cycle().take(300).map(|id| (Some(*id), "Binary")).collect();
    rows.push((Some(ids[0]), &long));
    assert_eq!(copy_binary(&client, &rows).await.unwrap(), 301);
    let primary = pgward.on_server("us-west-patients/primary").await;
    let sum = "SELECT count(*) || ' ' || max(length(substance)) FROM allergies WHERE substance LIKE 'Binary%'";
    assert_eq!(answers(&primary, sum).await, "301 140000");
    primary.simple_query("DELETE FROM allergies WHERE substance LIKE 'Binary%'").await.unwrap();
}

#[tokio::test]
async fn binary_rows_that_have_no_place_are_refused_as_a_whole() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let (east, west) = (pgward.patient("us-east", 31).id, pgward.patient("eu-west", 31).id);
    let nobody = Uuid::from_u128(0xdead);
    // Enough of them that the first have gone to the server before the last is seen.
    let most = vec![(Some(east), "Unplaced"); 1000];
    for (last, expected) in [(Some(west), "PW002"), (Some(nobody), "PW004"), (None, "PW012")] {
        let rows = [&most[..], &[(last, "Unplaced")]].concat();
        client.batch_execute("BEGIN").await.unwrap();
        let code = sqlstate(copy_binary(&client, &rows).await);
        client.batch_execute("ROLLBACK").await.unwrap();
        // PW006: the row came by itself, when the others had gone.
        assert!(code == expected || (expected, &*code) == ("PW002", "PW006"), "{code}, not {expected}");
        for node in ["us-east-patients/primary", "eu-west-patients/primary"] {
            let server = pgward.on_server(node).await;
            let count = "SELECT count(*) FROM allergies WHERE substance = 'Unplaced'";
            assert_eq!(answers(&server, count).await, "0", "{node}");
        }
        assert_eq!(answers(&client, "SELECT 1").await, "1");
    }
    let text = "COPY allergies (patient_id, substance, reaction, severity) FROM STDIN (FORMAT binary)";
    assert_eq!(sqlstate(copy(&client, text, &format!("{east}\tText\tRash\tmild\n")).await), "PW012");
}

#[tokio::test]
async fn a_copy_with_the_region_column_registers_patients() {
    let pgward = shared().await;
    let client = pgward.app().await;
    let id = Uuid::from_u128(0x2000_4000_8000_0000_0000_0001);
    let statement = "COPY patients (id, region, mrn, family_name, given_name, birth_date, sex) FROM STDIN (FORMAT csv)";
    let row = format!("{id},ap-south,\"COPIED \"\"1\"\"\",New,Patient,2000-01-01,unknown\n");
    assert_eq!(copy(&client, statement, &row).await.unwrap(), 1);
    let delete = format!("DELETE FROM patients WHERE id = '{id}' RETURNING mrn || current_setting('cluster_name')");
    assert_eq!(answers(&client, &delete).await, "COPIED \"1\"ap-south-patients/primary");
}

#[tokio::test]
async fn a_sync_before_the_rows_of_a_copy_is_followed_by_another_when_they_end() {
    let pgward = shared().await;
    let app = pgward.app().await;
    app.simple_query("DROP TABLE IF EXISTS pgbench_branches").await.unwrap();
    app.simple_query("CREATE TABLE pgbench_branches (bid int)").await.unwrap();
    let mut client = WireClient::login(pgward.port("general"), "app", "demo-app").await;
    let mut begin = BytesMut::new();
    frontend::put_parse(&mut begin, b"", b"COPY pgbench_branches FROM STDIN", &[]);
    begin.extend(b"B\0\0\0\x0c\0\0\0\0\0\0\0\0E\0\0\0\x09\0\0\0\0\0");
    frontend::put_sync(&mut begin);
    for (rows, end, answer) in [("1\n2\n", &b"c\0\0\0\x04"[..], "CZ"), ("three\n", b"f\0\0\0\x05\0", "EZ")] {
        client.send(&begin).await;
        while client.frame().await.expect("the COPY begins").tag != b'G' {}
        let mut data = BytesMut::new();
        pgward_wire::frame::put(&mut data, b'd', rows.as_bytes());
        client.send(&data).await;
        // Time for the server to refuse the rows, and then each part by itself.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        client.send(end).await;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        client.send(b"S\0\0\0\x04").await;
        let frames = client.until_ready().await;
        assert_eq!(frames.iter().map(|frame| char::from(frame.tag)).collect::<String>(), answer);
    }
    // A replica answers, and may be behind.
    pgward.cluster().await_replay().await.unwrap();
    assert_eq!(answers(&app, "SELECT count(*) FROM pgbench_branches").await, "2");
    app.simple_query("DROP TABLE pgbench_branches").await.unwrap();
}

/// One column is all that a line with nothing but `\\.` could be.
#[tokio::test]
async fn csv_ends_where_the_servers_version_says() {
    let (pgward, client) = (shared().await, shared().await.app().await);
    let version = answers(&client, "SHOW server_version_num").await.parse::<u32>().unwrap();
    let rows = format!("{}\n\\.\n", pgward.patient("us-east", 40).id);
    // The row lacks other columns, which its server says where it takes it.
    let expected = if version < 180_000 { "23502" } else { "PW012" };
    let sql = "COPY allergies (patient_id) FROM STDIN (FORMAT csv)";
    assert_eq!(sqlstate(copy(&client, sql, &rows).await), expected);
}
