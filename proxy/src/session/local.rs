//! Statements that the proxy answers itself: a transaction that no server has heard of, and the session's own settings.
//!
//! BEGIN is answered when it comes; the server is told when the first statement fixes the shard.

use std::sync::Arc;

use pgward_config::{Class, User};
use pgward_router::{Action, Analysed, NoParams, Refusal, RefusalKind};
use pgward_wire::{PgError, TxStatus};

use super::changes::{Kept, Mark};
use super::prepared::Prepared;
use super::replies::Event;
use super::route::Asked;
use super::work::Op;
use super::{Lost, Opening, Session, Tx, errors, settings};
use crate::greeting::refusable;

/// The setting that names the class of the session's statements.
const PRIORITY: &str = "pgward.priority";

/// Bytes of what a transaction that has no server yet keeps for it.
const OPENING_MAX: usize = 64 * 1024;

/// The answer to a local statement.
pub(super) struct Local {
    pub(super) notice: Option<PgError>,
    /// A column's name and its value.
    pub(super) row: Option<(&'static str, String)>,
    pub(super) tag: &'static str,
}

impl Local {
    fn tag(tag: &'static str) -> Self {
        Self { notice: None, row: None, tag }
    }

    fn warned(tag: &'static str, notice: PgError) -> Self {
        Self { notice: Some(notice), row: None, tag }
    }
}

impl Session {
    /// Settings that only the proxy knows.
    pub(super) fn is_proxys_own(&self, action: &Action) -> bool {
        match action {
            Action::Set(setting) => setting.name.starts_with("pgward."),
            Action::Show(name) | Action::Reset(Some(name)) => name.starts_with("pgward."),
            _ => false,
        }
    }

    /// Whether the proxy answers this statement itself, as things stand.
    pub(super) fn is_local(&self, action: &Action) -> bool {
        let no_server = self.attached.as_ref().is_none_or(|attached| attached.describe_only);
        match action {
            Action::Begin { .. } | Action::Rollback { .. } => no_server,
            Action::Commit { .. } => no_server && !self.commits_unheard(),
            Action::Savepoint(_) | Action::Release(_) | Action::RollbackTo(_) | Action::SetTransaction { .. } => {
                no_server && matches!(self.tx, Tx::Opening(_))
            }
            // A parameter of a transaction that no server has heard of is told to the server when there is one, so
            // that it does not decide the shard.
            Action::Set(_) | Action::Reset(_) if no_server && matches!(self.tx, Tx::Opening(_)) => true,
            Action::Discard { all: true } => no_server && matches!(self.tx, Tx::Idle),
            Action::Deallocate(None) => self.pinned.is_none(),
            Action::Deallocate(Some(name)) => self.pinned.is_none() || self.prepared.get(name.as_bytes()).is_some(),
            action => self.is_proxys_own(action),
        }
    }

    /// Whether COMMIT would give the session parameters that no server has accepted. One is asked then: a session whose
    /// parameters no server takes could not be served any more.
    fn commits_unheard(&self) -> bool {
        let Tx::Opening(Opening { failed: false, .. }) = &self.tx else { return false };
        let kept: Vec<Kept> = self.changes.kept().cloned().collect();
        if kept.is_empty() {
            return false;
        }
        let asked = refusable(&settings::apply(&self.settings, &self.startup_settings, &kept));
        !asked.values().is_empty() && !self.state.accepted.has_any(&self.user().server_role, &asked)
    }

    /// Whether statements of this sort can run at all, as things stand.
    pub(super) fn check_runnable(&self, action: &Action) -> Result<(), PgError> {
        self.check_not_failed()?;
        self.check_behind_role()?;
        self.check_prepared(action)
    }

    /// Whether the transaction, as far as the proxy holds it, has not failed.
    pub(super) fn check_not_failed(&self) -> Result<(), PgError> {
        match &self.tx {
            Tx::Opening(Opening { lost: Some(Lost::Untold(error)), .. }) => Err(error.clone()),
            Tx::Opening(opening) if opening.failed => Err(errors::transaction_failed()),
            _ => Ok(()),
        }
    }

