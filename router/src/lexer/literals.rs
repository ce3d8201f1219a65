//! Where literals end: the part of the lexer that looks at values.
//!
//! Each of these reads from its literal's beginning to the right and knows nothing of what came before, so that a text
//! can be read by a template of its shape with the very rules by which it would be lexed.

use super::CONTINUES;
use crate::statement::LiteralKind;

/// The end of a literal.
#[derive(Clone, Copy)]
pub(crate) struct End {
    /// Behind its last byte.
    pub(crate) at: usize,
    /// False where only the parser can tell what this text is.
    pub(crate) sure: bool,
}

/// The end of a string whose first byte behind the opening quote is at `at`.
pub(crate) fn string_end(text: &[u8], at: usize, kind: LiteralKind) -> End {
    // What is not plain is looked at again from its beginning.
    let plain = if kind == LiteralKind::String { plain_string_end(text, at) } else { None };
    plain.map_or_else(|| any_string_end(text, at, kind), |at| End { at, sure: true })
}

/// The same for most strings without a prefix: a uuid, a code, a name. At most 64 bytes, all of them ASCII, with no
/// quote among them, and nothing behind the closing one by which the string might go on.
#[inline]
pub(crate) fn plain_string_end(text: &[u8], from: usize) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    let mut at = from;
    while at < text.len() && at < from + 64 {
        let word = word_at(text, at);
        let quote = word ^ (ONES * b'\'' as u64);
        // The high bit of the first byte that is a quote or not ASCII, and of others behind it.
        let marked = (quote.wrapping_sub(ONES) & !quote | word) & (ONES * 0x80);
        if marked != 0 {
            at += marked.trailing_zeros() as usize / 8;
            let ends = text.get(at) == Some(&b'\'')
                && text.get(at + 1).is_none_or(|next| *next != b'\'' && !may_continue(*next));
            return ends.then_some(at + 1);
        }
        at += 8;
    }
    None
}

/// The eight bytes from `at` on, the first of them lowest, with zeros for those behind the end.
#[inline]
pub(crate) fn word_at(text: &[u8], at: usize) -> u64 {
    let rest = text.get(at..).unwrap_or_default();
    match (rest.first_chunk(), text.last_chunk()) {
        (Some(word), _) => u64::from_le_bytes(*word),
        (None, Some(last)) if !rest.is_empty() => u64::from_le_bytes(*last) >> ((8 - rest.len()) * 8),
        _ => rest.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)),
    }
}

pub(super) fn any_string_end(text: &[u8], mut at: usize, kind: LiteralKind) -> End {
    let escapes = kind == LiteralKind::Escape;
    let mut sure = true;
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let found = if escapes { memchr::memchr2(b'\'', b'\\', rest) } else { memchr::memchr(b'\'', rest) };
        at += found.unwrap_or(rest.len());
        match text.get(at) {
            None => return End { at: text.len(), sure: false },
            Some(b'\\') => at += 2,
            Some(_) => {
                at += 1;
                if text.get(at) == Some(&b'\'') {
                    sure &= kind != LiteralKind::Bit;
                    at += 1;
                } else if let Some(next) = continuation(text, at) {
                    at = next;
                } else {
                    return End { at, sure };
                }
            }
        }
    }
}

/// A string that was closed right before `at` goes on where a newline and another quote follow: the byte behind that quote.
#[inline]
pub(crate) fn continuation(text: &[u8], at: usize) -> Option<usize> {
    if may_continue(*text.get(at)?) { continuation_behind_space(text, at) } else { None }
}

/// Whether what follows a closed string begins with this byte, if the string goes on.
fn may_continue(next: u8) -> bool {
    matches!(next, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r' | b'-')
}

fn continuation_behind_space(text: &[u8], mut at: usize) -> Option<usize> {
    let mut newline = false;
    loop {
        match text.get(at)? {
            b'\n' | b'\r' => newline = true,
            b' ' | b'\t' | 0x0c | 0x0b => {}
            b'-' if text.get(at + 1) == Some(&b'-') => {
                at = end_of_line(text, at);
                continue;
            }
            b'\'' if newline => return Some(at + 1),
            _ => return None,
        }
        at += 1;
    }
}

/// Where a `--` comment that begins at `at` ends: at its line's end.
pub(super) fn end_of_line(text: &[u8], at: usize) -> usize {
    text.get(at..).and_then(|rest| memchr::memchr2(b'\n', b'\r', rest)).map_or(text.len(), |offset| at + offset)
}

/// The end of a dollar-quoted string whose first byte behind `tag` is at `at`.
pub(crate) fn dollar_end(text: &[u8], at: usize, tag: &[u8]) -> End {
    match memchr::memmem::find(text.get(at..).unwrap_or_default(), tag) {
        Some(offset) => End { at: at + offset + tag.len(), sure: true },
        None => End { at: text.len(), sure: false },
    }
}

/// The end of a number that begins at `start`, with a digit or with a dot and a digit; and how it is written.
pub(crate) fn number_end(text: &[u8], start: usize) -> (End, LiteralKind) {
    let digits = |mut at: usize| {
        while text.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        at
    };
    let goes_on = |at: usize| text.get(at).is_some_and(|&byte| CONTINUES[byte as usize] || byte == b'.');
    let mut kind = LiteralKind::Integer;
    let mut at = digits(start);
    if text.get(at) == Some(&b'.') {
        if text.get(at + 1) == Some(&b'.') {
            return (End { at, sure: false }, kind);
        }
        kind = LiteralKind::Numeric;
        at = digits(at + 1);
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        let end = digits(at + 1 + sign);
        if end > at + 1 + sign {
            kind = LiteralKind::Numeric;
            at = end;
        }
    }
    if !goes_on(at) {
        return (End { at, sure: true }, kind);
    }
    // 0x1F, 1_000, 1a, 1.2.3: releases of PostgreSQL differ about these.
    while goes_on(at) {
        at += 1;
    }
    (End { at, sure: false }, LiteralKind::Numeric)
}
