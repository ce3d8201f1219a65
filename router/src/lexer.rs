//! Cuts a statement's text into its shape and its literals, without knowing any grammar.
//!
//! Every statement passes through here, so this is one pass over the bytes into reused buffers. The shape is the text
//! with each literal replaced by a marker of its kind, comments dropped and white space collapsed; two texts of one
//! shape differ in nothing but the values of their literals. Token rules are those of PostgreSQL's scan.l. Where a text
//! is out of the ordinary the answer is "not sure": such a text is parsed in full each time and never cached.

use smallvec::SmallVec;

use crate::statement::{Literal, LiteralKind};

mod literals;

pub(crate) use literals::{End, continuation, dollar_end, number_end, plain_string_end, string_end, word_at};

/// Longer shapes are not parsed: their tree would take up to 170 times as much memory, and the time for it. Nearly twice
/// as much as a statement with all parameters that the protocol has.
pub(crate) const MAX_SHAPE_BYTES: usize = 1 << 20;

/// The literals of one text.
pub(crate) type Literals = SmallVec<[Literal; 8]>;

/// Which literals leave the shape.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Those whose value cannot change what the statement means; COPY, DO and CREATE keep theirs.
    Neutral,
    /// All: for fingerprints.
    All,
}

/// What one pass over a text found, besides its literals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lexed {
    /// Length of the shape in the buffer; what is longer than [`MAX_SHAPE_BYTES`] has no end.
    pub(crate) shape: usize,
    /// Highest `$n`.
    pub(crate) params: u16,
    /// False where only the parser can tell what this text is.
    pub(crate) sure: bool,
    /// True where literals were left in the shape.
    pub(crate) kept: bool,
}

const SPACE: u8 = 0;
const WORD: u8 = 1;
const DIGIT: u8 = 2;
const QUOTE: u8 = 3;
const DOUBLE: u8 = 4;
const DOLLAR: u8 = 5;
const MINUS: u8 = 6;
const SLASH: u8 = 7;
const DOT: u8 = 8;
const SEMI: u8 = 9;
const PLAIN: u8 = 10;
const STRANGE: u8 = 11;

/// What a token that begins with this byte is.
static CLASS: [u8; 256] = {
    let mut class = [STRANGE; 256];
    let mut i = 0;
    while i < 256 {
        class[i] = match i as u8 {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0c => SPACE,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80..=0xff => WORD,
            b'0'..=b'9' => DIGIT,
            b'\'' => QUOTE,
            b'"' => DOUBLE,
            b'$' => DOLLAR,
            b'-' => MINUS,
            b'/' => SLASH,
            b'.' => DOT,
            b';' => SEMI,
            b'(' | b')' | b'[' | b']' | b',' | b':' | b'+' | b'*' | b'<' | b'>' | b'=' | b'~' | b'!' | b'@' | b'#'
            | b'%' | b'^' | b'&' | b'|' | b'`' | b'?' => PLAIN,
            _ => STRANGE,
        };
        i += 1;
    }
    class
};

