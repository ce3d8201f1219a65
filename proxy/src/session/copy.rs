//! COPY … FROM STDIN into a patient table: each row is checked before it goes to a server.
//!
//! Which shard takes the rows is known only when the first of them is here. So the client is told to send rows first
//! (CopyInResponse), the first complete rows decide, the server is told then; every later row must be of the same
//! shard, or, where the COPY is a transaction of its own, goes to its own ([`split`](super::split)). One row that has
//! no place, without a patient, or of a patient whom nobody knows ends the whole COPY.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use pgward_config::{NodeRole, TableKind};
use pgward_router::copy_rows::{CopyRows, CsvEnd, Rows};
use pgward_router::decide::Ask;
use pgward_router::statement::{CopyFormat, CopyFrom};
use pgward_router::{Evidence, Refusal, RefusalKind, TableUse, Transaction};
use pgward_wire::tag::frontend as tag;
use pgward_wire::{PgError, backend, frame, frontend};

use super::route::Asked;
use super::work::{Expect, Op};
use super::{Fatal, Need, Session, Step, Tx, errors};

/// Rows of one COPY on their way to one shard.
pub(super) struct CopyGuard {
    pub(super) rows: CopyRows,
    /// The COPY statement.
    pub(super) sql: Bytes,
    pub(super) fingerprint: Arc<str>,
    pub(super) table: TableUse,
    /// It came as a Query.
    pub(super) simple: bool,
    /// A server has been told.
    started: bool,
    /// Received and not complete, or not checked yet.
    pub(super) held: BytesMut,
    /// A header line, which waits for the first row.
    ahead: BytesMut,
    /// Checked, and waiting for the server to be attached.
    ready: Option<Bytes>,
}

impl Session {
    /// Whether the rows of this COPY must be looked at.
    pub(super) fn must_guard(&self, copy: &CopyFrom) -> bool {
        copy.kind == TableKind::Patient
    }

    /// Begins a COPY whose rows are checked: the client is told to send them.
    pub(super) fn guarded_copy(&mut self, copy: &CopyFrom, sql: &[u8], fingerprint: &Arc<str>, simple: bool) -> Step {
        let max_row = self.state.config.proxy.max_message_bytes;
        let rows = match CopyRows::new(copy, self.state.config.sharding.key_type, max_row) {
            Ok(rows) => rows.read_by(self.csv_end(&copy.format)),
            Err(refusal) => {
                self.record_refusal(&refusal, &Asked { fingerprint, ..Asked::default() });
                self.refuse(&errors::refusal(&refusal), simple);
                return Step::Done;
            }
        };
        self.answer_deferred();
        let columns = copy.columns.as_ref().map_or(0, |columns| columns.len());
        let mut bytes = BytesMut::with_capacity(64);
        backend::put_copy_in_response(&mut bytes, copy.format == CopyFormat::Binary, columns);
        self.reply(bytes);
        self.split = self.may_split().then(Box::default);
        self.guard = Some(CopyGuard {
            rows,
            sql: Bytes::copy_from_slice(sql),
            fingerprint: Arc::clone(fingerprint),
            table: TableUse { name: copy.table.clone(), kind: copy.kind, written: true },
            simple,
            started: false,
            held: BytesMut::new(),
            ahead: BytesMut::new(),
            ready: None,
        });
        self.closed = simple;
        Step::Done
    }

    /// How the servers that may take the rows read `\.`: the transaction's, or all primaries.
    fn csv_end(&self, format: &CopyFormat) -> CsvEnd {
        let (CopyFormat::Csv { .. }, state) = (format, &self.state) else { return CsvEnd::Unknown };
        let shards = match self.transaction() {
            Transaction::Pinned(pin) => pin.shard..pin.shard + 1,
            _ => 0..state.config.shards.len(),
        };
        let nodes = shards.flat_map(|shard| state.fleet.shard(shard)).filter(|node| node.role == NodeRole::Primary);
        let parameters: Vec<_> = nodes.map(|node| node.parameters()).collect();
        CsvEnd::of_versions(parameters.iter().map(|known| {
            let mut known = known.as_ref()?.iter();
            known.find(|(name, _)| name == "server_version").map(|(_, version)| version.as_str())
        }))
    }

    /// Replies for what waited for a server in the segment of a COPY: the statement takes no parameters and returns no
    /// rows, so that all of it is known.
    fn answer_deferred(&mut self) {
        if self.attached.is_some() {
            return;
        }
        for op in &self.work.ops {
            match op {
                Op::Parse { .. } => self.client.out.extend_from_slice(backend::PARSE_COMPLETE),
                Op::Describe { .. } => {
                    backend::put_parameter_description(&mut self.client.out, &[]);
                    self.client.out.extend_from_slice(backend::NO_DATA);
                }
                op => self.client.out.extend_from_slice(op.own_reply().unwrap_or_default()),
            }
        }
        self.work.clear_segment();
    }

