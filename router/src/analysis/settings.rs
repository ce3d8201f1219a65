//! SET, RESET and SHOW, and transactions.

use pg_raw_parse::list::NodeList;
use pg_raw_parse::nodes::{
    DefElem, TransactionStmt, TransactionStmtKind, VariableSetKind, VariableSetStmt, VariableShowStmt,
};
use pg_raw_parse::{ConstValue, Node};
use smallvec::SmallVec;

use super::walk::Walk;
use crate::evidence::Slot;
use crate::refusal::{Refusal, RefusalKind};
use crate::statement::{Action, Setting, Value};

impl<'t> Walk<'t> {
    pub(super) fn variable_set(&mut self, set: &'t VariableSetStmt) -> Action {
        let name = set.name().unwrap_or_default().to_ascii_lowercase();
        match set.kind {
            VariableSetKind::VAR_RESET_ALL => Action::Reset(None),
            VariableSetKind::VAR_RESET => {
                self.keep_login(&name);
                Action::Reset(Some(name.into()))
            }
            VariableSetKind::VAR_SET_MULTI if name == "transaction snapshot" => {
                self.refuse(Refusal::new(RefusalKind::Unsupported, "snapshots cannot be shared through the proxy"));
                Action::Run
            }
            VariableSetKind::VAR_SET_MULTI if name == "session characteristics" => self.characteristics(set.args()),
            VariableSetKind::VAR_SET_MULTI => Action::SetTransaction { read_only: says_read_only(set.args()) },
            VariableSetKind::VAR_SET_VALUE | VariableSetKind::VAR_SET_DEFAULT => {
                self.keep_login(&name);
                let values: Option<_> = set.args().iter().map(|node| self.setting_value(node)).collect();
                let values = values.unwrap_or_else(|| {
                    self.refuse(
                        Refusal::new(RefusalKind::Unsupported, format!("the value of {name} is not a plain one"))
                            .hint("Write the value as a word, a string or a number."),
                    );
                    Default::default()
                });
                Action::Set(Setting { name: name.into(), values, local: set.is_local })
            }
            _ => {
                self.refuse(Refusal::new(RefusalKind::Unsupported, "SET … FROM CURRENT is not supported"));
                Action::Run
            }
        }
    }

    /// Who a session came in as stays, and with it whose servers it is lent; even to go back to it would change the role
    /// unseen.
    fn keep_login(&mut self, name: &str) {
        if name == "session_authorization" {
            self.refuse(
                Refusal::new(RefusalKind::Unsupported, "who a session is cannot be changed inside it")
                    .hint("Connect as the other user, or use SET ROLE."),
            );
        }
    }

    /// `SET SESSION CHARACTERISTICS AS TRANSACTION …` is SET of the default of one transaction mode, and is followed like
    /// any other: a server that kept it would give it to the next client.
    fn characteristics(&mut self, modes: &'t NodeList) -> Action {
        let modes: SmallVec<[Node<'t>; 2]> = modes.iter().collect();
        let setting = match modes.as_slice() {
            [Node::DefElem(mode)] => default_of(mode),
            _ => None,
        };
        match setting {
            Some(setting) => Action::Set(setting),
            None => {
                self.refuse(
                    Refusal::new(RefusalKind::Unsupported, "several session characteristics in one statement")
                        .hint("Set each of them in a statement of its own."),
                );
                Action::Run
            }
        }
    }

    /// A value: a literal of the text, or a word that is part of the shape.
    fn setting_value(&self, node: Node<'t>) -> Option<Value> {
        let Node::A_Const(constant) = node else { return None };
        if let Some(Slot::Literal { ordinal, negative }) = self.constants.literal(constant) {
            return Some(Value::Literal { ordinal, negative });
        }
        let at = usize::try_from(constant.location).ok()?;
        let first = *self.constants.sql.get(at)?;
        match constant.val()? {
            // Words are not literals to the lexer, so a string constant that begins with a letter or a double quote,
            // where no literal begins, is a word.
            ConstValue::String(word)
                if (first.is_ascii_alphabetic() || matches!(first, b'_' | b'"' | 0x80..))
                    && self.constants.literals.binary_search_by_key(&(at as u32), |l| l.start).is_err() =>
            {
                Some(Value::Word(word.into()))
            }
            _ => None,
        }
    }

    pub(super) fn show(&mut self, show: &'t VariableShowStmt) -> Action {
        Action::Show(show.name().unwrap_or_default().to_ascii_lowercase().into())
    }

    pub(super) fn transaction(&mut self, transaction: &'t TransactionStmt) -> Action {
        let chain = transaction.chain;
        let savepoint = || transaction.savepoint_name().unwrap_or_default().into();
        match transaction.kind {
            kind @ (TransactionStmtKind::TRANS_STMT_BEGIN | TransactionStmtKind::TRANS_STMT_START) => Action::Begin {
                read_only: says_read_only(transaction.options()),
                start: kind == TransactionStmtKind::TRANS_STMT_START,
            },
            TransactionStmtKind::TRANS_STMT_COMMIT => Action::Commit { chain },
            TransactionStmtKind::TRANS_STMT_ROLLBACK => Action::Rollback { chain },
            TransactionStmtKind::TRANS_STMT_SAVEPOINT => Action::Savepoint(savepoint()),
            TransactionStmtKind::TRANS_STMT_RELEASE => Action::Release(savepoint()),
            TransactionStmtKind::TRANS_STMT_ROLLBACK_TO => Action::RollbackTo(savepoint()),
            _ => {
                self.refuse(
                    Refusal::new(RefusalKind::Unplaceable, "two-phase commit is not for clients of the proxy")
                        .hint("Use COMMIT: a transaction stays on one shard."),
                );
                Action::TwoPhase
            }
        }
    }
}

/// The setting that holds the default of this transaction mode. Modes are keywords, never literals of the text.
fn default_of(mode: &DefElem) -> Option<Setting> {
    let Node::A_Const(value) = mode.arg() else { return None };
    let word = match value.val()? {
        ConstValue::String(word) => word,
        ConstValue::Integer(0) => "off",
        ConstValue::Integer(_) => "on",
        _ => return None,
    };
    let values = SmallVec::from_elem(Value::Word(word.into()), 1);
    Some(Setting { name: format!("default_{}", mode.defname()?).into(), values, local: false })
}

/// READ ONLY among transaction modes, and no mode that a replica cannot run: a hot standby refuses SERIALIZABLE, and of
/// several modes the last one counts. The grammar makes these constants of keywords, never of literals.
fn says_read_only(options: &NodeList) -> bool {
    let mut read_only = false;
    for option in options {
        let Node::DefElem(option) = option else { return false };
        let Node::A_Const(value) = option.arg() else { return false };
        match (option.defname(), value.val()) {
            (Some("transaction_read_only"), Some(ConstValue::Integer(1))) => read_only = true,
            (Some("transaction_read_only"), _) => return false,
            (Some("transaction_isolation"), Some(ConstValue::String("serializable"))) => return false,
            _ => {}
        }
    }
    read_only
}
