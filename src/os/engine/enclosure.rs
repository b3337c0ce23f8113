//! The sandbox's walls, planned: who scripts are, what of the machine they see, what they may call, how much they may use. How the
//! kernel builds them: `raw/walls.rs`.

use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{getegid, geteuid};

use super::EngineError;
use super::filter::filter;
use super::raw::RoomRequest;
use super::raw::walls::{Plan, SandboxUser, Shown};
use super::remedy::rights;
use super::slot::c_string;
use crate::model::script::{Changes, SandboxLimits, Script};

/// Walls, ready to be built.
#[derive(Debug)]
pub(in crate::os) struct Enclosure {
    pub(super) plan: Plan,
    pub(super) limits: SandboxLimits,
    base: PathBuf,
}

/// Whose number scripts have when root runs them: no distribution gives it to anyone (systemd, "Users, Groups, UIDs and GIDs").
const NOBODY_ELSE: u32 = 65_533;

/// Programs and what they need. One that is a link is one in the sandbox.
const SHOWN: [&str; 13] = [
    "/usr",
    "/etc",
    "/opt",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    // Not the folders above: there is the socket of a daemon that builds, and downloads, for everybody.
    "/nix/store",
    "/nix/var/nix/profiles",
    "/gnu/store",
    "/run/current-system",
];
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
const FOLDERS: [&str; 9] = ["/dev", "/dev/pts", "/dev/shm", "/proc", "/run", "/sys", "/tmp", "/var", "/var/tmp"];
const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
    ("/run", "/var/run"),
];
/// Folders of which each script has an empty one of its own.
const PRIVATE: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// Returns through what of this machine scripts see what lies at `path`, or would if it were there: something that they always see, or one
/// of `readable`. They may read it if its mode lets them.
pub(crate) fn shown_by<'a>(path: &Path, readable: &'a [PathBuf]) -> Option<&'a Path> {
    let real = resolved(path);
    let always = SHOWN.iter().map(Path::new).find(|shown| real.starts_with(shown));
    always.or_else(|| readable.iter().map(PathBuf::as_path).find(|shown| real.starts_with(resolved(shown))))
}

/// Returns one of `readable` that is the folder `path` or lies in it. Scripts see it whatever the modes of the folders above it.
#[cfg(feature = "worker")]
pub(crate) fn shown_in<'a>(path: &Path, readable: &'a [PathBuf]) -> Option<&'a Path> {
    let real = resolved(path);
    readable.iter().map(PathBuf::as_path).find(|shown| resolved(shown).starts_with(&real))
}

/// Follows the links of a path, as far as there is something.
fn resolved(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut real, component| {
        if component == Component::ParentDir {
            real.pop();
            return real;
        }
        real.push(component);
        real.canonicalize().unwrap_or(real)
    })
}

impl Enclosure {
    /// Plans walls for scripts whose work folders lie in `base`, which must exist and belong to whom `user` names. They see `readable` of the
    /// machine, too.
    ///
    /// # Errors
    /// If a path has a NUL byte, or this machine's architecture has no system call filter.
    pub(in crate::os) fn plan(base: &Path, readable: &[PathBuf], limits: SandboxLimits) -> io::Result<Self> {
        let mut root = Root::default();
        FOLDERS.iter().for_each(|path| root.folder(Path::new(path)));
        for (target, path) in LINKS {
            root.links.push((OsString::from(target), PathBuf::from(path)));
        }
        SHOWN.iter().for_each(|path| root.show_machines(Path::new(path)));
        readable.iter().for_each(|path| root.show(path));
        DEVICES.iter().for_each(|path| root.device(Path::new(path)));
        let is_private = PRIVATE.iter().any(|private| base.starts_with(private));
        if !is_private {
            root.folder(base);
        }
        let options =
            format!("size={},nr_inodes={},mode=0755", limits.disk_bytes_max, limits.disk_files_max.saturating_add(16));
        let text = |path: &Path| c_string_at("/new", path);
        let plan = Plan {
            user: user(),
            base: c_text(base.as_os_str())?,
            own_base: (!is_private).then(|| text(base)).transpose()?,
            folders: root.folders.iter().map(|path| text(path)).collect::<io::Result<_>>()?,
            links: (root.links.iter())
                .map(|(target, path)| Ok((c_text(target)?, text(path)?)))
                .collect::<io::Result<_>>()?,
            shown: root.shown.iter().map(Seen::planned).collect::<io::Result<_>>()?,
            options: c_text(OsStr::new(&options))?,
            filter: filter()?,
            landlock_abi: super::raw::landlock_abi(),
        };
        Ok(Self { plan, limits, base: base.to_owned() })
    }

