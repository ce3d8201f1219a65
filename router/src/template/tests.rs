//! Templates against the lexer: what a template reads, the lexer must find.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use smallvec::SmallVec;

use super::*;
use crate::lexer::{Cut, lex};

/// What the lexer finds: the shape's bytes, the literals, and the rest.
fn lexed(text: &[u8]) -> (Vec<u8>, Literals, Lexed) {
    let (mut buffer, mut literals) = (Vec::new(), Literals::new());
    let lexed = lex(text, &mut buffer, &mut literals, Cut::Neutral);
    buffer.truncate(lexed.shape);
    (buffer, literals, lexed)
}

/// The template that the analyser would make of a text.
fn template(text: &[u8]) -> Option<Template> {
    let (_, literals, lexed) = lexed(text);
    (lexed.sure && !lexed.kept && std::str::from_utf8(text).is_ok()).then(|| Template::new(text, &literals))
}

/// Whether the template of `model` reads `text`; if it does, then as the lexer does.
fn reads(model: &[u8], template: &Template, text: &[u8]) -> bool {
    let mut literals = Literals::new();
    if !template.read(text, &mut literals) {
        return false;
    }
    let shown = || format!("{:?} by {:?}", String::from_utf8_lossy(text), String::from_utf8_lossy(model));
    assert!(std::str::from_utf8(text).is_ok(), "{}", shown());
    let stable = literals.iter().all(|literal| literal.kind != LiteralKind::Dollar);
    assert_eq!(lexed(text), (lexed(model).0, literals, lexed(model).2), "{}", shown());
    if stable {
        assert_eq!(beginning(text), beginning(model), "{}", shown());
    }
    true
}

fn check(model: &str, texts: &[&str]) {
    let template = template(model.as_bytes()).unwrap();
    for text in texts {
        assert!(reads(model.as_bytes(), &template, text.as_bytes()), "{text} by {model}");
    }
}

fn check_not(model: &str, texts: &[&str]) {
    let template = template(model.as_bytes()).unwrap();
    for text in texts {
        assert!(!reads(model.as_bytes(), &template, text.as_bytes()), "{text} by {model}");
    }
}

#[test]
fn texts_with_other_values_are_read() {
    check("a = 'x' AND b = 1", &["a = 'x' AND b = 1", "a = '' AND b = 23", "a = 'it''s' AND b = 999999999"]);
    check("a = 'x'", &["a = 'x'\n'y'", "a = 'x' -- '\n  'y'", "a = 'ß'", "a = '\\'", "a = '$1 -- /*'"]);
    check("E'x' U&'x' B'1'", &["E'\\'' U&'''' B''", "E'a'\n'\\'' U&'x'\n'y' B'1'\n'0'"]);
    check("$$x$$, $t$x$t$", &["$$'$$, $t$$$$t$", "$$$$, $t$$t$"]);
    check("1.5 .5 1234567890 -1", &["1. .123 99999999999999999999 -0", "1e5 .5e-5 1234567890 -1"]);
    check("'a'E'b'1", &["''E'\\\\'2"]);
    check("select 1 -- 'x' 1", &["select 2 -- 'x' 1"]);
    check("ä = 'x' /* 1 */", &["ä = 'ä' /* 1 */"]);
    check("", &[""]);
}

#[test]
fn texts_of_other_shapes_are_not() {
    check_not("a = 'x'", &["a = E'x'", "a = $$x$$", "a = 1", "a = 'x", "a = 'x''", "a = 'x' 'y'", "a = ", "b = 'x'"]);
    check_not("a = 'x' b", &["a = 'x'b", "a = 'x'", "a = 'x' b ", "a = 'x'\n'y'b", "a = 'x' /* */ b"]);
    check_not("E'x'", &["E'\\'", "e'x'", "'x'", "U&'x'"]);
    check_not("B'1'", &["B'1''0'", "X'1'"]);
    check_not("$t$x$t$", &["$s$x$s$", "$$x$$", "$t$x$s$"]);
    check_not(
        "a = 1",
        &["a = 1.", "a = .1", "a = 1e5", "a = 1234567890", "a = 1a", "a = 1_0", "a = 1..2", "a = -1", "a = $1"],
    );
    check_not("a.5", &["a5", "a.b", "a. 5", "a..5"]);
    check_not("a = $1", &["a = $2", "a = $11", "a = 1"]);
    check_not("select 1 -- x", &["select 1 -- y", "select 1"]);
}

