//! Output: every byte is counted, a bounded part is kept, nothing stalls.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use proving_ground::internals::engine::Cancel;
use proving_ground::internals::script::{Completion, EndedBy, Exit, LogFiles, Script, Stream};

use crate::helpers::{self, pattern_bytes};
use crate::inside::{Claim, Lab, Place, claim, hurried, text, until};

pub(crate) fn claims() -> Vec<Claim> {
    vec![
        claim(Place::Here, a_full_pipe_never_stalls_the_script),
        claim(Place::Here, endless_output_is_counted_and_not_kept),
        claim(Place::Here, endless_errors_are_counted_and_not_kept),
        claim(Place::Here, both_streams_at_once_are_read),
        claim(Place::Here, bytes_are_kept_as_they_come),
        claim(Place::Here, a_character_in_two_writes_is_one_character),
        claim(Place::Here, head_tail_and_total_are_right_at_every_boundary),
        claim(Place::Here, a_long_single_line_is_bounded),
        claim(Place::Here, a_pipe_held_by_a_stranger_is_not_waited_for),
        claim(Place::Here, a_log_is_written_while_the_script_runs),
        claim(Place::Here, a_silent_script_leaves_no_log),
        claim(Place::Here, a_long_log_keeps_its_start_and_its_end),
        claim(Place::Here, a_log_that_cannot_be_written_does_not_disturb_the_script),
        claim(Place::RootsOwnMounts, a_log_on_a_full_disk_does_not_disturb_the_script),
        claim(Place::Here, a_reader_of_its_own_output_does_not_block_us),
    ]
}

const RING_BYTES: usize = 256 << 10;

fn a_full_pipe_never_stalls_the_script(lab: &Lab) {
    let completion = lab.run(&lab.sh("head -c 200000 /dev/zero; head -c 3000000 /dev/zero >&2; exit 5"));
    assert_eq!((completion.exit, completion.ended_by), (Exit::Code(5), EndedBy::Itself));
    assert_eq!((completion.stdout.total_bytes, completion.stderr.total_bytes), (200_000, 3_000_000));
}

fn assert_flood(stream: &Stream) {
    let total = stream.total_bytes;
    assert!(total > 10_000_000, "{total}");
    assert_eq!((stream.head.len(), stream.tail.len()), (32 << 10, 32 << 10));
    assert_eq!(stream.dropped_bytes(), total - (64 << 10));
    assert!(stream.head.starts_with(b"AAAA\nAAAA\n"));
    let peak_kib = helpers::peak_memory_kib();
    assert!(peak_kib < 64 << 10, "{peak_kib} KiB");
}

fn endless_output_is_counted_and_not_kept(lab: &Lab) {
    let completion = lab.run(&hurried(lab.sh("exec yes AAAA")));
    assert_eq!(completion.ended_by, EndedBy::Timeout);
    assert_flood(&completion.stdout);
}

fn endless_errors_are_counted_and_not_kept(lab: &Lab) {
    let completion = lab.run(&hurried(lab.sh("echo ok; exec yes AAAA >&2")));
    assert_eq!((completion.ended_by, text(&completion.stdout).as_str()), (EndedBy::Timeout, "ok\n"));
    assert_flood(&completion.stderr);
}

fn both_streams_at_once_are_read(lab: &Lab) {
    let completion = lab.run(&hurried(lab.sh("yes AAAA & yes AAAA >&2 & wait")));
    assert_flood(&completion.stdout);
    assert_flood(&completion.stderr);
}

fn bytes_are_kept_as_they_come(lab: &Lab) {
    let completion = lab.run(&lab.sh(r"printf '\377\376a\0b\r\n\033[0m'"));
    assert_eq!(completion.stdout.head, b"\xff\xfea\0b\r\n\x1b[0m");
}

