//! What honest programs do, and must be able to do behind walls.

use std::path::Path;

use proving_ground::internals::sandbox::SandboxLimits;
use proving_ground::internals::script::Script;

use crate::cell::{Cell, Mode, claims_named, sandboxed};
use crate::inside::{Claim, Place};

/// Shell texts and Python texts that end well and say `ok`.
const SHELL: [(&str, &str); 13] = [
    (
        "a_folder_is_removed_and_made",
        "mkdir -p a/b/c && touch a/b/c/d && rm -rf a && mkdir a && [ -z \"$(ls a)\" ] && echo ok",
    ),
    ("a_set_ups_folder_is_removed_and_made", "rm -rf given && mkdir given && [ -z \"$(ls given)\" ] && echo ok"),
    (
        "a_set_ups_file_is_changed",
        "echo more >>given/file && chmod 600 given/file && rm given/other && mv given/file . && cat file | tr '\\n' ' ' | grep -q 'content more' && echo ok",
    ),
    (
        "files_are_moved_between_folders",
        "mkdir a b && touch a/x && mv a/x b/y && mv given/file b/z && mv given moved && ls b moved | tr '\\n' ' ' | grep -q 'b: y z  moved: other' && echo ok",
    ),
    (
        "links_of_both_kinds",
        "ln -s given/file soft && ln given/other hard && [ \"$(cat soft)\" = content ] && [ \"$(stat -c %h given/other)\" = 2 ] && echo ok",
    ),
    (
        "modes_are_set",
        "touch x && chmod 000 x && chmod 4755 x && [ \"$(stat -c %a x)\" = 4755 ] && chmod 700 . && echo ok",
    ),
    (
        "devices",
        "echo x >/dev/null && head -c 8 /dev/urandom | wc -c | grep -q 8 && head -c 8 /dev/zero | wc -c | grep -q 8 && ! echo x 2>/dev/null >/dev/full && echo err >/dev/stderr && echo ok | cat /dev/stdin >/dev/stdout",
    ),
    (
        "temporary_files",
        "for d in /tmp /var/tmp /dev/shm; do f=$(mktemp -p $d) && echo x >$f && e=$(mktemp -d -p $d) && touch $e/x && rm -r $f $e || exit; done; echo ok",
    ),
    (
        "here_documents_pipes_and_substitution",
        "cat <<E | tr a-z A-Z | (read x; [ \"$x\" = HELLO ]) && echo ok\nhello\nE",
    ),
    ("fifos", "mkfifo f && { echo through >f & } && [ \"$(cat f)\" = through ] && wait && echo ok"),
    (
        "git",
        "git init -q . && git -c user.name=a -c user.email=a@b add given && git -c user.name=a -c user.email=a@b commit -qm x && git log --oneline | wc -l | grep -q 1 && echo ok",
    ),
    (
        "sqlite_and_locks",
        "flock lock -c 'echo x >locked' && python3 -c 'import sqlite3\nc = sqlite3.connect(\"d.db\")\nc.execute(\"pragma journal_mode=wal\")\nc.execute(\"create table t(x)\")\nc.execute(\"insert into t values (1)\")\nc.commit()\nprint(c.execute(\"select count(*) from t\").fetchone())' | grep -q 1 && echo ok",
    ),
    (
        "make_and_a_compiler",
        "printf 'all:\\n\\t@gcc -O1 -o hello hello.c\\n\\t@./hello\\n' >Makefile && printf '#include <stdio.h>\\nint main(void) { puts(\"ok\"); }\\n' >hello.c && make",
    ),
];

