//! Cancel requests.

pub(crate) mod key;
