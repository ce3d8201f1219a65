//! SQL-level PREPARE and EXECUTE of statements that the session keeps itself.
//!
//! PostgreSQL has one name space for the protocol's prepared statements and those of SQL. A PREPARE of a statement on
//! patient tables is a Parse in other words, and an EXECUTE of what the session keeps is a Bind: no server ever runs
//! such a statement past the evidence of its values. Both stand alone in their Query, which ends their segment.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use pgward_router::sql_prepared::{self, Argument};
use pgward_router::{Action, Analysed, Refusal};
use pgward_wire::PgError;
use pgward_wire::frontend::Bind;

use super::extended::{Values, first_action};
use super::prepared::Prepared;
use super::route::{Asked, Company, Pending};
use super::work::Op;
use super::{Need, Session, Step, Tx, errors};

/// An EXECUTE that was decided.
pub(super) struct Call {
    statement: Arc<Prepared>,
    /// The body of its Bind.
    bind: Vec<u8>,
}

impl Session {
    /// PREPARE: prepared where Parse and Describe alone would be, so that the client is told at once what the server has
    /// against it.
    pub(super) fn prepare(&mut self, name: &str, sql: &[u8]) -> Step {
        match self.take_name(name, sql) {
            Ok(prepare) => self.work.ops.push(prepare),
            Err(error) => {
                self.refuse(&error, true);
                return Step::Done;
            }
        }
        if self.attached.is_none() {
            self.preparing = true;
            return Step::Attach(Need::Describe);
        }
        self.end_prepare()
    }

    /// The statement of a PREPARE, which has its name from now on.
    fn take_name(&mut self, name: &str, sql: &[u8]) -> Result<Op, PgError> {
        self.check_alone()?;
        let preparing = sql_prepared::preparing(sql).map_err(|refusal| self.refused(&refusal, ""))?;
        let analysed = self.state.analyser.analyse(preparing.text).map_err(|refusal| self.refused(&refusal, ""))?;
        let ([statement], text) = (&analysed.shape.statements[..], preparing.text) else {
            return Err(errors::several_in_parse());
        };
        self.check_parse(&analysed)?;
        if statement.action != Action::Run {
            return Err(errors::not_for_execute(name));
        }
        if self.prepared.get(name.as_bytes()).is_some() {
            return Err(errors::duplicate_prepared(name.as_bytes()));
        }
        let limits = &self.state.config.proxy;
        let (count, bytes) = (limits.max_prepared, limits.max_prepared_bytes);
        if self.prepared.would_exceed(name.as_bytes(), text, preparing.types.len(), count, bytes) {
            return Err(errors::too_many_prepared(limits));
        }
        let (statements, generation) = (&self.shared.statements, self.state.generation);
        let statement = statements.intern(text, preparing.types, analysed, generation, &self.reading);
        self.note_named(true);
        let name: Box<[u8]> = name.as_bytes().into();
        self.prepared.insert(name.clone(), Arc::clone(&statement));
        Ok(Op::Prepare { statement, name, before: preparing.before })
    }

    /// Ends the segment of a PREPARE, at a server or without one.
    pub(super) fn end_prepare(&mut self) -> Step {
        if let Some(error) = self.denied.take() {
            self.refuse(&error, true);
            // No Sync of the client's comes behind a Query.
            if std::mem::take(&mut self.skip_to_sync) {
                self.reply_ready();
            }
            return Step::Done;
        }
        // The client may be in a transaction that this server has not heard of.
        let end = if self.describes() { Op::ForeignSync { status: self.status() } } else { Op::Sync };
        self.work.ops.push(end);
        self.emit();
        self.closed = true;
        Step::Done
    }

