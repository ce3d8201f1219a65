//! The log's state machine: numbers, the end of the file, and what happens when the disk fails.
//!
//! Invariant: the file's first `committed` bytes are whole records in order, the last of them numbered just below
//! `next_seq` (less what `buffer` still holds). Bytes behind `committed` can only be the rest of a failed write; they are
//! cut off before anything else is written. A record has a number only while it is in the file or in `buffer`, so that
//! no failure leaves a gap.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use pgward_config::AuditPolicy;

use crate::error::AuditError;
use crate::file::{Found, Sink};
use crate::gather::Gather;
use crate::json;
use crate::receipt::{Group, Pending, Receipt};
use crate::record::{Event, EventKind};
use crate::spool::{Share, Spool};

/// A full buffer wakes the flusher.
pub(crate) const BUFFER_FULL: usize = 64 * 1024;
/// A buffer that the flusher did not get to is flushed by whoever appends.
const BUFFER_MAX: usize = 16 * BUFFER_FULL;
/// Spooled records are replayed in writes of about this size.
const REPLAY_BYTES: usize = 64 * 1024;
/// After a failed rotation the file goes on for so long before the next attempt.
const ROTATE_RETRY: Duration = Duration::from_secs(60);
/// Marks a record that reached the file late.
const SPOOLED: &[u8] = b",\"spooled\":true";

/// What a record is to the log when it cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Refused: its statement is not forwarded.
    Decision,
    /// Spooled: its statement goes on.
    Emergency,
    /// Spooled while there is room: it tells what has happened anyway.
    Event,
}

/// When a record of policy `written` reaches the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Before the append returns.
    AtOnce,
    /// With those of its turn, where turns are gathered: something waits for it anyway.
    WithItsTurn,
}

pub(crate) struct State {
    sink: Box<dyn Sink>,
    path: PathBuf,
    head: json::Head,
    pub(crate) policy: AuditPolicy,
    rotate_bytes: Option<u64>,
    rotate_retry: Option<Instant>,
    committed: u64,
    first_seq: u64,
    pub(crate) next_seq: u64,
    /// Bytes may stand behind `committed`.
    torn: bool,
    /// The path does not lead to the file any more.
    misplaced: bool,
    /// The line being made.
    line: Vec<u8>,
    /// Policy `buffered`: lines that have numbers but are not in the file yet.
    pub(crate) buffer: Vec<u8>,
    buffered: u64,
    /// Policy `written`: lines that have numbers and wait for their turn's one write.
    pub(crate) gather: Gather,
    /// Policy `synced`: lines in the file that may not be on disk yet.
    unsynced: Lines,
    pub(crate) group: Option<Arc<Group>>,
    /// The log is being dropped.
    pub(crate) stop: bool,
    /// Counts what makes an fdatasync under way meaningless for `unsynced`.
    epoch: u64,
    spool: Spool,
    outage: Option<Outage>,
    /// To be said in events of the log's own.
    notes: Vec<String>,
}

/// Whole lines with what each is to the log.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pub(crate) bytes: Vec<u8>,
    /// The length of each.
    pub(crate) lines: Vec<(usize, Claim)>,
}

/// The time since the file could not be written.
#[derive(Clone, Debug)]
pub(crate) struct Outage {
    pub(crate) since: SystemTime,
    pub(crate) error: AuditError,
    pub(crate) held: u64,
    pub(crate) lost: u64,
}

/// A group on its way to the disk.
pub(crate) struct Flight {
    pub(crate) group: Arc<Group>,
    lines: usize,
    epoch: u64,
}

/// What a [`State`] begins with.
pub(crate) struct Beginning {
    pub(crate) sink: Box<dyn Sink>,
    pub(crate) len: u64,
    pub(crate) first_seq: u64,
    pub(crate) next_seq: u64,
    pub(crate) mended: Option<String>,
}

