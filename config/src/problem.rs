//! One mistake (or doubt) with its place, and the list that collects them while a file is read.

use std::cell::RefCell;
use std::ops::Range;
use std::path::PathBuf;

/// Whether a problem stops the file from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is used, but the operator should know.
    Warning,
}

/// A mistake or a doubt, with its place in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether it stops the file.
    pub severity: Severity,
    /// Byte range in the text that the caret points at.
    pub at: Range<usize>,
    /// What is wrong, in one line.
    pub message: String,
    /// What was expected, shown at the caret.
    pub label: Option<String>,
    /// Other places that belong to it, e.g. the first of two duplicates.
    pub related: Vec<(Range<usize>, String)>,
    /// What to do, e.g. the nearest known key.
    pub help: Option<String>,
}

impl Problem {
    /// An error at this place.
    pub fn error(at: Range<usize>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, at, message: message.into(), label: None, related: Vec::new(), help: None }
    }

    /// A warning at this place.
    pub fn warning(at: Range<usize>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(at, message) }
    }

    /// With what was expected.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// With another place that belongs to it.
    pub fn related(mut self, at: Range<usize>, label: impl Into<String>) -> Self {
        self.related.push((at, label.into()));
        self
    }

    /// With what to do.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// With what to do, where there is such advice.
    pub(crate) fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }
}

/// Problems found so far; shared by all readers of one document.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    found: RefCell<Vec<Problem>>,
    secrets: RefCell<Vec<Range<usize>>>,
    files: RefCell<Vec<NamedFile>>,
}

/// A file that the document names.
#[derive(Clone, Debug)]
pub(crate) struct NamedFile {
    /// Its path, resolved.
    pub(crate) path: PathBuf,
    /// Where it is named.
    pub(crate) at: Range<usize>,
    /// By what, e.g. "`path` of [audit]".
    pub(crate) by: String,
    pub(crate) access: Access,
}

/// What PgWard does with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    /// It is PgWard's own: written, replaced, removed.
    Own,
}

impl Problems {
    pub(crate) fn push(&self, problem: Problem) {
        self.found.borrow_mut().push(problem);
    }

    /// Remembers a file that the document names.
    pub(crate) fn name_file(&self, file: NamedFile) {
        self.files.borrow_mut().push(file);
    }

    /// The files that are named, in the order of the text.
    pub(crate) fn files(&self) -> Vec<NamedFile> {
        let mut files = self.files.borrow().clone();
        files.sort_by_key(|file| file.at.start);
        files
    }

    /// Remembers that this part of the text is, or may be, a secret: reports reach terminals and logs.
    pub(crate) fn conceal(&self, at: Range<usize>) {
        self.secrets.borrow_mut().push(at);
    }

    /// The text with every secret in it replaced by as many asterisks, so that places stay what they are.
    pub(crate) fn concealed(&self, text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        for range in self.secrets.borrow().iter() {
            bytes[range.clone()]
                .iter_mut()
                .filter(|byte| !matches!(byte, b'"' | b'\'' | b'\n' | b'\r'))
                .for_each(|byte| *byte = b'*');
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Errors and warnings, each in the order of the text.
    pub(crate) fn into_parts(self) -> (Vec<Problem>, Vec<Problem>) {
        let mut all = self.found.into_inner();
        all.sort_by_key(|problem| (problem.at.start, problem.at.end));
        all.into_iter().partition(|problem| problem.severity == Severity::Error)
    }
}
