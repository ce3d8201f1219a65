//! What is known of a node at this moment: written by its prober and by the sessions, read by every decision.
//!
//! The figures that a decision reads are atomics; only a change of standing takes a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use pgward_config::model::{Health, NodeId};
use tokio::sync::{Notify, watch};

use crate::kill::KillRegistry;
use crate::standing::{Standing, Tally};
use crate::words;

/// What went wrong with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nobody listens there.
    Refused,
    /// The connection broke, or could not be made for another reason than refusal.
    Reset,
    /// A connection in use was lost.
    Lost,
    /// No answer in time.
    Timeout,
    /// The login did not succeed.
    Login,
    /// It is not what the configuration says: a primary in recovery, or a replica that is not.
    WrongRole,
    /// It belongs to another database cluster than the shard's primary.
    Foreign,
    /// The probe's answer was an error or made no sense.
    Answer,
}

impl Failure {
    /// The word for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Lost => "lost",
            Self::Timeout => "timeout",
            Self::Login => "login",
            Self::WrongRole => "wrong-role",
            Self::Foreign => "foreign",
            Self::Answer => "answer",
        }
    }
}

/// What a server says of itself at a login: its ParameterStatus values, in its order.
pub type Parameters = Arc<Vec<(String, String)>>;

/// What a decision knows of a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NodeState {
    /// In use; false also while nothing is known yet.
    pub up: bool,
    /// At most how old a replica's data was at its last probe; `Duration::MAX` while that is not known, `None` for a
    /// primary.
    pub lag: Option<Duration>,
    /// Servers of this node in use by sessions.
    pub connections: u32,
    /// Response time, a moving average of what sessions and probes measured.
    pub response_ms: f32,
    /// CPU utilization of its host, where a source is configured and answers.
    pub cpu_percent: Option<f32>,
}

/// What a node that is under suspicion is slower by, in the eyes of a decision: reads prefer another replica until a
/// probe has settled the matter, while a node without an alternative stays in use.
const SUSPECT_MS: f32 = 2000.0;

/// A statement slower than this says no more about its node than one of just this: it may simply be a long one.
const SLOWEST_RESPONSE: Duration = Duration::from_secs(2);

/// Weight of one statement in the moving average of response times.
const STATEMENT_WEIGHT: f32 = 0.1;

/// Weight of a probe. Nodes that get no statements have only their probes to recover by.
const PROBE_WEIGHT: f32 = 0.5;

const NO_LAG: u64 = u64::MAX;
const UNKNOWN_LAG: u64 = u64::MAX - 1;

/// The state of one node.
#[derive(Debug)]
pub(crate) struct Watch {
    node: NodeId,
    tally: Mutex<Observed>,
    standing: AtomicU8,
    /// A failure was seen since the last good probe.
    suspect: AtomicBool,
    lag_micros: AtomicU64,
    response_ms: AtomicU32,
    /// NaN for unknown.
    cpu_percent: AtomicU32,
    pub(crate) in_use: Arc<AtomicU32>,
    parameters: RwLock<Option<Parameters>>,
    pub(crate) switches: Arc<KillRegistry>,
    /// A session saw a failure: probe now.
    pub(crate) suspected: Notify,
    changes: watch::Sender<Standing>,
}

#[derive(Debug)]
struct Observed {
    tally: Tally,
    probed: bool,
    /// Sessions' failures count once between two probes: many see the same event, and the probe decides.
    reported: bool,
}

impl Watch {
    pub(crate) fn new(node: NodeId, health: &Health, is_replica: bool) -> Arc<Self> {
        let tally = Tally::new(health.unhealthy_after, health.healthy_after);
        Arc::new(Self {
            node,
            tally: Mutex::new(Observed { tally, probed: false, reported: false }),
            standing: AtomicU8::new(Standing::Unknown as u8),
            suspect: AtomicBool::new(false),
            lag_micros: AtomicU64::new(if is_replica { UNKNOWN_LAG } else { NO_LAG }),
            response_ms: AtomicU32::new(0f32.to_bits()),
            cpu_percent: AtomicU32::new(f32::NAN.to_bits()),
            in_use: Arc::default(),
            parameters: RwLock::new(None),
            switches: Arc::default(),
            suspected: Notify::new(),
            changes: watch::Sender::new(Standing::Unknown),
        })
    }

