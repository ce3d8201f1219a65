//! The first packet of a connection: "Start-up" in the manual's "Message Flow".

use bytes::{BufMut, BytesMut};

use crate::error::ProtocolError;
use crate::frame::put_string;
use crate::read::Reader;

/// Code of a CancelRequest.
pub const CANCEL_REQUEST: u32 = 80_877_102;
/// Code of an SSLRequest.
pub const SSL_REQUEST: u32 = 80_877_103;
/// Code of a GSSENCRequest.
pub const GSSENC_REQUEST: u32 = 80_877_104;

/// The minor versions of protocol 3 that are spoken, newest first. There is no 3.1: PostgreSQL left the number out, since
/// poolers had answered it wrongly.
const MINORS: [u16; 2] = [2, 0];

/// The longest cancel key of protocol 3.2.
const MAX_KEY_BYTES: usize = 256;

/// What a client says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstPacket {
    /// It asks for TLS.
    SslRequest,
    /// It asks for GSSAPI encryption.
    GssEncRequest,
    /// It cancels what runs for another connection.
    Cancel {
        /// The process id that the other was given.
        pid: i32,
        /// The secret key that the other was given.
        key: Vec<u8>,
    },
    /// It begins a session.
    Startup(Startup),
}

/// A StartupMessage of protocol 3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Startup {
    /// Minor protocol version asked for.
    pub minor: u16,
    /// Parameters in order.
    pub params: Vec<(String, String)>,
}

impl Startup {
    /// The minor version that is spoken with this client: the newest that is not newer than what it asks for.
    pub fn spoken(&self) -> u16 {
        MINORS.into_iter().find(|minor| *minor <= self.minor).unwrap_or(0)
    }

    /// The protocol options that the client asks for. None is known.
    pub fn protocol_options(&self) -> Vec<&str> {
        self.params.iter().map(|(name, _)| name.as_str()).filter(|name| name.starts_with("_pq_.")).collect()
    }

    /// A parameter's value; the last one counts.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.params.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The user, if one is named.
    pub fn user(&self) -> Option<&str> {
        self.get("user").filter(|user| !user.is_empty())
    }

    /// The database; the user's name where none is named.
    pub fn database(&self) -> Option<&str> {
        self.get("database").filter(|database| !database.is_empty()).or_else(|| self.user())
    }
}

/// Appends a StartupMessage of protocol 3.0, which every server speaks.
pub fn put<'a>(out: &mut BytesMut, params: impl IntoIterator<Item = (&'a str, &'a str)>) {
    let mut body = BytesMut::new();
    body.put_u32(3 << 16);
    for (name, value) in params {
        put_string(&mut body, name.as_bytes());
        put_string(&mut body, value.as_bytes());
    }
    body.put_u8(0);
    out.put_u32(body.len() as u32 + 4);
    out.put_slice(&body);
}

impl FirstPacket {
    /// Parses a packet without its length field.
    ///
    /// # Errors
    /// When it is none of the four, exactly.
    pub fn parse(body: &[u8]) -> Result<Self, ProtocolError> {
        let mut reader = Reader::new("startup", body);
        match reader.i32()? as u32 {
            SSL_REQUEST => reader.end().map(|()| Self::SslRequest),
            GSSENC_REQUEST => reader.end().map(|()| Self::GssEncRequest),
            CANCEL_REQUEST => {
                let pid = reader.i32()?;
                let key = reader.rest();
                if !(4..=MAX_KEY_BYTES).contains(&key.len()) {
                    return Err(reader.invalid("the cancel key has neither 4 nor up to 256 bytes"));
                }
                Ok(Self::Cancel { pid, key: key.to_vec() })
            }
            version if version >> 16 == 3 => parameters(reader, version as u16).map(Self::Startup),
            version => Err(ProtocolError::unsupported(format!(
                "unsupported frontend protocol {}.{}: server supports 3.0 to 3.2",
                version >> 16,
                version & 0xffff
            ))),
        }
    }
}

