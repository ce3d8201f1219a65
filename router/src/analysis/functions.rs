//! What a statement calls: functions, operators and types, by what they may do besides reading.

use pg_raw_parse::Node;
use pg_raw_parse::list::NodeList;
use pg_raw_parse::nodes::{FuncCall, TypeName};

use super::walk::Walk;
use crate::refusal::{Refusal, RefusalKind};

/// Advisory locks that outlive the transaction. What gives them back leaves nothing behind: a session that holds none
/// need not keep a server for it (pools of drivers unlock all whenever they take a connection back).
const SESSION_LOCKS: [&str; 4] =
    ["pg_advisory_lock", "pg_advisory_lock_shared", "pg_try_advisory_lock", "pg_try_advisory_lock_shared"];

/// Advisory locks that end with the transaction.
const TRANSACTION_LOCKS: [&str; 4] = [
    "pg_advisory_xact_lock",
    "pg_advisory_xact_lock_shared",
    "pg_try_advisory_xact_lock",
    "pg_try_advisory_xact_lock_shared",
];

/// Functions that run SQL, or read tables, that their arguments name: nobody can tell whose records.
const RUN_SQL: [&str; 24] = [
    "query_to_xml",
    "query_to_xmlschema",
    "query_to_xml_and_xmlschema",
    "table_to_xml",
    "table_to_xml_and_xmlschema",
    "schema_to_xml",
    "schema_to_xml_and_xmlschema",
    "database_to_xml",
    "database_to_xml_and_xmlschema",
    "cursor_to_xml",
    "cursor_to_xmlschema",
    "ts_stat",
    "ts_rewrite",
    "dblink",
    "dblink_exec",
    "dblink_open",
    "dblink_send_query",
    "crosstab",
    "crosstab2",
    "crosstab3",
    "crosstab4",
    "connectby",
    "xpath_table",
    "pg_logical_slot_get_changes",
];

/// Functions that show statements of other clients, or the rows that they changed.
const SHOW_OTHERS: [&str; 8] = [
    "pg_stat_get_activity",
    "pg_stat_get_backend_activity",
    "pg_prepared_statement",
    "pg_stat_statements",
    "pg_get_backend_memory_contexts",
    "pg_logical_slot_get_binary_changes",
    "pg_logical_slot_peek_changes",
    "pg_logical_slot_peek_binary_changes",
];

/// Functions that end other clients' statements or sessions.
const END_OTHERS: [&str; 2] = ["pg_cancel_backend", "pg_terminate_backend"];

/// The schema, if any, and the name; `None` for what is no plain name.
pub(super) fn qualified(names: &NodeList) -> Option<(Option<&str>, &str)> {
    let mut parts = names.iter().map(Node::as_str);
    match (parts.next()?, parts.next(), parts.next()) {
        (name, None, _) => Some((None, name?)),
        (schema, Some(name), None) => Some((Some(schema?), name?)),
        _ => None,
    }
}

impl<'t> Walk<'t> {
    /// A call of a function.
    pub(super) fn call(&mut self, call: &'t FuncCall) {
        self.saw(call);
        let Some((schema, name)) = qualified(call.funcname()) else {
            self.writes = true;
            return;
        };
        self.writes |= !self.tables.catalog.function_reads(schema, name);
        self.locks |= TRANSACTION_LOCKS.contains(&name);
        if self.stored {
            self.stored_call(schema, name);
        }
        if SESSION_LOCKS.contains(&name) {
            self.pins = true;
        } else if RUN_SQL.contains(&name) {
            self.refuse(
                Refusal::new(RefusalKind::Unplaceable, format!("{name} reads what its arguments name"))
                    .hint("Name the tables and the patient in the statement itself."),
            );
        } else if SHOW_OTHERS.contains(&name) {
            self.refuse(
                Refusal::new(RefusalKind::NoPatient, format!("{name} shows statements of other clients"))
                    .hint("Ask the shard's own server."),
            );
        } else if END_OTHERS.contains(&name) {
            let message = format!("{name} would reach whichever client the server works for");
            self.refuse(Refusal::new(RefusalKind::Unsupported, message).hint(
                "Cancel a statement by a cancel request (in psql: Ctrl-C); end sessions on the shard's own server.",
            ));
        } else if name == "set_config" {
            self.set_config_call(call);
        }
    }

    /// A call that a definition keeps for later: nobody sees it then.
    pub(super) fn stored_call(&mut self, schema: Option<&str>, name: &str) {
        if SESSION_LOCKS.contains(&name) || TRANSACTION_LOCKS.contains(&name) || name == "set_config" {
            self.refuse(
                Refusal::new(RefusalKind::Unplaceable, format!("{name} would run in statements that do not show it"))
                    .hint("Call it in a statement of its own."),
            );
        } else if !self.tables.undeclared_are_local() && !self.tables.catalog.knows_function(schema, name) {
            let message =
                format!("the function {name}, which is not known, would run in statements that do not show it");
            self.refuse(Refusal::new(RefusalKind::Unplaceable, message).hint(
                "Make the function on each shard first and reload the proxy, or declare it under [[functions]].",
            ));
        }
    }

    /// An operator, by its name.
    pub(super) fn operator(&mut self, names: &'t NodeList) {
        let reads = match qualified(names) {
            // LIKE, BETWEEN and others have words for names; IN without an operator has none.
            Some((schema, name)) => {
                name.bytes().any(|b| b.is_ascii_alphabetic()) || self.tables.catalog.operator_reads(schema, name)
            }
            None => names.is_empty(),
        };
        self.writes |= !reads;
    }

    /// A type that something is cast to or read as.
    pub(super) fn type_name(&mut self, name: &'t TypeName) {
        let mut parts = name.names().iter().map(|part| part.sval());
        let reads = match (parts.next().flatten(), parts.next(), parts.next()) {
            (Some(name), None, _) => self.tables.catalog.type_reads(None, name),
            (schema @ Some(_), Some(Some(name)), None) => self.tables.catalog.type_reads(schema, name),
            _ => false,
        };
        self.writes |= !reads || name.pct_type;
    }
}
