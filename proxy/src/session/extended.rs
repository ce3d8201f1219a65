//! The extended protocol: Parse, Bind, Describe, Execute, Close, Flush, Sync.
//!
//! A Parse and a Describe wait until the segment's first Bind has decided where they go; alone, they go to the
//! origin's home shard, which has the same schema as all others.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use pgward_router::{Action, Analysed, Params, RefusalKind};
use pgward_wire::frontend::{self, Bind, Object};
use pgward_wire::tag::frontend as tag;
use pgward_wire::{PgError, backend, frame};

use super::prepared::Prepared;
use super::route::{Asked, Company};
use super::work::{Answer, Op};
use super::{Fatal, Need, Session, Step, Tx, errors};

/// A Bind's values, with the types that its Parse declared.
pub(super) struct Values<'a> {
    pub(super) bind: &'a Bind<'a>,
    pub(super) types: &'a [u32],
}

impl Params for Values<'_> {
    fn value(&self, n: u16) -> Option<Option<&[u8]>> {
        self.bind.value(usize::from(n))
    }
    fn binary(&self, n: u16) -> bool {
        self.bind.binary(usize::from(n))
    }
    fn oid(&self, n: u16) -> u32 {
        usize::from(n).checked_sub(1).and_then(|n| self.types.get(n)).copied().unwrap_or(0)
    }
}

impl Session {
    pub(super) fn parse(&mut self, body: &[u8]) -> Result<Step, Fatal> {
        let parse = frontend::Parse::from_body(body)?;
        if parse.name.is_empty() {
            // Destroyed also where its successor is refused.
            self.unnamed = None;
        }
        let analysed = match self.state.analyser.analyse(parse.text) {
            Ok(analysed) => analysed,
            Err(refusal) => {
                self.record_refusal(&refusal, &Asked::default());
                self.refuse(&errors::refusal(&refusal), false);
                return Ok(Step::Done);
            }
        };
        if analysed.shape.statements.len() > 1 {
            self.refuse(&errors::several_in_parse(), false);
            return Ok(Step::Done);
        }
        if let Err(error) = self.check_parse(&analysed) {
            self.refuse(&error, false);
            return Ok(Step::Done);
        }
        let types: Box<[u32]> = parse.param_types().collect();
        let statement = if parse.name.is_empty() {
            let statement = Arc::new(Prepared::new(parse.text, types, analysed));
            self.unnamed = Some(Arc::clone(&statement));
            statement
        } else {
            if self.prepared.get(parse.name).is_some() {
                self.refuse(&errors::duplicate_prepared(parse.name), false);
                return Ok(Step::Done);
            }
            let limits = &self.state.config.proxy;
            let (count, bytes) = (limits.max_prepared, limits.max_prepared_bytes);
            if self.prepared.would_exceed(parse.name, parse.text, types.len(), count, bytes) {
                let error = errors::too_many_prepared(limits);
                self.refuse(&error, false);
                return Ok(Step::Done);
            }
            self.note_named(true);
            let statement =
                self.shared.statements.intern(parse.text, types, analysed, self.state.generation, &self.reading);
            self.prepared.insert(parse.name.into(), Arc::clone(&statement));
            statement
        };
        if self.answers_parse(&statement) {
            self.reply(Bytes::from_static(backend::PARSE_COMPLETE));
        } else {
            let name = (!parse.name.is_empty()).then(|| parse.name.into());
            self.work.ops.push(Op::Parse { statement, name });
            self.emit();
        }
        Ok(Step::Done)
    }

