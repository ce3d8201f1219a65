//! File descriptors: one for each client and each server connection. Where the system gives fewer than the
//! configuration may need, new clients wait to be accepted, those of an emergency listener among them.

use pgward_config::{Config, NodeRole};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For files, probes, pages, cancel requests and the runtimes themselves.
const OTHERS: u64 = 100;

/// Raises the process' limit as far as it may. A limit that cannot be raised is judged by [`shortage`].
pub(crate) fn raise() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}

/// What to tell an operator whose clients and pools may together open more than there is.
pub(crate) fn shortage(config: &Config) -> Option<String> {
    shortage_of(config, getrlimit(Resource::Nofile).current?)
}

fn shortage_of(config: &Config, limit: u64) -> Option<String> {
    let clients = config.proxy.max_clients as u64;
    let servers: u64 =
        config.shards.iter().flat_map(|shard| shard.nodes()).map(|node| of_node(config, node.role)).sum();
    let needed = clients.saturating_add(servers).saturating_add(OTHERS);
    (needed > limit).then(|| {
        format!(
            "max_clients {clients} and the pools' {servers} server connections may need {needed} open files, but the \
             process may have {limit}: new clients would wait then, emergencies too; raise the limit (LimitNOFILE= of \
             systemd, ulimit -n), or lower max_clients in [proxy] or max in [pools.*]"
        )
    })
}

fn of_node(config: &Config, role: NodeRole) -> u64 {
    config.pools_of(role).iter().map(|kind| u64::from(config.pools[kind.index()].max)).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::*;

    #[test]
    fn clients_and_servers_together_must_have_room() {
        let text = include_str!("../../config/tests/base.toml");
        let env = |_: &str| Some("0123456789abcdef".to_owned());
        let config = pgward_config::parse(text, Path::new("pgward.toml"), &env).unwrap().config;
        // Two primaries of 50 + 200 + 50, two replicas of 50 + 100.
        assert_eq!(shortage_of(&config, 10_000 + 900 + 100), None);
        let said = shortage_of(&config, 4096).unwrap();
        assert!(said.contains("max_clients 10000 and the pools' 900") && said.contains("may have 4096"), "{said}");
    }

    #[test]
    fn the_limit_is_raised_to_what_is_allowed() {
        raise();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
