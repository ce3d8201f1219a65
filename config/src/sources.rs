//! Where secrets come from: environment, files, and salt. Given as arguments, so that reading a configuration is pure.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use crate::model::Secret;
use crate::problem::{Access, Problem};
use crate::reader::Reader;
use crate::scram::SALT_LEN;

/// What `{ env = … }` and `{ file = … }` are read through, and what passwords are salted with.
pub struct Sources<'a> {
    /// The value of an environment variable, `None` where it is not set.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The text of a file.
    pub file: &'a dyn Fn(&Path) -> std::io::Result<String>,
    /// The one path of a file, however it is written and whatever links lead to it; of one that is not there, too.
    pub real: &'a dyn Fn(&Path) -> PathBuf,
    /// The salt for a user's verifier. Random for each process, but the same at each reload, so that an unchanged
    /// password is seen to be unchanged, and a driver that keeps its SCRAM keys keeps them over a reload.
    pub salt: &'a dyn Fn(&str) -> [u8; SALT_LEN],
}

impl<'a> Sources<'a> {
    /// The file system and the system's random numbers, with this environment.
    pub fn with_env(env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { env, file: &|path| std::fs::read_to_string(path), real: &real_path, salt: &process_salt }
    }
}

/// A file that is to be made later has its place in a folder that may be there.
fn real_path(path: &Path) -> PathBuf {
    if let Ok(real) = std::fs::canonicalize(path) {
        return real;
    }
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) => std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned()).join(name),
        _ => path,
    }
}

/// HMAC of the user's name under a random key of this process.
fn process_salt(user: &str) -> [u8; SALT_LEN] {
    static KEY: OnceLock<hmac::Key> = OnceLock::new();
    let key = KEY.get_or_init(|| {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).expect("the system gives random numbers");
        hmac::Key::new(hmac::HMAC_SHA256, &seed)
    });
    let mut salt = [0; SALT_LEN];
    salt.copy_from_slice(&hmac::sign(key, user.as_bytes()).as_ref()[..SALT_LEN]);
    salt
}

/// A path as written, resolved against the folder of the TOML.
pub(crate) fn resolve(toml: &Path, written: &str) -> PathBuf {
    toml.parent().unwrap_or(Path::new("")).join(written)
}

/// Reads a required path of a file of PgWard's own.
pub(crate) fn own_file(reader: &Reader<'_>, key: &'static str, toml: &Path, expected: &str) -> PathBuf {
    let written = reader.need(key, expected);
    let path = resolve(toml, written);
    if !written.is_empty() {
        reader.name_file(key, &path, Access::Own);
    }
    path
}

/// Reads `key = { env = "…" }` or `key = { file = "…" }`; `None` when the key is absent or wrong (which is noted).
pub(crate) fn secret(reader: &Reader<'_>, key: &'static str, toml: &Path, sources: &Sources<'_>) -> Option<Secret> {
    const EXPECTED: &str = r#"`{ env = "NAME" }` or `{ file = "path" }`"#;
    let value = reader.value(key)?;
    if value.get_ref().is_str() {
        reader.conceal(key);
        reader.push(
            Problem::error(value.span(), format!("`{key}` of {} stands here in clear", reader.name()))
                .label(format!("expected {EXPECTED}"))
                .help("secrets never stand in the TOML: put it into the environment or a file of its own, and change it, since this file may have been copied"),
        );
        return None;
    }
    let place = reader.table(key, EXPECTED)?;
    let (env, file) = (place.text("env", "the name of an environment variable"), place.text("file", "a path"));
    place.finish();
    let read = match (env, file) {
        (Some(name), None) => (sources.env)(name.get_ref())
            .ok_or_else(|| (name.span(), format!("the environment variable `{}` is not set", name.get_ref()))),
        (None, Some(file)) => {
            let path = resolve(toml, file.get_ref());
            place.name_file("file", &path, Access::Read);
            (sources.file)(&path)
                .map_err(|error| (file.span(), format!("the file {} cannot be read: {error}", path.display())))
        }
        (Some(_), Some(file)) => Err((file.span(), format!("`{key}` has both `env` and `file`"))),
        (None, None) if place.is_empty() => Err((value.span(), format!("`{key}` says neither `env` nor `file`"))),
        // A wrong type or an unknown key: already noted.
        (None, None) => return None,
    };
    // An editor ends a file with a newline that is no part of the secret.
    let read = read.map(|text| text.trim_end_matches(['\r', '\n']).to_owned());
    match read {
        Ok(text) if text.is_empty() => {
            reader.push(Problem::error(value.span(), format!("`{key}` of {} is empty", reader.name())));
            None
        }
        Ok(text) => Some(Secret::new(text)),
        Err((at, message)) => {
            reader.push(Problem::error(at, message).label(format!("the secret `{key}` of {}", reader.name())));
            None
        }
    }
}

/// The least length of an HMAC key, in characters: below, patients could be found by trying keys.
const KEY_CHARS_MIN: usize = 16;

/// The stand-in for a key that could not be read; the configuration that holds it is dropped.
fn stand_in() -> Secret {
    Secret::new("")
}

/// Reads a required HMAC key.
pub(crate) fn hmac_key(reader: &Reader<'_>, key: &'static str, toml: &Path, sources: &Sources<'_>) -> Secret {
    if reader.value(key).is_none() {
        reader.missing(key, r#"{ env = "…" } or { file = "…" }"#);
        return stand_in();
    }
    let Some(secret) = secret(reader, key, toml, sources) else { return stand_in() };
    let length = secret.expose().chars().count();
    if length < KEY_CHARS_MIN {
        reader.push(
            Problem::error(reader.at(key), format!("`{key}` of {} has only {length} characters", reader.name()))
                .label(format!("expected at least {KEY_CHARS_MIN}"))
                .help("patients could be found by trying keys; make one with `openssl rand -hex 32`"),
        );
    }
    secret
}