    pub(crate) fn state(&self) -> NodeState {
        let cpu_percent = f32::from_bits(self.cpu_percent.load(Ordering::Relaxed));
        let suspicion = if self.suspect.load(Ordering::Relaxed) { SUSPECT_MS } else { 0.0 };
        NodeState {
            up: self.is(Standing::Up),
            lag: match self.lag_micros.load(Ordering::Relaxed) {
                NO_LAG => None,
                UNKNOWN_LAG => Some(Duration::MAX),
                micros => Some(Duration::from_micros(micros)),
            },
            connections: self.in_use.load(Ordering::Relaxed),
            response_ms: f32::from_bits(self.response_ms.load(Ordering::Relaxed)) + suspicion,
            cpu_percent: (!cpu_percent.is_nan()).then_some(cpu_percent),
        }
    }

    pub(crate) fn is(&self, standing: Standing) -> bool {
        self.standing.load(Ordering::Acquire) == standing as u8
    }

    pub(crate) fn standing(&self) -> Standing {
        *self.changes.borrow()
    }

    /// Whether a probe has ended, well or not.
    pub(crate) fn is_probed(&self) -> bool {
        self.tally.lock().probed
    }

    /// Takes the thresholds of a new configuration.
    pub(crate) fn set_thresholds(&self, health: &Health) {
        self.tally.lock().tally.set_thresholds(health.unhealthy_after, health.healthy_after);
    }

    /// Every change of standing from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<Standing> {
        self.changes.subscribe()
    }

    pub(crate) fn parameters(&self) -> Option<Parameters> {
        self.parameters.read().clone()
    }

    /// A login told us these parameters.
    pub(crate) fn greeted(&self, parameters: Vec<(String, String)>) {
        if self.parameters.read().as_deref() != Some(&parameters) {
            *self.parameters.write() = Some(Arc::new(parameters));
        }
    }

    /// A session saw a failure. Counts as one, once until the next probe, which follows at once.
    pub(crate) fn report_failure(&self, failure: Failure) {
        {
            self.suspect.store(true, Ordering::Relaxed);
            let mut observed = self.tally.lock();
            if !observed.reported {
                observed.reported = true;
                tracing::debug!(node = %self.node, failure = failure.as_str(), "a session reports a failure");
                let change = observed.tally.failure();
                self.announce(change, &observed.tally, failure.as_str());
            }
        }
        self.suspected.notify_one();
    }

    /// A statement was answered after so long.
    pub(crate) fn report_response(&self, response: Duration) {
        self.average(response.min(SLOWEST_RESPONSE), STATEMENT_WEIGHT);
    }

    fn average(&self, response: Duration, weight: f32) {
        let new = response.as_secs_f32() * 1000.0;
        let old = f32::from_bits(self.response_ms.load(Ordering::Relaxed));
        let mean = if old == 0.0 { new } else { old + weight * (new - old) };
        // Two sessions at once may lose one measurement, which an average can bear.
        self.response_ms.store(mean.to_bits(), Ordering::Relaxed);
    }

    /// The end of a probe, with the time that its answer took; the time until the next one.
    pub(crate) fn probed(&self, outcome: Result<Duration, (Failure, String)>, interval: Duration) -> Duration {
        let mut observed = self.tally.lock();
        observed.reported = false;
        observed.probed = true;
        let change = match &outcome {
            Ok(response) => {
                self.average(*response, PROBE_WEIGHT);
                observed.tally.success()
            }
            Err(_) => observed.tally.failure(),
        };
        self.suspect.store(outcome.is_err(), Ordering::Relaxed);
        let reason = match &outcome {
            Ok(_) => "",
            Err((failure, detail)) => {
                tracing::debug!(node = %self.node, failure = failure.as_str(), %detail, "probe failed");
                detail
            }
        };
        self.announce(change, &observed.tally, reason);
        observed.tally.next_probe_after(interval)
    }

    pub(crate) fn set_lag(&self, lag: Duration) {
        let micros = u64::try_from(lag.as_micros()).unwrap_or(UNKNOWN_LAG).min(UNKNOWN_LAG);
        self.lag_micros.store(micros, Ordering::Relaxed);
    }

    pub(crate) fn set_cpu(&self, percent: Option<f32>) {
        self.cpu_percent.store(percent.unwrap_or(f32::NAN).to_bits(), Ordering::Relaxed);
    }

    /// Makes a change of standing known. Called under the tally's lock, so that changes are announced in their order.
    fn announce(&self, change: Option<Standing>, tally: &Tally, reason: &str) {
        let Some(standing) = change else { return };
        let before = self.changes.send_replace(standing);
        self.standing.store(standing as u8, Ordering::Release);
        match (before, standing) {
            (_, Standing::Down) => {
                let dropped = self.switches.kill_all();
                let failures = tally.failures();
                tracing::warn!(node = %self.node, failures, dropped, reason, "node is down");
            }
            (Standing::Unknown, _) => tracing::debug!(node = %self.node, "node is up"),
            _ => tracing::info!(node = %self.node, "node is up again"),
        }
    }
}

