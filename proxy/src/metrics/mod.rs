//! Figures for Prometheus.
//!
//! What every statement counts is a plain atomic ([`tally`]) that is read when somebody scrapes; what is rarer goes
//! through handles that are registered once (looking a metric up by its labels would cost 70 to 170 ns). What has a
//! present value anyway, such as the state of a node, is read at the scrape too, so that a node that a reload removed is
//! gone from the page.
//!
//! The recorder belongs to its [`Metrics`], not to the process: nothing fetches it from a global.

mod tally;

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use pgward_config::{Class, PoolKind};
use pgward_router::Kind;
pub use tally::{Tally, Times};

/// Histograms keep each sample until they are drained: 5 million would be 80 MB.
const UPKEEP: Duration = Duration::from_secs(5);

const KINDS: [Kind; 4] = [Kind::Read, Kind::Analytics, Kind::Write, Kind::Emergency];

const DECISION_BUCKETS: [f64; 11] = [1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 1e-2];
const WAIT_BUCKETS: [f64; 12] = [1e-5, 1e-4, 5e-4, 1e-3, 5e-3, 0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0];

/// The handles. Fields are counted on directly.
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
    forwarded: [Tally; 4],
    refused: [Tally; 4],
    /// Time from the statement's arrival to its decision, in seconds.
    pub decision: Times<{ DECISION_BUCKETS.len() }>,
    waits: [[Histogram; 5]; 4],
    /// Clients connected now.
    pub clients: Gauge,
    /// Logins that succeeded.
    pub logins: Counter,
    /// Logins that were refused.
    pub logins_failed: Counter,
    /// Statements refused because the audit log could not be written.
    pub audit_failures: Counter,
    /// Configurations put in force.
    pub reloads: Counter,
    /// Configurations refused.
    pub reloads_failed: Counter,
    /// Bytes from clients to servers.
    pub bytes_to_servers: Tally,
    /// Bytes from servers to clients.
    pub bytes_to_clients: Tally,
}

/// A node's present state.
#[derive(Clone, Debug)]
pub struct NodeFigures {
    /// Its id.
    pub node: String,
    /// Its shard.
    pub shard: String,
    /// `primary` or `replica`.
    pub role: &'static str,
    /// Up by the health rules.
    pub up: bool,
    /// How far behind, where known.
    pub lag: Option<Duration>,
    /// Server connections in use.
    pub connections: u32,
    /// Response time in ms, smoothed.
    pub response_ms: f32,
    /// CPU utilization in percent, where a source is configured.
    pub cpu_percent: Option<f32>,
}

