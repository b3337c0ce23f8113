//! Results on a real disk, and a server that answers as planned. Nothing waits here.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::num::NonZeroU32;
use std::path::PathBuf;

use pretty_assertions::assert_eq;

use super::*;
use crate::worker::api::{Activity, Job, Polled};
use crate::worker::log::Format;
use crate::worker::state::{StateFolder, names_in};

const SECOND: Duration = Duration::from_secs(1);

/// Answers to one result after another, then that it is received.
#[derive(Default)]
struct Planned {
    answers: Mutex<VecDeque<ApiError>>,
    bodies: Mutex<Vec<Vec<u8>>>,
}

impl JobApi for Planned {
    fn report(&self, body: &[u8]) -> Result<(), ApiError> {
        self.bodies.lock().unwrap().push(body.to_vec());
        self.answers.lock().unwrap().pop_front().map_or(Ok(()), Err)
    }

    fn request(&self, _: &Activity) -> Result<Polled, ApiError> {
        Ok(Polled::Nothing)
    }

    fn heartbeat(&self, _: &Activity) -> Result<(), ApiError> {
        Ok(())
    }

    fn download(&self, _: &str, _: &mut File, _: u64) -> Result<u64, ApiError> {
        Ok(0)
    }
}

/// A worker's folder and its server.
struct World {
    api: Planned,
    spool: Spool,
    in_hand: JobsInHand,
    log: Log,
    status: Status,
    troubles: Troubles,
    jitter: Jitter,
    state: StateFolder,
    _dir: tempfile::TempDir,
}

impl World {
    fn new(answers: impl IntoIterator<Item = ApiError>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = StateFolder::open(dir.path(), "worker").unwrap();
        let identity = status::Identity { worker_id: "worker".to_owned(), runner_version: "1".to_owned(), slots: 1 };
        Self {
            api: Planned { answers: Mutex::new(answers.into_iter().collect()), ..Planned::default() },
            spool: Spool::open(state.spool_dir(), state.rejected_dir()).unwrap().0,
            in_hand: state.jobs_in_hand().unwrap(),
            log: Log::to(Box::new(io::sink()), "worker", Format::Json).unwrap(),
            status: Status::new(identity, None),
            troubles: Troubles::default(),
            jitter: Jitter::seeded(1),
            state,
            _dir: dir,
        }
    }

    fn attempt(&mut self, parcel: &mut Parcel) -> Sent {
        let Self { api, spool, in_hand, log, status, troubles, jitter, .. } = self;
        Post { api, spool, in_hand, log, status, troubles }.attempt(parcel, &policy(), jitter)
    }

    fn spooled(&self, body: &[u8]) -> Parcel {
        Parcel::spooled(self.spool.add(&key(), body).unwrap())
    }

    /// A result that the disk does not take until `mend` is called.
    fn in_memory(&self) -> Parcel {
        let job = r#"{"submissionID":"s","testSetupID":"t","attemptNumber":1,"submissionURL":"","testSetupURL":"","manifest":{}}"#;
        let ticket = self.in_hand.take(&serde_json::from_str::<Job>(job).unwrap());
        self.in_hand.record(&ticket).unwrap();
        fs::rename(self.state.spool_dir(), self.moved()).unwrap();
        // Nothing can be made or read below a file.
        fs::write(self.state.spool_dir(), "").unwrap();
        Parcel::in_memory(body(0), ticket)
    }

    fn mend(&self) {
        fs::remove_file(self.state.spool_dir()).unwrap();
        fs::rename(self.moved(), self.state.spool_dir()).unwrap();
    }

    fn moved(&self) -> PathBuf {
        self.state.spool_dir().with_extension("moved")
    }

    fn sizes_sent(&self) -> Vec<usize> {
        self.api.bodies.lock().unwrap().iter().map(Vec::len).collect()
    }

    /// Files that were set aside, their reasons not counted.
    fn rejected(&self) -> Vec<Vec<u8>> {
        let dir = self.state.rejected_dir();
        let names = names_in(&dir).unwrap().into_iter().filter(|name| !name.to_string_lossy().ends_with(".why"));
        names.map(|name| fs::read(dir.join(name)).unwrap()).collect()
    }
}

fn policy() -> Policy {
    Policy {
        base: SECOND,
        max: 30 * SECOND,
        asked_max: 3600 * SECOND,
        time_max: Duration::MAX,
        attempts_max: NonZeroU32::new(3).unwrap(),
        is_on: true,
    }
}

