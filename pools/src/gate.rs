//! Who may have a server of one pool next: a state machine without clock, threads or sockets.
//!
//! A gate counts the servers of one (node, pool kind) that are in use by class, and keeps a queue for each class. Its
//! rules, in the order of their weight:
//!
//! 1. Never more in use than the capacity.
//! 2. Emergency's share is kept free for emergency, always. The share of another class is kept free for it while that
//!    class is *present* (has work here, or had it within the last [`LEND_AFTER`] ticks) and lent out otherwise, so that
//!    one class alone can use all the rest of a pool.
//! 3. Every class gets its own share before a higher class borrows beyond its own.
//! 4. Higher classes first; inside a class first come, first served. A freed slot is handed to the chosen waiter
//!    directly: a newcomer cannot slip in between.
//! 5. Every [`AGEING`]th hand-off goes to the one that has waited longest, whatever its class below emergency, so that
//!    no class starves where rounding leaves it no share.
//!
//! The queue is bounded; when it is full, a waiter of the lowest class gives way to a newcomer of a higher one.

use std::collections::VecDeque;

use pgward_config::model::Class;
use smallvec::SmallVec;

/// Guaranteed shares of the connections in percent, emergency first (SPEC: prioritized pools).
const SHARES: [u32; 5] = [25, 20, 25, 25, 5];

/// One hand-off in so many goes to the longest waiter: about the share of class low.
const AGEING: u32 = 16;

/// A class's unused share is lent out when it has had no work for so many ticks.
pub(crate) const LEND_AFTER: u8 = 10;

/// Waiters that were handed a slot by one step, in order.
pub(crate) type Granted<T> = SmallVec<[T; 1]>;

/// How many servers there are, and how many of them each class is guaranteed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    capacity: u32,
    reserved: [u32; 5],
    max_waiting: u32,
}

impl Limits {
    /// Limits of a pool of `capacity` servers in which emergency statements overflow: shares rounded down, but
    /// emergency's rounded up, except that one server always stays for the others.
    pub(crate) fn shared(capacity: u32, max_waiting: u32) -> Self {
        let mut reserved = SHARES.map(|percent| (u64::from(capacity) * u64::from(percent) / 100) as u32);
        let emergency = (u64::from(capacity) * u64::from(SHARES[0])).div_ceil(100) as u32;
        let others: u32 = reserved[1..].iter().sum();
        reserved[0] = emergency.min(capacity.saturating_sub(others.max(1)));
        Self { capacity, reserved, max_waiting }
    }

    /// Limits of a pool that emergency statements do not use: no share is kept for them.
    pub(crate) fn without_emergency(capacity: u32, max_waiting: u32) -> Self {
        let mut limits = Self::shared(capacity, max_waiting);
        limits.reserved[0] = 0;
        limits
    }

    /// Limits of the emergency pool: all of it is emergency's.
    pub(crate) fn emergency_only(capacity: u32, max_waiting: u32) -> Self {
        Self { capacity, reserved: [capacity, 0, 0, 0, 0], max_waiting }
    }
}

/// Place of a waiter in its queue; unique within a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(u64);

/// What became of a waiter that wanted to queue.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Queued<T> {
    /// It waits.
    Waiting(Place),
    /// It waits, and this waiter of a lower class lost its place and is refused.
    Displacing(Place, T),
    /// The queue is full of waiters of its own class or higher.
    Full,
}

/// The state machine; `T` is what stands for a waiter.
#[derive(Debug)]
pub(crate) struct Gate<T> {
    limits: Limits,
    in_use: [u32; 5],
    queues: [VecDeque<(Place, T)>; 5],
    next_place: u64,
    handoffs: u32,
    /// Ticks since the class last had work here.
    quiet: [u8; 5],
}

