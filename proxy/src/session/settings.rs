//! The run-time parameters that a session has set, and what brings a server to them.
//!
//! A server remembers the [`Settings`] that were last applied to it; where they equal the session's, nothing is sent.
//! Otherwise the difference goes ahead of the statement: in the same write where the node is known to accept it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;
use pgward_pools::Settings;

use super::changes::Kept;
use super::role::ROLE;

/// A change of one parameter: `Some` for SET, `None` for RESET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) name: Arc<str>,
    /// The value as it goes into SQL, e.g. `'a', 'b'`.
    pub(crate) value: Option<String>,
}

impl Change {
    /// Bytes of what is kept of it.
    pub(crate) fn weight(&self) -> usize {
        size_of::<Self>() + self.name.len() + self.value.as_ref().map_or(0, String::len)
    }
}

/// What the settings of a session may take, in bytes of their names and values. Drivers set a dozen.
pub(crate) const MOST_BYTES: usize = 64 * 1024;
/// What the changes of one transaction may take: all of them are kept until it ends.
pub(crate) const MOST_CHANGED_BYTES: usize = 256 * 1024;

/// Whether these changes, in order, are too much for settings: for what they come to, or for what is kept until the
/// transaction ends. What makes settings no larger is let through.
pub(crate) fn would_exceed<'a>(settings: &'a Settings, changes: impl Iterator<Item = &'a Change>) -> bool {
    let mut weights: BTreeMap<&str, usize> =
        settings.values().iter().map(|(name, value)| (&**name, name.len() + value.len())).collect();
    let (mut kept, mut grows) = (0, false);
    for change in changes {
        kept += change.weight();
        match &change.value {
            Some(value) => weights.insert(&change.name, change.name.len() + value.len()),
            None => weights.remove(&*change.name),
        };
        grows |= change.value.is_some();
    }
    kept > MOST_CHANGED_BYTES || (grows && weights.values().sum::<usize>() > MOST_BYTES)
}

/// The settings with these changes made, in order.
pub(crate) fn apply(base: &Settings, startup: &Settings, changes: &[Kept]) -> Arc<Settings> {
    let mut map = base.values().clone();
    for change in changes {
        let change = match change {
            Kept::Change(change) => change,
            Kept::ResetAll => {
                map = reset_all(&map, startup);
                continue;
            }
        };
        match (&change.value, startup.values().get(&change.name)) {
            (Some(value), _) => map.insert(change.name.clone(), value.clone()),
            // RESET goes back to what the client asked for at startup.
            (None, Some(first)) => map.insert(change.name.clone(), first.clone()),
            (None, None) => map.remove(&change.name),
        };
    }
    Settings::of(map)
}

/// The settings after RESET ALL, which leaves the role (GUC_NO_RESET_ALL).
fn reset_all(map: &BTreeMap<Arc<str>, String>, startup: &Settings) -> BTreeMap<Arc<str>, String> {
    let mut reset = startup.values().clone();
    match map.get(ROLE) {
        Some(role) => reset.insert(Arc::from(ROLE), role.clone()),
        None => reset.remove(ROLE),
    };
    reset
}

/// Appends the SQL that brings a server from `from` to `to`; nothing when they are equal.
///
/// Rights on parameters are those of the role in force. Others are set as the login itself, whatever role holds before
/// and after.
pub(crate) fn difference(from: &Settings, to: &Settings, sql: &mut String) {
    if from == to {
        return;
    }
    if from.values().contains_key(ROLE) {
        sql.push_str("RESET \"role\";");
    }
    let others = |name: &str| name != ROLE;
    for name in from.values().keys().filter(|name| others(name) && !to.values().contains_key(*name)) {
        sql.push_str("RESET ");
        push_name(sql, name);
        sql.push(';');
    }
    for (name, value) in to.values().iter().filter(|(name, _)| others(name)) {
        if from.values().get(name) != Some(value) {
            sql.push_str("SET ");
            push_name(sql, name);
            sql.push_str(" TO ");
            sql.push_str(value);
            sql.push(';');
        }
    }
    if let Some(role) = to.values().get(ROLE) {
        sql.push_str("SET \"role\" TO ");
        sql.push_str(role);
        sql.push(';');
    }
}

