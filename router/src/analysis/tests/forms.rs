//! What must hold in each place where the grammar takes an expression, and for texts of any size.

use super::*;

/// Wherever an expression may stand: what is forbidden there is found there.
#[test]
fn every_expression_is_looked_at() {
    let analyser = analyser(KeyType::Bigint);
    let with = |form: &str, put: &str| {
        let sql = form.replace('?', put);
        outcome(&analyser, &sql, &crate::NoParams).pop().unwrap_or_default()
    };
    for form in super::super::children::tests::QUERIES {
        let unsaid = if form.starts_with("PREPARE") { "refused 0A000" } else { "refused PW001" };
        assert_eq!(with(form, "(SELECT count(*) FROM patients)"), unsaid, "{form}");
        assert_eq!(with(form, "query_to_xml('SELECT 1', true, true, '')"), "refused PW008", "{form}");
        assert_eq!(with(form, "(('SELECT 1'::text).ts_stat)"), "refused PW008", "{form}");
        assert_eq!(with(form, "set_config('role', 'x', true)"), "refused 0A000", "{form}");
        assert!(!with(form, "abs(1)").contains("refused"), "{form}");
    }
}

/// The same for what servers keep: it runs in statements that do not show it.
#[test]
fn definitions_keep_nothing_that_hides_patients() {
    use super::super::children::tests::{DEFINITIONS, LOCAL_DEFINITIONS};
    let mut local = config(KeyType::Bigint);
    local.sharding.undeclared_tables = pgward_config::Undeclared::Local;
    let local = Analyser::new(&local, &Catalog::builtin());
    let strict = analyser(KeyType::Bigint);
    let with = |analyser: &Analyser, form: &str, put: &str| {
        let sql = form.replace('?', put);
        outcome(analyser, &sql, &crate::NoParams).pop().unwrap_or_default()
    };
    for (form, analyser) in DEFINITIONS
        .iter()
        .flat_map(|form| [(form, &strict), (form, &local)])
        .chain(LOCAL_DEFINITIONS.iter().map(|form| (form, &local)))
    {
        for forbidden in [
            "query_to_xml('SELECT 1', true, true, '')",
            "(SELECT name FROM patients WHERE id = 42)",
            "pg_advisory_lock(1)",
            "pg_advisory_xact_lock(1)",
            "set_config('role', 'x', true)",
        ] {
            assert_eq!(with(analyser, form, forbidden), "refused PW008", "{form} with {forbidden}");
        }
        assert!(!with(analyser, form, "(SELECT line FROM app_log)").contains("refused"), "{form}");
        assert!(!with(analyser, form, "app_writes(now())").contains("refused"), "{form}");
        let unknown = with(analyser, form, "unknown(1)").contains("refused");
        assert_eq!(unknown, !analyser.tables.undeclared_are_local(), "{form}");
    }
}

/// Whatever may be made without being declared.
#[test]
fn temporary_objects_pin_where_undeclared_tables_are_local() {
    let mut config = config(KeyType::Bigint);
    config.sharding.undeclared_tables = pgward_config::Undeclared::Local;
    let analyser = Analyser::new(&config, &Catalog::builtin());
    let found = |sql: &str| outcome(&analyser, sql, &crate::NoParams).pop().unwrap_or_default();
    for sql in [
        "CREATE TABLE pg_temp.t (a int)",
        "CREATE TABLE pg_temp_3.t (a int)",
        "CREATE TEMP SEQUENCE s",
        "SELECT 1 AS a INTO pg_temp.t",
        "CREATE TABLE pg_temp.t AS SELECT 1",
        "CREATE VIEW pg_temp.v AS SELECT 1",
        "CREATE FUNCTION pg_temp.f() RETURNS int RETURN 1",
        "CREATE AGGREGATE pg_temp.a (int) (sfunc = int4pl, stype = int)",
        "CREATE TYPE pg_temp.t AS (a int)",
        "CREATE TYPE pg_temp.t AS ENUM ('a')",
        "CREATE TYPE pg_temp.t AS RANGE (subtype = int)",
        "CREATE DOMAIN pg_temp.d AS int",
    ] {
        assert_eq!(found(sql), "pins", "{sql}");
    }
    assert_eq!(found("CREATE TYPE t AS (a int)"), "write");
    for path in ["pg_temp", "mine, pg_temp", "pg_temp_3, public", "\"$user\", pg_temp"] {
        assert_eq!(found(&format!("SET search_path = {path}")), "refused 0A000", "{path}");
    }
    assert_eq!(found("SET search_path = mine, public, pg_temp"), "set search_path=mine,public,pg_temp");
}

