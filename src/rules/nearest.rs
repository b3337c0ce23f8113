//! Which known word a misspelt word was meant to be.

/// Returns the candidate that `word` was most likely meant to be; of equally near ones, the first.
///
/// Case and `_` for `-` do not count. Near is an edit distance (swapped neighbours count once) of a third of the word, or
/// a whole word within the other: `timeout` is near `kill-timeout`.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    ranked(word, candidates).into_iter().next()
}

/// Returns every candidate that is near, nearest first, in the order of `candidates` where they are equally near.
pub(crate) fn ranked<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let plain = plain(word);
    let mut near: Vec<(usize, &str)> =
        candidates.into_iter().filter_map(|candidate| Some((distance(&plain, candidate)?, candidate))).collect();
    near.sort_by_key(|(distance, _)| *distance);
    near.into_iter().map(|(_, candidate)| candidate).collect()
}

/// Tells whether `word` is `meant`, or at most `edits_max` edits away from it: case, and `_` for `-`, do not count.
pub(crate) fn is_within(edits_max: usize, word: &str, meant: &str) -> bool {
    let [word, meant] = [word, meant].map(plain);
    word.chars().count() <= CHARS_MAX && strsim::osa_distance(&word, &meant) <= edits_max
}

/// Longer words are not compared: the time it takes grows with the product of the lengths.
const CHARS_MAX: usize = 100;

fn distance(word: &str, candidate: &str) -> Option<usize> {
    let candidate = plain(candidate);
    let length = word.chars().count().max(candidate.chars().count());
    if length > CHARS_MAX {
        return None;
    }
    let edits = strsim::osa_distance(word, &candidate);
    let shares_a_word =
        word.len().min(candidate.len()) >= 3 && (contains(&candidate, word) || contains(word, &candidate));
    (edits <= (length / 3).max(1) || shares_a_word).then_some(edits)
}

fn contains(text: &str, words: &str) -> bool {
    text.split(['-', '/', '.']).any(|part| part == words)
        || text.contains(&format!("-{words}"))
        || text.starts_with(words)
}

fn plain(word: &str) -> String {
    let mut plain = String::with_capacity(word.len());
    for c in word.chars() {
        if c.is_uppercase() && plain.chars().next_back().is_some_and(char::is_lowercase) {
            plain.push('-');
        }
        plain.extend(c.to_lowercase().map(|c| if c == '_' { '-' } else { c }));
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_word_finds_the_one_that_was_meant() {
        let words = ["summary", "execute", "restore", "kill-timeout", "distro-check", "debug"];
        for (word, meant) in [
            ("restroe", Some("restore")),
            ("Execute", Some("execute")),
            ("excute", Some("execute")),
            ("timeout", Some("kill-timeout")),
            ("kill_timeout", Some("kill-timeout")),
            ("killTimeout", Some("kill-timeout")),
            ("distro", Some("distro-check")),
            ("artifacts", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, words), meant, "{word}");
        }
    }

    #[test]
    fn of_equally_near_words_the_first_wins() {
        assert_eq!(nearest("bat", ["cat", "hat"]), Some("cat"));
        assert_eq!(
            ranked("40-enable", ["10-disable", "40-enable-partial", "41-enable"]),
            ["41-enable", "40-enable-partial"]
        );
    }

    #[test]
    fn very_long_words_are_near_nothing() {
        assert_eq!(nearest(&"a".repeat(1_000_000), ["aaa"]), None);
    }
}
