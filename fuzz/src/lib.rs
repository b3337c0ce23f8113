//! What holds of every input, however broken: the claims of the fuzz targets. `tests/regressions.rs` holds the seeds and the
//! findings against them, too.

use std::time::Duration;
#[cfg(feature = "worker")]
use std::{
    collections::BTreeMap,
    fs,
    os::unix::ffi::OsStrExt as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use proving_ground::internals::script::{Completion, EndedBy, Exit, Stream, Usage};
#[cfg(feature = "worker")]
use proving_ground::internals::{NotUnpacked, UnpackLimits, read_job, unpack};
use proving_ground::internals::{Outcome, Read, outcome, read_properties, read_runner, read_task};
use serde_json::json;
#[cfg(feature = "worker")]
use serde_json::value::RawValue;

/// Bytes of one error: it is a line that somebody reads.
const ERROR_BYTES_MAX: usize = 4 << 10;
const DURATION_MAX: Duration = Duration::from_secs(10_000_000);
const SIZE_BYTES_MAX: u64 = 1 << 40;
const SHORT_RESULT_BYTES_MAX: usize = 1024;
/// Texts with fewer brackets than this are never too deep for a footer.
const BRACKETS_FREE: usize = 90;
/// Lines that are longer are cut before they are read.
const LINE_BYTES_MAX: usize = 64 << 10;
/// What docs/worker.md says of archives.
#[cfg(feature = "worker")]
const USUAL: UnpackLimits = UnpackLimits { bytes_max: 512 << 20, entries_max: 20_000, depth_max: 32 };
#[cfg(feature = "worker")]
const RATIO_MAX: u64 = 200;
#[cfg(feature = "worker")]
const RATIO_FREE_BYTES: u64 = 16 << 20;
#[cfg(feature = "worker")]
const NARROW: UnpackLimits = UnpackLimits { bytes_max: 200, entries_max: 4, depth_max: 2 };
#[cfg(feature = "worker")]
const NAME_BYTES_MAX: usize = 255;
#[cfg(feature = "worker")]
const PATH_BYTES_MAX: usize = 1024;

/// Holds an input against claims; panics if one does not hold.
pub type Claims = fn(&[u8]);

/// The name of each target, and its claims.
pub const TARGETS: &[(&str, Claims)] = &[
    ("task", task),
    ("runner", runner),
    ("properties", properties),
    ("footer", footer),
    #[cfg(feature = "worker")]
    ("job", job),
    #[cfg(feature = "worker")]
    ("archive", archive),
];

/// Holds a `task.yaml` against the claims.
pub fn task(text: &[u8]) {
    file(read_task, text);
}

/// Holds a `runner.yaml` against the claims.
pub fn runner(text: &[u8]) {
    file(read_runner, text);
}

/// Holds a `test.properties.json` against the claims.
pub fn properties(text: &[u8]) {
    let Some(read) = file(read_properties, text) else { return };
    for (at, (script, needs)) in read.scripts.iter().enumerate() {
        let inside = script.split('/').all(|part| !matches!(part, "" | "." | ".."));
        assert!(inside, "`{script}` is no path in the set-up");
        let (before, after) = read.scripts.split_at(at);
        assert!(after[1..].iter().all(|(other, _)| other != script), "`{script}` would run twice");
        for need in needs {
            assert!(before.iter().any(|(other, _)| other == need), "`{script}` would run before `{need}`");
        }
    }
}

/// Holds a job, as a server sends it, against the claims.
#[cfg(feature = "worker")]
pub fn job(text: &[u8]) {
    let result = read_job(text);
    assert_eq!(result, read_job(text), "read twice, it is not the same");
    let read = match result {
        Ok(read) => read,
        Err(error) => return expect_line(&error),
    };
    assert_eq!(read_job(read.record.as_bytes()).as_ref(), Ok(&read), "what is kept of it is another job");
    properties(read.manifest.as_bytes());
    if let Some(name) = &read.submission_name {
        let is_plain =
            !matches!(name.as_str(), "" | "." | "..") && !name.contains(['/', '\0']) && name.len() <= NAME_BYTES_MAX;
        assert!(is_plain, "`{name}` is no name of a file in its folder");
    }
    for place in &read.places {
        let (Ok(shown) | Err(shown)) = place;
        expect_line(shown);
        let has_key = place.as_ref().is_ok_and(|place| {
            place.contains(['?', '#']) || place.split('/').nth(2).is_none_or(|host| host.contains('@'))
        });
        assert!(!has_key, "{place:?} is no address that people may see");
    }
    // A key that is not known may hold what is no text.
    let Ok(sent) = serde_json::from_slice::<BTreeMap<String, Box<RawValue>>>(text) else { return };
    if let Some(number) =
        sent.get("assignmentSeed").filter(|sent| sent.get().starts_with(|c: char| c != '"' && c != 'n'))
    {
        assert_eq!(read.seed.as_deref(), Some(number.get()), "the seed is not the digits that were sent");
    }
}

/// Holds a zip archive against the claims: only plain files and folders come out, only where they belong, and no more than is allowed.
/// It is unpacked with the usual limits and with narrow ones, which small archives can meet, too.
#[cfg(feature = "worker")]
pub fn archive(bytes: &[u8]) {
    // In memory, where the machine has such a folder: a run makes millions.
    let memory = Path::new("/dev/shm");
    let root = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let root = root.expect("a folder can be made");
    let (usual, lies) = unpacked(bytes, &root.path().join("usual"), None);
    let beyond_ratio = RATIO_FREE_BYTES.max(RATIO_MAX * bytes.len() as u64);
    expect_within(&lies, UnpackLimits { bytes_max: beyond_ratio.min(USUAL.bytes_max), ..USUAL });
    let (narrow, lies_narrowly) = unpacked(bytes, &root.path().join("narrow"), Some(NARROW));
    expect_within(&lies_narrowly, NARROW);
    if !narrow.as_ref().is_err_and(|error| error.is_too_much) {
        assert_eq!((usual, lies), (narrow, lies_narrowly), "unpacked twice, it is not the same");
    }
    let beside = fs::read_dir(root.path()).expect("the folder can be read").count();
    assert_eq!(beside, 2, "something was written beside the folders");
}

/// The path of each thing that was unpacked, and its content if it is a file.
#[cfg(feature = "worker")]
type Lies = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

#[cfg(feature = "worker")]
fn unpacked(bytes: &[u8], into: &Path, limits: Option<UnpackLimits>) -> (Result<(u64, u64), NotUnpacked>, Lies) {
    fs::create_dir(into).expect("a folder can be made");
    let result = unpack(bytes, into, limits);
    let mut lies = Lies::new();
    look(into, into, &mut lies);
    match &result {
        Ok(told) => {
            let files = lies.values().flatten();
            assert_eq!(
                *told,
                (files.clone().count() as u64, files.map(|file| file.len() as u64).sum()),
                "it tells of others"
            );
        }
        Err(NotUnpacked { why, is_ours, is_refusal, .. }) => {
            expect_line(why);
            assert!(!is_ours, "an archive makes the disk fail: {why}");
            assert!(!is_refusal || lies.is_empty(), "something was written although {why}");
        }
    }
    (result, lies)
}

#[cfg(feature = "worker")]
fn look(root: &Path, folder: &Path, lies: &mut Lies) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        let meta = path.symlink_metadata().expect("what was unpacked can be looked at");
        let mode = meta.permissions().mode();
        assert!(matches!(mode, 0o100_644 | 0o100_755 | 0o040_755), "{mode:o} {}", path.display());
        assert!(meta.is_dir() || meta.nlink() == 1, "`{}` has another name", path.display());
        let content = meta.is_file().then(|| fs::read(&path).expect("what was unpacked can be read"));
        let name = path.strip_prefix(root).expect("it lies below").as_os_str().as_bytes();
        lies.insert(name.to_owned(), content);
        if meta.is_dir() {
            look(root, &path, lies);
        }
    }
}

