//! What `pgward check --live` prints.

use std::fmt::Write;

use pgward_config::Table;

use super::Sight;
use super::judge::{Problem, Weight, find};

const HEAD: [&str; 7] = ["NODE", "ADDRESS", "DECLARED", "IS", "VERSION", "MAX CONNECTIONS", "TABLES"];

/// The table of the nodes, then the problems, then the verdict.
pub(super) fn page(sights: &[Sight<'_>], problems: &[Problem], tables: &[Table], color: bool) -> String {
    let mut page = String::new();
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(sights.iter().map(|sight| row(sight, tables)));
    aligned(&mut page, &rows);
    let paint = Paint(color);
    for Problem { weight, node, what, hint } in problems {
        let word = match weight {
            Weight::Error => paint.red("error"),
            Weight::Note => paint.yellow("note"),
        };
        push(&mut page, format_args!("\n{word}: {node}: {what}\n  hint: {hint}\n"));
    }
    let errors = problems.iter().filter(|problem| problem.is_error()).count();
    let verdict = match errors {
        0 => paint.green("every node is as declared"),
        1 => paint.red("1 problem"),
        _ => paint.red(&format!("{errors} problems")),
    };
    push(&mut page, format_args!("\n{verdict}\n"));
    page
}

fn row(sight: &Sight<'_>, tables: &[Table]) -> [String; 7] {
    let node = sight.node;
    let (is, version, connections, found) = match &sight.seen {
        Ok(facts) => (
            if facts.in_recovery { "replica" } else { "primary" },
            facts.version.clone(),
            facts.max_connections.to_string(),
            format!(
                "{} of {}",
                tables.iter().filter(|table| find(&facts.tables, table).is_some()).count(),
                tables.len()
            ),
        ),
        Err(_) => ("unseen", "-".to_owned(), "-".to_owned(), "-".to_owned()),
    };
    let address = format!("{}:{}/{}", node.host, node.port, node.dbname);
    let declared = node.role.as_str().to_owned();
    [node.id.to_string(), address, declared, is.to_owned(), version, connections, found]
}

fn aligned(page: &mut String, rows: &[[String; 7]]) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    for row in rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        push(page, format_args!("{}\n", cells.join("  ").trim_end()));
    }
}

fn push(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("a String takes everything");
}

struct Paint(bool);

impl Paint {
    fn red(&self, text: &str) -> String {
        self.with("31", text)
    }

    fn yellow(&self, text: &str) -> String {
        self.with("33", text)
    }

    fn green(&self, text: &str) -> String {
        self.with("32", text)
    }

    fn with(&self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[1;{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
