//! What the server answers: forwarded as raw bytes, swallowed, or replaced, by the queue of replies to come.
//!
//! Only headers are looked at; rows are neither decoded nor copied. Messages that change the session (ReadyForQuery,
//! ErrorResponse, CommandComplete, ParameterStatus) are read when whole; all others may be cut anywhere.

use bytes::{Bytes, BytesMut};
use pgward_pools::ServerMemory;
use pgward_wire::backend::ErrorFields;
use pgward_wire::reading::read_alike;
use pgward_wire::tag::backend as tag;
use pgward_wire::{PgError, ProtocolError, TxStatus, backend, frame, frontend};

use super::emit::{Hold, emit};
use super::work::{Effect, Effects, Expect, Skipped, Work};

/// A message of these that is larger is no PostgreSQL's; they are held whole.
const MAX_CONTROL_BYTES: usize = 16 * 1024 * 1024;
/// So much of an answer is kept back while another server may be asked: what a server itself collects before it sends
/// any of it (PQ_SEND_BUFFER_SIZE in pqcomm.c), so that nobody waits longer for this.
const MAX_HELD_BYTES: usize = 8 * 1024;

/// What the replies changed, for the session to take over.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// Status of the last ReadyForQuery that ended a segment or a silent step.
    pub(crate) status: Option<TxStatus>,
    /// Status of the last ReadyForQuery of any sort.
    pub(crate) ready: Option<TxStatus>,
    /// Effects of statements that succeeded, in order; `Failed` where one failed.
    pub(crate) events: Vec<Event>,
    /// What became of the client's names by messages that failed or were skipped, in order.
    pub(crate) skipped: Vec<Skipped>,
    /// An error was forwarded outside of a Query: the client's frames are skipped until its Sync.
    pub(crate) skip_to_sync: bool,
    /// The server's COPY … FROM STDIN has begun (true) or ended (false).
    pub(crate) copy_in: Option<bool>,
    /// A Sync that a plain pooler's client sent behind the Execute of a COPY … FROM STDIN: the server ignores it, unless
    /// the COPY fails first.
    pub(crate) early_sync: bool,
    /// A step that the proxy sent ahead (settings, BEGIN) failed.
    pub(crate) silent_failure: Option<PgError>,
    /// The server said goodbye, with these words.
    pub(crate) fatal: Option<String>,
    /// The client is the server's own: whatever the server says, unasked too, is for it.
    pub(crate) verbatim: bool,
    /// Another server may be asked, as long as nothing is answered.
    pub(crate) retry: bool,
}

/// Something that a session's parameters depend on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A statement succeeded with this effect.
    Done(Effect),
    /// COMMIT succeeded.
    Commit,
    /// The transaction was rolled back.
    Rollback,
    /// A statement failed.
    Failed,
    /// What a statement with effects did is not known for certain.
    Uncertain,
}

/// How far a chunk was consumed and which of its bytes are still to be forwarded.
#[derive(Debug)]
pub(crate) struct Consumed {
    /// Bytes of the chunk that were dealt with; the rest is an incomplete message to be kept.
    pub(crate) upto: usize,
    /// The last run of bytes to forward, not yet copied to the client's buffer.
    pub(crate) run: std::ops::Range<usize>,
}

/// Goes through a chunk of the server's bytes. What must be forwarded is appended to `to_client`, except the last
/// contiguous run, which the caller may write straight from the chunk.
///
/// # Errors
/// When the server breaks the protocol: it is of no use any more.
pub(crate) fn hear(
    work: &mut Work,
    memory: &mut ServerMemory,
    chunk: &[u8],
    to_client: &mut BytesMut,
    heard: &mut Heard,
) -> Result<Consumed, ProtocolError> {
    let mut ear = Ear { work, memory, chunk, to_client, heard, run: 0, pos: 0 };
    ear.pass_through();
    ear.messages()?;
    if !ear.work.answered {
        ear.flush_run();
    }
    Ok(Consumed { upto: ear.pos, run: ear.run..ear.pos })
}

/// The place in a chunk, and all that a message may change.
struct Ear<'a> {
    work: &'a mut Work,
    memory: &'a mut ServerMemory,
    chunk: &'a [u8],
    to_client: &'a mut BytesMut,
    heard: &'a mut Heard,
    /// Start of the bytes to forward that were not copied yet: run <= pos. As long as nothing is answered they are kept
    /// back, too, and nothing else is.
    run: usize,
    /// Start of the next message.
    pos: usize,
}

