//! The image of deploy/worker.Dockerfile, run as deploy/compose.yaml says, by the real engine.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

use serde_yaml::Value;

use crate::server::Server;
use crate::world::{SECRET, World, collection, own_job, until};

/// A container of the image, and its volumes; they go with it.
struct Container {
    name: String,
    volumes: Vec<String>,
}

fn docker(words: &[&str]) -> String {
    let done = Command::new("docker").args(words).output().unwrap();
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "docker {words:?}: {text}");
    text
}

impl Container {
    /// Starts what the service of deploy/compose.yaml starts, with a server of ours and the secret of `world`.
    fn start(image: &str, server: &Server, world: &World) -> Self {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/compose.yaml")).unwrap();
        let compose: Value = serde_yaml::from_str(&text).unwrap();
        let name = format!("proving-ground-worker-{}", std::process::id());
        let mut container = Self { name: name.clone(), volumes: Vec::new() };
        let (mut options, mut words) = (Vec::new(), Vec::new());
        for (key, value) in compose["services"]["worker"].as_mapping().unwrap() {
            let texts = || value.as_sequence().unwrap().iter().map(|text| text.as_str().unwrap().to_owned());
            let mut each = |option: &str, value: String| options.push(format!("{option}={value}"));
            match key.as_str().unwrap() {
                // The engine is not told of these, or they change nothing that is tried here.
                "build" | "image" | "restart" | "stop_grace_period" => {}
                "hostname" => each("--hostname", value.as_str().unwrap().to_owned()),
                "security_opt" => texts().for_each(|text| each("--security-opt", text)),
                "cap_drop" => texts().for_each(|text| each("--cap-drop", text)),
                "read_only" => each("--read-only", value.as_bool().unwrap().to_string()),
                "init" => each("--init", value.as_bool().unwrap().to_string()),
                "tmpfs" => texts().for_each(|text| each("--tmpfs", text)),
                "pids_limit" => each("--pids-limit", value.as_u64().unwrap().to_string()),
                "mem_limit" => each("--memory", value.as_str().unwrap().to_owned()),
                "volumes" => texts().for_each(|text| {
                    container.volumes.push(format!("{name}-{}", text.split(':').next().unwrap()));
                    each("--volume", format!("{name}-{text}"));
                }),
                "secrets" => {
                    let target = value[0]["target"].as_str().unwrap();
                    each("--volume", format!("{}:{target}:ro", world.path("secret").display()));
                }
                "healthcheck" => {
                    each("--health-cmd", value["test"][1].as_str().unwrap().replace("$$", "$"));
                    each("--health-interval", "1s".to_owned());
                }
                "command" => words
                    .extend(texts().map(|text| if text.starts_with("${API_BASE_URL") { server.url() } else { text })),
                other => panic!("deploy/compose.yaml: what is `{other}` for docker run?"),
            }
        }
        let run = ["run", "--detach", "--network=host", "--name", &name].into_iter();
        let [options, words] = [&options, &words].map(|list| list.iter().map(String::as_str));
        docker(&run.chain(options).chain([image]).chain(words).collect::<Vec<_>>());
        container
    }

    fn state(&self, field: &str) -> String {
        docker(&["inspect", "--format", &format!("{{{{.State.{field}}}}}"), &self.name]).trim().to_owned()
    }

    fn log(&self) -> String {
        docker(&["logs", &self.name])
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let rm = [&["rm", "--force", "--volumes", &self.name][..]];
        let volumes: Vec<_> = self.volumes.iter().map(|volume| vec!["volume", "rm", "--force", volume]).collect();
        for words in rm.into_iter().chain(volumes.iter().map(Vec::as_slice)) {
            // It may not have come so far.
            Command::new("docker").args(words).output().ok();
        }
    }
}

#[test]
#[ignore = "takes an image and the engine that has it: tests/docker/run.sh builds it, and runs this"]
fn the_image_does_a_job_behind_its_walls_and_drains_when_it_is_stopped() {
    let image = std::env::var("WORKER_IMAGE").expect("WORKER_IMAGE must name the image");
    let server = Server::today(Some(SECRET));
    let world = World::new();
    let secret = world.path("secret");
    fs::write(&secret, SECRET).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o440)).unwrap();
    chown(&secret, Some(0), Some(1000)).unwrap();
    let walls = "python3 -m pytest --version && [ ! -e /data ] && [ ! -e /var/lib/chickadee-runner ] && ! touch /etc/x";
    server.add_job(own_job("behind-walls", &[("a.sh", walls)]));
    let container = Container::start(&image, &server, &world);
    until(&|| container.log(), || {
        assert_eq!(container.state("Running"), "true", "{}", container.log());
        !server.results().is_empty()
    });
    assert_eq!(collection(&server, "behind-walls")["passCount"], 1, "{}", collection(&server, "behind-walls"));
    until(&|| container.log(), || container.state("Health.Status") == "healthy");
    server.add_job(own_job("at-the-end", &[("a.sh", "sleep 3")]));
    server.wait_until("the last job to begin", |state| state.leased.contains_key("at-the-end"));
    docker(&["stop", "-t", "120", &container.name]);
    let log = container.log();
    assert_eq!(container.state("ExitCode"), "0", "{log}");
    assert_eq!(collection(&server, "at-the-end")["passCount"], 1, "{log}");
    assert!(log.contains("drain_started") && !log.contains("chmod"), "{log}");
    assert_eq!(server.violations(), Vec::<String>::new());
}
