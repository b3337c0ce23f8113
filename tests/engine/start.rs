//! What a script starts with, and what is said when it cannot be started.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proving_ground::internals::engine::{Cancel, EngineError};
use proving_ground::internals::script::{Environment, Script};

use crate::helpers;
use crate::inside::{Claim, DIR, Lab, Place, claim};

pub(crate) fn claims() -> Vec<Claim> {
    vec![
        claim(Place::Here, standard_input_is_empty),
        claim(Place::Here, only_the_three_standard_descriptors_are_open),
        claim(Place::Here, signals_are_neither_blocked_nor_ignored),
        claim(Place::Here, the_environment_is_exactly_as_given),
        claim(Place::Here, the_arguments_are_exactly_as_given),
        claim(Place::Here, the_script_leads_its_session_and_group),
        claim(Place::Here, our_environment_is_not_found_in_the_helpers),
        claim(Place::Here, the_helpers_do_not_keep_our_descriptors_open),
        claim(Place::Here, a_missing_working_directory_is_named),
        claim(Place::Here, a_missing_program_is_named),
        claim(Place::Here, a_missing_interpreter_is_our_error),
        claim(Place::Here, a_program_that_is_not_executable_is_our_error),
        claim(Place::Here, a_nul_byte_is_refused),
        claim(Place::Here, more_than_the_kernel_takes_is_our_error),
        claim(Place::Here, more_than_the_exchange_takes_is_our_error),
    ]
}

fn standard_input_is_empty(lab: &Lab) {
    assert_eq!(lab.run_well(&lab.sh("cat; readlink /proc/self/fd/0")), "/dev/null\n");
}

fn only_the_three_standard_descriptors_are_open(lab: &Lab) {
    helpers::spoil_this_process();
    for _ in 0..3 {
        // `ls` itself opens the fourth.
        assert_eq!(lab.run_well(&lab.program("/bin/ls", &["/proc/self/fd"])), "0\n1\n2\n3\n");
    }
}

fn signals_are_neither_blocked_nor_ignored(lab: &Lab) {
    helpers::spoil_this_process();
    let status = lab.run_well(&lab.program("/bin/cat", &["/proc/self/status"]));
    let sets: Vec<&str> =
        status.lines().filter(|line| line.starts_with("SigBlk") || line.starts_with("SigIgn")).collect();
    assert_eq!(sets, ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"]);
}

fn the_environment_is_exactly_as_given(lab: &Lab) {
    let mut script = lab.program("/usr/bin/env", &[]);
    script.environment = Environment::default();
    assert_eq!(lab.run_well(&script), "");
    for (name, value) in [("Z", "1"), ("EMPTY", ""), ("A", "x y=z\n"), ("Z", "2")] {
        script.environment.set(name, value);
    }
    assert_eq!(lab.run_well(&script), "Z=2\nEMPTY=\nA=x y=z\n\n");
}

fn the_arguments_are_exactly_as_given(lab: &Lab) {
    let script = lab.program("/bin/sh", &["-c", "printf '<%s>' \"$@\"", "zero", "", "a b", "*", "-n", "\u{e4}"]);
    assert_eq!(lab.run_well(&script), "<><a b><*><-n><\u{e4}>");
}

fn the_script_leads_its_session_and_group(lab: &Lab) {
    // proc(5): pid (comm) state ppid pgrp session tty_nr
    let text = lab.run_well(
        &lab.sh("read -r pid comm state ppid group session tty rest < /proc/$$/stat; echo $$ $group $session $tty"),
    );
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words, [words[0], words[0], words[0], "0"]);
}

