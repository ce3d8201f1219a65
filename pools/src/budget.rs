//! How many connections a pool of a node may have open, over all server roles.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The count of open connections of one (node, pool kind) and its bound.
#[derive(Debug)]
pub(crate) struct Budget {
    open: AtomicU32,
    max: u32,
}

/// One connection's place in the [`Budget`]; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Budget>);

impl Budget {
    pub(crate) fn new(max: u32) -> Arc<Self> {
        Arc::new(Self { open: AtomicU32::new(0), max })
    }

    /// A place for one more connection, if there is one.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Permit> {
        self.open
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| (open < self.max).then_some(open + 1))
            .ok()
            .map(|_| Permit(self.clone()))
    }

    pub(crate) fn open(&self) -> u32 {
        self.open.load(Ordering::Acquire)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}
