//! SIGINT, SIGTERM and SIGHUP: the first ends what runs, the second also gives up on restore.

use std::fs;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag::register_usize;
use signal_hook::iterator::Signals;

use super::engine::{Cancel, EngineError};

/// Signals that come together are one: timeout(1) tells its child and then the group that it is in.
const TOGETHER: Duration = Duration::from_millis(50);

/// Why interrupts cannot be handled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InterruptError {
    #[error("could not handle SIGINT, SIGTERM and SIGHUP")]
    Handler(#[source] io::Error),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A signal that has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrived {
    /// What runs is to end well.
    First,
    /// It is to end at once.
    Again,
}

/// What the signals of this process have asked for so far.
#[derive(Clone)]
pub(crate) struct Interrupt {
    state: Arc<State>,
}

struct State {
    work: Cancel,
    restore: Cancel,
    /// Set by the handler itself: a signal counts from the moment at which it arrives, not when a thread has heard of it.
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    /// Returns one that no signal reaches.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub(crate) fn new() -> Result<Self, InterruptError> {
        let state = State { work: Cancel::new()?, restore: Cancel::new()?, signal: Arc::default() };
        Ok(Self { state: Arc::new(state) })
    }

    /// Lets SIGINT, SIGTERM and, unless it is ignored (nohup(1)), SIGHUP of this process arrive here, for the rest of its life. `told`
    /// is called at once with each.
    ///
    /// # Errors
    /// If the handlers or their thread cannot be had.
    pub(crate) fn listen(&self, told: impl Fn(Arrived) + Send + 'static) -> Result<(), InterruptError> {
        let heard = [(SIGINT, 2), (SIGTERM, 15), (SIGHUP, 1)];
        let heard = &heard[..if is_hangup_ignored() { 2 } else { 3 }];
        for (signal, number) in heard {
            register_usize(*signal, Arc::clone(&self.state.signal), *number).map_err(InterruptError::Handler)?;
        }
        let mut signals = Signals::new(heard.iter().map(|(signal, _)| signal)).map_err(InterruptError::Handler)?;
        let this = self.clone();
        let waiting = thread::Builder::new().name("signals".to_owned());
        waiting
            .spawn(move || {
                let mut first = None;
                for _ in signals.forever() {
                    let arrived = match first {
                        None => Arrived::First,
                        Some(at) if Instant::now() < at + TOGETHER => continue,
                        Some(_) => Arrived::Again,
                    };
                    first.get_or_insert_with(Instant::now);
                    this.take(arrived);
                    told(arrived);
                }
            })
            .map(drop)
            .map_err(InterruptError::Handler)
    }

    fn take(&self, arrived: Arrived) {
        match arrived {
            Arrived::First => self.state.work.trigger(),
            Arrived::Again => self.state.restore.trigger(),
        }
    }

    /// Ends everything but restore.
    pub(crate) fn work(&self) -> &Cancel {
        &self.state.work
    }

    /// Ends restore.
    pub(crate) fn restore(&self) -> &Cancel {
        &self.state.restore
    }

    /// Returns what a shell says of a program that the last signal has ended, if there was one.
    pub(crate) fn exit_code(&self) -> Option<ExitCode> {
        u8::try_from(128 + self.signal()?).ok().map(ExitCode::from)
    }

    /// Returns the number of the last signal.
    pub(crate) fn signal(&self) -> Option<i32> {
        let signal = self.state.signal.load(Ordering::SeqCst);
        i32::try_from(signal).ok().filter(|signal| *signal != 0)
    }
}

/// Source: proc_pid_status(5): `SigIgn` is a mask, in hexadecimal, whose lowest bit is signal 1, SIGHUP.
fn is_hangup_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 == 1)
}
