//! Writes the `pgward.toml` of a layout, with the comments of somebody who shows what it means, and the secrets beside
//! it.

use std::fmt::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use ring::rand::{SecureRandom, SystemRandom};

use super::cluster::{Cluster, DATABASE};
use super::layout::{Layout, PLACES, SERVER_ROLE};
use super::postgres::Postgres;

/// The files of a deployment, in one folder.
#[derive(Clone, Debug)]
pub struct Files {
    /// The folder.
    pub dir: PathBuf,
}

impl Files {
    /// The files in this folder; the secrets' folder is made if it is not there.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn of(dir: &Path) -> Result<Self> {
        let files = Self { dir: dir.to_owned() };
        std::fs::create_dir_all(files.secrets())?;
        std::fs::set_permissions(files.secrets(), std::fs::Permissions::from_mode(0o700))?;
        Ok(files)
    }

    /// `pgward.toml`
    pub fn config(&self) -> PathBuf {
        self.dir.join("pgward.toml")
    }

    /// The audit log.
    pub fn audit(&self) -> PathBuf {
        self.dir.join("audit.jsonl")
    }

    /// The directory of patients.
    pub fn directory(&self) -> PathBuf {
        self.dir.join("directory.db")
    }

    /// What PgWard says.
    pub fn log(&self) -> PathBuf {
        self.dir.join("pgward.log")
    }

    /// `demo.json`
    pub fn manifest(&self) -> PathBuf {
        self.dir.join("demo.json")
    }

    fn secrets(&self) -> PathBuf {
        self.dir.join("secrets")
    }

    /// A secret of this name: the one of an earlier start, or a new one of 32 random bytes.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn secret(&self, name: &str) -> Result<String> {
        let path = self.secrets().join(name);
        if let Ok(kept) = std::fs::read_to_string(&path) {
            return Ok(kept.trim().to_owned());
        }
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow!("no random bytes from the system"))?;
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        write_private(&path, &text)?;
        Ok(text)
    }

    /// Writes `pgward.toml` and the users' passwords.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn write(&self, layout: &Layout, cluster: &Cluster) -> Result<()> {
        for user in &layout.users {
            write_private(&self.secrets().join(format!("user-{}", user.name)), &user.password)?;
        }
        for name in [SERVER_ROLE, "directory-key", "audit-key"] {
            self.secret(name)?;
        }
        std::fs::write(self.config(), render(layout, cluster)).context("cannot write pgward.toml")
    }
}

/// Writes a file that only its owner may read.
///
/// # Errors
/// The file system refuses.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn render(layout: &Layout, cluster: &Cluster) -> String {
    let mut out = String::new();
    sections(&mut out, layout, cluster).expect("a String takes all");
    out
}

fn sections(out: &mut String, layout: &Layout, cluster: &Cluster) -> fmt::Result {
    writeln!(out, "# Written by PgWard for the servers of this folder. `pgward check` explains what it says.\n")?;
    writeln!(out, "[proxy]\ninstance = \"demo\"\ndatabase = \"{DATABASE}\"\n{}", layout.proxy)?;
    for listener in &layout.listeners {
        writeln!(out, "[[listeners]]\nname = \"{}\"\naddress = \"127.0.0.1:{}\"", listener.name, listener.port)?;
        writeln!(out, "origin = \"{}\"", listener.origin)?;
        optional(out, "class", listener.class)?;
        writeln!(out)?;
    }
    writeln!(out, "[http]\naddress = \"127.0.0.1:{}\"\n", layout.http_port)?;
    for user in &layout.users {
        writeln!(out, "[[users]]\nname = \"{0}\"\npassword = {{ file = \"secrets/user-{0}\" }}", user.name)?;
        optional(out, "class", user.class)?;
        optional(out, "ceiling", user.ceiling)?;
        optional(out, "workload", user.workload)?;
        optional(out, "pool_mode", user.pool_mode)?;
        if !user.may_set_role.is_empty() {
            writeln!(out, "may_set_role = {:?}", user.may_set_role)?;
        }
        writeln!(out)?;
    }
    writeln!(out, "[[server_roles]]\nname = \"{SERVER_ROLE}\"\npassword = {{ file = \"secrets/{SERVER_ROLE}\" }}\n")?;
    out.write_str(TABLES)?;
    out.write_str(REGIONS)?;
    for (shard, place) in cluster.shards.iter().zip(PLACES) {
        writeln!(out, "[[shards]]\nid = \"{}\"\nregion = \"{}\"", shard.id, place.region)?;
        writeln!(out, "patient_regions = [\"{}\"]", place.patients)?;
        writeln!(out, "primary = {{ url = \"{}\" }}", url(&shard.primary))?;
        let replicas: Vec<String> =
            shard.replicas.iter().map(|r| format!("    {{ url = \"{}\" }},\n", url(r))).collect();
        writeln!(out, "replicas = [\n{}]", replicas.concat())?;
        writeln!(out, "server_max_connections = {}\n", layout.max_connections)?;
    }
    for (kind, (min, max)) in ["emergency", "general", "background", "readonly"].iter().zip(layout.pools) {
        writeln!(out, "[pools.{kind}]\nmin = {min}\nmax = {max}")?;
        optional(out, "wait_timeout", layout.wait_timeout)?;
        writeln!(out)?;
    }
    writeln!(out, "[health]\n{}", layout.health)?;
    out.write_str(STORES)
}

