//! What the worker is doing, for those who watch it: a file of JSON, and words to the service manager.
//!
//! Both say that the worker lives: the file is written anew every `REFRESH` at the latest, and a service manager with a watchdog hears of
//! it in half of its time, as long as somebody calls `tick`. So that must be the thread whose end or hang is to be noticed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use sd_notify::NotifyState;
use serde::Serialize;

use crate::os::disk::{DiskError, write_atomically};
use crate::os::journal::seconds_text;
use crate::rules::report::one_line;
use crate::worker::api::JobKey;
use crate::worker::log::EventName;

/// Between two files that differ in more than the worker's state.
const PACE: Duration = Duration::from_secs(1);
/// Age that the file reaches while nothing happens.
const REFRESH: Duration = Duration::from_secs(10);
/// Of an error, in characters.
const ERROR_CHARS_MAX: usize = 300;

/// Why somebody who watches does not see what the worker is doing. The worker goes on.
#[derive(Debug, thiserror::Error)]
pub(super) enum StatusError {
    /// The file.
    #[error(
        "could not write the status file; give `--status-file` a path in a folder that is there and that the worker may write to"
    )]
    File(#[source] DiskError),
    /// The service manager.
    #[error("could not tell the service manager behind NOTIFY_SOCKET")]
    Manager(#[source] io::Error),
}

/// What the worker is doing as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// Before the first poll.
    Starting,
    /// No job is in hand.
    Idle,
    /// Some job is in hand.
    Working,
    /// No more jobs are taken.
    Draining,
    /// The worker has ended, in order or by a second signal.
    Ended,
}

/// Who the worker is.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Identity {
    #[serde(rename = "workerID")]
    pub(super) worker_id: String,
    pub(super) runner_version: String,
    /// Jobs that it runs at once, at most.
    pub(super) slots: u32,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Step {
    /// Its set-up and submission are fetched.
    Downloading,
    /// They are unpacked.
    Unpacking,
    /// make and the scripts run.
    Grading,
    /// Its result is on the way.
    Reporting,
}

/// What came of a poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum PollOutcome {
    /// A job.
    Job,
    /// The server has none.
    Nothing,
    /// No answer, or none that helps; why is in `lastError`.
    Failed,
}

/// What happens to a worker, as far as somebody who watches is told.
#[derive(Debug, Clone)]
pub(super) enum Event {
    /// Start-up is over.
    Ready,
    Polled(PollOutcome),
    /// This keeps the worker from polling, or nothing does.
    Obstacle(Option<EventName>),
    JobTaken(JobKey),
    JobAt(JobKey, Step),
    /// Its result is on the way.
    JobDone(JobKey),
    /// It is for the next start.
    JobLeft(JobKey),
    /// So many results wait in the spool.
    Spooled(usize),
    ResultSent,
    /// Something failed that is ours or the server's to repair, in the words of the log.
    Failed(String),
    /// No more jobs are taken.
    Draining,
    /// The last thing that happens.
    Ended,
}

/// What the worker is doing; shared by all its threads.
pub(super) struct Status {
    known: Mutex<Known>,
    told: Mutex<Told>,
    file: Option<PathBuf>,
}

impl Status {
    /// The status of a worker that is starting. It is told to `file` with `begin`, and to the service manager with the first event or tick.
    pub(super) fn new(identity: Identity, file: Option<PathBuf>) -> Self {
        // The manager wants to hear of it twice in that time.
        let watchdog = sd_notify::watchdog_enabled().map(|limit| limit / 2);
        let told = Told { state: None, written: None, watched: None, watchdog, is_failing: false, unsaid: None };
        Self { known: Mutex::new(Known::new(identity, Timestamp::now())), told: Mutex::new(told), file }
    }

    /// Writes the file for the first time.
    ///
    /// # Errors
    /// If it cannot be written: then it is not where it could be.
    pub(super) fn begin(&self) -> Result<(), StatusError> {
        let text = self.known.lock().unwrap_or_else(PoisonError::into_inner).text(Timestamp::now());
        write(self.file.as_deref(), &text)
    }

