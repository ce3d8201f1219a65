//! A node: what it is, how it is, and its pools.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use pgward_config::model::{self, Class, NodeId, NodeRole, PoolKind, RegionId, ServerRole, ShardId};
use smallvec::SmallVec;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::admission::{Slot, Ticket};
use crate::connect::Target;
use crate::error::AcquireError;
use crate::lease::Lease;
use crate::pool::Pool;
use crate::probe::{Prober, ShardLog};
use crate::standing::Standing;
use crate::status::{NodeStatus, PoolStatus};
use crate::watch::{Failure, NodeState, Parameters, Watch};

/// The beat of the pools' slow clocks.
const TICK: Duration = Duration::from_secs(1);

/// All that a node is made from; a reload keeps the node when none of it changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) shard: ShardId,
    pub(crate) node: model::Node,
    pub(crate) pools: [model::Pool; 4],
    /// Indexed by [`PoolKind::index`].
    pub(crate) roles: [PoolRoles; 4],
    /// Whom the prober logs in as.
    pub(crate) prober: Option<ServerRole>,
    pub(crate) health: model::Health,
    pub(crate) connect_timeout: Duration,
}

/// The server roles of one pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PoolRoles {
    pub(crate) roles: Vec<ServerRole>,
    /// Connections are opened ahead for the first so many of them.
    pub(crate) ahead: usize,
}

impl Settings {
    /// Whether it is the same PostgreSQL server, however its pools are set.
    pub(crate) fn is_same_server(&self, other: &Self) -> bool {
        let address =
            |node: &model::Node| (node.id.clone(), node.role, node.host.clone(), node.port, node.dbname.clone());
        self.shard == other.shard && address(&self.node) == address(&other.node)
    }
}

