//! Which settings the servers of a node have accepted. Those may go ahead of a statement in one write; any other is asked
//! for first and by itself, since a server that refuses it would run the statement behind it all the same.
//!
//! What one node accepts another may not: rights on parameters, extensions and versions differ between shards.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use pgward_pools::Settings;
use smallvec::SmallVec;

/// Combinations that are remembered. Few programs use many; one that does pays with a round trip.
const MOST_KNOWN: usize = 1024;
/// Bytes of the names and values in them.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// A node, by shard and position.
pub(crate) type At = (usize, usize);

/// A server role, and what is set.
type Asked = (Arc<str>, Same);

/// Settings of a server role, and the nodes whose servers have accepted them.
#[derive(Debug, Default)]
pub(crate) struct Accepted {
    known: Mutex<Known>,
    refused: AtomicBool,
}

#[derive(Debug, Default)]
struct Known {
    nodes: HashMap<Asked, SmallVec<[At; 4]>>,
    bytes: usize,
}

impl Accepted {
    /// A server has refused what went ahead because it had been accepted before: a right was taken away, say, or what a
    /// setting names is gone. Whatever else was accepted may be refused, too.
    pub(crate) fn distrust(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// Whether a server has. Nothing goes ahead any more until a reload.
    pub(crate) fn distrusts(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn has(&self, role: &Arc<str>, settings: &Arc<Settings>, at: At) -> bool {
        let known = self.known.lock();
        known.nodes.get(&(Arc::clone(role), Same(Arc::clone(settings)))).is_some_and(|nodes| nodes.contains(&at))
    }

    /// Whether some node's servers have.
    pub(crate) fn has_any(&self, role: &Arc<str>, settings: &Arc<Settings>) -> bool {
        self.known.lock().nodes.contains_key(&(Arc::clone(role), Same(Arc::clone(settings))))
    }

    pub(crate) fn note(&self, role: &Arc<str>, settings: &Arc<Settings>, at: At) {
        let mut known = self.known.lock();
        if known.nodes.len() >= MOST_KNOWN || known.bytes >= MOST_BYTES {
            *known = Known::default();
        }
        let Known { nodes, bytes } = &mut *known;
        let nodes = nodes.entry((Arc::clone(role), Same(Arc::clone(settings)))).or_default();
        if nodes.is_empty() {
            *bytes += settings.weight();
        }
        if !nodes.contains(&at) {
            nodes.push(at);
        }
    }
}

/// Equal settings are one value in the process.
#[derive(Debug)]
struct Same(Arc<Settings>);

impl PartialEq for Same {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Same {}

impl Hash for Same {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(value: usize) -> Arc<Settings> {
        Settings::of([(Arc::from("work_mem"), format!("'{value}'"))].into_iter().collect())
    }

    #[test]
    fn what_one_node_accepted_of_one_role_is_not_anothers() {
        let (accepted, app, other) = (Accepted::default(), Arc::from("app"), Arc::from("other"));
        accepted.note(&app, &settings(1), (0, 1));
        assert!(accepted.has(&app, &settings(1), (0, 1)));
        assert!(!accepted.has(&app, &settings(1), (1, 1)));
        assert!(!accepted.has(&app, &settings(2), (0, 1)));
        assert!(!accepted.has(&other, &settings(1), (0, 1)));
        assert!(accepted.has_any(&app, &settings(1)) && !accepted.has_any(&app, &settings(2)));
    }

    #[test]
    fn no_more_is_remembered_than_fits() {
        let (accepted, app) = (Accepted::default(), Arc::from("app"));
        for n in 0..=MOST_KNOWN {
            accepted.note(&app, &settings(n), (0, 0));
        }
        assert_eq!(accepted.known.lock().nodes.len(), 1);
        for n in 0..100 {
            let value = format!("'{}{n}'", "x".repeat(60_000));
            accepted.note(&app, &Settings::of([(Arc::from("work_mem"), value)].into_iter().collect()), (0, 0));
        }
        assert!(accepted.known.lock().nodes.len() < 80);
    }
}
