//! Opening a connection to a node: TCP, then the login of the server role.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use pgward_config::model::{NodeId, NodeRole, ServerRole};
use pgward_wire::login::{Greeting, Login, LoginError, Step};
use pgward_wire::reading::read_alike;
use pgward_wire::{ProtocolError, frame, startup};
use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::budget::Permit;
use crate::guest::Credentials;
use crate::kill::KillRegistry;
use crate::memory::ServerMemory;
use crate::server::Server;
use crate::watch::{Failure, Watch};

/// Messages of a login are small; a peer that announces more is not a PostgreSQL server.
const MAX_LOGIN_MESSAGE: usize = 64 * 1024;

/// Silence after which the kernel asks a server whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Why a connection could not be opened.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// TCP: refused, unreachable, reset, unknown host.
    #[error("cannot connect: {0}")]
    Io(#[from] std::io::Error),
    /// Neither connected nor refused in time.
    #[error("no answer within {}", crate::words::duration(*.0))]
    Timeout(Duration),
    /// The server refused the login, or asked for something that we do not do.
    #[error("login failed: {0}")]
    Login(#[from] LoginError),
    /// What came was not PostgreSQL's protocol.
    #[error("not the PostgreSQL protocol: {0}")]
    Protocol(#[from] ProtocolError),
    /// It reads statements otherwise than they were read for their routing.
    #[error("{0}")]
    Reading(ProtocolError),
    /// The node is down: no connection is tried while it is.
    #[error("the node is down")]
    NodeDown,
    /// All connections of the pool are open already.
    #[error("all connections of the pool are in use")]
    PoolFull,
}

impl ConnectError {
    /// What this says about the node.
    pub(crate) fn failure(&self) -> Option<Failure> {
        match self {
            Self::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Some(Failure::Refused),
            Self::Io(_) => Some(Failure::Reset),
            Self::Timeout(_) => Some(Failure::Timeout),
            Self::Login(_) | Self::Protocol(_) | Self::Reading(_) => Some(Failure::Login),
            Self::NodeDown | Self::PoolFull => None,
        }
    }
}

/// Where and as whom connections of one pool and role are opened.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) node: NodeId,
    pub(crate) node_role: NodeRole,
    pub(crate) host: Arc<str>,
    pub(crate) port: u16,
    pub(crate) dbname: Arc<str>,
    pub(crate) role: ServerRole,
    pub(crate) connect_timeout: Duration,
    pub(crate) max_lifetime: Duration,
    pub(crate) watch: Arc<Watch>,
    pub(crate) switches: Arc<KillRegistry>,
    /// Of whom the startup packet is, where it is a client's.
    pub(crate) guest: Option<Credentials>,
}

impl Target {
    /// Opens a connection and logs in; failures and the greeting are reported to the node's watch.
    pub(crate) async fn open(&self, permit: Permit) -> Result<Box<Server>, ConnectError> {
        let opened = match tokio::time::timeout(self.connect_timeout, self.connect()).await {
            Ok(opened) => opened,
            Err(_) => Err(ConnectError::Timeout(self.connect_timeout)),
        };
        match opened {
            Ok((stream, greeting)) => {
                let address = stream.peer_addr()?;
                self.watch.greeted(greeting.parameters);
                Ok(Box::new(Server {
                    stream,
                    memory: ServerMemory::default(),
                    node: self.node.clone(),
                    address,
                    pid: greeting.pid,
                    key: greeting.key.into(),
                    switch: self.switches.register(Instant::now() + jittered(self.max_lifetime)),
                    broken: false,
                    idle_since: 0,
                    _permit: permit,
                }))
            }
            Err(error) => {
                // A client whom the server does not let in says nothing about the server.
                let of_client = self.guest.is_some() && matches!(error, ConnectError::Login(_));
                if let Some(failure) = error.failure().filter(|_| !of_client) {
                    self.watch.report_failure(failure);
                }
                Err(error)
            }
        }
    }

    async fn connect(&self) -> Result<(TcpStream, Greeting), ConnectError> {
        let mut stream = TcpStream::connect((&*self.host, self.port)).await?;
        tune(&stream)?;
        let greeting = self.log_in(&mut stream).await?;
        Ok((stream, greeting))
    }

    async fn log_in(&self, stream: &mut TcpStream) -> Result<Greeting, ConnectError> {
        if let Some(guest) = &self.guest {
            // The packet says user and database itself; it has been accepted as it is.
            let (login, _) = Login::new(&self.role.name, self.password(), &self.dbname, &[]);
            let mut packet = BytesMut::new();
            startup::put(&mut packet, guest.params.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            return follow(stream, login, packet).await;
        }
        // What statements are read by is asked for here: neither ALTER ROLE … SET nor a changed postgresql.conf outranks
        // it, and RESET comes back to it.
        let mut params =
            vec![("application_name", "pgward"), ("client_encoding", "UTF8"), ("standard_conforming_strings", "on")];
        if self.node_role == NodeRole::Replica {
            // A mistake becomes an error, also on a replica that was promoted behind our back.
            params.push(("default_transaction_read_only", "on"));
        }
        let (login, packet) = Login::new(&self.role.name, self.password(), &self.dbname, &params);
        readable(follow(stream, login, packet).await?)
    }

    fn password(&self) -> Option<&str> {
        self.role.password.as_ref().map(|password| password.expose())
    }
}

/// A server that reads statements as they were read for their routing; what was asked for may have been ignored.
fn readable(greeting: Greeting) -> Result<Greeting, ConnectError> {
    for (name, value) in &greeting.parameters {
        read_alike(name, value).map_err(ConnectError::Reading)?;
    }
    Ok(greeting)
}

/// Goes through a login whose first packet is this.
async fn follow(stream: &mut TcpStream, mut login: Login, mut out: BytesMut) -> Result<Greeting, ConnectError> {
    let mut input = BytesMut::with_capacity(2048);
    loop {
        stream.write_all(&out).await?;
        out.clear();
        while let Some((tag, body)) = next_message(&mut input)? {
            if let Step::Done = login.frame(tag, &body, &mut out)? {
                if !input.is_empty() {
                    return Err(closed("the server went on talking after the login"));
                }
                return Ok(login.into_greeting());
            }
        }
        if out.is_empty() && stream.read_buf(&mut input).await? == 0 {
            return Err(closed("the server closed the connection during the login"));
        }
    }
}

fn next_message(input: &mut BytesMut) -> Result<Option<(u8, BytesMut)>, ConnectError> {
    let Some(header) = frame::header(input)? else { return Ok(None) };
    if header.len > MAX_LOGIN_MESSAGE {
        return Err(closed("a login message of more than 64 KiB"));
    }
    if input.len() < header.len {
        return Ok(None);
    }
    let mut message = input.split_to(header.len);
    let body = message.split_off(5);
    Ok(Some((header.tag, body)))
}

fn closed(what: &str) -> ConnectError {
    ConnectError::Io(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, what))
}

pub(crate) fn tune(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(Duration::from_secs(5)).with_retries(3);
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&keepalive)?;
    // Bytes that a vanished host never acknowledges: the kernel would otherwise resend for a quarter of an hour.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(KEEPALIVE))?;
    Ok(())
}

/// A lifetime between 80 and 100 % of `max`, so that connections opened together are not replaced together.
fn jittered(max: Duration) -> Duration {
    use std::hash::BuildHasher;
    let random = std::hash::RandomState::new().hash_one(0u8);
    max.mul_f64(0.8 + 0.2 * (random as f64 / u64::MAX as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_reads_strings_otherwise_is_not_used() {
        let login = |value: &str| {
            let parameters = [("server_version", "15.9"), ("standard_conforming_strings", value)];
            let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
            readable(Greeting { parameters, ..Greeting::default() })
        };
        assert!(login("on").is_ok());
        let refused = login("off").expect_err("strings end elsewhere");
        assert_eq!(refused.failure(), Some(Failure::Login));
        let words = "the server would read statements otherwise than PgWard: its standard_conforming_strings is not on";
        assert_eq!(refused.to_string(), words);
    }

    #[test]
    fn lifetimes_are_spread() {
        let max = Duration::from_secs(100);
        let lifetimes: std::collections::HashSet<_> = (0..10).map(|_| jittered(max)).collect();
        assert!(lifetimes.len() > 5);
        assert!(lifetimes.iter().all(|life| *life <= max && *life >= max * 8 / 10));
    }
}
