//! The text of summary.json: it grows with every trial, and what is written for one does not grow with it.

use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Counts, Head, Status, Tail};

/// One trial of a summary, rendered.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) status: Status,
    pub(crate) text: Box<RawValue>,
}

/// The trials of a summary: a line each, in the order of their names.
#[derive(Debug, Default)]
pub(crate) struct TrialList {
    /// As it stands between the brackets: of each trial a line end and its record, commas between them.
    text: Vec<u8>,
    trials: Vec<Placed>,
    /// What stood before it where it was taken from.
    before: Vec<u8>,
}

#[derive(Debug)]
struct Placed {
    name: String,
    status: Status,
    /// Where its record is.
    at: Range<usize>,
}

/// What stands before the list in the text of a summary, and behind it.
const LIST_BEGINS: &str = "\"suites\":[";
const LIST_ENDS: &str = "\n],\"selected\":";

impl TrialList {
    /// Takes the trials out of the text of a summary. Returns them, and the text of all else.
    ///
    /// Under nextest each process of a run does this to all trials before it. So a text that is as `SummaryText` writes it is only cut
    /// into lines; any other, such as one that was edited, is read as the JSON that it should be.
    ///
    /// # Errors
    /// If it is no summary.
    pub(crate) fn take(mut summary: Vec<u8>) -> serde_json::Result<(Self, Vec<u8>)> {
        let Some((trials, list)) = std::str::from_utf8(&summary).ok().and_then(Self::cut) else {
            return Self::parse(&summary);
        };
        let before = summary[..list.start].to_vec();
        let rest = [&before, &summary[list.end..]].concat();
        // In place: of many trials it is large, and each new page of memory costs time.
        summary.truncate(list.end);
        summary.drain(..list.start);
        Ok((Self { text: summary, trials, before }, rest))
    }

    /// Returns the trials, and where their list is.
    fn cut(summary: &str) -> Option<(Vec<Placed>, Range<usize>)> {
        let begin = summary.find(LIST_BEGINS)? + LIST_BEGINS.len();
        let end = summary.rfind(LIST_ENDS)?;
        let text = summary.get(begin..end)?;
        let mut trials: Vec<Placed> = Vec::new();
        let mut start = 0;
        for line in text.split('\n') {
            if start == 0 && !line.is_empty() {
                return None;
            }
            if start > 0 {
                let (name, status) = beginning(line)?;
                if trials.last().is_some_and(|last| *last.name >= *name) {
                    return None;
                }
                let len = line.strip_suffix(',').unwrap_or(line).strip_suffix('}')?.len() + 1;
                trials.push(Placed { name: name.to_owned(), status, at: start..start + len });
            }
            start += line.len() + 1;
        }
        Some((trials, begin..end))
    }

    fn parse(summary: &[u8]) -> serde_json::Result<(Self, Vec<u8>)> {
        #[derive(Deserialize)]
        struct Beginning {
            name: String,
            status: Status,
        }
        let mut all: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(summary)?;
        let trials = all.insert("suites".to_owned(), serde_json::Value::Array(Vec::new())).unwrap_or_default();
        let mut list = Self::default();
        for trial in serde_json::from_value::<Vec<serde_json::Value>>(trials)? {
            let text = serde_json::value::to_raw_value(&trial)?;
            let Beginning { name, status } = serde_json::from_value(trial)?;
            list.insert(&name, &Entry { status, text });
        }
        Ok((list, serde_json::to_vec(&all)?))
    }

    /// Returns the names of those that stand so.
    pub(crate) fn names(&self, status: Status) -> Vec<String> {
        self.trials.iter().filter(|trial| trial.status == status).map(|trial| trial.name.clone()).collect()
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.trials.binary_search_by(|trial| trial.name.as_str().cmp(name))
    }

    /// Adds a trial, or replaces it. Returns from which byte on the text is another.
    fn insert(&mut self, name: &str, entry: &Entry) -> usize {
        let record = entry.text.get().as_bytes();
        match self.find(name) {
            Ok(index) => self.replace(index, entry.status, record),
            Err(index) => {
                let is_last = index == self.trials.len();
                let at = self.trials.get(index).map_or(self.text.len(), |next| next.at.start - 1);
                let (before, behind) = match (is_last, at) {
                    (true, 0) => ("\n", ""),
                    (true, _) => (",\n", ""),
                    (false, _) => ("\n", ","),
                };
                let start = at + before.len();
                let placed = Placed { name: name.to_owned(), status: entry.status, at: start..start + record.len() };
                self.text.splice(at..at, [before.as_bytes(), record, behind.as_bytes()].concat());
                let longer = before.len() + record.len() + behind.len();
                self.shift(index, |at| at + longer);
                self.trials.insert(index, placed);
                at
            }
        }
    }

