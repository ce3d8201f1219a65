//! What a server is told for each op, and what is then expected of it.
#![allow(clippy::unwrap_used)]

use pgward_router::{Analysed, Shape};
use pgward_wire::tag::frontend as tag;
use pgward_wire::{frame, frontend};
use smallvec::SmallVec;

use super::super::prepared::Prepared;
use super::super::work::{Answer, Effect, Op, Work};
use super::*;

/// A statement that no cache knows.
pub(crate) fn prepared(text: &str) -> Arc<Prepared> {
    let shape = Shape { fingerprint: Arc::from("0"), statements: SmallVec::new(), params: 0 };
    let analysed = Analysed { shape: Arc::new(shape), literals: SmallVec::new() };
    Arc::new(Prepared::new(text.as_bytes(), Box::new([]), analysed))
}

/// The op of a Query.
pub(crate) fn query(work: &mut Work, text: &str) {
    let text = work.store(text.as_bytes());
    work.ops.push(Op::Query { text, effects: None });
}

/// The op of a Parse.
pub(crate) fn parse(work: &mut Work, statement: &Arc<Prepared>, name: &str) {
    let name = (!name.is_empty()).then(|| name.as_bytes().into());
    work.ops.push(Op::Parse { statement: Arc::clone(statement), name });
}

/// The op of a Bind without parameters to the unnamed portal, under the client's name for the statement.
pub(crate) fn bind(work: &mut Work, statement: &Arc<Prepared>, name: &str) {
    let body = work.store(&[b"\0", name.as_bytes(), b"\0\0\0\0\0\0\0"].concat());
    work.ops.push(Op::Bind { statement: Arc::clone(statement), named: !name.is_empty(), body });
}

/// The op of an Execute of the unnamed portal.
pub(crate) fn execute(work: &mut Work) {
    let frame = work.store(b"E\0\0\0\x09\0\0\0\0\0");
    work.ops.push(Op::Execute { frame, effects: None });
}

/// The op of a Describe of the unnamed portal.
pub(crate) fn describe_portal(work: &mut Work) {
    let frame = work.store(b"D\0\0\0\x06P\0");
    work.ops.push(Op::Raw { frame, answer: Some(Answer::Describe) });
}

/// Emits to a server that is told at once whatever there is; returns the tags of what it was told.
fn told(work: &mut Work, memory: &mut ServerMemory) -> String {
    let mut to_client = BytesMut::new();
    emit(work, memory, &mut to_client, Hold::No);
    assert!(to_client.is_empty(), "{to_client:?}");
    tags(&work.to_server)
}

/// The tags of whole frames.
fn tags(mut bytes: &[u8]) -> String {
    let mut tags = String::new();
    while let Some(header) = frame::header(bytes).unwrap() {
        tags.push(char::from(header.tag));
        bytes = &bytes[header.len..];
    }
    assert!(bytes.is_empty(), "the last frame is not whole");
    tags
}

/// Each expected reply's name.
fn queue(work: &Work) -> Vec<String> {
    let word = |expect: &Expect| format!("{expect:?}").split([' ', '(']).next().unwrap().to_owned();
    work.expects.iter().map(word).collect()
}

#[test]
fn each_op_is_told_once() {
    let (mut work, mut memory) = (Work::default(), ServerMemory::default());
    query(&mut work, "SELECT 1");
    assert_eq!(told(&mut work, &mut memory), "Q");
    work.ops.push(Op::Sync);
    assert_eq!(told(&mut work, &mut memory), "QS");
    assert_eq!(told(&mut work, &mut memory), "QS");
    assert_eq!(queue(&work), ["Query", "Sync"]);
    assert_eq!(work.emitted, 2);
}

