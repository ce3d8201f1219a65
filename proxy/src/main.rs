//! The binary `pgward`.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match pgward::cli::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("pgward: {error:#}");
            ExitCode::FAILURE
        }
    }
}
