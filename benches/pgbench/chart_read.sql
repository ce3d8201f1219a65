SELECT p.family_name, p.birth_date, e.started_at, e.icd10, m.name, m.dose FROM patients p JOIN encounters e ON e.patient_id = p.id JOIN medications m ON m.patient_id = p.id WHERE p.id = :patient;