#[test]
fn a_statement_goes_under_the_servers_name_for_it() {
    let (mut work, mut memory) = (Work::default(), ServerMemory::default());
    let statement = prepared("SELECT 1");
    parse(&mut work, &statement, "mine");
    bind(&mut work, &statement, "mine");
    work.ops.push(Op::Describe { statement: Arc::clone(&statement), named: true });
    execute(&mut work);
    work.ops.push(Op::Sync);
    assert_eq!(told(&mut work, &mut memory), "PBDES");
    let name = statement.server_name();
    let mut bytes = &work.to_server[..];
    for tag in [tag::PARSE, tag::BIND, tag::DESCRIBE] {
        let header = frame::header(bytes).unwrap().unwrap();
        let body = &bytes[5..header.len];
        let found = match tag {
            tag::PARSE => frontend::Parse::from_body(body).unwrap().name,
            tag::BIND => frontend::Bind::from_body(body).unwrap().statement,
            _ => frontend::Describe::from_body(body).unwrap().name,
        };
        assert_eq!((header.tag, found), (tag, name.as_bytes()));
        bytes = &bytes[header.len..];
    }
    assert_eq!(queue(&work), ["Parse", "Bind", "Describe", "Execute", "Sync"]);
}

#[test]
fn a_statement_that_the_server_lacks_is_prepared_ahead_once() {
    let (mut work, mut memory) = (Work::default(), ServerMemory::default());
    let statement = prepared("SELECT 1");
    for _ in 0..2 {
        bind(&mut work, &statement, "mine");
        execute(&mut work);
    }
    work.ops.push(Op::Sync);
    assert_eq!(told(&mut work, &mut memory), "PBEBES");
    assert_eq!(queue(&work), ["SilentParse", "Bind", "Execute", "Bind", "Execute", "Sync"]);
}

#[test]
fn the_unnamed_statement_is_prepared_again_where_another_has_taken_its_place() {
    let (mut work, mut memory) = (Work::default(), ServerMemory::default());
    let (first, second) = (prepared("SELECT 1"), prepared("SELECT 2"));
    parse(&mut work, &first, "");
    bind(&mut work, &first, "");
    assert_eq!(told(&mut work, &mut memory), "PB");
    bind(&mut work, &second, "");
    assert_eq!(told(&mut work, &mut memory), "PBPB", "the server has the first one as the unnamed");
    assert_eq!(memory.unnamed, Some(second.id));
    query(&mut work, "SELECT 3");
    bind(&mut work, &second, "");
    assert_eq!(told(&mut work, &mut memory), "PBPBQPB", "a Query destroys the unnamed statement");
}

#[test]
fn a_parse_of_what_the_server_has_is_answered_by_the_proxy() {
    for hold in [Hold::No, Hold::UntilAnswered] {
        let (mut work, mut memory) = (Work::default(), ServerMemory::default());
        let statement = prepared("SELECT 1");
        memory.prepare(statement.id);
        parse(&mut work, &statement, "mine");
        let mut to_client = BytesMut::new();
        emit(&mut work, &mut memory, &mut to_client, hold);
        assert!(work.to_server.is_empty());
        let at_once = hold == Hold::No;
        assert_eq!(to_client == backend::PARSE_COMPLETE, at_once);
        assert_eq!(work.answered, at_once);
        assert_eq!(queue(&work), if at_once { &[][..] } else { &["FakeParse"] });
    }
}

#[test]
fn a_reply_of_the_proxys_own_waits_behind_the_servers() {
    let (mut work, mut memory) = (Work::default(), ServerMemory::default());
    query(&mut work, "SELECT 1");
    work.ops.push(Op::Fake(Bytes::from_static(b"own")));
    assert_eq!(told(&mut work, &mut memory), "Q");
    assert_eq!(queue(&work), ["Query", "Fake"]);
}

#[test]
fn a_flush_sends_what_stands_behind_nothing() {
    let (mut work, mut memory) = (Work::default(), ServerMemory::default());
    let mut to_client = BytesMut::new();
    work.ops.push(Op::Fake(Bytes::from_static(b"a")));
    work.ops.push(Op::Fake(Bytes::from_static(b"b")));
    emit(&mut work, &mut memory, &mut to_client, Hold::UntilAnswered);
    assert!(to_client.is_empty());
    work.ops.push(Op::Flush);
    emit(&mut work, &mut memory, &mut to_client, Hold::UntilAnswered);
    assert_eq!(&to_client[..], b"ab");
    assert_eq!(tags(&work.to_server), "H");
    assert!(work.answered && work.expects.is_empty());
}

