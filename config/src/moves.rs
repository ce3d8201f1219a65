//! Whose rows a new configuration looks for elsewhere. PgWard moves no rows: those that stand where a patient was before
//! would not be found any more, and new ones be stored beside them in another place, perhaps in another country.

use crate::model::{Config, Node, PatientRegion, Shard, Strategy};

/// The patients whose shard is another in `new` than in `old`, in words; empty when every patient who had a shard has
/// the same one, or none.
pub fn moves(old: &Config, new: &Config) -> Vec<String> {
    match (old.sharding.strategy, new.sharding.strategy) {
        (Strategy::PatientRegion, Strategy::PatientRegion) => of_regions(old, new),
        (Strategy::Hash, Strategy::Hash) => of_ranges(old, new),
        _ => vec!["all patients, by another strategy".to_owned()],
    }
}

/// `now`, with the shards of `before` for those patient regions that nobody serves any more: their rows are still there,
/// and it is with this that the next configuration is to be compared.
pub fn remembering(before: &Config, now: &Config) -> Config {
    let mut memory = now.clone();
    for shard in &before.shards {
        let left = shard.patient_regions.iter().filter(|region| serving(now, region).is_none());
        let left: Vec<_> = left.cloned().collect();
        if !left.is_empty() {
            memory.shards.push(Shard { patient_regions: left, ..shard.clone() });
        }
    }
    memory
}

fn of_regions(old: &Config, new: &Config) -> Vec<String> {
    let mut words = Vec::new();
    let mut told: Vec<&PatientRegion> = Vec::new();
    for region in [old, new].into_iter().flat_map(|config| &config.shards).flat_map(|shard| &shard.patient_regions) {
        if told.contains(&region) {
            continue;
        }
        told.push(region);
        let (before, after) = (serving(old, region), serving(new, region));
        words.extend(moved(old, before, after).map(|places| format!("patient region `{region}`, {places}")));
    }
    let elsewhere = moved(old, default_shard(old), default_shard(new));
    words.extend(elsewhere.map(|places| format!("the patient regions of the default shard, {places}")));
    words
}

fn of_ranges(old: &Config, new: &Config) -> Vec<String> {
    let mut words = Vec::new();
    for (before, from) in old.shards.iter().filter_map(|shard| Some((shard, shard.hash_range?))) {
        for (after, to) in new.shards.iter().filter_map(|shard| Some((shard, shard.hash_range?))) {
            let (start, end) = (from.0.max(to.0), from.1.min(to.1));
            if u128::from(start) < end
                && let Some(places) = moved(old, Some(before), Some(after))
            {
                words.push(format!("the hashes from {start:#x} to {:#x}, {places}", end - 1));
            }
        }
    }
    words
}

/// The shard of a region's patients.
fn serving<'a>(config: &'a Config, region: &PatientRegion) -> Option<&'a Shard> {
    config.shards.iter().find(|shard| shard.patient_regions.contains(region)).or_else(|| default_shard(config))
}

fn default_shard(config: &Config) -> Option<&Shard> {
    let fallback = config.sharding.default_shard.as_ref()?;
    config.shards.iter().find(|shard| shard.id == fallback.shard)
}

/// `from shard a to shard b`, unless they are the same place: a shard may have another name, or another server as its
/// primary, one of its own or one that is new.
fn moved(old: &Config, before: Option<&Shard>, after: Option<&Shard>) -> Option<String> {
    let (before, after) = (before?, after?);
    let has = |shard: &Shard| shard.nodes().any(|node| is_same_server(node, &after.primary));
    let is_new = || before.id == after.id && !old.shards.iter().any(has);
    if has(before) || is_new() {
        return None;
    }
    Some(format!("from `{}` ({}) to `{}` ({})", before.id, address(before), after.id, address(after)))
}

fn is_same_server(one: &Node, other: &Node) -> bool {
    one.host.eq_ignore_ascii_case(&other.host) && one.port == other.port && one.dbname == other.dbname
}

