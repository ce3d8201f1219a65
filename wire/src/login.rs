//! Logging in to a server, without a socket: frames in, bytes out.
//!
//! Methods: trust, cleartext, md5, SCRAM-SHA-256. What else a server asks for is an error in words.

use std::fmt;

use bytes::{BufMut, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};

use crate::backend;
use crate::error::{PgError, ProtocolError};
use crate::frame::{put_string, put_with};
use crate::read::Reader;
use crate::startup;
use crate::status::TxStatus;
use crate::tag::{backend as tag, frontend};

/// Parameters that a server reports before its first ReadyForQuery; more are no PostgreSQL's.
const MAX_PARAMETERS: usize = 200;

/// Why a login failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The server refused.
    #[error("{}: {} ({})", .0.severity().as_str(), .0.message(), .0.sqlstate())]
    Refused(PgError),
    /// The server asks for a password and there is none.
    #[error("the server asks for a password ({0}) and none is configured")]
    NoPassword(&'static str),
    /// The server asks for what PgWard does not offer.
    #[error("the server asks for authentication method {0}, which is not supported")]
    Unsupported(String),
    /// SCRAM went wrong: the server does not know the password, or is not who it should be.
    #[error("SCRAM-SHA-256: {0}")]
    Scram(String),
    /// The server broke the protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

/// What a frame came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// More is to come.
    Continue,
    /// Logged in, and ready for a query.
    Done,
}

/// What a server says of itself at login.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Greeting {
    /// ParameterStatus values in order.
    pub parameters: Vec<(String, String)>,
    /// Process id of the backend.
    pub pid: i32,
    /// Its secret key for cancel requests.
    pub key: Vec<u8>,
}

impl fmt::Debug for Greeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever holds the key may cancel: it stays out of logs.
        f.debug_struct("Greeting").field("parameters", &self.parameters).field("pid", &self.pid).finish_non_exhaustive()
    }
}

enum State {
    Start,
    /// SASLInitialResponse was sent.
    First(ScramSha256),
    /// SASLResponse was sent.
    Last(ScramSha256),
    /// The password was sent, or the server's signature was right.
    Proven,
    /// AuthenticationOk.
    Authenticated,
    /// ReadyForQuery.
    Done,
    Failed,
}

/// A login under way. After an error, and after [`Step::Done`], it takes nothing more.
pub struct Login {
    user: String,
    password: Option<String>,
    state: State,
    greeting: Greeting,
}

impl Login {
    /// A login, and the startup packet to send. `params` go into it beside user and database.
    pub fn new(user: &str, password: Option<&str>, database: &str, params: &[(&str, &str)]) -> (Self, BytesMut) {
        let mut packet = BytesMut::new();
        startup::put(&mut packet, [("user", user), ("database", database)].iter().chain(params).copied());
        let password = password.map(str::to_owned);
        (Self { user: user.to_owned(), password, state: State::Start, greeting: Greeting::default() }, packet)
    }

    /// Takes one whole frame of the server's; what must be answered is appended to `out`.
    ///
    /// # Errors
    /// See [`LoginError`]; the connection is to be closed then.
    pub fn frame(&mut self, tag: u8, body: &[u8], out: &mut BytesMut) -> Result<Step, LoginError> {
        let step = match self.state {
            State::Done | State::Failed => Err(unexpected("a message behind the end of the login")),
            _ => self.step(tag, body, out),
        };
        match step {
            Ok(Step::Continue) => {}
            Ok(Step::Done) => self.state = State::Done,
            Err(_) => self.state = State::Failed,
        }
        step
    }

