//! Health and metrics over HTTP, on the control plane: for load balancers, orchestrators and Prometheus.
//!
//! What is served comes through [`Probe`], so that this file knows nothing of sessions.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::net::TcpListener;

mod deadline;

use deadline::{Impatient, PATIENCE};

/// What the pages show.
pub trait Probe: Send + Sync + 'static {
    /// What keeps the proxy from serving everyone; empty when each shard has a usable primary.
    fn missing(&self) -> Vec<Missing>;

    /// Whether decisions can be recorded: without that, only emergencies are served.
    fn records(&self) -> bool;

    /// The metrics in Prometheus' text format.
    fn metrics(&self) -> String;
}

/// Something without which the proxy is not ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The shard.
    pub shard: String,
    /// What it lacks, for people.
    pub reason: String,
}

/// Serves `/health/live`, `/health/ready`, `/health/ready/emergency` and `/metrics`. May be cancelled at any time.
///
/// # Errors
/// The listener fails.
pub async fn serve(listener: TcpListener, probe: Arc<dyn Probe>) -> io::Result<()> {
    let pages = Router::new()
        .route("/health/live", get(|| async { "live" }))
        .route("/health/ready", get(|State(probe): State<Arc<dyn Probe>>| async move { ready(&*probe, true) }))
        .route(
            "/health/ready/emergency",
            get(|State(probe): State<Arc<dyn Probe>>| async move { ready(&*probe, false) }),
        )
        .route("/metrics", get(metrics))
        .with_state(probe);
    axum::serve(Impatient { listener, patience: PATIENCE }, pages).await
}

/// Whether clients can be sent here; `ordinary`: any of them, not only those whose statements are emergencies.
fn ready(probe: &dyn Probe, ordinary: bool) -> Response {
    #[derive(Serialize)]
    struct Page {
        ready: bool,
        missing: Vec<Missing>,
        #[serde(skip_serializing_if = "Option::is_none")]
        audit: Option<&'static str>,
    }
    let missing = probe.missing();
    let records = probe.records();
    let ready = missing.is_empty() && (records || !ordinary);
    let audit = (!records).then_some("the audit log cannot be written: only emergencies are served");
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match serde_json::to_string(&Page { ready, missing, audit }) {
        Ok(page) => (status, [(CONTENT_TYPE, "application/json")], page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn metrics(State(probe): State<Arc<dyn Probe>>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], probe.metrics()).into_response()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    struct Fixed {
        missing: Vec<Missing>,
        records: bool,
    }

    impl Probe for Fixed {
        fn missing(&self) -> Vec<Missing> {
            self.missing.clone()
        }
        fn records(&self) -> bool {
            self.records
        }
        fn metrics(&self) -> String {
            "pgward_clients 2\n".to_owned()
        }
    }

    async fn page(missing: &[Missing], path: &str) -> (String, String) {
        page_of(Fixed { missing: missing.to_vec(), records: true }, path).await
    }

    async fn page_of(probe: Fixed, path: &str) -> (String, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, Arc::new(probe)));
        let mut client = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        server.abort();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    #[tokio::test]
    async fn a_proxy_with_all_shards_is_live_and_ready() {
        assert_eq!(page(&[], "/health/live").await, ("HTTP/1.1 200 OK".to_owned(), "live".to_owned()));
        let (status, body) = page(&[], "/health/ready").await;
        assert_eq!((&*status, &*body), ("HTTP/1.1 200 OK", r#"{"ready":true,"missing":[]}"#));
        assert_eq!(page(&[], "/metrics").await.1, "pgward_clients 2\n");
    }

    #[tokio::test]
    async fn a_shard_without_primary_makes_it_unready_but_live() {
        let missing = [Missing { shard: "eu-west-patients".to_owned(), reason: "primary is down".to_owned() }];
        let (status, body) = page(&missing, "/health/ready").await;
        assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
        assert_eq!(body, r#"{"ready":false,"missing":[{"shard":"eu-west-patients","reason":"primary is down"}]}"#);
        assert_eq!(page(&missing, "/health/ready/emergency").await, (status, body));
        assert_eq!(page(&missing, "/health/live").await.1, "live");
    }

    #[tokio::test]
    async fn without_an_audit_log_it_is_ready_for_emergencies_alone() {
        let silent = || Fixed { missing: Vec::new(), records: false };
        let audit = r#""missing":[],"audit":"the audit log cannot be written: only emergencies are served"}"#;
        let (status, body) = page_of(silent(), "/health/ready").await;
        assert_eq!((&*status, body), ("HTTP/1.1 503 Service Unavailable", format!(r#"{{"ready":false,{audit}"#)));
        let (status, body) = page_of(silent(), "/health/ready/emergency").await;
        assert_eq!((&*status, body), ("HTTP/1.1 200 OK", format!(r#"{{"ready":true,{audit}"#)));
        assert_eq!(page_of(silent(), "/health/live").await.1, "live");
    }
}
