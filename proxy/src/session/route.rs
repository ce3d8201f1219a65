//! From analysed text to decisions, and from decisions to the audit log.
//!
//! A decision is recorded when its server is at hand and before a byte of the statement is written to it. Transaction
//! control and the session's own settings decide nothing and leave no record.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use pgward_audit::{Candidate, Outcome, Place, Receipt, Record};
use pgward_config::{AuditPolicy, Class, NodeRole, PoolMode, Workload};
use pgward_pools::NodeState;
use pgward_router::decide::Ask;
use pgward_router::{
    Action, Analysed, Decision, Evidence, Facts, Kind, Located, NodeView, Params, Refusal, RefusalKind, Transaction,
    Views, Whence,
};
use pgward_wire::PgError;
use smallvec::SmallVec;

use super::sql_prepared::Call;
use super::work::Effects;
use super::{Session, errors};

/// Where the patients of some evidence are.
type Places = SmallVec<[Option<Located>; 1]>;
/// The audit's name of a patient: 32 hexadecimal digits.
pub(super) type PatientHash = [u8; 32];

/// Statements that were decided and wait for their server.
pub(super) struct Pending {
    pub(super) decisions: SmallVec<[Decision; 1]>,
    /// One for each decision.
    pub(super) notes: SmallVec<[Note; 1]>,
    fingerprint: Arc<str>,
    pub(super) effects: Effects,
    took: Duration,
    /// When it was decided.
    pub(super) decided: Instant,
    /// Nothing in it writes.
    reads_only: bool,
    /// Everything in it reads, and it is its own transaction: another node may answer it as well.
    pub(super) repeatable: bool,
    /// It is an EXECUTE of what the session has prepared.
    pub(super) call: Option<Box<Call>>,
}

/// What was asked by a statement that did not go anywhere, as far as it is known.
#[derive(Clone, Copy, Default)]
pub(super) struct Asked<'a> {
    pub(super) fingerprint: &'a str,
    pub(super) reads_only: bool,
    pub(super) note: Option<&'a Note>,
    pub(super) took: Duration,
}

impl Pending {
    fn asked(&self) -> Asked<'_> {
        Asked { fingerprint: &self.fingerprint, reads_only: self.reads_only, note: self.notes.last(), took: self.took }
    }
}

/// Whether other statements may run in the same implicit transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Company {
    /// All that it holds is known.
    Alone,
    /// More may come before the Sync, writes among them.
    MayFollow,
}

/// What the record of a decision says of its patients.
#[derive(Clone, Default)]
pub(super) struct Note {
    pub(super) patients: SmallVec<[PatientHash; 1]>,
    pub(super) places: SmallVec<[Place; 1]>,
}

impl Session {
    /// Decides about the statements of a text.
    ///
    /// # Errors
    /// The error to tell the client; a refusal is in the audit log then.
    pub(super) fn decide(
        &mut self,
        analysed: &Analysed,
        sql: &[u8],
        params: &dyn Params,
        company: Company,
    ) -> Result<Box<Pending>, PgError> {
        let started = Instant::now();
        let effects = self.effects(analysed, sql, params);
        self.check_changes(&effects)?;
        self.note_local_configs(analysed, sql, params);
        let mut pending = Box::new(Pending {
            decisions: SmallVec::new(),
            notes: SmallVec::new(),
            fingerprint: Arc::clone(&analysed.shape.fingerprint),
            effects,
            took: Duration::ZERO,
            decided: started,
            reads_only: (0..analysed.shape.statements.len()).all(|n| self.reads_only(analysed, n)),
            repeatable: false,
            call: None,
        });
        if let Err(refusal) = self.check_role(analysed, pending.effects.as_deref().unwrap_or_default()) {
            self.record_refusal(&refusal, &pending.asked());
            return Err(errors::refusal(&refusal));
        }
        let on_server = matches!(self.transaction(), Transaction::Pinned(_));
        if on_server && analysed.shape.statements.iter().all(|statement| statement.action.is_transaction_control()) {
            return Ok(pending);
        }
        let transaction = self.transaction_for(analysed, &pending, company);
        let decisions = transaction.and_then(|as_of| {
            self.decisions(analysed, sql, params, as_of, &mut pending)?;
            Ok(as_of)
        });
        pending.decided = Instant::now();
        pending.took = pending.decided - started;
        match decisions {
            Ok(transaction) => {
                if let Err(error) = self.follow_cursors(analysed, &mut pending) {
                    self.record_not_sent(&pending, &error);
                    return Err(error);
                }
                let reads = |decision: &Decision| matches!(decision.kind, Kind::Read | Kind::Analytics);
                pending.repeatable = transaction == Transaction::None
                    && !self.serializable
                    && pending.decisions.iter().all(reads)
                    && self.is_poolable();
                Ok(pending)
            }
            Err(refusal) => {
                self.record_refusal(&refusal, &pending.asked());
                Err(errors::refusal(&refusal))
            }
        }
    }

