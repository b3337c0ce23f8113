//! The forms of the protocol: which keys there are, what their values look like, and what is signed.
//!
//! Source: docs/protocol.md, "Job and result", "Wire" and "Signing".

use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::Seen;

/// Seconds by which a clock may be wrong.
const SKEW_SECS_MAX: u64 = 60;

/// The form of a value.
#[derive(Debug)]
enum Form {
    Text,
    /// A whole number from 0.
    Count,
    /// A whole number from 1.
    Positive,
    /// A whole number.
    Integer,
    Flag,
    /// UTC in whole seconds.
    Date,
    OneOf(&'static [&'static str]),
    ListOf(&'static Form),
    Object(&'static [Key]),
}

/// A key, whether it may be missing, and the form of its value. Null is never right: what is not there is left out.
#[derive(Debug)]
enum Key {
    Must(&'static str, Form),
    May(&'static str, Form),
}

use Form::{Count, Date, Flag, Integer, ListOf, Object, OneOf, Positive, Text};
use Key::{May, Must};

const PROFILE: Form = Object(&[
    Must("platform", Text),
    Must("architecture", Text),
    Must("languageVersions", ListOf(&Object(&[Must("language", Text), Must("version", Text)]))),
    Must("capabilities", ListOf(&Object(&[Must("name", Text)]))),
]);

const ACTIVITY: Form = Object(&[
    Must("workerID", Text),
    Must("hostname", Text),
    Must("runnerVersion", Text),
    Must("maxConcurrentJobs", Positive),
    Must("activeJobs", Count),
    May("profile", PROFILE),
]);

const OUTCOME: Form = Object(&[
    Must("testName", Text),
    May("testClass", Text),
    Must("tier", OneOf(&["public", "release", "secret", "student"])),
    Must("status", OneOf(&["pass", "fail", "error", "timeout"])),
    Must("shortResult", Text),
    May("longResult", Text),
    Must("points", Count),
    Must("executionTimeMs", Count),
    May("memoryUsageBytes", Count),
    Must("attemptNumber", Positive),
    Must("isFirstPassSuccess", Flag),
]);

const COLLECTION: Form = Object(&[
    Must("submissionID", Text),
    Must("testSetupID", Text),
    Must("attemptNumber", Positive),
    Must("buildStatus", OneOf(&["passed", "failed", "skipped"])),
    May("compilerOutput", Text),
    Must("outcomes", ListOf(&OUTCOME)),
    Must("totalTests", Count),
    Must("passCount", Count),
    Must("failCount", Count),
    Must("errorCount", Count),
    Must("timeoutCount", Count),
    Must("executionTimeMs", Count),
    Must("totalPoints", Count),
    Must("earnedPoints", Count),
    Must("warnings", ListOf(&Text)),
    May("jobStartedAt", Date),
    Must("runnerVersion", Text),
    Must("timestamp", Date),
]);

const STAGE_TIMINGS: Form = Object(&[
    May("workdirSetupMs", Count),
    May("submissionDirSetupMs", Count),
    May("submissionDownloadMs", Count),
    May("testSetupAcquireMs", Count),
    May("submissionUnpackMs", Count),
    May("starterCleanupMs", Count),
    May("submissionPrepareMs", Count),
    May("makeStepMs", Count),
    May("runtimeHelperSetupMs", Count),
    May("testExecutionMs", Count),
    May("testSetupCacheHit", Flag),
]);

const DIAGNOSTICS: Form = Object(&[
    Must("runnerID", Text),
    Must("finalStatus", OneOf(&["timeout", "error", "failed", "passed"])),
    Must("timedOut", Flag),
    May("startedAt", Date),
    May("finishedAt", Date),
    May("exitCode", Integer),
    May("terminationReason", Text),
    May("peakRSSBytes", Count),
    May("wallClockMs", Count),
    May("childProcessCount", Count),
    May("stdoutBytes", Count),
    May("stderrBytes", Count),
    May("stageTimings", STAGE_TIMINGS),
    May("freeDiskMBAtStart", Count),
    May("freeDiskMBAtEnd", Count),
    May("workdirPeakBytes", Count),
]);

const REPORT: Form = Object(&[Must("collection", COLLECTION), May("diagnostics", DIAGNOSTICS)]);

/// What is wrong with an activity.
pub(super) fn activity(value: &Value) -> Vec<String> {
    wrong(&ACTIVITY, value, "activity")
}

/// What is wrong with an activity for Chickadee's first server, which reads two keys.
pub(super) fn minimal_activity(value: &Value) -> Vec<String> {
    let is_missing = |key: &&str| !value[*key].is_string();
    ["workerID", "hostname"].iter().filter(|key| is_missing(key)).map(|key| format!("activity: no `{key}`")).collect()
}

/// What is wrong with a report or a bare collection.
pub(super) fn result(value: &Value) -> Vec<String> {
    if value.get("collection").is_none() {
        return collection(value);
    }
    let mut all = wrong(&REPORT, value, "report");
    all.extend(totals(&value["collection"]));
    all
}

/// What is wrong with a bare collection.
pub(super) fn collection(value: &Value) -> Vec<String> {
    let mut all = wrong(&COLLECTION, value, "collection");
    all.extend(totals(value));
    all
}

/// What is wrong with the numbers of a collection, which its outcomes tell as well. Without outcomes a fault of the machine may count.
fn totals(collection: &Value) -> Vec<String> {
    let outcomes = collection["outcomes"].as_array().map_or(&[][..], Vec::as_slice);
    if outcomes.is_empty() {
        return Vec::new();
    }
    let count = |status: &str| outcomes.iter().filter(|outcome| outcome["status"] == status).count() as u64;
    let sum = |key: &str| outcomes.iter().filter_map(|outcome| outcome[key].as_u64()).sum::<u64>();
    let expected = [
        ("totalTests", outcomes.len() as u64),
        ("passCount", count("pass")),
        ("failCount", count("fail")),
        ("errorCount", count("error")),
        ("timeoutCount", count("timeout")),
        ("executionTimeMs", sum("executionTimeMs")),
        ("totalPoints", sum("points")),
    ];
    let differs = |(key, number): &&(&str, u64)| collection[*key] != *number;
    let told = |(key, number): &(&str, u64)| format!("collection.{key}: {} instead of {number}", collection[*key]);
    expected.iter().filter(differs).map(told).collect()
}

/// Returns everything in which `value` is not of `form`; `place` says where it stands.
fn wrong(form: &Form, value: &Value, place: &str) -> Vec<String> {
    let is_right = match form {
        Text => value.is_string(),
        Count => value.is_u64(),
        Positive => value.as_u64().is_some_and(|number| number > 0),
        Integer => value.is_i64(),
        Flag => value.is_boolean(),
        Date => value.as_str().is_some_and(is_date),
        OneOf(words) => value.as_str().is_some_and(|word| words.contains(&word)),
        ListOf(form) => match value.as_array() {
            Some(values) => {
                let in_list = values.iter().enumerate();
                return in_list.flat_map(|(at, value)| wrong(form, value, &format!("{place}[{at}]"))).collect();
            }
            None => false,
        },
        Object(keys) => match value.as_object() {
            Some(object) => return wrong_keys(keys, object, place),
            None => false,
        },
    };
    if is_right { Vec::new() } else { vec![format!("{place}: {form:?} expected, not {value}")] }
}

fn wrong_keys(keys: &[Key], object: &Map<String, Value>, place: &str) -> Vec<String> {
    let mut all = Vec::new();
    for key in keys {
        let (name, form) = match key {
            Must(name, form) | May(name, form) => (*name, form),
        };
        match (object.get(name), key) {
            (Some(value), _) => all.extend(wrong(form, value, &format!("{place}.{name}"))),
            (None, Must(..)) => all.push(format!("{place}: `{name}` is missing")),
            (None, May(..)) => {}
        }
    }
    let is_known = |name: &str| keys.iter().any(|key| matches!(key, Must(known, _) | May(known, _) if *known == name));
    all.extend(object.keys().filter(|name| !is_known(name)).map(|name| format!("{place}: `{name}` is not known")));
    all
}

/// Whether `text` is like `2026-02-20T14:04:10Z`.
fn is_date(text: &str) -> bool {
    text.len() == 20 && text.ends_with('Z') && text.as_bytes()[10] == b'T' && text.parse::<jiff::Timestamp>().is_ok()
}

/// What is wrong with the signature of a request.
pub(super) fn signature(secret: &str, seen: &Seen, path: &str, body: &[u8]) -> Option<String> {
    let names = ["timestamp", "nonce", "body-sha256", "id", "signature"];
    let values: Vec<&str> =
        names.iter().filter_map(|name| seen.headers.get(&format!("x-worker-{name}")).map(String::as_str)).collect();
    let [timestamp, nonce, hash, id, signature] = values[..] else { return Some("not signed".to_owned()) };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    if !timestamp.parse::<u64>().is_ok_and(|at| at.abs_diff(now) <= SKEW_SECS_MAX) {
        return Some(format!("the timestamp {timestamp} is not now"));
    }
    if nonce.is_empty() || id.is_empty() {
        return Some("the nonce or the id is empty".to_owned());
    }
    if hash != hex(&Sha256::digest(body)) {
        return Some("the hash is of another body".to_owned());
    }
    let text = format!("{}\n{path}\n{hash}\n{timestamp}\n{nonce}", seen.method);
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap().chain_update(text);
    (signature != hex(&mac.finalize().into_bytes())).then(|| "the signature is wrong".to_owned())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
