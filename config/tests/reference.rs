//! The configuration that ships is accepted as it is, and its figures are the defaults.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::time::Duration;

use pgward_config::{Class, Config, Loaded, PoolKind, Sources, parse_with};

const REFERENCE: &str = include_str!("../../pgward.toml");

fn read(text: &str) -> Loaded {
    let env = |name: &str| name.starts_with("PGWARD_").then(|| format!("value-of-{name}"));
    let file = |_: &Path| Err(std::io::Error::from(std::io::ErrorKind::NotFound));
    let sources = Sources { env: &env, file: &file, real: &Path::to_path_buf, salt: &|_| [7; 16] };
    parse_with(text, Path::new("pgward.toml"), &sources).unwrap_or_else(|report| panic!("{report}"))
}

fn reference() -> Config {
    read(REFERENCE).config
}

#[test]
fn it_is_accepted_without_a_warning() {
    let loaded = read(REFERENCE);
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings_report());
}

#[test]
fn it_has_four_shards_with_two_replicas_each() {
    let shards = reference().shards;
    let ids: Vec<&str> = shards.iter().map(|shard| shard.id.as_str()).collect();
    assert_eq!(ids, ["us-east-patients", "us-west-patients", "eu-west-patients", "ap-south-patients"]);
    assert!(shards.iter().all(|shard| shard.replicas.len() == 2));
}

#[test]
fn each_shard_has_a_general_and_an_emergency_listener() {
    let config = reference();
    for shard in &config.shards {
        let here: Vec<_> = config.listeners.iter().filter(|listener| listener.origin == shard.region).collect();
        assert_eq!(here.iter().map(|listener| listener.class).collect::<Vec<_>>(), [None, Some(Class::Emergency)]);
    }
}

#[test]
fn the_pools_have_the_figures_of_the_service_levels() {
    let pools = reference().pools;
    for (kind, min, max, idle, lifetime, check) in [
        (PoolKind::Emergency, 10, 50, 300, 3600, 30),
        (PoolKind::General, 20, 200, 600, 7200, 60),
        (PoolKind::Background, 5, 50, 1800, 14_400, 120),
        (PoolKind::ReadOnly, 10, 100, 900, 3600, 90),
    ] {
        let pool = &pools[kind.index()];
        let seconds = [pool.idle_timeout, pool.max_lifetime, pool.check_interval].map(|time| time.as_secs());
        assert_eq!((pool.min, pool.max, seconds), (min, max, [idle, lifetime, check]), "{kind}");
    }
}

/// Cuts a table out of the reference, comments included.
fn without(text: &str, header: &str) -> String {
    let start = text.find(&format!("\n{header}\n")).unwrap() + 1;
    let end = text[start + 1..].find("\n[").map_or(text.len(), |at| start + 1 + at + 1);
    format!("{}{}", &text[..start], &text[end..])
}

#[test]
fn what_it_calls_a_default_is_the_default() {
    let stated = reference();
    let mut text = REFERENCE.to_owned();
    for header in ["[pools.emergency]", "[pools.general]", "[pools.background]", "[pools.readonly]", "[health]"] {
        text = without(&text, header);
    }
    for key in [
        "instance",
        "workers",
        "max_clients = 10000",
        "max_cancels_per_second",
        "max_startup_bytes",
        "startup_timeout",
        "rotate_bytes",
        "max_message_bytes",
        "max_prepared",
        "server_prepared",
        "idle_in_transaction_timeout",
        "connect_timeout",
        "drain_timeout",
        "policy",
        "spool_bytes",
        "resident",
        "access_from",
        "strategy",
        "key_type",
        "undeclared_tables",
        "copy_across_shards",
        "auth = ",
        "workload = \"care\"",
        "pool_mode",
        "kind = \"embedded\"",
        "class = \"normal\"",
    ] {
        assert!(text.lines().any(|line| line.starts_with(key)), "{key}");
        text = text.lines().filter(|line| !line.starts_with(key)).fold(String::new(), |all, line| all + line + "\n");
    }
    let defaults = read(&text).config;
    let differences = pgward_config::diff(&stated, &defaults);
    assert!(differences.is_empty(), "{differences:#?}");
    assert_eq!(defaults.health.max_replica_lag, Duration::from_secs(60));
}
