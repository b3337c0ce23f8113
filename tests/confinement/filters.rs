//! Programs that a runner is started by: this binary, executed again. Each takes something away and executes the rest of its words.

#![expect(unsafe_code, reason = "filters and rulesets that no safe wrapper offers")]
#![expect(clippy::disallowed_methods, reason = "executes what is tested")]

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The words by which this binary is such a program.
const REFUSING: &str = "__refusing";
const WRITING_ONLY_IN: &str = "__writing-only-in";

/// Refuses system calls, each written `NAME=ERRNO`, separated by commas; `namespaces` are those that make some.
pub(crate) fn refusing(program: &str, calls: &str) -> Vec<String> {
    [program, REFUSING, calls].map(str::to_owned).into()
}

/// Forbids to write to files but those in `folders`, as a security module does (landlock(7)).
pub(crate) fn writing_only_in(program: &str, folders: &str) -> Vec<String> {
    [program, WRITING_ONLY_IN, folders].map(str::to_owned).into()
}

/// Acts as one of these programs, if this binary was called by its word.
pub(crate) fn run_if_asked() {
    let words: Vec<OsString> = std::env::args_os().collect();
    let [_, order, text, program, rest @ ..] = words.as_slice() else { return };
    let text = text.to_str().unwrap();
    match order.to_str() {
        Some(REFUSING) => refuse(text),
        Some(WRITING_ONLY_IN) => write_only_in(text),
        Some(_) | None => return,
    }
    panic!("could not execute {}: {}", program.display(), Command::new(program).args(rest).exec());
}

const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;
/// All of `CLONE_NEW*`.
const NAMESPACES: u32 = 0x7e02_0000;

fn instruction(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

fn forgo_new_rights() {
    // SAFETY: changes this process.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0, "{}", io::Error::last_os_error());
}

fn refuse(calls: &str) {
    let mut filter = vec![instruction(LOAD, 0, 0, 0)];
    for call in calls.split(',') {
        let (name, errno) = call.split_once('=').unwrap();
        let refused = instruction(RETURN, libc::SECCOMP_RET_ERRNO | errno.parse::<u32>().unwrap(), 0, 0);
        if name == "namespaces" {
            // clone3's flags cannot be seen; the C library then calls clone.
            refuse_call(&mut filter, libc::SYS_clone3, &[instruction(RETURN, libc::SECCOMP_RET_ERRNO | 38, 0, 0)]);
            for call in [libc::SYS_unshare, libc::SYS_clone] {
                let with_flags = [
                    instruction(LOAD, 16, 0, 0),
                    instruction(JUMP_ANY_BIT, NAMESPACES, 0, 1),
                    refused,
                    instruction(LOAD, 0, 0, 0),
                ];
                refuse_call(&mut filter, call, &with_flags);
            }
            continue;
        }
        refuse_call(&mut filter, number(name), &[refused]);
    }
    filter.push(instruction(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0));
    let program = libc::sock_fprog { len: u16::try_from(filter.len()).unwrap(), filter: filter.as_mut_ptr() };
    forgo_new_rights();
    // SAFETY: a program of that length.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

fn refuse_call(filter: &mut Vec<libc::sock_filter>, call: libc::c_long, then: &[libc::sock_filter]) {
    let skipped = u8::try_from(then.len()).unwrap();
    filter.push(instruction(JUMP_EQUAL, u32::try_from(call).unwrap(), 0, skipped));
    filter.extend(then);
}

fn number(name: &str) -> libc::c_long {
    match name {
        "mount" => libc::SYS_mount,
        "mount_setattr" => libc::SYS_mount_setattr,
        "move_mount" => libc::SYS_move_mount,
        "open_tree" => libc::SYS_open_tree,
        "pivot_root" => libc::SYS_pivot_root,
        other => panic!("no system call `{other}`"),
    }
}

fn write_only_in(folders: &str) {
    const WRITE_FILE: u64 = 1 << 1;
    const PATH_BENEATH: libc::c_long = 1;
    #[repr(C, packed)]
    struct Beneath {
        access: u64,
        parent: i32,
    }
    forgo_new_rights();
    // SAFETY: structures as landlock(7) has them, on our own stack.
    unsafe {
        let handled = WRITE_FILE;
        let ruleset = libc::syscall(libc::SYS_landlock_create_ruleset, &raw const handled, size_of::<u64>(), 0);
        assert!(ruleset >= 0, "Landlock is needed: {}", io::Error::last_os_error());
        for folder in folders.split(':') {
            let folder = File::open(folder).unwrap();
            let rule = Beneath { access: WRITE_FILE, parent: folder.as_raw_fd() };
            let added = libc::syscall(libc::SYS_landlock_add_rule, ruleset, PATH_BENEATH, &raw const rule, 0);
            assert_eq!(added, 0, "{}", io::Error::last_os_error());
        }
        let done = libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0);
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
    }
}
