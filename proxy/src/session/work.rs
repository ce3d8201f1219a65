//! What a session holds while statements are under way, and gives back when it is idle.
//!
//! An idle client keeps no buffer: a [`Work`] is taken from its thread's stock when a segment begins and returned when
//! the server is released. A *segment* is what the client sends up to a Query or a Sync: the unit that PostgreSQL
//! answers with one ReadyForQuery.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use pgward_wire::{TxStatus, backend};

use super::cursors::Declared;
use super::prepared::Prepared;
use super::settings::Change;

/// Buffers larger than this are not kept for the next session.
const KEEP_BYTES: usize = 64 * 1024;
/// A longer segment is not kept to be said anew.
const REPAIR_OPS: usize = 64;
/// What the messages may weigh that are not answered yet.
const UNANSWERED_MAX: usize = 512 * 1024;
/// What a message weighs beside its bytes, by what is kept of it.
const MESSAGE_WEIGHT: usize = 128;
/// Works kept for each thread.
const KEEP_WORKS: usize = 256;

/// What the client asked for in this segment, in order, free of names that only the client knows: it can be said to
/// any server, and again to another one when the first dies before it answered.
#[derive(Debug)]
pub(crate) enum Op {
    /// A simple Query: text in the arena.
    Query { text: Range<usize>, effects: Effects },
    /// Parse of a named or the unnamed statement; `name` is the client's.
    Parse { statement: Arc<Prepared>, name: Option<Box<[u8]>> },
    /// SQL-level PREPARE: a Parse that is answered as the Query that it came as, in which so many characters stand before
    /// the statement.
    Prepare { statement: Arc<Prepared>, name: Box<[u8]>, before: usize },
    /// SQL-level EXECUTE: Bind, Describe and Execute of the unnamed portal, answered as the Query that it came as. The
    /// Bind's body is in the arena.
    Call { statement: Arc<Prepared>, body: Range<usize>, effects: Effects },
    /// Bind: body in the arena.
    Bind { statement: Arc<Prepared>, named: bool, body: Range<usize> },
    /// Describe of a statement.
    Describe { statement: Arc<Prepared>, named: bool },
    /// Execute: whole frame in the arena.
    Execute { frame: Range<usize>, effects: Effects },
    /// A COPY … FROM STDIN whose client was told to send rows before a server was known; `simple`: it came as a Query, and
    /// is said as one.
    CopyRows { text: Range<usize>, simple: bool },
    /// Flush.
    Flush,
    /// A frame that goes as it is (Describe and Close of a portal, CopyData, CopyDone, CopyFail), with what answers it.
    Raw { frame: Range<usize>, answer: Option<Answer> },
    /// Sync.
    Sync,
    /// A reply that the proxy makes itself, in its turn.
    Fake(Bytes),
    /// Close of a statement, which only the client's name is gone by; `name` is the client's.
    /// Its `reply` is empty where DEALLOCATE has one of its own.
    CloseStatement { name: Option<Box<[u8]>>, statement: Arc<Prepared>, reply: &'static [u8] },
    /// The statement was refused with this ErrorResponse: the server is made to fail in its stead, so that the
    /// transaction fails on both sides. `simple`: in answer to a Query.
    Refuse { error: Bytes, simple: bool },
    /// Ends the segment on this server without the client's knowledge.
    SilentSync,
    /// Sync, on a server that has not heard of the client's transaction.
    ForeignSync { status: TxStatus },
}

impl Op {
    /// The reply to what no server is asked for.
    pub(crate) fn own_reply(&self) -> Option<&[u8]> {
        match self {
            Self::Fake(bytes) => Some(bytes),
            Self::CloseStatement { reply, .. } => Some(reply),
            _ => None,
        }
    }

    /// What is undone of the client's names when it is skipped.
    pub(crate) fn into_skipped(self) -> Option<Skipped> {
        match self {
            Self::Parse { statement, name } => Some(Skipped::Parse { name, id: statement.id }),
            Self::Prepare { statement, name, .. } => Some(Skipped::Parse { name: Some(name), id: statement.id }),
            Self::CloseStatement { name, statement, .. } => Some(Skipped::Close { name, statement }),
            _ => None,
        }
    }
}

/// The reply that ends the answer to a raw frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// RowDescription or NoData.
    Describe,
    /// CloseComplete.
    Close,
}

/// What the success of each statement of a message changes in the session; `None` for plain statements.
pub(crate) type Effects = Option<Box<[Effect]>>;

