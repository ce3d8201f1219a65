//! The simple protocol: a Query with one statement or several.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use pgward_config::PoolMode;
use pgward_router::evidence::NoParams;
use pgward_router::{Action, Analysed, Cursor, Params, Statement};
use pgward_wire::{PgError, backend, frontend};
use smallvec::SmallVec;

use super::route::{Asked, Company};
use super::work::{Effect, Effects, Op};
use super::{Fatal, Lost, Need, Opening, Session, Step, Tx, errors, reading, settings};
use crate::session::settings::Change;

impl Session {
    pub(super) fn query(&mut self, body: &[u8]) -> Result<Step, Fatal> {
        let sql = frontend::query(body)?;
        if std::mem::take(&mut self.preparing) {
            return Ok(self.end_prepare());
        }
        // A server that only described is not the one that this statement will be decided for.
        if self.describes() {
            return Ok(self.leave_describer());
        }
        if let Some(error) = self.denied.take() {
            self.refuse(&error, true);
            return Ok(Step::Done);
        }
        if self.work.is_unsynced() {
            self.refuse(&errors::query_behind_execute(), true);
            return Ok(Step::Done);
        }
        if let Some(pending) = self.pending.take() {
            return Ok(self.run_decided(sql, pending));
        }
        // What stands before it without a Sync is answered first.
        if self.attached.is_none() && self.waits_for_server() {
            return Ok(Step::Attach(Need::Describe));
        }
        let analysed = match self.state.analyser.analyse(sql) {
            Ok(analysed) => analysed,
            Err(refusal) => {
                self.record_refusal(&refusal, &Asked::default());
                self.refuse(&errors::refusal(&refusal), true);
                return Ok(Step::Done);
            }
        };
        self.unnamed = None;
        if let [statement] = &analysed.shape.statements[..] {
            match &statement.action {
                Action::PreparePatients(name) => return Ok(self.prepare(name, sql)),
                Action::Execute(name) if statement.own_refusal().is_none() => {
                    if let Some(kept) = self.prepared.get(name.as_bytes()).cloned() {
                        return Ok(self.call(name, kept, &analysed, sql));
                    }
                }
                _ => {}
            }
            if self.is_local(&statement.action) {
                self.local_query(&statement.action, &analysed, sql);
                return Ok(Step::Done);
            }
            if let (Action::Commit { .. }, Tx::Opening(opening)) = (&statement.action, &mut self.tx) {
                opening.committing = true;
            }
            if let Err(error) = self.check_runnable(&statement.action) {
                self.refuse(&error, true);
                return Ok(Step::Done);
            }
            if let Action::CopyFrom(copy) = &statement.action
                && self.must_guard(copy)
            {
                let copy = copy.clone();
                return Ok(self.guarded_copy(&copy, sql, &analysed.shape.fingerprint, true));
            }
        } else if let Err(error) = self.check_several(&analysed) {
            self.refuse(&error, true);
            return Ok(Step::Done);
        }
        if analysed.shape.statements.is_empty() && self.attached.is_none() {
            self.reply(Bytes::from_static(backend::EMPTY_QUERY_RESPONSE));
            self.reply_ready();
            return Ok(Step::Done);
        }
        match self.decide(&analysed, sql, &NoParams, Company::Alone) {
            Ok(pending) if self.attached.is_some() => Ok(self.run_decided(sql, pending)),
            Ok(pending) => {
                self.pending = Some(pending);
                if self.attach_at_once()
                    && let Some(pending) = self.pending.take()
                {
                    return Ok(self.run_decided(sql, pending));
                }
                Ok(Step::Attach(Need::Run))
            }
            Err(error) => {
                self.refuse(&error, true);
                Ok(Step::Done)
            }
        }
    }

    /// Says what was decided to the server that is attached now.
    pub(super) fn run_decided(&mut self, sql: &[u8], mut pending: Box<super::route::Pending>) -> Step {
        match pending.call.take() {
            Some(call) => self.run_call(*call, pending),
            None => self.run_query(sql, pending),
        }
    }

    /// Says the Query to the server that is attached now.
    fn run_query(&mut self, sql: &[u8], mut pending: Box<super::route::Pending>) -> Step {
        if let Err(error) = self.pin_and_record(&mut pending) {
            self.refuse(&error, true);
            return Step::Done;
        }
        let text = self.work.store(sql);
        self.work.ops.push(Op::Query { text, effects: pending.effects.take() });
        self.keep_for_retry(pending);
        self.emit();
        self.closed = true;
        Step::Done
    }

    /// Several statements in one message run on one server as one transaction; what the proxy answers itself cannot
    /// stand among them.
    fn check_several(&self, analysed: &Analysed) -> Result<(), PgError> {
        let prepares = analysed.shape.statements.iter().any(|statement| matches!(statement.action, Action::Prepare(_)));
        if let Some(first) = analysed.shape.statements.first() {
            self.check_first(&first.action)?;
        }
        self.check_behind_role()?;
        for statement in &analysed.shape.statements {
            match &statement.action {
                Action::CopyFrom(copy) if self.must_guard(copy) => return Err(errors::copy_among_several()),
                Action::Deallocate(_) | Action::Discard { .. } => return Err(errors::forgetting_among_several()),
                action if self.is_proxys_own(action) => return Err(errors::own_setting_among_several()),
                Action::Execute(name) if prepares && self.prepared.get(name.as_bytes()).is_none() => {}
                action => self.check_prepared(action)?,
            }
        }
        Ok(())
    }

