//! Every parser of a message's body, in one list: what the tests and the fuzz targets put to the test.
//!
//! A parser that is missing here fails the tests. Not part of the product: only there for tests and with the feature
//! `parsers`.

use bytes::BytesMut;

use crate::backend;
use crate::error::{PgError, ProtocolError};
use crate::frame::HEADER_BYTES;
use crate::frontend::{self, Bind, Close, Describe, Execute, Object, Parse, SaslInitialResponse};
use crate::login::Login;
use crate::passage::{Passage, Terms};
use crate::startup::FirstPacket;
use crate::tag;

/// Who sends a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A client, as the first of all: without a type.
    Caller,
    /// A client.
    Client,
    /// A server.
    Server,
}

/// The parser of one message's body.
#[derive(Clone, Copy, Debug)]
pub struct Parser {
    /// The function, as the source calls it.
    pub function: &'static str,
    /// Who sends the message.
    pub sender: Sender,
    /// The message's types.
    pub tags: &'static [u8],
    /// Parses a body and says all that was found. What is found must hold together, and say the same body when it is
    /// written again; this panics where it does not.
    pub parse: fn(&[u8]) -> Result<String, ProtocolError>,
    /// Bodies that are taken.
    pub samples: &'static [&'static [u8]],
    /// The last field takes what is left, within limits: another length is not a mistake by itself.
    pub open: bool,
}

/// All of them.
pub const PARSERS: &[Parser] = &[
    Parser {
        function: "startup::FirstPacket::parse",
        sender: Sender::Caller,
        tags: &[],
        parse: first_packet,
        samples: &[
            b"\0\x03\0\0user\0nurse\0database\0healthcare\0options\0-c TimeZone=UTC\0\0",
            b"\0\x03\0\x02user\0nurse\0_pq_.x\0\0\0",
            b"\x04\xd2\x16\x2f",
            b"\x04\xd2\x16\x30",
        ],
        open: false,
    },
    Parser {
        function: "startup::FirstPacket::parse",
        sender: Sender::Caller,
        tags: &[],
        parse: first_packet,
        samples: &[b"\x04\xd2\x16\x2e\0\0\0\x07\x01\x02\x03\x04"],
        open: true,
    },
    Parser {
        function: "frontend::query",
        sender: Sender::Client,
        tags: &[tag::frontend::QUERY],
        parse: query,
        samples: &[b"\0", b"SELECT 1\0"],
        open: false,
    },
    Parser {
        function: "frontend::Parse::from_body",
        sender: Sender::Client,
        tags: &[tag::frontend::PARSE],
        parse,
        samples: &[b"\0SELECT 1\0\0\0", b"s1\0SELECT $1, $2\0\0\x02\0\0\x0b\x86\0\0\0\0"],
        open: false,
    },
    Parser {
        function: "frontend::Bind::from_body",
        sender: Sender::Client,
        tags: &[tag::frontend::BIND],
        parse: bind,
        samples: &[
            b"\0\0\0\0\0\0\0\0",
            b"\0s1\0\0\x01\0\x01\0\x02\0\0\0\x01a\0\0\0\0\0\x01\0\x01",
            b"portal\0stmt\0\0\x03\0\0\0\0\0\x01\0\x03\0\0\0\x01a\xff\xff\xff\xff\0\0\0\x04\0\0\0\x01\0\x02\0\x01\0\0",
        ],
        open: false,
    },
    Parser {
        function: "frontend::Describe::from_body",
        sender: Sender::Client,
        tags: &[tag::frontend::DESCRIBE],
        parse: describe,
        samples: &[b"S\0", b"Ss1\0", b"Pp\0"],
        open: false,
    },
    Parser {
        function: "frontend::Close::from_body",
        sender: Sender::Client,
        tags: &[tag::frontend::CLOSE],
        parse: close,
        samples: &[b"S\0", b"Ss1\0", b"Pp\0"],
        open: false,
    },
    Parser {
        function: "frontend::Execute::from_body",
        sender: Sender::Client,
        tags: &[tag::frontend::EXECUTE],
        parse: execute,
        samples: &[b"\0\0\0\0\0", b"p\0\0\0\0\x0a"],
        open: false,
    },
    Parser {
        function: "frontend::SaslInitialResponse::from_body",
        sender: Sender::Client,
        tags: &[tag::frontend::PASSWORD],
        parse: sasl_initial_response,
        samples: &[b"SCRAM-SHA-256\0\0\0\0\x0cn,,n=,r=abcd"],
        open: false,
    },
    Parser {
        function: "login::Login::frame",
        sender: Sender::Server,
        tags: &[tag::backend::AUTHENTICATION],
        parse: authentication,
        samples: &[b"\0\0\0\0", b"\0\0\0\x03", b"\0\0\0\x05salt", b"\0\0\0\x0aSCRAM-SHA-256\0OTHER\0\0"],
        open: false,
    },
    Parser {
        function: "backend::authentication",
        sender: Sender::Server,
        tags: &[tag::backend::AUTHENTICATION],
        parse: auth_request,
        samples: &[b"\0\0\0\0", b"\0\0\0\x03", b"\0\0\0\x05salt", b"\0\0\0\x0aSCRAM-SHA-256\0OTHER\0\0"],
        open: false,
    },
    Parser {
        function: "passage::Passage::frame",
        sender: Sender::Server,
        tags: &[tag::backend::AUTHENTICATION],
        parse: passage,
        samples: &[b"\0\0\0\0", b"\0\0\0\x03", b"\0\0\0\x05salt", b"\0\0\0\x0aSCRAM-SHA-256\0OTHER\0\0"],
        open: false,
    },
    Parser {
        function: "backend::ready_for_query",
        sender: Sender::Server,
        tags: &[tag::backend::READY_FOR_QUERY],
        parse: ready_for_query,
        samples: &[b"I", b"T", b"E"],
        open: false,
    },
    Parser {
        function: "backend::parameter_status",
        sender: Sender::Server,
        tags: &[tag::backend::PARAMETER_STATUS],
        parse: parameter_status,
        samples: &[b"TimeZone\0UTC\0", b"application_name\0\0"],
        open: false,
    },
    Parser {
        function: "backend::backend_key_data",
        sender: Sender::Server,
        tags: &[tag::backend::BACKEND_KEY_DATA],
        parse: backend_key_data,
        samples: &[b"\0\0\0\x07\x01\x02\x03\x04", b"\0\0\0\x07a key of 18.0's kind, longer"],
        open: true,
    },
    Parser {
        function: "backend::command_tag",
        sender: Sender::Server,
        tags: &[tag::backend::COMMAND_COMPLETE],
        parse: command_tag,
        samples: &[b"SELECT 1\0", b"INSERT 0 1\0"],
        open: false,
    },
    Parser {
        function: "backend::error_fields",
        sender: Sender::Server,
        tags: &[tag::backend::ERROR_RESPONSE, tag::backend::NOTICE_RESPONSE],
        parse: error_fields,
        samples: &[
            b"\0",
            b"SFATAL\0VFATAL\0C28000\0Mno such role\0Fmiscinit.c\0L768\0\0",
            b"SERROR\0C42601\0Msyntax\0Dd\0Hh\0P8\0\0",
            b"SERROR\0C22P02\0Mno number\0WCOPY t, line 7, column n: \"x\"\0\0",
        ],
        open: false,
    },
];

