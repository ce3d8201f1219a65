//! The idle servers of one (node, pool kind, server role), and opening more.
//!
//! bb8 opens the connections and owns them: it counts them, and closes what is dropped broken. Its queue is left empty,
//! because its `get` is not fair, hides connect errors until the waiter times out, and opens connections of its own
//! accord when two ask at once for the last idle one. So each connection is taken out of bb8 as soon as it is open, for
//! good; an idle server is such a handle on a stack of our own. Taking one is a pop, giving it back a push, and how many
//! there are is the height of the stack.
//!
//! Who comes here holds a slot of the pool's admission already. When there is no idle server for it, a connection is
//! opened by a task of its own (so that a session that leaves does not waste a half-made login), which ends by telling
//! exactly one of those who want a server: "there is one", or the error.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bb8::{ManageConnection, PooledConnection, RunError};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::budget::Budget;
use crate::connect::{ConnectError, Target};
use crate::server::Server;

/// A server, idle or in use. To be marked broken before it is dropped: bb8 then closes it.
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
    bb8: bb8::Pool<Opener>,
    shelf: Mutex<Shelf>,
    /// Connections opened ahead for this role.
    pub(crate) min: u32,
}

/// What changes together. No server is dropped while it is locked, because closing one takes other locks.
#[derive(Debug, Default)]
struct Shelf {
    /// The one that was used last is at the end.
    idle: Vec<Taken>,
    wanting: VecDeque<oneshot::Sender<Told>>,
    /// Set when nothing is taken back any more.
    retired: bool,
    /// Connections being opened for those who want one: never fewer than those.
    opening: usize,
    /// When the log was last told of a failure.
    complained: Option<Instant>,
}

/// The wish for a server, when none is idle.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) news: oneshot::Receiver<Told>,
    /// Whether who has the wish must see to it that a connection is opened, and [`Store::opened`] called.
    pub(crate) must_open: bool,
}

/// The log hears of failing connections this often, however many statements ask for one.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

impl Store {
    /// A store for at most `max` servers, `min` of them opened ahead.
    pub(crate) fn new(target: Arc<Target>, budget: Arc<Budget>, min: u32, max: u32) -> Self {
        let bb8 = bb8::Pool::builder()
            .max_size(max.max(1))
            .min_idle(None)
            .max_lifetime(None)
            .idle_timeout(None)
            .retry_connection(false)
            .test_on_check_out(false)
            .build_unchecked(Opener { target: target.clone(), budget });
        Self { target, bb8, shelf: Mutex::default(), min }
    }

