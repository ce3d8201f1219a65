//! Constants of the tree, traced back to the literals of the text.
//!
//! The tree says where a constant begins; the lexer knows which literal begins there. Both must agree on the value too,
//! else the constant is no evidence.

use pg_raw_parse::nodes::{A_Const, ParamRef, TypeName};
use pg_raw_parse::{ConstValue, Node};
use pgward_config::KeyType;

use super::graph::Sources;
use crate::evidence::{KeySource, Slot, Unknown};
use crate::statement::{Literal, LiteralKind};
use crate::values::{self, oid};

/// The text of the statement at hand and its literals.
#[derive(Clone, Copy)]
pub(super) struct Constants<'t> {
    pub(super) sql: &'t [u8],
    pub(super) literals: &'t [Literal],
    pub(super) key_type: KeyType,
}

impl<'t> Constants<'t> {
    /// The literal that begins at this byte.
    fn at(&self, location: i32) -> Option<u32> {
        let start = u32::try_from(location).ok()?;
        self.literals.binary_search_by_key(&start, |literal| literal.start).ok().map(|ordinal| ordinal as u32)
    }

    /// Whether a word and no literal stands behind the word that begins at this byte.
    pub(super) fn is_word_behind(&self, location: i32, word: &str) -> bool {
        let Some(from) = usize::try_from(location).ok().and_then(|at| at.checked_add(word.len())) else { return false };
        let blanks = self.sql.get(from..).unwrap_or_default().iter().take_while(|b| b.is_ascii_whitespace()).count();
        let at = from + blanks;
        self.sql.get(at).is_some_and(u8::is_ascii_alphabetic) && i32::try_from(at).is_ok_and(|at| self.at(at).is_none())
    }

    /// The literal of a constant, if text and tree agree on it.
    pub(super) fn literal(&self, constant: &A_Const) -> Option<Slot> {
        let (ordinal, negative) = match self.at(constant.location) {
            Some(ordinal) => (ordinal, false),
            None => {
                // A folded sign: the constant begins at the sign.
                let from = usize::try_from(constant.location).ok()?;
                let sign = *self.sql.get(from)?;
                let blanks = self.sql[from + 1..].iter().take_while(|b| b.is_ascii_whitespace()).count();
                let ordinal = self.at(i32::try_from(from + 1 + blanks).ok()?)?;
                match sign {
                    b'-' => (ordinal, true),
                    b'+' => (ordinal, false),
                    _ => return None,
                }
            }
        };
        let literal = self.literals.get(ordinal as usize)?;
        let text = values::literal_text(self.sql, literal)?;
        let unsigned = |text: &str| if negative { text.strip_prefix('-') } else { Some(text) }.map(str::to_owned);
        let same = match constant.val()? {
            ConstValue::Integer(value) => {
                literal.kind == LiteralKind::Integer
                    && unsigned(&value.to_string()).and_then(|v| v.parse::<i64>().ok())
                        == std::str::from_utf8(&text).ok()?.parse().ok()
            }
            ConstValue::Float(value) => unsigned(value)?.as_bytes() == &*text,
            ConstValue::String(value) => {
                !negative
                    && !matches!(literal.kind, LiteralKind::Integer | LiteralKind::Numeric)
                    && value.as_bytes() == &*text
            }
            _ => false,
        };
        same.then_some(Slot::Literal { ordinal, negative })
    }

    /// A key: a literal or parameter, perhaps cast to the key's type.
    pub(super) fn key(&self, node: Node<'t>) -> Option<KeySource> {
        self.source(node, false)
    }

    /// A list of keys: `ARRAY[…]`, `'{…}'` or a parameter, perhaps cast to an array of the key's type.
    pub(super) fn keys(&self, node: Node<'t>) -> Option<Sources> {
        let (base, casts) = strip_casts(node)?;
        if let Node::A_ArrayExpr(array) = base {
            let fits = casts.iter().all(|cast| self.casts_key(*cast, true));
            return if fits { array.elements().iter().map(|element| self.key(element)).collect() } else { None };
        }
        Some(Sources::from_elem(self.source(node, true)?, 1))
    }