    /// Notes what has happened. A change of state is told at once, everything else with the next tick.
    pub(super) fn note(&self, event: Event) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).note(event, Timestamp::now());
        self.tell(Instant::now());
    }

    /// Tells what has not been told, and that the worker lives. To be called about every second.
    ///
    /// # Errors
    /// If since the last time the file could not be written, or the service manager did not listen: the first of a row of failures.
    pub(super) fn tick(&self) -> Result<(), StatusError> {
        let now = Instant::now();
        self.tell(now);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.watch(now);
        told.unsaid.take().map_or(Ok(()), Err)
    }

    /// One thread at a time, so that what is known later is written later.
    fn tell(&self, now: Instant) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, text, line) = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if !told.is_due(known.state(), known.is_changed, now) {
                return;
            }
            known.is_changed = false;
            (known.state(), known.text(Timestamp::now()), known.line())
        };
        let said = told.to_manager(state, &line);
        if said.is_ok() {
            // Else it is said again: without READY=1 the manager would end a worker that works.
            told.state = Some(state);
        }
        told.note(said.and(write(self.file.as_deref(), &text)));
        told.written = Some(now);
    }
}

/// Makes no folder for it: one that is missing was not meant.
fn write(file: Option<&Path>, text: &str) -> Result<(), StatusError> {
    let Some(path) = file else { return Ok(()) };
    let folder = path.parent().unwrap_or(path);
    let looked = fs::metadata(folder).map_err(|source| DiskError::Look { path: folder.to_owned(), source });
    looked.and_then(|_| write_atomically(path, text.as_bytes())).map_err(StatusError::File)
}

/// What those who watch have been told.
struct Told {
    state: Option<State>,
    written: Option<Instant>,
    watched: Option<Instant>,
    /// How often the service manager wants to hear that the worker lives.
    watchdog: Option<Duration>,
    /// The last attempt has failed.
    is_failing: bool,
    unsaid: Option<StatusError>,
}

impl Told {
    fn is_due(&self, state: State, is_changed: bool, now: Instant) -> bool {
        let is_older = |age: Duration| self.written.is_none_or(|written| now.saturating_duration_since(written) >= age);
        self.state != Some(state) || is_older(REFRESH) || (is_changed && is_older(PACE))
    }

    /// Without `NOTIFY_SOCKET` there is nobody to tell.
    fn to_manager(&self, state: State, line: &str) -> Result<(), StatusError> {
        let was = |earlier: State| self.state.is_none_or(|told| told == earlier);
        let mut words = vec![NotifyState::Status(line)];
        match state {
            State::Idle | State::Working if was(State::Starting) => words.push(NotifyState::Ready),
            State::Draining if !was(State::Draining) => words.push(NotifyState::Stopping),
            State::Starting | State::Idle | State::Working | State::Draining | State::Ended => {}
        }
        sd_notify::notify(&words).map_err(StatusError::Manager)
    }

    fn watch(&mut self, now: Instant) {
        let Some(every) = self.watchdog else { return };
        if self.watched.is_none_or(|watched| now.saturating_duration_since(watched) >= every) {
            self.watched = Some(now);
            let said = sd_notify::notify(&[NotifyState::Watchdog]).map_err(StatusError::Manager);
            self.note(said);
        }
    }

    /// Remembers the first failure of a row until somebody asks.
    fn note(&mut self, said: Result<(), StatusError>) {
        let was_failing = std::mem::replace(&mut self.is_failing, said.is_err());
        if let (Err(error), false) = (said, was_failing) {
            self.unsaid = Some(error);
        }
    }
}

/// What the worker is doing, and has done since its start. No clock in here.
struct Known {
    identity: Identity,
    started_at: Timestamp,
    phase: Phase,
    jobs: Vec<JobInHand>,
    spooled_results: usize,
    done: Done,
    last_poll: Option<LastPoll>,
    obstacle: Option<Obstacle>,
    last_error: Option<LastError>,
    /// Since it was written.
    is_changed: bool,
}

/// How far its life is.
#[derive(Debug, Clone, Copy)]
enum Phase {
    Starting,
    Ready,
    Draining,
    Ended,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct JobInHand {
    #[serde(flatten)]
    key: JobKey,
    step: Step,
    /// Of the step.
    since: String,
}

/// Counted since the start.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    jobs_done: u64,
    results_sent: u64,
    failures: u64,
}

#[derive(Debug, Clone, Serialize)]
struct LastPoll {
    at: String,
    outcome: PollOutcome,
}

