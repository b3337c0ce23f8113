//! The files in deploy/: they name flags and variables that exist, they leave the worker the time that it needs, and they hold nothing
//! that the sandbox cannot live with.
#![cfg(feature = "worker")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a claim fails by a panic")]
#![expect(clippy::disallowed_methods, reason = "starts the worker and systemd's checker to see what they say")]
#![expect(clippy::print_stderr, reason = "what could not be checked is said")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde::Deserialize as _;
use serde_yaml::Value;

const UNIT: &str = "deploy/chickadee-runner.service";
const COMPOSE: &str = "deploy/compose.yaml";
const KUBERNETES: &str = "deploy/kubernetes.yaml";
const DOCKERFILE: &str = "deploy/worker.Dockerfile";
const WORKER: &str = env!("CARGO_BIN_EXE_chickadee-runner");
/// `--drain-limit`, unless it is set otherwise.
const DRAIN_LIMIT_S: u64 = 300;
/// Directives that forbid the sandbox what it is made of, or scripts what they need.
const FORBIDDEN: [&str; 15] = [
    "IPAddressDeny",
    "InaccessiblePaths",
    "LockPersonality",
    "MemoryDenyWriteExecute",
    "PrivateNetwork",
    "PrivatePIDs",
    "PrivateUsers",
    "ProcSubset",
    "ProtectControlGroups",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelTunables",
    "ProtectProc",
    "RestrictFileSystems",
    "RestrictNamespaces",
];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the documents of a YAML file.
fn documents(text: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(text).map(|document| Value::deserialize(document).unwrap()).collect()
}

/// Returns every text below `value`, keys included.
fn texts(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::String(text) => into.push(text.clone()),
        Value::Sequence(items) => items.iter().for_each(|item| texts(item, into)),
        Value::Mapping(entries) => entries.iter().for_each(|(key, item)| {
            texts(key, into);
            texts(item, into);
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Tagged(_) => {}
    }
}

fn yaml_texts(path: &str) -> Vec<String> {
    let mut found = Vec::new();
    documents(&read(path)).iter().for_each(|document| texts(document, &mut found));
    found
}

/// Returns `name=value` of a unit, continued lines joined, comments left out.
fn directives(unit: &str) -> Vec<(String, String)> {
    let lines = unit.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    lines.lines().filter_map(pair).collect()
}

fn directive(unit: &str, name: &str) -> String {
    let found = directives(unit).into_iter().find(|(found, _)| found == name);
    found.unwrap_or_else(|| panic!("{UNIT}: no {name}=")).1
}

/// Returns what a Dockerfile starts: the words of ENTRYPOINT and CMD, which are JSON.
fn docker_words(dockerfile: &str) -> Vec<String> {
    let orders = dockerfile.lines().filter_map(|line| line.split_once(' '));
    let json = orders.filter(|(order, _)| matches!(*order, "ENTRYPOINT" | "CMD")).map(|(_, json)| json);
    json.flat_map(|json| serde_json::from_str::<Vec<String>>(json).unwrap()).collect()
}

/// Returns the words that the files pass to the worker.
fn words() -> Vec<(&'static str, String)> {
    let unit = directive(&read(UNIT), "ExecStart");
    let of_unit = unit.split_whitespace().map(|word| (UNIT, word.to_owned()));
    let of_docker = docker_words(&read(DOCKERFILE)).into_iter().map(|word| (DOCKERFILE, word));
    let of_yaml =
        [COMPOSE, KUBERNETES].into_iter().flat_map(|path| yaml_texts(path).into_iter().map(move |text| (path, text)));
    of_unit.chain(of_docker).chain(of_yaml).collect()
}

/// Returns the words of `text` that are names of the worker's variables.
fn variables(text: &str) -> impl Iterator<Item = &str> {
    let is_of_a_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let names = text.split(move |c| !is_of_a_name(c));
    names.filter(|name| name.starts_with("RUNNER_") || name.starts_with("WORKER_"))
}

/// Returns those of `flags` that stand nowhere in `help` as a word.
fn unknown<'a>(names: impl Iterator<Item = &'a str>, help: &str) -> BTreeSet<String> {
    let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let known: BTreeSet<_> = help.split(|c| !is_of_a_name(c)).collect();
    names.filter(|name| !known.contains(name)).map(str::to_owned).collect()
}

