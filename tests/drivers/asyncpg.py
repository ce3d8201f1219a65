"""asyncpg, which speaks the protocol itself. What the steps are: README.md beside this file."""

import asyncio
import io
import json
import sys
from datetime import datetime, timezone
from decimal import Decimal
from hashlib import md5
from uuid import UUID

# This file has the name of the module that it imports.
sys.path.pop(0)
import asyncpg

URL, PATIENT = sys.argv[1], UUID(sys.argv[2])
NAME = "asyncpg"
OBSERVE = (
    "INSERT INTO observations (patient_id, loinc, name, value, unit, observed_at)"
    " VALUES ($1, $2, 'Step', $3, 'no', '2026-01-01 00:00:00Z')"
)
OBSERVED = "SELECT count(*), sum(value)::int FROM observations WHERE patient_id = $1 AND loinc = $2"


def say(step, *results):
    print(f"{step}:", *results, flush=True)


async def sqlstate(work):
    try:
        await work
    except asyncpg.PostgresError as error:
        return error.sqlstate
    return "no error"


class RolledBack(Exception):
    pass


async def rolled_back(conn, work):
    try:
        async with conn.transaction():
            await work(conn)
            raise RolledBack
    except RolledBack:
        pass


async def login(conn):
    say("login", *await conn.fetchrow("SELECT current_database(), current_user"))
    say("wrong-password", await sqlstate(asyncpg.connect(URL, password="wrong")))


async def parameters(conn):
    row = await conn.fetchrow("SELECT id, region FROM patients WHERE id = $1 AND region = $2", PATIENT, "us-east")
    say("parameters", row["id"] == PATIENT, row["region"])
    say("literal", await conn.fetchval(f"SELECT region FROM patients WHERE id = '{PATIENT}'"))


async def types(conn):
    await conn.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
    values = {
        "payload": bytes(range(256)),
        "tags": ["", "a,b", '"{}\\', None, "ä"],
        "key": PATIENT,
        "doc": {"a": [1, None, "ü"], "b": {"c": 1.5}},
        "seen": datetime(2026, 2, 28, 23, 59, 59, 999999, timezone.utc),
        "amount": Decimal("12345678901234567890.123456789"),
        "note": None,
    }

    async def there_and_back(conn):
        insert = f"INSERT INTO pgbench_history (driver, id, {', '.join(values)}) VALUES ($1, 1, $2, $3, $4, $5, $6, $7, $8)"
        await conn.execute(insert, NAME, *values.values())
        for column, value in values.items():
            got = await conn.fetchval(f"SELECT {column} FROM pgbench_history WHERE driver = $1", NAME)
            say(column, got == value, got if column != "key" else "")

    await rolled_back(conn, there_and_back)


async def prepared(conn):
    insert = await conn.prepare(OBSERVE)
    code = await conn.prepare("SELECT title FROM icd10_codes WHERE code = $1")
    titles = set()
    for n in range(100):
        async with conn.transaction():
            await insert.fetch(PATIENT, NAME, Decimal(n))
            titles.add(await code.fetchval("I10"))
    async with conn.transaction():
        say("prepared", *await conn.fetchrow(OBSERVED, PATIENT, NAME), len(titles))


async def batch(conn):
    async def many(conn):
        await conn.executemany(OBSERVE, [(PATIENT, NAME, Decimal(n)) for n in range(20)])
        say("executemany", *await conn.fetchrow(OBSERVED, PATIENT, NAME))

    await rolled_back(conn, many)
    # One execution of it fails: nothing of the others stays.
    rows = [(PATIENT, NAME, Decimal(1)), (PATIENT, None, Decimal(1))]
    say("executemany-error", await sqlstate(conn.executemany(OBSERVE, rows)))
    async with conn.transaction():
        say("after-executemany", *await conn.fetchrow(OBSERVED, PATIENT, NAME))


async def transactions(conn):
    allergy = "INSERT INTO allergies (patient_id, substance, reaction, severity) VALUES ($1, $2, 'Hives', 'mild')"
    count = "SELECT count(*) FROM allergies WHERE patient_id = $1 AND substance = $2"
    delete = "DELETE FROM allergies WHERE patient_id = $1 AND substance = $2"
    async with conn.transaction():
        await conn.execute(allergy, PATIENT, NAME)
    async with conn.transaction():
        say("commit", await conn.fetchval(count, PATIENT, NAME))
    await rolled_back(conn, lambda conn: conn.execute(delete, PATIENT, NAME))
    async with conn.transaction():
        say("rollback", await conn.fetchval(count, PATIENT, NAME))
        await rolled_back(conn, lambda conn: conn.execute(delete, PATIENT, NAME))
        say("savepoint", await conn.fetchval(count, PATIENT, NAME))
    async with conn.transaction(isolation="repeatable_read"):
        say("repeatable-read", await conn.fetchval("SHOW transaction_isolation"))
    say("delete", await conn.execute(delete, PATIENT, NAME))


