//! The process: runtimes, listeners, signals, and leaving.
//!
//! Sessions run on the data plane; probes, pages, the control socket and reloads run on a runtime thread of their own,
//! so that neither can delay the other.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pgward_audit::{AuditLog, Event, EventKind};
use pgward_config::{Class, Config, Listener};
use pgward_pools::{Failure, PoolStatus};
use ring::hmac;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cancel::Limits;
use crate::control::{Command, Control, Placed, Reply, Request};
use crate::descriptors;
use crate::http::{Missing, Probe};
use crate::metrics::{Metrics, NodeFigures};
use crate::registry::{Kill, Registry};
use crate::reload::{self, Rows};
use crate::session::Statements;
use crate::startup;
use crate::state::{Shared, State};
use crate::twophase::{self, TwoPhase};

/// Connections that the kernel holds until they are accepted.
const BACKLOG: u32 = 4096;
/// A server that has not begun to answer in this time is looked after (SPEC: slower than this counts as failing).
const SILENCE: Duration = Duration::from_secs(2);
/// How often idle transactions and silent servers are looked for.
const TICK: Duration = Duration::from_secs(1);

/// The running process.
pub(crate) struct Proxy {
    pub(crate) shared: Arc<Shared>,
    pub(crate) config_path: std::path::PathBuf,
    /// The configuration that the process started with: what a reload cannot apply is compared with it.
    pub(crate) first_config: Arc<Config>,
    pub(crate) data: Handle,
    pub(crate) control: Handle,
    /// One reload at a time. Within: who has served which patients last.
    pub(crate) reloading: tokio::sync::Mutex<Arc<Config>>,
    listening: Mutex<HashMap<Arc<str>, Listening>>,
    stop: watch::Sender<bool>,
}

/// A listener that is bound and accepts nobody yet.
pub(crate) struct Bound {
    name: Arc<str>,
    address: SocketAddr,
    socket: TcpListener,
}

struct Listening {
    address: SocketAddr,
    task: JoinHandle<()>,
}

/// Serves the configuration in this file until the process is told to stop.
///
/// # Errors
/// What keeps it from starting.
pub fn run(path: &Path) -> anyhow::Result<ExitCode> {
    init_log();
    let loaded = match pgward_config::load(path) {
        Ok(loaded) => loaded,
        Err(report) => {
            eprint!("{}", report.render(std::io::IsTerminal::is_terminal(&std::io::stderr())));
            return Ok(ExitCode::FAILURE);
        }
    };
    for warning in loaded.warnings_report().lines() {
        tracing::warn!("{warning}");
    }
    let config = Arc::new(loaded.config);
    descriptors::raise();
    if let Some(shortage) = descriptors::shortage(&config) {
        tracing::warn!("{shortage}");
    }
    let data = data_runtime(config.proxy.workers)?;
    let control = control_runtime()?;
    data.block_on(serve(config, path, data.handle().clone(), control))
}

fn init_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("PGWARD_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,deadpool=error"));
    let color = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // A log that was set up before (by a test) is as good.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(color).try_init();
}

/// One worker is a runtime without any hand-over between threads.
fn data_runtime(workers: usize) -> anyhow::Result<Runtime> {
    let mut builder = if workers <= 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    if workers > 1 {
        builder.worker_threads(workers).thread_name("pgward-data");
    }
    builder.enable_all().build().context("the data plane's runtime cannot be started")
}

fn control_runtime() -> anyhow::Result<Handle> {
    let runtime =
        Builder::new_current_thread().enable_all().build().context("the control runtime cannot be started")?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name("pgward-control".to_owned())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))
        .context("the control thread cannot be started")?;
    Ok(handle)
}

