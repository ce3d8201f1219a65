//! A server in use, and the proof that gives it back.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use pgward_config::model::{Class, PoolKind};
use pgward_wire::TxStatus;

use crate::admission::Slot;
use crate::pool::Pool;
use crate::server::Server;
use crate::store::{Store, Taken};

/// Proof that a server may serve another client: it said ReadyForQuery idle and owes no reply.
///
/// There is no other way to make one than [`Clean::prove`].
#[derive(Debug)]
pub struct Clean(());

impl Clean {
    /// The proof, if the last ReadyForQuery said `status` and `outstanding` replies are still to come.
    pub fn prove(status: TxStatus, outstanding: usize) -> Option<Self> {
        (matches!(status, TxStatus::Idle) && outstanding == 0).then_some(Self(()))
    }
}

/// A server lent to a session.
///
/// [`Lease::release`] gives it back to the pool; dropping the lease closes the connection and frees its place, which is
/// what is right whenever the state of the server is not known.
#[derive(Debug)]
pub struct Lease {
    /// `None` only while the lease is being released or dropped.
    held: Option<Held>,
    pool: Arc<Pool>,
    /// Of the slot that it holds, and gives back when it is dropped.
    class: Class,
    /// It counts among the servers that sessions keep.
    pinned: bool,
}

/// Whose the server is.
#[derive(Debug)]
enum Held {
    /// That of this store of the pool.
    Store(usize, Taken),
    /// That of this store of the pool's guests.
    Guest(Arc<Store>, Taken),
    /// Its client's alone.
    Own(Box<Server>),
}

impl Lease {
    pub(crate) fn new(taken: Taken, pool: Arc<Pool>, store: usize, slot: Slot<'_>) -> Self {
        Self { held: Some(Held::Store(store, taken)), pool, class: slot.hold(), pinned: false }
    }

    /// Of a server that guests share.
    pub(crate) fn of_guest(taken: Taken, pool: Arc<Pool>, store: Arc<Store>, slot: Slot<'_>) -> Self {
        Self { held: Some(Held::Guest(store, taken)), pool, class: slot.hold(), pinned: false }
    }

    /// Of a server that goes back to nobody; its slot, of this class, is held already.
    pub(crate) fn own(server: Box<Server>, pool: Arc<Pool>, class: Class) -> Self {
        Self { held: Some(Held::Own(server)), pool, class, pinned: false }
    }

    /// Gives the server back: first to the store, then its slot to whoever is next, who so finds it there. One that is
    /// its client's alone is closed.
    pub fn release(mut self, _proof: Clean) {
        match self.held.take() {
            Some(Held::Store(store, taken)) => self.pool.put(store, taken),
            Some(Held::Guest(store, taken)) => self.pool.put_in(&store, taken),
            Some(Held::Own(server)) => server.farewell(),
            None => {}
        }
    }

    /// The pool that it came from: general, too, for an emergency that found the emergency pool busy.
    pub fn pool(&self) -> PoolKind {
        self.pool.kind
    }

    /// The session keeps the server beyond its transaction.
    ///
    /// # Errors
    /// The number of servers of this pool that may be kept so (`max_pinned`), if as many are.
    pub fn pin(&mut self) -> Result<(), u32> {
        if !self.pinned && !self.pool.pin() {
            return Err(self.pool.figures.max_pinned);
        }
        self.pinned = true;
        Ok(())
    }

    /// The session does not keep the server after all.
    pub fn unpin(&mut self) {
        if std::mem::take(&mut self.pinned) {
            self.pool.unpin();
        }
    }

    /// The class that it was acquired for.
    pub fn class(&self) -> Class {
        self.class
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        match self.held.take() {
            Some(Held::Store(_, mut taken) | Held::Guest(_, mut taken)) => taken.broken = true,
            Some(Held::Own(server)) => drop(server),
            None => {}
        }
        self.unpin();
        self.pool.admission.release(self.class);
    }
}

/// The invariant behind the two `expect`s below.
const PRESENT: &str = "a lease holds its server until it is consumed";

impl Deref for Lease {
    type Target = Server;

    fn deref(&self) -> &Server {
        match self.held.as_ref().expect(PRESENT) {
            Held::Store(_, taken) | Held::Guest(_, taken) => taken,
            Held::Own(server) => server,
        }
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Server {
        match self.held.as_mut().expect(PRESENT) {
            Held::Store(_, taken) | Held::Guest(_, taken) => taken,
            Held::Own(server) => server,
        }
    }
}
