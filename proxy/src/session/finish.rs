//! What answers change in the session, and how a segment ends: the server goes back only through proof that it is clean.

use std::sync::Arc;

use pgward_config::PoolMode;
use pgward_pools::{Clean, Settings};
use pgward_wire::{PgError, TxStatus};

use super::changes::{Kept, Mark};
use super::replies::{Event, Heard};
use super::role::ROLE;
use super::settings::{self, Change};
use super::work::{Effect, Effects, Skipped};
use super::{Attached, Session, Tx, attach, errors};
use crate::cancel::under_way;
use crate::greeting::refusable;

impl Session {
    /// Takes over what the replies changed.
    pub(super) fn apply(&mut self, heard: &mut Heard) {
        for event in heard.events.drain(..) {
            self.note(event);
        }
        for skipped in heard.skipped.drain(..).rev() {
            self.undo(skipped);
        }
        if heard.skip_to_sync {
            // What was sent behind the failed message, a Query too, the server skips up to Sync.
            self.skip_to_sync = true;
            self.closed = false;
            self.guard = None;
        }
        if let (Some(attached), Some(ready)) = (&mut self.attached, heard.ready) {
            attached.ready = Some(ready);
        }
        self.early_sync |= heard.early_sync;
        if let Some(copy_in) = heard.copy_in {
            self.copy_in = copy_in;
        }
        if let Some(status) = heard.status {
            self.early_sync = false;
            match status {
                TxStatus::Idle => {
                    self.tx = Tx::Idle;
                    self.read_otherwise = false;
                    if !self.changes.none() {
                        let kept = self.changes.idle();
                        self.keep_changes(kept);
                        self.read_anew();
                    }
                }
                open => self.tx = Tx::Open(open),
            }
        }
    }

    /// A server has not done what the client asked for in its own names: they are as before.
    pub(super) fn undo(&mut self, skipped: Skipped) {
        match skipped {
            Skipped::Parse { name: Some(name), id } => {
                if self.prepared.get(&name).is_some_and(|statement| statement.id == id) {
                    self.prepared.remove(&name);
                }
            }
            Skipped::Parse { name: None, id } => {
                self.unnamed.take_if(|statement| statement.id == id);
            }
            Skipped::Close { name: Some(name), statement } => {
                self.prepared.insert(name, statement);
            }
            Skipped::Close { name: None, statement } => self.unnamed = Some(statement),
        }
    }

    pub(super) fn note(&mut self, event: Event) {
        let changed = self.changes.some();
        self.note_change(event);
        if changed || self.changes.some() {
            self.read_anew();
        }
    }

    fn note_change(&mut self, event: Event) {
        match event {
            Event::Done(Effect::Set(changes)) => changes.into_iter().for_each(|change| self.changes.change(change)),
            Event::Done(Effect::SetLocal(change)) => self.changes.change_locally(change),
            Event::Done(Effect::ResetAll) => self.changes.reset_all(),
            Event::Done(Effect::Begin) => self.changes.begin(),
            Event::Done(Effect::Savepoint(name)) => self.changes.savepoint(name, Mark::default()),
            // A savepoint that only the server knows: what it undoes is not known.
            Event::Done(Effect::Release(name)) => self.uncertain |= !self.changes.release(&name),
            Event::Done(Effect::RollbackTo(name)) => self.uncertain |= self.changes.rollback_to(&name).is_none(),
            Event::Done(Effect::Declared(cursor)) => {
                self.pinned = cursor.hold.then_some("cursor WITH HOLD").or(self.pinned);
                self.cursors.declared(*cursor);
            }
            Event::Done(Effect::Closed(name)) => self.cursors.closed(name.as_deref()),
            Event::Done(Effect::Pin(why)) => self.pinned = Some(why),
            Event::Done(Effect::Forget { settings }) => self.forget(settings),
            Event::Done(_) => {}
            Event::Uncertain => self.uncertain = true,
            Event::Commit => {
                let kept = self.changes.commit();
                self.keep_changes(kept);
            }
            Event::Rollback => self.changes.rollback(),
            // Parse or Describe failed on a server that has not heard of the transaction.
            Event::Failed if let Tx::Opening(opening) = &mut self.tx => opening.failed = true,
            Event::Failed => self.uncertain |= self.changes.failed(),
        }
    }

    /// DEALLOCATE ALL or DISCARD ALL was run by the server.
    fn forget(&mut self, settings: bool) {
        self.prepared.clear();
        self.unnamed = None;
        if let Some(attached) = &mut self.attached {
            attached.lease.memory.forget_all();
        }
        if settings {
            self.cursors.closed(None);
            self.changes.reset_all();
            self.changes.change(Change { name: ROLE.into(), value: None });
            self.asked_class = None;
        }
    }

    /// The parameters that the transaction set are the session's now, and the server's.
    fn keep_changes(&mut self, kept: Vec<Kept>) {
        let began_with = self.startup_settings.values();
        // RESET brings a server to its own login's value, which is not what this client began with.
        self.uncertain |= kept.iter().any(|kept| match kept {
            Kept::Change(change) => change.value.is_none() && began_with.contains_key(&change.name),
            Kept::ResetAll => !began_with.is_empty(),
        });
        if !kept.is_empty() {
            self.set_settings(settings::apply(&self.settings, &self.startup_settings, &kept));
        }
    }

