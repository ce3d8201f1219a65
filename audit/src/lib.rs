//! PgWard: audit.
