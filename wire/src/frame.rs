//! Framing: where a message begins and ends, from its header alone.

use bytes::{BufMut, BytesMut};

use crate::error::ProtocolError;
use crate::read::find_nul;

/// The longest untyped packet, its length field included. PostgreSQL's MAX_STARTUP_PACKET_LENGTH
/// (`src/include/libpq/pqcomm.h`) is 10000 and counts what is behind the length field (`ProcessStartupPacket`).
pub const MAX_STARTUP_BYTES: usize = 4 + 10_000;

/// Bytes of a header: type and length.
pub const HEADER_BYTES: usize = 5;

/// A message's type and the length of the whole message, type byte included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The type.
    pub tag: u8,
    /// Bytes of the whole message.
    pub len: usize,
}

/// The header that these bytes begin with; `None` if it is not whole yet.
///
/// # Errors
/// When the length field is below 4 or above 2³¹−1.
#[inline]
pub fn header(bytes: &[u8]) -> Result<Option<Header>, ProtocolError> {
    let [tag, a, b, c, d, ..] = *bytes else { return Ok(None) };
    let len = u32::from_be_bytes([a, b, c, d]);
    if (4..=i32::MAX as u32).contains(&len) {
        Ok(Some(Header { tag, len: len as usize + 1 }))
    } else {
        Err(bad_length(len))
    }
}

#[cold]
fn bad_length(len: u32) -> ProtocolError {
    ProtocolError::new(format!("invalid message length {len}"))
}

/// The length of the untyped packet (startup, cancel, SSL request) that these bytes begin with; `None` if its length
/// field is not whole yet.
///
/// # Errors
/// When the length is below 8 or above [`MAX_STARTUP_BYTES`].
pub fn startup_len(bytes: &[u8]) -> Result<Option<usize>, ProtocolError> {
    let [a, b, c, d, ..] = *bytes else { return Ok(None) };
    let len = u32::from_be_bytes([a, b, c, d]) as usize;
    if (8..=MAX_STARTUP_BYTES).contains(&len) {
        Ok(Some(len))
    } else {
        Err(ProtocolError::new(format!("invalid length of startup packet: {len}")))
    }
}

/// Appends a message with this body.
#[inline]
pub fn put(out: &mut BytesMut, tag: u8, body: &[u8]) {
    out.reserve(HEADER_BYTES + body.len());
    out.put_u8(tag);
    put_length(out, body.len() + 4);
    out.put_slice(body);
}

/// Appends a message whose body `write` appends.
#[inline]
pub(crate) fn put_with(out: &mut BytesMut, tag: u8, write: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    let start = out.len();
    out.put_u32(0);
    write(out);
    let len = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
}

#[inline]
pub(crate) fn put_length(out: &mut BytesMut, len: usize) {
    out.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
}

/// Appends a string with its NUL. A NUL inside it would make its remainder the next field of the message, so it is left
/// out; no caller has one, and this is the border at which it matters.
#[inline]
pub(crate) fn put_string(out: &mut BytesMut, string: &[u8]) {
    match find_nul(string) {
        None => out.put_slice(string),
        Some(_) => string.split(|byte| *byte == 0).for_each(|piece| out.put_slice(piece)),
    }
    out.put_u8(0);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_header_needs_five_bytes() {
        let message = b"Q\0\0\0\x0dSELECT 1\0";
        for cut in 0..5 {
            assert_eq!(header(&message[..cut]), Ok(None));
        }
        assert_eq!(header(message), Ok(Some(Header { tag: b'Q', len: 14 })));
    }

    #[test]
    fn lengths_below_four_and_negative_ones_are_errors() {
        for len in [0u32, 3, 0x8000_0000, u32::MAX] {
            let mut bytes = vec![b'Q'];
            bytes.extend(len.to_be_bytes());
            assert!(header(&bytes).is_err(), "{len}");
        }
        assert!(startup_len(&7u32.to_be_bytes()).is_err());
        assert!(startup_len(&10_005u32.to_be_bytes()).is_err());
        assert_eq!(startup_len(&10_004u32.to_be_bytes()), Ok(Some(MAX_STARTUP_BYTES)));
        assert_eq!(startup_len(&8u32.to_be_bytes()), Ok(Some(8)));
    }
}
