//! What a client is told between its first packet and its first ReadyForQuery.

use pgward_tests::{Frame, WireClient};

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
