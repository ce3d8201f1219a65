//! The parameters that statements are read by. Servers report them at the login and whenever they change.

use crate::ProtocolError;

/// Each with the only value that PgWard reads statements by: where a string ends, and which bytes are which characters.
const READ_BY: [(&str, &str); 2] = [("standard_conforming_strings", "on"), ("client_encoding", "UTF8")];

/// Holds what a server reports of itself against how PgWard reads statements.
///
/// # Errors
/// The server would read them otherwise, and take for the end of a string what PgWard does not.
pub fn read_alike(name: &str, value: &str) -> Result<(), ProtocolError> {
    match READ_BY.iter().find(|(known, _)| *known == name) {
        Some((_, needed)) if *needed != value => Err(ProtocolError::unsupported(format!(
            "the server would read statements otherwise than PgWard: its {name} is not {needed}"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_must_read_statements_as_pgward_does() {
        for (name, value) in
            [("standard_conforming_strings", "on"), ("client_encoding", "UTF8"), ("server_encoding", "LATIN1")]
        {
            assert!(read_alike(name, value).is_ok(), "{name} = {value}");
        }
        for (name, value) in
            [("standard_conforming_strings", "off"), ("client_encoding", "SJIS"), ("client_encoding", "")]
        {
            let error = read_alike(name, value).expect_err(name);
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
