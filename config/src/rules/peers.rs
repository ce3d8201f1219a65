//! Instances that pass cancel requests on to each other must tell each other apart.

use super::Document;
use crate::problem::Problem;

pub(super) fn check(document: &Document<'_>) {
    let peers = &document.peers;
    let proxy = &document.proxy;
    if let (Some(first), None) = (peers.first(), proxy.item.peer_id) {
        // An id that could not be read is noted already.
        if proxy.reader.value("peer_id").is_none() {
            first.reader.push(
                Problem::error(first.reader.place(), "there are [[peers]], and this instance has no `peer_id`")
                    .label("its cancel keys would not say whose they are")
                    .help("give it a `peer_id` of its own in [proxy]"),
            );
        }
    }
    for (n, peer) in peers.iter().enumerate() {
        let (item, reader) = (&peer.item, &peer.reader);
        if let Some(other) = peers[..n].iter().find(|other| other.item.id == item.id && item.id != 0) {
            reader.push(
                Problem::error(reader.at("id"), format!("there are two peers `{}`", item.id))
                    .label("expected an id of its own")
                    .related(other.reader.at("id"), "the first"),
            );
        }
        let same = |other: &&crate::reader::Placed<'_, crate::model::Peer>| {
            item.port != 0 && other.item.port == item.port && other.item.host.eq_ignore_ascii_case(&item.host)
        };
        if let Some(other) = peers[..n].iter().find(same) {
            let address = format!("{}:{}", item.host, item.port);
            reader.push(
                Problem::error(
                    reader.at("address"),
                    format!("the address {address} is that of peer `{}`", other.item.id),
                )
                .label("expected an address of its own")
                .related(other.reader.at("address"), "the first"),
            );
        }
    }
}
