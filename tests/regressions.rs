//! What fuzzing starts from and what it found, held against the same claims without a fuzzer.

use std::path::{Path, PathBuf};

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "the library of the fuzz targets, seen from a test")]
#[cfg_attr(feature = "worker", expect(clippy::expect_used, reason = "a claim that cannot be tried must not pass"))]
mod claims;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// Returns the files of a folder in order; a target for which nothing was found yet has no folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let walk = walkdir::WalkDir::new(folder).sort_by_file_name().into_iter().filter_map(Result::ok);
    walk.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path).collect()
}

#[test]
fn the_claims_hold_for_every_seed_and_every_finding() {
    for (target, claims) in claims::TARGETS {
        let seeds = files(&fuzz().join("seeds").join(target));
        assert!(!seeds.is_empty(), "`{target}` has no seeds");
        for path in seeds.into_iter().chain(files(&fuzz().join("regressions").join(target))) {
            let input = std::fs::read(&path).unwrap();
            let held = std::panic::catch_unwind(|| claims(&input));
            assert!(held.is_ok(), "a claim does not hold for `{}`: see the panic above", path.display());
        }
    }
}

#[cfg(feature = "worker")]
#[test]
fn seeds_and_findings_belong_to_targets() {
    for folder in ["seeds", "regressions"] {
        for path in files(&fuzz().join(folder)) {
            let target = path.parent().and_then(Path::file_name).unwrap();
            let known = claims::TARGETS.iter().any(|(name, _)| target == *name);
            assert!(known, "nothing reads `{}`", path.display());
        }
    }
}
