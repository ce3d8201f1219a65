//! The parameters that a client is greeted with: those that a server would report to it.
//!
//! What a value becomes (`German` is reported as `German, DMY`), and whether it is one, only a server knows. So settings
//! that are asked for at startup are tried on one, unless they change nothing; what it reports is kept, since drivers
//! ask for the same each time they connect.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::BytesMut;
use parking_lot::Mutex;
use pgward_pools::{Clean, Lease, Settings};
use pgward_wire::tag::backend as tag;
use pgward_wire::{PgError, ProtocolError, TxStatus, backend, frame};

use crate::session::{Brought, change_settings, quoted};

/// Combinations of settings that are remembered. Few programs use many; one that does pays with a round trip.
const MOST_KNOWN: usize = 256;
/// A name is cut behind this many bytes (NAMEDATALEN).
const NAME_BYTES: usize = 63;

/// Parameters with their values, in the order in which a server reports them.
pub(crate) type Reported = Vec<(String, String)>;

/// A server role, and what is set.
type Asked = (Arc<str>, BTreeMap<Arc<str>, String>);

/// What servers have reported of settings, by server role and settings.
#[derive(Debug, Default)]
pub(crate) struct Greetings {
    known: Mutex<HashMap<Asked, Arc<Reported>>>,
}

impl Greetings {
    pub(crate) fn get(&self, role: &Arc<str>, settings: &Settings) -> Option<Arc<Reported>> {
        self.known.lock().get(&(Arc::clone(role), settings.values().clone())).cloned()
    }

    pub(crate) fn keep(&self, role: &Arc<str>, settings: &Settings, reported: &Arc<Reported>) {
        let mut known = self.known.lock();
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.insert((Arc::clone(role), settings.values().clone()), Arc::clone(reported));
    }
}

/// The settings that a server must be asked about: all but those that it has by itself, and a plain application_name,
/// which is reported as it is and which differs between clients.
pub(crate) fn to_be_tried(settings: &Settings, base: &Reported) -> Arc<Settings> {
    let by_itself = |name: &str, value: &str| {
        base.iter().any(|(known, reported)| known.eq_ignore_ascii_case(name) && quoted(reported) == *value)
    };
    let needless = |name: &str, value: &str| match name {
        "application_name" => is_plain_name(&unquoted(value)),
        // A replica has this on by itself; to its clients it is off unless they ask.
        "default_transaction_read_only" => false,
        _ => by_itself(name, value),
    };
    let tried = settings.values().iter().filter(|(name, value)| !needless(name, value));
    Settings::of(tried.map(|(name, value)| (Arc::clone(name), value.clone())).collect())
}

/// The settings that a server may refuse: all but a plain application_name.
pub(crate) fn refusable(settings: &Arc<Settings>) -> Arc<Settings> {
    let plain = |name: &str, value: &str| name == "application_name" && is_plain_name(&unquoted(value));
    if !settings.values().iter().any(|(name, value)| plain(name, value)) {
        return Arc::clone(settings);
    }
    let others = settings.values().iter().filter(|(name, value)| !plain(name, value));
    Settings::of(others.map(|(name, value)| (Arc::clone(name), value.clone())).collect())
}

/// Whether a server takes a name as it is.
fn is_plain_name(name: &str) -> bool {
    name.len() <= NAME_BYTES && name.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

/// The text of an SQL literal without escapes.
fn unquoted(literal: &str) -> String {
    let inside = literal.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).unwrap_or(literal);
    inside.replace("''", "'")
}

/// What a server did with settings.
pub(crate) enum Tried {
    /// It took them, and reports these parameters of theirs that differ from what it has by itself.
    Taken(Reported),
    /// It did not.
    Refused(PgError),
    /// It was stopped by a time limit of whoever had it before; it is closed.
    Stopped,
}

/// Tries settings on a server, and gives it back to its pool.
///
/// # Errors
/// The server is lost, or did not answer as a server does; it is closed.
pub(crate) async fn try_on(mut lease: Lease, settings: &Arc<Settings>) -> std::io::Result<Tried> {
    let mut changed = BytesMut::new();
    if !Settings::same(&lease.memory.settings, &Settings::none()) {
        match change_settings(&mut lease, &Settings::none(), &mut changed).await? {
            Brought::Done => changed.clear(),
            Brought::Refused(error) => return Err(std::io::Error::other(error.message().to_owned())),
            Brought::Stopped => return Ok(Tried::Stopped),
        }
    }
    // One Query is one transaction: all of them, or none.
    let tried = match change_settings(&mut lease, settings, &mut changed).await? {
        Brought::Done => Tried::Taken(statuses(&changed).map_err(std::io::Error::other)?),
        Brought::Refused(error) => Tried::Refused(error),
        Brought::Stopped => return Ok(Tried::Stopped),
    };
    if let Some(clean) = Clean::prove(TxStatus::Idle, 0) {
        lease.release(clean);
    }
    Ok(tried)
}

