//! What the product itself prints, copied without the suite being able to tell.
//!
//! A folder at the front of a suite's PATH holds a link with the product's name that leads to this very program. When it is
//! called by that link, it starts the real product (the next on PATH, so whatever would have run) with pipes as standard
//! output and error, and hands on every byte as it comes, to where the suite wanted it and to the log. Everything else passes
//! through: arguments, environment, stdin, other descriptors, signal mask, signals, exit code, death by a signal. Where the
//! suite has made both streams one (`2>&1`), one pipe serves both, so that their order is kept; the copy is then one, too.
//!
//! A call that does not come by that link, for example by an absolute path, cannot be copied; it is noticed because the
//! product's file is opened more often than the link was called.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::pipe2;

use super::raw;

/// Beside the link: the log folder, the product as configured, and the log's size limit, each ended by NUL.
const CONFIG: &str = ".proving-ground-product";
/// Beside the link: a byte for each call.
const CALLS: &str = ".proving-ground-calls";
const CALLED: &[u8] = b".";
const NOT_LOGGED: &[u8] = b"!";
const CHUNK_BYTES: usize = 64 << 10;
/// What a shell's user may send to a program by its number; SIGKILL is passed on by the kernel.
const FORWARDED: [Signal; 6] =
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2];

/// The harness's side: a folder for PATH.
pub(crate) struct ProductTap {
    dir: PathBuf,
    product: Option<PathBuf>,
    opens: Option<Inotify>,
    opens_each: usize,
    log_bytes_max: u64,
}

/// What was seen of the product during a trial.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Calls by name.
    pub(crate) calls: usize,
    /// Whether the product's file was also used otherwise, or the log could not take everything.
    pub(crate) is_incomplete: bool,
}

impl ProductTap {
    /// Makes the folder `dir` with the link `name`. `product` is the file that a call by name should reach, if it is known.
    ///
    /// # Errors
    /// If something cannot be made there.
    pub(crate) fn install(dir: PathBuf, name: &str, product: Option<PathBuf>, log_bytes_max: u64) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        symlink(std::env::current_exe()?, dir.join(name))?;
        let mut start = [0; 2];
        let read = product.as_ref().map(|path| File::open(path)?.read_exact(&mut start));
        // The kernel opens a script once for itself and once for its interpreter.
        let opens_each = if matches!(read, Some(Ok(()))) && &start == b"#!" { 2 } else { 1 };
        Ok(Self { opens: product.as_deref().and_then(watch_opens), opens_each, dir, product, log_bytes_max })
    }

    /// The folder that goes to the front of PATH.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Sends what the product prints from now on to `product.stdout.log` and `product.stderr.log` in `log_dir`.
    ///
    /// # Errors
    /// If the folder of the link cannot be written.
    pub(crate) fn direct_to(&self, log_dir: &Path) -> io::Result<()> {
        let product = self.product.as_deref().map_or(OsStr::new(""), Path::as_os_str);
        let limit = self.log_bytes_max.to_string();
        let fields = [log_dir.as_os_str().as_bytes(), product.as_bytes(), limit.as_bytes()];
        let next = self.dir.join(".next");
        fs::write(&next, fields.map(|field| [field, b"\0"].concat()).concat())?;
        fs::rename(next, self.dir.join(CONFIG))?;
        fs::write(self.dir.join(CALLS), "")
    }

    /// Forgets uses of the product's file up to now: we look into it ourselves.
    pub(crate) fn forget_opens(&self) {
        self.count_opens();
    }

    /// Returns how often the product's file was opened since the last look.
    pub(crate) fn count_opens(&self) -> usize {
        let Some(inotify) = &self.opens else { return 0 };
        let mut count = 0;
        while let Ok(events) = inotify.read_events() {
            count += events.iter().filter(|event| event.mask.contains(AddWatchFlags::IN_OPEN)).count();
        }
        count
    }

    /// Returns what was seen since `direct_to`, given all opens that were counted while blocks ran.
    pub(crate) fn seen(&self, opens: usize) -> Seen {
        let calls = fs::read(self.dir.join(CALLS)).unwrap_or_default();
        let count = calls.iter().filter(|byte| **byte == CALLED[0]).count();
        Seen { calls: count, is_incomplete: calls.contains(&NOT_LOGGED[0]) || opens > count * self.opens_each }
    }
}

