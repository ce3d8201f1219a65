//! From an accepted socket to a session: the first packets, who it is, and the greeting.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use pgward_audit::{Event, EventKind, Who};
use pgward_config::{AuthMethod, Class, NodeRole, Plain, PoolKind, PoolMode};
use pgward_pools::{Clean, Lease, Node, Parameters, Settings};
use pgward_router::{NoParams, placement};
use pgward_wire::startup::{FirstPacket, Startup};
use pgward_wire::tag::frontend as tag;
use pgward_wire::{PgError, ProtocolError, TxStatus, backend, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::auth::{MECHANISM, ScramExchange, wrong_password};
use crate::cancel;
use crate::greeting::{self, Reported, Tried};
use crate::plain::{self, LoggedIn};
use crate::registry::Entered;
use crate::session::{Session, Wish, from_startup, may_set, of_the_connection, own_class, refusal_error, statements};
use crate::state::{Shared, State};

/// A password message is no longer than this.
const MAX_PASSWORD_BYTES: usize = 4096;

/// Why a connection ends before there is a session.
pub(crate) enum Leave {
    /// The client closed its side.
    Silently,
    /// The client is told.
    Told(PgError),
    /// The client has been told by its server, in this ErrorResponse.
    RefusedByServer(Bytes),
    /// It was not a client but a request to cancel what runs for one.
    Cancel { pid: i32, key: Vec<u8> },
}

impl From<std::io::Error> for Leave {
    fn from(_: std::io::Error) -> Self {
        Self::Silently
    }
}

impl From<ProtocolError> for Leave {
    fn from(error: ProtocolError) -> Self {
        Self::Told(error.into())
    }
}

impl From<PgError> for Leave {
    fn from(error: PgError) -> Self {
        Self::Told(error)
    }
}

/// Serves one connection from its first byte to its last.
pub(crate) async fn serve(shared: Arc<Shared>, listener: Arc<str>, mut stream: TcpStream, address: SocketAddr) {
    let state = Arc::clone(&shared.state.load());
    let Some(listener) = state.config.listeners.iter().position(|known| known.name == listener) else { return };
    let login = Login { shared: &shared, state: &state, listener, address };
    let admitted = tokio::time::timeout(state.config.proxy.startup_timeout, login.admit(&mut stream)).await;
    let Admitted { user, wishes, entered, own } = match admitted {
        Ok(Ok(admitted)) => admitted,
        Ok(Err(Leave::Silently | Leave::RefusedByServer(_))) | Err(_) => return,
        Ok(Err(Leave::Told(error))) => return tell(&mut stream, error).await,
        Ok(Err(Leave::Cancel { pid, key })) => {
            let (shared, state) = (&*shared, &*state);
            return cancel::Request { shared, state, listener, address, pid, key: &key }.serve().await;
        }
    };
    let _present = Present::new(&shared);
    let session = Session::new(
        Arc::clone(&shared),
        Arc::clone(&state),
        listener,
        user,
        address,
        Arc::clone(&entered.handle),
        stream,
        wishes.settings,
        wishes.class,
    );
    drop(state);
    let session = match own {
        Some((name, logged_in)) => session.of_plain(name, &address.to_string(), logged_in),
        None => session,
    };
    let ended = session.run().await;
    tracing::debug!(%address, ?ended, "session ended");
}

/// A client that is counted for as long as it lives, even if its task panics.
struct Present<'a> {
    shared: &'a Shared,
}

impl<'a> Present<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.metrics.clients.increment(1.0);
        shared.metrics.logins.increment(1);
        Self { shared }
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.shared.metrics.clients.decrement(1.0);
    }
}

/// Says why to a client for whom there is no descriptor, without waiting for what it wants: its socket is to be closed
/// at once. That the little there is to say does not fit into a new socket's buffer does not happen.
pub(crate) fn turn_away(stream: &TcpStream) {
    let error = PgError::error("53300", "sorry, too many files are open already")
        .with_detail("The last descriptors of the process are kept for emergency listeners.")
        .with_hint("Retry in a moment. The operator may raise the limit of open files.");
    let mut out = BytesMut::with_capacity(256);
    backend::put_error(&mut out, &error.fatal());
    // As for whoever is told below.
    let _ = stream.try_write(&out);
}

