//! What PostgreSQL's grammar says of a text that it does not accept.

use crate::refusal::{Refusal, RefusalKind};

/// Occurrences of the token in question that are tried.
const MAX_TRIES: usize = 32;

/// The refusal of a text that the parser refused with `message`. The message is PostgreSQL's own, unless the token that
/// it quotes may be a value.
pub(super) fn refusal(sql: &str, message: String) -> Refusal {
    let mut refusal = match message.split_once(" at or near \"") {
        Some((what, token)) if !is_word(token.trim_end_matches('"')) => {
            Refusal::new(RefusalKind::Syntax, what.to_owned())
        }
        _ => Refusal::new(RefusalKind::Syntax, message.clone()),
    };
    refusal.position = position(sql, &message).map(|at| sql[..at].chars().count() as u32 + 1);
    refusal
}

/// Keywords, names and operators, but no literals.
fn is_word(token: &str) -> bool {
    !token.is_empty()
        && !token.starts_with(|c: char| c.is_ascii_digit())
        && (token.len() == 1 || !token.starts_with('.'))
        && !token.contains(['\'', '"', '\n'])
        && !token.starts_with('$')
}

/// Where the token of the message stands. The parser reads from left to right, so it is the first occurrence at whose
/// end a text cut off there has the same error.
fn position(sql: &str, message: &str) -> Option<usize> {
    if message.ends_with("at end of input") {
        return Some(sql.len());
    }
    let (_, token) = message.split_once(" at or near \"")?;
    let token = token.strip_suffix('"')?;
    if token.is_empty() {
        return None;
    }
    let mut occurrences = sql.match_indices(token).map(|(at, _)| at);
    let last = sql.rfind(token)?;
    let same = |at: &usize| {
        *at == last
            || pg_raw_parse::parse(&sql[..*at + token.len()]).is_err_and(|error| error_message(&error) == message)
    };
    occurrences.by_ref().take(MAX_TRIES).find(same)
}

/// The message without the crate's own prefix.
pub(super) fn error_message(error: &pg_raw_parse::Error) -> String {
    let text = error.to_string();
    text.strip_prefix("Invalid statement: ").map(str::to_owned).unwrap_or(text)
}
