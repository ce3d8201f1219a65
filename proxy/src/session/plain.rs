//! A session of a plain pooler: every message goes to its server as sent, and no statement is refused.
//!
//! In session mode the server is its own from login to the end. Nothing is analysed, since nothing is decided: what the
//! client prepared, set and locked is on its server, by the names that it gave.
//!
//! In transaction mode it borrows one of those that it shares with clients of the same startup packet, which all of them
//! began with. What a statement may leave behind in the session (SET, PREPARE, a named Parse, LISTEN, temporary tables,
//! and whatever the grammar does not know) keeps the server with the client from then on. What is not proven to only
//! read may run functions that leave something too: a server that ran such is wiped before anybody else gets it.
//!
//! Only which answers are to come is followed, as for every session, so that the client's messages and the server's stay
//! in step, and the record of each statement is written before it is sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use pgward_audit::{Outcome, Receipt, Record};
use pgward_config::PoolKind;
use pgward_pools::{AcquireError, Clean, Guest, Lease, Node};
use pgward_router::{Action, Analysed, Kind, NoParams, Pin};
use pgward_wire::frontend::{Bind, Close, Describe, Object, Parse};
use pgward_wire::tag::frontend as tag;
use pgward_wire::{PgError, TxStatus, frontend};

use super::work::Expect;
use super::{Attached, Fatal, Need, Session, Step, Tx, attach, errors};
use crate::cancel::under_way::{self, Sent, UnderWay};
use crate::plain::LoggedIn;
use crate::state::State;

/// The server's own shard and node: there is one of each.
const PRIMARY: Pin = Pin { shard: 0, node: 0, pool: PoolKind::General };

/// What a session of a plain pooler has beside the others.
pub(super) struct Plain {
    /// The server's last words have been passed on: nothing is to be said behind them.
    farewell: bool,
    /// Where servers are borrowed from; `None` for a session that has its own.
    guest: Option<Guest>,
    /// The grammar reads the client's texts as the server does.
    readable: bool,
    /// The last Parse of the unnamed statement, whole, for servers that have not heard it.
    unnamed: Option<Bytes>,
    /// The attached server has that statement.
    has_unnamed: bool,
    /// The attached server has run what may have left something in its session.
    touched: bool,
}

/// What a text may leave behind in the session that ran it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaves {
    Nothing,
    /// Something that the text does not show: of functions and triggers.
    Perhaps,
    /// Something that the client counts on.
    State(&'static str),
}

impl Session {
    /// The session of a client who logged in at the server, under this name.
    pub(crate) fn of_plain(mut self, user: Arc<str>, address: &str, logged_in: LoggedIn) -> Self {
        let origin = self.listener().origin.clone();
        self.audit_who = pgward_audit::Who::new(self.handle.id, &user, address, &self.who.listener, origin.as_str());
        self.who.user = user;
        let plain = |guest, readable| Plain {
            farewell: false,
            guest,
            readable,
            unnamed: None,
            has_unnamed: false,
            touched: false,
        };
        match logged_in {
            LoggedIn::Own { lease, node, .. } => {
                self.plain = Some(plain(None, false));
                // Nothing is asked yet.
                self.install_plain(lease, node, true);
            }
            LoggedIn::Shared { guest, readable } => self.plain = Some(plain(Some(guest), readable)),
        }
        self
    }

    fn install_plain(&mut self, lease: Lease, node: Arc<Node>, idle: bool) {
        self.work.begin_server();
        self.handle.attach(lease.cancel_target(), &node, false);
        self.handle.set_awaiting(if idle { 0 } else { self.shared.registry.now() });
        if let Some(plain) = &mut self.plain {
            (plain.has_unnamed, plain.touched) = (false, false);
        }
        self.attached = Some(Attached {
            lease,
            node,
            pin: PRIMARY,
            kind: Kind::Write,
            describe_only: false,
            retry: false,
            failed: Vec::new(),
            sent: Instant::now(),
            timed: idle,
            ready: Some(TxStatus::Idle),
        });
    }

    /// Whether the session has a server of its own, to which messages go as they came.
    pub(super) fn relays_as_sent(&self) -> bool {
        self.plain.as_ref().is_some_and(|plain| plain.guest.is_none())
    }

    /// Whether a reload has put another node, or none, in the place of the one that servers are borrowed from.
    pub(super) fn has_lost_its_node(&self, state: &State) -> bool {
        let guest = self.plain.as_ref().and_then(|plain| plain.guest.as_ref());
        guest.is_some_and(|guest| !state.fleet.nodes().any(|node| Arc::ptr_eq(node, guest.node())))
    }

