//! Where a row ends: `CopyReadLineText`, resumable at any byte.

use std::borrow::Cow;

use memchr::{memchr_iter, memchr2, memchr3};

use super::fields::Dialect;

/// The newline of a COPY, fixed by its first row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Newline {
    Lf,
    Cr,
    CrLf,
}

/// What `\.` on a line of its own is in CSV: the end of the data before PostgreSQL 18, data from then on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CsvEnd {
    /// The servers that may take the rows are not all known, or differ.
    #[default]
    Unknown,
    /// The end of the data.
    Marker,
    /// Data like any other.
    Data,
}

impl CsvEnd {
    /// By the versions of the servers that may take the rows, as they report them; `None` for one that is not known.
    pub fn of_versions<'a>(versions: impl IntoIterator<Item = Option<&'a str>>) -> Self {
        let mut common = None;
        for version in versions {
            let digits =
                version.map_or("", |version| version.split(|c: char| !c.is_ascii_digit()).next().unwrap_or(""));
            let end = match digits.parse::<u32>() {
                Ok(..18) => Self::Marker,
                Ok(18..) => Self::Data,
                Err(_) => return Self::Unknown,
            };
            if common.is_some_and(|common| common != end) {
                return Self::Unknown;
            }
            common = Some(end);
        }
        common.unwrap_or_default()
    }
}

