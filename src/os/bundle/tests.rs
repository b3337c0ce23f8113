//! Archives on a real disk.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;

use flate2::read::GzDecoder as Plain;
use pretty_assertions::assert_eq;
use tempfile::TempDir;

use super::*;

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    dir
}

fn hashes(files: &[(&str, &[u8])]) -> BTreeMap<OsString, [u8; 32]> {
    files.iter().map(|(path, bytes)| (OsString::from(path), sha256(bytes))).collect()
}

fn packed(files: &[(&str, &[u8])]) -> (TempDir, PathBuf) {
    let dir = folder(files);
    let to = dir.path().join(BUNDLE);
    pack(&ToPack { dir: dir.path(), files: &hashes(files), is_whole: |path| path == "whole", goes_on: &|| true }, &to)
        .unwrap();
    (dir, to)
}

/// With its causes.
fn said(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {}", said(cause)))
}

fn read(path: &Path) -> Result<(Vec<(String, String)>, Seal), String> {
    let mut read = Vec::new();
    let seal = unpack(path, &mut |path, content| {
        let shown = match content {
            Content::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Content::SameAs(first) => format!("as {}", first.display()),
        };
        read.push((path.to_string_lossy().into_owned(), shown));
    });
    seal.map(|seal| (read, seal)).map_err(|error| said(&error))
}

const FILES: [(&str, &[u8]); 7] =
    [("b/c", b"same"), ("a", b"1"), ("b.c", b"same"), ("d", b""), ("e", b""), ("whole", b"same"), ("b/a", b"same")];

#[test]
fn files_come_back_byte_wise_and_the_same_content_once() {
    let (_dir, path) = packed(&FILES);
    let expected =
        [("a", "1"), ("b.c", "same"), ("b/a", "as b.c"), ("b/c", "as b.c"), ("d", ""), ("e", ""), ("whole", "same")];
    assert_eq!(read(&path), Ok((expected.map(|(path, text)| (path.to_owned(), text.to_owned())).into(), Seal::Whole)));
}

#[test]
fn the_same_files_give_the_same_bytes() {
    let (one_dir, one) = packed(&FILES);
    let mut turned = FILES;
    turned.reverse();
    let (other_dir, other) = packed(&turned);
    fs::set_permissions(other_dir.path().join("a"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_file(other_dir.path().join("b/c")).unwrap();
    fs::hard_link(other_dir.path().join("b.c"), other_dir.path().join("b/c")).unwrap();
    let files = hashes(&FILES);
    pack(&ToPack { dir: other_dir.path(), files: &files, is_whole: |path| path == "whole", goes_on: &|| true }, &other)
        .unwrap();
    assert_eq!(fs::read(one).unwrap(), fs::read(other).unwrap());
    drop(one_dir);
}

#[test]
fn nothing_of_this_machine_or_hour_is_in_it() {
    let (_dir, path) = packed(&FILES);
    let mut archive = Archive::new(Plain::new(File::open(path).unwrap()));
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let header = entry.header();
        assert_eq!((header.mode().unwrap(), header.mtime().unwrap()), (0o644, 0));
        assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
        assert_eq!((header.username().unwrap(), header.groupname().unwrap()), (Some(""), Some("")));
    }
}

#[test]
fn long_and_strange_names_come_back() {
    let long = "long/".repeat(60);
    let names = [format!("{long}x"), format!("{long}y"), "new\nline".into(), "blank é".into(), "back\\slash".into()];
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"same"[..])).collect();
    let (_dir, path) = packed(&files);
    let mut sorted: Vec<_> = names.to_vec();
    sorted.sort();
    assert_eq!(read(&path).unwrap().0.into_iter().map(|(name, _)| name).collect::<Vec<_>>(), sorted);
}

#[test]
fn a_file_has_only_so_many_names() {
    let names: Vec<String> = (0..=LINKS_MAX).map(|n| format!("{n:04}")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"same"[..])).collect();
    let (_dir, path) = packed(&files);
    let read = read(&path).unwrap().0;
    let whole: Vec<_> = read.iter().filter(|(_, text)| text == "same").map(|(name, _)| name.as_str()).collect();
    assert_eq!(whole, ["0000", "1000"]);
}

#[test]
fn a_file_that_changes_is_an_error_and_the_old_archive_stays() {
    for (changed, text) in [("a", "2"), ("b/c", "other"), ("d", "more")] {
        let (dir, path) = packed(&FILES);
        let before = fs::read(&path).unwrap();
        fs::write(dir.path().join(changed), text).unwrap();
        let files = hashes(&FILES);
        let error = pack(&ToPack { dir: dir.path(), files: &files, is_whole: |_| false, goes_on: &|| true }, &path)
            .unwrap_err();
        let expected = format!("{changed}` changed while it was packed");
        assert!(error.to_string().contains(&expected), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}

#[test]
fn packing_can_be_interrupted_between_two_files_and_the_old_archive_stays() {
    let (dir, path) = packed(&FILES);
    let before = fs::read(&path).unwrap();
    let asked = std::cell::Cell::new(0);
    let goes_on = || asked.replace(asked.get() + 1) < 2;
    let what = ToPack { dir: dir.path(), files: &hashes(&FILES), is_whole: |_| false, goes_on: &goes_on };
    assert!(matches!(pack(&what, &path), Err(BundleError::Interrupted)));
    assert_eq!((asked.get(), fs::read(&path).unwrap()), (3, before));
}

#[test]
fn every_flipped_bit_is_found() {
    let (_dir, path) = packed(&FILES);
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            fs::write(&path, bytes).unwrap();
            let found = !matches!(read(&path), Ok((_, Seal::Whole)));
            assert!(found, "bit {bit} of byte {at} of {}", whole.len());
        }
    }
}

