//! Archives that people make, and archives that are written byte by byte to harm.

use std::fs;
use std::io::Cursor;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use flate2::Crc;
use flate2::write::DeflateEncoder;
use pretty_assertions::assert_eq;
use tempfile::TempDir;

use super::*;

/// A member of an archive that is written as it stands, true or not.
#[derive(Clone)]
struct Member {
    name: Vec<u8>,
    /// In the local header.
    local_name: Vec<u8>,
    /// As it lies in the archive.
    content: Vec<u8>,
    bytes: u32,
    crc: u32,
    method: u16,
    flags: u16,
    /// The system and the upper half of its attributes.
    system: u16,
    mode: u32,
    dos: u32,
    /// Extra field of the directory.
    extra: Vec<u8>,
    /// Points to the local header of an earlier member.
    same_as: Option<usize>,
}

const UNIX: u16 = 3;
const WINDOWS: u16 = 0;
const FILE: u32 = 0o100_644;

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn stored(name: impl AsRef<[u8]>, content: &[u8]) -> Member {
    Member {
        name: name.as_ref().to_vec(),
        local_name: name.as_ref().to_vec(),
        content: content.to_vec(),
        bytes: u32::try_from(content.len()).unwrap(),
        crc: crc(content),
        method: 0,
        flags: 0,
        system: UNIX,
        mode: FILE,
        dos: 0,
        extra: vec![],
        same_as: None,
    }
}

fn named(name: impl AsRef<[u8]>) -> Member {
    stored(name, b"x")
}

fn folder(name: impl AsRef<[u8]>) -> Member {
    Member { mode: 0o040_755, ..stored(name, b"") }
}

fn of_zeros(name: &str, bytes: usize) -> Member {
    let zeros = vec![0; bytes];
    Member { content: deflated(&zeros), method: 8, ..stored(name, &zeros) }
}

/// What the local header and the directory have in common.
fn header(member: &Member, name: &[u8], extra: &[u8]) -> Vec<u8> {
    let mut header = Vec::new();
    [20, member.flags, member.method, 0, 33].iter().for_each(|field: &u16| header.extend(field.to_le_bytes()));
    let sizes = [member.crc, u32::try_from(member.content.len()).unwrap(), member.bytes];
    sizes.iter().for_each(|field| header.extend(field.to_le_bytes()));
    [name.len(), extra.len()].iter().for_each(|len| header.extend(u16::try_from(*len).unwrap().to_le_bytes()));
    header
}

fn end(entries: u16, directory_bytes: usize, directory_start: usize) -> Vec<u8> {
    let mut end = b"PK\x05\x06\0\0\0\0".to_vec();
    [entries, entries].iter().for_each(|field| end.extend(field.to_le_bytes()));
    let fields = [directory_bytes, directory_start];
    fields.iter().for_each(|field| end.extend(u32::try_from(*field).unwrap().to_le_bytes()));
    end.extend([0, 0]);
    end
}

fn archive(members: &[Member]) -> Vec<u8> {
    let (mut bytes, mut starts, mut directory) = (Vec::new(), Vec::new(), Vec::new());
    for member in members {
        if let Some(same) = member.same_as {
            starts.push(starts[same]);
            continue;
        }
        starts.push(bytes.len());
        bytes.extend([b"PK\x03\x04", &*header(member, &member.local_name, &[]), &member.local_name].concat());
        bytes.extend(&member.content);
    }
    for (member, start) in members.iter().zip(&starts) {
        directory.extend(b"PK\x01\x02");
        directory.extend((member.system << 8 | 20).to_le_bytes());
        directory.extend(header(member, &member.name, &member.extra));
        directory.extend([0; 6]);
        directory.extend((member.mode << 16 | member.dos).to_le_bytes());
        directory.extend(u32::try_from(*start).unwrap().to_le_bytes());
        directory.extend([&*member.name, &member.extra].concat());
    }
    let end = end(u16::try_from(members.len()).unwrap(), directory.len(), bytes.len());
    [bytes, directory, end].concat()
}

/// With its causes.
fn said(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {}", said(cause)))
}

fn unpacked_within(bytes: &[u8], limits: ArchiveLimits) -> (TempDir, Result<Unpacked, String>) {
    let dir = tempfile::tempdir().unwrap();
    let unpacked = unpack(Cursor::new(bytes), dir.path(), limits).map_err(|error| said(&error));
    (dir, unpacked)
}

