//! Cancel keys: made at login, told back by a CancelRequest, without a socket.
//!
//! A key names the instance that made it, so that a request which reaches another one can be passed on, and carries how
//! often it may still be. Process ids are random rather than counted: of a short key little is left beside the
//! instance and the hops, and only with the process id is it too much to guess.
//!
//! ```text
//! protocol 3.0    process id  31 random bits, unique among the sessions
//!                 key         instance (2 bytes), 14 random bits, hops (2 bits)
//! protocol 3.2    process id  as above
//!                 key         version (1), instance (2), hops (1), 28 random bytes
//! ```

/// How often a request may be passed on. One hop is what a deployment needs; more are there for lists of peers that
/// are being changed, and a limit for those that are wrong.
pub(crate) const HOPS: u8 = 3;
/// Length of a key of protocol 3.2.
pub(crate) const LONG: usize = 32;
/// Length of a key of protocol 3.0, which has no other.
const SHORT: usize = 4;
/// The first byte of a long key.
const VERSION: u8 = 1;
/// Where the hops of a short key are in its last byte.
const SHORT_HOPS: u8 = 0b11;

/// A key for a client of this minor version, made of these random bytes.
pub(crate) fn make(random: [u8; LONG], instance: u16, minor: u16) -> Box<[u8]> {
    let [high, low] = instance.to_be_bytes();
    if minor < 2 {
        let [.., first, last] = random;
        return Box::new([high, low, first, (last & !SHORT_HOPS) | HOPS]);
    }
    let mut key = random;
    key[..4].copy_from_slice(&[VERSION, high, low, HOPS]);
    Box::new(key)
}

/// A key for a client of this minor version that names no instance: beside a process id that is the server's own, which
/// others can read, all of a short key must be random.
pub(crate) fn alone(random: [u8; LONG], minor: u16) -> Box<[u8]> {
    if minor >= 2 {
        return make(random, 0, minor);
    }
    let [.., a, b, c, d] = random;
    Box::new([a, b, c, d])
}

/// The instance that a key names; `None` for a key that no PgWard made.
pub(crate) fn instance(key: &[u8]) -> Option<u16> {
    match key {
        [high, low, _, _] => Some(u16::from_be_bytes([*high, *low])),
        [VERSION, high, low, _, ..] if key.len() == LONG => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    }
}

/// The key with one hop less; `None` when it has none left.
pub(crate) fn passed_on(key: &[u8]) -> Option<Box<[u8]>> {
    let (at, mask) = hops_of(key)?;
    let left = (key[at] & mask).checked_sub(1)?;
    let mut key: Box<[u8]> = key.into();
    key[at] = (key[at] & !mask) | left;
    Some(key)
}

/// Whether a key that was told is the one that was made, whatever hops it has come by. The time that this takes does
/// not tell where they differ.
pub(crate) fn same(made: &[u8], told: &[u8]) -> bool {
    let Some((at, mask)) = hops_of(made) else { return false };
    let differs = |n: usize, bits: u8| if n == at { bits & !mask } else { bits };
    made.len() == told.len()
        && made.iter().zip(told).enumerate().fold(0, |all, (n, (a, b))| all | differs(n, a ^ b)) == 0
}

/// The byte that holds a key's hops, and which of its bits they are.
fn hops_of(key: &[u8]) -> Option<(usize, u8)> {
    match key.len() {
        SHORT => Some((SHORT - 1, SHORT_HOPS)),
        LONG => Some((3, 0xff)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_names_its_instance_in_either_protocol() {
        for (minor, len) in [(0, SHORT), (2, LONG)] {
            for named in [0, 1, 258, u16::MAX] {
                let key = make([0xa5; LONG], named, minor);
                assert_eq!((key.len(), instance(&key)), (len, Some(named)));
            }
        }
    }

    #[test]
    fn it_is_passed_on_so_often_and_is_still_the_same() {
        for minor in [0, 2] {
            let made = make([0x5a; LONG], 7, minor);
            let mut key = made.clone();
            for _ in 0..HOPS {
                key = passed_on(&key).unwrap();
                assert!(same(&made, &key));
                assert_eq!(instance(&key), Some(7));
            }
            assert_eq!(passed_on(&key), None);
        }
    }

    #[test]
    fn any_other_bit_makes_another_key() {
        for (minor, hops) in [(0, 30..32), (2, 24..32)] {
            let made = make([0x3c; LONG], 7, minor);
            for bit in 0..made.len() * 8 {
                let mut told = made.to_vec();
                told[bit / 8] ^= 0x80 >> (bit % 8);
                assert_eq!(same(&made, &told), hops.contains(&bit), "minor {minor}, bit {bit}");
            }
            assert!(!same(&made, &made[1..]));
            assert!(!same(&made, &[&made[..], &[0]].concat()));
        }
    }

    #[test]
    fn keys_of_others_name_nobody() {
        for key in [vec![], vec![1; 3], vec![1; 5], vec![1; 31], vec![1; 33], vec![2; LONG], vec![1; 256]] {
            assert_eq!((instance(&key), key.len() == LONG || passed_on(&key).is_none()), (None, true), "{key:?}");
        }
    }
}
