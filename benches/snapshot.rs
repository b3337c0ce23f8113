//! What snapshots cost, beside the least they can cost on this machine in the same minutes.
//!
//! Without arguments: generates a tree of 4,000 files and 100 MB and compares, in interleaved rounds, medians. With a tree:
//! takes one snapshot of it, to be measured from outside; with `--index FILE` also with what the last one left in FILE.

#![expect(clippy::print_stdout, reason = "a program for people")]

use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use proving_ground::internals::{Roots, Snapshots};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, StatxFlags, openat, statx};
use sha2::{Digest as _, Sha256};

const FOLDERS: usize = 40;
const FILES: usize = 4000;
const ROUNDS: usize = 15;
const SHORT_ROUNDS: usize = 301;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        [] => compare(),
        ["--index", index, tree] => take(&Snapshots::with_index(Path::new(index)), Some(Path::new(index)), tree),
        [tree] => take(&Snapshots::default(), None, tree),
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

fn take(snapshots: &Snapshots, index: Option<&Path>, tree: &str) -> Outcome<()> {
    let tree = fs::canonicalize(tree)?;
    let taken = snapshots.take(&Roots::new(&[&tree]))?;
    if let Some(index) = index {
        snapshots.save_index(index)?;
    }
    println!("{} entries, {} files read", taken.entries(), snapshots.files_read());
    // The process ends here; to free 20,000 entries one by one first would be measured for nothing.
    std::mem::forget((taken, snapshots));
    Ok(())
}

fn compare() -> Outcome<()> {
    let scratch = tempfile::tempdir()?;
    let tree = scratch.path().join("tree");
    let small = scratch.path().join("small");
    let index = scratch.path().join("index");
    generate(&tree)?;
    let paths = generate_small(&small)?;
    // What is younger than a tick of the file system's clock is not remembered.
    std::thread::sleep(Duration::from_millis(50));

    let kept = Snapshots::default();
    let roots = Roots::new(&[&tree]);
    kept.take(&roots)?;
    kept.save_index(&index)?;
    let small_paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    let small_kept = Snapshots::default();
    let small_roots = Roots::new(&small_paths);
    small_kept.take(&small_roots)?;

    table(
        "first snapshot: every byte is read and hashed",
        ROUNDS,
        &[
            ("read + SHA-256", &|| walk(&tree, Reading::Hash)),
            ("sha256sum", &|| sha256sum(&tree)),
            ("snapshot", &|| Ok(Snapshots::default().take(&roots)?.entries())),
        ],
    )?;
    table(
        "second snapshot: nothing changed",
        3 * ROUNDS,
        &[
            ("getdents + statx", &|| walk(&tree, Reading::Nothing)),
            ("snapshot, same process", &|| Ok(kept.take(&roots)?.entries())),
            ("snapshot, index of another process", &|| Ok(Snapshots::with_index(&index).take(&roots)?.entries())),
        ],
    )?;
    table(
        "a suite's three snapshots of 100 small unchanged files",
        SHORT_ROUNDS,
        &[
            ("300 statx", &|| small_paths.iter().cycle().take(300).try_fold(0, |sum, path| Ok(sum + stat(path)?))),
            ("3 snapshots", &|| (0..3).try_fold(0, |sum, _| Ok(sum + small_kept.take(&small_roots)?.entries()))),
            ("3 snapshots with their JSON texts", &|| {
                (0..3).try_fold(0, |sum, _| Ok(sum + small_kept.take(&small_roots)?.json()?.len()))
            }),
        ],
    )
}

/// A name, and something that is measured; it returns a count, so that nothing is optimised away.
type Row<'a> = (&'a str, &'a dyn Fn() -> Outcome<usize>);

