//! The CPU utilization of a node's host, from a URL that answers the percentage as plain text.
//!
//! One HTTP/1.0 request with a bounded answer is all that is needed; an HTTP client would be a large guest for it.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Headers and number together; more is not the answer that was asked for.
const MAX_ANSWER: usize = 8 * 1024;

/// Asks the source. The caller bounds the time.
pub(crate) async fn percent(url: &str) -> io::Result<f32> {
    let Some((host, path)) = split(url) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not an http:// URL"));
    };
    let authority = if has_port(host) { host.to_owned() } else { format!("{host}:80") };
    let mut stream = TcpStream::connect(&authority).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {host}\r\nAccept: text/plain\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER as u64).read_to_end(&mut answer).await?;
    parse(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no percentage in the answer"))
}

fn split(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("http://")?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let clean = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    (!host.is_empty() && clean(rest)).then_some((host, if path.is_empty() { "/" } else { path }))
}

fn has_port(host: &str) -> bool {
    host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

/// The number in the body of a 200 answer, with or without a percent sign.
fn parse(answer: &[u8]) -> Option<f32> {
    let answer = std::str::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.lines().next()?.split(' ').nth(1)?;
    let percent: f32 = body.trim().trim_end_matches('%').trim_end().parse().ok()?;
    (status == "200" && (0.0..=100.0).contains(&percent)).then_some(percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_percentage() {
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n 42.5 %\n"), Some(42.5));
        assert_eq!(parse(b"HTTP/1.0 200 OK\r\n\r\n0"), Some(0.0));
    }

    #[test]
    fn takes_nothing_else() {
        for answer in
            ["HTTP/1.0 500 No\r\n\r\n42", "HTTP/1.0 200 OK\r\n\r\nNaN", "HTTP/1.0 200 OK\r\n\r\n101", "42", "\r\n\r\n"]
        {
            assert_eq!(parse(answer.as_bytes()), None, "{answer}");
        }
    }

    #[test]
    fn splits_urls() {
        assert_eq!(split("http://db1:9100/cpu?x=1"), Some(("db1:9100", "/cpu?x=1")));
        assert_eq!(split("http://db1"), Some(("db1", "/")));
        assert_eq!(split("https://db1/"), None);
        assert_eq!(split("http:///cpu"), None);
        assert_eq!(split("http://db1/a\r\nX: y"), None);
    }
}
