//! From a file to a `Config`: read the text, read every table, check the rules; one mistake refuses the whole file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::digest;
use serde_spanned::Spanned;
use toml::de::DeTable;

use crate::model::{Audit, Class, Config, Directory, Plain, Pool, User, Workload};
use crate::problem::{Problem, Problems};
use crate::reader::Reader;
use crate::report::Report;
use crate::rules::{self, Document};
use crate::sections;
use crate::sources::Sources;

/// A configuration that can be used, and what the operator should know about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Doubts, in the order of the text.
    pub warnings: Vec<Problem>,
    /// The file's text with secrets concealed, for [`Loaded::warnings_report`].
    text: String,
}

impl Loaded {
    /// The warnings as a report; empty when there are none.
    pub fn warnings_report(&self) -> Report {
        Report::new(self.config.path.clone(), self.text.clone(), self.warnings.clone())
    }
}

/// Reads and validates a file, with the environment and the files of this process.
///
/// # Errors
/// All mistakes of the file at once, or that it cannot be read.
pub fn load(path: &Path) -> Result<Loaded, Report> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text, path, &|name| std::env::var(name).ok()),
        Err(error) => Err(Report::unreadable(path, &error)),
    }
}

/// Validates a text as if it stood in the file at `path`, with this environment and the files of this machine.
///
/// # Errors
/// All mistakes of the text at once; mistakes of TOML's syntax alone, since what follows them is a guess.
pub fn parse(text: &str, path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Report> {
    parse_with(text, path, &Sources::with_env(env))
}

/// The same as [`parse`], with all that is not in the text given by the caller.
///
/// # Errors
/// As [`parse`].
pub fn parse_with(text: &str, path: &Path, sources: &Sources<'_>) -> Result<Loaded, Report> {
    let root = toml(text, path)?;
    let problems = Problems::default();
    let config = read(root.get_ref(), text, path, sources, &problems);
    let concealed = problems.concealed(text);
    let (errors, warnings) = problems.into_parts();
    match config {
        Some(config) if errors.is_empty() => Ok(Loaded { config, warnings, text: concealed }),
        // A warning may follow from what could not be read; those that remain are given once the file can be used.
        _ => Err(Report::new(path.to_owned(), concealed, errors)),
    }
}

/// Where the control socket of a file is, for those who speak to the proxy that serves it. Nothing else of the file need
/// be right, and no secret is read: those are the proxy's.
///
/// # Errors
/// The file cannot be read or is not TOML, or what it says of the socket is a mistake; and where it names none, there is
/// a mistake in `[proxy]`, which may be the misspelt name. A socket that the file does not name may be another proxy's.
pub fn control_socket(path: &Path) -> Result<PathBuf, Report> {
    let text = std::fs::read_to_string(path).map_err(|error| Report::unreadable(path, &error))?;
    control_socket_of(&text, path)
}

/// The same as [`control_socket`], of a text as if it stood in the file at `path`.
///
/// # Errors
/// As [`control_socket`].
pub fn control_socket_of(text: &str, path: &Path) -> Result<PathBuf, Report> {
    let root = toml(text, path)?;
    let problems = Problems::default();
    let socket = {
        let root = Reader::new("the file", text.len()..text.len(), Some(root.get_ref()), &problems);
        let proxy = root.value("proxy").and_then(|proxy| proxy.get_ref().as_table());
        if proxy.is_some_and(|proxy| proxy.contains_key("control_socket")) {
            sections::proxy::control_socket(&root.section("proxy"), path)
        } else {
            sections::proxy::proxy(&root, path, root.value("plain").is_some()).item.control_socket
        }
    };
    let (errors, _) = problems.into_parts();
    if errors.is_empty() { Ok(socket) } else { Err(Report::new(path.to_owned(), text.to_owned(), errors)) }
}

fn toml<'a>(text: &'a str, path: &Path) -> Result<Spanned<DeTable<'a>>, Report> {
    let (root, mistakes) = DeTable::parse_recoverable(text);
    if mistakes.is_empty() {
        return Ok(root);
    }
    let problem = |error: &toml::de::Error| {
        Problem::error(error.span().unwrap_or(0..0), format!("not TOML: {}", error.message().trim()))
    };
    Err(Report::new(path.to_owned(), text.to_owned(), mistakes.iter().map(problem).collect()))
}

