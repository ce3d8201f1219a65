//! Problems as text for people and editors: `file:line:column: error: message`, then the line with a caret.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::problem::{Problem, Severity};

/// All problems of one file, in the order of the text. As an error it says why the file is refused.
#[derive(Clone)]
pub struct Report {
    path: PathBuf,
    text: String,
    problems: Vec<Problem>,
}

impl Report {
    /// A report on this text, in which secrets are concealed already.
    pub(crate) fn new(path: PathBuf, text: String, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| (problem.at.start, problem.at.end));
        Self { path, text, problems }
    }

    /// The file cannot be read at all.
    pub(crate) fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        Self::new(path.to_owned(), String::new(), vec![Problem::error(0..0, format!("cannot be read: {error}"))])
    }

    /// The problems.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Line and column of a problem, both from 1, the column in characters.
    pub fn position(&self, problem: &Problem) -> (usize, usize) {
        let before = self.text.get(..problem.at.start).unwrap_or(&self.text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        (line, column)
    }

    /// One line a problem, as a log takes it.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.problems.iter().map(|problem| self.headline(problem, &Paint { color: false }))
    }

    /// The whole report, with or without colour, ending with the number of errors.
    pub fn render(&self, color: bool) -> String {
        let paint = Paint { color };
        let mut out = String::new();
        for problem in &self.problems {
            out.push_str(&self.headline(problem, &paint));
            out.push('\n');
            if !self.text.is_empty() {
                out.push_str(&self.excerpt(problem, color));
                out.push_str("\n\n");
            }
        }
        if let Some(count) = self.count() {
            out.push_str(&count);
            out.push('\n');
        }
        out
    }

    fn headline(&self, problem: &Problem, paint: &Paint) -> String {
        let severity = match problem.severity {
            Severity::Error => paint.red("error"),
            Severity::Warning => paint.yellow("warning"),
        };
        let path = self.path.display();
        if self.text.is_empty() {
            return format!("{path}: {severity}: {}", problem.message);
        }
        let (line, column) = self.position(problem);
        format!("{path}:{line}:{column}: {severity}: {}", paint.bold(&problem.message))
    }

    /// The line with its caret, what was expected, other lines that belong to it, and advice.
    fn excerpt(&self, problem: &Problem, color: bool) -> String {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let primary = AnnotationKind::Primary.span(self.within_a_line(&problem.at)).label(problem.label.clone());
        let related = problem
            .related
            .iter()
            .map(|(at, label)| AnnotationKind::Context.span(self.within_a_line(at)).label(label.clone()));
        let snippet = Snippet::source(self.text.as_str()).annotation(primary).annotations(related);
        let mut group = Group::with_level(level).element(snippet);
        if let Some(help) = &problem.help {
            group = group.element(Level::HELP.message(help.clone()));
        }
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        // Wide enough that no line of a terminal is cut: a report goes into logs and editors as well.
        renderer.decor_style(DecorStyle::Ascii).term_width(TERM_WIDTH).render(&[group])
    }

    /// The part of a range that is on its first line: a caret under half a file says nothing.
    fn within_a_line(&self, at: &Range<usize>) -> Range<usize> {
        let mut start = at.start.min(self.text.len());
        // Behind the last newline there is no line to show: the end of the last line stands for it.
        while start > 0 && start == self.text.len() && self.text.ends_with('\n') && at.start >= self.text.len() {
            start -= 1;
            if !self.text[..start].ends_with('\n') {
                break;
            }
        }
        let rest = self.text.get(start..).unwrap_or("");
        let end_of_line = start + rest.find('\n').unwrap_or(rest.len());
        start..at.end.clamp(start, end_of_line.max(start))
    }

    /// `2 errors, 1 warning`; `None` when there is nothing.
    fn count(&self) -> Option<String> {
        let of = |severity| self.problems.iter().filter(|problem| problem.severity == severity).count();
        let say = |n: usize, what| (n > 0).then(|| format!("{n} {what}{}", if n == 1 { "" } else { "s" }));
        let parts: Vec<String> =
            [say(of(Severity::Error), "error"), say(of(Severity::Warning), "warning")].into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

/// Lines up to this many columns are shown whole.
const TERM_WIDTH: usize = 200;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}

struct Paint {
    color: bool,
}

impl Paint {
    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
    fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }
    fn red(&self, text: &str) -> String {
        self.paint("1;31", text)
    }
    fn yellow(&self, text: &str) -> String {
        self.paint("1;33", text)
    }
}
