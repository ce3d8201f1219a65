//! Cancel requests: whom they name, where they go, and what waits for them.

pub(crate) mod key;
pub(crate) mod under_way;
