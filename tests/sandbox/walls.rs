//! What is refused: rights, namespaces, the kernel, other processes, the machine's files, sockets and secrets.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use proving_ground::internals::sandbox::SandboxLimits;
use proving_ground::internals::script::{EndedBy, Exit};

use crate::cell::{Cell, Mode, claims_of, sandboxed};
use crate::inside::{Claim, Place, alive_with, until};

pub(crate) fn claims() -> Vec<Claim> {
    let claims = [
        claims_of(&[Mode::Unsandboxed], Place::Here, the_probe_can_succeed),
        sandboxed(namespaces_are_refused),
        sandboxed(mounts_are_refused),
        sandboxed(the_kernel_is_out_of_reach),
        sandboxed(sockets_of_the_machine_are_refused),
        sandboxed(other_abis_are_refused),
        sandboxed(rights_are_not_to_be_had),
        sandboxed(the_first_process_is_out_of_reach),
        sandboxed(files_of_the_machine_are_not_changed),
        sandboxed(nothing_is_written_outside),
        sandboxed(links_lead_nowhere),
        sandboxed(shadow_is_not_read),
        sandboxed(processes_of_the_machine_are_not_seen),
        sandboxed(the_runners_environment_is_not_found),
        sandboxed(listeners_of_the_machine_are_not_reached),
        sandboxed(secrets_are_not_found),
        sandboxed(descriptors_of_the_runner_are_not_inherited),
        sandboxed(other_work_folders_are_not_seen),
        sandboxed(mounts_tell_nothing_of_the_machine),
        sandboxed(setuid_programs_bring_no_rights),
        sandboxed(what_is_left_in_ipc_is_gone),
        sandboxed(temporary_files_are_its_own),
        sandboxed(a_later_script_has_the_set_up_unchanged),
        claims_of(&[Mode::Sandboxed], Place::RootsOwnMounts, a_base_elsewhere_is_as_safe),
    ];
    claims.into_iter().flatten().collect()
}

/// Without a sandbox the same attempts do succeed: they are no attempts that fail anyway.
fn the_probe_can_succeed(cell: &Cell) {
    let mut attempts = vec!["--harmless", "unshare_user", "clone3_user"];
    let mut expected = vec!["unshare_user done", "clone3_user done"];
    if nix::unistd::geteuid().is_root() {
        attempts.extend(["clone_mounts", "clone_network", "kernel_log", "socket_packet", "node_of_null"]);
        expected.extend(["clone_mounts done", "clone_network done", "kernel_log done", "socket_packet done"]);
        expected.push("node_of_null done");
    }
    assert_eq!(cell.probe(&attempts), expected);
}

fn all<'a>(attempts: &[&'a str], answer: &'a str) -> Vec<(&'a str, &'a str)> {
    attempts.iter().map(|attempt| (*attempt, answer)).collect()
}

fn namespaces_are_refused(cell: &Cell) {
    let refused = "unshare_user unshare_mounts unshare_user_and_mounts unshare_network clone_user clone_mounts clone_processes \
                   clone_network clone_ipc clone_names clone_cgroup clone_user_high setns_own";
    let mut expected = all(&refused.split_whitespace().collect::<Vec<_>>(), "EPERM");
    expected.extend([("clone3_user", "ENOSYS"), ("setns_of_init", "EACCES")]);
    cell.assert_answers(&expected);
}

fn mounts_are_refused(cell: &Cell) {
    let refused = "mount_tmpfs mount_proc mount_bind remount_writable remount_root unmount_tmp unmount_work_dir pivot change_root \
                   fs_open open_mounts move_mounts set_mount_writable open_by_handle node_of_memory node_of_disk";
    cell.assert_answers(&all(&refused.split_whitespace().collect::<Vec<_>>(), "EPERM"));
}