fn a_character_in_two_writes_is_one_character(lab: &Lab) {
    assert_eq!(lab.run_well(&lab.helper("split_utf8")), "€");
    let mut script = lab.helper("split_utf8");
    script.limits.kept_bytes_max = 2;
    let stdout = lab.run(&script).stdout;
    // Cut inside the character: the bytes are what they were, and what is missing is known.
    assert_eq!((stdout.head.as_slice(), stdout.tail.as_slice(), stdout.total_bytes), (&b"\xe2"[..], &b"\xac"[..], 3));
}

fn check_stream(stream: &Stream, size: usize, kept_bytes_max: usize) {
    let each = (kept_bytes_max / 2).min(RING_BYTES);
    let bytes = pattern_bytes(size);
    let head = &bytes[..size.min(each)];
    let rest = &bytes[head.len()..];
    let tail = &rest[rest.len() - rest.len().min(each)..];
    assert_eq!(stream.total_bytes, size as u64);
    assert!(stream.head == head, "head of {size}, kept {kept_bytes_max}");
    assert!(stream.tail == tail, "tail of {size}, kept {kept_bytes_max}");
}

fn head_tail_and_total_are_right_at_every_boundary(lab: &Lab) {
    let small = [0, 1, 2, 499, 500, 501, 999, 1000, 1001, 4096, 70_000];
    let large = [RING_BYTES - 1, RING_BYTES, RING_BYTES + 1, 2 * RING_BYTES, 2 * RING_BYTES + 1, 3_000_001];
    for size in small.into_iter().chain(large) {
        for kept_bytes_max in [0, 1, 1000, 2 * RING_BYTES, 100 * RING_BYTES] {
            let mut script = lab.helper("pattern");
            script.environment.set("SIZE", size.to_string());
            script.limits.kept_bytes_max = kept_bytes_max;
            let completion = lab.run(&script);
            check_stream(&completion.stdout, size, kept_bytes_max);
            check_stream(&completion.stderr, size, kept_bytes_max);
        }
    }
}

fn a_long_single_line_is_bounded(lab: &Lab) {
    let completion = lab.run(&lab.sh("head -c 100000000 /dev/zero | tr '\\0' A"));
    assert_eq!(completion.stdout.total_bytes, 100_000_000);
    assert_eq!(completion.stdout.head.len() + completion.stdout.tail.len(), 64 << 10);
}

fn a_pipe_held_by_a_stranger_is_not_waited_for(lab: &Lab) {
    let (held, ended) = (lab.path("held"), lab.path("ended"));
    thread::scope(|scope| {
        // We are a stranger to the script, and hold its output open until the run has ended.
        scope.spawn(|| {
            until("the script tells who it is", || lab.path("script").exists());
            let script = fs::read_to_string(lab.path("script")).unwrap();
            let pipe = fs::OpenOptions::new().write(true).open(format!("/proc/{}/fd/1", script.trim())).unwrap();
            fs::write(&held, "").unwrap();
            until("the run has ended", || ended.exists());
            drop(pipe);
        });
        let text = "echo $$ > name; mv name script; while ! [ -e held ]; do sleep 0.01; done; echo ok";
        let mut script = lab.sh(text);
        script.limits.drain = Duration::from_secs(1);
        let completion = lab.run(&script);
        fs::write(&ended, "").unwrap();
        assert_eq!((completion.exit, completion.ended_by), (Exit::Code(0), EndedBy::Itself));
        assert!(completion.stdout.head.ends_with(b"ok\n"));
    });
}

fn logged(lab: &Lab, mut script: Script, log_bytes_max: u64) -> Script {
    script.logs = Some(LogFiles { stdout: lab.path("stdout.log"), stderr: lab.path("stderr.log") });
    script.limits.log_bytes_max = log_bytes_max;
    script
}

