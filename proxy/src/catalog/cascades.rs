//! What rows of patient tables hang on: tables of other kinds whose rows take them along when they change.

use pgward_config::{Table, TableKind};
use tokio_postgres::Client;

use super::plain;

/// Rows of a patient table that change with those of another table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveCascade {
    /// The other table, `schema.name`.
    pub table: String,
    /// The patient table, `schema.name`.
    pub patients: String,
    /// When a row of the other table is deleted.
    pub on_delete: bool,
    /// When these of its columns are updated; `None` for any.
    pub on_update: Option<Vec<String>>,
}

/// From patient tables upwards: over foreign keys that do something, from a base table to the views on it, from a child
/// to its parents. Of a way of several steps the first counts, as if the rest followed whatever happens.
pub(crate) async fn live_cascades(client: &Client, tables: &[Table]) -> anyhow::Result<Vec<LiveCascade>> {
    const QUERY: &str = "
        WITH RECURSIVE patients AS (
            SELECT c.oid, n.nspname || '.' || c.relname AS name
            FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) AS declared(schema, name)
            JOIN pg_catalog.pg_namespace n ON n.nspname = declared.schema
            JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = declared.name
        ), steps (upper, lower, on_delete, columns) AS (
            SELECT f.confrelid, f.conrelid, f.confdeltype IN ('c', 'n', 'd'),
                   CASE WHEN f.confupdtype IN ('c', 'n', 'd') THEN f.confkey ELSE '{}'::int2[] END
            FROM pg_catalog.pg_constraint f
            WHERE f.contype = 'f' AND (f.confdeltype IN ('c', 'n', 'd') OR f.confupdtype IN ('c', 'n', 'd'))
            UNION ALL
            SELECT r.ev_class, d.refobjid, true, NULL
            FROM pg_catalog.pg_rewrite r
            JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
            JOIN pg_catalog.pg_class v ON v.oid = r.ev_class AND v.relkind = 'v'
            WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid <> r.ev_class
            UNION ALL
            SELECT i.inhparent, i.inhrelid, true, NULL FROM pg_catalog.pg_inherits i
        ), reach (upper, patients, on_delete, columns) AS (
            SELECT s.upper, p.name, s.on_delete, s.columns FROM steps s JOIN patients p ON p.oid = s.lower
            UNION
            SELECT s.upper, r.patients, s.on_delete, s.columns FROM steps s JOIN reach r ON r.upper = s.lower
        )
        SELECT n.nspname || '.' || c.relname, r.patients, r.on_delete,
               CASE WHEN r.columns IS NOT NULL THEN ARRAY(
                   SELECT a.attname::text FROM pg_catalog.pg_attribute a
                   WHERE a.attrelid = c.oid AND a.attnum = ANY (r.columns) ORDER BY a.attnum) END
        FROM reach r
        JOIN pg_catalog.pg_class c ON c.oid = r.upper
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid NOT IN (SELECT p.oid FROM patients p)
        ORDER BY 1, 2, 3, 4";
    let patients = || tables.iter().filter(|table| table.kind == TableKind::Patient);
    let schemas: Vec<&str> = patients().map(|table| &*table.schema).collect();
    let names: Vec<&str> = patients().map(|table| &*table.name).collect();
    let rows = client.query(QUERY, &[&schemas, &names]).await.map_err(plain)?;
    let cascade = |row: &tokio_postgres::Row| LiveCascade {
        table: row.get(0),
        patients: row.get(1),
        on_delete: row.get(2),
        on_update: row.get(3),
    };
    Ok(rows.iter().map(cascade).collect())
}
