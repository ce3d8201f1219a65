//! Values of literals and parameters, read as PostgreSQL reads them.
//!
//! Decoding is strict: what PostgreSQL might read differently from release to release, or only with settings that we do
//! not see, is not decoded at all, and the statement is refused. A key is never guessed.

use std::borrow::Cow;

use pgward_config::KeyType;

use crate::evidence::{Params, PatientKey};
use crate::lexer::continuation;
use crate::statement::{Literal, LiteralKind};

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

/// The bytes that a literal stands for; `None` where that is not certain. `sql` is the text that it was cut from.
pub(crate) fn literal_text<'a>(sql: &'a [u8], literal: &Literal) -> Option<Cow<'a, [u8]>> {
    let raw = sql.get(literal.start as usize..literal.end as usize)?;
    match literal.kind {
        LiteralKind::Integer | LiteralKind::Numeric => Some(Cow::Borrowed(raw)),
        LiteralKind::Bit => None,
        LiteralKind::Dollar => {
            let tag = 2 + memchr::memchr(b'$', raw.get(1..)?)?;
            raw.get(tag..raw.len().checked_sub(tag)?).map(Cow::Borrowed)
        }
        LiteralKind::String => {
            let inner = raw.get(1..raw.len().checked_sub(1)?)?;
            match memchr::memchr(b'\'', inner) {
                None => Some(Cow::Borrowed(inner)),
                Some(_) => unquote(raw, 1).map(Cow::Owned),
            }
        }
        LiteralKind::Escape => unescape(&unquote_escaped(raw)?).map(Cow::Owned),
        LiteralKind::Unicode => {
            let rest = sql.get(literal.end as usize..)?;
            let rest = &rest[rest.iter().take_while(|b| b.is_ascii_whitespace()).count()..];
            let uescape = rest.get(..7).is_some_and(|word| word.eq_ignore_ascii_case(b"uescape"));
            if uescape || rest.starts_with(b"--") || rest.starts_with(b"/*") {
                return None;
            }
            unescape_unicode(&unquote(raw, 3)?).map(Cow::Owned)
        }
    }
}

/// The inside of a quoted string from `at` on: doubled quotes made single, continued parts joined.
fn unquote(raw: &[u8], mut at: usize) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(raw.len());
    loop {
        match *raw.get(at)? {
            b'\'' if raw.get(at + 1) == Some(&b'\'') => {
                text.push(b'\'');
                at += 2;
            }
            b'\'' if at + 1 == raw.len() => return Some(text),
            b'\'' => at = continuation(raw, at + 1)?,
            byte => {
                text.push(byte);
                at += 1;
            }
        }
    }
}

/// The inside of `E'…'` with its backslashes still in it; a doubled quote becomes `\'`, so that one pass is left.
fn unquote_escaped(raw: &[u8]) -> Option<Vec<u8>> {
    let (mut text, mut at) = (Vec::with_capacity(raw.len()), 2);
    loop {
        match *raw.get(at)? {
            b'\\' => {
                text.extend_from_slice(raw.get(at..at + 2)?);
                at += 2;
            }
            b'\'' if raw.get(at + 1) == Some(&b'\'') => {
                text.extend_from_slice(b"\\'");
                at += 2;
            }
            b'\'' if at + 1 == raw.len() => return Some(text),
            b'\'' => at = continuation(raw, at + 1)?,
            byte => {
                text.push(byte);
                at += 1;
            }
        }
    }
}

/// Backslash escapes of `E'…'`.
fn unescape(raw: &[u8]) -> Option<Vec<u8>> {
    let (mut text, mut at) = (Vec::with_capacity(raw.len()), 0);
    let mut high: Option<u32> = None;
    while let Some(&byte) = raw.get(at) {
        at += 1;
        let unicode = byte == b'\\' && matches!(raw.get(at), Some(b'u' | b'U'));
        if high.is_some() && !unicode {
            return None;
        }
        if byte != b'\\' {
            text.push(byte);
            continue;
        }
        let escape = *raw.get(at)?;
        at += 1;
        let plain = match escape {
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'0'..=b'7' => {
                let digits = raw[at - 1..].iter().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count();
                let value = raw[at - 1..at - 1 + digits].iter().fold(0u32, |v, b| v * 8 + u32::from(b - b'0'));
                at += digits - 1;
                value as u8
            }
            b'x' if raw.get(at).is_some_and(u8::is_ascii_hexdigit) => {
                let digits = raw[at..].iter().take(2).take_while(|b| b.is_ascii_hexdigit()).count();
                let value = hex(raw.get(at..at + digits)?)?;
                at += digits;
                value as u8
            }
            b'u' | b'U' => {
                let digits = if escape == b'u' { 4 } else { 8 };
                push_code_point(&mut text, &mut high, hex(raw.get(at..at + digits)?)?)?;
                at += digits;
                continue;
            }
            other => other,
        };
        if plain == 0 {
            return None;
        }
        text.push(plain);
    }
    high.is_none().then_some(text)
}

/// Escapes of `U&'…'` with the usual backslash.
fn unescape_unicode(raw: &[u8]) -> Option<Vec<u8>> {
    let (mut text, mut at) = (Vec::with_capacity(raw.len()), 0);
    let mut high: Option<u32> = None;
    while let Some(&byte) = raw.get(at) {
        if byte == b'\\' && raw.get(at + 1) != Some(&b'\\') {
            let (from, digits) = if raw.get(at + 1) == Some(&b'+') { (at + 2, 6) } else { (at + 1, 4) };
            push_code_point(&mut text, &mut high, hex(raw.get(from..from + digits)?)?)?;
            at = from + digits;
            continue;
        }
        if high.is_some() {
            return None;
        }
        text.push(byte);
        at += if byte == b'\\' { 2 } else { 1 };
    }
    high.is_none().then_some(text)
}

/// One code point, or a half of a surrogate pair.
fn push_code_point(text: &mut Vec<u8>, high: &mut Option<u32>, code: u32) -> Option<()> {
    let code = match (high.take(), code) {
        (None, 0xD800..=0xDBFF) => {
            *high = Some(code);
            return Some(());
        }
        (Some(first), 0xDC00..=0xDFFF) => 0x10000 + ((first - 0xD800) << 10) + (code - 0xDC00),
        (Some(_), _) | (None, 0) => return None,
        (None, code) => code,
    };
    text.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes());
    Some(())
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |value, &digit| Some(value.checked_mul(16)? + char::from(digit).to_digit(16)?))
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

#[inline]
fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
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

#[cfg(test)]
mod tests;
