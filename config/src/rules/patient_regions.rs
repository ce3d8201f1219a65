//! Strategy `patient_region`: each patient region is served by exactly one shard. And the strategies are not mixed.

use std::collections::HashMap;
use std::ops::Range;

use super::Document;
use crate::model::{PatientRegion, Strategy};
use crate::nearest::did_you_mean;
use crate::problem::Problem;

pub(super) fn check(document: &Document<'_>) {
    let strategy = document.sharding.placed.strategy;
    for shard in &document.shards {
        let reader = &shard.placed.reader;
        let (needed, foreign, word) = match strategy {
            Strategy::PatientRegion => ("patient_regions", "hash_range", "patient_region"),
            Strategy::Hash => ("hash_range", "patient_regions", "hash"),
        };
        if reader.value(foreign).is_some() {
            reader.push(
                Problem::error(reader.at(foreign), format!("`{foreign}` has no meaning with strategy `{word}`"))
                    .label(format!("expected `{needed}` instead")),
            );
        }
        let empty = strategy == Strategy::PatientRegion
            && reader.value(needed).is_some_and(|value| value.get_ref().as_array().is_some_and(|list| list.is_empty()));
        if reader.value(needed).is_none() || empty {
            let at = if empty { reader.at(needed) } else { reader.place() };
            reader.push(
                Problem::error(at, format!("shard `{}` serves nobody", shard.id))
                    .label(format!("expected `{needed}`, since the strategy is `{word}`")),
            );
        }
    }
    match strategy {
        Strategy::PatientRegion => served_once(document),
        Strategy::Hash => no_regions(document),
    }
}

fn served_once(document: &Document<'_>) {
    let mut served: HashMap<&PatientRegion, (&str, Range<usize>)> = HashMap::new();
    let declared = &document.sharding.patient_regions;
    for shard in &document.shards {
        let reader = &shard.placed.reader;
        for (n, region) in shard.patient_regions.iter().enumerate() {
            let at = reader.at_nth("patient_regions", n);
            if let Some((other, first)) = served.get(region) {
                reader.push(
                    Problem::error(at, format!("patient region `{region}` is served twice"))
                        .label(format!("by `{}` here", shard.id))
                        .related(first.clone(), format!("by `{other}` here")),
                );
                continue;
            }
            if !declared.is_empty() && !declared.contains(region) {
                let known = declared.iter().map(PatientRegion::as_str);
                reader.push(
                    Problem::error(at.clone(), format!("unknown patient region `{region}`"))
                        .label("expected one of `patient_regions` in [sharding]")
                        .maybe_help(did_you_mean(region.as_str(), known)),
                );
            }
            served.insert(region, (shard.id.as_str(), at));
        }
    }
    let reader = &document.sharding.placed.reader;
    for (n, region) in declared.iter().enumerate() {
        let at = reader.at_nth("patient_regions", n);
        if declared[..n].contains(region) {
            reader.push(Problem::error(at, format!("patient region `{region}` is listed twice")));
        } else if !served.contains_key(region) && document.sharding.placed.default_shard.is_none() {
            reader.push(
                Problem::error(at, format!("patient region `{region}` is served by nobody"))
                    .label("expected it among the `patient_regions` of a shard")
                    .help("or set `default_shard` in [sharding], with the origins that may fall back to it"),
            );
        }
    }
}

/// What belongs to the other strategy.
fn no_regions(document: &Document<'_>) {
    let reader = &document.sharding.placed.reader;
    for key in ["default_shard", "patient_regions"] {
        if reader.value(key).is_some() {
            reader.push(
                Problem::error(reader.at(key), format!("`{key}` has no meaning with strategy `hash`"))
                    .label("every patient has a shard: its hash is in one range"),
            );
        }
    }
}
