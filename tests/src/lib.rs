//! PgWard: tests.