/// Opens and other events in between, so that two opens in a row are not merged into one.
fn watch_opens(path: &Path) -> Option<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok()?;
    let flags = AddWatchFlags::IN_OPEN | AddWatchFlags::IN_ACCESS | AddWatchFlags::IN_CLOSE;
    inotify.add_watch(path, flags).ok()?;
    Some(inotify)
}

/// If this process was started by a tap's link, does the product's work and returns how it ended. Call it first in `main`.
pub(crate) fn run_if_called_as_product() -> Option<ExitCode> {
    let called = raw::exec_path()?;
    let dir = called.parent()?;
    let config = Config::read(dir)?;
    let name = called.file_name()?;
    note(dir, CALLED);
    let Some(product) = config.find(name, dir) else {
        io::stderr().write_all(&[name.as_bytes(), b": command not found\n"].concat()).ok();
        return Some(ExitCode::from(127));
    };
    Some(match run(&product, &config, dir) {
        Ok(WaitStatus::Signaled(_, signal, _)) => raw::die_by(signal),
        Ok(WaitStatus::Exited(_, code)) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        Ok(_) => ExitCode::from(126),
        Err(error) => {
            let text = format!("{}: cannot execute: {error}\n", product.display());
            io::stderr().write_all(text.as_bytes()).ok();
            ExitCode::from(126)
        }
    })
}

struct Config {
    log_dir: PathBuf,
    product: PathBuf,
    log_bytes_max: u64,
}

impl Config {
    fn read(dir: &Path) -> Option<Self> {
        let bytes = fs::read(dir.join(CONFIG)).ok()?;
        let mut fields = bytes.split(|byte| *byte == 0);
        let mut path = || Some(PathBuf::from(OsString::from_vec(fields.next()?.to_vec())));
        let (log_dir, product) = (path()?, path()?);
        let log_bytes_max = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        Some(Self { log_dir, product, log_bytes_max })
    }

    /// What would have run without us: the first on PATH that is not our link, else the product as configured.
    fn find(&self, name: &OsStr, dir: &Path) -> Option<PathBuf> {
        let search_path = std::env::vars_os().find(|(name, _)| name == "PATH").map(|(_, value)| value);
        let search_path = search_path.unwrap_or_default();
        let dirs = std::env::split_paths(&search_path).filter(|entry| entry != dir);
        let configured = Some(self.product.clone()).filter(|path| !path.as_os_str().is_empty());
        dirs.map(|entry| entry.join(name)).find(|path| crate::os::host::is_executable(path)).or(configured)
    }
}

fn note(dir: &Path, word: &[u8]) {
    let file = File::options().append(true).create(true).open(dir.join(CALLS));
    // Nothing may be said where the suite could hear it.
    file.and_then(|mut file| file.write_all(word)).ok();
}

/// One stream: from the product's pipe to where the suite wanted it, and to the log.
struct Stream<'a> {
    pipe: Option<File>,
    wanted: BorrowedFd<'a>,
    log: PathBuf,
    log_bytes_max: u64,
    log_is_whole: bool,
}

impl Stream<'_> {
    /// Hands on what is there. Returns whether there may be more at once.
    fn pass(&mut self, buffer: &mut [u8]) -> bool {
        let Some(pipe) = &mut self.pipe else { return false };
        match pipe.read(buffer) {
            Ok(len) if len > 0 => {
                self.log(&buffer[..len]);
                if write_all(self.wanted, &buffer[..len]).is_err() {
                    // Nobody reads it any more: the product learns that from its own next write.
                    self.pipe = None;
                }
                true
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Ok(_) | Err(_) => {
                self.pipe = None;
                false
            }
        }
    }

    fn log(&mut self, bytes: &[u8]) {
        if !self.log_is_whole {
            return;
        }
        let written = fs::create_dir_all(self.log.parent().unwrap_or(Path::new("/")))
            .and_then(|()| File::options().append(true).create(true).open(&self.log))
            .and_then(|mut file| {
                let len = file.metadata()?.len() + bytes.len() as u64;
                if len > self.log_bytes_max { Err(Errno::EFBIG.into()) } else { file.write_all(bytes) }
            });
        self.log_is_whole = written.is_ok();
    }
}