fn key() -> JobKey {
    JobKey { submission_id: "s".to_owned(), attempt_number: 1 }
}

/// A result with a text of so many bytes that can be cut.
fn body(long: usize) -> Vec<u8> {
    let text = "x".repeat(long);
    json!({"submissionID": "s", "attemptNumber": 1, "compilerOutput": text, "outcomes": []}).to_string().into_bytes()
}

fn status(code: u16, retry_after: Option<Duration>) -> ApiError {
    ApiError::Status { url: String::new(), code, retry_after, text: String::new() }
}

fn other_errors() -> Vec<ApiError> {
    let url = String::new;
    vec![
        ApiError::Refused { url: url(), reason: "a redirect to another origin is not followed" },
        ApiError::TooLarge { url: url(), bytes_max: 1 },
        ApiError::Garbage { url: url(), reason: url() },
        ApiError::Unsent { url: url(), source: "no random numbers".into() },
        ApiError::Dropped { url: url(), source: "reset".into() },
        ApiError::Stalled { url: url(), limit: SECOND },
    ]
}

#[test]
fn nothing_but_400_413_and_422_is_final() {
    for error in (300..600).map(|code| status(code, None)).chain(other_errors()) {
        let told = format!("{error:?}");
        let is_final = matches!(&error, ApiError::Status { code: 400 | 413 | 422, .. });
        let mut world = World::new([error]);
        let mut parcel = world.spooled(&body(0));
        match world.attempt(&mut parcel) {
            Sent::Never => assert!(is_final, "{told}"),
            Sent::Later(_) => assert!(!is_final, "{told}"),
            Sent::Taken => panic!("{told}"),
        }
        assert_eq!((world.rejected().len(), world.spool.holds(&key())), (usize::from(is_final), !is_final), "{told}");
        if !is_final {
            assert!(matches!(world.attempt(&mut parcel), Sent::Taken), "{told}");
            assert!(!world.spool.holds(&key()));
        }
    }
}

/// 89, without the minutes.
#[test]
fn attempts_go_on_after_the_last_quick_one_ever_at_the_same_pace() {
    let mut world = World::new((0..100).map(|_| status(503, None)));
    let mut parcel = world.spooled(&body(0));
    for number in 1..=100 {
        let Sent::Later(delay) = world.attempt(&mut parcel) else { panic!("{number}") };
        let least = if number < policy().attempts_max.get() { number * SECOND } else { 60 * SECOND };
        assert!((least..=least + least / 4).contains(&delay), "{number}: {delay:?}");
    }
    assert!(matches!(world.attempt(&mut parcel), Sent::Taken));
    assert_eq!((world.spool.holds(&key()), world.rejected().len()), (false, 0));
}

#[test]
fn a_server_is_given_the_time_that_it_asks_for_also_after_the_last_quick_attempt() {
    let hour = 3600 * SECOND;
    let mut world = World::new((0..9).map(|_| status(503, Some(hour))));
    let mut parcel = world.spooled(&body(0));
    for _ in 0..9 {
        let Sent::Later(delay) = world.attempt(&mut parcel) else { panic!("it is not over") };
        assert!((hour..=hour + hour / 4).contains(&delay), "{delay:?}");
    }
}

/// 87.
#[test]
fn a_result_is_cut_until_the_server_takes_it_and_kept_whole_where_nothing_is_left_to_cut() {
    for refusals in [3, 1000] {
        let mut world = World::new((0..refusals).map(|_| status(413, None)));
        let whole = body(100_000);
        let mut parcel = world.spooled(&whole);
        let sent = world.attempt(&mut parcel);
        let sizes = world.sizes_sent();
        assert!(sizes.is_sorted_by(|one, next| one > next), "{sizes:?}");
        if refusals == 3 {
            assert!(matches!(sent, Sent::Taken));
            assert_eq!(sizes.len(), 4);
        } else {
            assert!(matches!(sent, Sent::Never));
            assert!(sizes.last().unwrap() < &1000, "{sizes:?}");
            assert_eq!(world.rejected(), [whole]);
        }
    }
}

#[test]
fn a_result_that_was_cut_and_not_taken_is_sent_whole_again() {
    let mut world = World::new([status(413, None), status(503, None)]);
    let mut parcel = world.spooled(&body(100_000));
    assert!(matches!(world.attempt(&mut parcel), Sent::Later(_)));
    assert!(matches!(world.attempt(&mut parcel), Sent::Taken));
    let sizes = world.sizes_sent();
    assert!(sizes[1] < sizes[0] && sizes[2] == sizes[0], "{sizes:?}");
}

