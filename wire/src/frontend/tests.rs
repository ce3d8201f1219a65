#![allow(clippy::unwrap_used)]

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::frame::header;
use crate::hostile;

/// The body of the one frame in these bytes.
fn body(frame: &[u8], tag: u8) -> &[u8] {
    let header = header(frame).unwrap().unwrap();
    assert_eq!((header.tag, header.len), (tag, frame.len()));
    &frame[5..]
}

/// `$1` = 'a' in text, `$2` NULL, `$3` = 1 in binary.
const BIND: &[u8] =
    b"portal\0stmt\0\0\x03\0\0\0\0\0\x01\0\x03\0\0\0\x01a\xff\xff\xff\xff\0\0\0\x04\0\0\0\x01\0\x01\0\x01";

#[test]
fn a_query_is_its_text() {
    assert_eq!(query(b"SELECT 1\0"), Ok(&b"SELECT 1"[..]));
    assert_eq!(query(b"\0"), Ok(&b""[..]));
    hostile::exact(b"SELECT 1\0", |body| query(body).ok().map(<[u8]>::to_vec));
}

#[test]
fn a_second_statement_hidden_behind_a_query_is_refused() {
    assert!(query(b"SELECT 1\0DELETE FROM t\0").is_err());
}

#[test]
fn a_parse_has_a_name_a_text_and_types() {
    let body = b"s1\0SELECT $1, $2\0\0\x02\0\0\x0b\x86\0\0\0\0";
    let parse = Parse::from_body(body).unwrap();
    assert_eq!((parse.name, parse.text), (&b"s1"[..], &b"SELECT $1, $2"[..]));
    assert_eq!(parse.param_types().collect::<Vec<_>>(), [2950, 0]);
    hostile::exact(body, |body| Parse::from_body(body).ok().map(|parse| parse.text.to_vec()));
}

#[test]
fn a_bind_gives_its_parameters_by_number() {
    let bind = Bind::from_body(BIND).unwrap();
    assert_eq!((bind.portal, bind.statement, bind.len()), (&b"portal"[..], &b"stmt"[..], 3));
    assert_eq!(bind.value(0), None);
    assert_eq!(bind.value(1), Some(Some(&b"a"[..])));
    assert_eq!(bind.value(2), Some(None));
    assert_eq!(bind.value(3), Some(Some(&[0, 0, 0, 1][..])));
    assert_eq!(bind.value(4), None);
    assert_eq!([0, 1, 2, 3, 4].map(|n| bind.binary(n)), [false, false, false, true, false]);
    hostile::exact(BIND, |body| Bind::from_body(body).ok().map(|bind| bind.len()));
}

/// In any order, none by way of all those before it.
#[test]
fn a_bind_gives_each_of_many_parameters() {
    let values: Vec<Vec<u8>> = (0..1_000).map(|n| vec![n as u8; n % 7]).collect();
    for count in [0, 1, STRIDE - 1, STRIDE, STRIDE + 1, 2 * STRIDE, 1_000] {
        let mut body = [&b"\0\0\0\0"[..], &(count as u16).to_be_bytes()].concat();
        for value in &values[..count] {
            body.extend((value.len() as i32).to_be_bytes());
            body.extend(value);
        }
        body.extend([0, 0]);
        let bind = Bind::from_body(&body).unwrap();
        assert_eq!(bind.marks.len(), count.saturating_sub(1) / STRIDE);
        for n in (1..=count).rev() {
            assert_eq!(bind.value(n), Some(Some(&values[n - 1][..])), "${n} of {count}");
        }
        assert_eq!(bind.value(count + 1), None);
    }
}

#[test]
fn one_format_code_holds_for_all_parameters_and_none_means_text() {
    let bind = |formats: &[u8]| [b"\0\0", formats, b"\0\x02\0\0\0\0\0\0\0\0\0\0"].concat();
    let all = bind(b"\0\x01\0\x01");
    assert!([1, 2].iter().all(|n| Bind::from_body(&all).unwrap().binary(*n)));
    let none = bind(b"\0\0");
    assert!(![1, 2].iter().any(|n| Bind::from_body(&none).unwrap().binary(*n)));
    assert!(Bind::from_body(&bind(b"\0\x03\0\x01\0\x01\0\x01")).is_err(), "three codes for two parameters");
    assert!(Bind::from_body(&bind(b"\0\x01\0\x02")).is_err(), "a format that nobody knows");
}