/// `None` only when an error is noted.
fn read(table: &DeTable<'_>, text: &str, path: &Path, sources: &Sources<'_>, problems: &Problems) -> Option<Config> {
    let root = Reader::new("the file", text.len()..text.len(), Some(table), problems);
    let plain = sections::plain::plain(&root);
    let proxy = sections::proxy::proxy(&root, path, plain.is_some());
    let http = sections::proxy::http(&root);
    let peers = sections::peers::peers(&root);
    let listeners = sections::listeners::listeners(&root);
    let server_roles = sections::users::server_roles(&root, path, sources);
    let users = sections::users::users(&root, path, sources, &server_roles, &listeners, plain.is_some());
    let sharding = sections::sharding::sharding(&root, plain.is_some());
    let tables = sections::tables::tables(&root);
    let functions = sections::tables::functions(&root);
    let regions = sections::regions::regions(&root);
    let shards = sections::shards::shards(&root, &proxy.database);
    let pools = sections::pools::pools(&root);
    let health = sections::health::health(&root);
    let directory = sections::directory::directory(&root, sharding.placed.strategy, path, sources);
    let audit = sections::audit::audit(&root, path, sources);
    root.finish();
    let document = Document {
        proxy,
        plain,
        peers,
        listeners,
        http,
        users,
        server_roles,
        sharding,
        tables,
        functions,
        regions,
        shards,
        pools,
    };
    rules::check(&document);
    let audit = audit?;
    rules::paths::check(path, &directory, &audit.path, sources, problems);
    Some(assemble(document, text, path, health, directory, audit))
}

fn assemble(
    document: Document<'_>,
    text: &str,
    path: &Path,
    health: crate::model::Health,
    directory: Directory,
    audit: Audit,
) -> Config {
    let plain = document.plain.map(|placed| placed.item);
    let mut users: Vec<_> = document.users.into_iter().map(|placed| placed.item).collect();
    let mut pools = document.pools.map(|placed| placed.item);
    if let Some(plain) = &plain {
        users.push(anybody(plain, document.server_roles.first().map(|role| &role.item.name)));
        pools.iter_mut().for_each(|pool: &mut Pool| pool.min = 0);
    }
    Config {
        hash: hash(text).into(),
        path: path.to_owned(),
        proxy: document.proxy.item,
        peers: document.peers.into_iter().map(|placed| placed.item).collect(),
        listeners: document.listeners.into_iter().map(|placed| placed.item).collect(),
        http: document.http.map(|placed| placed.item),
        plain,
        users,
        server_roles: document.server_roles.into_iter().map(|placed| placed.item).collect(),
        sharding: document.sharding.placed.item,
        tables: document.tables.into_iter().map(|placed| placed.item).collect(),
        functions: document.functions.into_iter().map(|placed| placed.item).collect(),
        regions: document.regions.into_iter().map(|region| region.placed.item).collect(),
        shards: document.shards.into_iter().map(|shard| shard.placed.item).collect(),
        pools,
        health,
        directory,
        audit,
    }
}

/// The one user of a plain pooler, who stands for all.
fn anybody(plain: &Plain, prober: Option<&Arc<str>>) -> User {
    User {
        name: Arc::from(Plain::ANYBODY),
        verifier: None,
        class: Class::Normal,
        ceiling: Class::Normal,
        workload: Workload::Care,
        server_role: prober.cloned().unwrap_or_default(),
        may_set_role: Vec::new(),
        pool_mode: plain.pool_mode,
        max_clients: None,
    }
}

/// First 16 hexadecimal digits of SHA-256 of the text.
fn hash(text: &str) -> String {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