#[test]
fn a_full_server_forgets_the_statement_unused_for_longest() {
    let (mut work, mut memory) = (Work::default(), ServerMemory::default());
    memory.limit = 500;
    let statements: Vec<_> = (0..501).map(|n| prepared(&format!("SELECT {n}"))).collect();
    for statement in &statements {
        bind(&mut work, statement, "x");
    }
    let told = told(&mut work, &mut memory);
    assert_eq!(&told[1000..], "CPB");
    assert_eq!(&queue(&work)[1000..], ["SilentClose", "SilentParse", "Bind"]);
    assert!(!memory.has_prepared(statements[0].id));
}

#[test]
fn a_refused_statement_fails_on_the_server_too() {
    let (mut work, mut memory) = (Work::default(), ServerMemory::default());
    memory.unnamed = Some(1);
    let error = Bytes::from_static(b"error");
    work.ops.push(Op::Refuse { error: error.clone(), simple: false });
    work.ops.push(Op::Sync);
    assert_eq!(told(&mut work, &mut memory), "BS");
    assert_eq!(memory.unnamed, Some(1));
    let bind = frontend::Bind::from_body(&work.to_server[5..work.to_server.len() - 5]).unwrap();
    assert_eq!((bind.portal, bind.statement, bind.len()), (&b""[..], REFUSED_STATEMENT, 0));
    work.ops.push(Op::Refuse { error, simple: true });
    assert_eq!(told(&mut work, &mut memory), "BSQ");
    assert_eq!(memory.unnamed, None, "a Query destroys the unnamed statement");
    assert_eq!(queue(&work), ["Refused", "Sync", "RefusedQuery"]);
}

#[test]
fn effects_wait_for_the_statements_success() {
    let (mut work, mut memory) = (Work::default(), ServerMemory::default());
    let text = work.store(b"SAVEPOINT a");
    work.ops.push(Op::Query { text, effects: Some(Box::new([Effect::Savepoint("a".into())])) });
    told(&mut work, &mut memory);
    let Some(Expect::Query { effects: Some(effects), done: 0 }) = work.expects.front() else {
        panic!("{:?}", work.expects);
    };
    assert_eq!(effects[..], [Effect::Savepoint("a".into())]);
}

#[test]
fn other_frames_go_as_they_are() {
    let (mut work, mut memory) = (Work::default(), ServerMemory::default());
    describe_portal(&mut work);
    let close = work.store(b"C\0\0\0\x06P\0");
    work.ops.push(Op::Raw { frame: close, answer: Some(Answer::Close) });
    let done = work.store(b"c\0\0\0\x04");
    work.ops.push(Op::Raw { frame: done, answer: None });
    let text = work.store(b"COPY t FROM STDIN");
    work.ops.push(Op::CopyRows { text, simple: true });
    work.ops.push(Op::SilentSync);
    assert_eq!(told(&mut work, &mut memory), "DCcQS");
    assert_eq!(&work.to_server[..19], b"D\0\0\0\x06P\0C\0\0\0\x06P\0c\0\0\0\x04");
    assert_eq!(queue(&work), ["Describe", "Close", "CopyRows", "SilentSync"]);
}

#[test]
fn what_did_not_come_as_a_query_is_not_said_as_one() {
    let (mut work, mut memory) = (Work::default(), ServerMemory::default());
    let text = work.store(b"COPY t FROM STDIN");
    work.ops.push(Op::CopyRows { text, simple: false });
    assert_eq!(told(&mut work, &mut memory), "PBE");
    assert!(work.is_unsynced());
    assert_eq!(queue(&work), ["CopyAhead", "CopyAhead", "CopyRows"]);
    work.ops.push(Op::Sync);
    emit(&mut work, &mut memory, &mut BytesMut::new(), Hold::No);
    assert!(!work.is_unsynced());
}
