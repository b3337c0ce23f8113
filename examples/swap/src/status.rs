//! What is linked now, for people and for programs. Reads only, without the lock: the state file is always whole.

use crate::cli::{Format, RootChoice};
use crate::error::Error;
use crate::experiment::Experiment;
use crate::root::{Access, Provider, Root, Seen};
use crate::state::{Phase, State};

#[derive(Debug)]
pub(crate) struct Status {
    root: String,
    unfinished: usize,
    experiments: Vec<(Experiment, Vec<Applet>)>,
}

#[derive(Debug)]
struct Applet {
    name: &'static str,
    /// `linked`, `original`, `absent`, or `changed`: recorded as linked, but no longer the link that was made.
    state: &'static str,
    provided: bool,
}

/// Looks at every applet of every experiment.
///
/// # Errors
/// As `Root::open` and `State::load`.
pub(crate) fn read(choice: &RootChoice) -> Result<Status, Error> {
    let root = Root::open(choice, Access::Read)?;
    let state = State::load(&root)?;
    let mut experiments = Vec::new();
    for experiment in Experiment::ALL {
        let mut applets = Vec::new();
        for &name in experiment.applets() {
            let provided = root.provider(experiment, name)? == Provider::Present;
            let recorded = state.get(name).is_some_and(|entry| entry.phase == Phase::Linked);
            let state = match (recorded, root.look(experiment, name)?) {
                (true, Seen::Ours) => "linked",
                (true, Seen::Missing | Seen::ForeignLink(_) | Seen::File(_) | Seen::Other) => "changed",
                (false, Seen::Missing) => "absent",
                (false, Seen::Ours | Seen::ForeignLink(_) | Seen::File(_) | Seen::Other) => "original",
            };
            applets.push(Applet { name, state, provided });
        }
        experiments.push((experiment, applets));
    }
    let unfinished = state.in_phase(Phase::Unfinished).len();
    Ok(Status { root: root.path().to_string_lossy().into_owned(), unfinished, experiments })
}

impl Status {
    pub(crate) fn show(&self, format: Format) -> String {
        match format {
            Format::Text => self.text(),
            Format::Json => self.json(),
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (experiment, applets) in &self.experiments {
            let linked = count(applets, "linked");
            let word = if is_enabled(applets) { "enabled" } else { "disabled" };
            text.push_str(&format!("{}: {word}, {linked} of {} linked", experiment.name(), applets.len()));
            let changed = count(applets, "changed");
            if changed > 0 {
                text.push_str(&format!(", {changed} changed by somebody else"));
            }
            text.push('\n');
        }
        if self.unfinished > 0 {
            text.push_str(&format!("interrupted: {} applets, the next order undoes it\n", self.unfinished));
        }
        text
    }

    /// One applet a line, so that `grep` reads it as well as a JSON parser does.
    fn json(&self) -> String {
        let mut text = format!("{{\n  \"root\": {},\n  \"unfinished\": {},\n", quoted(&self.root), self.unfinished);
        text.push_str("  \"experiments\": {\n");
        let last_experiment = self.experiments.len().saturating_sub(1);
        for (index, (experiment, applets)) in self.experiments.iter().enumerate() {
            let name = quoted(experiment.name());
            text.push_str(&format!("    {name}: {{\n      \"enabled\": {},\n", is_enabled(applets)));
            text.push_str("      \"applets\": {\n");
            let last = applets.len().saturating_sub(1);
            for (index, applet) in applets.iter().enumerate() {
                let (name, state) = (quoted(applet.name), quoted(applet.state));
                let comma = if index == last { "" } else { "," };
                let line = format!("{name}: {{ \"state\": {state}, \"provided\": {} }}{comma}", applet.provided);
                text.push_str(&format!("        {line}\n"));
            }
            let comma = if index == last_experiment { "" } else { "," };
            text.push_str(&format!("      }}\n    }}{comma}\n"));
        }
        text.push_str("  }\n}\n");
        text
    }
}

fn count(applets: &[Applet], state: &str) -> usize {
    applets.iter().filter(|applet| applet.state == state).count()
}

fn is_enabled(applets: &[Applet]) -> bool {
    count(applets, "linked") + count(applets, "changed") > 0
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            letter if letter < ' ' => quoted.push_str(&format!("\\u{:04x}", u32::from(letter))),
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_text_is_escaped() {
        assert_eq!(quoted("a\"b\\c\nd\u{e4}"), "\"a\\\"b\\\\c\\u000ad\u{e4}\"");
    }
}
