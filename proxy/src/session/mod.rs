//! A client's session: a state machine over bytes, driven from one task that owns both sockets.
//!
//! [`frontend`](self) frames become [`work::Op`]s ([`simple`], [`extended`], [`local`], [`copy`]); ops are said to the
//! attached server ([`emit`]); its replies are forwarded by the queue of what is expected ([`replies`]); [`route`]
//! decides and [`attach`] takes a server from its pool. Only [`relay`] and [`attach`] wait for anything. Of a plain
//! pooler's client, frames go on as they came ([`plain`]).

mod attach;
mod behind;
#[cfg(test)]
mod chance;
mod changes;
mod closing;
mod copy;
mod cursors;
mod emit;
mod errors;
mod extended;
mod finish;
mod local;
mod lost;
mod plain;
mod portals;
mod prepared;
mod reading;
mod relay;
mod replies;
mod role;
mod room;
mod route;
mod settings;
mod simple;
mod split;
mod sql_prepared;
mod work;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use pgward_audit::Receipt;
use pgward_config::{Class, Listener, PoolMode, User};
use pgward_pools::{Lease, Node, Settings};
use pgward_router::{Cursors, Kind, Pin, Transaction};
use pgward_wire::tag::frontend as tag;
use pgward_wire::{PgError, TxStatus, backend, frame};
use smallvec::SmallVec;
use tokio::net::TcpStream;

pub(crate) use attach::{Brought, ask, change_settings};
pub(crate) use errors::refusal as refusal_error;
pub(crate) use local::{Wish, own_class};
pub(crate) use prepared::Statements;
pub(crate) use role::may_set;
pub(crate) use settings::{from_startup, of_the_connection, quoted, statements};

use crate::accepted::At;
use crate::greeting::refusable;
use crate::registry::Handle;
use crate::state::{Shared, State};
use changes::Changes;
use copy::CopyGuard;
use plain::Plain;
use portals::Portals;
use prepared::{Names, Prepared};
use route::Pending;
use split::Split;
use work::Work;

/// Who came in, by which door; fixed at login.
#[derive(Clone, Debug)]
pub(crate) struct Who {
    pub(crate) user: Arc<str>,
    pub(crate) listener: Arc<str>,
}

/// A session after login.
pub(crate) struct Session {
    shared: Arc<Shared>,
    /// The state in force since the last transaction began.
    state: Arc<State>,
    /// Positions of listener and user in `state`.
    listener: usize,
    user: usize,
    who: Who,
    audit_who: pgward_audit::Who,
    handle: Arc<Handle>,
    client: Client,
    attached: Option<Attached>,
    work: Box<Work>,
    /// The segment is complete: nothing more is taken from the client until it is answered.
    closed: bool,
    tx: Tx,
    /// Class asked for by `SET pgward.priority`.
    asked_class: Option<Class>,
    prepared: Names,
    /// The settings by which texts are read; a transaction may change them.
    reading: Arc<Settings>,
    /// `prepared` was interned under others.
    prepared_otherwise: bool,
    /// set_config may have changed, for the open transaction, how texts are read.
    read_otherwise: bool,
    /// The server has been told, in the segment under way, to change parameters.
    unsettled: bool,
    unnamed: Option<Arc<Prepared>>,
    portals: Portals,
    cursors: Cursors<Option<Arc<cursors::Touched>>>,
    settings: Arc<Settings>,
    /// By its settings, its transactions are serializable unless they say otherwise.
    serializable: bool,
    startup_settings: Arc<Settings>,
    /// Those of `settings` that a server may refuse.
    refusable: Arc<Settings>,
    /// Nodes whose servers have accepted them.
    accepted: SmallVec<[At; 4]>,
    /// Parameter changes of the open transaction.
    changes: Changes,
    /// After an error in the extended protocol, frames are skipped until Sync.
    skip_to_sync: bool,
    /// The server takes COPY rows.
    copy_in: bool,
    /// Rows of a patient table are checked before they go on.
    guard: Option<CopyGuard>,
    /// A COPY has ended before its Sync was here: until then no statement may follow.
    behind_copy: Option<behind::Ended>,
    /// A COPY whose rows may go to several shards, until the client has its answer.
    split: Option<Box<Split>>,
    /// Why the session keeps its server, if it does.
    pinned: Option<&'static str>,
    /// The decision for the statement that waits for a server.
    pending: Option<Box<Pending>>,
    /// The frame at hand is a PREPARE, whose statement has its name and waits for a server.
    preparing: bool,
    /// The decision that the segment under way was sent by, while another node could still answer it.
    sent: Option<Box<Pending>>,
    /// Why the frame at hand got no server.
    denied: Option<PgError>,
    /// A Sync that the server ignores has been sent behind the Execute of a COPY; of plain poolers only.
    early_sync: bool,
    /// Which parameters the server has is not known for certain: it is not used again.
    uncertain: bool,
    /// A change of role is under way in this segment.
    role_asked: bool,
    /// Bytes from the client and from servers that were not counted yet.
    received: u64,
    sent_back: u64,
    /// The audit records that the bytes to the server wait for.
    receipts: SmallVec<[Receipt; 1]>,
    /// A session of a plain pooler.
    plain: Option<Plain>,
}