    /// Whether the session may keep what these effects would change of its parameters.
    pub(super) fn check_changes(&self, effects: &Effects) -> Result<(), PgError> {
        let sets = |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::Set(_)));
        let Some(effects) = effects.as_deref().filter(|effects| sets(effects)) else { return Ok(()) };
        let before = self.changes.kept().filter_map(|kept| match kept {
            Kept::Change(change) => Some(std::slice::from_ref(change)),
            Kept::ResetAll => None,
        });
        let now = effects.iter().filter_map(|effect| match effect {
            Effect::Set(changes) => Some(&changes[..]),
            _ => None,
        });
        match settings::would_exceed(&self.settings, before.chain(now).flatten()) {
            true => Err(errors::too_many_settings()),
            false => Ok(()),
        }
    }

    /// What the transaction has changed is undone.
    pub(super) fn undo_changes(&mut self) {
        let changed = self.changes.some();
        self.changes.rollback();
        if changed {
            self.read_anew();
        }
    }

    /// The same for a transaction that no server has heard of.
    pub(super) fn keep_unheard(&mut self) {
        let kept = self.changes.commit();
        let uncertain = self.uncertain;
        self.keep_changes(kept);
        self.uncertain = uncertain;
    }

    pub(super) fn set_settings(&mut self, settings: Arc<Settings>) {
        self.serializable = settings::is_serializable(&settings);
        self.refusable = refusable(&settings);
        self.accepted.clear();
        self.settings = settings;
        self.read_anew();
    }

    /// The segment is answered: the server goes back, or stays for the open transaction.
    pub(super) fn finish_segment(&mut self) {
        self.closed = false;
        self.role_asked = false;
        self.unsettled = false;
        self.guard = None;
        self.copy_in = false;
        self.sent = None;
        if matches!(self.tx, Tx::Idle) {
            self.cursors.end_transaction();
            match self.describes() {
                // The segment goes on at another server.
                true => self.portals.forget_effects(),
                false => self.portals.clear(),
            }
        }
        self.shared.metrics.bytes_to_servers.increment(std::mem::take(&mut self.received));
        self.shared.metrics.bytes_to_clients.increment(std::mem::take(&mut self.sent_back));
        let Some(attached) = &mut self.attached else { return };
        let keep = !attached.describe_only && (!matches!(self.tx, Tx::Idle) || self.keeps_server());
        if keep {
            self.work.clear_segment();
            let idle_in_transaction = !matches!(self.tx, Tx::Idle);
            self.handle.set_idle_in_transaction(idle_in_transaction.then(|| self.shared.registry.now()));
        } else {
            self.handle.set_idle_in_transaction(None);
            self.release();
        }
    }

    /// Messages and bytes that are on their way between the server and this session.
    pub(super) fn outstanding(&self) -> usize {
        self.work.expects.len() + self.work.to_server.len() + self.work.passing + self.work.from_server.len()
    }

    pub(super) fn keeps_server(&self) -> bool {
        self.pinned.is_some() || self.pool_mode() == PoolMode::Session
    }

    /// Gives the server back to its pool if it is proven clean, and closes it otherwise.
    fn release(&mut self) {
        let Some(Attached { mut lease, ready, describe_only, .. }) = self.attached.take() else { return };
        let cancel = self.handle.detach();
        let clean = ready.and_then(|status| Clean::prove(status, self.outstanding()));
        self.work.clear_segment();
        if self.plain.is_some() {
            self.empty_work();
            return self.release_shared(lease, clean, cancel);
        }
        let uncertain = std::mem::take(&mut self.uncertain);
        match clean {
            Some(clean) if !uncertain => {
                // What only described was not told what the session has set since.
                if !describe_only {
                    lease.memory.settings = Arc::clone(&self.settings);
                }
                match cancel {
                    None => lease.release(clean),
                    Some(cancel) => {
                        tokio::spawn(under_way::hold(lease, cancel, self.state.config.proxy.connect_timeout));
                    }
                }
            }
            // Dropping the lease closes the connection.
            _ => self.empty_work(),
        }
    }

    /// Closes the attached server, whatever it is doing.
    pub(super) fn drop_server(&mut self) {
        if self.attached.take().is_some() || self.split.take().is_some() {
            self.handle.detach();
        }
        self.empty_work();
        self.closed = false;
        self.copy_in = false;
        self.early_sync = false;
        self.read_otherwise = false;
        self.undo_changes();
        self.uncertain = false;
        self.role_asked = false;
        self.sent = None;
        self.pending = None;
        self.receipts.clear();
    }

    pub(super) fn empty_work(&mut self) {
        let work = std::mem::replace(&mut self.work, super::work::Work::take());
        work.give();
    }

    /// The client left: a server of a pinned session is wiped and given back, any other that is still held is closed.
    pub(super) async fn leave(&mut self) {
        self.handle.set_idle_in_transaction(None);
        let Some(mut attached) = self.attached.take() else { return };
        let undisturbed = self.handle.detach().is_none();
        let idle = attached.ready == Some(TxStatus::Idle) && matches!(self.tx, Tx::Idle) && self.outstanding() == 0;
        if !idle || !undisturbed {
            return;
        }
        if self.relays_as_sent() {
            return self.close_plain(attached);
        }
        let mut changed = bytes::BytesMut::new();
        let wiped = tokio::time::timeout(
            self.state.config.proxy.connect_timeout,
            attach::ask(&mut attached.lease, "DISCARD ALL", &mut changed),
        );
        if let (Ok(Ok(None)), Some(clean)) = (wiped.await, Clean::prove(TxStatus::Idle, 0)) {
            attached.lease.memory.forget_all();
            attached.lease.memory.settings = Settings::none();
            attached.lease.release(clean);
        }
    }
}