impl State {
    pub(crate) fn new(config: &pgward_config::Audit, instance: &str, beginning: Beginning) -> Self {
        let Beginning { sink, len, first_seq, next_seq, mended } = beginning;
        Self {
            sink,
            path: config.path.clone(),
            head: json::Head::new(instance),
            policy: config.policy,
            rotate_bytes: config.rotate_bytes,
            rotate_retry: None,
            committed: len,
            first_seq,
            next_seq,
            torn: false,
            misplaced: false,
            line: Vec::with_capacity(4096),
            buffer: Vec::new(),
            buffered: 0,
            gather: Gather::default(),
            unsynced: Lines::default(),
            group: None,
            stop: false,
            epoch: 0,
            spool: Spool::new(config.spool_bytes),
            outage: None,
            notes: mended.into_iter().collect(),
        }
    }

    // Appending

    pub(crate) fn append(
        &mut self,
        claim: Claim,
        manner: Manner,
        now: SystemTime,
        encode: impl FnOnce(&mut Vec<u8>, &[u8]),
    ) -> Result<Receipt, AuditError> {
        let ready = self.ready(now);
        if ready.is_ok() && manner == Manner::WithItsTurn && self.gather.is_for(self.next_seq) {
            return Ok(self.append_to_turn(claim, now, encode));
        }
        // In any case: what was gathered before stands before this record, in the file or in the spool.
        let turn = self.write_turn();
        let ready = ready.and(turn);
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        let body = self.encode(&mut line, now, encode);
        let receipt = match ready.and_then(|()| self.commit(&line, claim, now)) {
            Ok(receipt) => Ok(receipt),
            Err(error) => self.hold(&line[body..line.len() - 2], claim, error),
        };
        self.line = line;
        receipt
    }

    /// Makes a line behind what is in `out`; where its body, which is what stands behind the number, begins.
    fn encode(&mut self, out: &mut Vec<u8>, now: SystemTime, encode: impl FnOnce(&mut Vec<u8>, &[u8])) -> usize {
        out.extend_from_slice(b"{\"seq\":");
        json::integer(out, self.next_seq);
        let body = out.len();
        encode(out, self.head.at(now));
        out.extend_from_slice(b"}\n");
        body
    }

    /// Ends an outage and rotates, where due.
    fn ready(&mut self, now: SystemTime) -> Result<(), AuditError> {
        if self.outage.is_some() {
            self.heal(now)?;
        }
        match self.rotate_bytes {
            Some(limit) if self.committed >= limit => self.rotate(now),
            _ => Ok(()),
        }
    }

    fn commit(&mut self, line: &[u8], claim: Claim, now: SystemTime) -> Result<Receipt, AuditError> {
        if self.policy == AuditPolicy::Buffered {
            self.buffer.extend_from_slice(line);
            self.buffered += 1;
            self.next_seq += 1;
            if self.buffer.len() >= BUFFER_MAX {
                // The record keeps its place in the buffer; a failure shows in the next append.
                let _ = self.flush(now);
            }
            return Ok(Receipt::Done);
        }
        self.put(line, now)?;
        self.next_seq += 1;
        if self.policy == AuditPolicy::Written {
            return Ok(Receipt::Done);
        }
        self.unsynced.push(line, claim);
        let group = self.group.get_or_insert_default();
        Ok(Receipt::Pending(Pending::new(Arc::clone(group), claim == Claim::Emergency)))
    }

    /// Writes whole lines behind the committed ones, or leaves no trace of them.
    fn put(&mut self, lines: &[u8], now: SystemTime) -> Result<(), AuditError> {
        self.try_put(lines).map_err(|error| self.fail("write", error, now))
    }

