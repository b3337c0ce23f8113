//! Many runs of many suites, each with a signal to somebody in the middle of it.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::world::{Project, Running, until};
use crate::{claim, count, nothing_is_left, project_with, start, telling, told};

pub(crate) fn claims() -> Vec<Trial> {
    vec![claim(a_signal_in_the_middle_of_a_run_costs_the_trial_in_flight_only)]
}

const SUITES: usize = 100;
/// `SOAK_ROUNDS` says otherwise.
const ROUNDS: u64 = 8;

/// A run of the same `SOAK_SEED` sends the same signals, if not at the same moments.
struct Dice(u64);

impl Dice {
    /// A number below `end`.
    fn roll(&mut self, end: usize) -> usize {
        // Constants of Knuth's MMIX; the upper bits are the better ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }
}

fn number(variable: &str) -> Option<u64> {
    let found = std::env::vars_os().find(|(name, _)| name == variable);
    found.map(|(_, value)| value.to_str().unwrap().parse().unwrap())
}

/// The processes that nextest has started, and the name of the test that each runs.
pub(crate) fn tests(nextest: &Running) -> Vec<(Pid, String)> {
    let parent = format!(" {} ", nextest.pid());
    let numbers =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let name = |number: i32| {
        let stat = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
        let (_, fields) = stat.rsplit_once(") ")?;
        // State, parent.
        fields.get(1..)?.starts_with(&parent).then_some(())?;
        let words = fs::read(format!("/proc/{number}/cmdline")).ok()?;
        let mut words = words.split(|byte| *byte == 0).skip_while(|word| word != b"--exact").skip(1);
        Some((Pid::from_raw(number), String::from_utf8(words.next()?.to_vec()).ok()?))
    };
    numbers.filter_map(name).collect()
}

/// Whom a round's signal hits.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Hit {
    Test(String, Signal),
    Nextest(Signal),
}

#[expect(clippy::print_stderr, reason = "a failure must be repeatable, a run that is killed from outside, too")]
fn a_signal_in_the_middle_of_a_run_costs_the_trial_in_flight_only() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    let seed = number("SOAK_SEED").unwrap_or_else(|| u64::try_from(now).unwrap());
    eprintln!("SOAK_SEED={seed}");
    let mut dice = Dice(seed);
    let project = soaked();
    for round in 0..number("SOAK_ROUNDS").unwrap_or(ROUNDS) {
        let context = format!("SOAK_SEED={seed}, round {round}");
        let (hit, polls) = run(&project, &mut dice);
        check(&project, &hit, &format!("{context}, {hit:?}, {polls} looks"));
    }
}

fn soaked() -> Project {
    let project = project_with("product: {name: tool, build: cargo, bin: bin/tool}\non-restore-failure: continue\n");
    project.program("bin/tool", "#!/bin/sh\n");
    project.program("bin/cargo", &format!("#!/bin/sh\necho cargo >>{}\n", project.path("calls").display()));
    (0..SUITES).for_each(|number| telling(&project, &format!("s{number:02}")));
    let path = format!("{}:/usr/bin:/bin", project.path("bin").display());
    project.variable("PATH", path)
}

/// One run, its signal, and everything's end. Returns how often the summary was read, too; it must be whole each time.
fn run(project: &Project, dice: &mut Dice) -> (Hit, usize) {
    for file in ["order", "calls"] {
        fs::remove_file(project.path(file)).ok();
    }
    let (is_over, looks) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                if let Ok(text) = fs::read(project.path("proof/summary.json")) {
                    let whole = serde_json::from_slice::<Value>(&text);
                    whole.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&text)));
                    looks.fetch_add(1, Ordering::SeqCst);
                }
                // Those who write need a processor, too.
                thread::sleep(Duration::from_millis(1));
            }
        });
        let _over = Over(&is_over);
        let nextest = start(project, "run", &["--no-fail-fast", "--test-threads", "4"]);
        let hit = hit(project, &nextest, dice);
        nextest.wait();
        nothing_is_left(project);
        is_over.store(true, Ordering::SeqCst);
        reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (hit, looks.load(Ordering::SeqCst))
    })
}

/// However its scope ends, the reader must hear of it.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Sends the signal once so many suites have begun, and something is there to be hit.
fn hit(project: &Project, nextest: &Running, dice: &mut Dice) -> Hit {
    let begun = 1 + dice.roll(SUITES * 3 / 4);
    let signal = [Signal::SIGTERM, Signal::SIGKILL][dice.roll(2)];
    let (is_nextest, which) = (dice.roll(4) == 0, dice.roll(4));
    let starts = || fs::read_to_string(project.path("order")).unwrap_or_default().matches("start").count();
    until("suites to begin", || starts() >= begun);
    if is_nextest {
        nextest.signal(signal);
        return Hit::Nextest(signal);
    }
    let mut hit = None;
    until("a test to be hit", || {
        let tests = tests(nextest);
        let chosen = tests.get(which % tests.len().max(1)).filter(|(pid, _)| kill(*pid, signal).is_ok());
        hit = chosen.map(|(_, name)| Hit::Test(name.clone(), signal));
        hit.is_some()
    });
    hit.unwrap()
}

fn check(project: &Project, hit: &Hit, context: &str) {
    let mut of_suites = BTreeMap::<_, Vec<_>>::new();
    for (what, name) in told(project) {
        of_suites.entry(name).or_default().push(what);
    }
    let stages = ["stage_start", "stage_end"].map(|event| count(project, "build", event));
    assert_eq!((stages, project.text("calls").as_str()), ([1, 1], "cargo\n"), "{context}");
    let summary = project.summary();
    let recorded: BTreeMap<_, _> =
        summary["suites"].as_array().unwrap().iter().map(|suite| (suite["name"].as_str().unwrap(), suite)).collect();
    let hit_name = match hit {
        Hit::Test(name, _) => Some(name),
        Hit::Nextest(_) => None,
    };
    if hit_name.is_some() {
        let missing: Vec<_> =
            (0..SUITES).map(|number| format!("s{number:02}")).filter(|name| !of_suites.contains_key(name)).collect();
        assert!(missing.iter().all(|name| Some(name) == hit_name), "{context}: {missing:?} did not run");
    }
    let mut odd = Vec::new();
    for (name, told) in &of_suites {
        let is_whole = *told == ["start", "end", "restore"];
        let status = recorded.get(name.as_str()).map(|record| record["status"].as_str().unwrap());
        // What was not killed has been restored.
        assert!(
            told.last().unwrap() == "restore" || *hit == Hit::Test(name.clone(), Signal::SIGKILL),
            "{context}: {name}: {told:?}"
        );
        if !is_whole || status != Some("pass") {
            odd.push((name, told, status));
        }
    }
    match hit {
        // Who runs goes on, and so do those that wait.
        Hit::Nextest(Signal::SIGKILL) => assert!(odd.is_empty(), "{context}: {odd:?}"),
        Hit::Nextest(_) => assert!(odd.len() <= 1, "{context}: {odd:?}"),
        Hit::Test(hit, _) => assert!(odd.iter().all(|(name, ..)| *name == hit), "{context}: {odd:?}"),
    }
}