    /// Only what ends a failed transaction is parsed in one. What no value can make acceptable is refused before a server
    /// sees it; but a patient table without a patient may be described, since drivers ask so for the types of its columns
    /// (asyncpg before a binary COPY), and is refused when it is to run.
    pub(super) fn check_parse(&self, analysed: &Analysed) -> Result<(), PgError> {
        let Some(statement) = analysed.shape.statements.first() else { return Ok(()) };
        self.check_in_failed(&statement.action)?;
        if let Action::Execute(name) = &statement.action
            && self.prepared.get(name.as_bytes()).is_some()
        {
            return Err(errors::execute_not_alone(name));
        }
        let refusal = statement.own_refusal().filter(|refusal| refusal.kind != RefusalKind::NoPatient);
        let Some(refusal) = refusal else { return Ok(()) };
        let (fingerprint, reads_only) = (&*analysed.shape.fingerprint, statement.reads_only);
        self.record_refusal(refusal, &Asked { fingerprint, reads_only, ..Asked::default() });
        Err(errors::refusal(refusal))
    }

    /// Statements whose Parse no server needs to see: PostgreSQL's parser has accepted them, and they name nothing.
    fn answers_parse(&self, statement: &Prepared) -> bool {
        first_action(statement).is_some_and(|action| {
            action.is_transaction_control()
                || matches!(action, Action::Discard { .. } | Action::Deallocate(_))
                || self.is_proxys_own(action)
        })
    }

    /// The statement that the client calls so.
    fn statement(&self, name: &[u8]) -> Option<(Arc<Prepared>, bool)> {
        if name.is_empty() {
            self.unnamed.clone().map(|statement| (statement, false))
        } else {
            self.prepared.get(name).cloned().map(|statement| (statement, true))
        }
    }

    pub(super) fn bind(&mut self, body: &[u8], behind: &[u8]) -> Result<Step, Fatal> {
        let bind = Bind::from_body(body)?;
        if let Some(error) = self.denied.take() {
            self.refuse(&error, false);
            return Ok(Step::Done);
        }
        let Some((statement, named)) = self.statement(bind.statement) else {
            self.refuse(&errors::unknown_prepared(bind.statement), false);
            return Ok(Step::Done);
        };
        let pending = match self.pending.take() {
            Some(pending) => pending,
            None => {
                let limits = &self.state.config.proxy;
                let (count, bytes) = (limits.max_prepared, limits.max_prepared_bytes);
                if !bind.portal.is_empty() && self.portals.would_exceed(bind.portal, &statement, count, bytes) {
                    let error = errors::too_many_portals(limits);
                    self.refuse(&error, false);
                    return Ok(Step::Done);
                }
                if let Some(action) = first_action(&statement) {
                    if self.is_local(action) {
                        self.bind_local(&bind, statement);
                        return Ok(Step::Done);
                    }
                    if let Err(error) = self.check_runnable(action) {
                        self.refuse(&error, false);
                        return Ok(Step::Done);
                    }
                }
                if let Some(step) = self.place_bind(&statement, &bind, behind) {
                    return Ok(step);
                }
                match self.pending.take() {
                    Some(pending) => pending,
                    None => return Err(Fatal(errors::internal("a Bind lost its decision"))),
                }
            }
        };
        self.run_bind(statement, named, bind.portal, body, pending);
        Ok(Step::Done)
    }

    /// A portal of a statement that the proxy answers itself.
    fn bind_local(&mut self, bind: &Bind<'_>, statement: Arc<Prepared>) {
        if let Some(Err(error)) = first_action(&statement).map(|action| self.check_in_failed(action)) {
            return self.refuse(&error, false);
        }
        if !bind.portal.is_empty() && self.portals.own(bind.portal).is_some() {
            return self.refuse(&errors::portal_exists(bind.portal), false);
        }
        if !bind.is_empty() {
            return self.refuse(&errors::wrong_parameter_count(bind.len(), 0), false);
        }
        self.portals.open(bind.portal, statement);
        self.reply(Bytes::from_static(backend::BIND_COMPLETE));
    }

