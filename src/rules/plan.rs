//! Names of trials, and which of them are wanted.

use std::collections::HashMap;

use crate::model::script::is_hidden;
use crate::model::setup::TestSetup;
use crate::model::suite::{SuiteName, SuiteNameError};
use crate::rules::nearest::ranked;

/// Most names that are offered for one that does not exist.
const CLOSE_NAMES_MAX: usize = 3;

/// What of all trials is wanted, as libtest's filters say it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    /// Names must contain one of these, if there are any.
    pub(crate) filters: Vec<String>,
    /// Names must contain none of these.
    pub(crate) skip: Vec<String>,
    /// Names must equal, not contain.
    pub(crate) exact: bool,
}

impl Wanted {
    /// Tells whether a trial of this name is wanted.
    pub(crate) fn selects(&self, name: &str) -> bool {
        let fits = |pattern: &String| if self.exact { name == pattern } else { name.contains(pattern.as_str()) };
        (self.filters.is_empty() || self.filters.iter().any(fits)) && !self.skip.iter().any(fits)
    }

    /// Returns the one whole name that is wanted, if that is all.
    pub(crate) fn alone(&self) -> Option<&str> {
        match self.filters.as_slice() {
            [name] if self.exact => Some(name),
            _ => None,
        }
    }
}

/// Why a trial cannot be named.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NameError {
    #[error("a trial could not be named; rename its folder")]
    Name(#[from] SuiteNameError),
    #[error("two scripts of the set-up `{setup}` would be called `{name}`: `{one}` and `{other}`; rename one")]
    Duplicate { setup: String, name: SuiteName, one: String, other: String },
}

/// Makes a trial's name of any text: what test runners cannot take becomes `-`.
///
/// # Errors
/// If nothing is left.
pub(crate) fn trial_name(text: &str) -> Result<SuiteName, SuiteNameError> {
    let parts: Vec<String> = text.split('/').map(plain).collect();
    SuiteName::new(parts.join("/"))
}

/// Bytes of one part of a name: each is a folder of the proof, and file systems stop at 255.
const PART_BYTES_MAX: usize = 200;

/// One part of a name: words joined by dashes.
fn plain(part: &str) -> String {
    let words = part.split(|c: char| c.is_whitespace() || is_hidden(c)).filter(|word| !word.is_empty());
    let text = words.collect::<Vec<_>>().join("-");
    match text.trim_start_matches('-') {
        "" | "." | ".." => "_".to_owned(),
        rest => {
            let ends = rest.char_indices().map(|(at, c)| at + c.len_utf8());
            let end = ends.take_while(|end| *end <= PART_BYTES_MAX).last().unwrap_or(0);
            rest[..end].to_owned()
        }
    }
}

/// Returns the trial's name of each entry: the set-up's, a slash, the display name without slashes and white space.
///
/// # Errors
/// If two would be the same.
pub(crate) fn script_names(setup: &TestSetup) -> Result<Vec<SuiteName>, NameError> {
    let name = |display: &str| trial_name(&format!("{}/{}", setup.name, display.replace('/', "-")));
    let names: Result<Vec<_>, _> = setup.entries.iter().map(|entry| name(entry.display_name())).collect();
    let names = names?;
    match first_duplicate(names.iter()) {
        None => Ok(names),
        Some((one, other)) => Err(NameError::Duplicate {
            setup: setup.name.clone(),
            name: names[one].clone(),
            one: setup.entries[one].script.clone(),
            other: setup.entries[other].script.clone(),
        }),
    }
}

/// Returns the indices of the first name that stands twice.
pub(crate) fn first_duplicate<'a>(names: impl Iterator<Item = &'a SuiteName>) -> Option<(usize, usize)> {
    let mut seen = HashMap::new();
    names.enumerate().find_map(|(at, name)| seen.insert(name, at).map(|first| (first, at)))
}

/// Returns `; did you mean A, B?`, or nothing if no name is close.
pub(crate) fn close_names<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> String {
    let containing: Vec<&str> = names.collect();
    let close = ranked(wanted, containing.iter().copied());
    let part_of: Vec<&str> = containing.into_iter().filter(|name| name.contains(wanted)).collect();
    let mut offered: Vec<String> = Vec::new();
    for name in part_of.into_iter().chain(close) {
        if offered.len() < CLOSE_NAMES_MAX && !offered.iter().any(|other| other == name) {
            offered.push(name.to_owned());
        }
    }
    if offered.is_empty() { String::new() } else { format!("; did you mean `{}`?", offered.join("`, `")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn filters_are_parts_or_whole_names() {
        let wanted = |filters: &[&str], skip: &[&str], exact| Wanted {
            filters: filters.iter().map(ToString::to_string).collect(),
            skip: skip.iter().map(ToString::to_string).collect(),
            exact,
        };
        assert!(wanted(&[], &[], false).selects("a"));
        assert!(wanted(&["b", "20"], &[], false).selects("20-enable"));
        assert!(!wanted(&["20"], &["enable"], false).selects("20-enable"));
        assert!(!wanted(&["20"], &[], true).selects("20-enable"));
        assert!(wanted(&["20-enable"], &["20"], true).selects("20-enable"));
        assert_eq!(wanted(&["x"], &[], true).alone(), Some("x"));
        assert_eq!(wanted(&["x", "y"], &[], true).alone(), None);
    }

    #[test]
    fn any_text_becomes_a_name() {
        let name = |text| trial_name(text).unwrap().as_str().to_owned();
        assert_eq!(name("set/Adds two  numbers"), "set/Adds-two-numbers");
        assert_eq!(name("--flag"), "flag");
        assert_eq!(name("a/../b"), "a/_/b");
        assert_eq!(name("tab\tnew\nline"), "tab-new-line");
        assert_eq!(name("turned\u{202e}around\u{ffff}"), "turned-around");
        assert_eq!(name(&format!("set/a{}", "ä".repeat(1000))), format!("set/a{}", "ä".repeat(99)));
    }
}
