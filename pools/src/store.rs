//! The idle servers of one (node, pool kind, server role), kept by bb8; and opening more.
//!
//! bb8 is used as a store only. Its queue is not fair and hides connect errors until the waiter times out, so nobody
//! ever waits in it: who comes here holds a slot of the pool's admission already. An idle server is taken by polling
//! bb8's `get` once, which costs neither an allocation nor a timer; when there is none, a connection is opened by a
//! task of its own (so that a session that leaves does not waste a half-made login), which ends by telling exactly one
//! of those who want a server: "there is one", or the error.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bb8::{ManageConnection, PooledConnection, QueueStrategy};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::budget::Budget;
use crate::connect::{ConnectError, Target};
use crate::server::Server;

/// An in-use server of the store; bb8 gets it back when this is dropped.
pub(crate) type Taken = PooledConnection<'static, Opener>;

/// What a session that wants a server is told.
type Told = Result<(), Arc<ConnectError>>;

/// bb8's view of a node and role.
#[derive(Debug)]
pub(crate) struct Opener {
    target: Arc<Target>,
    budget: Arc<Budget>,
}

impl ManageConnection for Opener {
    type Connection = Box<Server>;
    type Error = ConnectError;

    async fn connect(&self) -> Result<Box<Server>, ConnectError> {
        let permit = self.budget.take().ok_or(ConnectError::PoolFull)?;
        self.target.open(permit).await
    }

    async fn is_valid(&self, server: &mut Box<Server>) -> Result<(), ConnectError> {
        if server.is_fit() { Ok(()) } else { Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into()) }
    }

    fn has_broken(&self, server: &mut Box<Server>) -> bool {
        server.broken
    }
}

/// The idle servers of one role.
#[derive(Debug)]
pub(crate) struct Store {
    target: Arc<Target>,
    pool: bb8::Pool<Opener>,
    /// Servers in bb8. Raised after one is put in and lowered after one is taken out, so it may be behind for a moment.
    idle: AtomicI32,
    wanting: Mutex<Wanting>,
    /// Connections opened ahead for this role.
    pub(crate) min: u32,
}

#[derive(Debug, Default)]
struct Wanting {
    queue: VecDeque<oneshot::Sender<Told>>,
    opening: usize,
    /// When the log was last told of a failure.
    complained: Option<Instant>,
}

/// The log hears of failing connections this often, however many statements ask for one.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

impl Store {
    /// A store for at most `max` servers, `min` of them opened ahead.
    pub(crate) fn new(target: Arc<Target>, budget: Arc<Budget>, min: u32, max: u32) -> Self {
        let pool = bb8::Pool::builder()
            .max_size(max.max(1))
            .min_idle(None)
            .max_lifetime(None)
            .idle_timeout(None)
            .retry_connection(false)
            .test_on_check_out(false)
            .queue_strategy(QueueStrategy::Lifo)
            .connection_timeout(target.connect_timeout.max(Duration::from_millis(1)))
            .build_unchecked(Opener { target: target.clone(), budget });
        Self { target, pool, idle: AtomicI32::new(0), wanting: Mutex::default(), min }
    }

    pub(crate) fn role(&self) -> &str {
        &self.target.role.name
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    pub(crate) fn idle(&self) -> u32 {
        self.idle.load(Ordering::Acquire).max(0) as u32
    }

    /// The most recently used idle server that is still there; must be called inside a tokio runtime.
    pub(crate) fn take(&self) -> Option<Taken> {
        while let Some(mut taken) = self.take_any() {
            if taken.is_fit() {
                return Some(taken);
            }
            taken.broken = true;
        }
        None
    }

    fn take_any(&self) -> Option<Taken> {
        if self.idle.load(Ordering::Acquire) <= 0 {
            return None;
        }
        match pin!(self.pool.get_owned()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(taken)) => {
                self.idle.fetch_sub(1, Ordering::AcqRel);
                Some(taken)
            }
            Poll::Ready(Err(_)) | Poll::Pending => None,
        }
    }

    /// Puts a server back; it is closed instead when it is marked broken.
    pub(crate) fn put(&self, taken: Taken) {
        let stays = !taken.broken;
        drop(taken);
        if stays {
            self.idle.fetch_add(1, Ordering::AcqRel);
            self.tell(Ok(()));
        }
    }

    /// Puts a server that was just opened among the idle ones.
    pub(crate) fn add(&self, server: Box<Server>) {
        // bb8 refuses what exceeds max_size, which the budget has excluded; then the connection is closed.
        if self.pool.add(server).is_ok() {
            self.idle.fetch_add(1, Ordering::AcqRel);
        }
        self.tell(Ok(()));
    }

    /// Whether the next one that wants a server must have a connection opened for it.
    pub(crate) fn want(&self) -> (oneshot::Receiver<Told>, bool) {
        let (told, news) = oneshot::channel();
        let mut wanting = self.wanting.lock();
        wanting.queue.retain(|waiting| !waiting.is_closed());
        wanting.queue.push_back(told);
        let open = wanting.opening < wanting.queue.len();
        wanting.opening += usize::from(open);
        (news, open)
    }

    /// The end of an opening that [`Store::want`] asked for.
    pub(crate) fn opened(&self, opened: Result<Box<Server>, ConnectError>) {
        self.wanting.lock().opening -= 1;
        match opened {
            Ok(server) => self.add(server),
            Err(error) => {
                self.complain(&error);
                self.tell(Err(Arc::new(error)));
            }
        }
    }

    /// A login that fails while probes of another role succeed would otherwise be seen by clients only.
    fn complain(&self, error: &ConnectError) {
        let now = Instant::now();
        let mut wanting = self.wanting.lock();
        if wanting.complained.is_none_or(|last| now.duration_since(last) >= COMPLAIN_EVERY) {
            wanting.complained = Some(now);
            tracing::warn!(node = %self.target.node, %error, "cannot open a connection that a statement waits for");
        }
    }

    fn tell(&self, mut news: Told) {
        let mut wanting = self.wanting.lock();
        while let Some(waiting) = wanting.queue.pop_front() {
            match waiting.send(news) {
                Ok(()) => return,
                Err(unheard) => news = unheard,
            }
        }
    }

    /// Closes the idle server that was used last; true if there was one.
    pub(crate) fn evict(&self) -> bool {
        match self.take_any() {
            Some(taken) => {
                close(taken);
                true
            }
            None => false,
        }
    }

    /// Looks at every idle server: those that are gone, or told to go, are closed, and those above the minimum that
    /// were not used since `used_since`. Takes no time worth speaking of: nothing here waits.
    pub(crate) fn sweep(&self, used_since: Option<u32>) {
        let mut fit = Vec::new();
        while let Some(mut taken) = self.take_any() {
            if taken.is_fit() {
                fit.push(taken);
            } else {
                taken.broken = true;
            }
        }
        // The most recently used come out first and go in last.
        let surplus = match used_since {
            Some(since) => fit.iter().skip(self.min as usize).filter(|server| server.idle_since < since).count(),
            None => 0,
        };
        fit.drain(fit.len() - surplus..).for_each(close);
        for taken in fit.into_iter().rev() {
            self.put(taken);
        }
    }
}

/// Closes a server that is fit: it takes its leave.
fn close(mut taken: Taken) {
    taken.farewell();
    taken.broken = true;
}