fn address(shard: &Shard) -> String {
    format!("{}:{}", shard.primary.host, shard.primary.port)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::*;
    use crate::{Sources, parse_with};

    const BASE: &str = include_str!("../tests/base.toml");

    fn read(text: &str) -> Config {
        let env = |_: &str| Some("0123456789abcdef".to_owned());
        let file = |_: &Path| Err(std::io::Error::from(std::io::ErrorKind::NotFound));
        let sources = Sources { env: &env, file: &file, real: &Path::to_path_buf, salt: &|_| [7; 16] };
        parse_with(text, Path::new("pgward.toml"), &sources).unwrap().config
    }

    fn replaced(pairs: &[(&str, &str)]) -> String {
        pairs.iter().fold(BASE.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        })
    }

    fn told(pairs: &[(&str, &str)]) -> Vec<String> {
        moves(&read(BASE), &read(&replaced(pairs)))
    }

    #[test]
    fn regions_or_servers_that_change_places_move_their_patients() {
        let regions =
            told(&[("[\"us-east\"]", "[\"x\"]"), ("[\"us-west\"]", "[\"us-east\"]"), ("[\"x\"]", "[\"us-west\"]")]);
        assert_eq!(
            regions,
            [
                "patient region `us-east`, from `east` (127.0.0.1:7000) to `west` (127.0.0.1:7010)",
                "patient region `us-west`, from `west` (127.0.0.1:7010) to `east` (127.0.0.1:7000)"
            ]
        );
        let servers = told(&[(":7000/", ":7009/"), (":7010/", ":7000/"), (":7009/", ":7010/")]);
        assert_eq!(servers.len(), 2, "{servers:?}");
    }

    #[test]
    fn names_promotions_and_new_servers_move_nobody() {
        assert!(told(&[("id = \"west\"", "id = \"far-west\"")]).is_empty());
        assert!(told(&[(":7000/", ":7009/"), (":7001/", ":7000/"), (":7009/", ":7001/")]).is_empty(), "promoted");
        assert!(told(&[(":7000/", ":7009/")]).is_empty(), "moved to another machine");
        assert!(told(&[("[\"us-west\"]", "[\"us-west\", \"guam\"]")]).is_empty(), "a region that had no patients");
        assert!(told(&[("id = \"west\"", "id = \"far-west\""), (":7010/", ":7011/")]).len() == 1, "who can tell?");
    }

    #[test]
    fn a_region_leaves_its_default_shard() {
        let fallback = "[sharding]\ndefault_shard = { shard = \"east\", origins = [\"us-east-1\"] }";
        let old = replaced(&[("[sharding]", fallback)]);
        let new = old.replace("[\"us-west\"]", "[\"us-west\", \"guam\"]");
        assert_eq!(
            moves(&read(&old), &read(&new)),
            ["patient region `guam`, from `east` (127.0.0.1:7000) to `west` (127.0.0.1:7010)"]
        );
    }

    #[test]
    fn a_region_that_was_served_by_nobody_for_a_while_is_remembered() {
        let old = read(BASE);
        let without = read(&replaced(&[("patient_regions = [\"us-west\"]", "patient_regions = [\"guam\"]")]));
        let memory = remembering(&remembering(&old, &without), &without);
        assert!(moves(&memory, &without).is_empty() && moves(&memory, &old).is_empty());
        let elsewhere =
            read(&replaced(&[("[\"us-west\"]", "[\"guam\"]"), ("[\"us-east\"]", "[\"us-east\", \"us-west\"]")]));
        assert_eq!(
            moves(&memory, &elsewhere),
            ["patient region `us-west`, from `west` (127.0.0.1:7010) to `east` (127.0.0.1:7000)"]
        );
    }

    #[test]
    fn hashes_move_with_the_borders_of_ranges() {
        let ranges = |border: &str| {
            replaced(&[
                ("strategy = \"patient_region\"", "strategy = \"hash\""),
                ("patient_regions = [\"us-east\"]", &format!("hash_range = {{ start = 0, end = \"{border}\" }}")),
                ("patient_regions = [\"us-west\"]", &format!("hash_range = {{ start = \"{border}\" }}")),
                ("[directory]\npath = \"patients.dir\"\nkey = { env = \"DIRECTORY_KEY\" }", ""),
            ])
        };
        let (old, new) = (read(&ranges("0x80")), read(&ranges("0x40")));
        assert!(moves(&old, &old).is_empty());
        let told = moves(&old, &new);
        assert_eq!(told, ["the hashes from 0x40 to 0x7f, from `east` (127.0.0.1:7000) to `west` (127.0.0.1:7010)"]);
        assert_eq!(moves(&read(BASE), &new), ["all patients, by another strategy"]);
    }
}
