//! The corpus, and what must hold for any text.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::Arc;

use pgward_config::{Config, Function, KeyType, Table, TableKind};

use crate::evidence::{Evidence, Params, PatientKey, Unknown};
use crate::statement::{Action, Analysed, CopyFormat};
use crate::{Analyser, Cascade, Catalog};

mod forms;

/// The tables that the corpus speaks of.
fn config(key_type: KeyType) -> Config {
    let table = |schema: &str, name: &str, kind, key: Option<&str>| Table {
        schema: schema.into(),
        name: name.into(),
        kind,
        key: key.map(Into::into),
        region: (name == "patients").then(|| "home_region".into()),
        columns: (name == "medications").then(|| vec!["id".into(), "patient_id".into(), "name".into()]),
    };
    let function = |name: &str, reads_only| Function { name: name.into(), reads_only };
    let mut config = crate::sample::config();
    config.sharding.key_type = key_type;
    config.tables = vec![
        table("public", "patients", TableKind::Patient, Some("id")),
        table("public", "encounters", TableKind::Patient, Some("patient_id")),
        table("public", "observations", TableKind::Patient, Some("patient_id")),
        table("public", "medications", TableKind::Patient, Some("patient_id")),
        table("clinic", "visits", TableKind::Patient, Some("patient_id")),
        table("public", "icd_codes", TableKind::Reference, None),
        table("public", "app_log", TableKind::Local, None),
        table("public", "pgbench_accounts", TableKind::Local, None),
    ];
    config.functions = vec![function("app_reads", true), function("app_writes", false)];
    config
}

fn analyser(key_type: KeyType) -> Analyser {
    Analyser::new(&config(key_type), &Catalog::builtin())
}

/// The parameters of the corpus.
struct CorpusParams(Vec<Option<Vec<u8>>>);

impl CorpusParams {
    fn new(key_type: KeyType) -> Self {
        let one = |n: u32| match key_type {
            KeyType::Uuid => format!("00000000-0000-0000-0000-000000000{n}"),
            KeyType::Bigint => n.to_string(),
            KeyType::Text => format!("p{n}"),
        };
        let mut values: Vec<Option<Vec<u8>>> = (101..=106).map(|n| Some(one(n).into_bytes())).collect();
        values.extend([None, Some(format!("{{{},{}}}", one(201), one(202)).into_bytes()), None]);
        Self(values)
    }
}

impl Params for CorpusParams {
    fn value(&self, n: u16) -> Option<Option<&[u8]>> {
        if n == 7 { None } else { self.0.get(usize::from(n) - 1).map(|value| value.as_deref()) }
    }
    fn binary(&self, _: u16) -> bool {
        false
    }
    fn oid(&self, _: u16) -> u32 {
        0
    }
}

fn show_evidence(evidence: &Evidence) -> String {
    evidence.mentions.iter().fold(String::new(), |shown, mention| {
        let key = match &mention.key {
            PatientKey::Bigint(key) => key.to_string(),
            PatientKey::Text(key) => format!("'{}'", String::from_utf8_lossy(key)),
            PatientKey::Uuid(key) => format!("{:x}", u128::from_be_bytes(*key)),
        };
        let region = mention.region.as_ref().map(|region| format!("@{region}"));
        let region = region.map(|region| match mention.unknown {
            Unknown::Register => region,
            Unknown::Place => region.replace('@', "="),
            Unknown::Refuse => region.replace('@', "~"),
        });
        let region = region.unwrap_or_default();
        format!("{shown} {key}{region}")
    })
}

