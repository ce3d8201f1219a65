//! The statements, and what each comes to by itself.

use pgward_tests::Deployment;

/// What a statement comes to by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// A replica answers.
    Read,
    /// The primary answers.
    Write,
    /// The primary answers, as an emergency.
    Emergency,
    /// This SQLSTATE.
    Refused(&'static str),
}

/// What the grammar lets a statement be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Anything.
    Select,
    /// No cursor, but COPY and PREPARE.
    Returning,
    /// A statement by itself only.
    Utility,
}

pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) listener: &'static str,
    pub(super) user: &'static str,
    /// With `$1` where the patient stands.
    pub(super) sql: String,
    pub(super) patient: String,
    pub(super) form: Form,
    pub(super) expect: Expect,
    /// The region of the shard that it goes to.
    pub(super) region: &'static str,
    /// The region of the patient that the statement before it reads, where one comes before it.
    pub(super) before: &'static str,
    /// What PREPARE of it comes to where that is neither its own refusal nor that it is prepared: an SQLSTATE.
    pub(super) prepare: Option<&'static str>,
    /// Its PREPARE keeps a server.
    pub(super) keeps: bool,
    /// Its values are what it is refused for.
    pub(super) by_value: bool,
}

impl Case {
    /// A statement of the application's that goes to us-east, or nowhere.
    pub(super) fn new(name: &'static str, form: Form, sql: &str, patient: &str, expect: Expect) -> Self {
        let utility = form == Form::Utility;
        Self {
            name,
            listener: "general",
            user: "app",
            sql: sql.replace("NODE", "current_setting('cluster_name')"),
            patient: patient.to_owned(),
            form,
            expect,
            region: "us-east",
            before: "us-east",
            prepare: utility.then_some("42601"),
            keeps: false,
            by_value: false,
        }
    }

    /// Goes to eu-west, and so does what comes before it.
    pub(super) fn elsewhere(self) -> Self {
        Self { region: "eu-west", before: "eu-west", ..self }
    }

    /// Comes from ap-south-1, where other regions' patients are out of reach.
    pub(super) fn far_away(self) -> Self {
        Self { listener: "strict-ap", region: "ap-south", before: "ap-south", ..self }
    }

    pub(super) fn literal(&self) -> String {
        self.sql.replace("$1", &format!("'{}'", self.patient))
    }

    pub(super) fn before(&self, pgward: &Deployment) -> String {
        format!("SELECT 'before' FROM patients WHERE id = '{}'", pgward.patient(self.before, 60).id)
    }

    /// Refused whatever its values are, and not to be described either.
    pub(super) fn is_refused_at_parse(&self) -> bool {
        matches!(self.expect, Expect::Refused(code) if code != "PW001") && !self.by_value
    }

    /// What is expected behind another statement: on the shard of that, or not at all.
    pub(super) fn behind(&self, other_shard: &'static str) -> Expect {
        match self.expect {
            Expect::Refused(_) => self.expect,
            _ if self.region == self.before => self.expect,
            _ => Expect::Refused(other_shard),
        }
    }
}

/// Statements that reach a server.
pub(super) fn routed(pgward: &Deployment) -> Vec<Case> {
    use Expect::{Emergency, Read, Write};
    let east = pgward.patient("us-east", 61).id.to_string();
    let west = pgward.patient("eu-west", 61).id.to_string();
    let read = "SELECT NODE FROM patients WHERE id = $1";
    let write = "UPDATE patients SET critical = critical WHERE id = $1 RETURNING NODE";
    let reference = "SELECT NODE FROM icd10_codes WHERE code = 'I10'";
    let case = Case::new;
    let keeping = |case| Case { keeps: true, ..case };
    let dispatched = |case| Case { listener: "emergency", user: "dispatcher", ..case };
    vec![
        case("a read", Form::Select, read, &east, Read),
        case("a read elsewhere", Form::Select, read, &west, Read).elsewhere(),
        Case { before: "eu-west", ..case("another shard than before", Form::Select, read, &east, Read) },
        case("a write", Form::Returning, write, &east, Write),
        case("a write elsewhere", Form::Returning, write, &west, Write).elsewhere(),
        case("a lock", Form::Select, "SELECT NODE FROM patients WHERE id = $1 FOR UPDATE", &east, Write),
        dispatched(case("an emergency", Form::Select, read, &east, Emergency)),
        dispatched(case("an emergency's write", Form::Returning, write, &east, Emergency)),
        keeping(case("a reference table", Form::Select, reference, "", Read)),
        keeping(case("a reference table far away", Form::Select, reference, "", Read)).far_away(),
        keeping(case("no table", Form::Select, "SELECT NODE", "", Read)),
    ]
}

