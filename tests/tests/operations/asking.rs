//! `pgward reload`, `status` and `stop` from an operator's shell: which proxy they reach, and what they say. No server
//! runs behind these proxies.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_pgward-under-test");
const SECRETS: [&str; 3] = ["ASKING_ROLE", "ASKING_DIRECTORY", "ASKING_AUDIT"];

/// All secrets are in the environment, which is that of the proxy and not of the shell that asks.
const TOML: &str = r#"[proxy]
database = "ehr"

[[listeners]]
name = "general"
address = "127.0.0.1:0"
origin = "here"

[[server_roles]]
name = "ehr"
password = { env = "ASKING_ROLE" }

[[users]]
name = "app"
password = { env = "ASKING_ROLE" }

[[tables]]
name = "patients"
kind = "patient"
key = "id"

[[regions]]
id = "here"

[[shards]]
id = "one"
region = "here"
patient_regions = ["here"]
primary = { url = "postgresql://127.0.0.1:1/ehr" }

[health]
interval = "10s"

[directory]
path = "patients.directory"
key = { env = "ASKING_DIRECTORY" }

[audit]
path = "audit.jsonl"
key = { env = "ASKING_AUDIT" }
"#;

/// A proxy that serves a file. Killed when it is dropped.
struct Served {
    child: Child,
    config: PathBuf,
}

impl Served {
    fn start(folder: &Path, toml: &str, socket: &str) -> Self {
        let config = folder.join("pgward.toml");
        std::fs::write(&config, toml).unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--config"]).arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        command.envs(SECRETS.map(|name| (name, "0123456789abcdef")));
        let mut child = command.spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while !folder.join(socket).exists() {
            assert_eq!(child.try_wait().unwrap(), None, "it serves");
            assert!(Instant::now() < deadline, "no control socket");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, config }
    }

    fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Asks as somebody who knows no secret; whether it was done, and what was said.
    fn ask(&self, command: &str) -> (bool, String) {
        ask(command, &self.config)
    }

    fn rewrite(&self, toml: &str) {
        std::fs::write(&self.config, toml).unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn ask(command: &str, config: &Path) -> (bool, String) {
    let output = Command::new(PROGRAM).args([command, "--config"]).arg(config).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

fn named(socket: &str) -> String {
    TOML.replace("[proxy]\n", &format!("[proxy]\ncontrol_socket = \"{socket}\"\n"))
}

#[test]
fn a_reload_needs_no_secret_in_the_shell_that_asks_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Served::start(folder.path(), TOML, "pgward.sock");
    proxy.rewrite(&TOML.replace("10s", "7s"));
    let (done, said) = proxy.ask("reload");
    assert!(done && said.contains("[health] interval: 10s -> 7s"), "{said}");
}

#[test]
fn a_refused_reload_shows_the_mistakes_and_the_record_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Served::start(folder.path(), TOML, "pgward.sock");
    proxy.rewrite(&TOML.replace("interval =", "intervall =").replace("key = \"id\"", "key = 5"));
    let (done, said) = proxy.ask("reload");
    assert!(!done);
    for words in ["nothing was changed", "pgward.toml:32:1: error: unknown key `intervall`", "^^^^^^^^^", "2 errors"] {
        assert!(said.contains(words), "{words:?} in {said}");
    }
    let records = std::fs::read_to_string(folder.path().join("audit.jsonl")).unwrap();
    let records: Vec<Value> = records.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let refused = records.iter().find(|record| record["event"] == "reload_refused").unwrap();
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.contains("pgward.toml:20:7: error: `key`") && detail.ends_with("; and 1 more"), "{detail}");
}

#[test]
fn a_file_with_mistakes_still_reaches_the_socket_that_it_names() {
    let folder = tempfile::tempdir().unwrap();
    let toml = named("its-own.sock");
    let mut proxy = Served::start(folder.path(), &toml, "its-own.sock");
    proxy.rewrite(&toml.replace("kind = \"patient\"", "kind = \"doctor\""));
    let (done, said) = proxy.ask("status");
    assert!(done && said.contains("clients"), "{said}");
    assert!(proxy.ask("stop").0);
    assert!(proxy.child.wait().unwrap().success());
}

#[test]
fn nobody_stops_the_proxy_of_another_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut proxy = Served::start(folder.path(), TOML, "pgward.sock");
    let neighbour = folder.path().join("neighbour.toml");
    let mistaken = |toml: &str| toml.replace("kind = \"patient\"", "kind = \"doctor\"");
    for (toml, says) in [
        (mistaken(&named("elsewhere.sock")), "elsewhere.sock"),
        (named("").replace("\"\"", "5"), "`control_socket` of [proxy] is an integer"),
        (
            TOML.replace("[proxy]\n", "[proxy]\ncontrol_sockett = \"elsewhere.sock\"\n"),
            "did you mean `control_socket`?",
        ),
        (named("elsewhere.sock").replace("[[users]]", "[[users]"), "not TOML"),
        // It names the socket of the other by default.
        (mistaken(TOML), "nothing was done"),
    ] {
        std::fs::write(&neighbour, &toml).unwrap();
        for command in ["status", "reload", "stop"] {
            let (done, said) = ask(command, &neighbour);
            assert!(!done && said.contains(says), "{command}: {said}");
        }
    }
    std::fs::remove_file(&neighbour).unwrap();
    let (done, said) = ask("stop", &neighbour);
    assert!(!done && said.contains("cannot be read"), "{said}");
    assert!(proxy.runs());
    assert!(proxy.ask("status").0);
}
