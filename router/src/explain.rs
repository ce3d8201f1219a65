//! A decision told to people: what was asked, what was seen in it, where it would go, and why — or why not.
//!
//! It runs the very functions that a session runs, so that what it tells is what would happen. Patients appear as the
//! audit names them; no literal of the statement is repeated.

use pgward_config::Config;
use serde::Serialize;
use smallvec::SmallVec;

use crate::analyser::Analyser;
use crate::decide::{Ask, Router};
use crate::decision::{Decision, Facts, Located, Transaction};
use crate::directory::DirectoryLookup;
use crate::evidence::{Evidence, Mention, Params, Whence};
use crate::hash::PatientHasher;
use crate::placement::Views;
use crate::refusal::Refusal;
use crate::statement::{Action, Analysed, Setting};

mod table;

/// Explains statements by these parts.
pub struct Explainer<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// Made from it.
    pub router: &'a Router,
    /// Made from it.
    pub analyser: &'a Analyser,
    /// Who is where.
    pub directory: &'a dyn DirectoryLookup,
    /// Names patients as the audit does.
    pub hasher: &'a PatientHasher,
}

/// All that is to be said about one message. `Display` makes a table of it; as JSON, field by field.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// User.
    pub user: String,
    /// Listener.
    pub listener: String,
    /// Origin region.
    pub origin: String,
    /// Class in force.
    pub class: &'static str,
    /// `none`, `read-write`, `read-only`, `pinned`.
    pub transaction: &'static str,
    /// Fingerprint of the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Its statements, as far as they were understood.
    pub statements: Vec<Explained>,
    /// Where the message goes, or why it goes nowhere.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What limits this explanation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One statement of the message.
#[derive(Clone, Debug, Serialize)]
pub struct Explained {
    /// `read`, `analytics`, `write`, `emergency`; absent when it was refused before that was decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// Nothing but reads was found in it.
    pub reads_only: bool,
    /// The tables that it names.
    pub tables: Vec<Table>,
    /// The patients that it touches.
    pub patients: Vec<Patient>,
    /// Home region of the patients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
    /// Why the origin may reach them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permit: Option<String>,
}

/// A table of a statement.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    /// `schema.name`
    pub name: String,
    /// `patient`, `reference`, `local`.
    pub kind: &'static str,
    /// Whether the statement writes to it.
    pub written: bool,
}

/// A patient of a statement.
#[derive(Clone, Debug, Serialize)]
pub struct Patient {
    /// The keyed hash of audit records.
    pub hash: String,
    /// Where the key stands: `$1`, `literal at character 34`.
    pub seen: String,
    /// Whether the directory knows the patient.
    pub known: bool,
    /// Home region, from the directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The shard that serves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard: Option<String>,
    /// Epoch of the directory entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// The statement would register the patient.
    pub registered: bool,
}

/// What becomes of the message.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase", tag = "outcome")]
pub enum Outcome {
    /// It goes to this server.
    Forwarded(Box<Forwarded>),
    /// It goes nowhere.
    Refused(Box<Refused>),
    /// Something that is not in the statement decides.
    Open {
        /// What that is.
        by: &'static str,
    },
}

/// Where the message goes.
#[derive(Clone, Debug, Serialize)]
pub struct Forwarded {
    /// Shard.
    pub shard: String,
    /// Node.
    pub node: String,
    /// `primary` or `replica`.
    pub role: &'static str,
    /// The node's region.
    pub region: String,
    /// Pool.
    pub pool: &'static str,
    /// Why, in the words of the audit.
    pub reason: &'static str,
    /// Why, in a sentence.
    pub because: &'static str,
    /// The nodes that were considered.
    pub candidates: Vec<Considered>,
}

/// A node that was considered.
#[derive(Clone, Debug, Serialize)]
pub struct Considered {
    /// Node.
    pub node: String,
    /// Score; lower is better.
    pub score: f32,
    /// Why it could not serve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passed_over: Option<&'static str>,
    /// It was taken.
    pub chosen: bool,
}

