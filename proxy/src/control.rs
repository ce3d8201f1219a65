//! The control socket: how `pgward reload`, `status` and `stop` reach the running proxy.
//!
//! A Unix socket that only its owner may connect to. One line of JSON with a [`Request`] goes in, one line with a
//! [`Reply`] comes back. A request names the file that whoever asks has in mind: a proxy that serves another one does
//! nothing, so that nobody stops a proxy for its neighbour.

use std::fs::{self, Permissions};
use std::future::Future;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// Longest request: a path of Linux (4096 bytes, each at most 6 in JSON) and the command.
const MAX_REQUEST: u64 = 6 * 4096 + 256;
/// A peer has this long to send its command, and to take the reply.
const PATIENCE: Duration = Duration::from_secs(5);

/// What may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// Read the configuration anew and put it in force.
    Reload,
    /// The same, with the word that the rows have been moved of those patients whose shard is another one now.
    ReloadMoved,
    /// Say how the proxy is.
    Status,
    /// Drain and end.
    Stop,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Whether it was done.
    pub ok: bool,
    /// Text for people; for a refused configuration the whole report.
    pub text: String,
}

impl Reply {
    /// It was done.
    pub fn ok(text: impl Into<String>) -> Self {
        Self { ok: true, text: text.into() }
    }

    /// It was not done, and nothing changed.
    pub fn error(text: impl Into<String>) -> Self {
        Self { ok: false, text: text.into() }
    }
}

/// What goes in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// What is asked.
    pub command: Command,
    /// The configuration file of the proxy that is meant.
    pub config: PathBuf,
}

/// The socket, answering.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    answering: Arc<AtomicUsize>,
}

/// The socket's file. Dropping it removes it.
#[derive(Debug)]
pub struct Placed {
    path: PathBuf,
    inode: u64,
    /// Requests that were read and are not answered.
    answering: Arc<AtomicUsize>,
}

impl Control {
    /// Puts the socket in place with mode 0600. One that a killed proxy left behind is replaced; one that answers is
    /// left alone. Must be called inside a runtime.
    ///
    /// # Errors
    /// Another proxy answers on this path, something else than a socket is there, or the folder cannot be written.
    pub fn bind(path: &Path) -> anyhow::Result<(Self, Placed)> {
        let place = || format!("control socket {}", path.display());
        refuse_if_taken(path).with_context(place)?;
        // Bound under another name first, so that it is never to be seen with wider permissions.
        let mut new = path.as_os_str().to_owned();
        new.push(format!(".{}", std::process::id()));
        let new = PathBuf::from(new);
        let listener = UnixListener::bind(&new).with_context(place)?;
        let placed = fs::set_permissions(&new, Permissions::from_mode(0o600)).and_then(|()| fs::rename(&new, path));
        if placed.is_err() {
            // The error that is reported is the one above.
            let _ = fs::remove_file(&new);
        }
        placed.with_context(place)?;
        let inode = fs::metadata(path).with_context(place)?.ino();
        let answering = Arc::default();
        let placed = Placed { path: path.to_owned(), inode, answering: Arc::clone(&answering) };
        Ok((Self { listener, answering }, placed))
    }

    /// Answers commands for ever, one task for each connection, so that a slow reload does not keep `status` waiting.
    pub async fn serve<H, F>(&self, handler: H)
    where
        H: Fn(Request) -> F + Clone + Send + 'static,
        F: Future<Output = Reply> + Send,
    {
        loop {
            match self.listener.accept().await {
                Ok((peer, _)) => {
                    let handler = handler.clone();
                    let answering = Arc::clone(&self.answering);
                    tokio::spawn(async move {
                        if let Err(error) = answer(peer, handler, &answering).await {
                            tracing::warn!(%error, "control connection");
                        }
                    });
                }
                Err(error) => {
                    // Out of descriptors, most likely: others will be closed.
                    tracing::error!(%error, "cannot accept on the control socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// A request that was read and is not answered.
struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    fn new(all: &Arc<AtomicUsize>) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(all))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Placed {
    /// Waits until nobody waits for an answer: whoever asked for the end is told before the process ends. Not longer than
    /// a peer has to take its reply.
    pub(crate) async fn answered(&self) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.answering.load(Ordering::Relaxed) > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        // A successor may have put its own socket there.
        if fs::metadata(&self.path).is_ok_and(|there| there.ino() == self.inode)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove the control socket");
        }
    }
}

fn refuse_if_taken(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(there) if !there.file_type().is_socket() => {
            return Err(io::Error::new(ErrorKind::AlreadyExists, "something that is not a socket is there"));
        }
        Ok(_) => {}
    }
    match net::UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(ErrorKind::AddrInUse, "another pgward answers on it")),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error),
    }
}

