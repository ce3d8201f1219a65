//! The decision itself: facts, evidence and node states in, a [`Decision`] or a [`Refusal`] out.
//!
//! It goes in three steps, each of which can refuse: what each statement needs (whose shard, under which permit); what
//! the statements of one message need together (one shard, or nothing runs); and which node of that shard takes them.
//! No step looks at a clock, a file or a socket; [`Router`] is built once from a configuration and never changes.

use std::sync::Arc;
use std::time::Duration;

use pgward_config::{Class, Config, NodeRole, PatientRegion, PoolKind, RegionId, Strategy, TableKind, Workload};
use smallvec::SmallVec;

use crate::decision::{Decision, Facts, Located, Pin, Reason, Transaction};
use crate::directory::DirectoryLookup;
use crate::evidence::{Evidence, Mention, PatientKey, Unknown, Whence};
use crate::hash::hash_key;
use crate::permit::{Permit, permit};
use crate::placement::{Candidates, Place, Rules, Views, pool};
use crate::refusal::{Refusal, RefusalKind};
use crate::statement::{Kind, Statement, TableUse};

mod rows;

pub use rows::Part;

/// Everything that decisions read from a configuration, laid out for reading.
#[derive(Debug)]
pub struct Router {
    strategy: Strategy,
    regions: Vec<RegionId>,
    places: Vec<Place>,
    /// What `Decision::home` says for a shard under strategy `hash`, where patients have no region of their own.
    shard_regions: Vec<PatientRegion>,
    by_patient_region: foldhash::HashMap<PatientRegion, usize>,
    /// First and last hash (both included) and the shard, ascending.
    ranges: Vec<(u64, u64, usize)>,
    origins: Vec<Origin>,
    max_lag: Duration,
}

/// A region as the place where requests come from.
#[derive(Debug)]
struct Origin {
    id: RegionId,
    /// The first shard that stands in it.
    home_shard: Option<usize>,
    /// The default shard, where this origin may use it.
    default_shard: Option<usize>,
    /// By index of the home region.
    permits: Vec<Permit>,
}

/// One statement as a decision sees it.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Its tree contains nothing but reads.
    pub reads_only: bool,
    /// The tables that it names.
    pub tables: &'a [TableUse],
    /// The patients that it touches.
    pub evidence: &'a Evidence,
    /// Where each of them is, in the same order.
    pub located: &'a [Option<Located>],
}

impl<'a> Ask<'a> {
    /// What a decision needs of an analysed statement.
    pub fn new(statement: &'a Statement, evidence: &'a Evidence, located: &'a [Option<Located>]) -> Self {
        Self { reads_only: statement.reads_only, tables: &statement.tables, evidence, located }
    }
}

/// What one statement needs.
struct Need {
    kind: Kind,
    reads_only: bool,
    at: At,
    home: Option<PatientRegion>,
    epoch: u64,
    permit: Arc<str>,
    register: Register,
}

type Register = SmallVec<[(PatientKey, PatientRegion); 1]>;

/// Where a statement can run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// On any shard: reference tables, the catalog, no table at all.
    Anywhere,
    /// On this shard, for its patients.
    Patients(usize),
    /// On this shard, the origin's home, for a local table; on its primary, so that what was written is seen.
    Local(usize),
}

/// The node that takes a message's statements.
#[derive(Clone)]
struct Placed {
    shard: usize,
    node: usize,
    pool: PoolKind,
    reason: Reason,
    candidates: Candidates,
}

