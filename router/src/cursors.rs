//! The cursors of a client: what FETCH, MOVE and CLOSE do is what their DECLARE does, row by row.

use std::sync::Arc;

use crate::statement::{Action, Statement};

/// Cursors by name, each with what whoever keeps them knows of its DECLARE.
#[derive(Debug)]
pub struct Cursors<T> {
    known: Vec<Cursor<T>>,
}

/// A cursor that was declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor<T> {
    /// Its name.
    pub name: Arc<str>,
    /// Its query only reads.
    pub reads_only: bool,
    /// WITH HOLD: it outlives its transaction.
    pub hold: bool,
    /// What else is known of it.
    pub of: T,
}

impl<T> Default for Cursors<T> {
    fn default() -> Self {
        Self { known: Vec::new() }
    }
}

impl<T> Cursors<T> {
    /// One was declared.
    pub fn declared(&mut self, cursor: Cursor<T>) {
        self.closed(Some(&cursor.name));
        self.known.push(cursor);
    }

    /// This one was closed, or all were.
    pub fn closed(&mut self, name: Option<&str>) {
        self.known.retain(|known| name.is_some_and(|name| *known.name != *name));
    }

    /// The transaction has ended, and all that end with it.
    pub fn end_transaction(&mut self) {
        self.known.retain(|known| known.hold);
    }

    /// What is known of this one.
    pub fn get(&self, name: &str) -> Option<&T> {
        self.known.iter().find(|known| *known.name == *name).map(|known| &known.of)
    }

    /// What is known of each.
    pub fn all(&self) -> impl ExactSizeIterator<Item = &T> {
        self.known.iter().map(|known| &known.of)
    }

    /// Whether the n-th of these statements only reads.
    pub fn reads_only(&self, statements: &[Statement], n: usize) -> bool {
        let Some((statement, before)) = statements.get(..=n).and_then(<[_]>::split_last) else { return false };
        let name = match &statement.action {
            Action::Fetch(name) | Action::Close(Some(name)) => name,
            Action::Close(None) => {
                return before.iter().all(|statement| statement.reads_only)
                    && self.known.iter().all(|known| known.reads_only);
            }
            _ => return statement.reads_only,
        };
        let declared = before.iter().rev().find_map(|statement| match &statement.action {
            Action::Declare { name: declared, .. } if declared == name => Some(statement.reads_only),
            _ => None,
        });
        let known = || self.known.iter().find(|known| known.name == *name).map(|known| known.reads_only);
        declared.or_else(known).unwrap_or(statement.reads_only)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Analyser, Catalog};

    fn declare(cursors: &mut Cursors<u8>, name: &str, reads_only: bool, hold: bool, of: u8) {
        cursors.declared(Cursor { name: name.into(), reads_only, hold, of });
    }

    #[test]
    fn what_a_fetch_does_its_declare_says() {
        let analyser = Analyser::new(&crate::sample::config(), &Catalog::builtin());
        let mut cursors = Cursors::default();
        declare(&mut cursors, "reads", true, false, 0);
        declare(&mut cursors, "writes", false, false, 0);
        for (sql, reads_only) in [
            ("FETCH ALL FROM reads", true),
            ("MOVE NEXT FROM reads", true),
            ("CLOSE reads", true),
            ("FETCH writes", false),
            ("CLOSE writes", false),
            ("CLOSE ALL", false),
            ("FETCH unknown", false),
            ("CLOSE unknown", true),
            ("DECLARE writes CURSOR FOR SELECT 1; FETCH writes", true),
            ("DECLARE reads CURSOR FOR SELECT 1 FOR UPDATE; FETCH reads", false),
        ] {
            let analysed = analyser.analyse(sql.as_bytes()).unwrap();
            let statements = &analysed.shape.statements;
            assert_eq!(cursors.reads_only(statements, statements.len() - 1), reads_only, "{sql}");
        }
    }

    #[test]
    fn a_cursor_is_known_until_it_is_closed_or_ends_with_its_transaction() {
        let mut cursors = Cursors::default();
        declare(&mut cursors, "a", true, false, 1);
        declare(&mut cursors, "held", true, true, 2);
        declare(&mut cursors, "a", true, false, 3);
        assert_eq!((cursors.get("a"), cursors.get("held"), cursors.get("b")), (Some(&3), Some(&2), None));
        cursors.end_transaction();
        assert_eq!(cursors.all().collect::<Vec<_>>(), [&2]);
        declare(&mut cursors, "a", true, false, 4);
        cursors.closed(Some("held"));
        assert_eq!(cursors.all().collect::<Vec<_>>(), [&4]);
        cursors.closed(None);
        assert_eq!(cursors.all().len(), 0);
    }
}