async fn serve(config: Arc<Config>, path: &Path, data: Handle, control: Handle) -> anyhow::Result<ExitCode> {
    // A file that has reached its limit is an error of the write then, as a full disk is, and not the end of PgWard.
    // The handler stays when its listener is dropped.
    drop(signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?);
    let audit = AuditLog::open(&config.audit, &config.proxy.instance)?;
    let catalog = reload::live_catalog(&control, &config).await;
    for lacking in reload::lacking(&config, &catalog.found) {
        tracing::warn!("{lacking}");
    }
    let state = State::new(Arc::clone(&config), &catalog.found, None)?;
    state.fleet.start(&data, &control);
    // The same for all proxies of a deployment and after a restart: a salt that changed would tell who does not exist.
    let key = hmac::Key::new(hmac::HMAC_SHA256, config.audit.key.expose().as_bytes());
    let mut mock_secret = [0; 32];
    mock_secret.copy_from_slice(hmac::sign(&key, b"pgward mock authentication").as_ref());
    let shared = Arc::new(Shared {
        state: ArcSwap::from_pointee(state),
        audit,
        metrics: Metrics::new(),
        registry: Registry::new(config.proxy.peer_id.unwrap_or(0)),
        cancel_limits: Limits::default(),
        statements: Statements::default(),
        two_phase: Arc::new(TwoPhase::open(&config)?),
        mock_secret,
    });
    if config.proxy.workers <= 1 {
        let shared = Arc::clone(&shared);
        data.spawn(async move { shared.audit.gather().await });
    }
    let (stop, stopped) = watch::channel(false);
    let proxy = Arc::new(Proxy {
        shared,
        config_path: path.to_owned(),
        first_config: Arc::clone(&config),
        data,
        control: control.clone(),
        reloading: tokio::sync::Mutex::new(Arc::clone(&config)),
        listening: Mutex::default(),
        stop,
    });
    proxy.accept_from(proxy.bind_new(&config.listeners)?, &config.listeners);
    let control_socket = proxy.start_control(&config)?;
    proxy.start_http(&config).await?;
    proxy.start_chores(catalog.complete);
    proxy.record(EventKind::Start, &format!("serving {}", path.display()));
    tracing::info!(config = %path.display(), hash = %config.hash, listeners = config.listeners.len(), "serving");
    proxy.until_stopped(stopped).await?;
    control_socket.answered().await;
    Ok(ExitCode::SUCCESS)
}

impl Proxy {
    /// Binds the listeners that are not open yet. Nobody is accepted before [`Proxy::accept_from`], so that the state
    /// that knows a listener is in force before its first client.
    ///
    /// # Errors
    /// One of them cannot be bound; then none is.
    pub(crate) fn bind_new(&self, listeners: &[Listener]) -> anyhow::Result<Vec<Bound>> {
        let listening = self.listening.lock();
        let is_new =
            |listener: &&Listener| listening.get(&listener.name).is_none_or(|open| open.address != listener.address);
        let _data = self.data.enter();
        let bind = |listener: &Listener| {
            let socket = bind(listener.address)
                .with_context(|| format!("listener \"{}\" cannot listen on {}", listener.name, listener.address))?;
            Ok(Bound { name: Arc::clone(&listener.name), address: listener.address, socket })
        };
        listeners.iter().filter(is_new).map(bind).collect()
    }

    /// Accepts from these, and closes the listeners that are not in the list any more.
    pub(crate) fn accept_from(&self, bound: Vec<Bound>, listeners: &[Listener]) {
        let mut listening = self.listening.lock();
        listening.retain(|name, open| {
            let stays = listeners.iter().any(|listener| listener.name == *name && listener.address == open.address);
            if !stays {
                open.task.abort();
            }
            stays
        });
        for Bound { name, address, socket } in bound {
            let task = self.data.spawn(accept(Arc::clone(&self.shared), Arc::clone(&name), socket, self.data.clone()));
            listening.insert(name, Listening { address, task });
        }
    }

    /// What it returns removes the socket when dropped: the task that answers on it is never ended.
    fn start_control(self: &Arc<Self>, config: &Config) -> anyhow::Result<Placed> {
        let guard = self.control.enter();
        let (control, placed) = Control::bind(&config.proxy.control_socket)?;
        drop(guard);
        let proxy = Arc::clone(self);
        self.control.spawn(async move {
            let handler = move |request| {
                let proxy = Arc::clone(&proxy);
                async move { proxy.obey(request).await }
            };
            control.serve(handler).await;
        });
        Ok(placed)
    }

