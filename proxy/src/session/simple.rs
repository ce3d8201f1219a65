//! The simple protocol: a Query with one statement or several.

use bytes::BytesMut;
use pgward_router::evidence::NoParams;
use pgward_router::{Action, Analysed};
use pgward_wire::{backend, frontend};

use super::route::Asked;
use super::work::{Effect, Effects, Op};
use super::{Fatal, Need, Session, Step, errors, settings};
use crate::session::settings::Change;

impl Session {
    pub(super) fn query(&mut self, body: &[u8]) -> Result<Step, Fatal> {
        let sql = frontend::query(body)?;
        if let Some(error) = self.denied.take() {
            self.refuse(&error, true);
            return Ok(Step::Done);
        }
        if let Some(pending) = self.pending.take() {
            return Ok(self.run_query(sql, pending));
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
            if self.is_local(&statement.action) {
                self.local_query(&statement.action, &analysed, sql);
                return Ok(Step::Done);
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
        match self.decide(&analysed, sql, &NoParams) {
            Ok(pending) if self.attached.is_some() => Ok(self.run_query(sql, pending)),
            Ok(pending) => {
                self.pending = Some(pending);
                Ok(Step::Attach(Need::Run))
            }
            Err(error) => {
                self.refuse(&error, true);
                Ok(Step::Done)
            }
        }
    }

    /// Says the Query to the server that is attached now.
    fn run_query(&mut self, sql: &[u8], mut pending: super::route::Pending) -> Step {
        if let Err(error) = self.record(&mut pending) {
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
    fn check_several(&self, analysed: &Analysed) -> Result<(), pgward_wire::PgError> {
        let prepares = analysed.shape.statements.iter().any(|statement| matches!(statement.action, Action::Prepare(_)));
        for statement in &analysed.shape.statements {
            match &statement.action {
                Action::CopyFrom(copy) if self.must_guard(copy) => return Err(errors::copy_among_several()),
                action if self.is_proxys_own(action) => return Err(errors::own_setting_among_several()),
                Action::Execute(_) if prepares => {}
                action => self.check_runnable(action)?,
            }
        }
        Ok(())
    }

    /// What the success of each statement will change; `None` when none changes anything.
    pub(super) fn effects(&self, analysed: &Analysed, sql: &[u8]) -> Effects {
        let effects: Vec<Effect> =
            analysed.shape.statements.iter().map(|statement| self.effect(&statement.action, analysed, sql)).collect();
        effects.iter().any(|effect| *effect != Effect::None).then(|| effects.into_boxed_slice())
    }

    fn effect(&self, action: &Action, analysed: &Analysed, sql: &[u8]) -> Effect {
        match action {
            Action::Set(setting) if !setting.local => {
                let values = self.state.analyser.setting(analysed, setting, sql);
                let value = (!values.is_empty())
                    .then(|| values.iter().map(|value| settings::quoted(value)).collect::<Vec<_>>().join(", "));
                Effect::Set(vec![Change { name: setting.name.clone(), value }])
            }
            Action::Reset(Some(name)) => Effect::Set(vec![Change { name: name.clone(), value: None }]),
            Action::Reset(None) => Effect::ResetAll,
            Action::Savepoint => Effect::Savepoint,
            Action::RollbackTo => Effect::RollbackTo,
            Action::Listen => Effect::Pin("LISTEN"),
            Action::Declare { hold: true } => Effect::Pin("cursor WITH HOLD"),
            Action::Prepare(_) => Effect::Pin("SQL-level PREPARE"),
            Action::Pins => Effect::Pin("temporary table or session advisory lock"),
            _ => Effect::None,
        }
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
