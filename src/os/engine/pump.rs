//! One stream of a script, read to its end: a bounded head and tail are kept, the rest is counted; a log file receives it live.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, fcntl};

use crate::model::script::{Echo, Stream, is_hidden};

/// Bytes that one read can take; also the largest tail.
const RING_BYTES: usize = 256 << 10;
/// A stream that is longer than this is given a larger pipe, so that a flood costs fewer wake-ups.
const LARGE_STREAM_BYTES: u64 = 1 << 20;
const LARGE_PIPE_BYTES: i32 = 1 << 20;

/// The last bytes of a stream, and the buffer that reads go to: endless output is never copied within memory.
pub(super) struct Ring {
    bytes: Vec<u8>,
    next: usize,
}

impl Ring {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; RING_BYTES], next: 0 }
    }

    /// Returns the last `len` bytes that were read, `len` at most the ring's size.
    fn last(&self, len: usize) -> Vec<u8> {
        let start = (self.next + self.bytes.len() - len) % self.bytes.len();
        let first = len.min(self.bytes.len() - start);
        let mut tail = Vec::with_capacity(len);
        tail.extend_from_slice(&self.bytes[start..start + first]);
        tail.extend_from_slice(&self.bytes[..len - first]);
        tail
    }
}

/// Whether a stream may bring more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Open,
    Ended,
}

/// Reads one pipe.
pub(super) struct Pump<'a> {
    pipe: Option<File>,
    ring: &'a mut Ring,
    head: Vec<u8>,
    kept_each_max: usize,
    total_bytes: u64,
    log: Log,
    shown: Option<Shown>,
    pipe_is_large: bool,
}

impl<'a> Pump<'a> {
    /// `pipe` must not block. `kept_bytes_max` bounds head and tail together.
    pub(super) fn new(pipe: File, ring: &'a mut Ring, kept_bytes_max: usize, log: Log, echo: Echo) -> Self {
        ring.next = 0;
        let kept_each_max = (kept_bytes_max / 2).min(RING_BYTES);
        Self {
            pipe: Some(pipe),
            ring,
            head: Vec::new(),
            kept_each_max,
            total_bytes: 0,
            log,
            shown: (echo == Echo::Stderr).then(Shown::new),
            pipe_is_large: false,
        }
    }

    /// The descriptor to wait for, until the stream has ended.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Takes one bufferful of what is there.
    pub(super) fn take(&mut self) -> Flow {
        let Some(pipe) = &mut self.pipe else {
            return Flow::Ended;
        };
        let at = self.ring.next;
        match pipe.read(&mut self.ring.bytes[at..]) {
            Ok(0) => self.close(),
            Ok(len) => self.keep(at, len),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            // A pipe that cannot be read brings nothing more.
            Err(_) => self.close(),
        }
        if self.pipe.is_some() { Flow::Open } else { Flow::Ended }
    }

    fn keep(&mut self, at: usize, len: usize) {
        let bytes = &self.ring.bytes[at..at + len];
        let room = self.kept_each_max - self.head.len();
        self.head.extend_from_slice(&bytes[..len.min(room)]);
        self.log.write(bytes);
        if let Some(shown) = &mut self.shown {
            shown.show(bytes);
        }
        self.total_bytes += len as u64;
        self.ring.next = (at + len) % self.ring.bytes.len();
        if self.total_bytes > LARGE_STREAM_BYTES && !self.pipe_is_large {
            self.pipe_is_large = true;
            if let Some(pipe) = &self.pipe {
                // Only a matter of speed: a user's share of pipe memory may be used up.
                fcntl(pipe, FcntlArg::F_SETPIPE_SZ(LARGE_PIPE_BYTES)).ok();
            }
        }
    }

    /// Gives up on a pipe that somebody out of our reach still holds.
    pub(super) fn close(&mut self) {
        self.pipe = None;
    }

    /// Returns what was kept, and why the log file is not whole, if it is not.
    pub(super) fn finish(self) -> (Stream, Option<String>) {
        let after_head = self.total_bytes - self.head.len() as u64;
        let tail_len = usize::try_from(after_head).map_or(self.kept_each_max, |len| len.min(self.kept_each_max));
        let tail = self.ring.last(tail_len);
        let ring = self.ring;
        let log_error = self.log.finish(self.total_bytes, |len| ring.last(len));
        (Stream { head: self.head, tail, total_bytes: self.total_bytes }, log_error)
    }
}

/// A log file: the first bytes of a stream as they come; for a longer stream a line that says what was cut, then its end.
pub(super) struct Log {
    path: Option<PathBuf>,
    file: Option<File>,
    live_bytes_max: u64,
    end_bytes_max: usize,
    written_bytes: u64,
    error: Option<String>,
}

