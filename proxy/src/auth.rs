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
    /// False for whoever cannot come in, whatever the proof says.
    exists: bool,
}

/// An exchange before the client's proof.
pub(crate) struct ScramProof {
    waiting: ScramServerAuthWaitingForClientFinal,
    user: String,
    exists: bool,
}

impl ScramExchange {
    /// `verifier` in PostgreSQL's form, `None` for a user who does not exist or has no password.
    pub(crate) fn new(verifier: Option<&str>, user: &str, mock_secret: &[u8; 32]) -> Self {
        let parsed = verifier.and_then(parse_verifier);
        let exists = parsed.is_some();
        let secret = parsed.unwrap_or_else(|| mock(user, mock_secret));
        Self { secret, user: user.to_owned(), exists }
    }

    /// Takes the body of SASLInitialResponse; appends AuthenticationSASLContinue.
    ///
    /// # Errors
    /// 28P01, or 08P01 for a message that is not SCRAM's.
    pub(crate) fn first(self, body: &[u8], out: &mut BytesMut) -> Result<ScramProof, PgError> {
        let response = SaslInitialResponse::from_body(body)?;
        if response.mechanism != MECHANISM.as_bytes() {
            return Err(ProtocolError::new("the client selected a SASL mechanism that was not offered").into());
        }
        let (message, waiting) = ScramServerAuth::new()
            .on_client_first_message_with_secret(response.data, self.secret)
            .map_err(|error| failure(&error, &self.user))?;
        backend::put_authentication_sasl_continue(out, message.as_bytes());
        Ok(ScramProof { waiting, user: self.user, exists: self.exists })
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
        // pgwire's words repeat the client's message, which may hold its proof: that belongs in no log.
        _ => PgError::error("08P01", "malformed SCRAM message").fatal(),
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

    const SECRET: [u8; 32] = [7; 32];

    fn initial(mechanism: &str, message: &[u8]) -> BytesMut {
        let mut body = BytesMut::new();
        body.put_slice(mechanism.as_bytes());
        body.put_u8(0);
        body.put_u32(message.len() as u32);
        body.put_slice(message);
        body
    }

    fn verifier() -> String {
        pgward_config::scram::verifier("secret", &[1; 16], pgward_config::scram::ITERATIONS)
    }

    /// What the client's first message comes to: the server's first message and what waits for the proof.
    fn first(verifier: Option<&str>, body: &[u8]) -> Result<(BytesMut, ScramProof), PgError> {
        let mut out = BytesMut::new();
        let proof = ScramExchange::new(verifier, "nurse", &SECRET).first(body, &mut out)?;
        Ok((out.split_off(9), proof))
    }

    /// Runs an exchange as libpq would, the client's last message changed on its way.
    fn login(verifier: Option<&str>, password: &str, tamper: impl Fn(&mut Vec<u8>)) -> Result<(), PgError> {
        let mut client = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        let (challenge, proof) = first(verifier, &initial(MECHANISM, client.message()))?;
        client.update(&challenge).unwrap();
        let mut message = client.message().to_vec();
        tamper(&mut message);
        let mut out = BytesMut::new();
        let verdict = proof.last(&message, &mut out);
        match &verdict {
            Ok(()) => client.finish(&out[9..]).unwrap(),
            Err(_) => assert!(out.is_empty(), "no signature for whoever does not come in"),
        }
        verdict
    }

    #[test]
    fn the_right_password_is_accepted_on_both_sides() {
        assert_eq!(login(Some(&verifier()), "secret", |_| {}), Ok(()));
    }

    #[test]
    fn a_wrong_password_and_an_unknown_user_are_told_the_same() {
        assert_eq!(login(Some(&verifier()), "wrong", |_| {}), Err(wrong_password("nurse")));
        assert_eq!(login(None, "secret", |_| {}), Err(wrong_password("nurse")));
        assert_eq!(login(Some("SCRAM-SHA-256$4096:broken"), "secret", |_| {}), Err(wrong_password("nurse")));
        assert_eq!(wrong_password("nurse").sqlstate(), "28P01");
    }

    #[test]
    fn an_unknown_user_has_the_same_salt_each_time_and_another_than_the_next() {
        let challenge = |user| {
            let mut out = BytesMut::new();
            ScramExchange::new(None, user, &SECRET).first(&initial(MECHANISM, b"n,,n=,r=x"), &mut out).unwrap();
            let text = String::from_utf8(out[9..].to_vec()).unwrap();
            text.split_once(",s=").unwrap().1.to_owned()
        };
        assert_eq!(challenge("nurse"), challenge("nurse"));
        assert_ne!(challenge("nurse"), challenge("doctor"));
        let (real, _) = first(Some(&verifier()), &initial(MECHANISM, b"n,,n=,r=x")).unwrap();
        let real = String::from_utf8(real.to_vec()).unwrap();
        assert_eq!(challenge("nurse").len(), real.split_once(",s=").unwrap().1.len(), "nor does its length tell");
    }

    #[test]
    fn first_messages_that_are_not_ours_are_protocol_violations() {
        for (mechanism, message) in [
            ("SCRAM-SHA-256-PLUS", "n,,n=,r=x"),
            ("SCRAM-SHA-1", "n,,n=,r=x"),
            ("", "n,,n=,r=x"),
            (MECHANISM, ""),
            (MECHANISM, "p=tls-server-end-point,,n=,r=x"),
            (MECHANISM, "n,a=admin,n=,r=x"),
            (MECHANISM, "n,,m=ext,n=,r=x"),
            (MECHANISM, "x,,n=,r=x"),
            (MECHANISM, "n,,r=x"),
        ] {
            let error = first(Some(&verifier()), &initial(mechanism, message.as_bytes())).err().unwrap();
            assert_eq!(error.sqlstate(), "08P01", "{mechanism} {message}");
        }
        assert!(first(Some(&verifier()), &initial(MECHANISM, b"y,,n=,r=x")).is_ok(), "`y` without TLS is honest");
        assert!(first(Some(&verifier()), &initial(MECHANISM, b"n,,n=,r=\xff")).is_err());
    }

    #[test]
    fn first_messages_are_errors_wherever_they_are_cut() {
        let whole = initial(MECHANISM, b"n,,n=,r=rOprNGfwEbeRWgbNEkqO");
        for cut in 0..whole.len() {
            assert!(first(Some(&verifier()), &whole[..cut]).is_err(), "cut at {cut}");
        }
        assert!(first(Some(&verifier()), &[&whole[..], b"x"].concat()).is_err(), "with junk behind it");
    }

    #[test]
    fn a_proof_is_refused_wherever_it_is_cut_or_changed() {
        // One iteration, since there are hundreds of exchanges. The message's length is fixed: nonces and keys have theirs.
        let verifier = pgward_config::scram::verifier("secret", &[1; 16], std::num::NonZeroU32::MIN);
        let mut client = ScramSha256::new(b"secret", ChannelBinding::unsupported());
        let (challenge, _) = first(Some(&verifier), &initial(MECHANISM, client.message())).unwrap();
        client.update(&challenge).unwrap();
        for at in 0..client.message().len() {
            login(Some(&verifier), "secret", |message| message.truncate(at)).unwrap_err();
            login(Some(&verifier), "secret", |message| message[at] ^= 1).unwrap_err();
            login(Some(&verifier), "secret", |message| message[at] = 0xff).unwrap_err();
        }
        login(Some(&verifier), "secret", |message| message.extend(b"AAAA")).unwrap_err();
        login(Some(&verifier), "secret", |message| message.extend(b",x=1")).unwrap_err();
    }
}