/// What the analysis passes over altogether is found by the look at the whole tree behind it.
#[test]
fn what_nobody_looked_at_is_refused() {
    let analyser = analyser(KeyType::Bigint);
    for form in super::super::children::tests::QUERIES {
        let sql = form.replace('?', "f(1)");
        let tree = pg_raw_parse::parse(&sql).unwrap();
        for raw in tree.iter() {
            let mut walk = super::super::walk::Walk::new(&analyser.tables, sql.as_bytes(), &[]);
            walk.nothing_unseen(raw.stmt());
            assert!(walk.refusal.is_some(), "{sql}");
        }
    }
}

/// With a declared type each use reads the same bytes.
#[test]
fn parameters_of_a_declared_type_may_be_used_in_several_ways() {
    struct One<'a>(u32, &'a [u8]);
    impl Params for One<'_> {
        fn value(&self, _: u16) -> Option<Option<&[u8]>> {
            Some(Some(self.1))
        }
        fn binary(&self, _: u16) -> bool {
            true
        }
        fn oid(&self, _: u16) -> u32 {
            self.0
        }
    }
    let analysed = |key_type, sql: &str, params: One<'_>| outcome(&analyser(key_type), sql, &params).pop().unwrap();
    let sql = "SELECT $1::float8 FROM patients WHERE id = $1";
    // 42.0 as float8 is another number as a bigint.
    assert_eq!(analysed(KeyType::Bigint, sql, One(0, &42f64.to_be_bytes())), "refused PW007");
    assert_eq!(analysed(KeyType::Bigint, sql, One(705, &42f64.to_be_bytes())), "refused PW007");
    assert_eq!(analysed(KeyType::Bigint, sql, One(701, &42f64.to_be_bytes())), "refused PW007");
    assert_eq!(analysed(KeyType::Bigint, sql, One(20, &42i64.to_be_bytes())), "read 42");
    let text = "SELECT $1::text FROM patients WHERE id = $1::int8";
    assert_eq!(analysed(KeyType::Bigint, text, One(0, b"00000042")), "refused PW007");
    let number = "SELECT $1::int8 FROM patients WHERE id = $1::text";
    assert_eq!(analysed(KeyType::Text, number, One(0, b"00000042")), "refused PW007");
    assert_eq!(analysed(KeyType::Text, number, One(25, b"p42")), "read 'p42'");
    assert_eq!(analysed(KeyType::Uuid, "SELECT f($1) FROM patients WHERE id = $1", One(0, &[7; 16])).len(), 37);
}