fn help() -> String {
    let done = Command::new(WORKER).arg("--help").output().unwrap();
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap()
}

fn seconds(text: &str) -> u64 {
    let number = |unit: &str| text.strip_suffix(unit).and_then(|number| number.trim().parse::<u64>().ok());
    let minutes = number("min").or_else(|| number("m")).map(|minutes| minutes * 60);
    minutes.or_else(|| number("s")).unwrap_or_else(|| panic!("`{text}` is no time"))
}

#[test]
fn every_flag_and_variable_is_one_of_the_workers() {
    let help = help();
    let words = words();
    let flags = words.iter().map(|(_, word)| word.as_str()).filter(|word| word.starts_with("--"));
    let flags: Vec<_> = flags.map(|flag| flag.split('=').next().unwrap()).collect();
    // Each file passes some: what finds none looks in the wrong place.
    for path in [UNIT, DOCKERFILE, COMPOSE, KUBERNETES] {
        assert!(words.iter().any(|(of, word)| *of == path && word == "--sandbox"), "{path}");
    }
    assert_eq!(unknown(flags.into_iter(), &help), BTreeSet::new());
    let texts = [read(UNIT), read(DOCKERFILE), read(COMPOSE), read(KUBERNETES)].concat();
    assert_eq!(unknown(variables(&texts), &help), BTreeSet::new());
}

#[test]
fn a_flag_that_does_not_exist_is_caught() {
    let help = "  --max-jobs <N>  jobs [env: RUNNER_MAX=]\n";
    let caught = unknown(["--max-jobs", "--max-job", "--gone"].into_iter(), help);
    assert_eq!(caught.into_iter().collect::<Vec<_>>(), ["--gone", "--max-job"]);
    assert_eq!(
        variables("RUNNER_MAX=1 ${WORKER_SECRET} PATH runner_x").collect::<Vec<_>>(),
        ["RUNNER_MAX", "WORKER_SECRET"]
    );
    assert_eq!(directives("A=1 \\\n  2\n#B=3\nC=\n").len(), 2);
    assert_eq!(docker_words("FROM x\nCMD [\"--a\", \"b\"]\n"), ["--a", "b"]);
}

