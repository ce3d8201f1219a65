//! What clients are told, in PostgreSQL's own words where it has some.

use pgward_config::{Class, PoolKind, Proxy};
use pgward_pools::AcquireError;
use pgward_router::Refusal;
use pgward_wire::PgError;

use super::{cursors, settings};
use crate::directory::RegisterError;
use crate::registry::Kill;

/// A refusal of the router.
pub(crate) fn refusal(refusal: &Refusal) -> PgError {
    let mut error = PgError::error(refusal.kind.sqlstate(), refusal.message.to_string());
    if let Some(detail) = &refusal.detail {
        error = error.with_detail(detail.to_string());
    }
    if let Some(hint) = &refusal.hint {
        error = error.with_hint(hint.to_string());
    }
    if let Some(position) = refusal.position {
        error = error.with_position(position);
    }
    error
}

pub(super) fn message_too_large(len: usize, limit: usize) -> PgError {
    PgError::error("54000", format!("a message of {len} bytes is larger than the limit of {limit} bytes"))
        .with_hint("Send less at once, or raise max_message_bytes in [proxy].")
}

pub(super) fn too_many_prepared(limits: &Proxy) -> PgError {
    let (count, bytes) = (limits.max_prepared, limits.max_prepared_bytes);
    PgError::error("54000", "too many prepared statements")
        .with_detail(format!("A client may hold {count} of them, {bytes} bytes together (max_prepared in [proxy])."))
        .with_hint("Close those that are no longer used, or give your driver's statement cache a smaller size.")
}

pub(super) fn too_many_settings() -> PgError {
    let (settings, changes) = (settings::MOST_BYTES, settings::MOST_CHANGED_BYTES);
    let detail = format!(
        "The settings of a session may take {settings} bytes, and those changed in one transaction {changes} bytes."
    );
    PgError::error("54000", "too many settings, or too large ones").with_detail(detail).with_hint(
        "Set less, reset what is no longer used, or end the transaction. SET LOCAL does not count once a transaction has \
         a server.",
    )
}

pub(super) fn too_many_cursors() -> PgError {
    let (cursors, patients) = (cursors::MOST_CURSORS, cursors::MOST_PATIENTS);
    let detail = format!(
        "A session may have {cursors} cursors on patient tables, for {patients} patients together: whom a FETCH reads is \
         recorded."
    );
    let error = PgError::error("54000", "too many cursors on patient tables, or for too many patients");
    error.with_detail(detail).with_hint("Close those that are no longer used, or end the transaction.")
}

/// `limit`: of the bytes.
pub(super) fn opening_too_long(limit: usize) -> PgError {
    PgError::error("54000", "too many statements that wait for the transaction's server")
        .with_detail(format!(
            "BEGIN, SAVEPOINT, SET and the like are kept, up to {limit} bytes, until a statement shows which shard the \
             transaction is for."
        ))
        .with_hint("Read or write something of the patient's first.")
}

pub(super) fn too_many_portals(limits: &Proxy) -> PgError {
    let (count, bytes) = (limits.max_prepared, limits.max_prepared_bytes);
    PgError::error("54000", "too many portals")
        .with_detail(format!("A client may hold {count} of them, {bytes} bytes together (max_prepared in [proxy])."))
        .with_hint("Close those that are no longer used, or end the transaction.")
}

pub(super) fn function_call() -> PgError {
    PgError::error("0A000", "the function call message is not supported")
        .with_hint("Call the function in a SELECT, so that it can be routed.")
}

pub(super) fn unknown_message(tag: u8) -> PgError {
    PgError::error("08P01", format!("invalid frontend message type {tag}"))
}

/// As PostgreSQL's pq_getmsgend.
pub(super) fn invalid_format() -> PgError {
    PgError::error("08P01", "invalid message format").with_detail("A message that has no body came with one.")
}

pub(super) fn no_longer_allowed(user: &str, listener: &str) -> PgError {
    PgError::error("28000", format!("user \"{user}\" may no longer connect through listener \"{listener}\""))
        .with_detail("The configuration was reloaded.")
}

pub(super) fn role_no_longer_allowed(user: &str) -> PgError {
    PgError::error("42501", format!("user \"{user}\" may no longer set the role that the session has set"))
        .with_detail("The configuration was reloaded.")
}

pub(super) fn behind_role() -> PgError {
    PgError::error("0A000", "a statement cannot stand behind a change of role in the same pipeline")
        .with_hint("Send a Sync behind the change of role, and wait for no more than that.")
}

pub(super) fn transaction_failed() -> PgError {
    PgError::error("25P02", "current transaction is aborted, commands ignored until end of transaction block")
}