    async fn obey(self: Arc<Self>, request: Request) -> Reply {
        // The file may have been replaced since the start; its name is what counts.
        let serves = std::fs::canonicalize(&self.config_path).unwrap_or_else(|_| self.config_path.clone());
        if serves != request.config {
            return Reply::error(format!(
                "the pgward that answers here serves {}, not {}; nothing was done",
                serves.display(),
                request.config.display()
            ));
        }
        match request.command {
            Command::Reload => self.reload(Rows::Unmoved).await,
            Command::ReloadMoved => self.reload(Rows::Moved).await,
            Command::Status => Reply::ok(self.describe()),
            Command::Stop => {
                self.record(EventKind::Admin, "stop asked for through the control socket");
                self.stop.send_replace(true);
                Reply::ok("draining")
            }
        }
    }

    async fn start_http(self: &Arc<Self>, config: &Config) -> anyhow::Result<()> {
        let Some(http) = &config.http else { return Ok(()) };
        let address = http.address;
        let probe = Arc::clone(self);
        let bound = self.control.spawn(async move {
            let listener = TcpListener::bind(address).await?;
            tokio::spawn(async move {
                if let Err(error) = crate::http::serve(listener, probe).await {
                    tracing::error!(%error, "the http pages failed");
                }
            });
            Ok::<_, std::io::Error>(())
        });
        bound.await?.with_context(|| format!("[http] cannot listen on {address}"))
    }

    /// Work that recurs: idle transactions, metrics, and the catalog until all shards have told theirs.
    fn start_chores(self: &Arc<Self>, catalog_complete: bool) {
        self.control.spawn(self.shared.metrics.upkeep());
        self.control.spawn(twophase::recover(Arc::clone(&self.shared)));
        let proxy = Arc::clone(self);
        self.control.spawn(async move {
            let mut tick = tokio::time::interval(TICK);
            loop {
                tick.tick().await;
                proxy.shared.registry.tick();
                for node in proxy.shared.registry.silent_nodes(SILENCE) {
                    node.report_failure(Failure::Timeout);
                }
                let limit = proxy.shared.state.load().config.proxy.idle_in_transaction_timeout;
                if let Some(limit) = limit {
                    proxy.shared.registry.kill_idle_in_transaction(limit);
                }
            }
        });
        if !catalog_complete {
            let proxy = Arc::clone(self);
            self.control.spawn(async move { proxy.complete_catalog().await });
        }
    }