impl std::fmt::Display for NodeState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.up { "up" } else { "down" })?;
        match self.lag {
            Some(Duration::MAX) => f.write_str(", lag unknown")?,
            Some(lag) => write!(f, ", lag {}", words::duration(lag))?,
            None => {}
        }
        write!(f, ", {} in use, {:.1} ms", self.connections, self.response_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn watch() -> Arc<Watch> {
        let health = Health {
            interval: INTERVAL,
            timeout: Duration::from_secs(5),
            unhealthy_after: 3,
            healthy_after: 2,
            max_replica_lag: Duration::from_secs(60),
        };
        Watch::new(NodeId::new("s/primary"), &health, false)
    }

    const QUICK: Result<Duration, (Failure, String)> = Ok(Duration::from_millis(1));

    fn failed() -> Result<Duration, (Failure, String)> {
        Err((Failure::Refused, String::new()))
    }

    #[test]
    fn nothing_is_up_before_the_first_probe() {
        let watch = watch();
        assert!(!watch.state().up);
        watch.probed(QUICK, INTERVAL);
        assert!(watch.state().up);
    }

    #[test]
    fn many_sessions_that_see_one_event_count_once() {
        let watch = watch();
        watch.probed(QUICK, INTERVAL);
        for _ in 0..64 {
            watch.report_failure(Failure::Reset);
        }
        assert!(watch.state().up);
        watch.probed(failed(), INTERVAL);
        watch.probed(failed(), INTERVAL);
        assert!(!watch.state().up);
    }

    #[test]
    fn a_failure_makes_a_replica_less_attractive_at_once() {
        let watch = watch();
        for _ in 0..50 {
            watch.report_response(Duration::from_millis(2));
        }
        let before = watch.state().response_ms;
        watch.report_failure(Failure::Refused);
        assert!((before - 2.0).abs() < 0.01);
        assert!(watch.state().response_ms > 1000.0);
        watch.probed(QUICK, INTERVAL);
        assert!(watch.state().response_ms < 2.0, "the probe says that all is well");
    }

    #[test]
    fn one_long_statement_does_not_shun_a_node_for_long() {
        let watch = watch();
        watch.probed(QUICK, INTERVAL);
        watch.report_response(Duration::from_secs(600));
        assert!(watch.state().response_ms < 250.0);
        for _ in 0..6 {
            watch.probed(QUICK, INTERVAL);
        }
        assert!(watch.state().response_ms < 5.0);
    }

    #[test]
    fn an_unknown_lag_is_infinite() {
        let health = Health {
            interval: INTERVAL,
            timeout: INTERVAL,
            unhealthy_after: 3,
            healthy_after: 2,
            max_replica_lag: INTERVAL,
        };
        let watch = Watch::new(NodeId::new("s/replica-1"), &health, true);
        assert_eq!(watch.state().lag, Some(Duration::MAX));
        watch.set_lag(Duration::from_millis(3));
        assert_eq!(watch.state().lag, Some(Duration::from_millis(3)));
        watch.set_lag(Duration::MAX);
        assert_eq!(watch.state().lag, Some(Duration::MAX));
    }
}
