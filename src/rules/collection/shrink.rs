//! Making a collection smaller, for a server that takes no large ones.

use super::Collection;

/// What is left of a text that is cut, at least.
const CUT_TEXT_BYTES_MIN: usize = 256;
/// For the words that say how much was cut.
const MARKER_BYTES_MAX: usize = 64;

impl Collection {
    /// Cuts every long text to half of what the longest has, and tells whether there was one to cut.
    pub(crate) fn shrink(&mut self) -> bool {
        let texts =
            || self.outcomes.iter().filter_map(|outcome| outcome.long_result.as_ref()).chain(&self.compiler_output);
        let longest = texts().map(String::len).max().unwrap_or(0);
        if longest <= 2 * CUT_TEXT_BYTES_MIN {
            return false;
        }
        let long_results = self.outcomes.iter_mut().filter_map(|outcome| outcome.long_result.as_mut());
        long_results.chain(&mut self.compiler_output).for_each(|text| cut(text, longest / 2));
        true
    }
}

/// Keeps the beginning and the end of a text that has more than `bytes_max`.
fn cut(text: &mut String, bytes_max: usize) {
    if text.len() <= bytes_max {
        return;
    }
    let half = bytes_max.saturating_sub(MARKER_BYTES_MAX) / 2;
    let is_end = |at: &usize| text.is_char_boundary(*at);
    let head = (0..=half).rev().find(is_end).unwrap_or(0);
    let tail = (text.len() - half..text.len()).find(is_end).unwrap_or(text.len());
    *text = format!("{}\n[... {} bytes cut here ...]\n{}", &text[..head], tail - head, &text[tail..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::collection::{BuildStatus, Ids, Times};

    fn collection(compiler_output: Option<String>) -> Collection {
        let ids = Ids { submission_id: String::new(), test_setup_id: String::new(), attempt_number: 1 };
        let times = Times { started_at: String::new(), finished_at: String::new() };
        Collection { compiler_output, ..Collection::new(ids, BuildStatus::Failed, Vec::new(), times) }
    }

    #[test]
    fn texts_are_halved_until_all_are_short() {
        let mut collection = collection(Some("ä".repeat(1 << 20)));
        let mut longest = 2 << 20;
        let mut rounds = 0;
        while collection.shrink() {
            let text = collection.compiler_output.as_ref().unwrap();
            assert!(text.len() <= longest / 2 && text.contains(" bytes cut here ...]"), "{} of {longest}", text.len());
            longest = text.len();
            rounds += 1;
        }
        assert!(longest <= 2 * CUT_TEXT_BYTES_MIN && rounds >= 12, "{longest} after {rounds}");
        assert!(collection.compiler_output.unwrap().starts_with("ää"));
    }

    #[test]
    fn short_texts_stay_as_they_are() {
        for text in [None, Some("x".repeat(2 * CUT_TEXT_BYTES_MIN))] {
            let mut collection = collection(text.clone());
            assert!(!collection.shrink());
            assert_eq!(collection.compiler_output, text);
        }
    }

    #[test]
    fn the_beginning_and_the_end_are_kept_and_the_gap_is_counted() {
        let mut text = format!("begin{}end", "x".repeat(10_000));
        cut(&mut text, 1064);
        assert!(text.starts_with("begin") && text.ends_with("end") && text.len() <= 1064, "{text}");
        assert!(text.contains("\n[... 9008 bytes cut here ...]\n"), "{text}");
    }
}