    fn try_put(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.torn {
            self.sink.truncate(self.committed)?;
            self.torn = false;
        }
        let mut written = 0;
        while written < lines.len() {
            match self.sink.write(&lines[written..]) {
                Ok(0) => {
                    self.undo(written);
                    return Err(io::ErrorKind::WriteZero.into());
                }
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.undo(written);
                    return Err(error);
                }
            }
        }
        self.committed += lines.len() as u64;
        Ok(())
    }

    fn undo(&mut self, written: usize) {
        self.torn = written > 0 && self.sink.truncate(self.committed).is_err();
    }

    // Policy `written`, by turns

    fn append_to_turn(&mut self, claim: Claim, now: SystemTime, encode: impl FnOnce(&mut Vec<u8>, &[u8])) -> Receipt {
        let mut bytes = std::mem::take(self.gather.bytes());
        let start = bytes.len();
        self.encode(&mut bytes, now, encode);
        *self.gather.bytes() = bytes;
        self.next_seq += 1;
        let receipt = self.gather.note(start, claim, now);
        if self.gather.is_full() {
            // The receipts tell of a failure.
            let _ = self.write_turn();
        }
        receipt
    }

    /// Writes what the turn has gathered and answers those who wait for it. When it cannot be written no trace of it is
    /// left: ordinary statements are refused, emergencies go to the spool.
    pub(crate) fn write_turn(&mut self) -> Result<(), AuditError> {
        let Some((lines, now, group)) = self.gather.take() else { return Ok(()) };
        let outcome = self.put(&lines.bytes, now);
        if outcome.is_err() {
            self.next_seq -= lines.lines.len() as u64;
            self.spool_emergencies(&lines);
        }
        self.gather.reuse(lines);
        group.complete(outcome.clone());
        outcome
    }

    // Failing and healing

    fn fail(&mut self, doing: &'static str, error: io::Error, now: SystemTime) -> AuditError {
        let error = AuditError::new(&self.path, doing, error);
        match &mut self.outage {
            Some(outage) => outage.error = error.clone(),
            None => {
                tracing::error!(%error, "statements are refused, emergencies are recorded in memory");
                self.outage = Some(Outage { since: now, error: error.clone(), held: 0, lost: 0 });
            }
        }
        error
    }

    /// A record that could not be written.
    fn hold(&mut self, body: &[u8], claim: Claim, error: AuditError) -> Result<Receipt, AuditError> {
        let share = match claim {
            Claim::Decision => return Err(error),
            Claim::Emergency => Share::Whole,
            Claim::Event => Share::Quarter,
        };
        let held = self.spool.push(&[body, SPOOLED].concat(), share);
        if let Some(outage) = &mut self.outage {
            if held {
                outage.held += 1;
            } else {
                if outage.lost == 0 {
                    tracing::error!("the audit spool is full: records of emergencies are being lost");
                }
                outage.lost += 1;
            }
        }
        if held || claim == Claim::Emergency { Ok(Receipt::Done) } else { Err(error) }
    }

    /// Writes what waits in memory and then an event that says so. Ends the outage, or returns why it goes on.
    fn heal(&mut self, now: SystemTime) -> Result<(), AuditError> {
        if self.misplaced {
            self.look(now)?;
        }
        self.write_buffer(now)?;
        while !self.spool.is_empty() {
            self.replay(now)?;
        }
        let Some(outage) = self.outage.clone() else { return Ok(()) };
        let detail = outage.story();
        let event = own_event(&detail);
        let mut line = Vec::new();
        self.encode(&mut line, now, |out, head| event.encode(out, head));
        self.put(&line, now)?;
        self.next_seq += 1;
        if self.policy == AuditPolicy::Synced {
            self.unsynced.push(&line, Claim::Decision);
            self.settle(now)?;
        }
        tracing::warn!("{detail}");
        self.outage = None;
        Ok(())
    }

    /// Moves some of the spool's oldest records into the file.
    fn replay(&mut self, now: SystemTime) -> Result<(), AuditError> {
        let mut lines = Vec::with_capacity(REPLAY_BYTES);
        let mut ends = Vec::new();
        for body in self.spool.iter() {
            if lines.len() >= REPLAY_BYTES {
                break;
            }
            lines.extend_from_slice(b"{\"seq\":");
            json::integer(&mut lines, self.next_seq + ends.len() as u64);
            lines.extend_from_slice(body);
            lines.extend_from_slice(b"}\n");
            ends.push(lines.len());
        }
        self.put(&lines, now)?;
        self.next_seq += ends.len() as u64;
        self.spool.forget(ends.len());
        if self.policy == AuditPolicy::Synced {
            let mut start = 0;
            for end in ends {
                self.unsynced.push(&lines[start..end], Claim::Emergency);
                start = end;
            }
        }
        Ok(())
    }

    // Policy `buffered`

    /// Writes the buffer; it is kept when that fails.
    pub(crate) fn flush(&mut self, now: SystemTime) -> Result<(), AuditError> {
        self.write_turn()?;
        self.ready(now)?;
        self.write_buffer(now)
    }

    fn write_buffer(&mut self, now: SystemTime) -> Result<(), AuditError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.put(&buffer, now);
        if result.is_ok() {
            buffer.clear();
            self.buffered = 0;
        }
        self.buffer = buffer;
        result
    }

    // Policy `synced`

    /// The group to be synced now, with the call that does it.
    pub(crate) fn take_off(&mut self) -> Option<(Flight, crate::file::Syncer)> {
        let group = self.group.take()?;
        let flight = Flight { group, lines: self.unsynced.lines.len(), epoch: self.epoch };
        Some((flight, self.sink.syncer()))
    }

    /// The group's fdatasync has come back.
    pub(crate) fn land(&mut self, flight: Flight, result: io::Result<()>, now: SystemTime) {
        let outcome = match result {
            Ok(()) => {
                if flight.epoch == self.epoch {
                    self.unsynced.forget(flight.lines);
                }
                Ok(())
            }
            Err(error) => {
                let error = self.fail("sync", error, now);
                if flight.epoch == self.epoch {
                    self.roll_back(&error);
                }
                Err(error)
            }
        };
        flight.group.complete(outcome);
    }

    /// Syncs at once, holding the log: before a rotation, after an outage, at the end.
    pub(crate) fn settle(&mut self, now: SystemTime) -> Result<(), AuditError> {
        if self.unsynced.lines.is_empty() {
            return Ok(());
        }
        match (self.sink.syncer())() {
            Ok(()) => {
                self.unsynced = Lines::default();
                self.epoch += 1;
                if let Some(group) = self.group.take() {
                    group.complete(Ok(()));
                }
                Ok(())
            }
            Err(error) => {
                let error = self.fail("sync", error, now);
                self.roll_back(&error);
                Err(error)
            }
        }
    }

    /// After a failed fdatasync nothing is known of the lines since the last good one (the kernel may have dropped
    /// their pages), so they are taken out of the file: ordinary statements are refused, emergencies go to the spool.
    fn roll_back(&mut self, error: &AuditError) {
        let unsynced = std::mem::take(&mut self.unsynced);
        self.epoch += 1;
        self.next_seq -= unsynced.lines.len() as u64;
        self.committed -= unsynced.bytes.len() as u64;
        self.torn = self.sink.truncate(self.committed).is_err();
        self.spool_emergencies(&unsynced);
        if let Some(group) = self.group.take() {
            group.complete(Err(error.clone()));
        }
    }

    /// Lines that had numbers and have none any more: those of emergencies are the oldest that wait in memory.
    fn spool_emergencies(&mut self, lines: &Lines) {
        let bodies = lines.emergencies();
        let held = bodies.len() as u64;
        let lost = self.spool.push_front(bodies);
        if let Some(outage) = &mut self.outage {
            outage.held += held - lost;
            outage.lost += lost;
        }
    }

    // The file's place

    fn rotate(&mut self, now: SystemTime) -> Result<(), AuditError> {
        if self.rotate_retry.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        self.write_turn()?;
        self.settle(now)?;
        match self.sink.rotate(self.first_seq) {
            Ok(()) => {
                self.committed = 0;
                self.first_seq = self.next_seq - self.buffered;
                self.rotate_retry = None;
            }
            Err(error) => {
                tracing::error!(%error, path = %self.path.display(), "cannot rotate the audit log; the file goes on");
                self.rotate_retry = Some(Instant::now() + ROTATE_RETRY);
            }
        }
        Ok(())
    }

    /// Makes sure that the path still leads to what is written: a deleted file is written anew, a renamed one is left
    /// and a new one begun.
    pub(crate) fn look(&mut self, now: SystemTime) -> Result<(), AuditError> {
        if self.torn {
            return Ok(());
        }
        let before = self.committed;
        match self.sink.check(self.committed) {
            Ok(found) => {
                self.misplaced = false;
                self.take_up(found, before);
                if found == Found::Same { Ok(()) } else { self.settle(now) }
            }
            Err(error) => {
                self.misplaced = true;
                Err(self.fail("reopen", error, now))
            }
        }
    }

    fn take_up(&mut self, found: Found, before: u64) {
        let note = match found {
            Found::Same => return,
            Found::Resized(len) => {
                self.committed = len;
                format!("the file was found with {len} bytes in place of {before}: someone else changed it")
            }
            Found::Restored(len) => {
                self.committed = len;
                "the file had been deleted; it was written anew from the open descriptor".to_owned()
            }
            Found::Other(len) => {
                self.committed = len;
                self.first_seq = self.next_seq - self.buffered;
                "the file was moved away; this one continues it".to_owned()
            }
        };
        tracing::warn!(path = %self.path.display(), "audit log: {note}");
        self.notes.push(note);
    }

    /// Once a second: heals, looks after the file, says what there is to say.
    pub(crate) fn tick(&mut self, now: SystemTime) {
        // Failures are kept in `outage`; the next tick tries again.
        let _ = self.write_turn();
        if self.outage.is_none() || self.heal(now).is_ok() {
            let _ = self.look(now);
        }
        for note in std::mem::take(&mut self.notes) {
            let event = own_event(&note);
            let _ = self.append(Claim::Event, Manner::AtOnce, now, |out, head| event.encode(out, head));
        }
    }

    pub(crate) fn outage(&self) -> Option<&Outage> {
        self.outage.as_ref()
    }

    pub(crate) fn committed(&self) -> u64 {
        self.committed
    }

    pub(crate) fn spooled(&self) -> (usize, usize) {
        (self.spool.len(), self.spool.bytes())
    }
}

