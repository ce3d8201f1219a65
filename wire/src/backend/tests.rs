#![allow(clippy::unwrap_used)]

use pgwire::messages::{DecodeContext, PgWireBackendMessage, ProtocolVersion, startup::Authentication};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::frame::header;
use crate::hostile;

fn written(write: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut out = BytesMut::new();
    write(&mut out);
    assert_eq!(header(&out).unwrap().unwrap().len, out.len(), "one frame");
    out
}

/// Another reading of the manual: the message as pgwire decodes it.
fn decoded(write: impl FnOnce(&mut BytesMut)) -> PgWireBackendMessage {
    let mut bytes = written(write);
    let message = PgWireBackendMessage::decode(&mut bytes, &DecodeContext::new(ProtocolVersion::PROTOCOL3_0));
    assert!(bytes.is_empty(), "pgwire reads all of it");
    message.unwrap().unwrap()
}

#[test]
fn pgwire_reads_what_is_written_here() {
    use PgWireBackendMessage as Message;
    let Message::Authentication(Authentication::SASL(names)) =
        decoded(|out| put_authentication_sasl(out, &["SCRAM-SHA-256"]))
    else {
        panic!("AuthenticationSASL")
    };
    assert_eq!(names, ["SCRAM-SHA-256"]);
    let Message::ParameterStatus(status) = decoded(|out| put_parameter_status(out, "TimeZone", "UTC")) else {
        panic!("ParameterStatus")
    };
    assert_eq!((&*status.name, &*status.value), ("TimeZone", "UTC"));
    let Message::BackendKeyData(key) = decoded(|out| put_backend_key_data(out, 7, &[0, 0, 1, 0])) else {
        panic!("BackendKeyData")
    };
    assert_eq!((key.pid, key.secret_key.as_i32()), (7, Some(256)));
    let Message::NegotiateProtocolVersion(negotiate) =
        decoded(|out| put_negotiate_protocol_version(out, 2, &["_pq_.compression"]))
    else {
        panic!("NegotiateProtocolVersion")
    };
    assert_eq!(negotiate.newest_minor_protocol, 3 << 16 | 2);
    assert_eq!(negotiate.unsupported_options, ["_pq_.compression"]);
    let Message::CommandComplete(complete) = decoded(|out| put_command_complete(out, "COPY 0")) else {
        panic!("CommandComplete")
    };
    assert_eq!(complete.tag, "COPY 0");
    let Message::CopyInResponse(copy) = decoded(|out| put_copy_in_response(out, true, 3)) else {
        panic!("CopyInResponse")
    };
    assert_eq!((copy.format, copy.columns, copy.column_formats), (1, 3, vec![1, 1, 1]));
    let Message::RowDescription(row) = decoded(|out| put_row_description(out, &["a", "b"])) else {
        panic!("RowDescription")
    };
    assert_eq!(
        row.fields.iter().map(|field| (&*field.name, field.type_id)).collect::<Vec<_>>(),
        [("a", 25), ("b", 25)]
    );
    let Message::DataRow(row) = decoded(|out| put_data_row(out, &[Some("x"), None])) else { panic!("DataRow") };
    assert_eq!((row.field_count, &row.data[..]), (2, &b"\0\0\0\x01x\xff\xff\xff\xff"[..]));
}

#[test]
fn messages_without_a_body_are_five_bytes() {
    for message in [PARSE_COMPLETE, BIND_COMPLETE, CLOSE_COMPLETE, NO_DATA, EMPTY_QUERY_RESPONSE] {
        assert_eq!(header(message).unwrap().unwrap().len, message.len());
    }
    assert_eq!(&written(put_authentication_ok)[..], b"R\0\0\0\x08\0\0\0\0");
    assert_eq!(&written(|out| put_ready_for_query(out, TxStatus::Failed))[..], b"Z\0\0\0\x05E");
}

#[test]
fn a_setting_or_a_list_of_columns_may_be_longer_than_libpq_receives() {
    let long = "x".repeat(40_000);
    let status = written(|out| put_parameter_status(out, "search_path", &long));
    assert_eq!(parameter_status(&status[5..]), Ok(("search_path", &*long)));
    written(|out| put_command_complete(out, &long));
    written(|out| put_copy_in_response(out, false, 20_000));
    written(|out| put_copy_in_response(out, false, usize::MAX));
}

