//! The login of a plain pooler's client: at the server, by the client's own name and proof.
//!
//! In session mode a connection is opened for this client, which says its own startup packet on it and proves itself to
//! the server; PgWard passes both on, and learns no password. What the server says at login, its errors too, the client
//! hears as it is said. Only the key for cancelling is PgWard's, beside the server's own process id.
//!
//! In transaction mode connections are shared by those who come with the same startup packet and password, and more are
//! opened when they are needed, which takes the password: PgWard asks for it in clear, on a loopback address only, and
//! keeps it in memory for as long as such connections are used. Each login is tried at the server, on a connection that
//! is then the first to be lent, so that nobody comes in by what another has proved.

use std::sync::Arc;

use bytes::BytesMut;
use pgward_config::{AuthMethod, Class, Config, Secret};
use pgward_pools::{AcquireError, Credentials, Guest, Lease, Node, Place};
use pgward_wire::backend::{self, AuthRequest};
use pgward_wire::login::{self, Login, LoginError};
use pgward_wire::passage::{self, Passage, Step, Terms};
use pgward_wire::startup::{self, Startup};
use pgward_wire::tag::backend as tag;
use pgward_wire::{PgError, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::startup::{Leave, password_message};

/// Messages of a login are small; a peer that announces more is not a PostgreSQL server.
const MAX_MESSAGE: usize = 64 * 1024;

/// What a client has logged in to.
pub(crate) enum LoggedIn {
    /// A server of its own, with its process id.
    Own { lease: Lease, node: Arc<Node>, pid: i32 },
    /// Servers that it shares. `readable`: what it says to them means to PgWard's grammar what it means to them.
    Shared { guest: Guest, readable: bool },
}

/// A client that logs in.
pub(crate) struct Client<'a> {
    pub(crate) stream: &'a mut TcpStream,
    pub(crate) startup: &'a Startup,
    pub(crate) terms: Terms,
}

/// What this listener asks of the proof of those who come in by it.
pub(crate) fn terms(config: &Config, listener: usize) -> Terms {
    let listener = &config.listeners[listener];
    Terms { proof: listener.auth != AuthMethod::Trust, cleartext: listener.address.ip().is_loopback() }
}

/// A connection to the server, on which the client's startup packet has been said.
struct Caller {
    place: Place,
    server: TcpStream,
    heard: BytesMut,
}

impl Caller {
    async fn call(startup: &Startup, node: &Arc<Node>) -> Result<Self, Leave> {
        let place = node.place(Class::Normal).await.map_err(|error| no_place(&error, node))?;
        let mut server = place.connect().await.map_err(|error| unreachable(node, &error.to_string()))?;
        let mut packet = BytesMut::new();
        startup::put(&mut packet, params(startup));
        server.write_all(&packet).await.map_err(|error| lost(&place, &error))?;
        Ok(Self { place, server, heard: BytesMut::with_capacity(2048) })
    }

    async fn hear(&mut self) -> Result<(u8, BytesMut), Leave> {
        message(&mut self.server, &mut self.heard).await.map_err(|error| lost(&self.place, &error))
    }

    async fn say(&mut self, bytes: &[u8]) -> Result<(), Leave> {
        self.server.write_all(bytes).await.map_err(|error| lost(&self.place, &error))
    }

    /// The place and the connection, on which the server waits for a statement.
    fn ready(self) -> Result<(Place, TcpStream), Leave> {
        match self.heard.is_empty() {
            true => Ok((self.place, self.server)),
            false => Err(lost(&self.place, &std::io::Error::other("it went on talking after the login"))),
        }
    }
}

/// The parameters that the server is told.
fn params(startup: &Startup) -> impl Iterator<Item = (&str, &str)> {
    let params = startup.params.iter().filter(|(name, _)| !name.starts_with("_pq_."));
    params.map(|(name, value)| (name.as_str(), value.as_str()))
}