#[derive(Debug, Clone, Serialize)]
struct Obstacle {
    /// The event of the log.
    event: &'static str,
    since: String,
}

#[derive(Debug, Clone, Serialize)]
struct LastError {
    at: String,
    text: String,
}

/// The file.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    state: State,
    #[serde(flatten)]
    identity: &'a Identity,
    started_at: String,
    written_at: String,
    jobs: &'a [JobInHand],
    spooled_results: usize,
    #[serde(flatten)]
    done: Done,
    last_poll: Option<&'a LastPoll>,
    obstacle: Option<&'a Obstacle>,
    last_error: Option<&'a LastError>,
}

impl Known {
    fn new(identity: Identity, started_at: Timestamp) -> Self {
        Self {
            identity,
            started_at,
            phase: Phase::Starting,
            jobs: Vec::new(),
            spooled_results: 0,
            done: Done::default(),
            last_poll: None,
            obstacle: None,
            last_error: None,
            is_changed: true,
        }
    }

    fn note(&mut self, event: Event, now: Timestamp) {
        self.is_changed |= !matches!(event, Event::Spooled(count) if count == self.spooled_results);
        match event {
            Event::Ready => self.phase = Phase::Ready,
            Event::Draining => self.phase = Phase::Draining,
            Event::Ended => self.phase = Phase::Ended,
            Event::Polled(outcome) => self.last_poll = Some(LastPoll { at: seconds_text(now), outcome }),
            Event::Obstacle(event) => self.hindered_by(event, now),
            Event::JobTaken(key) => self.job_is_at(key, Step::Downloading, now),
            Event::JobAt(key, step) => self.job_is_at(key, step, now),
            Event::JobLeft(key) => self.jobs.retain(|job| job.key != key),
            Event::JobDone(key) => {
                self.jobs.retain(|job| job.key != key);
                self.done.jobs_done += 1;
            }
            Event::Spooled(count) => self.spooled_results = count,
            Event::ResultSent => self.done.results_sent += 1,
            Event::Failed(text) => {
                self.done.failures += 1;
                let text = one_line(&text).chars().take(ERROR_CHARS_MAX).collect();
                self.last_error = Some(LastError { at: seconds_text(now), text });
            }
        }
    }

    fn hindered_by(&mut self, event: Option<EventName>, now: Timestamp) {
        let event = event.map(EventName::as_str);
        if self.obstacle.as_ref().map(|obstacle| obstacle.event) != event {
            self.obstacle = event.map(|event| Obstacle { event, since: seconds_text(now) });
        }
    }

    fn job_is_at(&mut self, key: JobKey, step: Step, now: Timestamp) {
        let job = JobInHand { key, step, since: seconds_text(now) };
        match self.jobs.iter_mut().find(|known| known.key == job.key) {
            Some(known) => *known = job,
            None => self.jobs.push(job),
        }
    }

    fn state(&self) -> State {
        match self.phase {
            Phase::Starting => State::Starting,
            Phase::Ready if self.jobs.is_empty() => State::Idle,
            Phase::Ready => State::Working,
            Phase::Draining => State::Draining,
            Phase::Ended => State::Ended,
        }
    }

    fn text(&self, now: Timestamp) -> String {
        let written = Written {
            state: self.state(),
            identity: &self.identity,
            started_at: seconds_text(self.started_at),
            written_at: seconds_text(now),
            jobs: &self.jobs,
            spooled_results: self.spooled_results,
            done: self.done,
            last_poll: self.last_poll.as_ref(),
            obstacle: self.obstacle.as_ref(),
            last_error: self.last_error.as_ref(),
        };
        // Texts and numbers cannot fail to be JSON.
        serde_json::to_string(&written).unwrap_or_default() + "\n"
    }

