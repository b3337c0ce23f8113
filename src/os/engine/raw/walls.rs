//! The sandbox's walls as the kernel builds them: what `os::sandbox` has planned, done between fork and exec.
//!
//! Once for each supervisor: a user namespace in which it has every right and outside of which it has none, and a mount namespace
//! with nothing in it but a *stage*: `/new`, the root that scripts see, read-only; `/lower`, the folder that all work folders lie
//! in; `/run`, empty. Once for each script: namespaces of every other kind, a tmpfs on `/run` that holds all that the script can write
//! (`prepare`, before there is a script); its work folder, and a change of root after which the stage is out of reach (`enclose`). That
//! order makes a launch cheap: what does not differ between scripts is copied by the kernel with the namespace, or done ahead.
//!
//! The rules of `raw.rs` hold: async-signal-safe functions only.

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_ulong, c_void};
use std::mem::{size_of, zeroed};
use std::os::fd::RawFd;
use std::ptr;

use super::{PathText, RulesetAttr, StartFailure, Step, create_ruleset, errno};

/// What the walls are built of: made by the harness, read by its forks.
#[derive(Debug)]
pub(in crate::os) struct Plan {
    /// Who scripts are.
    pub(in crate::os) user: SandboxUser,
    /// Holds every work folder; belongs to `user`.
    pub(in crate::os) base: CString,
    /// Below `/new`: where the base is in the root that scripts see, if not in a folder that each has for itself anyway.
    pub(in crate::os) own_base: Option<CString>,
    /// Folders of the root that scripts see, parents first.
    pub(in crate::os) folders: Vec<CString>,
    /// Symbolic links in it: target, path.
    pub(in crate::os) links: Vec<(CString, CString)>,
    /// What of the machine stands in it, read-only: source below the old root, and the same path below the new one.
    pub(in crate::os) shown: Vec<Shown>,
    /// Options of the tmpfs that holds all that a script writes.
    pub(in crate::os) options: CString,
    /// Classic BPF (seccomp(2)).
    pub(in crate::os) filter: Vec<libc::sock_filter>,
    /// Landlock's version here; 0 if it has none.
    pub(in crate::os) landlock_abi: i32,
}

/// A user without rights.
#[derive(Debug, Clone, Copy)]
pub(in crate::os) struct SandboxUser {
    /// As scripts see themselves.
    pub(in crate::os) uid: u32,
    pub(in crate::os) gid: u32,
    /// As everybody else sees them.
    pub(in crate::os) outer_uid: u32,
    pub(in crate::os) outer_gid: u32,
    /// The outer numbers are not those of this process: only root may map them.
    pub(in crate::os) is_another: bool,
}

/// A file or folder of the machine that scripts see.
#[derive(Debug)]
pub(in crate::os) struct Shown {
    /// Below `/oldroot`.
    pub(in crate::os) source: CString,
    /// Below `/new`.
    pub(in crate::os) target: CString,
    pub(in crate::os) is_folder: bool,
    /// Devices work.
    pub(in crate::os) is_device: bool,
}

type Built = Result<(), StartFailure>;

/// `result` is that of a system call: below zero it has failed.
fn check(step: Step, result: impl Into<i64>) -> Result<c_int, StartFailure> {
    let result = result.into();
    if result < 0 { Err(StartFailure { step, errno: errno() }) } else { Ok(result as c_int) }
}

const AT_RECURSIVE: c_long = 0x8000;
const OPEN_TREE_CLONE: c_long = 1;
const MOVE_MOUNT_F_EMPTY_PATH: c_long = 4;
const MOUNT_ATTR_RDONLY: u64 = 1;
const MOUNT_ATTR_NOSUID: u64 = 2;
const MOUNT_ATTR_NODEV: u64 = 4;
const MOUNT_ATTR_NOEXEC: u64 = 8;
/// A folder that every machine has, to mount the stage on until it is the root.
const ANCHOR: &CStr = c"/proc";
/// Landlock's rights to files that change something (landlock(7)); not `IOCTL_DEV`, which terminals need.
const LANDLOCK_WRITES: u64 =
    0b1111_1111_0000 | LANDLOCK_WRITE_FILE | LANDLOCK_MAKE_SYM | LANDLOCK_REFER | LANDLOCK_TRUNCATE;
