//! All sessions of the process: who is here, how to reach their tasks, and which server runs what for whom.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::{Duration, Instant, SystemTime};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use pgward_config::User;
use pgward_pools::{CancelTarget, Node};
use pgward_wire::PgError;
use ring::rand::{SecureRandom, SystemRandom};

use crate::cancel::key;
use crate::cancel::under_way::{Sent, UnderWay};
use crate::cancel::waiting::Waiting;

/// Why a session is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kill {
    /// At its next pause between transactions.
    Drain,
    /// At once.
    Now,
    /// It was silent in a transaction for too long.
    IdleInTransaction,
}

impl Kill {
    /// Whether the session ends in the midst of a transaction too.
    pub(crate) fn is_immediate(self) -> bool {
        self != Self::Drain
    }
}

/// What the rest of the process holds of a session.
#[derive(Debug)]
pub(crate) struct Handle {
    user: Arc<str>,
    /// Number of the session in audit records.
    pub(crate) id: u64,
    /// Process id that the client was given.
    pub(crate) pid: i32,
    /// Secret key that the client was given.
    pub(crate) key: Box<[u8]>,
    waker: AtomicWaker,
    kill: AtomicU8,
    /// Tick since when the session is silent in a transaction, 0 when it is not.
    idle_in_transaction: AtomicU32,
    /// Tick since when the session waits for the first byte of a server's answer, 0 when it does not.
    awaiting: AtomicU32,
    /// The server has not answered what was sent ahead of the session's statement.
    steps_ahead: AtomicBool,
    /// For what comes before a server is told the statement.
    pub(crate) waiting: Waiting,
    server: Mutex<ServerSide>,
}

/// The server that works for a session.
#[derive(Debug, Default)]
struct ServerSide {
    target: Option<CancelTarget>,
    node: Weak<Node>,
    /// The cancels that were asked for while it does.
    cancel: Option<Arc<UnderWay>>,
}

impl Handle {
    /// Whose session it is.
    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    pub(crate) fn kill(&self, kill: Kill) {
        let code = match kill {
            Kill::Drain => 1,
            Kill::Now => 2,
            Kill::IdleInTransaction => 3,
        };
        self.kill.fetch_max(code, Ordering::AcqRel);
        self.waker.wake();
    }

    pub(crate) fn killed(&self) -> Option<Kill> {
        match self.kill.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Kill::Drain),
            2 => Some(Kill::Now),
            _ => Some(Kill::IdleInTransaction),
        }
    }

    /// The session waits for a server's answer since this tick; 0 for no longer.
    pub(crate) fn set_awaiting(&self, since: u32) {
        self.awaiting.store(since, Ordering::Relaxed);
    }

    pub(crate) fn set_idle_in_transaction(&self, since: Option<u32>) {
        self.idle_in_transaction.store(since.unwrap_or(0), Ordering::Relaxed);
    }

    /// A server of this node works for the session from now on; `steps_ahead`: BEGIN or parameters were sent to it
    /// ahead of the session's statement, and nothing is cancelled before they are answered.
    pub(crate) fn attach(&self, target: CancelTarget, node: &Arc<Node>, steps_ahead: bool) {
        let mut server = self.server.lock();
        self.steps_ahead.store(steps_ahead, Ordering::Relaxed);
        server.target = Some(target);
        server.cancel = None;
        server.node = Arc::downgrade(node);
    }

    /// Whether [`Handle::steps_answered`] is to be told.
    pub(crate) fn has_steps_ahead(&self) -> bool {
        self.steps_ahead.load(Ordering::Relaxed)
    }

    /// What was sent ahead is answered.
    pub(crate) fn steps_answered(&self) {
        let server = self.server.lock();
        self.steps_ahead.store(false, Ordering::Relaxed);
        if let Some(cancel) = &server.cancel {
            cancel.let_go();
        }
    }

    /// It does no longer. What is returned may still hit the server, which nobody must use until it has ended.
    pub(crate) fn detach(&self) -> Option<Arc<UnderWay>> {
        self.waiting.end();
        let mut server = self.server.lock();
        server.target = None;
        self.awaiting.store(0, Ordering::Relaxed);
        server.cancel.take().filter(|cancel| !cancel.leave())
    }

    /// Cancels what runs for the session, and waits until its server has taken that; `None` when nothing runs. As long as
    /// no server has been told the statement, none has to be asked.
    pub(crate) async fn cancel(&self) -> Option<Sent> {
        if self.waiting.cancel() {
            return Some(Sent::NotNeeded);
        }
        let cancel = {
            let mut server = self.server.lock();
            let target = server.target.clone()?;
            let cancel = server.cancel.get_or_insert_with(|| UnderWay::new(self.has_steps_ahead()));
            if cancel.ask() {
                cancel.send(target);
            }
            Arc::clone(cancel)
        };
        Some(cancel.ended().await)
    }
}