/// Where the suite wanted it may be set not to block.
fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> nix::Result<()> {
    while !bytes.is_empty() {
        match nix::unistd::write(to, bytes) {
            Ok(len) => bytes = &bytes[len..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                poll(&mut [PollFd::new(to, PollFlags::POLLOUT)], PollTimeout::NONE)?;
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn run(product: &Path, config: &Config, dir: &Path) -> io::Result<WaitStatus> {
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let (out_read, out_write) = pipe2(OFlag::O_CLOEXEC)?;
    let is_one = raw::is_same_open_file(1, 2);
    let (err_read, err_write) = if is_one {
        (None, out_write.try_clone()?)
    } else {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        (Some(read), write)
    };
    let mut forwarded = SigSet::empty();
    FORWARDED.iter().for_each(|signal| forwarded.add(*signal));
    let mut mask = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&forwarded), Some(&mut mask))?;
    let signals = SignalFd::with_flags(&forwarded, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;

    let argv = std::env::args_os().map(|arg| CString::new(arg.into_vec())).collect::<Result<Vec<_>, _>>()?;
    let child =
        raw::spawn_product(&CString::new(product.as_os_str().as_bytes())?, &argv, [&out_write, &err_write], &mask)?;
    drop((out_write, err_write));

    let stream = |pipe: Option<OwnedFd>, wanted, name| -> io::Result<Stream<'_>> {
        if let Some(pipe) = &pipe {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        let log = config.log_dir.join(name);
        Ok(Stream { pipe: pipe.map(File::from), wanted, log, log_bytes_max: config.log_bytes_max, log_is_whole: true })
    };
    let mut streams = [
        stream(Some(out_read), stdout.as_fd(), "product.stdout.log")?,
        stream(err_read, stderr.as_fd(), "product.stderr.log")?,
    ];
    attend(&mut streams, &child, &signals)?;
    let status = waitpid(child.pid, None)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    for stream in &mut streams {
        while stream.pass(&mut buffer) {}
    }
    if streams.iter().any(|stream| !stream.log_is_whole) {
        note(dir, NOT_LOGGED);
    }
    if streams.iter().any(|stream| stream.pipe.is_some()) && raw::fork_to_background() {
        // What the product left running still prints; we go on for it, the suite goes on without us.
        linger(&mut streams);
    }
    Ok(status)
}

/// Hands on output and signals until the product has ended.
fn attend(streams: &mut [Stream<'_>; 2], child: &raw::Product, signals: &SignalFd) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let [out, err] = &*streams;
        let watched = [
            Some(child.pidfd.as_fd()),
            Some(signals.as_fd()),
            out.pipe.as_ref().map(AsFd::as_fd),
            err.pipe.as_ref().map(AsFd::as_fd),
        ];
        let mut events: Vec<_> = watched.iter().flatten().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
        match poll(&mut events, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let (has_ended, has_signal) = (events[0].any() == Some(true), events[1].any() == Some(true));
        if has_signal && let Ok(Some(info)) = signals.read_signal() {
            let signal = Signal::try_from(i32::try_from(info.ssi_signo).unwrap_or(0));
            // It may have ended a moment ago.
            signal.and_then(|signal| kill(child.pid, signal)).ok();
        }
        for stream in streams.iter_mut() {
            stream.pass(&mut buffer);
        }
        if has_ended {
            return Ok(());
        }
    }
}

fn linger(streams: &mut [Stream<'_>; 2]) {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let mut events: Vec<_> = streams
            .iter()
            .filter_map(|stream| stream.pipe.as_ref())
            .map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN))
            .collect();
        if events.is_empty() || poll(&mut events, PollTimeout::NONE).is_err_and(|errno| errno != Errno::EINTR) {
            return;
        }
        for stream in streams.iter_mut() {
            stream.pass(&mut buffer);
        }
    }
}