fn unpacked(bytes: &[u8]) -> (TempDir, Result<Unpacked, String>) {
    unpacked_within(bytes, ArchiveLimits::default())
}

/// Every path in a folder with its mode, and the content of files.
fn listed(dir: &Path) -> Vec<(String, u32, Option<Vec<u8>>)> {
    let entries = walkdir::WalkDir::new(dir).min_depth(1).sort_by_file_name().into_iter().map(Result::unwrap);
    let seen = entries.map(|entry| {
        let path = entry.path().strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
        let mode = entry.metadata().unwrap().permissions().mode();
        (path, mode, entry.file_type().is_file().then(|| fs::read(entry.path()).unwrap()))
    });
    seen.collect()
}

/// Expects a refusal, and that nothing was written before it.
fn refusal(members: &[Member]) -> String {
    let (dir, result) = unpacked(&archive(members));
    assert_eq!(listed(dir.path()), []);
    result.unwrap_err()
}

#[track_caller]
fn assert_refused(members: &[Member], reason: &str) {
    let said = refusal(members);
    assert!(said.contains(reason), "{said}");
}

#[test]
fn what_tools_make_comes_out_as_it_went_in() {
    let text = |text: &str| Some(text.as_bytes().to_vec());
    let expected = vec![
        ("empty".into(), 0o040_755, None),
        ("folder".into(), 0o040_755, None),
        ("folder/deep".into(), 0o040_755, None),
        ("folder/deep/er".into(), 0o040_755, None),
        ("folder/deep/er/zeros".into(), 0o100_644, Some(vec![0; 3000])),
        ("folder/größe ☃.txt".into(), 0o100_644, text("größe\n")),
        ("folder/run.sh".into(), 0o100_755, text("echo hello\n")),
        ("one".into(), 0o100_644, text("x")),
    ];
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/archives");
    let mut tried = 0;
    for entry in fs::read_dir(fixtures).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "zip") {
            let (dir, result) = unpacked(&fs::read(&path).unwrap());
            assert_eq!(result, Ok(Unpacked { files: 4, bytes: 3000 + 8 + 11 + 1 }), "{}", path.display());
            assert_eq!(listed(dir.path()), expected, "{}", path.display());
            tried += 1;
        }
    }
    assert_eq!(tried, 10);
}

#[test]
fn an_archive_of_nothing_unpacks_to_nothing() {
    let (dir, result) = unpacked(&archive(&[]));
    assert_eq!((result, listed(dir.path())), (Ok(Unpacked { files: 0, bytes: 0 }), vec![]));
}

#[test]
fn what_is_no_archive_is_said_to_be_none() {
    let whole = archive(&[named("a")]);
    for bytes in [&b""[..], b"text", b"PK", &whole[..whole.len() - 1], &whole[..30]] {
        let said = unpacked(bytes).1.unwrap_err();
        assert!(said.starts_with("the file is no zip archive, or it is cut off or damaged: "), "{said}");
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for (name, reason) in [
        ("../evil", "`../evil` leads out of the folder with `..`"),
        ("a/../../evil", "leads out"),
        ("a/..", "leads out"),
        ("..", "leads out"),
        ("./../evil", "leads out"),
        ("/etc/passwd", "`/etc/passwd` has an absolute path"),
        ("/", "absolute"),
        ("//a", "absolute"),
        ("a//b", "has a path with an empty part"),
        ("a//", "empty part"),
        ("a/./b", "a `.`"),
        (".", "a `.`"),
        ("././a", "a `.`"),
        ("..\\evil", "has a backslash in its name; make the archive with"),
        ("a\\b", "backslash"),
        ("", "`` has no name"),
    ] {
        assert_refused(&[named("before"), named(name)], reason);
    }
}

#[test]
fn names_that_lead_elsewhere_on_windows_are_refused() {
    let on_windows = |name: &str| Member { system: WINDOWS, mode: 0, ..named(name) };
    for (name, reason) in [
        ("..\\evil", "leads out"),
        ("\\\\server\\share", "absolute"),
        ("C:\\evil", "absolute"),
        ("c:evil", "absolute"),
        ("a\\..\\..\\evil", "leads out"),
    ] {
        assert_refused(&[on_windows(name)], reason);
    }
}

#[test]
fn backslashes_of_windows_separate_folders() {
    let on_windows = |name: &str| Member { system: WINDOWS, mode: 0, ..named(name) };
    let empty = Member { system: WINDOWS, mode: 0, ..stored("a\\empty\\", b"") };
    let marked = Member { dos: 0x10, system: WINDOWS, mode: 0, ..stored("marked", b"") };
    let (dir, result) = unpacked(&archive(&[on_windows("a\\b\\c"), empty, marked]));
    assert_eq!(result, Ok(Unpacked { files: 1, bytes: 1 }));
    let paths: Vec<_> = listed(dir.path()).into_iter().map(|(path, mode, _)| (path, mode >> 12)).collect();
    let expected = [("a", 4), ("a/b", 4), ("a/b/c", 8), ("a/empty", 4), ("marked", 4)];
    assert_eq!(paths, expected.map(|(path, kind)| (path.to_owned(), kind)));
}

#[test]
fn hidden_characters_are_refused_and_never_shown() {
    for (name, shown) in [
        ("a\nb", "`a\\u{a}b` has a character"),
        ("a\0b", "`a\\u{0}b`"),
        ("\x1b[31m", "`\\u{1b}[31m`"),
        ("a\u{202e}txt.exe", "`a\\u{202e}txt.exe`"),
        ("a\u{85}b", "`a\\u{85}b`"),
    ] {
        assert_refused(&[named(name)], shown);
    }
}

#[test]
fn names_of_another_encoding_are_kept_byte_by_byte() {
    let (dir, result) = unpacked(&archive(&[named(b"gr\x94\xe1e/\xff")]));
    result.unwrap();
    let name = std::ffi::OsStr::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"gr\x94\xe1e/\xff"));
    assert_eq!(fs::read(dir.path().join(name)).unwrap(), b"x");
    assert_refused(&[named(b"\xff"), named(b"\xff")], "entry `\\xff` is there twice");
}