const LANDLOCK_WRITE_FILE: u64 = 1 << 1;
const LANDLOCK_MAKE_SYM: u64 = 1 << 12;
const LANDLOCK_REFER: u64 = 1 << 13;
const LANDLOCK_TRUNCATE: u64 = 1 << 14;
/// Abstract sockets and signals stay inside.
const LANDLOCK_SCOPES: u64 = 0b11;

/// Enters the namespaces that all scripts of a supervisor share, and sets the stage.
pub(super) unsafe fn enter(plan: &Plan) -> Built {
    // SAFETY: system calls on this process, which has one thread.
    unsafe {
        libc::umask(0);
        enter_user_namespace(&plan.user)?;
        // While our user still may reach it.
        let base = open_tree(plan.base.as_ptr(), Step::WorkDir)?;
        become_user(&plan.user)?;
        set_stage()?;
        furnish(plan)?;
        mkdir(c"/lower", 0o755)?;
        mkdir(c"/run", 0o755)?;
        set_attributes(base, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, Step::WorkDir)?;
        place(base, c"/lower", Step::WorkDir)?;
        check(Step::Stage, libc::umount2(c"/oldroot".as_ptr(), libc::MNT_DETACH))?;
        check(Step::Stage, libc::rmdir(c"/oldroot".as_ptr()))?;
        let new = check(Step::Stage, libc::open(c"/new".as_ptr(), libc::O_PATH | libc::O_CLOEXEC))?;
        let attributes = MountAttributes { set: MOUNT_ATTR_RDONLY, ..MountAttributes::NONE };
        check(Step::Stage, mount_setattr(new, 0, &attributes))?;
        libc::close(new);
        forgo_new_rights()
    }
}

/// Sees to it that what this process has is all that it and its children can ever have.
unsafe fn forgo_new_rights() -> Built {
    // SAFETY: changes to this process.
    unsafe {
        check(Step::Rights, libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        // Not even root's number would bring rights (capabilities(7), securebits): NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE, each
        // with its lock, and the lock of KEEP_CAPS.
        check(Step::Rights, libc::prctl(libc::PR_SET_SECUREBITS, 0b1110_1111, 0, 0, 0))?;
        for capability in 0..64 {
            if libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) < 0 {
                // There are no more.
                break;
            }
        }
        Ok(())
    }
}

unsafe fn enter_user_namespace(user: &SandboxUser) -> Built {
    // SAFETY: as `enter`. The helper is a fork of a process with one thread.
    unsafe {
        // Else /proc/self belongs to root.
        libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
        let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP;
        if !user.is_another {
            check(Step::UserNamespace, libc::unshare(flags))?;
            check(Step::IdMap, write_file(c"/proc/self/setgroups", b"deny"))?;
            map_ids(b"self", user)?;
        } else {
            // Whoever is to be mapped is another: somebody must do it who has stayed outside.
            let mut signal = [-1; 2];
            check(Step::IdMap, libc::pipe2(signal.as_mut_ptr(), libc::O_CLOEXEC))?;
            let pid = libc::getpid();
            let helper = check(Step::IdMap, super::fork_into(-1))?;
            if helper == 0 {
                libc::close(signal[1]);
                let mut byte = 0_u8;
                let got = libc::read(signal[0], (&raw mut byte).cast(), 1);
                let mut number = PathText::new();
                number.push_number(pid);
                let is_mapped = got == 1 && map_ids(number.as_bytes(), user).is_ok();
                libc::_exit(if is_mapped { 0 } else { 1 });
            }
            let entered = check(Step::UserNamespace, libc::unshare(flags));
            if entered.is_ok() {
                libc::write(signal[1], c"1".as_ptr().cast(), 1);
            }
            libc::close(signal[0]);
            libc::close(signal[1]);
            let mut status = 0;
            libc::waitpid(helper, &raw mut status, libc::__WALL);
            entered?;
            if status != 0 {
                return Err(StartFailure { step: Step::IdMap, errno: libc::EPERM });
            }
        }
        Ok(())
    }
}