/// The parameters in these ParameterStatus messages.
fn statuses(mut messages: &[u8]) -> Result<Reported, ProtocolError> {
    let mut reported = Reported::new();
    while let Some(header) = frame::header(messages)? {
        let Some((message, behind)) = messages.split_at_checked(header.len) else { break };
        if header.tag == tag::PARAMETER_STATUS {
            let (name, value) = backend::parameter_status(&message[frame::HEADER_BYTES..])?;
            reported.push((name.to_owned(), value.to_owned()));
        }
        messages = behind;
    }
    Ok(reported)
}

/// What was reported, with those of the settings that had their value by the server itself: another may not.
pub(crate) fn completed(mut changed: Reported, base: &Reported, settings: &Settings) -> Reported {
    for (name, own) in base {
        let is_set = settings.values().contains_key(&*name.to_ascii_lowercase());
        if is_set && !changed.iter().any(|(known, _)| known == name) {
            changed.push((name.clone(), own.clone()));
        }
    }
    changed
}

/// What the client is told: the server's own parameters, in their place those that its settings changed.
pub(crate) fn merged(base: &Reported, changed: &Reported, settings: &Settings, user: &str) -> Reported {
    let asked = settings.values();
    let value = |name: &str, own: &str| -> String {
        let tried = changed.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        match name {
            "client_encoding" => "UTF8".to_owned(),
            "session_authorization" => user.to_owned(),
            "default_transaction_read_only" if !asked.contains_key(name) => "off".to_owned(),
            "application_name" => tried.unwrap_or_else(|| asked.get(name).map_or(String::new(), |name| unquoted(name))),
            _ => tried.unwrap_or_else(|| own.to_owned()),
        }
    };
    base.iter().map(|(name, own)| (name.clone(), value(name, own))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Arc<Settings> {
        Settings::of(pairs.iter().map(|(name, value)| (Arc::from(*name), quoted(value))).collect())
    }

    fn reported(pairs: &[(&str, &str)]) -> Reported {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn base() -> Reported {
        reported(&[
            ("application_name", "pgward"),
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO, MDY"),
            ("default_transaction_read_only", "on"),
            ("session_authorization", "pgward_app"),
        ])
    }

    #[test]
    fn what_changes_nothing_is_not_tried() {
        let asked = settings(&[("datestyle", "ISO, MDY"), ("application_name", "it's psql")]);
        assert!(to_be_tried(&asked, &base()).values().is_empty());
        for (name, value) in [
            ("datestyle", "ISO"),
            ("application_name", "näme"),
            ("application_name", &"x".repeat(64)),
            ("work_mem", "4MB"),
            ("default_transaction_read_only", "on"),
        ] {
            let asked = settings(&[(name, value)]);
            assert_eq!(to_be_tried(&asked, &base()), asked, "{name} = {value}");
        }
    }

    #[test]
    fn only_a_plain_name_cannot_be_refused() {
        let others = settings(&[("work_mem", "1MB")]);
        assert!(Arc::ptr_eq(&refusable(&settings(&[("application_name", "psql"), ("work_mem", "1MB")])), &others));
        assert!(Arc::ptr_eq(&refusable(&others), &others));
        let strange = settings(&[("application_name", "näme")]);
        assert!(Arc::ptr_eq(&refusable(&strange), &strange));
    }

    #[test]
    fn a_client_is_told_what_it_would_be_told_by_a_server() {
        let asked = settings(&[("datestyle", "German"), ("application_name", "it's")]);
        let told = merged(&base(), &reported(&[("DateStyle", "German, DMY")]), &asked, "nurse");
        let want = [
            ("application_name", "it's"),
            ("client_encoding", "UTF8"),
            ("DateStyle", "German, DMY"),
            ("default_transaction_read_only", "off"),
            ("session_authorization", "nurse"),
        ];
        assert_eq!(told, reported(&want));
        let asked = settings(&[("default_transaction_read_only", "on")]);
        let changed = completed(Reported::new(), &base(), &asked);
        assert_eq!(changed, reported(&[("default_transaction_read_only", "on")]), "as the replica has it by itself");
        let primary = reported(&[("application_name", "pgward"), ("default_transaction_read_only", "off")]);
        let want = [("application_name", ""), ("default_transaction_read_only", "on")];
        assert_eq!(merged(&primary, &changed, &asked, "nurse"), reported(&want));
    }

    #[test]
    fn statuses_are_read_from_whole_messages() {
        let mut messages = BytesMut::new();
        backend::put_parameter_status(&mut messages, "TimeZone", "UTC");
        backend::put_parameter_status(&mut messages, "DateStyle", "ISO, DMY");
        assert_eq!(statuses(&messages).unwrap(), reported(&[("TimeZone", "UTC"), ("DateStyle", "ISO, DMY")]));
    }

    #[test]
    fn no_more_is_remembered_than_fits() {
        let (greetings, role) = (Greetings::default(), Arc::<str>::from("app"));
        for n in 0..=MOST_KNOWN {
            let asked = settings(&[("work_mem", &n.to_string())]);
            greetings.keep(&role, &asked, &Arc::default());
            assert!(greetings.get(&role, &asked).is_some());
        }
        assert_eq!(greetings.known.lock().len(), 1);
        assert!(greetings.get(&"other".into(), &settings(&[("work_mem", "256")])).is_none());
    }
}
