//! What a client is told between its first packet and its first ReadyForQuery.

use std::collections::BTreeMap;

use pgward::demo::layout::SERVER_ROLE;
use pgward_tests::{Frame, WireClient, answers};

use crate::shared;

async fn greeted(minor: u16, params: &[(&str, &str)]) -> Vec<Frame> {
    let port = shared().await.port("general");
    WireClient::greeted(port, "app", "demo-app", minor, params).await.1
}

/// The body of the one message with this tag.
fn body(frames: &[Frame], tag: u8) -> Option<&[u8]> {
    frames.iter().find(|frame| frame.tag == tag).map(|frame| &frame.body[..])
}

#[tokio::test]
async fn the_newest_version_of_the_protocol_that_both_speak_is_spoken() {
    for (asked, spoken) in [(0, 0), (1, 0), (2, 2), (3, 2), (9999, 2)] {
        let frames = greeted(asked, &[]).await;
        let told = [0, 3, 0, spoken, 0, 0, 0, 0];
        let negotiated = (u16::from(spoken) != asked).then_some(&told[..]);
        assert_eq!(body(&frames, b'v'), negotiated, "3.{asked}");
        let key = body(&frames, b'K').expect("a key").len() - 4;
        assert_eq!(key, if spoken == 2 { 32 } else { 4 }, "3.{asked}");
        assert_eq!(frames.last().map(|frame| frame.tag), Some(b'Z'));
    }
}

#[tokio::test]
async fn options_of_the_protocol_that_are_not_known_are_listed() {
    let frames = greeted(2, &[("_pq_.grease", "1"), ("_pq_.b", "")]).await;
    assert_eq!(body(&frames, b'v'), Some(&b"\0\x03\0\x02\0\0\0\x02_pq_.grease\0_pq_.b\0"[..]));
    assert_eq!(frames.first().map(|frame| frame.tag), Some(b'v'), "before anything else, as PostgreSQL does");
}

/// The parameters that were reported, but for those of the server itself.
fn parameters(frames: &[Frame]) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let parameter = |frame: &Frame| {
        let mut strings = frame.body.split(|byte| *byte == 0).map(text);
        (strings.next().unwrap(), strings.next().unwrap())
    };
    let of_the_server = ["session_authorization", "in_hot_standby"];
    let reported = frames.iter().filter(|frame| frame.tag == b'S').map(parameter);
    reported.filter(|(name, _)| !of_the_server.contains(&&**name)).collect()
}

/// What the first shard's primary says to a client of its own.
async fn greeted_by_a_server(params: &[(&str, &str)]) -> Vec<Frame> {
    let server = shared().await.node("us-east-patients/primary");
    let params = [&[("client_encoding", "UTF8")], params].concat();
    WireClient::greeted(server.port(), SERVER_ROLE, "of-a-test", 0, &params).await.1
}

#[tokio::test]
async fn parameters_are_reported_as_a_server_does() {
    let settings: [&[(&str, &str)]; 12] = [
        &[],
        &[("DateStyle", "German")],
        &[("datestyle", "sql")],
        &[("DateStyle", "ISO"), ("TimeZone", "europe/berlin"), ("extra_float_digits", "2")],
        &[("IntervalStyle", "ISO_8601"), ("standard_conforming_strings", "1")],
        &[("options", "-c DateStyle=Postgres,DMY --intervalstyle=sql_standard -cstatement_timeout=3s")],
        &[("options", "-c application_name=by\\ option"), ("default_transaction_read_only", "yes")],
        &[("application_name", "plain it's")],
        &[("application_name", "grün")],
        &[("application_name", "of more than sixty-three bytes, which is where a server cuts a name")],
        &[("TimeZone", "UTC"), ("application_name", "psql"), ("client_encoding", "UTF8")],
        &[("TimeZone", "-3"), ("search_path", "public")],
    ];
    // Twice: what a server has said, and what is remembered of it.
    for params in settings.iter().chain(&settings) {
        let (ours, servers) = (greeted(0, params).await, greeted_by_a_server(params).await);
        assert_eq!(parameters(&ours), parameters(&servers), "{params:?}");
        assert!(!parameters(&ours).is_empty());
    }
}

#[tokio::test]
async fn settings_that_no_server_takes_fail_the_login_with_its_own_error() {
    let settings: [&[(&str, &str)]; 6] = [
        &[("DateStyle", "Martian")],
        &[("TimeZone", "Mars/Olympus")],
        &[("no_such_parameter", "1")],
        &[("options", "-c work_mem=much")],
        &[("options", "-c shared_buffers=1GB")],
        &[("statement_timeout", "-5"), ("TimeZone", "UTC")],
    ];
    for params in settings {
        let (ours, servers) = (greeted(0, params).await, greeted_by_a_server(params).await);
        let told = |frames: &[Frame]| {
            let error = frames.last().filter(|frame| frame.tag == b'E').unwrap_or_else(|| panic!("{params:?}"));
            [b'S', b'V', b'C', b'M'].map(|field| error.field(field))
        };
        assert_eq!(told(&ours), told(&servers), "{params:?}");
        assert!(ours.iter().all(|frame| frame.tag != b'Z'));
    }
    // The servers that were asked are as they were.
    let client = shared().await.app().await;
    assert_eq!(answers(&client, "SELECT current_setting('TimeZone') <> 'Mars/Olympus'").await, "t");
}

#[tokio::test]
async fn settings_that_would_change_what_statements_mean_are_refused() {
    for params in [[("options", "-c client_encoding=LATIN1")], [("standard_conforming_strings", "off")]] {
        let frames = greeted(0, &params).await;
        assert_eq!(frames.last().and_then(|frame| frame.field(b'V')).as_deref(), Some("FATAL"), "{params:?}");
    }
}

/// A server takes them at the beginning of a connection, which is another one's here.
#[tokio::test]
async fn what_belongs_to_a_servers_connection_is_refused_in_words() {
    for params in
        [[("options", "-c ignore_system_indexes=on")], [("post_auth_delay", "0")], [("log_connections", "on")]]
    {
        let frames = greeted(0, &params).await;
        let error = frames.last().filter(|frame| frame.tag == b'E').unwrap_or_else(|| panic!("{params:?}"));
        assert_eq!(error.field(b'C').unwrap(), "0A000", "{params:?}");
        assert!(error.field(b'M').unwrap().contains("cannot be asked for through PgWard"));
        assert!(error.field(b'D').is_some() && error.field(b'H').is_some());
    }
}
