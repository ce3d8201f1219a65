//! The log as the proxy sees it: appends from any thread, one thread behind for what must not wait in a session.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex};
use pgward_config::{Audit, AuditPolicy, Class};

use crate::error::AuditError;
use crate::file::AppendFile;
use crate::receipt::Receipt;
use crate::record::{Event, Outcome, Record};
use crate::recovery;
use crate::state::{BUFFER_FULL, Beginning, Claim, Manner, State};

/// How often the file's place is looked after, and a failed disk tried again.
const TICK: Duration = Duration::from_secs(1);
/// Longest time that a record stays in the buffer (policy `buffered`).
const LINGER: Duration = Duration::from_millis(100);

/// The audit log of one instance.
///
/// A record is encoded, numbered and written under one lock, since numbers must stand in the file in order; while
/// [`AuditLog::gather`] is awaited, those of one turn are written by one call.
///
/// A typical record is 680 bytes; an append of it costs the calling thread, in CPU time (2-vCPU EPYC, ext4, release
/// build, least of 7 rounds of 40 000): `buffered` 0.3 µs, which is the encoding; `written` 0.9 µs, the rest being the
/// write(2); `synced` 6 µs and the wait for the disk. To measure again: time such a loop against
/// `/proc/thread-self/schedstat`.
/// The other ways to write that were measured stand in `file.rs`.
pub struct AuditLog {
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

/// The log's state, for consoles and metrics.
#[derive(Clone, Debug)]
pub struct Status {
    /// Number of the next record.
    pub next_seq: u64,
    /// Bytes in the current file.
    pub file_bytes: u64,
    /// Since when, and why, the file cannot be written.
    pub outage: Option<(SystemTime, AuditError)>,
    /// Records held in memory.
    pub spooled_records: usize,
    /// Their bytes.
    pub spooled_bytes: usize,
    /// Records lost in this outage because the spool was full.
    pub lost: u64,
}

impl AuditLog {
    /// Opens the file, or creates it with its folder, and goes on behind its last record. A torn last line is cut off; a
    /// damaged file is set aside; an event says so.
    ///
    /// # Errors
    /// The file cannot be opened, another process writes to it, or it is not an audit log.
    pub fn open(config: &Audit, instance: &str) -> Result<Self, AuditError> {
        let opened = recovery::open(&config.path).map_err(|error| AuditError::new(&config.path, "open", error))?;
        let recovery::Opened { file, len, first_seq, next_seq, mended } = opened;
        let sink = Box::new(AppendFile::new(config.path.clone(), file));
        Ok(Self::begin(config, instance, Beginning { sink, len, first_seq, next_seq, mended }))
    }

    pub(crate) fn begin(config: &Audit, instance: &str, beginning: Beginning) -> Self {
        let mut state = State::new(config, instance, beginning);
        state.tick(SystemTime::now());
        let shared = Arc::new(Shared { state: Mutex::new(state), wake: Condvar::new() });
        let behind = Arc::clone(&shared);
        let worker = thread::Builder::new().name("pgward-audit".to_owned()).spawn(move || behind.work());
        if let Err(error) = &worker {
            tracing::error!(%error, "cannot start the audit thread");
        }
        Self { shared, worker: worker.ok() }
    }

    /// Records a decision taken at `now`. With policy `written` the line is in the file when this returns, unless it was
    /// [gathered](AuditLog::gather); then, and with `synced`, the receipt must be awaited before the statement is
    /// forwarded.
    ///
    /// A record of class emergency is never refused: while the file cannot be written it waits in memory and reaches the
    /// file, in order, with its own time and `"spooled":true`, as soon as writing works again. When the spool is full it
    /// is lost, and the event that ends the outage says how many were.
    ///
    /// # Errors
    /// The record is not in the log; its statement must be refused with [`AuditError::SQLSTATE`].
    pub fn append(&self, record: &Record<'_>, now: SystemTime) -> Result<Receipt, AuditError> {
        let claim = if record.class == Class::Emergency { Claim::Emergency } else { Claim::Decision };
        // A refusal is told to the client as soon as this returns.
        let manner = match record.outcome {
            Outcome::Forwarded { .. } => Manner::WithItsTurn,
            Outcome::Refused { .. } => Manner::AtOnce,
        };
        self.with(claim, manner, now, |out, head| record.encode(out, head))
    }