    /// The same, wherever the transaction is; what ends it, or its failure, is let through.
    pub(super) fn check_in_failed(&self, action: &Action) -> Result<(), PgError> {
        match self.tx {
            _ if action.ends_failed_transaction() => Ok(()),
            Tx::Open(TxStatus::Failed) => Err(errors::transaction_failed()),
            _ => self.check_not_failed(),
        }
    }

    /// Whether the next transaction can be like this one.
    pub(super) fn check_chain(&self) -> Result<(), PgError> {
        match &self.tx {
            Tx::Opening(Opening { lost: Some(_), .. }) => Err(errors::chain_lost()),
            Tx::Opening(Opening { refused: true, modes, .. }) if !modes.is_empty() => Err(errors::chain_unclear()),
            _ => Ok(()),
        }
    }

    /// Whether a PREPARE has a name to give, and an EXECUTE something to execute. The session's own statements are
    /// executed before this is asked, where they can be.
    pub(super) fn check_prepared(&self, action: &Action) -> Result<(), PgError> {
        match action {
            Action::Prepare(name) if self.prepared.get(name.as_bytes()).is_some() => {
                Err(errors::duplicate_prepared(name.as_bytes()))
            }
            Action::Execute(name) if self.prepared.get(name.as_bytes()).is_some() => {
                Err(errors::execute_not_alone(name))
            }
            Action::Execute(name) if self.pinned.is_none() => Err(errors::no_prepared_statement(name)),
            _ => Ok(()),
        }
    }

    /// Runs a local statement.
    pub(super) fn run_local(&mut self, action: &Action, analysed: &Analysed, sql: &[u8]) -> Result<Local, PgError> {
        match (action, &self.tx) {
            // Answered with ROLLBACK, a COMMIT would look like success to most drivers. The transaction ends all the same.
            (Action::Commit { .. }, Tx::Opening(Opening { lost: Some(Lost::Untold(error)), .. })) => {
                let error = error.clone();
                self.tx = Tx::Idle;
                return Err(error);
            }
            (Action::RollbackTo(_), Tx::Opening(Opening { lost: Some(_), .. })) => self.check_runnable(action)?,
            (Action::Commit { chain: true } | Action::Rollback { chain: true }, _) => self.check_chain()?,
            (Action::Commit { .. } | Action::Rollback { .. } | Action::RollbackTo(_), _) => {}
            _ => self.check_in_failed(action)?,
        }
        self.check_opening(action, sql)?;
        match action {
            Action::Begin { read_only, start } => Ok(self.begin(*read_only, *start, sql)),
            Action::Commit { chain } => self.end("COMMIT", *chain),
            Action::Rollback { chain } => self.end("ROLLBACK", *chain),
            Action::Savepoint(name) => Ok(self.opening_savepoint(name, sql)),
            Action::Release(name) if self.changes.release(name) => Ok(self.opening_step("RELEASE", sql)),
            Action::RollbackTo(name) => {
                self.allow_role(analysed, &[])?;
                self.opening_rollback_to(name)
            }
            Action::Release(name) => Err(errors::no_savepoint(name)),
            Action::SetTransaction { read_only } => {
                if let Tx::Opening(opening) = &mut self.tx {
                    opening.read_only = *read_only;
                }
                self.opening_mode(sql);
                Ok(self.opening_step("SET", sql))
            }
            Action::Set(_) | Action::Reset(_) if !self.is_proxys_own(action) => {
                self.opening_parameter(action, analysed, sql)
            }
            Action::Discard { .. } => Ok(self.discard_all()),
            Action::Deallocate(name) => self.deallocate(name.as_deref()),
            Action::Set(setting) => {
                let values = self.state.analyser.setting(analysed, setting, sql);
                self.set_own(&setting.name, values.first().map(String::as_str))
            }
            Action::Reset(Some(name)) => {
                let reset = self.set_own(name, None)?;
                Ok(Local { tag: "RESET", ..reset })
            }
            Action::Show(name) => self.show_own(name),
            _ => Err(errors::internal("a statement that needs a server was taken for a local one")),
        }
    }