fn parameters(mut reader: Reader<'_>, minor: u16) -> Result<Startup, ProtocolError> {
    let mut params = Vec::new();
    loop {
        let name = reader.string()?;
        if name.is_empty() {
            break;
        }
        let value = reader.string()?;
        let text = |bytes: &[u8]| {
            std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| reader.invalid("a parameter is not UTF-8"))
        };
        params.push((text(name)?, text(value)?));
    }
    reader.end()?;
    Ok(Startup { minor, params })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn startup() -> Vec<u8> {
        let mut body = 196_608u32.to_be_bytes().to_vec();
        body.extend(b"user\0nurse\0database\0healthcare\0\0");
        body
    }

    #[test]
    fn a_startup_message_names_user_and_database() {
        let FirstPacket::Startup(startup) = FirstPacket::parse(&startup()).unwrap() else { panic!("a startup") };
        assert_eq!((startup.minor, startup.user(), startup.database()), (0, Some("nurse"), Some("healthcare")));
    }

    #[test]
    fn cut_anywhere_or_with_junk_behind_it_is_an_error() {
        let whole = startup();
        for cut in 0..whole.len() {
            assert!(FirstPacket::parse(&whole[..cut]).is_err(), "cut at {cut}");
        }
        let mut junk = whole;
        junk.push(0);
        assert!(FirstPacket::parse(&junk).is_err());
    }

    #[test]
    fn requests_are_exact() {
        assert_eq!(FirstPacket::parse(&SSL_REQUEST.to_be_bytes()), Ok(FirstPacket::SslRequest));
        assert_eq!(FirstPacket::parse(&GSSENC_REQUEST.to_be_bytes()), Ok(FirstPacket::GssEncRequest));
        let mut cancel = CANCEL_REQUEST.to_be_bytes().to_vec();
        cancel.extend(7i32.to_be_bytes());
        assert!(FirstPacket::parse(&cancel).is_err());
        cancel.extend([1, 2, 3, 4]);
        assert_eq!(FirstPacket::parse(&cancel), Ok(FirstPacket::Cancel { pid: 7, key: vec![1, 2, 3, 4] }));
    }

    #[test]
    fn a_user_is_named_and_not_empty_and_gives_the_database_its_name() {
        let parse = |params: &[u8]| match FirstPacket::parse(&[&[0, 3, 0, 0], params].concat()) {
            Ok(FirstPacket::Startup(startup)) => startup,
            other => panic!("{other:?}"),
        };
        assert_eq!(parse(b"\0").user(), None);
        assert_eq!(parse(b"user\0\0\0").user(), None);
        assert_eq!(parse(b"user\0nurse\0\0").database(), Some("nurse"));
        assert_eq!(parse(b"user\0nurse\0database\0\0\0").database(), Some("nurse"));
        assert_eq!(parse(b"user\0a\0user\0b\0\0").user(), Some("b"), "the last one counts, as in PostgreSQL");
    }

    #[test]
    fn protocols_of_other_centuries_are_not_spoken() {
        for version in [2u32 << 16, 4 << 16, 0, u32::MAX] {
            let error = FirstPacket::parse(&version.to_be_bytes()).unwrap_err();
            assert_eq!(crate::PgError::from(error).sqlstate(), "0A000", "{version:#x}");
        }
    }

    #[test]
    fn the_newest_version_that_both_speak_is_spoken() {
        let spoken = |minor| Startup { minor, params: Vec::new() }.spoken();
        assert_eq!([0, 1, 2, 3, 9999, u16::MAX].map(spoken), [0, 0, 2, 2, 2, 2]);
    }

    #[test]
    fn options_of_the_protocol_are_told_from_parameters() {
        let params = ["user", "_pq_.command_progress", "_pq_", "_pq_.x"].map(|name| (name.to_owned(), String::new()));
        let startup = Startup { minor: 2, params: params.into() };
        assert_eq!(startup.protocol_options(), ["_pq_.command_progress", "_pq_.x"]);
    }

    #[test]
    fn keys_of_a_cancel_request_have_their_limits() {
        for (len, right) in [(0, false), (3, false), (4, true), (32, true), (256, true), (257, false)] {
            let body = [&CANCEL_REQUEST.to_be_bytes()[..], &[0; 4], &vec![1; len]].concat();
            assert_eq!(FirstPacket::parse(&body).is_ok(), right, "{len}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_an_error(
            code in proptest::sample::select(vec![CANCEL_REQUEST, SSL_REQUEST, GSSENC_REQUEST, 3 << 16, 3 << 16 | 2, 7]),
            rest in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100),
        ) {
            let _ = FirstPacket::parse(&[&code.to_be_bytes()[..], &rest].concat());
            let _ = FirstPacket::parse(&rest);
        }
    }
}
