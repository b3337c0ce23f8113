//! What a script can do to us by its end, its time and its output: the same with and without the sandbox.

use std::time::Duration;

use proving_ground::internals::engine::EngineError;
use proving_ground::internals::script::{Completion, EndedBy, Exit};

use crate::cell::{Cell, Mode, both, claims_named, hurried, sandboxed};
use crate::inside::{Claim, Place, text};

/// A script whose end tells all.
struct Row {
    name: &'static str,
    script: &'static str,
    /// It is to be ended: it gets one second.
    is_hurried: bool,
    exit: Option<Exit>,
    ended_by: EndedBy,
    /// What it prints, if that is known.
    says: Option<&'static str>,
    /// Least number of processes that it leaves.
    leaks: usize,
}

const ENDS: Row = Row {
    name: "",
    script: "",
    is_hurried: false,
    exit: Some(Exit::Code(0)),
    ended_by: EndedBy::Itself,
    says: None,
    leaks: 0,
};
const HANGS: Row = Row { is_hurried: true, exit: None, ended_by: EndedBy::Timeout, ..ENDS };

const ROWS: [Row; 29] = [
    Row {
        name: "a01_a_child_in_the_background",
        script: "sleep 1000 & echo ok; exit 0",
        says: Some("ok\n"),
        leaks: 1,
        ..ENDS
    },
    Row {
        name: "a02_a_child_in_a_session_of_its_own",
        script: "setsid sleep 1000 >/dev/null 2>&1 & exit 0",
        leaks: 1,
        ..ENDS
    },
    Row { name: "a03_a_session_and_a_hanging_script", script: "setsid sleep 1000 & sleep 1000", ..HANGS },
    Row {
        name: "a04_a_daemon",
        script: "python3 -c 'import os, time\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\n\
                 os.closerange(0, 256)\ntime.sleep(1000)'; echo ok",
        says: Some("ok\n"),
        ..ENDS
    },
    Row {
        name: "a05_signals_are_ignored",
        script: "trap '' TERM INT HUP; while :; do sleep 1; done",
        exit: Some(Exit::Signal(libc::SIGKILL)),
        ..HANGS
    },
    Row { name: "a06_a_script_that_stops_itself", script: "kill -STOP $$", ..HANGS },
    Row { name: "a07_a_child_that_never_ends", script: "python3 -c 'while True: pass'\necho more", ..HANGS },
    Row { name: "a16_closed_streams", script: "exec >&- 2>&-; sleep 1000", ..HANGS },
    Row {
        name: "a17_a_thousand_children",
        script: "i=0; while [ $i -lt 1000 ]; do (exit 0); i=$((i + 1)); done; echo $i",
        says: Some("1000\n"),
        ..ENDS
    },
    Row { name: "a20_a_segmentation_fault", script: "kill -SEGV $$", exit: Some(Exit::Signal(libc::SIGSEGV)), ..ENDS },
    Row { name: "a20_exit_139", script: "exit 139", exit: Some(Exit::Code(139)), ..ENDS },
    Row { name: "a21_no_such_command", script: "no_such_cmd", exit: Some(Exit::Code(127)), ..ENDS },
    Row { name: "a21_no_program", script: "/etc/passwd", exit: Some(Exit::Code(126)), ..ENDS },
    Row { name: "a22_exit_3", script: "exit 3", exit: Some(Exit::Code(3)), ..ENDS },
    Row { name: "a22_exit_255", script: "exit 255", exit: Some(Exit::Code(255)), ..ENDS },
    Row { name: "b26_bytes_that_are_no_text", script: "printf '\\377\\376'", ..ENDS },
    Row {
        name: "b28_no_last_newline",
        script: "printf '{\"shortResult\":\"x\"}'",
        says: Some("{\"shortResult\":\"x\"}"),
        ..ENDS
    },
    Row { name: "b31_a_nul_byte", script: "printf 'a\\0b\\n'", says: Some("a\0b\n"), ..ENDS },
    Row {
        name: "b39_a_forged_footer",
        script: "python3 -c 'import os; os.write(1, b\"{}\\n\"); os._exit(0)'; exit 1",
        exit: Some(Exit::Code(1)),
        says: Some("{}\n"),
        ..ENDS
    },
    Row {
        name: "b40_escapes",
        script: "printf '\\033[2J::set-output name=a::b\\n'",
        says: Some("\u{1b}[2J::set-output name=a::b\n"),
        ..ENDS
    },
    Row {
        name: "b42_standard_input_is_empty",
        script: "cat; readlink /proc/self/fd/0",
        says: Some("/dev/null\n"),
        ..ENDS
    },
    Row {
        name: "c45_a_work_folder_without_anything",
        script: "rm -rf \"$PWD\" 2>/dev/null; cd /; rmdir $OLDPWD 2>/dev/null; echo ok",
        says: Some("ok\n"),
        ..ENDS
    },
    Row { name: "d63_no_secret_in_the_environment", script: "env | grep ENGINE_TEST_CLAIM; [ $? = 1 ]", ..ENDS },
    Row {
        name: "d64_no_secret_in_the_parents_environment",
        script: "tr '\\0' '\\n' </proc/$PPID/environ 2>/dev/null | grep ENGINE_TEST_CLAIM; [ $? = 1 ]",
        ..ENDS
    },
    Row {
        name: "d74_no_descriptors_but_three",
        script: "ls /proc/self/fd | tr '\\n' ' '",
        says: Some("0 1 2 3 "),
        ..ENDS
    },
    Row { name: "z_a_signal_that_nobody_names", script: "kill -34 $$", exit: Some(Exit::Signal(34)), ..ENDS },
    Row { name: "z_sigterm_to_itself", script: "kill -TERM $$", exit: Some(Exit::Signal(libc::SIGTERM)), ..ENDS },
    Row { name: "z_sigkill_to_its_group", script: "kill -9 0", exit: Some(Exit::Signal(libc::SIGKILL)), ..ENDS },
    Row {
        name: "z_a_stopped_child_is_left",
        script: "sh -c 'kill -STOP $$' & sleep 0.2; echo ok",
        says: Some("ok\n"),
        leaks: 1,
        ..ENDS
    },
];

