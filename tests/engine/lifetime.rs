//! It returns in time, and nothing that the script started is alive then.

use std::thread;
use std::time::Duration;

use proving_ground::internals::engine::{Cancel, EngineError};
use proving_ground::internals::script::{EndedBy, Exit, SignalReach};

use crate::helpers;
use crate::inside::{
    Claim, Lab, Place, alive_with, cgroups_of_this_process, children, claim, hurried, open_files, text, until,
};

pub(crate) fn claims() -> Vec<Claim> {
    vec![
        claim(Place::Here, a_background_child_does_not_delay_the_end_and_is_reported),
        claim(Place::Here, a_daemon_in_its_own_session_is_dead_when_the_run_ends),
        claim(Place::Here, a_daemon_is_dead_after_a_timeout),
        claim(Place::Here, a_double_forked_daemon_with_closed_descriptors_is_dead),
        claim(Place::Here, a_script_that_ignores_every_signal_is_killed_after_the_grace),
        claim(Place::Here, a_script_that_stops_itself_times_out),
        claim(Place::Here, a_stopped_child_is_killed),
        claim(Place::Here, a_busy_child_is_dead_after_a_timeout),
        claim(Place::Here, a_script_that_has_closed_its_output_still_times_out),
        claim(Place::Here, a_trap_may_answer_the_timeout_with_any_code),
        claim(Place::Here, a_thousand_short_children_leave_no_zombie),
        claim(Place::Here, a_thousand_orphans_are_reaped_while_the_script_runs),
        claim(Place::Here, the_usage_of_waited_children_is_counted),
        claim(Place::Here, a_child_that_the_script_killed_is_not_a_leak),
        claim(Place::Here, a_child_given_to_the_supervisor_is_dead),
        claim(Place::Here, a_child_whose_end_is_not_signalled_is_dead),
        claim(Place::Here, the_orphans_of_a_subreaper_are_dead),
        claim(Place::Here, a_nested_pid_namespace_is_dead),
        claim(Place::Here, a_cancel_before_the_start_ends_the_script_at_once),
        claim(Place::Here, a_cancel_in_the_middle_ends_the_script),
        claim(Place::Here, a_cancel_during_the_grace_leaves_it_a_timeout),
        claim(Place::Here, a_cancel_does_not_hide_a_failed_start),
        claim(Place::Here, runs_in_many_threads_do_not_mix),
        claim(Place::Here, five_hundred_runs_leave_nothing_behind),
        claim(Place::RootsOwnMounts, a_mount_over_proc_does_not_hide_a_daemon),
    ]
}

fn a_background_child_does_not_delay_the_end_and_is_reported(lab: &Lab) {
    let completion = lab.run(&lab.sh("sleep 1000 & until [ \"$(cat /proc/$!/comm)\" = sleep ]; do :; done; echo ok"));
    assert_eq!((completion.exit, completion.ended_by), (Exit::Code(0), EndedBy::Itself));
    assert_eq!(text(&completion.stdout), "ok\n");
    assert_eq!(completion.leaked.iter().map(|leak| leak.command.as_str()).collect::<Vec<_>>(), ["sleep"]);
}

fn a_daemon_in_its_own_session_is_dead_when_the_run_ends(lab: &Lab) {
    let completion = lab.run(&lab.sh("setsid sleep 1000 >/dev/null 2>&1 & exit 0"));
    assert_eq!((completion.exit, completion.ended_by), (Exit::Code(0), EndedBy::Itself));
    assert_eq!(completion.leaked.len(), 1, "{completion:?}");
}

fn a_daemon_is_dead_after_a_timeout(lab: &Lab) {
    let completion = lab.run(&hurried(lab.sh("setsid sleep 1000 & sleep 1000")));
    assert_eq!((completion.exit, completion.ended_by), (Exit::Signal(libc::SIGTERM), EndedBy::Timeout));
}

fn a_double_forked_daemon_with_closed_descriptors_is_dead(lab: &Lab) {
    let completion = lab.run(&lab.helper("daemon"));
    assert_eq!((completion.exit, completion.ended_by), (Exit::Code(0), EndedBy::Itself));
}

fn a_script_that_ignores_every_signal_is_killed_after_the_grace(lab: &Lab) {
    let completion = lab.run(&hurried(lab.sh("trap '' TERM INT HUP; while :; do sleep 1; done")));
    assert_eq!((completion.exit, completion.ended_by), (Exit::Signal(libc::SIGKILL), EndedBy::Timeout));
    assert!(completion.wall >= Duration::from_secs(2), "{completion:?}");
}

