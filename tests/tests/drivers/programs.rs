//! How the programs are started, and what they need that may be missing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// Far more than any of them needs, for machines under load.
const PATIENCE: Duration = Duration::from_secs(120);

/// A program that runs the steps with one driver.
pub(crate) struct Program {
    /// The driver's name, as PGWARD_TEST_DRIVERS has it.
    pub(crate) driver: &'static str,
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(&'static str, OsString)>,
    /// A file that is there when the driver is, and what to install when it is not.
    needs: Option<(PathBuf, &'static str)>,
}

/// What a program printed and how it ended.
pub(crate) struct Run {
    pub(crate) lines: Vec<String>,
    pub(crate) stderr: String,
    pub(crate) success: bool,
}

impl Program {
    /// A program that is in the PATH, and its arguments before the connection string.
    pub(crate) fn new(driver: &'static str, program: &str, args: &[&str]) -> Self {
        let args = args.iter().map(OsString::from).collect();
        Self { driver, program: program.into(), args, env: Vec::new(), needs: None }
    }

    /// Not to be run without this file, which comes with this package.
    pub(crate) fn needs(self, file: impl Into<PathBuf>, package: &'static str) -> Self {
        Self { needs: Some((file.into(), package)), ..self }
    }

    pub(crate) fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// Panics when it is known that it cannot run.
    pub(crate) fn assert_installed(&self) {
        let Some((file, package)) = &self.needs else { return };
        let (driver, name) = (self.driver, file.display());
        assert!(file.exists(), "{driver} is not installed, {name} is missing. {}", to_install(package));
    }

    /// Runs it to its end.
    pub(crate) async fn run(&self, url: &str, patient: &str) -> Run {
        let driver = self.driver;
        let mut command = Command::new(&self.program);
        command.args(&self.args).args([url, patient]).envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let program = self.program.to_string_lossy();
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("cannot run {program}: {error}. {}", to_install(&program)));
        let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (mut lines, mut stderr) = (Vec::new(), Vec::new());
        let ended = tokio::time::timeout(PATIENCE, async {
            let (_, _, status) = tokio::join!(out.read_to_end(&mut lines), err.read_to_end(&mut stderr), child.wait());
            status.unwrap()
        });
        let ended = ended.await;
        let (lines, stderr) = (String::from_utf8_lossy(&lines), String::from_utf8_lossy(&stderr));
        let Ok(status) = ended else { panic!("{driver} has not ended after {PATIENCE:?} at {url}\n{lines}\n{stderr}") };
        Run {
            lines: lines.lines().map(str::to_owned).collect(),
            stderr: stderr.into_owned(),
            success: status.success(),
        }
    }
}

fn to_install(what: &str) -> String {
    format!(
        "scripts/install-drivers installs what the drivers need on Debian and Ubuntu, as root or through sudo; \
         elsewhere install {what} yourself, or say in PGWARD_TEST_DRIVERS which drivers to test (tests/drivers/README.md)"
    )
}

/// A program of `tests/drivers`.
pub(crate) fn source(name: &str) -> String {
    format!("{}/drivers/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Where scripts/install-drivers puts what it takes from PyPI and npm.
pub(crate) fn installed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("drivers").join(name)
}

/// A program in Python, with the packages of requirements.txt.
pub(crate) fn python(driver: &'static str) -> Program {
    let python = installed("python/bin/python");
    Program::new(driver, &python.to_string_lossy(), &[&source(&format!("{driver}.py"))])
        .needs(installed("python/requirements.txt"), "the packages of tests/drivers/requirements.txt")
}

/// A program in JavaScript, with the packages of package.json.
pub(crate) fn node(driver: &'static str) -> Program {
    Program::new(driver, "node", &[&source(&format!("{driver}.mjs"))])
        .needs(installed("node/installed.json"), "node and the packages of tests/drivers/package.json")
        .env("PGWARD_NODE_MODULES", installed("node/"))
}

/// psql, run by a script.
pub(crate) fn psql() -> Program {
    Program::new("psql", "bash", &[&source("psql.sh")])
}

/// The program in Java, compiled when it is run, with Debian's copy of the driver.
pub(crate) fn java() -> Program {
    const JAR: &str = "/usr/share/java/postgresql.jar";
    Program::new("jdbc", "java", &["-Dfile.encoding=UTF-8", "-cp", JAR, &source("Jdbc.java")])
        .needs(JAR, "a JDK of Java 11 or newer, and libpostgresql-jdbc-java")
}

/// The program in Go, compiled when it is run, with Debian's copy of the driver.
pub(crate) fn go() -> Program {
    const GOPATH: &str = "/usr/share/gocode";
    Program::new("lib_pq", "go", &["run", &source("lib_pq.go")])
        .needs(Path::new(GOPATH).join("src/github.com/lib/pq"), "golang-go and golang-github-lib-pq-dev")
        .env("GO111MODULE", "off")
        .env("GOFLAGS", "")
        .env("GOPATH", GOPATH)
        .env("GOCACHE", installed("go-cache"))
}

/// A package of its own in Rust, built anew when it has changed.
pub(crate) fn cargo(driver: &'static str) -> Program {
    let (manifest, folder) = (source(&format!("{driver}/Cargo.toml")), installed(driver));
    let run = ["run", "--quiet", "--locked", "--offline", "--manifest-path", &manifest, "--target-dir"];
    Program::new(driver, env!("CARGO"), &[&run[..], &[&folder.to_string_lossy(), "--"]].concat())
        .needs(folder.join(format!("debug/pgward-driver-{driver}")), "the crates that its lock file names")
}

/// The program in Ruby, which itself says when the gem is missing.
pub(crate) fn ruby() -> Program {
    Program::new("ruby_pg", "ruby", &["-Ku", &source("ruby_pg.rb")])
}
