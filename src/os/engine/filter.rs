//! The sandbox's filter for system calls: classic BPF (seccomp(2)), small, because the kernel compiles it for every script and tries
//! every call on it.

use std::io;

/// Calls that are refused with `EPERM`: what namespaces do not separate, and what would build new ones. Most of the second kind need rights
/// that scripts do not have; this is the second wall.
const REFUSED: [i64; 30] = [
    // Keys are the user's, not the namespace's.
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    // Calls that no filter sees.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // The kernel, its log, its clocks.
    libc::SYS_acct,
    libc::SYS_bpf,
    libc::SYS_clock_settime,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_kexec_load,
    libc::SYS_perf_event_open,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_userfaultfd,
    // What there is to see.
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_umount2,
    // Who sees it.
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_kcmp,
];
/// Kinds of sockets that stay in the network namespace.
const SOCKETS: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
/// Flags of clone(2) that make namespaces: all of `CLONE_NEW*`.
const CLONE_NAMESPACES: u32 = 0x7e02_0080;
/// Bits of the calls of the x32 ABI, which the architecture does not tell from x86-64's.
const X32: u32 = 0x4000_0000;

/// linux/audit.h
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: Option<u32> = Some(0xc000_00b7);
#[cfg(target_arch = "riscv64")]
const ARCHITECTURE: Option<u32> = Some(0xc000_00f3);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
const ARCHITECTURE: Option<u32> = None;

/// Where `struct seccomp_data` has the number, the architecture, and the lower half of the first argument.
const NUMBER: u32 = 0;
const MACHINE: u32 = 4;
const FIRST_ARGUMENT: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };

const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_AT_LEAST: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// What scripts may not call is refused with `EPERM`. clone3(2), whose flags no filter can see, is unknown, and so is x32: the C library
/// then calls clone(2). Limits can be set of the calling process only. Programs of another architecture, as 32-bit ones, are killed.
///
/// # Errors
/// On an architecture whose number is not known here.
pub(super) fn filter() -> io::Result<Vec<libc::sock_filter>> {
    let architecture = ARCHITECTURE.ok_or_else(|| {
        io::Error::new(io::ErrorKind::Unsupported, "no filter for system calls on this architecture: a bug to report")
    })?;
    let mut program = Program::default();
    let allow = program.end(libc::SECCOMP_RET_ALLOW);
    let refuse = program.end(libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned());
    let unknown = program.end(libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned());
    let kill = program.end(libc::SECCOMP_RET_KILL_PROCESS);
    let socket = SOCKETS
        .iter()
        .fold(refuse, |otherwise, family| program.jump(JUMP_EQUAL, family.cast_unsigned(), allow, otherwise));
    let socket = program.load(FIRST_ARGUMENT, socket);
    let clone = program.jump(JUMP_ANY_BIT, CLONE_NAMESPACES, refuse, allow);
    let clone = program.load(FIRST_ARGUMENT, clone);
    // Its limits are every process's own; the script's init is of the same user (prlimit(2)), and must poll and open files.
    let limit = program.jump(JUMP_EQUAL, 0, allow, refuse);
    let limit = program.load(FIRST_ARGUMENT, limit);
    let special = [
        (libc::SYS_clone3, unknown),
        (libc::SYS_prlimit64, limit),
        (libc::SYS_clone, clone),
        (libc::SYS_socket, socket),
        (libc::SYS_socketpair, socket),
    ];
    let mut calls: Vec<_> = REFUSED.into_iter().map(|call| (call, refuse)).chain(special).collect();
    calls.sort_unstable();
    let number = program.search(&calls, allow);
    let number = program.jump(JUMP_AT_LEAST, X32, unknown, number);
    let number = program.load(NUMBER, number);
    let start = program.jump(JUMP_EQUAL, architecture, number, kill);
    program.load(MACHINE, start);
    Ok(program.0.into_iter().rev().collect())
}

/// Instructions, the last one first: jumps lead to what follows, which is there before them.
#[derive(Default)]
struct Program(Vec<libc::sock_filter>);

/// An instruction to go on with.
type Place = usize;

impl Program {
    fn push(&mut self, code: u16, k: u32, jt: u8, jf: u8) -> Place {
        self.0.push(libc::sock_filter { code, jt, jf, k });
        self.0.len() - 1
    }

    fn end(&mut self, answer: u32) -> Place {
        self.push(RETURN, answer, 0, 0)
    }

    /// `then` must be what was added last.
    fn load(&mut self, offset: u32, then: Place) -> Place {
        debug_assert_eq!(then + 1, self.0.len(), "a load goes on with what stands behind it");
        self.push(LOAD, offset, 0, 0)
    }

