//! `[sharding]`: how patients are spread over shards.

use crate::model::{DefaultShard, KeyType, PatientRegion, RegionId, ShardId, Sharding, Strategy, Undeclared};
use crate::problem::Problem;
use crate::reader::{Placed, Reader};

const STRATEGIES: [(&str, Strategy); 2] = [("patient_region", Strategy::PatientRegion), ("hash", Strategy::Hash)];
const KEY_TYPES: [(&str, KeyType); 3] = [("uuid", KeyType::Uuid), ("bigint", KeyType::Bigint), ("text", KeyType::Text)];
const UNDECLARED: [(&str, Undeclared); 2] = [("refuse", Undeclared::Refuse), ("local", Undeclared::Local)];

/// What `[sharding]` says, with what only the rules need.
pub(crate) struct ReadSharding<'a> {
    pub(crate) placed: Placed<'a, Sharding>,
    /// Every patient region that exists, where the operator lists them.
    pub(crate) patient_regions: Vec<PatientRegion>,
    /// The table of `default_shard`.
    pub(crate) default_shard: Option<Reader<'a>>,
}

pub(crate) fn sharding<'a>(root: &Reader<'a>, plain: bool) -> ReadSharding<'a> {
    let reader = root.section("sharding");
    let default_shard = reader.table("default_shard", r#"a table such as { shard = "…", origins = ["…"] }"#);
    let item = Sharding {
        // Without patients there is no directory, as with `hash`.
        strategy: match plain {
            true => Strategy::Hash,
            false => reader.word("strategy", &STRATEGIES).unwrap_or(Strategy::PatientRegion),
        },
        key_type: reader.word("key_type", &KEY_TYPES).unwrap_or(KeyType::Uuid),
        undeclared_tables: reader.word("undeclared_tables", &UNDECLARED).unwrap_or(match plain {
            true => Undeclared::Local,
            false => Undeclared::Refuse,
        }),
        default_shard: default_shard.as_ref().map(read_default_shard),
        copy_across_shards: reader.boolean_or("copy_across_shards", true),
    };
    let patient_regions = reader.texts("patient_regions", "a list of patient regions");
    let patient_regions = patient_regions.iter().map(|text| PatientRegion::new(*text.get_ref())).collect();
    if item.undeclared_tables == Undeclared::Local && !plain {
        reader.push(
            Problem::warning(reader.at("undeclared_tables"), "tables that are not declared are not refused")
                .label("a patient table that was forgotten here is taken for a local one, without any check")
                .help("declare the tables and leave this key out"),
        );
    }
    reader.finish();
    ReadSharding { placed: Placed { item, reader }, patient_regions, default_shard }
}

fn read_default_shard(reader: &Reader<'_>) -> DefaultShard {
    let origins = reader.texts("origins", "a list of region ids");
    if reader.value("origins").is_none() {
        reader.missing("origins", "the regions from which falling back is allowed");
    }
    let default_shard = DefaultShard {
        shard: ShardId::new(reader.need("shard", "the id of a shard")),
        origins: origins.iter().map(|text| RegionId::new(*text.get_ref())).collect(),
    };
    reader.finish();
    default_shard
}