    /// Borrows a server for the frame at hand; when none can be had, the frame is answered with `self.denied`.
    pub(super) async fn attach_shared(&mut self) {
        let Some(guest) = self.plain.as_ref().and_then(|plain| plain.guest.clone()) else {
            self.denied = Some(errors::internal("a session has lost its own server"));
            return;
        };
        match guest.acquire(self.class()).await {
            Ok(lease) => self.install_plain(lease, Arc::clone(guest.node()), false),
            Err(AcquireError::Connect(error)) => {
                self.denied = Some(errors::cannot_connect(guest.node().id.as_str(), &error.to_string()));
            }
            Err(error) => {
                self.denied = Some(errors::acquire(&error, guest.node().id.as_str(), PRIMARY.pool, self.class()));
            }
        }
    }

    /// Borrows a server that is idle, without waiting: true if one is attached now.
    fn attach_shared_at_once(&mut self) -> bool {
        let Some(guest) = self.plain.as_ref().and_then(|plain| plain.guest.clone()) else { return false };
        let Some(lease) = guest.try_acquire(self.class()) else { return false };
        self.install_plain(lease, Arc::clone(guest.node()), false);
        true
    }

    /// Passes one frame on.
    pub(super) fn plain_frame(&mut self, kind: u8, frame: &[u8], body: &[u8]) -> Result<Step, Fatal> {
        let simple = matches!(kind, tag::QUERY | tag::FUNCTION_CALL);
        if let Some(error) = self.denied.take() {
            self.refuse(&error, simple);
            return Ok(Step::Done);
        }
        let expect = match kind {
            tag::QUERY => Expect::Query { effects: None, done: 0 },
            tag::FUNCTION_CALL => Expect::FunctionCall,
            // Nothing that the proxy keeps has this number: names are the client's and the server's.
            tag::PARSE => Expect::Parse { id: 0, name: None },
            tag::BIND => Expect::Bind { id: 0 },
            tag::DESCRIBE => Expect::Describe { id: None },
            tag::EXECUTE => Expect::Execute { effects: None },
            tag::CLOSE => Expect::Close,
            tag::FLUSH => {
                // While it takes rows, a server ignores it.
                self.pass(frame);
                return Ok(Step::Done);
            }
            tag::SYNC => return self.plain_sync(frame),
            tag::COPY_DATA => return self.copy_data(frame, body),
            tag::COPY_DONE => return self.copy_done(frame, &[]),
            tag::COPY_FAIL => return self.copy_fail(frame),
            tag::TERMINATE => return Ok(Step::Leave),
            other => return Err(Fatal(errors::unknown_message(other))),
        };
        if self.attached.is_none() && !self.attach_shared_at_once() {
            return Ok(Step::Attach(Need::Run));
        }
        let fingerprint = match self.look_after(kind, frame, body) {
            Ok(fingerprint) => fingerprint,
            Err(error) => {
                self.refuse(&error, simple);
                return Ok(Step::Done);
            }
        };
        if simple && self.work.is_unsynced() {
            // Servers of version 18 may leave the transaction open and say that there is none: wiping it fails then.
            self.touch();
        }
        self.work.unsynced |= kind == tag::EXECUTE;
        if simple || kind == tag::EXECUTE {
            self.record_plain(fingerprint.as_deref().unwrap_or_default()).map_err(Fatal)?;
        }
        self.work.expects.push_back(expect);
        self.pass(frame);
        self.closed = simple;
        Ok(Step::Done)
    }

    fn plain_sync(&mut self, frame: &[u8]) -> Result<Step, Fatal> {
        if self.takes_rows() {
            return Ok(Step::Done);
        }
        self.skip_to_sync = false;
        self.work.unsynced = false;
        if self.attached.is_none() {
            self.reply_ready();
            return Ok(Step::Done);
        }
        // The server ignored the Sync that came before the COPY rows; what it was expected to bring, this one brings.
        if !std::mem::take(&mut self.early_sync) {
            self.work.expects.push_back(Expect::Sync);
        }
        self.pass(frame);
        self.closed = true;
        Ok(Step::Done)
    }

    fn pass(&mut self, frame: &[u8]) {
        let Some(attached) = &mut self.attached else { return };
        attached.ready = None;
        self.work.to_server.extend_from_slice(frame);
    }

