//! Prepared statements: what a client's name stands for, and the name that servers know it by.
//!
//! A server keeps a statement under a name made from its text and parameter types, so that clients share it and a
//! client's statement can be prepared on whichever server it meets (after PgBouncer's scheme).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use pgward_router::Analysed;

/// A statement that a client has prepared, named or not.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Unique in the process; `pgward_<id>` is its name on servers.
    pub(crate) id: u64,
    /// The statement's text.
    pub(crate) text: Box<[u8]>,
    /// Declared parameter types, 0 where left open.
    pub(crate) types: Box<[u32]>,
    /// What the text is.
    pub(crate) analysed: Analysed,
}

impl Prepared {
    /// A statement that is not shared: the unnamed one of a client.
    pub(crate) fn new(text: &[u8], types: Box<[u32]>, analysed: Analysed) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), text: text.into(), types, analysed }
    }

    /// Appends the name that servers know the statement by.
    pub(crate) fn server_name(&self) -> ServerName {
        ServerName::new(self.id)
    }
}

/// `pgward_<id>`, on the stack.
pub(crate) struct ServerName {
    bytes: [u8; 32],
    start: usize,
}

impl ServerName {
    pub(crate) fn new(mut id: u64) -> Self {
        const PREFIX: &[u8] = b"pgward_";
        let mut bytes = [0; 32];
        let mut start = bytes.len();
        loop {
            start -= 1;
            bytes[start] = b'0' + (id % 10) as u8;
            id /= 10;
            if id == 0 {
                break;
            }
        }
        start -= PREFIX.len();
        bytes[start..start + PREFIX.len()].copy_from_slice(PREFIX);
        Self { bytes, start }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

/// Text, types, and the generation of the state that the text was analysed by.
type Key = (Box<[u8]>, Box<[u32]>, u64);

/// All named statements that some client holds, each once. Keyed by the whole text: a hash alone could run another
/// statement.
#[derive(Debug, Default)]
pub(crate) struct Statements {
    map: Mutex<Map>,
}

#[derive(Debug, Default)]
struct Map {
    by_text: HashMap<Key, Weak<Prepared>>,
    prune_at: usize,
}

impl Statements {
    /// The shared statement of this text and these types, as analysed by the state of this generation: another
    /// configuration may know a table as another kind.
    pub(crate) fn intern(&self, text: &[u8], types: Box<[u32]>, analysed: Analysed, generation: u64) -> Arc<Prepared> {
        let mut map = self.map.lock();
        let key: Key = (text.into(), types, generation);
        if let Some(found) = map.by_text.get(&key).and_then(Weak::upgrade) {
            return found;
        }
        if map.by_text.len() >= map.prune_at {
            map.by_text.retain(|_, statement| statement.strong_count() > 0);
            map.prune_at = (2 * map.by_text.len()).max(1024);
        }
        let statement = Arc::new(Prepared::new(text, key.1.clone(), analysed));
        map.by_text.insert(key, Arc::downgrade(&statement));
        statement
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_names_are_decimal() {
        assert_eq!(ServerName::new(0).as_bytes(), b"pgward_0");
        assert_eq!(ServerName::new(u64::MAX).as_bytes(), b"pgward_18446744073709551615");
    }
}
