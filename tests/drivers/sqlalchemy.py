"""SQLAlchemy's ORM over psycopg, with its pool. What the steps are: README.md beside this file."""

import sys
import threading
from datetime import date, datetime, timezone
from decimal import Decimal
from uuid import UUID

# This file has the name of the module that it imports.
sys.path.pop(0)
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload

URL, PATIENT = sys.argv[1].replace("postgresql://", "postgresql+psycopg://"), UUID(sys.argv[2])
NAME = "sqlalchemy"


class Base(DeclarativeBase):
    pass


class Patient(Base):
    __tablename__ = "patients"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    region: Mapped[str]
    birth_date: Mapped[date]
    allergies: Mapped[list["Allergy"]] = relationship()


class Allergy(Base):
    __tablename__ = "allergies"
    patient_id: Mapped[UUID] = mapped_column(sa.ForeignKey("patients.id"), primary_key=True)
    id: Mapped[int] = mapped_column(sa.BigInteger, sa.Identity(always=True), primary_key=True)
    substance: Mapped[str]
    reaction: Mapped[str]
    severity: Mapped[str]


class Observation(Base):
    __tablename__ = "observations"
    patient_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[int] = mapped_column(sa.BigInteger, sa.Identity(always=True), primary_key=True)
    loinc: Mapped[str]
    name: Mapped[str]
    value: Mapped[Decimal]
    unit: Mapped[str]
    observed_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))


class Value(Base):
    __tablename__ = "pgbench_history"
    driver: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[int] = mapped_column(primary_key=True)
    payload: Mapped[bytes | None]
    tags: Mapped[list | None] = mapped_column(ARRAY(sa.Text))
    key: Mapped[UUID | None]
    doc: Mapped[dict | None] = mapped_column(JSONB)
    seen: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    amount: Mapped[Decimal | None] = mapped_column(sa.Numeric)
    note: Mapped[str | None]


SEEN = datetime(2026, 2, 28, 23, 59, 59, 999999, timezone.utc)
OBSERVED = sa.select(sa.func.count(), sa.func.sum(Observation.value)).where(
    Observation.patient_id == PATIENT, Observation.loinc == NAME
)


def say(step, *results):
    print(f"{step}:", *results, flush=True)


def sqlstate(work):
    try:
        work()
    except DBAPIError as error:
        return error.orig.sqlstate
    return "no error"


def refused(work):
    try:
        work()
    except OperationalError as error:
        return "password authentication failed" in str(error)
    return "let in"


def observation(n):
    return Observation(patient_id=PATIENT, loinc=NAME, name="Step", value=Decimal(n), unit="no", observed_at=SEEN)


def login(engine):
    with engine.connect() as conn:
        say("login", *conn.execute(sa.text("SELECT current_database(), current_user")).one())
        say("version", engine.dialect.server_version_info)
    wrong = sa.create_engine(engine.url.set(password="wrong"))
    say("wrong-password", refused(wrong.connect))
    columns = sa.inspect(engine).get_columns("allergies")
    say("columns", [(column["name"], str(column["type"])) for column in columns])


def parameters(engine):
    with Session(engine) as session:
        say("parameters", session.get(Patient, PATIENT).region)
        found = session.scalars(sa.select(Patient.region).where(Patient.id.in_([PATIENT]), Patient.region == "us-east"))
        say("in", found.all())


def types(engine):
    values = {
        "payload": bytes(range(256)),
        "tags": ["", "a,b", '"{}\\', None, "ä"],
        "key": PATIENT,
        "doc": {"a": [1, None, "ü"], "b": {"c": 1.5}},
        "seen": SEEN,
        "amount": Decimal("12345678901234567890.123456789"),
        "note": None,
    }
    with Session(engine) as session:
        session.add(Value(driver=NAME, id=1, **values))
        session.flush()
        session.expire_all()
        got = session.get(Value, (NAME, 1))
        say("types", *[getattr(got, column) == value for column, value in values.items()])
        again = insert(Value).values(driver=NAME, id=1)
        session.execute(again.on_conflict_do_update(index_elements=["driver", "id"], set_={"note": "again"}))
        session.refresh(got)
        say("upsert", got.note)
        session.rollback()


def prepared(engine):
    # By psycopg's rule: prepared when it was executed some times.
    for n in range(100):
        with Session(engine) as session, session.begin():
            session.add(observation(n))
            session.execute(sa.text("SELECT title FROM icd10_codes WHERE code = :code"), {"code": "I10"})
    with Session(engine) as session, session.begin():
        say("prepared", *session.execute(OBSERVED).one())


