//! Made-up patients and their records: the same for the same seed, on every machine.
//!
//! Each patient is computed from the seed and the patient's number alone, so that nobody has to hold all of them, and
//! so that the first patients are the same however many there are. No real data went into this: names are common
//! names thrown together, and every date lies before a fixed day.

use std::fmt::Write;

use uuid::Uuid;

use super::schema;

/// The patient regions of the demo; patient number n lives in region n mod 4.
pub const REGIONS: [&str; 4] = ["us-east", "us-west", "eu-west", "ap-south"];

/// Patients of the demo, unless somebody asks for another number.
pub const DEFAULT_PATIENTS: u32 = 10_000;

/// The seed, unless somebody asks for another.
pub const DEFAULT_SEED: u64 = 20_260_101;

/// A patient with all records.
#[derive(Clone, Debug, PartialEq)]
pub struct Patient {
    /// A version 4 UUID.
    pub id: Uuid,
    /// One of [`REGIONS`].
    pub region: &'static str,
    /// Medical record number.
    pub mrn: String,
    /// Family name.
    pub family_name: &'static str,
    /// Given name.
    pub given_name: &'static str,
    /// As `YYYY-MM-DD`.
    pub birth_date: String,
    /// `female` or `male`.
    pub sex: &'static str,
    /// One of fifty is a critical patient.
    pub critical: bool,
    /// About three.
    pub encounters: Vec<Encounter>,
    /// About two.
    pub medications: Vec<Medication>,
    /// About four.
    pub observations: Vec<Observation>,
    /// One for every second patient.
    pub allergies: Vec<Allergy>,
}

/// A visit or a stay.
#[derive(Clone, Debug, PartialEq)]
pub struct Encounter {
    /// `ambulatory`, `emergency`, `inpatient` or `virtual`.
    pub class: &'static str,
    /// A code of the reference table.
    pub icd10: &'static str,
    /// As `YYYY-MM-DD HH:MM:00Z`.
    pub started_at: String,
    /// Later on the same day.
    pub ended_at: String,
}

/// A prescription.
#[derive(Clone, Debug, PartialEq)]
pub struct Medication {
    /// International nonproprietary name.
    pub name: &'static str,
    /// E.g. `20 mg`.
    pub dose: &'static str,
    /// E.g. `once daily`.
    pub frequency: &'static str,
    /// As `YYYY-MM-DD`.
    pub started_on: String,
}

/// A measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// LOINC code.
    pub loinc: &'static str,
    /// What is measured.
    pub name: &'static str,
    /// As a decimal number.
    pub value: String,
    /// UCUM unit.
    pub unit: &'static str,
    /// As `YYYY-MM-DD HH:MM:00Z`.
    pub observed_at: String,
}

/// What a patient must not be given.
#[derive(Clone, Debug, PartialEq)]
pub struct Allergy {
    /// E.g. `Penicillin`.
    pub substance: &'static str,
    /// E.g. `Hives`.
    pub reaction: &'static str,
    /// `mild`, `moderate` or `severe`.
    pub severity: &'static str,
}

/// Patient number `number` (from 0) of this seed.
pub fn patient(seed: u64, number: u32) -> Patient {
    let mut dice = Dice::new(seed, number);
    let id = uuid::Builder::from_random_bytes(dice.bytes()).into_uuid();
    let region = REGIONS[number as usize % REGIONS.len()];
    // Born at least a day before the first record.
    let age = 2 + dice.below(95 * 365);
    let (sex, given_name) =
        if dice.below(2) == 0 { ("female", dice.one_of(FEMALE_NAMES)) } else { ("male", dice.one_of(MALE_NAMES)) };
    Patient {
        id,
        region,
        mrn: format!("MRN-{:07}", number + 1),
        family_name: dice.one_of(FAMILY_NAMES),
        given_name,
        birth_date: date_before_2026(age),
        sex,
        critical: dice.below(50) == 0,
        encounters: (0..dice.about(3)).map(|_| encounter(&mut dice, age)).collect(),
        medications: (0..dice.about(2)).map(|_| medication(&mut dice, age)).collect(),
        observations: (0..dice.about(4)).map(|_| observation(&mut dice, age)).collect(),
        allergies: (0..dice.below(2)).map(|_| allergy(&mut dice)).collect(),
    }
}