const PYTHON: [(&str, &str); 9] = [
    (
        "servers_of_its_own",
        "import socket, threading\n\
        for family, host in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1')):\n \
         server = socket.create_server((host, 0), family=family)\n \
         threading.Thread(target=lambda: server.accept()[0].sendall(b'hi')).start()\n \
         client = socket.create_connection(server.getsockname()[:2])\n \
         assert client.recv(2) == b'hi'\nprint('ok')",
    ),
    (
        "an_http_server_and_its_client",
        "import http.server, subprocess, sys, time, urllib.request\n\
        open('page', 'w').write('ok')\n\
        server = subprocess.Popen([sys.executable, '-u', '-m', 'http.server', '0', '--bind', '127.0.0.1'], stderr=subprocess.DEVNULL, stdout=subprocess.PIPE)\n\
        port = server.stdout.readline().split(b'port ')[1].split()[0].decode()\n\
        print(urllib.request.urlopen('http://127.0.0.1:' + port + '/page').read().decode())\n\
        server.kill(); server.wait()",
    ),
    (
        "datagrams",
        "import socket\na, b = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in '12')\na.bind(('127.0.0.1', 0))\nb.sendto(b'ok', a.getsockname())\nprint(a.recv(2).decode())",
    ),
    (
        "unix_sockets",
        "import os, socket\n\
        for name in ('path', '\\0abstract%d' % os.getpid()):\n \
         server = socket.socket(socket.AF_UNIX); server.bind(name); server.listen()\n \
         client = socket.socket(socket.AF_UNIX); client.connect(name); client.send(b'ok'); got = server.accept()[0].recv(2)\n \
         assert got == b'ok'\na, b = socket.socketpair(); a.send(b'ok'); print(b.recv(2).decode())",
    ),
    (
        "a_terminal_of_its_own",
        "import os, pty\n\
        pid, fd = pty.fork()\nif pid == 0: os.execvp('sh', ['sh', '-c', 'tty >&2; stty size >&2; [ -t 0 ] && echo fine >/dev/tty'])\n\
        seen = b''\n\
        try:\n \
         while True: seen += os.read(fd, 100)\n\
        except OSError: pass\n\
        assert os.waitpid(pid, 0)[1] == 0 and b'fine' in seen and b'/dev/pts/' in seen, seen\nprint('ok')",
    ),
    (
        "threads_and_processes",
        "import multiprocessing, threading\n\
        def add(counter):\n \
         with counter.get_lock(): counter.value += 1\n\
        counter = multiprocessing.Value('i', 0)\n\
        work = [kind(target=add, args=(counter,)) for kind in (threading.Thread, multiprocessing.Process) for _ in range(20)]\n\
        [one.start() for one in work]; [one.join() for one in work]\n\
        assert counter.value == 40\nprint('ok')",
    ),
    (
        "shared_memory",
        "import mmap, multiprocessing.resource_tracker as t, multiprocessing.shared_memory as m, os, tempfile\n\
        memory = m.SharedMemory(create=True, size=1 << 20); memory.buf[0] = 7\n\
        again = m.SharedMemory(name=memory.name); assert again.buf[0] == 7; again.close()\nmemory.close(); memory.unlink()\n\
        pages = mmap.mmap(-1, 64 << 20); pages[1 << 20] = 7\n\
        fd = os.memfd_create('x'); os.write(fd, b'x')\n\
        with tempfile.TemporaryFile() as f:\n f.truncate(4096); mmap.mmap(f.fileno(), 4096)[0] = 7\nt._resource_tracker._stop()\nprint('ok')",
    ),
    (
        "a_process_watches_files_and_its_child",
        "import os, select, signal, subprocess\n\
        child = subprocess.Popen(['sleep', '1000'])\nfd = os.pidfd_open(child.pid)\nos.kill(child.pid, signal.SIGTERM)\n\
        assert select.select([fd], [], [], 60)[0] and child.wait() == -15\nprint('ok')",
    ),
    (
        "signals_and_timers",
        // The first may come before the pause.
        "import signal\nsignal.signal(signal.SIGALRM, lambda *_: exit(print('ok')))\nsignal.setitimer(signal.ITIMER_REAL, 0.01, 1)\nsignal.pause()",
    ),
];

pub(crate) fn claims() -> Vec<Claim> {
    let shell = SHELL.iter().flat_map(|(name, text)| works(name, move |cell| cell.sh(text)));
    let python = PYTHON.iter().flat_map(|(name, text)| works(name, move |cell| cell.python(text)));
    let others = [
        sandboxed(a_program_with_a_sanitizer_works),
        sandboxed(a_debugger_may_look_at_its_own_child),
        sandboxed(a_script_is_the_user_its_files_belong_to),
        sandboxed(names_are_looked_up_as_far_as_there_is_no_network),
        sandboxed(large_runtimes_start),
    ];
    shell.chain(python).chain(others.into_iter().flatten()).collect()
}

