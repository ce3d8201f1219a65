//! `pgward check`: what a configuration would serve, or every mistake in it at once.
//!
//! Nothing is opened and nobody is asked; `--live` goes on from here with the configuration that [`offline`] gives.

mod page;

use std::io::{Write, stderr, stdout};
use std::path::Path;
use std::process::ExitCode;

use pgward_config::Config;

pub use page::page;

/// Checks a file and says so. The exit code is 0 when it is accepted.
pub fn run(path: &Path, color: bool) -> ExitCode {
    match offline(path, color) {
        Some(_) => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    }
}

/// Checks a file: prints what would be served and the warnings, and gives the configuration; or prints every mistake
/// to stderr.
pub fn offline(path: &Path, color: bool) -> Option<Config> {
    match pgward_config::load(path) {
        Ok(loaded) => {
            let (page, warnings) = (page(&loaded.config, color), loaded.warnings_report().render(color));
            say(&mut stdout(), &format!("{page}\n{warnings}{}\n", page::accepted(&loaded.config, color)));
            Some(loaded.config)
        }
        Err(report) => {
            say(&mut stderr(), &report.render(color));
            None
        }
    }
}

/// Whoever closes the pipe early (`pgward check … | head`) has read enough: that is no mistake of the file.
fn say(out: &mut impl Write, text: &str) {
    let _ = out.write_all(text.as_bytes());
}
