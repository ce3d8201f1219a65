//! sqlx. What the steps are: tests/drivers/README.md.

use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::{TryStreamExt, future};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::types::time::OffsetDateTime;
use sqlx::types::{BigDecimal, Json, JsonValue, Uuid};
use sqlx::{AssertSqlSafe, Connection, Error, PgConnection, Row};

const NAME: &str = "sqlx";
const OBSERVE: &str = "INSERT INTO observations (patient_id, loinc, name, value, unit, observed_at)
    VALUES ($1, $2, 'Step', $3, 'no', '2026-01-01 00:00:00Z')";
const OBSERVED: &str = "SELECT count(*), sum(value) FROM observations WHERE patient_id = $1 AND loinc = $2";
const COUNT: &str = "SELECT count(*) FROM allergies WHERE patient_id = $1 AND substance = $2";
const DELETE: &str = "DELETE FROM allergies WHERE patient_id = $1 AND substance = $2";

struct Steps {
    options: PgConnectOptions,
    patient: Uuid,
    conn: PgConnection,
}

fn say(step: &str, result: impl std::fmt::Debug) {
    println!("{step}: {result:?}");
}

fn sqlstate<T>(result: Result<T, Error>) -> String {
    match result {
        Ok(_) => "no error".to_owned(),
        Err(Error::Database(error)) => error.code().unwrap_or_default().into_owned(),
        Err(error) => error.to_string(),
    }
}

impl Steps {
    async fn login(&mut self) -> Result<()> {
        let query = "SELECT current_database()::text, current_user::text";
        say("login", sqlx::query_as::<_, (String, String)>(query).fetch_one(&mut self.conn).await?);
        let wrong = self.options.clone().password("wrong");
        say("wrong-password", sqlstate(PgConnection::connect_with(&wrong).await));
        Ok(())
    }

    async fn parameters(&mut self) -> Result<()> {
        let row = sqlx::query("SELECT id, region FROM patients WHERE id = $1 AND region = $2")
            .bind(self.patient)
            .bind("us-east")
            .fetch_one(&mut self.conn)
            .await?;
        say("parameters", (row.get::<Uuid, _>(0) == self.patient, row.get::<&str, _>(1)));
        // Not prepared, and all values as text.
        let simple = format!("SELECT region FROM patients WHERE id = '{}'; SELECT NULL", self.patient);
        say("simple", sqlx::raw_sql(AssertSqlSafe(simple)).fetch_all(&mut self.conn).await?.len());
        Ok(())
    }

