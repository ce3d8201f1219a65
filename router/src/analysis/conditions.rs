//! Conditions that tie columns to keys: `=`, `IN`, `= ANY`, and equality between columns.

use pg_raw_parse::Node;
use pg_raw_parse::list::NodeList;
use pg_raw_parse::nodes::{A_Expr, A_Expr_Kind, BoolExprType, RowExpr, SubLink, SubLinkType};

use super::functions::qualified;
use super::graph::{Sources, Var};
use super::scope::{Column, Derived, Out, OutValue, View};
use super::select::is_star;
use super::walk::Walk;

/// What a condition says.
enum Fact {
    /// The column is one of these keys.
    Pin(Var, Sources),
    /// What pins the first pins the second.
    Edge(Var, Var),
}

/// A side of an equality.
enum Term {
    Column(Column),
    Keys(Sources),
    /// The one column of a sub-select.
    Output(OutValue),
    Other,
}

impl<'t> Walk<'t> {
    /// Takes in a condition whose names are seen from `view`, for the items of `targets`: those whose rows cannot reach
    /// the result unless the condition holds.
    pub(super) fn condition(&mut self, root: Node<'t>, view: View, targets: View) {
        let mut facts = Vec::new();
        for conjunct in conjuncts(root) {
            match conjunct {
                Node::BoolExpr(or) if or.boolop == BoolExprType::OR_EXPR => {
                    self.alternatives(or.args(), view, &mut facts);
                }
                other => self.conjunct(other, view, &mut facts),
            }
        }
        for fact in facts {
            match fact {
                Fact::Pin(var, sources) if self.scopes.within(var, targets) => self.scopes.graph.pin(var, &sources),
                Fact::Edge(from, to) if self.scopes.within(to, targets) => self.scopes.graph.edge(from, to),
                _ => {}
            }
        }
    }

    /// `a OR b`: a column that each arm ties to keys is one of all those keys.
    fn alternatives(&mut self, arms: &'t NodeList, view: View, facts: &mut Vec<Fact>) {
        let mut common: Option<Vec<(Var, Sources)>> = None;
        for arm in arms {
            let mut found = Vec::new();
            for conjunct in conjuncts(arm) {
                self.conjunct(conjunct, view, &mut found);
            }
            let pins: Vec<(Var, Sources)> = found
                .into_iter()
                .filter_map(|fact| match fact {
                    Fact::Pin(var, sources) => Some((var, sources)),
                    Fact::Edge(..) => None,
                })
                .collect();
            common = Some(match common {
                None => pins,
                Some(common) => common
                    .into_iter()
                    .filter_map(|(var, mut sources)| {
                        let (_, more) = pins.iter().find(|(other, _)| *other == var)?;
                        sources.extend_from_slice(more);
                        Some((var, sources))
                    })
                    .collect(),
            });
        }
        facts.extend(common.into_iter().flatten().map(|(var, sources)| Fact::Pin(var, sources)));
    }

    fn conjunct(&mut self, node: Node<'t>, view: View, facts: &mut Vec<Fact>) {
        match node {
            Node::A_Expr(expression) if is_equals(expression.name()) => self.comparison(expression, view, facts),
            Node::SubLink(link) => self.in_select(link, view, facts),
            _ => {}
        }
    }

    fn comparison(&mut self, expression: &'t A_Expr, view: View, facts: &mut Vec<Fact>) {
        let (left, right) = (expression.lexpr(), expression.rexpr());
        match expression.kind {
            A_Expr_Kind::AEXPR_OP => match (left, right) {
                (Node::RowExpr(left), Node::RowExpr(right)) if !has_star(left) && !has_star(right) => {
                    for (left, right) in left.args().iter().zip(right.args()) {
                        self.equality(left, right, view, facts);
                    }
                }
                _ => self.equality(left, right, view, facts),
            },
            A_Expr_Kind::AEXPR_IN => match (left, right) {
                (Node::RowExpr(left), Node::NodeList(rows)) if !has_star(left) => {
                    for (position, left) in left.args().iter().enumerate() {
                        let keys = rows.iter().map(|row| match row {
                            Node::RowExpr(row) if !has_star(row) => self.constants.key(row.args().get(position)?),
                            _ => None,
                        });
                        let keys: Option<Sources> = keys.collect();
                        self.pin(left, keys, view, facts);
                    }
                }
                (_, Node::NodeList(values)) => {
                    let keys = values.iter().map(|value| self.constants.key(value)).collect();
                    self.pin(left, keys, view, facts);
                }
                _ => {}
            },
            A_Expr_Kind::AEXPR_OP_ANY => {
                let keys = self.constants.keys(right);
                self.pin(left, keys, view, facts);
            }
            _ => {}
        }
    }

