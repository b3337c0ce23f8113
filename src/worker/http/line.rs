//! Connections that end by themselves when nothing moves, when too little does, and when the worker stops.
//!
//! The limits stand below TLS, where bytes move or do not: above it a peer could send parts of a record for ever. A wait is cut in
//! slices, for only a thread that looks up sees the stop flag. No limit counts the whole: a large archive on a slow line arrives.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, RustlsConnector, Transport,
};

use super::super::stop::Stop;
use super::HttpLimits;

/// How long a wait goes on before someone looks up.
const SLICE: Duration = Duration::from_millis(100);
/// Addresses of one name that are tried; what `ResolvedSocketAddrs` holds.
const ADDRESSES_MAX: usize = 16;

/// Why a connection of ours ended, beside what the system says.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the worker stops")]
    Stopped,
    #[error("nothing moved")]
    Stalled,
    #[error("too little moved")]
    TooSlow,
    #[error("no connection could be made")]
    Unreachable(#[source] io::Error),
}

impl From<Ended> for Error {
    fn from(ended: Ended) -> Self {
        Self::Other(Box::new(ended))
    }
}

/// What every connection of an API keeps to.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    pub(super) limits: HttpLimits,
    pub(super) stop: Stop,
}

impl Patience {
    /// Does `work` on a thread of its own, and leaves it alone when it takes longer than `connect`: the system's own look-ups and
    /// connects cannot be ended.
    fn aside<T, W>(&self, work: W) -> Result<T, Error>
    where
        T: Send + 'static,
        W: FnOnce() -> io::Result<T> + Send + 'static,
    {
        let (sender, receiver) = mpsc::sync_channel(1);
        // Nobody may be left who wants to know.
        let work = move || sender.send(work()).unwrap_or_default();
        thread::Builder::new().name("connect".to_owned()).spawn(work).map_err(Ended::Unreachable)?;
        let started = Instant::now();
        loop {
            match receiver.recv_timeout(SLICE) {
                Ok(done) => return Ok(done.map_err(Ended::Unreachable)?),
                Err(RecvTimeoutError::Timeout) if self.stop.is_set() => return Err(Ended::Stopped.into()),
                Err(RecvTimeoutError::Timeout) if started.elapsed() < self.limits.connect => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return Err(Ended::Unreachable(ErrorKind::TimedOut.into()).into());
                }
            }
        }
    }
}

/// Looks up names, but not for longer than a connection may take.
#[derive(Debug)]
pub(super) struct Names(pub(super) Patience);

impl Resolver for Names {
    fn resolve(&self, place: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let host = place.scheme().zip(place.authority());
        let host = host.and_then(|(scheme, authority)| DefaultResolver::host_and_port(scheme, authority));
        let host = host.ok_or(Error::HostNotFound)?;
        let found: Vec<SocketAddr> = self.0.aside(move || Ok(host.to_socket_addrs()?.collect()))?;
        let mut addresses = self.empty();
        found.into_iter().take(ADDRESSES_MAX).for_each(|address| addresses.push(address));
        if addresses.is_empty() { Err(Error::HostNotFound) } else { Ok(addresses) }
    }
}

/// Makes connections, with TLS where the address says https.
#[derive(Debug)]
pub(super) struct Lines {
    patience: Patience,
    public: RustlsConnector,
    /// Those of the user's own certificates, which are tried first.
    private: Option<(Config, RustlsConnector)>,
}

impl Lines {
    /// Connections that trust the usual authorities and `own`.
    pub(super) fn new(patience: Patience, own: Vec<Certificate<'static>>) -> Self {
        let roots = |certificates| TlsConfig::builder().root_certs(RootCerts::from(certificates)).build();
        let private =
            (!own.is_empty()).then(|| (Config::builder().tls_config(roots(own)).build(), RustlsConnector::default()));
        Self { patience, public: RustlsConnector::default(), private }
    }

    fn line(&self, details: &ConnectionDetails<'_>) -> Result<Line, Error> {
        let addresses: Vec<SocketAddr> = details.addrs.iter().copied().collect();
        let limit = self.patience.limits.connect;
        let stream = self.patience.aside(move || connect_to_any(&addresses, limit))?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Line { stream, buffers, patience: self.patience.clone(), pace: Pace::default(), is_hung_up: false })
    }
}

impl Connector<()> for Lines {
    type Out = Box<dyn Transport>;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Self::Out>, Error> {
        if let Some((config, connector)) = self.private.as_ref().filter(|_| details.needs_tls()) {
            let trusting = ConnectionDetails {
                uri: details.uri,
                addrs: details.addrs.clone(),
                config,
                request_level: false,
                resolver: details.resolver,
                now: details.now,
                timeout: details.timeout,
                current_time: details.current_time.clone(),
                run_connector: details.run_connector.clone(),
                register_shutdown: details.register_shutdown.clone(),
            };
            match connector.connect(&trusting, Some(self.line(details)?)) {
                // What TLS refuses it says so: it may be one of the usual authorities' instead.
                Err(Error::Io(error)) if error.kind() == ErrorKind::InvalidData => {}
                outcome => return Ok(outcome.map_err(no_connection)?.map(boxed)),
            }
        }
        let outcome = self.public.connect(details, Some(self.line(details)?));
        Ok(outcome.map_err(no_connection)?.map(boxed))
    }
}