fn works<F: Fn(&Cell) -> Script + Copy + Sync + 'static>(name: &str, script: F) -> Vec<Claim> {
    let modes = [Mode::Unsandboxed, Mode::Sandboxed];
    claims_named(&format!("works::{name}"), &modes, Place::Here, move |cell: &Cell| {
        for tool in ["gcc", "git", "make", "python3", "flock"] {
            assert!(Path::new("/usr/bin").join(tool).exists(), "`{tool}` is missing; install it");
        }
        let given = cell.work_dir.join("given");
        cell.furnish(&given);
        cell.put("given/file", "content\n");
        cell.put("given/other", "");
        assert_eq!(cell.run_well(&script(cell)).trim(), "ok");
        if cell.mode == Mode::Sandboxed {
            // What it changed went with it.
            assert_eq!(cell.says("ls . given; cat given/file"), ".:\ngiven\n\ngiven:\nfile\nother\ncontent");
        }
    })
}

fn compile(cell: &Cell, name: &str, source: &str, flags: &str) -> String {
    cell.put(&format!("{name}.c"), source);
    format!("gcc {flags} -o {name} {name}.c && ./{name}")
}

/// Where there is no memory cgroup, each process has a limit of addresses, and what reserves more than it uses needs one without.
fn without_address_limit<'a>(cell: &Cell<'a>) -> Cell<'a> {
    cell.limited(SandboxLimits { memory_bytes_max: u64::MAX, ..SandboxLimits::default() })
}

fn a_program_with_a_sanitizer_works(cell: &Cell) {
    let has_cgroup = cell.run(&cell.sh(":")).usage.memory_peak_bytes.is_some();
    let cell = if has_cgroup { cell } else { &without_address_limit(cell) };
    let good = "int main(void) { char *x = __builtin_malloc(8); x[7] = 0; __builtin_free(x); return 0; }";
    let bad = "int main(int n, char **v) { char *x = __builtin_malloc(8); (void)v; x[7 + n] = 0; return 0; }";
    let good = compile(cell, "good", good, "-fsanitize=address");
    let bad = compile(cell, "bad", bad, "-fsanitize=address");
    let text = format!("{good} && echo good; {bad} 2>&1 | grep -o 'heap-buffer-overflow on'");
    assert_eq!(cell.says(&text), "good\nheap-buffer-overflow on");
}

fn a_debugger_may_look_at_its_own_child(cell: &Cell) {
    let source = "#include <sys/ptrace.h>\n#include <sys/wait.h>\n#include <signal.h>\n#include <stdio.h>\n#include <unistd.h>\n\
        int main(void) {\n int status;\n pid_t child = fork();\n\
        if (child == 0) { ptrace(PTRACE_TRACEME, 0, 0, 0); raise(SIGSTOP); return 7; }\n\
        waitpid(child, &status, 0);\n ptrace(PTRACE_CONT, child, 0, 0);\n waitpid(child, &status, 0);\n\
        printf(\"%d\\n\", WEXITSTATUS(status));\n}\n";
    assert_eq!(cell.says(&compile(cell, "debugger", source, "-O1")), "7");
}

fn a_script_is_the_user_its_files_belong_to(cell: &Cell) {
    let text = "touch mine && stat -c %u . mine /tmp $HOME | sort -u | tr '\\n' ' ' && id -u";
    let said = cell.says(text);
    let words: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(words, [words[0], words[0]]);
    assert_ne!(words[0], "0");
}

/// E81.
fn names_are_looked_up_as_far_as_there_is_no_network(cell: &Cell) {
    let text = "import socket, time\nt = time.monotonic()\nassert socket.gethostbyname('localhost') == '127.0.0.1'\n\
        try: socket.gethostbyname('example.org'); print('found')\nexcept OSError: print('not found')\n\
        print('fast' if time.monotonic() - t < 10 else 'slow')";
    assert_eq!(cell.run_well(&cell.python(text)), "not found\nfast\n");
}

/// Programs that reserve far more addresses than they use.
fn large_runtimes_start(cell: &Cell) {
    let has_cgroup = cell.run(&cell.sh(":")).usage.memory_peak_bytes.is_some();
    let cell = if has_cgroup { cell } else { &without_address_limit(cell) };
    for (program, args) in
        [("/usr/bin/node", ["-e", "console.log(1)"]), ("/usr/bin/java", ["-Xshare:auto", "-version"])]
    {
        if Path::new(program).exists() {
            cell.run_well(&cell.program(program, &args));
        } else {
            eprintln!("not checked: `{program}` is not installed");
        }
    }
}