#[test]
fn values_that_are_no_utf8_are_not_read() {
    for model in ["SELECT 'x', 1", "SELECT E'x', 1", "SELECT U&'x', 1", "SELECT B'x', 1", "SELECT $$x$$, 1"] {
        let template = template(model.as_bytes()).unwrap();
        let junk: Vec<u8> = model.bytes().map(|byte| if byte == b'x' { 0xff } else { byte }).collect();
        assert!(!template.read(&junk, &mut Literals::new()), "{model}");
        assert!(template.read(model.as_bytes(), &mut Literals::new()), "{model}");
    }
}

/// Bytes that turn tokens into others.
const BYTES: &[u8] = b"'\"$.-19eEU&x_ \n\\*/;\x01\x0b\xff\xc3";

/// Each statement of the analysis' corpus: cut anywhere, and with any byte exchanged, left out or put in.
#[test]
fn corpus_is_read_as_the_lexer_reads_it() {
    let mut read = 0;
    for model in include_str!("../analysis/corpus.txt").lines().map(str::as_bytes) {
        let Some(template) = template(model) else { continue };
        assert!(reads(model, &template, model));
        for at in 0..model.len() {
            let (before, behind) = model.split_at(at);
            reads(model, &template, before);
            reads(model, &template, &[before, &behind[1..]].concat());
            for byte in BYTES {
                read += usize::from(reads(model, &template, &[before, &[*byte], behind].concat()));
                read += usize::from(reads(model, &template, &[before, &[*byte], &behind[1..]].concat()));
            }
        }
    }
    assert!(read > 10_000, "{read}");
}

/// One of the corpus is never read by the template of another, unless they are of one shape.
#[test]
fn corpus_does_not_read_itself_wrongly() {
    let corpus: Vec<_> = include_str!("../analysis/corpus.txt").lines().map(str::as_bytes).collect();
    for model in &corpus {
        let Some(template) = template(model) else { continue };
        for text in &corpus {
            reads(model, &template, text);
        }
    }
}

fn shape() -> Arc<Shape> {
    Arc::new(Shape { fingerprint: "".into(), statements: SmallVec::new(), params: 0 })
}

/// Whether one of them reads this text for this analyser.
fn finds(templates: &mut Templates, analyser: u64, text: &str) -> bool {
    templates.read(analyser, text.as_bytes(), &mut Literals::new()).is_some()
}

fn keep(templates: &mut Templates, analyser: u64, text: &str) {
    let (_, literals, lexed) = lexed(text.as_bytes());
    templates.keep(analyser, text.as_bytes(), lexed, &literals, &shape());
}

#[test]
fn another_analysers_templates_are_not_used() {
    let mut templates = Templates::new();
    keep(&mut templates, 1, "SELECT 'x'");
    assert!(!finds(&mut templates, 2, "SELECT 'y'"));
    assert!(finds(&mut templates, 1, "SELECT 'y'"));
}

#[test]
fn what_the_lexer_is_not_sure_of_or_keeps_is_no_template() {
    let mut templates = Templates::new();
    for text in
        ["SELECT 0x1", "COPY t FROM STDIN (DELIMITER ';')", "DO 'x'", "select 1; create table t (a int default 1)"]
    {
        keep(&mut templates, 1, text);
        assert!(!finds(&mut templates, 1, text), "{text}");
    }
    keep(&mut templates, 1, "COPY t FROM STDIN; SELECT 1");
    assert!(finds(&mut templates, 1, "COPY t FROM STDIN; SELECT 2"));
}

/// Bytes of all templates, as far as texts decide about them.
fn weight(templates: &Templates) -> usize {
    let entries = templates.sets.iter().flatten();
    let heap = |entry: &Entry| entry.template.fixed.len() + entry.template.holes.len() * size_of::<Hole>();
    let sets: usize = templates.sets.iter().map(|set| set.capacity() * size_of::<Entry>()).sum();
    entries.map(heap).sum::<usize>() + sets
}

#[test]
fn memory_is_bounded() {
    let mut templates = Templates::new();
    for length in 0..4_000 {
        keep(&mut templates, 1, &format!("{length:x} {} '{}'", "a".repeat(length), "b".repeat(9_000)));
        keep(&mut templates, 1, &format!("{length:x}{} 1", "a,1".repeat(length % 70)));
        keep(&mut templates, 1, &format!("t{length:x} ${0}$ ${0}$", "a".repeat(length * 2)));
    }
    assert!(templates.sets.iter().all(|set| set.len() == WAYS));
    assert!(weight(&templates) < 256 * 1024);
    let most = SETS * WAYS * (MAX_FIXED_BYTES + MAX_HOLES * size_of::<Hole>() + size_of::<Entry>());
    assert!(most < 256 * 1024, "{most}");
}