/// What the system or TLS says before there is a connection.
fn no_connection(error: Error) -> Error {
    if let Error::Io(source) = error { Ended::Unreachable(source).into() } else { error }
}

fn boxed(transport: impl Transport) -> Box<dyn Transport> {
    Box::new(transport)
}

/// Returns a connection to the first of `addresses` that answers; `limit` is for all of them.
fn connect_to_any(addresses: &[SocketAddr], limit: Duration) -> io::Result<TcpStream> {
    let share = limit / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut failure = ErrorKind::NotFound.into();
    for address in addresses {
        match TcpStream::connect_timeout(address, share) {
            Ok(stream) => return prepared(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn prepared(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SLICE))?;
    stream.set_write_timeout(Some(SLICE))?;
    Ok(stream)
}

/// A connection below TLS.
#[derive(Debug)]
struct Line {
    stream: TcpStream,
    buffers: LazyBuffers,
    patience: Patience,
    pace: Pace,
    /// The peer takes no more. It may have answered before: 413 comes before the end of what is too long.
    is_hung_up: bool,
}

/// What moved in a while of waiting. Time in which nobody waits does not count: a slow disk is not the peer's fault.
#[derive(Debug, Default)]
struct Pace {
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// Whether, with a wait of `time` in which `bytes` moved, a full window has passed with too little in it.
    fn is_too_slow(&mut self, time: Duration, bytes: usize, limits: &HttpLimits) -> bool {
        self.waited += time;
        self.bytes += bytes as u64;
        if self.waited < limits.window {
            return false;
        }
        let passed = std::mem::take(self);
        passed.bytes < limits.window_bytes_min
    }
}

impl Line {
    /// Repeats `step`, which returns after a slice, until something moves; returns the number of bytes.
    fn wait(patience: &Patience, pace: &mut Pace, mut step: impl FnMut() -> io::Result<usize>) -> Result<usize, Error> {
        let started = Instant::now();
        loop {
            if patience.stop.is_set() {
                return Err(Ended::Stopped.into());
            }
            let slice = Instant::now();
            let moved = step();
            if pace.is_too_slow(slice.elapsed(), *moved.as_ref().unwrap_or(&0), &patience.limits) {
                return Err(Ended::TooSlow.into());
            }
            match moved {
                Ok(count) => return Ok(count),
                Err(error) if !is_pause(&error) => return Err(Error::Io(error)),
                Err(_) if started.elapsed() >= patience.limits.idle => return Err(Ended::Stalled.into()),
                Err(_) => {}
            }
        }
    }
}

/// Whether a slice ended and nothing else.
fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

impl Transport for Line {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        let output = &self.buffers.output()[..amount];
        let mut sent = 0;
        while sent < amount && !self.is_hung_up {
            match Self::wait(&self.patience, &mut self.pace, || (&self.stream).write(&output[sent..])) {
                Ok(count) => sent += count,
                // Whether there is an answer, the reading will show.
                Err(Error::Io(_)) => self.is_hung_up = true,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        let input = self.buffers.input_append_buf();
        let count = match Self::wait(&self.patience, &mut self.pace, || (&self.stream).read(input)) {
            // The client takes a reset for the end of an answer that has no length.
            Err(Error::Io(error)) => return Err(Error::Io(io::Error::other(error))),
            outcome => outcome?,
        };
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    /// Asked between two requests, so a new window begins.
    fn is_open(&mut self) -> bool {
        self.pace = Pace::default();
        !self.is_hung_up && is_silent(&self.stream).unwrap_or(false)
    }
}

/// Whether a connection that nobody uses is open, and nothing came that nobody asked for.
fn is_silent(mut stream: &TcpStream) -> io::Result<bool> {
    stream.set_nonblocking(true)?;
    let silent = stream.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    stream.set_nonblocking(false)?;
    Ok(silent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_judged_by_full_windows_of_waiting() {
        let limits = HttpLimits { window: Duration::from_secs(60), window_bytes_min: 1000, ..HttpLimits::default() };
        let mut pace = Pace::default();
        let second = Duration::from_secs(1);
        assert!((0..59).all(|_| !pace.is_too_slow(second, 0, &limits)), "no window is over");
        assert!(!pace.is_too_slow(second, 1000, &limits), "just enough came");
        assert!((0..59).all(|_| !pace.is_too_slow(second, 16, &limits)));
        assert!(pace.is_too_slow(second, 16, &limits), "960 are too few");
    }
}
