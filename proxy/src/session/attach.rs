//! Takes a server from the pool that the decision names, brings it to the session's state, and goes on elsewhere when
//! a node that was to answer a read cannot.

use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use bytes::BytesMut;
use pgward_config::{Class, PoolKind};
use pgward_pools::{AcquireError, Clean, Lease, Node, Settings};
use pgward_router::decide::Ask;
use pgward_router::{Evidence, Kind, Pin};
use pgward_wire::reading::read_alike;
use pgward_wire::{PgError, TxStatus, frame, frontend, tag::backend as tag};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};

use super::work::Expect;
use super::{Attached, Need, Opening, Session, Tx, errors, reading, settings};
use crate::accepted::At;

/// A Query that fails in the server's parser, and with it the transaction.
const FAILS: &str = "PGWARD_FAILS_THE_TRANSACTION";

/// Where a segment goes.
struct Way {
    pin: Pin,
    kind: Kind,
    class: Class,
    repeatable: bool,
}

impl Session {
    /// Attaches a server for the frame at hand. When none can be had, the frame is answered with `self.denied`.
    pub(super) async fn attach(&mut self, need: Need) {
        if need == Need::Legs {
            return self.open_legs().await;
        }
        if self.plain.is_some() {
            return self.attach_shared().await;
        }
        if let Err(error) = self.try_attach(need, Vec::new()).await {
            if let Some(pending) = self.pending.take() {
                self.record_not_sent(&pending, &error);
            }
            self.denied = Some(error);
        }
    }

    /// Attaches the best server that does not stand on a node of `failed`.
    pub(super) async fn try_attach(&mut self, need: Need, mut failed: Vec<usize>) -> Result<(), PgError> {
        loop {
            let way = self.way(need, &failed)?;
            let node = Arc::clone(&self.state.fleet.shard(way.pin.shard)[way.pin.node]);
            self.handle.waiting.begin();
            let taken = match self.acquire(&node, way.pin.pool, way.class).await {
                Some(Ok(lease)) => self.take(lease, node, &way, need, &failed).await,
                Some(Err(AcquireError::Connect(error))) => {
                    Err(Setup::Lost(errors::cannot_connect(node.id.as_str(), &error.to_string())))
                }
                Some(Err(error)) => {
                    Err(Setup::Refused(errors::acquire(&error, node.id.as_str(), way.pin.pool, way.class)))
                }
                None => Err(Setup::Refused(errors::cancelled())),
            };
            let cancelled = self.handle.waiting.end();
            let error = match taken {
                Ok(()) => return Ok(()),
                Err(Setup::Lost(_) | Setup::Stopped) if cancelled => return Err(errors::cancelled()),
                Err(Setup::Lost(error)) => error,
                // It is closed by now. The next one stands where this one stood.
                Err(Setup::Stopped) => continue,
                Err(Setup::Refused(error)) => return Err(error),
            };
            if !way.repeatable || failed.contains(&way.pin.node) {
                return Err(error);
            }
            failed.push(way.pin.node);
            if let Some(mut pending) = self.pending.take() {
                let again = self.decide_again(&mut pending, &failed);
                self.pending = Some(pending);
                again?;
            }
        }
    }

    /// Where the frame at hand goes: by its decision, or to the home shard to be described.
    fn way(&self, need: Need, failed: &[usize]) -> Result<Way, PgError> {
        let described;
        let (decision, repeatable) = match (&self.pending, need) {
            (Some(pending), Need::Run) => (
                pending
                    .decisions
                    .first()
                    .ok_or_else(|| errors::internal("a server is asked for without a decision"))?,
                pending.repeatable,
            ),
            _ => {
                let evidence = Evidence::default();
                let ask = Ask { reads_only: true, tables: &[], evidence: &evidence, located: &[] };
                described = self.decide_asks(&[ask], failed).map_err(|refusal| errors::refusal(&refusal))?;
                (&described[0], true)
            }
        };
        let target = &decision.target;
        let pin = Pin { shard: target.shard, node: target.node, pool: target.pool };
        Ok(Way { pin, kind: decision.kind, class: decision.class, repeatable })
    }

    /// A server of the pool; `None` when the wait for it was cancelled.
    pub(super) async fn acquire(
        &mut self,
        node: &Arc<Node>,
        pool: PoolKind,
        class: Class,
    ) -> Option<Result<Lease, AcquireError>> {
        let role = Arc::clone(&self.user().server_role);
        if let Some(lease) = node.try_acquire(pool, class, &role) {
            return Some(Ok(lease));
        }
        let started = Instant::now();
        let acquired = tokio::select! {
            biased;
            acquired = node.acquire(pool, class, &role) => Some(acquired),
            () = std::future::poll_fn(|cx| self.handle.waiting.poll_cancelled(cx)) => None,
        };
        self.shared.metrics.waited(pool, class, started.elapsed());
        acquired
    }

