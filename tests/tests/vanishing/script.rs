//! What the clients say that are about to vanish: a bit of everything.
//!
//! Rows of which a script commits nothing have the substance [`UNCOMMITTED`]: wherever the script is cut, none of them
//! may ever be seen.

mod data;
mod messages;
mod sessions;

use bytes::BytesMut;
use messages::{bind, describe_portal, execute, parse};
use pgward_wire::frontend;
use uuid::Uuid;

use crate::chance::Chance;

pub(crate) const UNCOMMITTED: &str = "uncommitted";
const COMMITTED: &str = "committed";

/// Messages behind a login, in parts: whoever waits for answers does so behind each part.
pub(crate) type Script = Vec<BytesMut>;

/// Who writes a script, and about whom.
pub(crate) struct Author {
    chance: Chance,
    /// A patient whom pgbench leaves alone.
    patient: Uuid,
    /// One whom pgbench reads and writes, too.
    shared: Uuid,
    script: Script,
}

/// A sort of script.
pub(crate) type Sort = fn(&mut Author);

/// Each sort by its name.
pub(crate) const SORTS: [(&str, Sort); 14] = [
    ("nothing", |_| {}),
    ("queries", Author::queries),
    ("several statements in a message", Author::several),
    ("pipeline", Author::pipeline),
    ("prepared statements", Author::prepared),
    ("COPY in", Author::copy_in),
    ("COPY out", Author::copy_out),
    ("open transaction", Author::transaction),
    ("cursors", Author::cursors),
    ("settings", Author::settings),
    ("what keeps a server", Author::keeping),
    ("large values", Author::large),
    ("many rows", Author::many_rows),
    ("sleep", Author::sleep),
];

impl Author {
    pub(crate) fn new(chance: Chance, patient: Uuid, shared: Uuid) -> Self {
        Self { chance, patient, shared, script: Vec::new() }
    }

    pub(crate) fn write(mut self, sort: Sort) -> Script {
        sort(&mut self);
        self.script
    }

    fn query(&mut self, sql: &str) {
        let mut part = BytesMut::new();
        frontend::put_query(&mut part, sql.as_bytes());
        self.script.push(part);
    }

    fn insert(&self, substance: &str) -> String {
        format!(
            "INSERT INTO allergies (patient_id, substance, reaction, severity) \
             VALUES ('{}', '{substance}', 'Hives', 'mild')",
            self.patient
        )
    }

    fn read(&self) -> String {
        format!("SELECT * FROM patients WHERE id = '{}'", self.patient)
    }

    fn update(&self, patient: Uuid) -> String {
        format!("UPDATE patients SET updated_at = now() WHERE id = '{patient}'")
    }

    /// A statement that may stand anywhere but in a transaction of [`UNCOMMITTED`] rows.
    fn any_statement(&mut self) -> String {
        match self.chance.below(9) {
            0 => self.insert(COMMITTED),
            1 => self.update(self.patient),
            2 => self.update(self.shared),
            3 => "SELECT 1 / 0".to_owned(),
            4 => "SELECT count(*) FROM patients".to_owned(),
            5 => String::new(),
            6 => "SHOW search_path".to_owned(),
            _ => self.read(),
        }
    }

    fn queries(&mut self) {
        for _ in 0..=self.chance.below(8) {
            let sql = self.any_statement();
            self.query(&sql);
        }
    }

    fn several(&mut self) {
        for _ in 0..=self.chance.below(3) {
            let statements: Vec<String> = (0..=self.chance.below(4)).map(|_| self.any_statement()).collect();
            let (read, uncommitted) = (self.read(), self.insert(UNCOMMITTED));
            let sql = match self.chance.below(4) {
                0 => format!("{uncommitted}; {read}; SELECT 1 / 0"),
                1 => format!("BEGIN; {uncommitted}; {read}; ROLLBACK; {read}"),
                2 => format!("BEGIN; {}; COMMIT", self.insert(COMMITTED)),
                _ => statements.join("; "),
            };
            self.query(&sql);
        }
    }

    /// Statements up to a Sync, the last of which may fail, or with no Sync at all.
    fn pipeline(&mut self) {
        for _ in 0..=self.chance.below(3) {
            let fails = self.chance.one_in(2);
            let substance = if fails { UNCOMMITTED } else { COMMITTED };
            let mut part = BytesMut::new();
            for _ in 0..=self.chance.below(5) {
                let sql = format!(
                    "INSERT INTO allergies (patient_id, substance, reaction, severity) \
                     VALUES ($1, '{substance}', 'Hives', $2)"
                );
                parse(&mut part, "", &sql);
                bind(&mut part, "", "", &[self.patient.to_string().as_bytes(), b"mild"]);
                describe_portal(&mut part);
                execute(&mut part, "", 0);
                if self.chance.one_in(3) {
                    frontend::put_flush(&mut part);
                }
            }
            if fails {
                parse(&mut part, "", "SELECT 1 / $1::int");
                bind(&mut part, "", "", &[b"0"]);
                execute(&mut part, "", 0);
            }
            if fails || !self.chance.one_in(4) {
                frontend::put_sync(&mut part);
            }
            self.script.push(part);
        }
    }

    fn prepared(&mut self) {
        let texts =
            ["SELECT family_name FROM patients WHERE id = $1", "SELECT $1::text", "SELECT nothing FROM nowhere"];
        let names = ["a", "b"];
        for name in names {
            let mut part = BytesMut::new();
            parse(&mut part, name, texts[self.chance.below(texts.len())]);
            frontend::put_describe_statement(&mut part, name.as_bytes());
            frontend::put_sync(&mut part);
            self.script.push(part);
        }
        for _ in 0..self.chance.below(20) {
            let (mut part, name) = (BytesMut::new(), *self.chance.choose(&names));
            bind(&mut part, "", name, &[self.patient.to_string().as_bytes()]);
            execute(&mut part, "", 0);
            if self.chance.one_in(6) {
                frontend::put_close_statement(&mut part, name.as_bytes());
            }
            frontend::put_sync(&mut part);
            self.script.push(part);
        }
    }

    /// Of some length, with no end or a ROLLBACK.
    fn transaction(&mut self) {
        let begin = *self.chance.choose(&["BEGIN", "START TRANSACTION ISOLATION LEVEL SERIALIZABLE", "BEGIN"]);
        self.query(begin);
        for _ in 0..self.chance.below(8) {
            let sql = match self.chance.below(9) {
                0 => "SAVEPOINT here".to_owned(),
                1 => "ROLLBACK TO here".to_owned(),
                2 => "SET LOCAL work_mem = '1MB'".to_owned(),
                3 => self.update(self.shared),
                4 => format!("{} FOR UPDATE", self.read()),
                5 => "SELECT pg_advisory_xact_lock(7)".to_owned(),
                6 => self.read(),
                _ => self.insert(UNCOMMITTED),
            };
            self.query(&sql);
        }
        if self.chance.one_in(3) {
            self.query("ROLLBACK");
        }
    }
}