/// The client's socket and buffers.
struct Client {
    stream: TcpStream,
    /// Received and not yet consumed.
    inbox: BytesMut,
    /// To be written.
    out: BytesMut,
    /// It has closed its side: nothing more comes.
    ended: bool,
    /// Nothing reaches it any more.
    gone: bool,
    /// How long its last read may run on once it has closed its side.
    patience: Option<std::pin::Pin<Box<tokio::time::Sleep>>>,
    /// Frames of it wait until there is less for a socket to take.
    stalled: bool,
}

impl Client {
    fn new(stream: TcpStream) -> Self {
        let (inbox, out) = (BytesMut::new(), BytesMut::new());
        Self { stream, inbox, out, ended: false, gone: false, patience: None, stalled: false }
    }
}

/// The server that the session holds.
struct Attached {
    lease: Lease,
    node: Arc<Node>,
    pin: Pin,
    kind: Kind,
    /// Only Parse and Describe were said to it: no decision stands behind it yet.
    describe_only: bool,
    /// The segment may be said to another node if this one fails before it answers.
    retry: bool,
    /// Nodes that failed this segment.
    failed: Vec<usize>,
    /// When the segment was sent.
    sent: Instant,
    /// The response time of this segment was reported.
    timed: bool,
    /// The status of its last ReadyForQuery, while nothing was sent since.
    ready: Option<TxStatus>,
}

/// The transaction as the client sees it.
#[derive(Debug)]
enum Tx {
    /// None.
    Idle,
    /// Opened by the proxy; no server has heard of it.
    Opening(Opening),
    /// On the attached server.
    Open(TxStatus),
}

/// A transaction that has no server yet.
#[derive(Debug, Default)]
struct Opening {
    /// BEGIN and what else (SAVEPOINT, SET TRANSACTION) the server is told first, with semicolons.
    texts: Vec<u8>,
    /// Length of the BEGIN that they start with.
    begin: usize,
    read_only: bool,
    /// Those of `texts` that changed its modes: the next transaction has them, too, if it is chained to this one.
    modes: Vec<u8>,
    /// A server has refused one of `texts`.
    refused: bool,
    /// A statement failed: only ROLLBACK helps.
    failed: bool,
    /// A Query with its COMMIT looks for a server: the transaction ends, whatever comes of that.
    committing: bool,
    /// It had a server, which is lost with all that was done there: not even ROLLBACK TO helps.
    lost: Option<Lost>,
}

/// Whether the client knows that the server of its transaction is lost.
#[derive(Debug)]
enum Lost {
    /// Not yet: this answers its next statement.
    Untold(PgError),
    Told,
}

