//! What a session holds until its record counts as written.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use parking_lot::Mutex;

use crate::error::AuditError;

/// The answer to an append.
#[derive(Debug)]
#[must_use = "the statement may only be forwarded when the record counts as written"]
pub enum Receipt {
    /// The policy is satisfied: forward.
    Done,
    /// The record waits for the disk: await it, then forward.
    Pending(Pending),
}

impl Receipt {
    /// Waits by blocking the thread: for start, stop and tests, never for a session.
    ///
    /// # Errors
    /// As for awaiting it.
    pub fn wait(self) -> Result<(), AuditError> {
        struct Unpark(Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut receipt = self;
        loop {
            match Pin::new(&mut receipt).poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(result) => return result,
                Poll::Pending => thread::park(),
            }
        }
    }
}

/// An error means that the record is not on disk and the statement must be refused.
impl Future for Receipt {
    type Output = Result<(), AuditError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Done => Poll::Ready(Ok(())),
            Self::Pending(pending) => Pin::new(pending).poll(cx),
        }
    }
}

/// A record that waits for its group's `fdatasync`. Dropping it forgets the wait, not the record.
#[derive(Debug)]
pub struct Pending {
    group: Arc<Group>,
    /// Where this future's waker stands in the group.
    slot: Option<usize>,
    /// An emergency goes on whatever becomes of the group: the log spools its record.
    emergency: bool,
}

impl Pending {
    pub(crate) fn new(group: Arc<Group>, emergency: bool) -> Self {
        Self { group, slot: None, emergency }
    }
}

impl Future for Pending {
    type Output = Result<(), AuditError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut state = this.group.state.lock();
        match &state.outcome {
            Some(_) if this.emergency => Poll::Ready(Ok(())),
            Some(outcome) => Poll::Ready(outcome.clone()),
            None => {
                match this.slot {
                    Some(slot) => state.wakers[slot].clone_from(cx.waker()),
                    None => {
                        this.slot = Some(state.wakers.len());
                        state.wakers.push(cx.waker().clone());
                    }
                }
                Poll::Pending
            }
        }
    }
}

/// The records that one `fdatasync` answers together.
#[derive(Debug, Default)]
pub(crate) struct Group {
    state: Mutex<GroupState>,
}

#[derive(Debug, Default)]
struct GroupState {
    outcome: Option<Result<(), AuditError>>,
    wakers: Vec<Waker>,
}

impl Group {
    /// Answers all who wait.
    pub(crate) fn complete(&self, outcome: Result<(), AuditError>) {
        let wakers = {
            let mut state = self.state.lock();
            state.outcome = Some(outcome);
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}
