//! Text in, report out: one test for each kind of mistake, and one with all at once.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;

use pgward_config::{Loaded, Report, Sources, parse_with};

const BASE: &str = include_str!("base.toml");

fn env(name: &str) -> Option<String> {
    match name {
        "EHR_APP" | "APP" => Some("geheim".into()),
        "DIRECTORY_KEY" | "AUDIT_KEY" => Some("0123456789abcdef0123456789abcdef".into()),
        "EMPTY" => Some(String::new()),
        "SHORT" => Some("0123".into()),
        _ => None,
    }
}

fn read(text: &str) -> Result<Loaded, Report> {
    let file = |path: &Path| match path.to_str() {
        Some("etc/app.password") => Ok("geheim\n".into()),
        _ => Err(std::io::Error::from(std::io::ErrorKind::NotFound)),
    };
    parse_with(text, Path::new("etc/pgward.toml"), &Sources { env: &env, file: &file, salt: &|_| [7; 16] })
}

/// The base with one piece replaced, which must be in it exactly once.
fn with(from: &str, to: &str) -> String {
    assert_eq!(BASE.matches(from).count(), 1, "{from:?} must be in the base once");
    BASE.replace(from, to)
}

fn report(text: &str) -> String {
    match read(text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(report) => report.to_string(),
    }
}

/// Replaces a piece, and claims that the report says each of these words, and that it is the only error.
fn one_mistake(from: &str, to: &str, says: &[&str]) {
    let report = report(&with(from, to));
    for word in says {
        assert!(report.contains(word), "expected {word:?} in:\n{report}");
    }
    assert!(report.contains("\n1 error\n"), "{report}");
    assert!(!report.contains("geheim"), "a secret in:\n{report}");
}

#[test]
fn the_base_has_no_mistake() {
    let loaded = read(BASE).unwrap();
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings_report());
}

#[test]
fn an_unknown_key_names_the_nearest_one() {
    one_mistake(
        "[http]\naddress",
        "[http]\nadress",
        &["pgward.toml:16:1: error: unknown key `adress`", "did you mean `address`?"],
    );
}
