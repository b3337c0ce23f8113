//! What an order comes to, decided before anything is touched. Only looks, never changes.

use std::os::unix::fs::PermissionsExt;

use crate::error::{Error, Refusal};
use crate::experiment::Experiment;
use crate::root::{Provider, Root, Seen, metadata};
use crate::state::{Entry, Kind, Phase, State};

const SETUID_SETGID: u32 = 0o6000;

/// What to do about each applet, in the order of the experiments.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) entries: Vec<Entry>,
    /// Applets that the provider lacks.
    pub(crate) lacking: Vec<(&'static str, Experiment)>,
    pub(crate) already: usize,
}

/// Decides which applets to link.
///
/// # Errors
/// `Refused` with every reason found, not only the first; `Io`.
pub(crate) fn enable(root: &Root, state: &State, experiments: &[Experiment]) -> Result<Plan, Error> {
    let mut plan = Plan::default();
    let mut refusals = Vec::new();
    for &experiment in experiments {
        let lacking_before = plan.lacking.len();
        for &applet in experiment.applets() {
            if let Some(reason) = plan_link(root, state, (experiment, applet), &mut plan)? {
                refusals.push(Refusal { object: applet.to_owned(), reason });
            }
        }
        if plan.lacking.len() - lacking_before == experiment.applets().len() {
            let reason = format!("`usr/lib/{}` provides none of its applets", experiment.provider());
            refusals.push(Refusal { object: experiment.name().to_owned(), reason });
        }
    }
    if refusals.is_empty() { Ok(plan) } else { Err(Error::Refused(refusals)) }
}

/// Decides which applets to put back: those of `experiments` that are linked.
///
/// # Errors
/// `Refused` with every applet that is no longer as it was left; `Io`.
pub(crate) fn disable(root: &Root, state: &State, experiments: &[Experiment]) -> Result<Vec<Entry>, Error> {
    let mut entries = state.in_phase(Phase::Linked);
    entries.retain(|entry| experiments.contains(&entry.experiment));
    let mut refusals = Vec::new();
    for entry in &entries {
        if let Some(reason) = why_not_restore(root, *entry)? {
            refusals.push(Refusal { object: entry.applet.to_owned(), reason });
        }
    }
    if refusals.is_empty() { Ok(entries) } else { Err(Error::Refused(refusals)) }
}

/// Adds one applet to the plan, or returns why it must be left alone.
fn plan_link(
    root: &Root,
    state: &State,
    (experiment, applet): (Experiment, &'static str),
    plan: &mut Plan,
) -> Result<Option<String>, Error> {
    let seen = root.look(experiment, applet)?;
    if state.get(applet).is_some() {
        plan.already += 1;
        let intact = matches!(seen, Seen::Ours);
        return Ok((!intact).then(|| "is no longer the link that swap made; disable its experiment first".to_owned()));
    }
    match root.provider(experiment, applet)? {
        Provider::Present => {}
        Provider::Unsafe(reason) => return Ok(Some(reason)),
        Provider::Missing => {
            plan.lacking.push((applet, experiment));
            return Ok(None);
        }
    }
    let kind = match seen {
        Seen::Missing => Kind::Added,
        Seen::File(metadata) if metadata.permissions().mode() & SETUID_SETGID != 0 => {
            return Ok(Some("is setuid or setgid, which a link cannot be".to_owned()));
        }
        Seen::File(_) => Kind::Replaced,
        Seen::Ours => {
            return Ok(Some("is already such a link, but not one that swap remembers".to_owned()));
        }
        Seen::ForeignLink(text) => {
            return Ok(Some(format!("is a link of somebody else, to `{}`", text.display())));
        }
        Seen::Other => return Ok(Some("is neither a file nor a link".to_owned())),
    };
    let backup = root.backup(applet);
    if metadata(&backup)?.is_some() {
        return Ok(Some(format!("its backup `{}` exists already, and swap did not make it", backup.display())));
    }
    plan.entries.push(Entry { phase: Phase::Unfinished, kind, experiment, applet });
    Ok(None)
}

fn why_not_restore(root: &Root, entry: Entry) -> Result<Option<String>, Error> {
    let backup = root.backup(entry.applet);
    match root.look(entry.experiment, entry.applet)? {
        Seen::Ours | Seen::Missing => {}
        Seen::ForeignLink(_) | Seen::File(_) | Seen::Other => {
            return Ok(Some("was replaced by somebody else since; move that away first".to_owned()));
        }
    }
    let lost = entry.kind == Kind::Replaced && !metadata(&backup)?.is_some_and(|metadata| metadata.is_file());
    Ok(lost.then(|| format!("its backup `{}` is lost", backup.display())))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;
    use crate::testroot::TestRoot;

    fn refusals(spoil: impl Fn(PathBuf)) -> Vec<Refusal> {
        let test = TestRoot::new("plan");
        spoil(test.dir().to_path_buf());
        match enable(&test.open(), &State::default(), &[Experiment::Coreutils]) {
            Err(Error::Refused(refusals)) => refusals,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn unsafe_targets_are_refused_and_all_are_named() {
        let refused = refusals(|root| {
            let bin = root.join("usr/bin");
            fs::set_permissions(bin.join("cat"), fs::Permissions::from_mode(0o4755)).unwrap();
            fs::remove_file(bin.join("ls")).unwrap();
            symlink("../../etc/passwd", bin.join("ls")).unwrap();
            fs::remove_file(bin.join("mv")).unwrap();
            fs::create_dir(bin.join("mv")).unwrap();
            fs::write(bin.join(".swap-backup.wc"), "not ours").unwrap();
        });
        let named: Vec<_> = refused.iter().map(|refusal| refusal.object.as_str()).collect();
        assert_eq!(named, ["cat", "ls", "mv", "wc"]);
    }

    #[test]
    fn a_provider_that_is_not_a_program_is_refused() {
        let refused = refusals(|root| {
            let provider = root.join("usr/lib/rust-coreutils/cp");
            fs::set_permissions(provider, fs::Permissions::from_mode(0o644)).unwrap();
        });
        assert_eq!(refused[0].object, "cp");
    }

    #[test]
    fn a_provider_without_any_applet_is_refused() {
        let refused = refusals(|root| fs::remove_dir_all(root.join("usr/lib/rust-coreutils")).unwrap());
        assert_eq!(refused[0].object, "coreutils");
    }

    #[test]
    fn an_applet_without_provider_is_lacking_and_one_without_target_is_added() {
        let test = TestRoot::new("lacking");
        fs::remove_file(test.path("usr/lib/rust-coreutils/wc")).unwrap();
        fs::remove_file(test.path("usr/bin/ls")).unwrap();
        let plan = enable(&test.open(), &State::default(), &[Experiment::Coreutils]).unwrap();
        assert_eq!(plan.lacking, [("wc", Experiment::Coreutils)]);
        let ls = plan.entries.iter().find(|entry| entry.applet == "ls").unwrap();
        assert_eq!(ls.kind, Kind::Added);
        assert_eq!(plan.entries.len(), 11);
    }
}
