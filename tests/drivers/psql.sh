#!/usr/bin/env bash
# psql and pgbench over libpq. What the steps are: README.md beside this file.
set -euo pipefail

url=$1 patient=$2
name=psql
export PGCONNECT_TIMEOUT=10 PGOPTIONS='' PSQL_HISTORY=/dev/null LC_ALL=C.UTF-8
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# Runs the script of standard input, unaligned; errors are printed as their SQLSTATE and do not end it.
run() { psql -X -q -A -t -v VERBOSITY=sqlstate -v name="$name" -v patient="$patient" "$@" "$url" 2>&1; }
# The same, with its output as the results of a step.
step() { local step=$1; shift; run "$@" | sed "s|^|$step: |"; }

step login <<'END'
SELECT current_database(), current_user;
END
if PGPASSWORD=wrong psql -X "${url/:[!:@]*@/@}" -c 'SELECT 1' 2>&1 | grep -q 'password authentication failed'; then
    echo 'wrong-password: refused'
fi

step parameters <<'END'
SELECT id = :'patient', region FROM patients WHERE id = :'patient';
SELECT 1 AS one \; SELECT 'two';
SELECT region AS found FROM patients WHERE id = :'patient' \gset
\echo :found
END

step types <<'END'
\pset null NULL
BEGIN;
INSERT INTO pgbench_history (driver, id, payload, tags, key, doc, seen, amount) VALUES (:'name', 1, '\x00ff27', '{"",NULL,"a,b","{}\""}',
    :'patient', '{"a": [1, null, "ü"]}', '2026-02-28 23:59:59.999999Z', 12345678901234567890.123456789);
SELECT payload, tags, key = :'patient', doc, seen AT TIME ZONE 'UTC', amount, note FROM pgbench_history WHERE driver = :'name';
ROLLBACK;
END

# A script is sent statement by statement: a hundred transactions.
for n in $(seq 0 99); do
    echo "BEGIN;"
    echo "INSERT INTO observations (patient_id, loinc, name, value, unit, observed_at)"
    echo "    VALUES (:'patient', :'name', 'Step', $n, 'no', '2026-01-01 00:00:00Z');"
    echo "SELECT code FROM icd10_codes WHERE code = 'I10' \\g /dev/null"
    echo "COMMIT;"
done >"$folder/hundred.sql"
step hundred -f "$folder/hundred.sql"
step hundred <<'END'
BEGIN;
SELECT count(*), sum(value)::int FROM observations WHERE patient_id = :'patient' AND loinc = :'name';
COMMIT;
END

step transactions <<'END'
BEGIN;
INSERT INTO allergies (patient_id, substance, reaction, severity) VALUES (:'patient', :'name', 'Hives', 'mild');
COMMIT;
BEGIN;
DELETE FROM allergies WHERE patient_id = :'patient' AND substance = :'name';
ROLLBACK;
BEGIN;
SELECT count(*) FROM allergies WHERE patient_id = :'patient' AND substance = :'name';
SAVEPOINT here;
DELETE FROM allergies WHERE patient_id = :'patient' AND substance = :'name';
ROLLBACK TO here;
SELECT count(*) FROM allergies WHERE patient_id = :'patient' AND substance = :'name';
COMMIT;
\set QUIET off
DELETE FROM allergies WHERE patient_id = :'patient' AND substance = :'name';
END

step errors <<'END'
SELECT 1 / 0;
BEGIN;
INSERT INTO allergies (patient_id, substance, reaction, severity) VALUES (:'patient', 'x', 'x', 'none');
SELECT 1;
ROLLBACK;
SELEC 1;
\echo :LAST_ERROR_SQLSTATE
SELECT 'usable';
\set ON_ERROR_ROLLBACK on
BEGIN;
SELECT 1 / 0;
SELECT 'in the transaction still';
COMMIT;
SET statement_timeout = 300;
SELECT pg_sleep(60);
RESET statement_timeout;
END