    fn jump(&mut self, code: u16, k: u32, yes: Place, no: Place) -> Place {
        // One byte each: the whole program is shorter than that.
        let distance = |place: Place| u8::try_from(self.0.len() - 1 - place).unwrap_or(u8::MAX);
        let (yes, no) = (distance(yes), distance(no));
        self.push(code, k, yes, no)
    }

    /// Finds the loaded number among sorted ones by halves.
    fn search(&mut self, calls: &[(i64, Place)], otherwise: Place) -> Place {
        let number = |call: i64| u32::try_from(call).unwrap_or(u32::MAX);
        if let [_, _, _, ..] = calls {
            let (low, high) = calls.split_at(calls.len() / 2);
            let yes = self.search(high, otherwise);
            let no = self.search(low, otherwise);
            return self.jump(JUMP_AT_LEAST, number(high[0].0), yes, no);
        }
        calls.iter().fold(otherwise, |otherwise, (call, place)| self.jump(JUMP_EQUAL, number(*call), *place, otherwise))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer (Documentation/networking/filter.rst, as far as the filter goes).
    fn answer(filter: &[libc::sock_filter], machine: u32, number: i64, argument: u64) -> u32 {
        let number = u32::try_from(number).unwrap();
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let libc::sock_filter { code, jt, jf, k } = filter[at];
            let is_met = match code {
                RETURN => return k,
                LOAD => {
                    accumulator = match k {
                        NUMBER => number,
                        MACHINE => machine,
                        FIRST_ARGUMENT => u32::try_from(argument & 0xffff_ffff).unwrap(),
                        other => panic!("loads {other}"),
                    };
                    at += 1;
                    continue;
                }
                JUMP_EQUAL => accumulator == k,
                JUMP_AT_LEAST => accumulator >= k,
                JUMP_ANY_BIT => accumulator & k != 0,
                other => panic!("code {other}"),
            };
            at += 1 + usize::from(if is_met { jt } else { jf });
        }
    }

    #[test]
    fn every_call_has_the_answer_that_it_is_to_have() {
        let filter = filter().unwrap();
        let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
        let unknown = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
        for number in 0..1000 {
            let expected = match number {
                libc::SYS_clone3 => unknown,
                // No family of that number.
                libc::SYS_socket | libc::SYS_socketpair => refused,
                _ if REFUSED.contains(&number) => refused,
                _ => libc::SECCOMP_RET_ALLOW,
            };
            assert_eq!(answer(&filter, ARCHITECTURE.unwrap(), number, 0), expected, "{number}");
            let x32 = number | i64::from(X32);
            assert_eq!(answer(&filter, ARCHITECTURE.unwrap(), x32, 0), unknown, "{number}");
            assert_eq!(answer(&filter, 0x4000_0003, number, 0), libc::SECCOMP_RET_KILL_PROCESS, "{number}");
        }
    }

    #[test]
    fn a_process_without_namespaces_and_ordinary_sockets_are_allowed_and_others_refused() {
        let filter = filter().unwrap();
        let is_allowed = |number, argument: i32| {
            let argument = u64::from(argument.cast_unsigned());
            answer(&filter, ARCHITECTURE.unwrap(), number, argument) == libc::SECCOMP_RET_ALLOW
        };
        assert!(is_allowed(libc::SYS_clone, libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD));
        let threads = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
        assert!(is_allowed(libc::SYS_clone, threads | libc::CLONE_SYSVSEM | libc::CLONE_SETTLS));
        for flag in [
            libc::CLONE_NEWUSER,
            libc::CLONE_NEWNS,
            libc::CLONE_NEWPID,
            libc::CLONE_NEWNET,
            libc::CLONE_NEWIPC,
            libc::CLONE_NEWUTS,
            libc::CLONE_NEWCGROUP,
            // CLONE_NEWTIME
            0x80,
        ] {
            assert!(!is_allowed(libc::SYS_clone, flag | libc::SIGCHLD), "{flag:x}");
        }
        for family in 0..64 {
            assert_eq!(is_allowed(libc::SYS_socket, family), SOCKETS.contains(&family), "{family}");
        }
    }

    #[test]
    fn limits_of_others_are_refused() {
        let filter = filter().unwrap();
        let answer = |pid| answer(&filter, ARCHITECTURE.unwrap(), libc::SYS_prlimit64, pid);
        assert_eq!(answer(0), libc::SECCOMP_RET_ALLOW);
        assert_ne!(answer(1), libc::SECCOMP_RET_ALLOW);
    }

    #[test]
    fn a_program_is_short_enough_for_its_jumps() {
        assert!(filter().unwrap().len() < 128);
    }
}
