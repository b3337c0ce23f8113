//! The tree that is worked on, and where things are in it. Whoever holds a `Root` knows that its `usr/bin` is a real
//! folder inside it; nothing below is reached through a link that leads out.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use crate::cli::RootChoice;
use crate::error::Error;
use crate::experiment::Experiment;

/// What the caller is going to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Change,
}

#[derive(Debug)]
pub(crate) struct Root {
    path: PathBuf,
}

/// What stands at a target's place.
#[derive(Debug)]
pub(crate) enum Seen {
    Missing,
    /// The link that `swap` makes there.
    Ours,
    ForeignLink(PathBuf),
    File(Metadata),
    /// A folder, a device, a socket.
    Other,
}

/// What stands at a provider's place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Provider {
    Present,
    Missing,
    Unsafe(String),
}

impl Root {
    /// Opens the chosen tree.
    ///
    /// # Errors
    /// `Usage` for a path that is relative or climbs, and for a change of the running system that no flag asked for;
    /// `Refused` for a tree that has no `usr/bin` or whose `usr/bin` is reached through a link.
    pub(crate) fn open(choice: &RootChoice, access: Access) -> Result<Self, Error> {
        let given = match choice {
            RootChoice::Flag(path) | RootChoice::Environment(path) => path.as_path(),
            RootChoice::Default => Path::new("/"),
        };
        if !given.is_absolute() || given.components().any(|part| part == Component::ParentDir) {
            let text = format!("the root must be an absolute path without `..`, not `{}`", given.display());
            return Err(Error::Usage(text));
        }
        let path = fs::canonicalize(given).map_err(Error::io("open the root", given))?;
        let by_flag = matches!(choice, RootChoice::Flag(_));
        if access == Access::Change && path == Path::new("/") && !by_flag {
            return Err(Error::Usage("to change the running system itself, say `--root /`".to_owned()));
        }
        let root = Self { path };
        root.check_folder("usr")?;
        root.check_folder("usr/bin")?;
        Ok(root)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn bin(&self) -> PathBuf {
        self.path.join("usr/bin")
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.path.join("var/lib/swap")
    }

    pub(crate) fn target(&self, applet: &str) -> PathBuf {
        self.bin().join(applet)
    }

    /// Where the original waits: beside its target, since only inside one file system a rename is atomic.
    pub(crate) fn backup(&self, applet: &str) -> PathBuf {
        self.bin().join(format!(".swap-backup.{applet}"))
    }

    /// Where a new link is made before it is renamed over its target.
    pub(crate) fn fresh_link(&self, applet: &str) -> PathBuf {
        self.bin().join(format!(".swap-new.{applet}"))
    }

    /// Returns the text of the link, relative, so that it is right inside and outside of a chroot.
    pub(crate) fn link_text(experiment: Experiment, applet: &str) -> PathBuf {
        PathBuf::from(format!("../lib/{}/{applet}", experiment.provider()))
    }

    /// Looks at a target without following links.
    ///
    /// # Errors
    /// `Io` if it can be neither read nor said to be missing.
    pub(crate) fn look(&self, experiment: Experiment, applet: &str) -> Result<Seen, Error> {
        let target = self.target(applet);
        let Some(metadata) = metadata(&target)? else {
            return Ok(Seen::Missing);
        };
        if metadata.is_file() {
            return Ok(Seen::File(metadata));
        }
        if !metadata.is_symlink() {
            return Ok(Seen::Other);
        }
        let text = fs::read_link(&target).map_err(Error::io("read the link", &target))?;
        Ok(if text == Self::link_text(experiment, applet) { Seen::Ours } else { Seen::ForeignLink(text) })
    }

    /// Judges a provider: it must be an executable file, and no link on the way to it may lead out of the root.
    ///
    /// # Errors
    /// `Io` if it can be neither read nor said to be missing.
    pub(crate) fn provider(&self, experiment: Experiment, applet: &str) -> Result<Provider, Error> {
        let path = self.bin().join(Self::link_text(experiment, applet));
        let real = match fs::canonicalize(&path) {
            Ok(real) => real,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Provider::Missing),
            Err(error) => return Err(Error::io("follow", &path)(error)),
        };
        if !real.starts_with(&self.path) {
            return Ok(Provider::Unsafe(format!("its provider leads out of the root, to `{}`", real.display())));
        }
        let metadata = fs::metadata(&real).map_err(Error::io("look at", &real))?;
        if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
            return Ok(Provider::Unsafe(format!("its provider `{}` is not a program", real.display())));
        }
        Ok(Provider::Present)
    }

    /// Makes `var/lib/swap`, never through a link.
    ///
    /// # Errors
    /// `Refused` for a link or a file in the way, `Io` if a folder cannot be made.
    pub(crate) fn make_state_dir(&self) -> Result<(), Error> {
        for part in ["var", "var/lib", "var/lib/swap"] {
            let path = self.path.join(part);
            match fs::DirBuilder::new().mode(0o755).create(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    self.check_folder(part)?;
                }
                Err(error) => return Err(Error::io("make the folder", &path)(error)),
            }
        }
        Ok(())
    }

    /// Says whether `var/lib/swap` exists, as a real folder.
    ///
    /// # Errors
    /// `Refused` for a link or a file in the way.
    pub(crate) fn has_state_dir(&self) -> Result<bool, Error> {
        for part in ["var", "var/lib", "var/lib/swap"] {
            if metadata(&self.path.join(part))?.is_none() {
                return Ok(false);
            }
            self.check_folder(part)?;
        }
        Ok(true)
    }

    fn check_folder(&self, part: &str) -> Result<(), Error> {
        let path = self.path.join(part);
        let name = path.display().to_string();
        match metadata(&path)? {
            None => Err(Error::refused(name, "there is no such folder")),
            Some(metadata) if metadata.is_dir() => Ok(()),
            Some(metadata) if metadata.is_symlink() => {
                Err(Error::refused(name, "is a link; swap works only on a real folder inside the root"))
            }
            Some(_) => Err(Error::refused(name, "is not a folder")),
        }
    }
}

