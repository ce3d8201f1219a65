//! A server that is opened for one client, who logs in to it by itself: what a plain pooler lends in session mode.
//!
//! It has its place in the pool like all others, so that `max` holds and who waits is served in turn, but it never goes
//! back to the idle ones: what its client did by its own name is nobody else's.

use std::sync::Arc;
use std::time::Instant;

use pgward_config::model::{Class, PoolKind};
use tokio::net::TcpStream;

use crate::budget::Permit;
use crate::connect::{ConnectError, tune};
use crate::error::AcquireError;
use crate::lease::Lease;
use crate::memory::ServerMemory;
use crate::node::Node;
use crate::pool::Pool;
use crate::server::Server;
use crate::watch::Failure;

/// A place for one more connection of a node. Given back when dropped.
#[derive(Debug)]
pub struct Place {
    node: Arc<Node>,
    pool: Arc<Pool>,
    /// Both `None` once they are the server's.
    slot: Option<Class>,
    permit: Option<Permit>,
}

impl Node {
    /// A place for a connection whose client logs in by itself, waiting for it no longer than the pool's `wait_timeout`.
    ///
    /// # Errors
    /// When the deadline passes, the queue is full, or the node is down.
    pub async fn place(self: &Arc<Self>, class: Class) -> Result<Place, AcquireError> {
        let (pool, slot) = self.enter(PoolKind::General, class).await?;
        let pool = Arc::clone(pool);
        let mut place = Place { node: Arc::clone(self), pool, slot: Some(slot.hold()), permit: None };
        place.permit = Some(place.pool.make_place().await.ok_or_else(|| AcquireError::timeout(&place.pool, class))?);
        Ok(place)
    }
}

impl Place {
    /// A connection to the node that nobody has logged in on.
    ///
    /// # Errors
    /// It is refused, or not made in time.
    pub async fn connect(&self) -> Result<TcpStream, ConnectError> {
        let target = &self.node.settings;
        let within = target.connect_timeout;
        let connecting = async {
            let stream = TcpStream::connect((&*target.node.host, target.node.port)).await?;
            tune(&stream)?;
            Ok::<_, std::io::Error>(stream)
        };
        let connected = match tokio::time::timeout(within, connecting).await {
            Ok(connected) => connected.map_err(ConnectError::Io),
            Err(_) => Err(ConnectError::Timeout(within)),
        };
        if let Err(error) = &connected
            && let Some(failure) = error.failure()
        {
            self.node.watch.report_failure(failure);
        }
        connected
    }

    /// The server was lost while its client logged in.
    pub fn lost(&self) {
        self.node.watch.report_failure(Failure::Lost);
    }

    /// The node.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The server that this client has logged in to, whose process id and key for cancelling are these.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn lease(self, stream: TcpStream, pid: i32, key: &[u8]) -> std::io::Result<Lease> {
        let pool = Arc::clone(&self.pool);
        let (server, class) = self.server(stream, pid, key)?;
        Ok(Lease::own(server, pool, class))
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The server, and the class of the slot that is its from now on.
    pub(crate) fn server(mut self, stream: TcpStream, pid: i32, key: &[u8]) -> std::io::Result<(Box<Server>, Class)> {
        let address = stream.peer_addr()?;
        let (Some(class), Some(permit)) = (self.slot.take(), self.permit.take()) else {
            return Err(std::io::ErrorKind::NotConnected.into());
        };
        let server = Server {
            stream,
            memory: ServerMemory::default(),
            node: self.node.id.clone(),
            address,
            pid,
            key: key.into(),
            switch: self.node.watch.switches.register(Instant::now() + self.pool.figures.max_lifetime),
            broken: false,
            idle_since: 0,
            _permit: permit,
        };
        Ok((Box::new(server), class))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(class) = self.slot.take() {
            drop(self.permit.take());
            self.pool.admission.release(class);
        }
    }
}