    async fn types(&mut self) -> Result<()> {
        let payload: Vec<u8> = (0..=255).collect();
        let tags = ["", "a,b", "\"{}\\", "ä"].map(Some).into_iter().chain([None]).collect::<Vec<_>>();
        let seen = OffsetDateTime::from_unix_timestamp_nanos(1_772_323_199_999_999_000)?;
        let amount: BigDecimal = "12345678901234567890.123456789".parse()?;
        let doc: JsonValue = r#"{"a": [1, null, "ü"], "b": {"c": 1.5}}"#.parse()?;
        let mut transaction = self.conn.begin().await?;
        sqlx::query(
            "INSERT INTO pgbench_history (driver, id, payload, tags, key, doc, seen, amount, note)
             VALUES ($1, 1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(NAME)
        .bind(&payload)
        .bind(&tags)
        .bind(self.patient)
        .bind(Json(&doc))
        .bind(seen)
        .bind(&amount)
        .bind(None::<String>)
        .execute(&mut *transaction)
        .await?;
        let query = "SELECT payload, tags, key, doc, seen, amount, note FROM pgbench_history WHERE driver = $1";
        let row = sqlx::query(query).bind(NAME).fetch_one(&mut *transaction).await?;
        say("payload", row.get::<Vec<u8>, _>(0) == payload);
        say("tags", row.get::<Vec<Option<String>>, _>(1));
        say("key", row.get::<Uuid, _>(2) == self.patient);
        say("doc", row.get::<JsonValue, _>(3));
        say("seen", row.get::<OffsetDateTime, _>(4));
        say("amount", row.get::<BigDecimal, _>(5).to_plain_string());
        say("note", row.get::<Option<String>, _>(6));
        Ok(transaction.rollback().await?)
    }

    /// Prepared by the driver when it meets a text for the first time.
    async fn prepared(&mut self) -> Result<()> {
        for n in 0..100 {
            let mut transaction = self.conn.begin().await?;
            self::observe(&mut transaction, self.patient, n).await?;
            let code = "SELECT title FROM icd10_codes WHERE code = $1";
            sqlx::query(code).bind("I10").fetch_one(&mut *transaction).await?;
            transaction.commit().await?;
        }
        let mut transaction = self.conn.begin().await?;
        say("prepared", observed(&mut transaction, self.patient).await?);
        transaction.commit().await?;
        say("cached", self.conn.cached_statements_size() > 1);
        self.conn.clear_cached_statements().await?;
        let mut transaction = self.conn.begin().await?;
        say("prepared-again", observed(&mut transaction, self.patient).await?);
        Ok(transaction.commit().await?)
    }

    async fn transactions(&mut self) -> Result<()> {
        let allergy =
            "INSERT INTO allergies (patient_id, substance, reaction, severity) VALUES ($1, $2, 'Hives', 'mild')";
        let mine = |sql: &'static str| sqlx::query(sql).bind(self.patient).bind(NAME);
        let count = || sqlx::query_scalar::<_, i64>(COUNT).bind(self.patient).bind(NAME);
        let mut transaction = self.conn.begin().await?;
        mine(allergy).execute(&mut *transaction).await?;
        transaction.commit().await?;
        let mut transaction = self.conn.begin().await?;
        say("commit", count().fetch_one(&mut *transaction).await?);
        mine(DELETE).execute(&mut *transaction).await?;
        // Rolled back with the next statement, because it is dropped.
        drop(transaction);
        let mut transaction = self.conn.begin().await?;
        say("rollback", count().fetch_one(&mut *transaction).await?);
        let mut savepoint = transaction.begin().await?;
        mine(DELETE).execute(&mut *savepoint).await?;
        savepoint.rollback().await?;
        say("savepoint", count().fetch_one(&mut *transaction).await?);
        transaction.commit().await?;
        let mut reading = self.conn.begin_with("BEGIN READ ONLY").await?;
        say("read-only", sqlstate(mine(DELETE).execute(&mut *reading).await));
        reading.rollback().await?;
        say("delete", mine(DELETE).execute(&mut self.conn).await?.rows_affected());
        Ok(())
    }

    async fn errors(&mut self) -> Result<()> {
        let divided = sqlx::query("SELECT 1 / $1").bind(0);
        say("error", sqlstate(divided.execute(&mut self.conn).await));
        let mut transaction = self.conn.begin().await?;
        let insert = "INSERT INTO allergies (patient_id, substance, reaction, severity) VALUES ($1, 'x', 'x', 'none')";
        let failing = sqlx::query(insert).bind(self.patient);
        say("error-in-transaction", sqlstate(failing.execute(&mut *transaction).await));
        say("failed-transaction", sqlstate(sqlx::query("SELECT 1").execute(&mut *transaction).await));
        transaction.rollback().await?;
        self.usable("after-error").await
    }

    async fn usable(&mut self, step: &str) -> Result<()> {
        say(step, sqlx::query_scalar::<_, String>("SELECT 'usable'").fetch_one(&mut self.conn).await?);
        Ok(())
    }

    /// The driver has no cancel requests: a statement that nobody waits for any more is let finish.
    async fn given_up(&mut self) -> Result<()> {
        let sleep = sqlx::raw_sql("SELECT pg_sleep(1)").execute(&mut self.conn);
        say("given-up", tokio::time::timeout(Duration::from_millis(300), sleep).await.is_err());
        self.usable("after-giving-up").await?;
        let mut transaction = self.conn.begin().await?;
        sqlx::raw_sql("SET LOCAL statement_timeout = 300").execute(&mut *transaction).await?;
        say("statement-timeout", sqlstate(sqlx::query("SELECT pg_sleep(60)").execute(&mut *transaction).await));
        Ok(transaction.rollback().await?)
    }

    async fn copy(&mut self) -> Result<()> {
        let patient = self.patient;
        let mut transaction = self.conn.begin().await?;
        let into = "COPY observations (patient_id, loinc, name, value, unit, observed_at) FROM STDIN";
        let mut rows = transaction.copy_in_raw(into).await?;
        for n in 0..1_000 {
            let row = format!("{patient}\tcopy\ttab\\tand\\\\\t{n}\tno\t2026-01-01 00:00:00Z\n");
            rows.send(row.as_bytes()).await?;
        }
        say("copy-in", rows.finish().await?);
        let query = format!("SELECT name, value FROM observations WHERE patient_id = '{patient}' AND loinc = 'copy'");
        let out: Vec<_> = transaction.copy_out_raw(&format!("COPY ({query}) TO STDOUT")).await?.try_collect().await?;
        let text = String::from_utf8(out.concat())?;
        say("copy-out", (text.lines().count(), text.lines().last()));
        transaction.rollback().await?;
        let mut given_up = self.conn.copy_in_raw("COPY pgbench_history (driver, id) FROM STDIN").await?;
        given_up.send(&b"sqlx\t1\n"[..]).await?;
        say("copy-given-up", sqlstate(given_up.abort("changed our minds").await));
        self.usable("after-copy").await
    }

    async fn sessions(&mut self) -> Result<()> {
        let options = self.options.clone().application_name(NAME).options([("work_mem", "5MB")]);
        let pool = PgPoolOptions::new().max_connections(2).connect_with(options).await?;
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen("steps_of_sqlx").await?;
        sqlx::query("SELECT pg_notify('steps_of_sqlx', $1)").bind(NAME).execute(&pool).await?;
        let note = tokio::time::timeout(Duration::from_secs(30), listener.recv()).await??;
        say("notified", note.payload());
        let query =
            "SELECT current_setting('application_name'), current_setting('work_mem'), current_setting('timezone')";
        say("settings", sqlx::query_as::<_, (String, String, String)>(query).fetch_one(&pool).await?);
        drop(listener);
        pool.close().await;
        Ok(())
    }

    async fn large(&mut self) -> Result<()> {
        let text = "0123456789abcdef".repeat(327_680);
        let back: String = sqlx::query_scalar("SELECT $1::text").bind(&text).fetch_one(&mut self.conn).await?;
        say("large-text", back == text);
        let mut transaction = self.conn.begin().await?;
        let insert = "INSERT INTO pgbench_history (driver, id, payload) VALUES ($1, 1, $2)";
        sqlx::query(insert).bind(NAME).bind(text.as_bytes()).execute(&mut *transaction).await?;
        let select = sqlx::query_scalar("SELECT payload FROM pgbench_history WHERE driver = $1").bind(NAME);
        let back: Vec<u8> = select.fetch_one(&mut *transaction).await?;
        say("large-bytea", back == text.as_bytes());
        Ok(transaction.rollback().await?)
    }

    async fn cursors(&mut self) -> Result<()> {
        let query = "SELECT value FROM observations WHERE patient_id = $1 AND loinc = $2";
        let values = || sqlx::query_scalar::<_, BigDecimal>(query).bind(self.patient).bind(NAME);
        let mut transaction = self.conn.begin().await?;
        say("stream", values().fetch(&mut *transaction).try_fold(0, |n, _| future::ok(n + 1)).await?);
        // The rest of the rows is thrown away.
        say("first-of-a-stream", values().fetch(&mut *transaction).try_next().await?.is_some());
        let declare = format!(
            "DECLARE rows CURSOR FOR SELECT value FROM observations WHERE patient_id = '{}' AND loinc = '{NAME}'",
            self.patient
        );
        sqlx::raw_sql(AssertSqlSafe(declare)).execute(&mut *transaction).await?;
        let (mut sum, mut fetches) = (BigDecimal::from(0), 0);
        loop {
            let rows: Vec<BigDecimal> = sqlx::query_scalar("FETCH 7 FROM rows").fetch_all(&mut *transaction).await?;
            fetches += 1;
            if rows.is_empty() {
                break;
            }
            sum += rows.iter().sum::<BigDecimal>();
        }
        say("cursor", (sum.to_plain_string(), fetches));
        Ok(transaction.commit().await?)
    }

    async fn fifty(&mut self) -> Result<()> {
        let pool = PgPoolOptions::new().max_connections(50).connect_with(self.options.clone()).await?;
        let connections = future::try_join_all((0..50).map(|_| pool.acquire())).await?;
        let patient = self.patient;
        let regions = connections.into_iter().map(|mut conn| async move {
            let mut transaction = conn.begin().await?;
            let query = sqlx::query_scalar("SELECT region FROM patients WHERE id = $1").bind(patient);
            let region: String = query.fetch_one(&mut *transaction).await?;
            transaction.commit().await?;
            Ok::<_, Error>(region)
        });
        let regions = future::try_join_all(regions).await?;
        say("fifty", regions.iter().filter(|region| *region == "us-east").count());
        pool.close().await;
        let delete = sqlx::query("DELETE FROM observations WHERE patient_id = $1 AND loinc = $2");
        let deleted = delete.bind(patient).bind(NAME).execute(&mut self.conn).await?;
        say("delete", deleted.rows_affected());
        Ok(())
    }
}

async fn observe(conn: &mut PgConnection, patient: Uuid, n: i32) -> Result<(), Error> {
    sqlx::query(OBSERVE).bind(patient).bind(NAME).bind(BigDecimal::from(n)).execute(conn).await.map(drop)
}

async fn observed(conn: &mut PgConnection, patient: Uuid) -> Result<(i64, String), Error> {
    let (count, sum): (i64, BigDecimal) = sqlx::query_as(OBSERVED).bind(patient).bind(NAME).fetch_one(conn).await?;
    Ok((count, sum.to_plain_string()))
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let options: PgConnectOptions = args.next().context("a connection string")?.parse()?;
    let patient = args.next().context("a patient")?.parse()?;
    let conn = PgConnection::connect_with(&options).await?;
    let mut steps = Steps { options, patient, conn };
    steps.login().await?;
    steps.parameters().await?;
    steps.types().await?;
    steps.prepared().await?;
    steps.transactions().await?;
    steps.errors().await?;
    steps.given_up().await?;
    steps.copy().await?;
    steps.sessions().await?;
    steps.large().await?;
    steps.cursors().await?;
    steps.fifty().await?;
    steps.conn.close().await?;
    println!("end:");
    Ok(())
}
