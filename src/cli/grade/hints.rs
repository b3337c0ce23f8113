//! What `grade` says beside the results: what is allowed, and most likely not what somebody meant.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::super::show::Volume;
use super::Grading;
use crate::flow::discover::MANIFEST;
use crate::flow::job::MAKEFILES;
use crate::flow::setup::strange_keys;
use crate::model::setup::TestSetup;
use crate::os::disk::read_config;
use crate::os::host::SandboxSettings;
use crate::os::sandbox::shown_by;
use crate::os::workdir::Tree;
use crate::rules::chickadee::{Surprises, names_make, surprises};

/// How archives end that are no zip, or are not called so.
const ARCHIVES: [&str; 12] = ["tar", "gz", "tgz", "bz2", "tbz2", "xz", "txz", "zst", "tzst", "7z", "rar", "jar"];
/// Keys and scripts that are named.
const NAMED_MAX: usize = 20;

impl Grading<'_> {
    /// Unknown keys are ignored, as a worker does; who misspells one should hear of it.
    pub(super) fn tell_strange_keys(&self, dir: &Path) {
        let found = strange_keys(dir, &self.order.setup);
        found.misspelt.iter().for_each(|misspelt| self.show.warning(&misspelt.told.to_string()));
        if self.volume == Volume::Verbose && !found.others.is_empty() {
            let (manifest, keys) = (self.order.setup.join(MANIFEST), named(&found.others));
            self.show.note(&format!("`{}` has keys that are not read here: {keys}", manifest.display()));
        }
    }

    /// What a shell says of such a script does not tell why.
    pub(super) fn tell_surprises(&self, setup: &TestSetup) {
        let scripts = setup.entries.iter().map(|entry| &entry.script);
        let read = |script: &String| Some((script.clone(), surprises(&read_config(&setup.dir.join(script)).ok()?)));
        let found: Vec<_> = scripts.filter_map(read).collect();
        let those = |are: fn(&Surprises) -> bool| {
            let those = found.iter().filter(|(_, found)| are(found)).map(|(script, _)| script.clone());
            Some(those.collect::<Vec<_>>()).filter(|those| !those.is_empty()).map(|those| named(&those))
        };
        if let Some(scripts) = those(|found| found.has_byte_order_mark) {
            self.show.note(&format!(
                "a byte order mark, which sh takes for a part of the first word, begins {scripts}; save without it"
            ));
        }
        if let Some(scripts) = those(|found| found.has_crlf) {
            self.show.note(&format!(
                "line ends are those of Windows (CRLF), which sh does not understand, in {scripts}; convert them to LF"
            ));
        }
        let (scripts, interpreters): (Vec<_>, Vec<_>) =
            found.into_iter().filter_map(|(script, found)| Some((script, found.interpreter?))).unzip();
        if let Some(first) = interpreters.first() {
            let scripts = named(&scripts);
            self.show
                .note(&format!("scripts run with /bin/sh, whatever their first line names (`#!{first}`): {scripts}"));
        }
    }

    /// Who has a makefile most likely wants it to be used.
    pub(super) fn tell_unused_makefile(&self, setup: &TestSetup) {
        let makefile = MAKEFILES.into_iter().find(|file| setup.dir.join(file).is_file());
        let Some(makefile) = makefile.filter(|_| setup.make.is_none()) else { return };
        let mut scripts = setup.entries.iter().filter_map(|entry| read_config(&setup.dir.join(&entry.script)).ok());
        if scripts.any(|script| names_make(&script)) {
            return;
        }
        let why = if setup.dir.join(MANIFEST).exists() {
            "the manifest has no `makefile`".to_owned()
        } else {
            format!("there is no {MANIFEST} with the key `makefile`")
        };
        self.show.note(&format!("make is not run, though the set-up has a `{makefile}`: {why}"));
    }

    pub(super) fn tell_equal_names(&self, setup: &TestSetup) {
        let mut first = BTreeMap::new();
        for entry in &setup.entries {
            if let Some(other) = first.insert(entry.display_name(), &entry.script) {
                let (name, script) = (entry.display_name(), &entry.script);
                self.show.warning(&format!(
                    "`{other}` and `{script}` have the same name, `{name}`; nobody can tell their results apart"
                ));
            }
        }
    }

    /// Whoever hands in nothing most likely has named another folder than they meant.
    pub(super) fn tell_empty(&self, dir: &Path) {
        let is_empty = Tree::list(dir).is_ok_and(|tree| tree.files().next().is_none());
        if let Some(named) = self.order.submission.as_ref().filter(|_| is_empty) {
            self.show.note(&format!("the submission `{}` is empty: there is no file in it", named.display()));
        }
    }

    /// A file is handed in as it is, as a worker does. Whoever names another archive than a zip may have meant what is in it.
    pub(super) fn tell_archive(&self, path: &Path) {
        let is_called = |known: &&str| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(known));
        if ARCHIVES.iter().any(is_called) || begins_as_zip(path) {
            let path = path.display();
            self.show
                .note(&format!("`{path}` is handed in as one file; for what is in it, unpack it and name the folder"));
        }
    }

    /// Each test of a program that make has built fails, and does not tell why.
    pub(super) fn tell_noexec(&self) {
        let temp_dir = self.settings.temp_dir.display();
        self.show.note(&format!(
            "`{temp_dir}` is mounted noexec: programs that are built there cannot be executed; set TMPDIR to another folder"
        ));
    }

    /// What a script says of a program that it does not find does not tell that the sandbox hides it.
    pub(super) fn tell_hidden_programs(&self) {
        let Some(SandboxSettings { shows, .. }) = &self.sandbox else { return };
        let is_hidden = |dir: &PathBuf| dir.is_absolute() && dir.is_dir() && shown_by(dir, shows).is_none();
        let hidden = std::env::split_paths(&self.settings.search_path).filter(is_hidden);
        let mut hidden: Vec<_> = hidden.map(|dir| dir.display().to_string()).collect();
        let mut known = BTreeSet::new();
        hidden.retain(|dir| known.insert(dir.clone()));
        if !hidden.is_empty() {
            self.show.note(&format!(
                "scripts in the sandbox do not see these folders of PATH: {}; if they need what is there, name it in RUNNER_SANDBOX_SHOWS",
                named(&hidden)
            ));
        }
    }
}

/// Source: APPNOTE.TXT 6.3.10, "4.3.7 Local file header".
fn begins_as_zip(path: &Path) -> bool {
    let mut start = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && &start == b"PK\x03\x04"
}

/// Returns a list of the first ones, and how many more there are.
fn named(words: &[String]) -> String {
    let first = words.iter().take(NAMED_MAX).map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    let more = words.len().saturating_sub(NAMED_MAX);
    if more > 0 { format!("{first} and {more} more") } else { first }
}
