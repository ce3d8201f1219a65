//! Takes a server for a shard, and tells it the COPY.

use std::sync::Arc;

use pgward_config::{Class, PoolKind};
use pgward_pools::{AcquireError, Lease, Node};
use pgward_wire::PgError;

use super::lines::LineMap;
use super::talk::Talk;
use super::{Leg, Session};
use crate::accepted::At;
use crate::session::attach::Setup;
use crate::session::errors;

impl Session {
    /// Takes a server for each shard of the rows that wait. When one cannot be had, the frame is answered with
    /// `self.denied`.
    pub(in crate::session) async fn open_legs(&mut self) {
        let Some(pending) = self.pending.take() else { return };
        // In one order for all, so that fewer wait for each other: rows that come later may still be in another.
        let mut targets: Vec<_> = pending.decisions.iter().map(|decision| (&decision.target, decision.class)).collect();
        targets.sort_by_key(|(target, _)| target.shard);
        for (target, class) in targets {
            if self.split.as_ref().is_some_and(|split| split.leg_of(target.shard).is_some()) {
                continue;
            }
            match self.open_leg((target.shard, target.node), target.pool, class).await {
                Ok((node, lease)) => self.join(target.shard, target.shard_id.to_string(), node, lease),
                Err(error) => {
                    self.record_not_sent(&pending, &error);
                    if let Some(split) = &mut self.split {
                        split.waiting = None;
                    }
                    self.denied = Some(error);
                    return;
                }
            }
        }
        self.pending = Some(pending);
    }

    async fn open_leg(&mut self, at: At, pool: PoolKind, class: Class) -> Result<(Arc<Node>, Lease), PgError> {
        let node = Arc::clone(&self.state.fleet.shard(at.0)[at.1]);
        loop {
            self.handle.waiting.begin();
            let taken = self.take_leg(&node, at, pool, class).await;
            // This one has not been told the COPY, so that its cancel would hit nothing.
            if self.handle.waiting.end() {
                return Err(errors::cancelled());
            }
            match taken {
                Ok(lease) => return Ok((node, lease)),
                // It is closed by now. The next one stands where this one stood.
                Err(Setup::Stopped) => {}
                Err(Setup::Refused(error) | Setup::Lost(error)) => return Err(error),
            }
        }
    }

    async fn take_leg(&mut self, node: &Arc<Node>, at: At, pool: PoolKind, class: Class) -> Result<Lease, Setup> {
        let mut lease = match self.acquire(node, pool, class).await {
            Some(Ok(lease)) => lease,
            None => return Err(Setup::Refused(errors::cancelled())),
            Some(Err(AcquireError::Connect(error))) => {
                return Err(Setup::Lost(errors::cannot_connect(node.id.as_str(), &error.to_string())));
            }
            Some(Err(error)) => return Err(Setup::Refused(errors::acquire(&error, node.id.as_str(), pool, class))),
        };
        // In a round trip of their own where they differ: behind BEGIN they would end with the transaction.
        self.bring_to_settings(&mut lease, node, at, true).await?;
        lease.memory.unnamed = None;
        Ok(lease)
    }

    /// The server is told the COPY.
    fn join(&mut self, shard: usize, shard_id: String, node: Arc<Node>, lease: Lease) {
        let (Some(guard), Some(split)) = (&self.guard, &mut self.split) else { return };
        let mut talk = Talk::default();
        talk.begin(&guard.sql);
        split.simple = guard.simple;
        split.table = guard.table.name.rsplit('.').next().unwrap_or_default().into();
        if split.cancelled.is_none() {
            self.handle.attach(lease.cancel_target(), &node, false);
            split.cancelled = Some(split.legs.len());
        }
        let lines = LineMap::new();
        split.legs.push(Leg { shard, shard_id, node, lease: Some(lease), talk, lines, fresh: true, cancel: None });
        split.course.join();
    }
}

impl Leg {
    /// Closes the connection, whatever it is doing.
    pub(super) fn close(&mut self) {
        self.lease = None;
        self.talk.out.clear();
    }
}
