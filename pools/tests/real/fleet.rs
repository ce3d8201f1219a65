//! A fleet over some clusters, from a TOML as an operator writes it, and talking to the servers that it lends.

use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use pgward_config::{Config, Sources, parse_with};
use pgward_pools::{Clean, Fleet, Lease, Server};
use pgward_wire::{TxStatus, frame, frontend};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;

use crate::cluster::PASSWORD;

/// The configuration of one shard: ports of the primary and the replicas, and tables to put in.
pub(crate) fn config(ports: &[u16], more: &str) -> Config {
    let url = |port: &u16| format!("{{ url = \"postgresql://127.0.0.1:{port}/postgres\" }}");
    let replicas: Vec<_> = ports[1..].iter().map(url).collect();
    let text = format!(
        r#"
[[listeners]]
name = "east"
address = "127.0.0.1:6432"
origin = "us-east-1"
[proxy]
database = "ehr"
drain_timeout = "1s"
[[server_roles]]
name = "app"
password = {{ env = "PASSWORD" }}
[[server_roles]]
name = "report"
password = {{ env = "PASSWORD" }}
[[users]]
name = "app"
password = {{ env = "PASSWORD" }}
server_role = "app"
ceiling = "emergency"
[sharding]
strategy = "patient_region"
[[tables]]
name = "patients"
kind = "patient"
key = "id"
[[regions]]
id = "us-east-1"
[[shards]]
id = "east"
region = "us-east-1"
patient_regions = ["us-east"]
primary = {}
replicas = [{}]
[directory]
path = "patients.dir"
key = {{ env = "KEY" }}
[audit]
path = "audit.jsonl"
key = {{ env = "KEY" }}
{more}
"#,
        url(&ports[0]),
        replicas.join(", ")
    );
    let env = |name: &str| match name {
        "PASSWORD" => Some(PASSWORD.to_owned()),
        _ => Some("0123456789abcdef0123456789abcdef".to_owned()),
    };
    let file = |_: &Path| Err(std::io::Error::from(std::io::ErrorKind::NotFound));
    let sources = Sources { env: &env, file: &file, real: &Path::to_path_buf, salt: &|_| [7; 16] };
    match parse_with(&text, Path::new("pgward.toml"), &sources) {
        Ok(loaded) => loaded.config,
        Err(report) => panic!("{report}"),
    }
}

/// Small pools and a quick pulse.
pub(crate) const SMALL: &str = r#"
[pools.emergency]
min = 2
max = 2
[pools.general]
min = 1
max = 4
wait_timeout = "1500ms"
[pools.background]
min = 0
max = 2
[pools.readonly]
min = 1
max = 4
[health]
interval = "1s"
timeout = "500ms"
"#;

/// Starts the fleet on this test's runtime, and waits until it has settled.
pub(crate) async fn start(config: &Config, previous: Option<&Fleet>) -> Fleet {
    let fleet = Fleet::new(config, previous);
    fleet.start(&Handle::current(), &Handle::current());
    tokio::time::timeout(Duration::from_secs(20), fleet.settled()).await.expect("the fleet settles");
    fleet
}

/// Runs a Query; the first value of each row, or the error's message.
pub(crate) async fn ask(server: &mut Server, sql: &str) -> Result<Vec<String>, String> {
    let mut bytes = BytesMut::new();
    frontend::put_query(&mut bytes, sql.as_bytes());
    server.stream.write_all(&bytes).await.unwrap();
    bytes.clear();
    let mut outcome = Ok(Vec::new());
    loop {
        while let Some(header) = frame::header(&bytes).unwrap().filter(|header| header.len <= bytes.len()) {
            let message = bytes.split_to(header.len);
            match header.tag {
                b'Z' => return outcome,
                b'E' => {
                    let fields = pgward_wire::backend::error_fields(&message[5..]).unwrap();
                    outcome = Err(String::from_utf8_lossy(fields.message).into_owned());
                }
                b'D' => {
                    let len = u32::from_be_bytes(message[7..11].try_into().unwrap()) as usize;
                    let value = String::from_utf8_lossy(&message[11..11 + len]).into_owned();
                    if let Ok(values) = &mut outcome {
                        values.push(value);
                    }
                }
                _ => {}
            }
        }
        if server.stream.read_buf(&mut bytes).await.unwrap() == 0 {
            return Err("closed".to_owned());
        }
    }
}

pub(crate) fn release(lease: Lease) {
    lease.release(Clean::prove(TxStatus::Idle, 0).unwrap());
}

/// Waits for something to become true, at most so long.
pub(crate) async fn eventually(within: Duration, what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + within;
    while !is_true() {
        assert!(tokio::time::Instant::now() < deadline, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