#[test]
fn long_names_and_paths_have_a_limit() {
    let (fits, long) = ("n".repeat(255), "n".repeat(256));
    unpacked(&archive(&[named(&fits), named(format!("{fits}/{}", "m".repeat(255)))])).1.unwrap_err();
    unpacked(&archive(&[named(&fits)])).1.unwrap();
    assert_refused(&[named(&long)], "has a name of more than 255 bytes");
    unpacked(&archive(&[named(format!("{}n", "123456789/".repeat(30)))])).1.unwrap();
    assert_refused(&[named([&*fits; 5].join("/"))], "has a path of more than 1024 bytes");
    let said = refusal(&[named("x".repeat(60_000))]);
    assert!(said.contains("xxx…` has") && said.len() < 400, "{said}");
}

#[test]
fn depth_has_a_limit() {
    let limits = ArchiveLimits { depth_max: 3, ..ArchiveLimits::default() };
    unpacked_within(&archive(&[named("a/b/c"), folder("x/y/z/")]), limits).1.unwrap();
    let said = unpacked_within(&archive(&[named("a/b/c/d")]), limits).1.unwrap_err();
    assert!(said.contains("`a/b/c/d` is more than 3 folders deep"), "{said}");
}

#[test]
fn the_same_name_twice_is_refused() {
    assert_refused(&[named("a"), named("b"), stored("b", b"other")], "entry `b` is there twice");
    assert_refused(&[named("b"), named("b"), named("a")], "entry `b` is there twice");
    assert_refused(&[named("a"), named("./a")], "entry `./a` is there twice");
    assert_refused(&[folder("a/"), folder("a/")], "entry `a/` is there twice");
    assert_refused(&[named("a"), folder("a/")], "is a file here and a folder elsewhere");
    assert_refused(&[named("a"), named("a/b")], "is a file here and a folder elsewhere");
    assert_refused(&[named("a/b/c"), named("a")], "is a file here and a folder elsewhere");
}

#[test]
fn names_that_only_look_alike_are_others() {
    let (dir, result) = unpacked(&archive(&[named("a/b"), named("A/b"), named("a.b"), folder("a/")]));
    assert_eq!((result.unwrap().files, listed(dir.path()).len()), (3, 5));
}

#[test]
fn only_files_and_folders_are_unpacked() {
    for (mode, kind) in [
        (0o120_777, "is a symbolic link; put a file in its place"),
        (0o010_644, "is a named pipe"),
        (0o020_644, "is a device"),
        (0o060_644, "is a device"),
        (0o140_644, "is a socket"),
        (0o150_644, "is of an unknown kind"),
    ] {
        for system in [UNIX, WINDOWS, 19] {
            let member = Member { mode, system, ..stored("warmup.py", b"/etc/passwd") };
            assert_refused(&[named("before"), member], &format!("entry `warmup.py` {kind}"));
        }
    }
}

