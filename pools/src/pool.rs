//! One of a node's prioritized pools: the admission, the budget of connections, and a store for each server role.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pgward_config::model::{self, PoolKind};
use tokio::time::Instant;

use crate::admission::{Admission, Slot};
use crate::budget::{Budget, Permit};
use crate::connect::{ConnectError, Target};
use crate::error::AcquireError;
use crate::gate::Limits;
use crate::guest::Guests;
use crate::server::Server;
use crate::store::{self, Store, Taken, Wish};

/// While every connection of the pool is open and none of them idle, this long until it is looked at again.
const EVICTION_RETRY: Duration = Duration::from_millis(2);

/// The pause after opening ahead failed, doubled at each further failure up to the second figure, in ticks.
const BACKOFF_TICKS: (u32, u32) = (1, 32);

/// One pool of one node.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) kind: PoolKind,
    pub(crate) figures: model::Pool,
    pub(crate) admission: Admission,
    /// Servers that sessions keep beyond their transactions.
    pinned: AtomicU32,
    budget: Arc<Budget>,
    stores: Vec<Arc<Store>>,
    /// Stores beside those of the configured roles: a plain pooler's.
    pub(crate) guests: Guests,
    /// Ticks of the slow clock, one a second.
    clock: AtomicU32,
    /// Ticks to wait before connections are opened ahead again, and how long the next pause is.
    backoff: parking_lot::Mutex<(u32, u32)>,
}

impl Pool {
    /// The pool of these figures; each target is a server role with the connections that are opened ahead for it.
    pub(crate) fn new(
        kind: PoolKind,
        figures: model::Pool,
        targets: Vec<(Target, u32)>,
        node_in_use: Arc<AtomicU32>,
    ) -> Self {
        let limits = match kind {
            PoolKind::Emergency => Limits::emergency_only(figures.max, figures.max_waiting),
            PoolKind::General => Limits::shared(figures.max, figures.max_waiting),
            PoolKind::Background | PoolKind::ReadOnly => Limits::without_emergency(figures.max, figures.max_waiting),
        };
        let budget = Budget::new(figures.max);
        let stores = targets
            .into_iter()
            .map(|(target, min)| Arc::new(Store::new(Arc::new(target), budget.clone(), min, figures.max)))
            .collect();
        Self {
            kind,
            admission: Admission::new(limits, node_in_use),
            figures,
            pinned: AtomicU32::new(0),
            budget,
            stores,
            guests: Guests::default(),
            clock: AtomicU32::new(0),
            backoff: parking_lot::Mutex::new((0, BACKOFF_TICKS.0)),
        }
    }

