//! From a statement's text to its analysis, and from an analysis with its values to the patients it touches.
//!
//! A text that differs from a recent one in its literals alone is read by that one's template. Any other is lexed; its
//! shape is looked up by its full bytes, and only a shape not seen before is parsed. What depends on a value (a key, a
//! setting) is read from the text or the parameters each time, never from the cache.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pgward_config::{Config, KeyType, PatientRegion};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use smallvec::SmallVec;

use crate::analysis::{self, Tables};
use crate::catalog::Catalog;
use crate::evidence::{Evidence, KeySource, Mention, Params, PatientKey, Slot, Whence};
use crate::lexer::{Cut, Literals, MAX_SHAPE_BYTES, lex};
use crate::refusal::{Refusal, RefusalKind};
use crate::statement::{Action, Analysed, Literal, SetConfig, SetConfigValue, Setting, Shape, Value};
use crate::template::Templates;
use crate::values::{self, oid};

/// Longer shapes are not kept: they are bulk statements that hardly come twice.
const MAX_CACHED_SHAPE_BYTES: usize = 16 * 1024;
/// What all cached shapes may weigh together, in bytes.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// What a statement's analysis weighs besides its text and keys, roughly.
const SHAPE_OVERHEAD_BYTES: u64 = 1024;
/// A longer text is refused unseen; offsets are kept in 32 bits and PostgreSQL itself stops at 1 GB.
const MAX_TEXT_BYTES: usize = 1 << 30;

/// Analyses statements; shared by all sessions, replaced as a whole when the configuration or the catalog changes.
#[derive(Debug)]
pub struct Analyser {
    pub(crate) tables: Tables,
    key_type: KeyType,
    /// No other analyser of this process has the same.
    number: u64,
    shapes: Cache<Box<[u8]>, Arc<Shape>, ByLength, foldhash::quality::RandomState>,
}

#[derive(Clone, Debug)]
struct ByLength;

impl Weighter<Box<[u8]>, Arc<Shape>> for ByLength {
    fn weight(&self, key: &Box<[u8]>, shape: &Arc<Shape>) -> u64 {
        let sources: usize = shape.statements.iter().map(|statement| statement.keys.sources.len()).sum();
        let statements = shape.statements.len() as u64 * SHAPE_OVERHEAD_BYTES;
        (key.len() + sources * size_of::<KeySource>()) as u64 + statements
    }
}

thread_local! {
    /// The shape of the text at hand; kept so that a look-up allocates nothing.
    static SHAPE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// Of whichever analysers this thread used.
    static TEMPLATES: RefCell<Templates> = const { RefCell::new(Templates::new()) };
}

/// The number of the next analyser.
static NEXT: AtomicU64 = AtomicU64::new(0);

impl Analyser {
    /// An analyser for these tables and functions, with an empty cache.
    pub fn new(config: &Config, catalog: &Catalog) -> Self {
        let weight = CACHE_BYTES;
        Self {
            tables: Tables::new(config, catalog),
            key_type: config.sharding.key_type,
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            shapes: Cache::with(
                (weight / (SHAPE_OVERHEAD_BYTES + 256)) as usize,
                weight,
                ByLength,
                foldhash::quality::RandomState::default(),
                quick_cache::sync::DefaultLifecycle::default(),
            ),
        }
    }

    /// The type of patient keys.
    pub fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// Analyses the text of a Query or a Parse message. For a prepared statement the caller keeps the answer and the
    /// text, and asks for [`evidence`](Self::evidence) at each Bind.
    ///
    /// # Errors
    /// What PostgreSQL's own grammar does not accept, and texts that are not UTF-8. Statements that are well formed but
    /// cannot be placed are refused by `evidence`.
    pub fn analyse(&self, sql: &[u8]) -> Result<Analysed, Refusal> {
        if sql.len() > MAX_TEXT_BYTES {
            return Err(too_large());
        }
        let mut literals = Literals::new();
        match TEMPLATES.with_borrow_mut(|templates| templates.read(self.number, sql, &mut literals)) {
            Some(shape) => Ok(Analysed { shape, literals }),
            None => self.analyse_by_shape(sql),
        }
    }

