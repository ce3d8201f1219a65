//! `pgward demo`: four regions on this machine, to try.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::demo::data::{DEFAULT_PATIENTS, DEFAULT_SEED};
use crate::demo::guardian::Folder;
use crate::demo::load::Load;
use crate::demo::postgres::Shutdown;
use crate::demo::running::{Running, Wanted};
use crate::demo::steps::Steps;
use crate::demo::tour;

/// Run four region shards of real PostgreSQL servers on this machine, with PgWard in front
///
/// Starts a primary and its streaming replicas for each of us-east-1, us-west-2, eu-west-1 and ap-south-1, makes
/// patients up and loads them through PgWard, then prints lines to try. Ctrl-C stops everything.
///
/// Needs PostgreSQL 13 or newer on this machine (its server programs; nothing of an installed server is touched). Root
/// runs the servers as the user `postgres`, anybody else as themselves. Everything listens on 127.0.0.1 only. No real
/// data is used.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Folder of the demo; it is kept. Given again, it is started again with its data [default: a temporary folder]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Keep the temporary folder when the demo ends
    #[arg(long)]
    keep: bool,

    /// Port of the general listener; N+1 is the emergency listener, N+2 one that stands in ap-south-1, N+3 HTTP
    #[arg(long, value_name = "N", default_value_t = 6432)]
    port: u16,

    /// Patients to make up, over all regions (40 to 5000000)
    #[arg(long, value_name = "N", default_value_t = DEFAULT_PATIENTS, value_parser = clap::value_parser!(u32).range(40..=5_000_000))]
    patients: u32,

    /// Seed of the patients: the same seed makes the same patients
    #[arg(long, value_name = "N", default_value_t = DEFAULT_SEED)]
    seed: u64,

    /// Replicas of each shard (0 to 5)
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=5))]
    replicas: u8,
}

const AFTER_HELP: &str = "\
Users (passwords are demo-NAME):
  app         ordinary care, class normal
  nurse       may ask for class critical
  dispatcher  may ask for class emergency
  analyst     analytics, class low

Files in the folder:
  demo.json    written once all is up: URLs of the listeners and servers, users, paths, process ids, sample patients
  pgward.toml  what PgWard serves; edit it and run `pgward reload --config DIR/pgward.toml`
  audit.jsonl  a record for each decision
  pgward.log   what PgWard says
  servers/     the PostgreSQL servers, each with its log beside its data";

/// Runs the demo until it is interrupted.
///
/// # Errors
/// It cannot be brought up, or PgWard ends by itself. Everything that was started is stopped.
pub fn run(args: Args) -> Result<ExitCode> {
    // Two threads: progress goes on while a client of the loading computes.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(demo(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn demo(args: Args) -> Result<()> {
    let mut interrupt = Interrupt::new()?;
    let (dir, temporary) = folder(&args)?;
    let kept = temporary.is_none();
    let wanted = Wanted {
        dir,
        folder: if kept { Folder::Kept } else { Folder::Removed },
        port: args.port,
        replicas: usize::from(args.replicas),
        load: Load { seed: args.seed, patients: args.patients },
        program: std::env::current_exe().context("cannot tell which program this is")?,
    };
    eprintln!("The demo is in {}", wanted.dir.display());

    let cancelled = Arc::new(AtomicBool::new(false));
    let mut steps = Steps::default();
    let mut running = {
        let start = Running::start(&wanted, &cancelled, &mut steps);
        tokio::pin!(start);
        tokio::select! {
            started = &mut start => started?,
            () = interrupt.comes() => {
                eprintln!("\nStopping.");
                cancelled.store(true, Ordering::Relaxed);
                // What was started stops as the start gives up.
                match start.await {
                    Ok(running) => running.stop(Shutdown::Immediate)?,
                    Err(_interrupted) => {}
                }
                return Ok(());
            }
        }
    };
    println!("{}\nCtrl-C stops it.", tour::page(&running.manifest()?, &wanted.program));

    let ended = loop {
        tokio::select! {
            () = interrupt.comes() => break None,
            () = tokio::time::sleep(Duration::from_millis(300)) => {}
        }
        if let Some(status) = running.instance().ended() {
            break Some((status, running.instance().log_end()));
        }
    };
    eprintln!("\nStopping.");
    let shutdown = if kept { Shutdown::Fast } else { Shutdown::Immediate };
    running.stop(shutdown)?;
    match ended {
        None if kept => eprintln!("The folder is kept: {}", wanted.dir.display()),
        None => {}
        Some((status, log)) => bail!("pgward ended by itself ({status}); it said:\n{log}"),
    }
    Ok(())
}

/// The folder, and what removes it when it is not to be kept.
fn folder(args: &Args) -> Result<(PathBuf, Option<tempfile::TempDir>)> {
    if let Some(dir) = &args.dir {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
        return Ok((dir.canonicalize()?, None));
    }
    let temporary = tempfile::Builder::new().prefix("pgward-demo-").tempdir()?;
    let path = temporary.path().canonicalize()?;
    if args.keep {
        return Ok((temporary.keep(), None));
    }
    Ok((path, Some(temporary)))
}

/// The signals that end the demo.
struct Interrupt([Signal; 3]);

impl Interrupt {
    fn new() -> Result<Self> {
        Ok(Self([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?]))
    }

    async fn comes(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
