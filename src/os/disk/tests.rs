//! Snapshots of real files.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fs::{self, File, FileTimes, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, geteuid, setfsgid, setfsuid};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::{DiskError, SnapshotRoot, Snapshotter, write_atomically};
use crate::model::snapshot::{Content, DeviceNumber, Entry, Listing, Meta, Snapshot, SpecialKind, XattrValue};

const SHA256_OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// `security.capability` of a program with cap_net_raw, permitted and effective (capabilities(7), version 2).
const CAP_NET_RAW: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

struct Scratch {
    folder: TempDir,
    snapshotter: Snapshotter,
}

impl Scratch {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), snapshotter: Snapshotter::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Snapshots patterns relative to the folder; `.` is all of it.
    fn snapshot(&self, patterns: &[&str]) -> Snapshot {
        let roots: Vec<_> = patterns.iter().map(|text| SnapshotRoot::parse(text, self.folder.path())).collect();
        self.snapshotter.snapshot(&roots).unwrap()
    }

    fn entry(&self, name: &str) -> Entry {
        self.snapshot(&[name]).get(&self.path(name)).unwrap().clone()
    }

    fn names(&self, patterns: &[&str]) -> Vec<String> {
        let snapshot = self.snapshot(patterns);
        let below = snapshot.iter().map(|(path, _)| path.strip_prefix(self.folder.path()).unwrap());
        below.map(|path| path.to_str().unwrap().to_owned()).collect()
    }
}

fn meta(entry: &Entry) -> &Meta {
    entry.meta().unwrap()
}

fn sha256_text(entry: &Entry) -> String {
    let Entry::File { content: Content::Sha256(sha256), .. } = entry else { panic!("no hash: {entry:?}") };
    sha256.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Waits until what exists is old enough to be remembered.
fn let_it_age(path: &Path) {
    let old = SystemTime::now() - Duration::from_secs(60);
    File::open(path).unwrap().set_times(FileTimes::new().set_modified(old)).unwrap();
    let changed = fs::symlink_metadata(path).unwrap();
    let changed_ns = i128::from(changed.ctime()) * 1_000_000_000 + i128::from(changed.ctime_nsec());
    while super::stat::now().as_nanos() <= changed_ns + 25_000_000 {
        std::thread::yield_now();
    }
}

/// Runs `body` as a user without rights, in a thread of its own: rights on files are a thread's.
fn as_nobody<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if geteuid().is_root() {
                setfsgid(Gid::from_raw(65534));
                setfsuid(Uid::from_raw(65534));
            }
            body()
        });
        thread.join().unwrap()
    })
}

fn need_root() {
    assert!(geteuid().is_root(), "this test needs root: run it in the container of CI, or with sudo");
}

