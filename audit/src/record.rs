//! What is recorded: decisions, and events beside them.

use std::time::Duration;

use pgward_config::{Class, PoolKind};

use crate::json;
use crate::patient::PatientHash;

/// `,"name":` as one constant, so that it costs one copy.
macro_rules! key {
    ($name:literal) => {
        concat!(",\"", $name, "\":").as_bytes()
    };
}

/// A field whose value may hold anything.
macro_rules! text {
    ($out:ident, $name:literal, $value:expr) => {
        $out.extend_from_slice(concat!(",\"", $name, "\":\"").as_bytes());
        json::escaped($out, $value);
        $out.push(b'"');
    };
}

/// A field whose value is one of our own words, with nothing in it to escape.
macro_rules! word {
    ($out:ident, $name:literal, $word:expr) => {
        let word: &'static str = $word;
        $out.extend_from_slice(concat!(",\"", $name, "\":\"").as_bytes());
        $out.extend_from_slice(word.as_bytes());
        $out.push(b'"');
    };
}

/// A field whose value is a hash of ours in hexadecimal digits.
macro_rules! hash {
    ($out:ident, $name:literal, $value:expr) => {
        debug_assert!(json::is_plain($value.as_bytes()), "a hash has nothing to escape");
        $out.extend_from_slice(concat!(",\"", $name, "\":\"").as_bytes());
        $out.extend_from_slice($value.as_bytes());
        $out.push(b'"');
    };
}

/// Who asks and from where: what every record of one session has in common, encoded once when the session begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    json: Box<[u8]>,
}

impl Who {
    /// `session` is the proxy's number of the session, `client` the peer's address. User and client may be whatever
    /// the peer sent; they are escaped.
    pub fn new(session: u64, user: &str, client: &str, listener: &str, origin: &str) -> Self {
        let mut json = Vec::with_capacity(160);
        let out = &mut json;
        out.extend_from_slice(key!("session"));
        json::integer(out, session);
        text!(out, "user", user);
        text!(out, "client", client);
        text!(out, "listener", listener);
        text!(out, "origin", origin);
        Self { json: json.into() }
    }
}

/// A node as records name it, encoded once when the configuration is put in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName {
    /// As the target, by [`PoolKind::index`].
    targets: [Box<[u8]>; 4],
    /// As a candidate, up to its score.
    candidate: Box<[u8]>,
}

impl NodeName {
    /// The node of this id in the shard of that id.
    pub fn new(shard: &str, node: &str) -> Self {
        let target = |pool: PoolKind| {
            let mut json = Vec::with_capacity(128);
            let out = &mut json;
            text!(out, "shard", shard);
            text!(out, "node", node);
            word!(out, "pool", pool.as_str());
            json.into()
        };
        let mut candidate = b"{\"node\":".to_vec();
        json::string(&mut candidate, node);
        candidate.extend_from_slice(key!("score"));
        Self { targets: PoolKind::ALL.map(target), candidate: candidate.into() }
    }
}

/// One decision about one statement. All fields are borrowed from the session.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Session, user, client, listener, origin.
    pub who: &'a Who,
    /// The role that the session has set; `None` where the statement runs as the user's own.
    pub role: Option<&'a str>,
    /// True inside a transaction block.
    pub transaction: bool,
    /// `read`, `analytics`, `write`, `emergency`.
    pub kind: &'static str,
    /// Class in force. A record of class emergency is never refused: see [`AuditLog::append`](crate::AuditLog::append).
    pub class: Class,
    /// Fingerprint of the statement's shape: letters and digits only.
    pub fingerprint: &'a str,
    /// The patients, as hashes.
    pub patients: &'a [PatientHash],
    /// Where each of the patients was seen, in the same order.
    pub evidence: &'a [Place],
    /// Home region of the patients.
    pub home: Option<&'a str>,
    /// Target node, and its pool.
    pub target: Option<(&'a NodeName, PoolKind)>,
    /// The nodes that were considered.
    pub candidates: &'a [Candidate<'a>],
    /// What became of the statement.
    pub outcome: Outcome<'a>,
    /// Time that the decision took.
    pub decision_time: Duration,
    /// Hash of the configuration in force: letters and digits only.
    pub config: &'a str,
}

/// Where a patient was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A literal that begins at this byte of the text.
    Literal(u32),
    /// Parameter `$n`.
    Param(u16),
    /// Row of a COPY in the binary format, from 1.
    CopyRow(u64),
    /// Line of a COPY at which a row begins, from 1.
    CopyLine(u64),
    /// The DECLARE of the cursor that rows are fetched from.
    Cursor,
}