unsafe fn map_ids(process: &[u8], user: &SandboxUser) -> Built {
    // SAFETY: texts on our own stack.
    unsafe {
        let maps: [(&[u8], u32, u32); 2] =
            [(b"/uid_map", user.uid, user.outer_uid), (b"/gid_map", user.gid, user.outer_gid)];
        for (file, inner, outer) in maps {
            let mut path = PathText::new();
            path.push(b"/proc/");
            path.push(process);
            path.push(file);
            let mut line = PathText::new();
            line.push_number(inner as c_int);
            line.push(b" ");
            line.push_number(outer as c_int);
            line.push(b" 1");
            check(Step::IdMap, write_file(path.as_c_str(), line.as_bytes()))?;
        }
        Ok(())
    }
}

/// Returns -1 and sets errno if it cannot be written.
unsafe fn write_file(path: &CStr, text: &[u8]) -> c_int {
    // SAFETY: a text of that length.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd < 0 {
            return -1;
        }
        let written = libc::write(fd, text.as_ptr().cast(), text.len());
        let kept = errno();
        libc::close(fd);
        *libc::__errno_location() = kept;
        if written < 0 { -1 } else { 0 }
    }
}

/// Gives up the machine's ids for the sandbox's. The rights inside the namespace stay.
unsafe fn become_user(user: &SandboxUser) -> Built {
    // SAFETY: changes to this process. By system calls: the C library's functions would look for other threads.
    unsafe {
        if user.is_another {
            check(Step::User, libc::syscall(libc::SYS_setgroups, 0 as c_long, ptr::null::<u32>()))?;
        }
        let (uid, gid) = (c_long::from(user.uid), c_long::from(user.gid));
        check(Step::User, libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(Step::User, libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        Ok(())
    }
}

/// Makes an empty tmpfs the root; the machine's is at `/oldroot`.
unsafe fn set_stage() -> Built {
    // SAFETY: constant texts.
    unsafe {
        let none = ptr::null::<c_char>();
        let private = (libc::MS_REC | libc::MS_PRIVATE) as c_ulong;
        check(Step::Stage, libc::mount(none, c"/".as_ptr(), none, private, ptr::null()))?;
        mount(
            c"tmpfs",
            ANCHOR,
            c"tmpfs",
            libc::MS_NOSUID | libc::MS_NODEV,
            c"mode=0755,size=1m".as_ptr(),
            Step::Stage,
        )?;
        check(Step::Stage, libc::chdir(ANCHOR.as_ptr()))?;
        check(Step::Stage, libc::mkdir(c"oldroot".as_ptr(), 0o755))?;
        check(Step::Stage, libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c"oldroot".as_ptr()))?;
        check(Step::Stage, libc::chdir(c"/".as_ptr()))?;
        mkdir(c"/new", 0o755)?;
        mount(c"tmpfs", c"/new", c"tmpfs", libc::MS_NOSUID | libc::MS_NODEV, c"mode=0755,size=1m".as_ptr(), Step::Stage)
    }
}

/// Builds the root that scripts see.
unsafe fn furnish(plan: &Plan) -> Built {
    // SAFETY: texts of the plan, which outlives us.
    unsafe {
        for folder in &plan.folders {
            mkdir(folder, 0o755)?;
        }
        for (target, path) in &plan.links {
            check(Step::Stage, libc::symlink(target.as_ptr(), path.as_ptr()))?;
        }
        for shown in &plan.shown {
            if shown.is_folder {
                mkdir(&shown.target, 0o755)?;
            } else {
                let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_CLOEXEC;
                let file = check(Step::Show, libc::open(shown.target.as_ptr(), flags, 0o644))?;
                libc::close(file);
            }
            let tree = open_tree(shown.source.as_ptr(), Step::Show)?;
            let kind = if shown.is_device { MOUNT_ATTR_NOEXEC } else { MOUNT_ATTR_NODEV };
            set_attributes(tree, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | kind, Step::Show)?;
            place(tree, &shown.target, Step::Show)?;
        }
        // The kernel mounts a new one only where a whole one is to be seen already.
        let proc = open_tree(c"/oldroot/proc".as_ptr(), Step::Proc)?;
        place(proc, c"/new/proc", Step::Proc)?;
        let flags = libc::MS_NOSUID | libc::MS_NOEXEC;
        mount(
            c"devpts",
            c"/new/dev/pts",
            c"devpts",
            flags,
            c"newinstance,ptmxmode=0666,mode=0620".as_ptr(),
            Step::Stage,
        )
    }
}

#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

impl MountAttributes {
    const NONE: Self = Self { set: 0, clear: 0, propagation: 0, user_namespace: 0 };
}

unsafe fn mount_setattr(mount: RawFd, flags: c_long, attributes: &MountAttributes) -> c_long {
    // SAFETY: a structure of the size that is told.
    unsafe {
        let flags = flags | c_long::from(libc::AT_EMPTY_PATH);
        let size = size_of::<MountAttributes>();
        libc::syscall(libc::SYS_mount_setattr, mount, c"".as_ptr(), flags, ptr::from_ref(attributes), size)
    }
}

unsafe fn set_attributes(tree: RawFd, set: u64, step: Step) -> Built {
    // SAFETY: an open mount.
    unsafe {
        check(step, mount_setattr(tree, AT_RECURSIVE, &MountAttributes { set, ..MountAttributes::NONE })).map(drop)
    }
}

/// A copy of the mounts at `path`, not mounted yet.
unsafe fn open_tree(path: *const c_char, step: Step) -> Result<RawFd, StartFailure> {
    // SAFETY: a null-terminated text.
    unsafe {
        let flags = OPEN_TREE_CLONE | AT_RECURSIVE | c_long::from(libc::O_CLOEXEC);
        check(step, libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path, flags))
    }
}

