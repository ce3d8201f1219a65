//! What a reload changes, in words for the log and for `pgward reload`. No secret appears in them.

use std::fmt::Display;
use std::time::Duration;

use crate::model::{
    Audit, AuditPolicy, Config, DefaultShard, Directory, Health, Plain, Pool, PoolKind, PoolMode, Secret, Strategy,
    Undeclared,
};
use crate::units::{show_duration, show_size};

/// What changes from `old` to `new`, one line each; empty when the two serve the same.
pub fn diff(old: &Config, new: &Config) -> Vec<String> {
    let mut words = Vec::new();
    proxy(old, new, &mut words);
    items("peer", &old.peers, &new.peers, |p| p.id.to_string(), &mut words);
    items("listener", &old.listeners, &new.listeners, |l| l.name.to_string(), &mut words);
    if old.http != new.http {
        words.push(format!("[http]: {} -> {}", http(old), http(new)));
    }
    changed("[plain]", plain(old.plain.as_ref()), plain(new.plain.as_ref()), &mut words);
    items("user", &old.users, &new.users, |u| u.name.to_string(), &mut words);
    items("server role", &old.server_roles, &new.server_roles, |r| r.name.to_string(), &mut words);
    let (a, b) = (&old.sharding, &new.sharding);
    changed("[sharding] strategy", strategy(a.strategy), strategy(b.strategy), &mut words);
    changed("[sharding] key_type", a.key_type.as_str(), b.key_type.as_str(), &mut words);
    let (undeclared_a, undeclared_b) = (undeclared(a.undeclared_tables), undeclared(b.undeclared_tables));
    changed("[sharding] undeclared_tables", undeclared_a, undeclared_b, &mut words);
    let (default_a, default_b) = (default_shard(a.default_shard.as_ref()), default_shard(b.default_shard.as_ref()));
    changed("[sharding] default_shard", default_a, default_b, &mut words);
    let (copy_a, copy_b) = (a.copy_across_shards, b.copy_across_shards);
    changed("[sharding] copy_across_shards", copy_a, copy_b, &mut words);
    items("table", &old.tables, &new.tables, |t| format!("{}.{}", t.schema, t.name), &mut words);
    items("function", &old.functions, &new.functions, |f| f.name.to_string(), &mut words);
    items("region", &old.regions, &new.regions, |r| r.id.to_string(), &mut words);
    shards(old, new, &mut words);
    for kind in PoolKind::ALL {
        pool(kind, &old.pools[kind.index()], &new.pools[kind.index()], &mut words);
    }
    health(&old.health, &new.health, &mut words);
    directory(&old.directory, &new.directory, &mut words);
    audit(&old.audit, &new.audit, &mut words);
    words
}

/// The keys that differ and that a reload cannot apply; the process goes on with the values that it started with, so
/// `old` is best the configuration that it started with. They are those of threads, of sockets without sessions, and of
/// the audit log, whose file and chain belong to one process.
pub fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let mut words = Vec::new();
    process(old, new, &mut words);
    if old.http != new.http {
        words.push(format!("[http]: {} -> {}", http(old), http(new)));
    }
    log(&old.audit, &new.audit, &mut words);
    words
}

fn changed<T: Display>(name: &str, old: T, new: T, words: &mut Vec<String>) {
    let (old, new) = (old.to_string(), new.to_string());
    if old != new {
        words.push(format!("{name}: {old} -> {new}"));
    }
}

fn strategy(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::PatientRegion => "patient_region",
        Strategy::Hash => "hash",
    }
}

fn plain(plain: Option<&Plain>) -> String {
    let mode = |mode| match mode {
        PoolMode::Transaction => "transaction",
        PoolMode::Session => "session",
    };
    plain.map_or("none".into(), |plain| format!("pool_mode {}, max_pools {}", mode(plain.pool_mode), plain.max_pools))
}

fn policy(policy: AuditPolicy) -> &'static str {
    match policy {
        AuditPolicy::Buffered => "buffered",
        AuditPolicy::Written => "written",
        AuditPolicy::Synced => "synced",
    }
}

fn undeclared(tables: Undeclared) -> &'static str {
    match tables {
        Undeclared::Refuse => "refuse",
        Undeclared::Local => "local",
    }
}

fn default_shard(default: Option<&DefaultShard>) -> String {
    let Some(default) = default else { return "none".into() };
    let origins: Vec<&str> = default.origins.iter().map(|origin| origin.as_str()).collect();
    format!("{} from {}", default.shard, origins.join(", "))
}

fn timeout(limit: Option<Duration>) -> String {
    limit.map_or_else(|| "never".into(), show_duration)
}

fn rotation(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "never".into(), show_size)
}

