//! SQL-level PREPARE and EXECUTE, read from their texts: what a PREPARE prepares, and the values that an EXECUTE brings.
//!
//! Both become what the protocol's own Parse and Bind are, so that a prepared statement on patient tables passes the
//! evidence of each of its executions. A value is taken only where it means the same as text: a literal goes to the
//! server as the parameter's own input, never through a cast that could make another value of it.

use pg_raw_parse::nodes::{A_Const, A_Expr, A_Expr_Kind, TypeCast, TypeName};
use pg_raw_parse::{ConstValue, Node};

use crate::analysis::{parse, type_oid};
use crate::refusal::{Refusal, RefusalKind};
use crate::values::oid;

/// What a PREPARE prepares.
#[derive(Debug, PartialEq, Eq)]
pub struct Preparing<'a> {
    /// The statement's text.
    pub text: &'a [u8],
    /// Characters of the PREPARE before it.
    pub before: usize,
    /// The declared types of its parameters.
    pub types: Box<[u32]>,
}

/// A value of an EXECUTE as text; `None` for NULL.
pub type Argument = Option<Box<str>>;

const BOOL: u32 = 16;
const JSON: u32 = 114;
const FLOAT4: u32 = 700;
const FLOAT8: u32 = 701;
const DATE: u32 = 1082;
const TIMESTAMP: u32 = 1114;
const TIMESTAMPTZ: u32 = 1184;
const NUMERIC: u32 = 1700;
const JSONB: u32 = 3802;

/// Reads a text that is one PREPARE.
///
/// # Errors
/// When it is something else, or a parameter is of a type that is not known for certain.
pub fn preparing(sql: &[u8]) -> Result<Preparing<'_>, Refusal> {
    let tree = parse(sql)?;
    let mut statements = tree.iter();
    let (Some(raw), None) = (statements.next(), statements.next()) else { return Err(alone()) };
    let Node::PrepareStmt(prepare) = raw.stmt() else { return Err(alone()) };
    let types: Result<_, Refusal> = prepare
        .argtypes()
        .iter()
        .enumerate()
        .map(|(n, name)| parameter_type(name).ok_or_else(|| unknown_type(n + 1)))
        .collect();
    let text = behind_as(sql).and_then(|at| sql.get(at..)).ok_or_else(alone)?.trim_ascii_start();
    let before = String::from_utf8_lossy(&sql[..sql.len() - text.len()]).chars().count();
    Ok(Preparing { text, before, types: types? })
}

/// Reads the values of a text that is one EXECUTE, for parameters of these types (0 and those behind the last: open).
///
/// # Errors
/// When it is something else, or a value is more than a literal of its parameter's type.
pub fn arguments(sql: &[u8], types: &[u32]) -> Result<Vec<Argument>, Refusal> {
    let tree = parse(sql)?;
    let mut statements = tree.iter();
    let (Some(raw), None) = (statements.next(), statements.next()) else { return Err(alone()) };
    let Node::ExecuteStmt(execute) = raw.stmt() else { return Err(alone()) };
    let params = execute.params().iter().enumerate();
    params
        .map(|(n, node)| argument(node, types.get(n).copied().unwrap_or(0)).map_err(|why| why.refusal(n + 1)))
        .collect()
}

fn alone() -> Refusal {
    Refusal::new(
        RefusalKind::Unsupported,
        "what the session has prepared is executed by an EXECUTE of its own only",
    )
    .hint(
        "Send PREPARE and EXECUTE each as the only statement of a simple Query, or use the protocol's Parse and Bind.",
    )
}

/// The types whose names mean them whatever the search path: those of pg_catalog come first.
fn parameter_type(name: &TypeName) -> Option<u32> {
    if let Some(known) = type_oid(name) {
        return Some(known);
    }
    if name.setof || name.pct_type || !name.typmods().is_empty() || !name.array_bounds().is_empty() {
        return None;
    }
    let parts: Vec<&str> = name.names().iter().map(|part| part.sval()).collect::<Option<_>>()?;
    let ([word] | ["pg_catalog", word]) = parts[..] else { return None };
    Some(match word {
        "bool" => BOOL,
        "json" => JSON,
        "jsonb" => JSONB,
        "float4" => FLOAT4,
        "float8" => FLOAT8,
        "numeric" => NUMERIC,
        "date" => DATE,
        "timestamp" => TIMESTAMP,
        "timestamptz" => TIMESTAMPTZ,
        _ => return None,
    })
}

fn unknown_type(n: usize) -> Refusal {
    Refusal::new(
        RefusalKind::Unsupported,
        format!("the type of parameter ${n} is none that PREPARE on patient tables can have"),
    )
    .hint(
        "Leave the types out, so that they are inferred, or use uuid, text, varchar, smallint, integer, bigint, numeric, \
         real, double precision, boolean, date, timestamp, timestamptz, json or jsonb, without a length.",
    )
}

/// Why a value is not taken.
#[derive(Clone, Copy)]
enum Why {
    Expression,
    Cast,
    Number,
}

