//! The extended protocol byte by byte: parameters as text, pipelines, errors up to Sync.

use bytes::BytesMut;
use pgward_tests::{Frame, WireClient};
use pgward_wire::frontend;

use crate::shared;

async fn session() -> WireClient {
    let pgward = shared().await;
    WireClient::login(pgward.port("general"), "app", "demo-app").await
}

/// Bind of the unnamed statement with one parameter as text.
fn put_bind(out: &mut BytesMut, value: &str) {
    let mut body = b"\0\0\0\0\0\x01".to_vec();
    body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
    body.extend(value.as_bytes());
    body.extend([0, 0]);
    put(out, b'B', &body);
}

fn put(out: &mut BytesMut, tag: u8, body: &[u8]) {
    out.extend([tag]);
    out.extend((u32::try_from(body.len()).unwrap() + 4).to_be_bytes());
    out.extend(body);
}

/// The first column of each DataRow.
fn values(frames: &[Frame]) -> Vec<String> {
    let value = |frame: &Frame| String::from_utf8_lossy(&frame.body[6..]).into_owned();
    frames.iter().filter(|frame| frame.tag == b'D').map(value).collect()
}

fn tags(frames: &[Frame]) -> String {
    frames.iter().map(|frame| char::from(frame.tag)).collect()
}

const READ: &str = "SELECT current_setting('cluster_name') FROM patients WHERE id = $1";

#[tokio::test]
async fn a_parameter_as_text_places_the_statement() {
    let (pgward, mut client) = (shared().await, session().await);
    let mut out = BytesMut::new();
    frontend::put_parse(&mut out, b"", READ.as_bytes(), &[]);
    put_bind(&mut out, &pgward.patient("eu-west", 0).id.to_string());
    put(&mut out, b'E', b"\0\0\0\0\0");
    frontend::put_sync(&mut out);
    client.send(&out).await;
    let frames = client.until_ready().await;
    assert_eq!(tags(&frames), "12DCZ");
    let node = &values(&frames)[0];
    assert!(node.starts_with("eu-west-patients/replica-"), "{node}");
}

#[tokio::test]
async fn a_pipeline_of_two_regions_is_answered_in_order() {
    let (pgward, mut client) = (shared().await, session().await);
    let mut out = BytesMut::new();
    for region in ["us-west", "ap-south"] {
        frontend::put_parse(&mut out, b"", READ.as_bytes(), &[]);
        put_bind(&mut out, &pgward.patient(region, 0).id.to_string());
        put(&mut out, b'E', b"\0\0\0\0\0");
        frontend::put_sync(&mut out);
    }
    client.send(&out).await;
    for shard in ["us-west-patients/", "ap-south-patients/"] {
        let frames = client.until_ready().await;
        assert_eq!(tags(&frames), "12DCZ");
        assert!(values(&frames)[0].starts_with(shard), "{:?}", values(&frames));
    }
}

#[tokio::test]
async fn after_an_error_everything_up_to_sync_is_skipped() {
    let (pgward, mut client) = (shared().await, session().await);
    let mut out = BytesMut::new();
    frontend::put_parse(&mut out, b"", READ.as_bytes(), &[]);
    put_bind(&mut out, "nonsense");
    put(&mut out, b'E', b"\0\0\0\0\0");
    put_bind(&mut out, &pgward.patient("us-east", 0).id.to_string());
    put(&mut out, b'E', b"\0\0\0\0\0");
    frontend::put_sync(&mut out);
    client.send(&out).await;
    let frames = client.until_ready().await;
    assert_eq!(tags(&frames).replace('1', ""), "EZ", "{frames:?}");
    let error = frames.iter().find(|frame| frame.tag == b'E').unwrap();
    assert_eq!(error.field(b'C').unwrap(), "PW007");
}

#[tokio::test]
async fn bytes_one_at_a_time_are_a_session_too() {
    let (pgward, mut client) = (shared().await, session().await);
    let mut out = BytesMut::new();
    frontend::put_parse(&mut out, b"", READ.as_bytes(), &[]);
    put_bind(&mut out, &pgward.patient("us-west", 1).id.to_string());
    put(&mut out, b'E', b"\0\0\0\0\0");
    frontend::put_sync(&mut out);
    for byte in out {
        client.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(tags(&client.until_ready().await), "12DCZ");
}
