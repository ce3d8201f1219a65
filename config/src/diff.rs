//! What a reload changes, in words for the log and for `pgward reload`. No secret appears in them.

use std::fmt::Debug;

use crate::model::{Audit, Config, Directory, Pool, PoolKind, Secret};
use crate::units::show_duration;

/// What changes from `old` to `new`, one line each; empty when the two serve the same.
pub fn diff(old: &Config, new: &Config) -> Vec<String> {
    let mut words = Vec::new();
    proxy(old, new, &mut words);
    items("listener", &old.listeners, &new.listeners, |l| l.name.to_string(), &mut words);
    if old.http != new.http {
        words.push(format!("[http]: {} -> {}", http(old), http(new)));
    }
    items("user", &old.users, &new.users, |u| u.name.to_string(), &mut words);
    items("server role", &old.server_roles, &new.server_roles, |r| r.name.to_string(), &mut words);
    let (a, b) = (&old.sharding, &new.sharding);
    changed("[sharding] strategy", &a.strategy, &b.strategy, &mut words);
    changed("[sharding] key_type", &a.key_type, &b.key_type, &mut words);
    changed("[sharding] undeclared_tables", &a.undeclared_tables, &b.undeclared_tables, &mut words);
    changed("[sharding] default_shard", &a.default_shard, &b.default_shard, &mut words);
    items("table", &old.tables, &new.tables, |t| format!("{}.{}", t.schema, t.name), &mut words);
    items("function", &old.functions, &new.functions, |f| f.name.to_string(), &mut words);
    items("region", &old.regions, &new.regions, |r| r.id.to_string(), &mut words);
    shards(old, new, &mut words);
    for kind in PoolKind::ALL {
        pool(kind, &old.pools[kind.index()], &new.pools[kind.index()], &mut words);
    }
    changed("[health]", &old.health, &new.health, &mut words);
    directory(&old.directory, &new.directory, &mut words);
    audit(&old.audit, &new.audit, &mut words);
    words
}

/// The keys that differ and that a reload cannot apply; the process goes on with the values that it started with, so
/// `old` is best the configuration that it started with. They are those of threads, of sockets without sessions, and of
/// the audit log, whose file and chain belong to one process.
pub fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let mut words = Vec::new();
    changed("[proxy] instance", &old.proxy.instance, &new.proxy.instance, &mut words);
    changed("[proxy] workers", &old.proxy.workers, &new.proxy.workers, &mut words);
    changed("[proxy] control_socket", &old.proxy.control_socket, &new.proxy.control_socket, &mut words);
    if old.http != new.http {
        words.push(format!("[http]: {} -> {}", http(old), http(new)));
    }
    let (a, b) = (&old.audit, &new.audit);
    changed("[audit] path", &a.path, &b.path, &mut words);
    changed("[audit] policy", &a.policy, &b.policy, &mut words);
    changed("[audit] rotate_bytes", &a.rotate_bytes, &b.rotate_bytes, &mut words);
    changed("[audit] spool_bytes", &a.spool_bytes, &b.spool_bytes, &mut words);
    words
}

fn changed<T: Debug + PartialEq>(name: &str, old: &T, new: &T, words: &mut Vec<String>) {
    if old != new {
        words.push(format!("{name}: {old:?} -> {new:?}"));
    }
}

fn http(config: &Config) -> String {
    config.http.as_ref().map_or("off".into(), |http| http.address.to_string())
}

fn proxy(old: &Config, new: &Config, words: &mut Vec<String>) {
    let (a, b) = (&old.proxy, &new.proxy);
    changed("[proxy] instance", &a.instance, &b.instance, words);
    changed("[proxy] database", &a.database, &b.database, words);
    changed("[proxy] workers", &a.workers, &b.workers, words);
    changed("[proxy] control_socket", &a.control_socket, &b.control_socket, words);
    changed("[proxy] max_clients", &a.max_clients, &b.max_clients, words);
    changed("[proxy] max_startup_bytes", &a.max_startup_bytes, &b.max_startup_bytes, words);
    changed("[proxy] startup_timeout", &a.startup_timeout, &b.startup_timeout, words);
    changed("[proxy] max_message_bytes", &a.max_message_bytes, &b.max_message_bytes, words);
    let (idle_a, idle_b) = (&a.idle_in_transaction_timeout, &b.idle_in_transaction_timeout);
    changed("[proxy] idle_in_transaction_timeout", idle_a, idle_b, words);
    changed("[proxy] connect_timeout", &a.connect_timeout, &b.connect_timeout, words);
    changed("[proxy] drain_timeout", &a.drain_timeout, &b.drain_timeout, words);
}

fn directory(old: &Directory, new: &Directory, words: &mut Vec<String>) {
    match (old, new) {
        (Directory::Embedded { path: a, key: key_a }, Directory::Embedded { path: b, key: key_b }) => {
            changed("[directory] path", a, b, words);
            secret("[directory] key", key_a, key_b, words);
        }
        (a, b) if a != b => words.push("[directory] is of another kind".into()),
        _ => {}
    }
}

fn audit(old: &Audit, new: &Audit, words: &mut Vec<String>) {
    changed("[audit] path", &old.path, &new.path, words);
    changed("[audit] policy", &old.policy, &new.policy, words);
    secret("[audit] key", &old.key, &new.key, words);
    changed("[audit] rotate_bytes", &old.rotate_bytes, &new.rotate_bytes, words);
    changed("[audit] spool_bytes", &old.spool_bytes, &new.spool_bytes, words);
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
        parse_with(text, Path::new("pgward.toml"), &Sources { env: &env, file: &file, salt: &|_| [7; 16] })
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
            ["[pools.general] max: 200 -> 100", "[pools.general] idle_timeout: 10m -> 1m30s"]
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
        let proxy = "database = \"x\"\nworkers = 4\ncontrol_socket = \"/run/p\"";
        assert_eq!(
            restart("database = \"ehr\"", proxy),
            ["[proxy] workers: 1 -> 4", "[proxy] control_socket: \"pgward.sock\" -> \"/run/p\""]
        );
        assert_eq!(restart("127.0.0.1:9090", "127.0.0.1:9091"), ["[http]: 127.0.0.1:9090 -> 127.0.0.1:9091"]);
        assert_eq!(restart("audit.jsonl", "a.jsonl"), ["[audit] path: \"audit.jsonl\" -> \"a.jsonl\""]);
        assert!(restart("127.0.0.1:6432", "127.0.0.1:6500").is_empty(), "listeners are opened and closed by a reload");
    }
}