pub(super) fn chain_outside(tag: &str) -> PgError {
    PgError::error("25P01", format!("{tag} AND CHAIN can only be used in transaction blocks"))
}

/// As PostgreSQL's RollbackToSavepoint and ReleaseSavepoint.
pub(super) fn no_savepoint(name: &str) -> PgError {
    PgError::error("3B001", format!("savepoint \"{name}\" does not exist"))
}

pub(super) fn chain_lost() -> PgError {
    PgError::error("0A000", "AND CHAIN is not supported in a transaction whose server is lost")
        .with_detail("What the transaction was begun with is lost, too.")
        .with_hint("ROLLBACK, and begin anew.")
}

pub(super) fn chain_unclear() -> PgError {
    PgError::error("0A000", "AND CHAIN is not supported where SET TRANSACTION may have been what failed")
        .with_detail("Which modes the transaction had when it failed is not known.")
        .with_hint("ROLLBACK, and begin anew.")
}

pub(super) fn portal_exists(name: &[u8]) -> PgError {
    PgError::error("42P03", format!("cursor \"{}\" already exists", String::from_utf8_lossy(name)))
}

/// As PostgreSQL's MarkPortalActive.
pub(super) fn portal_done(name: &[u8]) -> PgError {
    PgError::error("55000", format!("portal \"{}\" cannot be run", String::from_utf8_lossy(name)))
}

pub(super) fn portal_outdated(name: &[u8]) -> PgError {
    let message = format!("portal \"{}\" was bound before the transaction had a server", String::from_utf8_lossy(name));
    PgError::error("0A000", message).with_hint("Bind it behind the statement that goes to the server.")
}

pub(super) fn wrong_parameter_count(given: usize, wanted: usize) -> PgError {
    let message = format!("bind message supplies {given} parameters, but prepared statement requires {wanted}");
    PgError::error("08P01", message)
}

pub(super) fn not_copy_traffic(tag: u8) -> PgError {
    PgError::error("08P01", format!("unexpected message type 0x{tag:02X} during COPY from stdin"))
}

pub(super) fn no_prepared_statement(name: &str) -> PgError {
    PgError::error("26000", format!("prepared statement \"{name}\" does not exist"))
}

/// As PostgreSQL's EvaluateParams.
pub(super) fn wrong_argument_count(name: &str, given: usize, wanted: usize) -> PgError {
    PgError::error("42601", format!("wrong number of parameters for prepared statement \"{name}\""))
        .with_detail(format!("Expected {wanted} parameters but got {given}."))
}

pub(super) fn execute_not_alone(name: &str) -> PgError {
    let message = format!("prepared statement \"{name}\" can be executed by an EXECUTE of its own only");
    PgError::error("0A000", message)
        .with_hint("Send EXECUTE as the only statement of a simple Query, or bind the statement by the protocol.")
}

pub(super) fn not_for_execute(name: &str) -> PgError {
    PgError::error("0A000", format!("prepared statement \"{name}\" is none that SQL can prepare or execute here"))
        .with_hint("Use the protocol's Parse, Bind and Execute, or send the statement by itself.")
}

pub(super) fn prepared_behind_no_sync() -> PgError {
    PgError::error("0A000", "PREPARE and EXECUTE cannot stand behind messages of the extended protocol without a Sync")
        .with_hint("Send a Sync first.")
}

pub(super) fn unknown_prepared(name: &[u8]) -> PgError {
    match name {
        b"" => PgError::error("26000", "unnamed prepared statement does not exist"),
        name => no_prepared_statement(&String::from_utf8_lossy(name)),
    }
}

pub(super) fn duplicate_prepared(name: &[u8]) -> PgError {
    PgError::error("42P05", format!("prepared statement \"{}\" already exists", String::from_utf8_lossy(name)))
}

pub(super) fn unknown_portal(name: &[u8]) -> PgError {
    PgError::error("34000", format!("portal \"{}\" does not exist", String::from_utf8_lossy(name)))
}

pub(super) fn several_in_parse() -> PgError {
    PgError::error("42601", "cannot insert multiple commands into a prepared statement")
}

pub(super) fn copy_among_several() -> PgError {
    PgError::error("0A000", "COPY into a patient table cannot stand among other statements of one message")
        .with_hint("Send the COPY by itself.")
}

pub(super) fn forgetting_among_several() -> PgError {
    PgError::error("0A000", "DEALLOCATE and DISCARD cannot stand among other statements of one message")
        .with_hint("Send it by itself.")
}

