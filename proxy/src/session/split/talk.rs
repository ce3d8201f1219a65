//! What is said to one shard's server during a split COPY, and what it answers: bytes in, what they mean out.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use pgward_wire::reading::read_alike;
use pgward_wire::tag::backend as tag;
use pgward_wire::{ProtocolError, TxStatus, backend, frame, frontend, tag::frontend as say};

use crate::twophase::literal;

/// Stands before the COPY in one Query, so that it cannot run where the BEGIN failed.
pub(super) const BEGIN: &str = "BEGIN;";

/// A message that is larger is no server's.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// What a server is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// BEGIN and the COPY, up to the end of its rows.
    Copy,
    /// To check now what is checked at the end of a transaction.
    Check,
    Commit,
    Prepare,
    CommitPrepared,
    Rollback,
    RollbackPrepared,
}

/// How it was answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// So many rows were taken.
    Copied(u64),
    /// It did as asked.
    Done(Asked),
    /// A transaction that had failed was rolled back, whatever was asked.
    RolledBack,
    /// The body of its ErrorResponse.
    Failed(Asked, Bytes),
    /// A message that the client is to hear: notice, notification, parameter.
    Aside(u8, Bytes),
    /// It closes the connection, with these words.
    Farewell(String),
}

/// One server's conversation.
#[derive(Debug, Default)]
pub(super) struct Talk {
    /// To be written.
    pub(super) out: BytesMut,
    /// Read and not yet whole.
    kept: BytesMut,
    asked: VecDeque<Asked>,
    /// Of the answer under way.
    command: Bytes,
    error: Option<Bytes>,
    /// The status of the last ReadyForQuery.
    status: Option<TxStatus>,
}

impl Talk {
    /// Begins the COPY.
    pub(super) fn begin(&mut self, sql: &[u8]) {
        let sql = [BEGIN.as_bytes(), sql].concat();
        frontend::put_query(&mut self.out, &sql);
        self.asked.push_back(Asked::Copy);
    }

    pub(super) fn rows(&mut self, rows: &[u8]) {
        if !rows.is_empty() {
            frame::put(&mut self.out, say::COPY_DATA, rows);
        }
    }

    /// Ends the rows and asks for what is to come of them, in one go: where the COPY fails, COMMIT and PREPARE are a
    /// ROLLBACK, and a check fails, too.
    pub(super) fn end(&mut self, asked: Asked, gid: &str) {
        frame::put(&mut self.out, say::COPY_DONE, &[]);
        self.ask(asked, gid);
    }

    /// Gives the COPY up. Where it has failed already, the server passes over its end.
    pub(super) fn give_up(&mut self) {
        frontend::put_copy_fail(&mut self.out, "nothing of this COPY stays");
        self.ask(Asked::Rollback, "");
    }

    pub(super) fn ask(&mut self, asked: Asked, gid: &str) {
        let sql = match asked {
            Asked::Copy => return,
            Asked::Check => "SET CONSTRAINTS ALL IMMEDIATE".to_owned(),
            Asked::Commit => "COMMIT".to_owned(),
            Asked::Rollback => "ROLLBACK".to_owned(),
            Asked::Prepare => format!("PREPARE TRANSACTION {}", literal(gid)),
            Asked::CommitPrepared => format!("COMMIT PREPARED {}", literal(gid)),
            Asked::RollbackPrepared => format!("ROLLBACK PREPARED {}", literal(gid)),
        };
        frontend::put_query(&mut self.out, sql.as_bytes());
        self.asked.push_back(asked);
    }

    /// The status that proves the server clean, when nothing is on its way in either direction.
    pub(super) fn is_idle(&self) -> bool {
        self.status == Some(TxStatus::Idle) && self.outstanding() == 0
    }

    pub(super) fn outstanding(&self) -> usize {
        self.asked.len() + self.out.len() + self.kept.len()
    }

    /// Takes in what the server sent.
    ///
    /// # Errors
    /// It breaks the protocol: it is of no use any more.
    pub(super) fn hear(&mut self, bytes: &[u8], said: &mut Vec<Said>) -> Result<(), ProtocolError> {
        self.kept.extend_from_slice(bytes);
        while let Some(header) = frame::header(&self.kept)? {
            if header.len > MAX_MESSAGE_BYTES {
                return Err(ProtocolError::new("a message of the server is larger than 16 MiB"));
            }
            if self.kept.len() < header.len {
                break;
            }
            let mut body = self.kept.split_to(header.len);
            let body = body.split_off(frame::HEADER_BYTES).freeze();
            self.message(header.tag, body, said)?;
        }
        Ok(())
    }

    fn message(&mut self, message: u8, body: Bytes, said: &mut Vec<Said>) -> Result<(), ProtocolError> {
        match message {
            tag::COMMAND_COMPLETE => self.command = body.slice_ref(backend::command_tag(&body)?),
            tag::ERROR_RESPONSE => {
                let fields = backend::error_fields(&body)?;
                match fields.severity {
                    b"FATAL" | b"PANIC" => {
                        said.push(Said::Farewell(String::from_utf8_lossy(fields.message).into_owned()));
                    }
                    _ => self.error = Some(body),
                }
            }
            tag::READY_FOR_QUERY => self.ready(backend::ready_for_query(&body)?, said)?,
            tag::COPY_IN_RESPONSE if self.asked.front() == Some(&Asked::Copy) => {}
            tag::NOTICE_RESPONSE => {
                backend::error_fields(&body)?;
                said.push(Said::Aside(message, body));
            }
            tag::PARAMETER_STATUS => {
                let (name, value) = backend::parameter_status(&body)?;
                read_alike(name, value)?;
                said.push(Said::Aside(message, body));
            }
            tag::NOTIFICATION_RESPONSE => said.push(Said::Aside(message, body)),
            other => {
                return Err(ProtocolError::new(format!("a message of type {:?} in a COPY", char::from(other))));
            }
        }
        Ok(())
    }

