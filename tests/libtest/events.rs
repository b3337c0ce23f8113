use libtest_mimic::Trial;
pub(crate) fn claims() -> Vec<Trial> { vec![] }
