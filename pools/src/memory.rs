//! What a server connection has been told: prepared statements and run-time parameters.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

/// What one server connection remembers of what it was told.
#[derive(Debug, Default)]
pub struct ServerMemory {
    /// Statements prepared here, each with the tick of its last use.
    prepared: foldhash::HashMap<u64, u64>,
    tick: u64,
    /// So many are kept before the one unused for longest is closed; 0 for any number.
    pub limit: usize,
    /// Statements that stand here prepared for tables that have changed since: to be closed before they are prepared anew.
    spoiled: foldhash::HashSet<u64>,
    /// The statement that is prepared as the unnamed one.
    pub unnamed: Option<u64>,
    /// The parameters that were applied.
    pub settings: Arc<Settings>,
}

impl ServerMemory {
    /// True if the statement is prepared here; counts as a use.
    pub fn has_prepared(&mut self, id: u64) -> bool {
        self.tick += 1;
        match self.prepared.get_mut(&id) {
            Some(used) => {
                *used = self.tick;
                true
            }
            None => false,
        }
    }

    /// Notes that the statement is being prepared; returns one to close if there are too many now.
    pub fn prepare(&mut self, id: u64) -> Option<u64> {
        let full = self.limit > 0 && self.prepared.len() + self.spoiled.len() >= self.limit;
        let evicted = if full { self.least_useful() } else { None };
        if let Some(id) = evicted {
            self.prepared.remove(&id);
            self.spoiled.remove(&id);
        }
        self.tick += 1;
        self.prepared.insert(id, self.tick);
        evicted
    }

    fn least_useful(&self) -> Option<u64> {
        let unused = || self.prepared.iter().min_by_key(|(_, used)| **used).map(|(id, _)| *id);
        self.spoiled.iter().next().copied().or_else(unused)
    }

    /// A Close of the statement was not done: it is still prepared here, and nothing is closed for that.
    pub fn unclose(&mut self, id: u64) {
        self.tick += 1;
        self.prepared.insert(id, self.tick);
    }

    /// Notes that the statement is not prepared here after all.
    pub fn forget(&mut self, id: u64) {
        self.prepared.remove(&id);
    }

    /// Notes that the statement, as it is prepared here, does not fit its tables any more.
    pub fn spoil(&mut self, id: u64) {
        if self.unnamed == Some(id) {
            self.unnamed = None;
        } else {
            self.prepared.remove(&id);
            self.spoiled.insert(id);
        }
    }

    /// Whether the statement must be closed here before it can be prepared; it counts as closed from then on.
    pub fn take_spoiled(&mut self, id: u64) -> bool {
        !self.spoiled.is_empty() && self.spoiled.remove(&id)
    }

    /// Notes that nothing is prepared here any more.
    pub fn forget_all(&mut self) {
        self.prepared.clear();
        self.spoiled.clear();
        self.unnamed = None;
    }
}

/// Run-time parameters by name, each with its value as SQL. Equal settings are one value in the process, so that
/// [`Settings::same`] is a comparison of pointers.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settings {
    values: Arc<Values>,
}

type Values = BTreeMap<Arc<str>, String>;
/// All settings that anybody holds.
type Known = HashMap<Arc<Values>, Weak<Settings>>;

fn known() -> MutexGuard<'static, Known> {
    static KNOWN: OnceLock<Mutex<Known>> = OnceLock::new();
    KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

impl Settings {
    /// The settings with these values.
    pub fn of(values: BTreeMap<Arc<str>, String>) -> Arc<Self> {
        if values.is_empty() {
            return Self::none();
        }
        let mut known = known();
        if let Some(found) = known.get(&values).and_then(Weak::upgrade) {
            return found;
        }
        // One of the same values that is about to go finds that it was replaced.
        known.remove(&values);
        let values = Arc::new(values);
        let settings = Arc::new(Self { values: Arc::clone(&values) });
        known.insert(values, Arc::downgrade(&settings));
        settings
    }

    /// No settings: a server as it logged in.
    pub fn none() -> Arc<Self> {
        static NONE: OnceLock<Arc<Settings>> = OnceLock::new();
        Arc::clone(NONE.get_or_init(Arc::default))
    }

    /// The values by name.
    pub fn values(&self) -> &BTreeMap<Arc<str>, String> {
        &self.values
    }

    /// Bytes of the names and values.
    pub fn weight(&self) -> usize {
        self.values.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// Whether two settings are the same.
    pub fn same(a: &Arc<Self>, b: &Arc<Self>) -> bool {
        Arc::ptr_eq(a, b) || (a.values.is_empty() && b.values.is_empty())
    }
}

/// What nobody holds any more is not known any more: a client may set something else as often as it likes.
impl Drop for Settings {
    fn drop(&mut self) {
        let mut known = known();
        if known.get(&self.values).is_some_and(|settings| settings.strong_count() == 0) {
            known.remove(&self.values);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_settings_are_one_value() {
        let map = || BTreeMap::from([(Arc::from("a"), "'1'".to_owned())]);
        let first = Settings::of(map());
        assert!(Settings::same(&first, &Settings::of(map())));
        assert!(!Settings::same(&first, &Settings::none()));
        assert!(Settings::same(&Settings::none(), &Arc::default()));
    }

    #[test]
    fn settings_that_nobody_holds_are_forgotten() {
        let map = |n: usize| BTreeMap::from([(Arc::from("app.forgotten"), n.to_string())]);
        let held = || known().keys().filter(|values| values.contains_key("app.forgotten")).count();
        let kept = Settings::of(map(0));
        for n in 1..100 {
            let again = [Settings::of(map(n)), Settings::of(map(n))];
            assert_eq!((again[0].weight(), held()), (13 + n.to_string().len(), 2));
        }
        assert_eq!(held(), 1);
        assert!(Settings::same(&kept, &Settings::of(map(0))));
        drop(kept);
        assert_eq!(held(), 0);
    }

    #[test]
    fn settings_that_come_and_go_on_two_threads_stay_one_value() {
        let map = || BTreeMap::from([(Arc::from("app.racing"), "'x'".to_owned())]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let mine = Settings::of(map());
                        assert!(Settings::same(&mine, &Settings::of(map())));
                    }
                });
            }
        });
    }

    #[test]
    fn the_statement_unused_for_longest_is_evicted() {
        let mut memory = ServerMemory { limit: 500, ..ServerMemory::default() };
        for id in 0..500 {
            assert_eq!(memory.prepare(id), None);
        }
        assert!(memory.has_prepared(0));
        assert_eq!(memory.prepare(9999), Some(1));
        assert!(!memory.has_prepared(1));
        memory.spoil(7);
        assert_eq!((memory.has_prepared(7), memory.prepare(8888)), (false, Some(7)), "what nobody can use goes first");
        memory.spoil(8);
        assert!(memory.take_spoiled(8) && !memory.take_spoiled(8));
        assert_eq!(memory.prepare(8), None);
    }
}