    fn pin(&mut self, column: Node<'t>, keys: Option<Sources>, view: View, facts: &mut Vec<Fact>) {
        if let (Some(keys), Term::Column(column)) = (keys, self.term(column, view)) {
            facts.extend(column.into.iter().map(|var| Fact::Pin(*var, keys.clone())));
        }
    }

    fn equality(&mut self, left: Node<'t>, right: Node<'t>, view: View, facts: &mut Vec<Fact>) {
        match (self.term(left, view), self.term(right, view)) {
            (Term::Column(left), Term::Column(right)) => {
                for (from, into) in [(left.from, &right.into), (right.from, &left.into)] {
                    facts.extend(from.into_iter().flat_map(|from| into.iter().map(move |to| Fact::Edge(from, *to))));
                }
            }
            (Term::Column(column), Term::Keys(keys)) | (Term::Keys(keys), Term::Column(column)) => {
                facts.extend(column.into.iter().map(|var| Fact::Pin(*var, keys.clone())));
            }
            (Term::Column(column), Term::Output(output)) | (Term::Output(output), Term::Column(column)) => {
                follow_output(&column, &output, facts);
            }
            _ => {}
        }
    }

    /// `column IN (SELECT …)`, `column = ANY (SELECT …)`.
    fn in_select(&mut self, link: &'t SubLink, view: View, facts: &mut Vec<Fact>) {
        let equals = link.oper_name().is_empty() || is_equals(link.oper_name());
        if link.sub_link_type != SubLinkType::ANY_SUBLINK || !equals {
            return;
        }
        if let Term::Column(column) = self.term(link.testexpr(), view)
            && let Some(output) = self.sublink_output(link)
        {
            follow_output(&column, &output, facts);
        }
    }

    fn sublink_output(&self, link: &SubLink) -> Option<OutValue> {
        single_output(self.sublinks.get(&(std::ptr::from_ref(link) as usize))?)
    }

    fn term(&mut self, node: Node<'t>, view: View) -> Term {
        if let Some(column) = self.column_of(node, view) {
            return Term::Column(column);
        }
        if let Node::SubLink(link) = node {
            let output = if link.sub_link_type == SubLinkType::EXPR_SUBLINK { self.sublink_output(link) } else { None };
            return output.map_or(Term::Other, Term::Output);
        }
        self.constants.key(node).map_or(Term::Other, |key| Term::Keys(Sources::from_elem(key, 1)))
    }

    /// The column that an expression is, perhaps cast to what it is already.
    pub(super) fn column_of(&mut self, mut node: Node<'t>, view: View) -> Option<Column> {
        while let Node::TypeCast(cast) = node {
            if !self.constants.keeps_key(cast.type_name()) {
                return None;
            }
            node = cast.arg();
        }
        match node {
            Node::ColumnRef(column) => self.scopes.resolve(column.fields(), view),
            _ => None,
        }
    }

    /// The value of an expression that gives one column of one row: for select lists and rows of VALUES.
    pub(super) fn value_of(&mut self, node: Node<'t>, view: View) -> OutValue {
        match self.term(node, view) {
            Term::Column(Column { from: Some(var), .. }) => OutValue::Var(var),
            Term::Keys(keys) => OutValue::Keys(keys),
            Term::Output(output) => output,
            Term::Column(_) | Term::Other => OutValue::Nothing,
        }
    }
}

fn follow_output(column: &Column, output: &OutValue, facts: &mut Vec<Fact>) {
    for to in &column.into {
        match output {
            OutValue::Var(from) => facts.push(Fact::Edge(*from, *to)),
            OutValue::Keys(keys) => facts.push(Fact::Pin(*to, keys.clone())),
            OutValue::Nothing => {}
        }
    }
}

fn single_output(derived: &Derived<'_>) -> Option<OutValue> {
    match derived.outs.as_slice() {
        [Out::Column { value, .. }] if !derived.open => Some(value.clone()),
        _ => None,
    }
}

/// Whether a row has more members than are written.
fn has_star(row: &RowExpr) -> bool {
    row.args().iter().any(is_star)
}

fn is_equals(names: &NodeList) -> bool {
    matches!(qualified(names), Some((None | Some("pg_catalog"), "=")))
}

/// The conditions that must all hold.
fn conjuncts(root: Node<'_>) -> Vec<Node<'_>> {
    let (mut stack, mut found) = (vec![root], Vec::new());
    while let Some(node) = stack.pop() {
        match node {
            Node::BoolExpr(and) if and.boolop == BoolExprType::AND_EXPR => {
                stack.extend(and.args().iter().rev());
            }
            Node::None => {}
            other => found.push(other),
        }
    }
    found
}