pub(crate) fn claims() -> Vec<Claim> {
    let rows = ROWS.iter().flat_map(|row| {
        let modes = [Mode::Unsandboxed, Mode::Sandboxed];
        claims_named(&format!("faults::{}", row.name), &modes, Place::Here, move |cell: &Cell| assert_row(cell, row))
    });
    let others = [
        sandboxed(a09_killing_the_parent_harms_nobody),
        sandboxed(a10_killing_the_grandparent_harms_nobody),
        sandboxed(a11_killing_everything_kills_only_its_own),
        both(a14_limits_of_nothing_are_refused),
        both(a23_a_missing_interpreter_is_our_error),
        both(b24_a_flood_is_bounded_and_counted),
        both(b25_much_output_is_no_fault),
        both(b30_one_endless_line_is_bounded),
    ];
    rows.chain(others.into_iter().flatten()).collect()
}

fn assert_row(cell: &Cell, row: &Row) {
    let script = cell.sh(row.script);
    let completion = cell.run(&if row.is_hurried { hurried(script) } else { script });
    assert_eq!(completion.ended_by, row.ended_by, "{completion:?}");
    assert!(row.exit.is_none_or(|exit| completion.exit == exit), "{completion:?}");
    if let Some(said) = row.says {
        assert_eq!(text(&completion.stdout), said, "{completion:?}");
    }
    assert!(completion.leaked.len() >= row.leaks, "{completion:?}");
    assert_plausible(cell, &completion);
    if row.name.starts_with("a17") {
        assert_eq!(completion.leaked, []);
        let started = completion.usage.started;
        assert_eq!(started.is_some(), cell.mode == Mode::Sandboxed);
        assert!(started.is_none_or(|started| (1001..1100).contains(&started)), "{completion:?}");
    }
    if row.name.starts_with("b26") {
        assert_eq!(completion.stdout.kept_bytes(), b"\xff\xfe");
    }
    if !cell.work_dir.exists() {
        // Only without a sandbox can it go.
        assert_eq!(cell.mode, Mode::Unsandboxed);
        cell.furnish(&cell.work_dir);
    }
    cell.assert_goes_on();
}

