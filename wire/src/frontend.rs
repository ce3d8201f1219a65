//! Messages of clients: strict readers of what PgWard inspects, writers of what it says to servers itself.

use bytes::{BufMut, BytesMut};

use crate::error::ProtocolError;
use crate::frame::{put, put_string, put_with};
use crate::read::{Reader, find_nul};
use crate::tag::frontend as tag;

/// The text of a Query, without its NUL.
///
/// # Errors
/// When the body is not one string.
#[inline]
pub fn query(body: &[u8]) -> Result<&[u8], ProtocolError> {
    let mut reader = Reader::new("Query", body);
    let text = reader.string()?;
    reader.end()?;
    Ok(text)
}

/// A Parse.
#[derive(Clone, Debug)]
pub struct Parse<'a> {
    /// Name of the statement, empty for the unnamed one.
    pub name: &'a [u8],
    /// The statement's text.
    pub text: &'a [u8],
    types: &'a [u8],
}

impl<'a> Parse<'a> {
    /// # Errors
    /// When the body is not a Parse, exactly.
    #[inline]
    pub fn from_body(body: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut reader = Reader::new("Parse", body);
        let name = reader.string()?;
        let text = reader.string()?;
        let count = reader.count(4)?;
        let types = reader.bytes(4 * count)?;
        reader.end()?;
        Ok(Self { name, text, types })
    }

    /// Declared types of the parameters, 0 where left open.
    #[inline]
    pub fn param_types(&self) -> impl ExactSizeIterator<Item = u32> + 'a {
        self.types.chunks_exact(4).map(|oid| u32::from_be_bytes([oid[0], oid[1], oid[2], oid[3]]))
    }
}

/// Where every so many values of a Bind begin is noted, so that none is looked for from the first.
const STRIDE: usize = 32;

/// A Bind.
#[derive(Clone, Debug)]
pub struct Bind<'a> {
    /// Name of the portal, empty for the unnamed one.
    pub portal: &'a [u8],
    /// Name of the statement, empty for the unnamed one.
    pub statement: &'a [u8],
    formats: &'a [u8],
    values: &'a [u8],
    count: usize,
    /// Offsets in `values` of the values after each [`STRIDE`]; empty, and not allocated, where there are no more.
    marks: Vec<u32>,
}

impl<'a> Bind<'a> {
    /// # Errors
    /// When the body is not a Bind, exactly.
    #[inline]
    pub fn from_body(body: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut reader = Reader::new("Bind", body);
        let portal = reader.string()?;
        let statement = reader.string()?;
        let formats = reader.count(2)?;
        let formats = reader.bytes(2 * formats)?;
        if formats.chunks_exact(2).any(|code| !matches!(code, [0, 0 | 1])) {
            return Err(reader.invalid("a format code is neither 0 nor 1"));
        }
        let count = reader.count(4)?;
        let mut values = reader;
        let mut marks = Vec::new();
        for n in 0..count {
            if n > 0 && n % STRIDE == 0 {
                // A body is shorter than 2 GiB.
                marks.push((values.len() - reader.len()) as u32);
            }
            value(&mut reader)?;
        }
        let values = values.bytes(values.len() - reader.len())?;
        let results = reader.count(2)?;
        reader.bytes(2 * results)?;
        if !matches!(formats.len() / 2, n if n <= 1 || n == count) {
            return Err(reader.invalid("the number of format codes fits neither 0, 1 nor the number of parameters"));
        }
        reader.end()?;
        Ok(Self { portal, statement, formats, values, count, marks })
    }

    /// Number of parameters.
    #[inline]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no parameter.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The value of `$n` (from 1): `None` if there is none, `Some(None)` for NULL.
    #[inline]
    pub fn value(&self, n: usize) -> Option<Option<&'a [u8]>> {
        if n == 0 || n > self.count {
            return None;
        }
        let stride = (n - 1) / STRIDE;
        let from = match stride {
            0 => 0,
            _ => *self.marks.get(stride - 1)? as usize,
        };
        let mut reader = Reader::new("Bind", self.values.get(from..)?);
        for _ in stride * STRIDE + 1..n {
            value(&mut reader).ok()?;
        }
        value(&mut reader).ok()
    }

    /// Whether `$n` (from 1) is in binary format.
    #[inline]
    pub fn binary(&self, n: usize) -> bool {
        match self.formats {
            [] => false,
            [_, code] => *code == 1,
            codes => n.checked_sub(1).and_then(|n| codes.get(2 * n + 1)).is_some_and(|code| *code == 1),
        }
    }
}

#[inline]
fn value<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, ProtocolError> {
    match reader.i32()? {
        -1 => Ok(None),
        len => {
            let len = usize::try_from(len).map_err(|_| reader.invalid("a parameter has a negative length"))?;
            reader.bytes(len).map(Some)
        }
    }
}

/// What a Describe or a Close is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// A prepared statement.
    Statement,
    /// A portal.
    Portal,
}

/// A Describe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Describe<'a> {
    /// Of what.
    pub kind: Object,
    /// Its name.
    pub name: &'a [u8],
}

impl<'a> Describe<'a> {
    /// # Errors
    /// When the body is not a Describe, exactly.
    #[inline]
    pub fn from_body(body: &'a [u8]) -> Result<Self, ProtocolError> {
        object("Describe", body).map(|(kind, name)| Self { kind, name })
    }
}

