//! A text's literals and highest parameter, where the lexer is sure of them: those that PostgreSQL's own scanner finds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgward_fuzz::scanner::{Token, scan};
use pgward_router::statement::LiteralKind;

fuzz_target!(|text: &[u8]| {
    let Some((literals, params)) = pgward_router::fuzzing::lex(text) else { return };
    let mut at = 0;
    for literal in &literals {
        assert!(at <= literal.start && literal.start < literal.end && literal.end as usize <= text.len());
        at = literal.end;
    }
    // What the scanner refuses has no tokens, and runs nowhere.
    let Some(tokens) = std::str::from_utf8(text).ok().and_then(scan) else { return };
    if goes_on_behind_a_comment(text, &tokens) {
        return;
    }
    let scanned: Vec<_> = tokens.iter().filter_map(|token| Some((token.start, token.end, kinds(token)?))).collect();
    let same = literals.len() == scanned.len()
        && literals.iter().zip(&scanned).all(|(literal, (start, end, kinds))| {
            (literal.start, literal.end) == (*start, *end) && kinds.contains(&literal.kind)
        });
    assert!(same, "{:?}\n{literals:?}\n{scanned:?}", String::from_utf8_lossy(text));
    let highest = tokens.iter().filter_map(|token| token.param(text)).max().unwrap_or(0);
    assert_eq!(u32::from(params), highest);
});

/// This scanner makes tokens of comments, and so does not see that a string goes on behind one, as PostgreSQL's does. Its
/// grammar refuses what it takes for two strings, and so do we.
fn goes_on_behind_a_comment(text: &[u8], tokens: &[Token]) -> bool {
    let mut string = false;
    for pair in tokens.windows(2) {
        string = [Token::STRING, Token::UNICODE, Token::BITS, Token::HEX].contains(&pair[0].number)
            || string && pair[0].number == Token::LINE_COMMENT;
        if string && pair[0].number == Token::LINE_COMMENT && text[pair[1].start as usize] == b'\'' {
            return true;
        }
    }
    false
}

/// The kinds that a literal of this token may have; `None` for what is no literal.
fn kinds(token: &Token) -> Option<&'static [LiteralKind]> {
    match token.number {
        Token::FLOAT => Some(&[LiteralKind::Numeric, LiteralKind::Integer]),
        Token::STRING => Some(&[LiteralKind::String, LiteralKind::Escape, LiteralKind::Dollar]),
        Token::UNICODE => Some(&[LiteralKind::Unicode]),
        Token::BITS | Token::HEX => Some(&[LiteralKind::Bit]),
        Token::INTEGER => Some(&[LiteralKind::Integer]),
        _ => None,
    }
}
