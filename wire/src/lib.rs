//! PgWard: wire.
