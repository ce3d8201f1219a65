//! Questions as the tests ask them: text in, text out.

use pgward::demo::data::Patient;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

/// The only value of the only row.
///
/// # Errors
/// The query fails.
pub async fn one(client: &Client, sql: &str) -> Result<String, Error> {
    let rows = client.simple_query(sql).await?;
    let mut rows = rows.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = rows.next().unwrap_or_else(|| panic!("no row: {sql}"));
    assert!(rows.next().is_none(), "more than one row: {sql}");
    Ok(row.get(0).unwrap_or("NULL").to_owned())
}

/// As [`one`], of a query that must not fail.
#[track_caller]
pub fn answers<'a>(client: &'a Client, sql: &'a str) -> impl Future<Output = String> + 'a {
    let caller = std::panic::Location::caller();
    async move { one(client, sql).await.unwrap_or_else(|error| panic!("{caller}: {sql}: {error:?}")) }
}

/// Which server answers a read of this patient, by its name, e.g. `us-east-patients/replica-1`.
pub async fn answered_by(client: &Client, patient: &Patient) -> String {
    answers(client, &format!("SELECT current_setting('cluster_name') FROM patients WHERE id = '{}'", patient.id)).await
}

/// The SQLSTATE of an error that a server or PgWard sent; panics on any other result.
#[track_caller]
pub fn sqlstate<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    let error = result.expect_err("an error was expected");
    error.code().unwrap_or_else(|| panic!("not an error of a server: {error:?}")).code().to_owned()
}