    pub(crate) fn role(&self) -> &str {
        &self.target.role.name
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    pub(crate) fn idle(&self) -> u32 {
        self.shelf.lock().idle.len() as u32
    }

    /// The most recently used idle server that is still there.
    pub(crate) fn take(&self) -> Option<Taken> {
        loop {
            if let Some(taken) = fit(self.pop()?) {
                return Some(taken);
            }
        }
    }

    /// The most recently used idle server that is still there, or the wish for one. It is one step, so that a server
    /// that is given back is either found here or told to who waits.
    pub(crate) fn take_or_wish(&self) -> Result<Taken, Wish> {
        loop {
            let mut shelf = self.shelf.lock();
            let Some(taken) = shelf.idle.pop() else { return Err(shelf.wish()) };
            drop(shelf);
            if let Some(taken) = fit(taken) {
                return Ok(taken);
            }
        }
    }

    fn pop(&self) -> Option<Taken> {
        self.shelf.lock().idle.pop()
    }

    /// Puts a fit server among the idle ones; a retired store closes it instead.
    pub(crate) fn put(&self, taken: Taken) {
        let mut shelf = self.shelf.lock();
        if shelf.retired {
            drop(shelf);
            return close(taken);
        }
        let waiting = shelf.put(taken);
        drop(shelf);
        self.tell(waiting, Ok(()));
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// [`ConnectError::PoolFull`] at once, when the budget has no place for it; or why it could not be opened.
    pub(crate) async fn open(&self) -> Result<Taken, ConnectError> {
        let server = self.bb8.dedicated_connection().await?;
        // Each that bb8 counts has a place in the budget, which it leaves after bb8's count; so bb8 is never full here.
        self.adopt(server).await
    }

    /// A connection that was opened elsewhere, made one of ours.
    ///
    /// # Errors
    /// bb8 does not take it, which is closed then.
    pub(crate) async fn adopt(&self, server: Box<Server>) -> Result<Taken, ConnectError> {
        self.bb8.add(server).map_err(|_| ConnectError::PoolFull)?;
        // Who takes one out has put one in, so there is one, be it that of another opening, and nothing waits here.
        self.bb8.get_owned().await.map_err(|error| match error {
            RunError::User(error) => error,
            RunError::TimedOut => ConnectError::PoolFull,
        })
    }

    /// The end of an opening that a [`Wish`] asked for.
    pub(crate) fn opened(&self, opened: Result<Taken, ConnectError>) {
        let mut shelf = self.shelf.lock();
        shelf.opening -= 1;
        shelf.wanting.retain(|waiting| !waiting.is_closed());
        match opened {
            Ok(taken) if shelf.retired && shelf.wanting.is_empty() => {
                drop(shelf);
                close(taken);
            }
            Ok(taken) => {
                let waiting = shelf.put(taken);
                drop(shelf);
                self.tell(waiting, Ok(()));
            }
            Err(error) => {
                let waiting = shelf.wanting.pop_front();
                let complains = shelf.complains(Instant::now());
                drop(shelf);
                if complains {
                    // A login that fails while probes of another role succeed would otherwise be seen by clients only.
                    tracing::warn!(node = %self.target.node, %error, "cannot open a connection that a statement waits for");
                }
                self.tell(waiting, Err(Arc::new(error)));
            }
        }
    }

    /// Tells this one that was taken out of the queue, or, as it has left, the first who has not.
    fn tell(&self, mut waiting: Option<oneshot::Sender<Told>>, mut news: Told) {
        while let Some(first) = waiting {
            match first.send(news) {
                Ok(()) => return,
                Err(unheard) => news = unheard,
            }
            waiting = self.shelf.lock().wanting.pop_front();
        }
    }

    /// Closes the idle server that was used last; true if there was one.
    pub(crate) fn evict(&self) -> bool {
        self.pop().map(close).is_some()
    }

    /// Closes what is idle and takes nothing back from now on. Who waits still gets what is opened for it.
    pub(crate) fn retire(&self) {
        let idle = {
            let mut shelf = self.shelf.lock();
            shelf.retired = true;
            std::mem::take(&mut shelf.idle)
        };
        idle.into_iter().for_each(close);
    }

    /// Looks at every idle server: those that are gone, or told to go, are closed, and those above the minimum that
    /// were not used since `used_since`. Takes no time worth speaking of: nothing here waits.
    pub(crate) fn sweep(&self, used_since: Option<u32>) {
        let (unfit, surplus) = {
            let mut shelf = self.shelf.lock();
            let unfit: Vec<_> = shelf.idle.extract_if(.., |server| !server.is_fit()).collect();
            let spare = shelf.idle.len().saturating_sub(self.min as usize);
            let is_unused = |server: &&Taken| used_since.is_some_and(|since| server.idle_since < since);
            let surplus = shelf.idle[..spare].iter().take_while(is_unused).count();
            (unfit, shelf.idle.drain(..surplus).collect::<Vec<_>>())
        };
        unfit.into_iter().for_each(discard);
        surplus.into_iter().for_each(close);
    }
}

impl Shelf {
    fn put(&mut self, taken: Taken) -> Option<oneshot::Sender<Told>> {
        self.idle.push(taken);
        self.wanting.pop_front()
    }

    fn wish(&mut self) -> Wish {
        let (told, news) = oneshot::channel();
        self.wanting.retain(|waiting| !waiting.is_closed());
        self.wanting.push_back(told);
        let must_open = self.opening < self.wanting.len();
        self.opening += usize::from(must_open);
        Wish { news, must_open }
    }

    fn complains(&mut self, now: Instant) -> bool {
        let is_due = self.complained.is_none_or(|last| now.duration_since(last) >= COMPLAIN_EVERY);
        if is_due {
            self.complained = Some(now);
        }
        is_due
    }
}

/// The server, if it is still there.
fn fit(taken: Taken) -> Option<Taken> {
    if taken.is_fit() {
        return Some(taken);
    }
    discard(taken);
    None
}

/// Closes a server that is gone.
fn discard(mut taken: Taken) {
    taken.broken = true;
}

/// Closes a server that is fit: it takes its leave.
pub(crate) fn close(mut taken: Taken) {
    taken.farewell();
    taken.broken = true;
}
