//! Functions that reach further than what their statement shows: rows that only an argument names, statements of other
//! clients, files of the server.
//!
//! PostgreSQL's own are listed here by going through its pg_proc, those of its contrib modules so that they are known
//! without a server, too. What else the extensions of a server bring is told by its catalog
//! ([`vetted`](crate::extensions::vetted)).

use crate::refusal::{Refusal, RefusalKind};

/// Run SQL that an argument holds, or read or change the table, index, cursor, page or slot that it names.
const BY_ARGUMENT: [&str; 48] = [
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
    "currtid",
    "currtid2",
    "brin_summarize_new_values",
    "brin_summarize_range",
    "brin_desummarize_range",
    "gin_clean_pending_list",
    "pg_logical_slot_get_changes",
    // tablefunc, xml2
    "connectby",
    "xpath_table",
    // pageinspect, pg_walinspect
    "get_raw_page",
    "heap_page_items",
    "heap_page_item_attrs",
    "tuple_data_split",
    "fsm_page_contents",
    "bt_metap",
    "bt_page_items",
    "bt_page_stats",
    "bt_multi_page_stats",
    "hash_bitmap_info",
    "pg_get_wal_record_info",
    "pg_get_wal_records_info",
    "pg_get_wal_records_info_till_end_of_wal",
    "pg_get_wal_block_info",
    // pg_surgery, amcheck, pgrowlocks, pgstattuple
    "heap_force_kill",
    "heap_force_freeze",
    "verify_heapam",
    "bt_index_check",
    "bt_index_parent_check",
    "gin_index_check",
    "pgrowlocks",
    "pgstattuple",
    "pgstattuple_approx",
    "pgstatindex",
    "pgstatginindex",
    "pgstathashindex",
];

/// Families of such functions, by how their names begin: dblink's, tablefunc's, pg_visibility's.
const BY_ARGUMENT_FAMILIES: [&str; 4] = ["dblink", "crosstab", "pg_visibility", "pg_truncate_visibility_map"];

/// Show statements of other clients, or the rows that they changed.
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

/// End other clients' statements or sessions.
const END_OTHERS: [&str; 2] = ["pg_cancel_backend", "pg_terminate_backend"];

/// Read or write files of the server, those with the tables' rows among them.
const FILES: [&str; 9] = [
    "pg_read_file",
    "pg_read_file_old",
    "pg_read_binary_file",
    "lo_import",
    "lo_export",
    "pg_file_read",
    "pg_file_write",
    "pg_file_rename",
    "pg_file_unlink",
];

/// Why no statement may call a function of this name, if so.
pub(super) fn refusal(name: &str) -> Option<Refusal> {
    let unplaceable = |message: String| Refusal::new(RefusalKind::Unplaceable, message);
    if BY_ARGUMENT.contains(&name) || BY_ARGUMENT_FAMILIES.iter().any(|family| name.starts_with(family)) {
        let refusal = unplaceable(format!("{name} reads what its arguments name"));
        return Some(refusal.hint("Name the tables and the patient in the statement itself."));
    }
    if FILES.contains(&name) {
        let refusal = unplaceable(format!("{name} reads or writes files of the server"));
        return Some(refusal.hint("Do it on the shard's own server."));
    }
    if is_large_object(name) {
        let refusal = unplaceable(format!("{name} is about large objects, which are of no patient in particular"));
        return Some(refusal.hint("Keep documents in a bytea column of a patient table."));
    }
    if SHOW_OTHERS.contains(&name) {
        let message = format!("{name} shows statements of other clients");
        return Some(Refusal::new(RefusalKind::NoPatient, message).hint("Ask the shard's own server."));
    }
    if END_OTHERS.contains(&name) {
        let message = format!("{name} would reach whichever client the server works for");
        return Some(Refusal::new(RefusalKind::Unsupported, message).hint(
            "Cancel a statement by a cancel request (in psql: Ctrl-C); end sessions on the shard's own server.",
        ));
    }
    None
}

/// PostgreSQL's own functions for large objects (`lo_manage` and `lo_oid` are an extension's, and read nothing).
fn is_large_object(name: &str) -> bool {
    const REST: [&str; 15] = [
        "creat",
        "create",
        "open",
        "close",
        "lseek",
        "lseek64",
        "tell",
        "tell64",
        "truncate",
        "truncate64",
        "unlink",
        "get",
        "put",
        "from_bytea",
        "read",
    ];
    matches!(name, "loread" | "lowrite") || name.strip_prefix("lo_").is_some_and(|rest| REST.contains(&rest))
}

/// A function of an extension, or of a library, that nobody has looked into.
pub(super) fn unvetted(name: &str, source: &str) -> Refusal {
    Refusal::new(
        RefusalKind::Unplaceable,
        format!("the function {name} is of {source}, whose functions may read tables that no statement names"),
    )
    .detail("PgWard does not know this extension.")
    .hint("Where it reads nothing but its arguments, declare it under [[functions]].")
}