fn show_action(analyser: &Analyser, analysed: &Analysed, number: usize, sql: &str) -> String {
    let statement = &analysed.shape.statements[number];
    let named = |word: &str, name: &Option<Arc<str>>| match name {
        Some(name) => format!("{word} {name}"),
        None => word.to_owned(),
    };
    let yes = |word: &str, suffix: &str, yes: bool| format!("{word}{}", if yes { suffix } else { "" });
    match &statement.action {
        Action::Run => if statement.reads_only { "read" } else { "write" }.into(),
        Action::Begin { read_only, .. } => yes("begin", "-read-only", *read_only),
        Action::Commit { chain } => yes("commit", "-and-chain", *chain),
        Action::Rollback { chain } => yes("rollback", "-and-chain", *chain),
        Action::Savepoint(name) => format!("savepoint {name}"),
        Action::Release(name) => format!("release {name}"),
        Action::RollbackTo(name) => format!("rollback-to {name}"),
        Action::TwoPhase => "two-phase".into(),
        Action::Set(setting) => {
            let values = analyser.setting(analysed, setting, sql.as_bytes()).join(",");
            format!("{} {}={values}", yes("set", "-local", setting.local), setting.name)
        }
        Action::SetTransaction { read_only } => yes("set-transaction", "-read-only", *read_only),
        Action::Reset(name) => named("reset", name),
        Action::Show(name) => format!("show {name}"),
        Action::Discard { all } => yes("discard", "-all", *all),
        Action::Prepare(name) => format!("prepare {name}"),
        Action::PreparePatients(name) => format!("prepare-patients {name}"),
        Action::Execute(name) => format!("execute {name}"),
        Action::Deallocate(name) => named("deallocate", name),
        Action::CopyFrom(copy) => {
            let position = |word: &str, at: Option<usize>| at.map(|at| format!(" {word}={at}")).unwrap_or_default();
            let format = match copy.format {
                CopyFormat::Text { .. } => "text",
                CopyFormat::Csv { .. } => "csv",
                CopyFormat::Binary => "binary",
            };
            let (key, region) = (position("key", copy.key), position("region", copy.region));
            format!("copy-from {}{key}{region} {format}", copy.table)
        }
        Action::CopyTo => "copy-to".into(),
        Action::Declare { hold, .. } => yes("declare", "-hold", *hold),
        Action::Fetch(_) | Action::Close(_) => "cursor".into(),
        Action::Listen => "listen".into(),
        Action::Pins => "pins".into(),
    }
}

/// One line for each statement of the text.
fn outcome(analyser: &Analyser, sql: &str, params: &dyn Params) -> Vec<String> {
    let analysed = match analyser.analyse(sql.as_bytes()) {
        Ok(analysed) => analysed,
        Err(refusal) => return vec![format!("error {}", refusal.kind.sqlstate())],
    };
    (0..analysed.shape.statements.len())
        .map(|number| match analyser.evidence(&analysed, number, sql.as_bytes(), params) {
            Ok(evidence) => {
                let sets = analyser.set_configs(&analysed, number, sql.as_bytes(), params);
                let sets: String = sets.iter().map(|(name, value)| format!(" {name}={value}")).collect();
                format!("{}{}{sets}", show_action(analyser, &analysed, number, sql), show_evidence(&evidence))
            }
            Err(refusal) => format!("refused {}", refusal.kind.sqlstate()),
        })
        .collect()
}

/// The statements of the corpus with their key type, expected outcomes and line.
fn corpus() -> Vec<(usize, KeyType, String, Vec<String>)> {
    let mut cases: Vec<(usize, KeyType, String, Vec<String>)> = Vec::new();
    let (mut key_type, mut sql, mut answered) = (KeyType::Bigint, String::new(), true);
    for (number, line) in include_str!("corpus.txt").lines().enumerate() {
        if let Some(word) = line.strip_prefix("keys ") {
            key_type = match word {
                "uuid" => KeyType::Uuid,
                "text" => KeyType::Text,
                _ => KeyType::Bigint,
            };
        } else if let Some(outcome) = line.strip_prefix("=> ") {
            if !answered {
                cases.push((number, key_type, std::mem::take(&mut sql), Vec::new()));
            }
            answered = true;
            cases.last_mut().unwrap().3.push(outcome.to_owned());
        } else if !line.is_empty() && !line.starts_with('#') {
            if !sql.is_empty() {
                sql.push('\n');
            }
            sql.push_str(line);
            answered = false;
        }
    }
    cases
}