async def errors(conn):
    say("error", await sqlstate(conn.fetchval("SELECT 1 / $1::int", 0)))
    transaction = conn.transaction()
    await transaction.start()
    insert = "INSERT INTO allergies (patient_id, substance, reaction, severity) VALUES ($1, 'x', 'x', 'none')"
    say("error-in-transaction", await sqlstate(conn.execute(insert, PATIENT)))
    say("failed-transaction", await sqlstate(conn.fetchval("SELECT 1")))
    await transaction.rollback()
    say("after-error", await conn.fetchval("SELECT 'usable'"))


async def cancel(conn):
    # asyncpg asks the server to cancel when the task that waits is cancelled, or its time is over.
    try:
        await conn.execute("SELECT pg_sleep(60)", timeout=0.5)
    except asyncio.TimeoutError:
        say("cancel", "timed out", await conn.fetchval("SELECT 'usable'"))
    async with conn.transaction():
        await conn.execute("SET LOCAL statement_timeout = 300")
        say("statement-timeout", await sqlstate(conn.execute("SELECT pg_sleep(60)")))


async def copy(conn):
    async def there_and_back(conn):
        row = f"{PATIENT}\tcopy-{NAME}\ttab\\tand\\\\\t%d\tno\t2026-01-01 00:00:00Z\n"
        source = io.BytesIO("".join(row % n for n in range(1000)).encode())
        columns = ["patient_id", "loinc", "name", "value", "unit", "observed_at"]
        say("copy-in", await conn.copy_to_table("observations", source=source, columns=columns))
        out = io.BytesIO()
        query = "SELECT name, value FROM observations WHERE patient_id = $1 AND loinc = $2 ORDER BY id"
        say("copy-out", await conn.copy_from_query(query, PATIENT, f"copy-{NAME}", output=out))
        say("copy", md5(out.getvalue()).hexdigest())
        # By COPY in binary, into a table of the patient and into another one.
        records = [(PATIENT, f"binary-{NAME}", "Hives", "mild")] * 100
        columns = ["patient_id", "substance", "reaction", "severity"]
        say("copy-binary", await conn.copy_records_to_table("allergies", records=records, columns=columns))
        query = "SELECT count(*) FROM allergies WHERE patient_id = $1 AND substance = $2"
        say("copied", await conn.fetchval(query, PATIENT, f"binary-{NAME}"))
        records = [(NAME, n, bytes([n])) for n in range(100)]
        columns = ["driver", "id", "payload"]
        say("copy-binary", await conn.copy_records_to_table("pgbench_history", records=records, columns=columns))
        rows = await conn.fetch("SELECT id, payload FROM pgbench_history WHERE driver = $1", NAME)
        say("copied", sum(row["payload"] == bytes([row["id"]]) for row in rows))

    await rolled_back(conn, there_and_back)


async def sessions(_):
    settings = {"application_name": NAME, "timezone": "Asia/Kolkata"}
    conn = await asyncpg.connect(URL, server_settings=settings)
    notes = asyncio.Queue()
    await conn.add_listener("steps", lambda *note: notes.put_nowait(note[3] == NAME))
    other = await asyncpg.connect(URL)
    await other.execute(f"NOTIFY steps, '{NAME}'")
    say("notified", await asyncio.wait_for(notes.get(), 30))
    await other.close()
    async with conn.transaction():
        say("settings", *[await conn.fetchval(f"SHOW {name}") for name in settings])
    say("reported", conn.get_settings().TimeZone, conn.get_server_version().major > 12)
    await conn.close()


async def large(conn):
    text, payload = "0123456789abcdef" * 327680, bytes(range(256)) * 20480
    say("large-text", await conn.fetchval("SELECT $1::text", text) == text)

    async def there_and_back(conn):
        await conn.execute("INSERT INTO pgbench_history (driver, id, payload) VALUES ($1, 1, $2)", NAME, payload)
        got = await conn.fetchval("SELECT payload FROM pgbench_history WHERE driver = $1", NAME)
        say("large-bytea", len(got), got == payload)

    await rolled_back(conn, there_and_back)


async def cursors(conn):
    query = "SELECT value::int FROM observations WHERE patient_id = $1 AND loinc = $2"
    async with conn.transaction():
        say("cursor", sum([row[0] async for row in conn.cursor(query, PATIENT, NAME, prefetch=7)]))
        cursor = await conn.cursor(query + " ORDER BY value", PATIENT, NAME)
        say("fetch", [row[0] for row in await cursor.fetch(3)], await cursor.forward(90), await cursor.fetchrow())


async def many():
    async with asyncpg.create_pool(URL, min_size=50, max_size=50) as pool:

        async def one():
            async with pool.acquire() as conn, conn.transaction():
                return await conn.fetchval("SELECT region FROM patients WHERE id = $1", PATIENT)

        # Twice each: a pool resets a connection when it comes back.
        for step in ["fifty", "fifty-again"]:
            say(step, (await asyncio.gather(*[one() for _ in range(50)])).count("us-east"))


async def main():
    conn = await asyncpg.connect(URL)
    steps = [login, parameters, types, prepared, batch, transactions, errors, cancel, copy, sessions, large, cursors]
    for step in steps:
        await step(conn)
    await many()
    await conn.execute("DELETE FROM observations WHERE patient_id = $1 AND loinc = $2", PATIENT, NAME)
    await conn.close()
    say("end")


asyncio.run(main())
