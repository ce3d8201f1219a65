//! The validated configuration, and the words that all rooms share.
//!
//! Ids are interned strings (`Arc<str>` newtypes), cheap to clone into decisions and records. Lists keep the order of
//! the file; what refers to another item does so by its id, and the id is known to exist.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id with this text.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The id's text, as written in the TOML.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

id!(
    /// A region of the deployment, e.g. `us-east-1`.
    RegionId
);
id!(
    /// A patient's home region as the directory and the rows name it, e.g. `us-east`.
    PatientRegion
);
id!(
    /// A shard, e.g. `us-east-patients`.
    ShardId
);
id!(
    /// A PostgreSQL server process, e.g. `us-east-patients/primary` or `us-east-patients/replica-1`.
    NodeId
);

/// Priority of a statement, highest first. The order is the order of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Emergency medical requests: never queue behind another class.
    Emergency,
    /// Access to critical patients.
    Critical,
    /// High-volume providers.
    High,
    /// Regular healthcare requests: the default.
    Normal,
    /// Background processing.
    Low,
}

impl Class {
    /// All classes, highest first.
    pub const ALL: [Self; 5] = [Self::Emergency, Self::Critical, Self::High, Self::Normal, Self::Low];

    /// The word used in the TOML, in `SET pgward.priority` and in audit records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Emergency => "emergency",
            Self::Critical => "critical",
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    /// The class that this word names, in any letter case.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str().eq_ignore_ascii_case(word))
    }

    /// Index into arrays of five, emergency first.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Whether a session with this ceiling may ask for `wanted`.
    pub fn allows(self, wanted: Self) -> bool {
        wanted >= self
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The four pools of a node (SPEC: prioritized pools).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PoolKind {
    /// Reserved for emergency statements, kept warm.
    Emergency,
    /// Writes and ordinary work on the primary.
    General,
    /// Analytics and batch work.
    Background,
    /// Reads on replicas.
    ReadOnly,
}

impl PoolKind {
    /// All pools, in the order of the TOML.
    pub const ALL: [Self; 4] = [Self::Emergency, Self::General, Self::Background, Self::ReadOnly];

    /// The word used in the TOML (`[pools.readonly]`), metrics and audit records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Emergency => "emergency",
            Self::General => "general",
            Self::Background => "background",
            Self::ReadOnly => "readonly",
        }
    }

    /// Index into arrays of four.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The pools that a node of this role opens; a replica opens no emergency and no general pool, because
    /// emergency queries and writes always go to the primary.
    pub const fn of(role: NodeRole) -> &'static [Self] {
        match role {
            NodeRole::Primary => &[Self::Emergency, Self::General, Self::Background],
            NodeRole::Replica => &[Self::Background, Self::ReadOnly],
        }
    }
}

impl fmt::Display for PoolKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a node is configured to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeRole {
    /// Takes writes and emergency queries.
    Primary,
    /// Streams from the primary, serves reads.
    Replica,
}

impl NodeRole {
    /// `primary` or `replica`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }
}

/// When a session gives its server back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolMode {
    /// At the end of each transaction.
    Transaction,
    /// When the client leaves.
    Session,
}

/// What a user's work is, for reads: ordinary care, or reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Workload {
    /// Care: reads use the read-only pool.
    Care,
    /// Analytics and reports: the background pool, class low at most.
    Analytics,
}

/// A secret that never stands in the TOML in clear. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Wraps the text of a secret.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The secret's text; the caller must not log it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The whole configuration, validated.
#[derive(Clone, Debug)]
pub struct Config {
    /// SHA-256 of the file's text, first 16 hexadecimal digits: stands in every audit record.
    pub hash: Arc<str>,
    /// The file it came from; relative paths in it are resolved against this file's folder.
    pub path: PathBuf,
    /// `[proxy]`
    pub proxy: Proxy,
    /// `[[peers]]`
    pub peers: Vec<Peer>,
    /// `[[listeners]]`
    pub listeners: Vec<Listener>,
    /// `[plain]`; `None` where statements are routed.
    pub plain: Option<Plain>,
    /// `[http]`; `None` when the table is absent.
    pub http: Option<Http>,
    /// `[[users]]`
    pub users: Vec<User>,
    /// `[[server_roles]]`
    pub server_roles: Vec<ServerRole>,
    /// `[sharding]`
    pub sharding: Sharding,
    /// `[[tables]]`
    pub tables: Vec<Table>,
    /// `[[functions]]`: functions of the application whose volatility the operator declares (for offline use; a live
    /// proxy reads the servers' pg_proc).
    pub functions: Vec<Function>,
    /// `[[regions]]`
    pub regions: Vec<Region>,
    /// `[[shards]]`
    pub shards: Vec<Shard>,
    /// `[pools.*]`, indexed by [`PoolKind::index`].
    pub pools: [Pool; 4],
    /// `[health]`
    pub health: Health,
    /// `[directory]`
    pub directory: Directory,
    /// `[audit]`
    pub audit: Audit,
}

