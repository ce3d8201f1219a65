//! Statements that are no queries: sessions, cursors, and what changes tables themselves.
//!
//! What changes a patient table or a reference table must happen on every shard, which is not the business of one
//! session; it is refused. On local tables it is a write.

use pg_raw_parse::Node;
use pg_raw_parse::list::NodeList;
use pg_raw_parse::nodes::{
    AlterTableStmt, CreateStmt, CreateTrigStmt, DeclareCursorStmt, DefElem, DiscardMode, DropBehavior, DropStmt,
    ExplainStmt, GrantTargetType, ObjectType, PrepareStmt, RangeVar, TruncateStmt, ViewStmt,
};
use pgward_config::TableKind;

use super::children::children;
use super::functions::qualified;
use super::tables::is_temporary;
use super::walk::Walk;
use crate::refusal::{Refusal, RefusalKind};
use crate::statement::Action;

/// `WITH HOLD` among the options of DECLARE (parsenodes.h).
const CURSOR_OPT_HOLD: i32 = 0x0020;
/// relpersistence of temporary tables.
const TEMPORARY: u8 = b't';

impl<'t> Walk<'t> {
    pub(super) fn utility(&mut self, node: Node<'t>) -> Action {
        match node {
            Node::TransactionStmt(transaction) => self.transaction(transaction),
            Node::VariableSetStmt(set) => self.variable_set(set),
            Node::VariableShowStmt(show) => self.show(show),
            Node::DiscardStmt(discard) => Action::Discard { all: discard.target == DiscardMode::DISCARD_ALL },
            Node::DeallocateStmt(deallocate) => {
                self.own_name(deallocate.name());
                Action::Deallocate(deallocate.name().map(Into::into))
            }
            Node::ClosePortalStmt(close) => Action::Close(close.portalname().map(Into::into)),
            // Unless its DECLARE is known.
            Node::FetchStmt(fetch) => {
                self.writes = true;
                Action::Fetch(fetch.portalname().unwrap_or_default().into())
            }
            Node::ListenStmt(_) => {
                self.writes = true;
                Action::Listen
            }
            Node::UnlistenStmt(_) => {
                self.writes = true;
                Action::Run
            }
            Node::ExplainStmt(explain) => self.explain(explain),
            Node::DeclareCursorStmt(declare) => self.declare(declare),
            Node::PrepareStmt(prepare) => self.prepare(prepare),
            Node::ExecuteStmt(execute) => {
                self.writes = true;
                self.own_name(execute.name());
                let at = self.nowhere(None, 0);
                self.expressions(execute.params(), at);
                Action::Execute(execute.name().unwrap_or_default().into())
            }
            Node::CopyStmt(copy) => self.copy(copy),
            Node::CreateTableAsStmt(create) if let Node::ExecuteStmt(execute) = create.query() => {
                self.writes = true;
                self.define(node);
                Action::Execute(execute.name().unwrap_or_default().into())
            }
            other => {
                self.writes = true;
                self.define(other);
                Action::Run
            }
        }
    }

    fn explain(&mut self, explain: &'t ExplainStmt) -> Action {
        match explain.query() {
            // What is only explained is not done, but to be sure it counts as done, but for new patients.
            node @ (Node::SelectStmt(_)
            | Node::InsertStmt(_)
            | Node::UpdateStmt(_)
            | Node::DeleteStmt(_)
            | Node::MergeStmt(_)) => {
                self.explained = !explain.options().iter().any(|option| self.may_execute(option));
                self.query(node, None, None, 1);
                Action::Run
            }
            Node::ExplainStmt(_) => {
                self.refuse(Refusal::new(RefusalKind::Unsupported, "EXPLAIN of EXPLAIN is not supported"));
                Action::Run
            }
            other => self.utility(other),
        }
    }

    /// ANALYZE, unless the word behind it says that it is off: a string there is a value, of which no shape knows.
    fn may_execute(&self, option: &DefElem) -> bool {
        let is_off = match option.arg() {
            Node::String(word) => matches!(word.sval(), Some("false" | "off")),
            _ => false,
        };
        option.defname() == Some("analyze") && !(is_off && self.constants.is_word_behind(option.location, "analyze"))
    }

    fn declare(&mut self, declare: &'t DeclareCursorStmt) -> Action {
        self.query(declare.query(), None, None, 1);
        let name = declare.portalname().unwrap_or_default().into();
        Action::Declare { name, hold: declare.options & CURSOR_OPT_HOLD != 0 }
    }