#[test]
fn the_one_not_used_for_longest_is_displaced() {
    let mut templates = Templates::new();
    let text = |n: usize| format!("SELECT a_first_column_of_some_length, column{n} FROM t WHERE a = 1");
    (0..WAYS).for_each(|n| keep(&mut templates, 1, &text(n)));
    (0..WAYS).filter(|n| *n != 3).for_each(|n| assert!(finds(&mut templates, 1, &text(n))));
    (0..DISPLACE_ONE_OF).for_each(|_| keep(&mut templates, 1, &text(99)));
    for n in 0..WAYS {
        assert_eq!(finds(&mut templates, 1, &text(n)), n != 3, "{n}");
    }
    assert!(finds(&mut templates, 1, &text(99)));
}

#[test]
fn a_text_is_found_whatever_stands_in_its_literals() {
    let mut templates = Templates::new();
    for model in
        ["SELECT 1", "UPDATE t1 SET a = 1, b = 'x'", "VALUES ('x', 1)", "BEGIN", "SELECT a FROM p1_0 WHERE b=1"]
    {
        keep(&mut templates, 1, model);
        for (number, string) in [("2", "'y'"), ("999999999", "'1'''"), ("12345", "''"), ("0", "'a long string = 1'")] {
            let text = model.replace(" 1", &format!(" {number}")).replace("=1", &format!("={number}"));
            let text = text.replace("'x'", string);
            assert!(finds(&mut templates, 1, &text), "{text}");
        }
    }
}

/// Pieces of tokens, from which texts are put together.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let pieces = [
        "SELECT",
        " ",
        "\n",
        "'",
        "''",
        "E'",
        "e'",
        "\\",
        "U&'",
        "U&\"",
        "$$",
        "$t$",
        "$1",
        "1",
        "1234567890",
        ".",
        "..",
        "e5",
        "--",
        "/*",
        "*/",
        "\"",
        "a",
        ",",
        "-",
        "(",
        "=",
        "x'",
        "B'",
        "n'",
        "_",
        "'a'",
        "'b'",
        "::",
        ";",
        "\t",
        "+",
        "0x1",
        "uescape",
        "copy",
        "do",
        "create",
        "'x'\n",
        "\x0b",
        "ä",
        "'ä'",
        "1.5",
        ".5",
    ];
    prop_oneof![
        20 => prop::sample::select(pieces.to_vec()).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..3),
    ]
}

/// A value of any kind, well formed or not.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "'[a-z' \n\\\\-]{0,6}'",
        "[eEuU]&?'[a-z'\\\\]{0,4}'",
        "[0-9]{1,12}",
        "[0-9]{0,2}\\.[0-9]{0,2}(e[0-9])?",
        "\\$t?\\$[a-z$']{0,4}\\$t?\\$",
        "'a'( |\n|--x\n){0,2}'b'",
    ]
    .prop_map(String::into_bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// A text of pieces; the same with some pieces exchanged, and with its literals exchanged for any values.
    #[test]
    fn any_texts_are_read_as_the_lexer_reads_them(
        pieces in prop::collection::vec(piece(), 0..14),
        others in prop::collection::vec((any::<prop::sample::Index>(), piece()), 1..3),
        values in prop::collection::vec(prop_oneof![value(), piece()], 1..6),
    ) {
        let model = pieces.concat();
        let Some(template) = template(&model) else { return Ok(()) };
        prop_assert!(reads(&model, &template, &model));
        let mut changed = pieces.clone();
        for (at, piece) in others {
            if !changed.is_empty() {
                let at = at.index(changed.len());
                changed[at] = piece;
            }
            reads(&model, &template, &changed.concat());
        }
        let (mut text, mut at) = (Vec::new(), 0);
        for (literal, value) in lexed(&model).1.iter().zip(values.iter().cycle()) {
            text.extend_from_slice(&model[at..literal.start as usize]);
            text.extend_from_slice(value);
            at = literal.end as usize;
        }
        text.extend_from_slice(&model[at..]);
        for end in 0..=text.len() {
            reads(&model, &template, &text[..end]);
        }
    }
}
