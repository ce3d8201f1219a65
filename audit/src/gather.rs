//! Policy `written`: records that are written together.
//!
//! A record must be in the file before its statement is forwarded, but a write(2) for each costs more than everything
//! else about it. Where many sessions share a thread, those that have something to record in the same turn of its run
//! queue wait for one write: [`AuditLog::gather`](crate::AuditLog::gather) is a task among theirs, woken by the first
//! record, and its turn comes when all that were ready before it have had theirs. A session that is alone writes at
//! once, since for it the second turn would only cost time; every so often it is looked whether it still is.

use std::sync::Arc;
use std::task::Waker;
use std::time::SystemTime;

use crate::receipt::{Group, Pending, Receipt};
use crate::state::{Claim, Lines};

/// After so many turns with one record each, records are written at once.
const ALONE: u8 = 4;
/// Two records in so many are gathered nevertheless, to see whether others come in the same turn: two in a row, because
/// one could be the last of its turn each time.
const PROBE: u64 = 32;
/// More is not held back: whoever appends writes.
const FULL: usize = 64 * 1024;

/// Lines that have numbers and are not in the file yet.
pub(crate) struct Gather {
    lines: Lines,
    /// Time of the last of them.
    last: SystemTime,
    group: Option<Arc<Group>>,
    /// Wakes the task that writes; without one nothing is gathered.
    writer: Option<Waker>,
    /// Turns in a row with a single record.
    alone: u8,
}

impl Default for Gather {
    fn default() -> Self {
        Self { lines: Lines::default(), last: SystemTime::UNIX_EPOCH, group: None, writer: None, alone: 0 }
    }
}

impl Gather {
    /// Whether the record of this number is to wait for the end of the turn.
    pub(crate) fn is_for(&self, seq: u64) -> bool {
        self.writer.is_some() && (self.group.is_some() || self.alone < ALONE || seq % PROBE < 2)
    }

    /// The bytes gathered so far, for the next line to be appended to.
    pub(crate) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.lines.bytes
    }

    /// A line was appended that begins at `start`. The first of a turn wakes the task that writes.
    pub(crate) fn note(&mut self, start: usize, claim: Claim, now: SystemTime) -> Receipt {
        self.last = now;
        self.lines.lines.push((self.lines.bytes.len() - start, claim));
        if self.group.is_none()
            && let Some(writer) = &self.writer
        {
            writer.wake_by_ref();
        }
        let group = self.group.get_or_insert_default();
        Receipt::Pending(Pending::new(Arc::clone(group), claim == Claim::Emergency))
    }

    pub(crate) fn is_full(&self) -> bool {
        self.lines.bytes.len() >= FULL
    }

    /// Who writes from now on, or nobody.
    pub(crate) fn set_writer(&mut self, writer: Option<&Waker>) {
        match (&mut self.writer, writer) {
            (Some(known), Some(writer)) => known.clone_from(writer),
            (known, writer) => *known = writer.cloned(),
        }
    }

    /// The turn is over: what it gathered, when the last of it came, and who waits for it.
    pub(crate) fn take(&mut self) -> Option<(Lines, SystemTime, Arc<Group>)> {
        let group = self.group.take()?;
        let lines = std::mem::take(&mut self.lines);
        self.alone = if lines.lines.len() > 1 { 0 } else { (self.alone + 1).min(ALONE) };
        Some((lines, self.last, group))
    }

    /// Gives the room of lines back that were written.
    pub(crate) fn reuse(&mut self, mut lines: Lines) {
        lines.clear();
        if self.lines.bytes.is_empty() && lines.bytes.capacity() <= 2 * FULL {
            self.lines = lines;
        }
    }
}
