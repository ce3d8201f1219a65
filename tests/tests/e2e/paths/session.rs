//! A case said on a path, and the answers to it as texts.

use bytes::BytesMut;
use pgward_tests::{Frame, WireClient};
use pgward_wire::frontend;

use super::Path;
use super::cases::Case;

/// A session that says a case on a path.
pub(super) struct Session {
    pub(super) client: WireClient,
    pub(super) answers: Vec<String>,
}

impl Session {
    async fn query(&mut self, sql: &str) {
        let frames = self.client.query(sql).await;
        self.answers.push(answer(&frames));
    }

    /// Sends these bytes and hears so many answers.
    async fn send(&mut self, bytes: &BytesMut, segments: usize) {
        self.client.send(bytes).await;
        for _ in 0..segments {
            let frames = self.client.until_ready().await;
            self.answers.push(answer(&frames));
        }
    }

    pub(super) async fn say(&mut self, case: &Case, path: Path, before: &str) {
        let sql = case.literal();
        let mut out = BytesMut::new();
        match path {
            Path::Simple => self.query(&sql).await,
            Path::Several => self.query(&format!("{before}; {sql}")).await,
            Path::Unnamed => {
                put_all(&mut out, "", &sql, None);
                self.send(&out, 1).await;
            }
            Path::Parameter => {
                put_all(&mut out, "", &case.sql, Some(&case.patient));
                self.send(&out, 1).await;
            }
            Path::Named => {
                frontend::put_parse(&mut out, b"s", case.sql.as_bytes(), &[]);
                frontend::put_describe_statement(&mut out, b"s");
                frontend::put_sync(&mut out);
                for _ in 0..2 {
                    put_bind(&mut out, "s", param(case));
                    put_execute(&mut out);
                    frontend::put_sync(&mut out);
                }
                self.send(&out, 3).await;
            }
            Path::Pipelined | Path::BehindSync => {
                frontend::put_parse(&mut out, b"", before.as_bytes(), &[]);
                put_bind(&mut out, "", None);
                put_execute(&mut out);
                if path == Path::BehindSync {
                    frontend::put_sync(&mut out);
                }
                put_all(&mut out, "", &sql, None);
                self.send(&out, if path == Path::BehindSync { 2 } else { 1 }).await;
            }
            Path::Transaction => {
                self.query("BEGIN").await;
                self.query(before).await;
                self.query(&sql).await;
                self.query("COMMIT").await;
            }
            Path::Extended => {
                self.query("BEGIN").await;
                self.query(before).await;
                put_all(&mut out, "s", &case.sql, Some(&case.patient));
                self.send(&out, 1).await;
                self.query("COMMIT").await;
            }
            Path::Block => self.query(&format!("BEGIN; {sql}; COMMIT")).await,
            Path::ReadOnly => {
                self.query("BEGIN READ ONLY").await;
                self.query(&sql).await;
                self.query("COMMIT").await;
            }
            Path::Cursor => {
                self.query("BEGIN").await;
                self.query(&format!("DECLARE c CURSOR FOR {sql}")).await;
                self.query("FETCH ALL FROM c").await;
                self.query("COMMIT").await;
            }
            Path::Copy => self.query(&format!("COPY ({sql}) TO STDOUT")).await,
            Path::Prepare => {
                self.query(&format!("PREPARE p AS {sql}")).await;
                self.query("EXECUTE p").await;
            }
            Path::Do => self.query(&format!("DO $do$ BEGIN PERFORM 1; {sql}; END $do$")).await,
        }
    }
}

fn param(case: &Case) -> Option<&str> {
    case.sql.contains("$1").then_some(&*case.patient)
}

/// Parse, Bind, Execute, Sync.
fn put_all(out: &mut BytesMut, name: &str, sql: &str, value: Option<&str>) {
    frontend::put_parse(out, name.as_bytes(), sql.as_bytes(), &[]);
    put_bind(out, name, value.filter(|_| sql.contains("$1")));
    put_execute(out);
    frontend::put_sync(out);
}

fn put_bind(out: &mut BytesMut, statement: &str, value: Option<&str>) {
    let mut body = [b"\0", statement.as_bytes(), b"\0\0\0"].concat();
    match value {
        None => body.extend([0, 0]),
        Some(value) => {
            body.extend([0, 1]);
            body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
            body.extend(value.as_bytes());
        }
    }
    body.extend([0, 0]);
    pgward_wire::frame::put(out, b'B', &body);
}

fn put_execute(out: &mut BytesMut) {
    pgward_wire::frame::put(out, b'E', b"\0\0\0\0\0");
}

/// The SQLSTATE of the error, or else the last row's only value, or else the last tag; and the transaction's status.
fn answer(frames: &[Frame]) -> String {
    let text = |body: &[u8]| String::from_utf8_lossy(body).trim_end_matches(['\0', '\n']).to_owned();
    let error = frames.iter().find(|frame| frame.tag == b'E').and_then(|frame| frame.field(b'C'));
    let row = |frame: &Frame| match frame.tag {
        b'D' => Some(text(&frame.body[6..])),
        b'd' => Some(text(&frame.body)),
        _ => None,
    };
    let row = || frames.iter().rev().find_map(row);
    let tag = || frames.iter().rev().find(|frame| frame.tag == b'C').map(|frame| text(&frame.body));
    let said = error.or_else(row).or_else(tag).unwrap_or_else(|| "nothing".to_owned());
    match frames.last() {
        Some(ready) if ready.tag == b'Z' => format!("{said} {}", text(&ready.body)),
        _ => format!("{said} closed"),
    }
}