    fn ready(&mut self, status: TxStatus, said: &mut Vec<Said>) -> Result<(), ProtocolError> {
        self.status = Some(status);
        let Some(asked) = self.asked.pop_front() else {
            return Err(ProtocolError::new("the server sent ReadyForQuery out of turn"));
        };
        let command = std::mem::take(&mut self.command);
        said.push(match (self.error.take(), asked) {
            (Some(error), asked) => Said::Failed(asked, error),
            (None, Asked::Copy) => Said::Copied(copied(&command)?),
            // The answer to COMMIT or PREPARE TRANSACTION in a transaction that has failed.
            (None, Asked::Commit | Asked::Prepare) if &command[..] == b"ROLLBACK" => Said::RolledBack,
            (None, asked) => Said::Done(asked),
        });
        Ok(())
    }
}

/// The rows of a `COPY 7`.
fn copied(command: &[u8]) -> Result<u64, ProtocolError> {
    let rows = command.strip_prefix(b"COPY ").and_then(|rows| std::str::from_utf8(rows).ok()?.parse().ok());
    rows.ok_or_else(|| ProtocolError::new("the answer to a COPY does not say how many rows"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        frame::put(&mut out, tag, body);
        out.to_vec()
    }

    fn complete(command: &str) -> Vec<u8> {
        message(tag::COMMAND_COMPLETE, format!("{command}\0").as_bytes())
    }

    fn ready(status: u8) -> Vec<u8> {
        message(tag::READY_FOR_QUERY, &[status])
    }

    const ERROR: &[u8] = b"SERROR\0VERROR\0C23505\0Mduplicate\0\0";

    /// What comes of these answers, whole and cut at every byte.
    fn heard(ask: impl Fn(&mut Talk), answers: &[Vec<u8>]) -> (Vec<Said>, Talk) {
        let bytes = answers.concat();
        let play = |cut: usize| {
            let mut talk = Talk::default();
            talk.begin(b"COPY t FROM STDIN");
            ask(&mut talk);
            talk.out.clear();
            let mut said = Vec::new();
            talk.hear(&bytes[..cut], &mut said).unwrap();
            talk.hear(&bytes[cut..], &mut said).unwrap();
            (said, talk)
        };
        let (said, talk) = play(0);
        for cut in 1..bytes.len() {
            assert_eq!(play(cut).0, said, "cut at {cut}");
        }
        (said, talk)
    }

    fn begun() -> Vec<u8> {
        [complete("BEGIN"), message(tag::COPY_IN_RESPONSE, b"\0\0\0")].concat()
    }

    #[test]
    fn rows_are_counted_and_the_end_is_what_was_asked_for() {
        for (asked, command) in [(Asked::Commit, "COMMIT"), (Asked::Prepare, "PREPARE TRANSACTION")] {
            let answers = [begun(), complete("COPY 7"), ready(b'T'), complete(command), ready(b'I')];
            let (said, talk) = heard(|talk| talk.end(asked, "g"), &answers);
            assert_eq!(said, [Said::Copied(7), Said::Done(asked)]);
            assert!(talk.is_idle());
        }
    }

    #[test]
    fn what_fails_is_rolled_back_by_what_stands_behind_it() {
        let failed = message(tag::ERROR_RESPONSE, ERROR);
        let answers = [begun(), failed.clone(), ready(b'E'), complete("ROLLBACK"), ready(b'I')];
        let (said, talk) = heard(|talk| talk.end(Asked::Prepare, "g"), &answers);
        assert_eq!(said, [Said::Failed(Asked::Copy, Bytes::from_static(ERROR)), Said::RolledBack]);
        assert!(talk.is_idle());
        // A constraint that is deferred to the end.
        let answers = [begun(), complete("COPY 7"), ready(b'T'), failed, ready(b'I')];
        let (said, talk) = heard(|talk| talk.end(Asked::Prepare, "g"), &answers);
        assert_eq!(said, [Said::Copied(7), Said::Failed(Asked::Prepare, Bytes::from_static(ERROR))]);
        assert!(talk.is_idle());
    }

    #[test]
    fn asides_are_passed_on_and_a_farewell_is_heard() {
        let notice = message(tag::NOTICE_RESPONSE, ERROR);
        let fatal = message(tag::ERROR_RESPONSE, b"SFATAL\0VFATAL\0C57P01\0Mgoing down\0\0");
        let (said, talk) = heard(|_| {}, &[begun(), notice, fatal]);
        let aside = Said::Aside(tag::NOTICE_RESPONSE, Bytes::from_static(ERROR));
        assert_eq!(said, [aside, Said::Farewell("going down".to_owned())]);
        assert!(!talk.is_idle());
    }

    #[test]
    fn a_server_out_of_turn_is_of_no_use() {
        for bytes in [
            ready(b'I').repeat(2),
            message(tag::DATA_ROW, b"\0\0"),
            [complete("SELECT 1"), ready(b'I')].concat(),
            vec![b'C', 0xff, 0, 0, 0],
        ] {
            let mut talk = Talk::default();
            talk.begin(b"COPY t FROM STDIN");
            assert!(talk.hear(&bytes, &mut Vec::new()).is_err());
        }
    }
}