    fn analyse_by_shape(&self, sql: &[u8]) -> Result<Analysed, Refusal> {
        SHAPE.with_borrow_mut(|buffer| {
            let mut literals = Literals::new();
            let lexed = lex(sql, buffer, &mut literals, Cut::Neutral);
            // A text that the lexer is not sure of may have any number of tokens in what was taken for a literal.
            if lexed.shape > MAX_SHAPE_BYTES || !lexed.sure && sql.len() > MAX_SHAPE_BYTES {
                *buffer = Vec::new();
                return Err(too_large());
            }
            // A shape says nothing of the bytes inside of literals: a text that is no UTF-8 is never looked up.
            let utf8 = std::str::from_utf8(sql).is_ok();
            let cacheable = lexed.sure && utf8 && lexed.shape <= MAX_CACHED_SHAPE_BYTES;
            if cacheable && let Some(shape) = self.shapes.get(&buffer[..lexed.shape]) {
                // Only what comes a second time is worth a template.
                TEMPLATES.with_borrow_mut(|templates| templates.keep(self.number, sql, lexed, &literals, &shape));
                return Ok(Analysed { shape, literals });
            }
            let shape = Arc::new(analysis::shape(&self.tables, sql, &literals, lexed.params)?);
            if cacheable {
                self.shapes.insert(buffer[..lexed.shape].into(), shape.clone());
            } else if buffer.capacity() > MAX_CACHED_SHAPE_BYTES * 4 {
                *buffer = Vec::new();
            }
            Ok(Analysed { shape, literals })
        })
    }

    /// The patients that a statement of `analysed` touches, with these parameters. `sql` is the text that was analysed.
    ///
    /// # Errors
    /// The statement's own refusal, if it has one; a key that cannot be decoded or is NULL.
    pub fn evidence(
        &self,
        analysed: &Analysed,
        statement: usize,
        sql: &[u8],
        params: &dyn Params,
    ) -> Result<Evidence, Refusal> {
        let Some(statement) = analysed.shape.statements.get(statement) else {
            return Ok(Evidence::default());
        };
        if let Some(refusal) = &statement.refusal {
            return Err(refusal.clone());
        }
        if statement.keys.guarded
            && let Action::Set(setting) = &statement.action
        {
            let readable = |value: &Value| match value {
                Value::Word(_) => true,
                Value::Literal { ordinal, .. } => {
                    let literal = analysed.literals.get(*ordinal as usize);
                    literal.and_then(|literal| values::literal_text(sql, literal)).is_some()
                }
            };
            if !setting.values.iter().all(readable) {
                return Err(Refusal::new(RefusalKind::Unsupported, "the value of this SET cannot be read"));
            }
            self.tables.guard(setting, &self.setting(analysed, setting, sql))?;
        }
        let mut evidence = Evidence::default();
        let reader = Reader { sql, literals: &analysed.literals, params, key_type: self.key_type };
        for slot in &statement.keys.set_config {
            let name = reader.text(*slot);
            let name = name.as_deref().and_then(|name| std::str::from_utf8(name).ok());
            self.tables.guard_set_config(name.unwrap_or("role"))?;
        }
        for set in &statement.sets {
            match reader.set_config(set) {
                Some((name, value)) => self.tables.guard_session_setting(&name, value)?,
                None => {
                    return Err(Refusal::new(RefusalKind::Unsupported, "the value of this set_config cannot be read")
                        .hint("Send it as text, and not NULL; use RESET to go back to the default."));
                }
            }
        }
        for source in &statement.keys.sources {
            if let (Slot::Param { n, .. }, [_, ..]) = (source.key, statement.keys.mixed.as_slice()) {
                reader.refuse_mixed(n, &statement.keys.mixed)?;
            }
            if let Some(Slot::Param { n, .. }) = source.region {
                reader.refuse_mixed_region(n, &statement.keys.mixed_regions)?;
            }
            reader.read(source, &mut evidence)?;
        }
        if evidence.mentions.len() > 1 {
            unite(&mut evidence)?;
        }
        if evidence.mentions.is_empty() && !statement.keys.sources.is_empty() {
            return Err(Refusal::new(RefusalKind::NoPatient, "the list of patient keys is empty")
                .hint("Do not send the statement when there is no patient to ask for."));
        }
        Ok(evidence)
    }

    /// The values of a SET of `analysed`, decoded, in order; empty for DEFAULT.
    pub fn setting(&self, analysed: &Analysed, setting: &Setting, sql: &[u8]) -> Vec<String> {
        setting.values.iter().map(|value| setting_value(value, &analysed.literals, sql)).collect()
    }

