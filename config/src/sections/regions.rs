//! `[[regions]]`: the law of each region.

use std::sync::Arc;

use crate::model::{Authority, Framework, Prohibition, Region, RegionId};
use crate::reader::{Placed, Reader};

const FRAMEWORKS: [(&str, Framework); 4] =
    [("HIPAA", Framework::Hipaa), ("GDPR", Framework::Gdpr), ("PIPEDA", Framework::Pipeda), ("PDPA", Framework::Pdpa)];
const REGIONS: &str = "a list of region ids";

/// A region with its prohibitions' tables, for rules that point at one of them.
pub(crate) struct ReadRegion<'a> {
    pub(crate) placed: Placed<'a, Region>,
    pub(crate) prohibitions: Vec<Reader<'a>>,
}

impl std::ops::Deref for ReadRegion<'_> {
    type Target = Region;

    fn deref(&self) -> &Region {
        &self.placed.item
    }
}

pub(crate) fn regions<'a>(root: &Reader<'a>) -> Vec<ReadRegion<'a>> {
    if root.value("regions").is_none() {
        root.missing("regions", "at least one table [[regions]]");
    }
    root.sections("regions").into_iter().map(region).collect()
}

fn region(reader: Reader<'_>) -> ReadRegion<'_> {
    let id = reader.need("id", r#"an id of its own such as "us-east-1""#);
    let ids = |key| reader.texts(key, REGIONS).iter().map(|text| RegionId::new(*text.get_ref())).collect();
    let prohibitions = reader.tables("prohibited", r#"such as { region = "…", reason = "…" }"#);
    let item = Region {
        id: RegionId::new(id),
        name: Arc::from(reader.text("name", "a name for people").map_or(id, |text| text.into_inner())),
        frameworks: reader.words("frameworks", &FRAMEWORKS),
        // Strict local is the default policy: a rule that was forgotten must not open a border.
        resident: reader.boolean_or("resident", true),
        authorities: reader.tables("authorities", "such as { name = \"…\" }").into_iter().map(authority).collect(),
        zones: reader.texts("zones", "a list of zones").iter().map(|text| Arc::from(*text.get_ref())).collect(),
        backup_region: reader.text("backup_region", "the id of a region").map(|text| RegionId::new(text.into_inner())),
        replicas_in: ids("replicas_in"),
        access_from: ids("access_from"),
        prohibited: prohibitions.iter().map(prohibition).collect(),
    };
    reader.finish();
    ReadRegion { placed: Placed { item, reader }, prohibitions }
}

fn authority(reader: Reader<'_>) -> Authority {
    let authority = Authority {
        name: Arc::from(reader.need("name", "the authority's name")),
        contact: reader.text("contact", "where to reach it").map(|text| Arc::from(text.into_inner())),
        reporting: reader
            .texts("reporting", "a list of what must be reported")
            .iter()
            .map(|text| Arc::from(*text.get_ref()))
            .collect(),
    };
    reader.finish();
    authority
}

fn prohibition(reader: &Reader<'_>) -> Prohibition {
    let prohibition = Prohibition {
        region: RegionId::new(reader.need("region", "the id of the prohibited region")),
        reason: Arc::from(reader.need("reason", "the reason, which refusals show")),
    };
    reader.finish();
    prohibition
}