#[cfg(feature = "worker")]
fn expect_within(lies: &Lies, limits: UnpackLimits) {
    let bytes: usize = lies.values().flatten().map(Vec::len).sum();
    assert!(bytes as u64 <= limits.bytes_max, "{bytes} bytes were written");
    assert!(lies.len() as u64 <= limits.entries_max.into(), "{} files and folders were made", lies.len());
    for path in lies.keys() {
        let shown = path.escape_ascii();
        assert!(path.split(|byte| *byte == b'/').count() as u64 <= limits.depth_max.into(), "`{shown}` is too deep");
        assert!(path.len() <= PATH_BYTES_MAX, "`{shown}` is too long");
        assert!(!String::from_utf8_lossy(path).chars().any(char::is_control), "`{shown}` cannot be seen as it is");
    }
}

/// Reads a file twice: the same comes of it, limits are within their bounds, errors are lines for people.
fn file(read: fn(&[u8]) -> Result<Read, String>, text: &[u8]) -> Option<Read> {
    let result = read(text);
    assert_eq!(result, read(text), "read twice, it is not the same");
    match result {
        Ok(read) => {
            let time = Duration::ZERO..=DURATION_MAX;
            assert!(read.durations.iter().all(|one| !one.is_zero() && time.contains(one)), "{:?}", read.durations);
            assert!(read.sizes_bytes.iter().all(|one| (1..=SIZE_BYTES_MAX).contains(one)), "{:?}", read.sizes_bytes);
            Some(read)
        }
        Err(error) => {
            expect_line(&error);
            None
        }
    }
}

