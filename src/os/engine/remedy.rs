//! What helps where the kernel refuses a wall of the sandbox. It says an errno and no more, and several may have said it: which step it was, and
//! what else stands around this process, tell them apart.

use std::fs;

use super::raw::Step;

const SECCOMP: &str = "a filter for system calls forbids it: in Docker --security-opt seccomp=unconfined";
const SECURITY_MODULE: &str = "a security module forbids it: in Docker --security-opt apparmor=unconfined; on Ubuntu, for its \
                               containers too, sysctl kernel.apparmor_restrict_unprivileged_userns=0";
const SYSTEM_PATHS: &str = "parts of /proc are hidden or read-only: in Docker --security-opt systempaths=unconfined, in Podman \
                            --security-opt unmask=ALL";

const NAMESPACES: &str = "raise user.max_user_namespaces and the other user.max_*_namespaces (sysctl)";

/// What stands around this process.
#[derive(Debug, Clone, Copy, Default)]
struct Around {
    /// A seccomp filter.
    is_filtered: bool,
    /// Debian's switch for ordinary users is off.
    is_switched_off: bool,
    /// Its user has no number in its user namespace.
    is_unmapped: bool,
    /// It may mount.
    is_administrator: bool,
}

impl Around {
    fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let status = read("/proc/self/status");
        Self {
            is_filtered: status.lines().any(|line| line.starts_with("Seccomp:") && line.ends_with('2')),
            is_administrator: rights(&status) >> ADMINISTRATOR & 1 == 1,
            is_switched_off: read("/proc/sys/kernel/unprivileged_userns_clone").trim() == "0",
            is_unmapped: read("/proc/self/uid_map").trim().is_empty(),
        }
    }
}

/// Returns what to do where a limit of whoever started us, or of this machine, is too low.
pub(super) fn of_scarcity(errno: i32) -> Option<&'static str> {
    match errno {
        libc::EAGAIN => Some("raise the limit of processes (ulimit -u; in Docker --pids-limit)"),
        libc::EMFILE => Some("raise the limit of open files (ulimit -n)"),
        libc::ENFILE => Some("raise fs.file-max (sysctl)"),
        _ => None,
    }
}

/// `CAP_SYS_ADMIN` (capabilities(7)).
const ADMINISTRATOR: u32 = 21;

/// Returns the rights in force that a `/proc/PID/status` tells, a bit each.
pub(super) fn rights(status: &str) -> u64 {
    let hexadecimal = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    hexadecimal.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0)
}

/// Returns what to do where mounts of one's own, outside of any sandbox, are refused.
pub(in crate::os) fn of_mounts(errno: i32) -> &'static str {
    mounts(errno, Around::look())
}

fn mounts(errno: i32, around: Around) -> &'static str {
    match errno {
        libc::EPERM if !around.is_administrator => "be root, in Docker with --cap-add SYS_ADMIN as well",
        libc::EPERM if around.is_filtered => SECCOMP,
        libc::EPERM | libc::EACCES => SECURITY_MODULE,
        libc::ENOSPC => NAMESPACES,
        _ => "Linux 5.11 and `modprobe overlay` are needed, and a root that overlays can lie on",
    }
}

/// Returns what to do about a wall that could not be built.
pub(super) fn remedy(step: Step, errno: i32) -> &'static str {
    find(step, errno, Around::look())
}