/// What becomes of a message.
enum Verdict {
    Forward,
    Drop,
    /// Our own bytes stand in its place.
    Replace(Bytes),
}

impl Ear<'_> {
    /// The rest of a message whose header was seen in an earlier chunk.
    fn pass_through(&mut self) {
        if self.work.passing > 0 {
            self.pos = self.work.passing.min(self.chunk.len());
            self.work.passing -= self.pos;
            if self.work.dropping {
                self.run = self.pos;
            }
        }
    }

    fn messages(&mut self) -> Result<(), ProtocolError> {
        let chunk = self.chunk;
        self.fakes_in_time();
        while let Some(header) = frame::header(&chunk[self.pos..])? {
            let end = self.pos + header.len;
            let keep = self.may_keep_back(header.tag, header.len);
            let body = if end <= chunk.len() {
                &chunk[self.pos + 5..end]
            } else if is_control(header.tag) || keep {
                if header.len > MAX_CONTROL_BYTES {
                    return Err(ProtocolError::new("a control message of the server is larger than 16 MiB"));
                }
                break;
            } else {
                &[]
            };
            let keep = keep && (header.tag != tag::NOTICE_RESPONSE || is_last_words(body));
            let verdict = match header.tag {
                tag::ERROR_RESPONSE => self.error(body)?,
                tag::PARAMETER_DESCRIPTION if self.may_be_stale() => {
                    self.keep_fakes();
                    self.keep_back(end)
                }
                tag::NOTICE_RESPONSE if keep => {
                    self.keep_fakes();
                    self.keep_back(end)
                }
                other => {
                    if keep {
                        self.keep_fakes()
                    } else {
                        self.say_held()
                    }
                    match self.verdict(other, body)? {
                        Verdict::Forward if keep && !self.work.held.is_empty() => self.keep_back(end),
                        verdict => verdict,
                    }
                }
            };
            let next = end.min(chunk.len());
            if !matches!(verdict, Verdict::Forward) {
                self.flush_run();
                self.run = next;
            }
            self.work.passing = end - next;
            self.work.dropping = !matches!(verdict, Verdict::Forward);
            self.pos = next;
            match verdict {
                Verdict::Forward => self.work.answered |= !keep,
                Verdict::Drop => {}
                Verdict::Replace(bytes) => self.say(&bytes),
            }
            // What stands behind a failed step was not meant to run without it: nothing of its answer is passed on.
            if self.heard.silent_failure.is_some() {
                break;
            }
            self.fakes_in_time();
        }
        Ok(())
    }

    /// Copies what is to be forwarded so far, or is kept back.
    fn flush_run(&mut self) {
        let to = if self.work.answered { &mut *self.to_client } else { &mut self.work.held };
        to.extend_from_slice(&self.chunk[self.run..self.pos]);
        self.run = self.pos;
    }

    /// Our own reply, behind all that was forwarded or kept back.
    fn say(&mut self, bytes: &[u8]) {
        self.release();
        self.flush_run();
        self.to_client.extend_from_slice(bytes);
    }

    /// From here on, what comes goes to the client, and what was kept back goes before it.
    fn release(&mut self) {
        self.work.answered = true;
        self.to_client.extend_from_slice(&self.work.held);
        self.work.held.clear();
    }

    /// Keeps back the message that ends there.
    fn keep_back(&mut self, end: usize) -> Verdict {
        self.flush_run();
        self.work.held.extend_from_slice(&self.chunk[self.pos..end]);
        Verdict::Drop
    }

    /// Keeps back the replies of the proxy's own whose turn has come.
    fn keep_fakes(&mut self) {
        while let Some(bytes) = self.work.pop_fake() {
            self.flush_run();
            self.work.held.extend_from_slice(&bytes);
        }
    }

    /// What the server answers now.
    fn due(&self) -> Option<&Expect> {
        self.work.expects.iter().find(|expect| !expect.is_fake())
    }

    /// Whether the answer under way may turn out to be one that the segment is said anew for.
    fn may_be_stale(&self) -> bool {
        self.work.may_repair() && matches!(self.due(), Some(Expect::Describe { id: Some(_) }))
    }

    /// Whether another server can be asked for all that the client waits for, and this one says more for certain.
    fn may_go_elsewhere(&self) -> bool {
        let closes = |expect: &Expect| {
            matches!(expect, Expect::Query { .. } | Expect::Sync | Expect::SilentSync | Expect::ForeignSync { .. })
        };
        self.heard.retry && !self.work.answered && self.work.expects.back().is_some_and(closes)
    }

    /// Whether a message is kept back, if it is to be forwarded at all, until it is known that the server lives to answer
    /// the statement: a server that is told to stop sends what it has collected of an answer first.
    fn may_keep_back(&self, tag: u8, len: usize) -> bool {
        if !self.heard.retry || self.work.answered {
            return false;
        }
        if tag == tag::NOTICE_RESPONSE {
            return len < MAX_HELD_BYTES;
        }
        let begins = match tag {
            tag::PARSE_COMPLETE
            | tag::BIND_COMPLETE
            | tag::CLOSE_COMPLETE
            | tag::PARAMETER_DESCRIPTION
            | tag::ROW_DESCRIPTION
            | tag::NO_DATA
            | tag::DATA_ROW
            | tag::COPY_OUT_RESPONSE
            | tag::COPY_DATA
            | tag::COPY_DONE => true,
            tag::COMMAND_COMPLETE => {
                matches!(self.due(), Some(Expect::Query { effects: None, .. } | Expect::Execute { effects: None }))
            }
            _ => false,
        };
        begins && self.work.held.len() + self.pos - self.run + len < MAX_HELD_BYTES && self.may_go_elsewhere()
    }

    /// What was kept back goes to the client, and so do the replies of the proxy's own whose turn has come.
    fn say_held(&mut self) {
        if self.run < self.pos || !self.work.held.is_empty() {
            self.release();
        }
        self.fakes();
    }

    /// Replies of the proxy's own whose turn has come, unless the server's next may cause the segment to be said anew.
    fn fakes_in_time(&mut self) {
        let waits = self.work.may_repair() || self.may_go_elsewhere();
        if !waits || self.work.expects.iter().all(Expect::is_fake) {
            self.fakes();
        }
    }

    /// Replies of the proxy's own whose turn has come.
    fn fakes(&mut self) {
        while let Some(bytes) = self.work.pop_fake() {
            self.say(&bytes);
        }
    }

    /// Takes one message by what is expected. `body` is empty for messages that are not read.
    #[inline]
    fn verdict(&mut self, tag: u8, body: &[u8]) -> Result<Verdict, ProtocolError> {
        match tag {
            tag::DATA_ROW | tag::COPY_DATA => Ok(self.forward_unless_silent()),
            tag::NOTICE_RESPONSE | tag::NOTIFICATION_RESPONSE => Ok(Verdict::Forward),
            tag::PARAMETER_STATUS => {
                let (name, value) = backend::parameter_status(body)?;
                // A plain pooler's client may read as it likes.
                if !self.heard.verbatim {
                    read_alike(name, value)?;
                }
                Ok(self.forward_unless_silent())
            }
            tag::READY_FOR_QUERY => self.ready(backend::ready_for_query(body)?),
            tag::COMMAND_COMPLETE => Ok(self.complete(backend::command_tag(body)?)),
            tag::EMPTY_QUERY_RESPONSE => {
                self.doubt();
                Ok(self.complete(b""))
            }
            tag::PORTAL_SUSPENDED => {
                self.doubt();
                Ok(self.suspended())
            }
            tag::PARSE_COMPLETE if matches!(self.work.expects.front(), Some(Expect::Prepare { .. })) => {
                self.work.expects.pop_front();
                Ok(Verdict::Replace(Bytes::from_static(backend::PREPARED)))
            }
            tag::PARSE_COMPLETE => {
                let sort = |e: &_| matches!(e, Expect::Parse { .. } | Expect::SilentParse { .. } | Expect::CopyAhead);
                Ok(self.pop_if(sort))
            }
            tag::BIND_COMPLETE => {
                let sort = |e: &_| matches!(e, Expect::Bind { .. } | Expect::SilentBind { .. } | Expect::CopyAhead);
                Ok(self.pop_if(sort))
            }
            tag::CLOSE_COMPLETE => {
                Ok(self.pop_if(|expect| matches!(expect, Expect::Close | Expect::SilentClose { .. })))
            }
            tag::ROW_DESCRIPTION | tag::NO_DATA => Ok(match self.work.expects.front() {
                Some(Expect::Columns) if tag == tag::NO_DATA => {
                    self.work.expects.pop_front();
                    Verdict::Drop
                }
                Some(Expect::Describe { .. } | Expect::Columns) => self.pop_if(|_| true),
                _ => self.forward_unless_silent(),
            }),
            tag::FUNCTION_CALL_RESPONSE if matches!(self.work.expects.front(), Some(Expect::FunctionCall)) => {
                Ok(Verdict::Forward)
            }
            tag::COPY_IN_RESPONSE => Ok(self.copy_in()),
            tag::COPY_OUT_RESPONSE | tag::COPY_DONE | tag::PARAMETER_DESCRIPTION => Ok(self.forward_unless_silent()),
            other => Err(ProtocolError::new(format!("the server sent a message of type {:?}", char::from(other)))),
        }
    }

    fn forward_unless_silent(&self) -> Verdict {
        match self.work.expects.front() {
            Some(Expect::SilentQuery { .. } | Expect::SilentParse { .. } | Expect::SilentSync) => Verdict::Drop,
            _ => Verdict::Forward,
        }
    }

    /// The answer to the first in the queue, if it is of this sort; what the proxy sent ahead is swallowed.
    fn pop_if(&mut self, sort: impl Fn(&Expect) -> bool) -> Verdict {
        match self.work.expects.front() {
            Some(expect) if sort(expect) => match self.work.expects.pop_front() {
                Some(
                    Expect::SilentParse { .. }
                    | Expect::SilentClose { .. }
                    | Expect::SilentBind { .. }
                    | Expect::CopyAhead,
                ) => Verdict::Drop,
                _ => Verdict::Forward,
            },
            _ => self.forward_unless_silent(),
        }
    }

    fn copy_in(&mut self) -> Verdict {
        match self.work.expects.front_mut() {
            // The client was told when it asked, and may have ended the COPY already.
            Some(Expect::CopyRows { .. }) => Verdict::Drop,
            _ => {
                self.heard.copy_in = Some(true);
                self.heard.early_sync |= self.work.expects.iter().any(|expect| matches!(expect, Expect::Sync));
                self.work.copy_asked = false;
                self.forward_unless_silent()
            }
        }
    }

    /// CommandComplete or EmptyQueryResponse.
    fn complete(&mut self, command: &[u8]) -> Verdict {
        let effect = match self.work.expects.front_mut() {
            Some(Expect::Query { effects, done }) => {
                *done += 1;
                effect_of(effects, *done - 1)
            }
            Some(Expect::CopyRows { simple, .. }) => {
                if !*simple {
                    self.work.expects.pop_front();
                }
                Effect::None
            }
            Some(Expect::Execute { effects }) => {
                let effect = effect_of(effects, 0);
                self.work.expects.pop_front();
                // The Execute of a COPY is the last until it has begun.
                self.work.copy_asked &= !self.work.expects.is_empty();
                effect
            }
            _ => return self.forward_unless_silent(),
        };
        match command {
            b"COMMIT" => self.heard.events.push(Event::Commit),
            b"ROLLBACK" if !matches!(effect, Effect::RollbackTo(_)) => self.heard.events.push(Event::Rollback),
            _ => {}
        }
        if command.starts_with(b"COPY ") {
            self.heard.copy_in = Some(false);
        }
        if effect != Effect::None {
            self.heard.events.push(Event::Done(effect));
        }
        Verdict::Forward
    }

    /// PortalSuspended: rows were computed, and what they change is changed.
    fn suspended(&mut self) -> Verdict {
        match self.work.expects.front_mut() {
            Some(Expect::Execute { effects }) => {
                let effect = effect_of(effects, 0);
                self.work.expects.pop_front();
                if effect != Effect::None {
                    self.heard.events.push(Event::Done(effect));
                }
                Verdict::Forward
            }
            _ => self.forward_unless_silent(),
        }
    }

    /// A statement that was to change something did not end by its CommandComplete: whether all of it was changed, only
    /// the server knows.
    fn doubt(&mut self) {
        if let Some(Expect::Execute { effects: Some(_) } | Expect::Query { effects: Some(_), .. }) =
            self.work.expects.front()
        {
            self.heard.events.push(Event::Uncertain);
        }
    }

    fn ready(&mut self, status: TxStatus) -> Result<Verdict, ProtocolError> {
        self.heard.copy_in = Some(false);
        self.heard.ready = Some(status);
        let (verdict, counts) = match self.work.expects.pop_front() {
            Some(Expect::Query { .. } | Expect::FunctionCall | Expect::RefusedQuery { .. } | Expect::Sync) => {
                (Verdict::Forward, true)
            }
            Some(Expect::CopyRows { simple: true, .. }) => (Verdict::Forward, true),
            Some(Expect::SilentQuery { opens }) => (Verdict::Drop, opens),
            Some(Expect::SilentSync) => (Verdict::Drop, false),
            Some(Expect::ForeignSync { status }) => {
                let mut bytes = BytesMut::with_capacity(6);
                backend::put_ready_for_query(&mut bytes, status);
                (Verdict::Replace(bytes.freeze()), false)
            }
            _ => return Err(ProtocolError::new("the server sent ReadyForQuery out of turn")),
        };
        if counts {
            self.heard.status = Some(status);
        }
        Ok(verdict)
    }

    fn error(&mut self, body: &[u8]) -> Result<Verdict, ProtocolError> {
        let fields = backend::error_fields(body)?;
        self.heard.copy_in = Some(false);
        // The server is about to close: its session is over, whatever was asked. (A refused client's own FATAL would
        // be the session's end for the client too, but the proxy has other servers.)
        if matches!(fields.severity, b"FATAL" | b"PANIC") {
            self.heard.fatal = Some(String::from_utf8_lossy(fields.message).into_owned());
            return Ok(if self.heard.verbatim { Verdict::Forward } else { Verdict::Drop });
        }
        if is_stale(&fields) && self.repair() {
            return Ok(Verdict::Drop);
        }
        self.say_held();
        match self.work.expects.front_mut() {
            Some(Expect::Query { .. } | Expect::FunctionCall) => {
                self.heard.events.push(Event::Failed);
                Ok(Verdict::Forward)
            }
            Some(Expect::RefusedQuery { error }) => {
                self.heard.events.push(Event::Failed);
                Ok(error.take().map_or(Verdict::Drop, Verdict::Replace))
            }
            Some(Expect::CopyRows { simple: true, error }) => {
                let verdict = error.take().map_or(Verdict::Forward, Verdict::Replace);
                self.heard.events.push(Event::Failed);
                Ok(verdict)
            }
            Some(Expect::CopyRows { simple: false, error }) => {
                let own = error.take();
                self.heard.events.push(Event::Failed);
                let verdict = self.fail_until_sync();
                Ok(own.map_or(verdict, Verdict::Replace))
            }
            Some(Expect::SilentQuery { .. }) => {
                self.heard.silent_failure = Some(fields.into());
                Ok(Verdict::Drop)
            }
            // Nothing asked.
            None if self.heard.verbatim => Ok(Verdict::Forward),
            None => Ok(Verdict::Drop),
            Some(Expect::Prepare { before, .. }) => {
                let mut moved = BytesMut::new();
                let before = *before;
                backend::put_fields_changed(&mut moved, tag::ERROR_RESPONSE, body, |code, text| {
                    let position: usize = std::str::from_utf8(text).ok().filter(|_| code == b'P')?.parse().ok()?;
                    Some(position.saturating_add(before).to_string().into_bytes())
                })?;
                self.heard.events.push(Event::Failed);
                self.fail_until_sync();
                Ok(Verdict::Replace(moved.freeze()))
            }
            Some(_) => {
                self.heard.events.push(Event::Failed);
                Ok(self.fail_until_sync())
            }
        }
    }

    /// An error in the extended protocol: the server skips everything up to Sync, and so do the replies to come.
    fn fail_until_sync(&mut self) -> Verdict {
        let skipped = self.skip();
        self.heard.skipped.extend(skipped.iter().filter_map(Expect::skipped));
        match self.work.expects.front_mut() {
            None => self.heard.skip_to_sync = true,
            Some(Expect::ForeignSync { status }) if *status == TxStatus::InTransaction => *status = TxStatus::Failed,
            // The client's own Sync is still to come, unless its answer stands behind already.
            Some(Expect::SilentSync) => self.heard.skip_to_sync |= self.work.expects.len() == 1,
            Some(_) => {}
        }
        match skipped.into_iter().next() {
            Some(Expect::Refused { error }) => Verdict::Replace(error),
            _ => Verdict::Forward,
        }
    }

    /// Takes out what the server skips, up to its next Sync: what that would have done to its statements is not done,
    /// the last of it first.
    fn skip(&mut self) -> Vec<Expect> {
        let is_sync =
            |expect: &Expect| matches!(expect, Expect::Sync | Expect::ForeignSync { .. } | Expect::SilentSync);
        let upto = self.work.expects.iter().position(is_sync).unwrap_or(self.work.expects.len());
        let skipped: Vec<Expect> = self.work.expects.drain(..upto).collect();
        self.work.copy_asked = false;
        for expect in skipped.iter().rev() {
            match expect {
                Expect::SilentParse { id } | Expect::Parse { id, .. } | Expect::Prepare { id, .. } => {
                    self.unprepare(*id)
                }
                Expect::SilentClose { id, spoiled: true } => self.memory.spoil(*id),
                Expect::SilentClose { id, spoiled: false } => self.memory.unclose(*id),
                _ => {}
            }
        }
        skipped
    }

    /// A statement does not fit its tables any more: it will be prepared anew, and the segment said anew if nothing of
    /// it was answered, which is what it returns.
    fn repair(&mut self) -> bool {
        let Some(
            Expect::Bind { id: failed } | Expect::SilentBind { id: failed } | Expect::Describe { id: Some(failed) },
        ) = self.due()
        else {
            return false;
        };
        let failed = *failed;
        self.memory.spoil(failed);
        let repaired = self.work.may_repair();
        if repaired {
            self.say_anew();
        }
        repaired
    }

    /// The server, which skips everything up to a Sync, is told the whole segment once more.
    fn say_anew(&mut self) {
        self.skip();
        // The client's own Sync is among what is said again.
        if self.work.expects.pop_front().is_none() {
            frontend::put_sync(&mut self.work.to_server);
        }
        self.work.expects.push_front(Expect::SilentSync);
        self.work.repair();
        emit(self.work, self.memory, self.to_client, Hold::UntilAnswered);
    }

    fn unprepare(&mut self, id: u64) {
        self.memory.forget(id);
        if self.memory.unnamed == Some(id) {
            self.memory.unnamed = None;
        }
    }
}