/// A node that was considered.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The node.
    pub node: &'a NodeName,
    /// Its score.
    pub score: f32,
    /// Why it could not serve (`down`, `lag`, `failed`).
    pub passed_over: Option<&'static str>,
}

/// What became of the statement.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// It was sent to the target.
    Forwarded {
        /// Why this target, in one word.
        reason: &'static str,
        /// Why the origin may reach the patient's region.
        permit: &'a str,
    },
    /// It was refused.
    Refused {
        /// Why, in one word.
        reason: &'static str,
        /// SQLSTATE of the error.
        sqlstate: &'a str,
        /// The error's message, free of literals and patient keys.
        detail: &'a str,
    },
}

/// What happened beside decisions.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// What kind of thing.
    pub kind: EventKind,
    /// Whose session, where it is one's.
    pub who: Option<&'a Who>,
    /// SQLSTATE, where an error was told to someone.
    pub sqlstate: Option<&'a str>,
    /// In words.
    pub detail: &'a str,
    /// Hash of the configuration in force, empty where there is none.
    pub config: &'a str,
}

/// Kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// The proxy began to serve.
    Start,
    /// The proxy ended.
    Stop,
    /// A configuration was put in force.
    Reload,
    /// A configuration was refused.
    ReloadRefused,
    /// A client was not let in.
    LoginRefused,
    /// A client asked to cancel what ran for a session.
    Cancel,
    /// An administrative act.
    Admin,
    /// The log itself: it was continued after a torn line, or could be written again after it could not.
    AuditLog,
}

impl EventKind {
    /// The word in the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Reload => "reload",
            Self::ReloadRefused => "reload_refused",
            Self::LoginRefused => "login_refused",
            Self::Cancel => "cancel",
            Self::Admin => "admin",
            Self::AuditLog => "audit_log",
        }
    }
}

impl Record<'_> {
    /// Appends the record's JSON from behind the sequence number to before the closing brace.
    pub(crate) fn encode(&self, out: &mut Vec<u8>, head: &[u8]) {
        out.extend_from_slice(head);
        out.extend_from_slice(b",\"record\":\"decision\"");
        out.extend_from_slice(&self.who.json);
        if let Some(role) = self.role {
            text!(out, "role", role);
        }
        out.extend_from_slice(if self.transaction { b",\"transaction\":true" } else { b",\"transaction\":false" });
        word!(out, "kind", self.kind);
        word!(out, "class", self.class.as_str());
        hash!(out, "fingerprint", self.fingerprint);
        out.extend_from_slice(key!("patients"));
        list(out, self.patients, |out, hash| {
            out.push(b'"');
            out.extend_from_slice(hash);
            out.push(b'"');
        });
        out.extend_from_slice(key!("evidence"));
        list(out, self.evidence, |out, place| place.encode(out));
        if let Some(home) = self.home {
            text!(out, "home", home);
        }
        if let Some((node, pool)) = self.target {
            out.extend_from_slice(&node.targets[pool.index()]);
        }
        out.extend_from_slice(key!("candidates"));
        list(out, self.candidates, |out, candidate| candidate.encode(out));
        self.outcome.encode(out);
        out.extend_from_slice(key!("decision_us"));
        json::micros(out, self.decision_time);
        hash!(out, "config", self.config);
    }
}

impl Event<'_> {
    /// As for [`Record`].
    pub(crate) fn encode(&self, out: &mut Vec<u8>, head: &[u8]) {
        out.extend_from_slice(head);
        out.extend_from_slice(b",\"record\":\"event\"");
        word!(out, "event", self.kind.as_str());
        if let Some(who) = self.who {
            out.extend_from_slice(&who.json);
        }
        if let Some(sqlstate) = self.sqlstate {
            text!(out, "sqlstate", sqlstate);
        }
        text!(out, "detail", self.detail);
        if !self.config.is_empty() {
            text!(out, "config", self.config);
        }
    }
}

impl Place {
    fn encode(self, out: &mut Vec<u8>) {
        let (word, number): (&[u8], u64) = match self {
            Self::Literal(at) => (b"\"literal@", at.into()),
            Self::Param(n) => (b"\"$", n.into()),
            Self::CopyRow(row) => (b"\"copy row ", row),
            Self::CopyLine(line) => (b"\"copy line ", line),
            Self::Cursor => return out.extend_from_slice(b"\"cursor\""),
        };
        out.extend_from_slice(word);
        json::integer(out, number);
        out.push(b'"');
    }
}

impl Candidate<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.node.candidate);
        json::two_decimals(out, self.score);
        if let Some(why) = self.passed_over {
            word!(out, "passed_over", why);
        }
        out.push(b'}');
    }
}