#[test]
fn corpus_is_analysed_as_written() {
    let analysers: HashMap<&str, Analyser> = [KeyType::Uuid, KeyType::Bigint, KeyType::Text]
        .into_iter()
        .map(|key_type| (key_type.as_str(), analyser(key_type)))
        .collect();
    let mut wrong = String::new();
    let cases = corpus();
    assert!(cases.len() > 120, "only {} statements", cases.len());
    for (line, key_type, sql, expected) in &cases {
        let params = CorpusParams::new(*key_type);
        // Parsed, then from the cache, then by a template if there was room for one.
        for _ in 0..3 {
            let found = outcome(&analysers[key_type.as_str()], sql, &params);
            if found != *expected {
                wrong += &format!("line {line}: {sql}\n  expected {expected:?}\n  found    {found:?}\n");
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// What a text is has nothing to do with the values in it.
#[test]
fn shapes_do_not_depend_on_values() {
    for (_, key_type, sql, _) in corpus() {
        let fresh = || analyser(key_type).analyse(sql.as_bytes()).ok().map(|a| format!("{:?}", a.shape));
        let with_cache = analyser(key_type);
        // The same statement with other strings and digits, analysed first, must leave the same shape in the cache.
        let other: String = sql
            .chars()
            .enumerate()
            .map(|(at, c)| {
                let parameter = sql[..at.min(sql.len())].ends_with('$') || !sql.is_ascii();
                match c {
                    '1'..='8' if !parameter => char::from_digit(9 - c.to_digit(10).unwrap(), 10).unwrap(),
                    c => c,
                }
            })
            .collect();
        if with_cache.analyse(other.as_bytes()).is_err() {
            continue;
        }
        let found = with_cache.analyse(sql.as_bytes()).ok().map(|a| format!("{:?}", a.shape));
        let keeps_literals = ["COPY", "CREATE", "DO "].iter().any(|word| sql.starts_with(word));
        if sql.is_ascii() && !keeps_literals && !sql.contains("U&") && !sql.contains("E'") {
            assert_eq!(found, fresh(), "{sql}\n{other}");
        }
    }
}

/// No text may harm the process, whatever its depth; the test's thread has the stack of a worker.
#[test]
fn depth_is_bounded() {
    let analyser = analyser(KeyType::Bigint);
    for depth in [50, 150, 1_000, 20_000] {
        let nest =
            |open: &str, middle: &str, close: &str| format!("{}{middle}{}", open.repeat(depth), close.repeat(depth));
        let texts = [
            format!("SELECT {}1", "1+".repeat(depth)),
            format!("SELECT * FROM patients WHERE {}id = 1", "NOT ".repeat(depth)),
            format!("SELECT {}", nest("(", "1", ")")),
            nest("SELECT (", "SELECT 1", ")"),
            format!("SELECT * FROM {}", nest("(SELECT * FROM ", "patients", ") x")),
            format!("SELECT * FROM patients WHERE {}", nest("(id = 1 OR ", "id = 2", ")")),
            format!("SELECT * FROM patients WHERE {}", nest("(id = 1 AND ", "id = 2", ")")),
            format!("SELECT 1{}", " UNION SELECT 1".repeat(depth)),
            format!("SELECT * FROM patients{}", " CROSS JOIN patients".repeat(depth)),
            format!("SELECT {}", nest("ARRAY[", "1", "]")),
            format!("SELECT {}", nest("abs(", "1", ")")),
            format!("SELECT 1{}", "::int".repeat(depth)),
            nest("WITH a AS (", "SELECT 1", ") SELECT 1"),
            format!("EXPLAIN {}SELECT 1", "EXPLAIN ".repeat(depth)),
            format!("SELECT 1{}", ";SELECT 1".repeat(depth)),
            nest("/*", "SELECT 1", "*/"),
            format!("SELECT * FROM patients WHERE id IN (1{})", ",1".repeat(depth)),
        ];
        for text in texts {
            let _ = outcome(&analyser, &text, &CorpusParams::new(KeyType::Bigint));
        }
    }
    assert_eq!(outcome(&analyser, &format!("SELECT {}1", "1+".repeat(20_000)), &crate::NoParams), ["read"]);
}

#[test]
fn texts_cut_anywhere_are_answered() {
    for (_, key_type, sql, _) in corpus().into_iter().step_by(5) {
        let analyser = analyser(key_type);
        for end in 0..sql.len() {
            if let Ok(analysed) = analyser.analyse(&sql.as_bytes()[..end]) {
                for number in 0..=analysed.shape.statements.len() {
                    // The text of another statement: wrong values at worst, never a panic.
                    let _ = analyser.evidence(&analysed, number, b"SELECT 'x'", &CorpusParams::new(key_type));
                }
            }
        }
    }
}

#[test]
fn texts_that_are_no_statements_are_refused() {
    let analyser = analyser(KeyType::Bigint);
    let refused = |sql: &[u8]| {
        let refusal = analyser.analyse(sql).unwrap_err();
        (refusal.message.into_owned(), refusal.position)
    };
    assert_eq!(refused(b"SELECT \xff"), ("invalid byte sequence for encoding \"UTF8\"".into(), None));
    for known in ["parsed", "in the cache", "a template"] {
        analyser.analyse(b"SELECT 'x'").unwrap();
        assert_eq!(
            analyser.analyse(b"SELECT '\xff'").unwrap_err().kind.sqlstate(),
            "22021",
            "though its shape is {known}"
        );
    }
    assert_eq!(refused(b"SELECT\0 1").1, None);
    assert_eq!(refused(b"SELEC 1"), ("syntax error at or near \"SELEC\"".into(), Some(1)));
    assert_eq!(refused(b"SELECT FROM FROM x"), ("syntax error at or near \"FROM\"".into(), Some(13)));
    assert_eq!(refused(b"SELECT * FROM"), ("syntax error at end of input".into(), Some(14)));
    assert_eq!(refused("SELECT 'ä' 'secret'".as_bytes()), ("syntax error".into(), Some(12)));
    assert_eq!(refused(b"SELECT 1 'secret").0, "unterminated quoted string");
    assert!(analyser.analyse(b"  -- nothing").unwrap().shape.statements.is_empty());
    assert!(analyser.analyse(b"").unwrap().shape.statements.is_empty());
}

#[test]
fn refusals_say_what_to_do() {
    let analyser = analyser(KeyType::Bigint);
    let refused = |sql: &str| {
        let analysed = analyser.analyse(sql.as_bytes()).unwrap();
        let refusal = analyser.evidence(&analysed, 0, sql.as_bytes(), &crate::NoParams).unwrap_err();
        (refusal.message.into_owned(), refusal.hint.unwrap_or_default().into_owned())
    };
    for sql in ["DO 'x'", "CALL p()", "CREATE FUNCTION f() RETURNS int RETURN 1", "CREATE PROCEDURE p() AS 'x'"] {
        let (message, hint) = refused(sql);
        assert!(message.contains("cannot be analysed"), "{sql}: {message}");
        assert!(hint.contains("on the shard directly"), "{sql}: {hint}");
    }
    let users =
        ["CREATE ROLE x", "ALTER USER x PASSWORD 'y'", "ALTER ROLE x SET jit = off", "DROP ROLE x", "GRANT x TO y"];
    for sql in users {
        assert!(refused(sql).1.contains("[[users]]"), "{sql}");
    }
    assert!(refused("SELECT * FROM tt").1.contains("pg_temp.tt"));
    assert!(refused("INSERT INTO \"T t\" VALUES (1)").1.contains("pg_temp.\"T t\""));
    assert!(!refused("SELECT * FROM other.tt").1.contains("pg_temp"));
}

#[test]
fn refused_reads_are_still_reads() {
    let analyser = analyser(KeyType::Bigint);
    let reads = |sql: &str| {
        let analysed = analyser.analyse(sql.as_bytes()).unwrap();
        analyser.evidence(&analysed, 0, sql.as_bytes(), &crate::NoParams).unwrap_err();
        analysed.shape.statements[0].reads_only
    };
    assert!(reads("SELECT count(*) FROM patients"));
    assert!(reads("SELECT * FROM nowhere"));
    assert!(!reads("UPDATE patients SET name = 'x'"));
    assert!(!reads("DELETE FROM nowhere"));
    assert!(!reads("SELECT txid_current() FROM patients"));
    assert!(!reads("SELECT * FROM patients FOR UPDATE"));
    assert!(!reads("COPY patients FROM STDIN (FORMAT binary)"));
    assert!(!reads("DO 'x'"));
}

#[test]
fn set_config_reads_parameters_of_text_alone() {
    struct One(u32, &'static [u8]);
    impl Params for One {
        fn value(&self, n: u16) -> Option<Option<&[u8]>> {
            (n == 1).then_some(Some(self.1))
        }
        fn binary(&self, _: u16) -> bool {
            true
        }
        fn oid(&self, _: u16) -> u32 {
            self.0
        }
    }
    let analyser = analyser(KeyType::Bigint);
    let sql = b"SELECT set_config('jit', $1, false)";
    let analysed = analyser.analyse(sql).unwrap();
    for oid in [0, 25, 1043] {
        assert!(analyser.evidence(&analysed, 0, sql, &One(oid, b"off")).is_ok());
        assert_eq!(analyser.set_configs(&analysed, 0, sql, &One(oid, b"off")), [("jit".into(), "off".into())]);
    }
    for params in [One(23, b"\0\0\0\x01"), One(25, b"\xff")] {
        assert!(analyser.evidence(&analysed, 0, sql, &params).is_err());
        assert!(analyser.set_configs(&analysed, 0, sql, &params).is_empty());
    }
}

/// Statements of PostgreSQL's own regression tests, where the folder of their files is given.
#[test]
fn regression_tests_are_answered() {
    let Some(folder) = std::env::var_os("PGWARD_REGRESS_SQL") else { return };
    let mut config = config(KeyType::Uuid);
    config.sharding.undeclared_tables = pgward_config::Undeclared::Local;
    let analyser = Analyser::new(&config, &Catalog::builtin());
    for file in std::fs::read_dir(folder).unwrap() {
        let Ok(text) = std::fs::read_to_string(file.unwrap().path()) else { continue };
        for sql in text.split_inclusive(";\n") {
            let Ok(analysed) = analyser.analyse(sql.as_bytes()) else { continue };
            for statement in &analysed.shape.statements {
                let lost = statement.refusal.as_ref().is_some_and(|r| r.message.contains("cannot be analysed"));
                // Of anything but tables the bindings cannot read it, and no server takes it.
                assert!(!lost || sql.contains("CREATE STATISTICS"), "{sql}");
            }
        }
    }
}

/// `CopyGetAttnums` (copy.c) leaves generated columns out; an INSERT without a list counts them.
/// An extension's functions are taken for granted where it was looked into, or where the operator vouches for them.
#[test]
fn functions_of_unknown_extensions_are_refused() {
    let mut catalog = Catalog::builtin();
    for (name, source) in [
        ("st_estimatedextent", "postgis"),
        ("st_area", "postgis"),
        ("length", "postgis"),
        ("digest", "pgcrypto"),
        ("pg_lookup", "adminish"),
    ] {
        catalog.add_function(name, true);
        catalog.add_source(name, source);
    }
    let mut config = config(KeyType::Bigint);
    config.functions.push(Function { name: "st_area".into(), reads_only: true });
    let analyser = Analyser::new(&config, &catalog);
    for (sql, expected) in [
        ("SELECT st_estimatedextent('public', 'patients', 'home')", "refused PW008"),
        ("SELECT gis.st_estimatedextent('public', 'patients', 'home')", "refused PW008"),
        ("SELECT ('patients'::text).st_estimatedextent", "refused PW008"),
        ("SELECT pg_catalog.pg_lookup('patients')", "refused PW008"),
        ("SELECT st_area(shape) FROM app_log", "read"),
        ("SELECT digest(line, 'sha256') FROM app_log", "read"),
        ("SELECT length('x')", "refused PW008"),
        ("SELECT pg_catalog.length('x')", "read"),
    ] {
        assert_eq!(outcome(&analyser, sql, &crate::NoParams), [expected], "{sql}");
    }
}

/// Rows of patients that a foreign key changes or deletes with rows of a local table.
#[test]
fn what_patients_hang_on_is_left_alone() {
    let mut catalog = Catalog::builtin();
    let cascade = |on_delete, on_update: Option<&[&str]>| Cascade {
        patients: "public.encounters".into(),
        on_delete,
        on_update: on_update.map(|columns| columns.iter().map(|&column| column.into()).collect()),
    };
    catalog.add_cascade("public.app_log", cascade(true, Some(&["id"])));
    catalog.add_cascade("public.pgbench_accounts", cascade(false, Some(&["aid", "bid"])));
    catalog.add_cascade("app.a_view", cascade(true, None));
    let strict = config(KeyType::Bigint);
    let mut local = config(KeyType::Bigint);
    local.sharding.undeclared_tables = pgward_config::Undeclared::Local;
    for (config, sql, expected) in [
        (&strict, "DELETE FROM app_log WHERE id = 1", "refused PW008"),
        (&strict, "DELETE FROM public.app_log AS a WHERE a.id = 1", "refused PW008"),
        (&strict, "DELETE FROM pgbench_accounts", "write"),
        (&strict, "WITH gone AS (DELETE FROM app_log RETURNING id) SELECT * FROM gone", "refused PW008"),
        (&strict, "UPDATE app_log SET line = 'x', id = id + 1", "refused PW008"),
        (&strict, "UPDATE app_log SET (line, id) = ('x', 1)", "refused PW008"),
        (&strict, "UPDATE app_log SET line = 'x'", "write"),
        (&strict, "UPDATE pgbench_accounts SET bid = 1", "refused PW008"),
        (&strict, "INSERT INTO app_log (id) VALUES (1)", "write"),
        (&strict, "INSERT INTO app_log (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET id = 2", "refused PW008"),
        (&strict, "INSERT INTO app_log (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET line = 'x'", "write"),
        (&strict, "MERGE INTO app_log USING icd_codes ON true WHEN MATCHED THEN DELETE", "refused PW008"),
        (&strict, "MERGE INTO app_log USING icd_codes ON true WHEN MATCHED THEN UPDATE SET id = 1", "refused PW008"),
        (&strict, "MERGE INTO app_log USING icd_codes ON true WHEN MATCHED THEN UPDATE SET line = 'x'", "write"),
        (&strict, "PREPARE p AS DELETE FROM app_log", "refused PW008"),
        (&strict, "EXPLAIN ANALYZE DELETE FROM app_log", "refused PW008"),
        (&strict, "SELECT * FROM app_log FOR UPDATE", "write"),
        (&strict, "ALTER TABLE app_log RENAME TO pgbench_accounts", "refused PW008"),
        (&strict, "ALTER TABLE app_log ADD up int REFERENCES pgbench_accounts ON DELETE CASCADE", "refused PW008"),
        (&strict, "CREATE OR REPLACE VIEW pgbench_accounts AS SELECT * FROM app_log", "refused PW008"),
        (&strict, "CREATE INDEX ON app_log (id)", "write"),
        (&local, "UPDATE app.a_view SET whatever = 1", "refused PW008"),
        (&local, "DELETE FROM a_view", "refused PW008"),
        (&local, "DELETE FROM another.a_view", "write"),
        (&local, "SELECT * FROM a_view", "read"),
    ] {
        let analyser = Analyser::new(config, &catalog);
        assert_eq!(outcome(&analyser, sql, &crate::NoParams), [expected], "{sql}");
    }
}

/// A name without a schema means the declared table, or nothing.
#[test]
fn names_that_may_mean_another_relation_are_refused() {
    let mut catalog = Catalog::builtin();
    catalog.add_shadow("app", "patients", true);
    catalog.add_shadow("public", "visits", true);
    catalog.add_shadow("archive", "encounters", false);
    let strict = config(KeyType::Bigint);
    let mut local = config(KeyType::Bigint);
    local.sharding.undeclared_tables = pgward_config::Undeclared::Local;
    for (config, sql, expected) in [
        (&strict, "SELECT * FROM patients WHERE id = 42", "refused PW003"),
        (&strict, "SELECT * FROM public.patients WHERE id = 42", "read 42"),
        (&strict, "SELECT * FROM encounters WHERE patient_id = 42", "read 42"),
        (&strict, "SELECT * FROM visits WHERE patient_id = 42", "refused PW003"),
        (&strict, "SELECT * FROM clinic.visits WHERE patient_id = 42", "read 42"),
        (&strict, "SELECT * FROM app.patients", "refused PW003"),
        (&strict, "INSERT INTO patients (id, home_region) VALUES (1, 'x')", "refused PW003"),
        (&strict, "UPDATE patients SET name = 'x' WHERE id = 42", "refused PW003"),
        (&strict, "DELETE FROM patients WHERE id = 42", "refused PW003"),
        (&strict, "MERGE INTO patients USING icd_codes ON id = 42 WHEN MATCHED THEN DELETE", "refused PW003"),
        (&strict, "COPY patients (id, home_region) FROM STDIN", "refused PW003"),
        (&strict, "COPY patients TO STDOUT", "refused PW003"),
        (&strict, "SELECT 1 FROM icd_codes WHERE EXISTS (TABLE patients)", "refused PW003"),
        (&local, "SELECT * FROM patients WHERE id = 42", "refused PW003"),
        (&local, "SET search_path = archive, public", "refused 0A000"),
        (&local, "SET search_path = 'public, archive'", "refused 0A000"),
        (&local, "SET search_path = clinic, public", "set search_path=clinic,public"),
        (&local, "ALTER ROLE app SET search_path = archive", "refused PW008"),
        (&local, "ALTER DATABASE healthcare SET search_path = archive", "refused PW008"),
        // Nor is one made.
        (&local, "CREATE TABLE another.observations (id int)", "refused PW008"),
        (&local, "CREATE VIEW another.observations AS SELECT 1", "refused PW008"),
        (&local, "CREATE TABLE another.observations AS SELECT 1", "refused PW008"),
        (&local, "CREATE FOREIGN TABLE another.observations (id int) SERVER s", "refused PW008"),
        (&local, "ALTER TABLE something SET SCHEMA another", "write"),
        (&local, "ALTER TABLE public.icd SET SCHEMA another", "write"),
        (&local, "ALTER TABLE another.notes RENAME TO observations", "refused PW008"),
        (&local, "ALTER TABLE another.notes RENAME note TO observations", "write"),
        (&local, "ALTER TABLE another.app_log SET SCHEMA third", "refused PW008"),
        (&strict, "CREATE TEMP TABLE observations (id int)", "refused PW008"),
        (&strict, "CREATE TABLE pg_temp.observations (id int)", "refused PW008"),
        (&strict, "SELECT 1 AS id INTO TEMP observations", "refused PW008"),
        (&strict, "CREATE TEMP VIEW app_log AS SELECT 1", "refused PW008"),
        (&strict, "ALTER TABLE pg_temp.notes RENAME TO observations", "refused PW008"),
        (&strict, "CREATE TEMP TABLE notes (id int)", "pins"),
    ] {
        let analyser = Analyser::new(config, &catalog);
        assert_eq!(outcome(&analyser, sql, &crate::NoParams), [expected], "{sql}");
    }
}

#[test]
fn rows_of_a_copy_have_no_values_of_generated_columns() {
    let mut catalog = Catalog::builtin();
    let columns = ["search", "id", "home_region"].map(|name| (Arc::from(name), 25));
    catalog.set_columns("public.patients", columns.to_vec());
    catalog.set_generated("public.patients", [Arc::from("search")].into_iter());
    let analyser = Analyser::new(&config(KeyType::Uuid), &catalog);
    let copy = |sql: &str| match &analyser.analyse(sql.as_bytes()).unwrap().shape.statements[0].action {
        Action::CopyFrom(copy) => (copy.key, copy.region, copy.columns.as_ref().unwrap().len()),
        other => panic!("{other:?}"),
    };
    assert_eq!(copy("COPY patients FROM STDIN"), (Some(0), Some(1), 2));
    assert_eq!(copy("COPY patients (home_region, id) FROM STDIN"), (Some(1), Some(0), 2));
}

/// Not a test of speed: prints what the hot path takes (`cargo test --release -- --ignored --nocapture hot_path`).
#[test]
#[ignore = "prints a measurement"]
fn hot_path_timing() {
    let analyser = analyser(KeyType::Uuid);
    let literal =
        "SELECT id, name, born FROM patients WHERE id = '550e8400-e29b-41d4-a716-446655440000' AND name <> 'x' LIMIT 1";
    let param = "SELECT id, name, born FROM patients WHERE id = $1 AND name <> 'x' LIMIT 1";
    for sql in [literal, param] {
        let params = CorpusParams::new(KeyType::Uuid);
        let analysed = analyser.analyse(sql.as_bytes()).unwrap();
        let time = |what: &str, work: &dyn Fn()| {
            let best = (0..20).map(|_| {
                let start = std::time::Instant::now();
                (0..10_000).for_each(|_| work());
                start.elapsed().as_nanos() / 10_000
            });
            println!("{what}: {} ns", best.min().unwrap());
        };
        time("analyse (cached)", &|| drop(std::hint::black_box(analyser.analyse(sql.as_bytes()))));
        time("evidence", &|| {
            let _ = std::hint::black_box(analyser.evidence(&analysed, 0, sql.as_bytes(), &params));
        });
        time("analyse (parsed)", &|| {
            let (mut buffer, mut literals) = (Vec::new(), crate::lexer::Literals::new());
            let lexed = crate::lexer::lex(sql.as_bytes(), &mut buffer, &mut literals, crate::lexer::Cut::Neutral);
            let _ = std::hint::black_box(super::shape(&analyser.tables, sql.as_bytes(), &literals, lexed.params));
        });
        let lexer = std::cell::RefCell::new((Vec::new(), crate::lexer::Literals::new()));
        time("lex", &|| {
            let (buffer, literals) = &mut *lexer.borrow_mut();
            std::hint::black_box(crate::lexer::lex(sql.as_bytes(), buffer, literals, crate::lexer::Cut::Neutral));
        });
    }
}