/// Reads metadata without following a link; `None` if there is nothing.
///
/// # Errors
/// `Io` for everything but absence.
pub(crate) fn metadata(path: &Path) -> Result<Option<Metadata>, Error> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("look at", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::testroot::TestRoot;

    fn open(path: &Path) -> Result<Root, Error> {
        Root::open(&RootChoice::Flag(path.to_path_buf()), Access::Change)
    }

    #[test]
    fn the_running_system_is_changed_only_by_a_flag() {
        for choice in [RootChoice::Default, RootChoice::Environment(PathBuf::from("/"))] {
            assert_eq!(Root::open(&choice, Access::Change).unwrap_err().exit_code(), 2);
        }
    }

    #[test]
    fn relative_and_climbing_roots_are_refused() {
        for path in ["tmp", ".", "/tmp/../tmp"] {
            assert_eq!(open(Path::new(path)).unwrap_err().exit_code(), 2, "{path}");
        }
    }

    #[test]
    fn a_linked_usr_bin_is_refused() {
        let test = TestRoot::new("linked-bin");
        fs::rename(test.path("usr/bin"), test.path("bin")).unwrap();
        symlink("../bin", test.path("usr/bin")).unwrap();
        assert!(open(test.dir()).unwrap_err().lines()[0].contains("is a link"));
    }

    #[test]
    fn a_provider_behind_a_link_that_leads_out_is_unsafe() {
        let test = TestRoot::new("provider-out");
        let provider = test.path("usr/lib/rust-coreutils/ls");
        fs::remove_file(&provider).unwrap();
        symlink("/bin/sh", &provider).unwrap();
        let seen = test.open().provider(Experiment::Coreutils, "ls").unwrap();
        assert!(matches!(seen, Provider::Unsafe(_)));
    }

    #[test]
    fn state_is_never_written_through_a_link() {
        let test = TestRoot::new("state-link");
        fs::create_dir(test.path("elsewhere")).unwrap();
        symlink("elsewhere", test.path("var")).unwrap();
        assert!(test.open().make_state_dir().is_err());
        assert_eq!(fs::read_dir(test.path("elsewhere")).unwrap().count(), 0);
    }
}