/// Prints the median of each row, and its ratio to the first row's. Every round starts with another row.
fn table(title: &str, rounds: usize, rows: &[Row<'_>]) -> Outcome<()> {
    println!("\n{title}");
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); rows.len()];
    let mut failures: Vec<Option<String>> = rows.iter().map(|(_, run)| run().err().map(|e| e.to_string())).collect();
    for round in 0..rounds {
        for turn in 0..rows.len() {
            let at = (round + turn) % rows.len();
            if failures[at].is_none() {
                let start = Instant::now();
                let outcome = (rows[at].1)();
                times[at].push(start.elapsed());
                failures[at] = outcome.err().map(|error| error.to_string());
            }
        }
    }
    let mut floor = None;
    for ((name, _), (times, failure)) in rows.iter().zip(times.iter_mut().zip(&failures)) {
        times.sort_unstable();
        match (failure, times.get(times.len() / 2)) {
            (None, Some(median)) => {
                let floor = *floor.get_or_insert(*median);
                let ratio = median.as_secs_f64() / floor.as_secs_f64();
                println!("  {name:<36} {:>10.3} ms  {ratio:>6.2}", median.as_secs_f64() * 1e3);
            }
            (failure, _) => println!("  {name:<36} not measured: {}", failure.as_deref().unwrap_or("no rounds")),
        }
    }
    Ok(())
}

fn generate(tree: &Path) -> Outcome<()> {
    let mut state = 1_u64;
    for i in 0..FILES {
        let folder = tree.join(format!("{:03}", i % FOLDERS));
        fs::create_dir_all(&folder)?;
        let bytes = if i % 100 == 0 { 1_000_000 } else { 1_000 + (i * 7919) % 28_500 };
        let content: Vec<u8> = std::iter::repeat_with(|| xorshift(&mut state)).take(bytes).collect();
        fs::write(folder.join(format!("{i:05}")), content)?;
    }
    Ok(())
}

fn generate_small(folder: &Path) -> Outcome<Vec<PathBuf>> {
    fs::create_dir_all(folder)?;
    let paths: Vec<PathBuf> = (0..100).map(|i| folder.join(format!("applet-{i}"))).collect();
    for path in &paths {
        fs::write(path, path.as_os_str().as_bytes())?;
    }
    Ok(paths)
}

fn xorshift(state: &mut u64) -> u8 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    state.to_le_bytes()[3]
}

#[derive(Clone, Copy)]
enum Reading {
    Nothing,
    Hash,
}

/// The least a walk can do: nothing is kept, sorted or compared.
fn walk(root: &Path, reading: Reading) -> Outcome<usize> {
    let mut entries = 0;
    let mut names = Vec::with_capacity(32 << 10);
    let mut buffer = vec![0; 256 << 10];
    let mut folders = vec![root.to_owned()];
    while let Some(path) = folders.pop() {
        let folder = openat(CWD, &path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let mut list = RawDir::new(&folder, names.spare_capacity_mut());
        while let Some(entry) = list.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let stat = statx(&folder, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)?;
            entries += 1;
            match (FileType::from_raw_mode(stat.stx_mode.into()), reading) {
                (FileType::Directory, _) => folders.push(path.join(OsStr::from_bytes(name.to_bytes()))),
                (FileType::RegularFile, Reading::Hash) => hash(folder.as_fd(), name, &mut buffer)?,
                _ => {}
            }
        }
    }
    Ok(entries)
}

fn hash(folder: BorrowedFd<'_>, name: &std::ffi::CStr, buffer: &mut [u8]) -> Outcome<()> {
    let file = openat(folder, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let mut hash = Sha256::new();
    loop {
        let count = rustix::io::read(&file, &mut *buffer)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
    }
    std::hint::black_box(hash.finalize());
    Ok(())
}

fn stat(path: &Path) -> Outcome<usize> {
    Ok(usize::from(statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)?.stx_mode))
}

#[expect(clippy::disallowed_methods, reason = "a bench may start a program to compare with")]
fn sha256sum(tree: &Path) -> Outcome<usize> {
    let mut files = Vec::new();
    for folder in fs::read_dir(tree)? {
        for file in fs::read_dir(folder?.path())? {
            files.push(file?.path());
        }
    }
    let output = std::process::Command::new("sha256sum").args(&files).output()?;
    if output.status.success() { Ok(output.stdout.len()) } else { Err("it failed".into()) }
}