/// Whether a server must have answered to the change before a statement follows: with a role that it does not take any
/// more, the statement would run as another.
pub(crate) fn change_alone(from: &Settings, to: &Settings) -> bool {
    limit_time(from) || [from, to].iter().any(|settings| settings.values().contains_key(ROLE))
}

/// Whether a server with these settings may stop whatever it is told for the time that it takes, also what would change
/// them.
pub(crate) fn limit_time(settings: &Settings) -> bool {
    ["statement_timeout", "transaction_timeout"].iter().any(|name| settings.values().contains_key(*name))
}

/// Quotes a parameter's name, each part of a dotted one by itself.
fn push_name(sql: &mut String, name: &str) {
    for (n, part) in name.split('.').enumerate() {
        if n > 0 {
            sql.push('.');
        }
        sql.push('"');
        sql.push_str(&part.replace('"', "\"\""));
        sql.push('"');
    }
}

/// A value as an SQL literal; a backslash is plain because standard_conforming_strings stays on.
pub(crate) fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// What a startup message asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Parameters for the servers.
    pub(crate) settings: Arc<Settings>,
    /// The proxy's own (`pgward.…`), in order.
    pub(crate) own: Vec<(String, String)>,
}

/// Parameters of a startup message (and its `options`) that become settings.
///
/// # Errors
/// A text for DETAIL when `options` holds something else than `-c name=value` or `--name=value`.
pub(crate) fn from_startup(params: &[(String, String)]) -> Result<Asked, String> {
    let mut map = BTreeMap::new();
    let mut own = Vec::new();
    // What is named outranks what stands in `options`, wherever it stands (process_startup_options in postinit.c).
    if let Some((_, text)) = params.iter().rfind(|(name, _)| name == "options") {
        for (name, value) in options(text)? {
            insert(&mut map, &mut own, &name, &value);
        }
    }
    for (name, value) in params {
        match name.as_str() {
            "user" | "database" | "replication" | "options" => {}
            name if name.starts_with("_pq_.") => {}
            name => insert(&mut map, &mut own, name, value),
        }
    }
    Ok(Asked { settings: Settings::of(map), own })
}

fn insert(map: &mut BTreeMap<Arc<str>, String>, own: &mut Vec<(String, String)>, name: &str, value: &str) {
    let name = name.to_ascii_lowercase();
    if name.starts_with("pgward.") {
        return own.push((name, value.to_owned()));
    }
    if name == "client_encoding" && is_utf8(value) {
        return;
    }
    let value = as_given(&name, value);
    map.insert(Arc::from(name), value);
}

/// A value that was given as one text (at startup, by set_config), as SQL for SET. `name` is in lower case.
pub(crate) fn as_given(name: &str, value: &str) -> String {
    if LISTS_OF_NAMES.contains(&name) { quoted_list(value) } else { quoted(value) }
}

/// Encodings that are served as the UTF8 that servers are talked to in. libpq asks for SQL_ASCII in the C locale: bytes
/// as they are.
fn is_utf8(encoding: &str) -> bool {
    let encoding = encoding.trim_matches(['\'', '"']);
    ["UTF8", "UTF-8", "UNICODE", "SQL_ASCII", "AUTO"].iter().any(|known| encoding.eq_ignore_ascii_case(known))
}

/// Parameters whose value is a list of names (GUC_LIST_QUOTE in `src/backend/utils/misc/guc_tables.c`): in SET each name
/// is a value of its own, while at startup they come as one text.
const LISTS_OF_NAMES: [&str; 4] =
    ["search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries"];

/// The names of a list as values for SET: folded to lower case unless quoted, as SplitIdentifierString does.
fn quoted_list(text: &str) -> String {
    let mut names = vec![String::new()];
    let mut in_quotes = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let name = names.last_mut().expect("the list is never empty");
        match c {
            '"' if in_quotes && chars.peek() == Some(&'"') => name.extend(chars.next()),
            '"' => in_quotes = !in_quotes,
            ',' if !in_quotes => names.push(String::new()),
            c if c.is_whitespace() && !in_quotes => {}
            c if in_quotes => name.push(c),
            c => name.extend(c.to_lowercase()),
        }
    }
    names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")
}