    /// The names, in lower case, of what calls of set_config in these statements change for the transaction alone; `None`
    /// for one that cannot be read.
    pub fn local_set_configs<'a>(
        &self,
        analysed: &'a Analysed,
        sql: &'a [u8],
        params: &'a dyn Params,
    ) -> impl Iterator<Item = Option<String>> + 'a {
        let reader = Reader { sql, literals: &analysed.literals, params, key_type: self.key_type };
        let slots = analysed.shape.statements.iter().flat_map(|statement| &statement.keys.set_config);
        slots.map(move |slot| {
            let name = reader.text(*slot)?;
            std::str::from_utf8(&name).ok().map(str::to_ascii_lowercase)
        })
    }

    /// What the calls of set_config in a statement set for the session, in their order: name in lower case, and value.
    /// Only for statements that [`evidence`](Self::evidence) did not refuse; what cannot be read is left out.
    pub fn set_configs(
        &self,
        analysed: &Analysed,
        statement: usize,
        sql: &[u8],
        params: &dyn Params,
    ) -> Vec<(String, String)> {
        let Some(statement) = analysed.shape.statements.get(statement) else { return Vec::new() };
        let reader = Reader { sql, literals: &analysed.literals, params, key_type: self.key_type };
        statement.sets.iter().filter_map(|set| reader.set_config(set)).collect()
    }
}

fn too_large() -> Refusal {
    Refusal::new(RefusalKind::TooLarge, "the statement is too large to be analysed")
        .detail("What is not inside of strings, comments and numbers may have 1 MiB.")
        .hint("Send its rows by COPY, its values as parameters or as one array, or several statements.")
}

fn setting_value(value: &Value, literals: &[Literal], sql: &[u8]) -> String {
    match value {
        Value::Word(word) => word.to_string(),
        Value::Literal { ordinal, negative } => {
            let text = literals.get(*ordinal as usize).and_then(|literal| values::literal_text(sql, literal));
            let text = text.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            if *negative { format!("-{text}") } else { text.into_owned() }
        }
    }
}

/// Reads the values of one statement.
struct Reader<'a> {
    sql: &'a [u8],
    literals: &'a [Literal],
    params: &'a dyn Params,
    key_type: KeyType,
}