    /// Records what happened beside decisions. It is spooled while the file cannot be written, as far as a quarter of
    /// the spool goes.
    ///
    /// # Errors
    /// The event is not in the log.
    pub fn event(&self, event: &Event<'_>, now: SystemTime) -> Result<Receipt, AuditError> {
        self.with(Claim::Event, Manner::AtOnce, now, |out, head| event.encode(out, head))
    }

    fn with(
        &self,
        claim: Claim,
        manner: Manner,
        now: SystemTime,
        encode: impl FnOnce(&mut Vec<u8>, &[u8]),
    ) -> Result<Receipt, AuditError> {
        let mut state = self.shared.state.lock();
        let receipt = state.append(claim, manner, now, encode);
        let wake = match state.policy {
            AuditPolicy::Written => false,
            AuditPolicy::Buffered => state.buffer.len() >= BUFFER_FULL,
            AuditPolicy::Synced => state.group.is_some(),
        };
        drop(state);
        if wake {
            self.shared.wake.notify_one();
        }
        receipt
    }

    /// While this is awaited, records of policy `written` that are appended in one turn of the awaiting runtime's run
    /// queue are written by one write(2), and their [receipts](Receipt) are pending until then. To be spawned on a
    /// runtime whose one thread runs all sessions: on several threads they would wait for each other.
    ///
    /// Never ends; when it is dropped, records are written one by one again.
    pub async fn gather(&self) {
        let _end = EndOfGather(&self.shared);
        poll_fn(|cx| {
            let mut state = self.shared.state.lock();
            if state.policy == AuditPolicy::Written {
                state.gather.set_writer(Some(cx.waker()));
                // The receipts tell of a failure.
                let _ = state.write_turn();
            }
            Poll::Pending
        })
        .await
    }

    /// Writes and syncs everything that was appended before.
    ///
    /// # Errors
    /// Something could not be written.
    pub fn flush(&self) -> Result<(), AuditError> {
        let now = SystemTime::now();
        let mut state = self.shared.state.lock();
        state.flush(now)?;
        state.settle(now)
    }

    /// Takes up the path anew, after the file was renamed by someone else (SIGHUP). The log notices that by itself
    /// within a second; this is for those who do not want to wait.
    ///
    /// # Errors
    /// The path cannot be opened; statements are refused until it can.
    pub fn reopen(&self) -> Result<(), AuditError> {
        let now = SystemTime::now();
        let mut state = self.shared.state.lock();
        state.flush(now)?;
        state.settle(now)?;
        state.look(now)
    }

    /// How the log is.
    pub fn status(&self) -> Status {
        let state = self.shared.state.lock();
        let (spooled_records, spooled_bytes) = state.spooled();
        Status {
            next_seq: state.next_seq,
            file_bytes: state.committed(),
            outage: state.outage().map(|outage| (outage.since, outage.error.clone())),
            spooled_records,
            spooled_bytes,
            lost: state.outage().map_or(0, |outage| outage.lost),
        }
    }
}

struct EndOfGather<'a>(&'a Shared);

impl Drop for EndOfGather<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.gather.set_writer(None);
        let _ = state.write_turn();
    }
}

/// Writes what is left.
impl Drop for AuditLog {
    fn drop(&mut self) {
        self.shared.state.lock().stop = true;
        self.shared.wake.notify_one();
        if let Some(worker) = self.worker.take()
            && worker.join().is_err()
        {
            tracing::error!("the audit thread panicked");
        }
        if let Err(error) = self.flush() {
            tracing::error!(%error, "records are lost at the end");
        }
    }
}

impl std::fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditLog").field("status", &self.status()).finish()
    }
}

impl Shared {
    fn work(&self) {
        let mut tick = Instant::now() + TICK;
        loop {
            self.sync_group();
            let mut state = self.state.lock();
            if state.stop {
                return;
            }
            if state.group.is_none() && state.buffer.len() < BUFFER_FULL {
                let patience = if state.policy == AuditPolicy::Buffered { LINGER } else { TICK };
                self.wake.wait_for(&mut state, patience);
            }
            let now = SystemTime::now();
            if state.policy == AuditPolicy::Buffered {
                // A failure is kept in the state and answered to whoever appends next.
                let _ = state.flush(now);
            }
            if Instant::now() >= tick {
                state.tick(now);
                tick = Instant::now() + TICK;
            }
        }
    }

    /// One fdatasync for all who came while the one before ran; appends go on meanwhile.
    fn sync_group(&self) {
        let Some((flight, sync)) = self.state.lock().take_off() else { return };
        let result = sync();
        self.state.lock().land(flight, result, SystemTime::now());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
