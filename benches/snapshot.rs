//! What snapshots cost, beside the least they can cost.
#![expect(clippy::print_stdout, reason = "a program for people")]

use std::error::Error;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use proving_ground::internals::Snapshots;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        [] => compare(),
        ["--index", index, tree] => snapshot(&Snapshots::with_index(Path::new(index)), Some(Path::new(index)), tree),
        [tree] => snapshot(&Snapshots::default(), None, tree),
        _ => Err("usage: snapshot [[--index FILE] TREE]".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn snapshot(snapshots: &Snapshots, index: Option<&Path>, tree: &str) -> Outcome<()> {
    let tree = fs::canonicalize(tree)?;
    let taken = snapshots.take(&[&tree])?;
    if let Some(index) = index {
        snapshots.save_index(index)?;
    }
    println!("{} entries, {} files read", taken.entries(), snapshots.files_read());
    std::mem::forget(taken);
    Ok(())
}
fn compare() -> Outcome<()> {
    Ok(())
}
