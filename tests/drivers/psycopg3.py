"""psycopg 3 over libpq. What the steps are: README.md beside this file."""

import sys
import threading
from datetime import datetime, timezone
from decimal import Decimal
from hashlib import md5
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

URL, PATIENT = sys.argv[1], UUID(sys.argv[2])
NAME = "psycopg3"
OBSERVE = (
    "INSERT INTO observations (patient_id, loinc, name, value, unit, observed_at)"
    " VALUES (%s, %s, 'Step', %s, 'no', '2026-01-01 00:00:00Z')"
)
OBSERVED = "SELECT count(*), sum(value)::int FROM observations WHERE patient_id = %s AND loinc = %s"


def say(step, *results):
    print(f"{step}:", *results, flush=True)


def sqlstate(work):
    try:
        work()
    except psycopg.Error as error:
        return error.sqlstate or str(error)
    return "no error"


def login(conn):
    say("login", *conn.execute("SELECT current_database(), current_user").fetchone())
    try:
        psycopg.connect(URL, password="wrong")
        say("wrong-password", "let in")
    except psycopg.OperationalError as error:
        say("wrong-password", "password authentication failed" in str(error))


def parameters(conn):
    row = conn.execute("SELECT id, region FROM patients WHERE id = %s AND region = %s", (PATIENT, "us-east")).fetchone()
    say("parameters", row[0] == PATIENT, row[1])
    say("literal", conn.execute(f"SELECT region FROM patients WHERE id = '{PATIENT}'").fetchone()[0])


def types(conn, binary):
    step = "binary" if binary else "text"
    seen = datetime(2026, 2, 28, 23, 59, 59, 999999, timezone.utc)
    values = {
        "payload": bytes(range(256)),
        "tags": ["", "a,b", '"{}\\', None, "ä"],
        "key": PATIENT,
        "doc": {"a": [1, None, "ü"], "b": {"c": 1.5}},
        "seen": seen,
        "amount": Decimal("12345678901234567890.123456789"),
        "note": None,
    }
    with conn.transaction(force_rollback=True):
        insert = f"INSERT INTO pgbench_history (driver, id, {', '.join(values)}) VALUES (%s, 1, {', '.join(['%s'] * 7)})"
        conn.execute(insert, (NAME, *[Jsonb(v) if isinstance(v, dict) else v for v in values.values()]))
        cursor = conn.cursor(binary=binary)
        for column, value in values.items():
            got = cursor.execute(f"SELECT {column} FROM pgbench_history WHERE driver = %s", (NAME,)).fetchone()[0]
            say(f"{step}-{column}", got == value, got if column != "key" else "")


def prepared(conn):
    for n in range(100):
        with conn.transaction():
            conn.execute(OBSERVE, (PATIENT, NAME, n), prepare=True)
            conn.execute("SELECT title FROM icd10_codes WHERE code = %s", ("I10",), prepare=True)
    with conn.transaction():
        say("prepared", *conn.execute(OBSERVED, (PATIENT, NAME), prepare=True).fetchone())


def pipeline(conn):
    with conn.transaction(force_rollback=True), conn.pipeline():
        for n in range(20):
            conn.execute(OBSERVE, (PATIENT, NAME, n))
        found = conn.execute(OBSERVED, (PATIENT, NAME))
        say("pipeline", *found.fetchone())

    def fails():
        with conn.pipeline(), conn.transaction():
            conn.execute("SELECT 1 / %s", (0,))
            conn.execute("SELECT 1")

    say("pipeline-error", sqlstate(fails), conn.execute("SELECT 'usable'").fetchone()[0])
    with conn.cursor() as cursor, conn.transaction(force_rollback=True):
        cursor.executemany(OBSERVE, [(PATIENT, NAME, n) for n in range(20)])
        say("executemany", *cursor.execute(OBSERVED, (PATIENT, NAME)).fetchone())


def transactions(conn):
    severity = "INSERT INTO allergies (patient_id, substance, reaction, severity) VALUES (%s, %s, 'Hives', 'mild')"
    count = "SELECT count(*) FROM allergies WHERE patient_id = %s AND substance = %s"
    with conn.transaction():
        conn.execute(severity, (PATIENT, NAME))
    with conn.transaction():
        say("commit", *conn.execute(count, (PATIENT, NAME)).fetchone())
    with conn.transaction(force_rollback=True):
        conn.execute("DELETE FROM allergies WHERE patient_id = %s AND substance = %s", (PATIENT, NAME))
    with conn.transaction():
        say("rollback", *conn.execute(count, (PATIENT, NAME)).fetchone())
        with conn.transaction(force_rollback=True):
            conn.execute("DELETE FROM allergies WHERE patient_id = %s AND substance = %s", (PATIENT, NAME))
        say("savepoint", *conn.execute(count, (PATIENT, NAME)).fetchone())
    conn.execute("DELETE FROM allergies WHERE patient_id = %s AND substance = %s", (PATIENT, NAME))