    /// Whether there is room for one more step of a transaction that no server has heard of.
    fn check_opening(&self, action: &Action, sql: &[u8]) -> Result<(), PgError> {
        let kept = match (&self.tx, action) {
            (Tx::Idle, Action::Begin { .. }) => 0,
            (Tx::Opening(_), action) if self.is_proxys_own(action) => return Ok(()),
            (
                Tx::Opening(opening),
                Action::Savepoint(_)
                | Action::Release(_)
                | Action::RollbackTo(_)
                | Action::SetTransaction { .. }
                | Action::Set(_)
                | Action::Reset(_),
            ) => opening.texts.len(),
            _ => return Ok(()),
        };
        match kept + sql.len() > OPENING_MAX {
            true => Err(errors::opening_too_long(OPENING_MAX)),
            false => Ok(()),
        }
    }

    fn begin(&mut self, read_only: bool, start: bool, sql: &[u8]) -> Local {
        let tag = if start { "START TRANSACTION" } else { "BEGIN" };
        match &self.tx {
            Tx::Idle => {
                let texts = statement(sql);
                let begin = texts.len();
                self.tx = Tx::Opening(Opening { texts, begin, read_only, ..Opening::default() });
                self.changes.begin();
                Local::tag(tag)
            }
            _ => Local::warned(tag, errors::warning("25001", "there is already a transaction in progress")),
        }
    }

    fn end(&mut self, tag: &'static str, chain: bool) -> Result<Local, PgError> {
        self.portals.clear();
        match std::mem::replace(&mut self.tx, Tx::Idle) {
            Tx::Opening(mut opening) => {
                let tag = if opening.failed { "ROLLBACK" } else { tag };
                if tag == "COMMIT" {
                    self.keep_unheard();
                }
                self.undo_changes();
                if chain {
                    self.changes.begin();
                    // The next transaction has the characteristics of this one.
                    opening.texts.truncate(opening.begin);
                    opening.texts.extend_from_slice(&opening.modes);
                    let Opening { texts, begin, read_only, modes, .. } = opening;
                    self.tx = Tx::Opening(Opening { texts, begin, read_only, modes, ..Opening::default() });
                }
                Ok(Local::tag(tag))
            }
            _ if chain => Err(errors::chain_outside(tag)),
            _ => Ok(Local::warned(tag, errors::warning("25P01", "there is no transaction in progress"))),
        }
    }

    /// SET and RESET in a transaction that no server has heard of.
    fn opening_parameter(&mut self, action: &Action, analysed: &Analysed, sql: &[u8]) -> Result<Local, PgError> {
        if let Err(refusal) = self.state.analyser.evidence(analysed, 0, sql, &NoParams) {
            self.record_refusal(&refusal, &Asked::default());
            return Err(errors::refusal(&refusal));
        }
        if let (Action::Set(setting), Tx::Opening(opening)) = (action, &mut self.tx) {
            // It may ask for what a replica cannot do.
            opening.read_only &= !setting.name.starts_with("transaction_");
        }
        if matches!(action, Action::Set(setting) if setting.name.starts_with("transaction_")) {
            self.opening_mode(sql);
        }
        let effects = self.effects(analysed, sql, &NoParams);
        self.check_changes(&effects)?;
        self.allow_role(analysed, effects.as_deref().unwrap_or_default())?;
        for effect in effects.into_iter().flatten() {
            self.note(Event::Done(effect));
        }
        Ok(self.opening_step(if matches!(action, Action::Reset(_)) { "RESET" } else { "SET" }, sql))
    }

    /// A step inside a transaction that no server has heard of: told to the server when there is one.
    fn opening_step(&mut self, tag: &'static str, sql: &[u8]) -> Local {
        if let Tx::Opening(opening) = &mut self.tx {
            opening.texts.extend_from_slice(&statement(sql));
        }
        Local::tag(tag)
    }

    fn opening_mode(&mut self, sql: &[u8]) {
        if let Tx::Opening(opening) = &mut self.tx {
            opening.modes.extend_from_slice(&statement(sql));
        }
    }

