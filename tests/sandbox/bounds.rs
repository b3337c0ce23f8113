//! How much a script may use: processes, memory, disk, files; and that what it used is told.

use std::num::NonZeroU32;
use std::time::Duration;

use proving_ground::internals::sandbox::SandboxLimits;
use proving_ground::internals::script::{Completion, EndedBy, Exit};

use crate::cell::{Cell, hurried, sandboxed};
use crate::inside::{Claim, text};

const BOMB: &str = "bomb() { bomb | bomb & }; bomb 2>/dev/null; while :; do :; done";
const MIB: u64 = 1 << 20;

pub(crate) fn claims() -> Vec<Claim> {
    let claims = [
        sandboxed(a08_a_fork_bomb_is_bounded),
        sandboxed(a08_a_bomb_of_sessions_is_bounded),
        sandboxed(a_process_limit_of_its_own_holds),
        sandboxed(threads_count_as_processes),
        sandboxed(d75_a_memory_bomb_is_ended),
        sandboxed(memory_of_many_processes_counts_together),
        sandboxed(files_in_memory_count_as_memory),
        sandboxed(memory_of_one_script_is_not_held_against_the_next),
        sandboxed(c57_one_large_file_is_bounded),
        sandboxed(c57_many_files_are_bounded),
        sandboxed(c57_every_place_to_write_counts),
        sandboxed(c58_a_million_empty_files_are_bounded),
        sandboxed(open_files_are_bounded),
        sandboxed(usage_is_told),
        sandboxed(bombs_at_once_do_not_disturb_another),
    ];
    claims.into_iter().flatten().collect()
}

fn a08_a_fork_bomb_is_bounded(cell: &Cell) {
    let completion = cell.run(&hurried(cell.sh(BOMB)));
    assert_eq!(completion.ended_by, EndedBy::Timeout);
    cell.assert_goes_on();
}

fn a08_a_bomb_of_sessions_is_bounded(cell: &Cell) {
    let text = "import os\nwhile True:\n try:\n  if os.fork() == 0: os.setsid()\n except OSError: pass\n";
    let mut script = hurried(cell.python(text));
    // The last resort would come after half of that.
    script.limits.drain = Duration::from_secs(10_000);
    let completion = cell.run(&script);
    assert_eq!(completion.ended_by, EndedBy::Timeout);
    cell.assert_goes_on();
}

fn a_process_limit_of_its_own_holds(cell: &Cell) {
    let text = "i=0; while [ $i -lt 60 ]; do sleep 1000 & i=$((i+1)); done 2>/dev/null";
    let mut script = cell.sh(text);
    script.limits.pids_max = NonZeroU32::new(20);
    let completion = cell.run(&script);
    assert_ne!(completion.exit, Exit::Code(0), "{completion:?}");
    assert!((1..=20).contains(&completion.leaked.len()), "{completion:?}");
    // It does not stay for the next.
    let completion = cell.run(&cell.sh(text));
    assert_eq!((completion.exit, completion.leaked.len()), (Exit::Code(0), 60));
}

fn threads_count_as_processes(cell: &Cell) {
    let text = "import threading\nstarted = 0\nevent = threading.Event()\ntry:\n for _ in range(600):\n  \
        threading.Thread(target=event.wait, daemon=True).start(); started += 1\nexcept RuntimeError: pass\nevent.set()\nprint(started)";
    let cell = &cell.limited(SandboxLimits { processes_max: 50, ..SandboxLimits::default() });
    assert_eq!(cell.run_well(&cell.python(text)), "49\n");
}

/// What has to come of too much memory: the process is killed where there is a memory cgroup, else refused more.
fn assert_out_of_memory(completion: &Completion) {
    assert_ne!(completion.exit, Exit::Code(0), "{completion:?}");
    let expected = if completion.usage.memory_peak_bytes.is_some() { EndedBy::OutOfMemory } else { EndedBy::Itself };
    assert_eq!(completion.ended_by, expected, "{completion:?}");
}

fn d75_a_memory_bomb_is_ended(cell: &Cell) {
    let cell = &cell.limited(SandboxLimits { memory_bytes_max: 200 * MIB, ..SandboxLimits::default() });
    for _ in 0..3 {
        let completion = cell.run(&cell.python("x = []\nwhile True: x.append(b'x' * (1 << 24))"));
        assert_out_of_memory(&completion);
        assert!(completion.usage.memory_peak_bytes.is_none_or(|peak| (100 * MIB..=200 * MIB).contains(&peak)));
        cell.assert_goes_on();
    }
}