#[test]
fn counts_and_lengths_that_lie_are_refused() {
    for (what, body) in [("types", &b"\0\0\xff\xff\0\0\0\x17"[..]), ("a type cut short", b"\0\0\0\x01\0\0\0")] {
        assert!(Parse::from_body(body).is_err(), "{what}");
    }
    for (what, body) in [
        ("formats", &b"\0\0\xff\xff\0\x01"[..]),
        ("parameters", b"\0\0\0\0\xff\xff\0\0"),
        ("a value's length", b"\0\0\0\0\0\x01\x7f\xff\xff\xffa\0\0"),
        ("a negative length", b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0"),
        ("result formats", b"\0\0\0\0\0\0\xff\xff"),
    ] {
        assert!(Bind::from_body(body).is_err(), "{what}");
    }
}

#[test]
fn describe_close_and_execute_are_exact() {
    let describe = Describe::from_body(b"Ss1\0").unwrap();
    assert_eq!(describe, Describe { kind: Object::Statement, name: b"s1" });
    assert_eq!(Close::from_body(b"P\0").unwrap(), Close { kind: Object::Portal, name: b"" });
    assert!(Describe::from_body(b"Xs1\0").is_err());
    hostile::exact(b"Ss1\0", |body| Describe::from_body(body).ok().map(|describe| describe.kind));
    hostile::exact(b"Ps1\0", |body| Close::from_body(body).ok().map(|close| close.kind));
    assert_eq!(Execute::from_body(b"p\0\0\0\0\x0a").unwrap(), Execute { portal: b"p", max_rows: 10 });
    hostile::exact(b"p\0\0\0\0\x0a", |body| Execute::from_body(body).ok().map(|execute| execute.max_rows));
}

#[test]
fn a_sasl_initial_response_has_a_mechanism_and_data() {
    let body = b"SCRAM-SHA-256\0\0\0\0\x05n,,n=";
    let response = SaslInitialResponse::from_body(body).unwrap();
    assert_eq!((response.mechanism, response.data), (&b"SCRAM-SHA-256"[..], &b"n,,n="[..]));
    hostile::exact(body, |body| SaslInitialResponse::from_body(body).ok().map(|response| response.data.to_vec()));
    assert!(SaslInitialResponse::from_body(b"SCRAM-SHA-256\0\xff\xff\xff\xff").is_err(), "no data at all");
}

#[test]
fn a_renamed_bind_differs_in_the_statement_only() {
    let mut out = BytesMut::new();
    put_bind_renamed(&mut out, BIND, b"pgward_17");
    let expected = [b"portal\0pgward_17\0", &BIND[b"portal\0stmt\0".len()..]].concat();
    assert_eq!(body(&out, b'B'), expected);
}

#[test]
fn what_servers_are_told_is_one_frame_each() {
    let written = |write: &dyn Fn(&mut BytesMut)| {
        let mut out = BytesMut::new();
        write(&mut out);
        out
    };
    assert_eq!(&written(&put_sync)[..], b"S\0\0\0\x04");
    assert_eq!(&written(&put_flush)[..], b"H\0\0\0\x04");
    assert_eq!(&written(&put_terminate)[..], b"X\0\0\0\x04");
    assert_eq!(&written(&|out| put_copy_fail(out, "no"))[..], b"f\0\0\0\x07no\0");
    assert_eq!(&written(&|out| put_describe_statement(out, b"s"))[..], b"D\0\0\0\x07Ss\0");
    assert_eq!(&written(&|out| put_close_statement(out, b"s"))[..], b"C\0\0\0\x07Ss\0");
    assert_eq!(
        &written(&|out| put_cancel(out, 7, &[1, 2, 3, 4]))[..],
        b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07\x01\x02\x03\x04"
    );
}

#[test]
fn a_nul_in_a_string_does_not_make_a_field() {
    let mut out = BytesMut::new();
    put_query(&mut out, b"SELECT 1\0; DROP TABLE t");
    assert_eq!(query(body(&out, b'Q')), Ok(&b"SELECT 1; DROP TABLE t"[..]));
}

fn string() -> impl Strategy<Value = Vec<u8>> {
    vec(1u8.., 0..20)
}

proptest! {
    #[test]
    fn any_bytes_are_an_answer_or_an_error(bytes in vec(any::<u8>(), 0..200)) {
        let _ = query(&bytes);
        let _ = Parse::from_body(&bytes).map(|parse| parse.param_types().count());
        let _ = Describe::from_body(&bytes);
        let _ = Close::from_body(&bytes);
        let _ = Execute::from_body(&bytes);
        let _ = SaslInitialResponse::from_body(&bytes);
        if let Ok(bind) = Bind::from_body(&bytes) {
            for n in 0..bind.len() + 2 {
                prop_assert_eq!(bind.value(n).is_some(), (1..=bind.len()).contains(&n));
                bind.binary(n);
            }
        }
        put_bind_renamed(&mut BytesMut::new(), &bytes, b"s");
    }

    #[test]
    fn a_parse_reads_back(name in string(), text in string(), types in vec(any::<u32>(), 0..5)) {
        let mut out = BytesMut::new();
        put_parse(&mut out, &name, &text, &types);
        let parse = Parse::from_body(body(&out, b'P')).unwrap();
        prop_assert_eq!((parse.name, parse.text), (&name[..], &text[..]));
        prop_assert_eq!(parse.param_types().collect::<Vec<_>>(), types);
    }

    #[test]
    fn a_bind_reads_back_and_so_it_does_renamed(
        portal in string(),
        statement in string(),
        other in string(),
        values in vec(proptest::option::of(vec(any::<u8>(), 0..20)), 0..6),
        binary in any::<bool>(),
    ) {
        let mut bytes = [&portal[..], b"\0", &statement, b"\0\0\x01\0", &[u8::from(binary)]].concat();
        bytes.extend((values.len() as u16).to_be_bytes());
        for value in &values {
            bytes.extend(value.as_ref().map_or(-1, |value| value.len() as i32).to_be_bytes());
            bytes.extend(value.iter().flatten());
        }
        bytes.extend([0, 0]);
        let mut renamed = BytesMut::new();
        put_bind_renamed(&mut renamed, &bytes, &other);
        for (bytes, name) in [(&bytes[..], &statement), (body(&renamed, b'B'), &other)] {
            let bind = Bind::from_body(bytes).unwrap();
            prop_assert_eq!((bind.portal, bind.statement), (&portal[..], &name[..]));
            prop_assert_eq!(bind.len(), values.len());
            for (at, value) in values.iter().enumerate() {
                prop_assert_eq!(bind.value(at + 1), Some(value.as_deref()));
                prop_assert_eq!(bind.binary(at + 1), binary);
            }
        }
    }
}