/// A tree takes up to 170 times the text that it is of, so what is parsed has a bound. Literals are one node each.
#[test]
fn large_texts_are_refused_unparsed() {
    use crate::lexer::MAX_SHAPE_BYTES;
    let analyser = analyser(KeyType::Bigint);
    let refused = |sql: &str| analyser.analyse(sql.as_bytes()).err().map(|refusal| refusal.kind.sqlstate());
    let columns = |count: usize| format!("SELECT a{}", ",a".repeat(count));
    assert_eq!(refused(&columns(MAX_SHAPE_BYTES / 2 + 10)), Some("54000"));
    assert_eq!(refused(&columns(10_000)), None);
    assert_eq!(refused(&format!("{}\\", columns(MAX_SHAPE_BYTES / 2 + 10))), Some("54000"), "not sure");
    assert_eq!(refused(&format!("SELECT 1{}", " ".repeat(MAX_SHAPE_BYTES + 10))), None, "nothing to parse");
    let long = "x".repeat(MAX_SHAPE_BYTES + 10);
    assert_eq!(refused(&format!("SELECT '{long}', /* {long} */ $${long}$$")), None, "long literals");
    // As many parameters as the protocol has.
    let params: Vec<String> = (1..=65_535).map(|n| format!("${n}")).collect();
    assert_eq!(refused(&format!("INSERT INTO app_log (line) VALUES ({})", params.join("), ("))), None);
    let rows = "(1, 'a name', 2.5, NULL), ".repeat(MAX_SHAPE_BYTES / 25);
    assert_eq!(refused(&format!("INSERT INTO app_log VALUES {rows} (1, 'a', 2, NULL)")), None, "{} bytes", rows.len());
    let refusal = analyser.analyse(columns(MAX_SHAPE_BYTES).as_bytes()).unwrap_err();
    assert!(refusal.hint.unwrap().contains("COPY"));
}

/// Each name is looked for among all that it can see.
#[test]
fn work_for_names_is_bounded() {
    let mut config = config(KeyType::Uuid);
    config.sharding.undeclared_tables = pgward_config::Undeclared::Local;
    let analyser = Analyser::new(&config, &Catalog::builtin());
    let found = |sql: String| outcome(&analyser, &sql, &crate::NoParams).pop().unwrap_or_default();
    let many = |of: &str, n: usize| (0..n).map(|i| of.replace('#', &i.to_string())).collect::<String>();
    let columns = |n: usize, tables: usize| format!("SELECT a{} FROM t{}", many(",a", n), many(",t t#", tables));
    assert_eq!(found(columns(500, 100)), "read");
    assert_eq!(found(columns(30_000, 50_000)), "refused 54000");
    assert_eq!(found(format!("SELECT 1 FROM t{}", many(",t#", 1_000))), "read");
    assert_eq!(found(format!("SELECT 1 FROM t{}", many(",t#", 50_000))), "refused 54000");
    let ctes =
        |n: usize| format!("WITH {} d AS (SELECT 1) SELECT 1 FROM d{}", many("c# AS (TABLE d),", n), many(",c#", n));
    assert_eq!(found(ctes(500)), "read");
    assert_eq!(found(ctes(20_000)), "refused 54000");
    let distinct = |n: usize| format!("SELECT 1{} FROM app_log", many(",a#", n));
    assert_eq!(found(distinct(1_600)), "read");
    assert_eq!(found(distinct(50_000)), "refused 54000");
    let derived = |n: usize| format!("SELECT 1{} FROM (SELECT 1{} FROM app_log) s", many(",a", n), many(",a", n));
    assert_eq!(found(derived(1_000)), "read");
    assert_eq!(found(derived(50_000)), "refused 54000");
}

