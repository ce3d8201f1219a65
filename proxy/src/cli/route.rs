//! `pgward route`: what would become of a statement, told without a server.
//!
//! Every node is taken to be up and idle. The directory is read beside a proxy that may be running; the configuration
//! is read as `pgward check` reads it.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use pgward_config::{Class, Config, Directory, Listener, PoolMode, User};
use pgward_router::explain::{Explainer, Explanation, Outcome};
use pgward_router::{
    Analyser, Catalog, DirectoryLookup, Facts, NoDirectory, NodeView, Params, PatientHasher, Router, Transaction, Views,
};

use crate::directory::{DirectoryError, EmbeddedDirectory};

/// Tell where a statement would go and why, without a server
///
/// Every node is taken to be up and idle. Ends with 1 if the statement would be refused, with 2 if the configuration is.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file
    #[arg(long, short, default_value = "pgward.toml", value_name = "FILE")]
    config: PathBuf,
    /// Who asks; may be left out where only one user is configured
    #[arg(long)]
    user: Option<String>,
    /// The listener that the session came in by; may be left out where there is only one
    #[arg(long)]
    listener: Option<String>,
    /// The class asked for, as by SET pgward.priority
    #[arg(long)]
    class: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The statement
    #[arg(value_name = "SQL")]
    sql: String,
    /// Values of $1, $2 …, as text
    #[arg(value_name = "PARAM", allow_hyphen_values = true)]
    params: Vec<String>,
}

/// Prints the decision.
///
/// # Errors
/// A configuration or directory that cannot be read; a user, listener or class that does not fit.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = match pgward_config::load(&args.config) {
        Ok(loaded) => loaded.config,
        Err(report) => {
            eprint!("{}", report.render(std::io::stderr().is_terminal()));
            return Ok(ExitCode::from(2));
        }
    };
    let explanation = explain(&config, &args)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&explanation)?);
    } else {
        print!("{explanation}");
    }
    Ok(match explanation.outcome {
        Outcome::Refused(_) => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    })
}

fn explain(config: &Config, args: &Args) -> anyhow::Result<Explanation> {
    if config.plain.is_some() {
        bail!("this is a plain pooler ([plain]): every statement goes to the primary of its one shard");
    }
    let listener = listener(config, args.listener.as_deref())?;
    let user = user(config, args.user.as_deref())?;
    let session = listener.pool_mode.unwrap_or(user.pool_mode) == PoolMode::Session;
    let facts = Facts {
        listener,
        user,
        class: class(listener, user, args.class.as_deref())?,
        // A session that keeps its server may write later: it begins on a primary.
        transaction: if session { Transaction::Opening { read_only: false } } else { Transaction::None },
    };
    let (directory, note) = directory(config)?;
    let router = Router::new(config);
    let explainer = Explainer {
        config,
        router: &router,
        analyser: &Analyser::new(config, &Catalog::builtin()),
        directory: &*directory,
        hasher: &PatientHasher::new(config.audit.key.expose().as_bytes()),
    };
    let idle = |shard: usize| -> Views { config.shards[shard].nodes().map(|_| IDLE).collect() };
    let mut explanation = explainer.explain(&facts, args.sql.as_bytes(), &Values(&args.params), &idle);
    explanation.notes.extend(note);
    explanation.notes.push("offline: every node is taken to be up and idle".into());
    Ok(explanation)
}

const IDLE: NodeView =
    NodeView { up: true, lag: Some(Duration::ZERO), connections: 0, response_ms: 0.0, cpu_percent: None };

fn listener<'a>(config: &'a Config, name: Option<&str>) -> anyhow::Result<&'a Listener> {
    let names = || config.listeners.iter().map(|listener| &*listener.name).collect::<Vec<_>>().join(", ");
    match (name, config.listeners.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => bail!("--listener is one of: {}", names()),
        (Some(name), listeners) => listeners
            .iter()
            .find(|listener| *listener.name == *name)
            .with_context(|| format!("no listener {name:?}; there are: {}", names())),
    }
}

fn user<'a>(config: &'a Config, name: Option<&str>) -> anyhow::Result<&'a User> {
    let names = || config.users.iter().map(|user| &*user.name).collect::<Vec<_>>().join(", ");
    match (name, config.users.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => bail!("--user is one of: {}", names()),
        (Some(name), users) => users
            .iter()
            .find(|user| *user.name == *name)
            .with_context(|| format!("no user {name:?}; there are: {}", names())),
    }
}

/// The class in force where this one is asked for.
fn class(listener: &Listener, user: &User, wanted: Option<&str>) -> anyhow::Result<Class> {
    let Some(word) = wanted else { return Ok(listener.class_of(None, user)) };
    let wanted = Class::from_word(word)
        .with_context(|| format!("no class {word:?}; there are: {}", Class::ALL.map(Class::as_str).join(", ")))?;
    if !user.ceiling.allows(wanted) {
        bail!("user {} may ask for {} at most (PW009)", user.name, user.ceiling);
    }
    Ok(listener.class_of(Some(wanted), user))
}

/// The directory, and what is to be said about it.
fn directory(config: &Config) -> anyhow::Result<(Box<dyn DirectoryLookup>, Option<String>)> {
    let Directory::Embedded { path, key } = &config.directory else { return Ok((Box::new(NoDirectory), None)) };
    match EmbeddedDirectory::open_read_only(path, key.expose().as_bytes()) {
        Ok(directory) => {
            let note = format!("directory {}: {} patients", path.display(), directory.len());
            Ok((Box::new(directory), Some(note)))
        }
        Err(DirectoryError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            let note = format!("directory {} does not exist yet: every patient is unknown", path.display());
            Ok((Box::new(NoDirectory), Some(note)))
        }
        Err(error) => Err(error.into()),
    }
}

/// The command line's values: text, of no declared type.
struct Values<'a>(&'a [String]);

impl Params for Values<'_> {
    fn value(&self, n: u16) -> Option<Option<&[u8]>> {
        let value = self.0.get(usize::from(n).checked_sub(1)?)?;
        Some(Some(value.as_bytes()))
    }

    fn binary(&self, _: u16) -> bool {
        false
    }

    fn oid(&self, _: u16) -> u32 {
        0
    }
}

#[cfg(test)]
mod tests;
