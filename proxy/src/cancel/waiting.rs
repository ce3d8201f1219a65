//! A cancel for a session that waits before its server is told the statement: for a server of the pool, or for the record
//! of the decision. The wait ends and nothing is sent.

use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

const NOT: u8 = 0;
const WAITS: u8 = 1;
const CANCELLED: u8 = 2;

/// Whether a session waits so.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    stage: AtomicU8,
    waker: AtomicWaker,
}

impl Waiting {
    /// The session waits from now on.
    pub(crate) fn begin(&self) {
        self.stage.store(WAITS, Ordering::Release);
    }

    /// It does no longer; whether it was cancelled meanwhile.
    pub(crate) fn end(&self) -> bool {
        // Only the session itself begins, so that most statements see this without a locked instruction.
        self.stage.load(Ordering::Relaxed) != NOT && self.stage.swap(NOT, Ordering::AcqRel) == CANCELLED
    }

    /// Ends the session's wait; `false` if it does not wait.
    pub(crate) fn cancel(&self) -> bool {
        let ended = self.stage.compare_exchange(WAITS, CANCELLED, Ordering::AcqRel, Ordering::Acquire);
        self.waker.wake();
        !matches!(ended, Err(NOT))
    }

    /// Comes back when the wait is cancelled; never, if none has begun.
    pub(crate) fn poll_cancelled(&self, cx: &Context<'_>) -> Poll<()> {
        if self.stage.load(Ordering::Relaxed) == NOT {
            return Poll::Pending;
        }
        self.waker.register(cx.waker());
        match self.stage.load(Ordering::Acquire) {
            CANCELLED => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_waits_is_cancelled_and_only_once() {
        let waiting = Waiting::default();
        let cx = Context::from_waker(std::task::Waker::noop());
        assert!(!waiting.cancel(), "it does not wait");
        waiting.begin();
        assert!(waiting.poll_cancelled(&cx).is_pending(), "what came before does not count");
        assert!(waiting.cancel() && waiting.cancel());
        assert!(waiting.poll_cancelled(&cx).is_ready());
        assert!(waiting.end() && !waiting.end());
        assert!(!waiting.cancel());
    }
}
