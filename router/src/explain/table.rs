//! An explanation as an aligned table: a word, then what there is to say.

use std::fmt;

use super::{Explained, Explanation, Forwarded, Outcome, Patient, Refused};

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = Rows::default();
        rows.put("asked by", format!("user {}, listener {}, origin {}", self.user, self.listener, self.origin));
        rows.put("class", self.class);
        rows.put("transaction", self.transaction);
        let several = self.statements.len() > 1;
        for (index, statement) in self.statements.iter().enumerate() {
            if several {
                rows.put("", "");
                rows.put("statement", format!("{} of {}", index + 1, self.statements.len()));
            }
            put_statement(&mut rows, statement);
        }
        if several {
            rows.put("", "");
        }
        match &self.outcome {
            Outcome::Forwarded(forwarded) => put_forwarded(&mut rows, forwarded),
            Outcome::Refused(refused) => put_refused(&mut rows, refused),
            Outcome::Open { by } => rows.put("decided by", *by),
        }
        self.put_audit(&mut rows);
        for note in &self.notes {
            rows.put("note", note);
        }
        rows.fmt(f)
    }
}

fn put_statement(rows: &mut Rows, statement: &Explained) {
    rows.put(
        "kind",
        match (statement.kind, statement.reads_only) {
            (Some(kind), true) => format!("{kind} (nothing but reads was found)"),
            (Some(kind), false) => format!("{kind} (not proven to be a read)"),
            (None, _) => "not decided".to_owned(),
        },
    );
    if statement.tables.is_empty() {
        rows.put("tables", "none");
    }
    for (index, table) in statement.tables.iter().enumerate() {
        let written = if table.written { ", written" } else { "" };
        rows.put(first("tables", index), format!("{} ({}{written})", table.name, table.kind));
    }
    for (index, patient) in statement.patients.iter().enumerate() {
        rows.put(first("patients", index), patient_words(patient));
    }
    if let Some(home) = &statement.home {
        rows.put("home region", home);
    }
    if let Some(permit) = &statement.permit {
        rows.put("permit", permit);
    }
}

fn patient_words(patient: &Patient) -> String {
    let known = match (&patient.region, &patient.shard, patient.registered) {
        (Some(region), Some(shard), _) => format!("{region} on {shard}, epoch {}", patient.epoch.unwrap_or(0)),
        (Some(region), None, _) => format!("{region}, which no shard serves"),
        (None, _, true) => "unknown; the statement registers the patient".to_owned(),
        (None, _, false) => "unknown to the directory".to_owned(),
    };
    format!("{} by {}: {known}", patient.hash, patient.seen)
}

fn put_forwarded(rows: &mut Rows, forwarded: &Forwarded) {
    let width = forwarded.candidates.iter().map(|candidate| candidate.node.len()).max().unwrap_or(0);
    for (index, candidate) in forwarded.candidates.iter().enumerate() {
        let verdict = match (candidate.chosen, candidate.passed_over) {
            (true, _) => "chosen",
            (_, Some(why)) => why,
            (_, None) => "",
        };
        let words = format!("{:width$}  {:8.2}  {verdict}", candidate.node, candidate.score);
        rows.put(first("candidates", index), words.trim_end());
    }
    rows.put("target", format!("{} ({} in {})", forwarded.node, forwarded.role, forwarded.region));
    rows.put("shard", &forwarded.shard);
    rows.put("pool", forwarded.pool);
    rows.put("reason", format!("{}: {}", forwarded.reason, forwarded.because));
}

fn put_refused(rows: &mut Rows, refused: &Refused) {
    rows.put("refused", format!("{} {}: {}", refused.sqlstate, refused.reason, refused.message));
    for (word, text) in [("detail", &refused.detail), ("hint", &refused.hint)] {
        if let Some(text) = text {
            rows.put(word, text);
        }
    }
    if let Some(position) = refused.position {
        rows.put("position", format!("character {position}"));
    }
}

impl Explanation {
    /// What the audit records of it: one record for each decision, one for a refused message.
    fn put_audit(&self, rows: &mut Rows) {
        let fingerprint = self.fingerprint.as_deref().unwrap_or("none");
        let patients = |statement: &Explained| match statement.patients.len() {
            0 => "no patient".to_owned(),
            1 => "1 patient hash".to_owned(),
            number => format!("{number} patient hashes"),
        };
        match &self.outcome {
            Outcome::Forwarded(forwarded) => {
                for (index, statement) in self.statements.iter().enumerate() {
                    let kind = statement.kind.unwrap_or("unknown");
                    let words = format!("forwarded, {kind}, {}, {}", forwarded.reason, patients(statement));
                    rows.put(first("audit", index), format!("{words}, fingerprint {fingerprint}"));
                }
            }
            Outcome::Refused(refused) => {
                let words = self.statements.last().map_or_else(|| "no patient".to_owned(), patients);
                let refusal = format!("{} {}", refused.sqlstate, refused.reason);
                rows.put("audit", format!("refused, {refusal}, {words}, fingerprint {fingerprint}"));
            }
            Outcome::Open { .. } => {}
        }
    }
}

/// The word in front of the first of several rows.
fn first(word: &'static str, index: usize) -> &'static str {
    if index == 0 { word } else { "" }
}

#[derive(Default)]
struct Rows(Vec<(&'static str, String)>);

impl Rows {
    fn put(&mut self, word: &'static str, text: impl Into<String>) {
        self.0.push((word, text.into()));
    }
}

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|(word, _)| word.len()).max().unwrap_or(0);
        for (word, text) in &self.0 {
            let row = format!("{word:width$}  {text}");
            writeln!(f, "{}", row.trim_end())?;
        }
        Ok(())
    }
}
