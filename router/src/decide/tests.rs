#![allow(clippy::unwrap_used)]
//! Facts, evidence and node states in; decisions and refusals out. One line a case: a decision reads
//! `kind node pool reason`, a refusal `SQLSTATE message`.

use pgward_config::{Listener, User};
use smallvec::smallvec;

use super::*;
use crate::decision::{NodeView, PassedOver};
use crate::directory::Entry;
use crate::sample;

/// us-east: patients 100 to 199, us-west 200 …, eu-west 300 …, ap-south 400 …, a region without a shard 500 ….
pub(super) struct Census;

impl DirectoryLookup for Census {
    fn get(&self, key: &PatientKey) -> Option<Entry> {
        let PatientKey::Bigint(number) = key else { return None };
        let region = ["us-east", "us-west", "eu-west", "ap-south", "ca-central"];
        let region = region.get(usize::try_from(number / 100 - 1).ok()?)?;
        Some(Entry { region: PatientRegion::new(*region), epoch: 7 })
    }
}

/// A case: who asks, what, and how the nodes are. Starts as a care user's read of patient 100 from us-east-1, all nodes
/// idle.
#[derive(Clone)]
pub(super) struct Case {
    pub(super) config: Config,
    pub(super) listener: Listener,
    user: User,
    pub(super) class: Class,
    transaction: Transaction,
    reads_only: bool,
    tables: Vec<TableUse>,
    evidence: Evidence,
    pub(super) views: Views,
    failed: Vec<usize>,
}

fn idle() -> NodeView {
    NodeView { up: true, lag: Some(Duration::ZERO), connections: 0, response_ms: 0.0, cpu_percent: None }
}

fn table(kind: TableKind) -> TableUse {
    TableUse { name: format!("public.{}", kind.as_str()).into(), kind, written: false }
}

fn mention(number: i64, region: Option<&str>) -> Mention {
    Mention {
        key: PatientKey::Bigint(number),
        whence: Whence::Param(1),
        unknown: Unknown::Register,
        region: region.map(PatientRegion::new),
    }
}

impl Case {
    fn read() -> Self {
        Self {
            config: sample::config(),
            listener: sample::listener("us-east-1"),
            user: sample::user(Workload::Care),
            class: Class::Normal,
            transaction: Transaction::None,
            reads_only: true,
            tables: vec![table(TableKind::Patient)],
            evidence: Evidence { mentions: smallvec![mention(100, None)] },
            views: smallvec![idle(), idle(), idle()],
            failed: vec![],
        }
    }

    pub(super) fn write() -> Self {
        Self { reads_only: false, ..Self::read() }
    }

    /// A read of such a table (or of none) without a patient.
    fn of(kind: Option<TableKind>) -> Self {
        let tables = kind.map(table).into_iter().collect();
        Self { tables, evidence: Evidence::default(), ..Self::read() }
    }

    fn writing(self) -> Self {
        Self { reads_only: false, ..self }
    }

    fn patients(self, patients: &[i64]) -> Self {
        let mentions = patients.iter().map(|number| mention(*number, None)).collect();
        Self { evidence: Evidence { mentions }, ..self }
    }

    fn with_region(self, patient: i64, region: &str) -> Self {
        Self { evidence: Evidence { mentions: smallvec![mention(patient, Some(region))] }, ..self }
    }

    pub(super) fn from(self, origin: &str) -> Self {
        Self { listener: sample::listener(origin), ..self }
    }

    fn emergency(self) -> Self {
        Self { class: Class::Emergency, ..self }
    }

    fn analytics(self) -> Self {
        Self { user: sample::user(Workload::Analytics), class: Class::Low, ..self }
    }

    fn opening(self, read_only: bool) -> Self {
        Self { transaction: Transaction::Opening { read_only }, ..self }
    }

    fn pinned(self, shard: usize, node: usize, pool: PoolKind) -> Self {
        Self { transaction: Transaction::Pinned(Pin { shard, node, pool }), ..self }
    }

    fn node(mut self, node: usize, change: impl Fn(&mut NodeView)) -> Self {
        change(&mut self.views[node]);
        self
    }

    fn down(self, node: usize) -> Self {
        self.node(node, |view| view.up = false)
    }