#[test]
fn a_nul_in_a_string_does_not_make_a_field() {
    let status = written(|out| put_parameter_status(out, "a\0b", "c\0"));
    assert_eq!(parameter_status(&status[5..]), Ok(("ab", "c")));
    let error = written(|out| put_error(out, &PgError::error("28P01", "user \"a\0CXX000\0\"")));
    assert_eq!(error_fields(&error[5..]).unwrap().sqlstate, b"28P01");
    let row = written(|out| put_row_description(out, &["a\0b"]));
    assert_eq!(&row[7..10], b"ab\0");
}

#[test]
fn an_error_reads_back_as_it_was_written() {
    let error = PgError::error("PW001", "no patient").with_detail("d").with_hint("h");
    let out = written(|out| put_error(out, &error));
    let read = PgError::from(error_fields(&out[5..]).unwrap());
    assert_eq!(written(|out| put_error(out, &read)), out);
    assert!(read.is_passed_on() && !error.is_passed_on());
    hostile::exact(&out[5..], |body| error_fields(body).ok().map(|fields| fields.sqlstate.to_vec()));
}

#[test]
fn an_error_of_postgresql_is_understood_in_any_language() {
    let body = "SSCHWERWIEGEND\0VFATAL\0C28000\0MRolle »x« existiert nicht\0Fmiscinit.c\0L768\0\0".as_bytes();
    let fields = error_fields(body).unwrap();
    assert_eq!((fields.severity, fields.sqlstate), (&b"FATAL"[..], &b"28000"[..]));
    let latin1 = b"SERROR\0C42P01\0Mrelation \"\xe9\" does not exist\0\0";
    assert_eq!(error_fields(latin1).unwrap().message, b"relation \"\xe9\" does not exist");
    assert!(PgError::from(error_fields(latin1).unwrap()).message().contains('\u{fffd}'));
}

#[test]
fn readers_of_server_messages_are_exact() {
    assert_eq!(ready_for_query(b"T"), Ok(TxStatus::InTransaction));
    assert!(ready_for_query(b"X").is_err());
    hostile::exact(b"I", |body| ready_for_query(body).ok());
    hostile::exact(b"TimeZone\0UTC\0", |body| {
        parameter_status(body).ok().map(|(name, value)| (name.to_owned(), value.to_owned()))
    });
    hostile::exact(b"INSERT 0 1\0", |body| command_tag(body).ok().map(<[u8]>::to_vec));
    assert_eq!(backend_key_data(&[0, 0, 0, 7, 1, 2, 3, 4]), Ok((7, &[1, 2, 3, 4][..])));
    for len in [0, 3, 257] {
        assert!(backend_key_data(&[&[0, 0, 0, 7], &vec![1; len][..]].concat()).is_err(), "a key of {len} bytes");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_an_answer_or_an_error(bytes in vec(any::<u8>(), 0..200)) {
        let _ = ready_for_query(&bytes);
        let _ = parameter_status(&bytes);
        let _ = backend_key_data(&bytes);
        let _ = command_tag(&bytes);
        let _ = error_fields(&bytes).map(PgError::from);
    }

    #[test]
    fn any_text_of_ours_is_one_frame(a in any::<String>(), b in any::<String>()) {
        written(|out| put_parameter_status(out, &a, &b));
        written(|out| put_error(out, &PgError::error("XX000", a.clone()).with_detail(b.clone()).with_position(3)));
        written(|out| put_notice(out, &PgError::warning("01000", b.clone()).with_hint(a.clone())));
        written(|out| put_row_description(out, &[&a, &b]));
        written(|out| put_data_row(out, &[Some(&a), None, Some(&b)]));
        let error = written(|out| put_error(out, &PgError::error("XX000", a.clone())));
        let message = a.replace('\0', "");
        prop_assert_eq!(error_fields(&error[5..]).unwrap().message, message.as_bytes());
    }
}