/// The numbers are such as such a script can have.
fn assert_plausible(cell: &Cell, completion: &Completion) {
    let usage = completion.usage;
    assert!(usage.user + usage.system < completion.wall * 64 + Duration::from_secs(1), "{completion:?}");
    assert!(usage.max_rss_bytes < 4 << 30, "{completion:?}");
    match cell.mode {
        Mode::Unsandboxed => {
            assert_eq!((usage.started, usage.memory_peak_bytes, usage.written_bytes), (None, None, None));
        }
        Mode::Sandboxed => {
            assert!(usage.started.is_some_and(|started| started >= 1), "{completion:?}");
            let peak = usage.memory_peak_bytes;
            assert!(peak.is_none_or(|bytes| (4096..4 << 30).contains(&bytes)), "{completion:?}");
        }
    }
}

fn a09_killing_the_parent_harms_nobody(cell: &Cell) {
    assert_eq!(cell.says("kill -9 $PPID; kill -STOP $PPID; kill -TERM $PPID; sleep 0.1; echo $PPID"), "1");
    cell.assert_goes_on();
}

fn a10_killing_the_grandparent_harms_nobody(cell: &Cell) {
    assert_eq!(cell.says("awk '/^PPid/ {print $2}' /proc/$PPID/status"), "0");
    let completion = cell.run(&cell.sh("kill -9 $(awk '/^PPid/ {print $2}' /proc/$PPID/status)"));
    // Number 0 is the script's own group.
    assert_eq!((completion.exit, completion.ended_by), (Exit::Signal(libc::SIGKILL), EndedBy::Itself));
    cell.assert_goes_on();
}

fn a11_killing_everything_kills_only_its_own(cell: &Cell) {
    let completion = cell.run(&cell.sh("sleep 1000 & setsid sleep 1000 & kill -9 -1; sleep 0.1; kill -9 -1; exit 7"));
    assert_eq!((completion.exit, completion.ended_by), (Exit::Code(7), EndedBy::Itself));
    cell.assert_goes_on();
}

fn a14_limits_of_nothing_are_refused(cell: &Cell) {
    for bad in [Duration::ZERO, Duration::MAX] {
        let mut script = cell.sh("exit 0");
        script.limits.wall = bad;
        let error = cell.runner.run(&script, &super::cancel()).unwrap_err();
        assert!(matches!(error, EngineError::Limit { name: "wall", .. }), "{error:?}");
    }
}

fn a23_a_missing_interpreter_is_our_error(cell: &Cell) {
    use std::os::unix::fs::PermissionsExt;
    let path = cell.put("script", "#!/nope\n");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = cell.try_run(&cell.program(path.to_str().unwrap(), &[])).unwrap_err();
    assert!(matches!(&error, EngineError::Start { step: "exec", .. }), "{error:?}");
    cell.assert_goes_on();
}

/// Also b41: standard error has a bound of its own.
fn b24_a_flood_is_bounded_and_counted(cell: &Cell) {
    let completion = cell.run(&hurried(cell.sh("echo first; echo first >&2; yes ERR >&2 & exec yes OUT")));
    assert_eq!(completion.ended_by, EndedBy::Timeout);
    for stream in [&completion.stdout, &completion.stderr] {
        let kept = stream.kept_bytes();
        assert!(kept.starts_with(b"first\n") && kept.len() <= 64 << 10, "{} bytes", kept.len());
        assert!(stream.total_bytes > 1 << 20 && stream.dropped_bytes() > 0, "{} bytes", stream.total_bytes);
        assert_eq!(stream.total_bytes, stream.dropped_bytes() + kept.len() as u64);
    }
    cell.assert_goes_on();
}

fn b25_much_output_is_no_fault(cell: &Cell) {
    let completion = cell.run(&cell.sh("head -c 200000 /dev/zero; exit 0"));
    assert_eq!((completion.exit, completion.stdout.total_bytes), (Exit::Code(0), 200_000));
}

fn b30_one_endless_line_is_bounded(cell: &Cell) {
    let completion = cell.run(&cell.sh("head -c 100000000 /dev/zero | tr '\\0' x"));
    assert_eq!((completion.exit, completion.stdout.total_bytes), (Exit::Code(0), 100_000_000));
    assert!(completion.stdout.kept_bytes().len() <= 64 << 10);
}