    fn failed(self, failed: &[usize]) -> Self {
        Self { failed: failed.to_vec(), ..self }
    }

    fn table(mut self, kind: TableKind) -> Self {
        self.tables.push(table(kind));
        self
    }

    fn facts(&self) -> Facts<'_> {
        Facts { listener: &self.listener, user: &self.user, class: self.class, transaction: self.transaction }
    }

    fn located(&self, router: &Router) -> Vec<Option<Located>> {
        self.evidence.mentions.iter().map(|mention| router.locate(&mention.key, &Census)).collect()
    }

    fn ask<'a>(&'a self, located: &'a [Option<Located>]) -> Ask<'a> {
        Ask { reads_only: self.reads_only, tables: &self.tables, evidence: &self.evidence, located }
    }

    fn decide(&self) -> Result<Decision, Refusal> {
        let router = Router::new(&self.config);
        let located = self.located(&router);
        router.decide(&self.facts(), self.ask(&located), &|_| self.views.clone(), &self.failed)
    }
}

fn words(decision: &Decision) -> String {
    let target = &decision.target;
    format!("{} {} {} ({})", decision.kind.as_str(), target.node_id, target.pool, decision.reason.as_str())
}

#[track_caller]
fn check(case: &Case, expected: &str) {
    let found = match case.decide() {
        Ok(decision) => words(&decision),
        Err(refusal) => {
            assert!(refusal.hint.is_some(), "{refusal:?} has a hint");
            format!("{} {}", refusal.kind.sqlstate(), refusal.message)
        }
    };
    assert_eq!(found, expected);
}

#[test]
fn kinds_go_to_their_nodes_and_pools() {
    check(&Case::read(), "read us-east-patients/replica-1 readonly (best replica)");
    check(&Case::write(), "write us-east-patients/primary general (write)");
    check(&Case::read().analytics(), "analytics us-east-patients/replica-1 background (best replica)");
    check(&Case::write().analytics(), "write us-east-patients/primary background (write)");
    check(&Case::read().emergency(), "emergency us-east-patients/primary emergency (emergency)");
    check(&Case::write().emergency(), "emergency us-east-patients/primary emergency (emergency)");
    check(&Case::read().patients(&[100, 150]), "read us-east-patients/replica-1 readonly (best replica)");
    check(&Case::read().patients(&[200]), "read us-west-patients/replica-1 readonly (best replica)");
    check(
        &Case::read().table(TableKind::Reference).patients(&[200]),
        "read us-west-patients/replica-1 readonly (best replica)",
    );
}

#[test]
fn reads_take_the_best_healthy_replica_else_the_primary() {
    let busy = |view: &mut NodeView| view.response_ms = 10.0;
    let late = |view: &mut NodeView| view.lag = Some(Duration::from_secs(61));
    let unknown = |view: &mut NodeView| view.lag = None;
    check(&Case::read().node(1, busy), "read us-east-patients/replica-2 readonly (best replica)");
    check(&Case::read().down(1), "read us-east-patients/replica-2 readonly (best replica)");
    check(&Case::read().node(1, late), "read us-east-patients/replica-2 readonly (best replica)");
    check(&Case::read().node(1, unknown), "read us-east-patients/replica-2 readonly (best replica)");
    check(&Case::read().failed(&[1]), "read us-east-patients/replica-2 readonly (best replica)");
    check(&Case::read().failed(&[1]).down(2), "read us-east-patients/primary general (no replica)");
    check(&Case::read().analytics().down(1).down(2), "analytics us-east-patients/primary background (no replica)");
    check(
        &Case::read().down(0).down(1).node(2, late),
        "PW011 shard us-east-patients: no node of it is available for this read",
    );
    let refusal = Case::read().down(0).failed(&[1]).node(2, late).decide().unwrap_err();
    assert_eq!(
        refusal.detail.unwrap(),
        "us-east-patients/primary is down; us-east-patients/replica-1 failed this very statement; \
         us-east-patients/replica-2 is 61.0 s behind, more than the 60s allowed."
    );
}