impl Router {
    /// Works out everything that does not depend on a statement.
    pub fn new(config: &Config) -> Self {
        let region_index = |id: &RegionId| config.regions.iter().position(|region| region.id == *id);
        let places: Vec<Place> = config
            .shards
            .iter()
            .map(|shard| Place::new(shard, region_index(&shard.region).unwrap_or(usize::MAX)))
            .collect();
        let by_patient_region = config
            .shards
            .iter()
            .enumerate()
            .flat_map(|(index, shard)| shard.patient_regions.iter().map(move |region| (region.clone(), index)))
            .collect();
        let mut ranges: Vec<_> = config
            .shards
            .iter()
            .enumerate()
            .filter_map(|(index, shard)| {
                let (start, end) = shard.hash_range?;
                let last = u64::try_from(end.checked_sub(1)?).ok()?;
                (start <= last).then_some((start, last, index))
            })
            .collect();
        ranges.sort_unstable();
        let default = config.sharding.default_shard.as_ref();
        let default_shard =
            default.and_then(|default| config.shards.iter().position(|shard| shard.id == default.shard));
        let origins = config
            .regions
            .iter()
            .map(|origin| Origin {
                id: origin.id.clone(),
                home_shard: config.shards.iter().position(|shard| shard.region == origin.id),
                default_shard: default_shard
                    .filter(|_| default.is_some_and(|default| default.origins.contains(&origin.id))),
                permits: config.regions.iter().map(|home| permit(home, &origin.id)).collect(),
            })
            .collect();
        Self {
            strategy: config.sharding.strategy,
            regions: config.regions.iter().map(|region| region.id.clone()).collect(),
            shard_regions: config.shards.iter().map(|shard| PatientRegion::new(shard.region.as_str())).collect(),
            places,
            by_patient_region,
            ranges,
            origins,
            max_lag: config.health.max_replica_lag,
        }
    }

    /// Where a patient is: by the directory, or by the key's hash. `None`: the directory does not know the patient.
    pub fn locate(&self, key: &PatientKey, directory: &dyn DirectoryLookup) -> Option<Located> {
        match self.strategy {
            Strategy::PatientRegion => {
                let entry = directory.get(key)?;
                let shard = self.shard_of_region(&entry.region);
                Some(Located { region: entry.region, shard, epoch: entry.epoch })
            }
            Strategy::Hash => {
                let shard = self.shard_of_hash(hash_key(key))?;
                Some(Located { region: self.shard_regions[shard].clone(), shard: Some(shard), epoch: 0 })
            }
        }
    }

    /// The shard that serves a patient region.
    pub fn shard_of_region(&self, region: &PatientRegion) -> Option<usize> {
        self.by_patient_region.get(region).copied()
    }

    /// The shard whose range holds a placing hash.
    pub fn shard_of_hash(&self, hash: u64) -> Option<usize> {
        let after = self.ranges.partition_point(|&(start, ..)| start <= hash);
        let &(_, last, shard) = self.ranges.get(after.checked_sub(1)?)?;
        (hash <= last).then_some(shard)
    }

    /// Decides about one statement.
    ///
    /// `views` gives the node states of a shard; it is asked for one shard at most. `failed` are nodes of that shard
    /// that failed this very statement a moment ago.
    ///
    /// # Errors
    /// Why the statement goes nowhere.
    pub fn decide(
        &self,
        facts: &Facts<'_>,
        ask: Ask<'_>,
        views: &dyn Fn(usize) -> Views,
        failed: &[usize],
    ) -> Result<Decision, Refusal> {
        let origin = self.origin(&facts.listener.origin)?;
        let need = self.need(origin, facts, ask, &[])?;
        let placed = self.place(origin, facts, need.at, need.reads_only, views, failed)?;
        self.decision(facts, need, placed)
    }