/// The parsers of this sender's messages of this type.
pub fn of(sender: Sender, tag: u8) -> impl Iterator<Item = &'static Parser> {
    PARSERS.iter().filter(move |parser| parser.sender == sender && parser.tags.contains(&tag))
}

/// What is written again must be the same body.
fn again(body: &[u8], write: impl FnOnce(&mut BytesMut)) {
    let mut out = BytesMut::new();
    write(&mut out);
    assert_eq!(&out[HEADER_BYTES..], body, "written again");
}

fn first_packet(body: &[u8]) -> Result<String, ProtocolError> {
    let packet = FirstPacket::parse(body)?;
    match &packet {
        FirstPacket::Startup(startup) => {
            let size: usize = startup.params.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
            assert_eq!(size + 5, body.len(), "all of it is parameters");
            let sound =
                |(name, value): &(String, String)| !name.is_empty() && !name.contains('\0') && !value.contains('\0');
            assert!(startup.params.iter().all(sound), "names are there, and nothing holds a NUL");
        }
        FirstPacket::Cancel { pid, key } => {
            let mut out = BytesMut::new();
            frontend::put_cancel(&mut out, *pid, key);
            assert_eq!(&out[4..], body, "written again");
        }
        FirstPacket::SslRequest | FirstPacket::GssEncRequest => assert_eq!(body.len(), 4),
    }
    Ok(format!("{packet:?}"))
}

fn query(body: &[u8]) -> Result<String, ProtocolError> {
    let text = frontend::query(body)?;
    again(body, |out| frontend::put_query(out, text));
    Ok(format!("{text:?}"))
}

fn parse(body: &[u8]) -> Result<String, ProtocolError> {
    let parse = Parse::from_body(body)?;
    let types: Vec<u32> = parse.param_types().collect();
    again(body, |out| frontend::put_parse(out, parse.name, parse.text, &types));
    Ok(format!("{parse:?} {types:?}"))
}

