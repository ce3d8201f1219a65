//! Texts that differ from one seen before in nothing but their literals, read without lexing all of it again.
//!
//! A template is a text without the insides of its literals. Another text is of its shape if the bytes outside of its
//! literals are the same and each literal, ended by the lexer's own rules, is of the same kind. That this is what the
//! lexer would find rests on how it goes: from left to right, each token decided by its own bytes and the few behind it.
//! A literal's end is looked for in the new text, so whatever follows it is taken into account there. A token before a
//! literal may look at the literal's beginning, so a string's prefix, quote and tag and a number's leading dot must be
//! the same bytes too; of a number's digits nothing is asked but that they are digits. Values are not kept: a template
//! holds no data of patients.

use std::sync::Arc;

use crate::lexer::{CONTINUES, Lexed, Literals, dollar_end, marker, number_end, plain_string_end, string_end, word_at};
use crate::statement::{Literal, LiteralKind, Shape};

/// A text of one shape, and where literals stand in it.
#[derive(Debug)]
struct Template {
    /// The bytes outside of literals, their openings among them.
    fixed: Box<[u8]>,
    holes: Box<[Hole]>,
}

/// The place of a literal.
#[derive(Clone, Copy, Debug)]
struct Hole {
    /// Bytes of `fixed` between the literal before and this one's inside.
    fixed: u32,
    /// How many of them are this literal's opening: prefix and quote, tag, or a leading dot.
    opening: u32,
    kind: LiteralKind,
    /// What stands for the literal in the shape.
    marker: u8,
}

impl Template {
    /// From a text that was sure, whose literals are all cut out of its shape.
    fn new(text: &[u8], literals: &[Literal]) -> Self {
        let mut fixed = Vec::with_capacity(fixed_bytes(text, literals));
        let (mut holes, mut at) = (Vec::with_capacity(literals.len()), 0);
        for literal in literals {
            let (start, end) = (literal.start as usize, literal.end as usize);
            let opening = opening(text, literal);
            let before = &text[at..start + opening];
            fixed.extend_from_slice(before);
            holes.push(Hole {
                fixed: before.len() as u32,
                opening: opening as u32,
                kind: literal.kind,
                marker: marker(literal.kind, end - start),
            });
            at = end;
        }
        fixed.extend_from_slice(&text[at..]);
        Self { fixed: fixed.into(), holes: holes.into() }
    }

    /// Whether `text` is of this shape and UTF-8. Its literals are put into `literals`, which is empty, and is again if not.
    #[inline]
    fn read(&self, text: &[u8], literals: &mut Literals) -> bool {
        let read = self.read_holes(text, literals).is_some();
        if !read {
            literals.clear();
        }
        read
    }

    #[inline]
    fn read_holes(&self, text: &[u8], literals: &mut Literals) -> Option<()> {
        let (mut fixed, mut rest) = (&self.fixed[..], text);
        for hole in &self.holes {
            let (before, behind) = fixed.split_at_checked(hole.fixed as usize)?;
            rest = rest.strip_prefix(before)?;
            fixed = behind;
            let inside = text.len() - rest.len();
            let start = inside - hole.opening as usize;
            let end = hole.end(text, start, inside)?;
            literals.push(Literal { start: start as u32, end: end as u32, kind: hole.kind });
            rest = text.get(end..)?;
        }
        (rest == fixed).then_some(())
    }
}

impl Hole {
    /// The end of the literal that begins at `start` with an opening of the right bytes, up to `inside`; none if that is
    /// not sure, if the literal's marker is another, or if it is not UTF-8. Outside of literals a template is UTF-8, and
    /// a literal's first and last bytes are ASCII: the text is UTF-8 as a whole if all insides are.
    #[inline]
    fn end(&self, text: &[u8], start: usize, inside: usize) -> Option<usize> {
        if self.kind == LiteralKind::String
            && let Some(end) = plain_string_end(text, inside)
        {
            return Some(end);
        }
        let end = match self.kind {
            LiteralKind::Integer | LiteralKind::Numeric => {
                text.get(inside).filter(|byte| byte.is_ascii_digit())?;
                let (end, kind) = number_end(text, start);
                return (end.sure && marker(kind, end.at - start) == self.marker).then_some(end.at);
            }
            LiteralKind::Dollar => dollar_end(text, inside, &text[start..inside]),
            kind => string_end(text, inside, kind),
        };
        let value = text.get(inside..end.at)?;
        (end.sure && std::str::from_utf8(value).is_ok()).then_some(end.at)
    }
}

/// Length of a literal's opening.
fn opening(text: &[u8], literal: &Literal) -> usize {
    let text = &text[literal.start as usize..literal.end as usize];
    match literal.kind {
        LiteralKind::String => 1,
        LiteralKind::Escape | LiteralKind::Bit => 2,
        LiteralKind::Unicode => 3,
        LiteralKind::Dollar => text.iter().skip(1).position(|&byte| byte == b'$').map_or(text.len(), |at| at + 2),
        LiteralKind::Integer | LiteralKind::Numeric => usize::from(text.first() == Some(&b'.')),
    }
}

/// How many bytes a template of this text would have.
fn fixed_bytes(text: &[u8], literals: &[Literal]) -> usize {
    let inside = |literal: &Literal| (literal.end - literal.start) as usize - opening(text, literal);
    text.len() - literals.iter().map(inside).sum::<usize>()
}