    fn source(&self, node: Node<'t>, array: bool) -> Option<KeySource> {
        let (base, casts) = strip_casts(node)?;
        // The outermost cast gives the type that is compared; those below may pass through text.
        if let Some((outer, inner)) = casts.split_first() {
            let text = if array { oid::TEXT_ARRAY } else { oid::TEXT };
            if !self.casts_key(*outer, array) || !inner.iter().all(|c| *c == text || self.casts_key(*c, array)) {
                return None;
            }
        }
        let (key, at) = match base {
            Node::ParamRef(param) => {
                let cast = casts.last().copied().unwrap_or(0);
                (Slot::Param { n: number(param)?, cast }, param.location)
            }
            Node::A_Const(constant) => (self.literal(constant)?, constant.location),
            _ => return None,
        };
        Some(KeySource { key, region: None, unknown: Unknown::Refuse, array, at })
    }

    /// Whether a parameter first cast to this type reads as the key's own type does.
    pub(super) fn reads_as_key(&self, cast: u32) -> bool {
        let scalar = values::element_of(cast).unwrap_or(cast);
        match self.key_type {
            KeyType::Uuid => scalar == oid::UUID,
            // Of different lengths in binary, and the same in text.
            KeyType::Bigint => matches!(scalar, oid::INT8 | oid::INT4 | oid::INT2),
            KeyType::Text => matches!(scalar, oid::TEXT | oid::VARCHAR),
        }
    }

    /// Whether a value of this type compares as a key (or a list of keys) does.
    fn casts_key(&self, cast: u32, array: bool) -> bool {
        let scalar = match values::element_of(cast) {
            Some(element) if array => element,
            None if !array => cast,
            _ => return false,
        };
        match self.key_type {
            KeyType::Uuid => scalar == oid::UUID,
            KeyType::Bigint => matches!(scalar, oid::INT8 | oid::INT4 | oid::INT2),
            KeyType::Text => matches!(scalar, oid::TEXT | oid::VARCHAR),
        }
    }

    /// Whether this cast leaves a key column's values as they are.
    pub(super) fn keeps_key(&self, cast: Option<&TypeName>) -> bool {
        let wanted = match self.key_type {
            KeyType::Uuid => oid::UUID,
            KeyType::Bigint => oid::INT8,
            KeyType::Text => oid::TEXT,
        };
        cast.and_then(type_oid) == Some(wanted)
    }

    /// A string or parameter: a region that stands beside a key, the name of a setting.
    pub(super) fn text(&self, node: Node<'t>) -> Option<Slot> {
        let (base, casts) = strip_casts(node)?;
        if !casts.iter().all(|cast| matches!(*cast, oid::TEXT | oid::VARCHAR)) {
            return None;
        }
        match base {
            Node::ParamRef(param) => Some(Slot::Param { n: number(param)?, cast: 0 }),
            Node::A_Const(constant) if matches!(constant.val(), Some(ConstValue::String(_))) => self.literal(constant),
            _ => None,
        }
    }
}

/// The n of `$n`: 1 to 65535 in the protocol.
pub(super) fn number(param: &ParamRef) -> Option<u16> {
    u16::try_from(param.number).ok().filter(|n| *n > 0)
}

/// What is cast, with the casts' types from the outside in. `None` where a cast may change the value.
fn strip_casts(mut node: Node<'_>) -> Option<(Node<'_>, Vec<u32>)> {
    let mut casts = Vec::new();
    while let Node::TypeCast(cast) = node {
        casts.push(type_oid(cast.type_name()?)?);
        node = cast.arg();
    }
    Some((node, casts))
}

/// OID of a type that a key may have; a length (`varchar(3)`) cuts values, so it is none of them.
pub(crate) fn type_oid(name: &TypeName) -> Option<u32> {
    if name.setof || name.pct_type || !name.typmods().is_empty() {
        return None;
    }
    let mut parts = name.names().iter().filter_map(|part| part.sval());
    let (first, second) = (parts.next()?, parts.next());
    let word = match second {
        None => first,
        Some(word) if first == "pg_catalog" && parts.next().is_none() => word,
        Some(_) => return None,
    };
    let (scalar, array) = match word {
        "uuid" => (oid::UUID, oid::UUID_ARRAY),
        "int8" => (oid::INT8, oid::INT8_ARRAY),
        "int4" => (oid::INT4, oid::INT4_ARRAY),
        "int2" => (oid::INT2, oid::INT2_ARRAY),
        "text" => (oid::TEXT, oid::TEXT_ARRAY),
        "varchar" => (oid::VARCHAR, oid::VARCHAR_ARRAY),
        _ => return None,
    };
    match name.array_bounds().len() {
        0 => Some(scalar),
        1 => Some(array),
        _ => None,
    }
}
