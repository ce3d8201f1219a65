//! `[[listeners]]`: ports, and where those who come in by them are taken to be.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::model::{AuthMethod, Listener, RegionId};
use crate::problem::Problem;
use crate::reader::{Placed, Reader};
use crate::sections::{ADDRESS, CLASSES, POOL_MODES, address};

const AUTH: [(&str, AuthMethod); 2] = [("scram-sha-256", AuthMethod::ScramSha256), ("trust", AuthMethod::Trust)];

/// Stands in for an address that could not be read; port 0 is nobody's.
const STAND_IN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

pub(crate) fn listeners<'a>(root: &Reader<'a>) -> Vec<Placed<'a, Listener>> {
    let listeners: Vec<_> = root.sections("listeners").into_iter().map(listener).collect();
    if listeners.is_empty() && root.value("listeners").is_none() {
        root.missing("listeners", "at least one table [[listeners]]");
    }
    listeners
}

fn listener(reader: Reader<'_>) -> Placed<'_, Listener> {
    let item = Listener {
        name: Arc::from(reader.need("name", "a name of its own")),
        address: reader.need_parsed("address", ADDRESS, address).unwrap_or(STAND_IN),
        origin: RegionId::new(reader.need("origin", "the id of a region")),
        class: reader.word("class", &CLASSES),
        // The safe one: who wants less says so.
        auth: reader.word("auth", &AUTH).unwrap_or(AuthMethod::ScramSha256),
        pool_mode: reader.word("pool_mode", &POOL_MODES),
    };
    if item.auth == AuthMethod::Trust && item.address != STAND_IN && !item.address.ip().is_loopback() {
        reader.push(
            Problem::error(reader.at("auth"), format!("listener `{}` trusts everyone who reaches it", item.name))
                .label("`trust` is allowed on a loopback address only")
                .related(reader.at("address"), "not a loopback address")
                .help("use auth = \"scram-sha-256\", or listen on 127.0.0.1 or [::1]"),
        );
    }
    reader.finish();
    Placed { item, reader }
}
