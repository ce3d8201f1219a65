//! Values as drivers send them.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// One parameter of this type and format.
struct One<'a>(&'a [u8], u32, bool);

impl Params for One<'_> {
    fn value(&self, _: u16) -> Option<Option<&[u8]>> {
        Some(Some(self.0))
    }
    fn binary(&self, _: u16) -> bool {
        self.2
    }
    fn oid(&self, _: u16) -> u32 {
        self.1
    }
}

const TEXT: bool = false;
const BINARY: bool = true;

fn key(bytes: &[u8], declared: u32, binary: bool, cast: u32, key_type: KeyType) -> Option<PatientKey> {
    key_from_param(bytes, 1, &One(bytes, declared, binary), cast, key_type)
}

#[test]
fn uuids_are_read_as_uuid_in_reads_them() {
    let wanted = Some(0x550e8400_e29b_41d4_a716_446655440000u128.to_be_bytes());
    for text in [
        "550e8400-e29b-41d4-a716-446655440000",
        "550E8400-E29B-41D4-A716-446655440000",
        "{550e8400-e29b-41d4-a716-446655440000}",
        "550e8400e29b41d4a716446655440000",
        "550e-8400-e29b-41d4-a716-4466-5544-0000",
        "{550e8400e29b-41d4a716-446655440000}",
    ] {
        assert_eq!(uuid(text.as_bytes()), wanted, "{text}");
    }
    for text in [
        "",
        "550e8400-e29b-41d4-a716-44665544000",
        "550e8400-e29b-41d4-a716-4466554400000",
        "550e8400-e29b-41d4-a716-446655440000-",
        "{550e8400-e29b-41d4-a716-446655440000",
        "550e8400-e29b-41d4-a716-446655440000}",
        " 550e8400-e29b-41d4-a716-446655440000",
        "55-0e8400e29b41d4a716446655440000",
        "550e8400--e29b-41d4-a716-446655440000",
        "550e8400-e29b-41d4-a716-44665544000g",
    ] {
        assert_eq!(uuid(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn parameters_are_read_by_their_declared_type() {
    let bigint = |value| Some(PatientKey::Bigint(value));
    for (bytes, declared, binary, cast, wanted) in [
        (&b"42"[..], 0, TEXT, 0, bigint(42)),
        (b" -42 ", oid::INT4, TEXT, 0, bigint(-42)),
        (b"42", oid::TEXT, TEXT, 0, None),
        (b"42", oid::TEXT, TEXT, oid::INT8, bigint(42)),
        (b"42", oid::TEXT, BINARY, oid::INT8, bigint(42)),
        (b"42", 1700, TEXT, 0, None),
        (b"42", 1042, TEXT, oid::INT8, None),
        (&42i64.to_be_bytes(), oid::INT8, BINARY, 0, bigint(42)),
        (&(-42i32).to_be_bytes(), oid::INT4, BINARY, 0, bigint(-42)),
        (&42i16.to_be_bytes(), oid::INT2, BINARY, 0, bigint(42)),
        (&42i32.to_be_bytes(), 0, BINARY, 0, bigint(42)),
        (&42i32.to_be_bytes(), oid::INT8, BINARY, 0, None),
        (&[0; 16], oid::UUID, BINARY, 0, None),
        (&[], 0, BINARY, 0, None),
        (b"0x2A", 0, TEXT, 0, None),
        (b"4_2", 0, TEXT, 0, None),
        (b"", 0, TEXT, 0, None),
    ] {
        assert_eq!(key(bytes, declared, binary, cast, KeyType::Bigint), wanted, "{bytes:?} {declared} {binary} {cast}");
    }
    let uuid = Some(PatientKey::Uuid([7; 16]));
    assert_eq!(key(&[7; 16], 0, BINARY, 0, KeyType::Uuid), uuid);
    assert_eq!(key(&[7; 16], oid::UUID, BINARY, 0, KeyType::Uuid), uuid);
    assert_eq!(key(&[7; 15], oid::UUID, BINARY, 0, KeyType::Uuid), None);
    assert_eq!(key(b"07070707070707070707070707070707", oid::VARCHAR, BINARY, oid::UUID, KeyType::Uuid), uuid);
    assert_eq!(key(b"07070707070707070707070707070707", oid::VARCHAR, BINARY, 0, KeyType::Uuid), None);
    let text = |value: &str| Some(PatientKey::Text(value.as_bytes().into()));
    assert_eq!(key(b"0042 ", 0, TEXT, 0, KeyType::Text), text("0042 "));
    assert_eq!(key(b"0042", oid::VARCHAR, BINARY, 0, KeyType::Text), text("0042"));
    assert_eq!(key(b"0042", oid::INT8, TEXT, oid::TEXT, KeyType::Text), None);
    assert_eq!(key(b"0042", 1042, TEXT, 0, KeyType::Text), None);
}

/// A binary array of one dimension.
fn binary_array(element: u32, values: &[&[u8]]) -> Vec<u8> {
    let mut out = [1i32, 0, element as i32, values.len() as i32, 1].map(i32::to_be_bytes).concat();
    for value in values {
        out.extend((value.len() as i32).to_be_bytes());
        out.extend_from_slice(value);
    }
    out
}

fn keys(bytes: &[u8], declared: u32, binary: bool, cast: u32, key_type: KeyType) -> Option<Vec<PatientKey>> {
    let mut found = Vec::new();
    keys_from_array_param(bytes, 1, &One(bytes, declared, binary), cast, key_type, |key| found.push(key))?;
    Some(found)
}

#[test]
fn arrays_give_each_of_their_keys() {
    let wanted = Some(vec![PatientKey::Bigint(1), PatientKey::Bigint(2)]);
    let int8 = binary_array(oid::INT8, &[&1i64.to_be_bytes(), &2i64.to_be_bytes()]);
    assert_eq!(keys(&int8, oid::INT8_ARRAY, BINARY, 0, KeyType::Bigint), wanted);
    assert_eq!(keys(&int8, 0, BINARY, 0, KeyType::Bigint), wanted);
    assert_eq!(keys(&int8, oid::UUID_ARRAY, BINARY, 0, KeyType::Bigint), None);
    let int4 = binary_array(oid::INT4, &[&1i32.to_be_bytes(), &2i32.to_be_bytes()]);
    assert_eq!(keys(&int4, oid::INT4_ARRAY, BINARY, 0, KeyType::Bigint), wanted);
    let text = binary_array(oid::TEXT, &[b"1", b"2"]);
    assert_eq!(keys(&text, oid::TEXT_ARRAY, BINARY, oid::INT8_ARRAY, KeyType::Bigint), wanted);
    assert_eq!(keys(&text, oid::TEXT_ARRAY, BINARY, 0, KeyType::Bigint), None);
    let uuids = binary_array(oid::UUID, &[&[7; 16]]);
    assert_eq!(keys(&uuids, oid::UUID_ARRAY, BINARY, 0, KeyType::Uuid), Some(vec![PatientKey::Uuid([7; 16])]));
    assert_eq!(keys(&[0; 12], 0, BINARY, 0, KeyType::Uuid), Some(vec![]));
    assert_eq!(keys(b"{ 1 ,\"2\"}", 0, TEXT, 0, KeyType::Bigint), wanted);
    for text in ["{1,}", "{1", "1,2", "{{1,2}}", "{1,NULL}", "[1:2]={1,2}", "{1}x", "{\"1}", "{\"1\"2}", "{,}"] {
        assert_eq!(keys(text.as_bytes(), 0, TEXT, 0, KeyType::Bigint), None, "{text}");
    }
    for end in 0..int8.len() {
        assert_eq!(keys(&int8[..end], oid::INT8_ARRAY, BINARY, 0, KeyType::Bigint), None, "{end}");
    }
    // NULL, a second dimension, more elements announced than there are.
    for (at, byte) in [(20, 0xff), (3, 2), (15, 9)] {
        let mut broken = int8.clone();
        broken[at] = byte;
        assert_eq!(keys(&broken, oid::INT8_ARRAY, BINARY, 0, KeyType::Bigint), None, "{at}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_not(
        bytes in prop::collection::vec(any::<u8>(), 0..80),
        declared in prop::sample::select(vec![0, 20, 21, 23, 25, 1043, 2950, 2951, 1016, 1007, 1005, 1009, 1015, 705, 16]),
        binary: bool,
        cast in prop::sample::select(vec![0, 20, 2950, 2951, 1016]),
    ) {
        for key_type in [KeyType::Uuid, KeyType::Bigint, KeyType::Text] {
            let _ = key(&bytes, declared, binary, cast, key_type);
            let _ = keys(&bytes, declared, binary, cast, key_type);
        }
        for kind in [LiteralKind::String, LiteralKind::Escape, LiteralKind::Unicode, LiteralKind::Dollar] {
            let _ = literal_text(&bytes, &Literal { start: 0, end: bytes.len() as u32, kind });
        }
    }
}
