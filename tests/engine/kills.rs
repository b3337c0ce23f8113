//! A script that kills, stops or outlives whoever watches over it harms only itself.

use std::os::unix::process::ExitStatusExt;

use proving_ground::internals::engine::{can_confine_signals, sweep_traces};
use proving_ground::internals::script::{Completion, EndedBy, Exit, Script, SignalReach};

use crate::helpers;
use crate::inside::{Claim, Lab, Place, alive_with, children, claim, hurried, text, until};

pub(crate) fn claims() -> Vec<Claim> {
    vec![
        claim(Place::OwnProcesses, killing_the_parent_kills_only_the_script),
        claim(Place::OwnProcesses, killing_the_grandparent_harms_nothing),
        claim(Place::OwnProcesses, killing_both_kills_only_the_script),
        claim(Place::OwnProcesses, killing_everything_kills_only_what_is_confined),
        claim(Place::OwnProcesses, stopping_the_parent_does_not_stop_the_clock),
        claim(Place::OwnProcesses, stopping_the_grandparent_harms_nothing),
        claim(Place::OwnProcesses, stopping_both_does_not_stop_the_clock),
        claim(Place::OwnProcesses, stopping_the_parent_for_ever_does_not_stop_the_clock),
        claim(Place::OwnProcesses, a_stopped_parent_without_a_keeper_does_not_stop_the_clock),
        claim(Place::OwnProcesses, killing_the_parent_after_the_deadline_leaves_it_a_timeout),
        claim(Place::OwnProcesses, a_supervisor_killed_while_idle_is_replaced),
        claim(Place::OwnProcesses, a_keeper_killed_while_idle_is_replaced),
        claim(Place::OwnProcesses, a_runner_goes_with_stopped_helpers),
        claim(Place::Here, what_a_killed_runner_had_started_dies_with_it),
        claim(Place::Here, traces_of_a_dead_run_are_swept),
        claim(Place::Here, a_segmentation_fault_is_told_from_exit_139),
        claim(Place::Here, exit_codes_are_told_as_they_are),
    ]
}

/// Shell words for the supervisor's parent.
const KEEPER: &str = "$(while read k v; do [ \"$k\" = PPid: ] && echo $v; done < /proc/$PPID/status)";

fn with_keeper(lab: &Lab, text: &str) -> Script {
    lab.sh(&text.replace("KEEPER", KEEPER))
}

fn assert_died_with_its_supervisor(completion: &Completion) {
    assert_eq!((completion.exit, completion.ended_by), (Exit::Signal(libc::SIGKILL), EndedBy::SupervisorKilled));
}

fn killing_the_parent_kills_only_the_script(lab: &Lab) {
    assert_died_with_its_supervisor(&lab.run(&lab.sh("setsid sleep 1000 & sleep 1000 & kill -9 $PPID; sleep 1000")));
    lab.assert_goes_on();
}

fn killing_the_grandparent_harms_nothing(lab: &Lab) {
    let completion = lab.run(&with_keeper(lab, "setsid sleep 1000 & kill -9 KEEPER; echo done"));
    assert_eq!((completion.exit, completion.ended_by), (Exit::Code(0), EndedBy::Itself));
    lab.assert_goes_on();
    // Without a keeper the slot is not used again.
    assert_died_with_its_supervisor(&lab.run(&lab.sh("setsid sleep 1000 & kill -9 $PPID; sleep 1000")));
}

fn killing_both_kills_only_the_script(lab: &Lab) {
    let text = "setsid sleep 1000 & sleep 1000 & kill -9 KEEPER $PPID; sleep 1000";
    for _ in 0..5 {
        assert_died_with_its_supervisor(&lab.run(&with_keeper(lab, text)));
        lab.assert_goes_on();
    }
}

fn killing_everything_kills_only_what_is_confined(lab: &Lab) {
    if !can_confine_signals() {
        eprintln!("not checked: this kernel cannot confine signals (Landlock ABI 6, Linux 6.12)");
        return;
    }
    let mut script = lab.sh("setsid sleep 1000 & sleep 1000 & kill -9 -1; kill -9 $$");
    script.signals = SignalReach::OwnProcesses;
    let completion = lab.run(&script);
    assert_eq!(completion.exit, Exit::Signal(libc::SIGKILL));
    script.args[1] = "kill -9 KEEPER; kill -STOP KEEPER; echo done".replace("KEEPER", KEEPER).into();
    assert_eq!(text(&lab.run(&script).stdout), "done\n");
    lab.assert_goes_on();
}

fn stopping_the_parent_does_not_stop_the_clock(lab: &Lab) {
    let completion = lab.run(&hurried(lab.sh("setsid sleep 1000 & kill -STOP $PPID; sleep 1000")));
    assert_eq!((completion.exit, completion.ended_by), (Exit::Signal(libc::SIGTERM), EndedBy::Timeout));
    let completion = lab.run(&lab.sh("setsid sleep 1000 & kill -STOP $PPID; exit 7"));
    assert_eq!((completion.exit, completion.ended_by), (Exit::Code(7), EndedBy::Itself));
    lab.assert_goes_on();
}