pub(super) fn own_setting_among_several() -> PgError {
    PgError::error("0A000", "a pgward setting cannot stand among other statements of one message")
        .with_hint("Send it by itself.")
}

pub(super) fn unknown_own_setting(name: &str) -> PgError {
    PgError::error("42704", format!("unrecognized configuration parameter \"{name}\""))
        .with_hint("PgWard knows pgward.priority.")
}

pub(super) fn unknown_class() -> PgError {
    let words: Vec<&str> = Class::ALL.into_iter().map(Class::as_str).collect();
    PgError::error("22023", "invalid value for parameter \"pgward.priority\"")
        .with_hint(format!("Available values: {}.", words.join(", ")))
}

/// `frame`: the client's CopyFail, which says why.
pub(super) fn copy_failed_by_client(frame: &[u8]) -> PgError {
    let reason = frame.get(5..).unwrap_or_default();
    let reason = String::from_utf8_lossy(reason.strip_suffix(b"\0").unwrap_or(reason));
    PgError::error("57014", format!("COPY from stdin failed: {reason}"))
}

/// As PostgreSQL's ProcessInterrupts.
pub(super) fn cancelled() -> PgError {
    PgError::error("57014", "canceling statement due to user request")
}

/// PostgreSQL runs both in one transaction; version 18 leaves it open behind the Query and says that there is none, so that
/// what both did would be lost.
pub(super) fn query_behind_execute() -> PgError {
    PgError::error("0A000", "a Query cannot stand behind an Execute without a Sync between them")
        .with_detail("Nothing of what was executed since the last Sync stays.")
        .with_hint("Send a Sync before the Query.")
}

pub(super) fn internal(what: &str) -> PgError {
    PgError::error("XX000", what.to_owned())
}

pub(super) fn warning(sqlstate: &'static str, message: &'static str) -> PgError {
    PgError::warning(sqlstate, message)
}

pub(super) fn audit(error: &pgward_audit::AuditError) -> PgError {
    PgError::error(pgward_audit::AuditError::SQLSTATE, "the audit log cannot be written; the statement was not sent")
        .with_detail(error.cause().to_string())
        .with_hint("Statements are refused until the log can be written again; emergency statements go on.")
}

pub(super) fn registration(error: &RegisterError) -> PgError {
    PgError::error("58030", "the patient cannot be registered in the directory; the statement was not sent")
        .with_detail(error.to_string())
}

pub(super) fn acquire(error: &AcquireError, node: &str, pool: PoolKind, class: Class) -> PgError {
    let what = format!("no server of pool {pool} on {node} could be had for class {class}");
    let error = PgError::error(error.sqlstate(), what).with_detail(error.to_string());
    error.with_hint("The statement was not sent; retry later, or raise max or wait_timeout of the pool.")
}

pub(super) fn too_many_pinned(why: &str, pool: PoolKind, node: &str, limit: u32) -> PgError {
    PgError::error("53300", format!("too many sessions keep a connection of pool {pool} on {node}"))
        .with_detail(format!("A {why} keeps the connection until the session ends; max_pinned of the pool is {limit}."))
        .with_hint("The statement was not sent; end sessions that keep one, or raise max_pinned of the pool.")
}

pub(super) fn cannot_connect(node: &str, why: &str) -> PgError {
    PgError::error("08001", format!("could not connect to {node}"))
        .with_detail(why.to_owned())
        .with_hint("The statement was not sent; retry when the node is back.")
}

/// `unknown`: whether the statement took effect cannot be told.
pub(super) fn server_gone(node: &str, why: &str, unknown: bool) -> PgError {
    if unknown {
        PgError::error(
            "08007",
            format!("the connection to {node} was lost; whether the statement took effect is unknown"),
        )
        .with_detail(why.to_owned())
        .with_hint("Look at the data before the statement is sent again.")
    } else {
        PgError::error("08006", format!("the connection to {node} was lost")).with_detail(why.to_owned())
    }
}

/// A server refused the session's parameters, which went ahead of a write, because others had accepted them.
pub(super) fn ran_without_parameters(refused: &PgError) -> PgError {
    PgError::error("08007", "a server refused the session's parameters; whether the statement took effect is unknown")
        .with_detail(format!("{}: {}", refused.sqlstate(), refused.message()))
        .with_hint("Look at the data before the statement is sent again; where the session has set what the detail names, connect anew without it.")
}

pub(super) fn killed(kill: Kill) -> PgError {
    match kill {
        Kill::IdleInTransaction => PgError::error("25P03", "terminating connection due to idle-in-transaction timeout"),
        Kill::Drain | Kill::Now => PgError::error("57P01", "terminating connection due to administrator command"),
    }
}