    /// What PREPARE prepares runs later, with values that its EXECUTE brings.
    fn prepare(&mut self, prepare: &'t PrepareStmt) -> Action {
        self.own_name(prepare.name());
        self.query(prepare.query(), None, None, 1);
        self.writes = true;
        let name = prepare.name().unwrap_or_default().into();
        if self.refusal.is_some() || self.uses.iter().all(|table| table.kind != TableKind::Patient) {
            return Action::Prepare(name);
        }
        self.refuse(
            Refusal::new(
                RefusalKind::Unsupported,
                "PREPARE of a statement on patient tables is supported as the only statement of a simple Query",
            )
            .detail("Where it goes is decided by the values of each EXECUTE.")
            .hint("Send it by itself, or use the protocol's prepared statements (Parse and Bind), as drivers do."),
        );
        Action::PreparePatients(name)
    }

    /// Servers know the protocol's statements under names of the proxy's own, of all clients together: nobody runs them
    /// past the evidence of a Bind.
    fn own_name(&mut self, name: Option<&str>) {
        if name.is_some_and(|name| name.starts_with("pgward_")) {
            self.refuse(
                Refusal::new(RefusalKind::Unsupported, "names that begin with pgward_ are the proxy's own")
                    .hint("Give the statement another name."),
            );
        }
    }

    /// What a server keeps of a definition (defaults, checks, policies, views …) runs later, in statements that do not
    /// show it: it may read no patient and call nothing that is not known.
    fn define(&mut self, node: Node<'t>) {
        let runs_now = matches!(node, Node::CreateTableAsStmt(create) if create.objtype != ObjectType::OBJECT_MATVIEW);
        self.stored = !runs_now;
        self.definition(node);
        self.pins |= makes_temporary(node);
        if self.refusal.is_some() || matches!(node, Node::CreateFunctionStmt(_)) {
            return;
        }
        let at = self.nowhere(None, 0);
        self.expression(node, at);
        if self.stored {
            self.keeps_no_patient();
        }
    }

    fn keeps_no_patient(&mut self) {
        if let Some(table) = self.uses.iter().find(|table| table.kind == TableKind::Patient) {
            let message = format!("what the statement defines would read {} whenever it is used", table.name);
            self.refuse(
                Refusal::new(RefusalKind::Unplaceable, message)
                    .hint("Keep patient tables out of definitions, or run it on each shard directly."),
            );
        }
    }

    /// CREATE, ALTER, DROP and other statements that change more than rows.
    fn definition(&mut self, node: Node<'t>) {
        match node {
            Node::CreateStmt(create) => self.create_table(create),
            Node::CreateTableAsStmt(create) => {
                match create.query() {
                    Node::ExecuteStmt(execute) => {
                        self.own_name(execute.name());
                        let at = self.nowhere(None, 0);
                        self.expressions(execute.params(), at);
                    }
                    query => {
                        self.query(query, None, None, 1);
                    }
                }
                if let Some(into) = create.into() {
                    self.create_from_query(into);
                }
            }
            Node::ViewStmt(view) => self.create_view(view),
            Node::CreateSeqStmt(create) => self.create_optional(create.sequence()),
            Node::AlterSeqStmt(alter) => self.changed(alter.sequence()),
            Node::IndexStmt(index) => self.changed(index.relation()),
            Node::AlterTableStmt(alter) => self.alter_table(alter),
            Node::RenameStmt(rename) if rename.relation().is_some() => {
                self.changed(rename.relation());
                self.alters(rename.relation());
                let schema = rename.relation().and_then(RangeVar::schemaname);
                if rename.rename_type != ObjectType::OBJECT_COLUMN {
                    self.hides(schema.or(Some("public")), rename.newname());
                }
            }
            Node::AlterObjectSchemaStmt(alter) if alter.relation().is_some() => {
                self.changed(alter.relation());
                self.alters(alter.relation());
                self.hides(alter.newschema(), alter.relation().and_then(RangeVar::relname));
            }
            Node::AlterOwnerStmt(alter) if alter.relation().is_some() => self.changed(alter.relation()),
            Node::TruncateStmt(truncate) => self.truncate(truncate),
            Node::LockStmt(lock) => self.changed_all(lock.relations()),
            Node::DropStmt(drop) => self.drop_objects(drop),
            // Without tables, of all of them.
            Node::VacuumStmt(vacuum) if vacuum.rels().is_empty() => self.unplaceable(),
            Node::VacuumStmt(vacuum) => {
                for table in vacuum.rels() {
                    self.changed(table.relation());
                }
            }
            Node::ReindexStmt(reindex) if reindex.relation().is_some() => self.changed(reindex.relation()),
            Node::ClusterStmt(cluster) if cluster.relation().is_some() => self.changed(cluster.relation()),
            Node::RefreshMatViewStmt(refresh) => self.changed(refresh.relation()),
            Node::CreateTrigStmt(create) => self.create_trigger(create),
            Node::CreatePolicyStmt(create) => self.changed(create.table()),
            Node::AlterPolicyStmt(alter) => self.changed(alter.table()),
            Node::GrantStmt(grant)
                if grant.objtype == ObjectType::OBJECT_TABLE
                    && grant.targtype == GrantTargetType::ACL_TARGET_OBJECT =>
            {
                for relation in grant.objects() {
                    self.changed(Some(relation));
                }
            }
            // Of the session and its transaction alone.
            Node::NotifyStmt(_) | Node::ConstraintsSetStmt(_) | Node::CheckPointStmt(_) => {}
            // Of the whole server, or of tables that it does not name.
            Node::AlterSystemStmt(_)
            | Node::LoadStmt(_)
            | Node::DropOwnedStmt(_)
            | Node::ReassignOwnedStmt(_)
            | Node::ImportForeignSchemaStmt(_)
            | Node::CreateSubscriptionStmt(_)
            | Node::AlterSubscriptionStmt(_)
            | Node::CreatePublicationStmt(_)
            | Node::AlterPublicationStmt(_)
            | Node::CreatedbStmt(_)
            | Node::DropdbStmt(_)
            | Node::CreateTableSpaceStmt(_)
            | Node::DropTableSpaceStmt(_)
            | Node::AlterTableMoveAllStmt(_)
            | Node::AlterDatabaseSetStmt(_)
            | Node::ReindexStmt(_)
            | Node::ClusterStmt(_)
            | Node::RuleStmt(_)
            | Node::Invalid(_) => self.unplaceable(),
            Node::DoStmt(_) => self.opaque_body("DO"),
            Node::CallStmt(_) => self.opaque_body("CALL"),
            Node::CreateFunctionStmt(create) if create.is_procedure => self.opaque("CREATE PROCEDURE"),
            Node::CreateFunctionStmt(_) => self.opaque("CREATE FUNCTION"),
            Node::CreateRoleStmt(_) | Node::AlterRoleStmt(_) | Node::DropRoleStmt(_) | Node::GrantRoleStmt(_) => {
                self.users()
            }
            // Also where roles are managed here: the proxy's own sessions would begin with it.
            Node::AlterRoleSetStmt(_) => {
                self.users();
                self.unplaceable();
            }
            Node::CreateSchemaStmt(create) if !create.schema_elts().is_empty() => self.unplaceable(),
            _ => self.unplaceable_unless_local(),
        }
    }

