//! The declared tables, found by the names that statements use for them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use pgward_config::{Config, KeyType, Strategy, TableKind, Undeclared};
use smallvec::SmallVec;

use crate::catalog::Catalog;
use crate::refusal::{Refusal, RefusalKind};
use crate::statement::Setting;

/// A table as the analysis sees it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TableInfo {
    /// `schema.name`
    pub(crate) full: Arc<str>,
    pub(crate) schema: Arc<str>,
    pub(crate) kind: TableKind,
    /// Column of the patient key; `Some` exactly for patient tables.
    pub(crate) key: Option<Arc<str>>,
    /// Column of the patient's region.
    pub(crate) region: Option<Arc<str>>,
    /// The same, where new rows' regions are held against the directory.
    pub(crate) stated: Option<Arc<str>>,
    /// Why the key column does not compare as patient keys do.
    pub(crate) odd_key: Option<Arc<str>>,
    /// Servers fill the region column by themselves where a row does not list it.
    pub(crate) fills_region: bool,
    /// All columns in order, where known.
    pub(crate) columns: Option<Arc<[Arc<str>]>>,
    /// Those that the rows of a COPY have when it lists none: all but generated ones.
    pub(crate) copied: Option<Arc<[Arc<str>]>>,
}

/// What a name in a statement stands for.
#[derive(Clone, Debug)]
pub(crate) enum Named {
    Table(Arc<TableInfo>),
    /// A table of pg_catalog or information_schema.
    Catalog,
    /// A catalog table that holds values of other tables' columns.
    Statistics,
    /// A table that the configuration does not name: `schema.name`.
    Undeclared(Arc<str>),
    /// Tables of several schemas, of different kinds, have this name.
    Several,
    /// A table has this name, and something in this schema that the configuration does not name.
    Shadowed(Arc<str>),
}

/// All that the analysis knows besides the statement.
#[derive(Debug)]
pub(crate) struct Tables {
    by_name: HashMap<Arc<str>, SmallVec<[Arc<TableInfo>; 1]>>,
    schemas: HashSet<Arc<str>>,
    undeclared: Undeclared,
    plain: bool,
    pub(crate) key_type: KeyType,
    pub(crate) catalog: Catalog,
}

impl Tables {
    pub(crate) fn new(config: &Config, catalog: &Catalog) -> Self {
        let mut by_name: HashMap<Arc<str>, SmallVec<[Arc<TableInfo>; 1]>> = HashMap::new();
        for table in &config.tables {
            let full: Arc<str> = format!("{}.{}", table.schema, table.name).into();
            let live = catalog.columns(&full).map(|columns| columns.iter().map(|(name, _)| name.clone()).collect());
            let columns: Option<Arc<[Arc<str>]>> = live.or_else(|| table.columns.as_deref().map(Into::into));
            let is_copied = |name: &&Arc<str>| !catalog.is_generated(&full, name);
            let copied = columns.as_ref().map(|columns| columns.iter().filter(is_copied).cloned().collect());
            let info = TableInfo {
                schema: table.schema.clone(),
                kind: table.kind,
                key: table.key.clone(),
                region: table.region.clone(),
                stated: table.region.clone().filter(|_| config.sharding.strategy == Strategy::PatientRegion),
                odd_key: catalog.odd_key(&full).filter(|_| table.kind == TableKind::Patient).cloned(),
                fills_region: table.region.as_deref().is_some_and(|region| catalog.is_filled(&full, region)),
                columns,
                copied,
                full,
            };
            by_name.entry(table.name.clone()).or_default().push(Arc::new(info));
        }
        let mut catalog = catalog.clone();
        for function in &config.functions {
            catalog.add_function(&function.name, function.reads_only);
            catalog.vouch_for(&function.name);
        }
        Self {
            by_name,
            schemas: config.tables.iter().map(|table| table.schema.clone()).collect(),
            undeclared: config.sharding.undeclared_tables,
            plain: config.plain.is_some(),
            key_type: config.sharding.key_type,
            catalog,
        }
    }

