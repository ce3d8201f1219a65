//! Replicas, backups and fall-backs stand only where the region's law allows. A topology that breaks a rule is refused
//! when it is loaded, with the rule quoted.

use super::Document;
use crate::model::RegionId;
use crate::problem::Problem;
use crate::sections::regions::ReadRegion;

pub(super) fn check(document: &Document<'_>) {
    for region in &document.regions {
        contradictions(region);
    }
    replicas(document);
    default_shard(document);
}

/// A region that allows and prohibits the same.
fn contradictions(region: &ReadRegion<'_>) {
    let reader = &region.placed.reader;
    if let Some(prohibition) = region.prohibited.iter().position(|p| p.region == region.id) {
        reader.push(Problem::error(
            region.prohibitions[prohibition].at("region"),
            format!("region `{}` prohibits itself", region.id),
        ));
    }
    for (key, ids) in [("replicas_in", &region.replicas_in), ("access_from", &region.access_from)] {
        for (n, id) in ids.iter().enumerate() {
            if let Some(problem) = prohibited(region, id, format!("`{key}` of region `{}` names `{id}`", region.id)) {
                reader.push(Problem { at: reader.at_nth(key, n), ..problem });
            }
        }
    }
    if let Some(backup) = &region.backup_region {
        let what = format!("the backup region `{backup}` of region `{}`", region.id);
        if let Some(problem) = stored(region, backup, what) {
            reader.push(Problem { at: reader.at("backup_region"), ..problem });
        }
    }
}

fn replicas(document: &Document<'_>) {
    for shard in &document.shards {
        let Some(region) = document.region(&shard.region) else { continue };
        for (node, reader) in shard.nodes().skip(1).filter(|(node, _)| node.port != 0) {
            // An unknown region is a mistake of its own.
            if document.region(&node.region).is_none() {
                continue;
            }
            let what = format!("replica `{}` in region `{}`", node.id, node.region);
            if let Some(problem) = stored(region, &node.region, what) {
                reader.push(Problem { at: reader.at("region"), ..problem });
            }
        }
    }
}

/// Why data of `region` may not be stored in `place`; without its own place yet.
fn stored(region: &ReadRegion<'_>, place: &RegionId, what: String) -> Option<Problem> {
    if *place == region.id {
        return None;
    }
    if let Some(problem) = prohibited(region, place, what.clone()) {
        return Some(problem);
    }
    if !region.resident || region.replicas_in.contains(place) || place.as_str().is_empty() {
        return None;
    }
    let allowed = region.replicas_in.iter().map(RegionId::as_str).collect::<Vec<_>>().join(", ");
    let rule = match allowed.as_str() {
        "" => "resident, with no `replicas_in`: its data stays in the region".to_owned(),
        allowed => format!("resident, replicas_in: {allowed}"),
    };
    let reader = &region.placed.reader;
    Some(
        Problem::error(0..0, format!("{what}: the rule of region `{}` does not allow it", region.id))
            .label(format!("rule of `{}`: {rule}", region.id))
            .related(reader.at("replicas_in"), "the rule")
            .help(format!("if the law allows it, add `{place}` to `replicas_in` of region `{}`", region.id)),
    )
}

fn prohibited(region: &ReadRegion<'_>, place: &RegionId, what: String) -> Option<Problem> {
    let (n, prohibition) = region.prohibited.iter().enumerate().find(|(_, p)| p.region == *place)?;
    if *place == region.id || place.as_str().is_empty() {
        return None;
    }
    Some(
        Problem::error(0..0, format!("{what}: region `{}` prohibits `{place}`", region.id))
            .label(format!("prohibited: \"{}\"", prohibition.reason))
            .related(region.prohibitions[n].place(), "the rule"),
    )
}

/// An origin falls back to the default shard only where that shard's region may be reached from it.
fn default_shard(document: &Document<'_>) {
    let (Some(fallback), Some(reader)) = (&document.sharding.placed.default_shard, &document.sharding.default_shard)
    else {
        return;
    };
    let shard = document.shards.iter().find(|shard| shard.id == fallback.shard);
    let Some(region) = shard.and_then(|shard| document.region(&shard.region)) else { return };
    for (n, origin) in fallback.origins.iter().enumerate() {
        if *origin == region.id || document.region(origin).is_none() {
            continue;
        }
        let what = format!("origin `{origin}` cannot fall back to shard `{}`", fallback.shard);
        let problem = prohibited(region, origin, what.clone()).or_else(|| {
            (region.resident && !region.access_from.contains(origin)).then(|| {
                Problem::error(0..0, format!("{what}: region `{}` cannot be reached from there", region.id))
                    .label(format!("not in `access_from` of `{}`", region.id))
                    .related(region.placed.reader.at("access_from"), "the rule")
            })
        });
        if let Some(problem) = problem {
            reader.push(Problem { at: reader.at_nth("origins", n), ..problem });
        }
    }
}