/// What stands next in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The header of the binary format.
    Header { length: usize },
    /// A row: `content` bytes, `length` with its newline.
    Row { content: usize, length: usize },
    /// Nothing complete.
    More,
    /// The end marker, or newlines behind it.
    End { length: usize },
    /// A row that a server would not take either.
    Bad(Cow<'static, str>),
    /// A header of the binary format that a server would not take either.
    BadHeader(&'static str),
}

impl Step {
    pub(super) fn too_long(max_row: usize) -> Self {
        Self::Bad(format!("is longer than {max_row} bytes").into())
    }
}

/// Finds row ends.
#[derive(Debug)]
pub(super) struct Lines {
    /// Quote and escape, for CSV.
    quoting: Option<(u8, u8)>,
    csv_end: CsvEnd,
    /// Rows have one column, so that `\.` could be one.
    single: bool,
    newline: Option<Newline>,
    /// Bytes of the current row that need not be looked at again.
    scanned: usize,
    in_quote: bool,
    escaped: bool,
    ended: bool,
    /// The line of the stream at which the row at hand begins, from 1.
    line: u64,
}

impl Lines {
    pub(super) fn new(dialect: &Dialect, single: bool) -> Self {
        Self {
            quoting: dialect.quoting(),
            csv_end: CsvEnd::Unknown,
            single,
            newline: None,
            scanned: 0,
            in_quote: false,
            escaped: false,
            ended: false,
            line: 1,
        }
    }

    /// The rows go to servers that read `\.` so.
    pub(super) fn set_csv_end(&mut self, end: CsvEnd) {
        self.csv_end = end;
    }

    /// The line at which the next row begins: as editors count, so that newlines within values count, too.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// Looks at `data`, which begins with a row and holds all that came since; `last` if nothing will follow.
    pub(super) fn step(&mut self, data: &[u8], last: bool) -> Step {
        if self.ended {
            // A server ignores what follows the marker; nothing but the marker's own newline is expected.
            return match data.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
                true if data.is_empty() => Step::More,
                true => Step::End { length: data.len() },
                false => Step::Bad("follows the end marker \\.".into()),
            };
        }
        let step = self.find(data, last);
        match step {
            Step::Row { length, .. } => {
                let newline = if self.newline == Some(Newline::Cr) { b'\r' } else { b'\n' };
                self.line += memchr_iter(newline, &data[..length]).count() as u64;
                self.scanned = 0;
            }
            Step::End { .. } => {
                self.line += 1;
                self.ended = true;
            }
            _ => {}
        }
        step
    }

    fn find(&mut self, data: &[u8], last: bool) -> Step {
        let text = self.quoting.is_none();
        if self.scanned == 0 && data.first() == Some(&b'\\') && (text || self.csv_end != CsvEnd::Data) {
            match marker(data, last, text) {
                Marker::No => {}
                Marker::Undecided => return Step::More,
                Marker::Yes if !text && self.single && self.csv_end == CsvEnd::Unknown => {
                    return Step::Bad("is \\., which ends the data for servers before PostgreSQL 18 only".into());
                }
                Marker::Yes => return Step::End { length: 2 },
                Marker::Bad => return Step::Bad("has an end marker \\. that is not alone on its line".into()),
            }
        }
        while let Some(at) = self.stop(data) {
            let behind = data.get(at + 1);
            match data[at] {
                b'\n' if !self.in_quote => return self.line_feed(at),
                b'\r' if !self.in_quote => {
                    self.scanned = at;
                    if behind.is_none() && !last && self.newline != Some(Newline::Cr) {
                        return Step::More;
                    }
                    return self.carriage_return(at, behind == Some(&b'\n'));
                }
                // Text: the byte behind a backslash is data, a newline too.
                b'\\' if self.quoting.is_none() => match behind {
                    None if last => self.scanned = at + 1,
                    None => {
                        self.scanned = at;
                        return Step::More;
                    }
                    Some(b'.') => return Step::Bad("has an end marker \\. that is not alone on its line".into()),
                    Some(_) => self.scanned = at + 2,
                },
                byte => {
                    self.quote(byte);
                    self.scanned = at + 1;
                }
            }
        }
        self.scanned = data.len();
        match (last, data.is_empty(), self.in_quote) {
            (false, ..) | (_, true, _) => Step::More,
            (_, _, true) => Step::Bad("has a quoted value that does not end".into()),
            _ => Step::Row { content: data.len(), length: data.len() },
        }
    }

    /// The next byte that means something.
    fn stop(&mut self, data: &[u8]) -> Option<usize> {
        let from = self.scanned;
        let rest = data.get(from..)?;
        let at = match self.quoting {
            None => memchr3(b'\n', b'\r', b'\\', rest),
            Some((quote, escape)) if self.in_quote => memchr2(quote, escape, rest),
            Some((quote, _)) => memchr3(b'\n', b'\r', quote, rest),
        };
        // An escape counts only for the very next byte.
        if self.escaped && at != Some(0) && !rest.is_empty() {
            self.escaped = false;
        }
        Some(from + at?)
    }

    /// A quote or an escape in CSV, as PostgreSQL counts them: with one and the same byte for both, a doubled quote
    /// toggles twice; with two, an escape takes its meaning from the quote behind it.
    fn quote(&mut self, byte: u8) {
        let Some((quote, escape)) = self.quoting else { return };
        if quote == escape {
            self.in_quote = !self.in_quote;
            return;
        }
        if self.in_quote && byte == escape {
            self.escaped = !self.escaped;
        }
        if byte == quote && !self.escaped {
            self.in_quote = !self.in_quote;
        }
        if byte != escape {
            self.escaped = false;
        }
    }

    fn line_feed(&mut self, at: usize) -> Step {
        match self.newline {
            None | Some(Newline::Lf) => {
                self.newline = Some(Newline::Lf);
                Step::Row { content: at, length: at + 1 }
            }
            Some(Newline::Cr | Newline::CrLf) => Step::Bad("has a newline that is not like those before".into()),
        }
    }

    fn carriage_return(&mut self, at: usize, line_feed_follows: bool) -> Step {
        match (self.newline, line_feed_follows) {
            (None | Some(Newline::CrLf), true) => {
                self.newline = Some(Newline::CrLf);
                Step::Row { content: at, length: at + 2 }
            }
            (None, false) | (Some(Newline::Cr), _) => {
                self.newline = Some(Newline::Cr);
                Step::Row { content: at, length: at + 1 }
            }
            (Some(Newline::CrLf), false) | (Some(Newline::Lf), _) => {
                Step::Bad("has a carriage return that is not like the newlines before".into())
            }
        }
    }
}

enum Marker {
    Yes,
    No,
    Undecided,
    Bad,
}

/// Whether a row that begins with a backslash is the end marker. In CSV `\.x` is data; in text it is an error.
fn marker(data: &[u8], last: bool, text: bool) -> Marker {
    match (data.get(1), data.get(2)) {
        (None, _) | (Some(b'.'), None) if !last => Marker::Undecided,
        (Some(b'.'), None | Some(b'\r' | b'\n')) => Marker::Yes,
        (Some(b'.'), Some(_)) if text => Marker::Bad,
        _ => Marker::No,
    }
}
