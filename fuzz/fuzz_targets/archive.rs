//! Whatever the bytes of an archive are: no panic, no hang, no memory without a bound, and only plain files and folders come out.

#![no_main]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use proving_ground::internals::unpack;

fuzz_target!(|bytes: &[u8]| {
    // In memory, where the machine has such a folder: a run makes millions.
    let shared_memory = Path::new("/dev/shm");
    let root = if shared_memory.is_dir() { tempfile::tempdir_in(shared_memory) } else { tempfile::tempdir() };
    let root = root.expect("a folder can be made");
    let into = root.path().join("into");
    fs::create_dir(&into).expect("a folder can be made");
    if unpack(bytes, &into).is_ok() {
        check(&into);
    }
    let beside = fs::read_dir(root.path()).expect("the folder can be read").count();
    assert_eq!(beside, 1, "something was written beside the folder");
});

fn check(folder: &Path) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let entry = entry.expect("the folder can be read");
        let meta = entry.metadata().expect("what was unpacked can be looked at");
        let mode = meta.permissions().mode();
        assert!(matches!(mode, 0o100_644 | 0o100_755 | 0o040_755), "{mode:o} {}", entry.path().display());
        if meta.is_dir() {
            check(&entry.path());
        }
    }
}
