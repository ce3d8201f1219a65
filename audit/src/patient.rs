//! Patients as they appear in records: keyed hashes, so that the log can be read without learning who a patient is,
//! while all records of one patient can still be found by whoever holds the key. The router makes them.

/// 32 lower-case hexadecimal digits in ASCII.
pub type PatientHash = [u8; 32];