#[test]
fn modes_are_masked() {
    let with = |name: &str, mode| Member { mode, ..named(name) };
    let plain = [("0", 0), ("1", 0o100_000), ("2", 0o106_666), ("3", 0o100_077)];
    let programs = [("4", 0o107_777), ("5", 0o100_100), ("6", 0o4755)];
    let members: Vec<_> = plain.iter().chain(&programs).map(|(name, mode)| with(name, *mode)).collect();
    let (dir, result) = unpacked(&archive(&[&*members, &[Member { mode: 0o041_777, ..folder("f/") }]].concat()));
    result.unwrap();
    let modes: Vec<_> = listed(dir.path()).into_iter().map(|(_, mode, _)| mode).collect();
    let (file, program) = (0o100_644, 0o100_755);
    assert_eq!(modes, [file, file, file, file, program, program, program, 0o040_755]);
}

#[test]
fn a_folder_with_content_is_refused() {
    assert_refused(&[named("a/")], "entry `a/` is a folder and has content");
    assert_refused(&[Member { mode: 0o040_755, ..named("a") }], "is a folder and has content");
}

#[test]
fn what_macos_adds_is_left_out() {
    let members =
        ["__MACOSX/._a", "__MACOSX/d/._b", ".DS_Store", "d/.DS_Store", "d/__MACOSX/kept", "._kept"].map(named);
    let (dir, result) = unpacked(&archive(&[&members[..], &[folder("__MACOSX/")]].concat()));
    assert_eq!(result, Ok(Unpacked { files: 2, bytes: 2 }));
    let paths: Vec<_> = listed(dir.path()).into_iter().map(|(path, ..)| path).collect();
    assert_eq!(paths, ["._kept", "d", "d/__MACOSX", "d/__MACOSX/kept"]);
    assert_refused(&[named("__MACOSX/../../evil")], "leads out");
}

#[test]
fn what_we_cannot_inflate_is_said_with_a_remedy() {
    for (method, said) in [
        (1, "with method 1 (shrink); make the archive with deflate"),
        (9, "method 9 (deflate64)"),
        (12, "method 12 (bzip2)"),
        (14, "method 14 (lzma)"),
        (93, "method 93 (zstd)"),
        (4711, "method 4711 (unknown)"),
        (99, "is encrypted"),
    ] {
        assert_refused(&[named("before"), Member { method, ..named("a") }], said);
    }
    assert_refused(&[Member { flags: 1, ..named("a") }], "`a` is encrypted; make the archive without a password");
}

#[test]
fn content_that_is_not_what_it_should_be_is_found() {
    for member in [
        Member { crc: 1, ..named("a") },
        Member { bytes: 2, ..named("a") },
        Member { bytes: 0, ..named("a") },
        Member { crc: 0, ..of_zeros("a", 1 << 20) },
        Member { bytes: 1000, ..of_zeros("a", 1 << 20) },
        Member { bytes: 2 << 20, ..of_zeros("a", 1 << 20) },
        Member { method: 8, ..stored("a", b"\xff\xff\xff") },
        Member { method: 8, ..stored("a", b"") },
    ] {
        let said = unpacked(&archive(&[named("before"), member])).1.unwrap_err();
        assert!(said.starts_with("the archive is damaged: its entry `a` cannot be read: "), "{said}");
    }
}

