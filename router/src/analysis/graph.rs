//! Which columns are tied to which keys.
//!
//! A variable is a column of one table of one FROM list. "Pinned" means: in every row that can reach the result, its
//! value is one of the pins' keys, or NULL. An edge carries that from one variable to another; edges have a direction,
//! because the ON of an outer join or the WHERE of a sub-query says something of one side only.

use smallvec::SmallVec;

use crate::evidence::KeySource;

/// A column of a FROM item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Var(u32);

/// The places of keys.
pub(super) type Sources = SmallVec<[KeySource; 1]>;

#[derive(Default)]
struct Node {
    /// The FROM item that the column belongs to.
    item: usize,
    pinned: bool,
    pins: Sources,
    /// Variables whose pins hold here too.
    follows: SmallVec<[Var; 2]>,
}

/// All variables of a statement.
#[derive(Default)]
pub(super) struct Graph {
    nodes: Vec<Node>,
}

impl Graph {
    /// A new variable of this FROM item.
    pub(super) fn add(&mut self, item: usize) -> Var {
        self.nodes.push(Node { item, ..Node::default() });
        Var(self.nodes.len() as u32 - 1)
    }

    /// The FROM item of a variable.
    pub(super) fn item(&self, var: Var) -> usize {
        self.nodes[var.0 as usize].item
    }

    /// `var` is one of these keys.
    pub(super) fn pin(&mut self, var: Var, sources: &[KeySource]) {
        let node = &mut self.nodes[var.0 as usize];
        node.pinned = true;
        node.pins.extend_from_slice(sources);
    }

    /// What pins `from` pins `to`.
    pub(super) fn edge(&mut self, from: Var, to: Var) {
        self.nodes[to.0 as usize].follows.push(from);
    }

    /// Adds all keys that `var` is tied to, directly or through others; false if there are none, and so no proof.
    ///
    /// One tie would do; all are taken, so that a contradiction shows as two patients instead of one at random.
    pub(super) fn collect(&self, var: Var, sources: &mut Vec<KeySource>) -> bool {
        let (mut seen, mut stack, mut pinned) = (vec![false; self.nodes.len()], vec![var], false);
        while let Some(var) = stack.pop() {
            if std::mem::replace(&mut seen[var.0 as usize], true) {
                continue;
            }
            let node = &self.nodes[var.0 as usize];
            pinned |= node.pinned;
            sources.extend_from_slice(&node.pins);
            stack.extend_from_slice(&node.follows);
        }
        pinned
    }
}