/// `[proxy]`: the process and its limits.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// Name of this instance, in audit records; default `pgward-1`. Needs a restart.
    pub instance: Arc<str>,
    /// Number of this instance in cancel keys, `None` where there are no others. Needs a restart.
    pub peer_id: Option<u16>,
    /// Cancel requests that each listener takes in a second; default 100.
    pub max_cancels_per_second: u32,
    /// The database name that clients ask for.
    pub database: Arc<str>,
    /// Threads of the data plane; default 1. Needs a restart.
    pub workers: usize,
    /// Unix socket of `pgward reload`; default `pgward.sock` beside the TOML. Needs a restart.
    pub control_socket: PathBuf,
    /// Clients at once; default 10 000.
    pub max_clients: usize,
    /// Largest startup packet in bytes; default and upper bound 10 000 (PostgreSQL's MAX_STARTUP_PACKET_LENGTH).
    pub max_startup_bytes: usize,
    /// Time for startup and authentication; default 15 s.
    pub startup_timeout: Duration,
    /// Largest message that is held whole (Query, Parse, Bind …), in bytes; default 64 MiB.
    pub max_message_bytes: usize,
    /// Named prepared statements of one client; default 10 000.
    pub max_prepared: usize,
    /// Their names, texts and parameter types together, in bytes; default 16 MiB.
    pub max_prepared_bytes: usize,
    /// Statements that a server connection keeps prepared before the one unused for longest is closed; default 500.
    pub server_prepared: usize,
    /// A client silent inside a transaction for longer is disconnected (25P03); default 5 min, `None` for never.
    pub idle_in_transaction_timeout: Option<Duration>,
    /// How long to wait for a connection to a node; default 5 s.
    pub connect_timeout: Duration,
    /// How long SIGTERM waits for transactions to finish; default 30 s.
    pub drain_timeout: Duration,
}

/// `[[peers]]`: another instance, which cancel requests are passed on to. The list may be the same in the files of all
/// instances: an entry for this one is passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its `peer_id`.
    pub id: u16,
    /// Where it listens.
    pub host: Arc<str>,
    /// Port of one of its listeners.
    pub port: u16,
}

/// `[[listeners]]`: a port, and where those who come in by it are taken to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Unique name.
    pub name: Arc<str>,
    /// Address to listen on.
    pub address: SocketAddr,
    /// Origin region of its sessions.
    pub origin: RegionId,
    /// Class of its sessions, `None`: the user's default. A listener with class `emergency` is the emergency listener.
    pub class: Option<Class>,
    /// How clients prove who they are.
    pub auth: AuthMethod,
    /// Overrides the user's pool mode.
    pub pool_mode: Option<PoolMode>,
}

impl Listener {
    /// The class of a session that came in here: the listener's own, else what the session asked for, else the user's.
    pub fn class_of(&self, asked: Option<Class>, user: &User) -> Class {
        self.class.or(asked).unwrap_or(user.class)
    }
}

/// How a client proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthMethod {
    /// SCRAM-SHA-256 against the user's verifier.
    ScramSha256,
    /// No proof: only on a loopback listener.
    Trust,
}

/// `[http]`: health and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Address of `/health/live`, `/health/ready`, `/metrics`.
    pub address: SocketAddr,
}

/// `[plain]`: a pooler of one server for any database and any user. All of them are one of [`Config::users`], the only
/// one, called [`Plain::ANYBODY`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plain {
    /// When servers are given back; default transaction.
    pub pool_mode: PoolMode,
    /// Pairs of database and user whose connections are kept at once (pool mode transaction); default 100.
    pub max_pools: u32,
}

impl Plain {
    /// The name of the user who stands for all.
    pub const ANYBODY: &'static str = "*";

    /// The pools that it opens; the others are there and stay empty.
    pub const POOLS: &'static [PoolKind] = &[PoolKind::General];
}

impl Config {
    /// Where the commit log is: beside the directory of patients, and where there is none beside the audit log.
    pub fn commit_log(&self) -> PathBuf {
        Self::commit_log_beside(Self::commit_log_stands_beside(&self.directory, &self.audit.path))
    }

    pub(crate) fn commit_log_stands_beside<'a>(directory: &'a Directory, audit: &'a Path) -> &'a Path {
        match directory {
            Directory::Embedded { path, .. } => path,
            Directory::Hash => audit,
        }
    }

