//! Strategy `hash`: the ranges cover [0, 2^64) without gap and without overlap.

use std::ops::Range;

use super::Document;
use crate::model::Strategy;
use crate::problem::Problem;
use crate::sections::shards::HASH_END;

pub(super) fn check(document: &Document<'_>) {
    // With a range that could not be read, each gap would be a guess.
    if document.sharding.placed.strategy != Strategy::Hash || document.shards.iter().any(|s| s.hash_range.is_none()) {
        return;
    }
    let mut ranges: Vec<_> = document
        .shards
        .iter()
        .filter_map(|shard| shard.hash_range.map(|(start, end)| (u128::from(start), end, shard)))
        .collect();
    ranges.sort_by_key(|(start, end, _)| (*start, *end));
    let mut covered: u128 = 0;
    let mut furthest: Option<(String, Range<usize>)> = None;
    for (start, end, shard) in ranges {
        let reader = &shard.placed.reader;
        let at = reader.at("hash_range");
        if start > covered {
            let problem =
                Problem::error(at.clone(), format!("no shard has the hashes from {covered:#x} to {start:#x}"));
            let problem = problem.label(format!("expected a range that starts at {covered:#x}"));
            reader.push(match &furthest {
                Some((_, before)) => problem.related(before.clone(), "the range before"),
                None => problem,
            });
        } else if let Some((other, before)) = &furthest
            && start < covered
        {
            reader.push(
                Problem::error(at.clone(), format!("the hash ranges of `{other}` and `{}` overlap", shard.id))
                    .label(format!("from {start:#x} to {:#x}", covered.min(end)))
                    .related(before.clone(), format!("the range of `{other}`")),
            );
        }
        if end > covered || furthest.is_none() {
            covered = end;
            furthest = Some((shard.id.to_string(), at));
        }
    }
    if let Some((_, at)) = furthest
        && covered < HASH_END
        && let Some(shard) = document.shards.first()
    {
        shard.placed.reader.push(
            Problem::error(at, format!("no shard has the hashes from {covered:#x} to 2^64"))
                .label("the last range")
                .help("leave out `end` of the last range: it is 2^64 then"),
        );
    }
}