#[test]
fn the_score_is_that_of_the_specification_and_ties_go_to_fewer_connections() {
    let decision = Case::read()
        .node(1, |view| (view.connections, view.response_ms, view.cpu_percent) = (10, 5.0, Some(20.0)))
        .node(2, |view| (view.connections, view.response_ms, view.cpu_percent) = (4, 2.0, Some(30.0)))
        .decide()
        .unwrap();
    let scores: Vec<_> = decision.candidates.iter().map(|candidate| (candidate.node, candidate.score)).collect();
    assert_eq!(scores, [(1, 11.0), (2, 11.0)]);
    assert_eq!(decision.target.node, 2);
}

#[test]
fn no_replica_shows_why_each_was_passed_over() {
    let decision = Case::read().down(1).failed(&[2]).decide().unwrap();
    let passed: Vec<_> = decision.candidates.iter().map(|candidate| (candidate.node, candidate.passed_over)).collect();
    assert_eq!(passed, [(0, None), (1, Some(PassedOver::Down)), (2, Some(PassedOver::Failed))]);
}

#[test]
fn writes_and_emergencies_need_the_primary() {
    let expected = "PW011 shard us-east-patients: the primary takes this statement, and it is not available";
    check(&Case::write().down(0), expected);
    check(&Case::read().emergency().down(0), expected);
    check(&Case::write().failed(&[0]), expected);
    check(&Case::read().opening(false).down(0), expected);
    check(&Case::read().down(0), "read us-east-patients/replica-1 readonly (best replica)");
}

#[test]
fn transactions_open_by_what_begin_said_and_stay() {
    check(&Case::read().opening(true), "read us-east-patients/replica-1 readonly (best replica)");
    check(&Case::write().opening(true), "write us-east-patients/replica-1 readonly (best replica)");
    check(&Case::read().opening(false), "read us-east-patients/primary general (read-write transaction)");
    check(&Case::write().opening(false), "write us-east-patients/primary general (read-write transaction)");
    check(&Case::read().opening(true).emergency(), "emergency us-east-patients/primary emergency (emergency)");
    let replica = |case: Case| case.pinned(0, 2, PoolKind::ReadOnly);
    check(&replica(Case::read()), "read us-east-patients/replica-2 readonly (transaction)");
    check(&replica(Case::write()), "write us-east-patients/replica-2 readonly (transaction)");
    check(&replica(Case::write().down(2)), "write us-east-patients/replica-2 readonly (transaction)");
    check(&replica(Case::of(None)), "read us-east-patients/replica-2 readonly (transaction)");
    check(&replica(Case::of(Some(TableKind::Local))), "read us-east-patients/replica-2 readonly (transaction)");
    check(&replica(Case::read().patients(&[200])), "PW006 this transaction is on another shard");
    let west = |case: Case| case.pinned(1, 0, PoolKind::General);
    check(&west(Case::of(Some(TableKind::Reference))), "read us-west-patients/primary general (transaction)");
    check(&west(Case::of(Some(TableKind::Local))), "PW006 this transaction is on another shard");
    check(
        &Case::read().pinned(9, 0, PoolKind::General).patients(&[]).table(TableKind::Patient),
        "PW001 no patient is named for the patient table public.patient",
    );
    check(
        &Case::of(None).pinned(9, 0, PoolKind::General),
        "PW011 the node of this transaction is no longer configured",
    );
    let refusal = west(Case::read()).decide().unwrap_err();
    assert_eq!(
        refusal.detail.unwrap(),
        "The transaction is on us-west-patients (us-west-2); the statement needs us-east-patients (us-east-1)."
    );
}

#[test]
fn without_a_patient_the_origins_home_shard() {
    let local = || Case::of(Some(TableKind::Local));
    check(&local(), "read us-east-patients/primary general (home shard)");
    check(&local().writing(), "write us-east-patients/primary general (home shard)");
    check(&local().opening(true), "read us-east-patients/primary general (home shard)");
    check(&Case::of(None), "read us-east-patients/replica-1 readonly (home shard)");
    check(&Case::of(None).writing(), "write us-east-patients/primary general (home shard)");
    check(&Case::of(Some(TableKind::Reference)), "read us-east-patients/replica-1 readonly (home shard)");
    check(&Case::of(None).down(1).down(2), "read us-east-patients/primary general (no replica)");
    check(&Case::of(None).from("eu-west-1"), "read eu-west-patients/replica-1 readonly (home shard)");
    check(&Case::of(None).emergency(), "emergency us-east-patients/primary emergency (emergency)");
    check(&Case::of(Some(TableKind::Patient)), "PW001 no patient is named for the patient table public.patient");
}

