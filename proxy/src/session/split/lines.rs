//! Which line of the client's stream a line of one shard's part is.
//!
//! A server says `COPY t, line 7` of what it was sent, and the client has to find the line in what it sent. Rows that
//! follow one another in both are one entry; of a file that changes shards with each row, what can still be on its way
//! to a server is remembered, and what is older is not.

use std::collections::VecDeque;

/// Entries that are kept: 1 MiB.
const KEPT: usize = 64 * 1024;

/// The lines of one shard's part.
#[derive(Debug)]
pub(super) struct LineMap {
    /// Line of the part, line of the stream: from here on they go together.
    runs: VecDeque<(u64, u64)>,
    /// Line of the part that comes next.
    next: u64,
}

impl LineMap {
    pub(super) fn new() -> Self {
        Self { runs: VecDeque::new(), next: 1 }
    }

    /// So many lines of the stream, from `line` on, are the part's next.
    pub(super) fn add(&mut self, line: u64, lines: u64) {
        let goes_on = self.runs.back().is_some_and(|(part, stream)| self.next - part == line.wrapping_sub(*stream));
        if !goes_on {
            if self.runs.len() >= KEPT {
                self.runs.pop_front();
            }
            self.runs.push_back((self.next, line));
        }
        self.next += lines;
    }

    /// The line of the stream, if it is remembered.
    fn of_stream(&self, line: u64) -> Option<u64> {
        let after = self.runs.partition_point(|(part, _)| *part <= line);
        let (part, stream) = self.runs.get(after.checked_sub(1)?)?;
        Some(stream + (line - part))
    }

    /// The CONTEXT of a server's message with the line of the client's stream, as servers write it in any language:
    /// `COPY table, line 7, column …`. Where that cannot be, it says whose lines are counted.
    pub(super) fn context(&self, context: &[u8], table: &str, shard: &str) -> Vec<u8> {
        let text = String::from_utf8_lossy(context);
        let head = format!("COPY {table}, ");
        let Some(start) = text.lines().find_map(|line| {
            line.starts_with(&head).then(|| line.as_ptr() as usize - text.as_ptr() as usize + head.len())
        }) else {
            return context.to_vec();
        };
        let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let rest = &text[start..];
        let known = rest.find(|c: char| c.is_ascii_digit() || matches!(c, ',' | ':' | '\n')).and_then(|at| {
            let end = at + digits(&rest[at..]);
            let line: u64 = rest[at..end].parse().ok()?;
            Some((start + at, start + end, self.of_stream(line)?))
        });
        match known {
            Some((from, upto, line)) => format!("{}{line}{}", &text[..from], &text[upto..]).into_bytes(),
            None => format!("{text}\nPgWard counted the lines among the rows for {shard}").into_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header, then rows of two lines: the part has the first, third and fourth of them.
    fn map() -> LineMap {
        let mut map = LineMap::new();
        map.add(1, 1);
        map.add(2, 2);
        map.add(6, 2);
        map.add(8, 2);
        map
    }

    #[test]
    fn lines_are_those_of_the_stream() {
        let map = map();
        assert_eq!(map.runs, [(1, 1), (4, 6)]);
        let found: Vec<_> = (1..=7).map(|line| map.of_stream(line)).collect();
        assert_eq!(found, [1, 2, 3, 6, 7, 8, 9].map(Some));
    }

    #[test]
    fn a_context_is_said_with_the_line_of_the_stream() {
        let map = map();
        for (said, expected) in [
            ("COPY t, line 5, column n: \"x\"", "COPY t, line 7, column n: \"x\""),
            ("COPY t, line 5", "COPY t, line 7"),
            ("COPY t, Zeile 5: \"a, 1\"", "COPY t, Zeile 7: \"a, 1\""),
            ("SQL function \"f\"\nCOPY t, line 4: \"é\"", "SQL function \"f\"\nCOPY t, line 6: \"é\""),
            ("PL/pgSQL function f() line 3", "PL/pgSQL function f() line 3"),
            ("COPY other, line 5", "COPY other, line 5"),
        ] {
            let context = map.context(said.as_bytes(), "t", "east");
            assert_eq!(String::from_utf8_lossy(&context), expected);
        }
    }

    #[test]
    fn what_is_forgotten_is_said_to_be_the_parts() {
        let mut map = LineMap::new();
        for n in 0..KEPT as u64 + 10 {
            map.add(1 + 2 * n, 1);
        }
        assert_eq!(map.runs.len(), KEPT);
        assert_eq!((map.of_stream(10), map.of_stream(11)), (None, Some(21)));
        let context = map.context(b"COPY t, line 3", "t", "east");
        assert_eq!(context, b"COPY t, line 3\nPgWard counted the lines among the rows for east");
    }
}
