//! What the analysis knows of the servers' catalogs: which functions only read, and which columns tables have.
//!
//! The built-in part is taken from PostgreSQL 15's own pg_proc, pg_operator and pg_type and embedded; the few functions
//! that are STABLE there and yet fail on a replica (txid_current and its like) count as volatile, as does what is not
//! known. Functions are known by name: if any overload is volatile, the name is.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use crate::extensions::vetted;

struct Builtin {
    /// Name → only reads.
    functions: HashMap<&'static str, bool>,
    operators: HashSet<&'static str>,
    types: HashSet<&'static str>,
}

static BUILTIN: LazyLock<Builtin> = LazyLock::new(|| Builtin {
    functions: include_str!("builtin/functions.txt")
        .lines()
        .map(|line| line.strip_suffix(" volatile").map_or((line, true), |name| (name, false)))
        .collect(),
    operators: include_str!("builtin/operators.txt").lines().collect(),
    types: include_str!("builtin/types.txt").lines().collect(),
});

/// Functions, operators, types and columns that the analysis may rely on.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Functions outside pg_catalog: name → only reads.
    functions: HashMap<Arc<str>, bool>,
    /// Functions of extensions that nobody has looked into: name → the extension, or the library.
    unvetted: HashMap<Arc<str>, Arc<str>>,
    /// `schema.table` → its columns in order, with their type OIDs.
    columns: HashMap<Arc<str>, Vec<(Arc<str>, u32)>>,
    /// `schema.table` of a table that is no patient table → what hangs on it.
    cascades: HashMap<Arc<str>, Vec<Cascade>>,
    /// Undeclared relations that have a declared table's name: name → their schemas, and whether those are in a path.
    shadows: HashMap<Arc<str>, Vec<(Arc<str>, bool)>>,
    /// `schema.table` → those of its columns that servers compute themselves.
    generated: HashMap<Arc<str>, HashSet<Arc<str>>>,
    /// `schema.table` → those of its columns that servers fill where a row does not list them.
    filled: HashMap<Arc<str>, HashSet<Arc<str>>>,
    /// `schema.table` → why its key column does not compare as patient keys do.
    odd_keys: HashMap<Arc<str>, Arc<str>>,
}

/// Rows of patient tables that servers change with those of another table: by foreign keys that cascade, or because the
/// table is a view or a parent of what they hang on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cascade {
    /// `schema.table` of a patient table whose rows change.
    pub patients: Arc<str>,
    /// They change when a row is deleted.
    pub on_delete: bool,
    /// They change when these columns are updated; `None` for any.
    pub on_update: Option<Vec<Arc<str>>>,
}

impl Catalog {
    /// PostgreSQL's own functions, operators and types; no tables.
    pub fn builtin() -> Self {
        Self::default()
    }

    /// Adds a function of the application. `reads_only`: IMMUTABLE or STABLE. Overloads add up: one volatile overload
    /// makes the name volatile.
    pub fn add_function(&mut self, name: &str, reads_only: bool) {
        let known = self.functions.entry(name.into()).or_insert(reads_only);
        *known &= reads_only;
    }

    /// Says that a function of this name is of this extension (in C and of none: of this library).
    pub fn add_source(&mut self, name: &str, source: &str) {
        if !vetted(source) {
            self.unvetted.insert(name.into(), source.into());
        }
    }

    /// Says that the functions of this name read no table that an argument names, whosever they are.
    pub fn vouch_for(&mut self, name: &str) {
        self.unvetted.remove(name);
    }

    /// The extension, or library, that the function of this name is of and that nobody has looked into.
    pub(crate) fn unvetted(&self, schema: Option<&str>, name: &str) -> Option<&str> {
        // An extension may be in pg_catalog, but PostgreSQL's own function of that name is there, too.
        let is_builtin = schema == Some("pg_catalog") && BUILTIN.functions.contains_key(name);
        self.unvetted.get(name).filter(|_| !is_builtin).map(|source| &**source)
    }

    /// Sets the columns of `table` (`schema.name`), in order, each with its type's OID.
    pub fn set_columns(&mut self, table: &str, columns: Vec<(Arc<str>, u32)>) {
        self.columns.insert(table.into(), columns);
    }

    /// Sets which columns of `table` (`schema.name`) are generated: a COPY that lists no columns has no values of theirs.
    pub fn set_generated(&mut self, table: &str, columns: impl Iterator<Item = Arc<str>>) {
        self.generated.insert(table.into(), columns.collect());
    }