fn the_kernel_is_out_of_reach(cell: &Cell) {
    let refused = "kernel_log reboot_off swap_on account set_clock set_name load_module load_kernel use_bpf use_perf use_userfaultfd \
                   use_io_uring keep_key read_keyring request_key";
    cell.assert_answers(&all(&refused.split_whitespace().collect::<Vec<_>>(), "EPERM"));
    // What a kernel without the call answers is as good.
    let answer = cell.probe(&["open_ports"]).concat();
    assert!(["open_ports EPERM", "open_ports ENOSYS"].contains(&answer.as_str()), "{answer}");
    let text = "for file in /proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/sys/kernel/hostname /proc/sys/vm/drop_caches \
        /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax /proc/sys/fs/file-max /proc/sys/user/max_user_namespaces /proc/1/oom_score_adj \
        /proc/1/comm /proc/1/setgroups; do [ -e $file ] || continue; (echo 0 >$file) 2>/dev/null && echo wrote $file; done; \
        cat /proc/kcore /proc/kmsg 2>/dev/null | head -c 1 | wc -c; ls /sys";
    assert_eq!(cell.says(text), "0");
}

fn sockets_of_the_machine_are_refused(cell: &Cell) {
    let refused = ["socket_vsock", "socket_packet", "socket_alg", "socket_raw", "socket_bluetooth", "socket_tipc"];
    cell.assert_answers(&all(&refused, "EPERM"));
    assert_eq!(cell.says("ls /sys/class/net 2>/dev/null; tail -n +3 /proc/net/dev | cut -d: -f1"), "lo");
}

fn other_abis_are_refused(cell: &Cell) {
    cell.assert_answers(&[("x32_getpid", "ENOSYS"), ("x32_mount", "ENOSYS"), ("i386_getpid", "SIGSYS")]);
}

fn rights_are_not_to_be_had(cell: &Cell) {
    let refused = "become_root become_roots_group become_another set_groups gain_rights keep_rights lock_rights_open raise_open_files \
                   raise_processes raise_file_size run_first";
    let mut expected = all(&refused.split_whitespace().collect::<Vec<_>>(), "EPERM");
    for (attempt, answer) in &mut expected {
        // A number that is not mapped is none.
        if ["become_root", "become_roots_group", "become_another"].contains(attempt) {
            *answer = "EINVAL";
        }
    }
    expected.extend([("become_new_privileged", "EINVAL"), ("be_less_nice", "EACCES"), ("protect_from_oom", "EACCES")]);
    expected.extend([("open_uid_map", "EACCES"), ("push_to_terminal", "ENXIO")]);
    cell.assert_answers(&expected);
    let status = cell.says("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | tr -d '\\t' | sort -u");
    let none = "0000000000000000";
    let lines =
        format!("CapAmb:{none}\nCapBnd:{none}\nCapEff:{none}\nCapInh:{none}\nCapPrm:{none}\nNoNewPrivs:1\nSeccomp:2");
    assert_eq!(status, lines);
}

fn the_first_process_is_out_of_reach(cell: &Cell) {
    let eperm = ["trace", "attach", "read_memory", "write_memory", "take_descriptor"];
    let eacces = "open_memory open_memory_to_write open_environment open_root open_cwd open_program open_descriptors open_map_files";
    let mut expected = all(&eperm, "EPERM");
    expected.extend(all(&eacces.split_whitespace().collect::<Vec<_>>(), "EACCES"));
    expected.push(("open_maps", "EACCES"));
    cell.assert_answers(&expected);
    assert_eq!(cell.says("tr -d '\\0' </proc/1/cmdline; readlink /proc/1/root /proc/1/cwd /proc/1/exe /proc/1/ns/*; ls /proc/1/fd 2>/dev/null; true"), "");
}