fn find(step: Step, errno: i32, around: Around) -> &'static str {
    let makes_namespaces = matches!(step, Step::UserNamespace | Step::Namespaces);
    if let Some(remedy) = of_scarcity(errno) {
        return remedy;
    }
    match (step, errno) {
        (_, libc::ENOSPC | libc::EUSERS) if makes_namespaces => NAMESPACES,
        (Step::UserNamespace, libc::EPERM) if around.is_unmapped => {
            "the user namespace has no number for this user: map it (unshare --map-current-user)"
        }
        // Where a tmpfs may be mounted and a /proc may not, it is for what lies over the one that is there.
        (Step::Proc, libc::EPERM) => SYSTEM_PATHS,
        (_, libc::EPERM | libc::ENOSYS) if around.is_filtered => SECCOMP,
        (Step::UserNamespace, libc::EPERM) if around.is_switched_off => {
            "sysctl kernel.unprivileged_userns_clone=1, or be root"
        }
        (Step::UserNamespace, libc::EPERM) => "outside of a chroot it is allowed, unless a security module forbids it",
        (_, libc::EINVAL | libc::ENOSYS) if makes_namespaces => "a kernel with namespaces of every kind is needed",
        (_, libc::ENOSYS) => "Linux 5.12 or later is needed",
        (Step::IdMap, libc::ENOENT) => "mount /proc",
        (Step::WorkDir, libc::EINVAL | libc::ENODEV) => {
            "set TMPDIR to a folder that overlays can lie on: not on two overlays already (in Docker a volume, or --tmpfs /tmp); \
             Linux 5.11 and `modprobe overlay` are needed"
        }
        (_, libc::EPERM | libc::EACCES) => SECURITY_MODULE,
        _ => "run without the sandbox only what you trust",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_options_are_named_one_after_another() {
        let filtered = Around { is_filtered: true, ..Around::default() };
        let free = Around::default();
        let path = [
            (Step::UserNamespace, libc::EPERM, filtered, "seccomp=unconfined"),
            // With --cap-add SYS_ADMIN, which lets namespaces and mounts through.
            (Step::Stage, libc::EPERM, filtered, "seccomp=unconfined"),
            (Step::Stage, libc::EACCES, free, "apparmor=unconfined"),
            (Step::Proc, libc::EPERM, free, "systempaths=unconfined"),
        ];
        for (step, errno, around, option) in path {
            assert!(find(step, errno, around).contains(option), "{step:?} {errno} {around:?}");
        }
    }

    #[test]
    fn ubuntus_restriction_is_named_wherever_it_strikes() {
        let steps = [
            (Step::UserNamespace, libc::EACCES),
            (Step::IdMap, libc::EACCES),
            (Step::IdMap, libc::EPERM),
            (Step::User, libc::EPERM),
            (Step::Stage, libc::EPERM),
            (Step::Stage, libc::EACCES),
        ];
        for (step, errno) in steps {
            let remedy = find(step, errno, Around::default());
            assert!(remedy.contains("kernel.apparmor_restrict_unprivileged_userns=0"), "{step:?} {errno}: {remedy}");
        }
    }

    #[test]
    fn a_limit_is_named_whatever_it_keeps_from_us() {
        for (errno, limit) in [(libc::EAGAIN, "ulimit -u"), (libc::EMFILE, "ulimit -n"), (libc::ENFILE, "fs.file-max")]
        {
            assert!(of_scarcity(errno).is_some_and(|remedy| remedy.contains(limit)), "{errno}");
            for step in [Step::UserNamespace, Step::Show, Step::Namespaces] {
                assert!(find(step, errno, Around::default()).contains(limit), "{step:?} {errno}");
            }
        }
        assert_eq!(of_scarcity(libc::EPERM), None);
    }

    #[test]
    fn rights_are_read_as_bits() {
        let status = "Name:\tx\nCapPrm:\tffffffffffffffff\nCapEff:\t0000000000200001\nCapBnd:\t0\n";
        assert_eq!(rights(status), 1 << ADMINISTRATOR | 1);
        assert_eq!(rights(""), 0);
    }

    #[test]
    fn mounts_of_ones_own_are_roots_first_of_all() {
        let ordinary = Around { is_filtered: true, ..Around::default() };
        let root = Around { is_administrator: true, ..Around::default() };
        let filtered = Around { is_filtered: true, ..root };
        let path = [
            (libc::EPERM, ordinary, "be root, in Docker with --cap-add SYS_ADMIN"),
            (libc::EPERM, filtered, "seccomp=unconfined"),
            (libc::EACCES, filtered, "apparmor=unconfined"),
            (libc::EPERM, root, "apparmor=unconfined"),
            (libc::ENOSPC, root, "max_user_namespaces"),
            (libc::EINVAL, root, "modprobe overlay"),
        ];
        for (errno, around, option) in path {
            assert!(mounts(errno, around).contains(option), "{errno} {around:?}");
        }
    }

    #[test]
    fn debians_switch_is_named_where_it_is_off() {
        let off = Around { is_switched_off: true, ..Around::default() };
        let name = "kernel.unprivileged_userns_clone=1";
        assert!(find(Step::UserNamespace, libc::EPERM, off).contains(name));
        assert!(!find(Step::UserNamespace, libc::EPERM, Around::default()).contains(name));
    }
}
