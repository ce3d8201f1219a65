//! The page of `pgward check`: aligned tables of all that would be served. No secret is on it.

use std::fmt::Display;
use std::time::Duration;

use pgward_config::units::{show_duration, show_size};
use pgward_config::{
    AuditPolicy, AuthMethod, Class, Config, Directory, Node, Plain, PoolKind, PoolMode, Region, Shard, Strategy,
    Undeclared, User, Workload,
};

const NONE: &str = "-";

/// What this configuration would serve.
pub fn page(config: &Config, color: bool) -> String {
    let mut page = Page { text: String::new(), color };
    process(&mut page, config);
    plain(&mut page, config);
    listeners(&mut page, config);
    regions(&mut page, config);
    shards(&mut page, config);
    if config.plain.is_none() {
        tables(&mut page, config);
    }
    users(&mut page, config);
    pools(&mut page, config);
    directory_and_audit(&mut page, config);
    page.text
}

/// The last line: the file is good.
pub(super) fn accepted(config: &Config, color: bool) -> String {
    let text = format!("{}: accepted, hash {}", config.path.display(), config.hash);
    if color { format!("\x1b[1;32m{text}\x1b[0m") } else { text }
}

fn process(page: &mut Page, config: &Config) {
    let proxy = &config.proxy;
    let http = config.http.as_ref().map_or(NONE.into(), |http| http.address.to_string());
    let facts = [
        ("instance", proxy.instance.to_string()),
        ("peer id", proxy.peer_id.map_or(NONE.into(), |id| id.to_string())),
        ("cancels", format!("at most {} a second for each listener", proxy.max_cancels_per_second)),
        ("database", if config.plain.is_some() { "any".to_owned() } else { proxy.database.to_string() }),
        ("http", http),
        ("control socket", proxy.control_socket.display().to_string()),
        ("workers", proxy.workers.to_string()),
        ("clients", format!("at most {}", proxy.max_clients)),
        ("startup", format!("{} within {}", size(proxy.max_startup_bytes), show_duration(proxy.startup_timeout))),
        ("message", format!("at most {}", size(proxy.max_message_bytes))),
        ("prepared", format!("at most {} of a client, {}", proxy.max_prepared, size(proxy.max_prepared_bytes))),
        ("prepared on servers", format!("{} on each connection", proxy.server_prepared)),
        ("idle in transaction", proxy.idle_in_transaction_timeout.map_or("for ever".into(), until)),
        ("connect to a node", until(proxy.connect_timeout)),
        ("drain", until(proxy.drain_timeout)),
    ];
    page.facts("PROXY", &facts);
    let rows = config.peers.iter().map(|peer| {
        let own = if Some(peer.id) == proxy.peer_id { "this instance" } else { NONE };
        [peer.id.to_string(), format!("{}:{}", peer.host, peer.port), own.into()]
    });
    page.table("PEERS", ["id", "address", "is"], rows);
}

/// What a plain pooler is; where statements are routed, nothing.
fn plain(page: &mut Page, config: &Config) {
    let Some(plain) = &config.plain else { return };
    let facts = [
        ("databases", "any, by its own name on the server".to_owned()),
        ("users", "any, by its own name and proof on the server".to_owned()),
        ("pool mode", pool_mode(plain.pool_mode).to_owned()),
        ("pools", format!("at most {}, one for each database and user", plain.max_pools)),
    ];
    page.facts("PLAIN POOLER: NOTHING IS ROUTED", &facts);
}

fn listeners(page: &mut Page, config: &Config) {
    let rows = config.listeners.iter().map(|listener| {
        [
            listener.name.to_string(),
            listener.address.to_string(),
            listener.origin.to_string(),
            listener.class.map_or("of the user".into(), |class| class.to_string()),
            match listener.auth {
                AuthMethod::ScramSha256 => "scram-sha-256".into(),
                AuthMethod::Trust => "trust".into(),
            },
            listener.pool_mode.map_or("of the user".into(), |mode| pool_mode(mode).into()),
        ]
    });
    page.table("LISTENERS", ["name", "address", "origin", "class", "auth", "pool mode"], rows);
}