fn files_of_the_machine_are_not_changed(cell: &Cell) {
    let expected = [("link_passwd", "EXDEV"), ("link_through_proc", "EXDEV"), ("reopen_to_write", "EACCES")];
    cell.assert_answers(&expected);
    cell.assert_answers(&[("chmod_passwd", "EROFS"), ("mark_passwd", "EROFS"), ("map_passwd_shared", "EACCES")]);
    // Marks that an overlay would heed are refused, or kept as mere text (Linux 6.7).
    cell.furnish(&cell.work_dir.join("marked"));
    cell.put("marked/file", "");
    assert_eq!(
        cell.says("./probe mark_opaque mark_redirect >/dev/null; ls marked; touch marked/x; ls marked"),
        "file\nfile\nx"
    );
}

fn nothing_is_written_outside(cell: &Cell) {
    let name = cell.token();
    let text = format!(
        "for d in / /etc /usr /usr/local /bin /lib /opt /sys /proc /proc/self /var /run /dev /home /root /srv /mnt /data /var/lib \
         /proc/sys/kernel /proc/self/root /proc/self/root/etc /proc/1/root/etc /tmp/.. /tmp/../etc; do \
         for attempt in \"touch $d/{name}\" \"mkdir $d/{name}\" \"ln -s x $d/{name}\" \"cp /etc/passwd $d/{name}\" \"mkfifo $d/{name}\"; do \
         $attempt 2>/dev/null && echo $attempt; done; done; \
         for d in {base} {base}/.. .. ../.. /tmp /var/tmp /dev/shm; do touch $d/{name} 2>/dev/null; done; true",
        base = cell.base.display()
    );
    assert_eq!(cell.says(&text), "");
    for folder in ["/", "/etc", "/usr", "/tmp", "/var/tmp", "/dev/shm", "/dev", "/run", "/var"] {
        assert!(!Path::new(folder).join(&name).exists(), "{folder}");
    }
    assert_eq!(names_in(&cell.base), ["work"]);
    assert_eq!(names_in(&cell.lab.dir), ["base", "output"]);
    cell.assert_goes_on();
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn links_lead_nowhere(cell: &Cell) {
    let secret = cell.lab.path("outside");
    fs::write(&secret, cell.token()).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o666)).unwrap();
    let path = secret.display();
    let text = format!(
        "ln -s {path} a; ln -s ../../outside b; ln -s /proc/self/root{path} c; ln -s /proc/1/root{path} d; ln -s /proc/1/cwd e; \
         ln -s /etc/passwd f; for x in a b c d e/../etc/shadow /proc/self/root/../../..{path} /../../..{path}; do cat $x; echo bad >$x; done 2>/dev/null; \
         (echo bad >f) 2>/dev/null; cd / && cd .. && cd ../.. && pwd && ls {path} 2>/dev/null; true"
    );
    // What it read under that name it has written itself.
    let said = cell.says(&text);
    assert!(said.lines().all(|line| ["bad", "/", &path.to_string()].contains(&line)), "{said}");
    assert_eq!(fs::read_to_string(&secret).unwrap(), cell.token());
}

fn shadow_is_not_read(cell: &Cell) {
    assert!(Path::new("/etc/shadow").exists());
    assert_eq!(
        cell.says(
            "cat /etc/shadow /etc/gshadow 2>/dev/null | wc -c; wc -c <$PWD/../../../../../../etc/passwd | grep -qv '^0'"
        ),
        "0"
    );
}

fn processes_of_the_machine_are_not_seen(cell: &Cell) {
    // The first process and the shell.
    assert_eq!(cell.says("set -- /proc/[0-9]*; echo $#; cat /proc/1/comm; kill -0 2 && echo $$"), "2\npg-init\n2");
    let own = std::process::id().to_string();
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let text = format!(
        "[ ! -d /proc/{own} ] && echo gone; uname -n; kill -0 {own} 2>/dev/null && echo reached; ps ax 2>/dev/null | wc -l"
    );
    let said = cell.says(&text);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(&lines[..2], ["gone", "localhost"], "on {host}");
    assert!(lines.len() == 3 && lines[2].parse::<u32>().unwrap() <= 6, "{said}");
}