    /// Decides about all statements of one message together: one decision each, all with the same target, or none runs.
    /// A patient that one statement registers is known to those behind it.
    ///
    /// # Errors
    /// Why the message goes nowhere.
    pub fn decide_all(
        &self,
        facts: &Facts<'_>,
        asks: &[Ask<'_>],
        views: &dyn Fn(usize) -> Views,
        failed: &[usize],
    ) -> Result<SmallVec<[Decision; 1]>, Refusal> {
        if let [ask] = asks {
            return Ok(SmallVec::from_buf([self.decide(facts, *ask, views, failed)?]));
        }
        let origin = self.origin(&facts.listener.origin)?;
        let mut needs: SmallVec<[Need; 2]> = SmallVec::new();
        let mut pending = Register::new();
        let mut at = At::Anywhere;
        for ask in asks {
            let mut need = self.need(origin, facts, *ask, &pending)?;
            need.register.retain(|(key, _)| !pending.iter().any(|(known, _)| known == key));
            pending.extend(need.register.iter().cloned());
            at = self.both(at, need.at)?;
            needs.push(need);
        }
        let reads_only = needs.iter().all(|need| need.reads_only);
        let placed = self.place(origin, facts, at, reads_only, views, failed)?;
        needs.into_iter().map(|need| self.decision(facts, need, placed.clone())).collect()
    }

    /// The same decisions about a message that only reads, for another node of their shard: `failed` could not answer.
    ///
    /// # Errors
    /// No node is left.
    pub fn decide_again(
        &self,
        facts: &Facts<'_>,
        decisions: &mut [Decision],
        views: &dyn Fn(usize) -> Views,
        failed: &[usize],
    ) -> Result<(), Refusal> {
        let Some(shard) = decisions.first().map(|decision| decision.target.shard) else { return Ok(()) };
        let origin = self.origin(&facts.listener.origin)?;
        let placed = self.place(origin, facts, At::Patients(shard), true, views, failed)?;
        let place = self.places.get(placed.shard).ok_or_else(node_removed)?;
        for decision in decisions {
            decision.target = place.target(placed.shard, placed.node, placed.pool).ok_or_else(node_removed)?;
            decision.candidates = placed.candidates.clone();
            decision.reason = placed.reason;
        }
        Ok(())
    }

    fn origin(&self, id: &RegionId) -> Result<&Origin, Refusal> {
        self.origins.iter().find(|origin| origin.id == *id).ok_or_else(|| {
            Refusal::new(RefusalKind::Sovereignty, format!("no rule names the origin {id} of this session"))
                .hint("The configuration changed; connect again through a listener that it names.")
        })
    }

    fn decision(&self, facts: &Facts<'_>, need: Need, placed: Placed) -> Result<Decision, Refusal> {
        let target = self
            .places
            .get(placed.shard)
            .and_then(|place| place.target(placed.shard, placed.node, placed.pool))
            .ok_or_else(node_removed)?;
        Ok(Decision {
            kind: need.kind,
            class: facts.class,
            target,
            home: need.home,
            epoch: need.epoch,
            candidates: placed.candidates,
            reason: placed.reason,
            permit: need.permit,
            register: need.register,
        })
    }
}

// ---- what one statement needs

impl Router {
    fn need(
        &self,
        origin: &Origin,
        facts: &Facts<'_>,
        ask: Ask<'_>,
        pending: &[(PatientKey, PatientRegion)],
    ) -> Result<Need, Refusal> {
        let mut need = Need { reads_only: ask.reads_only, ..self.write(facts) };
        need.kind = match (facts.class, ask.reads_only, facts.user.workload) {
            (Class::Emergency, ..) => Kind::Emergency,
            (_, false, _) => Kind::Write,
            (_, true, Workload::Analytics) => Kind::Analytics,
            (_, true, Workload::Care) => Kind::Read,
        };
        if ask.evidence.mentions.is_empty()
            && let Some(table) = ask.tables.iter().find(|table| table.kind == TableKind::Patient)
        {
            return Err(no_patient_named(table));
        }
        for (index, mention) in ask.evidence.mentions.iter().enumerate() {
            let located = ask.located.get(index).and_then(Option::as_ref);
            self.add_patient(&mut need, origin, facts, mention, located, pending)
                .map_err(|refusal| refusal.of_row(mention.whence))?;
        }
        if let Some(local) = ask.tables.iter().find(|table| table.kind == TableKind::Local) {
            let (home, words) = self.home_shard(origin, facts)?;
            match need.at {
                At::Patients(shard) if shard != home => return Err(self.local_with_patient(local, home, shard)),
                _ => need.at = At::Local(home),
            }
            if need.home.is_none() {
                need.permit = words;
            }
        }
        Ok(need)
    }

