//! tokio-postgres. What the steps are: tests/drivers/README.md.

use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::{SinkExt, StreamExt, TryStreamExt, future};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, Error, NoTls};
use uuid::Uuid;

const NAME: &str = "tokio-postgres";
const OBSERVE: &str = "INSERT INTO observations (patient_id, loinc, name, value, unit, observed_at)
    VALUES ($1, $2, 'Step', $3::int, 'no', '2026-01-01 00:00:00Z')";
const OBSERVED: &str = "SELECT count(*)::int, sum(value)::int FROM observations WHERE patient_id = $1 AND loinc = $2";

struct Steps {
    url: String,
    patient: Uuid,
    client: Client,
}

fn say(step: &str, result: impl std::fmt::Debug) {
    println!("{step}: {result:?}");
}

async fn connect(config: &Config) -> Result<Client, Error> {
    let (client, connection) = config.connect(NoTls).await?;
    // How it ends is seen by the client's requests.
    tokio::spawn(connection);
    Ok(client)
}

fn sqlstate<T>(result: Result<T, Error>) -> String {
    match result {
        Ok(_) => "no error".to_owned(),
        Err(error) => error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned()),
    }
}

impl Steps {
    async fn login(&self) -> Result<()> {
        let row = self.client.query_one("SELECT current_database()::text, current_user::text", &[]).await?;
        say("login", (row.get::<_, &str>(0), row.get::<_, &str>(1)));
        let mut wrong: Config = self.url.parse()?;
        say("wrong-password", sqlstate(connect(wrong.password("wrong")).await));
        Ok(())
    }

    async fn parameters(&self) -> Result<()> {
        let query = "SELECT id, region FROM patients WHERE id = $1 AND region = $2";
        let row = self.client.query_one(query, &[&self.patient, &"us-east"]).await?;
        say("parameters", (row.get::<_, Uuid>(0) == self.patient, row.get::<_, &str>(1)));
        let query = format!("SELECT region FROM patients WHERE id = '{}'; SELECT NULL", self.patient);
        say("simple", self.client.simple_query(&query).await?.len());
        Ok(())
    }

    async fn types(&mut self) -> Result<()> {
        let payload: Vec<u8> = (0..=255).collect();
        let tags = vec![Some(""), Some("a,b"), Some("\"{}\\"), None, Some("ä")];
        let seen = std::time::UNIX_EPOCH + Duration::new(1_772_323_199, 999_999_000);
        let doc = serde_json::json!({"a": [1, null, "ü"], "b": {"c": 1.5}});
        let transaction = self.client.transaction().await?;
        // The driver has no type of its own for numeric.
        let (note, amount) = (None::<&str>, "12345678901234567890.123456789");
        let insert = "INSERT INTO pgbench_history (driver, id, payload, tags, key, doc, seen, note, amount)
            VALUES ($1, 1, $2, $3, $4, $5, $6, $7, $8::text::numeric)";
        transaction.execute(insert, &[&NAME, &payload, &tags, &self.patient, &doc, &seen, &note, &amount]).await?;
        let query = "SELECT payload, tags, key, doc, seen, note, amount::text FROM pgbench_history WHERE driver = $1";
        let row = transaction.query_one(query, &[&NAME]).await?;
        say("payload", row.get::<_, Vec<u8>>(0) == payload);
        say("tags", row.get::<_, Vec<Option<String>>>(1));
        say("key", row.get::<_, Uuid>(2) == self.patient);
        say("doc", row.get::<_, serde_json::Value>(3));
        say("seen", row.get::<_, std::time::SystemTime>(4) == seen);
        say("note", row.get::<_, Option<String>>(5));
        say("amount", row.get::<_, String>(6));
        Ok(transaction.rollback().await?)
    }

    async fn prepared(&mut self) -> Result<()> {
        let observe = self.client.prepare(OBSERVE).await?;
        let code = self.client.prepare("SELECT title FROM icd10_codes WHERE code = $1").await?;
        for n in 0..100 {
            let transaction = self.client.transaction().await?;
            transaction.execute(&observe, &[&self.patient, &NAME, &n]).await?;
            transaction.query_one(&code, &[&"I10"]).await?;
            transaction.commit().await?;
        }
        let transaction = self.client.transaction().await?;
        say("prepared", observed(&transaction, self.patient).await?);
        Ok(transaction.commit().await?)
    }

