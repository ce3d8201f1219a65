//! How a split COPY ends: what its course asks for, the answer to the client, and the servers' way back.

use std::sync::Arc;

use pgward_pools::Clean;
use pgward_wire::{PgError, TxStatus, backend};

use super::course::{Act, Outcome};
use super::{Leg, Session, Split, errors, said};
use crate::cancel::under_way;
use crate::session::errors::internal;
use crate::twophase::Decided;

impl Session {
    /// Ends the COPY with this error on all its servers: nothing of it stays.
    pub(in crate::session) fn end_split(&mut self, error: &PgError) {
        let simple = self.guard.take().map(|guard| guard.simple);
        let Some(split) = &mut self.split else { return };
        split.simple = simple.unwrap_or(split.simple);
        split.waiting = None;
        let acts = split.course.refuse(said(error));
        self.perform(acts);
    }

    /// The client has sent all rows.
    pub(super) fn end_split_rows(&mut self) {
        let several = self.split.as_ref().is_some_and(|split| split.legs.len() > 1);
        if several {
            let Some(split) = &mut self.split else { return };
            let shards = split.legs.iter().map(|leg| leg.shard_id.clone()).collect();
            split.claim = Some(self.shared.two_phase.claim(self.handle.id, shards));
        }
        let Some(split) = &mut self.split else { return };
        let acts = split.course.client_done(!split.new.is_empty());
        self.perform(acts);
    }

    /// Does what the course asks for.
    pub(super) fn perform(&mut self, acts: Vec<Act>) {
        for act in acts {
            let Some(split) = &mut self.split else { return };
            let gid = split.claim.as_ref().map_or("", |claim| claim.gid.as_str());
            match act {
                Act::End(leg, asked) => split.legs[leg].talk.end(asked, gid),
                Act::Ask(leg, asked) => split.legs[leg].talk.ask(asked, gid),
                Act::GiveUp(leg) => split.legs[leg].talk.give_up(),
                Act::Close(leg) => split.legs[leg].close(),
                Act::Decide => self.decide_split(),
                Act::Over(outcome) => return self.finish_split(outcome),
            }
        }
        let patience = self.state.config.proxy.connect_timeout;
        if let Some(split) = self.split.as_mut().filter(|split| split.course.is_undoing() && split.patience.is_none()) {
            split.patience = Some(Box::pin(tokio::time::sleep(patience)));
        }
    }

    /// All have prepared, or the only one has checked its rows: new patients are registered, then the decision is written
    /// where there are several, on a thread that may wait for it.
    fn decide_split(&mut self) {
        let state = Arc::clone(&self.state);
        let Some(split) = &mut self.split else { return };
        // From here on it is not the client's to cancel.
        if let Some(leg) = split.cancelled.take() {
            split.legs[leg].cancel = self.handle.detach();
        }
        let (new, claim) = (std::mem::take(&mut split.new), split.claim.clone());
        let several = split.legs.len() > 1;
        split.deciding = Some(tokio::task::spawn_blocking(move || {
            new.register(|batch| state.patients.register(batch)).map_err(|error| errors::registration(&error))?;
            match claim {
                Some(claim) => Ok(claim.decide()),
                None if several => Err(internal("a COPY over several shards has no identifier")),
                None => Ok(Decided::Commit),
            }
        }));
    }

    /// The client's cancel goes to a server that it can still stop.
    pub(super) fn aim_cancel(&mut self) {
        let Some(split) = &mut self.split else { return };
        let (Some(now), Some(next)) = (split.cancelled, split.course.cancellable()) else { return };
        if now == next {
            return;
        }
        split.legs[now].cancel = self.handle.detach();
        let leg = &split.legs[next];
        split.cancelled = leg.lease.as_ref().map(|lease| {
            self.handle.attach(lease.cancel_target(), &leg.node, false);
            next
        });
    }

    /// Tells the client, and gives the servers back.
    fn finish_split(&mut self, outcome: Outcome) {
        let Some(mut split) = self.split.take() else { return };
        self.guard = None;
        let cancel = self.handle.detach();
        if let Some(leg) = split.cancelled.take() {
            split.legs[leg].cancel = cancel;
        }
        self.closed = false;
        self.pending = None;
        let failed = match &outcome {
            Outcome::Copied(rows) => {
                backend::put_command_complete(&mut self.client.out, &format!("COPY {rows}"));
                false
            }
            Outcome::Failed(fault) => {
                self.client.out.extend_from_slice(fault);
                true
            }
            Outcome::Unconfirmed(legs) => {
                let nodes: Vec<&str> = legs.iter().map(|leg| split.legs[*leg].node.id.as_str()).collect();
                backend::put_error(&mut self.client.out, &errors::unconfirmed(&nodes));
                true
            }
        };
        self.skip_to_sync |= failed && !split.simple;
        if split.simple {
            self.reply_ready();
        }
        split.settle(&outcome);
        for leg in split.legs.drain(..) {
            self.release_leg(leg);
        }
        self.shared.metrics.bytes_to_servers.increment(std::mem::take(&mut self.received));
        self.shared.metrics.bytes_to_clients.increment(std::mem::take(&mut self.sent_back));
    }

    /// Gives a server back to its pool if it is proven clean, and closes it otherwise.
    fn release_leg(&self, leg: Leg) {
        let Leg { lease: Some(lease), talk, cancel, .. } = leg else { return };
        let Some(clean) = talk.is_idle().then(|| Clean::prove(TxStatus::Idle, talk.outstanding())).flatten() else {
            return;
        };
        match cancel {
            None => lease.release(clean),
            Some(cancel) => {
                tokio::spawn(under_way::hold(lease, cancel, self.state.config.proxy.connect_timeout));
            }
        }
    }
}

impl Split {
    /// Notes what is known of all servers, so that nobody has to look for it.
    fn settle(&mut self, outcome: &Outcome) {
        let Some(claim) = self.claim.take() else { return };
        let settled: Vec<String> = self.course.settled().map(|leg| self.legs[leg].shard_id.clone()).collect();
        let all = settled.len() == self.legs.len();
        match outcome {
            Outcome::Failed(_) if all => claim.settle(),
            Outcome::Failed(_) => {}
            // The file's lock may be held by somebody who waits for the disk.
            Outcome::Copied(_) | Outcome::Unconfirmed(_) => drop(tokio::task::spawn_blocking(move || {
                claim.committed(&settled);
                if all {
                    claim.settle();
                }
            })),
        }
    }
}
