//! When something is tried again, and after how long.
//!
//! Source: docs/protocol.md, "Retry".

use std::hash::{BuildHasher, Hasher, RandomState};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

use super::api::ApiError;
use super::stop::Stop;

/// The longest time that a server can make us wait.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);

/// What a failure means for the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// It may work later; `after` is what the server asked for.
    Retry { after: Option<Duration> },
    /// 401, 403: only a poll is worth another try, for secrets are changed on servers.
    Auth,
    /// It will not work.
    Terminal,
    /// We were told to stop.
    Stopped,
}

impl ApiError {
    /// What this failure means for the next attempt.
    pub(super) fn class(&self) -> Class {
        match self {
            Self::Connect { .. }
            | Self::Dropped { .. }
            | Self::Stalled { .. }
            | Self::TooSlow { .. }
            | Self::Truncated { .. }
            // A proxy's login page, half a deployment: no fault of the request.
            | Self::Garbage { .. } => Class::Retry { after: None },
            Self::Status { code, retry_after, .. } => class_of_status(*code, *retry_after),
            Self::IdInUse { .. }
            | Self::TooLarge { .. }
            | Self::Refused { .. }
            | Self::Misled { .. }
            | Self::Disk { .. }
            | Self::Unsent { .. } => Class::Terminal,
            Self::Stopped => Class::Stopped,
        }
    }

    /// Whether a server has looked at a result and will never take it; of one that is too large: however much was cut of it. Any other
    /// answer may be that of a proxy, of half a deployment, of a wrong address, and what is lost for it would be lost for nothing.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Status { code: 400 | 413 | 422, .. })
    }
}

fn class_of_status(code: u16, after: Option<Duration>) -> Class {
    match code {
        408 | 425 | 429 | 500 | 502 | 503 | 504 => Class::Retry { after },
        401 | 403 => Class::Auth,
        _ => Class::Terminal,
    }
}

/// How often and how patiently something is tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    /// After the first failure.
    pub(super) base: Duration,
    /// The longest delay, without the jitter and what a server asks for.
    pub(super) max: Duration,
    /// The longest delay that a server can ask for.
    pub(super) asked_max: Duration,
    /// Later than that after the first attempt there is none.
    pub(super) time_max: Duration,
    /// Attempts in all.
    pub(super) attempts_max: NonZeroU32,
    /// Off means one attempt.
    pub(super) is_on: bool,
}

impl Policy {
    /// Returns how long to wait after `failed` failures, at least `asked` (`asked_max` at most), and up to a quarter more.
    ///
    /// `min(max, base * 2^(failed - 1))`: after the first failure `base`.
    pub(super) fn delay(&self, failed: u32, asked: Option<Duration>, jitter: &mut Jitter) -> Duration {
        let factor = 2u32.checked_pow(failed.saturating_sub(1)).unwrap_or(u32::MAX);
        let own = self.base.saturating_mul(factor).min(self.max);
        let wait = own.max(asked.unwrap_or_default().min(self.asked_max));
        wait + jitter.up_to(wait / 4)
    }

    /// Returns how long to wait where nothing is to be lost and no attempt is the last, once quick ones are of no use: twice the longest
    /// delay, at least `asked` (an hour at most), and up to a quarter more.
    pub(super) fn later(&self, asked: Option<Duration>, jitter: &mut Jitter) -> Duration {
        let patient = Self { base: self.max.saturating_mul(2), max: self.max.saturating_mul(2), ..*self };
        patient.delay(1, asked, jitter)
    }

    /// Whether another attempt follows `failed` failures.
    pub(super) fn goes_on(&self, failed: u32) -> bool {
        self.is_on && failed < self.attempts_max.get()
    }
}

/// Random enough that workers which failed together do not come back together; the same for the same seed.
#[derive(Debug, Clone)]
pub(super) struct Jitter(u64);

impl Jitter {
    /// The sequence of `seed`.
    pub(super) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// A sequence that no other process has.
    pub(super) fn fresh() -> Self {
        Self::seeded(RandomState::new().build_hasher().finish())
    }