impl Log {
    /// The file is made with the first byte, so that a silent script leaves none. `bytes_max` bounds the file.
    pub(super) fn new(path: Option<&Path>, bytes_max: u64) -> Self {
        let end_bytes_max = usize::try_from(bytes_max / 4).map_or(RING_BYTES, |quarter| quarter.min(RING_BYTES));
        Self {
            path: path.map(Path::to_path_buf),
            file: None,
            live_bytes_max: bytes_max - end_bytes_max as u64,
            end_bytes_max,
            written_bytes: 0,
            error: None,
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        let room = self.live_bytes_max - self.written_bytes;
        let len = usize::try_from(room).map_or(bytes.len(), |room| room.min(bytes.len()));
        if len > 0 {
            self.written_bytes += len as u64;
            self.append(&bytes[..len]);
        }
    }

    /// After an error nothing more is tried: a log with a hole in it would mislead.
    fn append(&mut self, bytes: &[u8]) {
        let Some(path) = self.path.as_deref().filter(|_| self.error.is_none()) else {
            return;
        };
        let opened = match self.file.take() {
            Some(file) => Ok(file),
            None => create(path),
        };
        match opened.and_then(|mut file| file.write_all(bytes).map(|()| file)) {
            Ok(file) => self.file = Some(file),
            Err(error) => self.error = Some(format!("could not write `{}`: {error}", path.display())),
        }
    }

    fn finish(mut self, total_bytes: u64, last: impl FnOnce(usize) -> Vec<u8>) -> Option<String> {
        let missing = total_bytes - self.written_bytes;
        let end_len = usize::try_from(missing).map_or(self.end_bytes_max, |len| len.min(self.end_bytes_max));
        let cut = missing - end_len as u64;
        if cut > 0 {
            self.append(format!("\n[... {cut} bytes cut here, output-limit reached ...]\n").as_bytes());
        }
        if end_len > 0 {
            self.append(&last(end_len));
        }
        self.error
    }
}

/// Makes the file, and its folder only if that is missing: most often it is there.
fn create(path: &Path) -> io::Result<File> {
    File::create(path).or_else(|error| match (error.kind(), path.parent()) {
        (io::ErrorKind::NotFound, Some(folder)) => fs::create_dir_all(folder).and_then(|()| File::create(path)),
        _ => Err(error),
    })
}

/// Shows output on our standard error, each line behind `| `: neither escape sequences nor a CI service's orders (`::...` at the
/// start of a line) of a script must reach a terminal or a CI log.
struct Shown {
    begins_line: bool,
    /// `#` that were shown last.
    hashes: usize,
    /// The first bytes of a character whose others have not come yet.
    begun: Vec<u8>,
}

impl Shown {
    fn new() -> Self {
        Self { begins_line: true, hashes: 0, begun: Vec::new() }
    }

    fn show(&mut self, bytes: &[u8]) {
        let text = [&std::mem::take(&mut self.begun), bytes].concat();
        let mut shown = String::with_capacity(text.len());
        let mut chunks = text.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            chunk.valid().chars().for_each(|c| self.push(c, &mut shown));
            let may_go_on = chunks.peek().is_none() && is_begun(chunk.invalid());
            if may_go_on {
                self.begun = chunk.invalid().to_vec();
            } else {
                chunk.invalid().iter().for_each(|byte| self.push_byte(*byte, &mut shown));
            }
        }
        say(&shown);
    }

    fn push(&mut self, c: char, shown: &mut String) {
        if c == '\r' {
            return;
        }
        if std::mem::replace(&mut self.begins_line, c == '\n') {
            shown.push_str("| ");
        }
        let hashes = std::mem::replace(&mut self.hashes, 0);
        match c {
            // Wherever it stands, GitHub takes an order from what follows `##[`.
            '[' if hashes >= 2 => shown.push_str("\\["),
            '#' => {
                self.hashes = hashes + 1;
                shown.push(c);
            }
            '\n' | '\t' => shown.push(c),
            '\0'..='\x7f' if is_hidden(c) => shown.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if is_hidden(c) => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }

    fn push_byte(&mut self, byte: u8, shown: &mut String) {
        format!("\\x{byte:02x}").chars().for_each(|c| self.push(c, shown));
    }
}

impl Drop for Shown {
    /// What was begun does not go on, and what somebody says next begins a line.
    fn drop(&mut self) {
        let mut shown = String::new();
        std::mem::take(&mut self.begun).into_iter().for_each(|byte| self.push_byte(byte, &mut shown));
        if !self.begins_line {
            shown.push('\n');
        }
        say(&shown);
    }
}

/// Tells whether the bytes are the beginning of a character.
fn is_begun(bytes: &[u8]) -> bool {
    !bytes.is_empty() && std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

fn say(shown: &str) {
    // Nobody may be listening; the log file has it all.
    io::stderr().write_all(shown.as_bytes()).ok();
}