impl Lines {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.lines.clear();
    }

    fn push(&mut self, line: &[u8], claim: Claim) {
        self.bytes.extend_from_slice(line);
        self.lines.push((line.len(), claim));
    }

    fn forget(&mut self, lines: usize) {
        let bytes: usize = self.lines.drain(..lines).map(|(len, _)| len).sum();
        self.bytes.drain(..bytes);
    }

    /// What emergencies' records go back to the spool as.
    fn emergencies(&self) -> Vec<Box<[u8]>> {
        let mut rest = &*self.bytes;
        let mut bodies = Vec::new();
        for &(len, claim) in &self.lines {
            let (line, behind) = rest.split_at(len);
            rest = behind;
            if claim == Claim::Emergency {
                let start = line.iter().position(|&byte| byte == b',').unwrap_or(0);
                let body = &line[start..len - 2];
                let mark = if body.ends_with(SPOOLED) { &[] } else { SPOOLED };
                bodies.push([body, mark].concat().into());
            }
        }
        bodies
    }
}

impl Outage {
    fn story(&self) -> String {
        let since = json::Head::time(self.since);
        format!(
            "the log could not be written from {since} on ({}); {} records were held in memory and stand before this \
             one, {} found no room and are lost",
            self.error.cause(),
            self.held,
            self.lost
        )
    }
}

fn own_event(detail: &str) -> Event<'_> {
    Event { kind: EventKind::AuditLog, who: None, sqlstate: None, detail, config: "" }
}