/// Why the message goes nowhere.
#[derive(Clone, Debug, Serialize)]
pub struct Refused {
    /// SQLSTATE.
    pub sqlstate: &'static str,
    /// Kind, in the words of the audit.
    pub reason: &'static str,
    /// MESSAGE
    pub message: String,
    /// DETAIL
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// HINT
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Character position in the text, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u32>,
}

impl Explainer<'_> {
    /// What a session with these facts would do with this message.
    pub fn explain(
        &self,
        facts: &Facts<'_>,
        sql: &[u8],
        params: &dyn Params,
        views: &dyn Fn(usize) -> Views,
    ) -> Explanation {
        let mut explanation = Explanation {
            user: facts.user.name.to_string(),
            listener: facts.listener.name.to_string(),
            origin: facts.listener.origin.to_string(),
            class: facts.class.as_str(),
            transaction: "none",
            fingerprint: None,
            statements: Vec::new(),
            outcome: Outcome::Open { by: "nothing: the text holds no statement" },
            notes: Vec::new(),
        };
        let analysed = match self.analyser.analyse(sql) {
            Ok(analysed) => analysed,
            Err(refusal) => {
                explanation.outcome = refused(&refusal);
                return explanation;
            }
        };
        explanation.fingerprint = Some(analysed.shape.fingerprint.to_string());
        let facts = Facts { transaction: transaction(facts.transaction, &analysed), ..*facts };
        explanation.transaction = match facts.transaction {
            Transaction::None => "none",
            Transaction::Opening { read_only: true } => "read-only",
            Transaction::Opening { read_only: false } => "read-write",
            Transaction::Pinned(_) => "pinned",
        };
        explanation.outcome = self
            .statements(&facts, &analysed, sql, params, views, &mut explanation.statements)
            .unwrap_or_else(|refusal| refused(&refusal));
        explanation
    }

    fn statements(
        &self,
        facts: &Facts<'_>,
        analysed: &Analysed,
        sql: &[u8],
        params: &dyn Params,
        views: &dyn Fn(usize) -> Views,
        explained: &mut Vec<Explained>,
    ) -> Result<Outcome, Refusal> {
        let mut seen: Vec<(Evidence, SmallVec<[Option<Located>; 1]>)> = Vec::new();
        let statements = &analysed.shape.statements;
        for (number, statement) in statements.iter().enumerate() {
            let tables = statement.tables.iter().map(|table| Table {
                name: table.name.to_string(),
                kind: table.kind.as_str(),
                written: table.written,
            });
            explained.push(Explained {
                kind: None,
                reads_only: statement.reads_only,
                tables: tables.collect(),
                patients: Vec::new(),
                home: None,
                permit: None,
            });
            let evidence = self.analyser.evidence(analysed, number, sql, params)?;
            let located: SmallVec<[_; 1]> =
                evidence.mentions.iter().map(|mention| self.router.locate(&mention.key, self.directory)).collect();
            let patients = evidence.mentions.iter().zip(&located);
            explained[number].patients =
                patients.map(|(mention, located)| self.patient(sql, mention, located.as_ref())).collect();
            seen.push((evidence, located));
        }
        if statements.is_empty() {
            return Ok(Outcome::Open { by: "nothing: the text holds no statement" });
        }
        if statements.iter().any(|statement| matches!(&statement.action, Action::CopyFrom(copy) if copy.key.is_some()))
        {
            return Ok(Outcome::Open { by: "the rows: each names its patient, and all must be on one shard" });
        }
        if statements.iter().all(|statement| of_session(&statement.action)) {
            return Ok(Outcome::Open { by: "the session: it concerns no data and leaves no record" });
        }
        let asks: Vec<_> = statements
            .iter()
            .zip(&seen)
            .map(|(statement, (evidence, located))| Ask::new(statement, evidence, located))
            .collect();
        let decisions = self.router.decide_all(facts, &asks, views, &[])?;
        for (explained, decision) in explained.iter_mut().zip(&decisions) {
            explained.kind = Some(decision.kind.as_str());
            explained.home = decision.home.as_ref().map(ToString::to_string);
            explained.permit = Some(decision.permit.to_string());
            for (key, _) in &decision.register {
                let hash = self.hash(key);
                explained
                    .patients
                    .iter_mut()
                    .filter(|patient| patient.hash == hash)
                    .for_each(|patient| patient.registered = true);
            }
        }
        Ok(decisions.first().map_or(Outcome::Open { by: "nothing" }, |decision| self.forwarded(decision)))
    }

    fn hash(&self, key: &crate::PatientKey) -> String {
        String::from_utf8_lossy(&self.hasher.hex(key)).into_owned()
    }

    fn patient(&self, sql: &[u8], mention: &Mention, located: Option<&Located>) -> Patient {
        let shard = located.and_then(|located| self.config.shards.get(located.shard?));
        Patient {
            hash: self.hash(&mention.key),
            seen: seen(sql, mention.whence),
            known: located.is_some(),
            region: located.map(|located| located.region.to_string()),
            shard: shard.map(|shard| shard.id.to_string()),
            epoch: located.map(|located| located.epoch),
            registered: false,
        }
    }

    fn forwarded(&self, decision: &Decision) -> Outcome {
        let target = &decision.target;
        let node_id = |index: usize| {
            let node = self.config.shards.get(target.shard).and_then(|shard| shard.nodes().nth(index));
            node.map_or_else(|| format!("node {index}"), |node| node.id.to_string())
        };
        let candidates = decision.candidates.iter().map(|candidate| Considered {
            node: node_id(candidate.node),
            score: candidate.score,
            passed_over: candidate.passed_over.map(crate::PassedOver::as_str),
            chosen: candidate.node == target.node,
        });
        Outcome::Forwarded(Box::new(Forwarded {
            shard: target.shard_id.to_string(),
            node: target.node_id.to_string(),
            role: target.role.as_str(),
            region: target.region.to_string(),
            pool: target.pool.as_str(),
            reason: decision.reason.as_str(),
            because: decision.reason.sentence(),
            candidates: candidates.collect(),
        }))
    }
}

