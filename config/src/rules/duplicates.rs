//! Names and addresses that must be unique.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use super::Document;
use crate::problem::Problem;
use crate::reader::Reader;

pub(super) fn check(document: &Document<'_>) {
    names(document);
    listening(document);
    nodes(document);
}

fn names(document: &Document<'_>) {
    unique("listener", "name", document.listeners.iter().map(|l| (l.name.to_string(), &l.reader)));
    unique("user", "name", document.users.iter().map(|u| (u.name.to_string(), &u.reader)));
    unique("server role", "name", document.server_roles.iter().map(|r| (r.name.to_string(), &r.reader)));
    let table = |schema: &str, name: &str| if name.is_empty() { String::new() } else { format!("{schema}.{name}") };
    unique("table", "name", document.tables.iter().map(|t| (table(&t.schema, &t.name), &t.reader)));
    unique("function", "name", document.functions.iter().map(|f| (f.name.to_string(), &f.reader)));
    unique("region", "id", document.regions.iter().map(|r| (r.id.to_string(), &r.placed.reader)));
    unique("shard", "id", document.shards.iter().map(|s| (s.id.to_string(), &s.placed.reader)));
    nodes_of_one_id(document);
}

fn nodes_of_one_id(document: &Document<'_>) {
    let mut seen = Vec::new();
    let mut nodes = Vec::new();
    for (node, reader) in document.shards.iter().filter(|s| !s.id.as_str().is_empty()).flat_map(|s| s.nodes()) {
        // Shards of one id have nodes of one id by default: said once, of the shards.
        let given = reader.peek_text("id").is_some();
        if given || !seen.contains(&&node.id) {
            nodes.push((node.id.to_string(), reader));
        }
        seen.push(&node.id);
    }
    unique("node", "id", nodes.into_iter());
}

fn unique<'a>(what: &str, key: &str, items: impl Iterator<Item = (String, &'a Reader<'a>)>) {
    let mut first: HashMap<String, Range<usize>> = HashMap::new();
    for (name, reader) in items.filter(|(name, _)| !name.is_empty()) {
        let at = reader.at(key);
        match first.get(&name) {
            Some(other) => reader.push(
                Problem::error(at, format!("there are two {what}s `{name}`"))
                    .label(format!("expected a {key} of its own"))
                    .related(other.clone(), "the first"),
            ),
            None => drop(first.insert(name, at)),
        }
    }
}

/// Two sockets cannot listen on one port, also where one of them listens on all addresses.
fn listening(document: &Document<'_>) {
    let listeners = document.listeners.iter().map(|l| (format!("listener `{}`", l.name), l.address, &l.reader));
    let http = document.http.iter().map(|http| ("[http]".to_string(), http.address, &http.reader));
    let all: Vec<(String, SocketAddr, &Reader<'_>)> = listeners.chain(http).collect();
    for (n, (_, address, reader)) in all.iter().enumerate() {
        let clash = all[..n].iter().find(|(_, other, _)| meet(address, other));
        if let Some((other, first_address, first)) = clash {
            reader.push(
                Problem::error(reader.at("address"), format!("the address {address} is taken by {other}"))
                    .label("expected an address of its own")
                    .related(first.at("address"), "taken here")
                    .maybe_help(both_families(address, first_address)),
            );
        }
    }
}

/// What may not be known to whoever writes the same port for both families.
fn both_families(one: &SocketAddr, other: &SocketAddr) -> Option<String> {
    let any = |address: &SocketAddr| address.is_ipv6() && address.ip().is_unspecified();
    (any(one) != any(other)).then(|| "[::] takes the addresses of IPv4, too: it alone is enough".to_owned())
}

fn meet(one: &SocketAddr, other: &SocketAddr) -> bool {
    // [::] takes the addresses of IPv4, too, and one of those may be written as one of IPv6.
    let takes = |any: &IpAddr, address: &IpAddr| any.is_unspecified() && (any.is_ipv6() || address.is_ipv4());
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    // Port 0 lets the system choose, each time another.
    one.port() != 0 && one.port() == other.port() && (a == b || takes(&a, &b) || takes(&b, &a))
}

/// One server cannot be two nodes: its pools would be counted twice and its health known twice.
fn nodes(document: &Document<'_>) {
    let mut first: HashMap<String, (String, Range<usize>)> = HashMap::new();
    for (node, reader) in document.shards.iter().flat_map(|shard| shard.nodes()).filter(|(node, _)| node.port != 0) {
        let address = format!("{}:{}", node.host.to_lowercase(), node.port);
        match first.get(&address) {
            Some((id, place)) => reader.push(
                Problem::error(reader.at("url"), format!("the server {address} is node `{id}` already"))
                    .label("expected a server of its own")
                    .related(place.clone(), "the first"),
            ),
            None => drop(first.insert(address, (node.id.to_string(), reader.at("url")))),
        }
    }
}
