//! Values of literals and parameters, read as PostgreSQL reads them.
//!
//! Decoding is strict: what PostgreSQL might read differently from release to release, or only with settings that we do
//! not see, is not decoded at all, and the statement is refused. A key is never guessed.

use pgward_config::KeyType;

use crate::evidence::{Params, PatientKey};
use crate::statement::{Literal, LiteralKind};

mod arrays;
mod literals;

pub(crate) use arrays::{element_of, keys_from_array_param, keys_from_array_text};
pub(crate) use literals::literal_text;

/// OIDs of the types that a patient key may be sent as.
pub(crate) mod oid {
    pub(crate) const INT8: u32 = 20;
    pub(crate) const INT2: u32 = 21;
    pub(crate) const INT4: u32 = 23;
    pub(crate) const TEXT: u32 = 25;
    pub(crate) const UNKNOWN: u32 = 705;
    pub(crate) const INT2_ARRAY: u32 = 1005;
    pub(crate) const INT4_ARRAY: u32 = 1007;
    pub(crate) const TEXT_ARRAY: u32 = 1009;
    pub(crate) const VARCHAR_ARRAY: u32 = 1015;
    pub(crate) const INT8_ARRAY: u32 = 1016;
    pub(crate) const VARCHAR: u32 = 1043;
    pub(crate) const UUID: u32 = 2950;
    pub(crate) const UUID_ARRAY: u32 = 2951;
}

/// A key from its text form, by the rules of uuid_in, int8in and textin.
pub(crate) fn key_from_text(text: &[u8], key_type: KeyType) -> Option<PatientKey> {
    match key_type {
        KeyType::Uuid => uuid(text).map(PatientKey::Uuid),
        KeyType::Bigint => bigint(text).map(PatientKey::Bigint),
        KeyType::Text => (!text.contains(&0)).then(|| PatientKey::Text(text.into())),
    }
}

/// A key from a literal. Numbers are no text and no uuid; strings are whatever the key's type is.
pub(crate) fn key_from_literal(sql: &[u8], literal: &Literal, negative: bool, key_type: KeyType) -> Option<PatientKey> {
    match literal.kind {
        LiteralKind::Numeric | LiteralKind::Bit => None,
        LiteralKind::Integer if key_type != KeyType::Bigint => None,
        LiteralKind::Integer => {
            let digits = sql.get(literal.start as usize..literal.end as usize)?;
            let value = digits.iter().try_fold(0i64, |value, digit| {
                value.checked_mul(10)?.checked_sub(i64::from(digit.checked_sub(b'0').filter(|d| *d < 10)?))
            })?;
            Some(PatientKey::Bigint(if negative { value } else { value.checked_neg()? }))
        }
        _ if negative => None,
        _ => key_from_text(&literal_text(sql, literal)?, key_type),
    }
}

/// uuid_in: 32 hexadecimal digits, a hyphen allowed behind each group of four, braces around it allowed.
fn uuid(text: &[u8]) -> Option<[u8; 16]> {
    if let Ok(text) = text.try_into() {
        return usual_uuid(text).or_else(|| any_uuid(text));
    }
    any_uuid(text)
}

/// The form in which PostgreSQL prints it, without a branch for each digit.
fn usual_uuid(text: &[u8; 36]) -> Option<[u8; 16]> {
    const AT: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let hyphens = [8, 13, 18, 23].iter().all(|&at| text[at] == b'-');
    let mut wrong = 0;
    let bytes = AT.map(|at| {
        let (high, low) = (NIBBLES[usize::from(text[at])], NIBBLES[usize::from(text[at + 1])]);
        wrong |= high | low;
        high << 4 | low
    });
    (hyphens && wrong < 16).then_some(bytes)
}

