//! What the harness promises, seen from outside: every claim runs this very program again, as a harness over suites that it
//! has written into a folder of its own, and looks at exit code, text and evidence.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a claim fails by a panic")]

#[path = "harness/blocks.rs"]
mod blocks;
#[path = "harness/discovery.rs"]
mod discovery;
#[path = "harness/failure_text.rs"]
mod failure_text;
#[path = "harness/interrupts.rs"]
mod interrupts;
#[path = "harness/isolation.rs"]
mod isolation;
#[path = "harness/listing.rs"]
mod listing;
#[path = "harness/nextest.rs"]
mod nextest;
#[path = "harness/order.rs"]
mod order;
#[path = "harness/outputs.rs"]
mod outputs;
#[path = "harness/presence.rs"]
mod presence;
#[path = "harness/product_log.rs"]
mod product_log;
#[path = "harness/reports.rs"]
mod reports;
#[path = "harness/sandboxed.rs"]
mod sandboxed;
#[path = "harness/selection.rs"]
mod selection;
#[path = "harness/setups.rs"]
mod setups;
#[path = "harness/strictness.rs"]
mod strictness;
#[path = "harness/threads.rs"]
mod threads;
#[path = "harness/verdicts.rs"]
mod verdicts;
#[path = "harness/world.rs"]
mod world;

fn main() -> std::process::ExitCode {
    world::main(|| {
        [
            blocks::claims(),
            discovery::claims(),
            failure_text::claims(),
            interrupts::claims(),
            isolation::claims(),
            listing::claims(),
            nextest::claims(),
            order::claims(),
            outputs::claims(),
            presence::claims(),
            product_log::claims(),
            reports::claims(),
            sandboxed::claims(),
            selection::claims(),
            setups::claims(),
            strictness::claims(),
            threads::claims(),
            verdicts::claims(),
        ]
        .into_iter()
        .flatten()
        .collect()
    })
}
