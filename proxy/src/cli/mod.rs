//! The commands of `pgward`.

pub mod check;
pub mod check_live;
pub mod demo;
pub mod route;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::control::{self, Command as Ask};

/// A sharding proxy for PostgreSQL that keeps each patient's data in that patient's own region.
#[derive(Debug, Parser)]
#[command(name = "pgward", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve clients until told to stop
    ///
    /// SIGTERM, Ctrl-C and `pgward stop` let open transactions finish first; SIGHUP reads the configuration anew. The
    /// log goes to standard error; PGWARD_LOG=debug or warn in the environment makes it say more or less.
    Serve(Config),
    /// Check a configuration, and print what it would serve or every mistake in it
    Check(Check),
    Route(route::Args),
    /// Let a running proxy read its configuration anew
    ///
    /// It is applied in one step, or nothing is changed and every mistake shown.
    Reload(Reload),
    /// Ask a running proxy how it is
    Status(Config),
    /// Let a running proxy finish its transactions and end
    Stop(Config),
    Demo(demo::Args),
}

#[derive(Debug, clap::Args)]
struct Config {
    /// The configuration file
    #[arg(long, short, default_value = "pgward.toml", value_name = "FILE")]
    config: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Reload {
    #[command(flatten)]
    at: Config,
    /// Say that the rows have been moved of those patients whose shard is another one in the file: without this word
    /// such a file is refused, since PgWard moves no rows
    #[arg(long)]
    rows_moved: bool,
}

#[derive(Debug, clap::Args)]
struct Check {
    /// The configuration file
    #[arg(default_value = "pgward.toml", value_name = "FILE")]
    config: PathBuf,
    /// Also connect to every node: role, version, identity, limits, tables and key columns
    #[arg(long)]
    live: bool,
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// What the person at the terminal should read.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Serve(at) => crate::serve::run(&at.config),
            Command::Check(check) => run_check(&check),
            Command::Route(args) => route::run(args),
            Command::Reload(reload) => ask(&reload.at, if reload.rows_moved { Ask::ReloadMoved } else { Ask::Reload }),
            Command::Status(at) => ask(&at, Ask::Status),
            Command::Stop(at) => ask(&at, Ask::Stop),
            Command::Demo(args) => demo::run(args),
        }
    }
}

fn run_check(args: &Check) -> anyhow::Result<ExitCode> {
    let color = std::io::stdout().is_terminal();
    let Some(config) = check::offline(&args.config, color) else { return Ok(ExitCode::FAILURE) };
    if !args.live {
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let fine = runtime.block_on(check_live::run(&config, color))?;
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Asks the running proxy of this configuration. The control socket's place is all that is read of the file: its
/// secrets are the proxy's, and so is the judgement of its mistakes.
fn ask(at: &Config, command: Ask) -> anyhow::Result<ExitCode> {
    let socket = match pgward_config::control_socket(&at.config) {
        Ok(socket) => socket,
        Err(report) => {
            eprint!("{}", report.render(std::io::stderr().is_terminal()));
            anyhow::bail!(
                "which control socket is this file's cannot be told, so no proxy was asked; one that runs goes on with \
                 the configuration it has (by signals: SIGHUP reloads, SIGTERM stops it)"
            );
        }
    };
    let reply = control::call(&socket, &at.config, command)?;
    if reply.ok {
        println!("{}", reply.text);
        Ok(ExitCode::SUCCESS)
    } else {
        eprintln!("{}", reply.text);
        Ok(ExitCode::FAILURE)
    }
}