    /// Decides about a Bind. `None`: the decision is in `self.pending`, and the server for it is attached.
    fn place_bind(&mut self, statement: &Arc<Prepared>, bind: &Bind<'_>, behind: &[u8]) -> Option<Step> {
        let describer = self.describes();
        match first_action(statement) {
            // Parse and Describe alone went to the home shard: it is left, in peace, for the statement's own.
            Some(Action::CopyFrom(copy)) if self.must_guard(copy) && describer => return Some(self.leave_describer()),
            // Decided by the rows; until then the statement waits as a portal of the proxy's own.
            Some(Action::CopyFrom(copy)) if self.must_guard(copy) => {
                self.portals.open(bind.portal, Arc::clone(statement));
                self.reply(Bytes::from_static(backend::BIND_COMPLETE));
                return Some(Step::Done);
            }
            _ => {}
        }
        let values = Values { bind, types: &statement.types };
        let company = if is_last(behind) { Company::Alone } else { Company::MayFollow };
        match self.decide(&statement.analysed, &statement.text, &values, company) {
            Ok(_) if describer => Some(self.leave_describer()),
            Ok(pending) => {
                self.pending = Some(pending);
                (self.attached.is_none() && !self.attach_at_once()).then_some(Step::Attach(Need::Run))
            }
            Err(error) => {
                self.refuse(&error, false);
                Some(Step::Done)
            }
        }
    }

    /// Ends the segment on the server that only described, so that the next server can be attached.
    pub(super) fn leave_describer(&mut self) -> Step {
        self.work.ops.push(Op::SilentSync);
        self.emit();
        self.closed = true;
        Step::Wait
    }

    fn run_bind(
        &mut self,
        statement: Arc<Prepared>,
        named: bool,
        portal: &[u8],
        body: &[u8],
        mut pending: Box<super::route::Pending>,
    ) {
        if let Err(error) = self.pin_and_record(&mut pending) {
            return self.refuse(&error, false);
        }
        self.portals.bound(portal, pending.effects.take());
        self.allow_repair();
        self.note_named(named);
        let body = self.work.store(body);
        self.work.ops.push(Op::Bind { statement, named, body });
        self.keep_for_retry(pending);
        self.emit();
    }

    pub(super) fn describe(&mut self, frame: &[u8], body: &[u8]) -> Result<Step, Fatal> {
        let describe = frontend::Describe::from_body(body)?;
        match describe.kind {
            Object::Statement => {
                let Some((statement, named)) = self.statement(describe.name) else {
                    self.refuse(&errors::unknown_prepared(describe.name), false);
                    return Ok(Step::Done);
                };
                if self.answers_parse(&statement) {
                    let mut bytes = BytesMut::new();
                    backend::put_parameter_description(&mut bytes, &[]);
                    bytes.extend_from_slice(&describe_row(&statement));
                    self.reply(bytes);
                } else {
                    self.allow_repair();
                    self.note_named(named);
                    self.work.ops.push(Op::Describe { statement, named });
                    self.emit();
                }
            }
            Object::Portal => match self.portals.own(describe.name) {
                Some(portal) => {
                    let row = describe_row(&portal.statement);
                    self.reply(row);
                }
                None if self.attached.is_none() => self.refuse(&errors::unknown_portal(describe.name), false),
                None => self.raw(frame, Some(Answer::Describe)),
            },
        }
        Ok(Step::Done)
    }

    pub(super) fn execute(&mut self, frame: &[u8], body: &[u8]) -> Result<Step, Fatal> {
        let execute = frontend::Execute::from_body(body)?;
        if let Some(error) = self.denied.take() {
            self.refuse(&error, false);
            return Ok(Step::Done);
        }
        if let Some(portal) = self.portals.own(execute.portal) {
            let (statement, ran) = (Arc::clone(&portal.statement), portal.ran);
            return Ok(self.execute_own(execute.portal, &statement, ran));
        }
        if self.attached.is_none() {
            self.refuse(&errors::unknown_portal(execute.portal), false);
            return Ok(Step::Done);
        }
        let effects = self.portals.take_effects(execute.portal);
        self.unsettled |= effects.is_some();
        let frame = self.work.store(frame);
        self.work.ops.push(Op::Execute { frame, effects });
        self.emit();
        Ok(Step::Done)
    }

    /// Where no transaction is open, a statement whose table has changed is prepared anew without the client's knowledge.
    fn allow_repair(&mut self) {
        if matches!(self.tx, Tx::Idle) {
            self.work.allow_repair();
        }
    }