    /// EXECUTE of a statement that the session keeps.
    pub(super) fn call(&mut self, name: &str, kept: Arc<Prepared>, analysed: &Analysed, sql: &[u8]) -> Step {
        match self.decide_call(name, kept, &analysed.shape.fingerprint, sql) {
            Ok(pending) if self.attached.is_some() => self.run_decided(sql, pending),
            Ok(pending) => {
                self.pending = Some(pending);
                if self.attach_at_once()
                    && let Some(pending) = self.pending.take()
                {
                    return self.run_decided(sql, pending);
                }
                Step::Attach(Need::Run)
            }
            Err(error) => {
                self.refuse(&error, true);
                Step::Done
            }
        }
    }

    fn decide_call(
        &mut self,
        name: &str,
        kept: Arc<Prepared>,
        fingerprint: &str,
        sql: &[u8],
    ) -> Result<Box<Pending>, PgError> {
        self.check_alone()?;
        if first_action(&kept) != Some(&Action::Run) {
            return Err(errors::not_for_execute(name));
        }
        let values =
            sql_prepared::arguments(sql, &kept.types).map_err(|refusal| self.refused(&refusal, fingerprint))?;
        let wanted = kept.types.len().max(usize::from(kept.analysed.shape.params));
        if values.len() != wanted {
            return Err(errors::wrong_argument_count(name, values.len(), wanted));
        }
        let body = bind_body(&values);
        let bind = Bind::from_body(&body).map_err(|_| errors::internal("an EXECUTE came to no Bind"))?;
        let params = Values { bind: &bind, types: &kept.types };
        let mut pending = self.decide(&kept.analysed, &kept.text, &params, Company::Alone)?;
        pending.call = Some(Box::new(Call { statement: kept, bind: body }));
        Ok(pending)
    }

    /// Says an EXECUTE to the server that is attached now.
    pub(super) fn run_call(&mut self, call: Call, mut pending: Box<Pending>) -> Step {
        if let Err(error) = self.pin_and_record(&mut pending) {
            self.refuse(&error, true);
            return Step::Done;
        }
        self.portals.bound(b"", None);
        if matches!(self.tx, Tx::Idle) {
            self.work.allow_repair();
        }
        self.note_named(true);
        let Call { statement, bind } = call;
        let body = self.work.store(&bind);
        self.work.ops.push(Op::Call { statement, body, effects: pending.effects.take() });
        self.work.ops.push(Op::Sync);
        self.keep_for_retry(pending);
        self.emit();
        self.closed = true;
        Step::Done
    }

    /// Whether a Query can be said as messages of the extended protocol: nothing of a segment without its Sync stands
    /// before it, whose failure its own Sync would end too soon.
    fn check_alone(&self) -> Result<(), PgError> {
        if matches!(self.tx, Tx::Open(pgward_wire::TxStatus::Failed)) {
            return Err(errors::transaction_failed());
        }
        self.check_not_failed()?;
        self.check_behind_role()?;
        let under_way = match &self.attached {
            Some(attached) => attached.ready.is_none(),
            None => !self.work.ops.is_empty(),
        };
        if under_way { Err(errors::prepared_behind_no_sync()) } else { Ok(()) }
    }

    fn refused(&self, refusal: &Refusal, fingerprint: &str) -> PgError {
        self.record_refusal(refusal, &Asked { fingerprint, ..Asked::default() });
        errors::refusal(refusal)
    }
}

/// Bind of the unnamed portal, values and results as text; the statement's name is put in for each server.
fn bind_body(values: &[Argument]) -> Vec<u8> {
    let mut body = BytesMut::from(&b"\0\0\0\0"[..]);
    // More of them than the field can say fit no statement: its parameters are counted in 16 bits, too.
    body.put_u16(u16::try_from(values.len()).unwrap_or(u16::MAX));
    for value in values {
        match value.as_deref().map(|value| (value, i32::try_from(value.len()))) {
            Some((value, Ok(length))) => {
                body.put_i32(length);
                body.put_slice(value.as_bytes());
            }
            // No message is as long as that.
            Some((_, Err(_))) | None => body.put_i32(-1),
        }
    }
    body.put_u16(0);
    body.into()
}