    /// One more server is kept: false if as many are as may be.
    pub(crate) fn pin(&self) -> bool {
        let more = |pinned: u32| (pinned < self.figures.max_pinned).then_some(pinned + 1);
        self.pinned.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// A server is no longer kept.
    pub(crate) fn unpin(&self) {
        self.pinned.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many servers sessions keep.
    pub(crate) fn pinned(&self) -> u32 {
        self.pinned.load(Ordering::Relaxed)
    }

    pub(crate) fn store(&self, role: &str) -> Option<usize> {
        self.stores.iter().position(|store| store.role() == role)
    }

    /// An idle server of that role.
    pub(crate) fn take(&self, store: usize) -> Option<Taken> {
        self.stores[store].take()
    }

    /// Puts a server back that is clean.
    pub(crate) fn put(&self, store: usize, taken: Taken) {
        self.put_in(&self.stores[store], taken);
    }

    pub(crate) fn put_in(&self, store: &Store, mut taken: Taken) {
        if !taken.switch.is_reusable() {
            return store::close(taken);
        }
        taken.idle_since = self.clock.load(Ordering::Relaxed);
        store.put(taken);
    }

    /// Puts a connection that was opened elsewhere among the idle ones.
    pub(crate) async fn put_new(&self, store: &Store, server: Box<Server>) -> Result<(), ConnectError> {
        let taken = store.adopt(server).await?;
        self.put_in(store, taken);
        Ok(())
    }

    pub(crate) fn budget(&self) -> Arc<Budget> {
        Arc::clone(&self.budget)
    }

    /// An idle server, or a new one; the slot is what entitles to it.
    pub(crate) async fn take_or_open(
        self: &Arc<Self>,
        store: usize,
        slot: &Slot<'_>,
        deadline: Instant,
    ) -> Result<Taken, AcquireError> {
        self.take_or_open_in(&self.stores[store], slot, deadline).await
    }

    pub(crate) async fn take_or_open_in(
        self: &Arc<Self>,
        store: &Arc<Store>,
        slot: &Slot<'_>,
        deadline: Instant,
    ) -> Result<Taken, AcquireError> {
        loop {
            let Wish { news, must_open } = match store.take_or_wish() {
                Ok(taken) => return Ok(taken),
                Err(wish) => wish,
            };
            if must_open {
                let (pool, store) = (self.clone(), store.clone());
                tokio::spawn(async move { pool.open_wanted(&store).await });
            }
            match tokio::time::timeout_at(deadline, news).await {
                Ok(Ok(Ok(()))) | Ok(Err(_)) => {}
                Ok(Ok(Err(error))) => return Err(AcquireError::Connect(error)),
                Err(_) => return Err(AcquireError::timeout(self, slot.class())),
            }
        }
    }

    /// A place for a connection that is no store's, once there is one: an idle server makes room. `None` where that takes
    /// longer than a connection may.
    pub(crate) async fn make_place(&self) -> Option<Permit> {
        let deadline = Instant::now() + self.figures.wait_timeout;
        loop {
            match self.budget.take() {
                Some(permit) => return Some(permit),
                None if Instant::now() >= deadline => return None,
                None => self.make_room(None).await,
            }
        }
    }

    async fn open_wanted(&self, store: &Arc<Store>) {
        let deadline = Instant::now() + store.target().connect_timeout;
        let opened = loop {
            match self.open(store).await {
                Err(ConnectError::PoolFull) if Instant::now() < deadline => self.make_room(Some(store)).await,
                opened => break opened,
            }
        };
        store.opened(opened);
    }

    async fn open(&self, store: &Store) -> Result<Taken, ConnectError> {
        let mut taken = store.open().await?;
        taken.idle_since = self.clock.load(Ordering::Relaxed);
        Ok(taken)
    }

    /// Closes an idle server of another role, whose place in the budget is then free, or lets a moment pass. Who asks
    /// holds a slot, so not all that is open can be in use: there is an idle one, or one that is just being opened or
    /// closed.
    async fn make_room(&self, store: Option<&Arc<Store>>) {
        let others = self.stores.iter().filter(|other| store.is_none_or(|store| !Arc::ptr_eq(store, other)));
        let most_idle = others.max_by_key(|other| other.idle());
        if !most_idle.is_some_and(|other| other.evict()) && !self.guests.evict(store) {
            tokio::time::sleep(EVICTION_RETRY).await;
        }
    }

    /// One tick of housekeeping: shares that are lent out, and idle servers that are gone or not needed.
    pub(crate) fn tick(&self) {
        let now = self.clock.fetch_add(1, Ordering::Relaxed) + 1;
        self.admission.tick();
        let check_every = (self.figures.check_interval.as_secs() as u32).clamp(1, 10);
        if now.is_multiple_of(check_every) {
            let idle_ticks = self.figures.idle_timeout.as_secs().clamp(1, u64::from(u32::MAX)) as u32;
            self.sweep(now.checked_sub(idle_ticks));
        }
    }

    /// Closes idle servers that are gone or told to go, and surplus ones not used since that tick.
    pub(crate) fn sweep(&self, used_since: Option<u32>) {
        for store in &self.stores {
            store.sweep(used_since);
        }
        self.guests.sweep(used_since);
    }

    /// Opens connections up to the minimum, one after another; pauses after a failure, longer each time.
    pub(crate) async fn open_ahead(&self) {
        {
            let mut backoff = self.backoff.lock();
            if backoff.0 > 0 {
                backoff.0 -= 1;
                return;
            }
        }
        let mut failed = false;
        while self.budget.open() < self.figures.min {
            let Some(store) = self.neediest() else { break };
            match self.open(store).await {
                Ok(taken) => store.put(taken),
                Err(ConnectError::PoolFull) => break,
                Err(error) => {
                    tracing::debug!(node = %store.target().node, pool = %self.kind, %error, "cannot open a connection ahead");
                    failed = true;
                    break;
                }
            }
        }
        let mut backoff = self.backoff.lock();
        *backoff = match failed {
            true => (backoff.1, (backoff.1 * 2).min(BACKOFF_TICKS.1)),
            false => (0, BACKOFF_TICKS.0),
        };
    }

    /// The role that is furthest below its share of the minimum.
    fn neediest(&self) -> Option<&Arc<Store>> {
        self.stores
            .iter()
            .filter(|store| store.min > 0)
            .max_by_key(|store| i64::from(store.min) - i64::from(store.idle()))
    }

    /// Opens ahead at the next tick, whatever failed before: the node is back.
    pub(crate) fn forget_failures(&self) {
        *self.backoff.lock() = (0, BACKOFF_TICKS.0);
    }

    /// Closes what is idle and takes nothing back from now on. Its housekeeping must have been told to end before, or it
    /// would go on to open what is closed at once.
    pub(crate) fn retire(&self) {
        self.stores.iter().for_each(|store| store.retire());
        self.guests.retire();
    }

    /// Whether the connections of the minimum are open, or could not be opened.
    pub(crate) fn is_filled(&self) -> bool {
        self.idle() + self.admission.load().0 >= self.figures.min || self.backoff.lock().1 > BACKOFF_TICKS.0
    }

    pub(crate) fn open_connections(&self) -> u32 {
        self.budget.open()
    }

    pub(crate) fn idle(&self) -> u32 {
        self.stores.iter().map(|store| store.idle()).sum::<u32>() + self.guests.idle()
    }
}