    /// What `script` has for itself; `has_memory_cgroup` bounds the memory of all its processes together.
    ///
    /// # Errors
    /// If its work folder is not in the base, or its working directory not in that.
    pub(super) fn room(&self, script: &Script, has_memory_cgroup: bool) -> Result<RoomRequest, EngineError> {
        let refused = |_| EngineError::WorkDir { work_dir: script.work_dir.clone(), base: self.base.clone() };
        let below = script.work_dir.strip_prefix(&self.base).map_err(refused)?;
        script.cwd.strip_prefix(&script.work_dir).map_err(refused)?;
        let text = |prefix: &str, path: &Path| c_string(&below_root(prefix, path));
        let made_by_plan = |folder: &Path| self.plan.own_base.is_some() && self.base.starts_with(folder);
        let mut folders: Vec<&Path> = script.work_dir.ancestors().filter(|folder| !made_by_plan(folder)).collect();
        folders.retain(|folder| {
            folder.parent().is_some() && !PRIVATE.iter().any(|private| Path::new(private).starts_with(folder))
        });
        folders.reverse();
        let limits = self.limits;
        Ok(RoomRequest {
            lower: text("/lower/", below)?,
            target: text("/new", &script.work_dir)?,
            folders: folders.into_iter().map(|folder| text("/new", folder)).collect::<Result<_, _>>()?,
            is_kept: script.changes == Changes::Kept,
            open_files_max: u64::from(limits.open_files_max),
            file_bytes_max: limits.disk_bytes_max,
            address_bytes_max: if has_memory_cgroup { u64::MAX } else { limits.memory_bytes_max },
        })
    }
}

/// Returns whom work folders must belong to: only if that is somebody else.
pub(in crate::os) fn owner() -> Option<(u32, u32)> {
    let user = user();
    user.is_another.then_some((user.outer_uid, user.outer_gid))
}

/// What root needs to hand scripts to somebody else: to give him files, to reach those, to become him (capabilities(7)).
const RIGHTS: [(&str, u32); 4] = [("CAP_CHOWN", 0), ("CAP_DAC_OVERRIDE", 1), ("CAP_SETGID", 6), ("CAP_SETUID", 7)];

/// Returns the rights that this process lacks to hand scripts to another user, if it has to.
pub(in crate::os) fn missing_rights() -> Vec<&'static str> {
    if owner().is_none() {
        return Vec::new();
    }
    let has = rights(&fs::read_to_string("/proc/self/status").unwrap_or_default());
    let lacks = |bit: u32| has >> bit & 1 == 0;
    RIGHTS.into_iter().filter(|(_, bit)| lacks(*bit)).map(|(name, _)| name).collect()
}

/// Returns how many files this process may have open.
pub(in crate::os) fn open_files_max() -> u64 {
    // A limit that cannot be read is none of ours.
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft)
}

/// Tells whether scripts would be the owner of the machine's settings, and so could read what only that may: as root of a user namespace in
/// which there is nobody else, made by the machine's root.
pub(in crate::os) fn owns_the_machine() -> bool {
    let user = user();
    // Everybody who has no number in this namespace seems to have this one (user_namespaces(7)).
    let nobody = fs::read_to_string("/proc/sys/kernel/overflowuid").ok().and_then(|text| text.trim().parse().ok());
    let is_somebody = Some(user.outer_uid) != nobody;
    fs::metadata("/etc").is_ok_and(|meta| !user.is_another && is_somebody && meta.uid() == user.outer_uid)
}

/// Who scripts are; looked up once.
fn user() -> SandboxUser {
    static USER: OnceLock<SandboxUser> = OnceLock::new();
    *USER.get_or_init(find_user)
}

/// Root hands scripts to somebody without rights, if there is somebody: in a user namespace there may not be.
fn find_user() -> SandboxUser {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    if uid != 0 {
        return SandboxUser { uid, gid, outer_uid: uid, outer_gid: gid, is_another: false };
    }
    let is_there = ["/proc/self/uid_map", "/proc/self/gid_map"].iter().all(|map| holds(map, NOBODY_ELSE));
    let (outer_uid, outer_gid) = if is_there { (NOBODY_ELSE, NOBODY_ELSE) } else { (uid, gid) };
    SandboxUser { uid: NOBODY_ELSE, gid: NOBODY_ELSE, outer_uid, outer_gid, is_another: is_there }
}

/// Tells whether a map of user_namespaces(7) holds the number `id`.
fn holds(map: &str, id: u32) -> bool {
    let text = fs::read_to_string(map).unwrap_or_default();
    text.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(|number| number.parse::<u64>().unwrap_or(0));
        let (first, _, count) = (numbers.next().unwrap_or(0), numbers.next(), numbers.next().unwrap_or(0));
        (first..first + count).contains(&u64::from(id))
    })
}