    /// Makes a server the session's own: its parameters, and BEGIN where the client has begun.
    async fn take(
        &mut self,
        mut lease: Lease,
        node: Arc<Node>,
        way: &Way,
        need: Need,
        failed: &[usize],
    ) -> Result<(), Setup> {
        self.work.begin_server();
        let describe_only = need == Need::Describe;
        if describe_only && !Settings::same(&self.reading, &reading::read_by(&self.settings)) {
            // It is not told what the transaction has changed, and prepares statements without that.
            self.uncertain = true;
        }
        let steps = !describe_only && self.opens_with_steps();
        self.bring_to_settings(&mut lease, &node, (way.pin.shard, way.pin.node), steps).await?;
        let opened = if steps { Some(self.open_transaction(&mut lease, &node).await?) } else { None };
        // Nothing is cancelled any more once the server is the session's.
        if self.handle.waiting.end() {
            self.give_back_unused(lease, opened).await;
            return Err(Setup::Refused(errors::cancelled()));
        }
        if let Some(status) = opened {
            self.tx = Tx::Open(status);
        }
        self.install(lease, node, way, describe_only, failed, Instant::now());
        Ok(())
    }

    /// Tells a server the transaction's steps by themselves: savepoints and parameters may fail, and the statement must
    /// not run without them.
    async fn open_transaction(&mut self, lease: &mut Lease, node: &Node) -> Result<TxStatus, Setup> {
        let Tx::Opening(Opening { texts, failed, .. }) = &self.tx else {
            return Err(Setup::Refused(errors::internal("a transaction that is not opening has no steps")));
        };
        let texts = match &texts[..] {
            // One whose server was lost with all that it knew.
            [] => "BEGIN".to_owned(),
            texts => String::from_utf8_lossy(texts).into_owned(),
        };
        let failed = *failed;
        let mut asked = self.ask_in_time(lease, &texts).await.map_err(|error| Setup::lost(node, &error))?;
        if failed {
            // The client's ROLLBACK or ROLLBACK TO, which is the first of several statements, meets what it would meet
            // if the server had seen all.
            if asked.status == TxStatus::InTransaction {
                asked = self.ask_in_time(lease, FAILS).await.map_err(|error| Setup::lost(node, &error))?;
            }
            if asked.status != TxStatus::Failed {
                return Err(Setup::Refused(errors::internal("a failed transaction could not be failed on its server")));
            }
        } else if let Some(error) = asked.failure {
            if let Tx::Opening(opening) = &mut self.tx {
                (opening.failed, opening.refused) = (true, true);
            }
            return Err(Setup::Refused(error));
        }
        Ok(asked.status)
    }

    /// The statement that a server was taken for was cancelled before it was sent: the server goes back, if nothing else
    /// is on its way to it either.
    async fn give_back_unused(&mut self, mut lease: Lease, opened: Option<TxStatus>) {
        let status = match opened {
            _ if !self.work.to_server.is_empty() => return,
            None => TxStatus::Idle,
            Some(_) => match self.ask_in_time(&mut lease, "ROLLBACK").await {
                Ok(Asked { failure: None, status }) => status,
                _ => return,
            },
        };
        if let Some(clean) = Clean::prove(status, 0) {
            lease.release(clean);
        }
    }

    /// Whether the transaction's opening must be answered before a statement follows: it has failed or has more than its
    /// BEGIN to tell to its server, or a time limit that may stop BEGIN, and would leave the statement to run without.
    fn opens_with_steps(&self) -> bool {
        let Tx::Opening(Opening { texts, begin, failed, .. }) = &self.tx else { return false };
        *failed || texts.len() > *begin || settings::limit_time(&self.settings)
    }