fn regions(page: &mut Page, config: &Config) {
    let rows = config.regions.iter().map(|region| {
        [
            region.id.to_string(),
            region.name.to_string(),
            list(region.frameworks.iter().map(|framework| framework.as_str())),
            if region.resident { "stays local" } else { "may leave" }.into(),
            list(&region.replicas_in),
            list(&region.access_from),
            region.backup_region.as_ref().map_or(NONE.into(), ToString::to_string),
            list(region.authorities.iter().map(|authority| &authority.name)),
        ]
    });
    let head = ["id", "name", "frameworks", "data", "replicas in", "access from", "backup", "authorities"];
    page.table("REGIONS", head, rows);
    let rows = config.regions.iter().flat_map(|region| {
        let row = |region: &Region, n: usize| {
            let prohibition = &region.prohibited[n];
            [region.id.to_string(), prohibition.region.to_string(), prohibition.reason.to_string()]
        };
        (0..region.prohibited.len()).map(move |n| row(region, n))
    });
    page.table("PROHIBITED", ["region", "never", "reason"], rows);
}

fn shards(page: &mut Page, config: &Config) {
    let sharding = &config.sharding;
    let fallback = sharding.default_shard.as_ref();
    let facts = [
        (
            "strategy",
            match sharding.strategy {
                Strategy::PatientRegion => "patient_region".to_owned(),
                Strategy::Hash => "hash".to_owned(),
            },
        ),
        ("patient key", sharding.key_type.as_str().to_owned()),
        (
            "unserved patient regions",
            fallback.map_or("refused".into(), |f| format!("to {} from {}", f.shard, list(&f.origins))),
        ),
        ("a COPY of several shards", if sharding.copy_across_shards { "split" } else { "refused" }.to_owned()),
    ];
    if config.plain.is_none() {
        page.facts("SHARDING", &facts);
    }
    let rows = config.shards.iter().flat_map(|shard| shard.nodes().map(move |node| node_row(config, shard, node)));
    page.table("SHARDS", ["shard", "patients", "node", "role", "region", "address", "cpu", "connections"], rows);
}

fn node_row(config: &Config, shard: &Shard, node: &Node) -> [String; 8] {
    let pools = config.pools_of(node.role);
    let sum = |figure: fn(&pgward_config::Pool) -> u32| {
        pools.iter().map(|kind| u64::from(figure(&config.pools[kind.index()]))).sum::<u64>()
    };
    let limit = shard.server_max_connections.map_or(String::new(), |limit| format!(" of {limit}"));
    let patients = match shard.hash_range {
        Some((start, end)) => format!("[{start:#x}, {end:#x})"),
        None => list(&shard.patient_regions),
    };
    [
        shard.id.to_string(),
        patients,
        node.id.to_string(),
        node.role.as_str().into(),
        node.region.to_string(),
        format!("{}:{}/{}", node.host, node.port, node.dbname),
        node.cpu_source.as_deref().unwrap_or(NONE).into(),
        format!("{} to {}{limit}", sum(|pool| pool.min), sum(|pool| pool.max)),
    ]
}

fn tables(page: &mut Page, config: &Config) {
    let text = |value: &Option<std::sync::Arc<str>>| value.as_deref().unwrap_or(NONE).to_owned();
    let rows = config.tables.iter().map(|table| {
        [
            format!("{}.{}", table.schema, table.name),
            table.kind.as_str().into(),
            text(&table.key),
            text(&table.region),
            table.columns.as_ref().map_or("asked of the nodes".into(), list),
        ]
    });
    let others = match config.sharding.undeclared_tables {
        Undeclared::Refuse => "refused",
        Undeclared::Local => "local",
    };
    let rows = rows.chain([["(all others)", others, NONE, NONE, NONE].map(str::to_owned)]);
    page.table("TABLES", ["table", "kind", "patient key", "patient region", "columns"], rows);
    let rows = config.functions.iter().map(|function| {
        [function.name.to_string(), if function.reads_only { "only reads" } else { "may write" }.to_owned()]
    });
    page.table("FUNCTIONS", ["name", "declared as"], rows);
}

fn users(page: &mut Page, config: &Config) {
    page.table(
        "USERS",
        ["name", "class", "ceiling", "workload", "server role", "may set", "pool mode", "clients", "proof"],
        config.users.iter().map(user_row),
    );
    let rows = config
        .server_roles
        .iter()
        .map(|role| [role.name.to_string(), if role.password.is_some() { "password" } else { "none" }.to_owned()]);
    page.table("SERVER ROLES", ["name", "proof"], rows);
}

