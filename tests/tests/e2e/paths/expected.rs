//! What a case comes to on a path.

use super::Path;
use super::cases::{Case, Expect, Form};

/// Answers, and records.
pub(super) type Outcome = (Vec<String>, Vec<String>);

/// Each of them from a text with ` | ` between.
fn outcome(answers: &str, records: &str) -> Outcome {
    let split = |text: &str| text.split(" | ").filter(|one| !one.is_empty()).map(str::to_owned).collect();
    (split(answers), split(records))
}

/// Who answers, and what the record says.
struct Answer {
    text: String,
    record: String,
    refused: bool,
}

impl Answer {
    fn new(case: &Case, expect: Expect) -> Self {
        let (node, kind) = match expect {
            Expect::Read => ("replica", "read"),
            Expect::Write => ("primary", "write"),
            Expect::Emergency => ("primary", "emergency"),
            Expect::Refused(code) => {
                return Self { text: code.to_owned(), record: format!("refused {code}"), refused: true };
            }
        };
        let text = format!("{}-patients/{node}", case.region);
        Self { record: format!("{kind} {text}"), text, refused: false }
    }

    /// Where a write may follow, the primary reads.
    fn where_a_write_may_follow(case: &Case, expect: Expect) -> Self {
        let Self { text, record, refused } = Self::new(case, expect);
        Self { text: text.replace("replica", "primary"), record: record.replace("replica", "primary"), refused }
    }
}

/// The record of the statement before, which this node of its shard answers.
fn before(case: &Case, node: &str) -> String {
    match case.expect {
        Expect::Emergency => format!("emergency {}-patients/primary", case.before),
        _ => format!("read {}-patients/{node}", case.before),
    }
}

/// What a case comes to on a path, by what it comes to by itself.
pub(super) fn expected(case: &Case, path: Path) -> Outcome {
    if let Some(outcome) = otherwise(case, path) {
        return outcome;
    }
    let Answer { text, record, refused } = Answer::new(case, case.expect);
    match path {
        Path::Simple | Path::Unnamed | Path::Parameter => outcome(&format!("{text} I"), &record),
        // What its Parse is refused for leaves nothing to bind.
        Path::Named if case.is_refused_at_parse() => outcome(&format!("{text} I | 26000 I | 26000 I"), &record),
        Path::Named => outcome(&format!("nothing I | {text} I | {text} I"), &format!("{record} | {record}")),
        Path::BehindSync => {
            outcome(&format!("before I | {text} I"), &format!("{} | {record}", before(case, "replica")))
        }
        Path::Several => several(case),
        Path::Pipelined => {
            let Answer { text, record, .. } = Answer::where_a_write_may_follow(case, case.behind("PW006"));
            outcome(&format!("{text} I"), &format!("{} | {record}", before(case, "primary")))
        }
        Path::Transaction | Path::Extended => {
            let Answer { text, record, refused } = Answer::where_a_write_may_follow(case, case.behind("PW006"));
            let answers = format!("BEGIN T | before T | {text} {}", end(refused));
            outcome(&answers, &format!("{} | {record}", before(case, "primary")))
        }
        Path::Block => block(case),
        Path::ReadOnly => {
            // The server refuses what would write.
            let writes = !refused && (case.form == Form::Returning || case.expect == Expect::Write);
            let text = if writes { "25006" } else { &text };
            outcome(&format!("BEGIN T | {text} {}", end(refused || writes)), &record)
        }
        Path::Cursor => cursor(case),
        Path::Copy if case.form == Form::Utility => outcome("42601 I", "refused 42601"),
        Path::Copy => outcome(&format!("{text} I"), &record),
        Path::Prepare => prepare(case),
        Path::Do => outcome("PW008 I", "refused PW008"),
    }
}

/// How a transaction goes on after an answer, and what its COMMIT is answered.
fn end(failed: bool) -> &'static str {
    if failed { "E | ROLLBACK I" } else { "T | COMMIT I" }
}

/// The statements of one message are decided together: refused together, or for one node.
fn several(case: &Case) -> Outcome {
    let Answer { text, record, refused } = Answer::new(case, case.behind("PW002"));
    match text.rsplit_once('/') {
        Some((_, node)) if !refused => outcome(&format!("{text} I"), &format!("{} | {record}", before(case, node))),
        _ => outcome(&format!("{text} I"), &record),
    }
}

/// On patient tables what is prepared is the session's, and only its execution decides anything.
fn prepare(case: &Case) -> Outcome {
    let Answer { text, record, .. } = Answer::new(case, case.expect);
    match case.prepare {
        Some(code) => outcome(&format!("{code} I | 26000 I"), &format!("refused {code}")),
        None if case.is_refused_at_parse() => outcome(&format!("{text} I | 26000 I"), &record),
        None if case.keeps => {
            let primary = format!("{}-patients/primary", case.region);
            outcome(&format!("PREPARE I | {primary} I"), &format!("write {primary} | write {primary}"))
        }
        None => outcome(&format!("PREPARE I | {text} I"), &record),
    }
}

/// BEGIN and COMMIT are recorded where they share a message, too.
fn block(case: &Case) -> Outcome {
    let Answer { text, record, refused } = Answer::where_a_write_may_follow(case, case.expect);
    if refused {
        return outcome(&format!("{text} I"), &record);
    }
    let kind = if case.expect == Expect::Emergency { "emergency" } else { "read" };
    outcome(&format!("{text} I"), &format!("{kind} {text} | {record} | {kind} {text}"))
}

fn cursor(case: &Case) -> Outcome {
    let expect = if case.form == Form::Select { case.expect } else { Expect::Refused("42601") };
    let Answer { text, record, refused } = Answer::where_a_write_may_follow(case, expect);
    if refused {
        return outcome(&format!("BEGIN T | {text} E | 25P02 E | ROLLBACK I"), &record);
    }
    // FETCH follows its DECLARE.
    outcome(&format!("BEGIN T | DECLARE CURSOR T | {text} T | COMMIT I"), &format!("{record} | {record}"))
}

/// Where a refusal is another one than by itself.
fn otherwise(case: &Case, path: Path) -> Option<Outcome> {
    let (answers, records) = match (case.name, path) {
        // PgWard's own settings stand alone; refused for its form, which is no decision.
        ("a class above the ceiling", Path::Several | Path::Block) => ("0A000 I", ""),
        // In a transaction that has its server, that server parses first, and may fail with an error of its own.
        ("a key that is none", Path::Pipelined) => ("22P02 I", "read us-east-patients/primary | refused PW007"),
        // Not on patient tables: PREPARE of it is a statement like any other.
        ("planner statistics", Path::Prepare) => ("PW001 I | 26000 I", "refused PW001"),
        // Nor is a key asked for before the server has prepared what has it as a literal.
        ("a key that is none", Path::Prepare) => ("22P02 I | 26000 I", ""),
        _ => return None,
    };
    Some(outcome(answers, records))
}
