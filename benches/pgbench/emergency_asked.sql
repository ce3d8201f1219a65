SET pgward.priority = 'emergency';
SELECT p.family_name, p.given_name, p.birth_date, a.substance, a.severity FROM patients p LEFT JOIN allergies a ON a.patient_id = p.id WHERE p.id = :patient;
RESET pgward.priority;
