//! Hashes of patient keys: one that places (strategy `hash`), one that hides (directory and audit).
//!
//! Both see a key's canonical bytes: the 16 bytes of a uuid, a bigint as 8 bytes big endian, text as it is. The placing
//! hash decides which shard holds a patient, so its value is part of the stored data: it never changes.

use ring::hmac;
use xxhash_rust::xxh3::xxh3_64;

use crate::evidence::PatientKey;

/// The placing hash: XXH3-64 with seed 0 over the key's canonical bytes.
pub fn hash_key(key: &PatientKey) -> u64 {
    match key {
        PatientKey::Uuid(bytes) => xxh3_64(bytes),
        PatientKey::Bigint(number) => xxh3_64(&number.to_be_bytes()),
        PatientKey::Text(bytes) => xxh3_64(bytes),
    }
}

/// The hiding hash: HMAC-SHA256 over a byte for domain and type, then the key's canonical bytes.
///
/// The leading byte keeps apart a uuid and a text of the same bytes, and (should an operator give both the same secret)
/// the hashes in the directory and those in the audit log.
pub struct PatientHasher {
    key: hmac::Key,
    domain: u8,
}

impl PatientHasher {
    /// For audit records: leading byte 1 (uuid), 2 (bigint), 3 (text).
    pub fn new(secret: &[u8]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret), domain: 0 }
    }

    /// For the directory: leading byte 0x11, 0x12, 0x13.
    pub fn for_directory(secret: &[u8]) -> Self {
        Self { domain: 0x10, ..Self::new(secret) }
    }

    /// The keyed hash of a patient.
    pub fn hash(&self, key: &PatientKey) -> [u8; 32] {
        let number;
        let (kind, bytes): (u8, &[u8]) = match key {
            PatientKey::Uuid(bytes) => (1, bytes),
            PatientKey::Bigint(value) => {
                number = value.to_be_bytes();
                (2, &number)
            }
            PatientKey::Text(bytes) => (3, bytes),
        };
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&[self.domain | kind]);
        context.update(bytes);
        let mut hash = [0; 32];
        hash.copy_from_slice(context.sign().as_ref());
        hash
    }

    /// The first 16 bytes of the keyed hash as 32 lower-case hexadecimal digits: how audit records name a patient.
    pub fn hex(&self, key: &PatientKey) -> [u8; 32] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let hash = self.hash(key);
        let mut hex = [0; 32];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(hash) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        hex
    }
}

impl std::fmt::Debug for PatientHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PatientHasher(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> PatientKey {
        PatientKey::Text(text.as_bytes().into())
    }

    #[test]
    fn the_placing_hash_never_changes() {
        for (key, expected) in [
            (text(""), 0x2D06_8005_38D3_94C2),
            (PatientKey::Uuid([0; 16]), 0xD0A6_6A65_C752_8968),
            (PatientKey::Bigint(1), 0xF36B_4A1A_44F7_8BF3),
            (PatientKey::Bigint(-1), 0x5111_C7E4_7D78_4413),
            (text("MRN-0001"), 0xB485_8F83_194E_824C),
        ] {
            assert_eq!(hash_key(&key), expected);
        }
    }

    #[test]
    fn types_and_domains_do_not_collide() {
        let audit = PatientHasher::new(b"secret");
        let directory = PatientHasher::for_directory(b"secret");
        let uuid = PatientKey::Uuid([b'a'; 16]);
        let same_bytes = text("aaaaaaaaaaaaaaaa");
        assert_ne!(audit.hash(&uuid), audit.hash(&same_bytes));
        assert_ne!(audit.hash(&uuid), directory.hash(&uuid));
        assert_ne!(audit.hash(&uuid), PatientHasher::new(b"other").hash(&uuid));
        assert_eq!(audit.hash(&uuid), PatientHasher::new(b"secret").hash(&uuid));
    }

    #[test]
    fn hex_is_the_head_of_the_hash() {
        let hasher = PatientHasher::new(b"secret");
        let hex = hasher.hex(&text("x"));
        let expected: String = hasher.hash(&text("x"))[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(&hex[..], expected.as_bytes());
    }
}
