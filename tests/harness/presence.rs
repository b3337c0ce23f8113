//! What the applets must look like after `execute`.

use libtest_mimic::Trial;

use crate::world::{Project, Record, claim};

pub(crate) fn claims() -> Vec<Trial> {
    vec![
        claim(linked_wants_a_link_of_every_provided_applet),
        claim(unlinked_wants_no_link_of_any_provided_applet),
        claim(a_preserved_applet_is_not_looked_at),
        claim(none_claims_nothing),
        claim(an_applet_without_a_provider_needs_a_warning),
        claim(a_warning_of_anybody_else_does_not_count),
        claim(a_unified_provider_provides_every_applet),
        claim(a_claim_may_be_inferred),
        claim(a_report_is_kept),
        claim(an_applet_list_that_is_empty_is_an_error),
    ]
}

/// `ls` and `cat` are provided, `who` is not, `b2sum` is preserved.
fn project(applets: &str) -> Project {
    let settings = "\
product: {name: tool, build: none, bin: bin/tool}
presence:
  applets: applets.txt
  target: \"usr/bin/{applet}\"
  providers: [\"providers/uu-{applet}\"]
  unified: [unified/coreutils]
  preserve: [b2sum]
";
    let project = Project::with(settings);
    project.file("applets.txt", applets);
    project.program("bin/tool", "#!/bin/sh\necho \"$@\"\n");
    for applet in ["ls", "cat", "who", "b2sum"] {
        project.program(&format!("usr/bin/{applet}"), "#!/bin/sh\n");
    }
    for applet in ["ls", "cat", "b2sum"] {
        project.program(&format!("providers/uu-{applet}"), "#!/bin/sh\n");
    }
    project
}

const LINK: &str = "ln -sf ../../providers/uu-";

fn run(project: &Project, name: &str, claim: &str, execute: &str) -> Record {
    let keys = [("execute", execute), ("presence", claim)];
    let restore = ("restore", "for applet in ls cat who b2sum; do rm -f usr/bin/$applet; echo >usr/bin/$applet; done");
    let keys = if claim.is_empty() { vec![keys[0], restore] } else { vec![keys[0], keys[1], restore] };
    project.suite(name, &keys);
    project.run(&["--exact", name]);
    project.record(name)
}

fn linked_wants_a_link_of_every_provided_applet() {
    let project = project("ls\ncat\n");
    let both = format!("{LINK}ls usr/bin/ls; {LINK}cat usr/bin/cat");
    let record = run(&project, "10-a", "linked", &both);
    record.assert_pass();
    assert_eq!((&record.0["presence_ok"], &record.0["presence"]), (&true.into(), &"declared".into()));
    let record = run(&project, "20-b", "linked", &format!("{LINK}ls usr/bin/ls"));
    record.assert_fail("cat");
    assert!(!record.findings().contains("presence of ls"), "{}", record.findings());
    assert_eq!(record.0["presence_ok"], false);
    let record = run(&project, "30-c", "linked", "rm usr/bin/ls usr/bin/cat");
    record.assert_fail("ls").assert_fail("cat");
}

fn unlinked_wants_no_link_of_any_provided_applet() {
    let project = project("ls\ncat\n");
    run(&project, "10-a", "unlinked", "true").assert_pass();
    let record = run(&project, "20-b", "unlinked", &format!("{LINK}ls usr/bin/ls"));
    record.assert_fail("ls");
    assert!(!record.findings().contains("presence of cat"), "{}", record.findings());
}

fn a_preserved_applet_is_not_looked_at() {
    let project = project("ls\nb2sum\n");
    run(&project, "10-a", "linked", &format!("{LINK}ls usr/bin/ls")).assert_pass();
    run(&project, "20-b", "unlinked", &format!("{LINK}b2sum usr/bin/b2sum")).assert_pass();
}

fn none_claims_nothing() {
    let project = project("ls\nwho\n");
    let record = run(&project, "10-a", "none", &format!("{LINK}ls usr/bin/ls"));
    record.assert_pass();
    assert!(record.0["presence_ok"].is_null(), "{:#}", record.0);
}

fn an_applet_without_a_provider_needs_a_warning() {
    let project = project("ls\nwho\n");
    let link = format!("{LINK}ls usr/bin/ls");
    let table = [
        ("10-no-call", String::new(), false),
        ("20-no-warning", "tool enabled".to_owned(), false),
        ("30-warning", "tool '2026-01-01 WARN swap: no provider for who, left alone'".to_owned(), true),
        ("40-on-stderr", "tool 'WARN who' >&2".to_owned(), true),
        ("50-discarded", "tool 'WARN who' >/dev/null 2>&1".to_owned(), true),
        ("60-part-of-a-word", "tool 'WARN whoami is absent'".to_owned(), false),
        ("70-not-a-warning", "tool 'INFO who is absent'".to_owned(), false),
        ("80-another-line", "tool 'WARN something'; tool 'who'".to_owned(), false),
    ];
    for (name, call, passes) in table {
        let record = run(&project, name, "linked", &format!("{link}\n{call}"));
        assert_eq!(record.status(), if passes { "pass" } else { "fail" }, "{call}: {:#}", record.0);
        assert!(passes || record.findings().contains("who"), "{}", record.findings());
    }
}

fn a_warning_of_anybody_else_does_not_count() {
    let project = project("ls\nwho\n");
    let execute = format!("{LINK}ls usr/bin/ls; tool enabled; echo 'WARN who is absent'; echo 'WARN who' >&2");
    run(&project, "10-a", "linked", &execute).assert_fail("who");
}

fn a_unified_provider_provides_every_applet() {
    let project = project("who\n");
    project.program("unified/coreutils", "#!/bin/sh\n");
    run(&project, "10-a", "linked", "ln -sf ../../unified/coreutils usr/bin/who").assert_pass();
    run(&project, "20-b", "linked", "tool 'WARN who'").assert_fail("who");
}

fn a_claim_may_be_inferred() {
    let project = project("ls\n");
    let link = format!("tool enable; {LINK}ls usr/bin/ls");
    let record = run(&project, "10-a", "", &link);
    record.assert_pass();
    assert_eq!((&record.0["presence"], &record.0["presence_ok"]), (&"inferred".into(), &true.into()));
    run(&project, "20-b", "", "tool enable").assert_fail("ls");
}

fn a_report_is_kept() {
    let project = project("ls\nwho\n");
    run(&project, "10-a", "linked", "tool 'WARN who'").assert_fail("ls");
    let report = project.json("results/10-a/presence.json").to_string();
    assert!(report.contains("ls") && report.contains("who"), "{report}");
    let artifact = "results/10-a/presence.json";
    assert!(project.record("10-a").texts("artifacts").contains(&artifact));
    let events = project.journal().into_iter().filter(|line| line["event"] == "assert_fail");
    assert_eq!(events.count(), 1);
}

fn an_applet_list_that_is_empty_is_an_error() {
    for applets in [Some(""), Some("# nothing\n\n"), None] {
        let project = project(applets.unwrap_or_default());
        if applets.is_none() {
            std::fs::remove_file(project.path("applets.txt")).unwrap();
        }
        project.suite("10-a", &[("execute", "echo ran >>order")]);
        project.run(&[]).code(2).stderr_says("applets.txt");
        assert!(project.order().is_empty());
    }
}