impl Client<'_> {
    /// Logs the client in on a connection of its own. `out` holds what it is told ahead of the server's words, and at the
    /// end what is still to be written.
    pub(crate) async fn log_in(&mut self, node: &Arc<Node>, out: &mut BytesMut) -> Result<LoggedIn, Leave> {
        let mut caller = Caller::call(self.startup, node).await?;
        let mut passage = Passage::new(self.terms);
        loop {
            let (kind, body) = caller.hear().await?;
            match passage.frame(kind, &body, out)? {
                Step::Continue => {}
                Step::Answer => {
                    self.tell(out).await?;
                    let answer = password_message(self.stream).await?;
                    caller.say(&answer).await?;
                }
                Step::Refused => {
                    self.tell(out).await?;
                    return Err(Leave::RefusedByServer(body.into()));
                }
                Step::Done => break,
            }
        }
        let (pid, key) = passage.into_key().ok_or_else(|| PgError::error("08P01", "the server has no process id"))?;
        let (place, server) = caller.ready()?;
        Ok(LoggedIn::Own { lease: place.lease(server, pid, &key)?, node: Arc::clone(node), pid })
    }

    /// Logs the client in to connections that it shares; there are at most `most` groups of them.
    pub(crate) async fn log_in_shared(
        &mut self,
        node: &Arc<Node>,
        most: u32,
        out: &mut BytesMut,
    ) -> Result<LoggedIn, Leave> {
        let mut caller = Caller::call(self.startup, node).await?;
        let (mut kind, mut body) = caller.hear().await?;
        while kind == tag::NOTICE_RESPONSE {
            frame::put(out, kind, &body);
            (kind, body) = caller.hear().await?;
        }
        let password = match kind {
            tag::AUTHENTICATION => self.password_for(&backend::authentication(&body)?, out).await?,
            _ => None,
        };
        let user = self.startup.user().unwrap_or_default();
        let (mut login, _) = Login::new(user, password.as_deref(), "", &[]);
        let mut answer = BytesMut::new();
        loop {
            match kind {
                tag::ERROR_RESPONSE => {
                    frame::put(out, kind, &body);
                    self.tell(out).await?;
                    return Err(Leave::RefusedByServer(body.into()));
                }
                tag::NOTICE_RESPONSE => frame::put(out, kind, &body),
                _ => match login.frame(kind, &body, &mut answer).map_err(unusual)? {
                    login::Step::Continue => {}
                    login::Step::Done => break,
                },
            }
            if !answer.is_empty() {
                caller.say(&answer).await?;
                answer.clear();
            }
            (kind, body) = caller.hear().await?;
        }
        let greeting = login.into_greeting();
        backend::put_authentication_ok(out);
        for (name, value) in &greeting.parameters {
            backend::put_parameter_status(out, name, value);
        }
        let readable = is_readable(&greeting.parameters);
        let credentials = Credentials {
            user: user.into(),
            params: params(self.startup).map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            password: password.map(Secret::new),
        };
        let (place, server) = caller.ready()?;
        let admitted = place.admit(server, greeting.pid, &greeting.key, credentials, most).await?;
        Ok(LoggedIn::Shared { guest: admitted.ok_or_else(|| too_many_pools(most))?, readable })
    }

    /// The client's password, where the server asks for one; what the terms do not allow is refused.
    async fn password_for(&mut self, asked: &AuthRequest<'_>, out: &mut BytesMut) -> Result<Option<String>, Leave> {
        match asked {
            AuthRequest::Ok if self.terms.proof => return Err(passage::no_proof().into()),
            AuthRequest::Cleartext | AuthRequest::Md5(_) | AuthRequest::Sasl(_) if !self.terms.cleartext => {
                return Err(passage::in_clear().into());
            }
            AuthRequest::Cleartext | AuthRequest::Md5(_) | AuthRequest::Sasl(_) => {}
            // What it is instead, the login says.
            _ => return Ok(None),
        }
        backend::put_authentication_cleartext(out);
        self.tell(out).await?;
        let answer = password_message(self.stream).await?;
        let password = answer[frame::HEADER_BYTES..].strip_suffix(b"\0").and_then(|text| str::from_utf8(text).ok());
        match password {
            Some(password) if !password.is_empty() && !password.contains('\0') => Ok(Some(password.to_owned())),
            Some("") => Err(PgError::error("28P01", "empty password returned by client").into()),
            _ => Err(PgError::error("08P01", "invalid password packet").into()),
        }
    }

    async fn tell(&mut self, out: &mut BytesMut) -> Result<(), Leave> {
        self.stream.write_all(out).await?;
        out.clear();
        Ok(())
    }
}

/// The next message of a server's login.
async fn message(server: &mut TcpStream, heard: &mut BytesMut) -> std::io::Result<(u8, BytesMut)> {
    loop {
        if let Some(header) = frame::header(heard).map_err(std::io::Error::other)? {
            if header.len > MAX_MESSAGE {
                return Err(std::io::Error::other("a login message of more than 64 KiB"));
            }
            if heard.len() >= header.len {
                let mut message = heard.split_to(header.len);
                return Ok((header.tag, message.split_off(frame::HEADER_BYTES)));
            }
        }
        if server.read_buf(heard).await? == 0 {
            return Err(std::io::Error::other("it closed the connection during the login"));
        }
    }
}

/// Whether statements are read as PgWard reads them: strings end where it thinks, and no byte of a character is taken for
/// a quote.
fn is_readable(parameters: &[(String, String)]) -> bool {
    let is = |name: &str, values: &[&str]| {
        parameters.iter().any(|(known, value)| known == name && values.contains(&value.as_str()))
    };
    is("standard_conforming_strings", &["on"]) && is("client_encoding", &["UTF8", "SQL_ASCII"])
}

fn no_place(error: &AcquireError, node: &Node) -> PgError {
    let told = PgError::error(error.sqlstate().to_owned(), format!("no connection to {} can be had: {error}", node.id));
    match error.sqlstate() {
        "53300" => told.with_hint("Retry in a moment; `max` of [pools.general] is how many there may be."),
        _ => told.with_hint("Retry in a moment; the log and /health/ready tell what is wrong with it."),
    }
}

fn unreachable(node: &Node, why: &str) -> PgError {
    PgError::error("08006", format!("could not connect to {}: {why}", node.id))
        .with_hint("Retry in a moment; the log and /health/ready tell what is wrong with it.")
}

fn lost(place: &Place, why: &std::io::Error) -> Leave {
    place.lost();
    Leave::Told(PgError::error("08006", format!("the connection to {} was lost: {why}", place.node().id)))
}

/// A login that the server did not refuse, and that came to nothing all the same.
fn unusual(error: LoginError) -> Leave {
    Leave::Told(PgError::error("08006", format!("the login at the server came to nothing: {error}")))
}

fn too_many_pools(most: u32) -> PgError {
    PgError::error("53300", "too many databases, users and startup parameters are in use at once")
        .with_detail(format!("max_pools in [plain] is {most}."))
        .with_hint("Use fewer of them, raise max_pools, or connect through a listener with pool_mode = \"session\".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_only_where_the_server_reads_them_alike() {
        let readable = |strings: &str, encoding: &str| {
            let reported = [("standard_conforming_strings", strings), ("client_encoding", encoding)];
            is_readable(&reported.map(|(name, value)| (name.to_owned(), value.to_owned())))
        };
        assert!(readable("on", "UTF8") && readable("on", "SQL_ASCII"));
        assert!(!readable("off", "UTF8") && !readable("on", "SJIS") && !readable("on", "LATIN1"));
        assert!(!is_readable(&[]), "nothing was reported");
    }
}
