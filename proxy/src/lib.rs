//! PgWard: proxy.