impl Metrics {
    /// Registers everything, at zero.
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full("pgward_wait_seconds".to_owned()), &WAIT_BUCKETS)
            .expect("the list of buckets is not empty")
            .build_recorder();
        let recorder = Arc::new(recorder);
        metrics::with_local_recorder(&*recorder, || Self::register(Arc::clone(&recorder)))
    }

    fn register(recorder: Arc<PrometheusRecorder>) -> Self {
        describe();
        let waits = |pool: PoolKind| {
            Class::ALL
                .map(|class| histogram!("pgward_wait_seconds", "pool" => pool.as_str(), "class" => class.as_str()))
        };
        Self {
            recorder,
            forwarded: Default::default(),
            refused: Default::default(),
            decision: Times::new(DECISION_BUCKETS),
            waits: PoolKind::ALL.map(waits),
            clients: gauge!("pgward_clients"),
            logins: counter!("pgward_logins_total", "outcome" => "accepted"),
            logins_failed: counter!("pgward_logins_total", "outcome" => "refused"),
            audit_failures: counter!("pgward_audit_failures_total"),
            reloads: counter!("pgward_reloads_total", "outcome" => "accepted"),
            reloads_failed: counter!("pgward_reloads_total", "outcome" => "refused"),
            bytes_to_servers: Tally::default(),
            bytes_to_clients: Tally::default(),
        }
    }

    /// Counts a statement that was forwarded.
    pub fn forwarded(&self, kind: Kind) {
        self.forwarded[kind as usize].increment(1);
    }

    /// Counts a statement that was refused with this SQLSTATE.
    pub fn refused(&self, kind: Kind, sqlstate: &str) {
        self.refused[kind as usize].increment(1);
        metrics::with_local_recorder(&*self.recorder, || {
            counter!("pgward_refusals_total", "sqlstate" => sqlstate.to_owned()).increment(1);
        });
    }

    /// Counts a cancel request by what became of it.
    pub fn cancels(&self, outcome: &'static str) {
        metrics::with_local_recorder(&*self.recorder, || {
            counter!("pgward_cancels_total", "outcome" => outcome).increment(1);
        });
    }

    /// Notes how long a statement waited for a server.
    pub fn waited(&self, pool: PoolKind, class: Class, wait: Duration) {
        self.waits[pool.index()][class.index()].record(wait);
    }

    /// Drains the histograms for ever; to be spawned on the control plane.
    pub fn upkeep(&self) -> impl Future<Output = ()> + Send + 'static {
        let handle = self.handle();
        async move {
            let mut ticks = tokio::time::interval(UPKEEP);
            loop {
                ticks.tick().await;
                handle.run_upkeep();
            }
        }
    }

    /// The page in Prometheus' text format.
    pub fn render(&self, nodes: &[NodeFigures], audit: &pgward_audit::Status) -> String {
        metrics::with_local_recorder(&*self.recorder, || self.publish());
        let mut page = self.handle().render();
        self.decision.render(&mut page, "pgward_decision_seconds", "Time of one routing decision");
        render_nodes(&mut page, nodes);
        render_audit(&mut page, audit);
        page
    }

    /// Tells the recorder what was counted beside it.
    fn publish(&self) {
        for (outcome, counts) in [("forwarded", &self.forwarded), ("refused", &self.refused)] {
            for kind in KINDS {
                counter!("pgward_statements_total", "kind" => kind.as_str(), "outcome" => outcome)
                    .absolute(counts[kind as usize].value());
            }
        }
        for (direction, bytes) in [("to_servers", &self.bytes_to_servers), ("to_clients", &self.bytes_to_clients)] {
            counter!("pgward_bytes_total", "direction" => direction).absolute(bytes.value());
        }
    }

    fn handle(&self) -> PrometheusHandle {
        self.recorder.handle()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn describe() {
    describe_counter!("pgward_statements_total", "Statements decided, by kind and outcome");
    describe_counter!("pgward_refusals_total", "Statements refused, by SQLSTATE");
    describe_histogram!("pgward_wait_seconds", "Wait for a server, by pool and class");
    describe_gauge!("pgward_clients", "Clients connected");
    describe_counter!("pgward_logins_total", "Logins, by outcome");
    describe_counter!("pgward_cancels_total", "Cancel requests, by outcome");
    describe_counter!("pgward_audit_failures_total", "Statements refused because the audit log could not be written");
    describe_counter!("pgward_reloads_total", "Reloads of the configuration, by outcome");
    describe_counter!("pgward_bytes_total", "Bytes relayed, by direction");
}

/// Infinite where it is not known: what a node that is down had last told would look as if it were well.
fn lag_seconds(node: &NodeFigures) -> Option<f64> {
    let lag = node.lag?;
    Some(if node.up && lag < Duration::MAX { lag.as_secs_f64() } else { f64::INFINITY })
}

fn render_nodes(page: &mut String, nodes: &[NodeFigures]) {
    type Figure = fn(&NodeFigures) -> Option<f64>;
    let families: [(&str, &str, Figure); 5] = [
        ("pgward_node_up", "1 when the node is up by the health rules", |node| Some(f64::from(u8::from(node.up)))),
        ("pgward_node_lag_seconds", "How far a replica is behind", lag_seconds),
        ("pgward_node_connections", "Server connections in use", |node| Some(node.connections.into())),
        ("pgward_node_response_seconds", "Response time, smoothed", |node| Some(f64::from(node.response_ms) / 1e3)),
        ("pgward_node_cpu_percent", "CPU utilization", |node| node.cpu_percent.map(f64::from)),
    ];
    for (name, help, figure) in families {
        head(page, name, help);
        for node in nodes {
            let Some(value) = figure(node) else { continue };
            // As Prometheus writes it.
            let value = if value.is_infinite() { "+Inf".to_owned() } else { value.to_string() };
            let (id, shard) = (Label(&node.node), Label(&node.shard));
            line(page, format_args!("{name}{{node=\"{id}\",shard=\"{shard}\",role=\"{}\"}} {value}", node.role));
        }
    }
}

fn render_audit(page: &mut String, audit: &pgward_audit::Status) {
    let writable = u64::from(audit.outage.is_none());
    let families = [
        ("pgward_audit_writable", "1 when the audit log can be written", writable),
        ("pgward_audit_next_seq", "Number of the next audit record", audit.next_seq),
        ("pgward_audit_spooled_records", "Audit records held in memory", audit.spooled_records as u64),
        ("pgward_audit_lost_records", "Audit records lost in this outage", audit.lost),
    ];
    for (name, help, value) in families {
        head(page, name, help);
        line(page, format_args!("{name} {value}"));
    }
}

fn head(page: &mut String, name: &str, help: &str) {
    line(page, format_args!("# HELP {name} {help}\n# TYPE {name} gauge"));
}

fn line(page: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(page, "{line}").expect("a String takes everything");
}

/// A label's value, escaped as the text format asks.
struct Label<'a>(&'a str);

