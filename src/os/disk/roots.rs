//! Which paths a snapshot starts from: plain paths and patterns.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use glob::{MatchOptions, Pattern};

/// Where a snapshot starts: a path, or a pattern that is expanded each time a snapshot is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotRoot {
    /// What stands before the first wild card.
    base: PathBuf,
    /// The components from there on; empty for a plain path.
    steps: Vec<Step>,
}

/// One component of a pattern, from its first wild card on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// A name as it stands.
    Name(PathBuf),
    /// Every name that matches.
    Matching(Pattern),
    /// `**`: this folder and every folder below it.
    AnyDepth,
}

/// A name must match whole, and `*` also matches names that start with a dot: a hidden file is a change, too.
const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

impl SnapshotRoot {
    /// Takes a path as it stands, whatever characters it has; a relative one is below `project`.
    #[must_use]
    pub(crate) fn path(path: impl AsRef<Path>, project: &Path) -> Self {
        Self { base: project.join(path).components().collect(), steps: Vec::new() }
    }

    /// Reads a path or a pattern; a relative one is below `project`.
    ///
    /// `*` stands for any part of a name, `?` for one character, `[a-z]` and `[!a-z]` for one of a set, a component `**`
    /// for any number of folders (links are not followed). A component that is no valid pattern is a plain name, as in a
    /// shell: `/usr/bin/[` is that file. A name that is not UTF-8 matches as if each wrong byte sequence were U+FFFD.
    #[must_use]
    pub(crate) fn parse(text: &str, project: &Path) -> Self {
        let mut root = Self { base: PathBuf::new(), steps: Vec::new() };
        let mut below = Vec::new();
        if !text.starts_with('/') {
            root.base.push(project);
        }
        for component in Path::new(text).components() {
            match step(component) {
                Step::Name(name) if below.is_empty() => root.base.push(name),
                step @ (Step::Name(_) | Step::Matching(_) | Step::AnyDepth) => below.push(step),
            }
        }
        // Folders are walked to their ends anyhow.
        if let Some(last @ Step::AnyDepth) = below.last_mut()
            && let Ok(everything) = Pattern::new("*")
        {
            *last = Step::Matching(everything);
        }
        root.steps = below;
        root.base = root.base.components().collect();
        root
    }

    /// Tells whether it may stand for something in `folder`, or for something that `folder` is in.
    pub(crate) fn may_meet(&self, folder: &Path) -> bool {
        self.base.starts_with(folder) || folder.starts_with(&self.base)
    }

    /// Returns what stands before the first wild card.
    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    /// Tells whether there are wild cards.
    pub(super) fn is_pattern(&self) -> bool {
        !self.steps.is_empty()
    }
}

fn step(component: Component<'_>) -> Step {
    let name = component.as_os_str();
    match name.to_str() {
        Some("**") => Step::AnyDepth,
        Some(text) if text.contains(['*', '?', '[']) => match Pattern::new(&single_stars(text)) {
            Ok(pattern) => Step::Matching(pattern),
            Err(_) => Step::Name(PathBuf::from(name)),
        },
        Some(_) | None => Step::Name(PathBuf::from(name)),
    }
}

/// `a**b` means `a*b`; `glob` refuses it.
fn single_stars(text: &str) -> String {
    let mut single = text.to_owned();
    while single.contains("**") {
        single = single.replace("**", "*");
    }
    single
}

/// What the expansion of a pattern needs to know of the disk.
pub(super) trait Folders {
    /// Our own failure.
    type Error;

    /// Returns the names in a folder, and which of them are folders themselves; `None` if it cannot be listed although
    /// it is there. What is no folder has no names.
    ///
    /// # Errors
    /// Only our own failure.
    fn names(&mut self, folder: &Path) -> Result<Option<Vec<Name>>, Self::Error>;

    /// Tells whether something, be it a dangling link, is there.
    ///
    /// # Errors
    /// Only our own failure.
    fn exists(&mut self, path: &Path) -> Result<bool, Self::Error>;
}

/// A name in a folder.
pub(super) struct Name {
    /// The name's full path.
    pub(super) path: PathBuf,
    /// Whether it is a folder (not a link to one).
    pub(super) is_folder: bool,
}

/// Returns every path that `root` stands for. A plain path stands for itself, there or not; a pattern stands for what is
/// there. A folder that cannot be listed stands for what may be in it.
///
/// # Errors
/// Only what `disk` fails with.
pub(super) fn expand<D: Folders>(root: &SnapshotRoot, disk: &mut D) -> Result<Vec<PathBuf>, D::Error> {
    let mut found = Vec::new();
    let mut todo = vec![(root.base.clone(), root.steps.as_slice())];
    while let Some((path, steps)) = todo.pop() {
        let Some((step, rest)) = steps.split_first() else {
            found.push(path);
            continue;
        };
        if let Step::Name(name) = step {
            let below = path.join(name);
            if !rest.is_empty() || disk.exists(&below)? {
                todo.push((below, rest));
            }
            continue;
        }
        let Some(names) = disk.names(&path)? else {
            found.push(path);
            continue;
        };
        if matches!(step, Step::AnyDepth) {
            todo.extend(names.into_iter().filter(|name| name.is_folder).map(|name| (name.path, steps)));
            todo.push((path, rest));
        } else {
            todo.extend(names.into_iter().filter(|name| step.admits(name)).map(|name| (name.path, rest)));
        }
    }
    Ok(found)
}

impl Step {
    fn admits(&self, name: &Name) -> bool {
        let text = name.path.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
        match self {
            Self::Name(plain) => plain.as_os_str() == text.as_ref(),
            Self::Matching(pattern) => pattern.matches_with(&text, OPTIONS),
            Self::AnyDepth => true,
        }
    }
}
