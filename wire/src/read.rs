//! A strict reader over one message's body.

use crate::error::ProtocolError;

/// Names are a few bytes long or empty; before a search in steps of 32 bytes has begun, most of them have ended.
const SHORT: usize = 16;

/// Where the first NUL is.
#[inline]
pub(crate) fn find_nul(bytes: &[u8]) -> Option<usize> {
    let short = &bytes[..bytes.len().min(SHORT)];
    match short.iter().position(|byte| *byte == 0) {
        None if bytes.len() > SHORT => memchr::memchr(0, &bytes[SHORT..]).map(|at| at + SHORT),
        found => found,
    }
}

/// What is left of a body. Each step takes bytes off the front or fails; nothing is reserved by a peer's count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    message: &'static str,
}

impl<'a> Reader<'a> {
    /// `message` is the message's name, for errors.
    #[inline]
    pub(crate) fn new(message: &'static str, body: &'a [u8]) -> Self {
        Self { rest: body, message }
    }

    #[inline]
    pub(crate) fn bytes(&mut self, n: usize) -> Result<&'a [u8], ProtocolError> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or_else(|| self.short())?;
        self.rest = rest;
        Ok(head)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, ProtocolError> {
        Ok(self.bytes(1)?[0])
    }

    #[inline]
    pub(crate) fn i16(&mut self) -> Result<i16, ProtocolError> {
        let bytes = self.bytes(2)?;
        Ok(i16::from_be_bytes([bytes[0], bytes[1]]))
    }

    #[inline]
    pub(crate) fn i32(&mut self) -> Result<i32, ProtocolError> {
        let bytes = self.bytes(4)?;
        Ok(i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// A count of items that take at least `each` bytes.
    #[inline]
    pub(crate) fn count(&mut self, each: usize) -> Result<usize, ProtocolError> {
        // `pq_getmsgint(msg, 2)` reads them without a sign: 65535 parameters are possible.
        let count = usize::from(self.i16()? as u16);
        if count * each > self.rest.len() { Err(self.short()) } else { Ok(count) }
    }

    /// A string without its NUL.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<&'a [u8], ProtocolError> {
        let end = find_nul(self.rest).ok_or_else(|| self.invalid("a string has no end"))?;
        let string = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Ok(string)
    }

    /// All that is left.
    #[inline]
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// How many bytes are left.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    /// Nothing may be left.
    #[inline]
    pub(crate) fn end(self) -> Result<(), ProtocolError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.invalid(&format!("{} bytes are left over", self.rest.len())))
        }
    }

    #[cold]
    pub(crate) fn invalid(&self, why: &str) -> ProtocolError {
        ProtocolError::new(format!("invalid {} message: {why}", self.message))
    }

    #[cold]
    fn short(&self) -> ProtocolError {
        self.invalid("it is shorter than its contents")
    }
}

#[cfg(test)]
mod tests {
    use super::find_nul;

    #[test]
    fn a_nul_is_found_wherever_it_stands() {
        for len in 0..40 {
            let mut bytes = vec![b'x'; len];
            assert_eq!(find_nul(&bytes), None);
            for at in (0..len).rev() {
                bytes[at] = 0;
                assert_eq!(find_nul(&bytes), Some(at), "the first of those from {at} on, in {len} bytes");
            }
        }
    }
}