/// Where servers give rows a region by themselves, a row without one may contradict the directory.
#[test]
fn a_region_that_servers_fill_is_listed() {
    let mut catalog = Catalog::builtin();
    catalog.set_columns("public.patients", ["id", "name", "home_region"].map(|name| (name.into(), 0)).to_vec());
    catalog.set_filled("public.patients", ["home_region".into()].into_iter());
    let analyser = Analyser::new(&config(KeyType::Bigint), &catalog);
    let of = |sql: &str| outcome(&analyser, sql, &crate::NoParams).pop().unwrap_or_default();
    for sql in [
        "INSERT INTO patients (id, name) VALUES (42, 'x')",
        "INSERT INTO patients VALUES (42, 'x')",
        "INSERT INTO patients SELECT 42, 'x'",
        "INSERT INTO patients (id, home_region) VALUES (42, DEFAULT)",
        "MERGE INTO patients p USING app_log l ON p.id = 42 WHEN NOT MATCHED THEN INSERT (id) VALUES (42)",
        "COPY patients (id, name) FROM STDIN",
    ] {
        assert_eq!(of(sql), "refused PW013", "{sql}");
    }
    assert_eq!(of("INSERT INTO patients VALUES (42, 'x', 'us-east')"), "write 42@us-east");
    assert_eq!(of("COPY patients FROM STDIN"), "copy-from public.patients key=0 region=2 text");
    let mut hash = config(KeyType::Bigint);
    hash.sharding.strategy = pgward_config::Strategy::Hash;
    let analyser = Analyser::new(&hash, &catalog);
    for sql in ["INSERT INTO patients (id, name) VALUES (42, 'x')", "INSERT INTO patients VALUES (42, 'x', lower('X'))"]
    {
        assert_eq!(outcome(&analyser, sql, &crate::NoParams), ["write 42"], "no directory to contradict: {sql}");
    }
}

/// Types whose bytes in the binary format are not the text that is stored.
#[test]
fn a_region_is_sent_as_text() {
    struct Typed(u32);
    impl Params for Typed {
        fn value(&self, _: u16) -> Option<Option<&[u8]>> {
            Some(Some(b"asia"))
        }
        fn binary(&self, _: u16) -> bool {
            true
        }
        fn oid(&self, _: u16) -> u32 {
            self.0
        }
    }
    let analyser = analyser(KeyType::Bigint);
    let with = |sql: &str, oid: u32| outcome(&analyser, sql, &Typed(oid)).pop().unwrap_or_default();
    let insert = "INSERT INTO patients (id, home_region) VALUES (42, $1)";
    for (oid, expected) in [(0, "write 42@asia"), (25, "write 42@asia"), (1043, "write 42@asia")] {
        assert_eq!(with(insert, oid), expected);
    }
    for oid in [17, 19, 20, 23, 1042] {
        assert_eq!(with(insert, oid), "refused PW013", "{oid}");
    }
    let mixed = "INSERT INTO patients (id, home_region, age) VALUES (42, $1, $1::int4)";
    assert_eq!((&*with(mixed, 0), &*with(mixed, 25)), ("refused PW013", "write 42@asia"));
}

/// Wherever such a table stands.
#[test]
fn a_table_whose_keys_compare_otherwise_is_refused() {
    let mut catalog = Catalog::builtin();
    catalog.set_odd_key("public.patients", "public.patients.id has a length");
    let analyser = Analyser::new(&config(KeyType::Text), &catalog);
    for sql in [
        "SELECT * FROM patients WHERE id = 'abc'",
        "SELECT * FROM encounters e JOIN public.patients p ON p.id = e.patient_id WHERE e.patient_id = 'abc'",
        "INSERT INTO patients (id, home_region) VALUES ('abc  ', 'us-east')",
        "UPDATE patients SET name = 'x' WHERE id = 'abc'",
        "DELETE FROM patients WHERE id = 'abc'",
        "MERGE INTO patients p USING app_log l ON p.id = 'abc' WHEN MATCHED THEN DELETE",
        "COPY patients (id, home_region) FROM STDIN",
        "WITH d AS (DELETE FROM patients WHERE id = 'abc' RETURNING 1) SELECT 1",
        "SELECT 1 FROM app_log WHERE EXISTS (SELECT 1 FROM patients WHERE id = 'abc')",
        "EXPLAIN SELECT * FROM patients WHERE id = 'abc'",
    ] {
        assert_eq!(outcome(&analyser, sql, &crate::NoParams), ["refused PW007"], "{sql}");
    }
    assert_eq!(
        outcome(&analyser, "SELECT * FROM encounters WHERE patient_id = 'abc'", &crate::NoParams),
        ["read 'abc'"]
    );
}