/// The sessions by the process id that their clients know, and their number: a server's own process id is given out anew
/// while the session that had it before may not have heard yet that its server is gone.
#[derive(Debug)]
pub(crate) struct Registry {
    sessions: Mutex<BTreeMap<(i32, u64), Arc<Handle>>>,
    next: AtomicU64,
    ticks: AtomicU32,
    started: Instant,
    /// What the wall clock showed at `started`, in ns since 1970, by its reading at the last tick.
    wall_at_start: AtomicU64,
    random: SystemRandom,
    /// The number of this instance in cancel keys, 0 where there is no other.
    instance: u16,
}

impl Registry {
    pub(crate) fn new(instance: u16) -> Self {
        Self {
            instance,
            sessions: Mutex::default(),
            next: AtomicU64::new(1),
            ticks: AtomicU32::new(1),
            started: Instant::now(),
            wall_at_start: AtomicU64::new(nanos_since_1970(SystemTime::now())),
            random: SystemRandom::new(),
        }
    }

    /// The wall clock's time at this moment, from its reading at the last tick: a clock that is set right shows within
    /// a second. Reading the clock anew would cost as much as encoding the audit record that the time is for.
    pub(crate) fn wall(&self, at: Instant) -> SystemTime {
        let start = Duration::from_nanos(self.wall_at_start.load(Ordering::Relaxed));
        SystemTime::UNIX_EPOCH + start + at.saturating_duration_since(self.started)
    }

    /// Seconds since the start, from 1: the coarse clock of idle and waiting times, which costs a load.
    pub(crate) fn now(&self) -> u32 {
        self.ticks.load(Ordering::Relaxed)
    }

    /// Brings the coarse clock up to date.
    pub(crate) fn tick(&self) {
        let elapsed = self.started.elapsed();
        let elapsed_nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let wall = nanos_since_1970(SystemTime::now());
        self.wall_at_start.store(wall.saturating_sub(elapsed_nanos), Ordering::Relaxed);
        let seconds = u32::try_from(elapsed.as_secs()).unwrap_or(u32::MAX);
        self.ticks.store(seconds.saturating_add(1), Ordering::Relaxed);
    }

    /// Nodes that a session waits for since `limit` or longer without a byte: they may be frozen, or at a long
    /// statement, which a probe tells apart.
    pub(crate) fn silent_nodes(&self, limit: Duration) -> Vec<Arc<Node>> {
        let now = u64::from(self.now());
        let mut silent: Vec<Arc<Node>> = Vec::new();
        for handle in self.sessions.lock().values() {
            let since = u64::from(handle.awaiting.load(Ordering::Relaxed));
            if since == 0 || now.saturating_sub(since) < limit.as_secs() {
                continue;
            }
            let node = handle.server.lock().node.upgrade();
            silent.extend(node.filter(|node| !silent.iter().any(|known| Arc::ptr_eq(known, node))));
        }
        silent
    }

    /// How many sessions there are.
    pub(crate) fn len(&self) -> usize {
        self.sessions.lock().len()
    }