/// What the success of one statement changes in the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing.
    None,
    /// Parameters of the session.
    Set(Vec<Change>),
    /// SET LOCAL.
    SetLocal(Change),
    /// RESET ALL.
    ResetAll,
    /// BEGIN, or AND CHAIN behind what ended a block.
    Begin,
    /// SAVEPOINT: parameters set after it are undone by ROLLBACK TO.
    Savepoint(Arc<str>),
    /// RELEASE SAVEPOINT.
    Release(Arc<str>),
    /// ROLLBACK TO SAVEPOINT.
    RollbackTo(Arc<str>),
    /// COPY … FROM STDIN: the server takes rows first.
    CopyIn,
    /// DEALLOCATE ALL, or DISCARD ALL, which also forgets parameters.
    Forget {
        /// DISCARD ALL
        settings: bool,
    },
    /// DECLARE of a cursor.
    Declared(Box<Declared>),
    /// CLOSE of this cursor, or of all.
    Closed(Option<Arc<str>>),
    /// The server holds what cannot be shared from now on.
    Pin(&'static str),
}

impl Effect {
    /// Why the session keeps its server from then on, if it does.
    pub(crate) fn pins(&self) -> Option<&'static str> {
        match self {
            Self::Pin(why) => Some(why),
            Self::Declared(cursor) if cursor.hold => Some("cursor WITH HOLD"),
            _ => None,
        }
    }
}

/// A reply that is still to come from the server, or from the proxy in its turn.
#[derive(Debug)]
pub(crate) enum Expect {
    /// Made by the proxy.
    Fake(Bytes),
    /// ParseComplete made by the proxy for a statement that the server has already.
    FakeParse { id: u64, name: Option<Box<[u8]>> },
    /// CloseComplete made by the proxy; when it is skipped, the client has its statement still.
    FakeClose { name: Option<Box<[u8]>>, statement: Arc<Prepared>, reply: &'static [u8] },
    /// All replies to a Query that the proxy sent ahead, through ReadyForQuery; swallowed.
    SilentQuery {
        /// It is the BEGIN that the client was answered before.
        opens: bool,
    },
    /// ParseComplete of a Parse that the proxy sent ahead; swallowed. Its failure is the client's error.
    SilentParse { id: u64 },
    /// CloseComplete of a Close that the proxy sent; swallowed. `spoiled`: of a statement that its tables have left
    /// behind, to be prepared anew.
    SilentClose { id: u64, spoiled: bool },
    /// ReadyForQuery of a Sync that the proxy sent; swallowed.
    SilentSync,
    /// ReadyForQuery in whose place the client is told the status of a transaction that this server has not heard of.
    ForeignSync { status: TxStatus },
    /// The client's Query, through ReadyForQuery.
    Query { effects: Effects, done: usize },
    /// ParseComplete of the client's Parse.
    Parse { id: u64, name: Option<Box<[u8]>> },
    /// ParseComplete of a PREPARE, which is told as its CommandComplete; or an error, whose position is that in the text
    /// behind so many characters.
    Prepare { id: u64, name: Box<[u8]>, before: usize },
    /// CommandComplete made by the proxy for a PREPARE of what the server has already.
    FakePrepare { id: u64, name: Box<[u8]> },
    /// BindComplete, of a portal of this statement, for an EXECUTE; swallowed.
    SilentBind { id: u64 },
    /// RowDescription, or NoData, which is swallowed.
    Columns,
    /// BindComplete, of a portal of this statement.
    Bind { id: u64 },
    /// RowDescription or NoData (a ParameterDescription before it); of this statement, or of a portal.
    Describe { id: Option<u64> },
    /// CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute { effects: Effects },
    /// A FunctionCall, through ReadyForQuery.
    FunctionCall,
    /// A COPY of checked rows, whose CopyInResponse is swallowed: through ReadyForQuery if it came as a Query, else its
    /// CommandComplete. `error` stands in for the server's when the proxy ended the COPY.
    CopyRows { simple: bool, error: Option<Bytes> },
    /// ParseComplete or BindComplete of such a COPY, swallowed.
    CopyAhead,
    /// CloseComplete.
    Close,
    /// ReadyForQuery.
    Sync,
    /// The error of a statement that the proxy refused: replaced by its own.
    Refused { error: Bytes },
    /// The same in answer to a Query; ReadyForQuery follows.
    RefusedQuery { error: Option<Bytes> },
}

impl Expect {
    /// Made by the proxy.
    pub(crate) fn is_fake(&self) -> bool {
        matches!(self, Self::Fake(_) | Self::FakeParse { .. } | Self::FakePrepare { .. } | Self::FakeClose { .. })
    }

