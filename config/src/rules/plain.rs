//! A plain pooler has one server, and nothing that only means something where statements are routed.

use super::Document;
use crate::model::PoolKind;
use crate::problem::Problem;
use crate::reader::Reader;

pub(super) fn check(document: &Document<'_>) {
    let Some(plain) = &document.plain else { return };
    let foreign = |reader: &Reader<'_>, key: &'static str, why: &str| {
        if reader.value(key).is_some() {
            reader.push(
                Problem::error(reader.at(key), format!("`{key}` has no meaning in a plain pooler"))
                    .label(why.to_owned())
                    .related(plain.reader.place(), "makes it a plain pooler"),
            );
        }
    };
    for shard in document.shards.iter().skip(1) {
        shard.placed.reader.push(
            Problem::error(shard.placed.reader.place(), format!("shard `{}` is one too many", shard.id))
                .label("a plain pooler has exactly one shard: nothing says what would go to another")
                .related(plain.reader.place(), "makes it a plain pooler"),
        );
    }
    for shard in &document.shards {
        let reader = &shard.placed.reader;
        foreign(reader, "patient_regions", "no patient is looked at");
        foreign(reader, "hash_range", "no patient is looked at");
        foreign(reader, "replicas", "all statements go to the primary");
    }
    for listener in &document.listeners {
        let reader = &listener.reader;
        foreign(reader, "class", "all sessions are alike");
        let Some(shard) = document.shards.first() else { continue };
        if document.region(&listener.origin).is_some() && listener.origin != shard.region {
            reader.push(
                Problem::error(
                    reader.at("origin"),
                    format!("listener `{}` is not in the shard's region", listener.name),
                )
                .label(format!("expected `{}`: a plain pooler passes nothing from one region to another", shard.region))
                .related(shard.placed.reader.at("region"), "the shard's region"),
            );
        }
    }
    foreign(&document.proxy.reader, "peer_id", "there are no [[peers]]");
    server_roles(document);
    for kind in PoolKind::ALL {
        let reader = &document.pools[kind.index()].reader;
        match kind {
            PoolKind::General => {
                foreign(reader, "min", "nothing is opened ahead: whose connection is told by the client")
            }
            _ if reader.is_present() => reader.push(
                Problem::error(reader.place(), format!("[pools.{kind}] has no meaning in a plain pooler"))
                    .label("all connections are of [pools.general]"),
            ),
            _ => {}
        }
    }
}

/// Somebody must ask the server whether it is well.
fn server_roles(document: &Document<'_>) {
    let Some(plain) = &document.plain else { return };
    if document.server_roles.is_empty() {
        plain.reader.push(
            Problem::error(plain.reader.place(), "a plain pooler has no [[server_roles]]")
                .label("expected one, as whom the server's health is asked for"),
        );
    }
    for role in document.server_roles.iter().skip(1) {
        role.reader.push(
            Problem::error(role.reader.place(), format!("server role `{}` is one too many", role.name))
                .label("a plain pooler logs in as its clients; one role asks for the server's health"),
        );
    }
}
