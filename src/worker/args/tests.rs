//! Command lines and environments, and what they come to.

use std::fs;

use pretty_assertions::assert_eq;

use super::*;

const HOME: (&str, &str) = ("HOME", "/homes/grader");

/// In a folder where there is no secret.
fn surroundings(variables: &[(&str, &str)]) -> Surroundings {
    let environment = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
    Surroundings {
        variables: Variables::new(environment, "/no/such/folder".into()),
        hostname: "box".to_owned(),
        secret_files: ["/no/such/folder/a", "/no/such/folder/b"].map(PathBuf::from),
        is_stderr_terminal: false,
    }
}

fn flags(flags: &[&str]) -> Flags {
    Flags::try_parse_from([&["chickadee-runner"], flags].concat()).unwrap()
}

fn read(given: &[&str], variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    surroundings(&[&[HOME], variables].concat()).config(flags(given))
}

#[test]
fn the_defaults_are_those_of_the_manual() {
    let config = read(&[], &[]).unwrap();
    assert_eq!(config.api.as_str(), "http://localhost:8080");
    assert_eq!((config.worker_id.as_str(), config.max_jobs.get()), ("worker-box", 4));
    assert!(!config.sandbox && !config.once && config.secret.is_none() && config.discovers_capabilities);
    assert_eq!(config.cache_dir, Path::new("/homes/grader/.cache/chickadee-runner/setups"));
    assert_eq!(config.state_dir, Path::new("/homes/grader/.local/state/chickadee-runner"));
    assert_eq!([config.cache_bytes_max, config.download_bytes_max], [2048 << 20, 512 << 20]);
    assert_eq!(config.free_disk_mb_min, 128);
    assert_eq!((config.drain_limit, config.log_format), (Duration::from_secs(300), Format::Json));
    let attempts = |number| NonZeroU32::new(number).unwrap();
    let retry = RetrySettings {
        is_on: true,
        base: Duration::from_millis(1000),
        max: Duration::from_millis(30_000),
        heartbeat_attempts_max: attempts(4),
        upload_attempts_max: attempts(8),
        download_attempts_max: attempts(6),
    };
    assert_eq!(config.retry, retry);
    assert_eq!(config.warnings, [Warning::Unsigned]);
    assert_eq!((config.status_file, config.ca_file), (None, None));
}

#[test]
fn a_flag_comes_before_its_variable() {
    let variables = [
        ("RUNNER_TEST_SETUP_CACHE_DIR", "/variable/cache"),
        ("RUNNER_STATE_DIR", "relative/state"),
        ("RUNNER_DRAIN_LIMIT_SEC", "7"),
        ("RUNNER_CA_FILE", "/variable/ca"),
    ];
    let config = read(&[], &variables).unwrap();
    assert_eq!(config.cache_dir, Path::new("/variable/cache"));
    assert_eq!(config.state_dir, Path::new("/no/such/folder/relative/state"));
    assert_eq!(config.drain_limit, Duration::from_secs(7));
    assert_eq!(config.ca_file.as_deref(), Some(Path::new("/variable/ca")));
    let given = [
        ["--test-setup-cache-dir", "cache"],
        ["--state-dir", "/flag/state"],
        ["--drain-limit", "0"],
        ["--ca-file", "/flag/ca"],
        ["--status-file", "status"],
    ];
    let config = read(&given.concat(), &variables).unwrap();
    assert_eq!(config.cache_dir, Path::new("/no/such/folder/cache"));
    assert_eq!(config.state_dir, Path::new("/flag/state"));
    assert_eq!(config.drain_limit, Duration::ZERO);
    assert_eq!(config.ca_file.as_deref(), Some(Path::new("/flag/ca")));
    assert_eq!(config.status_file.as_deref(), Some(Path::new("/no/such/folder/status")));
}

#[test]
fn folders_are_systemds_then_xdgs_then_the_homes() {
    let variables = [("STATE_DIRECTORY", "/var/lib/a:/var/lib/b"), ("XDG_STATE_HOME", "/xdg"), HOME];
    let state = |skipped: usize| surroundings(&variables[skipped..]).folder(&STATE, None).unwrap();
    assert_eq!(state(0), Path::new("/var/lib/a"));
    assert_eq!(state(1), Path::new("/xdg/chickadee-runner"));
    assert_eq!(state(2), Path::new("/homes/grader/.local/state/chickadee-runner"));
    let relative = surroundings(&[("XDG_CACHE_HOME", "relative"), HOME]).folder(&CACHE, None).unwrap();
    assert_eq!(relative, Path::new("/homes/grader/.cache/chickadee-runner/setups"));
    let error = surroundings(&[]).config(flags(&[])).unwrap_err().to_string();
    assert!(error.contains("`HOME`") && error.contains("`--test-setup-cache-dir`"), "{error}");
}