    async fn pipeline(&mut self) -> Result<()> {
        let transaction = self.client.transaction().await?;
        let observe = transaction.prepare(OBSERVE).await?;
        // Polled together, they are sent without waiting for each other's answers.
        let patient = self.patient;
        let inserts = (0..20).map(|n| {
            let (transaction, observe) = (&transaction, &observe);
            async move { transaction.execute(observe, &[&patient, &NAME, &n]).await }
        });
        say("pipeline", future::try_join_all(inserts).await?.len());
        say("pipelined", observed(&transaction, patient).await?);
        transaction.rollback().await?;
        let failing = [1, 0, 1].map(|n| {
            let client = &self.client;
            async move { sqlstate(client.query_one("SELECT 1 / $1::int", &[&n]).await) }
        });
        say("pipeline-error", future::join_all(failing).await);
        say("batch", sqlstate(self.client.batch_execute("BEGIN; SELECT 1; SELECT 1 / 0; COMMIT").await));
        Ok(self.client.batch_execute("ROLLBACK").await?)
    }

    async fn transactions(&mut self) -> Result<()> {
        let allergy =
            "INSERT INTO allergies (patient_id, substance, reaction, severity) VALUES ($1, $2, 'Hives', 'mild')";
        let count = "SELECT count(*)::int FROM allergies WHERE patient_id = $1 AND substance = $2";
        let delete = "DELETE FROM allergies WHERE patient_id = $1 AND substance = $2";
        let mine: [&(dyn ToSql + Sync); 2] = [&self.patient, &NAME];
        let transaction = self.client.transaction().await?;
        transaction.execute(allergy, &mine).await?;
        transaction.commit().await?;
        let transaction = self.client.transaction().await?;
        say("commit", transaction.query_one(count, &mine).await?.get::<_, i32>(0));
        transaction.execute(delete, &mine).await?;
        // Rolled back because it is dropped.
        drop(transaction);
        let mut transaction = self.client.transaction().await?;
        say("rollback", transaction.query_one(count, &mine).await?.get::<_, i32>(0));
        let savepoint = transaction.savepoint("here").await?;
        savepoint.execute(delete, &mine).await?;
        savepoint.rollback().await?;
        say("savepoint", transaction.query_one(count, &mine).await?.get::<_, i32>(0));
        transaction.commit().await?;
        say("delete", self.client.execute(delete, &mine).await?);
        Ok(())
    }

    async fn errors(&mut self) -> Result<()> {
        say("error", sqlstate(self.client.query_one("SELECT 1 / $1::int", &[&0]).await));
        let transaction = self.client.transaction().await?;
        let insert = "INSERT INTO allergies (patient_id, substance, reaction, severity) VALUES ($1, 'x', 'x', 'none')";
        say("error-in-transaction", sqlstate(transaction.execute(insert, &[&self.patient]).await));
        say("failed-transaction", sqlstate(transaction.query_one("SELECT 1", &[]).await));
        transaction.rollback().await?;
        self.usable("after-error").await
    }

    async fn usable(&self, step: &str) -> Result<()> {
        say(step, self.client.query_one("SELECT 'usable'", &[]).await?.get::<_, &str>(0));
        Ok(())
    }

    async fn cancel(&self) -> Result<()> {
        let token = self.client.cancel_token();
        let statement = self.client.simple_query("SELECT pg_sleep(60)");
        tokio::pin!(statement);
        let result = loop {
            match tokio::time::timeout(Duration::from_millis(500), &mut statement).await {
                Ok(result) => break result,
                // Again and again: a request that comes before the statement has begun cancels nothing.
                Err(_) => token.cancel_query(NoTls).await?,
            }
        };
        say("cancel", sqlstate(result));
        self.usable("after-cancel").await
    }