impl Why {
    /// Never with the value.
    fn refusal(self, n: usize) -> Refusal {
        let (what, hint) = match self {
            Self::Expression => ("is no literal", "Write a string, a number, TRUE, FALSE or NULL, or use Bind."),
            Self::Cast => (
                "is cast to another type than the declared one of its parameter",
                "Declare the parameter's type in PREPARE, or write the literal without a cast.",
            ),
            Self::Number => {
                ("is written in a way that its parameter's type may read as another value", "Write it as a string.")
            }
        };
        Refusal::new(RefusalKind::Unsupported, format!("value {n} of this EXECUTE {what}")).hint(hint)
    }
}

fn argument(node: Node<'_>, wanted: u32) -> Result<Argument, Why> {
    match node {
        Node::A_Const(constant) => literal(constant, wanted),
        Node::A_Expr(expression) => literal(plus(expression).ok_or(Why::Expression)?, wanted),
        Node::TypeCast(cast) => literal(of_type(cast, wanted)?, wanted),
        _ => Err(Why::Expression),
    }
}

/// The number behind a plus sign; the grammar itself folds a minus.
fn plus(expression: &A_Expr) -> Option<&A_Const> {
    let mut name = expression.name().iter().map(|part| part.as_str());
    let is_plus = expression.kind == A_Expr_Kind::AEXPR_OP && name.next() == Some(Some("+")) && name.next().is_none();
    match (is_plus, expression.lexpr(), expression.rexpr()) {
        (true, Node::None, Node::A_Const(constant))
            if matches!(constant.val(), Some(ConstValue::Integer(_) | ConstValue::Float(_))) =>
        {
            Some(constant)
        }
        _ => None,
    }
}

/// What is cast, where that is to the very type of the parameter, which its input function makes of it anyway.
fn of_type(cast: &TypeCast, wanted: u32) -> Result<&A_Const, Why> {
    let Node::A_Const(constant) = cast.arg() else { return Err(Why::Expression) };
    match cast.type_name().and_then(parameter_type) {
        Some(cast) if cast == wanted => Ok(constant),
        _ => Err(Why::Cast),
    }
}

fn literal(constant: &A_Const, wanted: u32) -> Result<Argument, Why> {
    let Some(value) = constant.val() else { return Ok(None) };
    let text = match value {
        ConstValue::String(text) => text.into(),
        ConstValue::Boolean(value) if matches!(wanted, 0 | BOOL | oid::TEXT | oid::VARCHAR) => value.to_string(),
        ConstValue::Integer(value) if takes_number(wanted, true) => value.to_string(),
        ConstValue::Float(text) if is_plain_number(text) && takes_number(wanted, !text.contains('.')) => text.into(),
        ConstValue::Boolean(_) | ConstValue::Integer(_) | ConstValue::Float(_) => return Err(Why::Number),
        _ => return Err(Why::Expression),
    };
    Ok(Some(text.into()))
}

/// Whether the type reads a number's text as the server reads the number: integers would round a fraction, and no
/// other type is made of a number without being asked to.
fn takes_number(wanted: u32, whole: bool) -> bool {
    match wanted {
        0 | NUMERIC | FLOAT4 | FLOAT8 | oid::TEXT | oid::VARCHAR => true,
        oid::INT2 | oid::INT4 | oid::INT8 => whole,
        _ => false,
    }
}

/// A number that is written as the server would print it: digits, and a fraction perhaps.
fn is_plain_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (negative, number) = text.strip_prefix('-').map_or((false, text), |number| (true, number));
    let (whole, fraction) = number.split_once('.').map_or((number, None), |(whole, rest)| (whole, Some(rest)));
    let zero = number.bytes().all(|byte| matches!(byte, b'0' | b'.'));
    digits(whole) && fraction.is_none_or(digits) && (whole == "0" || !whole.starts_with('0')) && !(negative && zero)
}

/// Where the text of what a PREPARE prepares begins: behind the first AS. The word is reserved, so that names and types
/// have it in quotes only.
fn behind_as(sql: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(&byte) = sql.get(at) {
        at = match (byte, sql.get(at + 1)) {
            (b'-', Some(b'-')) => at + sql[at..].iter().position(|byte| matches!(byte, b'\n' | b'\r'))?,
            (b'/', Some(b'*')) => behind_comment(sql, at)?,
            (b'"' | b'\'', _) => at + 1 + sql[at + 1..].iter().position(|other| *other == byte)? + 1,
            (b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.., _) => {
                let continues = |byte: &u8| crate::lexer::CONTINUES[usize::from(*byte)];
                let end = sql[at..].iter().position(|byte| !continues(byte)).map_or(sql.len(), |len| at + len);
                if sql[at..end].eq_ignore_ascii_case(b"as") {
                    return Some(end);
                }
                end
            }
            _ => at + 1,
        };
    }
    None
}

/// The end of a comment that begins here, with those inside of it.
fn behind_comment(sql: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    loop {
        match (sql.get(at)?, sql.get(at + 1)) {
            (b'/', Some(b'*')) => (depth, at) = (depth + 1, at + 2),
            (b'*', Some(b'/')) if depth == 1 => return Some(at + 2),
            (b'*', Some(b'/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests;