    /// What a write needs of which nothing else is known.
    fn write(&self, facts: &Facts<'_>) -> Need {
        Need {
            kind: if facts.class == Class::Emergency { Kind::Emergency } else { Kind::Write },
            reads_only: false,
            at: At::Anywhere,
            home: None,
            epoch: 0,
            permit: Arc::clone(no_patient()),
            register: Register::new(),
        }
    }

    /// Adds the shard, home region and permit of one patient to what the statement needs.
    fn add_patient(
        &self,
        need: &mut Need,
        origin: &Origin,
        facts: &Facts<'_>,
        mention: &Mention,
        located: Option<&Located>,
        pending: &[(PatientKey, PatientRegion)],
    ) -> Result<(), Refusal> {
        let stated = mention.region.as_ref().filter(|_| self.strategy == Strategy::PatientRegion);
        let known = located.map(|located| &located.region);
        let known = known.or_else(|| pending.iter().find(|(key, _)| *key == mention.key).map(|(_, region)| region));
        let region = match (known, stated) {
            (Some(known), Some(stated)) if known != stated => {
                return Err(self.contradiction(mention.whence, known, stated));
            }
            (Some(known), _) => known,
            (None, Some(stated)) if mention.unknown == Unknown::Place => stated,
            (None, Some(stated)) if mention.unknown == Unknown::Register => {
                need.register.push((mention.key.clone(), stated.clone()));
                stated
            }
            (None, _) => return Err(unknown_patient(mention.whence)),
        };
        let served = match located {
            Some(located) => located.shard,
            None => self.shard_of_region(region),
        };
        let shard = match served {
            Some(shard) => shard,
            None => fallback(origin, facts)
                .filter(|_| known.is_some() || is_region_name(region))
                .ok_or_else(|| unserved(origin, facts, known))?,
        };
        let words = self.permit(origin, shard, Some(region))?;
        match need.at {
            At::Patients(first) if first != shard => {
                let home = need.home.as_ref().unwrap_or(region);
                return Err(self.several_shards((first, home), (shard, region)));
            }
            At::Patients(_) => {}
            _ => {
                need.at = At::Patients(shard);
                need.permit = match served {
                    Some(_) => Arc::clone(words),
                    None => format!("default shard of {}, {words}", origin.id).into(),
                };
                need.home = Some(region.clone());
                need.epoch = located.map_or(0, |located| located.epoch);
            }
        }
        Ok(())
    }

    fn permit<'a>(
        &self,
        origin: &'a Origin,
        shard: usize,
        patient_region: Option<&PatientRegion>,
    ) -> Result<&'a Arc<str>, Refusal> {
        let home = self.places.get(shard).map_or(usize::MAX, |place| place.region);
        // Both are found for every validated configuration; if not, no rule allows anything.
        let (Some(permit), Some(region)) = (origin.permits.get(home), self.regions.get(home)) else {
            return Err(Refusal::new(RefusalKind::Sovereignty, "no rule names the region of this shard"));
        };
        permit.check(region, &origin.id, patient_region)
    }

    /// The shard for statements without a patient, and the permit in words.
    fn home_shard(&self, origin: &Origin, facts: &Facts<'_>) -> Result<(usize, Arc<str>), Refusal> {
        if let Some(shard) = origin.home_shard {
            return Ok((shard, Arc::clone(no_patient())));
        }
        let Some(shard) = fallback(origin, facts) else {
            return Err(Refusal::new(
                RefusalKind::RegionUnserved,
                format!("no shard stands in the origin {} of this session", origin.id),
            )
            .detail("A statement without a patient runs on the origin's home shard.")
            .hint("Name a patient, or ask the operator to list this origin under [sharding] default_shard."));
        };
        // No patient is touched, so strict local has nothing to protect; a prohibition still stands.
        let home = self.places[shard].region;
        if let (Some(permit @ Permit::Prohibited(_)), Some(region)) = (origin.permits.get(home), self.regions.get(home))
        {
            permit.check(region, &origin.id, None)?;
        }
        Ok((shard, format!("default shard of {}", origin.id).into()))
    }
}

