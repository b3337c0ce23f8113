//! Several ways to do the same, side by side in one run.

use std::time::{Duration, Instant};

/// What is measured. It is compared with the last floor before it.
pub(crate) struct Contestant<'a> {
    pub(crate) name: &'a str,
    /// How many of what is measured one call does.
    pub(crate) per: usize,
    pub(crate) is_floor: bool,
    pub(crate) run: Box<dyn Fn() + 'a>,
}

/// Interleaved rounds, each starting with another contestant, so that a change of the machine's load meets all of them.
pub(crate) fn compare(contestants: &[Contestant<'_>], rounds: usize) {
    let mut samples = vec![Vec::new(); contestants.len()];
    for round in 0..=rounds {
        for turn in 0..contestants.len() {
            let at = (round + turn) % contestants.len();
            let start = Instant::now();
            (contestants[at].run)();
            if round > 0 {
                samples[at].push(start.elapsed());
            }
        }
    }
    println!("{rounds} rounds, medians");
    let mut floor_us = 0.0;
    for (contestant, times) in contestants.iter().zip(&mut samples) {
        let median_us = median(times).as_secs_f64() * 1e6 / contestant.per as f64;
        if contestant.is_floor {
            floor_us = median_us;
        }
        let (over_us, ratio) = (median_us - floor_us, median_us / floor_us);
        println!("{:40} {median_us:9.1} µs each   {over_us:+9.1} µs   ratio {ratio:.2}", contestant.name);
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
