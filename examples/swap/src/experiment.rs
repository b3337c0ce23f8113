//! What can be swapped: which applets an experiment has, and who provides them.

use crate::error::Error;

/// A group of applets that are swapped together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Experiment {
    Coreutils,
    Checksums,
    Findutils,
}

impl Experiment {
    /// All of them, in the order in which they are shown.
    pub(crate) const ALL: [Self; 3] = [Self::Coreutils, Self::Checksums, Self::Findutils];

    /// What an order means that names none. `findutils` is for those who ask for it.
    pub(crate) const DEFAULT: [Self; 2] = [Self::Coreutils, Self::Checksums];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Coreutils => "coreutils",
            Self::Checksums => "checksums",
            Self::Findutils => "findutils",
        }
    }

    /// Returns the folder below `usr/lib` that holds the provider's applets.
    pub(crate) fn provider(self) -> &'static str {
        match self {
            Self::Coreutils | Self::Checksums => "rust-coreutils",
            Self::Findutils => "rust-findutils",
        }
    }

    /// Returns the applets in byte order; no applet belongs to two experiments.
    pub(crate) fn applets(self) -> &'static [&'static str] {
        match self {
            Self::Coreutils => &["cat", "cp", "date", "echo", "head", "ls", "mkdir", "mv", "rm", "sort", "tail", "wc"],
            Self::Checksums => &["b2sum", "md5sum", "sha256sum"],
            Self::Findutils => &["find", "xargs"],
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|experiment| experiment.name() == name)
    }

    /// Reads `coreutils,findutils`; the order of the list and repeated names do not matter.
    ///
    /// # Errors
    /// `Usage` for an empty list and for a name that no experiment has.
    pub(crate) fn parse_list(list: &str) -> Result<Vec<Self>, Error> {
        let mut experiments = Vec::new();
        for name in list.split(',') {
            let Some(experiment) = Self::named(name) else {
                let known = Self::ALL.map(Self::name).join(", ");
                return Err(Error::Usage(format!("unknown experiment `{name}` (there are: {known})")));
            };
            experiments.push(experiment);
        }
        experiments.sort_unstable();
        experiments.dedup();
        Ok(experiments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_sorted_and_holds_no_name_twice() {
        let list = Experiment::parse_list("findutils,coreutils,findutils").unwrap();
        assert_eq!(list, [Experiment::Coreutils, Experiment::Findutils]);
    }

    #[test]
    fn names_that_no_experiment_has_are_refused() {
        for list in ["", "coreutils,", "Coreutils", "../coreutils", "sudo-rs", " coreutils"] {
            assert_eq!(Experiment::parse_list(list).unwrap_err().exit_code(), 2, "`{list}`");
        }
    }

    #[test]
    fn no_applet_belongs_to_two_experiments_or_leaves_its_folder() {
        let mut applets: Vec<_> = Experiment::ALL.iter().flat_map(|experiment| experiment.applets()).collect();
        let all = applets.len();
        applets.sort_unstable();
        applets.dedup();
        assert_eq!(applets.len(), all);
        assert!(applets.iter().all(|applet| !applet.contains('/') && !applet.starts_with('.')));
    }
}
