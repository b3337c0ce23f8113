//! The sandbox of macOS: `sandbox-exec` with a profile. Nobody has run it yet; what can be tested elsewhere is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::model::script::Script;

const PROGRAM: &str = "/usr/bin/sandbox-exec";

/// Returns `script` as `sandbox-exec` runs it behind the profile of its work folder.
pub(super) fn wrapped(script: &Script) -> Script {
    let profile = profile(&script.work_dir);
    let program = script.program.clone().into_os_string();
    let args = [OsString::from("-p"), profile.into(), program].into_iter().chain(script.args.iter().cloned());
    Script { program: PathBuf::from(PROGRAM), args: args.collect(), ..script.clone() }
}

/// Returns the profile: no network, and nothing to write to but the work folder and the standard streams. The path must be the real one: the
/// kernel compares what links lead to, and `/tmp` is one.
fn profile(work_dir: &Path) -> String {
    let work_dir = quoted(&work_dir.to_string_lossy());
    format!(
        "(version 1)\n\
         (allow default)\n\
         (deny network*)\n\
         (deny file-write*)\n\
         (allow file-write* (subpath {work_dir}))\n\
         (allow file-write-data (literal \"/dev/null\") (literal \"/dev/stdout\") (literal \"/dev/stderr\"))\n"
    )
}

/// A text as the profile's language (a Scheme) has it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pretty_assertions::assert_eq;

    use super::*;
    use crate::model::script::{Changes, Echo, Environment, Limits, SignalReach};

    fn script(work_dir: &str) -> Script {
        let limit = Duration::from_secs(1);
        Script {
            program: "/bin/sh".into(),
            args: vec!["a.sh".into()],
            cwd: work_dir.into(),
            work_dir: work_dir.into(),
            changes: Changes::Dropped,
            environment: Environment::default(),
            limits: Limits {
                wall: limit,
                grace: limit,
                drain: limit,
                kept_bytes_max: 1,
                log_bytes_max: 1,
                pids_max: None,
            },
            logs: None,
            signals: SignalReach::OwnProcesses,
            echo: Echo::Off,
            marker: None,
        }
    }

    #[test]
    fn the_profile_denies_network_and_writes_outside() {
        let expected = "(version 1)\n(allow default)\n(deny network*)\n(deny file-write*)\n\
                        (allow file-write* (subpath \"/private/tmp/a\"))\n\
                        (allow file-write-data (literal \"/dev/null\") (literal \"/dev/stdout\") (literal \"/dev/stderr\"))\n";
        assert_eq!(profile(Path::new("/private/tmp/a")), expected);
    }

    #[test]
    fn a_path_cannot_end_its_quotation() {
        let profile = profile(Path::new("/a\")) (allow network*) (\"b\\"));
        assert!(profile.contains(r#"(subpath "/a\")) (allow network*) (\"b\\")"#), "{profile}");
        assert_eq!(profile.lines().count(), 6);
    }

    #[test]
    fn a_script_is_run_by_sandbox_exec_and_stays_as_it_is_otherwise() {
        let script = script("/work");
        let wrapped = wrapped(&script);
        assert_eq!(wrapped.program, Path::new(PROGRAM));
        let args: Vec<_> = wrapped.args.iter().map(|arg| arg.to_string_lossy()).collect();
        assert_eq!((args[0].as_ref(), &args[2..]), ("-p", ["/bin/sh".into(), "a.sh".into()].as_slice()));
        assert_eq!((wrapped.cwd, wrapped.limits, wrapped.work_dir), (script.cwd, script.limits, script.work_dir));
    }
}
