//! Which commit is checked out, told by git's own files: no program is started for it.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use super::disk::read_config;

/// Packed references of a repository with some hundred thousand of them.
const PACKED_BYTES_MAX: u64 = 64 << 20;

/// Returns the commit that is checked out in the git repository that holds the folder `dir`, in hexadecimal digits; `None` outside
/// of one, or where its files do not tell. Changes that were not committed are not seen.
///
/// Source: gitrepository-layout(5).
pub(crate) fn revision(dir: &Path) -> Option<String> {
    let git = dir.ancestors().find_map(git_dir)?;
    let head = first_line(&git.join("HEAD"))?;
    let Some(name) = head.strip_prefix("ref: ") else { return commit(&head) };
    // What several working trees share stands elsewhere.
    let common = first_line(&git.join("commondir")).map_or_else(|| git.clone(), |shared| git.join(shared));
    let loose = [&git, &common].into_iter().find_map(|folder| commit(&first_line(&folder.join(name))?));
    loose.or_else(|| packed(&common.join("packed-refs"), name))
}

/// In a working tree of another repository, and in a submodule, `.git` is a file.
fn git_dir(folder: &Path) -> Option<PathBuf> {
    let git = folder.join(".git");
    let dir = if git.is_dir() { git } else { folder.join(first_line(&git)?.strip_prefix("gitdir: ")?) };
    dir.join("HEAD").is_file().then_some(dir)
}

fn first_line(path: &Path) -> Option<String> {
    let text = String::from_utf8(read_config(path).ok()?).ok()?;
    text.lines().next().map(|line| line.trim_end().to_owned())
}

/// A hash of SHA-1 or SHA-256; nothing else is ever told of a file that was found.
fn commit(text: &str) -> Option<String> {
    let is_hash = matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash.then(|| text.to_owned())
}

fn packed(path: &Path, name: &str) -> Option<String> {
    let lines = BufReader::new(File::open(path).ok()?.take(PACKED_BYTES_MAX)).lines();
    let mut references = lines.map_while(Result::ok);
    references
        .find_map(|line| line.split_once(' ').filter(|(_, found)| *found == name).and_then(|(hash, _)| commit(hash)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ONE: &str = "0123456789abcdef0123456789abcdef01234567";

    fn with(files: &[(&str, &str)]) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("project/suites")).unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        revision(&dir.path().join("project/suites"))
    }

    #[test]
    fn a_commit_is_found_wherever_git_keeps_it() {
        let line = format!("{ONE}\n");
        let packed =
            format!("# pack-refs\n{}  refs/heads/main2\n{ONE} refs/heads/main\n^{ONE}\n", ONE.replace('0', "9"));
        let on_main = ("project/.git/HEAD", "ref: refs/heads/main\n");
        let tree = ("project/.git", "gitdir: ../repository/.git/worktrees/one\n");
        let tree_head = ("repository/.git/worktrees/one/HEAD", "ref: refs/heads/main\n");
        let shared = ("repository/.git/worktrees/one/commondir", "../..\n");
        let cases = [
            vec![("project/.git/HEAD", &line[..])],
            vec![("project/suites/.git/HEAD", &line[..])],
            vec![on_main, ("project/.git/refs/heads/main", &line)],
            vec![on_main, ("project/.git/packed-refs", &packed)],
            vec![tree, tree_head, shared, ("repository/.git/refs/heads/main", &line)],
            vec![tree, tree_head, shared, ("repository/.git/packed-refs", &packed)],
        ];
        for files in cases {
            assert_eq!(with(&files).as_deref(), Some(ONE), "{files:?}");
        }
    }

    #[test]
    fn what_git_would_not_have_written_tells_nothing() {
        let cases = [
            vec![],
            vec![("project/.git", "nothing of git's\n")],
            vec![("project/.git/HEAD", "ref: refs/heads/unborn\n")],
            vec![("project/.git/HEAD", "ref: ../../secret\n"), ("project/secret", "a password\n")],
            vec![("project/.git/HEAD", "0123456789abcdef\n")],
            vec![("project/.git/HEAD", "")],
        ];
        for files in cases {
            assert_eq!(with(&files), None, "{files:?}");
        }
    }
}