# Ctrl-C cancels the statement and ends the script, with status 3. In a transaction of the patient, so that it is known
# which server to ask whether it has begun.
cat >"$folder/sleep.sql" <<'END'
BEGIN;
SELECT region FROM patients WHERE id = :'patient';
SET LOCAL application_name = 'step_of_psql';
SELECT pg_sleep(60) AS step_of_psql;
\echo not reached
END
psql -X -q -A -t -v VERBOSITY=sqlstate -v patient="$patient" <"$folder/sleep.sql" "$url" >"$folder/cancelled" 2>&1 &
pid=$!
asleep() {
    run <<'END'
BEGIN;
SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND application_name = 'step_of_' || :'name';
COMMIT;
END
}
until [ "$(asleep)" = 1 ]; do kill -0 "$pid"; sleep 0.1; done
kill -INT "$pid"
wait "$pid" || echo "cancel: status $?"
sed 's|^|cancel: |' "$folder/cancelled"

for n in $(seq 1000); do
    printf '%s\tcopy-%s\ttab\\tand\\\\\t%s\tno\t2026-01-01 00:00:00Z\n' "$patient" "$name" "$n"
done >"$folder/rows"
step copy <<END
BEGIN;
\copy observations (patient_id, loinc, name, value, unit, observed_at) FROM '$folder/rows'
\copy (SELECT name, value FROM observations WHERE patient_id = '$patient' AND loinc = 'copy-$name' ORDER BY id) TO '$folder/copied'
COPY allergies (patient_id, substance, reaction, severity) FROM STDIN;
$patient	x	x	none
\.
ROLLBACK;
END
echo "copied: $(md5sum <"$folder/copied")"

head -c 5242880 /dev/zero | tr '\0' x >"$folder/large"
step large <<END
\set large \`cat $folder/large\`
SELECT :'large' \g $folder/larger
END
echo "large: $(md5sum <"$folder/larger")"

step cursors <<'END'
BEGIN;
DECLARE rows SCROLL CURSOR FOR SELECT value::int FROM observations WHERE patient_id = :'patient' AND loinc = :'name' ORDER BY value;
FETCH 2 FROM rows;
MOVE 90 IN rows;
FETCH NEXT FROM rows;
FETCH LAST FROM rows;
CLOSE rows;
COMMIT;
\set FETCH_COUNT 7
SELECT value::int FROM observations WHERE patient_id = :'patient' AND loinc = :'name' AND value < 20 ORDER BY value \g | md5sum
END

# The description of a table, the list of them, completion's queries: the catalogs' many joins.
step describe <<'END'
\d patients
\dt public.p*
\df lower
\du pgward_app
END

# psql has one connection; pgbench, of the same library, has fifty.
cat >"$folder/pipeline.sql" <<END
\startpipeline
BEGIN;
SELECT region FROM patients WHERE id = '$patient';
SELECT code FROM icd10_codes WHERE code = 'I10';
COMMIT;
\endpipeline
END
cat >"$folder/transaction.sql" <<END
BEGIN;
SELECT region FROM patients WHERE id = '$patient';
COMMIT;
END
echo "SELECT region FROM patients WHERE id = '$patient';" >"$folder/statement.sql"
bench() {
    local step=$1 script=$2
    shift 2
    pgbench -n -j 2 "$@" -f "$folder/$script.sql" "$url" 2>&1 |
        sed -n "s/^number of transactions actually processed/$step: $script/p; /abort\|error\|ERROR/p"
}
bench fifty transaction -c 50 -t 4 -M simple
bench fifty transaction -c 50 -t 4 -M extended
bench fifty pipeline -c 50 -t 4 -M extended
# Not in transactions: pgbench waits for each preparation with all of its clients, among them those that hold the
# servers that it waits for, when there are fewer than clients.
bench fifty statement -c 50 -t 4 -M prepared
# A client by itself has nobody to wait for: each statement is prepared once, and used in a hundred transactions.
bench prepared transaction -c 1 -t 100 -M prepared

step delete <<'END'
DELETE FROM observations WHERE patient_id = :'patient' AND loinc = :'name';
END
echo "end:"
