//! `[[peers]]`: other instances of the deployment.

use crate::model::Peer;
use crate::reader::{Placed, Reader};
use crate::sections::url::host_and_port;

/// Ids have two bytes in a cancel key; 0 stands for an instance without one.
pub(crate) const IDS: std::ops::RangeInclusive<u64> = 1..=65_535;

/// What a peer's address looks like. A name is looked up when a request is passed on.
const ADDRESS: &str = r#"a host with a port such as "pgward-2.internal:6432" or "[::1]:6432""#;

pub(crate) fn peers<'a>(root: &Reader<'a>) -> Vec<Placed<'a, Peer>> {
    root.sections("peers").into_iter().map(peer).collect()
}

fn peer(reader: Reader<'_>) -> Placed<'_, Peer> {
    let id = reader.number("id", IDS).unwrap_or_else(|| {
        if reader.value("id").is_none() {
            reader.missing("id", "the `peer_id` of that instance");
        }
        0
    });
    // Without a port it would be PostgreSQL's, where no PgWard listens by default.
    let has_port =
        |text: &str| text.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
    let parse = |text: &str| {
        let (host, port) = host_and_port(text)?;
        if has_port(text) { Ok((host.into(), port)) } else { Err(format!("`{text}` has no port")) }
    };
    let (host, port) = reader.need_parsed("address", ADDRESS, parse).unwrap_or_else(|| ("".into(), 0));
    let item = Peer { id: u16::try_from(id).unwrap_or(0), host, port };
    reader.finish();
    Placed { item, reader }
}
