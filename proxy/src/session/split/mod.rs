//! A COPY into a patient table whose rows may go to several shards: stored on all of them, or on none.
//!
//! Each shard that rows are for is a leg: a server in a transaction of its own, which takes the rows of its patients.
//! The first leg costs what a COPY by itself does, since BEGIN goes with the COPY and COMMIT with its end, unless it has
//! new patients, who are registered between the two. When there are several, their end is two-phase commit. Pure: [`course`] says what follows what, [`talk`] speaks with a server,
//! [`lines`] finds a server's line in the client's stream, [`patients`] holds those who are new. The session's part:
//! [`rows`] decides about rows and sends them, [`legs`] takes servers, [`sockets`] has their bytes, [`end`] does what
//! the course asks for and answers the client. The identifiers, the log of decisions and what happens to a COPY that
//! nobody is left to end are [`twophase`](crate::twophase)'s.

mod course;
mod end;
mod errors;
mod legs;
mod lines;
mod patients;
mod rows;
mod sockets;
mod talk;

use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use pgward_pools::{Lease, Node};
use pgward_wire::{PgError, backend};
use tokio::task::JoinHandle;
use tokio::time::Sleep;

use self::course::Course;
use self::lines::LineMap;
use self::patients::NewPatients;
use self::rows::Waiting;
use self::talk::Talk;
use super::room::TO_SERVER_MAX;
use super::{Session, Step, Tx};
use crate::cancel::under_way::UnderWay;
use crate::twophase::{Claim, Decided};

/// One COPY.
#[derive(Default)]
pub(super) struct Split {
    course: Course,
    legs: Vec<Leg>,
    /// Header line, or header of the binary format: each leg begins with it.
    preamble: BytesMut,
    preamble_counted: u64,
    /// Lines of the client's stream so far.
    lines: u64,
    /// Rows have come.
    rows: bool,
    new: NewPatients,
    /// Decided, and not sent yet: some of their shards have no leg.
    waiting: Option<Waiting>,
    /// The leg that the client's cancel goes to.
    cancelled: Option<usize>,
    simple: bool,
    /// The table as servers name it in their messages.
    table: Box<str>,
    claim: Option<Arc<Claim>>,
    deciding: Option<JoinHandle<Result<Decided, PgError>>>,
    /// When what is not undone by then is left.
    patience: Option<Pin<Box<Sleep>>>,
}

/// One shard's part.
struct Leg {
    shard: usize,
    shard_id: String,
    node: Arc<Node>,
    /// `None` when it is lost.
    lease: Option<Lease>,
    talk: Talk,
    lines: LineMap,
    /// It has been sent nothing but the COPY.
    fresh: bool,
    /// A cancel that may still hit its server.
    cancel: Option<Arc<UnderWay>>,
}

impl Session {
    /// Whether rows of this COPY may go to several shards: it is a transaction of its own on servers of nobody.
    pub(super) fn may_split(&self) -> bool {
        let config = &self.state.config;
        config.sharding.copy_across_shards
            && config.shards.len() > 1
            && matches!(self.tx, Tx::Idle)
            && self.attached.is_none()
            && self.is_poolable()
    }

    /// The rows have ended, and their answer is on its way.
    pub(super) fn is_split_ending(&self) -> bool {
        self.split.is_some() && self.guard.is_none()
    }

    /// A server is slower than the client.
    pub(super) fn is_split_full(&self) -> bool {
        self.split.as_ref().is_some_and(|split| split.legs.iter().any(|leg| leg.talk.out.len() >= TO_SERVER_MAX))
    }

    pub(super) fn split_data(&mut self, body: &[u8]) -> Step {
        if let Some(error) = self.denied.take() {
            self.end_split(&error);
            return Step::Done;
        }
        if self.is_waiting() {
            self.send_waiting();
            return Step::Done;
        }
        let Some(guard) = &mut self.guard else { return Step::Done };
        guard.held.extend_from_slice(body);
        let fed = guard.rows.feed(body);
        self.check_split_rows(fed)
    }

    pub(super) fn split_done(&mut self) -> Step {
        if let Some(error) = self.denied.take() {
            self.end_split(&error);
            return Step::Done;
        }
        if self.is_waiting() {
            self.send_waiting();
        } else if let Some(guard) = &mut self.guard {
            // The last row may lack its newline: it is complete now.
            let rest = guard.rows.finish();
            if let step @ Step::Attach(_) = self.check_split_rows(rest) {
                return step;
            }
        }
        let Some(guard) = self.guard.take() else { return Step::Done };
        match &self.split {
            Some(split) if split.legs.is_empty() => {
                self.split = None;
                self.no_rows(guard.simple);
            }
            _ => self.end_split_rows(),
        }
        Step::Done
    }

    fn is_waiting(&self) -> bool {
        self.split.as_ref().is_some_and(|split| split.waiting.is_some())
    }
}

impl Split {
    /// No server has been told of it yet, all of which waits for the first rows.
    pub(super) fn is_unheard(&self) -> bool {
        self.legs.iter().all(|leg| leg.fresh)
    }

    fn leg_of(&self, shard: usize) -> Option<usize> {
        self.legs.iter().position(|leg| leg.shard == shard)
    }
}

/// An ErrorResponse.
fn said(error: &PgError) -> Bytes {
    let mut bytes = BytesMut::with_capacity(256);
    backend::put_error(&mut bytes, error);
    bytes.freeze()
}