impl<T> Gate<T> {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            in_use: [0; 5],
            queues: std::array::from_fn(|_| VecDeque::new()),
            next_place: 0,
            handoffs: 0,
            quiet: [LEND_AFTER; 5],
        }
    }

    /// Takes a slot at once, if the class may have it and nobody of its class or a higher one waits.
    pub(crate) fn try_take(&mut self, class: Class) -> bool {
        let k = class.index();
        self.quiet[k] = 0;
        if self.queues[..=k].iter().any(|queue| !queue.is_empty()) || !self.may_take(k) {
            return false;
        }
        self.in_use[k] += 1;
        true
    }

    /// Puts a waiter at the end of its class's queue. Call [`Gate::hand_off`] next: the waiter may be entitled to a
    /// free slot that [`Gate::try_take`] left to higher classes.
    pub(crate) fn queue(&mut self, class: Class, waiter: T) -> Queued<T> {
        let k = class.index();
        let mut displaced = None;
        if self.waiting() >= self.limits.max_waiting {
            let lowest = (k + 1..5).rev().find(|&lower| !self.queues[lower].is_empty());
            match lowest.and_then(|lower| self.queues[lower].pop_back()) {
                Some((_, waiter)) => displaced = Some(waiter),
                None => return Queued::Full,
            }
        }
        let place = Place(self.next_place);
        self.next_place += 1;
        self.queues[k].push_back((place, waiter));
        match displaced {
            Some(waiter) => Queued::Displacing(place, waiter),
            None => Queued::Waiting(place),
        }
    }

    /// Takes a waiter out of its queue; false when it is not there any more, having been handed a slot or refused.
    pub(crate) fn leave(&mut self, class: Class, place: Place) -> bool {
        let queue = &mut self.queues[class.index()];
        match queue.binary_search_by_key(&place, |&(place, _)| place) {
            Ok(at) => queue.remove(at).is_some(),
            Err(_) => false,
        }
    }

    /// Gives a slot back. Call [`Gate::hand_off`] next.
    pub(crate) fn release(&mut self, class: Class) {
        let in_use = &mut self.in_use[class.index()];
        debug_assert!(*in_use > 0, "a slot is released once");
        *in_use = in_use.saturating_sub(1);
    }

    /// Time passes: classes without work for long lend their shares out. Call [`Gate::hand_off`] next.
    pub(crate) fn tick(&mut self) {
        for k in 0..5 {
            let busy = self.in_use[k] > 0 || !self.queues[k].is_empty();
            self.quiet[k] = if busy { 0 } else { self.quiet[k].saturating_add(1).min(LEND_AFTER) };
        }
    }

    /// Hands free slots to the waiters that may have them; after this no waiter that may take a slot still waits.
    pub(crate) fn hand_off(&mut self) -> Granted<T> {
        let mut granted = Granted::new();
        while let Some(k) = self.next_class() {
            let Some((_, waiter)) = self.queues[k].pop_front() else { break };
            self.in_use[k] += 1;
            self.handoffs = self.handoffs.wrapping_add(1);
            granted.push(waiter);
        }
        granted
    }

    pub(crate) fn waiting(&self) -> u32 {
        self.queues.iter().map(|queue| queue.len() as u32).sum()
    }

    pub(crate) fn waiting_by_class(&self) -> [u32; 5] {
        std::array::from_fn(|k| self.queues[k].len() as u32)
    }

    pub(crate) fn in_use(&self) -> u32 {
        self.in_use.iter().sum()
    }

    fn next_class(&self) -> Option<usize> {
        if self.free() == 0 {
            return None;
        }
        let waits = |k: &usize| !self.queues[*k].is_empty();
        if waits(&0) {
            return Some(0);
        }
        let may_take = |k: &usize| waits(k) && self.may_take(*k);
        if self.handoffs % AGEING == AGEING - 1 {
            return (1..5).filter(may_take).min_by_key(|&k| self.queues[k].front().map(|&(place, _)| place));
        }
        (1..5).filter(may_take).find(|&k| self.in_use[k] < self.limits.reserved[k]).or_else(|| (1..5).find(may_take))
    }

    fn may_take(&self, k: usize) -> bool {
        let free = self.free();
        if k == 0 {
            return free > 0;
        }
        let within_own_share = self.in_use[k] < self.limits.reserved[k];
        if within_own_share && free > self.owed(0) {
            return true;
        }
        free > (0..k).map(|higher| self.owed(higher)).sum()
    }

    /// Slots that must stay free for this class.
    fn owed(&self, k: usize) -> u32 {
        let present = k == 0 || self.quiet[k] < LEND_AFTER || self.in_use[k] > 0 || !self.queues[k].is_empty();
        if present { self.limits.reserved[k].saturating_sub(self.in_use[k]) } else { 0 }
    }

    fn free(&self) -> u32 {
        self.limits.capacity.saturating_sub(self.in_use())
    }
}

#[cfg(test)]
mod tests;