async fn tell(stream: &mut TcpStream, error: PgError) {
    let mut out = BytesMut::with_capacity(256);
    backend::put_error(&mut out, &error.fatal());
    // The client is being sent away; whether it hears why is its own affair.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(1), async {
        stream.write_all(&out).await?;
        stream.shutdown().await
    })
    .await;
}

struct Login<'s, 'a> {
    shared: &'s Shared,
    state: &'a State,
    listener: usize,
    address: SocketAddr,
}

/// A client who is in.
struct Admitted<'s> {
    user: usize,
    wishes: Wishes,
    entered: Entered<'s>,
    /// What it logged in to by itself, under this name.
    own: Option<(Arc<str>, LoggedIn)>,
}

/// What a client wants its session to begin with.
struct Wishes {
    settings: Arc<Settings>,
    class: Option<Class>,
}

impl Wishes {
    fn none() -> Self {
        Self { settings: Settings::none(), class: None }
    }
}

impl<'s> Login<'s, '_> {
    async fn admit(&self, stream: &mut TcpStream) -> Result<Admitted<'s>, Leave> {
        let startup = self.startup(stream).await?;
        let user_name = startup
            .user()
            .ok_or_else(|| PgError::error("28000", "no PostgreSQL user name specified in startup packet"))?
            .to_owned();
        let mut out = BytesMut::with_capacity(512);
        let (minor, unknown) = (startup.spoken(), startup.protocol_options());
        if startup.minor != minor || !unknown.is_empty() {
            backend::put_negotiate_protocol_version(&mut out, minor, &unknown);
        }
        if let Some(user) = self.anybody() {
            return self.admit_by_server(stream, &startup, user, &user_name, out).await;
        }
        let user = match self.authenticate(stream, &user_name, &mut out).await {
            Ok(user) => user,
            Err(Leave::Told(error)) => {
                self.record_refused(&user_name, &error);
                return Err(Leave::Told(error));
            }
            Err(leave) => return Err(leave),
        };
        let wishes = self.check(&startup, user).inspect_err(|error| self.record_refused(&user_name, error))?;
        backend::put_authentication_ok(&mut out);
        self.greet(user, &wishes, &mut out).await.inspect_err(|error| {
            // A server's words repeat what the client asked for, which may be anything: that belongs in no log.
            let error = PgError::error(error.sqlstate().to_owned(), "the session could not be greeted");
            self.record_refused(&user_name, &error);
        })?;
        let entered = self.enter(user, minor).inspect_err(|error| self.record_refused(&user_name, error))?;
        backend::put_backend_key_data(&mut out, entered.handle.pid, &entered.handle.key);
        backend::put_ready_for_query(&mut out, TxStatus::Idle);
        stream.write_all(&out).await?;
        Ok(Admitted { user, wishes, entered, own: None })
    }

    /// Position of the user who stands for all, in a plain pooler.
    fn anybody(&self) -> Option<usize> {
        self.state.config.plain.as_ref()?;
        self.state.config.users.iter().position(|user| &*user.name == Plain::ANYBODY)
    }

    /// Lets in whom the server lets in.
    async fn admit_by_server(
        &self,
        stream: &mut TcpStream,
        startup: &Startup,
        user: usize,
        name: &str,
        mut out: BytesMut,
    ) -> Result<Admitted<'s>, Leave> {
        let admitted = self.log_in_at_server(stream, startup, user, name, &mut out).await;
        match &admitted {
            Err(Leave::Told(error)) => self.record_refused(name, error),
            Err(Leave::RefusedByServer(body)) => {
                // Its words repeat what the client asked for, which may be anything: that belongs in no log.
                let sqlstate =
                    backend::error_fields(body).map(|fields| String::from_utf8_lossy(fields.sqlstate).into_owned());
                let error = PgError::error(sqlstate.unwrap_or_default(), "the server refused the login");
                self.record_refused(name, &error);
            }
            _ => {}
        }
        let admitted = admitted?;
        backend::put_backend_key_data(&mut out, admitted.entered.handle.pid, &admitted.entered.handle.key);
        backend::put_ready_for_query(&mut out, TxStatus::Idle);
        stream.write_all(&out).await?;
        Ok(admitted)
    }

    async fn log_in_at_server(
        &self,
        stream: &mut TcpStream,
        startup: &Startup,
        user: usize,
        name: &str,
        out: &mut BytesMut,
    ) -> Result<Admitted<'s>, Leave> {
        let config = &self.state.config;
        refuse_replication(startup)?;
        let [node, ..] = self.state.fleet.shard(0) else {
            return Err(PgError::error("XX000", "there is no server").into());
        };
        let terms = plain::terms(config, self.listener);
        let mut client = plain::Client { stream, startup, terms };
        let pool_mode = config.listeners[self.listener].pool_mode.unwrap_or(config.users[user].pool_mode);
        let own = match (&config.plain, pool_mode) {
            (Some(plain), PoolMode::Transaction) => client.log_in_shared(node, plain.max_pools, out).await?,
            _ => client.log_in(node, out).await?,
        };
        let pid = match &own {
            LoggedIn::Own { pid, .. } => Some(*pid),
            LoggedIn::Shared { .. } => None,
        };
        let name: Arc<str> = name.into();
        let entered = self.shared.registry.enter_as(&name, None, config.proxy.max_clients, startup.spoken(), pid)?;
        Ok(Admitted { user, wishes: Wishes::none(), entered, own: Some((name, own)) })
    }

    /// The startup message, behind requests for encryption, which are declined. A cancel request ends here.
    async fn startup(&self, stream: &mut TcpStream) -> Result<Startup, Leave> {
        let limit = self.state.config.proxy.max_startup_bytes;
        // PostgreSQL accepts each kind of request once.
        for _ in 0..3 {
            let mut length = [0; 4];
            stream.read_exact(&mut length).await?;
            let len = frame::startup_len(&length)?.unwrap_or(0);
            if len > limit {
                return Err(ProtocolError::new(format!("invalid length of startup packet: {len}")).into());
            }
            let mut body = vec![0; len - 4];
            stream.read_exact(&mut body).await?;
            match FirstPacket::parse(&body)? {
                FirstPacket::SslRequest | FirstPacket::GssEncRequest => {
                    // Nobody who wants encryption speaks on before the answer: somebody else may have put it there
                    // (CVE-2021-23214).
                    if matches!(stream.peek(&mut [0; 1]).now_or_never(), Some(Ok(1..))) {
                        return Err(ProtocolError::new("received unencrypted data after SSL request").into());
                    }
                    stream.write_all(b"N").await?;
                }
                FirstPacket::Cancel { pid, key } => return Err(Leave::Cancel { pid, key }),
                FirstPacket::Startup(startup) => return Ok(startup),
            }
        }
        Err(ProtocolError::new("too many requests for encryption").into())
    }

    /// Finds out who it is; the position of the user in the configuration.
    async fn authenticate(&self, stream: &mut TcpStream, name: &str, out: &mut BytesMut) -> Result<usize, Leave> {
        let config = &self.state.config;
        let user = config.users.iter().position(|user| *user.name == *name);
        match config.listeners[self.listener].auth {
            AuthMethod::Trust => {
                user.ok_or_else(|| PgError::error("28000", format!("role \"{name}\" is not known")).into())
            }
            AuthMethod::ScramSha256 => {
                let verifier = user.and_then(|user| config.users[user].verifier.as_ref());
                let exchange =
                    ScramExchange::new(verifier.map(|verifier| verifier.expose()), name, &self.shared.mock_secret);
                backend::put_authentication_sasl(out, &[MECHANISM]);
                stream.write_all(out).await?;
                out.clear();
                let first = password(stream).await?;
                let proof = exchange.first(&first, out)?;
                stream.write_all(out).await?;
                out.clear();
                let last = password(stream).await?;
                proof.last(&last, out)?;
                user.ok_or_else(|| wrong_password(name).into())
            }
        }
    }

    /// What must hold for any session; the parameters that it asks for.
    fn check(&self, startup: &Startup, user: usize) -> Result<Wishes, PgError> {
        let config = &self.state.config;
        let database = startup.database().unwrap_or_default();
        if database != &*config.proxy.database {
            return Err(PgError::error("3D000", format!("database \"{database}\" does not exist"))
                .with_hint(format!("PgWard serves the database \"{}\".", config.proxy.database)));
        }
        refuse_replication(startup)?;
        match startup.get("client_encoding").map(|name| name.trim_matches(['\'', '"']).to_ascii_uppercase()).as_deref()
        {
            None | Some("UTF8" | "UTF-8" | "UNICODE" | "AUTO" | "SQL_ASCII") => {}
            Some(_) => {
                return Err(PgError::error("22023", "the client encoding is not supported")
                    .with_hint("Use UTF8: statements are analysed, and must mean here what they mean on the server."));
            }
        }
        let name = &config.users[user].name;
        tracing::debug!(user = %name, address = %self.address, "authenticated");
        self.settings(startup, user)
    }

    /// The parameters that the client asks for: what it could not SET later it cannot begin with either.
    fn settings(&self, startup: &Startup, user: usize) -> Result<Wishes, PgError> {
        let asked = from_startup(&startup.params)
            .map_err(|detail| PgError::error("22023", "invalid startup parameter").with_detail(detail))?;
        if let Some(name) = of_the_connection(&asked.settings) {
            return Err(PgError::error("0A000", format!("parameter \"{name}\" cannot be asked for through PgWard"))
                .with_detail("It is fixed when a connection to a server is opened, and clients share those.")
                .with_hint("Leave it out, or connect to the shard's own server."));
        }
        let analyser = &self.state.analyser;
        for sql in statements(&asked.settings) {
            let sql = sql.as_bytes();
            let judged = analyser.analyse(sql).and_then(|analysed| analyser.evidence(&analysed, 0, sql, &NoParams));
            judged.map_err(|refusal| refusal_error(&refusal))?;
        }
        let role = asked.settings.values().get("role").map(String::as_str);
        may_set(&self.state.config.users[user], role).map_err(|refusal| refusal_error(&refusal))?;
        let mut class = None;
        for (name, value) in &asked.own {
            class = own_class(&self.state.config.users[user], name, Some(value)).map_err(|wish| match wish {
                Wish::Unknown(error) => error,
                Wish::Refused(refusal) => refusal_error(&refusal),
            })?;
        }
        Ok(Wishes { settings: asked.settings, class })
    }

    fn enter(&self, user: usize, minor: u16) -> Result<Entered<'s>, PgError> {
        let config = &self.state.config;
        self.shared.registry.enter(&config.users[user], config.proxy.max_clients, minor)
    }

    /// Every node, those of the origin's home shard first.
    fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        let origin = &self.state.config.listeners[self.listener].origin;
        let home = self.state.config.shards.iter().position(|shard| shard.region == *origin);
        let others = (0..self.state.config.shards.len()).filter(move |shard| Some(*shard) != home);
        home.into_iter().chain(others).flat_map(|shard| self.state.fleet.shard(shard).iter())
    }

    /// A server on which parameters can be tried: of the first node that lends one.
    async fn borrow(&self, user: usize, class: Class) -> Option<(&Arc<Node>, Lease)> {
        let user = &self.state.config.users[user];
        for node in self.nodes().filter(|node| node.state().up) {
            let pool = match (node.role, class) {
                (NodeRole::Primary, Class::Emergency) => PoolKind::Emergency,
                (role, _) => placement::pool(role, user.workload),
            };
            if let Ok(lease) = node.acquire(pool, class, &user.server_role).await {
                return Some((node, lease));
            }
        }
        None
    }

    /// The parameters that a server reported at its login. Right after the start, or when no connections are opened
    /// ahead, there was none: one is asked for.
    async fn parameters(&self, user: usize, class: Class) -> Option<Parameters> {
        if let Some(known) = self.nodes().find_map(|node| node.parameters()) {
            return Some(known);
        }
        let (node, lease) = self.borrow(user, class).await?;
        if let Some(clean) = Clean::prove(TxStatus::Idle, 0) {
            lease.release(clean);
        }
        node.parameters()
    }

    /// The parameters that the session begins with, as a server reports them; a server's error where it does not take
    /// what is asked for.
    async fn reported(&self, user: usize, wishes: &Wishes, name: &str) -> Result<Option<Reported>, PgError> {
        let config = &self.state.config;
        let class = config.listeners[self.listener].class_of(wishes.class, &config.users[user]);
        let Some(base) = self.parameters(user, class).await else { return Ok(None) };
        let tried = greeting::to_be_tried(&wishes.settings, &base);
        let role = &config.users[user].server_role;
        let known = match tried.values().is_empty() {
            true => Some(Arc::default()),
            false => self.state.greetings.get(role, &tried),
        };
        if let Some(changed) = known {
            return Ok(Some(greeting::merged(&base, &changed, &wishes.settings, name)));
        }
        let changed = loop {
            // A server that is lost meanwhile is not tried again: the client is, in a moment.
            let Some((node, lease)) = self.borrow(user, class).await else { return Ok(None) };
            match (greeting::try_on(lease, &tried).await, node.parameters()) {
                (Ok(Tried::Taken(changed)), Some(base)) => {
                    break Arc::new(greeting::completed(changed, &base, &tried));
                }
                (Ok(Tried::Refused(error)), _) => return Err(error),
                (Ok(Tried::Stopped), _) => {}
                _ => return Ok(None),
            }
        };
        self.state.greetings.keep(role, &tried, &changed);
        Ok(Some(greeting::merged(&base, &changed, &wishes.settings, name)))
    }

    /// Reports the parameters that the session begins with.
    async fn greet(&self, user: usize, wishes: &Wishes, out: &mut BytesMut) -> Result<(), PgError> {
        let config = &self.state.config;
        let name = &config.users[user].name;
        let reported = tokio::time::timeout(config.proxy.connect_timeout, self.reported(user, wishes, name)).await;
        let reported = reported.unwrap_or(Ok(None))?.ok_or_else(|| {
            PgError::error("57P03", "no server has answered, so that the session cannot be greeted")
                .with_hint("Retry in a moment; the log and /health/ready tell which servers are missing.")
        })?;
        for (name, value) in &reported {
            backend::put_parameter_status(out, name, value);
        }
        Ok(())
    }

    fn record_refused(&self, user: &str, error: &PgError) {
        self.shared.metrics.logins_failed.increment(1);
        let config = &self.state.config;
        let listener = &config.listeners[self.listener];
        let who = Who::new(0, user, &self.address.to_string(), &listener.name, listener.origin.as_str());
        let event = Event {
            kind: EventKind::LoginRefused,
            who: Some(&who),
            sqlstate: Some(error.sqlstate()),
            // A server's words repeat what the client asked for, which may be anything: that belongs in no log.
            detail: if error.is_passed_on() { "a server refused what the client asked for" } else { error.message() },
            config: &config.hash,
        };
        // The client is sent away in any case; a log that cannot be written says so itself.
        if self.shared.audit.event(&event, SystemTime::now()).is_err() {
            self.shared.metrics.audit_failures.increment(1);
        }
    }
}