    /// Whether nothing is routed.
    pub(crate) fn is_plain(&self) -> bool {
        self.plain
    }

    /// Whether undeclared tables are taken for local ones.
    pub(crate) fn undeclared_are_local(&self) -> bool {
        self.undeclared == Undeclared::Local
    }

    /// What `schema.name` or `name` stands for. A bare name is looked for in all declared schemas, whatever the
    /// search_path: it is the table only when there is no doubt.
    pub(crate) fn find(&self, schema: Option<&str>, name: &str) -> Named {
        let declared = self.by_name.get(name).map(SmallVec::as_slice).unwrap_or_default();
        match schema {
            // Of an extension, which may be in any schema.
            Some(_) if name == "pg_stat_statements" => Named::Statistics,
            Some("pg_catalog") => catalog_table(name),
            Some("information_schema") => Named::Catalog,
            Some(schema) => match declared.iter().find(|table| *table.schema == *schema) {
                Some(table) => Named::Table(table.clone()),
                None => Named::Undeclared(format!("{schema}.{name}").into()),
            },
            None => match declared {
                [] if name.starts_with("pg_") => catalog_table(name),
                [] => Named::Undeclared(format!("public.{name}").into()),
                _ if let Some(schema) = self.catalog.shadow(name) => Named::Shadowed(schema.clone()),
                [first, rest @ ..] => {
                    let alike = |table: &Arc<TableInfo>| {
                        table.kind == first.kind
                            && table.key == first.key
                            && table.region == first.region
                            && table.fills_region == first.fills_region
                            && table.odd_key == first.odd_key
                            && table.columns == first.columns
                    };
                    let public = declared.iter().find(|table| &*table.schema == "public");
                    if rest.iter().all(alike) { Named::Table(public.unwrap_or(first).clone()) } else { Named::Several }
                }
            },
        }
    }

    /// Whether a relation of this name would stand in a declared table's place where a statement writes no schema.
    pub(crate) fn would_shadow(&self, schema: Option<&str>, name: &str) -> bool {
        let declared = self.by_name.get(name).map(SmallVec::as_slice).unwrap_or_default();
        schema.is_some_and(|schema| !declared.is_empty() && declared.iter().all(|table| *table.schema != *schema))
    }