    /// Attaches the server of the decision at hand without waiting for anything: `false` when that cannot be, and the
    /// long way must be taken. Most statements find an idle server that knows the session's parameters.
    pub(super) fn attach_at_once(&mut self) -> bool {
        if self.opens_with_steps() {
            return false;
        }
        let Ok(way) = self.way(Need::Run, &[]) else { return false };
        if !self.has_accepted((way.pin.shard, way.pin.node)) {
            return false;
        }
        let Some(decided) = self.pending.as_ref().map(|pending| pending.decided) else { return false };
        let node = Arc::clone(&self.state.fleet.shard(way.pin.shard)[way.pin.node]);
        let Some(mut lease) = node.try_acquire(way.pin.pool, way.class, &self.user().server_role) else { return false };
        if !Settings::same(&lease.memory.settings, &self.settings) {
            if self.state.accepted.distrusts() || settings::change_alone(&lease.memory.settings, &self.settings) {
                // Taken anew by the long way. Nothing was said to it.
                if let Some(clean) = Clean::prove(TxStatus::Idle, 0) {
                    lease.release(clean);
                }
                return false;
            }
            self.work.begin_server();
            self.send_settings(&mut lease);
        } else {
            self.work.begin_server();
        }
        self.install(lease, node, &way, false, &[], decided);
        true
    }

    /// The session works with this server from now on; it is told BEGIN where the client has begun.
    fn install(
        &mut self,
        mut lease: Lease,
        node: Arc<Node>,
        way: &Way,
        describe_only: bool,
        failed: &[usize],
        sent: Instant,
    ) {
        if !describe_only && let Tx::Opening(Opening { texts, .. }) = &self.tx {
            frontend::put_query(&mut self.work.to_server, texts);
            self.work.give_up_repair();
            self.work.expects.push_back(Expect::SilentQuery { opens: true });
            self.tx = Tx::Open(TxStatus::InTransaction);
            // A simple Query destroys the unnamed statement.
            lease.memory.unnamed = None;
        }
        lease.memory.limit = self.state.config.proxy.server_prepared;
        self.handle.attach(lease.cancel_target(), &node, !self.work.expects.is_empty());
        self.handle.set_awaiting(self.shared.registry.now());
        self.attached = Some(Attached {
            lease,
            node,
            pin: way.pin,
            kind: way.kind,
            describe_only,
            retry: way.repeatable,
            failed: failed.to_vec(),
            sent,
            timed: false,
            ready: Some(TxStatus::Idle),
        });
        if describe_only {
            self.emit();
        }
    }

    /// Parameters that the node's servers have accepted before go ahead of the statement in the same write.
    fn send_settings(&mut self, lease: &mut Lease) {
        let mut sql = String::new();
        settings::difference(&lease.memory.settings, &self.settings, &mut sql);
        settings::put(&mut self.work.to_server, &sql);
        self.work.expects.push_back(Expect::SilentQuery { opens: false });
        lease.memory.unnamed = None;
        lease.memory.settings = Arc::clone(&self.settings);
    }

    /// A step of the proxy's own, which a server that is well does at once.
    async fn ask_in_time(&mut self, lease: &mut Lease, sql: &str) -> std::io::Result<Asked> {
        let mut changed = BytesMut::new();
        let asked = self.in_time(converse(lease, sql, &mut changed)).await?;
        if asked.failure.is_none() {
            self.client.out.extend_from_slice(&changed);
        }
        Ok(asked)
    }

    async fn in_time<T>(&self, step: impl Future<Output = std::io::Result<T>>) -> std::io::Result<T> {
        let patience = self.state.config.proxy.connect_timeout;
        tokio::time::timeout(patience, step).await.unwrap_or_else(|late| Err(late.into()))
    }

    /// Whether the servers of this node have accepted the session's parameters before.
    fn has_accepted(&mut self, at: At) -> bool {
        if self.refusable.values().is_empty() || self.accepted.contains(&at) {
            return true;
        }
        let known = self.state.accepted.has(&self.user().server_role, &self.refusable, at);
        if known {
            self.accepted.push(at);
        }
        known
    }

    /// Parameters that a server of the node has accepted before go ahead of the statement in the same write; others are
    /// tried first, so that a statement never runs without them, and so are those in whose place stands a time limit.
    pub(super) async fn bring_to_settings(
        &mut self,
        lease: &mut Lease,
        node: &Node,
        at: At,
        alone: bool,
    ) -> Result<(), Setup> {
        let accepted = self.has_accepted(at);
        if !Settings::same(&lease.memory.settings, &self.settings) {
            let together = accepted && !alone && !self.state.accepted.distrusts();
            if together && !settings::change_alone(&lease.memory.settings, &self.settings) {
                self.send_settings(lease);
                return Ok(());
            }
            let mut changed = BytesMut::new();
            let change = self.in_time(change_settings(lease, &self.settings, &mut changed)).await;
            match change.map_err(|error| Setup::lost(node, &error))? {
                Brought::Done => self.client.out.extend_from_slice(&changed),
                Brought::Refused(error) => return Err(Setup::Refused(error)),
                Brought::Stopped => return Err(Setup::Stopped),
            }
        }
        // Where they are the same, this server has accepted them from another session.
        if !accepted {
            self.state.accepted.note(&self.user().server_role, &self.refusable, at);
            self.accepted.push(at);
        }
        Ok(())
    }
}