/// Mounts what `open_tree` has copied, and closes it.
unsafe fn place(tree: RawFd, target: &CStr, step: Step) -> Built {
    // SAFETY: an open mount.
    unsafe {
        let (here, flags) = (libc::AT_FDCWD, MOVE_MOUNT_F_EMPTY_PATH);
        check(step, libc::syscall(libc::SYS_move_mount, tree, c"".as_ptr(), here, target.as_ptr(), flags))?;
        libc::close(tree);
        Ok(())
    }
}

unsafe fn mount(
    source: &CStr,
    target: &CStr,
    kind: &CStr,
    flags: c_ulong,
    options: *const c_char,
    step: Step,
) -> Built {
    // SAFETY: null-terminated texts; no options are a null pointer.
    unsafe {
        check(step, libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, options.cast::<c_void>()))
            .map(drop)
    }
}

/// One that exists is fine.
unsafe fn mkdir(path: &CStr, mode: libc::mode_t) -> Built {
    // SAFETY: a null-terminated text.
    unsafe {
        if libc::mkdir(path.as_ptr(), mode) < 0 && errno() != libc::EEXIST {
            return Err(StartFailure { step: Step::Stage, errno: errno() });
        }
        Ok(())
    }
}

/// What differs between two scripts; texts lie in the exchange.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Room {
    /// `/lower/...`: what is in the work folder.
    pub(super) lower: *const c_char,
    /// `/new/...`: where scripts have it.
    pub(super) target: *const c_char,
    /// Folders to be made before that, parents first, then null.
    pub(super) folders: *const *const c_char,
    /// Whether the harness wants what has become of the work folder.
    pub(super) is_kept: bool,
    /// Most open files, bytes in one file, bytes of address space; `u64::MAX` to leave it.
    pub(super) open_files_max: u64,
    pub(super) file_bytes_max: u64,
    pub(super) address_bytes_max: u64,
}

/// The namespaces of one script, beside those of its supervisor.
pub(super) const NAMESPACES: c_int =
    libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// Furnishes one script's namespaces, of which the caller is the first process, as far as they are the same for every script.
