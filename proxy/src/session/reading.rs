//! By which settings the text of a statement is read: a server keeps the constants of a prepared one as it read them, a
//! date in the DateStyle and an hour in the TimeZone of that moment. The same text under others is another statement,
//! and servers know it by another name.

use std::sync::Arc;

use pgward_pools::Settings;
use pgward_router::{Analysed, Params};

use super::Session;

/// Settings that no text is read by. Any that is not known may matter.
const UNRELATED: [&str; 12] = [
    "application_name",
    "client_min_messages",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "lock_timeout",
    "statement_timeout",
    "synchronous_commit",
    "transaction_timeout",
    "work_mem",
];

/// Whether texts may be read by it. What applications and extensions have set is read when a statement runs.
pub(super) fn matters(name: &str) -> bool {
    !name.contains('.') && !UNRELATED.contains(&name)
}

/// Those of the settings by which texts are read.
pub(super) fn read_by(settings: &Settings) -> Arc<Settings> {
    let values = settings.values().iter().filter(|(name, _)| matters(name));
    Settings::of(values.map(|(name, value)| (Arc::clone(name), value.clone())).collect())
}

impl Session {
    /// The settings that texts are read by have changed, or may have. What is prepared already is known by other names
    /// from the next segment on, when no answer is awaited that is about one of the old.
    pub(super) fn read_anew(&mut self) {
        let reading = read_by(&self.changes.in_force(&self.settings, &self.startup_settings));
        if !Settings::same(&reading, &self.reading) {
            self.reading = reading;
            self.prepared_otherwise = true;
        }
    }

    /// Gives what is prepared the names of how it is read now.
    pub(super) fn rename_prepared(&mut self) {
        if !self.prepared_otherwise || !self.work.ops.is_empty() || !self.work.expects.is_empty() {
            return;
        }
        self.prepared_otherwise = false;
        let Self { shared, state, prepared, reading, .. } = self;
        prepared.replace_all(|statement| {
            let (types, analysed) = (statement.types.clone(), statement.analysed.clone());
            Some(shared.statements.intern(&statement.text, types, analysed, state.generation, reading))
        });
    }

    /// A statement by the name that all know it by is said to a server. Behind a change of how it is read, in the same
    /// pipeline or by set_config for the transaction, it is not certain what the server keeps under this name: it is not
    /// used again.
    pub(super) fn note_named(&mut self, named: bool) {
        self.uncertain |= named && (self.unsettled || self.prepared_otherwise || self.read_otherwise);
    }

    /// A call of set_config may change, until the transaction's end, how texts are read: to what is not followed.
    pub(super) fn note_local_configs(&mut self, analysed: &Analysed, sql: &[u8], params: &dyn Params) {
        let mut names = self.state.analyser.local_set_configs(analysed, sql, params);
        if names.any(|name| name.is_none_or(|name| matters(&name))) {
            self.read_otherwise = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_text_is_read_by_keeps_nobody_from_sharing() {
        let settings = |names: &[&str]| {
            let values = names.iter().map(|name| (Arc::from(*name), "'1'".to_owned()));
            Settings::of(values.collect())
        };
        let all = ["application_name", "app.user", "datestyle", "lock_timeout", "timezone", "transform_null_equals"];
        assert_eq!(read_by(&settings(&all)), settings(&["datestyle", "timezone", "transform_null_equals"]));
        assert!(Settings::same(&read_by(&settings(&["work_mem", "a.b"])), &Settings::none()));
    }
}