fn our_environment_is_not_found_in_the_helpers(lab: &Lab) {
    let text = "keeper=$(while read k v; do [ \"$k\" = PPid: ] && echo $v; done < /proc/$PPID/status); \
        for pid in $PPID $keeper; do [ $pid -gt 1 ] && cat /proc/$pid/environ /proc/$pid/cmdline; done 2>/dev/null | tr '\\0' '\\n'; true";
    let mut script = lab.sh(text);
    script.environment = Environment::default();
    assert_eq!(lab.run_well(&script).trim(), "");
    // It is there to be found.
    let ours = fs::read("/proc/self/environ").unwrap();
    assert!(String::from_utf8_lossy(&ours).contains(DIR));
}

fn the_helpers_do_not_keep_our_descriptors_open(lab: &Lab) {
    let [read_end, write_end] = helpers::inheritable_pipe();
    lab.assert_goes_on();
    helpers::close(write_end);
    assert!(helpers::is_closed(read_end), "a helper holds the pipe");
}

/// Runs a script that cannot be started. Returns the step, and the system's reason.
fn refusal(lab: &Lab, script: &Script) -> (&'static str, Option<i32>) {
    let error = lab.try_run(script, &Cancel::new().unwrap()).unwrap_err();
    let EngineError::Start { program, cwd, step, source } = &error else {
        panic!("{error:?}");
    };
    assert_eq!((program, cwd), (&script.program, &script.cwd));
    assert!(error.to_string().contains(&script.program.display().to_string()), "{error}");
    lab.assert_goes_on();
    (step, source.raw_os_error())
}

fn a_missing_working_directory_is_named(lab: &Lab) {
    let mut script = lab.sh("exit 0");
    script.cwd = "/no/such/folder".into();
    assert_eq!(refusal(lab, &script), ("chdir", Some(libc::ENOENT)));
    script.cwd = "/etc/passwd".into();
    assert_eq!(refusal(lab, &script), ("chdir", Some(libc::ENOTDIR)));
}

fn a_missing_program_is_named(lab: &Lab) {
    assert_eq!(refusal(lab, &lab.program("/no/such/program", &[])), ("exec", Some(libc::ENOENT)));
}

fn written(lab: &Lab, text: &str, mode: u32) -> Script {
    let path = lab.path("script");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    lab.program(path, &[])
}

fn a_missing_interpreter_is_our_error(lab: &Lab) {
    assert_eq!(refusal(lab, &written(lab, "#!/nope\n", 0o755)), ("exec", Some(libc::ENOENT)));
    assert_eq!(refusal(lab, &written(lab, "no interpreter at all\n", 0o755)), ("exec", Some(libc::ENOEXEC)));
}

fn a_program_that_is_not_executable_is_our_error(lab: &Lab) {
    assert_eq!(refusal(lab, &written(lab, "#!/bin/sh\n", 0o644)), ("exec", Some(libc::EACCES)));
    assert_eq!(refusal(lab, &lab.program(Path::new("/etc"), &[])), ("exec", Some(libc::EACCES)));
}

fn a_nul_byte_is_refused(lab: &Lab) {
    let mut variable = lab.sh("exit 0");
    variable.environment.set("NAME", "a\0b");
    for script in [lab.sh("echo a\0b"), lab.program("/bin/\0sh", &[]), variable] {
        let result = lab.try_run(&script, &Cancel::new().unwrap());
        assert!(matches!(result, Err(EngineError::Nul(_))), "{result:?}");
    }
    lab.assert_goes_on();
}

fn more_than_the_kernel_takes_is_our_error(lab: &Lab) {
    let mut script = lab.sh("exit 0");
    script.environment.set("LARGE", "x".repeat(1 << 20));
    assert_eq!(refusal(lab, &script), ("exec", Some(libc::E2BIG)));
}

fn more_than_the_exchange_takes_is_our_error(lab: &Lab) {
    let mut script = lab.sh("exit 0");
    for number in 0..90 {
        script.environment.set(format!("LARGE_{number}"), "x".repeat(100_000));
    }
    let result = lab.try_run(&script, &Cancel::new().unwrap());
    assert!(matches!(result, Err(EngineError::TooLarge { .. })), "{result:?}");
    lab.assert_goes_on();
}