    /// Sees to what a frame leaves behind on a server that is borrowed, and to what it counts on there. The fingerprint of
    /// its text, where it has one that is read.
    ///
    /// # Errors
    /// As many servers of the pool are kept as may be; 08P01 for a frame that is not one.
    fn look_after(&mut self, kind: u8, frame: &[u8], body: &[u8]) -> Result<Option<Arc<str>>, PgError> {
        if self.relays_as_sent() {
            return Ok(None);
        }
        let (text, named) = match kind {
            tag::QUERY => (frontend::query(body)?, false),
            tag::PARSE => {
                let parse = Parse::from_body(body)?;
                (parse.text, !parse.name.is_empty())
            }
            tag::BIND if Bind::from_body(body)?.statement.is_empty() => {
                self.say_unnamed();
                return Ok(None);
            }
            tag::DESCRIBE => {
                let describe = Describe::from_body(body)?;
                if describe.kind == Object::Statement && describe.name.is_empty() {
                    self.say_unnamed();
                }
                return Ok(None);
            }
            tag::CLOSE => {
                let close = Close::from_body(body)?;
                if close.kind == Object::Statement
                    && close.name.is_empty()
                    && let Some(plain) = &mut self.plain
                {
                    plain.unnamed = None;
                }
                return Ok(None);
            }
            tag::FUNCTION_CALL => {
                self.touch();
                return Ok(None);
            }
            _ => return Ok(None),
        };
        let (leaves, fingerprint) = self.leaves(text);
        match leaves {
            _ if named => self.keep_server("prepared statement")?,
            Leaves::State(why) => self.keep_server(why)?,
            Leaves::Perhaps => self.touch(),
            Leaves::Nothing => {}
        }
        if let Some(plain) = &mut self.plain
            && !named
        {
            // A Query destroys the unnamed statement.
            plain.unnamed = (kind == tag::PARSE).then(|| Bytes::copy_from_slice(frame));
            plain.has_unnamed = kind == tag::PARSE;
        }
        Ok(fingerprint)
    }

    fn touch(&mut self) {
        if let Some(plain) = &mut self.plain {
            plain.touched = true;
        }
    }

    /// The unnamed statement lives on behind its transaction: a server that has not heard it is told ahead.
    fn say_unnamed(&mut self) {
        let Some(plain) = self.plain.as_mut().filter(|plain| !plain.has_unnamed) else { return };
        let Some(parse) = plain.unnamed.clone() else { return };
        // What it may do was seen when it was parsed, on a server that is another's now.
        (plain.has_unnamed, plain.touched) = (true, true);
        self.work.expects.push_back(Expect::SilentParse { id: 0 });
        self.pass(&parse);
    }

    /// The client keeps its server from now on, whether the statement succeeds or not.
    fn keep_server(&mut self, why: &'static str) -> Result<(), PgError> {
        if self.pinned.is_some() {
            return Ok(());
        }
        if let Some(attached) = &mut self.attached
            && let Err(limit) = attached.lease.pin()
        {
            return Err(errors::too_many_pinned(why, attached.lease.pool(), attached.node.id.as_str(), limit));
        }
        self.pinned = Some(why);
        Ok(())
    }

    /// What a text may leave behind, and its fingerprint.
    fn leaves(&self, text: &[u8]) -> (Leaves, Option<Arc<str>>) {
        let readable = self.plain.as_ref().is_some_and(|plain| plain.readable);
        let analyser = &self.state.analyser;
        let Some(analysed) = readable.then(|| analyser.analyse(text).ok()).flatten() else {
            return (Leaves::State("statement that cannot be analysed"), None);
        };
        let fingerprint = Some(Arc::clone(&analysed.shape.fingerprint));
        // Temporary objects of any kind are named so where the grammar does not say it.
        if text.windows(7).any(|word| word.eq_ignore_ascii_case(b"pg_temp")) {
            return (Leaves::State("temporary object"), fingerprint);
        }
        let each = (0..analysed.shape.statements.len()).map(|n| {
            let of_one = leaves_of(&analysed, n);
            match analyser.evidence(&analysed, n, text, &NoParams) {
                Err(_) if of_one != Leaves::Nothing => Leaves::State("statement that cannot be analysed"),
                _ => of_one,
            }
        });
        let worst = each.max_by_key(|leaves| match leaves {
            Leaves::Nothing => 0,
            Leaves::Perhaps => 1,
            Leaves::State(_) => 2,
        });
        (worst.unwrap_or(Leaves::Nothing), fingerprint)
    }