fn memory_of_many_processes_counts_together(cell: &Cell) {
    let cell = &cell.limited(SandboxLimits { memory_bytes_max: 150 * MIB, ..SandboxLimits::default() });
    // Each is smaller than our own supervisor; the shell reports the loss.
    let text = "import os, time\npids = []\nfor _ in range(100):\n pid = os.fork()\n if pid == 0:\n  x = bytearray(os.urandom(4096) * 1000); time.sleep(1000)\n \
        pids.append(pid)\nos.waitpid(-1, 0)\nraise SystemExit(9)";
    let mut script = cell.python(text);
    let has_cgroup = cell.run(&cell.sh(":")).usage.memory_peak_bytes.is_some();
    if !has_cgroup {
        script = hurried(script);
    }
    let completion = cell.run(&script);
    if has_cgroup {
        assert_out_of_memory(&completion);
    } else {
        // Addresses are counted for each process: the number of processes is what bounds them together.
        assert_eq!(completion.ended_by, EndedBy::Timeout);
    }
    cell.assert_goes_on();
}

fn files_in_memory_count_as_memory(cell: &Cell) {
    let cell = &cell.limited(SandboxLimits { memory_bytes_max: 64 * MIB, ..SandboxLimits::default() });
    let completion = cell.run(&cell.sh("head -c 200000000 /dev/zero >/tmp/large && echo written"));
    if completion.usage.memory_peak_bytes.is_some() {
        assert_out_of_memory(&completion);
    } else {
        assert_eq!(text(&completion.stdout), "written\n");
    }
    for _ in 0..3 {
        cell.assert_goes_on();
    }
}

/// The kernel takes a script's namespaces down, files in memory with them, while the next one may run already.
fn memory_of_one_script_is_not_held_against_the_next(cell: &Cell) {
    let cell = &cell.limited(SandboxLimits { memory_bytes_max: 200 * MIB, ..SandboxLimits::default() });
    for round in 0..12 {
        let completion = cell.run(&cell.sh("head -c 140000000 /dev/zero >/tmp/large && echo written"));
        assert_eq!(
            (completion.ended_by, completion.exit),
            (EndedBy::Itself, Exit::Code(0)),
            "round {round}: {completion:?}"
        );
    }
}

fn c57_one_large_file_is_bounded(cell: &Cell) {
    let cell = &cell.limited(SandboxLimits { disk_bytes_max: 32 * MIB, ..SandboxLimits::default() });
    // The file's own limit is signalled, unless the disk is full before.
    let completion = cell.run(&cell.sh(
        "trap '' XFSZ; dd if=/dev/zero of=big bs=65536 2>&1 | grep -c -e 'No space' -e 'too large'; stat -c %s big",
    ));
    assert_eq!(completion.exit, Exit::Code(0));
    let said = text(&completion.stdout);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "1");
    assert!(lines[1].parse::<u64>().unwrap() <= 32 * MIB, "{said}");
    assert_eq!(
        cell.run(&cell.sh("exec dd if=/dev/zero of=big bs=1 seek=100000000 count=1")).exit,
        Exit::Signal(libc::SIGXFSZ)
    );
    cell.assert_goes_on();
}

fn c57_many_files_are_bounded(cell: &Cell) {
    let cell = &cell.limited(SandboxLimits { disk_bytes_max: 32 * MIB, ..SandboxLimits::default() });
    let text = "i=0; while head -c 1000000 /dev/zero 2>/dev/null >f$i; do i=$((i+1)); done 2>/dev/null; du -sm . | cut -f1; df -m . | tail -1 | awk '{print $4}'";
    let said = cell.says(text);
    let megabytes: Vec<u64> = said.lines().map(|line| line.parse().unwrap()).collect();
    assert!((25..=33).contains(&megabytes[0]) && megabytes[1] <= 1, "{said}");
    cell.assert_goes_on();
}

fn c57_every_place_to_write_counts(cell: &Cell) {
    let cell = &cell.limited(SandboxLimits { disk_bytes_max: 32 * MIB, ..SandboxLimits::default() });
    let text = "for d in /tmp /var/tmp /dev/shm .; do head -c 20000000 /dev/zero >$d/f; done 2>/dev/null; du -cm /tmp /var/tmp /dev/shm . | tail -1 | cut -f1";
    let megabytes: u64 = cell.says(text).parse().unwrap();
    assert!((25..=33).contains(&megabytes), "{megabytes}");
}

