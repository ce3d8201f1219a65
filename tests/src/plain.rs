//! A PgWard that is a plain pooler, with its one server.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use pgward::demo::cluster::{self, Cluster, Spec};
use pgward::demo::guardian::Folder;
use pgward::demo::instance::Instance;
use pgward::demo::ports;
use pgward::demo::toml::write_private;
use tokio::sync::OnceCell;
use tokio_postgres::Client;

use crate::{Records, SERVER_PASSWORD};

/// Password of the roles that have one.
pub const ROLE_PASSWORD: &str = "of-a-role";

/// Roles by what the server asks them for, in front of what `initdb` wrote: SCRAM-SHA-256.
const HBA: &str = "\
host all trusted 127.0.0.1/32 trust
host all by_md5 127.0.0.1/32 md5
host all in_clear 127.0.0.1/32 password
";

const ROLES: &str = "\
CREATE ROLE trusted LOGIN;
SET password_encryption = 'md5';
CREATE ROLE by_md5 LOGIN PASSWORD 'of-a-role';
SET password_encryption = 'scram-sha-256';
CREATE ROLE in_clear LOGIN PASSWORD 'of-a-role';
CREATE ROLE by_scram LOGIN PASSWORD 'of-a-role';
ALTER ROLE by_scram SET work_mem = '7MB';
";

/// A listener for each way to come in.
const LISTENERS: [(&str, &str, &str); 4] = [
    ("session", "session", "scram-sha-256"),
    ("session-trust", "session", "trust"),
    ("transaction", "transaction", "scram-sha-256"),
    ("transaction-trust", "transaction", "trust"),
];

/// A running plain pooler, stopped when it is dropped.
pub struct PlainPooler {
    _instance: Instance,
    cluster: Cluster,
    ports: Vec<u16>,
    // Last: the folder goes when nothing runs in it any more.
    dir: tempfile::TempDir,
}

static SHARED: OnceCell<PlainPooler> = OnceCell::const_new();

impl PlainPooler {
    /// The one that the tests of one binary share. `program` is `env!("CARGO_BIN_EXE_pgward-under-test")`.
    pub async fn shared(program: &str) -> &'static Self {
        SHARED.get_or_init(|| async { Self::start(program, "").await.expect("the plain pooler starts") }).await
    }

    /// One of one's own, with these keys in `[plain]`.
    ///
    /// # Errors
    /// Something does not start.
    pub async fn start(program: &str, keys: &str) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("pgward-test-").tempdir()?;
        let spec = Spec {
            shards: vec![("only".to_owned(), 0)],
            max_connections: 100,
            first_port: None,
            superuser_password: SERVER_PASSWORD.to_owned(),
            template: None,
            folder: Folder::Removed,
            cancelled: Arc::default(),
        };
        let home = dir.path().to_owned();
        let cluster = tokio::task::spawn_blocking(move || Cluster::start(&home, &spec)).await??;
        let server = &cluster.shards[0].primary;
        let hba = server.dir().join("pg_hba.conf");
        let written = std::fs::read_to_string(&hba)?;
        std::fs::write(&hba, format!("{HBA}{written}"))?;
        let superuser = cluster.superuser(server, "postgres").await?;
        superuser.batch_execute(ROLES).await?;
        superuser.batch_execute("SELECT pg_reload_conf()").await?;

        let http = ports::free()?;
        let ports = LISTENERS.iter().map(|_| ports::free()).collect::<Result<Vec<_>>>()?;
        let config = dir.path().join("pgward.toml");
        write_private(&dir.path().join("password"), SERVER_PASSWORD)?;
        write_private(&dir.path().join("audit-key"), "0123456789abcdef0123456789abcdef")?;
        std::fs::write(&config, render(&ports, http, server.port(), keys))?;
        let mut instance = Instance::start(Path::new(program), &config, &dir.path().join("pgward.log"))?;
        cluster.watch(instance.pid());
        let ready = move || instance.await_ready(http, &false.into()).map(|()| instance);
        let instance = tokio::task::spawn_blocking(ready).await??;
        Ok(Self { _instance: instance, cluster, ports, dir })
    }

    /// Port of a listener.
    pub fn port(&self, listener: &str) -> u16 {
        let at = LISTENERS.iter().position(|(name, ..)| *name == listener).expect("a listener of the plain pooler");
        self.ports[at]
    }

    /// Connection string.
    pub fn url(&self, listener: &str, user: &str, database: &str) -> String {
        format!("postgresql://{user}:{ROLE_PASSWORD}@127.0.0.1:{}/{database}", self.port(listener))
    }

    /// A session of this user.
    ///
    /// # Errors
    /// It is not let in.
    pub async fn connect(&self, listener: &str, user: &str) -> Result<Client> {
        cluster::connect(&self.url(listener, user, "postgres")).await
    }

    /// A superuser's session straight on the server.
    pub async fn on_server(&self) -> Client {
        let server = &self.cluster.shards[0].primary;
        self.cluster.superuser(server, "postgres").await.expect("the server lets its superuser in")
    }

    /// The server's port.
    pub fn server_port(&self) -> u16 {
        self.cluster.shards[0].primary.port()
    }

    /// The audit log as it is now.
    pub fn records(&self) -> Records {
        Records::read(&self.dir.path().join("audit.jsonl"))
    }
}

fn render(ports: &[u16], http: u16, server: u16, keys: &str) -> String {
    let listeners: String = LISTENERS
        .iter()
        .zip(ports)
        .map(|((name, mode, auth), port)| {
            format!(
                "[[listeners]]\nname = \"{name}\"\naddress = \"127.0.0.1:{port}\"\norigin = \"here\"\n\
                 pool_mode = \"{mode}\"\nauth = \"{auth}\"\n"
            )
        })
        .collect();
    format!(
        "[proxy]\nidle_in_transaction_timeout = \"1m\"\n[plain]\n{keys}\n{listeners}\
         [http]\naddress = \"127.0.0.1:{http}\"\n\
         [[server_roles]]\nname = \"postgres\"\npassword = {{ file = \"password\" }}\n\
         [[regions]]\nid = \"here\"\n\
         [[shards]]\nid = \"only\"\nregion = \"here\"\nprimary = {{ url = \"postgresql://127.0.0.1:{server}\" }}\n\
         [audit]\npath = \"audit.jsonl\"\nkey = {{ file = \"audit-key\" }}\n"
    )
}
