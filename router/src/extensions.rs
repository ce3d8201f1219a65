//! Extensions whose functions read nothing but their arguments.
//!
//! An extension's functions run in no statement that PgWard sees, and may read any table that an argument names; so
//! only those that were looked into are taken for granted. Those of tablefunc, xml2, dblink, pageinspect and their like
//! are left out on purpose. Trigger functions and index support are harmless to call: servers refuse that.

/// By extension; for functions in C that are of no extension, by library.
const VETTED: [&str; 49] = [
    "_int",
    "autoinc",
    "bloom",
    "bool_plperl",
    "btree_gin",
    "btree_gist",
    "citext",
    "cube",
    "dict_int",
    "dict_xsyn",
    "earthdistance",
    "fuzzystrmatch",
    "hstore",
    "hstore_plperl",
    "hstore_plperlu",
    "hstore_plpython3u",
    "insert_username",
    "intagg",
    "intarray",
    "isn",
    "jsonb_plperl",
    "jsonb_plperlu",
    "jsonb_plpython3u",
    "lo",
    "ltree",
    "ltree_plpython3u",
    "moddatetime",
    "pg_trgm",
    "pgcrypto",
    "plperl",
    "plperlu",
    "plpgsql",
    "plpython3",
    "plpython3u",
    "pltcl",
    "pltclu",
    "refint",
    "seg",
    "sslinfo",
    "tcn",
    "tsm_system_rows",
    "tsm_system_time",
    "unaccent",
    "uuid-ossp",
    "vector",
    // Figures of the server. What shows statements of other clients is refused by name.
    "pg_stat_statements",
    "pg_buffercache",
    "pg_freespacemap",
    "old_snapshot",
];

/// Whether the functions of this extension, or library, read nothing but their arguments.
pub(crate) fn vetted(source: &str) -> bool {
    VETTED.contains(&source)
}
