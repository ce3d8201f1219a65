//! Typed access to one TOML table. A mistake is noted with its place and reading goes on, so that an operator sees all
//! mistakes at once; serde would stop at the first.
//!
//! What cannot be read is replaced by a default or an empty stand-in; that is safe because a document with a noted
//! error never becomes a `Config`, and rules between tables skip empty stand-ins.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::time::Duration;

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use crate::nearest::nearest;
use crate::problem::{Access, NamedFile, Problem, Problems};
use crate::units::{DURATION, SIZE, parse_duration, parse_size};

pub(crate) type Value<'a> = Spanned<DeValue<'a>>;

/// One table of the document, or one that is absent and so has only defaults.
pub(crate) struct Reader<'a> {
    name: String,
    place: Range<usize>,
    table: Option<&'a DeTable<'a>>,
    problems: &'a Problems,
    known: RefCell<Vec<&'static str>>,
    missing: RefCell<Vec<(&'static str, String)>>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(
        name: impl Into<String>,
        place: Range<usize>,
        table: Option<&'a DeTable<'a>>,
        problems: &'a Problems,
    ) -> Self {
        Self { name: name.into(), place, table, problems, known: RefCell::default(), missing: RefCell::default() }
    }

    /// How messages call this table, e.g. `[proxy]`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Notes a problem.
    pub(crate) fn push(&self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Keeps a key's value out of reports.
    pub(crate) fn conceal(&self, key: &str) {
        if let Some(value) = self.peek(key) {
            self.problems.conceal(value.span());
        }
    }

    /// Remembers that a key, or its default, names this file.
    pub(crate) fn name_file(&self, key: &str, path: &Path, access: Access) {
        let by = format!("`{key}` of {}", self.name);
        self.problems.name_file(NamedFile { path: path.to_owned(), at: self.at(key), by, access });
    }

    /// Whether the table has no key at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.table.is_none_or(|table| table.is_empty())
    }

    /// Whether the table stands in the file.
    pub(crate) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// The place of the table itself.
    pub(crate) fn place(&self) -> Range<usize> {
        self.place.clone()
    }

    /// The place of a key's value, or of the table where the key is absent.
    pub(crate) fn at(&self, key: &str) -> Range<usize> {
        self.peek(key).map_or_else(|| self.place(), |value| value.span())
    }

    /// The place of the n-th element of a key's array.
    pub(crate) fn at_nth(&self, key: &str, n: usize) -> Range<usize> {
        let element = self.peek(key).and_then(|value| value.get_ref().as_array()).and_then(|array| array.get(n));
        element.map_or_else(|| self.at(key), |value| value.span())
    }

    /// A reader of no keys that points at the same place: stands in for a table that is absent.
    pub(crate) fn twin(&self) -> Reader<'a> {
        Reader::new(self.name.clone(), self.place(), None, self.problems)
    }

    /// A key's text, without any note of what is wrong.
    pub(crate) fn peek_text(&self, key: &str) -> Option<&'a str> {
        self.peek(key).and_then(|value| value.get_ref().as_str())
    }

    fn peek(&self, key: &str) -> Option<&'a Value<'a>> {
        self.table.and_then(|table| table.get(key))
    }

    /// A key's value as it stands; the key counts as known from now on.
    pub(crate) fn value(&self, key: &'static str) -> Option<&'a Value<'a>> {
        if !self.known.borrow().contains(&key) {
            self.known.borrow_mut().push(key);
        }
        self.peek(key)
    }

    /// Notes that a required key is absent (unless an unknown key turns out to be its misspelling).
    pub(crate) fn missing(&self, key: &'static str, example: impl Display) {
        self.missing.borrow_mut().push((key, example.to_string()));
    }

    /// Notes a value of the wrong type.
    fn wrong_type(&self, key: &str, value: &Value<'_>, expected: &str) {
        let found = value.get_ref().type_str();
        let article = if found.starts_with(['a', 'i']) { "an" } else { "a" };
        self.push(
            Problem::error(value.span(), format!("`{key}` of {} is {article} {found}", self.name))
                .label(format!("expected {expected}")),
        );
    }

    /// A text.
    pub(crate) fn text(&self, key: &'static str, expected: &str) -> Option<Spanned<&'a str>> {
        let value = self.value(key)?;
        self.as_text(key, value, expected)
    }

    fn as_text(&self, key: &str, value: &'a Value<'a>, expected: &str) -> Option<Spanned<&'a str>> {
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(key, value, expected);
            return None;
        };
        if text.trim().is_empty() {
            self.push(
                Problem::error(value.span(), format!("`{key}` of {} is empty", self.name))
                    .label(format!("expected {expected}")),
            );
            return None;
        }
        Some(Spanned::new(value.span(), text))
    }

    /// A text that must be there; the empty text stands in for one that is not.
    pub(crate) fn need(&self, key: &'static str, expected: &str) -> &'a str {
        if self.value(key).is_none() {
            self.missing(key, expected);
            return "";
        }
        self.text(key, expected).map_or("", Spanned::into_inner)
    }

    /// A text that `parse` understands.
    pub(crate) fn parsed<T, E: Display>(
        &self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(key, expected)?;
        match parse(text.get_ref()) {
            Ok(value) => Some(value),
            Err(why) => {
                self.push(
                    Problem::error(text.span(), format!("`{key}` of {}: {why}", self.name))
                        .label(format!("expected {expected}")),
                );
                None
            }
        }
    }

    /// A text that `parse` understands and that must be there.
    pub(crate) fn need_parsed<T, E: Display>(
        &self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        if self.value(key).is_none() {
            self.missing(key, expected);
        }
        self.parsed(key, expected, parse)
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(&self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(key, &one_of(words.iter().map(|(word, _)| *word)))?;
        self.as_word(key, &text, words)
    }

    /// One of a few words, which must be there.
    pub(crate) fn need_word<T: Copy>(&self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        if self.value(key).is_none() {
            self.missing(key, one_of(words.iter().map(|(word, _)| *word)));
        }
        self.word(key, words)
    }

    /// A list of words.
    pub(crate) fn words<T: Copy>(&self, key: &'static str, words: &[(&str, T)]) -> Vec<T> {
        self.texts(key, "a list of words").iter().filter_map(|text| self.as_word(key, text, words)).collect()
    }

    fn as_word<T: Copy>(&self, key: &str, text: &Spanned<&str>, words: &[(&str, T)]) -> Option<T> {
        let known = || words.iter().map(|(word, _)| *word);
        let found = words.iter().find(|(word, _)| word == text.get_ref()).map(|(_, value)| *value);
        if found.is_none() {
            let near = nearest(text.get_ref(), known()).map(|near| format!("did you mean \"{near}\"?"));
            self.push(
                Problem::error(text.span(), format!("`{key}` of {} cannot be \"{}\"", self.name, text.get_ref()))
                    .label(format!("expected {}", one_of(known())))
                    .maybe_help(near),
            );
        }
        found
    }

    /// A list of texts; empty when absent.
    pub(crate) fn texts(&self, key: &'static str, expected: &str) -> Vec<Spanned<&'a str>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, value, expected);
            return Vec::new();
        };
        array.iter().filter_map(|element| self.as_text(key, element, "a text")).collect()
    }

    /// A whole number within a range.
    pub(crate) fn number(&self, key: &'static str, allowed: RangeInclusive<u64>) -> Option<u64> {
        let expected = if *allowed.end() > u64::from(u32::MAX) {
            format!("a whole number from {}", allowed.start())
        } else {
            format!("a whole number from {} to {}", allowed.start(), allowed.end())
        };
        let value = self.value(key)?;
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_type(key, value, &expected);
            return None;
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok().filter(|n| allowed.contains(n));
        if number.is_none() {
            self.push(
                Problem::error(value.span(), format!("`{key}` of {} cannot be {integer}", self.name))
                    .label(format!("expected {expected}")),
            );
        }
        number
    }

    /// A number that fits into 32 bits, or its default.
    pub(crate) fn number_or(&self, key: &'static str, least: u32, default: u32) -> u32 {
        let number = self.number(key, u64::from(least)..=u64::from(u32::MAX));
        number.and_then(|number| u32::try_from(number).ok()).unwrap_or(default)
    }

    /// `true` or `false`, or its default.
    pub(crate) fn boolean_or(&self, key: &'static str, default: bool) -> bool {
        let Some(value) = self.value(key) else { return default };
        value.get_ref().as_bool().unwrap_or_else(|| {
            self.wrong_type(key, value, "true or false");
            default
        })
    }

    /// A duration above zero, or its default.
    pub(crate) fn duration_or(&self, key: &'static str, default: Duration) -> Duration {
        self.parsed(key, DURATION, above_zero).unwrap_or(default)
    }

    /// A duration above zero or `"never"`, or its default.
    pub(crate) fn duration_or_never(&self, key: &'static str, default: Option<Duration>) -> Option<Duration> {
        let parse = |text: &str| if text == "never" { Ok(None) } else { above_zero(text).map(Some) };
        self.parsed(key, r#"a duration such as "5m", or "never""#, parse).unwrap_or(default)
    }

    /// A size of at least `least` bytes, or its default. Plain bytes may be written as a number.
    pub(crate) fn size_or(&self, key: &'static str, least: u64, default: u64) -> u64 {
        if self.value(key).is_some_and(|value| value.get_ref().is_integer()) {
            return self.number(key, least..=u64::MAX).unwrap_or(default);
        }
        let parse = |text: &str| match parse_size(text)? {
            bytes if bytes < least => Err(format!("`{text}` is less than {least} bytes")),
            bytes => Ok(bytes),
        };
        self.parsed(key, SIZE, parse).unwrap_or(default)
    }

    /// A table under a key; `None` when absent or not a table.
    pub(crate) fn table(&self, key: &'static str, expected: &str) -> Option<Reader<'a>> {
        let value = self.value(key)?;
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type(key, value, expected);
            return None;
        };
        Some(Reader::new(format!("`{key}` of {}", self.name), value.span(), Some(table), self.problems))
    }

    /// A top-level table `[key]`; an empty one stands in where it is absent.
    pub(crate) fn section(&self, key: &'static str) -> Reader<'a> {
        self.section_of(key, &format!("[{key}]"))
    }

    /// The same with a longer name, e.g. `[pools.general]`.
    pub(crate) fn section_of(&self, key: &'static str, name: &str) -> Reader<'a> {
        match self.table(key, &format!("a table {name}")) {
            Some(reader) => Reader { name: name.into(), ..reader },
            None => Reader::new(name, self.place(), None, self.problems),
        }
    }

    /// The tables of an array `[[key]]`; empty when absent.
    pub(crate) fn sections(&self, key: &'static str) -> Vec<Reader<'a>> {
        self.tables(key, &format!("[[{key}]]"))
    }

    /// The tables of an array under a key, each called `name`.
    pub(crate) fn tables(&self, key: &'static str, name: &str) -> Vec<Reader<'a>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let expected = format!("tables {name}");
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, value, &expected);
            return Vec::new();
        };
        let mut readers = Vec::new();
        for element in array.iter() {
            match element.get_ref().as_table() {
                Some(table) => readers.push(Reader::new(name, element.span(), Some(table), self.problems)),
                None => self.wrong_type(key, element, "a table"),
            }
        }
        readers
    }

    /// Notes unknown keys and missing ones. To be called when all keys have been asked for.
    pub(crate) fn finish(&self) {
        let known = self.known.borrow();
        let mut missing = self.missing.borrow_mut();
        for (key, _) in self.table.into_iter().flatten() {
            if known.iter().any(|known| known == key.get_ref()) {
                continue;
            }
            let near = nearest(key.get_ref(), known.iter().copied().filter(|known| self.peek(known).is_none()))
                .or_else(|| nearest(key.get_ref(), known.iter().copied()));
            missing.retain(|(missing, _)| Some(*missing) != near);
            let mut sorted = known.clone();
            sorted.sort_unstable();
            self.push(
                Problem::error(key.span(), format!("unknown key `{}` in {}", key.get_ref(), self.name))
                    .label(match near {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => "no such key".into(),
                    })
                    .help(format!("the keys of {} are {}", self.name, sorted.join(", "))),
            );
        }
        for (key, example) in missing.drain(..) {
            self.push(
                Problem::error(self.place(), format!("{} has no `{key}`", self.name))
                    .label(format!("expected `{key}`: {example}")),
            );
        }
    }
}

fn above_zero(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err(format!("`{text}` is no time at all")),
        duration => Ok(duration),
    }
}

/// `"a", "b" or "c"`.
pub(crate) fn one_of<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = words.map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// An item of the model with the table that it was read from, for rules that must point at it.
pub(crate) struct Placed<'a, T> {
    pub(crate) item: T,
    pub(crate) reader: Reader<'a>,
}

impl<T> std::ops::Deref for Placed<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.item
    }
}