    /// The declared table that a name stands for, if it certainly is one.
    pub(crate) fn declared(&self, schema: Option<&str>, name: &str) -> Option<Arc<TableInfo>> {
        match self.find(schema, name) {
            Named::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The key column of `schema.name`.
    pub(crate) fn key_of(&self, full: &str) -> Option<Arc<str>> {
        let (schema, name) = full.split_once('.')?;
        self.declared(Some(schema), name)?.key.clone()
    }

    /// Refuses the settings that would make the servers read statements otherwise than this analysis does.
    pub(crate) fn guard(&self, setting: &Setting, values: &[String]) -> Result<(), Refusal> {
        let first = values.first().map(String::as_str);
        let refuse =
            |message: String, hint: &'static str| Err(Refusal::new(RefusalKind::Unsupported, message).hint(hint));
        match &*setting.name {
            "standard_conforming_strings" => match first.map(str::to_ascii_lowercase).as_deref() {
                None | Some("on" | "true" | "yes" | "1") => Ok(()),
                Some(_) => refuse(
                    "standard_conforming_strings cannot be switched off".into(),
                    "Write strings with backslash escapes as E'…'.",
                ),
            },
            "client_encoding" => {
                let plain = |name: &str| -> String {
                    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
                };
                match first.map(plain).as_deref() {
                    None | Some("utf8" | "unicode") => Ok(()),
                    Some(_) => refuse("client_encoding can only be UTF8".into(), "Convert the text in the client."),
                }
            }
            "search_path" => {
                // '"$user", public' as one string is a list too.
                let parts: Vec<&str> = match values {
                    [list] => list.split(',').map(|part| part.trim().trim_matches('"')).collect(),
                    parts => parts.iter().map(String::as_str).collect(),
                };
                if values.len() == 1 && values.iter().any(|list| has_quoted_comma(list)) {
                    return refuse(
                        "search_path names a schema with a comma in its name".into(),
                        "Name its tables with their schema.",
                    );
                }
                self.guard_search_path(&parts)
            }
            _ => Ok(()),
        }
    }

    /// Bare names must stand for declared tables, and tables made by bare names must not be temporary without it being
    /// seen: of the schemas that are there, the first is where they are made.
    fn guard_search_path(&self, schemas: &[&str]) -> Result<(), Refusal> {
        let mut is_there = false;
        for schema in schemas {
            let folded = schema.to_ascii_lowercase();
            if is_temporary(&folded) && !is_there {
                return Err(Refusal::new(
                    RefusalKind::Unsupported,
                    "search_path would make temporary tables of those that are created without a schema",
                )
                .hint("Put a schema of declared tables before pg_temp, and write CREATE TEMPORARY TABLE."));
            }
            let known = matches!(&*folded, "" | "public" | "pg_catalog" | "information_schema" | "pg_temp" | "$user")
                || self.schemas.contains(*schema);
            if !known && !self.undeclared_are_local() {
                // Which one is a value of the statement's.
                let message = "search_path names a schema of which no table is declared";
                return Err(Refusal::new(RefusalKind::Unsupported, message)
                    .hint("Declare its tables under [[tables]], or name them with their schema."));
            }
            if self.catalog.shadows(schema) || self.catalog.shadows(&folded) {
                let message = format!(
                    "search_path names the schema \"{schema}\", in which a declared table's name means another"
                );
                return Err(Refusal::new(RefusalKind::Unsupported, message).hint("Name its tables with their schema."));
            }
            is_there |= *schema == "pg_catalog" || self.schemas.contains(*schema);
        }
        Ok(())
    }

    /// The same for a setting that set_config changes for the session; what the proxy keeps is left to SET itself.
    pub(crate) fn guard_session_setting(&self, name: &str, value: String) -> Result<(), Refusal> {
        const KEPT: [&str; 4] =
            ["session_authorization", "transaction_isolation", "transaction_read_only", "transaction_deferrable"];
        if KEPT.contains(&name) || name.starts_with("pgward.") {
            return Err(kept());
        }
        self.guard(&Setting { name: name.into(), values: SmallVec::new(), local: false }, &[value])
    }

    /// Refuses set_config of a setting that the proxy keeps or that decides how statements are read.
    pub(crate) fn guard_set_config(&self, name: &str) -> Result<(), Refusal> {
        const KEPT: [&str; 5] =
            ["role", "session_authorization", "search_path", "standard_conforming_strings", "client_encoding"];
        let name = name.to_ascii_lowercase();
        if KEPT.contains(&&*name) || name.starts_with("pgward.") {
            return Err(kept());
        }
        Ok(())
    }
}

/// The schema of a session's temporary objects: what is in it stays in the server.
pub(super) fn is_temporary(schema: &str) -> bool {
    schema == "pg_temp" || schema.starts_with("pg_temp_")
}

/// A comma that ends no entry of a list.
fn has_quoted_comma(list: &str) -> bool {
    list.split(',').any(|part| part.matches('"').count() % 2 == 1)
}

fn kept() -> Refusal {
    Refusal::new(RefusalKind::Unsupported, "this setting cannot be changed by set_config").hint("Use SET.")
}

/// Statistics, large objects and texts of statements hold values of patients' rows.
fn catalog_table(name: &str) -> Named {
    match name {
        "pg_statistic"
        | "pg_stats"
        | "pg_statistic_ext_data"
        | "pg_stats_ext"
        | "pg_stats_ext_exprs"
        | "pg_stat_statements"
        | "pg_backend_memory_contexts"
        | "pg_largeobject" => Named::Statistics,
        _ => Named::Catalog,
    }
}