async fn answer<F: Future<Output = Reply>>(
    mut peer: UnixStream,
    handler: impl Fn(Request) -> F,
    answering: &Arc<AtomicUsize>,
) -> io::Result<()> {
    let (reader, mut writer) = peer.split();
    let mut line = String::new();
    let mut reader = tokio::io::BufReader::new(reader.take(MAX_REQUEST));
    tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await??;
    if line.is_empty() {
        // Someone looked whether the socket answers.
        return Ok(());
    }
    let _under_way = UnderWay::new(answering);
    let reply = match serde_json::from_str::<Request>(&line) {
        Ok(request) => handler(request).await,
        Err(error) => Reply::error(format!("not a command: {error}")),
    };
    let mut line = serde_json::to_vec(&reply)?;
    line.push(b'\n');
    tokio::time::timeout(PATIENCE, writer.write_all(&line)).await?
}

/// Sends a command to the proxy that serves the file `config` behind the socket `path`, and waits for its reply, however
/// long that takes.
///
/// # Errors
/// Nobody answers there, or not in the way that a proxy would.
pub fn call(path: &Path, config: &Path, command: Command) -> anyhow::Result<Reply> {
    let config = fs::canonicalize(config).with_context(|| format!("the file {}", config.display()))?;
    let mut stream = net::UnixStream::connect(path).with_context(|| {
        format!(
            "no pgward answers on {} (is it running, and was this its `control_socket` when it started?)",
            path.display()
        )
    })?;
    let mut line = serde_json::to_vec(&Request { command, config })?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply)?;
    anyhow::ensure!(!reply.is_empty(), "pgward ended without a reply");
    serde_json::from_str(&reply).context("pgward's reply cannot be read")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tempfile::TempDir;

    async fn serve(path: &Path) -> tokio::task::JoinHandle<()> {
        let (control, placed) = Control::bind(path).unwrap();
        tokio::spawn(async move {
            let _placed = placed;
            control
                .serve(|request| async move {
                    assert!(request.config.is_absolute());
                    match request.command {
                        Command::Reload | Command::ReloadMoved => {
                            Reply::error("pgward.toml:3:1: unknown key\n  | caret")
                        }
                        other => Reply::ok(format!("{other:?}")),
                    }
                })
                .await;
        })
    }

    async fn asked(path: &Path, command: Command) -> anyhow::Result<Reply> {
        let path = path.to_owned();
        let config = path.with_file_name("pgward.toml");
        fs::write(&config, "").unwrap();
        tokio::task::spawn_blocking(move || call(&path, &config, command)).await.unwrap()
    }

    #[tokio::test]
    async fn commands_are_answered_and_the_socket_is_private() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("pgward.sock");
        let server = serve(&path).await;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(asked(&path, Command::Status).await.unwrap(), Reply::ok("Status"));
        let refused = asked(&path, Command::Reload).await.unwrap();
        assert_eq!(refused, Reply::error("pgward.toml:3:1: unknown key\n  | caret"));
        server.abort();
        assert!(server.await.unwrap_err().is_cancelled());
        assert!(!path.exists(), "removed at the end");
        assert!(asked(&path, Command::Status).await.unwrap_err().to_string().contains("no pgward answers"));
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("pgward.sock");
        drop(net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "as a killed proxy leaves it");
        let server = serve(&path).await;
        let second = Control::bind(&path).unwrap_err();
        assert!(format!("{second:#}").contains("another pgward answers"), "{second:#}");
        assert_eq!(asked(&path, Command::Stop).await.unwrap(), Reply::ok("Stop"));
        server.abort();
    }

    #[tokio::test]
    async fn what_is_not_a_socket_is_left_alone() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("pgward.sock");
        fs::write(&path, "precious").unwrap();
        assert!(Control::bind(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn nonsense_is_answered_with_an_error() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("pgward.sock");
        let server = serve(&path).await;
        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(b"{\"command\":\"explode\",\"config\":\"/etc/pgward.toml\"}\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        let reply: Reply = serde_json::from_str(&answer).unwrap();
        assert!(!reply.ok);
        server.abort();
    }
}
