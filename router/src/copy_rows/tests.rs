#![allow(clippy::unwrap_used)]
//! What goes in and which patients come out: whole, cut at every offset, and where it must be refused.

use std::sync::Arc;

use pgward_config::TableKind;

use super::*;
use crate::statement::CopyFormat;

mod binary;

const MAX_ROW: usize = 200;

fn copy(format: CopyFormat, columns: &[&str]) -> CopyFrom {
    let position = |name: &str| columns.iter().position(|column| *column == name);
    CopyFrom {
        table: "public.patients".into(),
        kind: TableKind::Patient,
        columns: Some(columns.iter().map(|column| Arc::from(*column)).collect()),
        key: position("id"),
        region: position("region"),
        format,
    }
}

fn text() -> CopyFormat {
    CopyFormat::Text { delimiter: b'\t', null: "\\N".into(), header: false }
}

fn csv() -> CopyFormat {
    CopyFormat::Csv { delimiter: b',', quote: b'"', escape: b'"', null: "".into(), header: false }
}

fn csv_backslash() -> CopyFormat {
    CopyFormat::Csv { delimiter: b';', quote: b'\'', escape: b'\\', null: "NULL".into(), header: true }
}

/// Feeds the pieces, then CopyDone. Each patient as `key@region#line`, or row in the binary format, and the row ends as offsets of the stream.
fn run(format: CopyFormat, columns: &[&str], pieces: &[&[u8]]) -> Result<(Vec<String>, usize), Refusal> {
    let mut rows = CopyRows::new(&copy(format, columns), KeyType::Text, MAX_ROW)?;
    let mut patients = Vec::new();
    let mut released = 0;
    let mut take = |fed: Rows| {
        released += fed.release;
        for mention in &fed.evidence.mentions {
            let key = text_of(&mention.key);
            let (Whence::CopyRow(row) | Whence::CopyLine(row)) = mention.whence else { panic!("a row") };
            let region = mention.region.as_ref().map_or("-", PatientRegion::as_str);
            patients.push(format!("{key}@{region}#{row}"));
        }
    };
    for piece in pieces {
        take(rows.feed(piece)?);
    }
    take(rows.finish()?);
    Ok((patients, released))
}

/// The same whole and cut at every offset; across a cut a patient may come twice.
fn check(format: &CopyFormat, columns: &[&str], stream: &[u8], expected: &[&str]) {
    let (patients, released) = run(format.clone(), columns, &[stream]).unwrap();
    assert_eq!(patients, expected, "{}", stream.escape_ascii());
    assert_eq!(released, stream.len());
    for cut in 0..=stream.len() {
        let (head, tail) = stream.split_at(cut);
        let (patients, released) = run(format.clone(), columns, &[head, tail]).unwrap();
        assert_eq!(patients, expected, "{} cut at {cut}", stream.escape_ascii());
        assert_eq!(released, stream.len());
    }
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(run(format.clone(), columns, &bytes).unwrap().0, expected, "{} in bytes", stream.escape_ascii());
}

#[test]
fn text_rows() {
    let columns = ["name", "id", "region", "note"];
    check(&text(), &columns, b"", &[]);
    check(&text(), &columns, b"Ann\tp1\tus-east\tx\n", &["p1@us-east#1"]);
    check(&text(), &columns, b"Ann\tp1\tus-east\tx", &["p1@us-east#1"]);
    check(&text(), &columns, b"a\tp1\t\\N\tx\r\nb\tp2\teu-west\t\\\n\r\n", &["p1@-#1", "p2@eu-west#2"]);
    check(&text(), &columns, b"a\tp1\tus\tx\rb\tp2\tus\t\r", &["p1@us#1", "p2@us#2"]);
    check(&text(), &columns, b"a\tp1\tus\tx\n\\.\n", &["p1@us#1"]);
    check(&text(), &columns, b"a\tp1\tus\tx\n\\.", &["p1@us#1"]);
}

#[test]
fn text_escapes() {
    for (written, key) in [
        ("\\\\N", "\\N"),
        ("a\\\tb", "a\tb"),
        ("a\\tb", "a\tb"),
        ("a\\\nb", "a\nb"),
        ("\\1012", "A2"),
        ("\\x41\\x4a1", "AJ1"),
        ("\\xg", "xg"),
        ("\\N1", "N1"),
        ("\\b\\f\\n\\r\\v\\q", "\x08\x0C\n\r\x0Bq"),
        (" 007 ", " 007 "),
    ] {
        check(&text(), &["id", "note"], format!("{written}\tx\n").as_bytes(), &[&format!("{key}@-#1")]);
    }
}

