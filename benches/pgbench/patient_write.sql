UPDATE patients SET critical = NOT critical, updated_at = now() WHERE id = :patient;