/// True for bytes that continue an identifier.
pub(crate) static CONTINUES: [bool; 256] = {
    let mut yes = [false; 256];
    let mut i = 0;
    while i < 256 {
        yes[i] = matches!(i as u8, b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' | b'0'..=b'9' | 0x80..=0xff);
        i += 1;
    }
    yes
};

/// The byte that stands in a shape for a literal of this kind and length. None of them can stand in a text that is "sure".
pub(crate) const fn marker(kind: LiteralKind, length: usize) -> u8 {
    match kind {
        LiteralKind::String => 1,
        LiteralKind::Escape => 2,
        LiteralKind::Unicode => 3,
        LiteralKind::Bit => 4,
        LiteralKind::Dollar => 5,
        // Integers that may not fit int4 are another token to the grammar.
        LiteralKind::Integer if length > 9 => 7,
        LiteralKind::Integer => 6,
        LiteralKind::Numeric => 8,
    }
}

/// Cuts `text`: the shape goes to the beginning of `buffer` (grown as needed), the literals into `literals`.
pub(crate) fn lex(text: &[u8], buffer: &mut Vec<u8>, literals: &mut Literals, cut: Cut) -> Lexed {
    literals.clear();
    // A shape is never longer than its text: a marker is no longer than its literal, a gap no longer than its bytes.
    if buffer.len() < text.len() {
        buffer.resize(text.len(), 0);
    }
    let mut lexer = Lexer {
        text,
        at: 0,
        out: &mut buffer[..text.len()],
        len: 0,
        literals,
        params: 0,
        sure: true,
        keep: false,
        kept: false,
    };
    lexer.run(cut);
    Lexed { shape: lexer.len, params: lexer.params, sure: lexer.sure, kept: lexer.kept }
}

struct Lexer<'a> {
    text: &'a [u8],
    /// All before this byte has been dealt with.
    at: usize,
    out: &'a mut [u8],
    /// Bytes written to `out`; never more than `at`.
    len: usize,
    literals: &'a mut Literals,
    params: u16,
    sure: bool,
    /// The statement keeps its literals in the shape.
    keep: bool,
    /// A literal was kept.
    kept: bool,
}