fn health(a: &Health, b: &Health, words: &mut Vec<String>) {
    let mut figure = |name: &str, a: String, b: String| changed(&format!("[health] {name}"), a, b, words);
    figure("interval", show_duration(a.interval), show_duration(b.interval));
    figure("timeout", show_duration(a.timeout), show_duration(b.timeout));
    figure("unhealthy_after", a.unhealthy_after.to_string(), b.unhealthy_after.to_string());
    figure("healthy_after", a.healthy_after.to_string(), b.healthy_after.to_string());
    figure("max_replica_lag", show_duration(a.max_replica_lag), show_duration(b.max_replica_lag));
}

fn http(config: &Config) -> String {
    config.http.as_ref().map_or("off".into(), |http| http.address.to_string())
}

fn peer_id(id: Option<u16>) -> String {
    id.map_or_else(|| "none".into(), |id| id.to_string())
}

/// Keys of `[proxy]` that belong to the process.
fn process(old: &Config, new: &Config, words: &mut Vec<String>) {
    let (a, b) = (&old.proxy, &new.proxy);
    changed("[proxy] instance", &a.instance, &b.instance, words);
    changed("[proxy] peer_id", peer_id(a.peer_id), peer_id(b.peer_id), words);
    changed("[proxy] workers", a.workers, b.workers, words);
    changed("[proxy] control_socket", a.control_socket.display(), b.control_socket.display(), words);
}

fn proxy(old: &Config, new: &Config, words: &mut Vec<String>) {
    process(old, new, words);
    let (a, b) = (&old.proxy, &new.proxy);
    changed("[proxy] database", &a.database, &b.database, words);
    changed("[proxy] max_clients", a.max_clients, b.max_clients, words);
    let (cancels_a, cancels_b) = (a.max_cancels_per_second, b.max_cancels_per_second);
    changed("[proxy] max_cancels_per_second", cancels_a, cancels_b, words);
    let size = |bytes: usize| show_size(bytes as u64);
    changed("[proxy] max_startup_bytes", size(a.max_startup_bytes), size(b.max_startup_bytes), words);
    changed("[proxy] max_message_bytes", size(a.max_message_bytes), size(b.max_message_bytes), words);
    changed("[proxy] max_prepared", a.max_prepared, b.max_prepared, words);
    changed("[proxy] max_prepared_bytes", size(a.max_prepared_bytes), size(b.max_prepared_bytes), words);
    changed("[proxy] server_prepared", a.server_prepared, b.server_prepared, words);
    changed("[proxy] startup_timeout", show_duration(a.startup_timeout), show_duration(b.startup_timeout), words);
    let (idle_a, idle_b) = (timeout(a.idle_in_transaction_timeout), timeout(b.idle_in_transaction_timeout));
    changed("[proxy] idle_in_transaction_timeout", idle_a, idle_b, words);
    changed("[proxy] connect_timeout", show_duration(a.connect_timeout), show_duration(b.connect_timeout), words);
    changed("[proxy] drain_timeout", show_duration(a.drain_timeout), show_duration(b.drain_timeout), words);
}

fn directory(old: &Directory, new: &Directory, words: &mut Vec<String>) {
    match (old, new) {
        (Directory::Embedded { path: a, key: key_a }, Directory::Embedded { path: b, key: key_b }) => {
            changed("[directory] path", a.display(), b.display(), words);
            secret("[directory] key", key_a, key_b, words);
        }
        (a, b) if a != b => words.push("[directory] is of another kind".into()),
        _ => {}
    }
}

fn audit(old: &Audit, new: &Audit, words: &mut Vec<String>) {
    log(old, new, words);
    secret("[audit] key", &old.key, &new.key, words);
}

/// Keys of `[audit]` that belong to the process that opened the file.
fn log(a: &Audit, b: &Audit, words: &mut Vec<String>) {
    changed("[audit] path", a.path.display(), b.path.display(), words);
    changed("[audit] policy", policy(a.policy), policy(b.policy), words);
    changed("[audit] rotate_bytes", rotation(a.rotate_bytes), rotation(b.rotate_bytes), words);
    let size = |bytes: usize| show_size(bytes as u64);
    changed("[audit] spool_bytes", size(a.spool_bytes), size(b.spool_bytes), words);
}

fn secret(name: &str, old: &Secret, new: &Secret, words: &mut Vec<String>) {
    if old != new {
        words.push(format!("{name} changed"));
    }
}

/// Items that came, went, or are not what they were.
fn items<T: PartialEq>(what: &str, old: &[T], new: &[T], name: impl Fn(&T) -> String, words: &mut Vec<String>) {
    for item in old {
        if !new.iter().any(|other| name(other) == name(item)) {
            words.push(format!("{what} `{}` removed", name(item)));
        }
    }
    for item in new {
        match old.iter().find(|other| name(other) == name(item)) {
            None => words.push(format!("{what} `{}` added", name(item))),
            Some(before) if before != item => words.push(format!("{what} `{}` changed", name(item))),
            Some(_) => {}
        }
    }
}