/// What people are told.
fn expect_line(text: &str) {
    assert!(!text.chars().any(char::is_control), "the text holds control characters: {text:?}");
    assert!(text.len() <= ERROR_BYTES_MAX, "the text has {} bytes: {text:.200}", text.len());
}

/// Holds what a script left behind against the claims. The first byte says how it ended, the second whether its streams have a gap;
/// stdout ends with the first record separator (0x1E), the rest is stderr.
pub fn footer(input: &[u8]) {
    let &[end, gap, ref streams @ ..] = input else { return };
    let mut streams = streams.splitn(2, |byte| *byte == 0x1e);
    let (stdout, stderr) = (streams.next().unwrap_or_default(), streams.next().unwrap_or_default());
    let completion = completion(end, stream(stdout, gap), stream(stderr, gap));
    let told = outcome(&completion);
    assert_eq!(told, outcome(&completion), "judged twice, it is not the same");
    expect_tellable(&told);
    assert_eq!(told.status, status(&completion), "the status is the exit's alone");
    if let Ok(text) = std::str::from_utf8(stderr) {
        expect_text_is_found(text, completion);
    }
}

fn completion(end: u8, stdout: Stream, stderr: Stream) -> Completion {
    let (exit, ended_by) = match end {
        b'0'..=b'9' => (Exit::Code(i32::from(end - b'0')), EndedBy::Itself),
        b't' => (Exit::Code(0), EndedBy::Timeout),
        b'c' => (Exit::Code(0), EndedBy::Cancel),
        b'm' => (Exit::Signal(9), EndedBy::OutOfMemory),
        b's' => (Exit::Signal(9), EndedBy::SupervisorKilled),
        code @ 128.. => (Exit::Code(i32::from(code)), EndedBy::Itself),
        signal => (Exit::Signal(i32::from(signal)), EndedBy::Itself),
    };
    let usage = Usage::default();
    let (wall, leaked, log_error, unkept) = (Duration::ZERO, Vec::new(), None, None);
    Completion { exit, ended_by, stdout, stderr, wall, usage, leaked, log_error, unkept }
}

/// `0` is a stream that was kept whole; any other byte cuts it there and says that something is missing.
fn stream(bytes: &[u8], gap: u8) -> Stream {
    let (head, tail) = match gap {
        b'0' => (bytes, [].as_slice()),
        at => bytes.split_at(usize::from(at).min(bytes.len())),
    };
    let missing = if gap == b'0' { 0 } else { u64::from(gap) << 20 };
    Stream { head: head.to_vec(), tail: tail.to_vec(), total_bytes: bytes.len() as u64 + missing }
}

fn expect_tellable(told: &Outcome) {
    assert!(told.short_result.len() <= SHORT_RESULT_BYTES_MAX, "{} bytes", told.short_result.len());
    assert!(!told.short_result.contains('\0'), "the short result holds a NUL");
    assert!(!told.long_result.iter().any(|text| text.is_empty() || text.contains('\0')), "{:?}", told.long_result);
}

fn status(completion: &Completion) -> &'static str {
    match (completion.ended_by, completion.exit) {
        (EndedBy::Timeout, _) => "timeout",
        (EndedBy::Itself, Exit::Code(0)) => "pass",
        (EndedBy::Itself, Exit::Code(1)) => "fail",
        (EndedBy::Itself | EndedBy::Cancel | EndedBy::OutOfMemory | EndedBy::SupervisorKilled, _) => "error",
    }
}

/// Whatever a script printed before, the text of a well-formed footer on its last line arrives.
fn expect_text_is_found(text: &str, mut completion: Completion) {
    let line = format!("\n{}\n", json!({ "shortResult": text }));
    let brackets = text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count();
    if brackets > BRACKETS_FREE || line.len() > LINE_BYTES_MAX {
        return;
    }
    completion.stdout.total_bytes += line.len() as u64;
    completion.stdout.tail.extend_from_slice(line.as_bytes());
    let found = outcome(&completion).short_result;
    let whole = text.replace('\0', "\u{fffd}");
    assert!(whole.starts_with(&found), "the footer says {whole:?}, found {found:?}");
    let is_whole = found.len() == whole.len() || found.len() + 4 > SHORT_RESULT_BYTES_MAX;
    assert!(is_whole, "the footer says {whole:?}, cut to {found:?}");
}