    fn replace(&mut self, index: usize, status: Status, record: &[u8]) -> usize {
        let Some(placed) = self.trials.get_mut(index) else { return self.text.len() };
        let old = placed.at.clone();
        placed.status = status;
        placed.at = old.start..old.start + record.len();
        self.text.splice(old.clone(), record.iter().copied());
        self.shift(index + 1, |at| at + record.len() - old.len());
        old.start
    }

    fn shift(&mut self, from: usize, shifted: impl Fn(usize) -> usize) {
        for placed in self.trials.iter_mut().skip(from) {
            placed.at = shifted(placed.at.start)..shifted(placed.at.end);
        }
    }

    /// Says of every trial that is still marked as running that it will never be judged. Returns from which byte on the text is
    /// another, if there is one.
    fn interrupt(&mut self) -> Option<usize> {
        let running: Vec<_> =
            (0..self.trials.len()).filter(|index| self.trials[*index].status == Status::Running).collect();
        let changes = running.into_iter().map(|index| {
            let record = String::from_utf8_lossy(&self.text[self.trials[index].at.clone()]);
            let record = record.replacen("\"status\":\"running\"", "\"status\":\"interrupted\"", 1);
            self.replace(index, Status::Interrupted, record.as_bytes())
        });
        changes.min()
    }
}

/// Returns the name and the status that a record begins with, if it is as we write it.
fn beginning(record: &str) -> Option<(&str, Status)> {
    let (name, rest) = record.strip_prefix("{\"name\":\"")?.split_once('"')?;
    let rest = rest.strip_prefix(",\"kind\":\"")?;
    let rest = rest.strip_prefix("suite").or_else(|| rest.strip_prefix("script"))?;
    let (status, _) = rest.strip_prefix("\",\"status\":\"")?.split_once('"')?;
    let all = [Status::Pass, Status::Fail, Status::Running, Status::Interrupted];
    let status = all.into_iter().find(|known| known.as_str() == status)?;
    (!name.contains('\\')).then_some((name, status))
}

/// The text of summary.json. A trial that is added in the order of names changes only its end, so that what is written for one does
/// not grow with their number.
#[derive(Debug)]
pub(crate) struct SummaryText {
    /// What stands before the list.
    head: Vec<u8>,
    list: TrialList,
    /// What was rendered last to stand behind it.
    tail: Vec<u8>,
    /// Leading bytes that are as they were in the last rendering.
    unchanged: usize,
}

impl SummaryText {
    /// Begins a summary, or goes on with the one that `list` was taken from. A trial of it that is still marked as running will never
    /// be judged.
    ///
    /// # Errors
    /// None that is known.
    pub(crate) fn new(head: &Head<'_>, mut list: TrialList) -> serde_json::Result<Self> {
        let mut head = serde_json::to_vec(head)?;
        // The object goes on.
        head.pop();
        head.push(b',');
        head.extend_from_slice(LIST_BEGINS.as_bytes());
        let from = list.interrupt().unwrap_or(list.text.len());
        let unchanged = if list.before == head { head.len() + from } else { 0 };
        Ok(Self { head, list, tail: Vec::new(), unchanged })
    }

    /// Adds a trial, or replaces it.
    pub(crate) fn insert(&mut self, name: &str, entry: &Entry) {
        let at = self.head.len() + self.list.insert(name, entry);
        self.unchanged = self.unchanged.min(at);
    }

    /// Says of every trial that is still marked as running that it will never be judged.
    pub(crate) fn interrupt(&mut self) {
        if let Some(at) = self.list.interrupt() {
            self.unchanged = self.unchanged.min(self.head.len() + at);
        }
    }

    /// Returns a trial's record.
    pub(crate) fn record(&self, name: &str) -> Option<&[u8]> {
        let placed = self.list.find(name).ok().and_then(|index| self.list.trials.get(index))?;
        self.list.text.get(placed.at.clone())
    }

    /// Returns how a trial stands.
    pub(crate) fn status(&self, name: &str) -> Option<Status> {
        self.list.find(name).ok().and_then(|index| self.list.trials.get(index)).map(|placed| placed.status)
    }

