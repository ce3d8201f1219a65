//! A server that is lost, or cannot be used: its segment goes to another node, or the client is told.

use bytes::BytesMut;
use pgward_wire::{PgError, backend};

use super::work::{Expect, Skipped};
use super::{Attached, Fatal, Lost, Need, Opening, Session, Tx, errors, is_read};

/// What a server that is lost had been asked for.
struct Asked {
    /// A Query is among it.
    simple: bool,
    /// It was all of its segment, by the client's own Query or Sync.
    closed: bool,
    /// It had answered everything, and was being left by a Sync of the proxy's.
    left: bool,
    /// What it would have done to the client's names, in order.
    names: Vec<Skipped>,
    /// What was kept back of its answer: the session has taken it as given.
    held: BytesMut,
}

impl Session {
    /// The attached server is of no use any more: the segment goes to another node, or the client is told.
    pub(super) async fn server_gone(&mut self, why: &str) -> Result<(), Fatal> {
        let Some(attached) = self.attached.take() else { return Ok(()) };
        let Attached { lease, node, pin, kind, retry, mut failed, .. } = attached;
        self.handle.detach();
        drop(lease);
        node.report_failure(pgward_pools::Failure::Lost);
        self.receipts.clear();
        let asked = self.asked();
        let was_idle = self.work.expects.is_empty() || asked.left;
        if self.work.passing > 0 {
            // Part of a message went out: no error can be put behind it.
            return Err(Fatal(errors::server_gone(node.id.as_str(), why, false)));
        }
        if retry && !self.work.answered && !failed.contains(&pin.node) {
            failed.push(pin.node);
            if self.go_elsewhere(failed).await.is_ok() {
                return Ok(());
            }
        }
        let unknown = !was_idle && !is_read(kind);
        let error = errors::server_gone(node.id.as_str(), why, unknown);
        if self.keeps_server() || self.has_heard_farewell() {
            // What the session kept the server for is lost with it.
            return Err(Fatal(error));
        }
        self.lose_server(&error, was_idle, asked);
        Ok(())
    }

    /// What was sent ahead of the statement was refused: the server is given up, and whatever stands behind the step with
    /// it. Behind BEGIN that leaves nothing; behind parameters alone, which had been accepted before, a statement may have
    /// run without them.
    pub(super) async fn step_failed(&mut self, refused: PgError) -> Result<(), Fatal> {
        let begins = |expect: &Expect| matches!(expect, Expect::SilentQuery { opens: true });
        if self.work.expects.front().is_some_and(begins) {
            return self.fail_segment(refused);
        }
        self.state.accepted.distrust();
        let begun = self.work.expects.iter().any(begins);
        let Some(attached) = self.attached.take() else { return Ok(()) };
        let Attached { lease, kind, retry, failed, describe_only, .. } = attached;
        self.handle.detach();
        drop(lease);
        self.receipts.clear();
        let asked = self.asked();
        if self.work.passing > 0 {
            return Err(Fatal(refused));
        }
        if retry && !self.work.answered {
            // Now the step is asked for by itself. Its own refusal is the session's answer.
            match self.go_elsewhere(failed).await {
                Ok(()) => return Ok(()),
                Err(error) => self.lose_server(&error, false, asked),
            }
            return Ok(());
        }
        let unknown = !begun && !describe_only && !is_read(kind);
        let error = if unknown { errors::ran_without_parameters(&refused) } else { refused };
        self.lose_server(&error, false, asked);
        Ok(())
    }

    /// Says the segment to another node. Nothing of its answer has reached the client.
    async fn go_elsewhere(&mut self, failed: Vec<usize>) -> Result<(), PgError> {
        let need = if self.sent.is_some() { Need::Run } else { Need::Describe };
        self.pending = self.sent.take();
        if let Some(mut pending) = self.pending.take() {
            let again = self.decide_again(&mut pending, &failed);
            self.pending = Some(pending);
            again?;
        }
        self.try_attach(need, failed).await?;
        if let Some(mut pending) = self.pending.take() {
            self.record(&mut pending)?;
            self.sent = Some(pending);
        }
        self.emit();
        Ok(())
    }

    /// Tells the client that its server is lost. An open transaction is lost with it: only ROLLBACK helps.
    fn lose_server(&mut self, error: &PgError, was_idle: bool, asked: Asked) {
        let Asked { simple, closed, left, names, held } = asked;
        // Also one that this server, which only described, has not heard of.
        let in_transaction = !matches!(self.tx, Tx::Idle);
        for name in names.into_iter().rev() {
            self.undo(name);
        }
        self.drop_server();
        self.pinned = None;
        self.guard = None;
        // All that was asked is answered already.
        let untold = was_idle && (in_transaction || closed || left);
        if in_transaction {
            self.changes.begin();
            let lost = if untold { Lost::Untold(error.clone()) } else { Lost::Told };
            self.tx = Tx::Opening(Opening { failed: true, lost: Some(lost), ..Opening::default() });
        }
        if untold {
            return;
        }
        self.client.out.extend_from_slice(&held);
        backend::put_error(&mut self.client.out, error);
        if simple || closed {
            let status = self.status();
            backend::put_ready_for_query(&mut self.client.out, status);
        } else {
            self.skip_to_sync = true;
        }
    }

    /// The segment cannot be answered by its server, which is closed.
    pub(super) fn fail_segment(&mut self, error: PgError) -> Result<(), Fatal> {
        if self.work.passing > 0 {
            return Err(Fatal(error));
        }
        let asked = self.asked();
        self.lose_server(&error, false, asked);
        Ok(())
    }

    /// What of the segment under way the server has not answered.
    fn asked(&mut self) -> Asked {
        let query = |expect: &Expect| {
            matches!(
                expect,
                Expect::Query { .. }
                    | Expect::FunctionCall
                    | Expect::RefusedQuery { .. }
                    | Expect::CopyRows { simple: true, .. }
            )
        };
        // A server that only described is left by a Sync of the proxy's; the client's own is still to come.
        let leaving = matches!(self.work.expects.back(), Some(Expect::SilentSync));
        Asked {
            simple: self.work.expects.iter().any(query),
            closed: self.closed && !leaving,
            left: leaving && self.work.expects.len() == 1,
            names: self.work.expects.iter().filter_map(Expect::skipped).collect(),
            held: std::mem::take(&mut self.work.held),
        }
    }
}
