//! What a node of a parse tree holds: every node below it, whatever its kind.
//!
//! The bindings' own walk leaves out what its first users had no need of (the constraints of a column, most of DDL), and
//! a node that nobody looks at is a table or a function that nobody saw. This list has every kind of node that the
//! grammar makes with every field that holds others. A kind that is not in it is said to be unknown, and its statement
//! is refused; a test holds the fields to what the bindings print of whole trees. Left out are only fields that the
//! grammar never fills, and the objects of GRANT, which the bindings take for tables even where they are functions.

use pg_raw_parse::Node;
use pg_raw_parse::list::{CastNodeList, NodeList};
use pg_raw_parse::nodes;

/// A field that holds nodes.
trait Field<'t> {
    fn each(self, found: &mut Vec<Node<'t>>);
}

impl<'t> Field<'t> for Node<'t> {
    fn each(self, found: &mut Vec<Node<'t>>) {
        if !matches!(self, Node::None) {
            found.push(self);
        }
    }
}

impl<'t, T> Field<'t> for Option<&'t T>
where
    Node<'t>: From<&'t T>,
{
    fn each(self, found: &mut Vec<Node<'t>>) {
        found.extend(self.map(Node::from));
    }
}

impl<'t> Field<'t> for &'t NodeList {
    fn each(self, found: &mut Vec<Node<'t>>) {
        found.extend(self.iter().filter(|node| !matches!(node, Node::None)));
    }
}

impl<'t, T> Field<'t> for &'t CastNodeList<T>
where
    &'t CastNodeList<T>: IntoIterator<Item = &'t T>,
    Node<'t>: From<&'t T>,
{
    fn each(self, found: &mut Vec<Node<'t>>) {
        found.extend(self.into_iter().map(Node::from));
    }
}

macro_rules! fields {
    ($node:ident, $found:ident: $($kind:ident { $($field:ident),+ })+; $($leaf:ident)+) => {
        match $node {
            Node::None $(| Node::$leaf(_))+ => true,
            Node::NodeList(list) => {
                list.each($found);
                true
            }
            $(Node::$kind(node) => {
                $(nodes::$kind::$field(node).each($found);)+
                true
            })+
            _ => false,
        }
    };
}

