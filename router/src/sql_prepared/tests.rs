#![allow(clippy::unwrap_used)]
use super::*;

const KEY: &str = "7f0c1c1e-0000-4000-8000-000000000001";

fn prepared(sql: &str) -> Option<(&str, Vec<u32>)> {
    let preparing = preparing(sql.as_bytes()).ok()?;
    Some((std::str::from_utf8(preparing.text).unwrap(), preparing.types.into()))
}

#[test]
fn what_is_prepared_begins_behind_as() {
    let read = "SELECT 'as' FROM patients AS p WHERE id = $1";
    for head in [
        "PREPARE q AS ",
        "prepare q\tas\n",
        "PREPARE \"as\" AS ",
        "PREPARE \"a\"\" as \" AS",
        "PREPARE q--as\nAS--as\n",
        "PREPARE /* as /* as */ as */ q AS",
        "PREPARE U&\"d!0061t as\" UESCAPE '!' AS ",
        "PREPARE clas AS ",
        "PREPARE as_ AS ",
        "PREPARE añas AS ",
    ] {
        let sql = format!("{head}{}{read} ;", if head.ends_with("AS") { " " } else { "" });
        let (text, types) = prepared(&sql).unwrap_or_else(|| panic!("{head}"));
        assert!(text.ends_with(&format!("{read} ;")) && !text.starts_with(' '), "{head}: {text}");
        assert!(!text.to_lowercase().starts_with("as"), "{head}: {text}");
        assert!(types.is_empty());
        let before = preparing(sql.as_bytes()).unwrap().before;
        assert_eq!(sql.chars().skip(before).collect::<String>(), text, "{head}");
    }
    assert_eq!(prepared("PREPARE q AS(SELECT 1)"), Some(("(SELECT 1)", vec![])));
    for other in
        ["SELECT 1 AS a", "PREPARE q AS SELECT 1; SELECT 2", "PREPARE q", "", "EXECUTE q", "PREPARE q AS DROP TABLE t"]
    {
        assert_eq!(prepared(other), None, "{other}");
    }
}

#[test]
fn types_are_those_that_are_known_for_certain() {
    let types = |list: &str| prepared(&format!("PREPARE q ({list}) AS SELECT 1")).map(|(_, types)| types);
    for (list, oids) in [
        ("uuid, text, varchar, character varying", &[2950, 25, 1043, 1043][..]),
        ("int2, smallint, int, integer, int4, bigint, int8", &[21, 21, 23, 23, 23, 20, 20]),
        ("numeric, decimal, real, float4, double precision, float8", &[1700, 1700, 700, 700, 701, 701]),
        ("bool, boolean, date, json, jsonb", &[16, 16, 1082, 114, 3802]),
        ("timestamp, timestamp without time zone", &[1114, 1114]),
        ("timestamptz, timestamp with time zone", &[1184, 1184]),
        ("pg_catalog.uuid, uuid[], \"uuid\"", &[2950, 2951, 2950]),
    ] {
        assert_eq!(types(list).as_deref(), Some(oids), "{list}");
    }
    for list in [
        "varchar(3)",
        "char",
        "numeric(3, 1)",
        "mine",
        "public.uuid",
        "\"UUID\"",
        "date[]",
        "int[][]",
        "unknown",
        "a.pg_catalog.uuid",
        "timestamp(3)",
        "setof int",
        "\"char\"",
        "t.c%type",
    ] {
        assert_eq!(types(list), None, "{list}");
    }
}

fn values(list: &str, types: &[u32]) -> Option<Vec<Option<String>>> {
    let values = arguments(format!("EXECUTE q ({list})").as_bytes(), types).ok()?;
    Some(values.into_iter().map(|value| value.map(String::from)).collect())
}

#[test]
fn literals_are_values() {
    let some = |text: &str| Some(text.to_owned());
    let read = |list: &str| values(list, &[]).and_then(|mut values| values.pop()).flatten();
    for (literal, value) in [
        ("'a''b'", "a'b"),
        ("''", ""),
        ("E'a\\nb'", "a\nb"),
        ("U&'\\0061'", "a"),
        ("$x$'$x$", "'"),
        ("'a'\n'b'", "ab"),
        ("'ä'", "ä"),
        ("42", "42"),
        ("-42", "-42"),
        ("+42", "42"),
        ("- 42", "-42"),
        ("007", "7"),
        ("0x1F", "31"),
        ("1_000", "1000"),
        ("-2147483648", "-2147483648"),
        ("12345678901234567890", "12345678901234567890"),
        ("1.50", "1.50"),
        ("-0.5", "-0.5"),
        ("TRUE", "true"),
        ("false", "false"),
    ] {
        assert_eq!(read(literal), some(value), "{literal}");
    }
    assert_eq!(values("NULL, 1, 'x'", &[]), Some(vec![None, some("1"), some("x")]));
    assert_eq!(arguments(b"EXECUTE q;", &[]), Ok(vec![]));
}