/// Parameters that a server takes at the beginning of a connection only (PGC_BACKEND and PGC_SU_BACKEND in
/// `src/backend/utils/misc/guc_tables.c`).
const OF_THE_CONNECTION: [&str; 6] = [
    "ignore_system_indexes",
    "jit_debugging_support",
    "jit_profiling_support",
    "log_connections",
    "log_disconnections",
    "post_auth_delay",
];

/// The first of the settings that no server can take any more once it is connected.
pub(crate) fn of_the_connection(settings: &Settings) -> Option<&'static str> {
    OF_THE_CONNECTION.into_iter().find(|name| settings.values().contains_key(*name))
}

/// Whether transactions are serializable under these settings unless they say otherwise.
pub(crate) fn is_serializable(settings: &Settings) -> bool {
    let isolation = settings.values().get("default_transaction_isolation");
    isolation.is_some_and(|isolation| isolation.to_ascii_lowercase().contains("serializable"))
}

/// The settings as SET statements, so that they can be judged like a client's own.
pub(crate) fn statements(settings: &Settings) -> Vec<String> {
    let statement = |(name, value): (&Arc<str>, &String)| {
        let mut sql = "SET ".to_owned();
        push_name(&mut sql, name);
        sql.push_str(" TO ");
        sql.push_str(value);
        sql
    };
    settings.values().iter().map(statement).collect()
}

/// Splits `options` as the postmaster does (pg_split_opts): spaces separate, a backslash keeps the next character.
fn options(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => word.extend(chars.next()),
            c if c.is_ascii_whitespace() => words.extend((!word.is_empty()).then(|| std::mem::take(&mut word))),
            c => word.push(c),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    let mut pairs = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let pair = match (word.strip_prefix("--"), word.strip_prefix("-c")) {
            (Some(long), _) => long.to_owned(),
            (None, Some("")) => words.next().ok_or("-c needs name=value")?,
            (None, Some(short)) => short.to_owned(),
            (None, None) => {
                return Err("only -c name=value and --name=value are supported in options".to_owned());
            }
        };
        let (name, value) = pair.split_once('=').ok_or("a setting in options is not name=value")?;
        pairs.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(pairs)
}

