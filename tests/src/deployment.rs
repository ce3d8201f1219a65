//! A PgWard with its servers, for one test or for many.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;

use anyhow::{Context, Result};
use pgward::demo::cluster::{self, Cluster, Spec, Template};
use pgward::demo::data::{self, Patient};
use pgward::demo::guardian::{Folder, Guardian};
use pgward::demo::instance::Instance;
use pgward::demo::layout::{Layout, PLACES, SERVER_ROLE};
use pgward::demo::load::{Load, Progress};
use pgward::demo::postgres::Postgres;
use pgward::demo::schema;
use pgward::demo::toml::{Files, write_private};
use tokio::sync::OnceCell;
use tokio_postgres::Client;

use crate::Records;

/// Password of the superuser and of PgWard's role: all servers are copies of one template.
pub const SERVER_PASSWORD: &str = "of-a-test";

/// Seed of the tests' patients.
const SEED: u64 = 4;

/// What a deployment is made of.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The first so many of the four regions.
    pub shards: usize,
    /// Replicas of each shard.
    pub replicas: usize,
    /// Patients over all four regions; those of regions without a shard are not loaded.
    pub patients: u32,
    /// Changes to the demo's layout.
    pub tune: fn(&mut Layout),
}

impl Default for Options {
    /// Two regions with a replica each and a few patients: enough to break something.
    fn default() -> Self {
        Self { shards: 2, replicas: 1, patients: 80, tune: |_| {} }
    }
}

/// A running deployment. Stopped when it is dropped.
pub struct Deployment {
    instance: Mutex<Instance>,
    cluster: Cluster,
    layout: Layout,
    files: Files,
    load: Load,
    // Last: the folder goes when nothing runs in it any more.
    _dir: tempfile::TempDir,
}

static TEMPLATE: OnceCell<(Template, Guardian)> = OnceCell::const_new();
static SHARED: OnceCell<Deployment> = OnceCell::const_new();