#[test]
fn a_cast_is_to_the_parameters_own_type() {
    let some = |text: &str| Some(vec![Some(text.to_owned())]);
    assert_eq!(values(&format!("'{KEY}'::uuid"), &[oid::UUID]), some(KEY));
    assert_eq!(values(&format!("uuid '{KEY}'"), &[oid::UUID]), some(KEY));
    assert_eq!(values("CAST(5 AS bigint)", &[oid::INT8]), some("5"));
    assert_eq!(values("'{\"a\": 1}'::jsonb", &[JSONB]), some("{\"a\": 1}"));
    assert_eq!(values("NULL::uuid", &[oid::UUID]), Some(vec![None]));
    for (list, wanted) in [
        ("'x'::uuid", 0),
        ("'x'::uuid", oid::TEXT),
        ("'x'::text", oid::UUID),
        ("'xyz'::varchar(1)", oid::VARCHAR),
        ("'1'::int4", oid::INT8),
        ("'x'::mine", oid::TEXT),
        ("'x'::text::uuid", oid::UUID),
        ("(1 + 1)::int4", oid::INT4),
        ("1.5::int4", oid::INT4),
        ("1::bool", BOOL),
    ] {
        assert_eq!(values(list, &[wanted]), None, "{list}");
    }
}

#[test]
fn what_is_more_than_a_literal_is_refused() {
    for list in [
        "1 + 1",
        "now()",
        "a",
        "$1",
        "(SELECT 1)",
        "ARRAY[1]",
        "-'5'",
        "+'5'",
        "+ +5",
        "B'1'",
        "X'1F'",
        "'a' || 'b'",
        "current_user",
        "NOT TRUE",
        "1e3",
        "1.",
        ".5",
        "00.5",
        "-0.0",
        "1_000.5",
        "012345678901",
        "0xFFFFFFFFFF",
        "ROW(1)",
        "'a' COLLATE \"C\"",
        "-(5::int8)",
        "VARIADIC 1",
    ] {
        assert_eq!(values(list, &[]), None, "{list}");
    }
    for (list, wanted) in
        [("1", oid::UUID), ("1", BOOL), ("20240101", DATE), ("1.5", oid::INT8), ("TRUE", oid::INT4), ("1", JSON)]
    {
        assert_eq!(values(list, &[wanted]), None, "{list}");
    }
    for other in ["EXPLAIN EXECUTE q(1)", "CREATE TABLE t AS EXECUTE q(1)", "EXECUTE q(1); EXECUTE q(2)", "SELECT 1"] {
        assert!(arguments(other.as_bytes(), &[]).is_err(), "{other}");
    }
}

/// A text that ends anywhere is refused or read as what it is by itself, and nothing panics.
#[test]
fn texts_may_end_anywhere() {
    let execute = format!("EXECUTE q ('{KEY}'::uuid, E'a\\'b', -1.5, $x$y$x$, NULL, TRUE) /* done */ ;");
    for cut in 0..=execute.len() {
        match arguments(&execute.as_bytes()[..cut], &[oid::UUID]) {
            Ok(values) if values.is_empty() => assert_eq!(execute[..cut].trim_end(), "EXECUTE q"),
            Ok(values) => assert_eq!(values.len(), 6),
            Err(refusal) => assert!(!refusal.message.contains(&KEY[..4])),
        }
    }
    let prepare = "PREPARE \"as\" (uuid, /* as */ text) AS SELECT $2 FROM patients WHERE id = $1 -- as";
    for cut in 0..=prepare.len() {
        if let Ok(preparing) = preparing(&prepare.as_bytes()[..cut]) {
            assert!(preparing.text.starts_with(b"SELECT") && preparing.types.len() == 2, "{cut}");
        }
    }
}