fn bind(body: &[u8]) -> Result<String, ProtocolError> {
    let bind = Bind::from_body(body)?;
    // One that is not there, each that is, and one more.
    let values: Vec<_> = (0..=bind.len() + 1).map(|n| (bind.value(n), bind.binary(n))).collect();
    for (n, (value, _)) in values.iter().enumerate() {
        assert_eq!(value.is_some(), (1..=bind.len()).contains(&n), "parameter {n}");
    }
    again(body, |out| frontend::put_bind_renamed(out, body, bind.statement));
    Ok(format!("{bind:?} {values:?}"))
}

fn describe(body: &[u8]) -> Result<String, ProtocolError> {
    let describe = Describe::from_body(body)?;
    if describe.kind == Object::Statement {
        again(body, |out| frontend::put_describe_statement(out, describe.name));
    }
    Ok(format!("{describe:?}"))
}

fn close(body: &[u8]) -> Result<String, ProtocolError> {
    let close = Close::from_body(body)?;
    if close.kind == Object::Statement {
        again(body, |out| frontend::put_close_statement(out, close.name));
    }
    Ok(format!("{close:?}"))
}

fn execute(body: &[u8]) -> Result<String, ProtocolError> {
    let execute = Execute::from_body(body)?;
    assert_eq!(execute.portal.len() + 5, body.len());
    Ok(format!("{execute:?}"))
}

fn sasl_initial_response(body: &[u8]) -> Result<String, ProtocolError> {
    let response = SaslInitialResponse::from_body(body)?;
    assert_eq!(response.mechanism.len() + response.data.len() + 5, body.len());
    Ok(format!("{response:?}"))
}

/// A server's first request, told to a login with a password. Our nonce is another each time; its length is not.
fn authentication(body: &[u8]) -> Result<String, ProtocolError> {
    let (mut login, _) = Login::new("nurse", Some("secret"), "healthcare", &[]);
    let mut out = BytesMut::new();
    match login.frame(tag::backend::AUTHENTICATION, body, &mut out) {
        Ok(step) => Ok(format!("{step:?} {}", out.len())),
        Err(error) => Err(ProtocolError::new(error.to_string())),
    }
}

fn auth_request(body: &[u8]) -> Result<String, ProtocolError> {
    let request = backend::authentication(body)?;
    if let backend::AuthRequest::Sasl(mechanisms) = &request {
        let size: usize = mechanisms.iter().map(|mechanism| mechanism.len() + 1).sum();
        assert_eq!(size + 5, body.len(), "all of it is mechanisms");
    }
    Ok(format!("{request:?}"))
}

/// A server's first request, passed on to a client on the easiest terms.
fn passage(body: &[u8]) -> Result<String, ProtocolError> {
    let mut passage = Passage::new(Terms { proof: false, cleartext: true });
    let mut out = BytesMut::new();
    match passage.frame(tag::backend::AUTHENTICATION, body, &mut out) {
        Ok(step) => Ok(format!("{step:?} {out:?}")),
        Err(error) => Err(ProtocolError::new(error.message().to_owned())),
    }
}

fn ready_for_query(body: &[u8]) -> Result<String, ProtocolError> {
    let status = backend::ready_for_query(body)?;
    again(body, |out| backend::put_ready_for_query(out, status));
    Ok(format!("{status:?}"))
}

fn parameter_status(body: &[u8]) -> Result<String, ProtocolError> {
    let (name, value) = backend::parameter_status(body)?;
    again(body, |out| backend::put_parameter_status(out, name, value));
    Ok(format!("{name:?} {value:?}"))
}

fn backend_key_data(body: &[u8]) -> Result<String, ProtocolError> {
    let (pid, key) = backend::backend_key_data(body)?;
    again(body, |out| backend::put_backend_key_data(out, pid, key));
    Ok(format!("{pid} {key:?}"))
}

fn command_tag(body: &[u8]) -> Result<String, ProtocolError> {
    let command = backend::command_tag(body)?;
    if let Ok(command) = std::str::from_utf8(command) {
        again(body, |out| backend::put_command_complete(out, command));
    }
    Ok(format!("{command:?}"))
}

/// Said again it is another frame, without what is not kept, but of the same meaning.
fn error_fields(body: &[u8]) -> Result<String, ProtocolError> {
    let fields = backend::error_fields(body)?;
    let error = PgError::from(fields);
    let mut out = BytesMut::new();
    backend::put_error(&mut out, &error);
    let same = backend::error_fields(&out[HEADER_BYTES..]).map(PgError::from);
    assert_eq!(same.as_ref(), Ok(&error), "said again");
    again(body, |out| {
        backend::put_fields_changed(out, tag::backend::ERROR_RESPONSE, body, |_, _| None).expect("it was just read");
    });
    Ok(format!("{fields:?}"))
}

#[cfg(test)]
mod tests;
