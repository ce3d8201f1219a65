//! The binary format: tuples as they stand in files of PostgreSQL.

use super::*;

const COLUMNS: [&str; 3] = ["name", "id", "region"];

/// Signature, no flags, no extension.
fn header() -> Vec<u8> {
    b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec()
}

fn tuple(columns: &[Option<&[u8]>]) -> Vec<u8> {
    let mut tuple = (columns.len() as i16).to_be_bytes().to_vec();
    for column in columns {
        tuple.extend(column.map_or(-1, |value| value.len() as i32).to_be_bytes());
        tuple.extend_from_slice(column.unwrap_or_default());
    }
    tuple
}

fn row(name: &str, id: &str, region: Option<&str>) -> Vec<u8> {
    tuple(&[Some(name.as_bytes()), Some(id.as_bytes()), region.map(str::as_bytes)])
}

const TRAILER: [u8; 2] = [0xff, 0xff];

#[test]
fn rows() {
    let rows = [row("Ann", "p1", Some("us")), row("", " ", None), row("\\.\n\u{7f}", "p\n3", Some("eu"))].concat();
    let stream = [header(), rows].concat();
    let expected = ["p1@us#1", " @-#2", "p\n3@eu#3"];
    // Servers need no trailer.
    check(&CopyFormat::Binary, &COLUMNS, &stream, &expected);
    check(&CopyFormat::Binary, &COLUMNS, &[&stream[..], &TRAILER].concat(), &expected);
    check(&CopyFormat::Binary, &COLUMNS, &header(), &[]);
    check(&CopyFormat::Binary, &COLUMNS, &[&header()[..], &TRAILER].concat(), &[]);
}

#[test]
fn a_header_with_harmless_flags_and_an_extension_is_passed_over() {
    let mut stream = header();
    stream[14] = 7;
    stream[18] = 5;
    stream.extend(b"PGCOP");
    stream.extend(row("Ann", "p1", None));
    check(&CopyFormat::Binary, &COLUMNS, &stream, &["p1@-#1"]);
}

#[test]
fn what_servers_refuse_is_refused_wherever_it_is_cut() {
    let with = |rows: &[&[u8]]| [&header()[..], &rows.concat()[..]].concat();
    let changed = |at: usize, byte: u8| {
        let mut stream = header();
        stream[at] = byte;
        stream
    };
    let good = row("Ann", "p1", None);
    let mut negative = row("Ann", "p1", None);
    negative[2..6].copy_from_slice(&(-2i32).to_be_bytes());
    let mut huge = row("Ann", "p1", None);
    huge[2..6].copy_from_slice(&i32::MAX.to_be_bytes());
    for (stream, message) in [
        (vec![], "the COPY ends within the header of the binary format"),
        (header()[..18].to_vec(), "the COPY ends within the header of the binary format"),
        (b"Ann\tp1\tus\n".to_vec(), "the COPY does not begin with the signature of the binary format"),
        (changed(12, 1), "the COPY has a header with critical flags, which servers refuse"),
        (changed(11, 0x80), "the COPY has a header with critical flags, which servers refuse"),
        (changed(17, 5), "the COPY has a header extension of more than 1024 bytes"),
        (changed(15, 0xff), "the COPY has a header extension of a negative length"),
        (with(&[&good, &[0]]), "row 2 of the COPY is not complete"),
        (with(&[&good, &good[..good.len() - 1]]), "row 2 of the COPY is not complete"),
        (with(&[&good[..3]]), "row 1 of the COPY is not complete"),
        (with(&[&good, &TRAILER, &[0]]), "row 2 of the COPY follows the trailer"),
        (with(&[&TRAILER, &TRAILER]), "row 1 of the COPY follows the trailer"),
        (with(&[&tuple(&[None, None])]), "row 1 of the COPY has 2 columns where the server expects 3"),
        (with(&[&good, &[0xff, 0xfe]]), "row 2 of the COPY has -2 columns where the server expects 3"),
        (with(&[&good, &negative]), "row 2 of the COPY has a column of -2 bytes"),
        (with(&[&huge]), "row 1 of the COPY is longer than 200 bytes"),
        (with(&[&tuple(&[None, None, None])]), "row 1 of the COPY has no patient key: it is NULL"),
        (with(&[&tuple(&[None, Some(b""), None])]), "row 1 of the COPY has no patient key: it is empty"),
        (with(&[&tuple(&[None, Some(b"p\0"), None])]), "row 1 of the COPY has a patient key that cannot be decoded"),
        (with(&[&tuple(&[None, Some(b"p"), Some(b"\xff")])]), "row 1 of the COPY has a region that is no name"),
    ] {
        for cut in 0..=stream.len() {
            let (head, tail) = stream.split_at(cut);
            let refusal = run(CopyFormat::Binary, &COLUMNS, &[head, tail]).unwrap_err();
            assert_eq!((refusal.kind, &*refusal.message), (RefusalKind::CopyRow, message), "cut at {cut}");
        }
    }
}

