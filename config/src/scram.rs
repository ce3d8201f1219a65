//! SCRAM-SHA-256 verifiers in the form that PostgreSQL stores in `pg_authid.rolpassword`.
//!
//! A verifier proves a password without containing it (RFC 5802, RFC 7677), so that it may stand in a file. The form is
//! that of `scram_build_secret` in PostgreSQL's `src/common/scram-common.c`.

use std::borrow::Cow;
use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};

/// Iterations of PBKDF2: PostgreSQL's default `scram_iterations`, which every driver expects.
pub const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).expect("4096 is not zero");
/// Bytes of salt: PostgreSQL's SCRAM_DEFAULT_SALT_LEN.
pub const SALT_LEN: usize = 16;

const PREFIX: &str = "SCRAM-SHA-256$";

/// The verifier of this password: `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`.
pub fn verifier(password: &str, salt: &[u8], iterations: NonZeroU32) -> String {
    let mut salted = [0; digest::SHA256_OUTPUT_LEN];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, prepared(password).as_bytes(), &mut salted);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &salted);
    let client_key = hmac::sign(&key, b"Client Key");
    let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
    let server_key = hmac::sign(&key, b"Server Key");
    format!(
        "{PREFIX}{iterations}:{}${}:{}",
        BASE64.encode(salt),
        BASE64.encode(stored_key.as_ref()),
        BASE64.encode(server_key.as_ref())
    )
}

/// SASLprep of the password; a password that SASLprep prohibits is used as it is, as PostgreSQL and libpq do.
fn prepared(password: &str) -> Cow<'_, str> {
    stringprep::saslprep(password).unwrap_or(Cow::Borrowed(password))
}

/// Checks that a text has the form of a verifier.
///
/// # Errors
/// Says which part is wrong, without repeating it: the text may be a password that was put in the wrong place.
pub fn check(text: &str) -> Result<(), &'static str> {
    let rest = text.strip_prefix(PREFIX).ok_or("it does not begin with `SCRAM-SHA-256$`")?;
    let (head, keys) = rest.split_once('$').ok_or("it has no `$` in front of the keys")?;
    let (iterations, salt) = head.split_once(':').ok_or("it has no `:` between iterations and salt")?;
    let (stored, server) = keys.split_once(':').ok_or("it has no `:` between StoredKey and ServerKey")?;
    iterations.parse::<NonZeroU32>().map_err(|_| "its iterations are not a number above zero")?;
    if BASE64.decode(salt).map_err(|_| "its salt is not base64")?.is_empty() {
        return Err("its salt is empty");
    }
    for key in [stored, server] {
        if BASE64.decode(key).map_err(|_| "a key in it is not base64")?.len() != digest::SHA256_OUTPUT_LEN {
            return Err("a key in it is not 32 bytes long");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_example_of_rfc_7677() {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        assert_eq!(
            verifier("pencil", &salt, ITERATIONS),
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
             wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
    }

    #[test]
    fn passwords_are_prepared_as_postgresql_does() {
        let made = |password| verifier(password, &[7; SALT_LEN], ITERATIONS);
        assert_eq!(made("I\u{ad}X"), made("IX"), "a soft hyphen is mapped to nothing");
        assert_eq!(made("\u{aa}"), made("a"), "compatibility forms are folded");
        assert_ne!(made("a\u{7}"), made("a"), "a prohibited character leaves the password as it is");
    }

    #[test]
    fn what_is_made_passes_the_check_and_a_password_does_not() {
        check(&verifier("geheim", &[7; SALT_LEN], ITERATIONS)).unwrap();
        for bad in [
            "geheim",
            "md5d41d8cd98f00b204e9800998ecf8427e",
            "SCRAM-SHA-256$4096:AAAA",
            "SCRAM-SHA-256$4096:AAAA$AAAA:AAAA",
            "SCRAM-SHA-256$0:AAAA$AAAA:AAAA",
            "SCRAM-SHA-256$4096:?$AAAA:AAAA",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