fn any_uuid(text: &[u8]) -> Option<[u8; 16]> {
    let digits = match text.strip_prefix(b"{") {
        Some(rest) => rest.strip_suffix(b"}")?,
        None => text,
    };
    let (mut bytes, mut at) = ([0u8; 16], 0);
    for (i, byte) in bytes.iter_mut().enumerate() {
        let pair = digits.get(at..at + 2)?;
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        at += 2;
        if i % 2 == 1 && i < 15 && digits.get(at) == Some(&b'-') {
            at += 1;
        }
    }
    (at == digits.len()).then_some(bytes)
}

/// The value of each hexadecimal digit; 16 for what is none.
static NIBBLES: [u8; 256] = {
    let mut nibbles = [16; 256];
    let mut value = 0;
    while value < 16 {
        let digit = b"0123456789abcdef"[value];
        nibbles[digit as usize] = value as u8;
        nibbles[digit.to_ascii_uppercase() as usize] = value as u8;
        value += 1;
    }
    nibbles
};

#[inline]
fn nibble(digit: u8) -> Option<u8> {
    Some(NIBBLES[usize::from(digit)]).filter(|value| *value < 16)
}

/// int8in, decimal only: newer releases read `0x1F` and `1_000`, older ones refuse them.
fn bigint(text: &[u8]) -> Option<i64> {
    let space = |b: &u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c);
    let from = text.iter().position(|b| !space(b))?;
    let to = text.iter().rposition(|b| !space(b))?;
    std::str::from_utf8(&text[from..=to]).ok()?.parse().ok()
}

/// Whether a value of this declared type (0: open) can be the key; `cast`: the statement casts it to the key's type.
fn fits(declared: u32, key_type: KeyType, cast: bool) -> bool {
    let text = matches!(declared, oid::TEXT | oid::VARCHAR);
    match declared {
        0 | oid::UNKNOWN => true,
        oid::UUID => key_type == KeyType::Uuid,
        oid::INT8 | oid::INT4 | oid::INT2 => key_type == KeyType::Bigint,
        _ => text && (cast || key_type == KeyType::Text),
    }
}

/// A key from bytes in PostgreSQL's binary format of the declared type.
fn key_from_binary(bytes: &[u8], declared: u32, key_type: KeyType) -> Option<PatientKey> {
    if matches!(declared, oid::TEXT | oid::VARCHAR) {
        return key_from_text(bytes, key_type);
    }
    match key_type {
        KeyType::Uuid => bytes.try_into().ok().map(PatientKey::Uuid),
        KeyType::Text => key_from_text(bytes, key_type),
        KeyType::Bigint => {
            let width = match declared {
                oid::INT8 => 8,
                oid::INT4 => 4,
                oid::INT2 => 2,
                _ => bytes.len(),
            };
            let value = match (width == bytes.len(), bytes.len()) {
                (true, 8) => i64::from_be_bytes(bytes.try_into().ok()?),
                (true, 4) => i64::from(i32::from_be_bytes(bytes.try_into().ok()?)),
                (true, 2) => i64::from(i16::from_be_bytes(bytes.try_into().ok()?)),
                _ => return None,
            };
            Some(PatientKey::Bigint(value))
        }
    }
}

/// A key from a column of a binary COPY. Its type is not said there: each integer type has a width of its own, and the
/// server refuses any other than its column's.
pub(crate) fn key_from_copy(bytes: &[u8], key_type: KeyType) -> Option<PatientKey> {
    key_from_binary(bytes, 0, key_type)
}

/// A key from `$n`. `cast` is the type that the statement casts it to, 0 for none.
pub(crate) fn key_from_param(
    bytes: &[u8],
    n: u16,
    params: &dyn Params,
    cast: u32,
    key_type: KeyType,
) -> Option<PatientKey> {
    let declared = match params.oid(n) {
        0 => cast,
        declared => declared,
    };
    if !fits(declared, key_type, cast != 0) {
        return None;
    }
    if params.binary(n) { key_from_binary(bytes, declared, key_type) } else { key_from_text(bytes, key_type) }
}

#[cfg(test)]
mod tests;