    /// For people. Nothing in it comes from outside: a line end would be the beginning of another message to the service manager.
    fn line(&self) -> String {
        let state = match self.state() {
            State::Starting => "starting",
            State::Idle => "idle",
            State::Working => "working",
            State::Draining => "draining",
            State::Ended => "ended",
        };
        let (jobs, slots, spooled) = (self.jobs.len(), self.identity.slots, self.spooled_results);
        let Done { jobs_done, failures, .. } = self.done;
        let line = format!(
            "{state}: {jobs} of {slots} slots, {spooled} results waiting, {jobs_done} jobs done, {failures} failures"
        );
        self.obstacle.as_ref().map_or(line.clone(), |obstacle| format!("{line}, no polls: {}", obstacle.event))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use serde_json::{Value, json};

    use super::*;
    use crate::model::script::{Completion, Environment, Script, SignalReach};
    use crate::os::engine::{Cancel, ScriptRunner as _, UnsandboxedScriptRunner};
    use crate::os::probe;

    fn identity() -> Identity {
        Identity { worker_id: "w-1".to_owned(), runner_version: "0.1.0".to_owned(), slots: 2 }
    }

    fn key(submission: &str) -> JobKey {
        JobKey { submission_id: submission.to_owned(), attempt_number: 1 }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_771_596_250 + second).unwrap()
    }

    #[test]
    fn the_file_tells_all_that_happened() {
        let mut known = Known::new(identity(), at(0));
        assert_eq!(known.state(), State::Starting);
        for (second, event) in [
            (1, Event::Ready),
            (2, Event::Polled(PollOutcome::Job)),
            (2, Event::JobTaken(key("s-1"))),
            (3, Event::JobTaken(key("s-2"))),
            (4, Event::JobAt(key("s-1"), Step::Grading)),
            (5, Event::JobDone(key("s-2"))),
            (5, Event::Spooled(3)),
            (6, Event::ResultSent),
            (7, Event::Failed("no route\n\u{1b}[31mREADY=1".to_owned())),
            (8, Event::Obstacle(Some(EventName::DiskLow))),
            (9, Event::Obstacle(Some(EventName::DiskLow))),
        ] {
            known.note(event, at(second));
        }
        let text = known.text(at(9));
        let expected = json!({
            "state": "working", "workerID": "w-1", "runnerVersion": "0.1.0", "slots": 2,
            "startedAt": "2026-02-20T14:04:10Z", "writtenAt": "2026-02-20T14:04:19Z",
            "jobs": [{ "submissionID": "s-1", "attemptNumber": 1, "step": "grading", "since": "2026-02-20T14:04:14Z" }],
            "spooledResults": 3, "jobsDone": 1, "resultsSent": 1, "failures": 1,
            "lastPoll": { "at": "2026-02-20T14:04:12Z", "outcome": "job" },
            "obstacle": { "event": "disk_low", "since": "2026-02-20T14:04:18Z" },
            "lastError": { "at": "2026-02-20T14:04:17Z", "text": "no route\\n\\u{1b}[31mREADY=1" },
        });
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
        let line = "working: 1 of 2 slots, 3 results waiting, 1 jobs done, 1 failures";
        assert_eq!(known.line(), format!("{line}, no polls: disk_low"));
        known.note(Event::Obstacle(None), at(9));
        assert_eq!(known.line(), line);
    }

    #[test]
    fn the_state_follows_from_what_is_known() {
        let mut known = Known::new(identity(), at(0));
        let mut state_after = |event: Event| {
            known.note(event, at(0));
            known.state()
        };
        assert_eq!(state_after(Event::Polled(PollOutcome::Failed)), State::Starting);
        assert_eq!(state_after(Event::Ready), State::Idle);
        assert_eq!(state_after(Event::JobTaken(key("s"))), State::Working);
        assert_eq!(state_after(Event::Draining), State::Draining);
        assert_eq!(state_after(Event::JobDone(key("s"))), State::Draining);
        assert_eq!(state_after(Event::Ended), State::Ended);
    }

    #[test]
    fn an_error_of_any_length_is_bounded() {
        let mut known = Known::new(identity(), at(0));
        known.note(Event::Failed("x".repeat(1 << 20)), at(0));
        assert!(known.text(at(0)).len() < 1000);
    }

