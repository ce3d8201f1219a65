//! The cursors of a client's transaction: what FETCH, MOVE and CLOSE do is what their DECLARE does, row by row.

use std::sync::Arc;

use crate::statement::{Action, Statement};

/// More are not remembered; a FETCH from one that is not counts as a write.
const MOST_KNOWN: usize = 1000;

/// Whether the queries of cursors only read, by name.
#[derive(Debug, Default)]
pub struct Cursors {
    known: Vec<(Arc<str>, bool)>,
}

impl Cursors {
    /// One was declared.
    pub fn declared(&mut self, name: Arc<str>, reads_only: bool) {
        self.known.retain(|(known, _)| *known != name);
        if self.known.len() < MOST_KNOWN {
            self.known.push((name, reads_only));
        }
    }

    /// Their transaction has ended.
    pub fn clear(&mut self) {
        self.known.clear();
    }

    /// Whether the n-th of these statements only reads.
    pub fn reads_only(&self, statements: &[Statement], n: usize) -> bool {
        let Some((statement, before)) = statements.get(..=n).and_then(<[_]>::split_last) else { return false };
        let Action::Cursor(name) = &statement.action else { return statement.reads_only };
        let Some(name) = name else {
            return before.iter().all(|statement| statement.reads_only) && self.known.iter().all(|(_, reads)| *reads);
        };
        let declared = before.iter().rev().find_map(|statement| match &statement.action {
            Action::Declare { name: declared, .. } if declared == name => Some(statement.reads_only),
            _ => None,
        });
        let known = || self.known.iter().find(|(known, _)| known == name).map(|(_, reads_only)| *reads_only);
        declared.or_else(known).unwrap_or(statement.reads_only)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Analyser, Catalog};

    #[test]
    fn what_a_fetch_does_its_declare_says() {
        let analyser = Analyser::new(&crate::sample::config(), &Catalog::builtin());
        let mut cursors = Cursors::default();
        cursors.declared("reads".into(), true);
        cursors.declared("writes".into(), false);
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
}