#[test]
fn a_file_has_every_field() {
    let scratch = Scratch::new();
    let path = scratch.file("f", b"abc");
    fs::set_permissions(&path, Permissions::from_mode(0o6751)).unwrap();
    fs::hard_link(&path, scratch.path("g")).unwrap();
    setxattr(&path, "user.x", b"value", XattrFlags::empty()).expect("the temporary folder needs user xattrs");
    let time = SystemTime::UNIX_EPOCH + Duration::new(5_000_000_000, 123_456_789);
    File::open(&path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();

    let entry = scratch.entry("f");
    let expected = fs::metadata(&path).unwrap();
    assert_eq!(meta(&entry).mode, 0o6751);
    assert_eq!((meta(&entry).uid, meta(&entry).gid), (expected.uid(), expected.gid()));
    assert_eq!(meta(&entry).mtime.as_nanos(), 5_000_000_000_123_456_789);
    assert_eq!(meta(&entry).nlink, 2);
    assert_eq!(meta(&entry).xattrs, BTreeMap::from([(b"user.x".to_vec(), XattrValue::Bytes(b"value".to_vec()))]));
    assert!(matches!(entry, Entry::File { size_bytes: 3, .. }));
    assert_eq!(sha256_text(&entry), SHA256_OF_ABC);
}

#[test]
fn file_capabilities_are_seen() {
    need_root();
    let scratch = Scratch::new();
    let path = scratch.file("program", b"");
    let before = scratch.snapshot(&["."]);
    setxattr(&path, "security.capability", &CAP_NET_RAW, XattrFlags::empty()).unwrap();
    let changes = before.changes_to(&scratch.snapshot(&["."]));
    let texts: Vec<_> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(texts, [format!("modified {}: xattr security.capability added", path.display())]);
}

#[test]
fn a_long_xattr_is_kept_as_its_digest_and_a_long_list_whole() {
    let scratch = Scratch::new();
    let path = scratch.file("f", b"");
    setxattr(&path, "user.long", &[7; 1000], XattrFlags::empty()).unwrap();
    let entry = scratch.entry("f");
    (0..20).for_each(|i| setxattr(&path, format!("user.a-rather-long-name-{i}"), b"", XattrFlags::empty()).unwrap());
    let entry_with_many = scratch.entry("f");
    assert_eq!(meta(&entry_with_many).xattrs.len(), 21);
    assert!(matches!(meta(&entry).xattrs.get(&b"user.long"[..]), Some(XattrValue::Digest { size_bytes: 1000, .. })));
}

#[test]
fn xattrs_of_a_folder_are_seen() {
    let scratch = Scratch::new();
    setxattr(scratch.folder.path(), "user.x", b"1", XattrFlags::empty()).unwrap();
    let snapshot = scratch.snapshot(&["."]);
    assert_eq!(meta(snapshot.get(scratch.folder.path()).unwrap()).xattrs.len(), 1);
}

#[test]
fn links_are_recorded_and_never_followed() {
    let scratch = Scratch::new();
    scratch.file("folder/f", b"abc");
    for (name, target) in [("dangling", "nowhere"), ("loop", "loop"), ("to-folder", "folder")] {
        symlink(target, scratch.path(name)).unwrap();
        assert!(matches!(scratch.entry(name), Entry::Symlink { target: found, .. } if found == Path::new(target)));
    }
    assert_eq!(scratch.names(&["to-folder"]), ["to-folder"]);
}

#[test]
fn special_files_are_named_and_do_not_block() {
    let scratch = Scratch::new();
    mknodat(CWD, scratch.path("fifo"), FileType::Fifo, Mode::from(0o600), 0).unwrap();
    let _listener = UnixListener::bind(scratch.path("socket")).unwrap();
    let (done, wait) = mpsc::channel();
    let roots =
        [SnapshotRoot::path(scratch.folder.path(), Path::new("/")), SnapshotRoot::path("/dev/null", Path::new("/"))];
    std::thread::spawn(move || done.send(Snapshotter::default().snapshot(&roots).unwrap()));
    let snapshot = wait.recv_timeout(Duration::from_secs(10)).expect("a pipe must not hold a snapshot up");
    let kind = |path: &Path| match snapshot.get(path) {
        Some(Entry::Special { kind, .. }) => *kind,
        other => panic!("{other:?}"),
    };
    assert_eq!(kind(&scratch.path("fifo")), SpecialKind::Fifo);
    assert_eq!(kind(&scratch.path("socket")), SpecialKind::Socket);
    assert_eq!(kind(Path::new("/dev/null")), SpecialKind::CharDevice(DeviceNumber { major: 1, minor: 3 }));
}

#[test]
fn a_file_that_would_make_the_reader_wait_is_unreadable() {
    // The only regular files that wait are the kernel's own.
    let entry = as_nobody(|| {
        let roots = [SnapshotRoot::path("/proc/kmsg", Path::new("/"))];
        Snapshotter::default().snapshot(&roots).unwrap().get(Path::new("/proc/kmsg")).unwrap().clone()
    });
    assert!(matches!(entry, Entry::File { content: Content::Unreadable { .. }, .. }), "{entry:?}");
}

#[test]
fn a_file_without_a_size_is_read_to_its_end() {
    let roots = [SnapshotRoot::path("/proc/version", Path::new("/"))];
    let snapshot = Snapshotter::default().snapshot(&roots).unwrap();
    let Some(Entry::File { size_bytes: 0, content: Content::Sha256(sha256), .. }) =
        snapshot.get(Path::new("/proc/version"))
    else {
        panic!("{snapshot:?}")
    };
    assert_eq!(*sha256, <[u8; 32]>::from(Sha256::digest(fs::read("/proc/version").unwrap())));
}

#[test]
fn a_huge_sparse_file_is_not_read() {
    let scratch = Scratch::new();
    File::create(scratch.path("huge")).unwrap().set_len(1 << 43).unwrap();
    let efbig = libc::EFBIG;
    assert!(matches!(
        scratch.entry("huge"),
        Entry::File { size_bytes: 0x800_0000_0000, content: Content::Unreadable { errno }, .. } if errno == efbig
    ));
}

#[test]
fn what_may_not_be_read_is_recorded_with_its_reason() {
    let scratch = Scratch::new();
    let secret = scratch.file("secret", b"abc");
    let locked = scratch.file("locked/inner", b"abc");
    scratch.file("blind/inner", b"abc");
    fs::set_permissions(scratch.folder.path(), Permissions::from_mode(0o755)).unwrap();
    // As root the files are root's and the reader is nobody; else they are the reader's own.
    for (name, of_root, own) in [("secret", 0o600, 0o000), ("locked", 0o700, 0o000), ("blind", 0o744, 0o444)] {
        let mode = if geteuid().is_root() { of_root } else { own };
        fs::set_permissions(scratch.path(name), Permissions::from_mode(mode)).unwrap();
    }
    let eacces = libc::EACCES;
    let snapshot = as_nobody(|| scratch.snapshot(&[".", "locked/inner"]));
    assert!(matches!(
        snapshot.get(&secret),
        Some(Entry::File { content: Content::Unreadable { errno }, size_bytes: 3, .. }) if *errno == eacces
    ));
    assert!(matches!(
        snapshot.get(&scratch.path("locked")),
        Some(Entry::Dir { listing: Listing::Unreadable { errno }, .. }) if *errno == eacces
    ));
    for path in [&locked, &scratch.path("blind/inner")] {
        let Some(Entry::Unreadable { errno }) = snapshot.get(path) else { panic!("{path:?}: {snapshot:?}") };
        assert_eq!(*errno, eacces);
    }
    for name in ["locked", "blind"] {
        fs::set_permissions(scratch.path(name), Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn what_is_in_a_locked_folder_does_not_count_as_removed() {
    let scratch = Scratch::new();
    scratch.file("locked/inner", b"abc");
    fs::set_permissions(scratch.folder.path(), Permissions::from_mode(0o755)).unwrap();
    let before = scratch.snapshot(&["locked"]);
    fs::set_permissions(scratch.path("locked"), Permissions::from_mode(0o000)).unwrap();
    let after = as_nobody(|| scratch.snapshot(&["locked"]));
    fs::set_permissions(scratch.path("locked"), Permissions::from_mode(0o755)).unwrap();
    let texts: Vec<_> = before.changes_to(&after).iter().map(ToString::to_string).collect();
    let locked = scratch.path("locked");
    assert_eq!(
        texts,
        [format!("modified {}: mode 0755 -> 0000, listing complete -> unreadable (errno 13)", locked.display())]
    );
}

#[test]
fn absence_is_recorded_for_plain_paths_only() {
    let scratch = Scratch::new();
    scratch.file("file", b"");
    symlink("loop", scratch.path("loop")).unwrap();
    for name in ["nothing", "no/folder/here", "file/below", "loop/below"] {
        assert_eq!(scratch.entry(name), Entry::Absent, "{name}");
    }
    assert_eq!(scratch.names(&["*.none", "none/*", "none*/x"]), Vec::<String>::new());
}

#[test]
fn patterns_match_as_documented() {
    let scratch = Scratch::new();
    for name in ["a1", "a2", ".hidden", "[", "d/a3", "d/e/a4", "d/e/b"] {
        scratch.file(name, b"");
    }
    symlink("d", scratch.path("link")).unwrap();
    let cases: &[(&[&str], &[&str])] = &[
        (&["a?"], &["a1", "a2"]),
        (&["a[2-9]", "a[!2-9]"], &["a1", "a2"]),
        (&["*n"], &[".hidden"]),
        (&["["], &["["]),
        (&["*/["], &[]),
        (&["**/a*"], &["a1", "a2", "d/a3", "d/e/a4"]),
        (&["d/**"], &["d/a3", "d/e", "d/e/a4", "d/e/b"]),
        (&["d/*", "d/e/a4", "d/e"], &["d/a3", "d/e", "d/e/a4", "d/e/b"]),
        (&["*/a3"], &["d/a3", "link/a3"]),
        (&["l**k"], &["link"]),
        (&["./d//e/", "d/e/a4"], &["d/e", "d/e/a4", "d/e/b"]),
        (&["d/e/b", "d/nothing", "a1"], &["a1", "d/e/b", "d/nothing"]),
    ];
    for (patterns, names) in cases {
        assert_eq!(scratch.names(patterns), *names, "{patterns:?}");
    }
}

#[test]
fn many_roots_in_one_folder_are_each_found_there() {
    let scratch = Scratch::new();
    for name in ["a/f", "a/g", "b/f", "b/h/i"] {
        scratch.file(name, name.as_bytes());
    }
    symlink("b", scratch.path("link")).unwrap();
    let names =
        ["a/f", "a/g", "a/none", "b/f", "b/h", "b/h/i", "b/none", "gone/f", "gone/g", "link/f", "link/g", "link/h"];
    let snapshot = scratch.snapshot(&names);
    for name in names {
        let alone = scratch.snapshot(&[name]);
        assert_eq!(snapshot.get(&scratch.path(name)), alone.get(&scratch.path(name)), "{name}");
    }
}

#[test]
fn a_plain_path_is_no_pattern() {
    let scratch = Scratch::new();
    scratch.file("a*", b"");
    scratch.file("ab", b"");
    let root = SnapshotRoot::path("a*", scratch.folder.path());
    assert_eq!(Snapshotter::default().snapshot(&[root]).unwrap().iter().len(), 1);
}

#[test]
fn names_that_are_no_text_are_kept() {
    let scratch = Scratch::new();
    let name = OsStr::from_bytes(b"caf\xe9");
    fs::write(scratch.folder.path().join(name), b"abc").unwrap();
    let path = scratch.folder.path().join(name);
    assert!(scratch.snapshot(&["."]).get(&path).is_some());
    assert!(scratch.snapshot(&["caf?"]).get(&path).is_some());
}

#[test]
fn paths_are_in_order_and_folders_before_what_is_in_them() {
    let scratch = Scratch::new();
    for name in ["a/b", "a.c", "a-d", "z", "B"] {
        scratch.file(name, b"");
    }
    assert_eq!(scratch.names(&["."]), ["", "B", "a", "a/b", "a-d", "a.c", "z"]);
}

#[test]
fn a_folder_nested_deeper_than_any_path_is_bounded() {
    let scratch = Scratch::new();
    let name = CString::new("n".repeat(200)).unwrap();
    let mut folder = rustix::fs::open(scratch.folder.path(), rustix::fs::OFlags::RDONLY, Mode::empty()).unwrap();
    for _ in 0..40 {
        rustix::fs::mkdirat(&folder, &name, Mode::from(0o755)).unwrap();
        folder = rustix::fs::openat(&folder, &name, rustix::fs::OFlags::RDONLY, Mode::empty()).unwrap();
    }
    let snapshot = scratch.snapshot(&["."]);
    let errno = libc::ENAMETOOLONG;
    assert!(matches!(snapshot.iter().last(), Some((_, Entry::Unreadable { errno: found })) if *found == errno));
    assert!(snapshot.iter().len() < 25);
}

#[test]
fn another_file_system_is_not_entered_but_can_be_a_root() {
    let roots = ["/dev", "/dev/shm"].map(|path| SnapshotRoot::path(path, Path::new("/")));
    let snapshotter = Snapshotter::default();
    let listing = |snapshot: &Snapshot| match snapshot.get(Path::new("/dev/shm")) {
        Some(Entry::Dir { listing, .. }) => *listing,
        other => panic!("{other:?}"),
    };
    assert_eq!(listing(&snapshotter.snapshot(&roots[..1]).unwrap()), Listing::OtherFileSystem);
    assert_eq!(listing(&snapshotter.snapshot(&roots).unwrap()), Listing::Complete);
}

#[test]
fn an_unchanged_file_is_read_once() {
    let scratch = Scratch::new();
    let path = scratch.file("f", b"abc");
    let_it_age(&path);
    let first = scratch.snapshot(&["."]);
    assert_eq!(scratch.snapshot(&["."]), first);
    assert_eq!(scratch.snapshotter.files_read(), 1);
}

#[test]
fn a_file_that_changed_is_read_again() {
    let scratch = Scratch::new();
    let path = scratch.file("f", b"abd");
    let_it_age(&path);
    let mtime = fs::metadata(&path).unwrap().modified().unwrap();
    scratch.snapshot(&["."]);
    fs::write(&path, b"abc").unwrap();
    File::open(&path).unwrap().set_times(FileTimes::new().set_modified(mtime)).unwrap();
    assert_eq!(sha256_text(&scratch.entry("f")), SHA256_OF_ABC);
}

#[test]
fn a_folder_that_changed_is_listed_again() {
    let scratch = Scratch::new();
    scratch.file("d/one", b"");
    let_it_age(&scratch.path("d"));
    let mtime = fs::metadata(scratch.path("d")).unwrap().modified().unwrap();
    assert_eq!(scratch.names(&["d"]), ["d", "d/one"]);
    fs::rename(scratch.path("d/one"), scratch.path("d/two")).unwrap();
    File::open(scratch.path("d")).unwrap().set_times(FileTimes::new().set_modified(mtime)).unwrap();
    assert_eq!(scratch.names(&["d"]), ["d", "d/two"]);
}

#[test]
fn a_folder_of_the_kernel_is_listed_each_time() {
    let snapshotter = Snapshotter::default();
    let root = [SnapshotRoot::path("/proc/self/fdinfo", Path::new("/"))];
    let count = || snapshotter.snapshot(&root).unwrap().iter().len();
    let before = count();
    std::thread::sleep(Duration::from_millis(30));
    let more: Vec<_> = (0..100).map(|_| File::open("/dev/null").unwrap()).collect();
    // Other tests of this process open and close files, too, but not so many.
    assert!(count() > before + more.len() / 2);
}

#[test]
fn an_xattr_that_changed_is_seen_although_the_file_is_known() {
    let scratch = Scratch::new();
    let path = scratch.file("f", b"abc");
    let_it_age(&path);
    scratch.snapshot(&["."]);
    setxattr(&path, "user.x", b"1", XattrFlags::empty()).unwrap();
    assert_eq!(meta(&scratch.entry("f")).xattrs.len(), 1);
}

#[test]
fn a_file_that_changes_within_a_tick_of_its_snapshot_is_seen_to_change() {
    let scratch = Scratch::new();
    let root = [SnapshotRoot::path(scratch.path("f"), Path::new("/"))];
    for round in 0..500_u32 {
        fs::write(scratch.path("f"), round.to_le_bytes()).unwrap();
        let first = scratch.snapshotter.snapshot(&root).unwrap();
        // Same size, same inode, most often the same times.
        fs::write(scratch.path("f"), (!round).to_le_bytes()).unwrap();
        let second = scratch.snapshotter.snapshot(&root).unwrap();
        let content = |snapshot: &Snapshot| sha256_text(snapshot.get(&scratch.path("f")).unwrap());
        assert_ne!(content(&first), content(&second), "round {round}");
    }
}

#[test]
fn an_index_spares_the_next_process_the_reading() {
    let scratch = Scratch::new();
    let names = ["tree/a", "tree/b/c", "tree/d"];
    let paths = names.map(|name| scratch.file(name, name.as_bytes()));
    setxattr(&paths[0], "user.x", b"1", XattrFlags::empty()).unwrap();
    paths.iter().for_each(|path| let_it_age(path));
    let index = scratch.path("index");
    let first = scratch.snapshot(&["tree"]);
    scratch.snapshotter.save_index(&index).unwrap();

    let next = Scratch { snapshotter: Snapshotter::with_index(&index), folder: scratch.folder };
    assert_eq!(next.snapshot(&["tree"]), first);
    assert_eq!(next.snapshot(&["tree/d", "tree/a"]).iter().len(), 2);
    assert_eq!(next.snapshotter.files_read(), 0);

    fs::write(&paths[1], b"new").unwrap();
    next.snapshot(&["tree"]);
    assert_eq!(next.snapshotter.files_read(), 1);
}

#[test]
fn a_broken_index_counts_as_empty() {
    let scratch = Scratch::new();
    let path = scratch.file("f", b"abc");
    let_it_age(&path);
    scratch.snapshot(&["f"]);
    let index = scratch.path("index");
    scratch.snapshotter.save_index(&index).unwrap();
    let whole = fs::read(&index).unwrap();
    let reads_with = |bytes: &[u8]| {
        fs::write(&index, bytes).unwrap();
        let snapshotter = Snapshotter::with_index(&index);
        snapshotter.snapshot(&[SnapshotRoot::path(&path, Path::new("/"))]).unwrap();
        snapshotter.files_read()
    };
    assert_eq!(reads_with(&whole), 0);
    for len in 0..whole.len() {
        assert_eq!(reads_with(&whole[..len]), 1, "cut to {len} bytes");
    }
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        assert_eq!(reads_with(&damaged), 1, "byte {at}");
    }
    fs::set_permissions(&index, Permissions::from_mode(0o666)).unwrap();
    assert_eq!(reads_with(&whole), 1, "others may write it");
}

#[test]
fn a_file_is_written_whole_with_its_folders_and_mode() {
    let scratch = Scratch::new();
    let path = scratch.path("new/folders/f");
    for content in [&b"first"[..], b"second", b""] {
        write_atomically(&path, content).unwrap();
        assert_eq!(fs::read(&path).unwrap(), content);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}

#[test]
fn a_reader_never_sees_a_part() {
    let scratch = Scratch::new();
    let path = scratch.path("f");
    let contents = [vec![b'a'; 100_000], vec![b'b'; 50_000]];
    write_atomically(&path, &contents[0]).unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            for _ in 0..2000 {
                assert!(contents.contains(&fs::read(&path).unwrap()));
            }
        });
        let mut turn = 0;
        while !reader.is_finished() {
            write_atomically(&path, &contents[turn % 2]).unwrap();
            turn += 1;
        }
    });
}