    pub(crate) fn commit_log_beside(path: &Path) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(".commits");
        name.into()
    }

    /// The pools whose connections a node of this role may have.
    pub fn pools_of(&self, role: NodeRole) -> &'static [PoolKind] {
        if self.plain.is_some() { Plain::POOLS } else { PoolKind::of(role) }
    }
}

/// `[[users]]`: who may come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Name, as in the startup message.
    pub name: Arc<str>,
    /// SCRAM-SHA-256 verifier in PostgreSQL's form `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`; made from the
    /// password when the TOML names a password by env or file. `None`: only `trust` listeners let this user in.
    pub verifier: Option<Secret>,
    /// Class of the user's statements; default normal (low for analytics).
    pub class: Class,
    /// Highest class that the user may ask for; default: `class`.
    pub ceiling: Class,
    /// What the user's reads are.
    pub workload: Workload,
    /// The server role that the user's statements run as.
    pub server_role: Arc<str>,
    /// The roles that the user may change to by SET ROLE.
    pub may_set_role: Vec<Arc<str>>,
    /// When servers are given back.
    pub pool_mode: PoolMode,
    /// Connections of this user at once, `None` for no limit of its own.
    pub max_clients: Option<usize>,
}

/// `[[server_roles]]`: how PgWard logs in to the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerRole {
    /// The role's name on the servers.
    pub name: Arc<str>,
    /// Its password, `None` where the servers ask for none.
    pub password: Option<Secret>,
}

/// How patients are spread over shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// By the patient's home region, from the directory.
    PatientRegion,
    /// By ranges of a hash of the patient key.
    Hash,
}

/// The type of patient keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// `uuid`
    Uuid,
    /// `bigint`
    Bigint,
    /// `text` (also varchar); zeros, case and spaces count.
    Text,
}

impl KeyType {
    /// `uuid`, `bigint` or `text`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Uuid => "uuid",
            Self::Bigint => "bigint",
            Self::Text => "text",
        }
    }
}

/// `[sharding]`
#[derive(Clone, Debug)]
pub struct Sharding {
    /// How patients are spread.
    pub strategy: Strategy,
    /// The type of patient keys.
    pub key_type: KeyType,
    /// What to do with tables that the TOML does not declare.
    pub undeclared_tables: Undeclared,
    /// Patients whose region no shard serves go here, only for the origins listed; never for emergencies.
    pub default_shard: Option<DefaultShard>,
    /// Rows of a COPY may go to several shards, all or none by two-phase commit; default `true`.
    pub copy_across_shards: bool,
}

/// What happens to a statement on a table that is not declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Undeclared {
    /// Refused: the default.
    Refuse,
    /// Taken for a local table of the origin's home shard.
    Local,
}

/// The shard for patients of a region that no shard serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultShard {
    /// The shard.
    pub shard: ShardId,
    /// Origins from which the fall back is allowed.
    pub origins: Vec<RegionId>,
}

/// What a table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TableKind {
    /// Rows of patients; every statement must name whose.
    Patient,
    /// The same rows on every shard.
    Reference,
    /// Lives on the origin's home shard.
    Local,
}

impl TableKind {
    /// `patient`, `reference` or `local`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Patient => "patient",
            Self::Reference => "reference",
            Self::Local => "local",
        }
    }
}

/// `[[tables]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Schema, default `public`.
    pub schema: Arc<str>,
    /// Name as in the catalog (folded to lower case unless it was quoted).
    pub name: Arc<str>,
    /// What it holds.
    pub kind: TableKind,
    /// Column of the patient key; `Some` exactly for patient tables.
    pub key: Option<Arc<str>>,
    /// Column with the patient's region: an INSERT that carries it registers the patient.
    pub region: Option<Arc<str>>,
    /// All columns in order, where declared; a live proxy reads them from the servers.
    pub columns: Option<Vec<Arc<str>>>,
}

/// `[[functions]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Name without schema.
    pub name: Arc<str>,
    /// True for IMMUTABLE and STABLE.
    pub reads_only: bool,
}

/// Regulatory frameworks of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Framework {
    /// United States.
    Hipaa,
    /// European Union.
    Gdpr,
    /// Canada.
    Pipeda,
    /// Singapore.
    Pdpa,
}

impl Framework {
    /// `HIPAA`, `GDPR`, `PIPEDA`, `PDPA`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hipaa => "HIPAA",
            Self::Gdpr => "GDPR",
            Self::Pipeda => "PIPEDA",
            Self::Pdpa => "PDPA",
        }
    }
}