    /// Executes a portal that no server has heard of.
    fn execute_own(&mut self, portal: &[u8], statement: &Prepared, ran: bool) -> Step {
        match first_action(statement) {
            Some(action) if ran => self.execute_again(portal, action),
            Some(Action::CopyFrom(_)) if self.describes() => return self.leave_describer(),
            // The client is told to send rows before a server is known: all that stands before must be answered.
            Some(Action::CopyFrom(_)) if self.attached.is_none() && self.waits_for_others(statement.id) => {
                return Step::Attach(Need::Describe);
            }
            // What it was bound for has gone to a server since.
            Some(action) if !matches!(action, Action::CopyFrom(_)) && !self.is_local(action) => {
                self.refuse(&errors::portal_outdated(portal), false);
            }
            // It runs only if what stands before it is accepted, which the server that describes that will say.
            Some(action) if !matches!(action, Action::CopyFrom(_)) && self.describes() => {
                return self.leave_describer();
            }
            Some(action)
                if !matches!(action, Action::CopyFrom(_)) && self.attached.is_none() && self.waits_for_server() =>
            {
                return Step::Attach(Need::Describe);
            }
            _ => {
                self.portals.ran(portal);
                let step = self.execute_local(statement);
                // It is gone with what it was bound in.
                if matches!(first_action(statement), Some(Action::RollbackTo(_) | Action::Discard { .. })) {
                    self.portals.close(portal);
                }
                return step;
            }
        }
        Step::Done
    }

    /// A portal that ran to its end has no more rows, if it had any, and does nothing twice.
    fn execute_again(&mut self, portal: &[u8], action: &Action) {
        let again = match action {
            Action::Show(_) => self.check_in_failed(action),
            _ => self.check_in_failed(action).and_then(|()| Err(errors::portal_done(portal))),
        };
        match again {
            Ok(()) => {
                let mut bytes = BytesMut::with_capacity(16);
                backend::put_command_complete(&mut bytes, "SHOW");
                self.reply(bytes);
            }
            Err(error) => self.refuse(&error, false),
        }
    }

    fn execute_local(&mut self, statement: &Prepared) -> Step {
        match first_action(statement) {
            Some(Action::CopyFrom(copy)) => {
                self.guarded_copy(copy, &statement.text, &statement.analysed.shape.fingerprint, false)
            }
            Some(action) => {
                match self.run_local(action, &statement.analysed, &statement.text) {
                    Ok(answer) => {
                        let mut bytes = BytesMut::with_capacity(32);
                        if let Some(notice) = &answer.notice {
                            backend::put_notice(&mut bytes, notice);
                        }
                        if let Some((_, value)) = &answer.row {
                            backend::put_data_row(&mut bytes, &[Some(value)]);
                        }
                        backend::put_command_complete(&mut bytes, answer.tag);
                        self.reply(bytes);
                    }
                    Err(error) => self.refuse(&error, false),
                }
                Step::Done
            }
            None => {
                self.reply(Bytes::from_static(backend::EMPTY_QUERY_RESPONSE));
                Step::Done
            }
        }
    }

    pub(super) fn close(&mut self, frame: &[u8], body: &[u8]) -> Result<Step, Fatal> {
        let close = frontend::Close::from_body(body)?;
        match close.kind {
            // Servers keep the statement for others; only the client's name for it goes.
            Object::Statement => {
                let (name, statement) = if close.name.is_empty() {
                    (None, self.unnamed.take())
                } else {
                    self.prepared.remove(close.name).map_or((None, None), |(name, closed)| (Some(name), Some(closed)))
                };
                match statement {
                    // An error before it in the pipeline would undo it.
                    Some(statement) if self.attached.is_some() || !self.work.ops.is_empty() => {
                        self.work.ops.push(Op::CloseStatement { name, statement, reply: backend::CLOSE_COMPLETE });
                        self.emit();
                    }
                    _ => self.reply(Bytes::from_static(backend::CLOSE_COMPLETE)),
                }
            }
            Object::Portal => {
                if self.portals.close(close.name) || self.attached.is_none() {
                    self.reply(Bytes::from_static(backend::CLOSE_COMPLETE));
                } else {
                    self.raw(frame, Some(Answer::Close));
                }
            }
        }
        Ok(Step::Done)
    }

