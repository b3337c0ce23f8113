//! One stream of a script, read to its end: a bounded head and tail are kept, the rest is counted; a log file receives it live.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, fcntl};

use crate::model::script::{Echo, Stream};

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
    echo: Echo,
    /// The last byte that was shown; a line end before there is any.
    echoed: u8,
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
            echo,
            echoed: b'\n',
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
        if self.echo == Echo::Stderr {
            self.echoed = echo(bytes, self.echoed);
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
        if self.echoed != b'\n' {
            // What somebody says next begins a line.
            echo(b"\n", self.echoed);
        }
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
/// start of a line) of a script must reach a terminal or a CI log. `last` is the byte before; returns that of the next call.
fn echo(bytes: &[u8], mut last: u8) -> u8 {
    let mut shown = Vec::with_capacity(bytes.len());
    for byte in bytes {
        if last == b'\n' {
            shown.extend_from_slice(b"| ");
        }
        match (last, byte) {
            // U+0080 to U+009F in UTF-8 are control characters, too.
            (0xc2, 0x80..=0x9f) | (_, 0..=0x08 | 0x0b | 0x0c | 0x0e..=0x1f | 0x7f) => {
                shown.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
            }
            (_, b'\r') => {}
            (_, b'\n' | b'\t' | b' '..=b'~' | 0x80..) => shown.push(*byte),
        }
        last = *byte;
    }
    // Nobody may be listening; the log file has it all.
    io::stderr().write_all(&shown).ok();
    last
}
