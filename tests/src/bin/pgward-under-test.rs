//! The program `pgward`, built beside the tests: cargo tells integration tests where the programs of their own package
//! are, and keeps them fresh.

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