    async fn copy(&mut self) -> Result<()> {
        let patient = self.patient;
        let transaction = self.client.transaction().await?;
        let sink = transaction
            .copy_in("COPY observations (patient_id, loinc, name, value, unit, observed_at) FROM STDIN")
            .await?;
        tokio::pin!(sink);
        for n in 0..1_000 {
            let row = format!("{patient}\tcopy\ttab\\tand\\\\\t{n}\tno\t2026-01-01 00:00:00Z\n");
            sink.send(bytes::Bytes::from(row)).await?;
        }
        say("copy-in", sink.finish().await?);
        let query = format!(
            "SELECT name, value FROM observations WHERE patient_id = '{patient}' AND loinc = 'copy' ORDER BY id"
        );
        let rows: Vec<_> = transaction.copy_out(&format!("COPY ({query}) TO STDOUT")).await?.try_collect().await?;
        let text = String::from_utf8(rows.concat())?;
        say("copy-out", (text.lines().count(), text.lines().last()));
        transaction.rollback().await?;
        let given_up = self.client.copy_in::<_, bytes::Bytes>("COPY pgbench_history (driver) FROM STDIN").await?;
        drop(given_up);
        self.usable("copy-given-up").await
    }

    async fn large(&mut self) -> Result<()> {
        let text = "0123456789abcdef".repeat(327_680);
        let payload = text.as_bytes();
        let back = self.client.query_one("SELECT $1::text", &[&text]).await?;
        say("large-text", back.get::<_, &str>(0) == text);
        let transaction = self.client.transaction().await?;
        let insert = "INSERT INTO pgbench_history (driver, id, payload) VALUES ($1, 1, $2)";
        transaction.execute(insert, &[&NAME, &payload]).await?;
        let row = transaction.query_one("SELECT payload FROM pgbench_history WHERE driver = $1", &[&NAME]).await?;
        say("large-bytea", row.get::<_, &[u8]>(0) == payload);
        Ok(transaction.rollback().await?)
    }

    async fn cursors(&mut self) -> Result<()> {
        let transaction = self.client.transaction().await?;
        let query = "SELECT value::int FROM observations WHERE patient_id = $1 AND loinc = $2";
        let portal = transaction.bind(query, &[&self.patient, &NAME]).await?;
        let (mut sum, mut batches) = (0, 0);
        loop {
            let rows = transaction.query_portal(&portal, 7).await?;
            if rows.is_empty() {
                break;
            }
            batches += 1;
            sum += rows.iter().map(|row| row.get::<_, i32>(0)).sum::<i32>();
        }
        say("cursor", (sum, batches));
        let rows = transaction.query_raw(query, [&self.patient as &(dyn ToSql + Sync), &NAME]).await?;
        tokio::pin!(rows);
        // The rest of the rows is thrown away.
        say("first-of-a-stream", rows.next().await.context("a row")??.len());
        Ok(transaction.commit().await?)
    }

    async fn fifty(&self) -> Result<()> {
        let patient = self.patient;
        let config: Config = self.url.parse()?;
        let clients = future::try_join_all((0..50).map(|_| connect(&config))).await?;
        let regions = clients.into_iter().map(|mut client| async move {
            let transaction = client.transaction().await?;
            let row = transaction.query_one("SELECT region FROM patients WHERE id = $1", &[&patient]).await?;
            transaction.commit().await?;
            Ok::<_, Error>(row.get::<_, String>(0))
        });
        let regions = future::try_join_all(regions).await?;
        say("fifty", regions.iter().filter(|region| *region == "us-east").count());
        let delete = "DELETE FROM observations WHERE patient_id = $1 AND loinc = $2";
        say("delete", self.client.execute(delete, &[&patient, &NAME]).await?);
        Ok(())
    }
}

async fn observed(transaction: &tokio_postgres::Transaction<'_>, patient: Uuid) -> Result<(i32, i32), Error> {
    let row = transaction.query_one(OBSERVED, &[&patient, &NAME]).await?;
    Ok((row.get(0), row.get(1)))
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let url = args.next().context("a connection string")?;
    let patient = args.next().context("a patient")?.parse()?;
    let client = connect(&url.parse()?).await?;
    let mut steps = Steps { url, patient, client };
    steps.login().await?;
    steps.parameters().await?;
    steps.types().await?;
    steps.prepared().await?;
    steps.pipeline().await?;
    steps.transactions().await?;
    steps.errors().await?;
    steps.cancel().await?;
    steps.copy().await?;
    steps.large().await?;
    steps.cursors().await?;
    steps.fifty().await?;
    println!("end:");
    Ok(())
}