#[test]
fn a_result_in_memory_is_put_on_the_disk_as_soon_as_that_takes_it() {
    let mut world = World::new([status(503, None), status(503, None)]);
    let mut parcel = world.in_memory();
    assert!(matches!(world.attempt(&mut parcel), Sent::Later(_)));
    assert_eq!((parcel.place(), world.in_hand.holds(&key())), (Place::Memory, true));
    world.mend();
    assert!(matches!(world.attempt(&mut parcel), Sent::Later(_)));
    assert_eq!((parcel.place(), world.in_hand.holds(&key())), (Place::Disk, false));
    assert!(world.spool.holds(&key()));
    assert!(matches!(world.attempt(&mut parcel), Sent::Taken));
    assert_eq!(world.sizes_sent(), [body(0).len(); 3]);
}

#[test]
fn a_result_in_memory_that_is_taken_or_refused_for_good_is_no_job_in_hand_any_more() {
    for answer in [None, Some(status(422, None))] {
        let mut world = World::new(answer);
        let mut parcel = world.in_memory();
        assert!(matches!(world.attempt(&mut parcel), Sent::Taken | Sent::Never));
        assert!(!world.in_hand.holds(&key()));
        world.mend();
        assert_eq!(world.state.jobs_in_hand().unwrap().left().unwrap().jobs.len(), 0);
    }
}

#[test]
fn a_result_in_memory_is_counted_and_put_on_the_disk_at_the_end_if_that_takes_it() {
    for is_mended in [false, true] {
        let world = World::new([]);
        let sender = Sender::new(policy(), Vec::new());
        sender.send(world.in_memory());
        assert_eq!((sender.waiting(), sender.in_memory()), (1, 1));
        if is_mended {
            world.mend();
        }
        sender.finish();
        let World { api, spool, in_hand, log, status, troubles, .. } = &world;
        sender.run(&Post { api, spool, in_hand, log, status, troubles });
        let lost = if is_mended { vec![] } else { vec![key()] };
        assert_eq!((sender.left().lost, spool.holds(&key())), (lost, is_mended));
        assert_eq!(world.sizes_sent(), [0; 0]);
    }
}

#[test]
fn a_result_that_is_still_under_way_at_the_end_counts_as_being_where_it_was() {
    let world = World::new([]);
    let sender = Sender::new(policy(), vec![world.spool.add(&key(), &body(0)).unwrap()]);
    assert!(sender.next().is_some());
    assert_eq!(sender.left(), Left { spooled: 1, lost: vec![], set_aside: 0 });
    let sender = Sender::new(policy(), Vec::new());
    sender.send(world.in_memory());
    assert!(sender.next().is_some());
    sender.finish();
    assert!(!sender.wait_until_over(Duration::ZERO), "nobody has put it anywhere");
    assert_eq!((sender.left(), sender.waiting()), (Left { spooled: 0, lost: vec![key()], set_aside: 0 }, 1));
}

#[test]
fn a_result_that_cannot_be_read_now_is_sent_later_and_one_that_is_none_is_set_aside() {
    let mut world = World::new([]);
    let mut parcel = world.spooled(&body(0));
    fs::rename(world.state.spool_dir(), world.moved()).unwrap();
    fs::write(world.state.spool_dir(), "").unwrap();
    assert!(matches!(world.attempt(&mut parcel), Sent::Later(_)));
    world.mend();
    assert_eq!((world.rejected().len(), world.sizes_sent().len()), (0, 0));
    assert!(matches!(world.attempt(&mut parcel), Sent::Taken));
    let mut parcel = world.spooled(&body(0));
    let name = names_in(&world.state.spool_dir()).unwrap().remove(0);
    fs::write(world.state.spool_dir().join(name), "no result").unwrap();
    assert!(matches!(world.attempt(&mut parcel), Sent::Never));
    assert_eq!(world.rejected(), [b"no result"]);
}

#[test]
fn the_end_of_the_worker_is_no_failure_of_a_result() {
    let mut world = World::new([ApiError::Stopped]);
    let mut parcel = world.spooled(&body(0));
    assert!(matches!(world.attempt(&mut parcel), Sent::Later(_)));
    assert_eq!((parcel.failed, world.spool.holds(&key())), (0, true));
}