/// `[[regions]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Id, e.g. `us-east-1`.
    pub id: RegionId,
    /// Name for people, e.g. `US East (N. Virginia)`.
    pub name: Arc<str>,
    /// Frameworks that apply.
    pub frameworks: Vec<Framework>,
    /// Data must stay in the region (and where `replicas_in`, `access_from` say); default true: strict local.
    pub resident: bool,
    /// Health authorities.
    pub authorities: Vec<Authority>,
    /// Availability zones.
    pub zones: Vec<Arc<str>>,
    /// Backup region.
    pub backup_region: Option<RegionId>,
    /// Other regions that may hold replicas and backups of this region's shards; a region's own id is implied.
    pub replicas_in: Vec<RegionId>,
    /// Origins that may read and write this region's patients; the region itself is implied.
    pub access_from: Vec<RegionId>,
    /// Regions that are prohibited, each with its reason; wins over everything else.
    pub prohibited: Vec<Prohibition>,
}

/// A health authority of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Name, e.g. `HHS`.
    pub name: Arc<str>,
    /// Where to reach it.
    pub contact: Option<Arc<str>>,
    /// What must be reported to it.
    pub reporting: Vec<Arc<str>>,
}

/// A region that a region's data may not go to or be reached from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prohibition {
    /// The prohibited region.
    pub region: RegionId,
    /// Why, shown in refusals.
    pub reason: Arc<str>,
}

/// `[[shards]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Id, e.g. `us-east-patients`.
    pub id: ShardId,
    /// The region that its data lives in.
    pub region: RegionId,
    /// Patient regions served (strategy `patient_region`).
    pub patient_regions: Vec<PatientRegion>,
    /// Hash range `[start, end)` over u64, end exclusive and up to 2^64 (strategy `hash`).
    pub hash_range: Option<(u64, u128)>,
    /// Takes writes.
    pub primary: Node,
    /// Serve reads.
    pub replicas: Vec<Node>,
    /// `max_connections` that the operator states for each of its nodes; checked against the pools.
    pub server_max_connections: Option<u32>,
}

impl Shard {
    /// The primary, then the replicas.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        std::iter::once(&self.primary).chain(&self.replicas)
    }
}

/// A PostgreSQL server process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `<shard>/primary`, `<shard>/replica-1` …, or the `id` of the TOML.
    pub id: NodeId,
    /// What it is configured to be.
    pub role: NodeRole,
    /// The region that it stands in.
    pub region: RegionId,
    /// Host name or address.
    pub host: Arc<str>,
    /// Port.
    pub port: u16,
    /// Database on the server.
    pub dbname: Arc<str>,
    /// URL that answers the node's CPU utilization in percent as plain text (`http://…`), where there is one.
    pub cpu_source: Option<Arc<str>>,
}

/// `[pools.<kind>]`: the figures of one pool, for each node that opens it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Connections opened ahead.
    pub min: u32,
    /// Connections at most.
    pub max: u32,
    /// An idle connection above `min` is closed after this.
    pub idle_timeout: Duration,
    /// A connection is replaced after this (with jitter).
    pub max_lifetime: Duration,
    /// Idle connections are checked this often.
    pub check_interval: Duration,
    /// A statement waits at most this long for a server; then 53300.
    pub wait_timeout: Duration,
    /// Statements that may wait at once; more are refused at once.
    pub max_waiting: u32,
    /// Connections that sessions may keep beyond a transaction (LISTEN, temporary tables and the like); default half of
    /// `max`.
    pub max_pinned: u32,
}

/// `[health]`: how nodes are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Probe every; default 10 s.
    pub interval: Duration,
    /// A probe that takes longer has failed; default 5 s.
    pub timeout: Duration,
    /// Down after so many failures in a row; default 3.
    pub unhealthy_after: u32,
    /// Up after so many successes in a row; default 2.
    pub healthy_after: u32,
    /// A replica further behind than this serves no reads; default 60 s.
    pub max_replica_lag: Duration,
}

/// `[directory]`: where a patient's region is looked up (strategy `patient_region`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Directory {
    /// A file of this machine.
    Embedded {
        /// Its path.
        path: PathBuf,
        /// Key of the HMAC under which patients are stored.
        key: Secret,
    },
    /// No look-up: the strategy is `hash`.
    Hash,
}

/// What must have happened to a record before its statement is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuditPolicy {
    /// Handed to the writer.
    Buffered,
    /// Written to the file: survives a kill of the proxy. The default.
    Written,
    /// On disk (fsync): survives a loss of power.
    Synced,
}

/// `[audit]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// The file of JSON lines.
    pub path: PathBuf,
    /// When a record counts as written.
    pub policy: AuditPolicy,
    /// Key of the HMAC under which patients appear in records.
    pub key: Secret,
    /// The file is rotated at this size in bytes; default 1 GiB, `None` for never.
    pub rotate_bytes: Option<u64>,
    /// Emergency records held in memory while the file cannot be written, in bytes; default 16 MiB.
    pub spool_bytes: usize,
}
