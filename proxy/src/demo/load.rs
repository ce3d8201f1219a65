//! Brings the patients in through PgWard, as an application would: the patients' own rows by COPY, which registers
//! them in the directory; records by COPY in batches; allergies by prepared INSERTs, so that the other way in is used
//! too. One client for each region, all at once.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::{SinkExt, future};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::cluster::connect;
use super::data::{self, Patient};

/// Patients whose records go into one COPY.
const BATCH: usize = 500;

/// INSERTs that may be under way on one connection.
const PIPELINED: usize = 64;

/// What is brought in.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Seed of the patients.
    pub seed: u64,
    /// How many patients, over all regions.
    pub patients: u32,
}

/// Rows that are in.
#[derive(Debug, Default)]
pub struct Progress {
    rows: AtomicU64,
}

impl Progress {
    /// Rows that are in by now.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    fn add(&self, rows: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }
}

impl Load {
    /// Rows of each table.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        let mut add = |table: &str, rows: usize| *counts.entry(table.to_owned()).or_default() += rows as u64;
        for patient in (0..self.patients).map(|number| data::patient(self.seed, number)) {
            add("patients", 1);
            add("encounters", patient.encounters.len());
            add("medications", patient.medications.len());
            add("observations", patient.observations.len());
            add("allergies", patient.allergies.len());
        }
        counts
    }

    /// The patients of one region.
    pub fn patients_of(&self, region: usize) -> impl Iterator<Item = Patient> + use<> {
        let Self { seed, patients } = *self;
        let first = u32::try_from(region).expect("there are four regions");
        (first..patients).step_by(data::REGIONS.len()).map(move |number| data::patient(seed, number))
    }

    /// Brings everything in through this listener.
    ///
    /// # Errors
    /// PgWard or a server refuses a row.
    pub async fn run(&self, url: &str, progress: &Progress) -> Result<()> {
        let regions = (0..data::REGIONS.len()).map(|region| async move {
            self.run_region(url, region, progress)
                .await
                .with_context(|| format!("cannot load the patients of {}", data::REGIONS[region]))
        });
        future::try_join_all(regions).await.map(drop)
    }

    /// Waits until PgWard reads the patients of these regions from replicas: until it has seen, by its next probe, that
    /// they have caught up with what was loaded.
    ///
    /// # Errors
    /// It does not within half a minute.
    pub async fn await_replicas(&self, url: &str, regions: usize) -> Result<()> {
        let client = connect(url).await?;
        let deadline = Instant::now() + Duration::from_secs(30);
        let sql = "SELECT current_setting('cluster_name') FROM patients WHERE id = $1";
        for region in 0..regions {
            let Some(patient) = self.patients_of(region).next() else { continue };
            while !client.query_one(sql, &[&patient.id]).await?.get::<_, String>(0).contains("/replica-") {
                let region = data::REGIONS[region];
                ensure!(Instant::now() < deadline, "the patients of {region} are not read from replicas");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    /// Brings the patients of one region in.
    ///
    /// # Errors
    /// As [`Load::run`].
    pub async fn run_region(&self, url: &str, region: usize, progress: &Progress) -> Result<()> {
        let client = connect(url).await?;
        let patients: Vec<Patient> = self.patients_of(region).collect();
        copy(&client, "patients", data::PATIENT_COLUMNS, &patients, Patient::copy_row, progress).await?;
        for batch in patients.chunks(BATCH) {
            copy(&client, "encounters", data::ENCOUNTER_COLUMNS, batch, Patient::copy_encounters, progress).await?;
            copy(&client, "medications", data::MEDICATION_COLUMNS, batch, Patient::copy_medications, progress).await?;
            copy(&client, "observations", data::OBSERVATION_COLUMNS, batch, Patient::copy_observations, progress)
                .await?;
            insert_allergies(&client, batch, progress).await?;
        }
        Ok(())
    }
}

async fn copy(
    client: &Client,
    table: &str,
    columns: &str,
    patients: &[Patient],
    rows_of: fn(&Patient, &mut String),
    progress: &Progress,
) -> Result<()> {
    let mut rows = String::new();
    patients.iter().for_each(|patient| rows_of(patient, &mut rows));
    if rows.is_empty() {
        return Ok(());
    }
    let statement = format!("COPY {table} ({columns}) FROM STDIN");
    let sink = client.copy_in(&statement).await.with_context(|| statement.clone())?;
    let mut sink = pin!(sink);
    sink.send(Bytes::from(rows)).await.with_context(|| statement.clone())?;
    progress.add(sink.finish().await.with_context(|| statement)?);
    Ok(())
}

async fn insert_allergies(client: &Client, patients: &[Patient], progress: &Progress) -> Result<()> {
    let text = "INSERT INTO allergies (patient_id, substance, reaction, severity) VALUES ($1, $2, $3, $4)";
    let types = [Type::UUID, Type::TEXT, Type::TEXT, Type::TEXT];
    let insert = client.prepare_typed(text, &types).await.with_context(|| text.to_owned())?;
    let rows: Vec<_> = patients.iter().flat_map(|p| p.allergies.iter().map(move |allergy| (p.id, allergy))).collect();
    for batch in rows.chunks(PIPELINED) {
        let inserts = batch.iter().map(|(id, allergy)| {
            let insert = &insert;
            async move { client.execute(insert, &[id, &allergy.substance, &allergy.reaction, &allergy.severity]).await }
        });
        progress.add(future::try_join_all(inserts).await.with_context(|| text.to_owned())?.into_iter().sum());
    }
    Ok(())
}
