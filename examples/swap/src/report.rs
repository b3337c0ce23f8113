//! What is said, gathered while working and printed once at the end, so that a reader who goes away (a closed pipe) can
//! never stop a change half-way.

use std::io::{self, Write};

use crate::error::Error;

#[derive(Debug, Default)]
pub(crate) struct Report {
    stdout: String,
    stderr: String,
}

impl Report {
    pub(crate) fn info(&mut self, object: &str, text: &str) {
        self.stdout.push_str(&format!("INFO {object}: {text}\n"));
    }

    pub(crate) fn warn(&mut self, object: &str, text: &str) {
        self.stderr.push_str(&format!("WARN {object}: {text}\n"));
    }

    pub(crate) fn error(&mut self, error: &Error) {
        for line in error.lines() {
            self.stderr.push_str(&format!("ERROR {line}\n"));
        }
    }

    /// Adds `text` to stdout as it is, with a line end.
    pub(crate) fn text(&mut self, text: &str) {
        self.stdout.push_str(text);
        if !text.ends_with('\n') {
            self.stdout.push('\n');
        }
    }

    /// Writes both streams, stderr also when stdout is closed.
    ///
    /// # Errors
    /// The first stream that could not be written.
    pub(crate) fn print(&self) -> io::Result<()> {
        let said = write_all(io::stdout().lock(), &self.stdout);
        write_all(io::stderr().lock(), &self.stderr)?;
        said
    }
}

fn write_all(mut stream: impl Write, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes())?;
    stream.flush()
}
