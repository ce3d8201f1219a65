//! Tells people how far a start is: on a terminal a line that is written over, elsewhere one plain line for each step.

use std::io::{IsTerminal, Write, stderr};
use std::time::Instant;

/// The step that is under way.
#[derive(Debug)]
pub struct Steps {
    terminal: bool,
    current: String,
    begun: Instant,
}

impl Default for Steps {
    fn default() -> Self {
        Self { terminal: stderr().is_terminal(), current: String::new(), begun: Instant::now() }
    }
}

impl Steps {
    /// A step begins.
    pub fn begin(&mut self, what: impl Into<String>) {
        self.current = what.into();
        self.begun = Instant::now();
        self.update("...");
    }

    /// How far it is; nothing where lines cannot be written over.
    pub fn update(&self, how_far: &str) {
        if self.terminal {
            // A terminal that is gone does not keep the demo from starting.
            let _ = write!(stderr(), "\r\x1b[2K  {} {how_far}", self.current);
            let _ = stderr().flush();
        }
    }

    /// The step is done.
    pub fn done(&self, result: &str) {
        let seconds = self.begun.elapsed().as_secs_f32();
        let over = if self.terminal { "\r\x1b[2K" } else { "" };
        let _ = writeln!(stderr(), "{over}  {:<44} {result:<34} {seconds:>5.1} s", self.current);
    }
}