    /// The server takes rows that need no look: never those of a COPY whose guard has ended it.
    fn takes_raw(&self) -> bool {
        self.copy_in && !self.work.expects.iter().any(|expect| matches!(expect, Expect::CopyRows { .. }))
    }

    pub(super) fn copy_data(&mut self, frame: &[u8], body: &[u8]) -> Result<Step, Fatal> {
        if self.split.is_some() {
            return Ok(self.split_data(body));
        }
        if self.guard.is_none() {
            // Rows behind the end of a failed COPY are ignored, as servers do.
            if self.takes_raw() {
                self.raw(frame, None);
            }
            return Ok(Step::Done);
        }
        if let Some(error) = self.denied.take() {
            self.end_copy(&error);
            return Ok(Step::Done);
        }
        if let Some(step) = self.resume_copy() {
            return Ok(step);
        }
        let fed = match &mut self.guard {
            Some(guard) => {
                guard.held.extend_from_slice(body);
                guard.rows.feed(body)
            }
            None => return Ok(Step::Done),
        };
        Ok(self.check_rows(fed))
    }

    pub(super) fn copy_done(&mut self, frame: &[u8], behind: &[u8]) -> Result<Step, Fatal> {
        if let Some(step) = self.hold_copy_done(behind) {
            return Ok(step);
        }
        if self.split.is_some() {
            return Ok(self.split_done());
        }
        if self.guard.is_none() {
            if self.takes_raw() {
                self.copy_in = false;
                self.raw(frame, None);
            }
            return Ok(Step::Done);
        }
        if let Some(error) = self.denied.take() {
            self.end_copy(&error);
            return Ok(Step::Done);
        }
        // The last row may lack its newline: it is complete now.
        let step = match self.resume_copy() {
            Some(step) => step,
            None => {
                let rest = match &mut self.guard {
                    Some(guard) => guard.rows.finish(),
                    None => return Ok(Step::Done),
                };
                self.check_rows(rest)
            }
        };
        if let (Step::Done, Some(guard)) = (&step, self.guard.take_if(|guard| guard.ready.is_none())) {
            if guard.started {
                self.copy_in = false;
                self.raw(frame, None);
            } else {
                self.no_rows(guard.simple);
            }
        }
        Ok(step)
    }

    pub(super) fn copy_fail(&mut self, frame: &[u8]) -> Result<Step, Fatal> {
        if self.split.is_some() {
            self.end_split(&errors::copy_failed_by_client(frame));
            return Ok(Step::Done);
        }
        match self.guard.take() {
            None if self.takes_raw() => {
                self.copy_in = false;
                self.raw(frame, None);
            }
            None => {}
            Some(guard) if guard.started => {
                self.copy_in = false;
                self.raw(frame, None);
            }
            Some(guard) => {
                self.closed = false;
                self.refuse(&errors::copy_failed_by_client(frame), guard.simple);
            }
        }
        Ok(Step::Done)
    }

    /// A COPY without any row touches nobody.
    pub(super) fn no_rows(&mut self, simple: bool) {
        let mut bytes = BytesMut::with_capacity(24);
        backend::put_command_complete(&mut bytes, "COPY 0");
        self.closed = false;
        self.reply(bytes);
        if simple {
            self.reply_ready();
        }
    }

    /// The server for rows that were checked before is attached now: they go.
    fn resume_copy(&mut self) -> Option<Step> {
        let ready = self.guard.as_mut()?.ready.take()?;
        Some(match self.pending.take() {
            Some(pending) => self.send_rows(pending, &ready),
            None => {
                self.end_copy(&errors::internal("rows of a COPY lost their decision"));
                Step::Done
            }
        })
    }