fn effect_of(effects: &Effects, n: usize) -> Effect {
    effects.as_ref().and_then(|effects| effects.get(n)).cloned().unwrap_or(Effect::None)
}

/// "cached plan must not change result type" (plancache.c), whatever language it is said in.
fn is_stale(fields: &ErrorFields<'_>) -> bool {
    fields.sqlstate == b"0A000" && fields.routine == b"RevalidateCachedQuery"
}

/// A server that stops because another of its node has crashed, or at once, says so in a mere notice before it closes the
/// connection (quickdie in postgres.c). Whether that is what this notice is, only what comes behind it can tell.
fn is_last_words(notice: &[u8]) -> bool {
    backend::error_fields(notice).is_ok_and(|fields| matches!(fields.sqlstate, b"57P01" | b"57P02"))
}

/// Messages that are read whole, and those that are too short to be worth passing in parts.
fn is_control(t: u8) -> bool {
    matches!(
        t,
        tag::READY_FOR_QUERY
            | tag::ERROR_RESPONSE
            | tag::COMMAND_COMPLETE
            | tag::PARAMETER_STATUS
            | tag::PARSE_COMPLETE
            | tag::BIND_COMPLETE
            | tag::CLOSE_COMPLETE
            | tag::EMPTY_QUERY_RESPONSE
            | tag::PORTAL_SUSPENDED
            | tag::NO_DATA
            | tag::COPY_IN_RESPONSE
            | tag::PARAMETER_DESCRIPTION
    )
}

#[cfg(test)]
mod tests;
