//! Calls of set_config: SET in the words of a query.
//!
//! For the transaction alone they may stand anywhere. For the session they count as SET, which the proxy must follow
//! from server to server; so each must certainly run, once, with a name and a value that can be read.

use pg_raw_parse::nodes::{FuncCall, SelectStmt, SetOperation};
use pg_raw_parse::{ConstValue, Node};

use super::constants::type_oid;
use super::functions::qualified;
use super::walk::Walk;
use crate::evidence::Slot;
use crate::refusal::{Refusal, RefusalKind};
use crate::statement::{SetConfig, SetConfigValue};
use crate::values::oid;

impl<'t> Walk<'t> {
    /// Takes an entry of a select list that [`runs_once`] if it is a set_config for the session that can be followed.
    /// Any other call is left to [`set_config_call`](Self::set_config_call).
    pub(super) fn takes_setting(&mut self, entry: Node<'t>) -> bool {
        let Node::FuncCall(call) = entry else { return false };
        if !is_called(call, "set_config") || !argument_is(call, false) {
            return false;
        }
        let Some(setting) = self.session_setting(call) else { return false };
        self.saw(call);
        self.sets.push(setting);
        true
    }

    fn session_setting(&self, call: &'t FuncCall) -> Option<SetConfig> {
        let args: Vec<Node<'t>> = call.args().iter().collect();
        let [name, value, _] = args.as_slice() else { return None };
        let Slot::Literal { ordinal: name, .. } = self.constants.text(*name)? else { return None };
        let value = match self.constants.text(*value)? {
            Slot::Literal { ordinal, .. } => SetConfigValue::Literal { ordinal },
            Slot::Param { n, .. } => SetConfigValue::Param(n),
        };
        Some(SetConfig { name, value })
    }

    /// Anywhere else: only for the transaction, and only by a name that can be looked at.
    pub(super) fn set_config_call(&mut self, call: &'t FuncCall) {
        let name = call.args().get(0).and_then(|name| self.constants.text(name));
        match name {
            Some(name) if argument_is(call, true) => self.set_config.push(name),
            _ => self.refuse(
                Refusal::new(RefusalKind::Unsupported, "this set_config cannot be followed from server to server")
                    .hint(
                        "Use SET, or SELECT set_config('name', 'value', false) alone: a string for the name, a string \
                         or a parameter for the value, no tables.",
                    ),
            ),
        }
    }
}

/// Whether is_local, the third argument, is this very word.
fn argument_is(call: &FuncCall, local: bool) -> bool {
    let Some(Node::A_Const(value)) = call.args().get(2) else { return false };
    matches!(value.val(), Some(ConstValue::Boolean(word)) if word == local)
}

/// No tables, no conditions, no function but these two: nothing that could give another number of rows than one.
pub(super) fn runs_once(select: &SelectStmt) -> bool {
    select.op == SetOperation::SETOP_NONE
        && select.with_clause().is_none()
        && select.into_clause().is_none()
        && select.from_clause().is_empty()
        && is_absent(select.where_clause())
        && select.group_clause().is_empty()
        && is_absent(select.having_clause())
        && select.window_clause().is_empty()
        && select.distinct_clause().is_empty()
        && select.values_lists().is_empty()
        && select.sort_clause().is_empty()
        && is_absent(select.limit_offset())
        && is_absent(select.limit_count())
        && select.locking_clause().is_empty()
        && select.target_list().iter().all(|target| is_plain(target.val()))
}

/// A constant, a parameter, or a call of set_config or current_setting with nothing else for arguments.
fn is_plain(node: Node<'_>) -> bool {
    match node {
        Node::FuncCall(call) => {
            (is_called(call, "set_config") || is_called(call, "current_setting"))
                && call.agg_order().is_empty()
                && is_absent(call.agg_filter())
                && call.over().is_none()
                && !call.func_variadic
                && call.args().iter().all(is_value)
        }
        node => is_value(node),
    }
}

fn is_called(call: &FuncCall, wanted: &str) -> bool {
    matches!(qualified(call.funcname()), Some((None | Some("pg_catalog"), name)) if name == wanted)
}

/// The innermost cast of a parameter is its type wherever the statement uses it: one of another type than text may be
/// another value to set_config than the one that is read here.
fn is_value(mut node: Node<'_>) -> bool {
    let mut innermost = None;
    while let Node::TypeCast(cast) = node {
        innermost = cast.type_name();
        node = cast.arg();
    }
    match node {
        Node::A_Const(_) | Node::SQLValueFunction(_) => true,
        Node::ParamRef(_) => innermost.is_none_or(|cast| matches!(type_oid(cast), Some(oid::TEXT | oid::VARCHAR))),
        _ => false,
    }
}

fn is_absent(node: Node<'_>) -> bool {
    matches!(node, Node::None)
}
