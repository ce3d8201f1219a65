//! Waiting at a [`Gate`]: the gate behind a lock, with a waker for each waiter.
//!
//! A [`Slot`] is the right to use one server of the pool and gives itself back when dropped. A [`Ticket`] is a place in
//! the queue; dropping it leaves the queue, or passes on a slot that was handed to it in the meantime, so that a wait
//! may be cancelled at any point.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use pgward_config::model::Class;

use crate::gate::{Gate, Granted, Limits, Place, Queued};

const WAITING: u8 = 0;
const GRANTED: u8 = 1;
const DISPLACED: u8 = 2;

#[derive(Debug)]
struct Waiter {
    /// Changed only under the gate's lock.
    state: AtomicU8,
    waker: AtomicWaker,
}

/// The admission to one pool of one node.
#[derive(Debug)]
pub(crate) struct Admission {
    gate: Mutex<Gate<Arc<Waiter>>>,
    /// Servers of the node in use, over all its pools.
    node_in_use: Arc<AtomicU32>,
}

/// Why a waiter has no place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueFull;

impl Admission {
    pub(crate) fn new(limits: Limits, node_in_use: Arc<AtomicU32>) -> Self {
        Self { gate: Mutex::new(Gate::new(limits)), node_in_use }
    }

    /// A slot at once, or nothing.
    pub(crate) fn try_take(&self, class: Class) -> Option<Slot<'_>> {
        self.gate.lock().try_take(class).then(|| self.slot(class))
    }

    /// A place in the queue.
    pub(crate) fn queue(&self, class: Class) -> Result<Ticket<'_>, QueueFull> {
        let waiter = Arc::new(Waiter { state: AtomicU8::new(WAITING), waker: AtomicWaker::new() });
        let (place, displaced, granted) = {
            let mut gate = self.gate.lock();
            let (place, displaced) = match gate.queue(class, waiter.clone()) {
                Queued::Waiting(place) => (place, None),
                Queued::Displacing(place, displaced) => {
                    displaced.state.store(DISPLACED, Ordering::Release);
                    (place, Some(displaced))
                }
                Queued::Full => return Err(QueueFull),
            };
            (place, displaced, grant(&mut gate))
        };
        if let Some(displaced) = displaced {
            displaced.waker.wake();
        }
        wake(granted);
        Ok(Ticket { admission: self, class, place, waiter, done: false })
    }

    /// One tick of the gate's slow clock.
    pub(crate) fn tick(&self) {
        let granted = {
            let mut gate = self.gate.lock();
            gate.tick();
            grant(&mut gate)
        };
        wake(granted);
    }

    /// Slots in use, and waiters by class.
    pub(crate) fn load(&self) -> (u32, [u32; 5]) {
        let gate = self.gate.lock();
        (gate.in_use(), gate.waiting_by_class())
    }

    fn slot(&self, class: Class) -> Slot<'_> {
        self.node_in_use.fetch_add(1, Ordering::Relaxed);
        Slot { admission: self, class }
    }

    /// Gives back a slot that was held beyond its [`Slot`].
    pub(crate) fn release(&self, class: Class) {
        self.node_in_use.fetch_sub(1, Ordering::Relaxed);
        let granted = {
            let mut gate = self.gate.lock();
            gate.release(class);
            grant(&mut gate)
        };
        wake(granted);
    }
}

/// Hands off under the lock; the waiters are to be woken after it.
fn grant(gate: &mut Gate<Arc<Waiter>>) -> Granted<Arc<Waiter>> {
    let granted = gate.hand_off();
    for waiter in &granted {
        waiter.state.store(GRANTED, Ordering::Release);
    }
    granted
}

fn wake(granted: Granted<Arc<Waiter>>) {
    for waiter in granted {
        waiter.waker.wake();
    }
}

/// The right to use one server of a pool.
#[derive(Debug)]
pub(crate) struct Slot<'a> {
    admission: &'a Admission,
    class: Class,
}

impl Slot<'_> {
    pub(crate) fn class(&self) -> Class {
        self.class
    }

    /// Leaves it to the caller to call [`Admission::release`] with this class.
    pub(crate) fn hold(self) -> Class {
        let class = self.class;
        std::mem::forget(self);
        class
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.admission.release(self.class);
    }
}

/// A place in the queue of a pool.
#[derive(Debug)]
pub(crate) struct Ticket<'a> {
    admission: &'a Admission,
    class: Class,
    place: Place,
    waiter: Arc<Waiter>,
    done: bool,
}

impl<'a> Ticket<'a> {
    /// The slot when it is this ticket's turn; an error when a waiter of a higher class took the place.
    pub(crate) fn poll_slot(&mut self, cx: &mut Context<'_>) -> Poll<Result<Slot<'a>, QueueFull>> {
        self.waiter.waker.register(cx.waker());
        match self.waiter.state.load(Ordering::Acquire) {
            GRANTED if !self.done => {
                self.done = true;
                Poll::Ready(Ok(self.admission.slot(self.class)))
            }
            DISPLACED => {
                self.done = true;
                Poll::Ready(Err(QueueFull))
            }
            _ => Poll::Pending,
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let granted = {
            let mut gate = self.admission.gate.lock();
            if gate.leave(self.class, self.place) {
                // One waiter less of a higher class may let a lower one borrow.
                grant(&mut gate)
            } else if self.waiter.state.load(Ordering::Acquire) == GRANTED {
                gate.release(self.class);
                grant(&mut gate)
            } else {
                Granted::new()
            }
        };
        wake(granted);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::task::Waker;

    use super::*;

    fn admission(capacity: u32) -> Admission {
        Admission::new(Limits::without_emergency(capacity, 10), Arc::default())
    }

    fn poll<'a>(ticket: &mut Ticket<'a>) -> Poll<Result<Slot<'a>, QueueFull>> {
        ticket.poll_slot(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_dropped_slot_goes_to_the_one_that_waits() {
        let admission = admission(1);
        let slot = admission.try_take(Class::Normal).unwrap();
        let mut ticket = admission.queue(Class::Normal).unwrap();
        assert!(poll(&mut ticket).is_pending());
        drop(slot);
        assert!(admission.try_take(Class::Normal).is_none(), "handed to the waiter, not to a newcomer");
        assert!(poll(&mut ticket).is_ready());
    }

    #[test]
    fn a_cancelled_wait_passes_its_slot_on() {
        let admission = admission(1);
        let slot = admission.try_take(Class::Normal).unwrap();
        let first = admission.queue(Class::Normal).unwrap();
        let mut second = admission.queue(Class::Normal).unwrap();
        drop(slot);
        drop(first);
        assert!(poll(&mut second).is_ready());
        assert_eq!(admission.load().0, 0, "the slot was dropped with its poll result");
        assert!(admission.try_take(Class::Normal).is_some());
    }

    #[test]
    fn a_full_queue_refuses_the_lowest_class() {
        let admission = Admission::new(Limits::without_emergency(1, 1), Arc::default());
        let _slot = admission.try_take(Class::Normal).unwrap();
        let mut low = admission.queue(Class::Low).unwrap();
        let mut high = admission.queue(Class::High).unwrap();
        assert!(matches!(poll(&mut low), Poll::Ready(Err(QueueFull))));
        assert!(poll(&mut high).is_pending());
        assert!(admission.queue(Class::Normal).is_err());
    }
}
