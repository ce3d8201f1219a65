//! The lexer against PostgreSQL's own grammar.
#![allow(clippy::unwrap_used)]

use pg_raw_parse::parse;
use proptest::prelude::*;

use super::*;

/// The shape with its markers shown as `<kind>`, and the literals.
fn shown(text: &str) -> (String, Vec<&str>, bool) {
    let (mut buffer, mut literals) = (Vec::new(), Literals::new());
    let lexed = lex(text.as_bytes(), &mut buffer, &mut literals, Cut::Neutral);
    let kinds = ["", "S", "E", "U", "B", "D", "I", "L", "N"];
    let shape: String = String::from_utf8_lossy(&buffer[..lexed.shape])
        .chars()
        .map(|c| kinds.get(c as usize).map_or(c.to_string(), |kind| format!("<{kind}>")))
        .collect();
    let literals = literals.iter().map(|l| &text[l.start as usize..l.end as usize]).collect();
    (shape, literals, lexed.sure)
}

/// Text, its shape, its literals.
fn check(text: &str, shape: &str, literals: &[&str]) {
    assert_eq!(shown(text), (shape.to_owned(), literals.to_vec(), true), "{text}");
}

#[test]
fn literals_of_each_kind_are_cut() {
    check("a = 'x'", "a = <S>", &["'x'"]);
    check("a = 'it''s'", "a = <S>", &["'it''s'"]);
    check("a = E'\\'' , e'\\\\'", "a = <E> , <E>", &["E'\\''", "e'\\\\'"]);
    check("U&'\\0041' u&\"\\0041\"", "<U> u&\"\\0041\"", &["U&'\\0041'"]);
    check("B'01' X'1F'", "<B> <B>", &["B'01'", "X'1F'"]);
    check("$$a'$$ $t$ $$ $t$", "<D> <D>", &["$$a'$$", "$t$ $$ $t$"]);
    check("1 12 1.5 .5 1. 1e5 1.e-5", "<I> <I> <N> <N> <N> <N> <N>", &["1", "12", "1.5", ".5", "1.", "1e5", "1.e-5"]);
    check("123456789 1234567890", "<I> <L>", &["123456789", "1234567890"]);
    check("n'x'", "n<S>", &["'x'"]);
}

#[test]
fn strings_go_on_over_newlines() {
    check("'a'\n 'b'", "<S>", &["'a'\n 'b'"]);
    check("'a' -- c'\n  'b'", "<S>", &["'a' -- c'\n  'b'"]);
    check("'a' 'b'", "<S> <S>", &["'a'", "'b'"]);
    check("E'\\''\n'\\''", "<E>", &["E'\\''\n'\\''"]);
}

#[test]
fn what_is_no_literal_stays() {
    check("a1 a$1 $12 _2", "a1 a$1 $12 _2", &[]);
    check("\"a'b\" \"c\"\"'d\"", "\"a'b\" \"c\"\"'d\"", &[]);
    check("a -- 'x'\n b /* 'y' /* 'z' */ */ c", "a b c", &[]);
    check(" a\t\n b ", "a b", &[]);
    check("a->>'x'", "a->><S>", &["'x'"]);
    check("a-1", "a-<I>", &["1"]);
    check("äöü = 'ß'", "äöü = <S>", &["'ß'"]);
}

#[test]
fn copy_do_and_create_keep_their_literals() {
    check("COPY t FROM STDIN (DELIMITER ';')", "COPY t FROM STDIN (DELIMITER ';')", &["';'"]);
    check("select 1; do $$x$$; select 1", "select <I>; do $$x$$; select <I>", &["1", "$$x$$", "1"]);
}

#[test]
fn out_of_the_ordinary_is_not_sure() {
    for text in [
        "'a",
        "\"a",
        "/* a",
        "$t$ a",
        "E'\\",
        "$1a",
        "1a",
        "0x1F",
        "1_000",
        "1..2",
        "a..b",
        "$",
        "\\",
        "\u{1}",
        "\u{b}",
        "U&'!0041' UESCAPE '!'",
        "B'1''0'",
        "1.2.3",
        "$99999",
    ] {
        assert!(!shown(text).2, "{text}");
    }
}

/// The quick way through strings against the one that looks at everything.
#[test]
fn plain_strings_end_where_any_would() {
    let tails = [
        "'",
        "';",
        "''",
        "'''",
        "' ",
        "'\n'b'",
        "'-- x\n'b'",
        "'-1",
        "\\'",
        "ß'",
        "ß'x'",
        "",
        "'\x0b",
        "';  '",
        "'\r\r",
    ];
    for (length, tail) in (0..100).flat_map(|length| tails.map(|tail| (length, tail))) {
        for behind in ["", ")", " AND name = 'a string of some length'"] {
            let text = format!("{}{tail}{behind}", "x".repeat(length));
            for from in 0..=length.min(9) {
                let any = literals::any_string_end(text.as_bytes(), from, LiteralKind::String);
                match literals::plain_string_end(text.as_bytes(), from) {
                    Some(end) => {
                        assert_eq!((end, true), (any.at, any.sure), "{text}");
                        assert!(text.as_bytes()[from..end].is_ascii(), "{text}");
                    }
                    None => assert!(tail != "';" || length - from > 60, "{text}"),
                }
            }
        }
    }
}