    /// The record that a statement goes to the one server there is. One that is not looked at has no fingerprint.
    ///
    /// # Errors
    /// 58030 when it cannot be written; nothing is passed on then, and the session ends.
    fn record_plain(&mut self, fingerprint: &str) -> Result<(), PgError> {
        let record = Record {
            who: &self.audit_who,
            role: None,
            transaction: !matches!(self.tx, Tx::Idle),
            kind: Kind::Write.as_str(),
            class: self.class(),
            fingerprint,
            patients: &[],
            evidence: &[],
            home: None,
            target: Some((&self.state.names[PRIMARY.shard][PRIMARY.node], PRIMARY.pool)),
            candidates: &[],
            outcome: Outcome::Forwarded { reason: "plain", permit: "no patient tables" },
            decision_time: Duration::ZERO,
            config: &self.state.config.hash,
        };
        match self.shared.audit.append(&record, self.shared.registry.wall(Instant::now())) {
            Ok(Receipt::Done) => {}
            Ok(receipt) => self.receipts.push(receipt),
            Err(error) => {
                self.shared.metrics.audit_failures.increment(1);
                return Err(errors::audit(&error));
            }
        }
        self.shared.metrics.forwarded(Kind::Write);
        Ok(())
    }

    /// The server says that it ends, in words that a client of its own is told as they are.
    pub(super) fn note_farewell(&mut self) {
        if let Some(plain) = &mut self.plain {
            plain.farewell = true;
        }
    }

    pub(super) fn has_heard_farewell(&self) -> bool {
        self.plain.as_ref().is_some_and(|plain| plain.farewell)
    }

    /// The client left: so does its server, which is told where it waits for a message; in the midst of one, what is
    /// said would be taken for the rest of it.
    pub(super) fn close_plain(&self, attached: Attached) {
        match attached.ready.and_then(|status| Clean::prove(status, self.outstanding())) {
            Some(clean) => attached.lease.release(clean),
            None => drop(attached),
        }
    }

    /// Gives a borrowed server back: wiped first, where it may have kept something.
    pub(super) fn release_shared(&mut self, mut lease: Lease, clean: Option<Clean>, cancel: Option<Arc<UnderWay>>) {
        let Some(clean) = clean else { return };
        let patience = self.state.config.proxy.connect_timeout;
        let touched = self.plain.as_ref().is_some_and(|plain| plain.touched);
        match (touched, cancel) {
            (false, None) => lease.release(clean),
            (false, Some(cancel)) => drop(tokio::spawn(under_way::hold(lease, cancel, patience))),
            (true, cancel) => drop(tokio::spawn(async move {
                // One that hits the wiping makes it fail, and the server is closed.
                if let Some(cancel) = cancel
                    && cancel.ended().await == Sent::Lost
                {
                    return;
                }
                let mut changed = BytesMut::new();
                let wiped = tokio::time::timeout(patience, attach::ask(&mut lease, "DISCARD ALL", &mut changed));
                if let Ok(Ok(None)) = wiped.await {
                    lease.release(clean);
                }
            })),
        }
    }
}

/// What one statement may leave behind in the session.
fn leaves_of(analysed: &Analysed, n: usize) -> Leaves {
    let Some(statement) = analysed.shape.statements.get(n) else { return Leaves::Nothing };
    if !statement.sets.is_empty() {
        return Leaves::State("set_config");
    }
    match &statement.action {
        Action::Begin { .. }
        | Action::Commit { .. }
        | Action::Rollback { .. }
        | Action::Savepoint(_)
        | Action::Release(_)
        | Action::RollbackTo(_)
        | Action::SetTransaction { .. }
        | Action::Show(_) => Leaves::Nothing,
        Action::Run | Action::CopyTo | Action::Fetch(_) | Action::Close(_) | Action::Declare { hold: false, .. }
            if statement.reads_only =>
        {
            Leaves::Nothing
        }
        Action::Run
        | Action::CopyTo
        | Action::CopyFrom(_)
        | Action::Fetch(_)
        | Action::Close(_)
        | Action::Declare { hold: false, .. }
        | Action::TwoPhase => Leaves::Perhaps,
        Action::Set(setting) if setting.local => Leaves::Nothing,
        Action::Set(_) | Action::Reset(_) => Leaves::State("SET"),
        Action::Prepare(_) | Action::PreparePatients(_) | Action::Execute(_) | Action::Deallocate(_) => {
            Leaves::State("SQL-level PREPARE")
        }
        Action::Listen => Leaves::State("LISTEN"),
        Action::Declare { hold: true, .. } => Leaves::State("cursor WITH HOLD"),
        Action::Discard { .. } => Leaves::State("DISCARD"),
        Action::Pins => Leaves::State("temporary table or session advisory lock"),
    }
}
