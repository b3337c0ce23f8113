//! Jobs that go well.

use serde_json::json;

use crate::server::Server;
use crate::world::{SECRET, World, job};

#[test]
fn a_job_is_graded_and_reported_as_todays_server_wants_it() {
    let server = Server::today(Some(SECRET));
    let scripts =
        [("a.sh", "grep -q s1 answer.txt"), ("b.sh", "echo '{\"shortResult\":\"2/3\"}'; echo why >&2; exit 1")];
    server.add_job(job("s1", &scripts));
    let world = World::new();
    let events = world.run_once(&server, &[]);
    let results = server.results();
    let stored = &results[&("s1".to_owned(), 1)];
    let outcomes = &stored.collection()["outcomes"];
    assert_eq!((&outcomes[0]["status"], &outcomes[1]["status"]), (&json!("pass"), &json!("fail")));
    assert_eq!((&outcomes[1]["shortResult"], &outcomes[1]["longResult"]), (&json!("2/3"), &json!("why\n")));
    assert_eq!(stored.first["diagnostics"]["finalStatus"], "failed");
    assert_eq!((stored.arrivals, server.violations()), (1, Vec::new()));
    assert_eq!(world.left(), Vec::<std::path::PathBuf>::new());
    assert!(events.iter().any(|event| event["event"] == "result_sent"), "{events:?}");
}