    /// What is undone of the client's names when this is not answered.
    pub(crate) fn skipped(&self) -> Option<Skipped> {
        match self {
            Self::Parse { id, name } | Self::FakeParse { id, name } => {
                Some(Skipped::Parse { name: name.clone(), id: *id })
            }
            Self::Prepare { id, name, .. } | Self::FakePrepare { id, name } => {
                Some(Skipped::Parse { name: Some(name.clone()), id: *id })
            }
            Self::FakeClose { name, statement, .. } => {
                Some(Skipped::Close { name: name.clone(), statement: Arc::clone(statement) })
            }
            _ => None,
        }
    }
}

/// What the client did with a name of its own in a message that a server skipped behind an error, for the unnamed
/// statement `None`.
#[derive(Debug)]
pub(crate) enum Skipped {
    /// Parse of this statement.
    Parse { name: Option<Box<[u8]>>, id: u64 },
    /// Close of this statement.
    Close { name: Option<Box<[u8]>>, statement: Arc<Prepared> },
}

/// Buffers and queues of a session with work under way.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// Bytes of the client's that ops refer to.
    pub(crate) arena: Vec<u8>,
    /// The segment so far.
    pub(crate) ops: Vec<Op>,
    /// How many of `ops` were said to the attached server.
    pub(crate) emitted: usize,
    /// To be written to the server; kept whole until sent.
    pub(crate) to_server: BytesMut,
    /// An incomplete message of the server's.
    pub(crate) from_server: BytesMut,
    /// Kept from the client for now: a ParameterDescription whose RowDescription is still to come, since an error may
    /// come instead that is not for it; what may be the server's last words; the beginning of an answer that another
    /// server can give, too.
    pub(crate) held: BytesMut,
    /// Replies to come, in order.
    pub(crate) expects: VecDeque<Expect>,
    /// Bytes still to come of a message that is passed through (or dropped) without being held.
    pub(crate) passing: usize,
    /// Whether those bytes are dropped.
    pub(crate) dropping: bool,
    /// An Execute was said, and no Sync behind it.
    pub(crate) unsynced: bool,
    /// The first reply byte of this segment has gone to the client: it can no longer be said to another server.
    pub(crate) answered: bool,
    /// The last that was said is the Execute of a COPY … FROM STDIN, and the server has neither begun it nor failed.
    pub(crate) copy_asked: bool,
    /// The weight of the client's messages since all was answered.
    unanswered: usize,
    /// The client's next message is taken when all before it is answered.
    pub(crate) awaits_room: bool,
    /// Ops of this segment that were said are not kept any more.
    forgotten: bool,
    /// The segment is a transaction by itself, and may be said to the same server anew as long as `ops` has all of it.
    repairable: bool,
}