/// Statements that do not.
pub(super) fn refused(pgward: &Deployment) -> Vec<Case> {
    use Form::{Returning, Select, Utility};
    let east = pgward.patient("us-east", 61).id.to_string();
    let west = pgward.patient("eu-west", 61).id.to_string();
    let unknown = "00000000-0000-4000-8000-00000000dead";
    let read = "SELECT NODE FROM patients WHERE id = $1";
    let write = "UPDATE patients SET critical = critical WHERE id = $1 RETURNING NODE";
    let two = format!("SELECT NODE FROM patients WHERE id IN ($1, '{west}')");
    let insert = |region: &str| {
        format!(
            "INSERT INTO patients (id, region, mrn, family_name, given_name, birth_date, sex) VALUES ($1, '{region}', \
             'REFUSED', 'a', 'b', '2000-01-01', 'unknown') RETURNING NODE"
        )
    };
    let change = "UPDATE icd10_codes SET title = 'x' WHERE code = 'I10' RETURNING NODE";
    let case = |name, form, sql: &str, patient: &str, code| Case::new(name, form, sql, patient, Expect::Refused(code));
    let by_value = |case| Case { by_value: true, ..case };
    vec![
        case("no patient", Select, "SELECT NODE FROM patients", "", "PW001"),
        case("no patient's row", Returning, "DELETE FROM encounters RETURNING NODE", "", "PW001"),
        by_value(case("an empty list", Select, "SELECT NODE FROM patients WHERE id = ANY ('{}')", "", "PW001")),
        by_value(case("two regions", Select, &two, &east, "PW002")),
        case("an undeclared table", Select, "SELECT NODE FROM nobody_declared", "", "PW003"),
        by_value(case("an unknown patient", Select, read, unknown, "PW004")),
        by_value(case("an unknown patient's write", Returning, write, unknown, "PW004")),
        by_value(case("a foreign origin", Select, read, &east, "PW005")).far_away(),
        by_value(case("a foreign origin's write", Returning, write, &east, "PW005")).far_away(),
        by_value(case("a key that is none", Select, read, "nonsense", "PW007")),
        case("no key", Select, "SELECT NODE FROM patients WHERE id = NULL", "", "PW001"),
        case("a reference table's write", Returning, change, "", "PW008"),
        case("a new key", Returning, "UPDATE patients SET id = id WHERE id = $1 RETURNING NODE", &east, "PW008"),
        case("SQL from an argument", Select, "SELECT query_to_xml('SELECT 1', true, true, '')", "", "PW008"),
        case("planner statistics", Select, "SELECT NODE FROM pg_stats", "", "PW001"),
        case("a file", Utility, "COPY patients TO '/tmp/x'", "", "PW008"),
        case("a dropped table", Utility, "DROP TABLE patients", "", "PW008"),
        case("an emptied table", Utility, "TRUNCATE encounters", "", "PW008"),
        case("a locked table", Utility, "LOCK TABLE patients", "", "PW008"),
        case("a procedure", Utility, "CALL p()", "", "PW008"),
        case("a new role", Utility, "CREATE ROLE stranger", "", "PW008"),
        case("two phases", Utility, "PREPARE TRANSACTION 'x'", "", "PW008"),
        by_value(case("a class above the ceiling", Utility, "SET pgward.priority = 'emergency'", "", "PW009")),
        by_value(case("an unserved region", Returning, &insert("atlantis"), unknown, "PW010")),
        by_value(case("a contradicted region", Returning, &insert("eu-west"), &east, "PW013")),
        by_value(case("a role", Utility, "SET ROLE postgres", "", "42501")),
        case("another user", Utility, "RESET SESSION AUTHORIZATION", "", "0A000"),
        case("no SQL", Utility, "SELEC 1", "", "42601"),
    ]
}
