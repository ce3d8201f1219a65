//! `[[shards]]`: the shards with their nodes.

use std::sync::Arc;

use serde_spanned::Spanned;
use toml::de::DeValue;

use crate::model::{Node, NodeId, NodeRole, PatientRegion, RegionId, Shard, ShardId};
use crate::problem::Problem;
use crate::reader::{Placed, Reader};
use crate::sections::url;

/// 2^64: the end of all hash ranges.
pub(crate) const HASH_END: u128 = 1 << 64;

/// A shard with the tables of its nodes, the primary first where there is one.
pub(crate) struct ReadShard<'a> {
    pub(crate) placed: Placed<'a, Shard>,
    pub(crate) nodes: Vec<Reader<'a>>,
}

impl std::ops::Deref for ReadShard<'_> {
    type Target = Shard;

    fn deref(&self) -> &Shard {
        &self.placed.item
    }
}

impl<'a> ReadShard<'a> {
    /// The nodes with the tables that they were read from.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&Node, &Reader<'a>)> {
        self.placed.item.nodes().zip(&self.nodes)
    }
}

pub(crate) fn shards<'a>(root: &Reader<'a>, database: &Arc<str>) -> Vec<ReadShard<'a>> {
    if root.value("shards").is_none() {
        root.missing("shards", "at least one table [[shards]]");
    }
    root.sections("shards").into_iter().map(|reader| shard(reader, database)).collect()
}

fn shard<'a>(reader: Reader<'a>, database: &Arc<str>) -> ReadShard<'a> {
    let id = reader.need("id", r#"an id of its own such as "us-east-patients""#);
    let region = RegionId::new(reader.need("region", "the id of a region"));
    let patient_regions = reader.texts("patient_regions", "a list of patient regions");
    let primary = reader.table("primary", r#"a table such as { url = "postgresql://…" }"#);
    if reader.value("primary").is_none() {
        reader.missing("primary", r#"{ url = "postgresql://host:port/database" }"#);
    }
    // An absent primary is stood in for by the shard's own table, so that nodes and tables stay in step.
    let mut nodes = vec![primary.unwrap_or_else(|| reader.twin())];
    nodes.extend(reader.tables("replicas", r#"such as { url = "postgresql://…" }"#));
    let mut read = nodes.iter().enumerate().map(|(n, place)| node(place, n, id, &region, database));
    let item = Shard {
        id: ShardId::new(id),
        patient_regions: patient_regions.iter().map(|text| PatientRegion::new(*text.get_ref())).collect(),
        hash_range: hash_range(&reader),
        primary: read.next().expect("a list made with one element has a first"),
        replicas: read.collect(),
        server_max_connections: reader
            .number("server_max_connections", 1..=262_143) // PostgreSQL's MAX_BACKENDS
            .and_then(|number| u32::try_from(number).ok()),
        region,
    };
    reader.finish();
    ReadShard { placed: Placed { item, reader }, nodes }
}

/// The n-th node of a shard, 0 being the primary.
fn node(reader: &Reader<'_>, n: usize, shard: &str, region: &RegionId, database: &Arc<str>) -> Node {
    let role = if n == 0 { NodeRole::Primary } else { NodeRole::Replica };
    let default_id = || match role {
        NodeRole::Primary => format!("{shard}/primary"),
        NodeRole::Replica => format!("{shard}/replica-{n}"),
    };
    if !reader.is_present() {
        return stand_in(default_id(), role, region);
    }
    if reader.peek_text("url").is_some_and(url::has_userinfo) {
        reader.conceal("url");
    }
    let url = reader.need_parsed("url", url::URL, url::parse);
    let id = reader.text("id", "an id of its own").map(|text| text.into_inner().to_owned());
    let own_region = match role {
        NodeRole::Primary => None,
        NodeRole::Replica => reader.text("region", "the id of a region"),
    };
    let cpu_source = reader.parsed("cpu_source", r#"a URL such as "http://host:9100/cpu""#, |text| {
        text.strip_prefix("http://")
            .is_some_and(|rest| !rest.is_empty())
            .then(|| Arc::from(text))
            .ok_or("it does not begin with http://")
    });
    reader.finish();
    let Some(url) = url else { return stand_in(id.unwrap_or_else(default_id), role, region) };
    Node {
        id: NodeId::new(id.unwrap_or_else(default_id)),
        role,
        region: own_region.map_or_else(|| region.clone(), |text| RegionId::new(text.into_inner())),
        host: url.host,
        port: url.port,
        dbname: url.dbname.unwrap_or_else(|| database.clone()),
        cpu_source,
    }
}

/// Stands in for a node that could not be read; port 0 is nobody's.
fn stand_in(id: String, role: NodeRole, region: &RegionId) -> Node {
    Node {
        id: NodeId::new(id),
        role,
        region: region.clone(),
        host: "".into(),
        port: 0,
        dbname: "".into(),
        cpu_source: None,
    }
}

fn hash_range(reader: &Reader<'_>) -> Option<(u64, u128)> {
    let range = reader.table("hash_range", r#"a table such as { start = 0, end = "0x4000000000000000" }"#)?;
    let start = match range.value("start") {
        Some(value) => hash(&range, "start", value),
        None => {
            range.missing("start", "the first hash of the range");
            None
        }
    };
    let end = range.value("end").map_or(Some(HASH_END), |value| hash(&range, "end", value));
    range.finish();
    let (start, end) = (start?, end?);
    match u64::try_from(start) {
        Ok(start) if u128::from(start) < end => Some((start, end)),
        _ => {
            range.push(
                Problem::error(range.place(), format!("the hash range of {} is empty", reader.name()))
                    .label("expected start < end; the end itself is not part of the range"),
            );
            None
        }
    }
}

/// A hash: a number, or a text for those beyond TOML's integers, which have 63 bits.
fn hash(reader: &Reader<'_>, key: &'static str, value: &Spanned<DeValue<'_>>) -> Option<u128> {
    let parsed = match value.get_ref() {
        DeValue::Integer(integer) => u128::from_str_radix(integer.as_str(), integer.radix()).ok(),
        DeValue::String(text) => match text.strip_prefix("0x") {
            Some(digits) => u128::from_str_radix(&digits.replace('_', ""), 16).ok(),
            None => text.replace('_', "").parse().ok(),
        },
        _ => None,
    };
    let parsed = parsed.filter(|hash| *hash <= HASH_END);
    if parsed.is_none() {
        reader.push(
            Problem::error(value.span(), format!("`{key}` of {} is not a hash", reader.name()))
                .label(r#"expected a number from 0 to 2^64, or a text such as "0x4000000000000000""#),
        );
    }
    parsed
}
