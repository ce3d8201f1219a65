//! Where a node is: `postgresql://host:port/database`, and nothing else in it.

use std::sync::Arc;

/// What a node's URL looks like.
pub(crate) const URL: &str = r#"a URL such as "postgresql://db1.internal:5432/ehr""#;
/// PostgreSQL's own port.
const PORT: u16 = 5432;

/// Host, port and database of a node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NodeUrl {
    pub(crate) host: Arc<str>,
    pub(crate) port: u16,
    /// `None` where the URL names none.
    pub(crate) dbname: Option<Arc<str>>,
}

/// True when the URL holds a user or a password, so that it must not be shown.
pub(crate) fn has_userinfo(text: &str) -> bool {
    let authority = text.split_once("://").map_or(text, |(_, rest)| rest);
    authority.contains('@')
}

/// Reads a node's URL. The message never repeats the text, which may hold a password.
pub(crate) fn parse(text: &str) -> Result<NodeUrl, String> {
    let rest = text
        .strip_prefix("postgresql://")
        .or_else(|| text.strip_prefix("postgres://"))
        .ok_or("it does not begin with postgresql://")?;
    if has_userinfo(text) {
        return Err("it names a user or a password; those of [[server_roles]] are used, with the password by \
                    { env = … } or { file = … }"
            .into());
    }
    if rest.contains(['?', '#']) {
        return Err("it has parameters; only host, port and database may stand in it".into());
    }
    let (authority, dbname) = rest.split_once('/').map_or((rest, ""), |(authority, dbname)| (authority, dbname));
    let (host, port) = host_and_port(authority)?;
    let dbname = if dbname.is_empty() { None } else { Some(decoded(dbname)?.into()) };
    Ok(NodeUrl { host: host.into(), port, dbname })
}

/// Splits `host:port`, the host in brackets where it is an IPv6 address; PostgreSQL's port where there is none.
pub(crate) fn host_and_port(authority: &str) -> Result<(&str, u16), String> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or("its address has no closing bracket")?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| format!("`{host}` is not an IPv6 address"))?;
        (host, after)
    } else {
        authority.split_at(authority.find(':').unwrap_or(authority.len()))
    };
    if host.is_empty() {
        return Err("it has no host".into());
    }
    if host.contains([',', '%']) || host.contains(char::is_whitespace) {
        return Err(format!("`{host}` is not one host"));
    }
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok((host, PORT)),
        None => Err(format!("`{port}` behind the host is not a port")),
        Some(number) => match number.parse() {
            Ok(port) if port > 0 => Ok((host, port)),
            _ => Err(format!("`{number}` is not a port")),
        },
    }
}

/// A database name with its `%20` and the like decoded, as libpq does.
fn decoded(text: &str) -> Result<String, String> {
    let wrong = || "its database is not properly percent-encoded".to_string();
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'%' {
            bytes.push(byte);
            rest = after;
            continue;
        }
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()).ok_or_else(wrong)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| wrong())?);
        rest = &after[2..];
    }
    match String::from_utf8(bytes) {
        Ok(name) if !name.contains(['/', '\0']) => Ok(name),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn host_port_and_database() {
        let check = |text, host: &str, port, dbname: Option<&str>| {
            let url = parse(text).unwrap();
            assert_eq!((&*url.host, url.port, url.dbname.as_deref()), (host, port, dbname), "{text}");
        };
        check("postgresql://db1:6000/ehr", "db1", 6000, Some("ehr"));
        check("postgres://10.0.0.1/ehr", "10.0.0.1", 5432, Some("ehr"));
        check("postgresql://[::1]:6000/a%20b", "::1", 6000, Some("a b"));
        check("postgresql://db1", "db1", 5432, None);
    }

    #[test]
    fn everything_else_is_refused_without_repeating_it() {
        for (text, why) in [
            ("db1:5432", "begin with"),
            ("postgresql://app:geheim@db1/ehr", "password"),
            ("postgresql://app@db1/ehr", "user"),
            ("postgresql://db1/ehr?sslmode=disable", "parameters"),
            ("postgresql:///ehr", "no host"),
            ("postgresql://db1,db2/ehr", "one host"),
            ("postgresql://db1:0/ehr", "not a port"),
            ("postgresql://db1:x/ehr", "not a port"),
            ("postgresql://[::1/ehr", "bracket"),
            ("postgresql://[::g]/ehr", "IPv6"),
            ("postgresql://[::1]x/ehr", "not a port"),
            ("postgresql://db1/%zz", "percent"),
            ("postgresql://db1/%f", "percent"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
            assert!(!error.contains("geheim"));
        }
    }
}
