//! Telling the sessions that hold a server of a node that the node is gone.
//!
//! Every server has a [`KillSwitch`]; the node's [`KillRegistry`] knows all of them. Throwing a switch sets a flag and
//! wakes the session that registered its waker; a session that never parks pays one relaxed load.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Context;
use std::time::Instant;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

const LIVE: u8 = 0;
const RETIRED: u8 = 1;
const KILLED: u8 = 2;

/// One server's switch.
#[derive(Debug)]
pub(crate) struct KillSwitch {
    id: u64,
    state: AtomicU8,
    waker: AtomicWaker,
    expires: Instant,
    registry: Arc<KillRegistry>,
}

impl KillSwitch {
    /// True when the server is to be treated as gone; registers the waker otherwise.
    pub(crate) fn poll_killed(&self, cx: &mut Context<'_>) -> bool {
        if self.is_killed() {
            return true;
        }
        self.waker.register(cx.waker());
        self.is_killed()
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.state.load(Ordering::Acquire) == KILLED
    }

    /// False when the server must not be used again once its session gives it back.
    pub(crate) fn is_reusable(&self) -> bool {
        self.state.load(Ordering::Acquire) == LIVE
    }

    pub(crate) fn kill(&self) {
        self.state.store(KILLED, Ordering::Release);
        self.waker.wake();
    }

    fn retire(&self) {
        let _already_retired_or_killed =
            self.state.compare_exchange(LIVE, RETIRED, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// The switch of a server: leaves the registry with it.
#[derive(Debug)]
pub(crate) struct Registered(Arc<KillSwitch>);

impl std::ops::Deref for Registered {
    type Target = KillSwitch;

    fn deref(&self) -> &KillSwitch {
        &self.0
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.0.registry.switches.lock().remove(&self.0.id);
    }
}

/// The switches of all servers of one node.
#[derive(Debug, Default)]
pub(crate) struct KillRegistry {
    switches: Mutex<HashMap<u64, Arc<KillSwitch>>>,
    next_id: std::sync::atomic::AtomicU64,
}

impl KillRegistry {
    /// A switch for a new server, which is to be replaced at `expires`.
    pub(crate) fn register(self: &Arc<Self>, expires: Instant) -> Registered {
        let switch = Arc::new(KillSwitch {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            state: AtomicU8::new(LIVE),
            waker: AtomicWaker::new(),
            expires,
            registry: self.clone(),
        });
        self.switches.lock().insert(switch.id, switch.clone());
        Registered(switch)
    }

    /// Tells everyone who holds a server of this node that it is gone.
    pub(crate) fn kill_all(&self) -> usize {
        let switches: Vec<_> = self.switches.lock().values().cloned().collect();
        for switch in &switches {
            switch.kill();
        }
        switches.len()
    }

    /// Servers past their lifetime are not used again after they are given back.
    pub(crate) fn retire_expired(&self, now: Instant) {
        for switch in self.switches.lock().values() {
            if switch.expires <= now {
                switch.retire();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::{Wake, Waker};

    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_kill_wakes_the_session_that_parks() {
        let registry = Arc::new(KillRegistry::default());
        let switch = registry.register(Instant::now());
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        assert!(!switch.poll_killed(&mut cx));
        assert_eq!(registry.kill_all(), 1);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(switch.poll_killed(&mut cx));
        drop(switch);
        assert_eq!(registry.kill_all(), 0);
    }

    #[test]
    fn an_expired_server_is_retired_but_not_killed() {
        let registry = Arc::new(KillRegistry::default());
        let now = Instant::now();
        let old = registry.register(now);
        let young = registry.register(now + std::time::Duration::from_secs(1));
        registry.retire_expired(now);
        assert!(!old.is_reusable() && !old.is_killed());
        assert!(young.is_reusable());
    }
}
