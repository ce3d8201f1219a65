//! Ports on 127.0.0.1 that nobody listens on, and that nobody takes while a server of ours is down.
//!
//! Asking the kernel for port 0 gives one of the ephemeral range (32768 and up on Linux), where any outgoing
//! connection may sit a moment later, also while a test has its server stopped. So ports are drawn from below that
//! range, tried by binding, and not given twice by one process. Another process may still be quicker; starting a
//! server therefore tries again with another port.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::{LazyLock, Mutex, PoisonError};

use anyhow::{Result, bail};

const DRAWN_FROM: Range<u16> = 15_000..32_000;

static GIVEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);

/// Whether this port can be listened on now.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// A free port that this process has not been given before.
///
/// # Errors
/// A thousand draws found none.
pub fn free() -> Result<u16> {
    for _ in 0..1000 {
        let drawn = RandomState::new().hash_one(()) % u64::from(DRAWN_FROM.end - DRAWN_FROM.start);
        let port = DRAWN_FROM.start + u16::try_from(drawn).expect("drawn below the length of a range of ports");
        if take(port) {
            return Ok(port);
        }
    }
    bail!("no free port found between {} and {}", DRAWN_FROM.start, DRAWN_FROM.end)
}

/// This port if it is free, else any other free one.
///
/// # Errors
/// As [`free`].
pub fn free_preferring(port: u16) -> Result<u16> {
    if take(port) { Ok(port) } else { free() }
}

fn take(port: u16) -> bool {
    is_free(port) && GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_taken_port_is_replaced_by_another() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(!is_free(port));
        assert_ne!(free_preferring(port).unwrap(), port);
    }

    #[test]
    fn no_port_is_given_twice() {
        let first = free().unwrap();
        assert_ne!(free_preferring(first).unwrap(), first);
    }
}
