//! Who a client is: SCRAM-SHA-256 against a verifier, without a socket.
//!
//! A user who does not exist goes through the same exchange with a verifier that nobody has a password for, so that
//! neither answers nor time tell who exists (as PostgreSQL's mock authentication does).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use pgward_wire::frontend::SaslInitialResponse;
use pgward_wire::{PgError, ProtocolError, backend};
use pgwire::api::auth::sasl::scram::{ScramSecret, ScramServerAuth, ScramServerAuthWaitingForClientFinal};
use pgwire::error::PgWireError;
use ring::hmac;

/// The one mechanism offered without TLS.
pub(crate) const MECHANISM: &str = "SCRAM-SHA-256";
/// Iterations of the verifiers of users who do not exist: what PostgreSQL and PgWard give to those who do.
const MOCK_ITERATIONS: usize = 4096;

/// An exchange before the client's first message.
pub(crate) struct ScramExchange {
    secret: ScramSecret,
    user: String,
}

/// An exchange before the client's proof.
pub(crate) struct ScramProof {
    waiting: ScramServerAuthWaitingForClientFinal,
    user: String,
    exists: bool,
}

impl ScramExchange {
    /// `verifier` in PostgreSQL's form, `None` for a user who does not exist or has no password.
    pub(crate) fn new(verifier: Option<&str>, user: &str, mock_secret: &[u8; 32]) -> (Self, bool) {
        let parsed = verifier.and_then(parse_verifier);
        let exists = parsed.is_some();
        let secret = parsed.unwrap_or_else(|| mock(user, mock_secret));
        (Self { secret, user: user.to_owned() }, exists)
    }

    /// Takes the body of SASLInitialResponse; appends AuthenticationSASLContinue.
    ///
    /// # Errors
    /// 28P01, or 08P01 for a message that is not SCRAM's.
    pub(crate) fn first(self, exists: bool, body: &[u8], out: &mut BytesMut) -> Result<ScramProof, PgError> {
        let response = SaslInitialResponse::from_body(body)?;
        if response.mechanism != MECHANISM.as_bytes() {
            return Err(ProtocolError::new("the client selected a SASL mechanism that was not offered").into());
        }
        let (message, waiting) = ScramServerAuth::new()
            .on_client_first_message_with_secret(response.data, self.secret)
            .map_err(|error| failure(&error, &self.user))?;
        backend::put_authentication_sasl_continue(out, message.as_bytes());
        Ok(ScramProof { waiting, user: self.user, exists })
    }
}

impl ScramProof {
    /// Takes the body of SASLResponse; appends AuthenticationSASLFinal when the proof is right.
    ///
    /// # Errors
    /// 28P01 when it is not, or 08P01 for a message that is not SCRAM's.
    pub(crate) fn last(self, body: &[u8], out: &mut BytesMut) -> Result<(), PgError> {
        let message = self.waiting.on_client_final_message(body).map_err(|error| failure(&error, &self.user))?;
        if !self.exists {
            return Err(wrong_password(&self.user));
        }
        backend::put_authentication_sasl_final(out, message.as_bytes());
        Ok(())
    }
}

/// What PostgreSQL says, whatever the reason.
pub(crate) fn wrong_password(user: &str) -> PgError {
    PgError::error("28P01", format!("password authentication failed for user \"{user}\"")).fatal()
}

fn failure(error: &PgWireError, user: &str) -> PgError {
    match error {
        PgWireError::InvalidPassword(_) => wrong_password(user),
        error => PgError::error("08P01", format!("malformed SCRAM message: {error}")).fatal(),
    }
}

/// Reads `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`.
fn parse_verifier(text: &str) -> Option<ScramSecret> {
    let rest = text.strip_prefix("SCRAM-SHA-256$")?;
    let (head, keys) = rest.split_once('$')?;
    let (iterations, salt) = head.split_once(':')?;
    let (stored_key, server_key) = keys.split_once(':')?;
    Some(ScramSecret::Verifier {
        salt: STANDARD.decode(salt).ok()?,
        iterations: iterations.parse().ok()?,
        stored_key: STANDARD.decode(stored_key).ok().filter(|key| key.len() == 32)?,
        server_key: STANDARD.decode(server_key).ok().filter(|key| key.len() == 32)?,
    })
}

/// A verifier without a password, the same for the same name as long as the proxy runs.
fn mock(user: &str, secret: &[u8; 32]) -> ScramSecret {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let derived = |purpose: &str| hmac::sign(&key, format!("{purpose}:{user}").as_bytes()).as_ref().to_vec();
    ScramSecret::Verifier {
        salt: derived("salt")[..16].to_vec(),
        iterations: MOCK_ITERATIONS,
        stored_key: derived("stored"),
        server_key: derived("server"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bytes::BufMut;
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

    fn initial(scram: &ScramSha256) -> BytesMut {
        let mut body = BytesMut::new();
        body.put_slice(b"SCRAM-SHA-256\0");
        body.put_u32(scram.message().len() as u32);
        body.put_slice(scram.message());
        body
    }

    /// Runs an exchange as libpq would.
    fn login(verifier: Option<&str>, password: &str) -> Result<(), PgError> {
        let (exchange, exists) = ScramExchange::new(verifier, "nurse", &[7; 32]);
        let mut client = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        let mut out = BytesMut::new();
        let proof = exchange.first(exists, &initial(&client), &mut out)?;
        client.update(&out[9..]).unwrap();
        out.clear();
        proof.last(client.message(), &mut out)?;
        client.finish(&out[9..]).unwrap();
        Ok(())
    }

    fn verifier() -> String {
        pgward_config::scram::verifier("secret", &[1; 16], std::num::NonZeroU32::new(4096).unwrap())
    }

    #[test]
    fn the_right_password_is_accepted_on_both_sides() {
        assert_eq!(login(Some(&verifier()), "secret"), Ok(()));
    }

    #[test]
    fn a_wrong_password_and_an_unknown_user_are_told_the_same() {
        assert_eq!(login(Some(&verifier()), "wrong"), Err(wrong_password("nurse")));
        assert_eq!(login(None, "secret"), Err(wrong_password("nurse")));
    }

    #[test]
    fn malformed_messages_are_errors_wherever_they_are_cut() {
        let client = ScramSha256::new(b"secret", ChannelBinding::unsupported());
        let whole = initial(&client);
        for cut in 0..whole.len() {
            let (exchange, exists) = ScramExchange::new(Some(&verifier()), "nurse", &[7; 32]);
            assert!(exchange.first(exists, &whole[..cut], &mut BytesMut::new()).is_err(), "cut at {cut}");
        }
    }
}