fn user_row(user: &User) -> [String; 9] {
    let class = |class: Class| class.to_string();
    [
        user.name.to_string(),
        class(user.class),
        class(user.ceiling),
        match user.workload {
            Workload::Care => "care".into(),
            Workload::Analytics => "analytics".into(),
        },
        user.server_role.to_string(),
        if user.may_set_role.is_empty() { NONE.into() } else { user.may_set_role.join(", ") },
        pool_mode(user.pool_mode).into(),
        user.max_clients.map_or(NONE.into(), |most| most.to_string()),
        match &user.verifier {
            _ if &*user.name == Plain::ANYBODY => "to the server",
            Some(_) => "scram-sha-256",
            None => "none: trust listeners only",
        }
        .into(),
    ]
}

fn pools(page: &mut Page, config: &Config) {
    let kinds = if config.plain.is_some() { Plain::POOLS } else { &PoolKind::ALL };
    let rows = kinds.iter().map(|kind| {
        let pool = &config.pools[kind.index()];
        [
            kind.to_string(),
            pool.min.to_string(),
            pool.max.to_string(),
            show_duration(pool.idle_timeout),
            show_duration(pool.max_lifetime),
            show_duration(pool.check_interval),
            show_duration(pool.wait_timeout),
            pool.max_waiting.to_string(),
            pool.max_pinned.to_string(),
        ]
    });
    let head = [
        "pool",
        "min",
        "max",
        "idle timeout",
        "max lifetime",
        "check every",
        "wait at most",
        "waiting at most",
        "kept at most",
    ];
    page.table("POOLS of each node", head, rows);
    let health = &config.health;
    let facts = [
        ("probe", format!("every {}, each within {}", show_duration(health.interval), show_duration(health.timeout))),
        ("down after", format!("{} failures", health.unhealthy_after)),
        ("up after", format!("{} successes", health.healthy_after)),
        ("replicas serve reads", format!("up to {} behind", show_duration(health.max_replica_lag))),
    ];
    page.facts("HEALTH", &facts);
}

fn directory_and_audit(page: &mut Page, config: &Config) {
    let directory = match &config.directory {
        Directory::Embedded { path, .. } => format!("embedded, {}", path.display()),
        Directory::Hash => "hash: no look-up".into(),
    };
    let audit = &config.audit;
    let policy = match audit.policy {
        AuditPolicy::Buffered => "buffered: a kill of the proxy may lose records",
        AuditPolicy::Written => "written before the statement is forwarded",
        AuditPolicy::Synced => "on disk before the statement is forwarded",
    };
    let facts = [
        ("directory", directory),
        ("audit", audit.path.display().to_string()),
        ("policy", policy.into()),
        ("rotated at", audit.rotate_bytes.map_or("never".into(), show_size)),
        ("emergency spool", size(audit.spool_bytes)),
    ];
    page.facts("DIRECTORY AND AUDIT", &facts);
}

fn pool_mode(mode: PoolMode) -> &'static str {
    match mode {
        PoolMode::Transaction => "transaction",
        PoolMode::Session => "session",
    }
}

fn size(bytes: usize) -> String {
    show_size(u64::try_from(bytes).unwrap_or(u64::MAX))
}

fn until(duration: Duration) -> String {
    format!("at most {}", show_duration(duration))
}

/// Comma-separated, or a dash for nothing.
fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() { NONE.into() } else { items.join(", ") }
}

struct Page {
    text: String,
    color: bool,
}

impl Page {
    /// A title and its rows in columns; nothing when there are no rows.
    fn table<const N: usize>(&mut self, title: &str, head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) {
        let rows: Vec<[String; N]> = rows.into_iter().collect();
        if rows.is_empty() {
            return;
        }
        self.title(title);
        let head = head.map(str::to_owned);
        let widths: [usize; N] = std::array::from_fn(|column| {
            std::iter::once(&head).chain(&rows).map(|row| row[column].chars().count()).max().unwrap_or(0)
        });
        for (n, row) in std::iter::once(&head).chain(&rows).enumerate() {
            let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            let line = cells.join("  ");
            let line = if n == 0 { self.paint("2", line.trim_end()) } else { line.trim_end().to_owned() };
            self.text.push_str(&format!("  {line}\n"));
        }
    }