def errors(conn):
    say("error", sqlstate(lambda: conn.execute("SELECT 1 / %s", (0,))))
    conn.execute("BEGIN")
    insert = "INSERT INTO allergies (patient_id, substance, reaction, severity) VALUES (%s, 'x', 'x', 'none')"
    say("error-in-transaction", sqlstate(lambda: conn.execute(insert, (PATIENT,))))
    say("failed-transaction", sqlstate(lambda: conn.execute("SELECT 1")))
    conn.execute("ROLLBACK")
    say("after-error", *conn.execute("SELECT 'usable'").fetchone())


def cancel(conn):
    ended = threading.Event()

    def ask():
        # Again and again: a request that comes before the statement has begun cancels nothing.
        while not ended.wait(0.5):
            conn.cancel_safe()

    asking = threading.Thread(target=ask)
    asking.start()
    state = sqlstate(lambda: conn.execute("SELECT pg_sleep(60)"))
    ended.set()
    asking.join()
    say("cancel", state, *conn.execute("SELECT 'usable'").fetchone())


def copy(conn):
    with conn.transaction(force_rollback=True):
        columns = "patient_id, loinc, name, value, unit, observed_at"
        with conn.cursor().copy(f"COPY observations ({columns}) FROM STDIN") as rows:
            for n in range(1000):
                rows.write_row((PATIENT, f"copy-{NAME}", "tab\tand\\", n, "no", "2026-01-01 00:00:00Z"))
        query = f"SELECT name, value FROM observations WHERE patient_id = '{PATIENT}' AND loinc = 'copy-{NAME}' ORDER BY id"
        with conn.cursor().copy(f"COPY ({query}) TO STDOUT") as rows:
            out = b"".join(bytes(chunk) for chunk in rows)
        say("copy", out.count(b"\n"), md5(out).hexdigest())
        with conn.cursor().copy("COPY pgbench_history (driver, id, payload) FROM STDIN (FORMAT binary)") as rows:
            rows.set_types(["text", "int4", "bytea"])
            for n in range(100):
                rows.write_row((NAME, n, bytes([n])))
        with conn.cursor().copy("COPY pgbench_history (id, payload) TO STDOUT (FORMAT binary)") as rows:
            rows.set_types(["int4", "bytea"])
            say("copy-binary", sum(1 for n, payload in rows.rows() if payload == bytes([n])))


def sessions():
    with psycopg.connect(URL, autocommit=True, options="-c timezone=Asia/Kolkata", application_name=NAME) as conn:
        conn.execute("SET search_path = public, pg_catalog")
        for n in range(2):
            with conn.transaction():
                conn.execute("SET LOCAL statement_timeout = 12345")
                names = ["timezone", "application_name", "search_path", "statement_timeout"]
                say("settings", *[conn.execute(f"SHOW {name}").fetchone()[0] for name in names])
        say("reported", conn.info.parameter_status("TimeZone"), conn.info.encoding)
        conn.execute("RESET ALL")
        say("reset", *conn.execute("SELECT current_setting('search_path'), current_setting('timezone')").fetchone())
        conn.execute("LISTEN steps")
        with psycopg.connect(URL, autocommit=True) as other:
            other.execute("SELECT pg_notify('steps', %s)", (str(PATIENT),))
            say("notified", [note.payload == str(PATIENT) for note in conn.notifies(timeout=30, stop_after=1)])
        conn.execute("CREATE TEMPORARY TABLE pg_temp.steps (n integer)")
        conn.cursor().executemany("INSERT INTO pg_temp.steps VALUES (%s)", [(1,), (2,)])
        say("temporary-table", *conn.execute("SELECT sum(n) FROM pg_temp.steps").fetchone())


def large(conn):
    text, payload = "0123456789abcdef" * 327680, bytes(range(256)) * 20480
    say("large-text", conn.execute("SELECT %s::text", (text,)).fetchone()[0] == text)
    with conn.transaction(force_rollback=True):
        insert = "INSERT INTO pgbench_history (driver, id, payload) VALUES (%s, 1, %s)"
        conn.execute(insert, (NAME, payload))
        cursor = conn.cursor(binary=True)
        got = cursor.execute("SELECT payload FROM pgbench_history WHERE driver = %s", (NAME,)).fetchone()[0]
        say("large-bytea", len(got), got == payload)


def cursors(conn):
    with conn.transaction(), conn.cursor(name="rows") as cursor:
        cursor.itersize = 7
        cursor.execute("SELECT value::int FROM observations WHERE patient_id = %s AND loinc = %s", (PATIENT, NAME))
        say("cursor", sum(row[0] for row in cursor))


def many():
    answered = []

    def one():
        with psycopg.connect(URL) as conn, conn.transaction():
            together.wait()
            answered.append(conn.execute("SELECT region FROM patients WHERE id = %s", (PATIENT,)).fetchone()[0])

    together = threading.Barrier(50)
    threads = [threading.Thread(target=one) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    say("fifty", answered.count("us-east"))


with psycopg.connect(URL, autocommit=True) as conn:
    login(conn)
    parameters(conn)
    types(conn, binary=False)
    types(conn, binary=True)
    prepared(conn)
    pipeline(conn)
    transactions(conn)
    errors(conn)
    cancel(conn)
    copy(conn)
    sessions()
    large(conn)
    cursors(conn)
    many()
    conn.execute("DELETE FROM observations WHERE patient_id = %s AND loinc = %s", (PATIENT, NAME))
    say("end")