fn a_script_that_stops_itself_times_out(lab: &Lab) {
    let completion = lab.run(&hurried(lab.sh("kill -STOP $$")));
    assert_eq!((completion.exit, completion.ended_by), (Exit::Signal(libc::SIGTERM), EndedBy::Timeout));
}

fn a_stopped_child_is_killed(lab: &Lab) {
    let completion = lab.run(&lab.sh("setsid sh -c 'kill -STOP $$' & kill -STOP $!; exit 0"));
    assert_eq!((completion.exit, completion.ended_by), (Exit::Code(0), EndedBy::Itself));
}

fn a_busy_child_is_dead_after_a_timeout(lab: &Lab) {
    let completion = lab.run(&hurried(lab.sh("sh -c 'while :; do :; done'; echo never")));
    assert_eq!((completion.ended_by, text(&completion.stdout).as_str()), (EndedBy::Timeout, ""));
}

fn a_script_that_has_closed_its_output_still_times_out(lab: &Lab) {
    let completion = lab.run(&hurried(lab.sh("exec >&- 2>&-; sleep 1000")));
    assert_eq!(completion.ended_by, EndedBy::Timeout);
}

fn a_trap_may_answer_the_timeout_with_any_code(lab: &Lab) {
    let completion = lab.run(&hurried(lab.sh("trap 'echo bye; exit 0' TERM; while :; do sleep 0.02; done")));
    assert_eq!((completion.exit, completion.ended_by), (Exit::Code(0), EndedBy::Timeout));
    assert_eq!(text(&completion.stdout), "bye\n");
}

fn a_thousand_short_children_leave_no_zombie(lab: &Lab) {
    lab.run_well(&lab.sh("i=0; while [ $i -lt 1000 ]; do /bin/true & i=$((i+1)); done; wait"));
    // The keeper is there, and nobody else.
    assert_eq!(children().len(), 1, "{:?}", children());
}

fn a_thousand_orphans_are_reaped_while_the_script_runs(lab: &Lab) {
    assert_eq!(lab.run_well(&lab.helper("thousand_orphans")), "reaped\n");
}

fn the_usage_of_waited_children_is_counted(lab: &Lab) {
    let completion = lab.run(&lab.helper("burn_in_child"));
    let usage = completion.usage;
    assert!(usage.user + usage.system >= Duration::from_millis(290), "{usage:?}");
    assert!(usage.max_rss_bytes > 100_000, "{usage:?}");
    let next = lab.run(&lab.sh("exit 0")).usage;
    assert!(next.user + next.system < Duration::from_millis(200), "an earlier run is counted: {next:?}");
}

fn a_child_that_the_script_killed_is_not_a_leak(lab: &Lab) {
    for _ in 0..20 {
        lab.run_well(&lab.helper("kill_own_child"));
    }
}

fn a_child_given_to_the_supervisor_is_dead(lab: &Lab) {
    let completion = lab.run(&lab.helper("child_of_parent"));
    assert_eq!((completion.exit, completion.leaked.len()), (Exit::Code(0), 1), "{completion:?}");
}

fn a_child_whose_end_is_not_signalled_is_dead(lab: &Lab) {
    let completion = lab.run(&lab.helper("silent_child"));
    assert_eq!((completion.exit, completion.leaked.len()), (Exit::Code(0), 1), "{completion:?}");
}

fn the_orphans_of_a_subreaper_are_dead(lab: &Lab) {
    let completion = lab.run(&lab.helper("subreaper"));
    assert_eq!((completion.exit, completion.ended_by), (Exit::Code(0), EndedBy::Itself));
}

fn a_nested_pid_namespace_is_dead(lab: &Lab) {
    let is_root = nix::unistd::geteuid().is_root();
    let user = if is_root { "" } else { "--user --map-current-user" };
    // Where an ordinary user may make no namespace, there is none to end.
    let inner = "setsid sleep 1000 & touch inside; sleep 1000";
    let text = format!(
        "unshare {user} --pid --fork sh -c '{inner}' || touch refused & \
         while ! [ -e inside ] && ! [ -e refused ]; do sleep 0.01; done"
    );
    let completion = lab.run(&lab.sh(&text));
    assert_eq!(completion.exit, Exit::Code(0));
    assert!(!is_root || lab.path("inside").exists(), "{completion:?}");
}

