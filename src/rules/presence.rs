//! STUB.
use crate::model::snapshot::Snapshot;
use crate::model::suite::*;
use crate::model::verdict::*;
use std::path::Path;
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub(crate) struct AppletListError;
pub(crate) fn parse_applets(_f: &Path, text: &[u8]) -> Result<Vec<String>, AppletListError> {
    Ok(String::from_utf8_lossy(text)
        .lines()
        .map(str::to_owned)
        .filter(|l| !l.starts_with('#') && !l.is_empty())
        .collect())
}
pub(crate) struct PresenceReport;
impl PresenceReport {
    pub(crate) fn findings(&self) -> Vec<Finding> {
        vec![]
    }
}
pub(crate) fn judge_presence(
    _r: &PresenceRules,
    _a: &[String],
    _c: PresenceClaim,
    _s: &Snapshot,
    _o: &str,
    _l: ProductLog,
) -> PresenceReport {
    PresenceReport
}
pub(crate) fn snapshot_paths(p: &Project, s: &Suite, a: &[String]) -> Vec<String> {
    p.snapshot
        .iter()
        .chain(&s.snapshot)
        .flat_map(|t| {
            if t.contains("{applet}") {
                a.iter().map(|x| t.replace("{applet}", x)).collect::<Vec<_>>()
            } else {
                vec![t.clone()]
            }
        })
        .collect()
}
pub(crate) fn infer(_e: &str) -> PresenceClaim {
    PresenceClaim::None
}