/// What a frame came to.
enum Step {
    /// Consumed.
    Done,
    /// Not consumed: a server must be attached first.
    Attach(Need),
    /// Not consumed: the segment under way must end first.
    Wait,
    /// Terminate.
    Leave,
}

/// Whether statements of this kind only read.
fn is_read(kind: Kind) -> bool {
    matches!(kind, Kind::Read | Kind::Analytics)
}

/// Why a server is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// To run what `pending` decides.
    Run,
    /// To parse and describe: the origin's home shard.
    Describe,
    /// To take rows of a COPY for shards that it has not touched before.
    Legs,
}

/// What to do after the frames at hand.
enum Flow {
    /// Read or relay.
    Io,
    /// Attach a server, then go on with the same frame.
    Attach(Need),
    /// The client says goodbye.
    Leave,
}

/// The session cannot go on: the client is told, then disconnected.
#[derive(Debug)]
pub(crate) struct Fatal(pub(crate) PgError);

impl Session {
    #[allow(clippy::too_many_arguments, reason = "called once, by the login that has just gathered these")]
    pub(crate) fn new(
        shared: Arc<Shared>,
        state: Arc<State>,
        listener: usize,
        user: usize,
        address: SocketAddr,
        handle: Arc<Handle>,
        stream: TcpStream,
        startup_settings: Arc<Settings>,
        asked_class: Option<Class>,
    ) -> Self {
        let who = Who {
            user: Arc::clone(&state.config.users[user].name),
            listener: Arc::clone(&state.config.listeners[listener].name),
        };
        let origin = state.config.listeners[listener].origin.as_str();
        let audit_who = pgward_audit::Who::new(handle.id, &who.user, &address.to_string(), &who.listener, origin);
        Self {
            refusable: refusable(&startup_settings),
            accepted: SmallVec::new(),
            serializable: settings::is_serializable(&startup_settings),
            settings: Arc::clone(&startup_settings),
            shared,
            state,
            listener,
            user,
            who,
            audit_who,
            handle,
            client: Client::new(stream),
            attached: None,
            work: Work::take(),
            closed: false,
            tx: Tx::Idle,
            asked_class,
            prepared: Names::default(),
            reading: reading::read_by(&startup_settings),
            prepared_otherwise: false,
            read_otherwise: false,
            unsettled: false,
            startup_settings,
            unnamed: None,
            portals: Portals::default(),
            cursors: Cursors::default(),
            changes: Changes::default(),
            skip_to_sync: false,
            copy_in: false,
            guard: None,
            behind_copy: None,
            split: None,
            pinned: None,
            pending: None,
            preparing: false,
            sent: None,
            denied: None,
            early_sync: false,
            uncertain: false,
            role_asked: false,
            received: 0,
            sent_back: 0,
            receipts: SmallVec::new(),
            plain: None,
        }
    }

    /// Deals with the frames at hand, until more bytes, a server or an answer is needed.
    fn frames(&mut self) -> Result<Flow, Fatal> {
        if self.client.inbox.is_empty() {
            return Ok(Flow::Io);
        }
        let mut inbox = std::mem::take(&mut self.client.inbox);
        let (consumed, flow) = self.frames_of(&inbox);
        inbox.advance(consumed);
        if inbox.is_empty() {
            work::give_buffer(inbox);
        } else {
            self.client.inbox = inbox;
        }
        flow
    }

    /// Deals with these frames as far as it can: how many bytes are done with, and what is needed to go on.
    fn frames_of(&mut self, bytes: &[u8]) -> (usize, Result<Flow, Fatal>) {
        let mut pos = 0;
        let flow = loop {
            if self.is_full() {
                self.client.stalled = true;
                break Ok(Flow::Io);
            }
            match self.next_frame(&bytes[pos..]) {
                Ok(Some((len, Step::Done))) => {
                    pos += len;
                    self.work.weigh(len);
                }
                Ok(Some((_, Step::Attach(need)))) => break Ok(Flow::Attach(need)),
                Ok(Some((_, Step::Leave))) => break Ok(Flow::Leave),
                Ok(Some((_, Step::Wait)) | None) => break Ok(Flow::Io),
                Err(fatal) => break Err(fatal),
            }
        };
        (pos, flow)
    }