/// What became of bringing a server to parameters.
pub(crate) enum Brought {
    Done,
    /// They are not acceptable.
    Refused(PgError),
    /// What whoever had the server before has set stopped even that: a time limit, or a parameter that it cannot be rid
    /// of. The server is to be closed, and another taken.
    Stopped,
}

/// Brings a server to these parameters, by a Query of its own.
pub(crate) async fn change_settings(
    lease: &mut Lease,
    to: &Arc<Settings>,
    changed: &mut BytesMut,
) -> std::io::Result<Brought> {
    let limited = settings::limit_time(&lease.memory.settings);
    // A RESET of what this client has not set may be what fails.
    let others = lease.memory.settings.values().keys().any(|name| !to.values().contains_key(name));
    let mut sql = String::new();
    settings::difference(&lease.memory.settings, to, &mut sql);
    match ask(lease, &sql, changed).await {
        Ok(None) => {
            lease.memory.settings = Arc::clone(to);
            Ok(Brought::Done)
        }
        Ok(Some(error)) if others || (limited && error.sqlstate() == "57014") => Ok(Brought::Stopped),
        Ok(Some(error)) => Ok(Brought::Refused(error)),
        // transaction_timeout ends the connection.
        Err(error) if limited && error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(Brought::Stopped),
        Err(error) => Err(error),
    }
}

/// Why a server could not be set up.
pub(super) enum Setup {
    /// The session's parameters are not acceptable.
    Refused(PgError),
    /// The server is gone.
    Lost(PgError),
    /// [`Brought::Stopped`]
    Stopped,
}

impl Setup {
    /// A server that was lost before it was told a statement.
    fn lost(node: &Node, error: &std::io::Error) -> Self {
        Self::Lost(errors::server_gone(node.id.as_str(), &error.to_string(), false))
    }
}

/// Sends a Query of the proxy's own and waits for its end, or until the node is declared down; the error that the
/// server answered, if it did. The ParameterStatus messages in its answer are appended to `changed`.
pub(crate) async fn ask(lease: &mut Lease, sql: &str, changed: &mut BytesMut) -> std::io::Result<Option<PgError>> {
    Ok(converse(lease, sql, changed).await?.failure)
}

/// What a server answered to a Query of the proxy's own.
struct Asked {
    failure: Option<PgError>,
    status: TxStatus,
}

async fn converse(lease: &mut Lease, sql: &str, changed: &mut BytesMut) -> std::io::Result<Asked> {
    let mut bytes = BytesMut::new();
    settings::put(&mut bytes, sql);
    // A simple Query destroys the unnamed statement.
    lease.memory.unnamed = None;
    // A few bytes to an idle server: the socket takes them at once.
    lease.stream.write_all(&bytes).await?;
    bytes.clear();
    let mut failure = None;
    loop {
        while let Some(header) = frame::header(&bytes).map_err(invalid)? {
            if bytes.len() < header.len {
                break;
            }
            let message = bytes.split_to(header.len);
            match header.tag {
                tag::ERROR_RESPONSE => {
                    failure = Some(PgError::from(pgward_wire::backend::error_fields(&message[5..]).map_err(invalid)?));
                }
                tag::PARAMETER_STATUS => {
                    let (name, value) = pgward_wire::backend::parameter_status(&message[5..]).map_err(invalid)?;
                    read_alike(name, value).map_err(invalid)?;
                    changed.extend_from_slice(&message);
                }
                tag::READY_FOR_QUERY => {
                    let status = pgward_wire::backend::ready_for_query(&message[5..]).map_err(invalid)?;
                    return Ok(Asked { failure, status });
                }
                _ => {}
            }
        }
        if read_unless_killed(lease, &mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn read_unless_killed(lease: &mut Lease, bytes: &mut BytesMut) -> std::io::Result<usize> {
    let mut chunk = [0; 4096];
    std::future::poll_fn(|cx| {
        let mut buf = ReadBuf::new(&mut chunk);
        match std::pin::Pin::new(&mut lease.stream).poll_read(cx, &mut buf) {
            Poll::Ready(read) => Poll::Ready(read.map(|()| {
                bytes.extend_from_slice(buf.filled());
                buf.filled().len()
            })),
            Poll::Pending if lease.poll_killed(cx) => Poll::Ready(Err(std::io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn invalid(error: pgward_wire::ProtocolError) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, error)
}