    /// Waits for a signal or `pgward stop`, then lets transactions finish.
    async fn until_stopped(&self, mut stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        loop {
            tokio::select! {
                _ = hangup.recv() => {
                    let reply = self.reload(Rows::Unmoved).await;
                    if !reply.ok {
                        tracing::error!("{}", reply.text);
                    }
                    if let Err(error) = self.shared.audit.reopen() {
                        tracing::error!(%error, "the audit log cannot be reopened");
                    }
                }
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = stopped.changed() => break,
            }
        }
        for (_, open) in self.listening.lock().drain() {
            open.task.abort();
        }
        let clients = self.shared.registry.len();
        tracing::info!(clients, "draining");
        self.shared.registry.kill_all(Kill::Drain);
        let deadline = Instant::now() + self.shared.state.load().config.proxy.drain_timeout;
        tokio::select! {
            () = self.drained(deadline) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        self.shared.registry.kill_all(Kill::Now);
        self.drained(Instant::now() + Duration::from_secs(2)).await;
        self.record(EventKind::Stop, "stopped");
        self.shared.audit.flush()?;
        tracing::info!("stopped");
        Ok(())
    }

    async fn drained(&self, deadline: Instant) {
        while self.shared.registry.len() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Records what an operator should find in the audit log.
    pub(crate) fn record(&self, kind: EventKind, detail: &str) {
        let config = Arc::clone(&self.shared.state.load().config);
        let event = Event { kind, who: None, sqlstate: None, detail, config: &config.hash };
        if let Err(error) = self.shared.audit.event(&event, SystemTime::now()) {
            tracing::error!(%error, "an event could not be recorded");
        }
    }

    fn describe(&self) -> String {
        let state = self.shared.state.load();
        let mut text = format!(
            "config   {} ({})\nclients  {}\npatients {}\n",
            state.config.path.display(),
            state.config.hash,
            self.shared.registry.len(),
            state.directory.as_ref().map_or_else(|| "by hash".to_owned(), |directory| directory.len().to_string()),
        );
        let nodes = state.fleet.status();
        let width = nodes.iter().map(|node| node.id.as_str().len()).max().unwrap_or(0);
        for node in nodes {
            let standing = if node.state.up { "up" } else { "down" };
            let pools: Vec<String> = node.pools.iter().map(describe_pool).collect();
            text.push_str(&format!("{:width$}  {standing:4}  in use: {}\n", node.id.as_str(), pools.join(", ")));
        }
        text.truncate(text.trim_end().len());
        text
    }
}

/// A pool as `status` shows it, e.g. `general 3/30 (1 kept, 8 open, 5 idle)`.
fn describe_pool(pool: &PoolStatus) -> String {
    let waiting: u32 = pool.waiting.iter().sum();
    let some = |number: u32, what: &str| (number > 0).then(|| format!("{number} {what}"));
    let open = [some(pool.pinned, "kept"), some(waiting, "waiting")].into_iter().flatten();
    let open = open.chain([format!("{} open", pool.open), format!("{} idle", pool.idle)]);
    format!("{} {}/{} ({})", pool.kind, pool.in_use, pool.max, open.collect::<Vec<_>>().join(", "))
}

impl Probe for Proxy {
    fn missing(&self) -> Vec<Missing> {
        let state = self.shared.state.load();
        let mut missing = Vec::new();
        for (n, shard) in state.config.shards.iter().enumerate() {
            let primary = &state.fleet.shard(n)[0];
            if !primary.state().up {
                missing.push(Missing {
                    shard: shard.id.to_string(),
                    reason: format!("its primary {} is not up", primary.id),
                });
            }
        }
        missing
    }

    fn records(&self) -> bool {
        self.shared.audit.status().outage.is_none()
    }

    fn metrics(&self) -> String {
        let state = self.shared.state.load();
        let nodes: Vec<NodeFigures> = state
            .fleet
            .status()
            .into_iter()
            .map(|node| NodeFigures {
                node: node.id.to_string(),
                shard: node.shard.to_string(),
                role: node.role.as_str(),
                up: node.state.up,
                lag: node.state.lag,
                connections: node.state.connections,
                response_ms: node.state.response_ms,
                cpu_percent: node.state.cpu_percent,
            })
            .collect();
        self.shared.metrics.render(&nodes, &self.shared.audit.status())
    }
}

impl Probe for Arc<Proxy> {
    fn missing(&self) -> Vec<Missing> {
        (**self).missing()
    }

    fn records(&self) -> bool {
        (**self).records()
    }

    fn metrics(&self) -> String {
        (**self).metrics()
    }
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Whether the last descriptors are for those of other listeners.
fn gives_way(shared: &Shared, listener: &str) -> bool {
    let state = shared.state.load();
    let mut emergency = state.config.listeners.iter().filter(|known| known.class == Some(Class::Emergency)).peekable();
    emergency.peek().is_some() && !emergency.any(|known| *known.name == *listener)
}

/// Accepts until aborted. A failure to accept (no descriptors left) is waited out, not died of.
async fn accept(shared: Arc<Shared>, listener: Arc<str>, socket: TcpListener, data: Handle) {
    loop {
        match socket.accept().await {
            Ok((stream, address)) if descriptors::is_reserved(&stream) && gives_way(&shared, &listener) => {
                tracing::warn!(%listener, %address, "a client was sent away: the last descriptors are for emergencies");
                startup::turn_away(&stream);
            }
            Ok((stream, address)) => {
                // Without it, small replies wait for the peer's acknowledgement; a socket that refuses still works.
                let _ = stream.set_nodelay(true);
                data.spawn(startup::serve(Arc::clone(&shared), Arc::clone(&listener), stream, address));
            }
            Err(error) => {
                tracing::warn!(%listener, %error, "could not accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