fn stopping_the_grandparent_harms_nothing(lab: &Lab) {
    let completion = lab.run(&with_keeper(lab, "setsid sleep 1000 & kill -STOP KEEPER; exit 7"));
    assert_eq!((completion.exit, completion.ended_by), (Exit::Code(7), EndedBy::Itself));
    assert_died_with_its_supervisor(
        &lab.run(&with_keeper(lab, "setsid sleep 1000 & kill -STOP KEEPER; kill -9 $PPID")),
    );
    lab.assert_goes_on();
}

fn stopping_both_does_not_stop_the_clock(lab: &Lab) {
    let text = "setsid sleep 1000 & kill -STOP KEEPER $PPID; sleep 1000";
    let completion = lab.run(&hurried(with_keeper(lab, text)));
    assert_eq!((completion.exit, completion.ended_by), (Exit::Signal(libc::SIGTERM), EndedBy::Timeout));
    lab.assert_goes_on();
}

fn stopping_the_parent_for_ever_does_not_stop_the_clock(lab: &Lab) {
    let text = "trap '' TERM; while :; do kill -STOP $PPID; done & while :; do kill -STOP $PPID; done";
    let completion = lab.run(&hurried(lab.sh(text)));
    assert_eq!(completion.ended_by, EndedBy::Timeout);
    lab.assert_goes_on();
}

fn a_stopped_parent_without_a_keeper_does_not_stop_the_clock(lab: &Lab) {
    let text = "setsid sleep 1000 & kill -9 KEEPER; kill -STOP $PPID; sleep 1000";
    let completion = lab.run(&hurried(with_keeper(lab, text)));
    assert_eq!(completion.ended_by, EndedBy::Timeout);
    lab.assert_goes_on();
}

fn killing_the_parent_after_the_deadline_leaves_it_a_timeout(lab: &Lab) {
    let completion = lab.run(&hurried(lab.sh("trap 'kill -9 $PPID' TERM; while :; do sleep 0.02; done")));
    assert_eq!((completion.exit, completion.ended_by), (Exit::Signal(libc::SIGKILL), EndedBy::Timeout));
}

/// Runs a script that tells its parent and that one's parent.
fn helpers_of(lab: &Lab) -> [i32; 2] {
    let text = lab.run_well(&with_keeper(lab, "echo $PPID KEEPER"));
    let mut pids = text.split_whitespace().map(|pid| pid.parse().unwrap());
    [pids.next().unwrap(), pids.next().unwrap()]
}

fn a_supervisor_killed_while_idle_is_replaced(lab: &Lab) {
    for _ in 0..20 {
        let [supervisor, _] = helpers_of(lab);
        helpers::signal(supervisor, libc::SIGKILL);
        lab.assert_goes_on();
    }
    assert_eq!(children().len(), 1, "{:?}", children());
}

fn a_keeper_killed_while_idle_is_replaced(lab: &Lab) {
    for _ in 0..20 {
        let [_, keeper] = helpers_of(lab);
        helpers::signal(keeper, libc::SIGKILL);
        lab.assert_goes_on();
    }
}

fn a_runner_goes_with_stopped_helpers(lab: &Lab) {
    let other = Lab::in_dir(lab.dir.clone());
    let [supervisor, keeper] = helpers_of(&other);
    helpers::signal(keeper, libc::SIGSTOP);
    helpers::signal(supervisor, libc::SIGSTOP);
    drop(other);
    assert_eq!(children(), Vec::<String>::new());
}

fn what_a_killed_runner_had_started_dies_with_it(lab: &Lab) {
    let mut victim = helpers::start_again("victim");
    until("the victim's script runs", || lab.path("running").exists());
    assert!(!alive_with(&lab.marker).is_empty());
    victim.kill().unwrap();
    assert_eq!(victim.wait().unwrap().signal(), Some(libc::SIGKILL));
    until("its processes are dead", || alive_with(&lab.marker).is_empty());
}

fn traces_of_a_dead_run_are_swept(lab: &Lab) {
    let mut trace = helpers::start_again("trace");
    until("the trace is there", || lab.path("running").exists());
    let swept = sweep_traces(&lab.marker);
    assert_eq!(alive_with(&lab.marker), Vec::<String>::new());
    assert_eq!(swept.processes.len(), 2, "{swept:?}");
    trace.wait().unwrap();
    assert!(sweep_traces(&lab.marker).processes.is_empty());
}

fn a_segmentation_fault_is_told_from_exit_139(lab: &Lab) {
    assert_eq!(lab.run(&lab.sh("kill -SEGV $$")).exit, Exit::Signal(libc::SIGSEGV));
    assert_eq!(lab.run(&lab.sh("exit 139")).exit, Exit::Code(139));
    let completion = lab.run(&lab.sh("kill -KILL $$"));
    assert_eq!((completion.exit, completion.ended_by), (Exit::Signal(libc::SIGKILL), EndedBy::Itself));
}

fn exit_codes_are_told_as_they_are(lab: &Lab) {
    for (text, code) in [("exit 3", 3), ("exit 255", 255), ("no_such_cmd", 127), ("/etc/passwd", 126)] {
        let completion = lab.run(&lab.sh(text));
        assert_eq!((completion.exit, completion.ended_by), (Exit::Code(code), EndedBy::Itself), "{text}");
    }
}
