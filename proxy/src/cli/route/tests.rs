#![allow(clippy::unwrap_used)]
//! Statements in, explanations out, by a small configuration and a directory in a file.

use std::path::Path;

use pgward_config::PatientRegion;
use pgward_router::PatientKey;

use super::*;

const TOML: &str = r#"
[proxy]
database = "ehr"

[[listeners]]
name = "east"
address = "127.0.0.1:6432"
origin = "us-east-1"

[[listeners]]
name = "emergency"
address = "127.0.0.1:6433"
origin = "us-east-1"
class = "emergency"

[[server_roles]]
name = "ehr_app"
password = { env = "SECRET" }

[[users]]
name = "app"
password = { env = "SECRET" }

[sharding]
strategy = "patient_region"
key_type = "bigint"

[[tables]]
name = "patients"
kind = "patient"
key = "id"
region_column = "home_region"
columns = ["id", "home_region", "name"]

[[tables]]
name = "icd10"
kind = "reference"

[[regions]]
id = "us-east-1"

[[regions]]
id = "eu-west-1"
prohibited = [{ region = "us-east-1", reason = "GDPR requires EU data residency" }]

[[shards]]
id = "east"
region = "us-east-1"
patient_regions = ["us-east"]
primary = { url = "postgresql://127.0.0.1:7000/ehr" }
replicas = [{ url = "postgresql://127.0.0.1:7001/ehr" }]

[[shards]]
id = "europe"
region = "eu-west-1"
patient_regions = ["eu-west"]
primary = { url = "postgresql://127.0.0.1:7010/ehr" }

[directory]
path = "patients.dir"
key = { env = "SECRET" }

[audit]
path = "audit.jsonl"
key = { env = "SECRET" }
"#;

/// A configuration beside a directory that a proxy has open: patient 1 in us-east, patient 2 in eu-west.
struct Deployment {
    config: Config,
    _folder: tempfile::TempDir,
    _open: EmbeddedDirectory,
}

fn config(folder: &Path) -> Config {
    let secret = |_: &str| Some("0123456789abcdef0123456789abcdef".to_owned());
    match pgward_config::parse(TOML, &folder.join("pgward.toml"), &secret) {
        Ok(loaded) => loaded.config,
        Err(report) => panic!("{report}"),
    }
}

fn deployment() -> Deployment {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let Directory::Embedded { path, key } = &config.directory else { panic!("an embedded directory") };
    let open = EmbeddedDirectory::open(path, key.expose().as_bytes()).unwrap();
    let patients = [(1, "us-east"), (2, "eu-west")];
    open.register(&patients.map(|(key, region)| (PatientKey::Bigint(key), PatientRegion::new(region)))).unwrap();
    Deployment { config, _folder: folder, _open: open }
}

fn args(listener: &str, sql: &str, params: &[&str]) -> Args {
    Args {
        config: "pgward.toml".into(),
        user: None,
        listener: Some(listener.into()),
        class: None,
        json: false,
        sql: sql.into(),
        params: params.iter().map(ToString::to_string).collect(),
    }
}

#[track_caller]
fn check(args: &Args, expected: &[&str]) {
    let table = explain(&deployment().config, args).unwrap().to_string();
    for row in expected {
        assert!(table.contains(row), "{row:?} in\n{table}");
    }
}

#[test]
fn a_read_is_explained_with_its_patient_and_candidates() {
    check(
        &args("east", "SELECT name FROM patients WHERE id = $1", &["1"]),
        &[
            "kind         read (nothing but reads was found)",
            "tables       public.patients (patient)",
            " by $1: us-east on east, epoch 1",
            "candidates   east/replica-1",
            "target       east/replica-1 (replica in us-east-1)",
            "note         offline: every node is taken to be up and idle",
        ],
    );
}

#[test]
fn emergencies_writes_and_registrations_go_to_the_primary() {
    let read = "SELECT name FROM patients WHERE id = 1";
    check(
        &args("emergency", read, &[]),
        &["emergency: class emergency always uses the primary", "pool         emergency"],
    );
    let insert = "INSERT INTO patients (id, home_region, name) VALUES (9, 'us-east', 'x')";
    check(&args("east", insert, &[]), &["unknown; the statement registers the patient", "target       east/primary"]);
}

#[test]
fn refusals_are_explained() {
    let of = |sql: &str| args("east", sql, &[]);
    check(
        &of("SELECT * FROM patients WHERE id = 2"),
        &["refused      PW005 sovereignty", "GDPR requires EU data residency"],
    );
    check(&of("SELECT * FROM patients WHERE id = 3"), &["refused      PW004", "literal at character 35: unknown to"]);
    check(&of("SELECT * FROM patients"), &["refused      PW001"]);
    check(&of("SELEC"), &["refused      42601"]);
}

#[test]
fn what_rows_or_the_session_decide_is_said_so() {
    check(&args("east", "COPY patients FROM STDIN", &[]), &["decided by   the rows"]);
    check(&args("east", "BEGIN READ ONLY", &[]), &["transaction  read-only", "decided by   the session"]);
    check(
        &args("east", "BEGIN; SELECT * FROM patients WHERE id = 1", &[]),
        &["statement    2 of 2", "transaction  read-write", "target       east/primary"],
    );
}

#[test]
fn json_carries_the_same() {
    let explanation = explain(&deployment().config, &args("east", "SELECT * FROM patients WHERE id = 1", &[])).unwrap();
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["outcome"], "forwarded");
    assert_eq!(json["node"], "east/replica-1");
    assert_eq!(json["statements"][0]["patients"][0]["region"], "us-east");
}

#[test]
fn what_is_not_configured_is_an_error() {
    let deployment = deployment();
    let error = |args: &Args| explain(&deployment.config, args).unwrap_err().to_string();
    assert_eq!(error(&args("west", "SELECT 1", &[])), "no listener \"west\"; there are: east, emergency");
    let nobody = Args { user: Some("x".into()), ..args("east", "SELECT 1", &[]) };
    assert_eq!(error(&nobody), "no user \"x\"; there are: app");
    let class = |word: &str| Args { class: Some(word.into()), ..args("east", "SELECT 1", &[]) };
    assert_eq!(error(&class("urgent")), "no class \"urgent\"; there are: emergency, critical, high, normal, low");
    assert_eq!(error(&class("emergency")), "user app may ask for normal at most (PW009)");
}

#[test]
fn without_a_directory_every_patient_is_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let explanation =
        explain(&config(folder.path()), &args("east", "SELECT * FROM patients WHERE id = 1", &[])).unwrap();
    assert!(explanation.to_string().contains("does not exist yet: every patient is unknown"));
}

#[test]
fn a_plain_pooler_has_no_route_to_tell() {
    let secret = |_: &str| Some("0123456789abcdef0123456789abcdef".to_owned());
    let text = include_str!("../../../../plain.toml");
    let config = pgward_config::parse(text, Path::new("plain.toml"), &secret).unwrap().config;
    let error = explain(&config, &args("main", "SELECT 1", &[])).unwrap_err();
    assert!(error.to_string().contains("plain pooler"), "{error}");
}