#[test]
fn what_cannot_be_used_is_named_with_its_value_and_the_way_out() {
    let long = "x".repeat(129);
    for (flag, value) in [
        ("--max-jobs", "0"),
        ("--max-jobs", "257"),
        ("--max-jobs", "-1"),
        ("--max-jobs", "many"),
        ("--worker-id", ""),
        ("--worker-id", long.as_str()),
        ("--worker-id", " a"),
        ("--drain-limit", "86401"),
        ("--drain-limit", "5m"),
    ] {
        let error = read(&[&format!("{flag}={value}")], &[]).unwrap_err().to_string();
        assert!(error.contains(flag) && error.contains(value) && error.contains("must be"), "{error}");
    }
    for (name, values) in [
        ("RUNNER_TEST_SETUP_CACHE_MAX_MB", ["-1", "1.5"]),
        ("RUNNER_MAX_DOWNLOAD_MB", ["0", "99999999999999999999"]),
        ("RUNNER_MIN_FREE_DISK_MB", ["much", "18446744073709551616"]),
        ("RUNNER_DRAIN_LIMIT_SEC", ["-1", "x"]),
        ("RUNNER_RETRY_BASE_DELAY_MS", ["0", "86400001"]),
        ("RUNNER_RETRY_MAX_DELAY_MS", ["0", "1s"]),
        ("RUNNER_HEARTBEAT_RETRY_MAX_ATTEMPTS", ["0", "1001"]),
        ("RUNNER_RESULT_UPLOAD_RETRY_MAX_ATTEMPTS", ["0", "x"]),
        ("RUNNER_DOWNLOAD_RETRY_MAX_ATTEMPTS", ["0", "x"]),
        ("RUNNER_NETWORK_RETRY_ENABLED", ["2", "enabled"]),
        ("RUNNER_CAPABILITY_DISCOVERY_ENABLED", ["y", "-"]),
    ] {
        for value in values {
            let error = read(&[], &[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(value) && error.contains("leave it out"), "{error}");
        }
    }
    let error = read(&["--worker-id", "a\nb"], &[]).unwrap_err().to_string();
    assert!(error.contains("`a\\nb`"), "{error}");
    let error = read(&["--api-base-url", "http://me:pw@host"], &[]).unwrap_err().to_string();
    assert!(error.contains("`--api-base-url`") && error.contains("https://chickadee.example.org"), "{error}");
}

#[test]
fn numbers_and_switches_are_taken_as_people_write_them() {
    for (value, is_on) in [("1", true), ("TRUE", true), ("yes", true), ("On", true), ("", true)] {
        assert_eq!(read(&[], &[("RUNNER_NETWORK_RETRY_ENABLED", value)]).unwrap().retry.is_on, is_on, "{value}");
    }
    for value in ["0", "False", "no", "OFF", " off "] {
        assert!(!read(&[], &[("RUNNER_NETWORK_RETRY_ENABLED", value)]).unwrap().retry.is_on, "{value}");
    }
    let config = read(&["--max-jobs", "256"], &[("RUNNER_MIN_FREE_DISK_MB", "0")]).unwrap();
    assert_eq!((config.max_jobs.get(), config.free_disk_mb_min), (256, 0));
}

#[test]
fn a_secret_is_warned_of_where_others_can_see_it() {
    let variable = [("RUNNER_SHARED_SECRET", "long enough")];
    assert_eq!(read(&[], &variable).unwrap().warnings, []);
    assert_eq!(read(&["--worker-secret", "long enough"], &[]).unwrap().warnings, [Warning::SecretInArguments]);
    let plain = ["--api-base-url", "http://grader.example.org/"];
    let expected = Warning::PlainHttp("http://grader.example.org".to_owned());
    assert_eq!(read(&plain, &variable).unwrap().warnings, [expected]);
    assert_eq!(read(&plain, &[]).unwrap().warnings, [Warning::Unsigned]);
    assert_eq!(read(&["--api-base-url", "https://grader.example.org"], &variable).unwrap().warnings, []);
    let dir = tempfile::tempdir().unwrap();
    let mut around = surroundings(&[HOME]);
    around.secret_files[1] = dir.path().join(secret::FILE);
    fs::write(&around.secret_files[1], "from a file\n").unwrap();
    let config = around.config(flags(&[])).unwrap();
    assert_eq!(config.secret, Secret::new("from a file"));
    assert!(matches!(config.warnings[..], [Warning::SecretFileOpen { .. }]), "{:?}", config.warnings);
    let shown = format!("{config:?} {:?}", read(&[], &[("RUNNER_SHARED_SECRET", "hunter2")]).unwrap());
    assert!(!shown.contains("from a file") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn text_is_for_terminals_and_colours_for_those_who_want_them() {
    let format = |given: &[&str], variables: &[(&str, &str)], is_terminal| {
        let around = Surroundings { is_stderr_terminal: is_terminal, ..surroundings(&[&[HOME], variables].concat()) };
        around.config(flags(given)).unwrap().log_format
    };
    let term = ("TERM", "xterm");
    assert_eq!(format(&[], &[term], false), Format::Json);
    assert_eq!(format(&[], &[term], true), Format::ColouredText);
    assert_eq!(format(&[], &[term, ("NO_COLOR", "1")], true), Format::Text);
    assert_eq!(format(&[], &[("TERM", "dumb")], true), Format::Text);
    assert_eq!(format(&["--log-format", "json"], &[term], true), Format::Json);
    assert_eq!(format(&["--log-format", "text"], &[term], false), Format::Text);
}

#[test]
fn help_has_every_variable_and_exit_code() {
    use clap::CommandFactory as _;

    let help = Flags::command().render_long_help().to_string();
    let source = concat!(include_str!("../args.rs"), include_str!("../../os/host/variables.rs"));
    let names = source.split('"').filter(|text| text.starts_with("RUNNER_") && !text.contains(' '));
    let missing: Vec<_> = names.filter(|name| !help.contains(name)).collect();
    assert_eq!(missing, [] as [&str; 0]);
    assert!(["  0 ", "  2 ", "  3 ", "  129 130 143"].iter().all(|code| help.contains(code)), "{help}");
    Flags::command().debug_assert();
}

#[test]
fn help_that_was_broken_by_hand_fits_a_terminal() {
    let too_long: Vec<_> = SETTINGS.lines().filter(|line| line.chars().count() > 79).collect();
    assert_eq!(too_long, [] as [&str; 0]);
}

#[test]
fn the_sandbox_is_as_the_environment_says() {
    let config = read(&["--sandbox"], &[("RUNNER_SANDBOX_MEMORY_MB", "4096")]).unwrap();
    assert_eq!(config.sandbox_settings.limits.memory_bytes_max, 4 << 30);
    let error = read(&[], &[("RUNNER_SANDBOX_MEMORY_MB", "3")]).unwrap_err().to_string();
    assert!(error.contains("`RUNNER_SANDBOX_MEMORY_MB`"), "{error}");
}

#[test]
fn a_short_secret_is_warned_of_and_its_place_is_known() {
    let config = read(&[], &[("WORKER_SHARED_SECRET", " 1234567 ")]).unwrap();
    assert_eq!(config.warnings, [Warning::SecretShort { place: "`WORKER_SHARED_SECRET`".to_owned() }]);
    assert_eq!(config.secret_place.as_deref(), Some("`WORKER_SHARED_SECRET`"));
    assert!(!config.warnings[0].to_string().contains("1234567"));
    assert_eq!(read(&[], &[("WORKER_SHARED_SECRET", "12345678")]).unwrap().warnings, []);
}

#[test]
fn misspelt_variables_are_told_and_those_of_others_are_not() {
    for (name, meant) in [
        ("RUNNER_SANDBOX_MEMORYMB", "RUNNER_SANDBOX_MEMORY_MB"),
        ("WORKER_STATE_DIR", "RUNNER_STATE_DIR"),
        ("RUNNER_SECRET", "RUNNER_SHARED_SECRET"),
        ("WORKER_SHARED_SECRETS", "RUNNER_SHARED_SECRET"),
        ("RUNNER_MAX_DOWNLOADS_MB", "RUNNER_MAX_DOWNLOAD_MB"),
        ("RUNNER_HEARTBEAT_INTERVAL", "RUNNER_HEARTBEAT_INTERVAL_MS"),
    ] {
        let expected = Warning::Misspelt { name: name.to_owned(), meant };
        assert_eq!(read(&[], &[(name, "1")]).unwrap().warnings, [expected, Warning::Unsigned], "{name}");
    }
    let others = [
        "RUNNER_OS",
        "RUNNER_ARCH",
        "RUNNER_NAME",
        "RUNNER_TEMP",
        "RUNNER_TOOL_CACHE",
        "RUNNER_DEBUG",
        "RUNNER_ENVIRONMENT",
        "RUNNER_WORKSPACE",
        "RUNNER_USER",
        "RUNNER_TRACKING_ID",
        "RUNNER_ALLOW_RUNASROOT",
        "RUNNER_PERFLOG",
        "RUNNER_JSONL",
        "WORKER_ID",
        "RUNNER",
        "RUNNER_",
        "STATE_DIR",
        "RUNNERSTATE_DIR",
    ];
    let others = others.map(|name| (name, "1"));
    assert_eq!(read(&[], &others).unwrap().warnings, [Warning::Unsigned]);
    assert_eq!(read(&[], &[("RUNNER_SECRET", "")]).unwrap().warnings, [Warning::Unsigned], "empty is absent");
}