fn shards(old: &Config, new: &Config, words: &mut Vec<String>) {
    items("shard", &old.shards, &new.shards, |s| s.id.to_string(), words);
    for after in &new.shards {
        let Some(before) = old.shards.iter().find(|shard| shard.id == after.id) else { continue };
        let nodes = |shard: &crate::model::Shard| shard.nodes().cloned().collect::<Vec<_>>();
        items("node", &nodes(before), &nodes(after), |n| n.id.to_string(), words);
    }
}

fn pool(kind: PoolKind, old: &Pool, new: &Pool, words: &mut Vec<String>) {
    let mut figure = |name: &str, a: String, b: String| {
        if a != b {
            words.push(format!("[pools.{kind}] {name}: {a} -> {b}"));
        }
    };
    figure("min", old.min.to_string(), new.min.to_string());
    figure("max", old.max.to_string(), new.max.to_string());
    figure("idle_timeout", show_duration(old.idle_timeout), show_duration(new.idle_timeout));
    figure("max_lifetime", show_duration(old.max_lifetime), show_duration(new.max_lifetime));
    figure("check_interval", show_duration(old.check_interval), show_duration(new.check_interval));
    figure("wait_timeout", show_duration(old.wait_timeout), show_duration(new.wait_timeout));
    figure("max_waiting", old.max_waiting.to_string(), new.max_waiting.to_string());
    figure("max_pinned", old.max_pinned.to_string(), new.max_pinned.to_string());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::*;
    use crate::{Sources, parse_with};

    const BASE: &str = include_str!("../tests/base.toml");

    fn read(text: &str, password: &str) -> Config {
        let env = |_: &str| Some(password.to_owned());
        let file = |_: &Path| Err(std::io::Error::from(std::io::ErrorKind::NotFound));
        parse_with(
            text,
            Path::new("pgward.toml"),
            &Sources { env: &env, file: &file, real: &Path::to_path_buf, salt: &|_| [7; 16] },
        )
        .unwrap()
        .config
    }

    fn words(from: &str, to: &str) -> Vec<String> {
        assert!(BASE.contains(from), "{from}");
        diff(&read(BASE, "0123456789abcdef"), &read(&BASE.replace(from, to), "0123456789abcdef"))
    }

    #[test]
    fn the_same_is_no_change_whatever_its_layout() {
        assert!(words("[http]", "# a comment\n[http]").is_empty());
    }

    #[test]
    fn changes_are_named() {
        assert_eq!(
            words("max = 200", "max = 100\nidle_timeout = \"90s\""),
            [
                "[pools.general] max: 200 -> 100",
                "[pools.general] idle_timeout: 10m -> 1m30s",
                "[pools.general] max_pinned: 100 -> 50"
            ]
        );
        assert_eq!(
            words("name = \"icd10_codes\"", "name = \"icd10\""),
            ["table `public.icd10_codes` removed", "table `public.icd10` added"]
        );
        assert_eq!(
            words("127.0.0.1:7001", "127.0.0.1:7003"),
            ["shard `east` changed", "node `east/replica-1` changed"]
        );
        assert_eq!(
            words("database = \"ehr\"", "database = \"ehr\"\nmax_clients = 5"),
            ["[proxy] max_clients: 10000 -> 5"]
        );
        let peer = "database = \"ehr\"\npeer_id = 1\n[[peers]]\nid = 2\naddress = \"b:6432\"";
        assert_eq!(words("database = \"ehr\"", peer), ["[proxy] peer_id: none -> 1", "peer `2` added"]);
        assert_eq!(words("interval = \"10s\"", "interval = \"3s\""), ["[health] interval: 10s -> 3s"]);
    }

    #[test]
    fn a_changed_secret_is_seen_and_not_shown() {
        let words = diff(&read(BASE, "0123456789abcdef"), &read(BASE, "geheim-geheim-geheim"));
        assert_eq!(
            words,
            ["user `app` changed", "server role `ehr_app` changed", "[directory] key changed", "[audit] key changed"]
        );
    }

    #[test]
    fn what_belongs_to_the_process_needs_a_restart() {
        let restart = |from: &str, to: &str| {
            assert!(BASE.contains(from), "{from}");
            needs_restart(&read(BASE, "0123456789abcdef"), &read(&BASE.replace(from, to), "0123456789abcdef"))
        };
        let proxy = "database = \"x\"\npeer_id = 3\nworkers = 4\ncontrol_socket = \"/run/p\"";
        assert_eq!(
            restart("database = \"ehr\"", proxy),
            ["[proxy] peer_id: none -> 3", "[proxy] workers: 1 -> 4", "[proxy] control_socket: pgward.sock -> /run/p"]
        );
        assert_eq!(restart("127.0.0.1:9090", "127.0.0.1:9091"), ["[http]: 127.0.0.1:9090 -> 127.0.0.1:9091"]);
        assert_eq!(restart("audit.jsonl", "a.jsonl"), ["[audit] path: audit.jsonl -> a.jsonl"]);
        assert!(restart("127.0.0.1:6432", "127.0.0.1:6500").is_empty(), "listeners are opened and closed by a reload");
    }
}