fn optional(out: &mut String, key: &str, value: Option<&str>) -> fmt::Result {
    value.map_or(Ok(()), |value| writeln!(out, "{key} = \"{value}\""))
}

fn url(server: &Postgres) -> String {
    format!("postgresql://127.0.0.1:{}/{DATABASE}", server.port())
}

const TABLES: &str = r#"[sharding]
strategy = "patient_region"
key_type = "uuid"

[[tables]]
name = "patients"
kind = "patient"
key = "id"
region_column = "region"

[[tables]]
name = "encounters"
kind = "patient"
key = "patient_id"

[[tables]]
name = "medications"
kind = "patient"
key = "patient_id"

[[tables]]
name = "observations"
kind = "patient"
key = "patient_id"

[[tables]]
name = "allergies"
kind = "patient"
key = "patient_id"

[[tables]]
name = "icd10_codes"
kind = "reference"

# The tables of `pgbench -i`.
[[tables]]
name = "pgbench_accounts"
kind = "local"

[[tables]]
name = "pgbench_branches"
kind = "local"

[[tables]]
name = "pgbench_tellers"
kind = "local"

[[tables]]
name = "pgbench_history"
kind = "local"

"#;

/// Every region keeps its data to itself. That the general port reaches all four is the demo's own choice, so that one
/// port shows everything; it is written where a compliance officer would look for it.
const REGIONS: &str = r#"[[regions]]
id = "us-east-1"
name = "US East (N. Virginia)"
frameworks = ["HIPAA"]
zones = ["us-east-1a", "us-east-1b", "us-east-1c"]
backup_region = "us-west-2"
replicas_in = ["us-west-2"]
authorities = [
    { name = "HHS", reporting = ["HIPAA breach notification", "quality reporting"] },
    { name = "FDA", reporting = ["medical device reporting", "adverse event reporting"] },
]
prohibited = [
    { region = "eu-west-1", reason = "HIPAA requires US data residency" },
    { region = "ap-south-1", reason = "HIPAA requires US data residency" },
]

[[regions]]
id = "us-west-2"
name = "US West (Oregon)"
frameworks = ["HIPAA"]
zones = ["us-west-2a", "us-west-2b", "us-west-2c"]
backup_region = "us-east-1"
replicas_in = ["us-east-1"]
# The demo's choice: its general port stands in us-east-1 and reaches every region. Without this line it would not.
access_from = ["us-east-1"]
prohibited = [
    { region = "eu-west-1", reason = "HIPAA requires US data residency" },
    { region = "ap-south-1", reason = "HIPAA requires US data residency" },
]

[[regions]]
id = "eu-west-1"
name = "EU West (Ireland)"
frameworks = ["GDPR"]
zones = ["eu-west-1a", "eu-west-1b", "eu-west-1c"]
authorities = [{ name = "EMA", reporting = ["GDPR compliance reporting", "medical device regulation"] }]
# The demo's choice, as above. The reference deployment prohibits us-east-1 here.
access_from = ["us-east-1"]
prohibited = [{ region = "ap-south-1", reason = "GDPR requires EU data residency" }]

[[regions]]
id = "ap-south-1"
name = "Asia Pacific (Mumbai)"
frameworks = ["PDPA"]
zones = ["ap-south-1a", "ap-south-1b", "ap-south-1c"]
# The demo's choice, as above.
access_from = ["us-east-1"]

"#;

const STORES: &str = r#"[directory]
kind = "embedded"
path = "directory.db"
key = { file = "secrets/directory-key" }

[audit]
path = "audit.jsonl"
policy = "written"
key = { file = "secrets/audit-key" }
"#;