    /// A new session of a user, whose client speaks this minor version of the protocol.
    ///
    /// # Errors
    /// 53300 when there are `limit` sessions already, or as many of this user as the user may have.
    pub(crate) fn enter(&self, user: &User, limit: usize, minor: u16) -> Result<Entered<'_>, PgError> {
        self.enter_as(&user.name, user.max_clients, limit, minor, None)
    }

    /// The same by these names and limits; the client is given this process id, its server's own, or a random one.
    ///
    /// # Errors
    /// As for [`Registry::enter`].
    pub(crate) fn enter_as(
        &self,
        user: &Arc<str>,
        user_limit: Option<usize>,
        limit: usize,
        minor: u16,
        pid: Option<i32>,
    ) -> Result<Entered<'_>, PgError> {
        let key = match pid {
            // A process id that others can read leaves all to the key.
            Some(_) => key::alone(self.random()?, minor),
            None => key::make(self.random()?, self.instance, minor),
        };
        let mut sessions = self.sessions.lock();
        if sessions.len() >= limit {
            return Err(PgError::error("53300", "sorry, too many clients already")
                .with_detail(format!("max_clients in [proxy] is {limit}.")));
        }
        if let Some(limit) = user_limit {
            let of_user = sessions.values().filter(|handle| handle.user == *user).count();
            if of_user >= limit {
                return Err(PgError::error("53300", format!("too many connections for user \"{user}\""))
                    .with_detail(format!("max_clients of this user is {limit}.")));
            }
        }
        let pid = match pid {
            Some(pid) => pid,
            None => loop {
                let pid = i32::from_be_bytes(self.random()?) & i32::MAX;
                if pid > 0 && sessions.range(of_pid(pid)).next().is_none() {
                    break pid;
                }
            },
        };
        let handle = Arc::new(Handle {
            user: Arc::clone(user),
            id: self.next.fetch_add(1, Ordering::Relaxed),
            pid,
            key,
            waker: AtomicWaker::new(),
            kill: AtomicU8::new(0),
            idle_in_transaction: AtomicU32::new(0),
            awaiting: AtomicU32::new(0),
            steps_ahead: AtomicBool::new(false),
            waiting: Waiting::default(),
            server: Mutex::default(),
        });
        sessions.insert((pid, handle.id), Arc::clone(&handle));
        Ok(Entered { registry: self, handle })
    }

    fn random<const N: usize>(&self) -> Result<[u8; N], PgError> {
        let mut bytes = [0; N];
        self.random.fill(&mut bytes).map_err(|_| PgError::error("XX000", "no random bytes can be had"))?;
        Ok(bytes)
    }

    /// Tells all sessions to end.
    pub(crate) fn kill_all(&self, kill: Kill) {
        for handle in self.sessions.lock().values() {
            handle.kill(kill);
        }
    }

    /// Ends the sessions that are silent in a transaction for longer than `limit`.
    pub(crate) fn kill_idle_in_transaction(&self, limit: Duration) {
        let now = u64::from(self.now());
        for handle in self.sessions.lock().values() {
            let since = u64::from(handle.idle_in_transaction.load(Ordering::Relaxed));
            if since > 0 && now.saturating_sub(since) >= limit.as_secs().max(1) {
                handle.kill(Kill::IdleInTransaction);
            }
        }
    }

    /// The number of this instance in cancel keys.
    pub(crate) fn instance(&self) -> u16 {
        self.instance
    }

    /// The session that was given this process id and key.
    pub(crate) fn of_key(&self, pid: i32, told: &[u8]) -> Option<Arc<Handle>> {
        let sessions = self.sessions.lock();
        sessions.range(of_pid(pid)).map(|(_, handle)| handle).find(|handle| key::same(&handle.key, told)).cloned()
    }
}

/// A session among the others for as long as this lives, even if its task panics or its login is given up.
#[derive(Debug)]
pub(crate) struct Entered<'r> {
    registry: &'r Registry,
    pub(crate) handle: Arc<Handle>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.registry.sessions.lock().remove(&(self.handle.pid, self.handle.id));
    }
}

fn of_pid(pid: i32) -> std::ops::RangeInclusive<(i32, u64)> {
    (pid, 0)..=(pid, u64::MAX)
}