#[test]
fn every_cut_is_an_error_that_names_the_archive() {
    let (_dir, path) = packed(&FILES);
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let error = read(&path).unwrap_err();
        assert!(error.contains(&format!("`{}` is cut off", path.display())), "{length} of {}: {error}", whole.len());
    }
    fs::write(&path, [&whole[..], b"x"].concat()).unwrap();
    assert_eq!(read(&path).unwrap().1, Seal::Broken);
}

/// An archive as another program may write it.
fn foreign(entries: &[(EntryType, &str, &str)]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("foreign.tar.gz");
    let mut builder = Builder::new(GzEncoder::new(File::create(&path).unwrap(), LEVEL));
    for (kind, name, content) in entries {
        let is_file = *kind == EntryType::Regular;
        let mut header = header(*kind, if is_file { content.len() as u64 } else { 0 });
        // The library refuses to write some of these names.
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..name.len()].copy_from_slice(name.as_bytes());
        if !is_file {
            gnu.linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        header.set_cksum();
        builder.append(&header, if is_file { content.as_bytes() } else { b"" }).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap();
    (dir, path)
}

#[test]
fn an_archive_of_another_program_is_read_and_has_no_seal() {
    let file = EntryType::Regular;
    let (_dir, path) = foreign(&[(file, "./b", "1"), (file, "a", "2"), (EntryType::Link, "c", "./b")]);
    let expected = [("b", "1"), ("a", "2"), ("c", "as b")].map(|(path, text)| (path.to_owned(), text.to_owned()));
    assert_eq!(read(&path), Ok((expected.into(), Seal::Missing)));
}

#[test]
fn what_is_never_packed_is_refused() {
    let file = (EntryType::Regular, "a", "1");
    let cases = [
        ((EntryType::Regular, "/etc/x", ""), "leads out of the folder"),
        ((EntryType::Regular, "../x", ""), "leads out of the folder"),
        ((EntryType::Regular, "b/../../x", ""), "leads out of the folder"),
        ((EntryType::Regular, "b//x", ""), "leads out of the folder"),
        ((EntryType::Regular, "a", "2"), "is there twice"),
        ((EntryType::Regular, "./a", "2"), "is there twice"),
        ((EntryType::Link, "b", "/etc/passwd"), "links to no file before it"),
        ((EntryType::Link, "b", "c"), "links to no file before it"),
        ((EntryType::Link, "b", "b"), "links to no file before it"),
        ((EntryType::Symlink, "b", "a"), "is no regular file"),
        ((EntryType::Directory, "b", ""), "is no regular file"),
        ((EntryType::Fifo, "b", ""), "is no regular file"),
        ((EntryType::Block, "b", ""), "is no regular file"),
        ((EntryType::Char, "b", ""), "is no regular file"),
    ];
    for (entry, why) in cases {
        let (_dir, path) = foreign(&[file, entry]);
        let error = read(&path).unwrap_err();
        assert!(error.contains(why) && error.contains("foreign.tar.gz") && error.contains(entry.1), "{error}");
    }
}

#[test]
fn what_is_not_read_is_not_packed_either() {
    let (dir, path) = packed(&FILES);
    let hashes = hashes(&FILES);
    // Seven files; two links to four bytes; four, four and one bytes.
    let most = Bounds { files: 7, file_bytes: 4, bytes: 9 };
    let cases = [
        (most, None),
        (Bounds { files: 6, ..most }, Some("more than 6 files")),
        (Bounds { file_bytes: 3, ..most }, Some("more than 3 bytes in one file")),
        (Bounds { bytes: 8, ..most }, Some("more than 8 bytes")),
    ];
    for (bounds, why) in cases {
        let what = ToPack { dir: dir.path(), files: &hashes, is_whole: |path| path == "whole", goes_on: &|| true };
        let bytes = fs::read(&path).unwrap();
        for outcome in [unpack_within(bounds, &path, &bytes, &mut |_, _| {}), pack_within(bounds, &what, &path)] {
            let said = outcome.err().map(|error| error.to_string());
            assert_eq!(said.is_some(), why.is_some(), "{said:?}");
            assert!(said.unwrap_or_default().contains(why.unwrap_or_default()), "{why:?}");
        }
    }
}

#[test]
fn what_swells_beside_the_files_is_not_read_to_its_end() {
    let too_long = 2 * BESIDE_BYTES_MAX;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bomb.tar.gz");
    let mut long_name = header(EntryType::GNULongName, too_long);
    long_name.set_cksum();
    for start in [&long_name.as_bytes()[..], &[0; 1024]] {
        let mut encoder = GzEncoder::new(File::create(&path).unwrap(), LEVEL);
        io::copy(&mut start.chain(io::repeat(0).take(too_long)), &mut encoder).unwrap();
        encoder.finish().unwrap();
        let error = read(&path).unwrap_err();
        assert!(error.contains("bomb.tar.gz") && error.contains("too much beside its files"), "{error}");
    }
}

#[test]
fn what_is_no_archive_is_told() {
    let dir = folder(&[("text", b"hello, this is no archive")]);
    let error = read(&dir.path().join("text")).unwrap_err();
    assert!(error.contains("is damaged, or no tar.gz"), "{error}");
    let error = read(&dir.path().join("nothing")).unwrap_err();
    assert!(error.contains("could not read"), "{error}");
}
