//! `[[tables]]` and `[[functions]]`: what the statements touch.

use std::sync::Arc;

use crate::model::{Function, Table, TableKind};
use crate::nearest::did_you_mean;
use crate::problem::Problem;
use crate::reader::{Placed, Reader};
use crate::sections::identifier;

const KINDS: [(&str, TableKind); 3] =
    [("patient", TableKind::Patient), ("reference", TableKind::Reference), ("local", TableKind::Local)];
const COLUMN: &str = "the name of a column";
/// True: the function only reads. PostgreSQL's own words.
const VOLATILITIES: [(&str, bool); 3] = [("immutable", true), ("stable", true), ("volatile", false)];

pub(crate) fn tables<'a>(root: &Reader<'a>) -> Vec<Placed<'a, Table>> {
    root.sections("tables").into_iter().map(table).collect()
}

fn table(reader: Reader<'_>) -> Placed<'_, Table> {
    let (schema, name) = reader
        .need_parsed("name", r#"a table such as "patients" or "ehr.patients""#, qualified)
        .unwrap_or_else(|| ("public".into(), String::new()));
    let kind = reader.need_word("kind", &KINDS);
    let key = reader.parsed("key", COLUMN, identifier::single);
    let region = reader.parsed("region_column", COLUMN, identifier::single);
    if kind == Some(TableKind::Patient) {
        if reader.value("key").is_none() {
            reader.missing("key", "the column with the patient's key, since the table is of kind patient");
        }
    } else if let Some(kind) = kind {
        for key in ["key", "region_column"] {
            if reader.value(key).is_some() {
                reader.push(
                    Problem::error(reader.at(key), format!("`{key}` has no meaning for a {} table", kind.as_str()))
                        .label("only patient tables have it")
                        .related(reader.at("kind"), "the kind"),
                );
            }
        }
    }
    if let (Some(column), true) = (&key, key == region) {
        reader.push(
            Problem::error(reader.at("region_column"), format!("`region_column` is `{column}`, as `key` is"))
                .label("expected the column with the patient's region")
                .related(reader.at("key"), "the key")
                .help("a table without one takes rows of known patients alone: leave `region_column` out"),
        );
    }
    let columns = columns(&reader, &[("key", &key), ("region_column", &region)]);
    reader.finish();
    let item = Table {
        schema: Arc::from(schema),
        name: Arc::from(name),
        kind: kind.unwrap_or(TableKind::Patient),
        key: key.map(Arc::from),
        region: region.map(Arc::from),
        columns,
    };
    Placed { item, reader }
}

fn qualified(text: &str) -> Result<(String, String), String> {
    let mut parts = identifier::parts(text)?;
    match (parts.pop(), parts.pop(), parts.is_empty()) {
        (Some(name), None, true) => Ok(("public".into(), name)),
        (Some(name), Some(schema), true) => Ok((schema, name)),
        _ => Err(format!("`{text}` has more than one dot")),
    }
}

/// The declared columns, among which the key and the region must be.
fn columns(reader: &Reader<'_>, named: &[(&'static str, &Option<String>)]) -> Option<Vec<Arc<str>>> {
    reader.value("columns")?;
    let mut columns: Vec<Arc<str>> = Vec::new();
    for text in reader.texts("columns", "a list of columns") {
        match identifier::single(text.get_ref()) {
            Ok(column) if columns.iter().any(|known| **known == *column) => {
                reader.push(Problem::error(text.span(), format!("column `{column}` of {} twice", reader.name())));
            }
            Ok(column) => columns.push(column.into()),
            Err(why) => reader.push(Problem::error(text.span(), why).label(format!("expected {COLUMN}"))),
        }
    }
    for (key, column) in named {
        if let Some(column) = column
            && !columns.iter().any(|known| **known == **column)
        {
            reader.push(
                Problem::error(reader.at(key), format!("`{key}` names `{column}`, which is not among the columns"))
                    .related(reader.at("columns"), "the columns")
                    .maybe_help(did_you_mean(column, columns.iter().map(|column| &**column))),
            );
        }
    }
    Some(columns)
}

pub(crate) fn functions<'a>(root: &Reader<'a>) -> Vec<Placed<'a, Function>> {
    let read = |reader: Reader<'a>| {
        let name = reader.need_parsed("name", "a function's name without schema", identifier::single);
        let reads_only = reader.need_word("volatility", &VOLATILITIES);
        reader.finish();
        // What is not known counts as volatile.
        let item = Function { name: Arc::from(name.unwrap_or_default()), reads_only: reads_only.unwrap_or(false) };
        Placed { item, reader }
    };
    root.sections("functions").into_iter().map(read).collect()
}
