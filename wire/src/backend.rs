//! Messages of servers: writers of what the proxy says itself, strict readers of what it must understand.
//!
//! The writers use pgwire's message structs where those can carry what we have to say. ParameterStatus, CommandComplete
//! and CopyInResponse are written here: pgwire refuses to encode more than 30000 bytes of them (libpq's limit for what it
//! receives), and their length is up to a server's setting or a client's list of columns. Every string goes through
//! [`text`] or `put_string`, since a NUL inside one would end it early and turn its remainder into the next field.

use bytes::{BufMut, BytesMut};
use pgwire::messages::Message;
use pgwire::messages::data::{DataRow, FieldDescription, ParameterDescription, RowDescription};
use pgwire::messages::response::{ErrorResponse, NoticeResponse};

use crate::error::{PgError, ProtocolError};
use crate::frame::{put, put_string, put_with};
use crate::read::Reader;
use crate::status::TxStatus;
use crate::tag::backend as tag;

/// ParseComplete, whole.
pub const PARSE_COMPLETE: &[u8] = b"1\0\0\0\x04";
/// CommandComplete of a PREPARE, whole.
pub const PREPARED: &[u8] = b"C\0\0\0\x0cPREPARE\0";
/// BindComplete, whole.
pub const BIND_COMPLETE: &[u8] = b"2\0\0\0\x04";
/// CloseComplete, whole.
pub const CLOSE_COMPLETE: &[u8] = b"3\0\0\0\x04";
/// NoData, whole.
pub const NO_DATA: &[u8] = b"n\0\0\0\x04";
/// EmptyQueryResponse, whole.
pub const EMPTY_QUERY_RESPONSE: &[u8] = b"I\0\0\0\x04";

/// OID of type text.
const TEXT: u32 = 25;

/// Appends one of the messages that pgwire lets grow to 2 GiB, which nothing that we hold in memory comes near.
fn say(out: &mut BytesMut, message: &impl Message) {
    message.encode(out).expect("messages of the proxy's own fit into a frame");
}

fn text(text: &str) -> String {
    text.replace('\0', "")
}

/// Appends AuthenticationOk.
pub fn put_authentication_ok(out: &mut BytesMut) {
    put(out, tag::AUTHENTICATION, &0u32.to_be_bytes());
}

/// Appends AuthenticationCleartextPassword.
pub fn put_authentication_cleartext(out: &mut BytesMut) {
    put(out, tag::AUTHENTICATION, b"\0\0\0\x03");
}

/// Appends AuthenticationSASL with these mechanisms.
pub fn put_authentication_sasl(out: &mut BytesMut, mechanisms: &[&str]) {
    put_with(out, tag::AUTHENTICATION, |out| {
        out.put_u32(10);
        for mechanism in mechanisms {
            put_string(out, mechanism.as_bytes());
        }
        out.put_u8(0);
    });
}

/// Appends AuthenticationSASLContinue.
pub fn put_authentication_sasl_continue(out: &mut BytesMut, data: &[u8]) {
    put_with(out, tag::AUTHENTICATION, |out| {
        out.put_u32(11);
        out.put_slice(data);
    });
}

/// Appends AuthenticationSASLFinal.
pub fn put_authentication_sasl_final(out: &mut BytesMut, data: &[u8]) {
    put_with(out, tag::AUTHENTICATION, |out| {
        out.put_u32(12);
        out.put_slice(data);
    });
}

/// Appends ParameterStatus.
pub fn put_parameter_status(out: &mut BytesMut, name: &str, value: &str) {
    put_with(out, tag::PARAMETER_STATUS, |out| {
        put_string(out, name.as_bytes());
        put_string(out, value.as_bytes());
    });
}

/// Appends BackendKeyData.
pub fn put_backend_key_data(out: &mut BytesMut, pid: i32, key: &[u8]) {
    put_with(out, tag::BACKEND_KEY_DATA, |out| {
        out.put_i32(pid);
        out.put_slice(key);
    });
}

/// Appends NegotiateProtocolVersion: the newest minor version spoken, and the options that are not known.
pub fn put_negotiate_protocol_version(out: &mut BytesMut, minor: u16, unknown_options: &[&str]) {
    put_with(out, tag::NEGOTIATE_PROTOCOL_VERSION, |out| {
        out.put_u32((3 << 16) | u32::from(minor));
        out.put_u32(unknown_options.len() as u32);
        for option in unknown_options {
            put_string(out, option.as_bytes());
        }
    });
}

