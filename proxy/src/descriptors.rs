//! File descriptors: one for each client and each server connection. Where the system gives fewer than the
//! configuration may need, the last of them are for those who come in by an emergency listener.

use std::os::fd::AsRawFd;

use pgward_config::{Config, NodeRole};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For files, probes, pages, cancel requests and the runtimes themselves.
const OTHERS: u64 = 100;

/// A tenth is kept back, within these bounds: below, an emergency might find no server; above, nobody would need them.
const RESERVE: std::ops::RangeInclusive<u64> = 8..=500;

/// Whether a socket has one of the descriptors that are kept for emergencies. The system gives the lowest number that is
/// free, so the number itself tells how many are in use.
pub(crate) fn is_reserved(socket: &impl AsRawFd) -> bool {
    let number = u64::try_from(socket.as_raw_fd()).unwrap_or(u64::MAX);
    getrlimit(Resource::Nofile).current.is_some_and(|limit| number >= first_reserved(limit))
}

fn first_reserved(limit: u64) -> u64 {
    limit.saturating_sub((limit / 10).clamp(*RESERVE.start(), *RESERVE.end()))
}

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
             process may have {limit}, and keeps the last of them for emergency listeners; raise the limit \
             (LimitNOFILE= of systemd, ulimit -Hn), or lower max_clients in [proxy] or max in [pools.*]"
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
    fn a_part_is_kept_for_emergencies() {
        assert_eq!([20, 200, 1024, 1 << 20].map(first_reserved), [12, 180, 922, (1 << 20) - 500]);
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(!is_reserved(&socket), "few are in use");
    }

    #[test]
    fn the_limit_is_raised_to_what_is_allowed() {
        raise();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
