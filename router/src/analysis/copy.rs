//! COPY: which rows go in or out, and where the key stands in them.

use std::sync::Arc;

use pg_raw_parse::Node;
use pg_raw_parse::nodes::{CopyStmt, DefElem};
use pgward_config::TableKind;

use super::tables::TableInfo;
use super::walk::Walk;
use crate::refusal::{Refusal, RefusalKind};
use crate::statement::{Action, CopyFormat, CopyFrom};

/// The options of a COPY that decide how its rows read.
#[derive(Default)]
struct Options<'t> {
    format: Option<&'t str>,
    delimiter: Option<&'t str>,
    null: Option<&'t str>,
    quote: Option<&'t str>,
    escape: Option<&'t str>,
    header: bool,
    /// Columns whose quoted values may be NULL, too.
    force_null: Option<Node<'t>>,
}

impl<'t> Walk<'t> {
    pub(super) fn copy(&mut self, copy: &'t CopyStmt) -> Action {
        if copy.filename().is_some() || copy.is_program {
            self.refuse(
                Refusal::new(RefusalKind::Unplaceable, "COPY with a file or program of the server")
                    .hint("Use COPY … FROM STDIN or TO STDOUT (in psql: \\copy)."),
            );
            return Action::Run;
        }
        let at = self.nowhere(None, 0);
        self.expression(copy.where_clause(), at);
        let Some(options) = self.options(copy) else { return Action::Run };
        match copy.relation() {
            None => {
                self.query(copy.query(), None, None, 1);
                Action::CopyTo
            }
            Some(relation) if copy.is_from => {
                let table = self.table(relation, true);
                self.copy_from(copy, table, options)
            }
            Some(relation) => {
                let table = self.table(relation, false);
                if let Some(table) = table.filter(|table| table.kind == TableKind::Patient) {
                    let key = table.key.as_deref().unwrap_or_default();
                    self.refuse(
                        Refusal::new(RefusalKind::NoPatient, format!("COPY of all of {} names no patient", table.full))
                            .hint(format!("Use COPY (SELECT … WHERE {key} = …) TO STDOUT.")),
                    );
                }
                Action::CopyTo
            }
        }
    }

    fn copy_from(&mut self, copy: &'t CopyStmt, table: Option<Arc<TableInfo>>, options: Options<'t>) -> Action {
        let named: Vec<Arc<str>> = copy.attlist().iter().filter_map(|name| name.as_str()).map(Into::into).collect();
        let known = table.as_ref().and_then(|table| table.copied.clone());
        let columns: Option<Arc<[Arc<str>]>> = if named.is_empty() { known } else { Some(named.into()) };
        let position = |wanted: Option<&str>| columns.as_ref()?.iter().position(|column| Some(&**column) == wanted);
        let kind = table.as_ref().map_or(TableKind::Local, |table| table.kind);
        let key = table.as_ref().and_then(|table| position(Some(table.key.as_deref()?)));
        let region = table.as_ref().and_then(|table| position(Some(table.stated.as_deref()?)));
        if let (Some(table), None, true) = (&table, region, columns.is_some())
            && table.kind == TableKind::Patient
        {
            self.fills_no_region(table);
        }
        if let (TableKind::Patient, Some(table), None) = (kind, &table, key) {
            let name = table.key.as_deref().unwrap_or_default();
            let message = match &columns {
                Some(_) => format!("the COPY into {} does not carry {name}", table.full),
                None => format!("the COPY does not name its columns, and those of {} are not known", table.full),
            };
            self.refuse(
                Refusal::new(RefusalKind::NoPatient, message).hint(format!("Name the columns, {name} among them.")),
            );
        }
        let forced = |column: &Option<Arc<str>>| match (&options.force_null, column) {
            (Some(Node::NodeList(names)), Some(column)) => names.iter().any(|name| name.as_str() == Some(column)),
            (forced, column) => forced.is_some() && column.is_some(),
        };
        if table.as_ref().is_some_and(|table| forced(&table.key) || forced(&table.stated)) {
            self.refuse(
                Refusal::new(RefusalKind::Unsupported, "COPY … FROM with FORCE_NULL of the patient key or the region")
                    .hint("Name only other columns."),
            );
        }
        let Some(format) = options.format() else {
            self.refuse(Refusal::new(RefusalKind::Unsupported, "the format of this COPY is not known"));
            return Action::Run;
        };
        let full = table.as_ref().map(|table| table.full.clone());
        let named = || copy.relation().and_then(|relation| relation.relname()).unwrap_or_default().into();
        Action::CopyFrom(CopyFrom { table: full.unwrap_or_else(named), kind, columns, key, region, format })
    }

    /// The options; they are part of the shape, so that their values may be looked at. `None`, and the statement
    /// refused, for one that would make the rows read otherwise than they stand.
    fn options(&mut self, copy: &'t CopyStmt) -> Option<Options<'t>> {
        let mut options = Options::default();
        for option in copy.options() {
            let text = option.arg().as_str();
            match option.defname().unwrap_or_default() {
                "format" => options.format = text,
                "delimiter" => options.delimiter = text,
                "null" => options.null = text,
                "quote" => options.quote = text,
                "escape" => options.escape = text,
                "header" => options.header = is_on(option),
                "encoding"
                    if text
                        .is_some_and(|name| !matches!(&*name.to_ascii_lowercase(), "utf8" | "utf-8" | "unicode")) =>
                {
                    self.refuse(
                        Refusal::new(RefusalKind::Unsupported, "COPY can only be encoded as UTF8")
                            .hint("Convert the rows in the client."),
                    );
                    return None;
                }
                "force_null" if copy.is_from => options.force_null = Some(option.arg()),
                "default" if copy.is_from => {
                    self.refuse(Refusal::new(
                        RefusalKind::Unsupported,
                        "COPY … FROM with a DEFAULT marker is not supported",
                    ));
                    return None;
                }
                _ => {}
            }
        }
        Some(options)
    }
}

impl Options<'_> {
    fn format(&self) -> Option<CopyFormat> {
        let byte = |text: Option<&str>, usual: u8| match text.map(str::as_bytes) {
            None => Some(usual),
            Some([byte]) => Some(*byte),
            Some(_) => None,
        };
        let header = self.header;
        match self.format.unwrap_or("text") {
            "text" => Some(CopyFormat::Text {
                delimiter: byte(self.delimiter, b'\t')?,
                null: self.null.unwrap_or("\\N").into(),
                header,
            }),
            "csv" => {
                let quote = byte(self.quote, b'"')?;
                Some(CopyFormat::Csv {
                    delimiter: byte(self.delimiter, b',')?,
                    quote,
                    escape: byte(self.escape, quote)?,
                    null: self.null.unwrap_or("").into(),
                    header,
                })
            }
            "binary" => Some(CopyFormat::Binary),
            _ => None,
        }
    }
}

/// A boolean option; without a value it is on. `match` is on too.
fn is_on(option: &DefElem) -> bool {
    match option.arg() {
        Node::None => true,
        Node::Boolean(value) => value.boolval,
        Node::Integer(value) => value.ival != 0,
        other => !matches!(other.as_str().map(str::to_ascii_lowercase).as_deref(), Some("false" | "off")),
    }
}