/// Appends ReadyForQuery.
#[inline]
pub fn put_ready_for_query(out: &mut BytesMut, status: TxStatus) {
    put(out, tag::READY_FOR_QUERY, &[status.byte()]);
}

/// Appends an ErrorResponse.
pub fn put_error(out: &mut BytesMut, error: &PgError) {
    say(out, &ErrorResponse::new(fields(error)));
}

/// Appends a NoticeResponse.
pub fn put_notice(out: &mut BytesMut, notice: &PgError) {
    say(out, &NoticeResponse::new(fields(notice)));
}

/// The fields of "Error and Notice Message Fields" in the manual.
fn fields(error: &PgError) -> Vec<(u8, String)> {
    let severity = error.severity().as_str().to_owned();
    let mut fields =
        vec![(b'S', severity.clone()), (b'V', severity), (b'C', text(error.sqlstate())), (b'M', text(error.message()))];
    fields.extend(error.detail().map(|detail| (b'D', text(detail))));
    fields.extend(error.hint().map(|hint| (b'H', text(hint))));
    fields.extend(error.position().map(|position| (b'P', position.to_string())));
    fields
}

/// Appends CommandComplete.
pub fn put_command_complete(out: &mut BytesMut, command: &str) {
    put_with(out, tag::COMMAND_COMPLETE, |out| put_string(out, command.as_bytes()));
}

/// Appends ParameterDescription.
pub fn put_parameter_description(out: &mut BytesMut, types: &[u32]) {
    say(out, &ParameterDescription::new(types.to_vec()));
}

/// Appends RowDescription of text columns.
pub fn put_row_description(out: &mut BytesMut, columns: &[&str]) {
    let field = |name: &&str| FieldDescription::new(text(name), 0, 0, TEXT, -1, -1, 0);
    say(out, &RowDescription::new(columns.iter().map(field).collect()));
}

/// Appends DataRow of text values.
pub fn put_data_row(out: &mut BytesMut, values: &[Option<&str>]) {
    let mut data = BytesMut::new();
    for value in values {
        match value {
            Some(value) => {
                data.put_i32(value.len() as i32);
                data.put_slice(value.as_bytes());
            }
            None => data.put_i32(-1),
        }
    }
    say(out, &DataRow::new(data, values.len() as i16));
}

/// Appends CopyInResponse: text or binary as a whole, and so for each column. A table has at most 1600 of them; what is
/// beyond the field's 16 bits is left out.
pub fn put_copy_in_response(out: &mut BytesMut, binary: bool, columns: usize) {
    let columns = i16::try_from(columns).unwrap_or(i16::MAX);
    put_with(out, tag::COPY_IN_RESPONSE, |out| {
        out.put_u8(u8::from(binary));
        out.put_i16(columns);
        for _ in 0..columns {
            out.put_i16(i16::from(binary));
        }
    });
}

/// The status in ReadyForQuery.
///
/// # Errors
/// When the body is not one known status.
#[inline]
pub fn ready_for_query(body: &[u8]) -> Result<TxStatus, ProtocolError> {
    match body {
        [byte] => TxStatus::from_byte(*byte),
        _ => None,
    }
    .ok_or_else(|| ProtocolError::new("invalid ReadyForQuery message"))
}

/// Name and value in ParameterStatus.
///
/// # Errors
/// When the body is not two strings.
pub fn parameter_status(body: &[u8]) -> Result<(&str, &str), ProtocolError> {
    let mut reader = Reader::new("ParameterStatus", body);
    let name = reader.string()?;
    let value = reader.string()?;
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| reader.invalid("it is not UTF-8"));
    let pair = (text(name)?, text(value)?);
    reader.end()?;
    Ok(pair)
}

/// Process id and secret key in BackendKeyData.
///
/// # Errors
/// When the key has neither 4 nor up to 256 bytes.
pub fn backend_key_data(body: &[u8]) -> Result<(i32, &[u8]), ProtocolError> {
    let mut reader = Reader::new("BackendKeyData", body);
    let pid = reader.i32()?;
    let key = reader.rest();
    if (4..=256).contains(&key.len()) { Ok((pid, key)) } else { Err(reader.invalid("the key has a length of its own")) }
}