    /// Decides about complete rows, and sends them on.
    fn check_rows(&mut self, fed: Result<Rows, Refusal>) -> Step {
        let started = Instant::now();
        let Some(guard) = &mut self.guard else { return Step::Done };
        let fingerprint = Arc::clone(&guard.fingerprint);
        let rows = match fed {
            Ok(rows) => rows,
            Err(refusal) => return self.refuse_copy(&refusal, &fingerprint),
        };
        if rows.release == 0 {
            return Step::Done;
        }
        let bytes = guard.held.split_to(rows.release).freeze();
        let table = guard.table.clone();
        if rows.evidence.mentions.is_empty() {
            // A header line or an end marker: it goes with the rows, and alone touches nobody.
            return self.send_unmentioned(bytes);
        }
        let (note, located) = self.resolve(&rows.evidence);
        let ask = Ask {
            reads_only: false,
            tables: std::slice::from_ref(&table),
            evidence: &rows.evidence,
            located: &located,
        };
        let mut decisions = match self.decide_asks(&[ask], &[]) {
            Ok(decisions) => decisions,
            Err(refusal) => {
                let refusal = self.with_way_out(self.elsewhere(refusal, &rows.evidence));
                return self.refuse_copy(&refusal, &fingerprint);
            }
        };
        let Some(decision) = decisions.pop() else { return Step::Done };
        let pending = self.pending_rows([(decision, note)], &fingerprint, started);
        if self.attached.is_some() {
            return self.send_rows(pending, &bytes);
        }
        self.pending = Some(pending);
        if let Some(guard) = &mut self.guard {
            guard.ready = Some(bytes);
        }
        Step::Attach(Need::Run)
    }

    /// Rows all of which are of another shard than the transaction: the first of them is what is in the way.
    fn elsewhere(&self, refusal: Refusal, evidence: &Evidence) -> Refusal {
        let (RefusalKind::TransactionElsewhere, Some(first)) = (refusal.kind, evidence.mentions.first()) else {
            return refusal;
        };
        let refusal = match &self.guard {
            // Without a transaction of the client's, it is this COPY's own.
            Some(guard) if guard.started => refusal.of_another_shard(),
            _ => refusal,
        };
        refusal.of_row(first.whence)
    }

    /// What is refused in a transaction block might be taken outside.
    fn with_way_out(&self, refusal: Refusal) -> Refusal {
        let several = matches!(refusal.kind, RefusalKind::SeveralRegions | RefusalKind::TransactionElsewhere);
        if several && !matches!(self.tx, Tx::Idle) && self.state.config.sharding.copy_across_shards {
            return refusal.hint(
                "Send the COPY outside of a transaction block, or one COPY for the patients of each shard. Nothing of \
                 this COPY stays.",
            );
        }
        refusal
    }

    /// Bytes that name nobody wait for the first row, or follow the others.
    fn send_unmentioned(&mut self, bytes: Bytes) -> Step {
        match &mut self.guard {
            Some(guard) if guard.started => self.put_rows(&bytes),
            Some(guard) => guard.ahead.extend_from_slice(&bytes),
            None => {}
        }
        Step::Done
    }

    fn send_rows(&mut self, mut pending: Box<super::route::Pending>, rows: &[u8]) -> Step {
        if let Err(error) = self.record(&mut pending) {
            self.end_copy(&error);
            return Step::Done;
        }
        let Some(guard) = &mut self.guard else { return Step::Done };
        if !guard.started {
            guard.started = true;
            let (sql, simple) = (guard.sql.clone(), guard.simple);
            let ahead = std::mem::take(&mut guard.ahead);
            let text = self.work.store(&sql);
            self.work.ops.push(Op::CopyRows { text, simple });
            self.emit();
            if !ahead.is_empty() {
                self.put_rows(&ahead);
            }
        }
        self.put_rows(rows);
        self.keep_for_retry(pending);
        Step::Done
    }

    fn put_rows(&mut self, rows: &[u8]) {
        self.work.forget_emitted();
        frame::put(&mut self.work.to_server, tag::COPY_DATA, rows);
    }

    pub(super) fn refuse_copy(&mut self, refusal: &Refusal, fingerprint: &Arc<str>) -> Step {
        self.record_refusal(refusal, &Asked { fingerprint, ..Asked::default() });
        let error = errors::refusal(refusal);
        self.end_copy(&error);
        Step::Done
    }

    /// Ends the COPY with this error, on the server too if it has heard of it: nothing of it stays.
    pub(super) fn end_copy(&mut self, error: &PgError) {
        if self.split.is_some() {
            return self.end_split(error);
        }
        let Some(guard) = self.guard.take() else { return };
        self.copy_in = false;
        if !guard.started {
            self.closed = false;
            return self.refuse(error, guard.simple);
        }
        // To the server it is a Query, behind whose error nothing is skipped.
        self.skip_to_sync |= !guard.simple;
        let mut bytes = BytesMut::with_capacity(256);
        backend::put_error(&mut bytes, error);
        for expect in &mut self.work.expects {
            if let Expect::CopyRows { error, .. } = expect {
                *error = Some(bytes.clone().freeze());
            }
        }
        frontend::put_copy_fail(&mut self.work.to_server, "refused by PgWard");
    }
}