const SETS: usize = 8;
/// Statements that begin alike share a set; an application may well have some of each table.
const WAYS: usize = 8;
/// Texts with more outside of their literals are not kept, nor those with more literals: with all that is kept, a
/// thread's templates stay below 256 KiB.
const MAX_FIXED_BYTES: usize = 3 * 1024;
const MAX_HOLES: usize = 64;
/// Where a set is full, one of so many texts that matched nothing is kept: statements that keep displacing each other
/// must not cost a template each time.
const DISPLACE_ONE_OF: u32 = 8;

/// The templates of one thread.
#[derive(Debug)]
pub(crate) struct Templates {
    sets: [Vec<Entry>; SETS],
    /// Counts look-ups.
    now: u64,
    /// Counts texts that found their set full.
    crowded: u32,
}

#[derive(Debug)]
struct Entry {
    key: u64,
    /// The number of the analyser whose shape this is.
    analyser: u64,
    /// When it was of use last.
    used: u64,
    template: Template,
    shape: Arc<Shape>,
}

impl Templates {
    /// No templates.
    pub(crate) const fn new() -> Self {
        Self { sets: [const { Vec::new() }; SETS], now: 0, crowded: 0 }
    }

    /// What this analyser found for an earlier text, if `text` differs from it in nothing but its literals. These are put
    /// into `literals`, which is empty.
    #[inline]
    pub(crate) fn read(&mut self, analyser: u64, text: &[u8], literals: &mut Literals) -> Option<Arc<Shape>> {
        let key = beginning(text);
        let set = &mut self.sets[set_of(key)];
        let way = set
            .iter()
            .position(|entry| entry.key == key && entry.analyser == analyser && entry.template.read(text, literals))?;
        // The first is the one asked for last.
        if way > 0 {
            set.swap(0, way);
        }
        let entry = set.first_mut()?;
        self.now += 1;
        entry.used = self.now;
        Some(entry.shape.clone())
    }

    /// Keeps a text that no template matched and that was sure, as a template of its shape.
    pub(crate) fn keep(&mut self, analyser: u64, text: &[u8], lexed: Lexed, literals: &[Literal], shape: &Arc<Shape>) {
        if !lexed.sure || lexed.kept || literals.len() > MAX_HOLES || fixed_bytes(text, literals) > MAX_FIXED_BYTES {
            return;
        }
        let key = beginning(text);
        let set = &mut self.sets[set_of(key)];
        if set.len() >= WAYS {
            self.crowded = self.crowded.wrapping_add(1);
            if !self.crowded.is_multiple_of(DISPLACE_ONE_OF) {
                return;
            }
            let oldest = set.iter().enumerate().min_by_key(|(_, entry)| entry.used);
            if let Some((way, _)) = oldest {
                set.swap_remove(way);
            }
        }
        let template = Template::new(text, literals);
        set.push(Entry { key, analyser, used: self.now, template, shape: shape.clone() });
    }
}

fn set_of(key: u64) -> usize {
    (key >> 32) as usize % SETS
}

/// A hash of a text's first bytes, up to its first quote or number. All texts of one template have the same; only where
/// a dollar-quoted string is among those bytes each value has its own, and the template is of use to that value alone.
///
/// It looks at 32 bytes at most: a template is compared in full anyway, and to find the first digit or quote of a long
/// text would cost more than to compare some templates that begin alike.
#[inline]
fn beginning(text: &[u8]) -> u64 {
    match text.first_chunk::<32>() {
        Some(first) if !first.iter().fold(false, |any, byte| any | (*byte == b'\'') | byte.is_ascii_digit()) => {
            first.as_chunks().0.iter().fold(0, |hash, word| add(hash, u64::from_le_bytes(*word)))
        }
        _ => beginning_with_care(text),
    }
}

/// The same, for texts that may have a literal in their first 32 bytes, or that are shorter.
#[inline(never)]
fn beginning_with_care(text: &[u8]) -> u64 {
    let (mut hash, mut at) = (0, 0);
    while at < text.len() && at < 32 {
        let word = word_at(text, at);
        if let Some(word) = before_literal(text, at, word) {
            return add(hash, word);
        }
        hash = add(hash, word);
        at += 8;
    }
    hash
}

#[inline]
fn add(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

/// The bytes of the word at `at` that stand before a literal's first byte, if one may begin in this word.
#[inline]
fn before_literal(text: &[u8], at: usize, word: u64) -> Option<u64> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    // The high bit of each byte that is a quote or a digit. One that follows a quote may be marked wrongly.
    let quote = word ^ (ONES * b'\'' as u64);
    let digit = word ^ (ONES * b'0' as u64);
    let quotes = quote.wrapping_sub(ONES) & !quote;
    let digits = !(((digit & (ONES * 0x7f)) + ONES * (0x80 - 10)) | digit);
    let mut marked = (quotes | digits) & (ONES * 0x80);
    while marked != 0 {
        let bits = marked.trailing_zeros() & !7;
        if literal_may_begin(text, at + bits as usize / 8) {
            return Some(word & ((1 << bits) - 1));
        }
        marked &= marked - 1;
    }
    None
}

fn literal_may_begin(text: &[u8], at: usize) -> bool {
    let continues = |at: usize| text.get(at).is_some_and(|&byte| CONTINUES[byte as usize]);
    match text.get(at) {
        Some(b'\'') => true,
        Some(b'0'..=b'9') => at == 0 || !continues(at - 1),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