fn the_runners_environment_is_not_found(cell: &Cell) {
    let ours = fs::read("/proc/self/environ").unwrap();
    assert!(String::from_utf8_lossy(&ours).contains("ENGINE_TEST_CLAIM"), "it is there to be found");
    let text = "cat /proc/*/environ /proc/*/cmdline /proc/*/task/*/environ 2>/dev/null | tr '\\0' '\\n' | grep -c TEST_CLAI[M]=; \
        grep -l ENGINE_TEST_CLAI[M]= /proc/[0-9]*/environ 2>/dev/null; true";
    assert_eq!(cell.says(text), "0");
}

fn listeners_of_the_machine_are_not_reached(cell: &Cell) {
    let four = TcpListener::bind("127.0.0.1:0").unwrap();
    let six = TcpListener::bind("[::1]:0").unwrap();
    let path = cell.lab.path("socket");
    let _path = UnixListener::bind(&path).unwrap();
    let in_base = cell.base.join("socket");
    let _in_base = UnixListener::bind(&in_base).unwrap();
    let name = cell.token();
    let abstract_address = {
        use std::os::linux::net::SocketAddrExt;
        std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap()
    };
    let _abstract = UnixListener::bind_addr(&abstract_address).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(&in_base, fs::Permissions::from_mode(0o777)).unwrap();
    let (four, six) = (four.local_addr().unwrap().port(), six.local_addr().unwrap().port());
    let attempts = [
        (format!("connect_loopback={four}"), "ECONNREFUSED"),
        (format!("connect_loopback6={six}"), "ECONNREFUSED"),
        ("connect_elsewhere=80".to_owned(), "ENETUNREACH"),
        (format!("connect_path={}", path.display()), "ENOENT"),
        (format!("connect_path={}", in_base.display()), "ENOENT"),
        (format!("connect_abstract={name}"), "ECONNREFUSED"),
    ];
    let expected: Vec<_> = attempts.iter().map(|(attempt, answer)| (attempt.as_str(), *answer)).collect();
    cell.assert_answers(&expected);
    assert_eq!(cell.says("ls /run /var/run/ /var 2>/dev/null | tr '\\n' ' '"), "/run:  /var: run tmp  /var/run/:");
    // They are there to be reached.
    let outside = Cell::in_base(cell.lab, Mode::Unsandboxed, SandboxLimits::default(), cell.lab.path("other"));
    let attempts: Vec<&str> =
        std::iter::once("--harmless").chain(expected.iter().map(|(attempt, _)| *attempt)).collect();
    let answers = outside.probe(&attempts);
    assert_eq!(answers.iter().filter(|answer| answer.ends_with(" done")).count(), 5, "{answers:?}");
}

/// Files that go when they go out of sight.
struct Planted(Vec<PathBuf>);

impl Drop for Planted {
    fn drop(&mut self) {
        self.0.iter().for_each(|path| drop(fs::remove_file(path)));
    }
}

fn secrets_are_not_found(cell: &Cell) {
    let name = cell.token();
    let folders = ["/", "/root", "/home", "/data", "/srv", "/mnt", "/media", "/var", "/var/lib", "/run", "/boot"];
    let everybodys = ["/tmp", "/var/tmp", "/dev/shm"];
    let places = folders.iter().chain(&everybodys).map(|folder| Path::new(folder).join(&name));
    let planted = Planted(places.filter(|path| fs::write(path, &name).is_ok()).collect());
    assert!(planted.0.len() >= everybodys.len());
    let inside = cell.put("needle-is-found", "");
    let text = format!(
        "find / -name '{name}' -o -name needle-is-found 2>/dev/null; cat {} 2>/dev/null; true",
        quoted(&planted.0)
    );
    assert_eq!(cell.says(&text), inside.display().to_string());
}

fn quoted(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| format!("'{}'", path.display())).collect::<Vec<_>>().join(" ")
}