    /// Returns a duration between zero and `most`, both included.
    pub(super) fn up_to(&mut self, most: Duration) -> Duration {
        // A 32nd of a bit more or less does not matter: what matters is that it is spread.
        let share = u32::try_from(self.next() >> 32).unwrap_or(u32::MAX);
        most.mul_f64(f64::from(share) / f64::from(u32::MAX))
    }

    /// The next number of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Makes attempts until one works, will never work, or was the last; tells `failed` of each failure that is followed by another
/// attempt, which one it was (from 1), and how long the wait will be.
///
/// # Errors
///
/// The last attempt's error; [`ApiError::Stopped`] when `stop` was set during a wait.
pub(super) fn with_retries<T>(
    policy: &Policy,
    stop: &Stop,
    failed: &mut dyn FnMut(&ApiError, u32, Duration),
    mut attempt: impl FnMut() -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    let (begun, mut jitter) = (Instant::now(), Jitter::fresh());
    let mut failures = 0;
    loop {
        let error = match attempt() {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        failures += 1;
        let Class::Retry { after } = error.class() else { return Err(error) };
        if !policy.goes_on(failures) {
            return Err(error);
        }
        let delay = policy.delay(failures, after, &mut jitter);
        if begun.elapsed().saturating_add(delay) > policy.time_max {
            return Err(error);
        }
        failed(&error, failures, delay);
        if stop.wait(delay) {
            return Err(ApiError::Stopped);
        }
    }
}

/// Returns what a `Retry-After` header asks for, an hour at most: seconds, or the time until an HTTP date. `None` for anything else.
///
/// Source: RFC 9110, 10.2.3; of the date's forms the one that is not obsolete.
pub(super) fn retry_after(header: &str, now: Timestamp) -> Option<Duration> {
    let header = header.trim();
    if !header.is_empty() && header.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a long time, too.
        return Some(header.parse().map_or(RETRY_AFTER_MAX, Duration::from_secs).min(RETRY_AFTER_MAX));
    }
    let date = DateTimeParser::new().parse_timestamp(header).ok()?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default().min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn policy() -> Policy {
        Policy {
            base: SECOND,
            max: 30 * SECOND,
            asked_max: RETRY_AFTER_MAX,
            time_max: Duration::MAX,
            attempts_max: NonZeroU32::new(4).unwrap(),
            is_on: true,
        }
    }

    fn status(code: u16) -> ApiError {
        ApiError::Status { url: String::new(), code, retry_after: None, text: String::new() }
    }

    #[test]
    fn delays_double_up_to_the_longest_and_grow_by_at_most_a_quarter() {
        for seed in 0..200 {
            let mut jitter = Jitter::seeded(seed);
            for (failed, secs) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 30), (7, 30), (33, 30), (u32::MAX, 30)]
            {
                let delay = policy().delay(failed, None, &mut jitter);
                let least = Duration::from_secs(secs);
                assert!(delay >= least && delay <= least + least / 4, "{failed}: {delay:?}");
            }
        }
    }

    #[test]
    fn jitter_is_spread_and_the_same_for_the_same_seed() {
        let delays = |seed| {
            let mut jitter = Jitter::seeded(seed);
            (0..100).map(|_| policy().delay(1, None, &mut jitter)).collect::<Vec<_>>()
        };
        assert_eq!(delays(1), delays(1));
        assert_ne!(delays(1), delays(2));
        let upper = delays(1).iter().filter(|delay| **delay > SECOND + SECOND / 8).count();
        assert!((30..70).contains(&upper), "{upper} of 100 are in the upper half");
    }

    #[test]
    fn a_server_is_given_the_time_that_it_asks_for_and_no_more_than_an_hour() {
        let mut jitter = Jitter::seeded(1);
        let mut secs = |asked| policy().delay(1, Some(Duration::from_secs(asked)), &mut jitter).as_secs();
        assert!((120..=150).contains(&secs(120)));
        assert!((3600..=4500).contains(&secs(1_000_000)));
        assert!(secs(0) <= 2, "at least the own delay");
        let bounded = Policy { asked_max: 5 * SECOND, ..policy() };
        let delay = bounded.delay(1, Some(3600 * SECOND), &mut Jitter::seeded(1));
        assert!((5 * SECOND..=7 * SECOND).contains(&delay), "{delay:?}");
    }

    #[test]
    fn what_would_come_too_late_is_not_tried_again() {
        let asked = |after| ApiError::Status { url: String::new(), code: 503, retry_after: after, text: String::new() };
        for (after, expected) in [(Some(3600 * SECOND), 1), (None, 4)] {
            let bounded = Policy { base: Duration::ZERO, time_max: 3599 * SECOND, ..policy() };
            let mut made = 0;
            let outcome = with_retries(&bounded, &Stop::default(), &mut |_, _, _| (), || {
                made += 1;
                Err::<(), _>(asked(after))
            });
            assert!(matches!(outcome, Err(ApiError::Status { .. })));
            assert_eq!(made, expected, "{after:?}");
        }
    }

    #[test]
    fn statuses_are_tried_again_as_the_protocol_says() {
        for code in 400..600 {
            let class = status(code).class();
            let expected = match code {
                408 | 425 | 429 | 500 | 502 | 503 | 504 => Class::Retry { after: None },
                401 | 403 => Class::Auth,
                _ => Class::Terminal,
            };
            assert_eq!(class, expected, "{code}");
        }
    }

    /// Makes attempts that answer `codes`, one after another, and 200 after those; returns how many there were, and what came of it.
    fn attempts(policy: Policy, stop: &Stop, codes: &[u16]) -> (usize, Result<(), ApiError>) {
        let mut made = 0;
        let policy = Policy { base: Duration::ZERO, ..policy };
        let outcome = with_retries(&policy, stop, &mut |_, _, _| (), || {
            made += 1;
            codes.get(made - 1).map_or(Ok(()), |code| Err(status(*code)))
        });
        (made, outcome)
    }

    #[test]
    fn attempts_go_on_until_one_works_or_the_last_has_failed() {
        let stop = Stop::default();
        assert!(matches!(attempts(policy(), &stop, &[]), (1, Ok(()))));
        assert!(matches!(attempts(policy(), &stop, &[503, 429, 500]), (4, Ok(()))));
        assert!(matches!(attempts(policy(), &stop, &[503; 9]), (4, Err(ApiError::Status { code: 503, .. }))));
        assert!(matches!(attempts(policy(), &stop, &[503, 404]), (2, Err(ApiError::Status { code: 404, .. }))));
        assert!(matches!(attempts(policy(), &stop, &[401]), (1, Err(ApiError::Status { code: 401, .. }))));
        let off = Policy { is_on: false, ..policy() };
        assert!(matches!(attempts(off, &stop, &[503]), (1, Err(ApiError::Status { code: 503, .. }))));
    }

    #[test]
    fn a_stop_ends_the_wait_between_attempts() {
        let (stop, mut told) = (Stop::default(), Vec::new());
        let patient = Policy { base: 3600 * SECOND, max: 3600 * SECOND, ..policy() };
        let outcome = with_retries(
            &patient,
            &stop,
            &mut |error, failures, delay| {
                told.push((error.class(), failures, delay >= 3600 * SECOND));
                stop.set();
            },
            || Err::<(), _>(status(503)),
        );
        assert!(matches!(outcome, Err(ApiError::Stopped)));
        assert_eq!(told, [(Class::Retry { after: None }, 1, true)]);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now: Timestamp = "2026-02-20T14:04:10Z".parse().unwrap();
        let cases = [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("3601", Some(3600)),
            ("99999999999999999999999999", Some(3600)),
            ("Fri, 20 Feb 2026 14:05:10 GMT", Some(60)),
            ("Fri, 20 Feb 2026 14:00:00 GMT", Some(0)),
            ("Sat, 20 Feb 2027 14:00:00 GMT", Some(3600)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ];
        for (header, secs) in cases {
            assert_eq!(retry_after(header, now), secs.map(Duration::from_secs), "`{header}`");
        }
    }
}