/// One literal of each kind.
fn canonical(kind: LiteralKind) -> &'static str {
    match kind {
        LiteralKind::String => "'x'",
        LiteralKind::Escape => "E'x'",
        LiteralKind::Unicode => "U&'x'",
        LiteralKind::Bit => "B'1'",
        LiteralKind::Dollar => "$x$x$x$",
        LiteralKind::Integer => "1",
        LiteralKind::Numeric => "1.5",
    }
}

/// The text with each literal replaced by the canonical one of its kind.
fn replaced(text: &str, literals: &[Literal]) -> String {
    let (mut out, mut at) = (String::new(), 0);
    for literal in literals {
        out += &text[at..literal.start as usize];
        out += canonical(literal.kind);
        at = literal.end as usize;
    }
    out + &text[at..]
}

/// The tree without the places where things stand in the text.
fn canonical_tree(text: &str) -> Option<String> {
    let tree = parse(text).ok()?;
    // The bindings' Debug panics on a few utility statements.
    let tree = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| format!("{tree:#?}"))).unwrap_or_default();
    let place = |line: &&str| {
        let name = line.trim_start().split(':').next().unwrap_or_default();
        name.contains("location") || name.contains("_len") || name.ends_with("_start") || name.ends_with("_end")
    };
    Some(tree.lines().filter(|line| !place(line)).collect::<Vec<_>>().join("\n"))
}

/// The grammar must not notice that the literals were exchanged, nor that the text went through its shape.
fn agrees_with_grammar(text: &str) -> Result<(), String> {
    let (mut buffer, mut literals) = (Vec::new(), Literals::new());
    let lexed = lex(text.as_bytes(), &mut buffer, &mut literals, Cut::All);
    if !lexed.sure {
        return Ok(());
    }
    let exchanged = replaced(text, &literals);
    if parse(text).is_ok() && parse(&exchanged).is_err() {
        return Err(format!("{text:?}\nno longer parses as\n{exchanged:?}"));
    }
    let mut kinds = literals.iter();
    let rebuilt: Vec<u8> = buffer[..lexed.shape]
        .iter()
        .flat_map(|&byte| match byte {
            1..=8 => canonical(kinds.next().unwrap().kind).as_bytes().to_vec(),
            byte => vec![byte],
        })
        .collect();
    let rebuilt = String::from_utf8(rebuilt).unwrap();
    if canonical_tree(&exchanged) != canonical_tree(&rebuilt) {
        return Err(format!("{exchanged:?}\nis not\n{rebuilt:?}"));
    }
    Ok(())
}

/// The corpus of the analysis, each statement and each of its beginnings.
#[test]
fn corpus_agrees_with_grammar() {
    for line in include_str!("../analysis/corpus.txt").lines() {
        agrees_with_grammar(line).unwrap();
        for end in (0..line.len()).filter(|end| line.is_char_boundary(*end)).step_by(3) {
            agrees_with_grammar(&line[..end]).unwrap();
        }
    }
}

/// Statements of PostgreSQL's own regression tests, where the folder of their files is given.
#[test]
fn regression_tests_agree_with_grammar() {
    let Some(folder) = std::env::var_os("PGWARD_REGRESS_SQL") else { return };
    let (mut wrong, mut count) = (Vec::new(), 0);
    for file in std::fs::read_dir(folder).unwrap() {
        let Ok(text) = std::fs::read_to_string(file.unwrap().path()) else { continue };
        for statement in text.split_inclusive(";\n") {
            count += 1;
            wrong.extend(agrees_with_grammar(statement).err());
        }
    }
    println!("{count} statements");
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong[..wrong.len().min(10)].join("\n\n"));
}

proptest! {
    /// Pieces of tokens in any order.
    #[test]
    fn any_tokens_agree_with_grammar(pieces in prop::collection::vec(prop::sample::select(vec![
        "SELECT", " ", "\n", "'", "''", "E'", "\\", "U&'", "$$", "$t$", "$1", "1", ".", "e5", "--", "/*", "*/", "\"", "a", ",",
        "-", "(", ")", "=", "x'", "_", "'a'", "'b'", "FROM", "::", "int", ";", "\t", "+", "0x1", "uescape",
    ]), 0..14)) {
        let text = format!("SELECT {}", pieces.concat());
        prop_assert_eq!(agrees_with_grammar(&text), Ok(()));
    }

    /// Any bytes: no panic, spans in order and inside the text.
    #[test]
    fn any_bytes_are_cut(text in prop::collection::vec(any::<u8>(), 0..200)) {
        let (mut buffer, mut literals) = (Vec::new(), Literals::new());
        lex(&text, &mut buffer, &mut literals, Cut::Neutral);
        let mut at = 0;
        for literal in &literals {
            prop_assert!(at <= literal.start && literal.start < literal.end && literal.end as usize <= text.len());
            at = literal.end;
        }
    }
}
