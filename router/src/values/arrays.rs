//! Lists of keys in one value: arrays in text and in binary form.

use pgward_config::KeyType;

use super::{fits, key_from_binary, key_from_text, oid};
use crate::evidence::{Params, PatientKey};

/// The type of an array's elements; 0 for an open type, `None` for a type that is no array of keys.
pub(crate) fn element_of(array: u32) -> Option<u32> {
    Some(match array {
        0 | oid::UNKNOWN => 0,
        oid::UUID_ARRAY => oid::UUID,
        oid::INT8_ARRAY => oid::INT8,
        oid::INT4_ARRAY => oid::INT4,
        oid::INT2_ARRAY => oid::INT2,
        oid::TEXT_ARRAY => oid::TEXT,
        oid::VARCHAR_ARRAY => oid::VARCHAR,
        _ => return None,
    })
}

/// The keys of an array `$n`, given to `each` in order; `None` as soon as one cannot be decoded.
pub(crate) fn keys_from_array_param(
    bytes: &[u8],
    n: u16,
    params: &dyn Params,
    cast: u32,
    key_type: KeyType,
    mut each: impl FnMut(PatientKey),
) -> Option<()> {
    let declared = element_of(match params.oid(n) {
        0 => cast,
        declared => declared,
    })?;
    if !fits(declared, key_type, cast != 0) {
        return None;
    }
    if !params.binary(n) {
        return keys_from_array_text(bytes, key_type, each);
    }
    let mut rest = bytes;
    let int = |rest: &mut &[u8]| {
        let (head, tail) = rest.split_first_chunk::<4>()?;
        *rest = tail;
        Some(i32::from_be_bytes(*head))
    };
    let (dimensions, _nulls, element) = (int(&mut rest)?, int(&mut rest)?, int(&mut rest)? as u32);
    if dimensions == 0 {
        return rest.is_empty().then_some(());
    }
    if dimensions != 1 || !fits(element, key_type, cast != 0) || element == 0 {
        return None;
    }
    let (count, _lower) = (int(&mut rest)?, int(&mut rest)?);
    for _ in 0..count {
        let length = usize::try_from(int(&mut rest)?).ok()?;
        let (value, tail) = rest.split_at_checked(length)?;
        each(key_from_binary(value, element, key_type)?);
        rest = tail;
    }
    rest.is_empty().then_some(())
}

/// The keys of `{…}` in array_in's text form: one dimension, no NULL.
pub(crate) fn keys_from_array_text(text: &[u8], key_type: KeyType, mut each: impl FnMut(PatientKey)) -> Option<()> {
    let inner = text.trim_ascii().strip_prefix(b"{")?.strip_suffix(b"}")?;
    if inner.trim_ascii().is_empty() {
        return Some(());
    }
    let (mut at, mut element) = (0, Vec::new());
    loop {
        while inner.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        element.clear();
        let quoted = inner.get(at) == Some(&b'"');
        if quoted {
            at += 1;
            loop {
                match *inner.get(at)? {
                    b'"' => break,
                    b'\\' => {
                        element.push(*inner.get(at + 1)?);
                        at += 2;
                    }
                    byte => {
                        element.push(byte);
                        at += 1;
                    }
                }
            }
            at += 1;
            while inner.get(at).is_some_and(u8::is_ascii_whitespace) {
                at += 1;
            }
        } else {
            while let Some(&byte) = inner.get(at).filter(|b| **b != b',') {
                if matches!(byte, b'"' | b'{' | b'}' | b'\\' | 0x0b) {
                    return None;
                }
                element.push(byte);
                at += 1;
            }
            element.truncate(element.trim_ascii_end().len());
            if element.is_empty() || element.eq_ignore_ascii_case(b"null") {
                return None;
            }
        }
        each(key_from_text(&element, key_type)?);
        match inner.get(at) {
            None => return Some(()),
            Some(b',') => at += 1,
            Some(_) => return None,
        }
    }
}
