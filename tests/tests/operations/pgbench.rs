//! pgbench, as somebody who does not know what is being reloaded under it.

use std::process::{Child, Stdio};

use pgward_tests::Deployment;

/// pgbench under way; its clients read and write patients of us-east.
pub(crate) struct Pgbench {
    child: Child,
    _scripts: tempfile::TempDir,
}

impl Pgbench {
    /// 16 clients.
    pub(crate) fn start(pgward: &Deployment, protocol: &str) -> Self {
        let scripts = tempfile::tempdir().unwrap();
        let mut command = std::process::Command::new("pgbench");
        for n in 0..10 {
            let id = pgward.patient("us-east", n).id;
            let script = scripts.path().join(n.to_string());
            let write = format!("UPDATE patients SET updated_at = now() WHERE id = '{id}';");
            std::fs::write(&script, format!("SELECT family_name FROM patients WHERE id = '{id}';\n{write}\n")).unwrap();
            command.arg("-f").arg(script);
        }
        let child = command
            // As many as a small machine has room for beside the servers and what happens to them.
            .args(["-n", "-c", "16", "-j", "2", "-R", "300", "-T", "120", "-M", protocol])
            .arg(pgward.url("general", "app"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, _scripts: scripts }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Ends it: no client may have seen an error. Answers with the transactions that were processed.
    pub(crate) fn end(self) -> u64 {
        // As its own clock would, when the time given by -T is over.
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::ALARM)
            .unwrap();
        let output = self.child.wait_with_output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && !err.contains("error") && !err.contains("aborted"), "{out}\n{err}");
        let count = |line: &str| line.strip_prefix("number of transactions actually processed: ").map(str::to_owned);
        let processed = out.lines().find_map(count).unwrap_or_else(|| panic!("{out}\n{err}"));
        processed.split('/').next().unwrap().parse().unwrap()
    }
}