/// A Close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close<'a> {
    /// Of what.
    pub kind: Object,
    /// Its name.
    pub name: &'a [u8],
}

impl<'a> Close<'a> {
    /// # Errors
    /// When the body is not a Close, exactly.
    #[inline]
    pub fn from_body(body: &'a [u8]) -> Result<Self, ProtocolError> {
        object("Close", body).map(|(kind, name)| Self { kind, name })
    }
}

#[inline]
fn object<'a>(message: &'static str, body: &'a [u8]) -> Result<(Object, &'a [u8]), ProtocolError> {
    let mut reader = Reader::new(message, body);
    let kind = match reader.u8()? {
        b'S' => Object::Statement,
        b'P' => Object::Portal,
        other => return Err(reader.invalid(&format!("invalid subtype {other}"))),
    };
    let name = reader.string()?;
    reader.end()?;
    Ok((kind, name))
}

/// An Execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Execute<'a> {
    /// Name of the portal.
    pub portal: &'a [u8],
    /// Rows to return at most, 0 for all.
    pub max_rows: i32,
}

impl<'a> Execute<'a> {
    /// # Errors
    /// When the body is not an Execute, exactly.
    #[inline]
    pub fn from_body(body: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut reader = Reader::new("Execute", body);
        let portal = reader.string()?;
        let max_rows = reader.i32()?;
        reader.end()?;
        Ok(Self { portal, max_rows })
    }
}

/// Appends a Query.
#[inline]
pub fn put_query(out: &mut BytesMut, text: &[u8]) {
    out.reserve(text.len() + 6);
    put_with(out, tag::QUERY, |out| put_string(out, text));
}

/// Appends a Parse.
#[inline]
pub fn put_parse(out: &mut BytesMut, name: &[u8], text: &[u8], types: &[u32]) {
    put_with(out, tag::PARSE, |out| {
        put_string(out, name);
        put_string(out, text);
        // A count came from a Parse, whose field has 16 bits.
        out.put_u16(types.len() as u16);
        for oid in types {
            out.put_u32(*oid);
        }
    });
}

/// Appends the Bind with this body, of another statement. The body must have been parsed before; one that was not is
/// passed on as it is, for the server to refuse.
#[inline]
pub fn put_bind_renamed(out: &mut BytesMut, body: &[u8], statement: &[u8]) {
    let portal_end = find_nul(body).map_or(body.len(), |end| end + 1);
    let (portal, rest) = body.split_at(portal_end);
    let rest = find_nul(rest).map_or(&rest[rest.len()..], |end| &rest[end + 1..]);
    out.reserve(body.len() + statement.len() + 6);
    put_with(out, tag::BIND, |out| {
        out.put_slice(portal);
        put_string(out, statement);
        out.put_slice(rest);
    });
}

/// Appends a Describe of a statement.
pub fn put_describe_statement(out: &mut BytesMut, name: &[u8]) {
    put_object(out, tag::DESCRIBE, b'S', name);
}

/// Appends a Describe of a portal.
pub fn put_describe_portal(out: &mut BytesMut, name: &[u8]) {
    put_object(out, tag::DESCRIBE, b'P', name);
}

/// Appends an Execute of a portal, for all of its rows.
pub fn put_execute(out: &mut BytesMut, portal: &[u8]) {
    put_with(out, tag::EXECUTE, |out| {
        put_string(out, portal);
        out.put_i32(0);
    });
}

/// Appends a Close of a statement.
pub fn put_close_statement(out: &mut BytesMut, name: &[u8]) {
    put_object(out, tag::CLOSE, b'S', name);
}

#[inline]
fn put_object(out: &mut BytesMut, tag: u8, kind: u8, name: &[u8]) {
    put_with(out, tag, |out| {
        out.put_u8(kind);
        put_string(out, name);
    });
}

/// Appends a Sync.
pub fn put_sync(out: &mut BytesMut) {
    put(out, tag::SYNC, &[]);
}

/// Appends a Flush.
pub fn put_flush(out: &mut BytesMut) {
    put(out, tag::FLUSH, &[]);
}

/// Appends a Terminate.
pub fn put_terminate(out: &mut BytesMut) {
    put(out, tag::TERMINATE, &[]);
}

/// Appends a CopyFail with its reason.
pub fn put_copy_fail(out: &mut BytesMut, reason: &str) {
    put_with(out, tag::COPY_FAIL, |out| put_string(out, reason.as_bytes()));
}

/// Appends a CancelRequest.
pub fn put_cancel(out: &mut BytesMut, pid: i32, key: &[u8]) {
    out.put_u32(12 + key.len() as u32);
    out.put_u32(crate::startup::CANCEL_REQUEST);
    out.put_i32(pid);
    out.put_slice(key);
}

/// A SASLInitialResponse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaslInitialResponse<'a> {
    /// The mechanism that the client chose.
    pub mechanism: &'a [u8],
    /// Its first message.
    pub data: &'a [u8],
}

impl<'a> SaslInitialResponse<'a> {
    /// # Errors
    /// When the body is not a SASLInitialResponse with data, exactly.
    #[inline]
    pub fn from_body(body: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut reader = Reader::new("SASLInitialResponse", body);
        let mechanism = reader.string()?;
        let data = value(&mut reader)?.ok_or_else(|| reader.invalid("it carries no data"))?;
        reader.end()?;
        Ok(Self { mechanism, data })
    }
}

#[cfg(test)]
mod tests;
