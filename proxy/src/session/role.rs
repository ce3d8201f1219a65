//! The role that a session's statements run as: part of who asks, so it is allowed by the operator, followed exactly, and
//! in every record.
//!
//! To servers it is a setting like others, except that it never goes ahead of a statement unanswered (a membership may
//! have been taken away since), and that nothing may make it doubtful which one holds.

use pgward_config::User;
use pgward_pools::Settings;
use pgward_router::{Action, Analysed, Refusal, RefusalKind};
use pgward_wire::PgError;

use super::route::Asked;
use super::settings::Change;
use super::work::Effect;
use super::{Session, errors};

/// The setting that holds it.
pub(super) const ROLE: &str = "role";

impl Session {
    /// The role that was set, as the session's statements run now; `None` for the login's own.
    pub(super) fn role(&self) -> Option<&str> {
        let quoted = match self.changes.value_of(ROLE) {
            Some(Some(value)) => Some(value),
            Some(None) => value_of(&self.startup_settings),
            None => value_of(&self.settings),
        };
        quoted.and_then(named)
    }

    /// Whether the roles that these effects set may be set by the user, at this place.
    pub(super) fn check_role(&self, analysed: &Analysed, effects: &[Effect]) -> Result<(), Refusal> {
        let statements = &analysed.shape.statements;
        if self.changes.value_of(ROLE).is_some()
            && statements.iter().any(|statement| matches!(statement.action, Action::RollbackTo(_)))
        {
            return Err(unsupported("ROLLBACK TO is not supported in a transaction that has changed its role")
                .hint("Use ROLLBACK, or set the role in a transaction without savepoints."));
        }
        for value in effects.iter().filter_map(Effect::role) {
            may_set(self.user(), value)?;
            if statements.len() > 1 {
                return Err(unsupported("a change of role cannot stand among several statements")
                    .hint("Send it in a message of its own."));
            }
        }
        Ok(())
    }

    /// The same for statements that no server is decided for.
    pub(super) fn allow_role(&self, analysed: &Analysed, effects: &[Effect]) -> Result<(), PgError> {
        self.check_role(analysed, effects).map_err(|refusal| {
            self.record_refusal(&refusal, &Asked::default());
            errors::refusal(&refusal)
        })
    }

    /// What stands behind a change of role waits until that is answered: its record says which role it ran as.
    pub(super) fn check_behind_role(&self) -> Result<(), PgError> {
        if self.role_asked { Err(errors::behind_role()) } else { Ok(()) }
    }

    /// The role in the session's settings may still be set by its user.
    pub(super) fn role_is_allowed(&self) -> bool {
        let user = self.user();
        [&self.settings, &self.startup_settings].iter().all(|settings| may_set(user, value_of(settings)).is_ok())
    }
}

impl Effect {
    /// The role that it sets, where it sets or resets it.
    pub(super) fn role(&self) -> Option<Option<&str>> {
        match self {
            Self::Set(changes) => changes.iter().rev().find_map(role_in),
            Self::SetLocal(change) => role_in(change),
            _ => None,
        }
    }
}

fn role_in(change: &Change) -> Option<Option<&str>> {
    (&*change.name == ROLE).then_some(change.value.as_deref())
}

fn value_of(settings: &Settings) -> Option<&str> {
    settings.values().get(ROLE).map(String::as_str)
}

/// The role of a value as it stands in SQL. Roles that may be set have no quotes in their names.
fn named(quoted: &str) -> Option<&str> {
    let name = quoted.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).unwrap_or(quoted);
    (name != "none").then_some(name)
}

/// Whether a user may set the role of this value, as it stands in SQL; everybody may go back to the login's own.
pub(crate) fn may_set(user: &User, value: Option<&str>) -> Result<(), Refusal> {
    let Some(role) = value.and_then(named) else { return Ok(()) };
    if user.may_set_role.iter().any(|allowed| **allowed == *role) {
        return Ok(());
    }
    // The name is the client's own text: it is not repeated where it could reach a log.
    Err(Refusal::new(RefusalKind::RoleNotAllowed, format!("user \"{}\" may not set this role", user.name))
        .detail("The roles that a user may set are those of its may_set_role.")
        .hint("Ask the operator to add the role to may_set_role in [[users]], or connect as another user."))
}

fn unsupported(message: &'static str) -> Refusal {
    Refusal::new(RefusalKind::Unsupported, message)
}