    /// A title and what there is to say, a line each.
    fn facts(&mut self, title: &str, facts: &[(&str, String)]) {
        self.title(title);
        let width = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (name, value) in facts {
            let name = self.paint("2", &format!("{name:width$}"));
            self.text.push_str(&format!("  {name}  {value}\n"));
        }
    }

    fn title(&mut self, title: &str) {
        let title = self.paint("1", title);
        let gap = if self.text.is_empty() { "" } else { "\n" };
        self.text.push_str(&format!("{gap}{title}\n"));
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::*;
    use pgward_config::Peer;

    const REFERENCE: &str = include_str!("../../../../pgward.toml");

    fn reference() -> Config {
        let env = |name: &str| Some(format!("geheim-{name}"));
        pgward_config::parse(REFERENCE, Path::new("pgward.toml"), &env).unwrap().config
    }

    /// The first line that begins with these words, its cells separated by one space.
    fn line(page: &str, begins: &str) -> String {
        let mut lines = page.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        lines.find(|line| line.starts_with(begins)).unwrap_or_default()
    }

    #[test]
    fn it_shows_the_peers_and_which_of_them_this_instance_is() {
        let mut config = reference();
        assert!(!page(&config, false).contains("PEERS"));
        let peer = |id| Peer { id, host: "pgward.internal".into(), port: 6432 + id };
        config.proxy.peer_id = Some(1);
        config.peers = vec![peer(1), peer(2)];
        let page = page(&config, false);
        assert_eq!(line(&page, "1 pgward"), "1 pgward.internal:6433 this instance");
        assert_eq!(line(&page, "2 pgward"), "2 pgward.internal:6434 -");
        assert_eq!(line(&page, "cancels"), "cancels at most 100 a second for each listener");
    }

    #[test]
    fn it_shows_what_would_be_served() {
        let page = page(&reference(), false);
        assert_eq!(
            line(&page, "us-east-emergency"),
            "us-east-emergency 0.0.0.0:6433 us-east-1 emergency scram-sha-256 of the user"
        );
        assert_eq!(
            line(&page, "us-east-patients us-east"),
            "us-east-patients us-east us-east-patients/primary primary us-east-1 us-east-primary.internal:5432/ehr - \
             35 to 300 of 320"
        );
        assert_eq!(line(&page, "eu-west-1 us-east-1"), "eu-west-1 us-east-1 GDPR requires EU data residency");
        assert_eq!(line(&page, "public.encounters"), "public.encounters patient patient_id - asked of the nodes");
        assert_eq!(
            line(&page, "dispatcher"),
            "dispatcher critical emergency care ehr_app - transaction - scram-sha-256"
        );
        assert_eq!(line(&page, "general"), "general 20 200 10m 2h 1m 5s 10000 100");
        assert_eq!(line(&page, "audit /"), "audit /var/log/pgward/audit.jsonl");
    }

    #[test]
    fn it_shows_no_secret() {
        let page = page(&reference(), false);
        assert!(!page.contains("geheim") && !page.contains("SCRAM-SHA-256$"), "{page}");
    }

    #[test]
    fn columns_are_aligned_and_colour_is_the_callers_choice() {
        let config = reference();
        let plain = page(&config, false);
        assert!(!plain.contains('\x1b'));
        assert!(page(&config, true).contains("\x1b[1mLISTENERS\x1b[0m"));
        let lines: Vec<&str> = plain.lines().skip_while(|line| *line != "LISTENERS").skip(1).take(3).collect();
        let starts: Vec<Option<usize>> =
            vec![lines[0].find("origin"), lines[1].find("us-east-1"), lines[2].find("us-east-1")];
        assert!(starts.iter().all(|start| *start == starts[0]), "{lines:#?}");
    }

    #[test]
    fn the_page_of_a_plain_pooler_shows_what_it_has() {
        let secret = |_: &str| Some("0123456789abcdef0123456789abcdef".to_owned());
        let text = include_str!("../../../../plain.toml");
        let config = pgward_config::parse(text, std::path::Path::new("plain.toml"), &secret).unwrap().config;
        let page = page(&config, false);
        for (shown, wanted) in [
            ("PLAIN POOLER: NOTHING IS ROUTED", true),
            ("0 to 200 of 220", true),
            ("to the server", true),
            ("general", true),
            ("readonly", false),
            ("SHARDING", false),
            ("TABLES", false),
        ] {
            assert_eq!(page.contains(shown), wanted, "{shown}: {page}");
        }
    }
}
