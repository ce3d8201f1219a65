//! Inputs for the targets in `fuzz/`.

use std::path::Path;

/// Writes all of them.
pub(crate) fn write_all(folder: &Path) -> std::io::Result<()> {
    // What the analysis is tested with: statements, and lines on what they come to, which fail to parse.
    let corpus = include_str!("../../../../router/src/analysis/corpus.txt");
    for (n, line) in corpus.lines().filter(|line| !line.is_empty()).enumerate() {
        write(folder, "sql_analyse", n, &[line.as_bytes(), PARAMS].concat())?;
        write(folder, "lexer", n, line.as_bytes())?;
    }
    for (n, text) in TEXTS.iter().enumerate() {
        write(folder, "lexer", 10_000 + n, text.as_bytes())?;
    }
    // Each of the statements that `copies` knows, in reads of three bytes.
    for copy in 0..8 {
        for (n, rows) in ROWS.iter().enumerate() {
            write(folder, "copy_rows", 10 * copy + n, &[&[copy as u8, 3], rows.as_bytes()].concat())?;
        }
    }
    for (n, (choice, first, last)) in LOGINS.iter().enumerate() {
        let len = u8::try_from(first.len()).expect("short");
        write(folder, "scram_server", n, &[&[*choice, len], *first, *last].concat())?;
    }
    Ok(())
}

/// A uuid as text, a bigint as binary, NULL.
const PARAMS: &[u8] = b"\0\x0a\x24a8098c1a-f86e-11da-bd1a-00112444be1e\x03\x08\0\0\0\0\0\0\0\x07\0\xff";

/// Texts with every sort of token.
const TEXTS: [&str; 8] = [
    "SELECT 'a' 'b', 'c'\n 'd', E'\\'' , U&'\\0041', B'01', X'1F', N'x'",
    "SELECT $$a$$, $t$ $$ $t$, $1, $2::int",
    "SELECT 1, 1.5, .5, 1., 1e5, 1.e-5, 123456789012",
    "SELECT a -- 'x'\n , /* 'y' /* z */ */ b",
    "SELECT \"a\"\"b\", U&\"\\0041\", a.b, a$1",
    "SELECT a->>'x', a@>'y', -1, - -1, a<-1, 1+2",
    "SELECT 'a' -- c'\n  'b', e'\\\\'",
    "SELECT 0x1F, 0o17, 0b1, 1_000",
];

/// Rows in text and CSV, and the ways in which they end.
const ROWS: [&str; 5] = [
    "a8098c1a-f86e-11da-bd1a-00112444be1e\tus-east\tx\\ty\n\\.\n",
    "us-east|a8098c1a-f86e-11da-bd1a-00112444be1e|x\r\n",
    "Name,a8098c1a-f86e-11da-bd1a-00112444be1e\n\"a \"\"b\"\"\n,\",\n\\.\n",
    "'a\\'b';us-east;a8098c1a-f86e-11da-bd1a-00112444be1e\n",
    "\\x41\\101\\N\t\\N\r",
];

/// Choice, first and last message; a NUL in the last stands for the server's nonce.
const LOGINS: [(u8, &[u8], &[u8]); 3] = [
    (0, b"SCRAM-SHA-256\0\0\0\0\x0cn,,n=,r=abcd", b"c=biws,r=\0,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    (2, b"", b"c=biws,r=\0,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    (3, b"", b"c=biws,r=\0,p="),
];

fn write(folder: &Path, target: &str, n: usize, input: &[u8]) -> std::io::Result<()> {
    super::write(folder, target, &format!("seed-{n}"), input)
}