    /// Returns how many trials ended how.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.list.trials.iter().for_each(|placed| counts.add(placed.status));
        counts
    }

    /// Returns how many trials there are.
    pub(crate) fn len(&self) -> usize {
        self.list.trials.len()
    }

    /// Returns the whole text, in parts, and how many leading bytes of it are as they were the last time, or where it was taken from.
    ///
    /// # Errors
    /// None that is known.
    pub(crate) fn render(&mut self, tail: &Tail<'_>) -> serde_json::Result<([&[u8]; 3], usize)> {
        let rest = serde_json::to_vec(tail)?;
        self.tail = [b"\n],", rest.strip_prefix(b"{").unwrap_or(&rest)].concat();
        let list_end = self.head.len() + self.list.text.len();
        let unchanged = std::mem::replace(&mut self.unchanged, list_end);
        Ok(([&self.head, &self.list.text, &self.tail], unchanged))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Record, SCHEMA, TrialKind};
    use super::*;

    const TAIL: Tail<'_> = Tail {
        selected: 3,
        not_selected: 0,
        counts: Counts { pass: 0, fail: 0, running: 0, interrupted: 0 },
        stages: &[],
        interrupted: false,
        finished_at: None,
        harness_policy: None,
        shards: None,
    };

    const HEAD: Head<'_> = Head {
        schema: SCHEMA,
        run_id: "r",
        distro: "debian",
        container_id: None,
        started_at: "",
        isolation: "none",
        sandbox: false,
        product: None,
        runner_version: "0",
        revision: None,
        traces: None,
    };

    fn summary() -> SummaryText {
        SummaryText::new(&HEAD, TrialList::default()).unwrap()
    }

    fn entry(name: &str, status: Status) -> Entry {
        let text = serde_json::value::to_raw_value(&Record::new(name, TrialKind::Suite, status)).unwrap();
        Entry { status, text }
    }

    fn shown(summary: &mut SummaryText) -> Vec<(String, String)> {
        let value: serde_json::Value = serde_json::from_slice(&summary.render(&TAIL).unwrap().0.concat()).unwrap();
        assert_eq!((&value["run_id"], &value["selected"]), (&"r".into(), &3.into()));
        let trials = value["suites"].as_array().unwrap().iter();
        trials.map(|trial| ["name", "status"].map(|key| trial[key].as_str().unwrap().to_owned()).into()).collect()
    }

    #[test]
    fn trials_stand_in_the_order_of_names_however_they_came() {
        let mut summary = summary();
        assert_eq!(shown(&mut summary), []);
        for (name, status) in [
            ("b", Status::Running),
            ("a", Status::Running),
            ("c", Status::Pass),
            ("a", Status::Fail),
            ("c", Status::Fail),
        ] {
            summary.insert(name, &entry(name, status));
        }
        let expected = |b: &str| [("a", "fail"), ("b", b), ("c", "fail")].map(|(n, s)| (n.to_owned(), s.to_owned()));
        assert_eq!(shown(&mut summary), expected("running"));
        assert_eq!(summary.counts(), Counts { pass: 0, fail: 2, running: 1, interrupted: 0 });
        summary.interrupt();
        assert_eq!(shown(&mut summary), expected("interrupted"));
        assert_eq!(summary.counts(), Counts { pass: 0, fail: 2, running: 0, interrupted: 1 });
    }

    #[test]
    fn what_is_said_to_be_unchanged_is() {
        let mut summary = summary();
        let mut last = Vec::new();
        for (name, status) in [
            ("b", Status::Running),
            ("b", Status::Pass),
            ("c", Status::Running),
            ("a", Status::Pass),
            ("d", Status::Pass),
        ] {
            summary.insert(name, &entry(name, status));
            let (parts, unchanged) = summary.render(&TAIL).unwrap();
            let text = parts.concat();
            assert_eq!(text.get(..unchanged), last.get(..unchanged), "{name}");
            // In order, nothing before the trial itself is touched.
            assert_eq!(unchanged > 400, name == "c" || name == "d", "{name}: {unchanged}");
            last = text;
        }
    }

    #[test]
    fn what_was_written_is_taken_up_again_and_so_is_what_was_edited() {
        let mut first = summary();
        for (name, status) in [("a", Status::Pass), ("c", Status::Running), ("b", Status::Fail)] {
            first.insert(name, &entry(name, status));
        }
        let text = first.render(&TAIL).unwrap().0.concat();
        assert!(TrialList::cut(std::str::from_utf8(&text).unwrap()).is_some(), "it would be read as any JSON");
        let edited = serde_json::to_vec_pretty(&serde_json::from_slice::<serde_json::Value>(&text).unwrap()).unwrap();
        let drawn_up = String::from_utf8(text.clone()).unwrap().replace("[\n{", "[{").into_bytes();
        for text in [text, edited, drawn_up] {
            let (list, rest) = TrialList::take(text).unwrap();
            assert_eq!(list.names(Status::Running), ["c"]);
            let rest: serde_json::Value = serde_json::from_slice(&rest).unwrap();
            assert_eq!(
                (&rest["run_id"], &rest["suites"], &rest["selected"]),
                (&"r".into(), &serde_json::json!([]), &3.into())
            );
            let mut again = SummaryText::new(&HEAD, list).unwrap();
            again.insert("bb", &entry("bb", Status::Pass));
            let expected = [("a", "pass"), ("b", "fail"), ("bb", "pass"), ("c", "interrupted")];
            assert_eq!(shown(&mut again), expected.map(|(name, status)| (name.to_owned(), status.to_owned())));
        }
    }

    #[test]
    fn what_is_no_summary_is_none() {
        for text in ["", "{", "[]", "{\"suites\":[\n{\"name\":\"a\"\n],\"selected\":1}", "{\"suites\":[{\"name\":1}]}"]
        {
            assert!(TrialList::take(text.into()).is_err(), "{text}");
        }
    }
}