#[test]
fn a_length_is_refused_before_its_bytes_come() {
    let mut rows = CopyRows::new(&copy(CopyFormat::Binary, &["id", "note"]), KeyType::Text, MAX_ROW).unwrap();
    let stream = [&header()[..], &tuple(&[Some(b"p1")])[..]].concat();
    let mut stream = stream.to_vec();
    stream[20] = 2;
    assert_eq!(rows.feed(&stream).unwrap().release, 19);
    assert_eq!(rows.feed(&200u32.to_be_bytes()).unwrap_err().message, "row 1 of the COPY is longer than 200 bytes");
}

#[test]
fn keys_of_each_type() {
    let uuid = *b"0123456789abcdef";
    for (key_type, bytes, expected) in [
        (KeyType::Uuid, &uuid[..], Some(PatientKey::Uuid(uuid))),
        (KeyType::Uuid, &uuid[..15], None),
        (KeyType::Uuid, b"00000000-0000-0000-0000-000000000000", None),
        (KeyType::Bigint, &(-42i64).to_be_bytes(), Some(PatientKey::Bigint(-42))),
        (KeyType::Bigint, &(-42i32).to_be_bytes(), Some(PatientKey::Bigint(-42))),
        (KeyType::Bigint, &42i16.to_be_bytes(), Some(PatientKey::Bigint(42))),
        (KeyType::Bigint, b"123", None),
        (KeyType::Text, b"p1", Some(PatientKey::Text((*b"p1").into()))),
    ] {
        let mut rows = CopyRows::new(&copy(CopyFormat::Binary, &["id"]), key_type, MAX_ROW).unwrap();
        let fed = rows.feed(&[header(), tuple(&[Some(bytes)])].concat());
        match expected {
            Some(key) => assert_eq!(fed.unwrap().evidence.mentions[0].key, key),
            None => assert_eq!(fed.unwrap_err().message, "row 1 of the COPY has a patient key that cannot be decoded"),
        }
    }
}

#[test]
fn any_bytes_mean_the_same_in_whatever_pieces() {
    // A cheap generator: rows with a byte changed somewhere.
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize % below
    };
    let good = [header(), row("Ann", "p1", Some("us")), row("Bob", "p2", None), TRAILER.to_vec()].concat();
    for _ in 0..3000 {
        let mut stream = good.clone();
        for _ in 0..=next(2) {
            let at = next(stream.len());
            stream[at] = [0, 1, 2, 3, 0x7f, 0xff][next(6)];
        }
        stream.truncate(stream.len() - next(3));
        let whole = run(CopyFormat::Binary, &COLUMNS, &[&stream]);
        let size = 1 + next(9);
        let pieces: Vec<&[u8]> = stream.chunks(size).collect();
        assert_eq!(whole, run(CopyFormat::Binary, &COLUMNS, &pieces), "{} by {size}", stream.escape_ascii());
    }
}