fn descriptors_of_the_runner_are_not_inherited(cell: &Cell) {
    let secret = cell.lab.path("descriptor");
    fs::write(&secret, cell.token()).unwrap();
    let file = nix::fcntl::open(&secret, nix::fcntl::OFlag::O_RDWR, nix::sys::stat::Mode::empty()).unwrap();
    let root = nix::fcntl::open("/", nix::fcntl::OFlag::O_RDONLY, nix::sys::stat::Mode::empty()).unwrap();
    for _ in 0..2 {
        assert_eq!(cell.says("ls /proc/self/fd | tr '\\n' ' '"), "0 1 2 3");
        let text =
            "for fd in /proc/self/fd/*; do readlink $fd; done | grep -v -e ^pipe: -e ^/dev/null$ -e ^/proc/; true";
        assert_eq!(cell.says(text), "");
    }
    drop((file, root));
}

fn other_work_folders_are_not_seen(cell: &Cell) {
    let other = cell.base.join("other");
    cell.furnish(&other);
    fs::write(other.join("file"), cell.token()).unwrap();
    let text = format!(
        "ls -A {} ..; cat {}/file 2>/dev/null; find / -name file -newer /etc/passwd -path '*other*' 2>/dev/null; true",
        cell.base.display(),
        other.display()
    );
    assert_eq!(cell.says(&text), format!("..:\nwork\n\n{}:\nwork", cell.base.display()));
    // Nor do two that run at once.
    let waits = "echo mine >/tmp/mine; echo mine >mine; touch /dev/shm/mine; i=0; while [ $i -lt 50 ]; do sleep 0.01; i=$((i+1)); done";
    let seen = std::thread::scope(|scope| {
        let first = scope.spawn(|| cell.runner.run(&cell.sh(waits), &super::cancel()).unwrap());
        until("the first runs", || !alive_with(&cell.lab.marker).is_empty());
        let text = "find /tmp /dev/shm /var/tmp . -name mine; set -- /proc/[0-9]*; echo $#";
        let seen = cell.try_run(&cell.program_in(&other, "/bin/sh", &["-c", text])).unwrap();
        assert_eq!(first.join().unwrap().exit, Exit::Code(0));
        crate::inside::text(&seen.stdout)
    });
    assert_eq!(seen.trim(), "2");
}

fn mounts_tell_nothing_of_the_machine(cell: &Cell) {
    let said = cell.says("cat /proc/self/mountinfo /proc/mounts; ls -Ad /run/* /lower /new /oldroot 2>/dev/null; true");
    for word in ["oldroot", "lower/", "/new", &cell.lab.dir.file_name().unwrap().to_string_lossy()] {
        let lines: Vec<&str> = said.lines().filter(|line| line.contains(word)).collect();
        let is_own = |line: &&str| line.contains(&cell.work_dir.display().to_string());
        assert!(lines.iter().all(is_own), "{word}: {lines:#?}");
    }
    let writable = cell.says("awk '$4 ~ /^rw/ {print $2}' /proc/mounts | sort -u");
    let mut expected =
        ["/dev/pts", "/dev/shm", "/proc", "/tmp", "/var/tmp", &cell.work_dir.display().to_string()].map(str::to_owned);
    expected.sort();
    assert_eq!(writable.lines().collect::<Vec<_>>(), expected);
}

fn setuid_programs_bring_no_rights(cell: &Cell) {
    let shell = cell.work_dir.join("rootshell");
    fs::copy("/usr/bin/id", &shell).unwrap();
    // As root it stays root's, as an attacker with a friend would have it.
    fs::set_permissions(&shell, fs::Permissions::from_mode(0o6755)).unwrap();
    let text = "./rootshell -u; ./rootshell -g; cp rootshell /tmp/own; chmod 6755 /tmp/own; /tmp/own -u; \
        for p in /usr/bin/su /bin/su; do [ -x $p ] && (echo | timeout 10 $p -c id root >/dev/null 2>&1) && echo became; done; true";
    let said = cell.says(text);
    let id = cell.says("id -u");
    assert_ne!(id, "0");
    assert_eq!(said.lines().collect::<Vec<_>>(), [id.as_str(), cell.says("id -g").as_str(), &id]);
}

