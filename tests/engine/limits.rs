//! Bombs, limits that make no sense, and machines that lack what the engine likes to use.

use std::num::NonZeroU32;
use std::time::Duration;

use proving_ground::internals::engine::{Cancel, EngineError, LIMIT_MAX, ScriptRunner};
use proving_ground::internals::script::{EndedBy, Exit, Script};

use crate::helpers;
use crate::inside::{Claim, Lab, Place, alive_with, claim, hurried, text};

pub(crate) fn claims() -> Vec<Claim> {
    vec![
        claim(Place::OwnProcesses, a_fork_bomb_ends_with_its_script),
        claim(Place::OwnProcesses, a_fork_bomb_of_sessions_ends_with_its_script),
        claim(Place::OwnProcesses, a_fork_bomb_left_behind_does_not_wait_for_the_wall_limit),
        claim(Place::OwnProcesses, a_fork_bomb_without_a_supervisor_ends),
        claim(Place::OwnProcesses, a_fork_bomb_ends_where_new_system_calls_are_refused),
        claim(Place::RootsOwnMounts, a_fork_bomb_ends_without_any_cgroup),
        claim(Place::RootsOwnMounts, a_process_limit_for_root_without_a_cgroup_is_refused),
        claim(Place::Here, a_process_limit_holds),
        claim(Place::Here, a_process_limit_does_not_stay_for_the_next_script),
        claim(Place::Here, limits_of_nothing_or_for_ever_are_refused),
        claim(Place::Here, scripts_run_where_new_system_calls_are_unknown),
        claim(Place::Here, scripts_run_where_new_system_calls_are_forbidden),
    ]
}

fn limited(mut script: Script, processes_max: u32) -> Script {
    script.limits.pids_max = NonZeroU32::new(processes_max);
    script
}

fn a_fork_bomb_ends_with_its_script(lab: &Lab) {
    // The shell waits by builtins only: the bomb may leave it no room for another process.
    let text = "bomb() { bomb | bomb & }; bomb 2>/dev/null; while :; do :; done";
    let completion = lab.run(&hurried(limited(lab.sh(text), 400)));
    assert_eq!(completion.ended_by, EndedBy::Timeout);
    lab.assert_goes_on();
}

fn setsid_bomb(lab: &Lab, stays: bool) -> Script {
    let mut script = limited(lab.helper("setsid_bomb"), 100);
    if stays {
        script.environment.set("STAYS", "1");
    }
    script
}

fn a_fork_bomb_of_sessions_ends_with_its_script(lab: &Lab) {
    let completion = lab.run(&hurried(setsid_bomb(lab, true)));
    assert_eq!((completion.ended_by, text(&completion.stdout).as_str()), (EndedBy::Timeout, "armed\n"));
    lab.assert_goes_on();
}

fn a_fork_bomb_left_behind_does_not_wait_for_the_wall_limit(lab: &Lab) {
    let mut script = setsid_bomb(lab, false);
    // Longer than the trial's deadline.
    script.limits.wall = Duration::from_secs(100_000);
    let completion = lab.run(&script);
    assert_eq!((completion.ended_by, completion.exit), (EndedBy::Itself, Exit::Code(0)));
    lab.assert_goes_on();
}

fn a_fork_bomb_without_a_supervisor_ends(lab: &Lab) {
    // Builtins only: the bomb leaves no room for another process.
    let text = "\"$0\" >armed & until [ -s armed ]; do :; done; kill -9 $PPID; while :; do :; done";
    let mut script = setsid_bomb(lab, true);
    script.args = ["-c".into(), text.into(), script.program.into()].to_vec();
    script.program = "/bin/sh".into();
    assert_eq!(lab.run(&script).ended_by, EndedBy::SupervisorKilled);
    lab.assert_goes_on();
}

fn a_fork_bomb_ends_where_new_system_calls_are_refused(lab: &Lab) {
    helpers::refuse_new_system_calls(libc::EPERM);
    a_fork_bomb_of_sessions_ends_with_its_script(lab);
}

