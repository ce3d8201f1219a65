//! SQL identifiers as PostgreSQL reads them: folded to lower case unless quoted.

/// Reads a dotted name such as `patients`, `ehr.patients` or `"Ehr"."Patients"`.
pub(crate) fn parts(text: &str) -> Result<Vec<String>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let (part, after) = part(text, rest)?;
        parts.push(part);
        match after.strip_prefix('.') {
            Some(after) => rest = after,
            None if after.is_empty() => return Ok(parts),
            None => return Err(format!("`{text}` is not a name; put what is unusual between double quotes")),
        }
    }
}

/// Reads a single name, such as that of a column.
pub(crate) fn single(text: &str) -> Result<String, String> {
    let mut parts = parts(text)?;
    match (parts.pop(), parts.is_empty()) {
        (Some(name), true) => Ok(name),
        _ => Err(format!("`{text}` has a dot; a name without a dot was expected")),
    }
}

fn part<'a>(whole: &str, rest: &'a str) -> Result<(String, &'a str), String> {
    let (name, after) = match rest.strip_prefix('"') {
        Some(quoted) => quoted_part(quoted).ok_or_else(|| format!("`{whole}` has no closing double quote"))?,
        None => {
            let inside = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
            let (name, after) = rest.split_at(rest.find(|c| !inside(c)).unwrap_or(rest.len()));
            if name.starts_with(|c: char| c.is_ascii_digit() || c == '$') {
                return Err(format!("`{whole}` is not a name: it begins with `{}`", &name[..1]));
            }
            // ASCII only, as PostgreSQL folds in a UTF-8 database (downcase_identifier).
            (name.to_ascii_lowercase(), after)
        }
    };
    if name.is_empty() {
        return Err(format!("`{whole}` is not a name"));
    }
    Ok((name, after))
}

/// The name up to the closing quote, a doubled quote standing for one.
fn quoted_part(quoted: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = quoted;
    loop {
        let end = rest.find('"')?;
        name.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                name.push('"');
                rest = after;
            }
            None => return Some((name, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_folded_unless_quoted() {
        assert_eq!(parts("Patients").unwrap(), ["patients"]);
        assert_eq!(parts("EHR.Patients").unwrap(), ["ehr", "patients"]);
        assert_eq!(parts(r#""Ehr"."a.b""c""#).unwrap(), ["Ehr", r#"a.b"c"#]);
        assert_eq!(single("Patient_ID").unwrap(), "patient_id");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", "a.", ".a", "a b", "1a", "\"a", "a-b", "\"\"", "a..b"] {
            assert!(parts(text).is_err(), "{text}");
        }
        assert!(single("a.b").is_err());
    }
}