/// A PostgreSQL server process and the connections to it.
#[derive(Debug)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// What it is configured to be.
    pub role: NodeRole,
    /// The region that it stands in.
    pub region: RegionId,
    /// The shard that it belongs to.
    pub shard: ShardId,
    pub(crate) settings: Settings,
    pub(crate) watch: Arc<Watch>,
    pub(crate) shard_log: Arc<ShardLog>,
    /// Indexed by [`PoolKind::index`]; `None` where the node's role has no use for the pool.
    pools: [Option<Arc<Pool>>; 4],
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Node {
    pub(crate) fn new(settings: Settings, watch: Arc<Watch>, shard_log: Arc<ShardLog>) -> Self {
        let node = &settings.node;
        let pools = PoolKind::ALL.map(|kind| {
            PoolKind::of(node.role).contains(&kind).then(|| {
                let figures = settings.pools[kind.index()].clone();
                let PoolRoles { roles, ahead } = &settings.roles[kind.index()];
                let targets = roles.iter().enumerate().map(|(at, role)| {
                    let target = Target {
                        node: node.id.clone(),
                        node_role: node.role,
                        host: node.host.clone(),
                        port: node.port,
                        dbname: node.dbname.clone(),
                        role: role.clone(),
                        connect_timeout: settings.connect_timeout,
                        max_lifetime: figures.max_lifetime,
                        watch: watch.clone(),
                        switches: watch.switches.clone(),
                        guest: None,
                    };
                    (target, share(figures.min, *ahead, at))
                });
                Arc::new(Pool::new(kind, figures.clone(), targets.collect(), watch.in_use.clone()))
            })
        });
        Self {
            id: node.id.clone(),
            role: node.role,
            region: node.region.clone(),
            shard: settings.shard.clone(),
            watch,
            shard_log,
            pools,
            tasks: Mutex::default(),
            settings,
        }
    }

    /// How it is; reads atomics only.
    pub fn state(&self) -> NodeState {
        self.watch.state()
    }

    /// The ParameterStatus values of its last login; `None` until there was one.
    pub fn parameters(&self) -> Option<Parameters> {
        self.watch.parameters()
    }

    /// A server of this role at once, or nothing; never waits.
    ///
    /// An emergency that finds the emergency pool busy gets one of the general pool.
    pub fn try_acquire(&self, pool: PoolKind, class: Class, server_role: &str) -> Option<Lease> {
        let pool = self.pool(pool, class).ok()?;
        if let Some(slot) = pool.admission.try_take(class) {
            return idle(pool, slot, server_role);
        }
        let overflow = self.overflow(pool)?;
        idle(overflow, overflow.admission.try_take(class)?, server_role)
    }

    /// A server of this role, waiting for it no longer than the pool's `wait_timeout`. May be cancelled at any point.
    ///
    /// # Errors
    /// When the deadline passes, the queue is full, the connection that had to be opened could not be, or the node is
    /// down or goes down meanwhile.
    pub async fn acquire(&self, pool: PoolKind, class: Class, server_role: &str) -> Result<Lease, AcquireError> {
        let pool = self.pool(pool, class)?;
        if pool.store(server_role).is_none() {
            return Err(AcquireError::UnknownRole(server_role.into()));
        }
        if let Some(lease) = self.try_acquire(pool.kind, class, server_role) {
            return Ok(lease);
        }
        let mut changes = self.watch.changes();
        tokio::select! {
            biased;
            lease = self.wait(pool, class, server_role) => lease,
            _ = changes.wait_for(|standing| *standing == Standing::Down) => Err(AcquireError::node_down()),
        }
    }

    /// A session saw this node fail: a connection refused or reset, or no answer in time.
    pub fn report_failure(&self, failure: Failure) {
        self.watch.report_failure(failure);
    }

    /// A statement was answered after so long (until its first byte).
    pub fn report_response(&self, response: Duration) {
        self.watch.report_response(response);
    }

    /// Figures for metrics and the console.
    pub fn status(&self) -> NodeStatus {
        let pools = self.pools.iter().flatten().map(|pool| {
            let (in_use, waiting) = pool.admission.load();
            PoolStatus {
                kind: pool.kind,
                in_use,
                pinned: pool.pinned(),
                idle: pool.idle(),
                open: pool.open_connections(),
                min: pool.figures.min,
                max: pool.figures.max,
                waiting,
            }
        });
        NodeStatus {
            id: self.id.clone(),
            shard: self.shard.clone(),
            role: self.role,
            region: self.region.clone(),
            standing: self.watch.standing(),
            state: self.state(),
            pools: pools.collect(),
        }
    }

    fn pool(&self, kind: PoolKind, class: Class) -> Result<&Arc<Pool>, AcquireError> {
        if self.watch.is(Standing::Down) {
            return Err(AcquireError::node_down());
        }
        if kind == PoolKind::Emergency && class != Class::Emergency {
            return Err(AcquireError::NotEmergency(class));
        }
        let none = || AcquireError::NoPool { node: self.id.clone(), pool: kind };
        self.pools[kind.index()].as_ref().ok_or_else(none)
    }

    /// Where statements of a busy emergency pool go.
    fn overflow(&self, busy: &Pool) -> Option<&Arc<Pool>> {
        match busy.kind {
            PoolKind::Emergency => self.pools[PoolKind::General.index()].as_ref(),
            _ => None,
        }
    }

    async fn wait(&self, pool: &Arc<Pool>, class: Class, role: &str) -> Result<Lease, AcquireError> {
        let deadline = Instant::now() + pool.figures.wait_timeout;
        let (pool, slot) = match tokio::time::timeout_at(deadline, self.admit(pool, class, role)).await {
            Ok(admitted) => admitted?,
            Err(_) => return Err(AcquireError::timeout(pool, class)),
        };
        let store = pool.store(role).ok_or_else(|| AcquireError::UnknownRole(role.into()))?;
        let taken = pool.take_or_open(store, &slot, deadline).await?;
        Ok(Lease::new(taken, pool.clone(), store, slot))
    }

    /// A slot of this pool, for which it waits no longer than the pool's `wait_timeout`.
    pub(crate) async fn enter(&self, pool: PoolKind, class: Class) -> Result<(&Arc<Pool>, Slot<'_>), AcquireError> {
        let pool = self.pool(pool, class)?;
        let mut changes = self.watch.changes();
        tokio::select! {
            biased;
            admitted = tokio::time::timeout(pool.figures.wait_timeout, self.admit(pool, class, "")) =>
                admitted.unwrap_or_else(|_| Err(AcquireError::timeout(pool, class))),
            _ = changes.wait_for(|standing| *standing == Standing::Down) => Err(AcquireError::node_down()),
        }
    }

    /// Waits for a slot of the pool, or of the one that it overflows into, whichever is free first.
    async fn admit<'a>(
        &'a self,
        pool: &'a Arc<Pool>,
        class: Class,
        role: &str,
    ) -> Result<(&'a Arc<Pool>, Slot<'a>), AcquireError> {
        let overflow = self.overflow(pool).filter(|overflow| overflow.store(role).is_some());
        let mut tickets: SmallVec<[(&Arc<Pool>, Ticket<'_>); 2]> = SmallVec::new();
        for pool in std::iter::once(pool).chain(overflow) {
            if let Some(slot) = pool.admission.try_take(class) {
                return Ok((pool, slot));
            }
            if let Ok(ticket) = pool.admission.queue(class) {
                tickets.push((pool, ticket));
            }
        }
        poll_fn(|cx| {
            let mut at = 0;
            while let Some((pool, ticket)) = tickets.get_mut(at) {
                match ticket.poll_slot(cx) {
                    Poll::Ready(Ok(slot)) => return Poll::Ready(Ok((*pool, slot))),
                    Poll::Ready(Err(_)) => drop(tickets.remove(at)),
                    Poll::Pending => at += 1,
                }
            }
            match tickets.is_empty() {
                true => Poll::Ready(Err(AcquireError::QueueFull { pool: pool.kind, class })),
                false => Poll::Pending,
            }
        })
        .await
    }

    /// Starts what runs beside the sessions: the pools' housekeeping on the data plane's runtime, so that the sockets
    /// that it opens belong there, and the prober on the control plane's.
    pub(crate) fn start(self: &Arc<Self>, data: &Handle, control: &Handle) {
        let mut tasks = self.tasks.lock();
        if !tasks.is_empty() {
            return;
        }
        if let Some(role) = self.settings.prober.clone() {
            let prober = Prober {
                node: self.settings.node.clone(),
                role,
                health: self.settings.health.clone(),
                watch: self.watch.clone(),
                shard: self.shard_log.clone(),
            };
            tasks.push(control.spawn(prober.run()).abort_handle());
        }
        for pool in self.pools.iter().flatten() {
            tasks.push(data.spawn(keep(pool.clone(), self.watch.clone())).abort_handle());
        }
    }

    /// Ends its tasks and closes what is idle; what is in use is closed when it is given back.
    pub(crate) fn retire(&self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        for pool in self.pools.iter().flatten() {
            pool.retire();
        }
    }

    /// Whether the first probe has ended and, on a node that is up, the connections of the minimum were tried.
    pub(crate) fn is_settled(&self) -> bool {
        let is_probed = self.settings.prober.is_none() || self.watch.is_probed();
        is_probed && (!self.watch.is(Standing::Up) || self.pools.iter().flatten().all(|pool| pool.is_filled()))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.retire();
    }
}

fn idle(pool: &Arc<Pool>, slot: Slot<'_>, role: &str) -> Option<Lease> {
    let store = pool.store(role)?;
    let taken = pool.take(store)?;
    Some(Lease::new(taken, pool.clone(), store, slot))
}

/// The housekeeping of one pool: each second, and when the node goes down or comes up.
async fn keep(pool: Arc<Pool>, watch: Arc<Watch>) {
    let mut changes = watch.changes();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                watch.switches.retire_expired(std::time::Instant::now());
                pool.tick();
            }
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                pool.forget_failures();
                pool.sweep(None);
            }
        }
        if watch.is(Standing::Up) {
            pool.open_ahead().await;
        }
    }
}

/// The part of `total` that falls to the one at this place, when the first `parts` divide it as evenly as they can.
fn share(total: u32, parts: usize, at: usize) -> u32 {
    if at >= parts {
        return 0;
    }
    let parts = parts as u32;
    total / parts + u32::from((at as u32) < total % parts)
}
