//! Prepared statements: what a client's name stands for, and the name that servers know it by.
//!
//! A server keeps a statement under a name made from its text and parameter types, so that clients share it and a
//! client's statement can be prepared on whichever server it meets (after PgBouncer's scheme).

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use pgward_pools::Settings;
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

/// The named statements of one client.
#[derive(Debug, Default)]
pub(crate) struct Names {
    map: foldhash::HashMap<Box<[u8]>, Arc<Prepared>>,
    /// Of names, texts and types.
    bytes: usize,
}

impl Names {
    /// What the client calls so.
    pub(crate) fn get(&self, name: &[u8]) -> Option<&Arc<Prepared>> {
        self.map.get(name)
    }

    /// Whether one more statement would be more than `count` of them or more than `bytes` bytes.
    pub(crate) fn would_exceed(&self, name: &[u8], text: &[u8], types: usize, count: usize, bytes: usize) -> bool {
        self.map.len() >= count || self.bytes.saturating_add(cost(name, text, types)) > bytes
    }

    /// Gives a statement a name, which it takes from another if there is one.
    pub(crate) fn insert(&mut self, name: Box<[u8]>, statement: Arc<Prepared>) {
        self.remove(&name);
        self.bytes += cost(&name, &statement.text, statement.types.len());
        self.map.insert(name, statement);
    }

    /// Forgets a name.
    pub(crate) fn remove(&mut self, name: &[u8]) -> Option<(Box<[u8]>, Arc<Prepared>)> {
        let (name, statement) = self.map.remove_entry(name)?;
        self.bytes -= cost(&name, &statement.text, statement.types.len());
        Some((name, statement))
    }

    /// Forgets all names.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// All names with their statements; none is left.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = (Box<[u8]>, Arc<Prepared>)> + use<> {
        std::mem::take(self).map.into_iter()
    }

    /// Puts another statement of the same text and types in the place of each, or forgets its name.
    pub(crate) fn replace_all(&mut self, with: impl Fn(&Arc<Prepared>) -> Option<Arc<Prepared>>) {
        for (name, statement) in std::mem::take(self).map {
            if let Some(new) = with(&statement) {
                self.insert(name, new);
            }
        }
    }
}

fn cost(name: &[u8], text: &[u8], types: usize) -> usize {
    name.len() + text.len() + types * size_of::<u32>()
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

/// Text, types, the generation of the state that the text was analysed by, and the settings that it is read by.
type Key = (Box<[u8]>, Box<[u32]>, u64, BTreeMap<Arc<str>, String>);

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
    /// configuration may know a table as another kind. And as it is read by these settings: under others a server would
    /// keep the constants of the first.
    pub(crate) fn intern(
        &self,
        text: &[u8],
        types: Box<[u32]>,
        analysed: Analysed,
        generation: u64,
        reading: &Settings,
    ) -> Arc<Prepared> {
        let mut map = self.map.lock();
        let key: Key = (text.into(), types, generation, reading.values().clone());
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
    use pgward_router::Shape;
    use smallvec::SmallVec;

    use super::*;

    fn statement(text: &str) -> Arc<Prepared> {
        let shape = Shape { fingerprint: Arc::from("0"), statements: SmallVec::new(), params: 0 };
        let analysed = Analysed { shape: Arc::new(shape), literals: SmallVec::new() };
        Arc::new(Prepared::new(text.as_bytes(), Box::new([23]), analysed))
    }

    #[test]
    fn names_are_counted_and_weighed() {
        let mut names = Names::default();
        assert!(!names.would_exceed(b"a", b"SELECT 1", 1, 1, 13));
        assert!(names.would_exceed(b"a", b"SELECT 1", 1, 1, 12));
        names.insert(b"a"[..].into(), statement("SELECT 1"));
        assert!(names.would_exceed(b"b", b"", 0, 1, 100));
        names.insert(b"a"[..].into(), statement("SELECT 22"));
        names.replace_all(|statement| Some(Arc::clone(statement)));
        assert_eq!(names.bytes, 14);
        assert!(names.remove(b"a").is_some() && names.remove(b"a").is_none());
        assert_eq!(names.bytes, 0);
        names.insert(b"a"[..].into(), statement("SELECT 1"));
        names.replace_all(|_| None);
        assert!(names.get(b"a").is_none() && names.bytes == 0);
    }

    #[test]
    fn a_text_is_shared_where_it_is_read_alike() {
        let (statements, one) = (Statements::default(), statement("SELECT '03/04/2020'::date"));
        let intern = |style: Option<&str>| {
            let style = style.map(|style| (Arc::from("datestyle"), style.to_owned()));
            let reading = Settings::of(style.into_iter().collect());
            statements.intern(&one.text, one.types.clone(), one.analysed.clone(), 1, &reading)
        };
        let (own, a, b) = (intern(None), intern(Some("'DMY'")), intern(Some("'MDY'")));
        assert!(own.id != a.id && a.id != b.id && own.id != b.id);
        assert!(Arc::ptr_eq(&a, &intern(Some("'DMY'"))) && Arc::ptr_eq(&own, &intern(None)));
    }

    #[test]
    fn server_names_are_decimal() {
        assert_eq!(ServerName::new(0).as_bytes(), b"pgward_0");
        assert_eq!(ServerName::new(u64::MAX).as_bytes(), b"pgward_18446744073709551615");
    }
}