pub(super) unsafe fn prepare(plan: &Plan) -> Built {
    // SAFETY: texts of the plan.
    unsafe {
        mount(c"tmpfs", c"/run", c"tmpfs", libc::MS_NOSUID | libc::MS_NODEV, plan.options.as_ptr(), Step::Private)?;
        for (own, place) in PRIVATE {
            check(Step::Private, libc::mkdir(own.as_ptr(), 0o1777))?;
            mount(own, place, c"", libc::MS_BIND, ptr::null(), Step::Private)?;
        }
        if let Some(base) = &plan.own_base {
            check(Step::Private, libc::mkdir(c"/run/base".as_ptr(), 0o755))?;
            mount(c"/run/base", base, c"", libc::MS_BIND, ptr::null(), Step::Private)?;
        }
        check(Step::WorkDir, libc::mkdir(c"/run/upper".as_ptr(), 0o755))?;
        check(Step::WorkDir, libc::mkdir(c"/run/work".as_ptr(), 0o755))?;
        let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        mount(c"proc", c"/new/proc", c"proc", flags, ptr::null(), Step::Proc)?;
        raise_loopback()?;
        // A name that resolves.
        check(Step::Network, libc::sethostname(c"localhost".as_ptr(), 9)).map(drop)
    }
}

/// Puts one script's work folder into its namespaces, and changes the root. Returns Landlock's ruleset, or -1 if it has none, and the work
/// folder if it is kept, else -1.
pub(super) unsafe fn enclose(plan: &Plan, room: &Room) -> Result<(RawFd, RawFd), StartFailure> {
    // SAFETY: texts of the plan and of the exchange.
    unsafe {
        let target = CStr::from_ptr(room.target);
        let mut folder = room.folders;
        while !(*folder).is_null() {
            mkdir(CStr::from_ptr(*folder), 0o755)?;
            folder = folder.add(1);
        }
        check(Step::WorkDir, libc::chdir(room.lower))?;
        let options = c"lowerdir=.,upperdir=/run/upper,workdir=/run/work,userxattr";
        let flags = libc::MS_NOSUID | libc::MS_NODEV;
        mount(c"overlay", target, c"overlay", flags, options.as_ptr(), Step::WorkDir)?;
        let open = libc::O_DIRECTORY | libc::O_CLOEXEC;
        let kept =
            if room.is_kept { check(Step::WorkDir, libc::open(room.target, libc::O_RDONLY | open))? } else { -1 };
        let work = check(Step::WorkDir, libc::open(room.target, libc::O_PATH | open))?;
        check(Step::Root, libc::chdir(c"/new".as_ptr()))?;
        check(Step::Root, libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()))?;
        check(Step::Root, libc::umount2(c".".as_ptr(), libc::MNT_DETACH))?;
        check(Step::Root, libc::chdir(c"/".as_ptr()))?;
        let ruleset = make_ruleset(plan, work)?;
        libc::close(work);
        libc::umask(0o022);
        Ok((ruleset, kept))
    }
}

/// What a script has for itself: its place in the tmpfs, and where scripts have it.
const PRIVATE: [(&CStr, &CStr); 3] =
    [(c"/run/tmp", c"/new/tmp"), (c"/run/vartmp", c"/new/var/tmp"), (c"/run/shm", c"/new/dev/shm")];

unsafe fn raise_loopback() -> Built {
    // SAFETY: the request is a local of the right type.
    unsafe {
        let socket = check(Step::Network, libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?;
        let mut request: libc::ifreq = zeroed();
        request.ifr_name[0] = b'l' as c_char;
        request.ifr_name[1] = b'o' as c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
        check(Step::Network, libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request))?;
        libc::close(socket);
        Ok(())
    }
}

