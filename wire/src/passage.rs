//! A login that a client does by itself at a server, through the proxy, without a socket: the server's frames in, what
//! the client is told out.
//!
//! The proof (SCRAM, md5, a password in clear) is the client's and the server's affair. What passes is only looked at:
//! so that no channel binding is offered, which cannot hold over two connections; so that nobody is let in whose proof
//! was not asked for where one must be; and so that the server's key for cancelling stays with the proxy.

use bytes::{BufMut, BytesMut};

use crate::backend::{self, AuthRequest};
use crate::error::{PgError, ProtocolError};
use crate::frame::{put, put_string};
use crate::status::TxStatus;
use crate::tag::backend as tag;

/// What a server may ask a client for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The client must prove who it is: the server's trust in the proxy's address is not the client's.
    pub proof: bool,
    /// A password may pass in clear.
    pub cleartext: bool,
}

/// What is to be done after a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// More is to come from the server.
    Continue,
    /// The client answers what it has been told, by one message for the server.
    Answer,
    /// The client is in. Its BackendKeyData and ReadyForQuery are the proxy's to say.
    Done,
    /// The server refused, and the client has been told in the server's words.
    Refused,
}

/// A login under way. After an error, [`Step::Done`] and [`Step::Refused`] it takes nothing more.
#[derive(Debug)]
pub struct Passage {
    terms: Terms,
    proven: bool,
    authenticated: bool,
    key: Option<(i32, Box<[u8]>)>,
}

impl Passage {
    /// A login on these terms.
    pub fn new(terms: Terms) -> Self {
        Self { terms, proven: false, authenticated: false, key: None }
    }

    /// Takes one whole frame of the server's; what the client is to be told is appended to `out`.
    ///
    /// # Errors
    /// What the client is told instead: the server asks for what cannot be passed on, or for nothing where a proof must
    /// be, or breaks the protocol.
    pub fn frame(&mut self, kind: u8, body: &[u8], out: &mut BytesMut) -> Result<Step, PgError> {
        match kind {
            tag::AUTHENTICATION if !self.authenticated => return self.authentication(body, out),
            tag::ERROR_RESPONSE => {
                backend::error_fields(body)?;
                put(out, kind, body);
                return Ok(Step::Refused);
            }
            tag::NOTICE_RESPONSE => put(out, kind, body),
            tag::PARAMETER_STATUS if self.authenticated => {
                backend::parameter_status(body)?;
                put(out, kind, body);
            }
            tag::BACKEND_KEY_DATA if self.authenticated => {
                let (pid, key) = backend::backend_key_data(body)?;
                self.key = Some((pid, key.into()));
            }
            tag::READY_FOR_QUERY if self.authenticated && self.key.is_some() => {
                return match backend::ready_for_query(body)? {
                    TxStatus::Idle => Ok(Step::Done),
                    _ => Err(unexpected("a transaction that nobody began").into()),
                };
            }
            other => {
                return Err(unexpected(&format!("a message of type {:?} during login", char::from(other))).into());
            }
        }
        Ok(Step::Continue)
    }

    /// The server's process id and its key for cancelling.
    pub fn into_key(self) -> Option<(i32, Box<[u8]>)> {
        self.key
    }

    fn authentication(&mut self, body: &[u8], out: &mut BytesMut) -> Result<Step, PgError> {
        match backend::authentication(body)? {
            AuthRequest::Ok if self.terms.proof && !self.proven => Err(no_proof()),
            AuthRequest::Ok => {
                self.authenticated = true;
                put(out, tag::AUTHENTICATION, body);
                Ok(Step::Continue)
            }
            AuthRequest::Cleartext if !self.terms.cleartext => Err(in_clear()),
            AuthRequest::Cleartext | AuthRequest::Md5(_) => self.asks(body, out),
            AuthRequest::Sasl(mechanisms) => {
                let bound = |mechanism: &&&[u8]| !mechanism.ends_with(b"-PLUS");
                let offered: Vec<&[u8]> = mechanisms.iter().filter(bound).copied().collect();
                if offered.is_empty() {
                    return Err(unsupported("SASL with channel binding only"));
                }
                let mut asked = BytesMut::new();
                asked.put_i32(10);
                offered.iter().for_each(|mechanism| put_string(&mut asked, mechanism));
                asked.put_u8(0);
                self.asks(&asked, out)
            }
            AuthRequest::SaslContinue => self.asks(body, out),
            AuthRequest::SaslFinal => {
                put(out, tag::AUTHENTICATION, body);
                Ok(Step::Continue)
            }
            AuthRequest::Other(method) => Err(unsupported(&format!("number {method}"))),
        }
    }

    /// Whether the proof is right, the server says by AuthenticationOk.
    fn asks(&mut self, body: &[u8], out: &mut BytesMut) -> Result<Step, PgError> {
        self.proven = true;
        put(out, tag::AUTHENTICATION, body);
        Ok(Step::Answer)
    }
}

