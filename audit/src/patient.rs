//! Patients as they appear in records: keyed hashes, so that the log can be read without learning who a patient is,
//! while all records of one patient can still be found by whoever holds the key.

use pgward_config::Secret;
use ring::hmac;

/// 32 lower-case hexadecimal digits in ASCII.
pub type PatientHash = [u8; 32];

/// Makes patient hashes: HMAC-SHA-256 under the key of `[audit]`, its first 128 bits. A plain hash would not do,
/// since the set of keys (8-digit numbers, say) can be tried out.
#[derive(Clone)]
pub struct PatientHasher {
    key: hmac::Key,
}

impl PatientHasher {
    /// With the key of `[audit]`.
    pub fn new(key: &Secret) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key.expose().as_bytes()) }
    }

    /// The hash of a patient key, given as canonical bytes (16 bytes of a uuid, 8 big-endian bytes of a bigint, the
    /// text itself).
    pub fn hash(&self, patient: &[u8]) -> PatientHash {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let tag = hmac::sign(&self.key, patient);
        let mut out = [0; 32];
        for (pair, byte) in out.chunks_exact_mut(2).zip(tag.as_ref()) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_the_first_half_of_hmac_sha256() {
        // RFC 4231, test case 2.
        let hasher = PatientHasher::new(&Secret::new("Jefe"));
        assert_eq!(&hasher.hash(b"what do ya want for nothing?"), b"5bdcc146bf60754e6a042426089575c7");
    }
}