    /// Deals with the next whole frame, if there is one; its length, and what it came to.
    fn next_frame(&mut self, bytes: &[u8]) -> Result<Option<(usize, Step)>, Fatal> {
        let Some(header) = frame::header(bytes)? else { return Ok(None) };
        let limit = self.state.config.proxy.max_message_bytes;
        if header.len > limit {
            return Err(Fatal(errors::message_too_large(header.len, limit)));
        }
        if bytes.len() < header.len {
            return Ok(None);
        }
        if self.is_split_ending() {
            return Ok(Some((header.len, Step::Wait)));
        }
        if self.takes_rows() {
            if !is_copy_traffic(header.tag) {
                return match header.tag {
                    tag::TERMINATE => Ok(Some((header.len, Step::Leave))),
                    other => Err(Fatal(errors::not_copy_traffic(other))),
                };
            }
        } else if (self.closed || self.work.copy_asked) && !self.takes_now(header.tag) {
            return Ok(Some((header.len, Step::Wait)));
        } else if self.work.is_heavy()
            && let Some(step) = self.make_room(header.tag)
        {
            return Ok(Some((header.len, step)));
        }
        let (frame, behind) = bytes.split_at(header.len);
        let step = self.frame(header.tag, frame, behind)?;
        Ok(Some((header.len, step)))
    }

    /// A COPY … FROM STDIN is under way, and the client has not ended it.
    fn takes_rows(&self) -> bool {
        self.copy_in || self.guard.is_some()
    }

    /// Behind a Sync that came before the rows of its COPY, the end of those and one more Sync are still taken: the server
    /// waits for them.
    fn takes_now(&self, tag: u8) -> bool {
        self.early_sync && is_copy_traffic(tag)
    }

    /// Deals with one frame; `behind` is what has come of those after it.
    fn frame(&mut self, tag: u8, frame: &[u8], behind: &[u8]) -> Result<Step, Fatal> {
        let body = &frame[frame::HEADER_BYTES..];
        if !body.is_empty() && matches!(tag, tag::SYNC | tag::FLUSH | tag::COPY_DONE | tag::TERMINATE) {
            return Err(Fatal(errors::invalid_format()));
        }
        self.handle.set_idle_in_transaction(None);
        if self.skip_to_sync && tag != tag::SYNC && tag != tag::TERMINATE {
            return Ok(Step::Done);
        }
        if self.is_too_late(tag) {
            return Ok(self.refuse_too_late(tag));
        }
        self.begin_segment()?;
        if self.plain.is_some() {
            return self.plain_frame(tag, frame, body);
        }
        match tag {
            tag::QUERY => self.query(body),
            tag::PARSE => self.parse(body),
            tag::BIND => self.bind(body, behind),
            tag::DESCRIBE => self.describe(frame, body),
            tag::EXECUTE => self.execute(frame, body),
            tag::CLOSE => self.close(frame, body),
            tag::FLUSH => self.flush(),
            tag::SYNC => self.sync(),
            tag::COPY_DATA => self.copy_data(frame, body),
            tag::COPY_DONE => self.copy_done(frame, behind),
            tag::COPY_FAIL => self.copy_fail(frame),
            tag::TERMINATE => Ok(Step::Leave),
            tag::FUNCTION_CALL => {
                self.refuse(&errors::function_call(), true);
                Ok(Step::Done)
            }
            other => Err(Fatal(errors::unknown_message(other))),
        }
    }