#[test]
fn csv_rows() {
    let columns = ["id", "note", "region"];
    check(&csv(), &columns, b"p1,x,us\n\"p,2\",\"a\nb\r\"\"c\",us\n", &["p1@us#1", "p,2@us#2"]);
    check(&csv(), &columns, b"p1,,\n\"p\"\"2\",\"\",\"\"\n", &["p1@-#1", "p\"2@#2"]);
    check(&csv(), &columns, b"a\"b\nc\"d,x,us\r\n\" \",y,us", &["ab\ncd@us#1", " @us#3"]);
    check(&csv(), &columns, b"p1,x,us\n\\.\n", &["p1@us#1"]);
    check(&csv(), &columns, b"\\.x,x,us\n\\,x,us\n", &["\\.x@us#1", "\\@us#2"]);
}

#[test]
fn csv_with_an_escape_of_its_own_and_a_header() {
    let stream = b"note;'i\nd'\n'it\\'s\n';p1\nNULL;'a\\\\'\n'\\n\\\\\\'';p3\n";
    check(&csv_backslash(), &["note", "id"], stream, &["p1@-#3", "a\\@-#5", "p3@-#6"]);
}

#[test]
fn a_patient_comes_once_with_its_region_wherever_it_stands() {
    let stream = b"p1\t\\N\np2\tus\np1\teu\np1\teu\n";
    let (patients, _) = run(text(), &["id", "region"], &[stream]).unwrap();
    assert_eq!(patients, ["p1@eu#1", "p2@us#2"]);
    let refusal = run(text(), &["id", "region"], &[b"p1\tus\np1\teu\n"]).unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::RegionContradiction);
}

/// Each piece as `bytes#rows/lines/counted@patient`.
fn pieces(format: CopyFormat, columns: &[&str], stream: &[u8]) -> Vec<String> {
    let mut rows = CopyRows::new(&copy(format, columns), KeyType::Text, MAX_ROW).unwrap();
    let fed = [rows.feed(stream).unwrap(), rows.finish().unwrap()];
    let piece = |piece: &Piece| match piece.of {
        Of::Stream => format!("{}#{}/{}/{}", piece.length, piece.rows, piece.lines, piece.counted),
        Of::Patient(patient) => {
            format!("{}#{}/{}/{}@{patient}", piece.length, piece.rows, piece.lines, piece.counted)
        }
    };
    fed.iter().flat_map(|rows| rows.pieces.iter().map(piece)).collect()
}

#[test]
fn the_stream_is_cut_where_the_rows_of_another_patient_begin() {
    let columns = ["id", "note"];
    // A newline in a row of text is none that servers count.
    assert_eq!(
        pieces(text(), &columns, b"p1\tx\np1\ty\np1\t\\\n\np1\tx\np2\ty\n\\.\n"),
        ["16#3/4/3@0", "5#1/1/1@0", "5#1/1/1@1", "3#1/1/1"]
    );
    // The last row comes by itself.
    assert_eq!(pieces(text(), &columns, b"p1\tx\np2\ty"), ["5#1/1/1@0", "4#1/0/1@0"]);
    let stream = b"note;'i\nd'\n'a\nb';p1\nc;p1\nd;p2\n";
    let expected = ["11#1/2/2", "9#1/2/2@0", "5#1/1/1@0", "5#1/1/1@1"];
    assert_eq!(pieces(csv_backslash(), &["note", "id"], stream), expected);
}

#[test]
fn what_is_not_complete_is_not_released() {
    let mut rows = CopyRows::new(&copy(text(), &["id", "note"]), KeyType::Text, MAX_ROW).unwrap();
    assert_eq!(rows.feed(b"p1\tx\np2").unwrap().release, 5);
    assert_eq!(rows.feed(b"\ty").unwrap().release, 0);
    let fed = rows.feed(b"z\n").unwrap();
    assert_eq!((fed.release, fed.rows), (6, 1));
    assert_eq!(rows.finish().unwrap().release, 0);
}

#[test]
fn rows_that_are_refused() {
    let columns = ["note", "id"];
    for (format, stream, message) in [
        (text(), "x\tp1\ny\n", "line 2 of the COPY has too few columns"),
        (text(), "\n", "line 1 of the COPY has too few columns"),
        (text(), "x\t\n", "line 1 of the COPY has no patient key: it is empty"),
        (csv(), "x,p1\n\"\n\n\",p2\nx,\"\"\n", "line 5 of the COPY has no patient key: it is empty"),
        (
            csv_backslash(),
            "note;id\n'\n';p1\r\n",
            "line 2 of the COPY has a carriage return that is not like the newlines before",
        ),
        (text(), "x\t\\N\n", "line 1 of the COPY has no patient key: it is NULL"),
        (text(), "x\tp1\r\ny\tp2\n", "line 2 of the COPY has a newline that is not like those before"),
        (text(), "x\tp1\ny\r\tp2\n", "line 2 of the COPY has a carriage return that is not like the newlines before"),
        (text(), "x\tp1\\.\n", "line 1 of the COPY has an end marker \\. that is not alone on its line"),
        (text(), "\\.x\tp1\n", "line 1 of the COPY has an end marker \\. that is not alone on its line"),
        (text(), "x\tp1\n\\.\ny\tp2\n", "line 3 of the COPY follows the end marker \\."),
        (csv(), "x\n", "line 1 of the COPY has too few columns"),
        (csv(), "x,\n", "line 1 of the COPY has no patient key: it is NULL"),
        (csv(), "x,\"p1\n", "line 1 of the COPY has a quoted value that does not end"),
        (csv(), "x,p1\n\\.\ny,p2\n", "line 3 of the COPY follows the end marker \\."),
    ] {
        for cut in 0..=stream.len() {
            let (head, tail) = stream.as_bytes().split_at(cut);
            let refusal = run(format.clone(), &columns, &[head, tail]).unwrap_err();
            assert_eq!((refusal.kind, &*refusal.message), (RefusalKind::CopyRow, message), "cut at {cut}");
        }
    }
}

