SELECT id, mrn, family_name, given_name, birth_date, sex, critical FROM patients WHERE id = :patient;