#[test]
fn the_worker_has_time_to_drain() {
    let unit = seconds(&directive(&read(UNIT), "TimeoutStopSec"));
    let compose = documents(&read(COMPOSE));
    let compose = seconds(compose[0]["services"]["worker"]["stop_grace_period"].as_str().unwrap());
    let kubernetes = deployment()["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
    for (path, given) in [(UNIT, unit), (COMPOSE, compose), (KUBERNETES, kubernetes)] {
        assert!(given > DRAIN_LIMIT_S, "{path}: {given} s");
    }
}

fn deployment() -> Value {
    let of_kind = |kind: &str| documents(&read(KUBERNETES)).into_iter().find(|document| document["kind"] == kind);
    assert!(of_kind("Secret").is_some());
    of_kind("Deployment").unwrap()
}

#[test]
fn the_sandbox_gets_what_it_needs_from_each_engine() {
    let compose = documents(&read(COMPOSE));
    let options = compose[0]["services"]["worker"]["security_opt"].as_sequence().unwrap();
    let readme = read("README.md");
    for option in ["seccomp=unconfined", "systempaths=unconfined"] {
        assert!(options.iter().any(|given| given == option), "{COMPOSE}: {option}");
        assert!(readme.contains(&format!("--security-opt {option}")), "README.md: {option}");
    }
    let pod = &deployment()["spec"]["template"]["spec"];
    let container = &pod["containers"][0]["securityContext"];
    assert_eq!(container["procMount"], "Unmasked");
    assert_eq!(container["seccompProfile"]["type"], "Unconfined");
    assert_eq!(pod["hostUsers"], false);
    let unit = directives(&read(UNIT));
    let forbidden = unit.iter().map(|(name, _)| name.as_str()).filter(|name| FORBIDDEN.contains(name));
    assert_eq!(forbidden.collect::<Vec<_>>(), [""; 0], "{UNIT}");
    let filters = unit.iter().filter(|(name, _)| name == "SystemCallFilter");
    assert!(filters.clone().all(|(_, value)| value.starts_with('~') && !value.contains("@mount")), "{UNIT}");
}

#[test]
fn nobody_is_root_and_no_secret_stands_in_a_file() {
    assert_ne!(directive(&read(UNIT), "User"), "root");
    assert!(read(DOCKERFILE).lines().any(|line| line == "USER 1000:1000"));
    assert_eq!(deployment()["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"], true);
    for (path, word) in words() {
        assert!(!word.starts_with("--worker-secret"), "{path}: every user sees arguments");
    }
}

#[test]
fn volumes_of_pods_are_bounded_and_all_mounted() {
    let pod = &deployment()["spec"]["template"]["spec"];
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    let volumes = pod["volumes"].as_sequence().unwrap();
    for volume in volumes {
        let is_bounded = volume.get("secret").is_some() || volume["emptyDir"]["sizeLimit"].is_string();
        assert!(is_bounded, "{}", name(volume));
    }
    let mounts = pod["containers"][0]["volumeMounts"].as_sequence().unwrap();
    let [volumes, mounts] = [volumes, mounts].map(|list| list.iter().map(name).collect::<BTreeSet<_>>());
    assert_eq!(volumes, mounts);
}

/// Returns what stands behind `flag`.
fn value_of(flag: &str, words: &[String]) -> String {
    let at = words.iter().position(|word| word == flag).unwrap_or_else(|| panic!("no {flag} in {words:?}"));
    words[at + 1].clone()
}

/// The root of a mount is often root's, or open to others (a pod's `emptyDir` is both), and the worker keeps nothing in such a folder.
#[test]
fn state_and_cache_lie_strictly_below_their_mounts() {
    let compose = documents(&read(COMPOSE)).remove(0)["services"]["worker"].clone();
    let container = deployment()["spec"]["template"]["spec"]["containers"][0].clone();
    let texts_of = |value: &Value| {
        let mut found = Vec::new();
        texts(value, &mut found);
        found
    };
    let volumes: Vec<_> =
        texts_of(&compose["volumes"]).iter().map(|text| text.split(':').nth(1).unwrap().to_owned()).collect();
    let mounts = container["volumeMounts"].as_sequence().unwrap();
    let mounts: Vec<_> = mounts.iter().map(|mount| mount["mountPath"].as_str().unwrap().to_owned()).collect();
    for (file, words, mounts) in [
        (DOCKERFILE, docker_words(&read(DOCKERFILE)), &volumes),
        (COMPOSE, texts_of(&compose["command"]), &volumes),
        (KUBERNETES, texts_of(&container["args"]), &mounts),
    ] {
        for flag in ["--state-dir", "--test-setup-cache-dir"] {
            let folder = value_of(flag, &words);
            let is_below = |mount: &String| Path::new(&folder).starts_with(mount) && folder != *mount;
            assert!(mounts.iter().any(is_below), "{file}: {folder} is not in a folder of {mounts:?}");
        }
    }
}

#[test]
fn systemd_accepts_the_unit() {
    let analyze = |unit: &str| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chickadee-runner.service");
        std::fs::write(&path, unit).unwrap();
        let done = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output().unwrap();
        (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    if let Err(error) = Command::new("systemd-analyze").arg("--version").output() {
        assert!(std::env::var_os("CI").is_none(), "systemd-analyze is needed for this test: {error}");
        eprintln!("NOT CHECKED: {UNIT}; systemd-analyze: {error}");
        return;
    }
    // It looks for the program, which is installed elsewhere.
    let unit = read(UNIT).replace("/usr/local/bin/chickadee-runner", WORKER);
    let complaints = |said: &str| said.lines().filter(|line| line.contains("chickadee-runner.service")).count();
    let (is_accepted, said) = analyze(&unit);
    assert!(is_accepted && complaints(&said) == 0, "{said}");
    let (_, said) = analyze(&unit.replace("PrivateTmp=yes", "PrivateTemp=yes"));
    assert_ne!(complaints(&said), 0, "a wrong directive is not seen: {said}");
}