fn refuse_replication(startup: &Startup) -> Result<(), PgError> {
    match startup.get("replication") {
        None | Some("false" | "off" | "no" | "0") => Ok(()),
        Some(_) => Err(PgError::error("0A000", "replication connections are not supported")
            .with_hint("Connect to the shard's own server.")),
    }
}

/// The body of a password message.
async fn password(stream: &mut TcpStream) -> Result<Vec<u8>, Leave> {
    Ok(password_message(stream).await?.split_off(frame::HEADER_BYTES))
}

/// A password message, whole.
pub(crate) async fn password_message(stream: &mut TcpStream) -> Result<Vec<u8>, Leave> {
    let mut head = [0; frame::HEADER_BYTES];
    stream.read_exact(&mut head).await?;
    let header = frame::header(&head)?.ok_or_else(|| ProtocolError::new("a header is five bytes"))?;
    if header.tag != tag::PASSWORD {
        return Err(ProtocolError::new(format!("expected SASL response, got message type {}", header.tag)).into());
    }
    let len = header.len - frame::HEADER_BYTES;
    if len > MAX_PASSWORD_BYTES {
        return Err(ProtocolError::new(format!("a password message of {len} bytes is too long")).into());
    }
    let mut message = head.to_vec();
    message.resize(header.len, 0);
    stream.read_exact(&mut message[frame::HEADER_BYTES..]).await?;
    Ok(message)
}
