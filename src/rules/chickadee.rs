//! STUB.
use crate::model::script::*;
use crate::model::setup::*;
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TestStatus {
    Pass,
    Fail,
    Error,
    Timeout,
}
impl TestStatus {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Error => "error",
            Self::Timeout => "timeout",
        }
    }
}
impl Tier {
    pub(crate) fn as_str(self) -> &'static str {
        "public"
    }
}
pub(crate) struct TestOutcome {
    pub(crate) status: TestStatus,
    pub(crate) tier: Tier,
    pub(crate) short_result: String,
    pub(crate) long_result: Option<String>,
    pub(crate) points: u32,
    pub(crate) execution_time_ms: u64,
}
pub(crate) fn outcome_of(e: &ScriptEntry, c: &Completion, _a: u32) -> TestOutcome {
    TestOutcome {
        status: if c.exit == Exit::Code(0) { TestStatus::Pass } else { TestStatus::Fail },
        tier: e.tier,
        short_result: "x".into(),
        long_result: None,
        points: e.points,
        execution_time_ms: c.wall.as_millis() as u64,
    }
}
pub(crate) fn skipped_outcome(e: &ScriptEntry, p: &str) -> TestOutcome {
    TestOutcome {
        status: TestStatus::Fail,
        tier: e.tier,
        short_result: format!("Skipped: prerequisite '{p}' did not pass"),
        long_result: None,
        points: e.points,
        execution_time_ms: 0,
    }
}
pub(crate) fn compiler_output(c: &Completion) -> String {
    String::from_utf8_lossy(&c.stderr.head).into_owned()
}
