//! What clients are told of a COPY over several shards: servers' words with the client's own lines, and our own.

use bytes::{Bytes, BytesMut};
use pgward_wire::tag::backend as tag;
use pgward_wire::{PgError, backend, frame};

use super::talk::{Asked, BEGIN};
use super::{Leg, Split, patients, said};
use crate::directory::RegisterError;

impl Split {
    /// A server's error as the client is told it.
    pub(super) fn fault(&self, leg: usize, asked: Asked, body: &[u8]) -> Bytes {
        let disabled = backend::error_fields(body).is_ok_and(|fields| fields.sqlstate == b"55000");
        if asked == Asked::Prepare && disabled {
            return said(&cannot_prepare(self.legs[leg].node.id.as_str()));
        }
        let mut out = BytesMut::with_capacity(body.len() + 64);
        self.put_message(leg, tag::ERROR_RESPONSE, body, &mut out);
        out.freeze()
    }

    /// A server's message with the places that mean the client's text and stream.
    pub(super) fn put_message(&self, leg: usize, tag: u8, body: &[u8], out: &mut BytesMut) {
        let Leg { lines, shard_id, .. } = &self.legs[leg];
        let several = self.legs.len() > 1;
        let change = |code: u8, text: &[u8]| match code {
            b'P' => {
                let position: usize = std::str::from_utf8(text).ok()?.parse().ok()?;
                Some(position.saturating_sub(BEGIN.len()).to_string().into_bytes())
            }
            b'W' if several => Some(lines.context(text, &self.table, shard_id)),
            _ => None,
        };
        let fields = matches!(tag, tag::ERROR_RESPONSE | tag::NOTICE_RESPONSE);
        // Its fields were read before.
        if !fields || backend::put_fields_changed(out, tag, body, change).is_err() {
            frame::put(out, tag, body);
        }
    }
}

pub(super) fn registration(error: &RegisterError) -> PgError {
    let (code, hint) = match error {
        RegisterError::Contradiction { .. } => ("PW013", "Another session has registered the patient meanwhile."),
        _ => ("58030", "Retry when the operator has made room or mended the disk."),
    };
    PgError::error(code, "a patient of this COPY cannot be registered in the directory")
        .with_detail(error.to_string())
        .with_hint(format!("{hint} Nothing of this COPY stays."))
}

pub(super) fn too_many_new() -> PgError {
    PgError::error("54000", format!("a COPY cannot register more than {} patients", patients::MAX))
        .with_detail("PgWard holds new patients until all of the COPY is stored, and registers them then.")
        .with_hint("Send the rows as several COPYs. Nothing of this COPY stays.")
}

/// A server that does not know prepared transactions: its max_prepared_transactions is zero.
pub(super) fn cannot_prepare(node: &str) -> PgError {
    PgError::error("55000", format!("rows of several shards cannot be copied: {node} does not prepare transactions"))
        .with_detail("Rows of several shards are stored on all of them or on none, by two-phase commit.")
        .with_hint(format!(
            "Send one COPY for the patients of each shard, or have max_prepared_transactions raised above zero on {node} \
             and its replicas. Nothing of this COPY stays."
        ))
}

pub(super) fn not_decided(error: &std::io::Error) -> PgError {
    PgError::error("58030", "the decision to commit this COPY on all its shards cannot be written")
        .with_detail(error.to_string())
        .with_hint("Retry when the operator has made room or mended the disk. Nothing of this COPY stays.")
}

pub(super) fn in_doubt(error: &std::io::Error) -> PgError {
    PgError::error("08007", "whether the decision to commit this COPY has reached the disk is unknown")
        .with_detail(format!("All its shards have prepared it and wait. {error}"))
        .with_hint(
            "When PgWard is started again it commits the COPY on all shards or rolls it back on all. Look at the data \
             then, before the rows are sent again.",
        )
}

pub(super) fn unconfirmed(nodes: &[&str]) -> PgError {
    let nodes = nodes.join(", ");
    PgError::error("08007", format!("this COPY is committed, but {nodes} could not be told yet"))
        .with_detail("The decision is on disk. PgWard tells the rest as soon as they answer, also after a restart.")
        .with_hint("Do not send the rows again: they will be on all shards. Until then they are missing on some.")
}