impl Outcome<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Forwarded { reason, permit } => {
                out.extend_from_slice(b",\"outcome\":\"forwarded\"");
                word!(out, "reason", reason);
                text!(out, "permit", permit);
            }
            Self::Refused { reason, sqlstate, detail } => {
                out.extend_from_slice(b",\"outcome\":\"refused\"");
                word!(out, "reason", reason);
                text!(out, "sqlstate", sqlstate);
                text!(out, "detail", detail);
            }
        }
    }
}

fn list<T>(out: &mut Vec<u8>, items: &[T], encode: impl Fn(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        encode(out, item);
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::SystemTime;

    use super::*;
    use serde_json::{Value, json};

    fn parsed(body: &[u8]) -> Value {
        let line = [b"{\"seq\":1", body, b"}"].concat();
        serde_json::from_slice(&line).unwrap()
    }

    fn record<'a>(who: &'a Who, nodes: &'a [NodeName], outcome: Outcome<'a>) -> Record<'a> {
        Record {
            who,
            role: None,
            transaction: true,
            kind: "read",
            class: Class::Normal,
            fingerprint: "9f2c",
            patients: const { &[*b"0123456789abcdef0123456789abcdef"] },
            evidence: &[Place::Literal(123), Place::Param(1), Place::CopyRow(5), Place::Cursor],
            home: Some("us-east"),
            target: Some((&nodes[0], PoolKind::ReadOnly)),
            candidates: &[],
            outcome,
            decision_time: Duration::from_nanos(1_500),
            config: "abcd",
        }
    }

    #[test]
    fn forwarded_record_has_every_field() {
        let who = Who::new(7, "dr\"w\n", "10.0.0.1:5000", "general", "us-east-1");
        let nodes = ["us-east-patients/replica-1", "b\"\\"].map(|node| NodeName::new("us-east-patients", node));
        let candidates = [
            Candidate { node: &nodes[0], score: 1.25, passed_over: None },
            Candidate { node: &nodes[1], score: f32::NAN, passed_over: Some("down") },
        ];
        let outcome = Outcome::Forwarded { reason: "best_replica", permit: "home region" };
        let record = Record { candidates: &candidates, ..record(&who, &nodes, outcome) };
        let mut body = Vec::new();
        record.encode(&mut body, json::Head::new("pgward-1").at(SystemTime::UNIX_EPOCH));
        assert_eq!(
            parsed(&body),
            json!({
                "seq": 1, "time": "1970-01-01T00:00:00.000000Z", "instance": "pgward-1", "record": "decision",
                "session": 7, "user": "dr\"w\n", "client": "10.0.0.1:5000", "listener": "general",
                "origin": "us-east-1", "transaction": true, "kind": "read", "class": "normal", "fingerprint": "9f2c",
                "patients": ["0123456789abcdef0123456789abcdef"], "evidence": ["literal@123", "$1", "copy row 5", "cursor"],
                "home": "us-east", "shard": "us-east-patients", "node": "us-east-patients/replica-1",
                "pool": "readonly",
                "candidates": [
                    {"node": "us-east-patients/replica-1", "score": 1.25},
                    {"node": "b\"\\", "score": null, "passed_over": "down"},
                ],
                "outcome": "forwarded", "reason": "best_replica", "permit": "home region",
                "decision_us": 1.5, "config": "abcd",
            })
        );
    }

    #[test]
    fn refusal_says_why() {
        let who = Who::new(1, "u", "c", "l", "o");
        let outcome = Outcome::Refused { reason: "sovereignty", sqlstate: "PW005", detail: "not from here" };
        let mut body = Vec::new();
        let nodes = [NodeName::new("s", "n")];
        let role = Some("ward_reader");
        let record = Record { role, target: None, home: None, ..record(&who, &nodes, outcome) };
        record.encode(&mut body, json::Head::new("i").at(SystemTime::now()));
        let value = parsed(&body);
        assert_eq!(value["outcome"], "refused");
        assert_eq!(value["sqlstate"], "PW005");
        assert_eq!(value["detail"], "not from here");
        assert_eq!(value["role"], "ward_reader");
        assert!(value.get("shard").is_none());
    }

    #[test]
    fn event_has_the_same_envelope() {
        let who = Who::new(3, "\u{1}intruder", "::1", "general", "eu-west-1");
        let event = Event {
            kind: EventKind::LoginRefused,
            who: Some(&who),
            sqlstate: Some("28P01"),
            detail: "no such user",
            config: "abcd",
        };
        let mut body = Vec::new();
        event.encode(&mut body, json::Head::new("i").at(SystemTime::UNIX_EPOCH));
        let value = parsed(&body);
        assert_eq!(value["record"], "event");
        assert_eq!(value["event"], "login_refused");
        assert_eq!(value["user"], "\u{1}intruder");
    }
}
