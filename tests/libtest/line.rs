//! Command lines: how they are written here, looked at, and made of all pairs of what may stand in one.

use std::collections::BTreeSet;
use std::fmt;

/// Options of libtest that take a value.
const VALUED: [&str; 7] = ["--logfile", "--test-threads", "--skip", "--color", "--format", "--shuffle-seed", "-Z"];

/// A command line and the variables that go with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Line {
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) arguments: Vec<String>,
}

impl Line {
    /// Reads words between blanks: `RUST_…=value` is a variable, `''` an empty word, `·` a blank within a word.
    pub(crate) fn of(text: &str) -> Self {
        let mut line = Self::default();
        for word in text.split_whitespace() {
            let word = if word == "''" { String::new() } else { word.replace('·', " ") };
            match word.split_once('=') {
                Some((name, value)) if name.starts_with("RUST") => line.variables.push((name.into(), value.into())),
                Some(_) | None => line.arguments.push(word),
            }
        }
        line
    }

    /// Arguments that are no filters for sure.
    fn options(&self) -> impl Iterator<Item = &str> {
        self.arguments.iter().map(String::as_str).take_while(|argument| *argument != "--")
    }

    /// How often an option stands there.
    pub(crate) fn count(&self, option: &str) -> usize {
        self.options().filter(|argument| is_option(argument, option)).count()
    }

    /// Tells whether an option stands there once: twice is an error, on both sides.
    pub(crate) fn has(&self, option: &str) -> bool {
        self.count(option) == 1
    }

    /// The value of an option that stands there once.
    pub(crate) fn value(&self, option: &str) -> Option<&str> {
        let at = self.options().position(|argument| is_option(argument, option))?;
        let inline = self.arguments[at].split_once('=').map(|(_, value)| value);
        inline.or_else(|| self.arguments.get(at + 1).map(String::as_str)).filter(|_| self.has(option))
    }

    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The same without an option that stands there once, and rightly: with its value, or without one.
    pub(crate) fn without(&self, option: &str) -> Self {
        let mut line = self.clone();
        if let Some(at) = self.options().position(|argument| is_option(argument, option)).filter(|_| self.has(option)) {
            let is_inline = self.arguments[at].contains('=');
            let words = if VALUED.contains(&option) && !is_inline { 2 } else { 1 };
            let is_right = at + words <= self.arguments.len() && (!is_inline || VALUED.contains(&option));
            line.arguments.drain(at..if is_right { at + words } else { at });
        }
        line
    }

    /// The words that are no options.
    pub(crate) fn filters(&self) -> Vec<&str> {
        let end = self.options().count();
        let mut words = self.options();
        let mut filters = Vec::new();
        while let Some(word) = words.next() {
            if VALUED.contains(&word) {
                words.next();
            } else if !word.starts_with('-') || word == "-" {
                filters.push(word);
            }
        }
        filters.extend(self.arguments.iter().skip(end + 1).map(String::as_str));
        filters
    }

    pub(crate) fn without_variables(&self, start: &str) -> Self {
        let mut line = self.clone();
        line.variables.retain(|(name, _)| !name.starts_with(start));
        line
    }

    /// The same with other words in front.
    pub(crate) fn after(&self, words: &str) -> Self {
        let mut line = Self::of(words);
        line.variables.extend(self.variables.iter().cloned());
        line.arguments.extend(self.arguments.iter().cloned());
        line
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variables = self.variables.iter().map(|(name, value)| format!("{name}={value:?} "));
        let arguments = self.arguments.iter().map(|argument| format!(" {argument:?}"));
        write!(f, "{}suites{}", variables.collect::<String>(), arguments.collect::<String>())
    }
}

fn is_option(argument: &str, option: &str) -> bool {
    argument.strip_prefix(option).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
}

/// Lines in which every two levels of two factors stand together at least once: a level of each factor, in the factors' order.
pub(crate) fn pairs(factors: &[&[&str]]) -> Vec<Line> {
    let mut open: BTreeSet<[(usize, usize); 2]> = BTreeSet::new();
    for (one, levels) in factors.iter().enumerate() {
        for (other, others) in factors.iter().enumerate().skip(one + 1) {
            let both = (0..levels.len()).flat_map(|a| (0..others.len()).map(move |b| [(one, a), (other, b)]));
            open.extend(both);
        }
    }
    let mut lines = Vec::new();
    while let Some(first) = open.first().copied() {
        let chosen = row(factors, &open, first);
        open.retain(|pair| !pair.iter().all(|(factor, level)| chosen[*factor] == *level));
        let words: Vec<_> = chosen.iter().zip(factors).map(|(level, levels)| levels[*level]).collect();
        lines.push(Line::of(&words.join(" ")));
    }
    lines
}

/// A row with `first` in it, and of the open pairs as many as can be had by taking the best level of each factor in turn.
fn row(factors: &[&[&str]], open: &BTreeSet<[(usize, usize); 2]>, first: [(usize, usize); 2]) -> Vec<usize> {
    let mut chosen = vec![None; factors.len()];
    for (factor, level) in first {
        chosen[factor] = Some(level);
    }
    for factor in 0..factors.len() {
        if chosen[factor].is_some() {
            continue;
        }
        let gain = |level: usize| {
            let is_open = |(other, taken): (usize, &Option<usize>)| {
                let mut pair = [(factor, level), (other, (*taken)?)];
                pair.sort_unstable();
                open.contains(&pair).then_some(())
            };
            chosen.iter().enumerate().filter_map(is_open).count()
        };
        chosen[factor] = (0..factors[factor].len()).rev().max_by_key(|level| gain(*level));
    }
    chosen.into_iter().flatten().collect()
}