fn a_fork_bomb_ends_without_any_cgroup(lab: &Lab) {
    helpers::unmount(c"/sys/fs/cgroup");
    // Nothing bounds root's processes here, so each waits before it forks two.
    let bomb = "sleep 0.2; setsid sh -c \"$1\" x \"$1\" & setsid sh -c \"$1\" x \"$1\" & sleep 0.3";
    let script = lab.program("/bin/sh", &["-c", "sh -c \"$1\" x \"$1\"; sleep 1000", "x", bomb]);
    assert_eq!(lab.run(&hurried(script)).ended_by, EndedBy::Timeout);
    lab.assert_goes_on();
}

fn a_process_limit_for_root_without_a_cgroup_is_refused(lab: &Lab) {
    helpers::unmount(c"/sys/fs/cgroup");
    let result = lab.try_run(&limited(lab.sh("exit 0"), 10), &Cancel::new().unwrap());
    assert!(matches!(result, Err(EngineError::PidsLimit(_))), "{result:?}");
    lab.assert_goes_on();
}

fn a_process_limit_holds(lab: &Lab) {
    let text = "i=0; while [ $i -lt 60 ]; do sleep 1000 & i=$((i+1)); done 2>/dev/null";
    let completion = lab.run(&limited(lab.sh(text), 20));
    let started = completion.leaked.len();
    assert!((1..60).contains(&started), "{completion:?}");
    assert_ne!(completion.exit, Exit::Code(0), "{completion:?}");
}

fn a_process_limit_does_not_stay_for_the_next_script(lab: &Lab) {
    lab.run_well(&limited(lab.sh("exit 0"), 5));
    let text = "i=0; while [ $i -lt 60 ]; do sleep 1000 & i=$((i+1)); done; echo all";
    let completion = lab.run(&lab.sh(text));
    assert_eq!((crate::inside::text(&completion.stdout).as_str(), completion.leaked.len()), ("all\n", 60));
}

fn limits_of_nothing_or_for_ever_are_refused(lab: &Lab) {
    for bad in [Duration::ZERO, LIMIT_MAX + Duration::from_nanos(1), Duration::MAX] {
        let mut scripts = [lab.sh("touch ran"), lab.sh("touch ran"), lab.sh("touch ran")];
        scripts[0].limits.wall = bad;
        scripts[1].limits.grace = bad;
        scripts[2].limits.drain = bad;
        for (script, limit) in scripts.iter().zip(["wall", "grace", "drain"]) {
            let error = lab.runner.run(script, &Cancel::new().unwrap()).unwrap_err();
            assert!(matches!(error, EngineError::Limit { name, given } if name == limit && given == bad), "{error:?}");
            assert!(error.to_string().contains("more than 0 and at most"), "{error}");
        }
    }
    let mut longest = lab.sh("exit 0");
    longest.limits.wall = LIMIT_MAX;
    lab.run_well(&longest);
    assert!(!lab.path("ran").exists());
}

fn scripts_run_where_new_system_calls_are_unknown(lab: &Lab) {
    helpers::refuse_new_system_calls(libc::ENOSYS);
    run_all_ways(lab);
}

fn scripts_run_where_new_system_calls_are_forbidden(lab: &Lab) {
    helpers::refuse_new_system_calls(libc::EPERM);
    run_all_ways(lab);
}

fn run_all_ways(lab: &Lab) {
    lab.assert_goes_on();
    assert_eq!(lab.run(&lab.sh("setsid sleep 1000 & exit 0")).leaked.len(), 1);
    assert_eq!(lab.run(&hurried(lab.sh("trap '' TERM; while :; do sleep 1; done"))).ended_by, EndedBy::Timeout);
    assert_eq!(lab.run(&lab.sh("kill -9 $PPID; sleep 1000")).ended_by, EndedBy::SupervisorKilled);
    assert_eq!(lab.run_well(&lab.sh("ls /proc/self/fd | tr '\\n' ' '")), "0 1 2 3 ");
    assert!(alive_with(&lab.marker).is_empty());
}
