//! One connection: requests are read, answers are written, as well or as badly as planned.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::work::{self, Reply};
use super::{Fault, Route, Seen, Shared};

/// Bytes of a head.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Pieces of a slow answer in a second.
const PIECES_PER_SEC: usize = 20;

/// Whether another request may follow.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Request,
    Close,
}

/// A connection and the bytes that came over it and were not yet looked at.
struct Line {
    stream: TcpStream,
    pending: Vec<u8>,
}

/// Serves requests until one of the two sides has enough.
pub(super) fn serve(stream: TcpStream, number: usize, shared: &Shared) {
    let mut line = Line { stream, pending: Vec::new() };
    // A client that has gone is no fault of a server.
    while let Ok(Some(seen)) = line.read_head(number) {
        if !matches!(answer(&mut line, &seen, shared), Ok(Next::Request)) {
            break;
        }
    }
    // The server holds it, too: only without both it is closed.
    shared.update(|state| state.open.remove(&number));
}

/// Sees one request to its end.
fn answer(line: &mut Line, seen: &Seen, shared: &Shared) -> io::Result<Next> {
    let route = work::route(seen);
    let (fault, replay) = shared.update(|state| {
        state.requests.push(seen.clone());
        (route.map_or(Fault::None, |route| state.plan.next(route)), work::remember_nonce(state, seen))
    });
    match &fault {
        Fault::DropUnread => return Ok(Next::Close),
        Fault::RefuseUnread(status) => {
            let mut reply = Reply::text(*status, "refused");
            reply.headers.push(("Connection", "close".to_owned()));
            line.write(&reply.bytes())?;
            return Ok(Next::Close);
        }
        _ => {}
    }
    let body = line.read_body(seen)?;
    if let Some(refused) = replay.or_else(|| work::refuse(shared, seen, &body)) {
        line.write(&refused.bytes())?;
        return Ok(Next::Request);
    }
    let reply = match &fault {
        Fault::Status(status, after) => {
            let mut reply = Reply::text(*status, "planned");
            reply.headers.extend(after.clone().map(|after| ("Retry-After", after)));
            reply
        }
        Fault::Redirect(status, location) => {
            let mut reply = Reply::text(*status, "elsewhere");
            reply.headers.push(("Location", location.clone()));
            reply
        }
        Fault::Body(bytes) => Reply { status: 200, headers: Vec::new(), body: bytes.clone().into() },
        Fault::Encoded(coding, bytes) => {
            let headers = vec![("Content-Encoding", (*coding).to_owned())];
            Reply { status: 200, headers, body: bytes.clone().into() }
        }
        Fault::Huge(bytes) => return line.write_huge(*bytes),
        Fault::NotHttp(bytes) => {
            line.write(bytes)?;
            return Ok(Next::Close);
        }
        _ => work::work(shared, route, seen, &body),
    };
    let next = line.write_spoilt(&fault, &reply);
    if route == Some(Route::Request) && is_lost(&fault) {
        work::take_back(shared, &reply);
    }
    next
}

/// Whether a client cannot have the whole answer.
fn is_lost(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::DropAnswer | Fault::Silence | Fault::Stall | Fault::Truncated | Fault::TruncatedChunks | Fault::Unframed
    )
}

impl Line {
    /// Returns the head of the next request, or nothing when there is none.
    fn read_head(&mut self, connection: usize) -> io::Result<Option<Seen>> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut head = httparse::Request::new(&mut headers);
            let parsed = head.parse(&self.pending).map_err(io::Error::other)?;
            if let httparse::Status::Complete(length) = parsed {
                let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
                let headers: BTreeMap<_, _> =
                    head.headers.iter().map(|header| (header.name.to_ascii_lowercase(), text(header.value))).collect();
                let method = head.method.unwrap_or_default().to_owned();
                let path = head.path.unwrap_or_default().to_owned();
                self.pending.drain(..length);
                return Ok(Some(Seen { method, path, headers, at: Instant::now(), connection }));
            }
            if self.pending.len() > HEAD_BYTES_MAX || self.fill()? == 0 {
                return Ok(None);
            }
        }
    }

    fn read_body(&mut self, seen: &Seen) -> io::Result<Vec<u8>> {
        let length = seen.headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        while self.pending.len() < length {
            if self.fill()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.pending.drain(..length).collect())
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut block = [0; 64 * 1024];
        let count = self.stream.read(&mut block)?;
        self.pending.extend_from_slice(&block[..count]);
        Ok(count)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Writes `reply`, or what `fault` leaves of it.
    fn write_spoilt(&mut self, fault: &Fault, reply: &Reply) -> io::Result<Next> {
        let half = &reply.body[..reply.body.len() / 2];
        match fault {
            Fault::DropAnswer => {}
            Fault::Silence => self.linger()?,
            Fault::Stall => {
                self.write(&reply.head(reply.body.len()))?;
                self.write(half)?;
                self.linger()?;
            }
            Fault::Slow(bytes_per_sec) => {
                self.write(&reply.head(reply.body.len()))?;
                for piece in reply.body.chunks(bytes_per_sec.div_ceil(PIECES_PER_SEC)) {
                    self.write(piece)?;
                    thread::sleep(Duration::from_secs(1) / u32::try_from(PIECES_PER_SEC).unwrap());
                }
                return Ok(Next::Request);
            }
            Fault::Truncated => {
                self.write(&reply.head(reply.body.len() + 1000))?;
                self.write(&reply.body)?;
            }
            Fault::Unframed => {
                self.write(&reply.unframed_head())?;
                self.write(half)?;
            }
            Fault::TruncatedChunks => {
                self.write(&reply.chunked_head())?;
                self.write(format!("{:x}\r\n", half.len().max(1)).as_bytes())?;
                self.write(if half.is_empty() { b" " } else { half })?;
                self.write(b"\r\n")?;
            }
            _ => {
                self.write(&reply.bytes())?;
                return Ok(Next::Request);
            }
        }
        Ok(Next::Close)
    }

    /// Writes spaces until there are `bytes` or the client has gone.
    fn write_huge(&mut self, bytes: u64) -> io::Result<Next> {
        self.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        self.write(format!("{bytes:x}\r\n").as_bytes())?;
        io::copy(&mut io::repeat(b' ').take(bytes), &mut self.stream)?;
        self.write(b"\r\n0\r\n\r\n")?;
        Ok(Next::Close)
    }

    /// Reads and forgets until the client has gone.
    fn linger(&mut self) -> io::Result<()> {
        self.pending.clear();
        io::copy(&mut self.stream, &mut io::sink()).map(|_| ())
    }
}