impl Deployment {
    /// The deployment that the tests of one binary share: four regions, two replicas each. Whoever uses it leaves
    /// patients and configuration as they are, and writes only rows of patients that no other test counts.
    pub async fn shared(program: &str) -> &'static Self {
        let options = Options { shards: 4, replicas: 2, patients: 400, ..Options::default() };
        SHARED.get_or_init(|| async { Self::start(program, options).await.expect("the deployment starts") }).await
    }

    /// A deployment of one's own. `program` is `env!("CARGO_BIN_EXE_pgward-under-test")`.
    ///
    /// # Errors
    /// Something does not start.
    pub async fn start(program: &str, options: Options) -> Result<Self> {
        let (template, _) = TEMPLATE.get_or_init(|| async { template().await.expect("the template is made") }).await;
        let mut layout = Layout::on_free_ports()?;
        (options.tune)(&mut layout);

        let dir = tempfile::Builder::new().prefix("pgward-test-").tempdir()?;
        let files = Files::of(dir.path())?;
        write_private(&dir.path().join("secrets").join(SERVER_ROLE), SERVER_PASSWORD)?;
        let spec = Spec { template: Some(template.clone()), ..spec(options, layout.max_connections) };
        let home = dir.path().to_owned();
        let cluster = tokio::task::spawn_blocking(move || Cluster::start(&home, &spec)).await??;
        cluster.await_streaming().await?;
        files.write(&layout, &cluster)?;
        let instance = Mutex::new(serve(program, &files, &cluster, layout.http_port).await?);

        let load = Load { seed: SEED, patients: options.patients };
        let deployment = Self { instance, cluster, layout, files, load, _dir: dir };
        deployment.load(options.shards).await?;
        if options.replicas > 0 {
            deployment.load.await_replicas(&deployment.url("general", "app"), options.shards).await?;
        }
        Ok(deployment)
    }

    /// Kills PgWard with SIGKILL and starts it again.
    ///
    /// # Errors
    /// It does not start again.
    pub async fn restart(&self, program: &str) -> Result<()> {
        self.with_instance(Instance::kill)?;
        let instance = serve(program, &self.files, &self.cluster, self.layout.http_port).await?;
        self.with_instance(|old| *old = instance);
        Ok(())
    }

    async fn load(&self, shards: usize) -> Result<()> {
        let progress = Progress::default();
        let url = self.url("general", "app");
        for region in 0..shards {
            self.load.run_region(&url, region, &progress).await.with_context(|| self.log())?;
        }
        self.cluster.await_replay().await
    }

    /// Patient number `n` of a region.
    pub fn patient(&self, region: &str, n: usize) -> Patient {
        let region = data::REGIONS.iter().position(|known| *known == region).expect("a region of the demo");
        self.load.patients_of(region).nth(n).expect("a loaded patient")
    }

    /// Connection string.
    pub fn url(&self, listener: &str, user: &str) -> String {
        self.layout.url(self.layout.listener(listener).expect("a listener of the layout"), user)
    }

    /// Port of a listener.
    pub fn port(&self, listener: &str) -> u16 {
        self.layout.listener(listener).expect("a listener of the layout").port
    }

    /// A session of this user through this listener.
    pub async fn connect(&self, listener: &str, user: &str) -> Client {
        let url = self.url(listener, user);
        cluster::connect(&url).await.unwrap_or_else(|error| panic!("{user} through {listener}: {error:?}"))
    }

    /// A session of the ordinary application.
    pub async fn app(&self) -> Client {
        self.connect("general", "app").await
    }

    /// A superuser's session straight on a server, e.g. `us-east-patients/primary`.
    pub async fn on_server(&self, node: &str) -> Client {
        self.cluster.superuser(self.node(node), cluster::DATABASE).await.expect("the server lets its superuser in")
    }

    /// A server by its name.
    pub fn node(&self, name: &str) -> &Postgres {
        self.cluster.nodes().find(|node| node.name() == name).expect("a server of the deployment")
    }

    /// All servers.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The audit log as it is now.
    pub fn records(&self) -> Records {
        Records::read(&self.files.audit())
    }

    /// Its files.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Its layout.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Runs something with the PgWard process.
    pub fn with_instance<T>(&self, work: impl FnOnce(&mut Instance) -> T) -> T {
        work(&mut self.instance.lock().expect("no test panics while it holds the process"))
    }

    /// The end of what PgWard said.
    pub fn log(&self) -> String {
        self.with_instance(|instance| instance.log_end())
    }
}

async fn serve(program: &str, files: &Files, cluster: &Cluster, http_port: u16) -> Result<Instance> {
    let mut instance = Instance::start(Path::new(program), &files.config(), &files.log())?;
    cluster.watch(instance.pid());
    let ready = move || instance.await_ready(http_port, &false.into()).map(|()| instance);
    tokio::task::spawn_blocking(ready).await?
}

fn spec(options: Options, max_connections: u32) -> Spec {
    Spec {
        shards: PLACES[..options.shards].iter().map(|place| (place.shard.to_owned(), options.replicas)).collect(),
        max_connections,
        first_port: None,
        superuser_password: SERVER_PASSWORD.to_owned(),
        template: None,
        folder: Folder::Removed,
        cancelled: Arc::default(),
    }
}

/// Made once for each test process; its guardian removes it at the end.
async fn template() -> Result<(Template, Guardian)> {
    let dir: PathBuf = tempfile::Builder::new().prefix("pgward-template-").tempdir()?.keep();
    let guardian = Guardian::of(&dir, Folder::Removed)?;
    let spec = spec(Options { shards: 4, ..Options::default() }, 100);
    let runtime = tokio::runtime::Handle::current();
    let make = move || {
        Template::make(&dir, &spec, |cluster| runtime.block_on(schema::create(cluster, SERVER_ROLE, SERVER_PASSWORD)))
    };
    Ok((tokio::task::spawn_blocking(make).await??, guardian))
}