thread_local! {
    #[allow(clippy::vec_box, reason = "sessions pass the box on, not what is in it")]
    static WORKS: RefCell<Vec<Box<Work>>> = const { RefCell::new(Vec::new()) };
    static BUFFERS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

impl Work {
    /// An empty work, from this thread's stock if there is one.
    pub(crate) fn take() -> Box<Self> {
        WORKS.with_borrow_mut(Vec::pop).unwrap_or_default()
    }

    /// Gives a work back, emptied.
    pub(crate) fn give(mut self: Box<Self>) {
        self.to_server.clear();
        self.from_server.clear();
        self.expects.clear();
        self.clear_segment();
        self.passing = 0;
        self.dropping = false;
        let large = is_large(&mut self.from_server) || is_large(&mut self.held) || self.ops.capacity() > 1024;
        WORKS.with_borrow_mut(|stock| {
            if stock.len() < KEEP_WORKS && !large && self.expects.capacity() <= 1024 {
                stock.push(self);
            }
        });
    }

    /// Forgets the segment, so that the next one can begin on the same server.
    pub(crate) fn clear_segment(&mut self) {
        self.ops.clear();
        self.arena.clear();
        if self.arena.capacity() > KEEP_BYTES {
            self.arena = Vec::new();
        }
        if self.to_server.is_empty() && is_large(&mut self.to_server) {
            self.to_server = BytesMut::new();
        }
        self.held.clear();
        self.emitted = 0;
        self.answered = false;
        self.copy_asked = false;
        self.unanswered = 0;
        self.awaits_room = false;
        self.forgotten = false;
        self.repairable = false;
        self.unsynced = false;
    }

    /// The next reply, if the proxy makes it and nothing of the server's stands before it, not even the rest of a message.
    pub(crate) fn pop_fake(&mut self) -> Option<Bytes> {
        if self.passing > 0 || !self.expects.front()?.is_fake() {
            return None;
        }
        Some(match self.expects.pop_front()? {
            Expect::Fake(bytes) => bytes,
            Expect::FakeClose { reply, .. } => Bytes::from_static(reply),
            Expect::FakePrepare { .. } => Bytes::from_static(backend::PREPARED),
            _ => Bytes::from_static(backend::PARSE_COMPLETE),
        })
    }

    /// The op to come uses a statement that the server may have prepared for a table as it was.
    pub(crate) fn allow_repair(&mut self) {
        self.repairable |= !self.forgotten && !self.answered;
    }

    /// Whether nothing of the segment is answered, and all of it can be said anew.
    pub(crate) fn may_repair(&self) -> bool {
        self.repairable && !self.answered && self.ops.len() <= REPAIR_OPS && self.arena.len() <= KEEP_BYTES
    }

    /// The segment cannot be said anew: part of it is not kept, or must not be told twice.
    pub(crate) fn give_up_repair(&mut self) {
        self.forgotten = true;
        self.repairable = false;
    }

    /// The segment is being said anew: once is enough.
    pub(crate) fn repair(&mut self) {
        self.give_up_repair();
        self.emitted = 0;
        self.held.clear();
    }

    /// Forgets all that was between the session and a server before; the ops stay, to be said to the next.
    pub(crate) fn begin_server(&mut self) {
        self.expects.clear();
        self.held.clear();
        self.to_server.clear();
        self.from_server.clear();
        (self.passing, self.emitted, self.copy_asked, self.awaits_room) = (0, 0, false, false);
        self.unsynced = false;
    }

    /// Counts a message of the client's that was taken.
    pub(crate) fn weigh(&mut self, len: usize) {
        if self.ops.is_empty() && self.expects.is_empty() {
            self.unanswered = 0;
        } else {
            self.unanswered += len + MESSAGE_WEIGHT;
        }
    }

    /// Whether no more may come before some of it is answered.
    pub(crate) fn is_heavy(&self) -> bool {
        self.unanswered >= UNANSWERED_MAX
    }

    /// Once all that was said is answered, there is room again, and what was kept of it is forgotten.
    pub(crate) fn settle(&mut self) {
        if !self.expects.is_empty() {
            return;
        }
        if self.is_heavy() && self.emitted == self.ops.len() {
            self.forget_emitted();
        }
        self.unanswered = 0;
        self.awaits_room = false;
    }

    /// Whether an Execute stands in the segment without a Sync behind it.
    pub(crate) fn is_unsynced(&self) -> bool {
        self.unsynced || self.ops[self.emitted..].iter().any(|op| matches!(op, Op::Execute { .. }))
    }

    /// Forgets what was said to the server, the segment going on.
    pub(crate) fn forget_emitted(&mut self) {
        if !self.ops.is_empty() {
            self.give_up_repair();
        }
        self.ops.clear();
        self.arena.clear();
        self.emitted = 0;
    }

    /// Copies bytes into the arena.
    pub(crate) fn store(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.arena.len();
        self.arena.extend_from_slice(bytes);
        start..self.arena.len()
    }
}

/// An empty buffer, from this thread's stock if there is one.
pub(crate) fn take_buffer() -> BytesMut {
    BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives a buffer back.
pub(crate) fn give_buffer(mut buffer: BytesMut) {
    buffer.clear();
    BUFFERS.with_borrow_mut(|stock| {
        if stock.len() < KEEP_WORKS && buffer.capacity() > 0 && !is_large(&mut buffer) {
            stock.push(buffer);
        }
    });
}

/// Whether an empty buffer is larger than is kept: also where its capacity is small because most of it was read, and
/// what was read from is still held.
fn is_large(buffer: &mut BytesMut) -> bool {
    buffer.try_reclaim(KEEP_BYTES + 1)
}

#[cfg(test)]
mod tests {
    use bytes::Buf;

    use super::*;

    fn read_to_its_end(size: usize) -> BytesMut {
        let mut buffer = BytesMut::with_capacity(size);
        buffer.resize(size - 10, 0);
        buffer.advance(size - 10);
        buffer
    }

    #[test]
    fn a_large_buffer_is_not_kept_though_it_was_read_to_its_end() {
        give_buffer(read_to_its_end(1 << 20));
        assert_eq!(take_buffer().capacity(), 0);
        give_buffer(read_to_its_end(1024));
        assert!(take_buffer().try_reclaim(1024), "a small one is, as a whole");
    }

    #[test]
    fn an_idle_session_keeps_nothing_large() {
        let mut work = Work { to_server: read_to_its_end(1 << 20), ..Work::default() };
        work.store(&[0; 1 << 20]);
        work.clear_segment();
        assert!(work.arena.capacity() <= KEEP_BYTES && work.to_server.capacity() <= KEEP_BYTES);
        assert!(!is_large(&mut work.to_server));
        let unsent = BytesMut::from(&[0; 1 << 20][..]);
        let mut work = Work { to_server: unsent, ..Work::default() };
        work.clear_segment();
        assert_eq!(work.to_server.len(), 1 << 20);
    }
}