    #[test]
    fn what_is_no_change_of_state_waits_its_turn() {
        let start = Instant::now();
        let told = Told {
            state: Some(State::Idle),
            written: Some(start),
            watched: None,
            watchdog: None,
            is_failing: false,
            unsaid: None,
        };
        let ms = Duration::from_millis;
        for (state, is_changed, after, expected) in [
            (State::Working, false, ms(0), true),
            (State::Idle, true, ms(999), false),
            (State::Idle, true, ms(1000), true),
            (State::Idle, false, ms(9_999), false),
            (State::Idle, false, ms(10_000), true),
        ] {
            assert_eq!(told.is_due(state, is_changed, start + after), expected, "{state:?} {is_changed} {after:?}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_is_said_once_and_again_after_a_success() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("status.json");
        fs::create_dir(&path).unwrap();
        let status = Status::new(identity(), Some(path.clone()));
        assert!(matches!(status.tick(), Err(StatusError::File(_))));
        status.note(Event::Ready);
        assert!(status.tick().is_ok(), "said twice");
        fs::remove_dir(&path).unwrap();
        status.note(Event::JobTaken(key("s")));
        assert!(status.tick().is_ok());
        assert!(path.is_file());
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        status.note(Event::Draining);
        assert!(matches!(status.tick(), Err(StatusError::File(_))));
    }

    #[test]
    fn threads_that_note_at_once_leave_a_whole_file_of_the_last_state() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("status.json");
        let status = Status::new(identity(), Some(path.clone()));
        status.note(Event::Ready);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (status, path) = (&status, &path);
                scope.spawn(move || {
                    for job in 0..20 {
                        let key = key(&format!("{thread}-{job}"));
                        status.note(Event::JobTaken(key.clone()));
                        status.note(Event::JobDone(key));
                        serde_json::from_str::<Value>(&fs::read_to_string(path).unwrap()).unwrap();
                    }
                });
            }
        });
        status.note(Event::Draining);
        let seen: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!((&seen["state"], &seen["jobsDone"], &seen["jobs"]), (&json!("draining"), &json!(80), &json!([])));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    /// Run by itself, nobody listens; the next test runs it with somebody who does.
    #[test]
    fn without_a_service_manager_nothing_fails() {
        let status = Status::new(identity(), None);
        status.tick().unwrap();
        for event in [Event::Ready, Event::JobTaken(key("s\nREADY=1")), Event::Draining, Event::JobDone(key("s"))] {
            status.note(event);
            status.tick().unwrap();
        }
    }

    /// Runs the test above in a process of its own: variables of this one would be seen by every other test.
    fn run_with(variables: &[(&str, &str)]) -> Completion {
        let name = "worker::status::tests::without_a_service_manager_nothing_fails";
        let args = ["--exact", name, "--test-threads=1"].map(Into::into).into();
        let program = std::env::current_exe().unwrap();
        let mut environment = Environment::default();
        for (name, value) in variables {
            environment.set(*name, *value);
        }
        let limit = Duration::from_secs(60);
        let script = probe::script(program, args, Path::new("/"), limit, 64 << 10);
        let script = Script { environment, signals: SignalReach::Machine, ..script };
        UnsandboxedScriptRunner::new().run(&script, &Cancel::new().unwrap()).unwrap()
    }

    #[test]
    fn the_service_manager_hears_of_each_state_and_that_the_worker_lives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let socket_path = path.to_str().unwrap();
        let done = run_with(&[("NOTIFY_SOCKET", socket_path), ("WATCHDOG_USEC", "60000000")]);
        assert_eq!(done.exit.to_string(), "code 0", "{}", String::from_utf8_lossy(&done.stdout.kept_bytes()));
        socket.set_nonblocking(true).unwrap();
        let mut said = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(count) = socket.recv(&mut buffer) {
            said.push(String::from_utf8(buffer[..count].to_vec()).unwrap());
        }
        let line = |text: &str| format!("STATUS={text} of 2 slots, 0 results waiting, 0 jobs done, 0 failures\n");
        let expected = [
            line("starting: 0"),
            "WATCHDOG=1\n".to_owned(),
            line("idle: 0") + "READY=1\n",
            line("working: 1"),
            line("draining: 1") + "STOPPING=1\n",
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn a_service_manager_that_is_gone_is_an_error_that_names_the_variable() {
        let done = run_with(&[("NOTIFY_SOCKET", "/nowhere/notify")]);
        let said = String::from_utf8_lossy(&done.stdout.kept_bytes()).into_owned();
        assert_eq!(done.exit.to_string(), "code 101", "{said}");
        assert!(said.contains("Manager("), "{said}");
        let error = StatusError::Manager(io::ErrorKind::NotFound.into());
        assert!(error.to_string().contains("NOTIFY_SOCKET"));
    }
}