    /// Says that rows of a patient table change with those of `table` (`schema.name`).
    pub fn add_cascade(&mut self, table: &str, cascade: Cascade) {
        let known = self.cascades.entry(table.into()).or_default();
        if !known.contains(&cascade) {
            known.push(cascade);
        }
    }

    /// What hangs on the table of this name; without a schema, on any of this name.
    pub(crate) fn cascades(&self, schema: Option<&str>, name: &str) -> impl Iterator<Item = &Cascade> {
        let named = move |full: &str| match full.split_once('.') {
            Some((of, table)) => table == name && schema.is_none_or(|schema| schema == of),
            None => false,
        };
        self.cascades.iter().filter(move |(full, _)| named(full)).flat_map(|(_, cascades)| cascades)
    }

    /// Says that a relation which is not declared has the name of a declared table. `in_path`: a session may mean it
    /// without having asked for its schema.
    pub fn add_shadow(&mut self, schema: &str, name: &str, in_path: bool) {
        self.shadows.entry(name.into()).or_default().push((schema.into(), in_path));
    }

    /// The schema of an undeclared relation that this name may mean where it stands without a schema.
    pub(crate) fn shadow(&self, name: &str) -> Option<&Arc<str>> {
        self.shadows.get(name)?.iter().find(|(_, in_path)| *in_path).map(|(schema, _)| schema)
    }

    /// Whether this schema has something undeclared of a declared table's name.
    pub(crate) fn shadows(&self, schema: &str) -> bool {
        self.shadows.values().flatten().any(|(known, in_path)| **known == *schema && !in_path)
    }

    /// Sets which columns of `table` (`schema.name`) have a default or are generated.
    pub fn set_filled(&mut self, table: &str, columns: impl Iterator<Item = Arc<str>>) {
        self.filled.insert(table.into(), columns.collect());
    }

    /// The key column of `table` (`schema.name`) does not compare as patient keys do, for this reason: no statement on it
    /// can be placed.
    pub fn set_odd_key(&mut self, table: &str, why: &str) {
        self.odd_keys.insert(table.into(), why.into());
    }

    /// Why the key column of `table` (`schema.name`) does not compare as patient keys do.
    pub(crate) fn odd_key(&self, table: &str) -> Option<&Arc<str>> {
        self.odd_keys.get(table)
    }

    /// Whether servers fill this column of `table` (`schema.name`) where a row does not list it.
    pub(crate) fn is_filled(&self, table: &str, column: &str) -> bool {
        self.filled.get(table).is_some_and(|columns| columns.contains(column))
    }

    /// Whether servers compute this column of `table` (`schema.name`) themselves.
    pub(crate) fn is_generated(&self, table: &str, column: &str) -> bool {
        self.generated.get(table).is_some_and(|columns| columns.contains(column))
    }

    /// The columns of `table` (`schema.name`), where known.
    pub(crate) fn columns(&self, table: &str) -> Option<&[(Arc<str>, u32)]> {
        self.columns.get(table).map(Vec::as_slice)
    }

    /// Whether a call of this function certainly does nothing but read.
    pub(crate) fn function_reads(&self, schema: Option<&str>, name: &str) -> bool {
        let builtin = || BUILTIN.functions.get(name).copied();
        match schema {
            Some("pg_catalog") => builtin().unwrap_or(false),
            // Another schema may hold a function of a built-in's name.
            Some(_) => self.functions.get(name).copied().unwrap_or(false),
            None => match (self.functions.get(name), builtin()) {
                (Some(&own), builtin) => own && builtin.unwrap_or(true),
                (None, builtin) => builtin.unwrap_or(false),
            },
        }
    }

    /// Whether there is a function of this name, whatever it does.
    pub(crate) fn knows_function(&self, schema: Option<&str>, name: &str) -> bool {
        let own = schema != Some("pg_catalog") && self.functions.contains_key(name);
        own || schema.is_none_or(|schema| schema == "pg_catalog") && BUILTIN.functions.contains_key(name)
    }

    /// Whether PostgreSQL has an operator of this name; those only read.
    pub(crate) fn operator_reads(&self, schema: Option<&str>, name: &str) -> bool {
        schema.is_none_or(|schema| schema == "pg_catalog")
            && (BUILTIN.operators.contains(name) || matches!(name, "!=" | "~~" | "!~~"))
    }

    /// Whether PostgreSQL has a type of this name; casts to it only read.
    pub(crate) fn type_reads(&self, schema: Option<&str>, name: &str) -> bool {
        schema.is_none_or(|schema| schema == "pg_catalog") && BUILTIN.types.contains(name)
    }
}