fn a_cancel_before_the_start_ends_the_script_at_once(lab: &Lab) {
    let cancel = Cancel::new().unwrap();
    assert!(!cancel.is_triggered());
    cancel.trigger();
    assert!(cancel.is_triggered());
    let completion = lab.try_run(&lab.sh("sleep 1000"), &cancel).unwrap();
    assert_eq!((completion.exit, completion.ended_by), (Exit::Signal(libc::SIGTERM), EndedBy::Cancel));
}

fn a_cancel_in_the_middle_ends_the_script(lab: &Lab) {
    let cancel = Cancel::new().unwrap();
    let running = lab.path("running");
    thread::scope(|scope| {
        scope.spawn(|| {
            until("the script runs", || running.exists());
            cancel.trigger();
        });
        let mut script = lab.sh("trap '' TERM; setsid sleep 1000 & touch running; while :; do sleep 0.02; done");
        script.limits.grace = Duration::from_secs(1);
        let completion = lab.try_run(&script, &cancel).unwrap();
        assert_eq!((completion.exit, completion.ended_by), (Exit::Signal(libc::SIGKILL), EndedBy::Cancel));
    });
    assert!(alive_with(&lab.marker).is_empty());
}

fn a_cancel_during_the_grace_leaves_it_a_timeout(lab: &Lab) {
    let cancel = Cancel::new().unwrap();
    let asked = lab.path("asked");
    thread::scope(|scope| {
        scope.spawn(|| {
            until("the grace has begun", || asked.exists());
            cancel.trigger();
        });
        let script = hurried(lab.sh("trap 'touch asked' TERM; while :; do sleep 0.02; done"));
        let completion = lab.try_run(&script, &cancel).unwrap();
        assert_eq!((completion.exit, completion.ended_by), (Exit::Signal(libc::SIGKILL), EndedBy::Timeout));
    });
}

fn a_cancel_does_not_hide_a_failed_start(lab: &Lab) {
    let cancel = Cancel::new().unwrap();
    cancel.trigger();
    for _ in 0..50 {
        let result = lab.try_run(&lab.program("/nowhere/program", &[]), &cancel);
        assert!(matches!(result, Err(EngineError::Start { .. })), "{result:?}");
    }
    lab.assert_goes_on();
}

fn runs_in_many_threads_do_not_mix(lab: &Lab) {
    thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || {
                for round in 0..30 {
                    let mut script =
                        lab.sh(&format!("echo {number}.{round}; echo {round}.{number} >&2; sleep 0.0{number}"));
                    script.signals = if round % 2 == 0 { SignalReach::Machine } else { SignalReach::OwnProcesses };
                    let completion = lab.try_run(&script, &Cancel::new().unwrap()).unwrap();
                    assert_eq!(text(&completion.stdout), format!("{number}.{round}\n"));
                    assert_eq!(text(&completion.stderr), format!("{round}.{number}\n"));
                    assert_eq!(completion.leaked, []);
                }
            });
        }
    });
    // A slot for each thread and reach, at most.
    assert!(children().len() <= 16, "{:?}", children());
}

fn five_hundred_runs_leave_nothing_behind(lab: &Lab) {
    lab.run_well(&lab.sh("exit 0"));
    let (files, helpers, groups) = (open_files(), children(), cgroups_of_this_process());
    for number in 0..500 {
        match number % 5 {
            0 => drop(lab.run(&lab.sh("setsid sleep 1000 & exit 0"))),
            1 => assert!(lab.try_run(&lab.program("/nowhere", &[]), &Cancel::new().unwrap()).is_err()),
            _ => drop(lab.run_well(&lab.sh("exit 0"))),
        }
    }
    assert_eq!((open_files(), children()), (files, helpers));
    let other = Lab::in_dir(lab.dir.clone());
    other.run_well(&other.sh("exit 0"));
    drop(other);
    assert_eq!((open_files(), children().len()), (files, 1));
    assert_eq!(cgroups_of_this_process(), groups);
}

fn a_mount_over_proc_does_not_hide_a_daemon(lab: &Lab) {
    let script = lab.sh("setsid sleep 1000 & mount -t tmpfs none /proc; exit 0");
    let completion = lab.try_run(&script, &Cancel::new().unwrap()).unwrap();
    helpers::unmount(c"/proc");
    assert_eq!((completion.exit, alive_with(&lab.marker)), (Exit::Code(0), Vec::new()));
    assert_eq!(completion.leaked.len(), 1);
}