#[test]
fn every_cut_and_every_flipped_bit_is_an_error_or_harmless() {
    let whole = archive(&[folder("d/"), named("d/a"), of_zeros("z", 5000)]);
    for at in 0..whole.len() {
        unpacked(&whole[..at]).1.unwrap_err();
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            let (dir, result) = unpacked(&bytes);
            let kinds = listed(dir.path()).into_iter().map(|(_, mode, _)| mode & !0o111);
            assert!(result.is_err() || kinds.filter(|mode| *mode == 0o100_644).count() == 2, "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn bytes_are_counted_while_they_are_inflated() {
    let limits = ArchiveLimits { bytes_max: 1 << 20, ..ArchiveLimits::default() };
    let half = 1 << 19;
    unpacked_within(&archive(&[of_zeros("a", half), of_zeros("b", half)]), limits).1.unwrap();
    let said = unpacked_within(&archive(&[of_zeros("a", half), of_zeros("b", half + 1)]), limits).1.unwrap_err();
    assert_eq!(
        said,
        "the archive is refused: it holds more than 1048576 bytes, the limit; pack less, not what is built or downloaded"
    );
    // One byte is told, and 32 MiB would come.
    let (dir, result) = unpacked_within(&archive(&[Member { bytes: 1, ..of_zeros("a", 32 << 20) }]), limits);
    let said = result.unwrap_err();
    assert!(said.contains("`a` cannot be read: File is larger than its declared"), "{said}");
    assert!(fs::metadata(dir.path().join("a")).unwrap().len() <= limits.bytes_max);
}

#[test]
fn a_bomb_is_found_by_its_ratio() {
    let bomb: Vec<_> = (0..8).map(|n| of_zeros(&n.to_string(), 4 << 20)).collect();
    unpacked(&archive(&bomb[..4])).1.unwrap();
    let said = unpacked(&archive(&bomb)).1.unwrap_err();
    assert_eq!(
        said,
        "the archive is refused: it holds more than 200 times its own size, the limit; pack less, not what is built or downloaded"
    );
}

#[test]
fn entries_have_a_limit_and_so_have_folders_without_an_entry() {
    let limits = ArchiveLimits { entries_max: 10, ..ArchiveLimits::default() };
    let many: Vec<_> = (0..11).map(|n: i32| named(n.to_string())).collect();
    unpacked_within(&archive(&many[..10]), limits).1.unwrap();
    let said = unpacked_within(&archive(&many), limits).1.unwrap_err();
    assert_eq!(
        said,
        "the archive is refused: it holds more than 10 entries, the limit; pack less, not what is built or downloaded"
    );
    unpacked_within(&archive(&[named("1/2/3/4/5/6/7/8/9/10")]), limits).1.unwrap();
    let said = unpacked_within(&archive(&[named("1/2/3/4/5/6/7/8/9/10/11")]), limits).1.unwrap_err();
    assert_eq!(
        said,
        "the archive is refused: it holds more than 10 files and folders, the limit; pack less, not what is built or downloaded"
    );
}

#[test]
fn a_million_entries_are_refused_by_their_number() {
    let entry = archive(&[named("a")]);
    let central = &entry[entry.len() - 22 - 47..entry.len() - 22];
    let count = 1_000_000_usize;
    let mut bytes = entry[..32].to_vec();
    (0..count).for_each(|_| bytes.extend(central));
    let end64_start = bytes.len() as u64;
    bytes.extend(b"PK\x06\x06");
    bytes.extend(44_u64.to_le_bytes());
    bytes.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let fields = [count as u64, count as u64, end64_start - 32, 32];
    fields.iter().for_each(|field| bytes.extend(field.to_le_bytes()));
    bytes.extend([&b"PK\x06\x07\0\0\0\0"[..], &end64_start.to_le_bytes(), &1_u32.to_le_bytes()].concat());
    bytes.extend([&b"PK\x05\x06\0\0\0\0"[..], &[0xff; 12], &[0, 0]].concat());
    let said = unpacked(&bytes).1.unwrap_err();
    assert_eq!(
        said,
        "the archive is refused: it holds more than 20000 entries, the limit; pack less, not what is built or downloaded"
    );
}

#[test]
fn entries_that_the_end_does_not_tell_of_are_found() {
    let mut bytes = archive(&[named("a"), named("b")]);
    let end = bytes.len() - 22;
    (bytes[end + 8], bytes[end + 10]) = (1, 1);
    assert_eq!(
        unpacked(&bytes).1.unwrap_err(),
        "the archive is damaged: it has more entries than the 1 that it tells of"
    );
    (bytes[end + 8], bytes[end + 10]) = (3, 3);
    unpacked(&bytes).1.unwrap_err();
}

#[test]
fn entries_that_share_content_are_refused() {
    let shared = Member { same_as: Some(0), ..of_zeros("a", 1000) };
    assert_refused(&[of_zeros("a", 1000), Member { name: b"b".into(), local_name: b"b".into(), ..shared }], "damaged");
    // The second one's local header lies in the content of the first: Fifield's bomb.
    let inner = archive(&[named("b")]);
    let mut bytes = archive(&[stored("a", &inner[..32]), named("b")]);
    let start = bytes.len() - 22 - 47 + 42;
    bytes[start..start + 4].copy_from_slice(&31_u32.to_le_bytes());
    let said = unpacked(&bytes).1.unwrap_err();
    assert_eq!(
        said,
        "the archive is refused: its entry `a` shares bytes of the archive with another entry, or with the directory; make the archive anew, with another tool"
    );
}

#[test]
fn a_local_header_that_disagrees_is_found() {
    let said = refusal(&[named("a"), Member { local_name: b"c".into(), ..named("b") }]);
    assert!(said.starts_with("the archive is damaged at its entry 2 of 2: "), "{said}");
}

#[test]
fn headers_have_a_limit() {
    // 1500 names and extra fields of 64 KiB, 98 MiB together.
    let extra = [&[0x55, 0x55, 0xf0, 0xff][..], &[0; 0xfff0]].concat();
    let members: Vec<_> = (0..1500).map(|n: i32| Member { extra: extra.clone(), ..named(n.to_string()) }).collect();
    let said = unpacked(&archive(&members)).1.unwrap_err();
    assert!(said.ends_with("it has too much beside the content of its files"), "{said}");
    unpacked(&archive(&members[..500])).1.unwrap();
}

#[test]
fn ends_that_each_have_to_be_tried_are_not_tried_for_long() {
    // Each of them tells of a directory that is not there, and of a comment that reaches to the end of the file and has to be read.
    let mut bytes = archive(&[named("a")]);
    let ends = 2900_u16;
    for left in (0..ends).rev() {
        let mut false_end = end(1, 46, 1);
        false_end[20..].copy_from_slice(&(left * 22).to_le_bytes());
        bytes.extend(false_end);
    }
    let said = unpacked(&bytes).1.unwrap_err();
    assert!(said.ends_with("it has too much beside the content of its files"), "{said}");
}

#[test]
fn what_stands_before_an_archive_is_passed_over_if_its_places_are_right() {
    let whole = archive(&[named("a")]);
    let said = unpacked(&[b"#!/bin/sh\n", &*whole].concat()).1.unwrap_err();
    assert!(said.starts_with("the file is no zip archive"), "{said}");
    // As Python's zipapp writes it.
    let mut moved = [b"#!/bin/sh\n", &*whole].concat();
    let end = moved.len() - 22;
    moved[end + 16] += 10;
    moved[end - 47 + 42] += 10;
    unpacked(&moved).1.unwrap();
}

#[test]
fn a_comment_is_passed_over_even_one_that_looks_like_an_end() {
    let mut bytes = archive(&[named("a")]);
    let comment = [&b"nice "[..], &end(1, 46, 1), b" try"].concat();
    let at = bytes.len() - 2;
    bytes[at] = u8::try_from(comment.len()).unwrap();
    bytes.extend(comment);
    unpacked(&bytes).1.unwrap();
}

#[test]
fn nothing_is_unpacked_into_a_folder_that_has_something_in_it() {
    let (outside, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    symlink(outside.path(), dir.path().join("a")).unwrap();
    let bytes = archive(&[named("a/b")]);
    let error = unpack(Cursor::new(&bytes), dir.path(), ArchiveLimits::default()).unwrap_err();
    assert!(matches!(error, ArchiveError::Write { .. }), "{error}");
    assert_eq!(listed(outside.path()), []);
}

#[test]
fn links_that_appear_while_it_is_unpacked_are_not_followed() {
    let (outside, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("file"), "old").unwrap();
    let target = Target::open(dir.path()).unwrap();
    symlink(outside.path(), dir.path().join("folder")).unwrap();
    symlink(outside.path().join("file"), dir.path().join("file")).unwrap();
    symlink(outside.path().join("new"), dir.path().join("new")).unwrap();
    target.make_folder(b"folder").unwrap_err();
    for path in [&b"folder/new"[..], b"folder/file", b"file", b"new"] {
        target.make_file(path, Kind::File).unwrap_err();
    }
    target.make_file(b"other/file", Kind::File).unwrap();
    assert_eq!(listed(outside.path()), [("file".into(), 0o100_644, Some(b"old".to_vec()))]);
}

#[test]
fn a_disk_that_cannot_be_read_or_written_is_not_the_archives_fault() {
    let dir = tempfile::tempdir().unwrap();
    let folder = fs::File::open(dir.path()).unwrap();
    let error = unpack(folder, dir.path(), ArchiveLimits::default()).unwrap_err();
    assert!(matches!(error, ArchiveError::Read(_)), "{}", said(&error));
    let bytes = archive(&[named("a")]);
    let error = unpack(Cursor::new(&bytes), &dir.path().join("missing"), ArchiveLimits::default()).unwrap_err();
    assert!(matches!(error, ArchiveError::Write { .. }), "{}", said(&error));
}