impl std::fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.0.chars() {
            match character {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                _ => f.write_char(character)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(metrics: &Metrics, nodes: &[NodeFigures]) -> String {
        let audit = pgward_audit::Status {
            next_seq: 8,
            file_bytes: 0,
            outage: None,
            spooled_records: 0,
            spooled_bytes: 0,
            lost: 0,
        };
        metrics.render(nodes, &audit)
    }

    #[test]
    fn what_is_counted_is_on_the_page() {
        let metrics = Metrics::new();
        metrics.forwarded(Kind::Read);
        metrics.refused(Kind::Write, "PW005");
        metrics.decision.record(Duration::from_micros(3));
        metrics.waited(PoolKind::ReadOnly, Class::Normal, Duration::from_millis(2));
        metrics.clients.increment(2.0);
        let page = page(&metrics, &[]);
        for line in [
            "pgward_statements_total{kind=\"read\",outcome=\"forwarded\"} 1",
            "pgward_statements_total{kind=\"emergency\",outcome=\"refused\"} 0",
            "pgward_refusals_total{sqlstate=\"PW005\"} 1",
            "pgward_decision_seconds_bucket{le=\"0.000005\"} 1",
            "pgward_wait_seconds_count{pool=\"readonly\",class=\"normal\"} 1",
            "pgward_clients 2",
            "pgward_audit_writable 1",
            "pgward_audit_next_seq 8",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is missing in\n{page}");
        }
    }

    fn replica(up: bool, lag: Duration) -> NodeFigures {
        NodeFigures {
            node: "a\"b".to_owned(),
            shard: "s".to_owned(),
            role: "replica",
            up,
            lag: Some(lag),
            connections: 3,
            response_ms: 2.0,
            cpu_percent: None,
        }
    }

    #[test]
    fn a_replica_that_is_down_or_never_told_its_lag_is_infinitely_behind() {
        for node in [replica(false, Duration::ZERO), replica(true, Duration::MAX)] {
            let page = page(&Metrics::new(), &[node]);
            assert!(
                page.contains("pgward_node_lag_seconds{node=\"a\\\"b\",shard=\"s\",role=\"replica\"} +Inf\n"),
                "{page}"
            );
        }
    }

    #[test]
    fn nodes_show_their_present_state() {
        let page = page(&Metrics::new(), &[replica(true, Duration::from_millis(1500))]);
        assert!(page.contains("pgward_node_up{node=\"a\\\"b\",shard=\"s\",role=\"replica\"} 1\n"), "{page}");
        assert!(page.contains("pgward_node_lag_seconds{node=\"a\\\"b\",shard=\"s\",role=\"replica\"} 1.5\n"));
        assert!(!page.contains("pgward_node_cpu_percent{"));
    }
}