#[test]
fn a_link_is_replaced_and_a_folder_is_refused() {
    let scratch = Scratch::new();
    let target = scratch.file("target", b"old");
    symlink("target", scratch.path("link")).unwrap();
    write_atomically(&scratch.path("link"), b"new").unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"old");
    assert!(fs::symlink_metadata(scratch.path("link")).unwrap().is_file());

    fs::create_dir(scratch.path("folder")).unwrap();
    let error = write_atomically(&scratch.path("folder"), b"new").unwrap_err();
    assert!(matches!(error, DiskError::Write { .. }));
    assert_eq!(error.to_string(), format!("could not write `{}`", scratch.path("folder").display()));
    let error = write_atomically(&target.join("below/f"), b"new").unwrap_err();
    assert!(matches!(error, DiskError::CreateFolder { .. } | DiskError::Write { .. }));
    assert_eq!(fs::read_dir(scratch.folder.path()).unwrap().count(), 3);
}

#[test]
fn a_full_disk_leaves_the_old_file_and_no_other() {
    need_root();
    let scratch = Scratch::new();
    // A mount namespace of this thread's own: the disk is gone when the thread is.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
            mount(Some("tmpfs"), scratch.folder.path(), Some("tmpfs"), MsFlags::empty(), Some("size=64k")).unwrap();
            let path = scratch.path("f");
            write_atomically(&path, b"old").unwrap();
            let error = write_atomically(&path, &vec![0; 1 << 20]).unwrap_err();
            let DiskError::Full { path: named, source } = &error else { panic!("{error:?}") };
            assert_eq!((named, source.kind()), (&path, io::ErrorKind::StorageFull));
            assert!(error.to_string().contains("free some there"));
            assert_eq!(fs::read(&path).unwrap(), b"old");
            assert_eq!(fs::read_dir(scratch.folder.path()).unwrap().count(), 1);
        });
    });
}
