//! What a statement calls: functions, operators and types, by what they may do besides reading.

use pg_raw_parse::Node;
use pg_raw_parse::list::NodeList;
use pg_raw_parse::nodes::{FuncCall, TypeName};

use super::reach;
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
            self.refuse(
                Refusal::new(RefusalKind::Unsupported, "a function is called by a name with the database in it")
                    .hint("Write the schema and the name, or the name alone."),
            );
            return;
        };
        self.called(schema, name);
        if name == "set_config" {
            self.set_config_call(call);
        }
    }

    /// `(value).name`: a function's call, too, where the value has no field of this name. One that is not known is taken
    /// for a field.
    pub(super) fn field(&mut self, name: &str) {
        if self.tables.catalog.knows_function(None, name) || reach::refusal(name).is_some() {
            self.called(None, name);
        }
    }

    fn called(&mut self, schema: Option<&str>, name: &str) {
        self.writes |= !self.tables.catalog.function_reads(schema, name);
        self.locks |= TRANSACTION_LOCKS.contains(&name);
        if self.stored {
            self.stored_call(schema, name);
        }
        if SESSION_LOCKS.contains(&name) {
            self.pins = true;
        } else if let Some(refusal) = reach::refusal(name) {
            self.refuse(refusal);
        } else if let Some(source) = self.tables.catalog.unvetted(schema, name) {
            self.refuse(reach::unvetted(name, source));
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