/// Adds the nodes right below this one; false where its kind is not known.
pub(super) fn children<'t>(node: Node<'t>, found: &mut Vec<Node<'t>>) -> bool {
    fields! { node, found:
        A_ArrayExpr { elements }
        A_Expr { name, lexpr, rexpr }
        A_Indices { lidx, uidx }
        A_Indirection { arg, indirection }
        AccessPriv { cols }
        Alias { colnames }
        AlterCollationStmt { collname }
        AlterDatabaseSetStmt { setstmt }
        AlterDatabaseStmt { options }
        AlterDefaultPrivilegesStmt { options, action }
        AlterDomainStmt { type_name, def }
        AlterEnumStmt { type_name }
        AlterExtensionContentsStmt { object }
        AlterExtensionStmt { options }
        AlterFdwStmt { func_options, options }
        AlterForeignServerStmt { options }
        AlterFunctionStmt { func, actions }
        AlterObjectDependsStmt { relation, object, extname }
        AlterObjectSchemaStmt { relation, object }
        AlterOpFamilyStmt { opfamilyname, items }
        AlterOperatorStmt { opername, options }
        AlterOwnerStmt { relation, object, newowner }
        AlterPolicyStmt { table, roles, qual, with_check }
        AlterPublicationStmt { options, pubobjects }
        AlterRoleSetStmt { role, setstmt }
        AlterRoleStmt { role, options }
        AlterSeqStmt { sequence, options }
        AlterStatsStmt { defnames, stxstattarget }
        AlterSubscriptionStmt { publication, options }
        AlterSystemStmt { setstmt }
        AlterTSConfigurationStmt { cfgname, tokentype, dicts }
        AlterTSDictionaryStmt { dictname, options }
        AlterTableCmd { newowner, def }
        AlterTableMoveAllStmt { roles }
        AlterTableSpaceOptionsStmt { options }
        AlterTableStmt { relation, cmds }
        AlterTypeStmt { type_name, options }
        AlterUserMappingStmt { user, options }
        BoolExpr { args }
        BooleanTest { arg }
        CTECycleClause { cycle_col_list, cycle_mark_value, cycle_mark_default }
        CTESearchClause { search_col_list }
        CallStmt { funccall }
        CaseExpr { arg, args, defresult }
        CaseWhen { expr, result }
        ClusterStmt { relation, params }
        CoalesceExpr { args }
        CollateClause { arg, collname }
        ColumnDef { type_name, raw_default, cooked_default, identity_sequence, coll_clause, constraints, fdwoptions }
        ColumnRef { fields }
        CommentStmt { object }
        CommonTableExpr { aliascolnames, ctequery, search_clause, cycle_clause }
        CompositeTypeStmt { typevar, coldeflist }
        Constraint {
            raw_expr, keys, including, exclusions, options, where_clause, pktable, fk_attrs, pk_attrs,
            fk_del_set_cols
        }
        ConstraintsSetStmt { constraints }
        CopyStmt { relation, query, attlist, options, where_clause }
        CreateAmStmt { handler_name }
        CreateCastStmt { sourcetype, targettype, func }
        CreateConversionStmt { conversion_name, func_name }
        CreateDomainStmt { domainname, type_name, coll_clause, constraints }
        CreateEnumStmt { type_name, vals }
        CreateEventTrigStmt { whenclause, funcname }
        CreateExtensionStmt { options }
        CreateFdwStmt { func_options, options }
        CreateForeignServerStmt { options }
        CreateFunctionStmt { funcname, parameters, return_type, options, sql_body }
        CreateOpClassItem { name, order_family, class_args, storedtype }
        CreateOpClassStmt { opclassname, opfamilyname, datatype, items }
        CreateOpFamilyStmt { opfamilyname }
        CreatePLangStmt { plhandler, plinline, plvalidator }
        CreatePolicyStmt { table, roles, qual, with_check }
        CreatePublicationStmt { options, pubobjects }
        CreateRangeStmt { type_name, params }
        CreateRoleStmt { options }
        CreateSchemaStmt { authrole, schema_elts }
        CreateSeqStmt { sequence, options }
        CreateStatsStmt { defnames, stat_types, exprs, relations }
        CreateStmt {
            relation, table_elts, inh_relations, partbound, partspec, of_typename, constraints, nnconstraints,
            options
        }
        CreateSubscriptionStmt { publication, options }
        CreateTableAsStmt { query, into }
        CreateTableSpaceStmt { owner, options }
        CreateTransformStmt { type_name, fromsql, tosql }
        CreateTrigStmt { relation, funcname, args, columns, when_clause, transition_rels, constrrel }
        CreateUserMappingStmt { user, options }
        CreatedbStmt { options }
        DeclareCursorStmt { query }
        DefElem { arg }
        DefineStmt { defnames, args, definition }
        DeleteStmt { relation, using_clause, where_clause, returning_clause, with_clause }
        DoStmt { args }
        DropOwnedStmt { roles }
        DropRoleStmt { roles }
        DropStmt { objects }
        DropUserMappingStmt { user }
        DropdbStmt { options }
        ExecuteStmt { params }
        ExplainStmt { query, options }
        FuncCall { funcname, args, agg_order, agg_filter, over }
        FunctionParameter { arg_type, defexpr }
        GrantRoleStmt { granted_roles, grantee_roles, opt, grantor }
        GrantStmt { privileges, grantees, grantor }
        GroupingFunc { args }
        GroupingSet { content }
        ImportForeignSchemaStmt { table_list, options }
        IndexElem { expr, collation, opclass, opclassopts }
        IndexStmt { relation, index_params, index_including_params, options, where_clause, exclude_op_names }
        InferClause { index_elems, where_clause }
        InsertStmt { relation, cols, select_stmt, on_conflict_clause, returning_clause, with_clause }
        IntoClause { rel, col_names, options, view_query }
        JoinExpr { larg, rarg, using_clause, join_using_alias, quals, alias }
        JsonAggConstructor { output, agg_filter, agg_order, over }
        JsonArgument { val }
        JsonArrayAgg { constructor, arg }
        JsonArrayConstructor { exprs, output }
        JsonArrayQueryConstructor { query, output, format }
        JsonBehavior { expr }
        JsonFuncExpr { context_item, pathspec, passing, output, on_empty, on_error }
        JsonIsPredicate { expr, format }
        JsonKeyValue { key, value }
        JsonObjectAgg { constructor, arg }
        JsonObjectConstructor { exprs, output }
        JsonOutput { type_name, returning }
        JsonParseExpr { expr, output }
        JsonReturning { format }
        JsonScalarExpr { expr, output }
        JsonSerializeExpr { expr, output }
        JsonTable { context_item, pathspec, passing, columns, on_error, alias }
        JsonTableColumn { type_name, pathspec, format, columns, on_empty, on_error }
        JsonTablePathSpec { string }
        JsonValueExpr { raw_expr, formatted_expr, format }
        LockStmt { relations }
        LockingClause { locked_rels }
        MergeStmt { relation, source_relation, join_condition, merge_when_clauses, returning_clause, with_clause }
        MergeWhenClause { condition, target_list, values }
        MinMaxExpr { args }
        MultiAssignRef { source }
        NamedArgExpr { arg }
        NullTest { arg }
        ObjectWithArgs { objname, objargs, objfuncargs }
        OnConflictClause { infer, target_list, where_clause }
        PartitionBoundSpec { listdatums, lowerdatums, upperdatums }
        PartitionCmd { name, bound }
        PartitionElem { expr, collation, opclass }
        PartitionSpec { part_params }
        PrepareStmt { argtypes, query }
        PublicationObjSpec { pubtable }
        PublicationTable { relation, where_clause, columns }
        RangeFunction { functions, alias, coldeflist }
        RangeSubselect { subquery, alias }
        RangeTableFunc { docexpr, rowexpr, namespaces, columns, alias }
        RangeTableFuncCol { type_name, colexpr, coldefexpr }
        RangeTableSample { relation, method, args, repeatable }
        RangeVar { alias }
        ReassignOwnedStmt { roles, newrole }
        RefreshMatViewStmt { relation }
        ReindexStmt { relation, params }
        RenameStmt { relation, object }
        ResTarget { indirection, val }
        ReturnStmt { returnval }
        ReturningClause { options, exprs }
        RowExpr { args, colnames }
        RuleStmt { relation, where_clause, actions }
        SecLabelStmt { object }
        SelectStmt {
            distinct_clause, into_clause, target_list, from_clause, where_clause, group_clause, having_clause,
            window_clause, values_lists, sort_clause, limit_offset, limit_count, locking_clause, with_clause, larg,
            rarg
        }
        SortBy { node, use_op }
        StatsElem { expr }
        SubLink { testexpr, oper_name, subselect }
        TableLikeClause { relation }
        TransactionStmt { options }
        TruncateStmt { relations }
        TypeCast { arg, type_name }
        TypeName { names, typmods, array_bounds }
        UpdateStmt { relation, target_list, where_clause, from_clause, returning_clause, with_clause }
        VacuumRelation { relation, va_cols }
        VacuumStmt { options, rels }
        VariableSetStmt { args }
        ViewStmt { view, aliases, query, options }
        WindowDef { partition_clause, order_clause, start_offset, end_offset }
        WithClause { ctes }
        XmlExpr { named_args, arg_names, args }
        XmlSerialize { expr, type_name }
        ;
        ATAlterConstraint A_Const A_Star AlterDatabaseRefreshCollStmt AlterEventTrigStmt BitString Boolean
        CheckPointStmt ClosePortalStmt CurrentOfExpr DeallocateStmt DiscardStmt DropSubscriptionStmt
        DropTableSpaceStmt FetchStmt Float Integer JsonFormat ListenStmt LoadStmt MergeSupportFunc NotifyStmt
        ParamRef ReplicaIdentityStmt ReturningOption RoleSpec SQLValueFunction SetToDefault String TriggerTransition
        UnlistenStmt VariableShowStmt
    }
}

#[cfg(test)]
pub(super) mod tests;