/// Columns of [`Patient::copy_row`].
pub const PATIENT_COLUMNS: &str = "id, region, mrn, family_name, given_name, birth_date, sex, critical";
/// Columns of [`Patient::copy_encounters`].
pub const ENCOUNTER_COLUMNS: &str = "patient_id, class, icd10, started_at, ended_at";
/// Columns of [`Patient::copy_medications`].
pub const MEDICATION_COLUMNS: &str = "patient_id, name, dose, frequency, started_on";
/// Columns of [`Patient::copy_observations`].
pub const OBSERVATION_COLUMNS: &str = "patient_id, loinc, name, value, unit, observed_at";

/// Rows in COPY's text format. Nothing that is generated here holds a character that the format would escape.
impl Patient {
    /// The patient's own row.
    pub fn copy_row(&self, out: &mut String) {
        let Self { id, region, mrn, family_name, given_name, birth_date, sex, critical, .. } = self;
        line(out, format_args!("{id}\t{region}\t{mrn}\t{family_name}\t{given_name}\t{birth_date}\t{sex}\t{critical}"));
    }

    /// A row for each encounter.
    pub fn copy_encounters(&self, out: &mut String) {
        for Encounter { class, icd10, started_at, ended_at } in &self.encounters {
            line(out, format_args!("{}\t{class}\t{icd10}\t{started_at}\t{ended_at}", self.id));
        }
    }

    /// A row for each medication.
    pub fn copy_medications(&self, out: &mut String) {
        for Medication { name, dose, frequency, started_on } in &self.medications {
            line(out, format_args!("{}\t{name}\t{dose}\t{frequency}\t{started_on}", self.id));
        }
    }

    /// A row for each observation.
    pub fn copy_observations(&self, out: &mut String) {
        for Observation { loinc, name, value, unit, observed_at } in &self.observations {
            line(out, format_args!("{}\t{loinc}\t{name}\t{value}\t{unit}\t{observed_at}", self.id));
        }
    }
}

fn line(out: &mut String, fields: std::fmt::Arguments<'_>) {
    writeln!(out, "{fields}").expect("a String takes all");
}

fn encounter(dice: &mut Dice, age: u32) -> Encounter {
    let day = dice.day_in_the_last((age - 1).min(5 * 365));
    let (hour, minute) = (dice.below(18), dice.below(60));
    let codes: Vec<&str> = schema::icd10().map(|(code, _)| code).collect();
    Encounter {
        class: dice.one_of(&["ambulatory", "ambulatory", "ambulatory", "virtual", "emergency", "inpatient"]),
        icd10: dice.one_of(&codes),
        started_at: format!("{day} {hour:02}:{minute:02}:00Z"),
        ended_at: format!("{day} {:02}:{minute:02}:00Z", hour + 1 + dice.below(5)),
    }
}

fn medication(dice: &mut Dice, age: u32) -> Medication {
    let (name, dose, frequency) = dice.one_of(MEDICATIONS);
    Medication { name, dose, frequency, started_on: dice.day_in_the_last((age - 1).min(3 * 365)) }
}

fn observation(dice: &mut Dice, age: u32) -> Observation {
    let (loinc, name, unit, tenths_low, tenths_high) = dice.one_of(OBSERVATIONS);
    let tenths = tenths_low + dice.below(tenths_high - tenths_low + 1);
    let day = dice.day_in_the_last((age - 1).min(3 * 365));
    Observation {
        loinc,
        name,
        value: format!("{}.{}", tenths / 10, tenths % 10),
        unit,
        observed_at: format!("{day} {:02}:{:02}:00Z", dice.below(24), dice.below(60)),
    }
}