/// Why nobody gets in whom the server lets in without a proof.
pub fn no_proof() -> PgError {
    PgError::error("28000", "the server asks PgWard's address for no password, which proves nothing about this client")
        .with_hint(
            "Have the server ask for scram-sha-256 in pg_hba.conf, or connect through a listener with auth = \"trust\".",
        )
}

/// Why a password does not pass.
pub fn in_clear() -> PgError {
    PgError::error("28000", "the password would pass in clear, which PgWard allows on a loopback address only").with_hint(
        "Have the server ask for scram-sha-256 in pg_hba.conf, and use pool_mode = \"session\", in which the password is \
         not told to PgWard.",
    )
}

fn unsupported(method: &str) -> PgError {
    PgError::error("28000", format!("the server asks for authentication method {method}, which cannot be passed on"))
        .with_hint("Have the server ask for scram-sha-256 in pg_hba.conf.")
}

fn unexpected(what: &str) -> ProtocolError {
    ProtocolError::new(format!("the server sent {what}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PROOF: Terms = Terms { proof: true, cleartext: false };
    const TRUST: Terms = Terms { proof: false, cleartext: true };

    fn auth(passage: &mut Passage, body: &[u8]) -> Result<(Step, BytesMut), PgError> {
        let mut out = BytesMut::new();
        passage.frame(tag::AUTHENTICATION, body, &mut out).map(|step| (step, out))
    }

    #[test]
    fn scram_passes_without_channel_binding() {
        let mut passage = Passage::new(PROOF);
        let (step, out) = auth(&mut passage, b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0").unwrap();
        assert_eq!((step, &out[..]), (Step::Answer, &b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0"[..]));
        let (step, out) = auth(&mut passage, b"\0\0\0\x0br=x,s=y,i=1").unwrap();
        assert_eq!((step, &out[5..]), (Step::Answer, &b"\0\0\0\x0br=x,s=y,i=1"[..]));
        assert_eq!(auth(&mut passage, b"\0\0\0\x0cv=z").unwrap().0, Step::Continue);
        assert_eq!(auth(&mut passage, b"\0\0\0\0").unwrap().0, Step::Continue);
        let mut out = BytesMut::new();
        let mut say = |kind, body: &[u8]| passage.frame(kind, body, &mut out);
        assert_eq!(say(b'S', b"TimeZone\0UTC\0"), Ok(Step::Continue));
        assert_eq!(say(b'K', b"\0\0\0\x07abcd"), Ok(Step::Continue));
        assert_eq!(say(b'Z', b"I"), Ok(Step::Done));
        assert_eq!(&out[..], b"S\0\0\0\x11TimeZone\0UTC\0", "key and ReadyForQuery are the proxy's to say");
        assert_eq!(passage.into_key(), Some((7, b"abcd"[..].into())));
    }

    #[test]
    fn channel_binding_alone_is_not_passed_on() {
        let error = auth(&mut Passage::new(PROOF), b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0\0").unwrap_err();
        assert_eq!(error.sqlstate(), "28000");
    }

    #[test]
    fn nobody_is_let_in_unproven_where_a_proof_must_be() {
        assert_eq!(auth(&mut Passage::new(PROOF), b"\0\0\0\0").unwrap_err(), no_proof());
        assert_eq!(auth(&mut Passage::new(TRUST), b"\0\0\0\0").unwrap().0, Step::Continue);
    }

    #[test]
    fn a_password_passes_in_clear_only_where_it_may() {
        assert_eq!(auth(&mut Passage::new(PROOF), b"\0\0\0\x03").unwrap_err(), in_clear());
        assert_eq!(auth(&mut Passage::new(TRUST), b"\0\0\0\x03").unwrap().0, Step::Answer);
        assert_eq!(auth(&mut Passage::new(PROOF), b"\0\0\0\x05salt").unwrap().0, Step::Answer);
    }

    #[test]
    fn the_server_refuses_in_its_own_words() {
        let body = b"SFATAL\0VFATAL\0C3D000\0Mdatabase \"x\" does not exist\0\0";
        let mut out = BytesMut::new();
        assert_eq!(Passage::new(TRUST).frame(b'E', body, &mut out), Ok(Step::Refused));
        assert_eq!(&out[5..], body);
    }

    #[test]
    fn what_does_not_belong_to_a_login_is_refused() {
        for kind in [b'Z', b'K', b'S', b'T', b'D', b'v'] {
            let mut out = BytesMut::new();
            assert!(Passage::new(TRUST).frame(kind, b"I", &mut out).is_err(), "{}", char::from(kind));
            assert!(out.is_empty());
        }
        let mut passage = Passage::new(TRUST);
        auth(&mut passage, b"\0\0\0\0").unwrap();
        assert!(auth(&mut passage, b"\0\0\0\0").is_err(), "a second one");
        assert_eq!(auth(&mut Passage::new(TRUST), b"\0\0\0\x07").unwrap_err().sqlstate(), "28000", "GSSAPI");
    }
}