    pub(super) fn flush(&mut self) -> Result<Step, Fatal> {
        if self.takes_rows() {
            return Ok(Step::Done);
        }
        if let Some(error) = self.denied.take() {
            self.refuse(&error, false);
            return Ok(Step::Done);
        }
        if self.attached.is_none() && self.waits_for_server() {
            return Ok(Step::Attach(Need::Describe));
        }
        if self.attached.is_some() {
            self.work.ops.push(Op::Flush);
            self.emit();
        }
        Ok(Step::Done)
    }

    pub(super) fn sync(&mut self) -> Result<Step, Fatal> {
        // Servers ignore a Sync while they take COPY rows.
        if self.takes_rows() {
            return Ok(Step::Done);
        }
        if self.denied.is_none() && self.attached.is_none() && self.waits_for_server() {
            return Ok(Step::Attach(Need::Describe));
        }
        let denied = self.denied.take();
        if let Some(error) = denied {
            self.refuse(&error, false);
        }
        self.skip_to_sync = false;
        self.behind_copy = None;
        let in_transaction = !matches!(self.tx, Tx::Idle);
        self.portals.sync(in_transaction);
        if !in_transaction && self.attached.is_none() {
            self.portals.forget_effects();
        }
        if self.attached.is_none() {
            self.flush_fakes();
            self.reply_ready();
            return Ok(Step::Done);
        }
        if self.describes() {
            // The client may be in a transaction that this server has not heard of.
            self.work.ops.push(Op::ForeignSync { status: self.status() });
        } else {
            self.work.ops.push(Op::Sync);
        }
        self.emit();
        self.closed = true;
        Ok(Step::Done)
    }

    /// Ops that only a server can answer are waiting.
    pub(super) fn waits_for_server(&self) -> bool {
        self.work.ops.iter().any(|op| op.own_reply().is_none())
    }

    /// The same, apart from Parse and Describe of this statement.
    fn waits_for_others(&self, id: u64) -> bool {
        self.work.ops.iter().any(|op| match op {
            Op::Parse { statement, .. } | Op::Describe { statement, .. } => statement.id != id,
            op => op.own_reply().is_none(),
        })
    }

    /// Replies that waited behind nothing, when the segment ends without a server.
    fn flush_fakes(&mut self) {
        for reply in self.work.ops.iter().filter_map(Op::own_reply) {
            self.client.out.extend_from_slice(reply);
        }
        self.work.clear_segment();
    }

    /// Passes a frame on as it is.
    pub(super) fn raw(&mut self, frame: &[u8], answer: Option<Answer>) {
        let frame = self.work.store(frame);
        self.work.ops.push(Op::Raw { frame, answer });
        self.emit();
    }
}

/// Whether a Bind is the last of its segment: what has come behind it reaches the Sync without another statement.
fn is_last(mut behind: &[u8]) -> bool {
    while let Ok(Some(header)) = frame::header(behind) {
        match header.tag {
            tag::SYNC => return true,
            tag::DESCRIBE | tag::EXECUTE | tag::CLOSE | tag::FLUSH if header.len <= behind.len() => {
                behind = &behind[header.len..];
            }
            _ => return false,
        }
    }
    false
}

/// The action of a prepared statement; `None` for an empty one.
pub(super) fn first_action(statement: &Prepared) -> Option<&Action> {
    statement.analysed.shape.statements.first().map(|statement| &statement.action)
}

/// What Describe says of a statement that the proxy answers itself.
fn describe_row(statement: &Prepared) -> Bytes {
    match first_action(statement) {
        Some(Action::Show(_)) => {
            let mut bytes = BytesMut::with_capacity(64);
            backend::put_row_description(&mut bytes, &["pgward.priority"]);
            bytes.freeze()
        }
        _ => Bytes::from_static(backend::NO_DATA),
    }
}
