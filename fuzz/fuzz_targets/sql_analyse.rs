//! A statement's text, and the values of its parameters: analysed from the cache, by a template, and once with an empty
//! cache. The patients and the literals found must be the same each time. What a PREPARE prepares is the end of its text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgward_fuzz::{Values, analyser};
use pgward_router::{Analyser, Params, Refusal, RefusalKind, sql_prepared};

thread_local! {
    /// Remembers the shapes of all inputs before.
    static WARM: Analyser = analyser();
}

fn found(analyser: &Analyser, sql: &[u8], params: &dyn Params) -> Result<Vec<String>, Refusal> {
    let analysed = analyser.analyse(sql)?;
    for literal in &analysed.literals {
        assert!(literal.start < literal.end && literal.end as usize <= sql.len());
    }
    let shape = format!("{} {} {:?}", analysed.shape.fingerprint, analysed.shape.params, analysed.literals);
    let statements = analysed.shape.statements.iter().enumerate();
    Ok(std::iter::once(shape)
        .chain(statements.map(|(n, statement)| {
            let evidence = analyser.evidence(&analysed, n, sql, params);
            format!("{:?} {} {:?} {evidence:?}", statement.action, statement.reads_only, statement.tables)
        }))
        .collect())
}

fuzz_target!(|data: &[u8]| {
    // What stands behind the first NUL, which no text can hold, are parameters.
    let (sql, params) = data.split_at(data.iter().position(|byte| *byte == 0).unwrap_or(data.len()));
    let params = Values::new(params);
    if let Ok(preparing) = sql_prepared::preparing(sql) {
        assert!(sql.ends_with(preparing.text) && preparing.before < sql.len());
    }
    if let Ok(values) = sql_prepared::arguments(sql, &[]) {
        assert!(values.len() <= sql.len());
    }
    WARM.with(|warm| {
        let first = found(warm, sql, &params);
        // From the cache, where a template is made of it; then by that.
        for _ in 0..2 {
            assert_eq!(format!("{:?}", found(warm, sql, &params)), format!("{first:?}"));
        }
        // A new analyser is dear: now and then is enough to see a shape that stands for texts of another meaning.
        if data.len().is_multiple_of(16) {
            let new = found(&analyser(), sql, &params);
            // The grammar refuses a malformed escape; by a known shape nobody has looked at it, and a server will.
            let escape = |sql: &[u8]| sql.windows(2).any(|pair| matches!(pair, [b'e' | b'E', b'\''] | [b'&', b'\'']));
            match (&new, &first) {
                (Err(refusal), Ok(_)) if refusal.kind == RefusalKind::Syntax && escape(sql) => {}
                _ => assert_eq!(format!("{new:?}"), format!("{first:?}")),
            }
        }
    });
});
