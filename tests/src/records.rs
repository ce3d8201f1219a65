//! The audit log, read back.

use std::path::Path;

use serde_json::Value;

/// Records in the order of the file.
#[derive(Clone, Debug)]
pub struct Records {
    /// The file as it is.
    pub text: String,
    /// Its lines.
    pub all: Vec<Value>,
}

impl Records {
    /// All complete lines of the file.
    pub fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("the audit log is there");
        let complete = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        Self { all: complete.lines().map(parse).collect(), text }
    }

    /// The decisions about statements of this user; tests that count have a user of their own.
    pub fn decisions_of(&self, user: &str) -> Vec<&Value> {
        self.all.iter().filter(|record| record["record"] == "decision" && record["user"] == user).collect()
    }

    /// The decisions about statements of the session that came by this listener from this address, `since` so many
    /// records. Addresses are used again, but not at once by the same listener.
    pub fn decisions_from(&self, since: usize, listener: &str, address: &str) -> Vec<&Value> {
        let of_it = |record: &&Value| {
            record["record"] == "decision" && record["listener"] == listener && record["client"] == address
        };
        self.all.iter().skip(since).filter(of_it).collect()
    }
}
