//! Ids that must be known: regions, shards, server roles; and what nobody can reach.

use std::ops::Range;

use super::Document;
use crate::model::{Class, RegionId};
use crate::nearest::did_you_mean;
use crate::problem::Problem;
use crate::reader::Reader;

pub(super) fn check(document: &Document<'_>) {
    regions(document);
    default_shard(document);
    server_roles(document);
    emergency(document);
    origins(document);
}

fn regions(document: &Document<'_>) {
    let known: Vec<&str> = document.regions.iter().map(|region| region.id.as_str()).collect();
    let check = |reader: &Reader<'_>, at: Range<usize>, id: &RegionId| {
        unknown(reader, at, "region", id.as_str(), &known);
    };
    for listener in &document.listeners {
        check(&listener.reader, listener.reader.at("origin"), &listener.origin);
    }
    for region in &document.regions {
        let reader = &region.placed.reader;
        if let Some(backup) = &region.backup_region {
            check(reader, reader.at("backup_region"), backup);
        }
        for (key, ids) in [("replicas_in", &region.replicas_in), ("access_from", &region.access_from)] {
            for (n, id) in ids.iter().enumerate() {
                check(reader, reader.at_nth(key, n), id);
            }
        }
        for (prohibited, place) in region.prohibited.iter().zip(&region.prohibitions) {
            check(place, place.at("region"), &prohibited.region);
        }
    }
    for shard in &document.shards {
        check(&shard.placed.reader, shard.placed.reader.at("region"), &shard.region);
        for (node, reader) in shard.nodes().skip(1).filter(|(node, _)| node.region != shard.region) {
            check(reader, reader.at("region"), &node.region);
        }
    }
    if let (Some(fallback), Some(reader)) = (&document.sharding.placed.default_shard, &document.sharding.default_shard)
    {
        for (n, origin) in fallback.origins.iter().enumerate() {
            check(reader, reader.at_nth("origins", n), origin);
        }
    }
}

fn unknown(reader: &Reader<'_>, at: Range<usize>, what: &str, id: &str, known: &[&str]) {
    if id.is_empty() || known.contains(&id) {
        return;
    }
    let all = || match known {
        [] => format!("there is no {what} at all"),
        known => format!("the {what}s are {}", known.join(", ")),
    };
    reader.push(
        Problem::error(at, format!("unknown {what} `{id}`"))
            .label(format!("expected a {what} of this file"))
            .help(did_you_mean(id, known.iter().copied()).unwrap_or_else(all)),
    );
}

fn default_shard(document: &Document<'_>) {
    let (Some(fallback), Some(reader)) = (&document.sharding.placed.default_shard, &document.sharding.default_shard)
    else {
        return;
    };
    let known: Vec<&str> = document.shards.iter().map(|shard| shard.id.as_str()).collect();
    unknown(reader, reader.at("shard"), "shard", fallback.shard.as_str(), &known);
}

fn server_roles(document: &Document<'_>) {
    let known: Vec<&str> = document.server_roles.iter().map(|role| &*role.name).collect();
    for user in &document.users {
        unknown(&user.reader, user.reader.at("server_role"), "server role", &user.server_role, &known);
    }
}

/// A reserve that nobody can use is a mistake, though not one that endangers anybody's data.
fn emergency(document: &Document<'_>) {
    if document.plain.is_some() {
        return;
    }
    let listener = document.listeners.iter().any(|listener| listener.class == Some(Class::Emergency));
    let user = document.users.iter().any(|user| user.ceiling == Class::Emergency);
    if let (false, false, Some(first)) = (listener, user, document.listeners.first()) {
        first.reader.push(
            Problem::warning(first.reader.place(), "nobody can make an emergency statement")
                .label("no listener has class = \"emergency\", and no user a ceiling of \"emergency\""),
        );
    }
}

/// Statements without patients go to a shard of the origin.
fn origins(document: &Document<'_>) {
    for listener in &document.listeners {
        let region = document.region(&listener.origin).is_some();
        if region && !document.shards.iter().any(|shard| shard.region == listener.origin) {
            listener.reader.push(
                Problem::warning(listener.reader.at("origin"), format!("no shard is in region `{}`", listener.origin))
                    .label("statements without patients (catalog, local tables) have no home from here"),
            );
        }
    }
}