fn a_log_is_written_while_the_script_runs(lab: &Lab) {
    let script = logged(lab, lab.sh("echo first; while ! [ -e go ]; do sleep 0.01; done; echo second"), 1000);
    thread::scope(|scope| {
        scope.spawn(|| {
            until("the first line is logged", || fs::read(lab.path("stdout.log")).is_ok_and(|log| log == b"first\n"));
            fs::write(lab.path("go"), "").unwrap();
        });
        assert_eq!(lab.run_well(&script), "first\nsecond\n");
    });
    assert_eq!(fs::read(lab.path("stdout.log")).unwrap(), b"first\nsecond\n");
}

fn a_silent_script_leaves_no_log(lab: &Lab) {
    lab.run_well(&logged(lab, lab.sh("exit 0"), 1000));
    assert!(!lab.path("stdout.log").exists() && !lab.path("stderr.log").exists());
}

fn a_long_log_keeps_its_start_and_its_end(lab: &Lab) {
    for (size, max) in [(999, 1000), (1000, 1000), (1001, 1000), (5_000_000, 1000), (5_000_000, 4 << 20), (70_000, 0)] {
        let mut script = logged(lab, lab.helper("pattern"), max);
        script.environment.set("SIZE", size.to_string());
        let completion = lab.run(&script);
        assert_eq!(completion.log_error, None);
        for name in ["stdout.log", "stderr.log"] {
            check_log(&lab.path(name), size, usize::try_from(max).unwrap());
            fs::remove_file(lab.path(name)).unwrap();
        }
    }
}

fn check_log(path: &Path, size: usize, max: usize) {
    let (log, whole) = (fs::read(path).unwrap(), pattern_bytes(size));
    if size <= max {
        assert!(log == whole, "{size} of at most {max} bytes");
        return;
    }
    let end = (max / 4).min(RING_BYTES);
    let start = max - end;
    let marker = format!("\n[... {} bytes cut here, output-limit reached ...]\n", size - max);
    let expected = [&whole[..start], marker.as_bytes(), &whole[size - end..]].concat();
    assert!(log == expected, "{size} of at most {max} bytes: {} bytes", log.len());
}

fn a_log_that_cannot_be_written_does_not_disturb_the_script(lab: &Lab) {
    for path in [Path::new("/dev/full"), Path::new("/dev/null/folder/log")] {
        let mut script = lab.sh("head -c 3000000 /dev/zero; echo done >&2");
        script.logs = Some(LogFiles { stdout: path.to_path_buf(), stderr: lab.path("stderr.log") });
        let completion = lab.run(&script);
        assert_eq!((completion.exit, completion.stdout.total_bytes), (Exit::Code(0), 3_000_000));
        let error = completion.log_error.unwrap();
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert_eq!(fs::read(lab.path("stderr.log")).unwrap(), b"done\n");
    }
}

fn a_log_on_a_full_disk_does_not_disturb_the_script(lab: &Lab) {
    fs::create_dir(lab.path("disk")).unwrap();
    helpers::mount_tmpfs(&lab.path("disk"), "size=64k");
    let mut script = lab.sh("head -c 3000000 /dev/zero; echo done");
    let stderr = lab.path("disk/stderr.log");
    script.logs = Some(LogFiles { stdout: lab.path("disk/stdout.log"), stderr });
    let completion: Completion = lab.try_run(&script, &Cancel::new().unwrap()).unwrap();
    assert_eq!((completion.exit, completion.stdout.total_bytes), (Exit::Code(0), 3_000_005));
    assert!(completion.log_error.is_some());
    assert_eq!(fs::read(lab.path("disk/stdout.log")).unwrap().len(), 64 << 10);
}

fn a_reader_of_its_own_output_does_not_block_us(lab: &Lab) {
    // The script takes from the pipe what we were told is there.
    let text = "cat /proc/self/fd/1 >/dev/null & yes A | head -c 2000000; sleep 1000";
    let mut script = lab.sh(text);
    script.limits.wall = Duration::from_secs(1);
    assert_eq!(lab.run(&script).ended_by, EndedBy::Timeout);
}