impl Lexer<'_> {
    fn run(&mut self, cut: Cut) {
        let text = self.text;
        let mut gap = false;
        let mut first_word = cut == Cut::Neutral;
        while let Some(&byte) = text.get(self.at) {
            if self.len > MAX_SHAPE_BYTES {
                return;
            }
            let class = CLASS[byte as usize];
            match class {
                SPACE => {
                    self.at += 1;
                    gap = true;
                    continue;
                }
                MINUS if self.peek(1) == b'-' => {
                    self.line_comment();
                    gap = true;
                    continue;
                }
                SLASH if self.peek(1) == b'*' => {
                    self.block_comment();
                    gap = true;
                    continue;
                }
                _ => {}
            }
            if gap {
                if self.len > 0 {
                    self.push(b' ');
                }
                gap = false;
            }
            match class {
                WORD => {
                    let start = self.at;
                    self.word();
                    if first_word {
                        let word = &text[start..self.at];
                        self.keep = [&b"copy"[..], b"do", b"create"].iter().any(|w| word.eq_ignore_ascii_case(w));
                        first_word = false;
                    }
                }
                DIGIT => self.number(),
                DOT if self.peek(1).is_ascii_digit() => self.number(),
                DOT => {
                    self.sure &= self.peek(1) != b'.';
                    self.take(byte);
                }
                QUOTE => self.string(self.at, LiteralKind::String),
                DOUBLE => self.quoted_identifier(0),
                DOLLAR => self.dollar(),
                SEMI => {
                    first_word = cut == Cut::Neutral;
                    self.keep = false;
                    self.take(byte);
                }
                STRANGE => {
                    self.sure = false;
                    self.take(byte);
                }
                _ => self.take(byte),
            }
        }
    }

    #[inline]
    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    #[inline]
    fn push(&mut self, byte: u8) {
        self.out[self.len] = byte;
        self.len += 1;
    }

    /// Takes the byte at hand over into the shape.
    #[inline]
    fn take(&mut self, byte: u8) {
        self.push(byte);
        self.at += 1;
    }

    /// Takes `count` bytes over into the shape.
    #[inline]
    fn copy(&mut self, count: usize) {
        let end = (self.at + count).min(self.text.len());
        self.out[self.len..self.len + end - self.at].copy_from_slice(&self.text[self.at..end]);
        self.len += end - self.at;
        self.at = end;
    }

    /// Cuts the literal that begins at `self.at`.
    #[inline]
    fn literal(&mut self, end: End, kind: LiteralKind) {
        let (start, length) = (self.at, end.at - self.at);
        self.sure &= end.sure;
        self.literals.push(Literal { start: start as u32, end: end.at as u32, kind });
        if self.keep {
            self.kept = true;
            self.copy(length);
        } else {
            self.push(marker(kind, length));
            self.at = end.at;
        }
    }

    fn word(&mut self) {
        let start = self.at;
        let next = self.peek(1);
        if next == b'\'' {
            match self.text[start] {
                b'e' | b'E' => return self.string(start + 1, LiteralKind::Escape),
                b'b' | b'B' | b'x' | b'X' => return self.string(start + 1, LiteralKind::Bit),
                _ => {}
            }
        } else if next == b'&' && matches!(self.text[start], b'u' | b'U') {
            match self.peek(2) {
                b'\'' => return self.string(start + 2, LiteralKind::Unicode),
                b'"' => return self.quoted_identifier(2),
                _ => {}
            }
        }
        let (text, mut at, mut len) = (self.text, start, self.len);
        while let Some(&byte) = text.get(at)
            && CONTINUES[byte as usize]
        {
            self.out[len] = byte;
            len += 1;
            at += 1;
        }
        (self.at, self.len) = (at, len);
        // UESCAPE changes what the token before it means.
        if at - start == 7 && self.text[start..at].eq_ignore_ascii_case(b"uescape") {
            self.sure = false;
        }
    }

    /// A string whose opening quote is at `quote`; prefixes lie before it, from `self.at`.
    fn string(&mut self, quote: usize, kind: LiteralKind) {
        let end = string_end(self.text, quote + 1, kind);
        self.literal(end, kind);
    }

    /// `"…"`, with a prefix of `prefix` bytes.
    fn quoted_identifier(&mut self, prefix: usize) {
        let mut at = self.at + prefix + 1;
        loop {
            match memchr::memchr(b'"', self.text.get(at..).unwrap_or_default()) {
                None => {
                    self.sure = false;
                    return self.copy(self.text.len() - self.at);
                }
                Some(offset) => {
                    at += offset + 1;
                    if self.text.get(at) == Some(&b'"') {
                        at += 1;
                    } else {
                        return self.copy(at - self.at);
                    }
                }
            }
        }
    }

    fn number(&mut self) {
        let (end, kind) = number_end(self.text, self.at);
        self.literal(end, kind);
    }

    /// `$1`, `$$…$$` or `$tag$…$tag$`.
    fn dollar(&mut self) {
        let (text, start) = (self.text, self.at);
        let mut at = start + 1;
        if text.get(at).is_some_and(u8::is_ascii_digit) {
            let mut number: u32 = 0;
            while let Some(digit) = text.get(at).filter(|b| b.is_ascii_digit()) {
                number = number.saturating_mul(10).saturating_add(u32::from(digit - b'0'));
                at += 1;
            }
            self.sure &= number <= u32::from(u16::MAX) && !text.get(at).is_some_and(|&b| CONTINUES[b as usize]);
            self.params = self.params.max(u16::try_from(number).unwrap_or(u16::MAX));
            return self.copy(at - start);
        }
        while text.get(at).is_some_and(|&b| CONTINUES[b as usize] && b != b'$') {
            at += 1;
        }
        if text.get(at) != Some(&b'$') {
            self.sure = false;
            return self.copy(1);
        }
        let end = dollar_end(text, at + 1, &text[start..=at]);
        self.literal(end, LiteralKind::Dollar);
    }

    fn line_comment(&mut self) {
        self.at = literals::end_of_line(self.text, self.at);
    }

    fn block_comment(&mut self) {
        let text = self.text;
        let (mut at, mut depth) = (self.at + 2, 1u32);
        while depth > 0 {
            let Some(offset) = memchr::memchr2(b'*', b'/', text.get(at..).unwrap_or_default()) else {
                self.sure = false;
                at = text.len();
                break;
            };
            at += offset;
            match (text[at], text.get(at + 1)) {
                (b'*', Some(b'/')) => (depth, at) = (depth - 1, at + 2),
                (b'/', Some(b'*')) => (depth, at) = (depth + 1, at + 2),
                _ => at += 1,
            }
        }
        self.at = at;
    }
}

#[cfg(test)]
mod tests;