#[test]
fn an_origin_without_a_shard_uses_the_default_shard_where_allowed() {
    check(&Case::of(None).from("ca-central-1"), "read us-east-patients/replica-1 readonly (home shard)");
    let refused = "PW010 no shard stands in the origin sa-east-1 of this session";
    check(&Case::of(None).from("sa-east-1"), refused);
    let refused = "PW010 no shard stands in the origin ca-central-1 of this session";
    check(&Case::of(None).from("ca-central-1").emergency(), refused);
    check(&Case::of(None).from("nowhere"), "PW005 no rule names the origin nowhere of this session");
}

#[test]
fn a_local_table_joins_patients_of_the_home_shard_only() {
    let joined = Case::read().table(TableKind::Local);
    check(&joined, "read us-east-patients/primary general (home shard)");
    check(&joined.patients(&[200]), "PW008 a local table and a patient of another shard in one statement");
}

#[test]
fn sovereignty_decides_for_every_class() {
    check(&Case::read().from("us-west-2"), "read us-east-patients/replica-1 readonly (best replica)");
    let refused = "PW005 a patient of region us-east may not be reached from eu-west-1";
    for case in [Case::read(), Case::write(), Case::read().emergency(), Case::read().opening(true)] {
        check(&case.from("eu-west-1"), refused);
    }
    check(
        &Case::read().from("eu-west-1").pinned(0, 0, PoolKind::General),
        "PW005 a patient of region us-east may not be reached from eu-west-1",
    );
    check(&Case::read().from("ap-south-1"), "PW005 a patient of region us-east may not be reached from ap-south-1");
    check(&Case::read().patients(&[100, 300]), "PW005 a patient of region eu-west may not be reached from us-east-1");
    let permit = |case: Case| case.decide().unwrap().permit;
    assert_eq!(&*permit(Case::read()), "home region");
    assert_eq!(&*permit(Case::read().patients(&[200])), "access_from of us-west-2");
    assert_eq!(&*permit(Case::of(None)), "no patient");
    assert_eq!(&*permit(Case::read().patients(&[500])), "default shard of us-east-1, home region");
}

#[test]
fn patients_of_several_shards_are_refused_without_their_keys() {
    check(&Case::read().patients(&[100, 101, 200]), "PW002 this statement touches patients of more than one shard");
    let refusal = Case::read().patients(&[100, 200]).decide().unwrap_err();
    assert_eq!(
        refusal.detail.unwrap(),
        "Patients of region us-east are on us-east-patients (us-east-1), \
         patients of region us-west on us-west-patients (us-west-2)."
    );
}

#[test]
fn unknown_patients_are_refused_unless_an_insert_registers_them() {
    check(&Case::read().patients(&[9]), "PW004 the directory does not know this patient");
    check(&Case::write().patients(&[100, 9]), "PW004 the directory does not know this patient");
    check(&Case::read().patients(&[9]).emergency(), "PW004 the directory does not know this patient");
    let insert = Case::write().with_region(9, "us-west");
    check(&insert, "write us-west-patients/primary general (write)");
    let decision = insert.decide().unwrap();
    assert_eq!(decision.register.as_slice(), [(PatientKey::Bigint(9), PatientRegion::new("us-west"))]);
    assert_eq!((decision.home.unwrap().as_str(), decision.epoch), ("us-west", 0));
    let again = Case::write().with_region(100, "us-east").decide().unwrap();
    assert_eq!((again.register.len(), again.epoch), (0, 7));
    check(
        &Case::write().with_region(9, "eu-west"),
        "PW005 a patient of region eu-west may not be reached from us-east-1",
    );
    check(&Case::write().with_region(100, "us-west"), "PW013 the statement's region contradicts the directory");
}