/// A message that begins with BEGIN opens a transaction, unless one is open.
fn transaction(open: Transaction, analysed: &Analysed) -> Transaction {
    match (open, analysed.shape.statements.first().map(|statement| &statement.action)) {
        (Transaction::None, Some(Action::Begin { read_only, .. })) => Transaction::Opening { read_only: *read_only },
        _ => open,
    }
}

/// What only changes the session or marks its transaction.
fn of_session(action: &Action) -> bool {
    action.is_transaction_control()
        || matches!(action, Action::Discard { all: true } | Action::Deallocate(_))
        || matches!(action, Action::Set(Setting { name, .. }) | Action::Reset(Some(name)) | Action::Show(name)
        if name.starts_with("pgward."))
}

fn seen(sql: &[u8], whence: Whence) -> String {
    match whence {
        Whence::Literal { at, .. } => {
            let before = sql.get(..at as usize).unwrap_or(sql);
            format!("literal at character {}", String::from_utf8_lossy(before).chars().count() + 1)
        }
        Whence::Param(number) => format!("${number}"),
        Whence::CopyRow(row) => format!("row {row}"),
        Whence::CopyLine(line) => format!("line {line}"),
    }
}

fn refused(refusal: &Refusal) -> Outcome {
    Outcome::Refused(Box::new(Refused {
        sqlstate: refusal.kind.sqlstate(),
        reason: refusal.kind.as_str(),
        message: refusal.message.to_string(),
        detail: refusal.detail.as_ref().map(ToString::to_string),
        hint: refusal.hint.as_ref().map(ToString::to_string),
        position: refusal.position,
    }))
}

#[cfg(test)]
mod tests;