/// The default shard, where this origin may use it and the statement is no emergency.
fn fallback(origin: &Origin, facts: &Facts<'_>) -> Option<usize> {
    origin.default_shard.filter(|_| facts.class != Class::Emergency)
}

fn no_patient() -> &'static Arc<str> {
    static WORDS: std::sync::LazyLock<Arc<str>> = std::sync::LazyLock::new(|| "no patient".into());
    &WORDS
}

// ---- what the statements of a message need together

impl Router {
    fn both(&self, first: At, second: At) -> Result<At, Refusal> {
        Ok(match (first, second) {
            (At::Anywhere, at) | (at, At::Anywhere) => at,
            (At::Local(a), At::Local(b) | At::Patients(b)) | (At::Patients(b), At::Local(a)) if a == b => At::Local(a),
            (At::Patients(a), At::Patients(b)) if a == b => first,
            (At::Local(a) | At::Patients(a), At::Local(b) | At::Patients(b)) => {
                return Err(self.several_statements(a, b));
            }
        })
    }
}

// ---- which node takes them

impl Router {
    fn place(
        &self,
        origin: &Origin,
        facts: &Facts<'_>,
        at: At,
        reads_only: bool,
        views: &dyn Fn(usize) -> Views,
        failed: &[usize],
    ) -> Result<Placed, Refusal> {
        if let Transaction::Pinned(pin) = facts.transaction {
            return self.stay(pin, at);
        }
        let shard = match at {
            At::Patients(shard) | At::Local(shard) => shard,
            At::Anywhere => self.home_shard(origin, facts)?.0,
        };
        let place = self.places.get(shard).ok_or_else(node_removed)?;
        let views = views(shard);
        let rules = Rules { views: &views, failed, max_lag: self.max_lag };
        let emergency = facts.class == Class::Emergency;
        let read = match facts.transaction {
            Transaction::Opening { read_only } => read_only,
            _ => reads_only,
        };
        if emergency || !read || matches!(at, At::Local(_)) {
            let candidates = place.primary(&rules)?;
            let pool = if emergency { PoolKind::Emergency } else { pool(NodeRole::Primary, facts.user.workload) };
            let reason = match (emergency, facts.transaction, at) {
                (true, ..) => Reason::Emergency,
                (_, Transaction::Opening { read_only: false }, _) => Reason::ReadWriteTransaction,
                (_, _, At::Anywhere | At::Local(_)) => Reason::HomeShard,
                _ => Reason::Write,
            };
            return Ok(Placed { shard, node: 0, pool, reason, candidates });
        }
        let (node, candidates) = place.best_for_read(&rules)?;
        let (role, reason) = match (node, at) {
            (0, _) => (NodeRole::Primary, Reason::NoReplica),
            (_, At::Anywhere) => (NodeRole::Replica, Reason::HomeShard),
            _ => (NodeRole::Replica, Reason::BestReplica),
        };
        Ok(Placed { shard, node, pool: pool(role, facts.user.workload), reason, candidates })
    }

    /// The node of the open transaction, if the statement can run there. A write on a replica goes there too: the
    /// transaction is READ ONLY, and the server says so (25006).
    fn stay(&self, pin: Pin, at: At) -> Result<Placed, Refusal> {
        match at {
            At::Patients(shard) | At::Local(shard) if shard != pin.shard => {
                Err(self.transaction_elsewhere(pin.shard, shard))
            }
            _ => Ok(Placed {
                shard: pin.shard,
                node: pin.node,
                pool: pin.pool,
                reason: Reason::Transaction,
                candidates: Candidates::new(),
            }),
        }
    }
}

// ---- refusals

impl Router {
    fn shard_words(&self, shard: usize) -> String {
        let place = self.places.get(shard);
        let region = place.and_then(|place| self.regions.get(place.region));
        match (place, region) {
            (Some(place), Some(region)) => format!("{} ({region})", place.id),
            _ => "a shard that is no longer configured".into(),
        }
    }