    fn unplaceable(&mut self) {
        self.refuse(
            Refusal::new(RefusalKind::Unplaceable, "nobody can tell from this statement which shard it is for")
                .hint("Run it on each shard directly."),
        );
    }

    /// A statement whose text names no table, though what it runs may touch any.
    fn opaque(&mut self, what: &str) {
        if !self.tables.undeclared_are_local() {
            self.refuse(
                Refusal::new(
                    RefusalKind::Unplaceable,
                    format!("{what} has a body that cannot be analysed: it may touch any patient"),
                )
                .hint("Run it on the shard directly, or send its statements one by one."),
            );
        }
    }

    /// The same of one that runs its body now. A plain pooler refuses nothing, and what the body leaves behind is the
    /// client's.
    fn opaque_body(&mut self, what: &str) {
        self.opaque(what);
        self.pins |= self.tables.is_plain();
    }

    fn users(&mut self) {
        if !self.tables.undeclared_are_local() {
            self.refuse(Refusal::new(RefusalKind::Unplaceable, "roles are not managed through the proxy").hint(
                "Declare the proxy's users under [[users]] in its configuration; change the servers' own roles on \
                     each shard directly.",
            ));
        }
    }

    fn unplaceable_unless_local(&mut self) {
        if !self.tables.undeclared_are_local() {
            self.unplaceable();
        }
    }

    /// A table that the statement changes as a whole.
    pub(super) fn changed(&mut self, relation: Option<&'t RangeVar>) {
        match relation {
            Some(relation) => {
                self.saw(relation);
                self.changed_name(relation.schemaname(), relation.relname().unwrap_or_default());
            }
            None => self.unplaceable(),
        }
    }

    fn changed_name(&mut self, schema: Option<&str>, name: &str) {
        if let Some(table) = self.tables.declared(schema, name).filter(|table| table.kind == TableKind::Patient) {
            self.refuse(
                Refusal::new(
                    RefusalKind::Unplaceable,
                    format!("the statement is about the whole patient table {}, on every shard", table.full),
                )
                .hint("Run it on each shard directly."),
            );
        }
        self.named(schema, name, true);
    }

