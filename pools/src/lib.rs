//! PgWard: pools.