impl Reader<'_> {
    fn read(&self, source: &KeySource, evidence: &mut Evidence) -> Result<(), Refusal> {
        let region = source.region.map(|slot| self.region(slot)).transpose()?;
        let (whence, decoded) = match source.key {
            Slot::Literal { ordinal, negative } => {
                let literal = self.literals.get(ordinal as usize);
                let whence = Whence::Literal { ordinal, at: literal.map_or(0, |literal| literal.start) };
                let mut push = |key| {
                    evidence.mentions.push(Mention { key, whence, region: region.clone(), unknown: source.unknown })
                };
                let decoded = literal.and_then(|literal| {
                    if source.array {
                        let text = values::literal_text(self.sql, literal)?;
                        values::keys_from_array_text(&text, self.key_type, push)
                    } else {
                        values::key_from_literal(self.sql, literal, negative, self.key_type).map(&mut push)
                    }
                });
                (whence, decoded)
            }
            Slot::Param { n, cast } => {
                let whence = Whence::Param(n);
                let bytes = match self.params.value(n) {
                    Some(Some(bytes)) => bytes,
                    Some(None) => return Err(self.refuse(whence, "is NULL")),
                    None => return Err(self.refuse(whence, "was not sent")),
                };
                let mut push = |key| {
                    evidence.mentions.push(Mention { key, whence, region: region.clone(), unknown: source.unknown })
                };
                let decoded = if source.array {
                    values::keys_from_array_param(bytes, n, self.params, cast, self.key_type, push)
                } else {
                    values::key_from_param(bytes, n, self.params, cast, self.key_type).map(&mut push)
                };
                (whence, decoded)
            }
        };
        let wanted = if source.array { "is no list of" } else { "is no" };
        decoded.ok_or_else(|| self.refuse(whence, wanted))
    }

    /// Refuses a key in a parameter whose type is open while the statement uses it in several ways.
    fn refuse_mixed(&self, n: u16, mixed: &[u16]) -> Result<(), Refusal> {
        if !mixed.contains(&n) || !matches!(self.params.oid(n), 0 | oid::UNKNOWN) {
            return Ok(());
        }
        let message =
            format!("the patient key in parameter ${n} has no declared type, and the statement also uses it otherwise");
        let name = self.key_type.as_str();
        Err(Refusal::new(RefusalKind::UndecodableKey, message).hint(format!(
            "Declare its type, write ${n}::{name} wherever it stands, or send the key in a parameter of its own."
        )))
    }

    /// The text of a literal or of a parameter, NULL and what cannot be read aside.
    fn text(&self, slot: Slot) -> Option<Cow<'_, [u8]>> {
        match slot {
            Slot::Literal { ordinal, .. } => values::literal_text(self.sql, self.literals.get(ordinal as usize)?),
            Slot::Param { n, .. } => self.params.value(n)?.map(Cow::Borrowed),
        }
    }

    /// Name, in lower case, and value of a set_config.
    fn set_config(&self, set: &SetConfig) -> Option<(String, String)> {
        let literal = |ordinal: u32| values::literal_text(self.sql, self.literals.get(ordinal as usize)?);
        let value = match set.value {
            SetConfigValue::Literal { ordinal } => literal(ordinal)?,
            // Types whose values are their own bytes in both formats.
            SetConfigValue::Param(n) if matches!(self.params.oid(n), 0 | oid::TEXT | oid::VARCHAR) => {
                Cow::Borrowed(self.params.value(n)??)
            }
            SetConfigValue::Param(_) => return None,
        };
        let name = std::str::from_utf8(&literal(set.name)?).ok()?.to_ascii_lowercase();
        Some((name, std::str::from_utf8(&value).ok()?.to_owned()))
    }

    /// The region that stands beside a key: what the server stores is held against the directory, so it must be text as
    /// it was sent.
    fn region(&self, slot: Slot) -> Result<PatientRegion, Refusal> {
        let is_text = match slot {
            Slot::Literal { .. } => true,
            Slot::Param { n, .. } => matches!(self.params.oid(n), 0 | oid::UNKNOWN | oid::TEXT | oid::VARCHAR),
        };
        let text = self.text(slot).filter(|_| is_text);
        let region = text.as_deref().and_then(|text| std::str::from_utf8(text).ok()).map(PatientRegion::new);
        region.ok_or_else(|| {
            let place = match slot {
                Slot::Literal { ordinal, .. } => {
                    Whence::Literal { ordinal, at: self.literals.get(ordinal as usize).map_or(0, |of| of.start) }
                }
                Slot::Param { n, .. } => Whence::Param(n),
            };
            Refusal::unread_region(format!("the region in {} is no text", place.words()))
                .hint("Send the region as text, and not NULL.")
        })
    }

    /// Refuses a region in a parameter whose type is open while the statement uses it otherwise.
    fn refuse_mixed_region(&self, n: u16, mixed: &[u16]) -> Result<(), Refusal> {
        if !mixed.contains(&n) || !matches!(self.params.oid(n), 0 | oid::UNKNOWN) {
            return Ok(());
        }
        let message =
            format!("the region in parameter ${n} has no declared type, and the statement also uses it otherwise");
        Err(Refusal::unread_region(message).hint(format!(
            "Declare its type, write ${n}::text wherever it stands, or send the region in a parameter of its own."
        )))
    }

    /// A refusal that says where the value stands and what it is not, but never the value.
    fn refuse(&self, whence: Whence, what: &str) -> Refusal {
        let place = whence.words();
        let wanted = if what.ends_with("no") || what.ends_with("of") { self.key_type.as_str() } else { "" };
        let message = format!("the patient key in {place} {what} {wanted}");
        Refusal::new(RefusalKind::UndecodableKey, message.trim_end().to_owned())
            .hint(format!("Send the key as a {} value.", self.key_type.as_str()))
    }
}

/// Leaves each patient once, where it was seen first, with its region wherever that was seen.
fn unite(evidence: &mut Evidence) -> Result<(), Refusal> {
    let mut seen: std::collections::HashMap<PatientKey, usize, foldhash::quality::RandomState> = Default::default();
    let mut kept: SmallVec<[Mention; 1]> = SmallVec::new();
    for mention in evidence.mentions.drain(..) {
        let at = *seen.entry(mention.key.clone()).or_insert(kept.len());
        let Some(first) = kept.get_mut(at) else {
            kept.push(mention);
            continue;
        };
        first.unknown = first.unknown.max(mention.unknown);
        match (&first.region, mention.region) {
            (Some(one), Some(other)) if *one != other => {
                return Err(Refusal::new(
                    RefusalKind::SeveralRegions,
                    "the statement gives one patient two home regions",
                ));
            }
            (None, Some(region)) => first.region = Some(region),
            _ => {}
        }
    }
    evidence.mentions = kept;
    Ok(())
}