#[test]
fn unserved_regions_fall_back_where_allowed_and_never_in_an_emergency() {
    check(&Case::read().patients(&[500]), "read us-east-patients/replica-1 readonly (best replica)");
    check(&Case::read().patients(&[500]).emergency(), "PW010 no shard serves the patient region ca-central");
    check(&Case::read().patients(&[500]).from("us-west-2"), "PW010 no shard serves the patient region ca-central");
    let insert = |region| Case::write().with_region(9, region);
    check(&insert("mx-north"), "write us-east-patients/primary general (write)");
    let refused = "PW010 no shard serves the region that the statement gives its patient";
    check(&insert("John Smith, 1970"), refused);
    check(&insert("mx-north").from("us-west-2"), refused);
    check(&insert("mx-north").emergency(), refused);
}

#[test]
fn hash_ranges_place_every_key_and_need_no_directory() {
    let mut case = Case::read();
    case.config.sharding.strategy = Strategy::Hash;
    case.config.regions.iter_mut().for_each(|region| (region.resident, region.prohibited) = (false, vec![]));
    for (index, shard) in case.config.shards.iter_mut().enumerate() {
        let quarter = |n: usize| (n as u128) << 62;
        shard.hash_range = Some((quarter(index) as u64, quarter(index + 1)));
    }
    let router = Router::new(&case.config);
    for (hash, shard) in [(0, 0), ((1 << 62) - 1, 0), (1 << 62, 1), (u64::MAX, 3)] {
        assert_eq!(router.shard_of_hash(hash), Some(shard));
    }
    let located = router.locate(&PatientKey::Bigint(1), &crate::NoDirectory).unwrap();
    // 0xF36B… stands in the last quarter.
    assert_eq!((located.shard, located.region.as_str()), (Some(3), "ap-south-1"));
    check(&case.with_region(1, "anything"), "read ap-south-patients/replica-1 readonly (best replica)");
}

#[test]
fn a_hash_outside_all_ranges_has_no_shard() {
    let mut config = sample::config();
    config.shards[1].hash_range = Some((10, 20));
    let router = Router::new(&config);
    assert_eq!([9, 10, 19, 20].map(|hash| router.shard_of_hash(hash)), [None, Some(1), Some(1), None]);
}

/// Decides about the cases as one message; facts and views are the first's.
fn message(cases: &[Case]) -> Result<Vec<String>, Refusal> {
    let router = Router::new(&cases[0].config);
    let located: Vec<_> = cases.iter().map(|case| case.located(&router)).collect();
    let asks: Vec<_> = cases.iter().zip(&located).map(|(case, located)| case.ask(located)).collect();
    let decisions = router.decide_all(&cases[0].facts(), &asks, &|_| cases[0].views.clone(), &[])?;
    Ok(decisions.iter().map(words).collect())
}

#[test]
fn a_message_goes_to_one_node_or_nowhere() {
    let reads = message(&[Case::of(None), Case::read().patients(&[200]), Case::of(Some(TableKind::Reference))]);
    assert_eq!(reads.unwrap(), vec!["read us-west-patients/replica-1 readonly (best replica)"; 3]);
    let mixed = message(&[Case::read(), Case::write()]).unwrap();
    assert_eq!(
        mixed,
        ["read us-east-patients/primary general (write)", "write us-east-patients/primary general (write)"]
    );
    let local = message(&[Case::read(), Case::of(Some(TableKind::Local))]).unwrap();
    assert_eq!(local[0], "read us-east-patients/primary general (home shard)");
    for spread in [
        [Case::read(), Case::read().patients(&[200])],
        [Case::read().patients(&[200]), Case::of(Some(TableKind::Local))],
    ] {
        assert_eq!(message(&spread).unwrap_err().kind, RefusalKind::SeveralRegions);
    }
    assert_eq!(message(&[Case::read(), Case::read().patients(&[9])]).unwrap_err().kind, RefusalKind::UnknownPatient);
}

#[test]
fn a_patient_that_a_message_registers_is_known_to_what_follows() {
    let cases = [Case::write().with_region(9, "us-west"), Case::write().patients(&[9])];
    assert_eq!(message(&cases).unwrap(), vec!["write us-west-patients/primary general (write)"; 2]);
    let contradicting = [cases[0].clone(), Case::write().with_region(9, "us-east")];
    assert_eq!(message(&contradicting).unwrap_err().kind, RefusalKind::RegionContradiction);
}