    fn opening_savepoint(&mut self, name: &Arc<str>, sql: &[u8]) -> Local {
        let local = self.opening_step("SAVEPOINT", sql);
        if let Tx::Opening(Opening { texts, modes, read_only, .. }) = &self.tx {
            let mark = Mark { told: texts.len(), modes: modes.len(), read_only: *read_only };
            self.changes.savepoint(Arc::clone(name), mark);
        }
        local
    }

    /// ROLLBACK TO in a transaction that no server has heard of: what came after the savepoint never will be told, also
    /// where it was what failed.
    fn opening_rollback_to(&mut self, name: &str) -> Result<Local, PgError> {
        let Some(mark) = self.changes.rollback_to(name) else { return Err(errors::no_savepoint(name)) };
        if let Tx::Opening(opening) = &mut self.tx {
            opening.texts.truncate(mark.told);
            opening.read_only = mark.read_only;
            opening.modes.truncate(mark.modes);
            (opening.failed, opening.refused) = (false, false);
        }
        Ok(Local::tag("ROLLBACK"))
    }

    fn discard_all(&mut self) -> Local {
        self.prepared.clear();
        self.unnamed = None;
        self.set_settings(Arc::clone(&self.startup_settings));
        self.asked_class = None;
        Local::tag("DISCARD ALL")
    }

    fn deallocate(&mut self, name: Option<&str>) -> Result<Local, PgError> {
        let Some(name) = name else {
            for (name, statement) in self.prepared.take() {
                self.note_deallocated(name, statement);
            }
            return Ok(Local::tag("DEALLOCATE ALL"));
        };
        match self.prepared.remove(name.as_bytes()) {
            Some((name, statement)) => {
                self.note_deallocated(name, statement);
                Ok(Local::tag("DEALLOCATE"))
            }
            None => Err(errors::no_prepared_statement(name)),
        }
    }

    /// An error before it in the pipeline undoes it.
    fn note_deallocated(&mut self, name: Box<[u8]>, statement: Arc<Prepared>) {
        if self.attached.is_some() {
            self.work.ops.push(Op::CloseStatement { name: Some(name), statement, reply: b"" });
        }
    }

    fn set_own(&mut self, name: &str, value: Option<&str>) -> Result<Local, PgError> {
        match own_class(self.user(), name, value) {
            Ok(class) => {
                self.asked_class = class;
                Ok(Local::tag("SET"))
            }
            Err(Wish::Unknown(error)) => Err(error),
            Err(Wish::Refused(refusal)) => {
                self.record_refusal(&refusal, &Asked::default());
                Err(errors::refusal(&refusal))
            }
        }
    }

    fn show_own(&self, name: &str) -> Result<Local, PgError> {
        if name != PRIORITY {
            return Err(errors::unknown_own_setting(name));
        }
        Ok(Local { notice: None, row: Some((PRIORITY, self.class().as_str().to_owned())), tag: "SHOW" })
    }
}

/// Why a setting of the proxy's own is not taken.
pub(crate) enum Wish {
    /// There is no such setting or value.
    Unknown(PgError),
    /// The user may not have it.
    Refused(Refusal),
}

/// The class that a user asks for by a setting of the proxy's own; `value` is `None` for RESET.
pub(crate) fn own_class(user: &User, name: &str, value: Option<&str>) -> Result<Option<Class>, Wish> {
    if name != PRIORITY {
        return Err(Wish::Unknown(errors::unknown_own_setting(name)));
    }
    let Some(word) = value else { return Ok(None) };
    let class = Class::from_word(word).ok_or_else(|| Wish::Unknown(errors::unknown_class()))?;
    if user.ceiling.allows(class) {
        return Ok(Some(class));
    }
    let refusal = Refusal::new(
        RefusalKind::AboveCeiling,
        format!("class {class} is above the ceiling of user \"{}\"", user.name),
    );
    Err(Wish::Refused(
        refusal
            .detail(format!("The user's ceiling is {}.", user.ceiling))
            .hint("Ask the operator for a higher ceiling in [[users]], or use the emergency listener."),
    ))
}

/// A statement's text with a semicolon behind it. A newline goes before it, in case the text ends in a comment.
fn statement(sql: &[u8]) -> Vec<u8> {
    let mut text = sql.to_vec();
    text.extend_from_slice(b"\n;");
    text
}