    /// A new segment outside of a transaction takes the state that is in force now.
    fn begin_segment(&mut self) -> Result<(), Fatal> {
        self.rename_prepared();
        if self.attached.is_some() || !matches!(self.tx, Tx::Idle) || !self.work.ops.is_empty() || self.guard.is_some()
        {
            return Ok(());
        }
        let current = self.shared.state.load();
        if Arc::ptr_eq(&current, &self.state) {
            return Ok(());
        }
        let state = Arc::clone(&current);
        let listener = state.config.listeners.iter().position(|listener| listener.name == self.who.listener);
        let name = if self.plain.is_some() { pgward_config::Plain::ANYBODY } else { &*self.who.user };
        let user = state.config.users.iter().position(|user| &*user.name == name);
        let (Some(listener), Some(user)) = (listener, user) else {
            return Err(Fatal(errors::no_longer_allowed(&self.who.user, &self.who.listener)));
        };
        if self.has_lost_its_node(&state) {
            return Err(Fatal(errors::no_longer_allowed(&self.who.user, &self.who.listener)));
        }
        (self.listener, self.user, self.state) = (listener, user, state);
        if !self.role_is_allowed() {
            return Err(Fatal(errors::role_no_longer_allowed(&self.who.user)));
        }
        self.accepted.clear();
        self.analyse_again();
        // A ceiling that was lowered lowers what was asked for under the old one.
        if self.asked_class.is_some_and(|class| !self.ceiling().allows(class)) {
            self.asked_class = None;
        }
        Ok(())
    }

    /// What was prepared under another state is analysed by the one in force.
    fn analyse_again(&mut self) {
        let Self { state, shared, prepared, unnamed, reading, .. } = self;
        let again = |statement: &Arc<Prepared>| {
            let analysed = state.analyser.analyse(&statement.text).ok()?;
            let types = statement.types.clone();
            Some(shared.statements.intern(&statement.text, types, analysed, state.generation, reading))
        };
        // The text was accepted before by the same grammar; if not, the client is told that it is not prepared.
        prepared.replace_all(again);
        // Never shared: a server's unnamed statement is told from a named one of the same text by its id.
        *unnamed = unnamed.as_ref().and_then(|statement| {
            let analysed = state.analyser.analyse(&statement.text).ok()?;
            Some(Arc::new(Prepared::new(&statement.text, statement.types.clone(), analysed)))
        });
    }

    fn user(&self) -> &User {
        &self.state.config.users[self.user]
    }

    fn listener(&self) -> &Listener {
        &self.state.config.listeners[self.listener]
    }

    /// The class in force.
    fn class(&self) -> Class {
        self.listener().class_of(self.asked_class, self.user())
    }

    /// The highest class that the session may ask for.
    fn ceiling(&self) -> Class {
        self.user().ceiling
    }

    fn pool_mode(&self) -> PoolMode {
        self.listener().pool_mode.unwrap_or(self.user().pool_mode)
    }

    /// The transaction as a decision sees it.
    fn transaction(&self) -> Transaction {
        match (&self.attached, &self.tx) {
            (Some(attached), _) if !attached.describe_only => Transaction::Pinned(attached.pin),
            (_, Tx::Opening(opening)) => Transaction::Opening { read_only: opening.read_only },
            _ => Transaction::None,
        }
    }

    /// The status that the client sees in ReadyForQuery.
    fn status(&self) -> TxStatus {
        match &self.tx {
            Tx::Idle => TxStatus::Idle,
            Tx::Opening(opening) if opening.failed => TxStatus::Failed,
            Tx::Opening(_) => TxStatus::InTransaction,
            Tx::Open(status) => *status,
        }
    }

    /// Keeps a decision while its segment can still be said to another node.
    fn keep_for_retry(&mut self, pending: Box<Pending>) {
        let Some(attached) = &mut self.attached else { return };
        if let Some(decision) = pending.decisions.iter().find(|decision| !is_read(decision.kind)) {
            attached.kind = decision.kind;
        }
        if attached.retry && pending.repeatable && self.sent.is_none() {
            self.sent = Some(pending);
        } else {
            // One decision can be made anew; a second statement would go to another node without a record.
            attached.retry = false;
            self.sent = None;
        }
    }

