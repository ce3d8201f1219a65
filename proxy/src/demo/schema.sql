-- The tables of the demo. Each region shard has all of them; a patient's rows live on the shard of the patient's
-- region only. The keys of the record tables begin with the patient, because every statement names one.

CREATE TABLE patients (
    id          uuid PRIMARY KEY,
    region      text NOT NULL,
    mrn         text NOT NULL UNIQUE,
    family_name text NOT NULL,
    given_name  text NOT NULL,
    birth_date  date NOT NULL,
    sex         text NOT NULL CHECK (sex IN ('female', 'male', 'other', 'unknown')),
    critical    boolean NOT NULL DEFAULT false,
    updated_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX patients_region_name ON patients (region, family_name, given_name);

CREATE TABLE icd10_codes (
    code  text PRIMARY KEY,
    title text NOT NULL
);

CREATE TABLE encounters (
    patient_id uuid NOT NULL REFERENCES patients,
    id         bigint GENERATED ALWAYS AS IDENTITY,
    class      text NOT NULL CHECK (class IN ('ambulatory', 'emergency', 'inpatient', 'virtual')),
    icd10      text NOT NULL REFERENCES icd10_codes,
    started_at timestamptz NOT NULL,
    ended_at   timestamptz,
    note       text NOT NULL DEFAULT '',
    PRIMARY KEY (patient_id, id)
);

CREATE TABLE medications (
    patient_id uuid NOT NULL REFERENCES patients,
    id         bigint GENERATED ALWAYS AS IDENTITY,
    name       text NOT NULL,
    dose       text NOT NULL,
    frequency  text NOT NULL,
    started_on date NOT NULL,
    ended_on   date,
    PRIMARY KEY (patient_id, id)
);

CREATE TABLE observations (
    patient_id  uuid NOT NULL REFERENCES patients,
    id          bigint GENERATED ALWAYS AS IDENTITY,
    loinc       text NOT NULL,
    name        text NOT NULL,
    value       numeric NOT NULL,
    unit        text NOT NULL,
    observed_at timestamptz NOT NULL,
    PRIMARY KEY (patient_id, id)
);

CREATE TABLE allergies (
    patient_id  uuid NOT NULL REFERENCES patients,
    id          bigint GENERATED ALWAYS AS IDENTITY,
    substance   text NOT NULL,
    reaction    text NOT NULL,
    severity    text NOT NULL CHECK (severity IN ('mild', 'moderate', 'severe')),
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (patient_id, id)
);
