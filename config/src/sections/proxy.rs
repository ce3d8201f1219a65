//! `[proxy]` and `[http]`: the process and its limits.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Http, Proxy};
use crate::problem::Access;
use crate::reader::{Placed, Reader};
use crate::sections::peers::IDS;
use crate::sections::{ADDRESS, address};
use crate::sources::resolve;

/// One instance is the common case; a second one must be given its own name, because the name tells audit chains apart.
pub(crate) const INSTANCE: &str = "pgward-1";
/// One thread serves tens of thousands of statements a second, and a second one on the same core only adds wake-ups.
pub(crate) const WORKERS: u64 = 1;
/// Beside the TOML, so that two instances with two files do not meet.
pub(crate) const CONTROL_SOCKET: &str = "pgward.sock";
/// 100 × the normal load of about 100 clients; an idle client holds no buffer.
pub(crate) const MAX_CLIENTS: u64 = 10_000;
/// Above what people and drivers' timeouts send, below what is needed to guess a key.
pub(crate) const MAX_CANCELS_PER_SECOND: u32 = 100;
/// PostgreSQL's MAX_STARTUP_PACKET_LENGTH (src/include/libpq/pqcomm.h); also the upper bound.
pub(crate) const MAX_STARTUP_BYTES: u64 = 10_000;
/// Long enough for a password to be typed by a script and a lost packet or two to be sent again.
pub(crate) const STARTUP_TIMEOUT: Duration = Duration::from_secs(15);
/// The largest statement seen in practice (a document in one literal), not PostgreSQL's 1 GiB.
pub(crate) const MAX_MESSAGE_BYTES: u64 = 64 << 20;
/// A message buffer below this would refuse ordinary statements.
const MAX_MESSAGE_BYTES_LEAST: u64 = 10_000;
/// Room for a handful of ordinary statements.
const MAX_PREPARED_BYTES_LEAST: u64 = 10_000;
/// More names than a driver's cache of statements has, or an application's code.
pub(crate) const MAX_PREPARED: u64 = 10_000;
/// A thousand clients with full caches still fit a machine.
pub(crate) const MAX_PREPARED_BYTES: u64 = 16 << 20;
/// Each costs a server some 10 to 100 KB for every one of its connections.
pub(crate) const SERVER_PREPARED: u64 = 500;
/// The one unused for longest is looked for among all of them.
const SERVER_PREPARED_MOST: u64 = 10_000;
/// A forgotten BEGIN holds a server connection that others wait for.
pub(crate) const IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(300);
/// Below the 10 s between two probes, so that a dead node does not hold a statement longer than the probes do.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Most orchestrators kill 30 s after SIGTERM.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// More threads than any machine that this runs on has cores.
const WORKERS_MOST: u64 = 1024;

pub(crate) fn proxy<'a>(root: &Reader<'a>, toml: &Path, plain: bool) -> Placed<'a, Proxy> {
    let reader = root.section("proxy");
    let bytes = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let item = Proxy {
        instance: Arc::from(reader.text("instance", "a name").map_or(INSTANCE, |text| text.into_inner())),
        peer_id: reader.number("peer_id", IDS).and_then(|id| u16::try_from(id).ok()),
        max_cancels_per_second: reader.number_or("max_cancels_per_second", 1, MAX_CANCELS_PER_SECOND),
        database: Arc::from(database(&reader, plain)),
        workers: bytes(reader.number("workers", 1..=WORKERS_MOST).unwrap_or(WORKERS)),
        control_socket: control_socket(&reader, toml),
        max_clients: bytes(reader.number("max_clients", 1..=u64::MAX).unwrap_or(MAX_CLIENTS)),
        max_startup_bytes: bytes(max_startup_bytes(&reader)),
        startup_timeout: reader.duration_or("startup_timeout", STARTUP_TIMEOUT),
        max_message_bytes: bytes(reader.size_or("max_message_bytes", MAX_MESSAGE_BYTES_LEAST, MAX_MESSAGE_BYTES)),
        max_prepared: bytes(reader.number("max_prepared", 1..=u64::MAX).unwrap_or(MAX_PREPARED)),
        max_prepared_bytes: bytes(reader.size_or("max_prepared_bytes", MAX_PREPARED_BYTES_LEAST, MAX_PREPARED_BYTES)),
        server_prepared: bytes(reader.number("server_prepared", 1..=SERVER_PREPARED_MOST).unwrap_or(SERVER_PREPARED)),
        idle_in_transaction_timeout: reader
            .duration_or_never("idle_in_transaction_timeout", Some(IDLE_IN_TRANSACTION_TIMEOUT)),
        connect_timeout: reader.duration_or("connect_timeout", CONNECT_TIMEOUT),
        drain_timeout: reader.duration_or("drain_timeout", DRAIN_TIMEOUT),
    };
    reader.finish();
    Placed { item, reader }
}

/// A plain pooler serves any database; its own questions go to the one that every server has.
fn database<'a>(reader: &Reader<'a>, plain: bool) -> &'a str {
    if !plain {
        return reader.need("database", "the database name that clients ask for");
    }
    if reader.value("database").is_some() {
        reader.push(
            crate::Problem::error(reader.at("database"), "`database` has no meaning in a plain pooler")
                .label("any database of the server is served by its own name"),
        );
    }
    "postgres"
}

pub(crate) fn control_socket(reader: &Reader<'_>, toml: &Path) -> PathBuf {
    let written = reader.text("control_socket", "the path of a Unix socket");
    let path = resolve(toml, written.map_or(CONTROL_SOCKET, |text| text.into_inner()));
    reader.name_file("control_socket", &path, Access::Own);
    path
}

/// The least room for a startup packet: a long user name, a long database name and a driver's usual settings.
const MAX_STARTUP_BYTES_LEAST: u64 = 256;

fn max_startup_bytes(reader: &Reader<'_>) -> u64 {
    let bytes = reader.size_or("max_startup_bytes", MAX_STARTUP_BYTES_LEAST, MAX_STARTUP_BYTES);
    if bytes > MAX_STARTUP_BYTES {
        reader.push(
            crate::Problem::error(reader.at("max_startup_bytes"), "`max_startup_bytes` of [proxy] is too large")
                .label(format!("expected at most {MAX_STARTUP_BYTES} bytes, PostgreSQL's own limit")),
        );
    }
    bytes
}

pub(crate) fn http<'a>(root: &Reader<'a>) -> Option<Placed<'a, Http>> {
    let reader = root.section("http");
    if !reader.is_present() {
        return None;
    }
    let address = reader.need_parsed("address", ADDRESS, address);
    reader.finish();
    address.map(|address| Placed { item: Http { address }, reader })
}
