//! A plain pooler's file: the one that ships is accepted, and what has no meaning in one is refused where it stands.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;

use pgward_config::{Config, Loaded, Plain, PoolKind, PoolMode, Report, Sources, parse_with};

const SHIPPED: &str = include_str!("../../plain.toml");

fn read(text: &str) -> Result<Loaded, Report> {
    let env = |name: &str| name.starts_with("PGWARD_").then(|| format!("value-of-{name}"));
    let file = |_: &Path| Err(std::io::Error::from(std::io::ErrorKind::NotFound));
    parse_with(
        text,
        Path::new("plain.toml"),
        &Sources { env: &env, file: &file, real: &Path::to_path_buf, salt: &|_| [7; 16] },
    )
}

fn shipped() -> Config {
    read(SHIPPED).unwrap_or_else(|report| panic!("{report}")).config
}

/// Replaces a piece of the file that ships, and claims that the report says these words, and no other error.
fn one_mistake(from: &str, to: &str, says: &[&str]) {
    assert_eq!(SHIPPED.matches(from).count(), 1, "{from:?} must be in the file once");
    let report = read(&SHIPPED.replace(from, to)).err().unwrap_or_else(|| panic!("accepted: {to}")).to_string();
    for word in says {
        assert!(report.contains(word), "expected {word:?} in:\n{report}");
    }
    assert!(report.contains("\n1 error\n"), "{report}");
}

/// The same with something more before [http].
fn one_too_many(more: &str, says: &[&str]) {
    one_mistake("[http]\n", &format!("{more}\n[http]\n"), says);
}

#[test]
fn what_ships_is_accepted_without_a_warning() {
    let loaded = read(SHIPPED).unwrap_or_else(|report| panic!("{report}"));
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings_report());
}

#[test]
fn one_user_stands_for_all() {
    let config = shipped();
    let names: Vec<&str> = config.users.iter().map(|user| &*user.name).collect();
    assert_eq!(names, [Plain::ANYBODY]);
    assert_eq!(config.users[0].pool_mode, PoolMode::Session);
    assert!(PoolKind::ALL.iter().all(|kind| config.pools[kind.index()].min == 0), "nothing is opened ahead");
}

#[test]
fn what_it_calls_a_default_is_the_default() {
    let text = SHIPPED.replace("pool_mode = \"session\"\n", "").replace("max_pools = 100\n", "");
    let config = read(&text).unwrap_or_else(|report| panic!("{report}")).config;
    assert_eq!(config.plain, Some(Plain { pool_mode: PoolMode::Transaction, max_pools: 100 }));
    let plain = shipped().plain.unwrap();
    assert_eq!(
        pgward_config::diff(&shipped(), &config).len(),
        2,
        "[plain], and the user who stands for all: {plain:?}"
    );
}

#[test]
fn what_says_who_may_come_in_or_whose_a_row_is_is_refused() {
    one_too_many(
        "[[users]]\nname = \"app\"\npassword = { env = \"PGWARD_APP\" }\nserver_role = \"pgward_health\"\n",
        &["`users` has no meaning in a plain pooler", "any user is served"],
    );
    one_too_many(
        "[[tables]]\nname = \"patients\"\nkind = \"patient\"\nkey = \"id\"\n",
        &["`tables` has no meaning in a plain pooler", "none would be protected"],
    );
    one_too_many("[[functions]]\nname = \"f\"\nvolatility = \"stable\"\n", &["`functions` has no meaning"]);
    one_too_many("[sharding]\nkey_type = \"uuid\"\n", &["`sharding` has no meaning in a plain pooler"]);
    one_too_many("[directory]\nkind = \"hash\"\n", &["`directory` has no meaning in a plain pooler"]);
    one_too_many("[[peers]]\nid = 2\naddress = \"b:6432\"\n", &["`peers` has no meaning in a plain pooler"]);
    one_mistake("instance = ", "database = \"ehr\"\ninstance = ", &["`database` has no meaning in a plain pooler"]);
    one_mistake("instance = ", "peer_id = 1\ninstance = ", &["`peer_id` has no meaning in a plain pooler"]);
}

#[test]
fn there_is_one_server() {
    let other = "[[shards]]\nid = \"two\"\nregion = \"us-east-1\"\nprimary = { url = \"postgresql://b:5432\" }\n";
    one_too_many(other, &["shard `only` is one too many", "exactly one shard"]);
    one_mistake(
        "server_max_connections",
        "replicas = [{ url = \"postgresql://b:5432\" }]\nserver_max_connections",
        &["`replicas` has no meaning in a plain pooler", "to the primary"],
    );
    for key in ["patient_regions = [\"x\"]", "hash_range = { start = 0 }"] {
        one_mistake("server_max_connections", &format!("{key}\nserver_max_connections"), &["no patient is looked at"]);
    }
    one_mistake("server_max_connections = 220", "server_max_connections = 190", &["general 200 = 200 connections"]);
}

#[test]
fn nothing_passes_from_one_region_to_another() {
    let to = "[[regions]]\nid = \"eu-west-1\"\n\n[[shards]]\nid = \"only\"\nregion = \"eu-west-1\"";
    one_mistake(
        "[[shards]]\nid = \"only\"\nregion = \"us-east-1\"",
        to,
        &["listener `main` is not in the shard's region", "expected `eu-west-1`"],
    );
}

#[test]
fn one_role_asks_for_health_and_all_sessions_are_alike() {
    let role = "[[server_roles]]\nname = \"pgward_health\"\npassword = { env = \"PGWARD_ROLE_HEALTH\" }\n";
    one_mistake(role, "", &["a plain pooler has no [[server_roles]]"]);
    one_too_many("[[server_roles]]\nname = \"b\"\n", &["server role `pgward_health` is one too many"]);
    one_mistake("auth = \"scram-sha-256\"", "class = \"emergency\"", &["`class` has no meaning in a plain pooler"]);
    one_mistake(
        "[pools.general]",
        "[pools.background]\nmax = 5\n[pools.general]",
        &["[pools.background] has no meaning"],
    );
    one_mistake(
        "max = 200",
        "min = 5\nmax = 200",
        &["`min` has no meaning in a plain pooler", "nothing is opened ahead"],
    );
}

#[test]
fn a_plain_pooler_trusts_on_loopback_only() {
    let from = "address = \"127.0.0.1:6432\"";
    assert_eq!(SHIPPED.matches(from).count(), 1);
    let open = SHIPPED.replace(from, "address = \"0.0.0.0:6432\"");
    assert!(read(&open).is_ok(), "the server asks for a proof");
    let report = read(&open.replace("auth = \"scram-sha-256\"", "auth = \"trust\"")).unwrap_err().to_string();
    assert!(report.contains("loopback address only"), "{report}");
}