/// D71. Landlock forbids to write to POSIX message queues: no path leads to them, so none can be allowed.
fn what_is_left_in_ipc_is_gone(cell: &Cell) {
    let leave = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n\
        assert libc.shmget(0x7067, 1 << 20, 0o1666) >= 0\nassert libc.msgget(0x7067, 0o1666) >= 0\nassert libc.semget(0x7067, 1, 0o1666) >= 0\n\
        libc.mq_open(b'/pg-queue', os.O_CREAT | os.O_RDONLY, 0o666, None)\nopen('/dev/shm/pg-left', 'w').write('x')\nprint('left')";
    let look = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n\
        print(libc.shmget(0x7067, 1, 0), libc.msgget(0x7067, 0), libc.semget(0x7067, 1, 0), libc.mq_open(b'/pg-queue', os.O_RDONLY), os.listdir('/dev/shm'))";
    assert_eq!(cell.run_well(&cell.python(leave)), "left\n");
    assert_eq!(cell.run_well(&cell.python(look)), "-1 -1 -1 -1 []\n");
    let machines = fs::read_to_string("/proc/sysvipc/shm").unwrap();
    assert!(!machines.lines().any(|line| line.split_whitespace().next() == Some("28775")), "{machines}");
}

fn temporary_files_are_its_own(cell: &Cell) {
    let name = cell.token();
    let text = format!(
        "for d in /tmp $HOME /dev/shm /var/tmp .; do ls -A $d | grep -v pg-engine; echo x >$d/{name} || exit; done; find / -name '{name}' 2>/dev/null | wc -l"
    );
    for _ in 0..3 {
        assert_eq!(cell.says(&text), "4");
    }
    for folder in ["/tmp", "/dev/shm", "/var/tmp", "/root"] {
        assert!(!Path::new(folder).join(&name).exists(), "{folder}");
    }
    assert_eq!(names_in(&cell.work_dir), Vec::<String>::new());
}

/// C60.
fn a_later_script_has_the_set_up_unchanged(cell: &Cell) {
    cell.put("later.sh", "echo untouched\n");
    let folder = cell.work_dir.join("folder");
    cell.furnish(&folder);
    cell.put("folder/file", "content");
    let text = "echo 'echo forged' >later.sh; rm -r folder; ln -s /etc folder; chmod 000 .; touch x; mkdir y";
    let completion = cell.run(&cell.sh(text));
    assert_eq!(completion.ended_by, EndedBy::Itself);
    assert_eq!(cell.says("sh later.sh; cat folder/file; ls"), "untouched\ncontentfolder\nlater.sh");
}

/// A base that does not lie below `/tmp`.
fn a_base_elsewhere_is_as_safe(cell: &Cell) {
    let folder = tempfile::Builder::new().prefix("pg-sandbox.").tempdir_in("/var/lib").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let cell = Cell::in_base(cell.lab, cell.mode, SandboxLimits::default(), folder.path().join("a/base"));
    cell.furnish(&cell.base.join("other"));
    cell.assert_goes_on();
    nothing_below_is_written(&cell);
    other_roots_are_not_seen(&cell, folder.path());
}

fn nothing_below_is_written(cell: &Cell) {
    let text = "touch here || exit; for d in .. ../.. ../../.. ../other; do (touch $d/x || mkdir $d/y || ln -s x $d/z) 2>/dev/null && echo wrote $d; done; true";
    assert_eq!(cell.says(text), "");
    assert_eq!(names_in(&cell.base), ["other", "work"]);
}

fn other_roots_are_not_seen(cell: &Cell, folder: &Path) {
    assert_eq!(cell.says(&format!("ls {}; ls ..; ls /var/lib | wc -l", folder.display())), "a\nwork\n1");
}
