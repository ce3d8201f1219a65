//! Connections that are shared by the clients of one startup packet and password: what a plain pooler lends in
//! transaction mode.
//!
//! They are a store of the pool, beside those of the configured roles, and share its budget and its queue. There are at
//! most so many, and one that nobody uses any more goes with its connections, and with the password that they were
//! opened by.

use std::sync::Arc;

use parking_lot::Mutex;
use pgward_config::model::{Class, Secret, ServerRole};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::connect::Target;
use crate::error::AcquireError;
use crate::lease::Lease;
use crate::node::Node;
use crate::own::Place;
use crate::pool::Pool;
use crate::store::Store;

/// By what a server is logged in to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Name of the role.
    pub user: Arc<str>,
    /// The startup packet's parameters as sent, `user` among them.
    pub params: Arc<[(String, String)]>,
    /// The password, where the server asks for one.
    pub password: Option<Secret>,
}

/// The stores of a pool's guests.
#[derive(Debug, Default)]
pub(crate) struct Guests(Mutex<Vec<Arc<Store>>>);

/// A client's right to the connections of its like.
#[derive(Clone, Debug)]
pub struct Guest {
    node: Arc<Node>,
    pool: Arc<Pool>,
    store: Arc<Store>,
}

impl Guests {
    pub(crate) fn idle(&self) -> u32 {
        self.0.lock().iter().map(|store| store.idle()).sum()
    }

    /// Closes an idle connection of the store that has most of them; false if there is none.
    pub(crate) fn evict(&self, but: Option<&Arc<Store>>) -> bool {
        let most_idle = {
            let stores = self.0.lock();
            let others = stores.iter().filter(|store| but.is_none_or(|but| !Arc::ptr_eq(store, but)));
            others.max_by_key(|store| store.idle()).cloned()
        };
        most_idle.is_some_and(|store| store.evict())
    }

    /// Looks after what is idle, and forgets stores without clients and connections.
    pub(crate) fn sweep(&self, used_since: Option<u32>) {
        let stores: Vec<_> = self.0.lock().clone();
        stores.iter().for_each(|store| store.sweep(used_since));
        drop(stores);
        self.0.lock().retain(|store| is_used(store) || store.idle() > 0);
    }

    pub(crate) fn retire(&self) {
        let stores = std::mem::take(&mut *self.0.lock());
        stores.iter().for_each(|store| store.retire());
    }

    /// The store of these credentials, which the server has just accepted. `None` when `most` others are in use.
    fn store(&self, credentials: &Credentials, most: u32, make: impl FnOnce() -> Store) -> Option<Arc<Store>> {
        let mut stores = self.0.lock();
        let same = stores
            .iter()
            .position(|store| store.target().guest.as_ref().is_some_and(|known| known.params == credentials.params));
        let mut left = Vec::new();
        if let Some(at) = same {
            if stores[at].target().guest.as_ref() == Some(credentials) {
                return Some(Arc::clone(&stores[at]));
            }
            // The password is another now; whoever came in by the old one goes on with connections of its own time.
            left.push(stores.remove(at));
        } else if stores.len() >= most as usize
            && let Some(unused) = stores.iter().position(|store| !is_used(store))
        {
            left.push(stores.remove(unused));
        }
        let made = (stores.len() < most as usize).then(|| {
            let store = Arc::new(make());
            stores.push(Arc::clone(&store));
            store
        });
        drop(stores);
        left.iter().for_each(|store| store.retire());
        made
    }
}

/// Whether a client has a right to it, or one of its connections is in use.
fn is_used(store: &Arc<Store>) -> bool {
    Arc::strong_count(store) > 1
}

impl Place {
    /// The right to connections like this one, on which a client has just logged in by these credentials; the connection
    /// becomes the first of them to be lent. `None` when there are `most` such groups in use.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn admit(
        self,
        stream: TcpStream,
        pid: i32,
        key: &[u8],
        credentials: Credentials,
        most: u32,
    ) -> std::io::Result<Option<Guest>> {
        let (node, pool) = (Arc::clone(self.node()), Arc::clone(self.pool()));
        let make = || Store::new(Arc::new(target(&node, &pool, &credentials)), pool.budget(), 0, pool.figures.max);
        let Some(store) = pool.guests.store(&credentials, most, make) else { return Ok(None) };
        let (server, class) = self.server(stream, pid, key)?;
        // Before anything is waited for: whoever is next may have to wait a moment for the connection itself.
        pool.admission.release(class);
        pool.put_new(&store, server).await.map_err(std::io::Error::other)?;
        Ok(Some(Guest { node, pool, store }))
    }
}

fn target(node: &Arc<Node>, pool: &Arc<Pool>, credentials: &Credentials) -> Target {
    let database = credentials.params.iter().rev().find(|(name, value)| name == "database" && !value.is_empty());
    Target {
        node: node.id.clone(),
        node_role: node.role,
        host: node.settings.node.host.clone(),
        port: node.settings.node.port,
        dbname: database.map_or_else(|| Arc::clone(&credentials.user), |(_, value)| value.as_str().into()),
        role: ServerRole { name: Arc::clone(&credentials.user), password: credentials.password.clone() },
        connect_timeout: node.settings.connect_timeout,
        max_lifetime: pool.figures.max_lifetime,
        watch: node.watch.clone(),
        switches: node.watch.switches.clone(),
        guest: Some(credentials.clone()),
    }
}

impl Guest {
    /// An idle connection at once, or nothing; never waits.
    pub fn try_acquire(&self, class: Class) -> Option<Lease> {
        let slot = self.pool.admission.try_take(class)?;
        let taken = self.store.take()?;
        Some(Lease::of_guest(taken, Arc::clone(&self.pool), Arc::clone(&self.store), slot))
    }

    /// A connection, waiting for it no longer than the pool's `wait_timeout`.
    ///
    /// # Errors
    /// When the deadline passes, the queue is full, the connection that had to be opened could not be, or the node is
    /// down.
    pub async fn acquire(&self, class: Class) -> Result<Lease, AcquireError> {
        let deadline = Instant::now() + self.pool.figures.wait_timeout;
        let (_, slot) = self.node.enter(self.pool.kind, class).await?;
        let taken = self.pool.take_or_open_in(&self.store, &slot, deadline).await?;
        Ok(Lease::of_guest(taken, Arc::clone(&self.pool), Arc::clone(&self.store), slot))
    }

    /// The node.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }
}
