//! A cancel that is on its way to a server, and what must wait for it.
//!
//! PostgreSQL signals the backend before it closes the connection by which the request came, and a backend that reads
//! its next message drops a signal that has arrived since its last one. So whatever is said to the server after that
//! end cannot be hit any more; what is said before, can. Until then the server belongs to nobody.

use std::sync::Arc;

use bytes::BytesMut;
use pgward_pools::{CancelTarget, Clean, Lease};
use pgward_wire::TxStatus;
use tokio::sync::watch;

use crate::session::ask;

/// SQLSTATE of a statement that was cancelled.
const CANCELLED: &str = "57014";

/// The cancels of one server while it works for one session.
#[derive(Debug)]
pub(crate) struct UnderWay {
    stage: watch::Sender<Stage>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stage {
    /// The server has not answered all that was sent ahead of the session's statement: BEGIN and parameters. A cancel
    /// that hit one of these would leave the statement behind it to run without.
    held_back: bool,
    /// One is being sent, or waits until it may be.
    sending: bool,
    sent: bool,
    /// Another was asked for since the one that is being sent began.
    again: bool,
    /// The session has left the server.
    left: bool,
    /// One did not come to its end: it may arrive at any time.
    lost: bool,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// The server has taken it.
    Taken,
    /// Whether it has is not known.
    Lost,
    /// The session had left the server before.
    TooLate,
    /// No server had been told the statement, and none will be.
    NotNeeded,
}

impl UnderWay {
    pub(crate) fn new(held_back: bool) -> Arc<Self> {
        Arc::new(Self { stage: watch::Sender::new(Stage { held_back, ..Stage::default() }) })
    }

    /// What was sent ahead is answered.
    pub(crate) fn let_go(&self) {
        self.stage.send_modify(|stage| stage.held_back = false);
    }

    /// Waits until it may be sent: false when the session has left the server before.
    async fn may_go(&self) -> bool {
        let mut stages = self.stage.subscribe();
        let stage = stages.wait_for(|stage| !stage.held_back || stage.left).await;
        stage.is_ok_and(|stage| !stage.left)
    }

    /// Notes that a cancel was asked for: true when the caller must [`UnderWay::send`] it. Otherwise the one that sends
    /// already will do so once more, since what runs by now may not be what its first request was for.
    pub(crate) fn ask(&self) -> bool {
        let mut first = false;
        self.stage.send_modify(|stage| {
            first = !stage.sending;
            stage.again |= stage.sending;
            stage.sending = true;
        });
        first
    }

    /// Sends what was asked for. It goes on when nobody waits for it any more.
    pub(crate) fn send(self: &Arc<Self>, target: CancelTarget) {
        let cancel = Arc::clone(self);
        tokio::spawn(async move {
            while cancel.may_go().await {
                let sent = target.send().await;
                if let Err(error) = &sent {
                    tracing::warn!(address = %target.address, %error, "could not pass a cancel request on");
                }
                if cancel.is_over(Some(sent.is_ok())) {
                    return;
                }
            }
            cancel.is_over(None);
        });
    }

    /// A request has ended: taken or lost, or not even sent. Whether it was the last one.
    fn is_over(&self, taken: Option<bool>) -> bool {
        let mut over = true;
        self.stage.send_modify(|stage| {
            stage.sent |= taken.is_some();
            stage.lost |= taken == Some(false);
            over = !stage.again || stage.left;
            stage.again = false;
            stage.sending = !over;
        });
        over
    }

    /// The session leaves the server: what was asked for later is not sent any more. True when the server is
    /// undisturbed.
    pub(crate) fn leave(&self) -> bool {
        let mut undisturbed = false;
        self.stage.send_modify(|stage| {
            stage.left = true;
            // What is held back until now will not be sent.
            undisturbed = (!stage.sending || stage.held_back) && !stage.lost;
        });
        undisturbed
    }

    /// Waits until nothing is on its way.
    pub(crate) async fn ended(&self) -> Sent {
        match self.stage.subscribe().wait_for(|stage| !stage.sending).await {
            Ok(stage) if stage.lost => Sent::Lost,
            Ok(stage) if stage.sent => Sent::Taken,
            Ok(_) => Sent::TooLate,
            Err(_) => Sent::Lost,
        }
    }
}

/// Holds a server that its session has left clean while a cancel is on its way to it, and gives it back when the cancel
/// has ended and the server has answered once more: what came late is behind it then. Otherwise it is closed.
pub(crate) async fn hold(mut lease: Lease, cancel: Arc<UnderWay>, patience: std::time::Duration) {
    if cancel.ended().await == Sent::Lost {
        return;
    }
    let mut changed = BytesMut::new();
    let asked = tokio::time::timeout(patience, ask(&mut lease, "", &mut changed)).await;
    let is_well = match asked {
        Ok(Ok(failure)) => failure.is_none_or(|error| error.sqlstate() == CANCELLED),
        Ok(Err(_)) | Err(_) => false,
    };
    if is_well && let Some(clean) = Clean::prove(TxStatus::Idle, 0) {
        lease.release(clean);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn a_second_request_is_sent_by_the_first_ones_sender() {
        let cancel = UnderWay::new(false);
        assert!(cancel.ask());
        assert!(!cancel.ask() && !cancel.ask());
        assert!(!cancel.is_over(Some(true)), "one for both");
        assert!(cancel.is_over(Some(true)));
        assert!(cancel.ask(), "a later one is another");
    }

    #[test]
    fn a_server_that_was_left_is_asked_no_more() {
        let cancel = UnderWay::new(false);
        assert!(cancel.ask() && !cancel.ask());
        assert!(!cancel.leave());
        assert!(cancel.is_over(Some(true)));
        assert_eq!(cancel.ended().now_or_never(), Some(Sent::Taken));
    }

    #[test]
    fn what_is_under_way_or_lost_disturbs() {
        let cancel = UnderWay::new(false);
        assert!(cancel.leave());
        assert!(cancel.ask());
        assert!(!cancel.leave());
        assert_eq!(cancel.ended().now_or_never(), None);
        assert!(cancel.is_over(Some(false)));
        assert!(!cancel.leave(), "it may arrive at any time");
        assert_eq!(cancel.ended().now_or_never(), Some(Sent::Lost));
    }

    #[test]
    fn what_is_held_back_goes_when_the_steps_are_answered_or_not_at_all() {
        let cancel = UnderWay::new(true);
        assert!(cancel.ask());
        assert_eq!(cancel.may_go().now_or_never(), None);
        cancel.let_go();
        assert_eq!(cancel.may_go().now_or_never(), Some(true));

        let cancel = UnderWay::new(true);
        assert!(cancel.ask());
        assert!(cancel.leave(), "it is never sent");
        assert_eq!(cancel.may_go().now_or_never(), Some(false));
        assert!(cancel.is_over(None));
        assert_eq!(cancel.ended().now_or_never(), Some(Sent::TooLate));
    }
}