/// What a server asks for at login, by the code of its Authentication message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthRequest<'a> {
    /// AuthenticationOk
    Ok,
    /// AuthenticationCleartextPassword
    Cleartext,
    /// AuthenticationMD5Password, with its salt.
    Md5([u8; 4]),
    /// AuthenticationSASL, with the mechanisms that it offers.
    Sasl(Vec<&'a [u8]>),
    /// AuthenticationSASLContinue
    SaslContinue,
    /// AuthenticationSASLFinal
    SaslFinal,
    /// Kerberos, GSSAPI or SSPI.
    Other(i32),
}

/// The request in an Authentication message.
///
/// # Errors
/// When the body is not that of its code.
pub fn authentication(body: &[u8]) -> Result<AuthRequest<'_>, ProtocolError> {
    let mut reader = Reader::new("Authentication", body);
    let request = match reader.i32()? {
        0 => AuthRequest::Ok,
        3 => AuthRequest::Cleartext,
        5 => {
            let salt = reader.bytes(4)?;
            AuthRequest::Md5([salt[0], salt[1], salt[2], salt[3]])
        }
        10 => {
            let mut mechanisms = Vec::new();
            loop {
                match reader.string()? {
                    b"" => break,
                    mechanism => mechanisms.push(mechanism),
                }
            }
            AuthRequest::Sasl(mechanisms)
        }
        11 => return Ok(AuthRequest::SaslContinue),
        12 => return Ok(AuthRequest::SaslFinal),
        known @ (2 | 7 | 9) => return Ok(AuthRequest::Other(known)),
        _ => return Err(reader.invalid("no such request is known")),
    };
    reader.end()?;
    Ok(request)
}

/// The command tag in CommandComplete.
///
/// # Errors
/// When the body is not one string.
#[inline]
pub fn command_tag(body: &[u8]) -> Result<&[u8], ProtocolError> {
    let mut reader = Reader::new("CommandComplete", body);
    let command = reader.string()?;
    reader.end()?;
    Ok(command)
}

/// Fields of an ErrorResponse or NoticeResponse, as sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrorFields<'a> {
    /// Severity, never localized where the server sends that (9.6 and later).
    pub severity: &'a [u8],
    /// SQLSTATE.
    pub sqlstate: &'a [u8],
    /// MESSAGE.
    pub message: &'a [u8],
    /// DETAIL.
    pub detail: Option<&'a [u8]>,
    /// HINT.
    pub hint: Option<&'a [u8]>,
    /// The function in PostgreSQL's source that reported it; empty where the server does not say.
    pub routine: &'a [u8],
}

/// Reads an ErrorResponse or NoticeResponse.
///
/// # Errors
/// When the body is not a list of fields that ends with it.
pub fn error_fields(body: &[u8]) -> Result<ErrorFields<'_>, ProtocolError> {
    let mut reader = Reader::new("ErrorResponse", body);
    let mut fields = ErrorFields::default();
    loop {
        match reader.u8()? {
            0 => break,
            b'V' => fields.severity = reader.string()?,
            b'S' if fields.severity.is_empty() => fields.severity = reader.string()?,
            b'C' => fields.sqlstate = reader.string()?,
            b'M' => fields.message = reader.string()?,
            b'D' => fields.detail = Some(reader.string()?),
            b'H' => fields.hint = Some(reader.string()?),
            b'R' => fields.routine = reader.string()?,
            _ => {
                reader.string()?;
            }
        }
    }
    reader.end()?;
    Ok(fields)
}

/// Appends the same ErrorResponse or NoticeResponse with some of its fields changed: `change` is given the code and the
/// text of each field in turn, and says what stands in its place, or `None` to leave it.
///
/// # Errors
/// When the body is not a list of fields that ends with it; nothing is appended then.
pub fn put_fields_changed(
    out: &mut BytesMut,
    tag: u8,
    body: &[u8],
    mut change: impl FnMut(u8, &[u8]) -> Option<Vec<u8>>,
) -> Result<(), ProtocolError> {
    let mut reader = Reader::new("ErrorResponse", body);
    let mut fields = BytesMut::with_capacity(body.len() + 64);
    loop {
        let code = reader.u8()?;
        if code == 0 {
            break;
        }
        let text = reader.string()?;
        let changed = change(code, text);
        fields.put_u8(code);
        put_string(&mut fields, changed.as_deref().unwrap_or(text));
    }
    reader.end()?;
    fields.put_u8(0);
    put(out, tag, &fields);
    Ok(())
}

#[cfg(test)]
mod tests;
