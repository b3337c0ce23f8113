//! What goes wrong, and when.

use std::collections::{BTreeMap, VecDeque};

use super::Route;

/// What goes wrong with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// This status instead of the work, perhaps with a `Retry-After`.
    Status(u16, Option<String>),
    /// The connection ends before the body is read.
    DropUnread,
    /// This status before the body is read, and the connection ends.
    RefuseUnread(u16),
    /// The work is done and the connection ends without an answer.
    DropAnswer,
    /// The work is done and nothing is answered, for as long as the client waits.
    Silence,
    /// Half of the answer's body, and then nothing, for as long as the client waits.
    Stall,
    /// The answer's body comes in pieces, so many bytes in a second.
    Slow(usize),
    /// The answer ends in the middle, though its `Content-Length` promises more.
    Truncated,
    /// The answer is in chunks, and the last one does not come.
    TruncatedChunks,
    /// Half of the answer's body, without a word on its length: the end of the connection looks like the body's.
    Unframed,
    /// 200 with this instead of the work.
    Body(Vec<u8>),
    /// 200 with this `Content-Encoding` and these bytes instead of the work.
    Encoded(&'static str, Vec<u8>),
    /// 200 with so many spaces instead of the work, in one chunk, without a `Content-Length`.
    Huge(u64),
    /// These bytes instead of an HTTP answer.
    NotHttp(Vec<u8>),
    /// This status and `Location`.
    Redirect(u16, String),
}

/// Of a slow answer that nobody has planned, in a second.
const SLOW_BYTES: usize = 8000;

/// What will go wrong.
#[derive(Debug, Default)]
pub(super) struct Plan {
    scripts: BTreeMap<Route, VecDeque<Fault>>,
    /// A generator and how often it strikes.
    random: Option<(u64, u64)>,
}

impl Plan {
    pub(super) fn script(&mut self, route: Route, faults: impl IntoIterator<Item = Fault>) {
        self.scripts.entry(route).or_default().extend(faults);
    }

    pub(super) fn chaos(&mut self, seed: u64, percent: u64) {
        self.random = Some((seed, percent));
    }

    /// Returns what goes wrong with the next request of `route`.
    pub(super) fn next(&mut self, route: Route) -> Fault {
        if let Some(fault) = self.scripts.entry(route).or_default().pop_front() {
            return fault;
        }
        let Some((generator, percent)) = &mut self.random else { return Fault::None };
        if draw(generator) % 100 >= *percent {
            return Fault::None;
        }
        match draw(generator) % 9 {
            0 => Fault::Status(503, None),
            1 => Fault::Status(429, Some("0".to_owned())),
            2 => Fault::Status(500, None),
            3 => Fault::DropUnread,
            4 => Fault::DropAnswer,
            5 => Fault::Truncated,
            6 => Fault::TruncatedChunks,
            7 => Fault::Slow(SLOW_BYTES),
            // Of a file nobody could tell that it is another.
            _ if route == Route::Files => Fault::Status(504, None),
            _ => Fault::Body(b"<html>please log in</html>".to_vec()),
        }
    }
}

/// The next number of a 64-bit xorshift generator (Marsaglia), spread by a multiplication.
fn draw(generator: &mut u64) -> u64 {
    *generator = (*generator).max(1);
    *generator ^= *generator >> 12;
    *generator ^= *generator << 25;
    *generator ^= *generator >> 27;
    generator.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
}
