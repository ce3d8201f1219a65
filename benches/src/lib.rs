//! PgWard: benches.