    /// Says the ops at hand to the attached server, if there is one.
    fn emit(&mut self) {
        if let Some(attached) = &mut self.attached {
            if self.work.emitted < self.work.ops.len() {
                attached.ready = None;
            }
            let again = attached.retry || self.work.may_repair();
            let hold = if again { emit::Hold::UntilAnswered } else { emit::Hold::No };
            emit::emit(&mut self.work, &mut attached.lease.memory, &mut self.client.out, hold);
            if !again {
                // What cannot be said again need not be kept.
                self.work.forget_emitted();
            }
        }
    }

    /// The attached server only parses and describes; no decision stands behind it.
    fn describes(&self) -> bool {
        self.attached.as_ref().is_some_and(|attached| attached.describe_only)
    }

    /// A reply of the proxy's own, in its turn.
    fn reply(&mut self, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        if self.attached.is_some() {
            self.work.ops.push(work::Op::Fake(bytes));
            self.emit();
        } else if self.work.ops.is_empty() {
            self.client.out.extend_from_slice(&bytes);
        } else {
            self.work.ops.push(work::Op::Fake(bytes));
        }
    }

    /// ReadyForQuery of the proxy's own.
    fn reply_ready(&mut self) {
        let mut bytes = BytesMut::with_capacity(6);
        backend::put_ready_for_query(&mut bytes, self.status());
        self.reply(bytes);
    }

    /// Refuses the statement at hand: told to the client in its turn, with the transaction failed as on a server.
    fn refuse(&mut self, error: &PgError, simple: bool) {
        let mut bytes = BytesMut::with_capacity(256);
        backend::put_error(&mut bytes, error);
        if simple && matches!(self.tx, Tx::Opening(Opening { committing: true, .. })) {
            self.tx = Tx::Idle;
            self.undo_changes();
        } else if let Tx::Opening(opening) = &mut self.tx {
            opening.failed = true;
            opening.lost = opening.lost.take().map(|_| Lost::Told);
        }
        if self.attached.is_some() {
            self.work.ops.push(work::Op::Refuse { error: bytes.freeze(), simple });
            self.emit();
            self.closed |= simple;
        } else {
            let deferred = self.fail_deferred(&bytes);
            if simple && !deferred {
                return self.reply_ready();
            }
            self.skip_to_sync = true;
            return;
        }
        self.skip_to_sync |= !simple;
    }

    /// The segment fails before it has a server: the error answers the first message that waits for one, and what stands
    /// behind that is skipped, since no server has said that it would take it. Whether there was such a message.
    fn fail_deferred(&mut self, error: &[u8]) -> bool {
        let mut ops = std::mem::take(&mut self.work.ops);
        let answered = ops.iter().position(|op| op.own_reply().is_none());
        let upto = answered.unwrap_or(ops.len());
        for reply in ops[..upto].iter().filter_map(work::Op::own_reply) {
            self.client.out.extend_from_slice(reply);
        }
        self.client.out.extend_from_slice(error);
        for skipped in ops.drain(upto..).rev().filter_map(work::Op::into_skipped) {
            self.undo(skipped);
        }
        self.work.ops = ops;
        self.work.clear_segment();
        answered.is_some()
    }
}

/// What may come while rows of a COPY are taken. Sync and Flush are ignored then: drivers send them behind an Execute
/// without knowing that it is a COPY.
fn is_copy_traffic(tag: u8) -> bool {
    matches!(tag, tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL | tag::SYNC | tag::FLUSH)
}

impl From<pgward_wire::ProtocolError> for Fatal {
    fn from(error: pgward_wire::ProtocolError) -> Self {
        Self(error.into())
    }
}