/// Landlock once more forbids what the mounts forbid (landlock(7)). Before its second version, which lets files be moved between
/// folders, it would forbid too much.
unsafe fn make_ruleset(plan: &Plan, work: RawFd) -> Result<RawFd, StartFailure> {
    if plan.landlock_abi < 2 {
        return Ok(-1);
    }
    let files = if plan.landlock_abi < 3 { LANDLOCK_WRITES & !LANDLOCK_TRUNCATE } else { LANDLOCK_WRITES };
    let (scopes, size) = if plan.landlock_abi < 6 { (0, 8) } else { (LANDLOCK_SCOPES, size_of::<RulesetAttr>()) };
    // SAFETY: structures as the ABI has them, on our own stack.
    unsafe {
        let attributes = RulesetAttr { handled_access_fs: files, handled_access_net: 0, scoped: scopes };
        let ruleset = check(Step::Landlock, create_ruleset(&attributes, size))?;
        let open = libc::O_PATH | libc::O_CLOEXEC;
        allow(ruleset, work, files)?;
        let devices = files & (LANDLOCK_WRITE_FILE | LANDLOCK_TRUNCATE);
        for (folder, access) in [(c"/tmp", files), (c"/var/tmp", files), (c"/dev/shm", files), (c"/dev", devices)] {
            let fd = check(Step::Landlock, libc::open(folder.as_ptr(), open))?;
            allow(ruleset, fd, access)?;
            libc::close(fd);
        }
        Ok(ruleset)
    }
}

unsafe fn allow(ruleset: RawFd, parent: RawFd, access: u64) -> Built {
    #[repr(C, packed)]
    struct Beneath {
        access: u64,
        parent: c_int,
    }
    const RULE_PATH_BENEATH: c_long = 1;
    // SAFETY: as above.
    unsafe {
        let rule = Beneath { access, parent };
        let added =
            libc::syscall(libc::SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &raw const rule, 0 as c_long);
        check(Step::Landlock, added).map(drop)
    }
}

/// Gives up every right that the namespaces gave; called in the script's first process just before it is executed.
pub(super) unsafe fn give_up_rights(plan: &Plan, room: &Room, ruleset: RawFd) -> Built {
    // SAFETY: changes to this process.
    unsafe {
        let limits = [
            (libc::RLIMIT_NOFILE, room.open_files_max),
            (libc::RLIMIT_FSIZE, room.file_bytes_max),
            (libc::RLIMIT_AS, room.address_bytes_max),
            // One byte: none is written, and no program of the machine is started to take one, which 0 does not keep it from (core(5)).
            (libc::RLIMIT_CORE, 1),
        ];
        for (resource, max) in limits {
            if max != u64::MAX {
                check(Step::Limit, super::lower_limit(resource as c_int, max))?;
            }
        }
        let header: [u32; 2] = [0x2008_0522, 0];
        let none = [0_u32; 6];
        check(Step::Rights, libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()))?;
        if ruleset >= 0 {
            check(Step::Landlock, libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0 as c_long))?;
        }
        let program = libc::sock_fprog { len: plan.filter.len() as u16, filter: plan.filter.as_ptr().cast_mut() };
        let mode = c_long::from(libc::SECCOMP_SET_MODE_FILTER);
        check(Step::Seccomp, libc::syscall(libc::SYS_seccomp, mode, 0 as c_long, &raw const program)).map(drop)
    }
}

/// Returns how many bytes lie in what the script could write to.
pub(super) unsafe fn count_written() -> u64 {
    // SAFETY: a structure of the right type, filled if the call says so.
    unsafe {
        let mut status: libc::statfs = zeroed();
        // One of the folders that share the tmpfs.
        if libc::statfs(c"/tmp".as_ptr(), &raw mut status) < 0 {
            return 0;
        }
        (status.f_blocks - status.f_bfree).wrapping_mul(status.f_bsize as u64)
    }
}

/// Returns how many processes and threads were started in our PID namespace: the last number that was given, less our own (proc(5),
/// /proc/loadavg).
pub(super) unsafe fn count_started() -> u64 {
    let mut text = [0_u8; 128];
    // SAFETY: a buffer of that length.
    unsafe {
        let fd = libc::open(c"/proc/loadavg".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        let got = libc::read(fd, text.as_mut_ptr().cast(), text.len());
        libc::close(fd);
        let read = text.get(..usize::try_from(got).unwrap_or(0)).unwrap_or(&[]);
        let digits = read.rsplit(|byte| *byte == b' ').next().unwrap_or(&[]);
        let last = digits.iter().filter(|byte| byte.is_ascii_digit());
        last.fold(0_u64, |number, digit| number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
            .saturating_sub(1)
    }
}
