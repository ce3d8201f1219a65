//! What a statement is and where its patient keys stand, found in its parse tree once per shape.
//!
//! Every mention of a patient table, anywhere in the tree, must be tied to keys; a mention that is not makes the whole
//! statement refused. Nothing here may depend on the value of a literal: a shape stands for all texts that differ in
//! their literals alone.

mod tables;

use smallvec::SmallVec;

use crate::evidence::KeySources;
use crate::lexer::{Cut, Literals, lex};
use crate::refusal::{Refusal, RefusalKind};
use crate::statement::{Action, Literal, Shape, Statement};

pub(crate) use tables::Tables;

/// Parses and analyses a text.
pub(crate) fn shape(_tables: &Tables, sql: &[u8], _literals: &[Literal], params: u16) -> Result<Shape, Refusal> {
    let text = std::str::from_utf8(sql).map_err(|_| Refusal::new(RefusalKind::Syntax, "the statement is not UTF-8"))?;
    let tree = pg_raw_parse::parse(text).map_err(|e| Refusal::new(RefusalKind::Syntax, e.to_string()))?;
    let statements = tree
        .iter()
        .map(|_| Statement {
            action: Action::Run,
            reads_only: false,
            tables: SmallVec::new(),
            literals: 0..0,
            keys: KeySources::default(),
            refusal: Some(Refusal::new(RefusalKind::Unsupported, "this statement is not analysed yet")),
        })
        .collect();
    Ok(Shape { fingerprint: fingerprint(sql).into(), statements, params })
}

/// Hash of the text without any literal: the same in every process.
fn fingerprint(sql: &[u8]) -> String {
    let (mut buffer, mut literals) = (Vec::new(), Literals::new());
    let lexed = lex(sql, &mut buffer, &mut literals, Cut::All);
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&buffer[..lexed.shape]))
}
