//! `[[users]]` and `[[server_roles]]`: who may come in, and as whom their statements run.

use std::path::Path;
use std::sync::Arc;

use crate::model::{AuthMethod, Class, Listener, Plain, PoolMode, Secret, ServerRole, User, Workload};
use crate::problem::Problem;
use crate::reader::{Placed, Reader};
use crate::scram;
use crate::sections::{CLASSES, POOL_MODES};
use crate::sources::{Sources, secret};

const WORKLOADS: [(&str, Workload); 2] = [("care", Workload::Care), ("analytics", Workload::Analytics)];

pub(crate) fn server_roles<'a>(root: &Reader<'a>, toml: &Path, sources: &Sources<'_>) -> Vec<Placed<'a, ServerRole>> {
    let read = |reader: Reader<'a>| {
        let item = ServerRole {
            name: Arc::from(reader.need("name", "a role of the servers")),
            password: secret(&reader, "password", toml, sources),
        };
        reader.finish();
        Placed { item, reader }
    };
    root.sections("server_roles").into_iter().map(read).collect()
}

pub(crate) fn users<'a>(
    root: &Reader<'a>,
    toml: &Path,
    sources: &Sources<'_>,
    roles: &[Placed<'_, ServerRole>],
    listeners: &[Placed<'_, Listener>],
    plain: bool,
) -> Vec<Placed<'a, User>> {
    let proof_asked = listeners.iter().find(|listener| listener.auth == AuthMethod::ScramSha256);
    let proof_asked = proof_asked.map(|listener| listener.name.clone());
    let users: Vec<_> = root.sections("users").into_iter().collect();
    if users.is_empty() && root.value("users").is_none() && !plain {
        root.missing("users", "at least one table [[users]]");
    }
    users.into_iter().map(|reader| user(reader, toml, sources, roles, proof_asked.as_deref())).collect()
}

fn user<'a>(
    reader: Reader<'a>,
    toml: &Path,
    sources: &Sources<'_>,
    roles: &[Placed<'_, ServerRole>],
    proof_asked: Option<&str>,
) -> Placed<'a, User> {
    let name = reader.need("name", "a name of its own");
    if name == Plain::ANYBODY {
        reader.push(
            Problem::error(reader.at("name"), format!("`name` of [[users]] cannot be \"{name}\""))
                .label("a user's own name: a word for everybody has no meaning here")
                .help("any user is served by a plain pooler alone (plain.toml), each by a proof of its own"),
        );
    }
    let workload = reader.word("workload", &WORKLOADS).unwrap_or(Workload::Care);
    let verifier = verifier(&reader, name, toml, sources);
    if let Some(listener) = proof_asked
        && reader.value("verifier").is_none()
        && reader.value("password").is_none()
    {
        reader.push(
            Problem::error(reader.place(), format!("user `{name}` has neither `verifier` nor `password`"))
                .label(format!("listener `{listener}` asks for SCRAM-SHA-256"))
                .help(r#"add password = { env = "NAME" }, or verifier = "SCRAM-SHA-256$…" (on a server: SELECT rolpassword FROM pg_authid)"#),
        );
    }
    let (class, ceiling) = classes(&reader, name, workload);
    let item = User {
        name: Arc::from(name),
        verifier,
        class,
        ceiling,
        workload,
        server_role: server_role(&reader, roles),
        may_set_role: may_set_role(&reader, name),
        pool_mode: reader.word("pool_mode", &POOL_MODES).unwrap_or(PoolMode::Transaction),
        max_clients: reader.number("max_clients", 1..=u64::MAX).and_then(|number| usize::try_from(number).ok()),
    };
    reader.finish();
    Placed { item, reader }
}

/// The verifier as written, or made from the password.
fn verifier(reader: &Reader<'_>, name: &str, toml: &Path, sources: &Sources<'_>) -> Option<Secret> {
    reader.conceal("verifier");
    let password = secret(reader, "password", toml, sources);
    if reader.value("verifier").is_some() && reader.value("password").is_some() {
        reader.push(
            Problem::error(reader.at("verifier"), format!("user `{name}` has both `verifier` and `password`"))
                .related(reader.at("password"), "the password")
                .help("keep one of the two"),
        );
    }
    let written = reader.text("verifier", "a SCRAM-SHA-256 verifier");
    if let Some(written) = written {
        if let Err(why) = scram::check(written.get_ref()) {
            reader.push(
                Problem::error(written.span(), format!("`verifier` of user `{name}` is not a SCRAM-SHA-256 verifier"))
                    .label(format!("{why}; expected SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey"))
                    .help("a password does not belong here; passwords come by { env = … } or { file = … }"),
            );
        }
        return Some(Secret::new(written.into_inner()));
    }
    password.map(|password| Secret::new(scram::verifier(password.expose(), &(sources.salt)(name), scram::ITERATIONS)))
}

/// The user's class and ceiling. Analytics is low and stays low.
fn classes(reader: &Reader<'_>, name: &str, workload: Workload) -> (Class, Class) {
    let default = match workload {
        Workload::Care => Class::Normal,
        Workload::Analytics => Class::Low,
    };
    let class = reader.word("class", &CLASSES).unwrap_or(default);
    let ceiling = reader.word("ceiling", &CLASSES).unwrap_or(class);
    if !ceiling.allows(class) {
        reader.push(
            Problem::error(reader.at("ceiling"), format!("`ceiling` of user `{name}` is below the user's class"))
                .label(format!("`{ceiling}` is lower than `{class}`"))
                .help(format!("the classes from the highest: {}", Class::ALL.map(Class::as_str).join(", "))),
        );
    }
    if workload == Workload::Analytics {
        for (key, value) in [("class", class), ("ceiling", ceiling)] {
            if value < Class::Low && reader.value(key).is_some() {
                reader.push(
                    Problem::error(reader.at(key), format!("`{key}` of user `{name}` is above `low`"))
                        .label("analytics is of class low at most")
                        .related(reader.at("workload"), "the workload"),
                );
            }
        }
    }
    (class, ceiling)
}

/// The role that the user names, or the only one that there is.
fn server_role(reader: &Reader<'_>, roles: &[Placed<'_, ServerRole>]) -> Arc<str> {
    if reader.value("server_role").is_none()
        && let [only] = roles
    {
        return only.name.clone();
    }
    Arc::from(reader.need("server_role", "the name of one of the [[server_roles]]"))
}

/// The roles that the user may set. Names with quotes are not told apart everywhere, and `none` is everybody's.
fn may_set_role(reader: &Reader<'_>, name: &str) -> Vec<Arc<str>> {
    let mut roles: Vec<Arc<str>> = Vec::new();
    for role in reader.texts("may_set_role", "a list of roles of the servers") {
        let role_name = *role.get_ref();
        if role_name == "none" || role_name.contains(['\'', '"', '\0']) {
            reader.push(
                Problem::error(role.span(), format!("`may_set_role` of user `{name}` cannot name this role"))
                    .label("expected the name of a role, without quotes; going back to the login's own needs no leave"),
            );
        } else {
            roles.push(Arc::from(role_name));
        }
    }
    roles
}
