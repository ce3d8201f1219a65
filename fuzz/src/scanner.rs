//! PostgreSQL's scanner, from the library that the router's parser brings. The bindings do not name it.

use std::ffi::{CString, c_char, c_void};

#[repr(C)]
struct ScanResult {
    len: usize,
    data: *mut c_char,
    stderr: *mut c_char,
    error: *mut c_void,
}

unsafe extern "C" {
    fn pg_query_scan(input: *const c_char) -> ScanResult;
    fn pg_query_free_scan_result(result: ScanResult);
}

/// A token of the scanner.
#[derive(Clone, Copy, Debug, Default)]
pub struct Token {
    /// Its first byte.
    pub start: u32,
    /// Behind its last byte.
    pub end: u32,
    /// What it is, by its number in the library's pg_query.proto.
    pub number: u32,
}

impl Token {
    /// FCONST
    pub const FLOAT: u32 = 260;
    /// SCONST
    pub const STRING: u32 = 261;
    /// USCONST
    pub const UNICODE: u32 = 262;
    /// BCONST
    pub const BITS: u32 = 263;
    /// XCONST
    pub const HEX: u32 = 264;
    /// ICONST
    pub const INTEGER: u32 = 266;
    /// SQL_COMMENT
    pub const LINE_COMMENT: u32 = 275;
    /// PARAM
    pub const PARAM: u32 = 267;

    /// The n of a `$n`.
    pub fn param(&self, text: &[u8]) -> Option<u32> {
        let digits = text.get(self.start as usize + 1..self.end as usize).filter(|_| self.number == Self::PARAM)?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }
}

/// The tokens of a text; `None` where the scanner refuses it, or where it holds a NUL.
pub fn scan(text: &str) -> Option<Vec<Token>> {
    let text = CString::new(text).ok()?;
    // SAFETY: the text ends with a NUL, and errors are caught behind this function, which reports them.
    let result = unsafe { pg_query_scan(text.as_ptr()) };
    let tokens = result.error.is_null().then(|| {
        // SAFETY: without an error, `data` has `len` bytes, which are freed below.
        let bytes: &[u8] =
            if result.len == 0 { &[] } else { unsafe { std::slice::from_raw_parts(result.data.cast(), result.len) } };
        tokens(bytes)
    });
    // SAFETY: the result is the library's own, freed once.
    unsafe { pg_query_free_scan_result(result) };
    tokens
}

/// Reads a ScanResult: field 2 is a token each, of whose fields 1, 2 and 4 are start, end and number.
fn tokens(mut message: &[u8]) -> Vec<Token> {
    let mut tokens = Vec::new();
    while !message.is_empty() {
        match (varint(&mut message), varint(&mut message)) {
            (0x12, len) => {
                let (mut body, rest) = message.split_at(len as usize);
                message = rest;
                let mut token = Token::default();
                while !body.is_empty() {
                    match (varint(&mut body), varint(&mut body) as u32) {
                        (0x08, value) => token.start = value,
                        (0x10, value) => token.end = value,
                        (0x20, value) => token.number = value,
                        _ => {}
                    }
                }
                tokens.push(token);
            }
            // The version of the grammar.
            (0x08, _) => {}
            (field, _) => panic!("field {field:#x} of a ScanResult"),
        }
    }
    tokens
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for (n, byte) in bytes.iter().enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            *bytes = &bytes[n + 1..];
            return value;
        }
    }
    panic!("a varint without an end")
}