    fn several_shards(&self, first: (usize, &PatientRegion), second: (usize, &PatientRegion)) -> Refusal {
        Refusal::new(RefusalKind::SeveralRegions, "this statement touches patients of more than one shard")
            .detail(format!(
                "Patients of region {} are on {}, patients of region {} on {}.",
                first.1,
                self.shard_words(first.0),
                second.1,
                self.shard_words(second.0),
            ))
            .hint("Send one statement for the patients of each shard.")
    }

    fn several_statements(&self, first: usize, second: usize) -> Refusal {
        Refusal::new(RefusalKind::SeveralRegions, "the statements of this message need more than one shard")
            .detail(format!("One needs {}, another {}.", self.shard_words(first), self.shard_words(second)))
            .hint("Send them one by one: nothing of this message was executed.")
    }

    fn transaction_elsewhere(&self, pinned: usize, wanted: usize) -> Refusal {
        Refusal::new(RefusalKind::TransactionElsewhere, "this transaction is on another shard")
            .detail(format!(
                "The transaction is on {}; the statement needs {}.",
                self.shard_words(pinned),
                self.shard_words(wanted)
            ))
            .hint(
                "A transaction stays on one shard: end it first. So does a session that keeps its server (session \
                 pooling, temporary tables, LISTEN …): connect anew.",
            )
    }

    fn local_with_patient(&self, table: &TableUse, home: usize, shard: usize) -> Refusal {
        Refusal::new(RefusalKind::Unplaceable, "a local table and a patient of another shard in one statement")
            .detail(format!(
                "Table {} is on {}; the patient is on {}.",
                table.name,
                self.shard_words(home),
                self.shard_words(shard)
            ))
            .hint("Read the local table in a statement of its own, or make it a reference table.")
    }

    fn contradiction(&self, whence: Whence, known: &PatientRegion, stated: &PatientRegion) -> Refusal {
        // A region that nobody serves is a value of the statement like any other, and is not repeated.
        let stated = self.shard_of_region(stated).map_or("another region", |_| stated.as_str());
        Refusal::new(RefusalKind::RegionContradiction, "the statement's region contradicts the directory")
            .detail(format!("The patient named by {} lives in {known}; the statement says {stated}.", whence.words()))
            .hint("A patient is registered once. Correct the region, or have the patient moved.")
    }
}

/// A patient region that no shard serves: `known` from the directory, else from the statement.
fn unserved(origin: &Origin, facts: &Facts<'_>, known: Option<&PatientRegion>) -> Refusal {
    let message = match known {
        Some(region) => format!("no shard serves the patient region {region}").into(),
        None => std::borrow::Cow::from("no shard serves the region that the statement gives its patient"),
    };
    let emergency = facts.class == Class::Emergency && origin.default_shard.is_some();
    Refusal::new(RefusalKind::RegionUnserved, message)
        .detail(match emergency {
            true => "An emergency statement never falls back to the default shard.".to_owned(),
            false => format!("No default shard is open to the origin {}.", origin.id),
        })
        .hint("Check the region's name, or ask the operator to add it to a shard's patient_regions.")
}

/// Whether a statement's region may be registered though no shard serves it: a word, so that no sentence about a patient
/// becomes a region by a slip of columns.
fn is_region_name(region: &PatientRegion) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=63).contains(&region.as_str().len()) && region.as_str().bytes().all(word)
}

fn unknown_patient(whence: Whence) -> Refusal {
    Refusal::new(RefusalKind::UnknownPatient, "the directory does not know this patient")
        .detail(format!("The patient was named by {}.", whence.words()))
        .hint("A patient is registered by an INSERT that carries the region column.")
}

fn no_patient_named(table: &TableUse) -> Refusal {
    Refusal::new(RefusalKind::NoPatient, format!("no patient is named for the patient table {}", table.name))
        .hint("Compare the table's patient key with a value or a parameter.")
}

fn node_removed() -> Refusal {
    Refusal::new(RefusalKind::NoHealthyNode, "the node of this transaction is no longer configured")
        .hint("Roll back and retry.")
}

#[cfg(test)]
mod tests;