    /// What ends a failed transaction, or its failure, lets the statements behind it run.
    fn check_first(&self, action: &Action) -> Result<(), PgError> {
        match (action, &self.tx) {
            (Action::Rollback { chain: true }, _) => self.check_chain(),
            (Action::Rollback { chain: false }, _) => Ok(()),
            (Action::Commit { chain: true }, Tx::Opening(Opening { lost: Some(Lost::Told), .. })) => self.check_chain(),
            (Action::Commit { .. }, Tx::Opening(Opening { lost: None | Some(Lost::Told), .. })) => Ok(()),
            (Action::RollbackTo(_), Tx::Opening(Opening { lost: None, .. })) => Ok(()),
            _ => self.check_not_failed(),
        }
    }

    /// What the success of each statement will change; `None` when none changes anything.
    pub(super) fn effects(&self, analysed: &Analysed, sql: &[u8], params: &dyn Params) -> Effects {
        let changes_nothing =
            |statement: &Statement| statement.sets.is_empty() && matches!(statement.action, Action::Run);
        if analysed.shape.statements.iter().all(changes_nothing) {
            return None;
        }
        let statements = analysed.shape.statements.iter().enumerate();
        let effects: SmallVec<[Effect; 1]> = statements
            .map(|(n, statement)| match (statement.sets.is_empty(), &statement.action) {
                (true, Action::Declare { name, hold }) => {
                    let (name, reads_only, hold) = (Arc::clone(name), statement.reads_only, *hold);
                    Effect::Declared(Box::new(Cursor { name, reads_only, hold, of: None }))
                }
                (true, action) => self.effect(action, analysed, sql),
                (false, _) => self.set_configs(analysed, n, sql, params),
            })
            .collect();
        effects.iter().any(|effect| *effect != Effect::None).then(|| effects.into_vec().into_boxed_slice())
    }

    /// What set_config sets for the session.
    fn set_configs(&self, analysed: &Analysed, n: usize, sql: &[u8], params: &dyn Params) -> Effect {
        let sets = self.state.analyser.set_configs(analysed, n, sql, params);
        let change = |(name, value): (String, String)| {
            let value = Some(settings::as_given(&name, &value));
            Change { name: name.into(), value }
        };
        Effect::Set(sets.into_iter().map(change).collect())
    }

    fn effect(&self, action: &Action, analysed: &Analysed, sql: &[u8]) -> Effect {
        match action {
            // These end with their transaction, whichever way they are set.
            Action::Set(setting) if setting.name.starts_with("transaction_") => Effect::None,
            Action::Set(setting) if !setting.local || reading::matters(&setting.name) => {
                let values = self.state.analyser.setting(analysed, setting, sql);
                let value = (!values.is_empty())
                    .then(|| values.iter().map(|value| settings::quoted(value)).collect::<Vec<_>>().join(", "));
                let change = Change { name: setting.name.clone(), value };
                if setting.local { Effect::SetLocal(change) } else { Effect::Set(vec![change]) }
            }
            Action::Reset(Some(name)) => Effect::Set(vec![Change { name: name.clone(), value: None }]),
            Action::Reset(None) => Effect::ResetAll,
            Action::Begin { .. } | Action::Commit { chain: true } | Action::Rollback { chain: true } => Effect::Begin,
            Action::Savepoint(name) => Effect::Savepoint(Arc::clone(name)),
            Action::Release(name) => Effect::Release(Arc::clone(name)),
            Action::RollbackTo(name) => Effect::RollbackTo(Arc::clone(name)),
            Action::CopyFrom(_) => Effect::CopyIn,
            Action::Listen => Effect::Pin("LISTEN"),
            Action::Close(name) => Effect::Closed(name.clone()),
            Action::Prepare(_) => Effect::Pin("SQL-level PREPARE"),
            Action::Deallocate(None) => Effect::Forget { settings: false },
            Action::Discard { all: true } => Effect::Forget { settings: true },
            Action::Pins => Effect::Pin("temporary table or session advisory lock"),
            _ => Effect::None,
        }
    }

    /// Records the decision. What cannot be shared may stay on the server even if the statement fails, or is never run to
    /// its end: where there is such a thing in the statement, the session keeps the server from now on, if it may.
    pub(super) fn pin_and_record(&mut self, pending: &mut super::route::Pending) -> Result<(), PgError> {
        self.role_asked |= pending.effects.iter().flatten().any(|effect| effect.role().is_some());
        let pins = pending.effects.iter().flatten().find_map(Effect::pins);
        let Some(why) = pins.filter(|_| self.pinned.is_none()) else { return self.record(pending) };
        let session_keeps = self.pool_mode() == PoolMode::Session;
        if let Some(attached) = self.attached.as_mut().filter(|_| !session_keeps)
            && let Err(limit) = attached.lease.pin()
        {
            let error = errors::too_many_pinned(why, attached.lease.pool(), attached.node.id.as_str(), limit);
            self.record_not_sent(pending, &error);
            return Err(error);
        }
        let recorded = self.record(pending);
        match (&recorded, &mut self.attached) {
            (Ok(()), _) => self.pinned = Some(why),
            (Err(_), Some(attached)) => attached.lease.unpin(),
            (Err(_), None) => {}
        }
        recorded
    }

    /// Answers a Query that needs no server.
    fn local_query(&mut self, action: &Action, analysed: &Analysed, sql: &[u8]) {
        match self.run_local(action, analysed, sql) {
            Ok(answer) => {
                let mut bytes = BytesMut::with_capacity(64);
                if let Some(notice) = &answer.notice {
                    backend::put_notice(&mut bytes, notice);
                }
                if let Some((column, value)) = &answer.row {
                    backend::put_row_description(&mut bytes, &[column]);
                    backend::put_data_row(&mut bytes, &[Some(value)]);
                }
                backend::put_command_complete(&mut bytes, answer.tag);
                backend::put_ready_for_query(&mut bytes, self.status());
                self.reply(bytes);
            }
            Err(error) => self.refuse(&error, true),
        }
    }
}