fn text_of(key: &PatientKey) -> String {
    let PatientKey::Text(key) = key else { panic!("a text key") };
    String::from_utf8_lossy(key).into_owned()
}

/// The keys of a CSV stream of one column, or what is wrong.
fn keys(end: CsvEnd, stream: &[u8]) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for cut in 0..=stream.len() {
        let (head, tail) = stream.split_at(cut);
        let mut rows = CopyRows::new(&copy(csv(), &["id"]), KeyType::Text, MAX_ROW).unwrap().read_by(end);
        let fed: Result<Vec<Rows>, Refusal> =
            rows.feed(head).and_then(|first| Ok(vec![first, rows.feed(tail)?, rows.finish()?]));
        let fed = fed.map_err(|refusal| refusal.message.into_owned())?;
        let mentions = fed.into_iter().flat_map(|rows| rows.evidence.mentions);
        let mut keys: Vec<String> = mentions.map(|mention| text_of(&mention.key)).collect();
        keys.dedup();
        assert!(cut == 0 || keys == found, "cut at {cut}");
        found = keys;
    }
    Ok(found)
}

#[test]
fn a_backslash_and_a_dot_in_csv_are_what_they_are_to_the_server() {
    let count = |end, stream: &[u8]| keys(end, stream).map(|keys| keys.len());
    for stream in [&b"p1\n\\.\n"[..], b"p1\n\\.", b"p1\r\n\\.\r\n"] {
        assert_eq!(count(CsvEnd::Marker, stream), Ok(1));
        assert_eq!(count(CsvEnd::Data, stream), Ok(2));
        let refused = "line 2 of the COPY is \\., which ends the data for servers before PostgreSQL 18 only";
        assert_eq!(count(CsvEnd::Unknown, stream), Err(refused.to_owned()));
    }
    for end in [CsvEnd::Marker, CsvEnd::Data, CsvEnd::Unknown] {
        assert_eq!(count(end, b"\\.x\n\"\\.\"\n"), Ok(2), "neither is alone and bare");
    }
    assert_eq!(count(CsvEnd::Marker, b"\\.\np1\n"), Err("line 2 of the COPY follows the end marker \\.".to_owned()));
}

#[test]
fn what_ends_the_data_is_known_from_the_servers_versions() {
    let end = |versions: &[Option<&str>]| CsvEnd::of_versions(versions.iter().copied());
    assert_eq!(end(&[Some("15.18 (Debian 15.18-0+deb12u1)"), Some("17.6")]), CsvEnd::Marker);
    assert_eq!(end(&[Some("18.1"), Some("19devel")]), CsvEnd::Data);
    for unknown in [&[Some("17.6"), Some("18.1")][..], &[Some("18.1"), None], &[Some("")], &[]] {
        assert_eq!(end(unknown), CsvEnd::Unknown);
    }
}

#[test]
fn a_row_is_held_up_to_its_limit() {
    let mut rows = CopyRows::new(&copy(text(), &["id", "note"]), KeyType::Text, MAX_ROW).unwrap();
    rows.feed(&[b'x'; MAX_ROW]).unwrap();
    assert_eq!(rows.feed(b"x").unwrap_err().kind, RefusalKind::CopyRow);
}

#[test]
fn keys_of_other_types_are_decoded_or_refused() {
    let mut rows = CopyRows::new(&copy(text(), &["id"]), KeyType::Bigint, MAX_ROW).unwrap();
    assert_eq!(rows.feed(b"-42\n").unwrap().evidence.mentions[0].key, PatientKey::Bigint(-42));
    let refusal = rows.feed(b"12x\n").unwrap_err();
    assert_eq!(refusal.message, "line 2 of the COPY has a patient key that cannot be decoded");
}

#[test]
fn a_copy_whose_columns_are_unknown_is_refused() {
    let refused = |copy: &CopyFrom| CopyRows::new(copy, KeyType::Text, MAX_ROW).map(|_| ()).unwrap_err().kind;
    assert_eq!(refused(&copy(text(), &["name"])), RefusalKind::NoPatient);
    assert_eq!(refused(&copy(CopyFormat::Binary, &["name"])), RefusalKind::NoPatient);
}
