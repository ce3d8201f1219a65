//! What a literal stands for: quotes, escapes and continuation undone as PostgreSQL's scanner does.

use std::borrow::Cow;

use crate::lexer::continuation;
use crate::statement::{Literal, LiteralKind};

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