fn c58_a_million_empty_files_are_bounded(cell: &Cell) {
    let cell = &cell.limited(SandboxLimits { disk_files_max: 5000, ..SandboxLimits::default() });
    let text = "made = 0\ntry:\n for number in range(1000000): open(f'f{number}', 'w').close(); made += 1\nexcept OSError as e: print(e.strerror)\nprint(made)";
    let said = cell.run_well(&cell.python(text));
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "No space left on device");
    assert!((4990..=5016).contains(&lines[1].parse::<u64>().unwrap()), "{said}");
    cell.assert_goes_on();
}

fn open_files_are_bounded(cell: &Cell) {
    let text = "import os\nfds = []\ntry:\n while True: fds.append(os.open('/dev/null', os.O_RDONLY))\nexcept OSError as e: print(e.strerror, len(fds))\n";
    assert_eq!(cell.run_well(&cell.python(text)), "Too many open files 1021\n");
}

fn usage_is_told(cell: &Cell) {
    let text = "import time\nx = bytearray(b'x' * (100 << 20))\nuntil = time.process_time() + 0.3\nwhile time.process_time() < until: pass\nprint('x' * 1000)";
    let completion = cell.run(&cell.python(text));
    let usage = completion.usage;
    assert_eq!(
        (completion.exit, completion.ended_by, completion.stdout.total_bytes),
        (Exit::Code(0), EndedBy::Itself, 1001)
    );
    assert!((Duration::from_millis(250)..Duration::from_secs(20)).contains(&(usage.user + usage.system)), "{usage:?}");
    assert!(completion.wall >= Duration::from_millis(250), "{completion:?}");
    assert!((100 * MIB..400 * MIB).contains(&usage.max_rss_bytes), "{usage:?}");
    assert!(usage.memory_peak_bytes.is_none_or(|peak| (100 * MIB..500 * MIB).contains(&peak)), "{usage:?}");
    assert_eq!(usage.started, Some(1));
    // What it does not use is not told of it.
    let small = cell.run(&cell.sh("sleep 0 & wait")).usage;
    assert!(small.memory_peak_bytes.is_none_or(|peak| peak < 100 * MIB), "{small:?}");
    assert_eq!((small.started, small.written_bytes), (Some(2), Some(0)));
    let written =
        cell.run(&cell.sh("head -c 3000000 /dev/zero >work; head -c 1000000 /dev/zero >/tmp/more")).usage.written_bytes;
    assert!(written.is_some_and(|bytes| (4_000_000..4_100_000).contains(&bytes)), "{written:?}");
    assert!(small.user + small.system < Duration::from_secs(2), "{small:?}");
}

pub(crate) fn bombs_at_once_do_not_disturb_another(cell: &Cell) {
    let limits = SandboxLimits {
        memory_bytes_max: 300 * MIB,
        disk_bytes_max: 64 * MIB,
        processes_max: 100,
        ..SandboxLimits::default()
    };
    let cell = &cell.limited(limits);
    let bombs = [
        cell.sh(BOMB),
        cell.python("x = []\nwhile True: x.append(b'x' * (1 << 24))"),
        cell.sh("while :; do head -c 10000000 /dev/zero >>big$((n += 1)); done 2>/dev/null"),
        cell.sh("yes >&2 & exec yes"),
    ];
    std::thread::scope(|scope| {
        let [fork, memory, disk, output] = bombs;
        let run = |script| scope.spawn(move || cell.runner.run(&script, &super::cancel()).unwrap());
        // Memory runs out by itself, however slow the others make it.
        let running = [hurried(fork), memory, hurried(disk), hurried(output)].map(run);
        for _ in 0..5 {
            let text = "i=0; while [ $i -lt 50 ]; do (exit 0); echo $i >f$i; i=$((i+1)); done; ls | wc -l";
            let completion = cell.try_run(&cell.sh(text)).unwrap();
            let said = (completion.exit, completion.ended_by, crate::inside::text(&completion.stdout));
            assert_eq!(said, (Exit::Code(0), EndedBy::Itself, "50\n".to_owned()));
        }
        let ended = running.map(|bomb| bomb.join().unwrap());
        for (number, completion) in ended.iter().enumerate() {
            if number == 1 {
                assert_out_of_memory(completion);
            } else {
                assert_eq!(completion.ended_by, EndedBy::Timeout, "{number}");
            }
        }
    });
    cell.assert_goes_on();
}