    /// Whether a statement of these only reads.
    fn reads_only(&self, analysed: &Analysed, n: usize) -> bool {
        self.cursors.reads_only(&analysed.shape.statements, n)
    }

    pub(super) fn is_poolable(&self) -> bool {
        self.pinned.is_none() && self.pool_mode() == PoolMode::Transaction
    }

    fn decisions(
        &self,
        analysed: &Analysed,
        sql: &[u8],
        params: &dyn Params,
        transaction: Transaction,
        pending: &mut Pending,
    ) -> Result<(), Refusal> {
        if let [statement] = &analysed.shape.statements[..] {
            let evidence = self.state.analyser.evidence(analysed, 0, sql, params)?;
            let (note, located) = self.resolve(&evidence);
            pending.notes.push(note);
            let ask = Ask { reads_only: self.reads_only(analysed, 0), ..Ask::new(statement, &evidence, &located) };
            pending.decisions = self.decide_as(transaction, &[ask], &[])?;
            return Ok(());
        }
        let mut seen: SmallVec<[(Evidence, Places); 2]> = SmallVec::new();
        for n in 0..analysed.shape.statements.len() {
            let evidence = self.state.analyser.evidence(analysed, n, sql, params)?;
            let (note, located) = self.resolve(&evidence);
            pending.notes.push(note);
            seen.push((evidence, located));
        }
        let statements = analysed.shape.statements.iter().enumerate();
        let asks: SmallVec<[Ask<'_>; 1]> = statements
            .zip(&seen)
            .map(|((n, statement), (evidence, located))| Ask {
                reads_only: self.reads_only(analysed, n),
                ..Ask::new(statement, evidence, located)
            })
            .collect();
        if asks.is_empty() {
            // An empty query still needs a server to answer it in a pipeline's turn; it touches nothing.
            let nothing = Evidence::default();
            let ask = Ask { reads_only: true, tables: &[], evidence: &nothing, located: &[] };
            pending.decisions = self.decide_as(transaction, &[ask], &[])?;
            pending.notes.push(Note::default());
            return Ok(());
        }
        pending.decisions = self.decide_as(transaction, &asks, &[])?;
        Ok(())
    }

    /// The transaction to decide in. Whatever may write, or means something on a primary only, must not find itself on
    /// a replica: there a write fails, a lock excludes nobody, and what keeps the server keeps it from writing.
    fn transaction_for(
        &self,
        analysed: &Analysed,
        pending: &Pending,
        company: Company,
    ) -> Result<Transaction, Refusal> {
        let keeps = pending.effects.iter().flatten().any(|effect| effect.pins().is_some());
        let primary_only = keeps || analysed.shape.statements.iter().any(|statement| statement.locks);
        let on_primary = Transaction::Opening { read_only: false };
        match self.opened_by(analysed) {
            Transaction::Pinned(pin) if pin.node > 0 && primary_only => Err(Refusal::new(
                RefusalKind::Unsupported,
                "the transaction is on a replica, where this statement has no effect on others",
            )
            .hint("Begin the transaction without READ ONLY, or run the statement as its first.")),
            Transaction::None if primary_only || company == Company::MayFollow => Ok(on_primary),
            Transaction::Opening { read_only: true } if primary_only || !pending.reads_only => Ok(on_primary),
            transaction => Ok(transaction),
        }
    }

    /// The transaction that a text's statements run in: the session's, or the one that a BEGIN among them opens.
    fn opened_by(&self, analysed: &Analysed) -> Transaction {
        let begin = analysed.shape.statements.iter().find_map(|statement| match statement.action {
            Action::Begin { read_only, .. } => Some(Transaction::Opening { read_only }),
            _ => None,
        });
        match self.transaction() {
            Transaction::None => begin.unwrap_or_default(),
            transaction => transaction,
        }
    }

    /// Decides about statements whose evidence is known.
    pub(super) fn decide_asks(&self, asks: &[Ask<'_>], failed: &[usize]) -> Result<SmallVec<[Decision; 1]>, Refusal> {
        self.decide_as(self.transaction(), asks, failed)
    }

    fn decide_as(
        &self,
        transaction: Transaction,
        asks: &[Ask<'_>],
        failed: &[usize],
    ) -> Result<SmallVec<[Decision; 1]>, Refusal> {
        self.state.router.decide_all(&self.facts(transaction), asks, &|shard| self.views(shard), failed)
    }

    pub(super) fn facts(&self, transaction: Transaction) -> Facts<'_> {
        let transaction = match transaction {
            // A hot standby cannot run a serializable transaction.
            Transaction::None | Transaction::Opening { .. } if self.serializable => {
                Transaction::Opening { read_only: false }
            }
            // A session that keeps its server may write later: it begins on a primary.
            Transaction::None | Transaction::Opening { .. } if self.pool_mode() == PoolMode::Session => {
                Transaction::Opening { read_only: false }
            }
            transaction => transaction,
        };
        Facts { listener: self.listener(), user: self.user(), class: self.class(), transaction }
    }

    /// The states of a shard's nodes as placement sees them.
    pub(super) fn views(&self, shard: usize) -> Views {
        self.state.fleet.shard(shard).iter().map(|node| view(node.role, node.state())).collect()
    }

    /// Where the patients of some evidence are, and how the audit names them.
    pub(super) fn resolve(&self, evidence: &Evidence) -> (Note, Places) {
        let mut note = Note::default();
        let mut located = SmallVec::new();
        for mention in &evidence.mentions {
            let resolved = self.state.patients.resolve(&mention.key);
            note.patients.push(resolved.audit_hash);
            note.places.push(place(mention.whence));
            located.push(resolved.entry);
        }
        (note, located)
    }

    /// The same statements for another node, after some failed; everything else stays as it was decided.
    pub(super) fn decide_again(&mut self, pending: &mut Pending, failed: &[usize]) -> Result<(), PgError> {
        let facts = self.facts(self.transaction());
        match self.state.router.decide_again(&facts, &mut pending.decisions, &|shard| self.views(shard), failed) {
            Ok(()) => Ok(()),
            Err(refusal) => {
                self.record_refusal(&refusal, &pending.asked());
                Err(errors::refusal(&refusal))
            }
        }
    }

    /// Decisions about COPY rows, each with its note.
    pub(super) fn pending_rows(
        &self,
        rows: impl IntoIterator<Item = (Decision, Note)>,
        fingerprint: &Arc<str>,
        started: Instant,
    ) -> Box<Pending> {
        let decided = Instant::now();
        let (decisions, notes) = rows.into_iter().unzip();
        Box::new(Pending {
            decisions,
            notes,
            fingerprint: Arc::clone(fingerprint),
            effects: None,
            took: decided - started,
            decided,
            reads_only: false,
            repeatable: false,
            call: None,
        })
    }

    /// Registers new patients, then writes the records of these decisions: what must have happened before the first
    /// byte of the statement goes to the server.
    ///
    /// # Errors
    /// 58030 when either cannot be written; nothing may be forwarded then.
    pub(super) fn record(&mut self, pending: &mut Pending) -> Result<(), PgError> {
        if let (Some(attached), Some(decision)) = (&self.attached, pending.decisions.first()) {
            let here = (attached.pin.shard, attached.pin.node) == (decision.target.shard, decision.target.node);
            if attached.describe_only || !here {
                return Err(errors::internal("the server at hand is not the one that was decided for"));
            }
        }
        for decision in &mut pending.decisions {
            if !decision.register.is_empty() {
                self.state.patients.register(&decision.register).map_err(|error| errors::registration(&error))?;
                decision.register.clear();
            }
        }
        // A server that was waited for was taken after the decision.
        let taken = self.attached.as_ref().map_or(pending.decided, |attached| attached.sent);
        let now = self.shared.registry.wall(taken.max(pending.decided));
        for (decision, note) in pending.decisions.iter().zip(&pending.notes) {
            let names = &self.state.names[decision.target.shard];
            let candidates: SmallVec<[Candidate<'_>; 4]> = decision
                .candidates
                .iter()
                .map(|candidate| Candidate {
                    node: &names[candidate.node],
                    score: candidate.score,
                    passed_over: candidate.passed_over.map(|why| why.as_str()),
                })
                .collect();
            let record = Record {
                who: &self.audit_who,
                role: self.role(),
                transaction: !matches!(self.tx, super::Tx::Idle),
                kind: decision.kind.as_str(),
                class: decision.class,
                fingerprint: &pending.fingerprint,
                patients: &note.patients,
                evidence: &note.places,
                home: decision.home.as_ref().map(|home| home.as_str()),
                target: Some((&names[decision.target.node], decision.target.pool)),
                candidates: &candidates,
                outcome: Outcome::Forwarded { reason: decision.reason.as_str(), permit: &decision.permit },
                decision_time: pending.took,
                config: &self.state.config.hash,
            };
            match self.shared.audit.append(&record, now) {
                Ok(Receipt::Done) => {}
                Ok(receipt) => self.receipts.push(receipt),
                Err(error) => {
                    self.shared.metrics.audit_failures.increment(1);
                    return Err(errors::audit(&error));
                }
            }
            self.shared.metrics.forwarded(decision.kind);
            self.shared.metrics.decision.record(pending.took);
        }
        // What waits for a disk can be cancelled, unless something else runs on the server, or more than this hangs on it.
        // The wait for the write of a turn's records ends at once, and its server is not to be given up for it.
        let waits_for_disk = !self.receipts.is_empty() && self.state.config.audit.policy == AuditPolicy::Synced;
        let nothing_runs = match &self.split {
            Some(split) => split.is_unheard(),
            None => self.attached.as_ref().is_some_and(|attached| attached.ready.is_some()),
        };
        if waits_for_disk && nothing_runs && !self.keeps_server() {
            self.handle.waiting.begin();
        }
        Ok(())
    }

    /// Records that a statement was refused.
    pub(super) fn record_refusal(&self, refusal: &Refusal, asked: &Asked<'_>) {
        self.record_refused(refusal.kind.as_str(), refusal.kind.sqlstate(), &refusal.message, asked);
    }

    /// Records that a decided statement did not reach its server.
    pub(super) fn record_not_sent(&self, pending: &Pending, error: &PgError) {
        let detail = if error.is_passed_on() { "a server refused what goes before it" } else { error.message() };
        self.record_refused("not sent", error.sqlstate(), detail, &pending.asked());
    }

    fn record_refused(&self, reason: &'static str, sqlstate: &str, detail: &str, asked: &Asked<'_>) {
        let class = self.class();
        let kind = match (class, asked.reads_only, self.user().workload) {
            (Class::Emergency, ..) => Kind::Emergency,
            (_, false, _) => Kind::Write,
            (_, true, Workload::Analytics) => Kind::Analytics,
            (_, true, Workload::Care) => Kind::Read,
        };
        let (patients, evidence) = asked.note.map_or((&[][..], &[][..]), |note| (&note.patients[..], &note.places[..]));
        let record = Record {
            who: &self.audit_who,
            role: self.role(),
            transaction: !matches!(self.tx, super::Tx::Idle),
            kind: kind.as_str(),
            class,
            fingerprint: asked.fingerprint,
            patients,
            evidence,
            home: None,
            target: None,
            candidates: &[],
            outcome: Outcome::Refused { reason, sqlstate, detail },
            decision_time: asked.took,
            config: &self.state.config.hash,
        };
        self.shared.metrics.refused(kind, sqlstate);
        // The client gets its refusal in any case; a log that cannot be written says so itself.
        if self.shared.audit.append(&record, SystemTime::now()).is_err() {
            self.shared.metrics.audit_failures.increment(1);
        }
    }
}

fn place(whence: Whence) -> Place {
    match whence {
        Whence::Literal { at, .. } => Place::Literal(at),
        Whence::Param(n) => Place::Param(n),
        Whence::CopyRow(n) => Place::CopyRow(n),
        Whence::CopyLine(n) => Place::CopyLine(n),
    }
}

/// A node's state as placement sees it.
fn view(role: NodeRole, state: NodeState) -> NodeView {
    NodeView {
        up: state.up,
        lag: if role == NodeRole::Primary { Some(Duration::ZERO) } else { state.lag },
        connections: state.connections,
        response_ms: state.response_ms,
        cpu_percent: state.cpu_percent,
    }
}
