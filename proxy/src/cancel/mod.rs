//! Cancel requests: whom they name, where they go, and what is noted of them.
//!
//! A client learns nothing, as on a server: the connection is closed when the request is through, or at once.

pub(crate) mod key;
mod rate;
pub(crate) mod under_way;
pub(crate) mod waiting;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use pgward_audit::{Event, EventKind, Who};
use pgward_config::Peer;
use pgward_pools::send_cancel;

use crate::registry::Handle;
use crate::state::{Shared, State};
use rate::Bucket;
use under_way::Sent;

/// How much each listener may still take.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    buckets: Mutex<HashMap<Arc<str>, Bucket>>,
}

impl Limits {
    fn allow(&self, listener: &Arc<str>, rate: u32) -> bool {
        self.buckets.lock().entry(Arc::clone(listener)).or_default().take(Instant::now(), rate)
    }
}

/// A CancelRequest, and by which door it came.
pub(crate) struct Request<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) state: &'a State,
    pub(crate) listener: usize,
    pub(crate) address: SocketAddr,
    pub(crate) pid: i32,
    pub(crate) key: &'a [u8],
}

impl Request<'_> {
    /// Deals with it, to the end.
    pub(crate) async fn serve(&self) {
        let outcome = self.outcome().await;
        self.shared.metrics.cancels(outcome);
    }

    /// What became of it, as a label of the counter.
    async fn outcome(&self) -> &'static str {
        let config = &self.state.config;
        if !self.shared.cancel_limits.allow(&config.listeners[self.listener].name, config.proxy.max_cancels_per_second)
        {
            return "above_rate";
        }
        if let Some(session) = self.shared.registry.of_key(self.pid, self.key) {
            return self.cancel(&session).await;
        }
        let Some(instance) = key::instance(self.key) else { return "unknown" };
        if instance == self.shared.registry.instance() {
            return "unknown";
        }
        match (config.peers.iter().find(|peer| peer.id == instance), key::passed_on(self.key)) {
            (None, _) => "unknown_peer",
            (_, None) => "no_hops_left",
            (Some(peer), Some(key)) => self.pass_on(peer, &key).await,
        }
    }

    async fn cancel(&self, session: &Handle) -> &'static str {
        let (outcome, detail) = match session.cancel().await {
            Some(Sent::Taken) => ("sent", "cancel request passed to the session's server"),
            Some(Sent::Lost) => ("failed", "cancel request could not be passed to the session's server"),
            Some(Sent::NotNeeded) => {
                ("ended_wait", "cancel request ended the wait of a statement that was not sent yet")
            }
            Some(Sent::TooLate) | None => ("idle", "cancel request for a session that no server works for"),
        };
        self.record(session.id, session.user(), detail);
        outcome
    }

    async fn pass_on(&self, peer: &Peer, key: &[u8]) -> &'static str {
        match send_cancel((&*peer.host, peer.port), self.pid, key).await {
            Ok(()) => {
                // Whose session it names, that instance's log says.
                self.record(0, "", &format!("cancel request passed on to peer {}", peer.id));
                "passed_on"
            }
            Err(error) => {
                tracing::warn!(peer = peer.id, %error, "could not pass a cancel request on to a peer");
                self.record(0, "", &format!("cancel request could not be passed on to peer {}", peer.id));
                "peer_failed"
            }
        }
    }

    /// `session` and `user` are whose statement it was, all else who asked.
    fn record(&self, session: u64, user: &str, detail: &str) {
        let config = &self.state.config;
        let listener = &config.listeners[self.listener];
        let who = Who::new(session, user, &self.address.to_string(), &listener.name, listener.origin.as_str());
        let event = Event { kind: EventKind::Cancel, who: Some(&who), sqlstate: None, detail, config: &config.hash };
        // It has been sent: a log that cannot be written says so itself.
        if self.shared.audit.event(&event, SystemTime::now()).is_err() {
            self.shared.metrics.audit_failures.increment(1);
        }
    }
}
