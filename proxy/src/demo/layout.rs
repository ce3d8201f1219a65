//! What is deployed: the four regions of the reference deployment, and the listeners, users and pools in front of them.
//!
//! [`Layout::demo`] is what `pgward demo` serves; tests take it and change what they are about.

use anyhow::Result;

use super::ports;

/// A region of the reference deployment with its shard.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The shard, e.g. `us-east-patients`.
    pub shard: &'static str,
    /// Its region, e.g. `us-east-1`.
    pub region: &'static str,
    /// The patients' region, e.g. `us-east`.
    pub patients: &'static str,
}

/// The reference deployment, in the order of [`super::data::REGIONS`].
pub const PLACES: [Place; 4] = [
    Place { shard: "us-east-patients", region: "us-east-1", patients: "us-east" },
    Place { shard: "us-west-patients", region: "us-west-2", patients: "us-west" },
    Place { shard: "eu-west-patients", region: "eu-west-1", patients: "eu-west" },
    Place { shard: "ap-south-patients", region: "ap-south-1", patients: "ap-south" },
];

/// The role that PgWard logs in to the servers as.
pub const SERVER_ROLE: &str = "pgward_app";

/// A port of PgWard.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its name.
    pub name: &'static str,
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// The region that its clients are taken to be in.
    pub origin: &'static str,
    /// Class of its sessions.
    pub class: Option<&'static str>,
    /// The user that URLs of this listener are written for.
    pub user: &'static str,
}

/// Somebody who may come in.
#[derive(Clone, Debug)]
pub struct User {
    /// The name.
    pub name: &'static str,
    /// The password. Everything here listens on loopback and holds made-up data: a password that is easy to type
    /// serves better than one that is hard to guess.
    pub password: String,
    /// Class of the user's statements, where it is not the default.
    pub class: Option<&'static str>,
    /// Highest class that may be asked for, where it is not the default.
    pub ceiling: Option<&'static str>,
    /// `analytics`, where it is not care.
    pub workload: Option<&'static str>,
    /// `session`, where it is not transaction.
    pub pool_mode: Option<&'static str>,
    /// Roles that the user may set.
    pub may_set_role: &'static [&'static str],
}

impl User {
    /// A user with every default.
    pub fn new(name: &'static str) -> Self {
        let password = format!("demo-{name}");
        Self { name, password, class: None, ceiling: None, workload: None, pool_mode: None, may_set_role: &[] }
    }

    /// The highest class that this user may ask for, as the configuration will have it.
    pub fn effective_ceiling(&self) -> &'static str {
        let default = if self.workload == Some("analytics") { "low" } else { "normal" };
        self.ceiling.or(self.class).unwrap_or(default)
    }
}

/// Everything of a `pgward.toml` that is not a server.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Ports of PgWard.
    pub listeners: Vec<Listener>,
    /// Port of health and metrics.
    pub http_port: u16,
    /// Who may come in.
    pub users: Vec<User>,
    /// Minimum and maximum of the pools emergency, general, background and readonly.
    pub pools: [(u32, u32); 4],
    /// How long a statement waits for a server, where it is not the default.
    pub wait_timeout: Option<&'static str>,
    /// Lines of `[proxy]` beside `database`.
    pub proxy: String,
    /// Lines of `[health]`.
    pub health: String,
    /// `max_connections` of the servers.
    pub max_connections: u32,
}

impl Layout {
    /// The demo: the general port, the emergency port above it, then one that stands in ap-south-1, then HTTP.
    pub fn demo(port: u16, http_port: u16) -> Self {
        let users = vec![
            User::new("app"),
            User { ceiling: Some("critical"), ..User::new("nurse") },
            User { ceiling: Some("emergency"), ..User::new("dispatcher") },
            User { workload: Some("analytics"), ..User::new("analyst") },
        ];
        Self {
            listeners: listeners([port, port + 1, port + 2]),
            http_port,
            users,
            // Twelve servers share a laptop: few connections are opened ahead.
            pools: [(2, 6), (2, 30), (1, 6), (2, 30)],
            wait_timeout: None,
            proxy: "drain_timeout = \"5s\"\n".to_owned(),
            health: "interval = \"2s\"\n".to_owned(),
            // The pools, pgbench straight to a server, replication, and people.
            max_connections: 120,
        }
    }

    /// The demo's layout on ports that are free.
    ///
    /// # Errors
    /// There are none.
    pub fn on_free_ports() -> Result<Self> {
        let ports = [ports::free()?, ports::free()?, ports::free()?];
        Ok(Self { listeners: listeners(ports), ..Self::demo(1, ports::free()?) })
    }

    /// The listener of this name.
    pub fn listener(&self, name: &str) -> Option<&Listener> {
        self.listeners.iter().find(|listener| listener.name == name)
    }

    /// A connection string for this listener and this user.
    pub fn url(&self, listener: &Listener, user: &str) -> String {
        let password = self.users.iter().find(|known| known.name == user).map_or("", |known| &known.password);
        format!("postgresql://{user}:{password}@127.0.0.1:{}/{}", listener.port, super::cluster::DATABASE)
    }
}

fn listeners([general, emergency, strict]: [u16; 3]) -> Vec<Listener> {
    let of = |name, port, origin, class, user| Listener { name, port, origin, class, user };
    vec![
        of("general", general, "us-east-1", None, "app"),
        of("emergency", emergency, "us-east-1", Some("emergency"), "dispatcher"),
        of("strict-ap", strict, "ap-south-1", None, "app"),
    ]
}