fn allergy(dice: &mut Dice) -> Allergy {
    Allergy {
        substance: dice.one_of(SUBSTANCES),
        reaction: dice.one_of(&["Hives", "Rash", "Anaphylaxis", "Nausea", "Swelling", "Wheezing"]),
        severity: dice.one_of(&["mild", "mild", "moderate", "severe"]),
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): ten lines that give the same numbers for ever, which no crate of random
/// numbers promises.
struct Dice(u64);

/// 2026-01-01, before which every generated date lies, in days since 0000-03-01.
const FIRST_OF_2026: u32 = 20_454 + 719_468;

impl Dice {
    fn new(seed: u64, number: u32) -> Self {
        // Seeds and numbers that differ by little begin far apart.
        let mut mixed = Self(seed ^ Self(u64::from(number)).next());
        Self(mixed.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn bytes(&mut self) -> [u8; 16] {
        ((u128::from(self.next()) << 64) | u128::from(self.next())).to_be_bytes()
    }

    /// 0 to `end` - 1.
    fn below(&mut self, end: u32) -> u32 {
        let product = (self.next() >> 32) * u64::from(end);
        u32::try_from(product >> 32).expect("the upper half of a u64")
    }

    /// `mean` on average, and at least one.
    fn about(&mut self, mean: u32) -> u32 {
        1 + self.below(2 * mean - 1)
    }

    fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(u32::try_from(list.len()).expect("lists here are short")) as usize]
    }

    /// One of the `days` days before the first day of 2026.
    fn day_in_the_last(&mut self, days: u32) -> String {
        date_before_2026(1 + self.below(days))
    }
}

/// `YYYY-MM-DD` of the day so many days before 2026-01-01 (Hinnant's `civil_from_days`).
fn date_before_2026(days: u32) -> String {
    // Days since 0000-03-01, where leap days come last in a year.
    let day = FIRST_OF_2026 - days;
    let era = day / 146_097;
    let day_of_era = day % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = 400 * era + year_of_era + u32::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

const FEMALE_NAMES: &[&str] = &[
    "Amara", "Anita", "Beatriz", "Chloe", "Deepa", "Elena", "Fatima", "Grace", "Hannah", "Ingrid", "Joan", "Kavya",
    "Linda", "Maeve", "Nadia", "Olivia", "Priya", "Rosa", "Sofia", "Tara", "Ursula", "Vera", "Wanda", "Yara", "Zoe",
];

const MALE_NAMES: &[&str] = &[
    "Aaron", "Arjun", "Bruno", "Carlos", "Daniel", "Emil", "Farid", "George", "Hugo", "Ivan", "Jamal", "Kofi", "Liam",
    "Marco", "Nikhil", "Oscar", "Pedro", "Quentin", "Rohan", "Samuel", "Tomas", "Umar", "Victor", "Walter", "Yusuf",
];

const FAMILY_NAMES: &[&str] = &[
    "Abbott",
    "Adeyemi",
    "Agarwal",
    "Andersson",
    "Baker",
    "Banerjee",
    "Byrne",
    "Castillo",
    "Clarke",
    "Cohen",
    "Costa",
    "Davies",
    "Dubois",
    "Edwards",
    "Evans",
    "Fischer",
    "Fitzgerald",
    "Garcia",
    "Green",
    "Gupta",
    "Hansen",
    "Hughes",
    "Ibrahim",
    "Iyer",
    "Jackson",
    "Jansen",
    "Johnson",
    "Kelly",
    "Khan",
    "Kumar",
    "Larsen",
    "Lewis",
    "Lopez",
    "Martin",
    "Mehta",
    "Meyer",
    "Miller",
    "Moreau",
    "Murphy",
    "Nair",
    "Nguyen",
    "Novak",
    "Okafor",
    "Olsen",
    "Patel",
    "Pereira",
    "Quinn",
    "Rao",
    "Reyes",
    "Robinson",
    "Rossi",
    "Sharma",
    "Silva",
    "Singh",
    "Smith",
    "Taylor",
    "Torres",
    "Walker",
    "Weber",
    "Young",
];

const MEDICATIONS: &[(&str, &str, &str)] = &[
    ("Amlodipine", "5 mg", "once daily"),
    ("Amoxicillin", "500 mg", "three times daily"),
    ("Atorvastatin", "20 mg", "once daily"),
    ("Budesonide", "200 mcg", "twice daily"),
    ("Furosemide", "40 mg", "once daily"),
    ("Gabapentin", "300 mg", "three times daily"),
    ("Hydrochlorothiazide", "25 mg", "once daily"),
    ("Ibuprofen", "400 mg", "as needed"),
    ("Insulin glargine", "20 units", "once daily"),
    ("Levothyroxine", "75 mcg", "once daily"),
    ("Lisinopril", "10 mg", "once daily"),
    ("Losartan", "50 mg", "once daily"),
    ("Metformin", "850 mg", "twice daily"),
    ("Metoprolol", "50 mg", "twice daily"),
    ("Omeprazole", "20 mg", "once daily"),
    ("Paracetamol", "500 mg", "as needed"),
    ("Prednisone", "10 mg", "once daily"),
    ("Salbutamol", "100 mcg", "as needed"),
    ("Sertraline", "50 mg", "once daily"),
    ("Warfarin", "5 mg", "once daily"),
];

/// LOINC code, name, unit, and the range of the value in tenths.
const OBSERVATIONS: &[(&str, &str, &str, u32, u32)] = &[
    ("8867-4", "Heart rate", "/min", 520, 1_180),
    ("8480-6", "Systolic blood pressure", "mm[Hg]", 950, 1_680),
    ("8462-4", "Diastolic blood pressure", "mm[Hg]", 550, 1_050),
    ("8310-5", "Body temperature", "Cel", 360, 395),
    ("2708-6", "Oxygen saturation", "%", 900, 1_000),
    ("9279-1", "Respiratory rate", "/min", 110, 260),
    ("29463-7", "Body weight", "kg", 450, 1_250),
    ("2345-7", "Glucose", "mg/dL", 700, 2_200),
    ("4548-4", "Hemoglobin A1c", "%", 45, 110),
    ("718-7", "Hemoglobin", "g/dL", 90, 175),
];

const SUBSTANCES: &[&str] = &[
    "Penicillin",
    "Amoxicillin",
    "Aspirin",
    "Codeine",
    "Contrast medium",
    "Eggs",
    "Ibuprofen",
    "Latex",
    "Peanuts",
    "Shellfish",
    "Sulfonamides",
    "Wasp venom",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_patients() {
        assert_eq!(patient(7, 12), patient(7, 12));
        assert_ne!(patient(7, 12).id, patient(8, 12).id);
        assert_ne!(patient(7, 12).id, patient(7, 13).id);
    }

    #[test]
    fn ids_are_unique_and_random_uuids() {
        let ids: std::collections::BTreeSet<_> = (0..2_000).map(|number| patient(1, number).id).collect();
        assert_eq!(ids.len(), 2_000);
        assert!(ids.iter().all(|id| id.get_version_num() == 4));
    }

    #[test]
    fn patients_have_about_as_many_records_as_promised() {
        let patients: Vec<_> = (0..2_000).map(|number| patient(1, number)).collect();
        let mean = |count: fn(&Patient) -> usize| patients.iter().map(count).sum::<usize>() as f64 / 2_000.0;
        assert!((2.8..3.2).contains(&mean(|p| p.encounters.len())));
        assert!((1.9..2.1).contains(&mean(|p| p.medications.len())));
        assert!((3.8..4.2).contains(&mean(|p| p.observations.len())));
        assert!((0.4..0.6).contains(&mean(|p| p.allergies.len())));
        assert!((0.01..0.03).contains(&mean(|p| usize::from(p.critical))));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date_before_2026(1), "2025-12-31");
        assert_eq!(date_before_2026(365), "2025-01-01");
        assert_eq!(date_before_2026(366), "2024-12-31");
        assert_eq!(date_before_2026(365 + 366), "2024-01-01");
        assert_eq!(date_before_2026(365 + 306), "2024-03-01");
        assert_eq!(date_before_2026(365 + 307), "2024-02-29");
        assert_eq!(date_before_2026(20_454), "1970-01-01");
    }

    #[test]
    fn nothing_happens_before_a_patient_is_born() {
        for patient in (0..2_000).map(|number| patient(3, number)) {
            assert!(patient.encounters.iter().all(|e| e.started_at > patient.birth_date), "{patient:?}");
            assert!(patient.medications.iter().all(|m| m.started_on > patient.birth_date), "{patient:?}");
        }
    }

    #[test]
    fn rows_need_no_escapes() {
        let mut rows = String::new();
        for patient in (0..500).map(|number| patient(5, number)) {
            patient.copy_row(&mut rows);
            patient.copy_encounters(&mut rows);
            patient.copy_medications(&mut rows);
            patient.copy_observations(&mut rows);
        }
        assert!(!rows.contains('\\'));
        let columns = |line: &str| line.split('\t').count();
        assert!(rows.lines().all(|line| [8, 5, 6].contains(&columns(line))));
    }
}
