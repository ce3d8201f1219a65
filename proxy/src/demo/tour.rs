//! What the demo prints once it is up: what runs where, and lines to try.

use std::fmt::{self, Write};
use std::path::Path;

use super::load::Load;
use super::manifest::{Manifest, SAMPLES, ShardEntry};

/// The whole page. `program` is the binary that printed it.
pub fn page(manifest: &Manifest, program: &Path) -> String {
    let mut out = String::new();
    write_page(&mut out, manifest, program).expect("a String takes all");
    out
}

fn write_page(out: &mut String, manifest: &Manifest, program: &Path) -> fmt::Result {
    let count = |table| manifest.counts.get(table).copied().unwrap_or_default();
    writeln!(out, "\nPgWard serves {} patients of four regions:\n", count("patients"))?;
    writeln!(out, "  {:<18} {:<11} {:>7}   replicas", "shard", "region", "primary")?;
    for ShardEntry { id, region, primary, replicas, .. } in &manifest.shards {
        let ports: Vec<String> = replicas.iter().map(|replica| replica.port.to_string()).collect();
        writeln!(out, "  {id:<18} {region:<11} {:>7}   {}", primary.port, ports.join(", "))?;
    }
    writeln!(out)?;
    let mut listeners: Vec<_> = manifest.listeners.iter().collect();
    listeners.sort_by_key(|(_, listener)| listener.port);
    for (name, listener) in listeners {
        let class = listener.class.as_ref().map(|class| format!(", class {class}")).unwrap_or_default();
        writeln!(out, "  listener {name:<11} port {:<6} origin {}{class}", listener.port, listener.origin)?;
    }
    writeln!(out, "  health and metrics   {}/health/ready   {}/metrics", manifest.http, manifest.http)?;
    writeln!(out, "\nTry:")?;
    for (what, line) in lines(manifest, program) {
        writeln!(out, "\n  # {what}\n  {line}")?;
    }
    writeln!(out, "\n  configuration  {}", manifest.config.display())?;
    writeln!(out, "  audit log      {}", manifest.audit.display())?;
    writeln!(out, "  its own log    {}", manifest.log.display())?;
    if let Some(dir) = manifest.config.parent() {
        writeln!(out, "  for scripts    {}", dir.join("demo.json").display())?;
    }
    Ok(())
}

/// Each line with what it shows; all can be pasted into a shell.
fn lines(manifest: &Manifest, program: &Path) -> Vec<(&'static str, String)> {
    let url = |listener: &str| manifest.listeners.get(listener).map_or("", |listener| listener.url.as_str());
    let psql = |listener: &str, sql: &str| format!("psql \"{}\" -c \"{sql}\"", url(listener));
    let patient = |region: &str, n: usize| {
        manifest.patients.get(region).and_then(|ids| ids.get(n)).map_or("", |id| id.as_str()).to_owned()
    };
    let dir = manifest.config.parent().unwrap_or(Path::new(".")).display();
    // An emergency is about what must not be given.
    let load = Load { seed: manifest.seed, patients: u32::MAX };
    let allergic = load.patients_of(0).take(SAMPLES).position(|patient| !patient.allergies.is_empty());
    let (eu, west, south) = (patient("eu-west", 0), patient("us-west", 1), patient("ap-south", 0));
    let east = patient("us-east", allergic.unwrap_or_default());
    vec![
        (
            "A read: a replica of eu-west-patients answers, and says so.",
            psql(
                "general",
                &format!(
                    "SELECT current_setting('cluster_name') AS node, given_name, family_name, birth_date FROM patients \
                 WHERE id = '{eu}'"
                ),
            ),
        ),
        (
            "A chart: three patient tables joined, and the reference table of ICD-10 codes.",
            psql(
                "general",
                &format!(
                    "SELECT p.family_name, e.started_at, c.title, a.substance AS allergy FROM patients p JOIN encounters e \
                 ON e.patient_id = p.id JOIN icd10_codes c ON c.code = e.icd10 LEFT JOIN allergies a ON a.patient_id = \
                 p.id WHERE p.id = '{west}' ORDER BY e.started_at DESC"
                ),
            ),
        ),
        (
            "A write: the primary of us-west-patients.",
            psql(
                "general",
                &format!(
                    "UPDATE patients SET critical = true, updated_at = now() WHERE id = '{west}' RETURNING mrn, critical, \
                 updated_at"
                ),
            ),
        ),
        (
            "An emergency: always the primary, through connections that nothing else may use.",
            psql(
                "emergency",
                &format!(
                    "SELECT current_setting('cluster_name') AS node, p.family_name, a.substance, a.severity FROM patients p \
                 LEFT JOIN allergies a ON a.patient_id = p.id WHERE p.id = '{east}'"
                ),
            ),
        ),
        ("Refused: whose record?", psql("general", "SELECT count(*) FROM patients")),
        (
            "Refused: a clinic in ap-south-1 asks for a patient of us-east.",
            psql("strict-ap", &format!("SELECT family_name FROM patients WHERE id = '{east}'")),
        ),
        (
            "But its own patients it may see.",
            psql("strict-ap", &format!("SELECT family_name FROM patients WHERE id = '{south}'")),
        ),
        (
            "Why a statement goes where it goes, without sending it.",
            format!(
                "{} route --config {} --user app --listener general \"SELECT * FROM patients WHERE id = '{eu}'\"",
                program.display(),
                manifest.config.display()
            ),
        ),
        ("The record of each decision.", format!("tail -n 3 {}", manifest.audit.display())),
        (
            "Load: 16 clients, prepared statements, patients of all regions (from the source folder).",
            format!("scripts/workload mixed --demo {dir} -- -c 16 -T 10 -M prepared"),
        ),
    ]
}