fn nanos_since_1970(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use pgward_config::{Class, PoolMode, Workload};

    fn user(max_clients: Option<usize>) -> User {
        User {
            name: "app".into(),
            verifier: None,
            class: Class::Normal,
            ceiling: Class::Normal,
            workload: Workload::Care,
            server_role: "app".into(),
            may_set_role: Vec::new(),
            pool_mode: PoolMode::Transaction,
            max_clients,
        }
    }

    #[test]
    fn the_limit_of_clients_holds() {
        let registry = Registry::new(0);
        let first = registry.enter(&user(None), 1, 0).unwrap();
        assert_eq!(registry.enter(&user(None), 1, 0).unwrap_err().sqlstate(), "53300");
        assert_eq!(registry.enter(&user(Some(1)), 9, 0).unwrap_err().sqlstate(), "53300");
        drop(first);
        assert!(registry.enter(&user(Some(1)), 1, 0).is_ok());
    }

    /// As when `startup_timeout` ends while the greeting is written.
    #[tokio::test]
    async fn a_login_that_is_given_up_leaves_nobody_behind() {
        let registry = Registry::new(0);
        let login = async {
            let _entered = registry.enter(&user(None), 1, 0).unwrap();
            std::future::pending::<()>().await;
        };
        assert!(tokio::time::timeout(Duration::from_millis(1), login).await.is_err());
        assert_eq!(registry.len(), 0);
    }

    #[test]
    fn a_server_that_is_being_cancelled_is_not_undisturbed() {
        let registry = Registry::new(0);
        let entered = registry.enter(&user(None), 1, 0).unwrap();
        let handle = Arc::clone(&entered.handle);
        assert!(handle.detach().is_none());
        let cancel = UnderWay::new(false);
        assert!(cancel.ask());
        handle.server.lock().cancel = Some(Arc::clone(&cancel));
        assert!(handle.detach().is_some());
        assert!(handle.detach().is_none(), "the next server is another one");
    }

    #[test]
    fn a_session_is_found_by_its_whole_key() {
        let registry = Registry::new(7);
        let entered = registry.enter(&user(None), 1, 2).unwrap();
        let handle = Arc::clone(&entered.handle);
        let found = |pid, key: &[u8]| registry.of_key(pid, key).is_some();
        assert!(found(handle.pid, &handle.key));
        assert!(!found(handle.pid ^ 1, &handle.key));
        assert!(!found(handle.pid, &handle.key[..4]));
        drop(entered);
        assert!(!found(handle.pid, &handle.key));
    }

    #[test]
    fn two_sessions_of_one_process_id_are_told_apart_by_their_keys() {
        let registry = Registry::new(0);
        let enter = || registry.enter_as(&"app".into(), None, 9, 0, Some(7)).unwrap();
        let (first, second) = (enter(), enter());
        let (before, now) = (Arc::clone(&first.handle), Arc::clone(&second.handle));
        assert_eq!((before.pid, now.pid), (7, 7));
        let found = |key: &[u8]| registry.of_key(7, key).map(|handle| handle.id);
        assert_eq!((found(&before.key), found(&now.key)), (Some(before.id), Some(now.id)));
        drop(first);
        assert_eq!((found(&before.key), found(&now.key)), (None, Some(now.id)));
    }

    #[test]
    fn the_wall_clock_is_followed() {
        let registry = Registry::new(0);
        let near = |a: SystemTime, b: SystemTime| {
            let apart = a.duration_since(b).unwrap_or_else(|error| error.duration());
            assert!(apart < Duration::from_millis(500), "{apart:?}");
        };
        near(registry.wall(Instant::now()), SystemTime::now());
        registry.tick();
        near(registry.wall(Instant::now()), SystemTime::now());
        let later = Instant::now() + Duration::from_secs(3600);
        near(registry.wall(later), SystemTime::now() + Duration::from_secs(3600));
    }

    #[test]
    fn a_harder_kill_is_not_softened() {
        let registry = Registry::new(0);
        let entered = registry.enter(&user(None), 1, 0).unwrap();
        let handle = Arc::clone(&entered.handle);
        handle.kill(Kill::Now);
        handle.kill(Kill::Drain);
        assert_eq!(handle.killed(), Some(Kill::Now));
    }
}