/// The root that scripts see, while it is planned.
#[derive(Default)]
struct Root {
    folders: Vec<PathBuf>,
    links: Vec<(OsString, PathBuf)>,
    shown: Vec<Seen>,
}

/// A path of the machine that is shown.
struct Seen {
    source: PathBuf,
    target: PathBuf,
    is_folder: bool,
    is_device: bool,
}

impl Seen {
    fn planned(&self) -> io::Result<Shown> {
        Ok(Shown {
            source: c_string_at("/oldroot", &self.source)?,
            target: c_string_at("/new", &self.target)?,
            is_folder: self.is_folder,
            is_device: self.is_device,
        })
    }
}

impl Root {
    /// A folder, with those above it, that is not shown anyway.
    fn folder(&mut self, path: &Path) {
        let mut missing: Vec<_> = (path.ancestors().filter(|folder| folder.parent().is_some()))
            .take_while(|folder| !self.has(folder))
            .map(Path::to_path_buf)
            .collect();
        missing.reverse();
        self.folders.extend(missing);
    }

    fn has(&self, path: &Path) -> bool {
        self.folders.iter().any(|folder| folder == path) || self.is_seen(path)
    }

    fn is_seen(&self, path: &Path) -> bool {
        self.shown.iter().any(|seen| path.starts_with(&seen.target))
    }

    /// Something that every script sees, if it is there. What is a link is one for scripts: what it leads to is shown as well.
    fn show_machines(&mut self, path: &Path) {
        let Ok(meta) = path.symlink_metadata() else { return };
        match fs::read_link(path) {
            Ok(target) => self.links.push((target.into_os_string(), path.to_owned())),
            Err(_) => self.mount(path, path, meta.is_dir()),
        }
    }

    /// Something that is shown on demand, under the name that was given: links on the way to it lead where scripts cannot follow.
    fn show(&mut self, path: &Path) {
        let (Ok(source), Ok(meta)) = (path.canonicalize(), path.metadata()) else { return };
        let is_behind_link = self.links.iter().any(|(_, link)| path.starts_with(link));
        let target = if is_behind_link { &source } else { path };
        self.mount(&source, target, meta.is_dir());
    }

    fn mount(&mut self, source: &Path, target: &Path, is_folder: bool) {
        if self.is_seen(target) {
            return;
        }
        if let Some(parent) = target.parent() {
            self.folder(parent);
        }
        self.shown.push(Seen { source: source.to_owned(), target: target.to_owned(), is_folder, is_device: false });
    }

    fn device(&mut self, path: &Path) {
        if path.exists() {
            self.shown.push(Seen {
                source: path.to_owned(),
                target: path.to_owned(),
                is_folder: false,
                is_device: true,
            });
        }
    }
}

fn below_root(root: &str, path: &Path) -> OsString {
    [OsStr::new(root), path.as_os_str()].join(OsStr::new(""))
}

/// # Errors
/// If there is a NUL byte.
fn c_text(text: &OsStr) -> io::Result<CString> {
    Ok(CString::new(text.as_bytes())?)
}

/// # Errors
/// If there is a NUL byte.
fn c_string_at(prefix: &str, path: &Path) -> io::Result<CString> {
    c_text(&below_root(prefix, path))
}

#[cfg(feature = "worker")]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_scripts_see_is_known_before_it_is_there_and_through_links() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        fs::create_dir_all(dir.join("data/below")).unwrap();
        symlink(dir.join("data"), dir.join("link")).unwrap();
        symlink("/usr/bin", dir.join("programs")).unwrap();
        let readable = [dir.join("other"), dir.join("link")];
        for (path, by) in [
            ("/gnu/store/not/there", Some("/gnu/store")),
            ("/nowhere/../opt/../etc/x", Some("/etc")),
            ("programs/x", Some("/usr")),
            ("data/below/x", Some("link")),
            ("link/below", Some("link")),
            ("data", Some("link")),
            ("datum", None),
            (".", None),
            ("/", None),
            ("/srv/x", None),
        ] {
            let by = by.map(|by| dir.join(by));
            assert_eq!(shown_by(&dir.join(path), &readable), by.as_deref(), "{path}");
        }
        for (path, shown) in [(".", Some("other")), ("data", Some("link")), ("data/below", None), ("/usr", None)] {
            let shown = shown.map(|shown| dir.join(shown));
            assert_eq!(shown_in(&dir.join(path), &readable), shown.as_deref(), "{path}");
        }
    }
}
