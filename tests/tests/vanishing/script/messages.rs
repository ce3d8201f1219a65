//! Messages of a client that PgWard itself never says.

use bytes::{BufMut, BytesMut};
use pgward_wire::frontend;

pub(super) fn message(out: &mut BytesMut, tag: u8, body: &[u8]) {
    out.put_u8(tag);
    out.put_u32(u32::try_from(body.len() + 4).expect("a message is short"));
    out.put_slice(body);
}

pub(super) fn put_value(out: &mut BytesMut, value: &[u8]) {
    out.put_u32(u32::try_from(value.len()).expect("a value is short"));
    out.put_slice(value);
}

pub(super) fn parse(out: &mut BytesMut, name: &str, sql: &str) {
    frontend::put_parse(out, name.as_bytes(), sql.as_bytes(), &[]);
}

/// A Bind with values as text.
pub(super) fn bind(out: &mut BytesMut, portal: &str, statement: &str, values: &[&[u8]]) {
    let mut body = BytesMut::from(format!("{portal}\0{statement}\0\0\0").as_bytes());
    body.put_u16(u16::try_from(values.len()).expect("a few values"));
    for value in values {
        put_value(&mut body, value);
    }
    body.put_u16(0);
    message(out, b'B', &body);
}

pub(super) fn describe_portal(out: &mut BytesMut) {
    message(out, b'D', b"P\0");
}

pub(super) fn execute(out: &mut BytesMut, portal: &str, max_rows: u32) {
    let mut body = BytesMut::from(format!("{portal}\0").as_bytes());
    body.put_u32(max_rows);
    message(out, b'E', &body);
}