def batch(engine):
    with Session(engine) as session:
        # One INSERT of many rows, with the keys that they were given.
        session.add_all([observation(n) for n in range(200)])
        session.flush()
        say("insert-many", *session.execute(OBSERVED).one())
        session.rollback()


def transactions(engine):
    def count(session):
        return session.scalar(sa.select(sa.func.count()).select_from(Allergy).where(*mine))

    mine = [Allergy.patient_id == PATIENT, Allergy.substance == NAME]
    with Session(engine) as session, session.begin():
        session.add(Allergy(patient_id=PATIENT, substance=NAME, reaction="Hives", severity="mild"))
    with Session(engine) as session, session.begin():
        say("commit", count(session))
        eagerly = sa.select(Patient).where(Patient.id == PATIENT).options(selectinload(Patient.allergies))
        patient = session.scalars(eagerly).one()
        say("eager", NAME in [allergy.substance for allergy in patient.allergies])
    with Session(engine) as session:
        session.execute(sa.delete(Allergy).where(*mine))
        session.rollback()
        say("rollback", count(session))
        with session.begin_nested() as savepoint:
            session.execute(sa.delete(Allergy).where(*mine))
            savepoint.rollback()
        say("savepoint", count(session))
        allergy = session.scalars(sa.select(Allergy).where(*mine).with_for_update()).one()
        allergy.severity = "severe"
        session.commit()
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as conn, conn.begin():
        say("repeatable-read", conn.scalar(sa.text("SHOW transaction_isolation")))
        say("update", conn.scalar(sa.select(Allergy.severity).where(*mine)))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        say("autocommit", conn.execute(sa.delete(Allergy).where(*mine)).rowcount)


def errors(engine):
    with Session(engine) as session:
        say("error", sqlstate(lambda: session.execute(sa.text("SELECT 1 / :n"), {"n": 0})))
        say("failed-transaction", sqlstate(lambda: session.execute(sa.text("SELECT 1"))))
        session.rollback()
        session.add(Allergy(patient_id=PATIENT, substance=NAME, reaction="x", severity="none"))
        say("error-of-a-flush", sqlstate(session.flush))
        session.rollback()
        say("after-error", session.scalar(sa.text("SELECT 'usable'")))


def cancel(engine):
    with engine.connect() as conn:
        ended = threading.Event()

        def ask():
            # Again and again: a request that comes before the statement has begun cancels nothing.
            while not ended.wait(0.5):
                conn.connection.driver_connection.cancel_safe()

        asking = threading.Thread(target=ask)
        asking.start()
        state = sqlstate(lambda: conn.execute(sa.text("SELECT pg_sleep(60)")))
        ended.set()
        asking.join()
        conn.rollback()
        say("cancel", state, conn.scalar(sa.text("SELECT 'usable'")))


def large(engine):
    payload = bytes(range(256)) * 20480
    with Session(engine) as session:
        session.add(Value(driver=NAME, id=1, payload=payload))
        session.flush()
        session.expire_all()
        say("large", session.get(Value, (NAME, 1)).payload == payload)
        session.rollback()


def cursors(engine):
    with Session(engine) as session:
        query = sa.select(Observation.value).where(Observation.patient_id == PATIENT, Observation.loinc == NAME)
        say("cursor", sum(session.scalars(query, execution_options={"yield_per": 7})))


def fifty():
    engine = sa.create_engine(URL, pool_size=50, pool_pre_ping=True)
    together = threading.Barrier(50)
    regions = []

    def one():
        with engine.connect() as conn:
            together.wait()
            regions.append(conn.scalar(sa.select(Patient.region).where(Patient.id == PATIENT)))

    # Twice: the second time, the pool tries its connections before it lends them.
    for step in ["fifty", "fifty-again"]:
        threads = [threading.Thread(target=one) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        say(step, regions.count("us-east"))
    engine.dispose()


engine = sa.create_engine(URL, pool_size=1, max_overflow=0)
for step in [login, parameters, types, prepared, batch, transactions, errors, cancel, large, cursors]:
    step(engine)
fifty()
with Session(engine) as session, session.begin():
    mine = sa.delete(Observation).where(Observation.patient_id == PATIENT, Observation.loinc == NAME)
    say("delete", session.execute(mine).rowcount)
engine.dispose()
say("end")
