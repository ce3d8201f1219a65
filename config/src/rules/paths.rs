//! No two things in one file: what PgWard writes to would be damaged by the other, or damage it.

use std::path::{Path, PathBuf};

use crate::model::{Config, Directory};
use crate::problem::{Access, NamedFile, Problem, Problems};
use crate::sources::Sources;

/// Compares the files that the document at `toml` names with each other and with the document itself.
pub(crate) fn check(toml: &Path, directory: &Directory, audit: &Path, sources: &Sources<'_>, problems: &Problems) {
    let mut files = problems.files();
    files.extend(commit_log(&files, directory, audit));
    let real: Vec<PathBuf> = files.iter().map(|file| (sources.real)(&file.path)).collect();
    let itself = (sources.real)(toml);
    for (n, file) in files.iter().enumerate() {
        let problem = |what: &str| {
            Problem::error(file.at.clone(), format!("{} is {what}", file.by)).label("expected a file of its own")
        };
        if real[n] == itself {
            problems.push(problem("this configuration file"));
            continue;
        }
        // Several secrets may come from one file, which is only read.
        let owned = |other: &NamedFile| file.access == Access::Own || other.access == Access::Own;
        if let Some(other) = (0..n).find(|other| real[*other] == real[n] && owned(&files[*other])) {
            let other = &files[other];
            problems.push(problem(&format!("the file of {}", other.by)).related(other.at.clone(), "named here"));
        }
    }
}

/// The file that stands beside another one without being named.
fn commit_log(files: &[NamedFile], directory: &Directory, audit: &Path) -> Option<NamedFile> {
    let beside = Config::commit_log_stands_beside(directory, audit);
    let named = files.iter().find(|file| file.path == beside && file.access == Access::Own)?;
    let by = format!("the commit log (\".commits\" behind {})", named.by);
    Some(NamedFile { path: Config::commit_log_beside(beside), by, ..named.clone() })
}