    fn changed_all(&mut self, relations: &'t NodeList) {
        for relation in relations {
            match relation {
                Node::RangeVar(relation) => self.changed(Some(relation)),
                _ => self.unplaceable(),
            }
        }
    }

    /// A table that a query makes; a temporary one stays in the server with the session.
    pub(super) fn create(&mut self, relation: &'t RangeVar) {
        let temporary = (relation.relpersistence as u8 == TEMPORARY).then_some("pg_temp");
        self.hides(temporary.or(relation.schemaname()), relation.relname());
        if relation.relpersistence as u8 == TEMPORARY || relation.schemaname().is_some_and(is_temporary) {
            self.saw(relation);
            self.pins = true;
            self.writes = true;
        } else {
            self.changed(Some(relation));
        }
    }

    /// A name without a schema must go on meaning the declared table of that name.
    fn hides(&mut self, schema: Option<&str>, name: Option<&str>) {
        if let Some(name) = name.filter(|name| self.tables.would_shadow(schema, name)) {
            let message = format!("another \"{name}\" would hide the declared table of that name");
            self.refuse(Refusal::new(RefusalKind::Unplaceable, message).hint("Give it another name."));
        }
    }

    fn create_optional(&mut self, relation: Option<&'t RangeVar>) {
        match relation {
            Some(relation) => self.create(relation),
            None => self.unplaceable(),
        }
    }

    fn create_table(&mut self, create: &'t CreateStmt) {
        self.create_optional(create.relation());
        // A child or a partition holds rows of its parent.
        self.changed_all(create.inh_relations());
    }

    /// With CASCADE also whatever refers to these tables, patient tables perhaps, whole.
    fn truncate(&mut self, truncate: &'t TruncateStmt) {
        self.changed_all(truncate.relations());
        if truncate.behavior == DropBehavior::DROP_CASCADE {
            self.refuse(
                Refusal::new(RefusalKind::Unplaceable, "TRUNCATE … CASCADE empties tables that it does not name")
                    .hint("Name every table that is to be emptied, without CASCADE."),
            );
        }
    }

    fn create_view(&mut self, view: &'t ViewStmt) {
        self.query(view.query(), None, None, 1);
        self.keeps_no_patient();
        self.passes_on();
        self.create_optional(view.view());
    }

    fn create_trigger(&mut self, create: &'t CreateTrigStmt) {
        self.changed(create.relation());
        match qualified(create.funcname()) {
            Some((schema, name)) => self.stored_call(schema, name),
            None => self.unplaceable(),
        }
    }

    fn alter_table(&mut self, alter: &'t AlterTableStmt) {
        self.changed(alter.relation());
        self.alters(alter.relation());
        for command in alter.cmds() {
            match command {
                Node::AlterTableCmd(command) => match command.def() {
                    // ATTACH PARTITION, INHERIT
                    Node::PartitionCmd(partition) if partition.name().is_some() => self.changed(partition.name()),
                    Node::RangeVar(relation) => self.changed(Some(relation)),
                    _ => {}
                },
                _ => self.unplaceable(),
            }
        }
    }

    fn drop_objects(&mut self, drop: &'t DropStmt) {
        match drop.remove_type {
            ObjectType::OBJECT_TABLE
            | ObjectType::OBJECT_VIEW
            | ObjectType::OBJECT_MATVIEW
            | ObjectType::OBJECT_SEQUENCE => {
                for object in drop.objects() {
                    match object {
                        Node::NodeList(names) => match qualified(names) {
                            Some((schema, name)) => self.changed_name(schema, name),
                            None => self.unplaceable(),
                        },
                        _ => self.unplaceable(),
                    }
                }
            }
            // The last name is the object's, those before it the table's.
            ObjectType::OBJECT_TRIGGER | ObjectType::OBJECT_POLICY | ObjectType::OBJECT_RULE => {
                for object in drop.objects() {
                    let Node::NodeList(names) = object else { return self.unplaceable() };
                    let names: Vec<&str> = names.iter().filter_map(|name| name.as_str()).collect();
                    match names.as_slice() {
                        [table, _] => self.changed_name(None, table),
                        [schema, table, _] => self.changed_name(Some(schema), table),
                        _ => self.unplaceable(),
                    }
                }
            }
            _ => self.unplaceable_unless_local(),
        }
    }
}

/// Whether it makes a function, a type or the like in the schema of temporary objects: their names stand right below.
fn makes_temporary(node: Node<'_>) -> bool {
    let mut below = Vec::new();
    children(node, &mut below);
    below.iter().any(|child| match (node, child) {
        (Node::CompositeTypeStmt(_), Node::RangeVar(name)) => name.schemaname().is_some_and(is_temporary),
        (_, Node::String(word)) => word.sval().is_some_and(is_temporary),
        _ => false,
    })
}