    fn step(&mut self, tag: u8, body: &[u8], out: &mut BytesMut) -> Result<Step, LoginError> {
        match tag {
            tag::AUTHENTICATION => self.authentication(body, out).map(|()| Step::Continue),
            tag::ERROR_RESPONSE => Err(LoginError::Refused(backend::error_fields(body)?.into())),
            tag::NOTICE_RESPONSE => Ok(Step::Continue),
            tag::PARAMETER_STATUS if self.is_authenticated() => {
                let (name, value) = backend::parameter_status(body)?;
                if self.greeting.parameters.len() == MAX_PARAMETERS {
                    return Err(unexpected("more than 200 ParameterStatus messages"));
                }
                self.greeting.parameters.push((name.to_owned(), value.to_owned()));
                Ok(Step::Continue)
            }
            tag::BACKEND_KEY_DATA if self.is_authenticated() => {
                let (pid, key) = backend::backend_key_data(body)?;
                (self.greeting.pid, self.greeting.key) = (pid, key.to_vec());
                Ok(Step::Continue)
            }
            tag::READY_FOR_QUERY if self.is_authenticated() => match backend::ready_for_query(body)? {
                TxStatus::Idle => Ok(Step::Done),
                _ => Err(unexpected("a transaction that nobody began")),
            },
            other => Err(unexpected(&format!("a message of type {:?} during login", char::from(other)))),
        }
    }

    /// What the server said of itself.
    pub fn into_greeting(self) -> Greeting {
        self.greeting
    }

    fn is_authenticated(&self) -> bool {
        matches!(self.state, State::Authenticated)
    }

    fn authentication(&mut self, body: &[u8], out: &mut BytesMut) -> Result<(), LoginError> {
        let mut reader = Reader::new("Authentication", body);
        let method = reader.i32()?;
        let state = std::mem::replace(&mut self.state, State::Failed);
        self.state = match (method, state) {
            (0, State::Start | State::Proven) => {
                reader.end()?;
                State::Authenticated
            }
            (3, State::Start) => {
                reader.end()?;
                let password = self.password.as_ref().ok_or(LoginError::NoPassword("cleartext"))?;
                put_with(out, frontend::PASSWORD, |out| put_string(out, password.as_bytes()));
                State::Proven
            }
            (5, State::Start) => {
                let salt = reader.bytes(4)?;
                reader.end()?;
                let password = self.password.as_ref().ok_or(LoginError::NoPassword("md5"))?;
                let hash = md5_hash(self.user.as_bytes(), password.as_bytes(), [salt[0], salt[1], salt[2], salt[3]]);
                put_with(out, frontend::PASSWORD, |out| put_string(out, hash.as_bytes()));
                State::Proven
            }
            (10, State::Start) => self.scram_first(reader, out)?,
            (11, State::First(mut scram)) => {
                scram.update(reader.rest()).map_err(scram_error)?;
                put_with(out, frontend::PASSWORD, |out| out.put_slice(scram.message()));
                State::Last(scram)
            }
            (12, State::Last(mut scram)) => {
                scram.finish(reader.rest()).map_err(scram_error)?;
                State::Proven
            }
            (0 | 11 | 12, _) => return Err(unexpected("an authentication message out of turn")),
            (other, State::Start) => return Err(LoginError::Unsupported(method_name(other))),
            (other, _) => return Err(unexpected(&format!("a second authentication request ({})", method_name(other)))),
        };
        Ok(())
    }

    fn scram_first(&self, mut reader: Reader<'_>, out: &mut BytesMut) -> Result<State, LoginError> {
        let mut offered = Vec::new();
        loop {
            match reader.string()? {
                b"" => break,
                mechanism => offered.push(mechanism),
            }
        }
        reader.end()?;
        if !offered.contains(&SCRAM_SHA_256.as_bytes()) {
            return Err(LoginError::Unsupported("SASL without SCRAM-SHA-256".to_owned()));
        }
        let password = self.password.as_ref().ok_or(LoginError::NoPassword("SCRAM-SHA-256"))?;
        let scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        put_with(out, frontend::PASSWORD, |out| {
            put_string(out, SCRAM_SHA_256.as_bytes());
            out.put_u32(scram.message().len() as u32);
            out.put_slice(scram.message());
        });
        Ok(State::First(scram))
    }
}

fn method_name(method: i32) -> String {
    match method {
        2 => "Kerberos V5".to_owned(),
        7 => "GSSAPI".to_owned(),
        9 => "SSPI".to_owned(),
        other => format!("number {other}"),
    }
}

fn scram_error(error: std::io::Error) -> LoginError {
    LoginError::Scram(error.to_string())
}

fn unexpected(what: &str) -> LoginError {
    LoginError::Protocol(ProtocolError::new(format!("the server sent {what}")))
}

#[cfg(test)]
mod tests;