/// A Query message with this SQL.
pub(crate) fn put(out: &mut BytesMut, sql: &str) {
    pgward_wire::frontend::put_query(out, sql.as_bytes());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Arc<Settings> {
        Settings::of(pairs.iter().map(|(n, v)| (Arc::from(*n), (*v).to_owned())).collect())
    }

    #[test]
    fn equal_settings_need_no_sql() {
        let mut sql = String::new();
        difference(&settings(&[("a", "'1'")]), &settings(&[("a", "'1'")]), &mut sql);
        assert_eq!(sql, "");
    }

    #[test]
    fn what_the_server_has_extra_is_reset_and_what_differs_is_set() {
        let mut sql = String::new();
        difference(&settings(&[("a", "'1'"), ("b.c", "'2'")]), &settings(&[("a", "'3'")]), &mut sql);
        assert_eq!(sql, "RESET \"b\".\"c\";SET \"a\" TO '3';");
    }

    #[test]
    fn there_is_an_end_to_what_is_set() {
        let change = |name: &str, value: Option<String>| Change { name: name.into(), value };
        let set = |name: &str, bytes: usize| change(name, Some("v".repeat(bytes)));
        let (half, none) = (MOST_BYTES / 2, settings(&[]));
        assert!(!would_exceed(&none, [set("x", half), set("y", half - 2)].iter()));
        assert!(would_exceed(&none, [set("x", half), set("y", half)].iter()));
        let half_full = settings(&[("x", &"v".repeat(half))]);
        assert!(would_exceed(&half_full, [set("y", half)].iter()));
        assert!(!would_exceed(&half_full, [set("x", half), set("x", half)].iter()), "one value stands for another");
        assert!(!would_exceed(&half_full, [change("x", None), set("y", half)].iter()));
        let full = settings(&[("x", &"v".repeat(2 * MOST_BYTES))]);
        assert!(!would_exceed(&full, [change("y", None)].iter()), "it helps");
        assert!(would_exceed(&none, std::iter::repeat_n(&set("x", half), 9)), "kept until the transaction ends");
    }

    #[test]
    fn the_role_is_left_first_and_taken_last() {
        let (ward, other) = (settings(&[("role", "'ward'"), ("work_mem", "'1'")]), settings(&[("zone", "'2'")]));
        let both = settings(&[("role", "'ward'"), ("zone", "'2'")]);
        for (from, to, want) in [
            (&ward, &other, "RESET \"role\";RESET \"work_mem\";SET \"zone\" TO '2';"),
            (&other, &ward, "RESET \"zone\";SET \"work_mem\" TO '1';SET \"role\" TO 'ward';"),
            (&ward, &both, "RESET \"role\";RESET \"work_mem\";SET \"zone\" TO '2';SET \"role\" TO 'ward';"),
            (&both, &both, ""),
        ] {
            let mut sql = String::new();
            difference(from, to, &mut sql);
            assert_eq!(sql, want);
        }
        assert!(change_alone(&ward, &other) && change_alone(&other, &ward) && !change_alone(&other, &other));
    }

    #[test]
    fn reset_all_leaves_the_role() {
        let startup = settings(&[("datestyle", "'ISO'"), ("role", "'first'")]);
        let now = settings(&[("work_mem", "'1'"), ("role", "'ward'")]);
        assert_eq!(apply(&now, &startup, &[Kept::ResetAll]), settings(&[("datestyle", "'ISO'"), ("role", "'ward'")]));
        assert_eq!(apply(&Settings::none(), &startup, &[Kept::ResetAll]), settings(&[("datestyle", "'ISO'")]));
    }

    #[test]
    fn reset_returns_to_the_value_of_the_startup_message() {
        let startup = settings(&[("datestyle", "'ISO'")]);
        let now = settings(&[("datestyle", "'German'"), ("x", "'1'")]);
        let reset = |name: &str| Kept::Change(Change { name: name.into(), value: None });
        assert_eq!(apply(&now, &startup, &[reset("datestyle"), reset("x")]), startup);
        assert_eq!(apply(&now, &startup, &[Kept::ResetAll]), startup);
    }

    #[test]
    fn the_proxys_own_settings_and_utf8_are_not_for_servers() {
        let params = [("options", "-c pgward.priority=high"), ("client_encoding", "SQL_ASCII")];
        let asked = from_startup(&params.map(|(name, value)| (name.to_owned(), value.to_owned()))).unwrap();
        assert_eq!(asked.own, [("pgward.priority".to_owned(), "high".to_owned())]);
        assert!(asked.settings.values().is_empty());
    }

    #[test]
    fn a_list_of_names_is_several_values() {
        let params = [("search_path".to_owned(), "Care, \"Big, \"\"One\", $user".to_owned())];
        let found = from_startup(&params).unwrap().settings;
        assert_eq!(found, settings(&[("search_path", "'care', 'Big, \"One', '$user'")]));
    }

    #[test]
    fn startup_options_are_split_as_the_postmaster_does() {
        let params = [("options".to_owned(), r"-c search_path=a\ b --work-mem=4MB -cgeqo=off".to_owned())];
        let found = from_startup(&params).unwrap().settings;
        let want = settings(&[("search_path", "'ab'"), ("work_mem", "'4MB'"), ("geqo", "'off'")]);
        assert_eq!(found, want);
        assert!(from_startup(&[("options".to_owned(), "-d 5".to_owned())]).is_err());
    }

    #[test]
    fn what_belongs_to_the_connection_is_found_in_any_spelling() {
        for options in ["-c ignore_system_indexes=on", "-c Post_Auth_Delay=1", "--log-connections=on"] {
            let found = from_startup(&[("options".to_owned(), options.to_owned())]).unwrap().settings;
            assert!(of_the_connection(&found).is_some(), "{options}");
        }
        assert_eq!(of_the_connection(&settings(&[("log_statement", "'all'")])), None);
    }

    #[test]
    fn what_is_named_outranks_what_stands_in_the_options() {
        let params = [("work_mem", "1MB"), ("options", "-c work_mem=2MB -c geqo=off"), ("options", "-c work_mem=3MB")];
        let found = from_startup(&params.map(|(name, value)| (name.to_owned(), value.to_owned()))).unwrap().settings;
        assert_eq!(found, settings(&[("work_mem", "'1MB'")]), "and of several options the last ones count");
    }
}
