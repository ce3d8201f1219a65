//! Ends prepared transactions that their session has left behind: at the start, when a node comes up again, when a
//! session could not do it itself, and regularly, since a server may prepare what it was sent long after its session.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use pgward_config::{Config, ServerRole, Shard};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::log::{Open, Verdict};
use super::{SOON, TwoPhase};
use crate::catalog;
use crate::state::Shared;

/// How often it is seen whether there is something to do.
const TICK: Duration = Duration::from_millis(500);

/// Runs as long as the process.
pub(crate) async fn recover(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let state = shared.state.load_full();
        for (n, shard) in state.config.shards.iter().enumerate() {
            if !state.fleet.shard(n)[0].state().up {
                // Whatever it has prepared, it has again when it comes up.
                shared.two_phase.look_at(shard.id.as_str(), Instant::now());
            } else if shared.two_phase.is_due(shard.id.as_str(), Instant::now()) {
                shared.two_phase.look(&state.config, shard).await;
            }
        }
    }
}

/// A prepared transaction on a server.
struct Found {
    gid: String,
    /// `None` when the role is gone: a superuser may still end it.
    owner: Option<String>,
    /// It is older than any session would leave it.
    old: bool,
}

impl TwoPhase {
    async fn look(self: &Arc<Self>, config: &Config, shard: &Shard) {
        let Err(error) = self.end_all(config, shard).await else { return };
        let error = format!("{error:#}");
        tracing::warn!(shard = %shard.id, %error, "prepared transactions could not be ended; they are tried again");
        self.look_at(shard.id.as_str(), Instant::now() + SOON);
    }

    /// Ends all that this shard has prepared and that no session owns. What cannot be ended does not stand in the way of
    /// the rest.
    async fn end_all(self: &Arc<Self>, config: &Config, shard: &Shard) -> anyhow::Result<()> {
        let shard_id = shard.id.to_string();
        // Before the server is asked: what is decided later may be prepared after it was.
        let open = self.without_owner(self.log.open_transactions());
        let found =
            in_time(config, async { found(&self.first_client(config, shard).await?, &self.instance_prefix).await })
                .await?;
        let mut failed = Failed::default();
        for found in &found {
            if !found.gid.starts_with(&self.prefix) {
                self.report_foreign(shard, found);
            } else if !self.is_live(&found.gid)
                && let Err(error) = in_time(config, self.end(config, shard, found)).await
            {
                failed.add(&found.gid, error);
            }
        }
        let ended: Vec<String> = failed.ended(&open, &shard_id).cloned().collect();
        for gid in ended.iter().filter(|gid| found.iter().all(|found| found.gid != **gid)) {
            tracing::error!(
                shard = %shard.id, %gid,
                "a transaction that was decided is not prepared here: it was committed before its session heard of it, \
                 or is lost, if the server has been restored or replaced by one that had not received it"
            );
        }
        if !ended.is_empty() {
            let all = Arc::clone(self);
            let shard = [shard_id.clone()];
            // The file's lock may be held by somebody who waits for the disk.
            tokio::task::spawn_blocking(move || ended.iter().for_each(|gid| all.log.committed(gid, &shard))).await?;
        }
        failed.error.map_or(Ok(()), Err)
    }

    fn is_live(&self, gid: &str) -> bool {
        self.live.lock().contains(gid)
    }

    fn without_owner(&self, mut open: Open) -> Open {
        let live: HashSet<String> = self.live.lock().clone();
        open.retain(|gid, _| !live.contains(gid));
        open
    }

    async fn first_client(&self, config: &Config, shard: &Shard) -> anyhow::Result<Client> {
        let role = config.server_roles.first().context("no [[server_roles]] to log in as")?;
        catalog::connect(&shard.primary, role, config.proxy.connect_timeout).await
    }

    async fn end(&self, config: &Config, shard: &Shard, found: &Found) -> anyhow::Result<()> {
        let (verb, words) = match self.log.verdict(&found.gid) {
            Verdict::Commit => ("COMMIT PREPARED", "committed"),
            Verdict::RollBack => ("ROLLBACK PREPARED", "rolled back"),
            Verdict::Leave => {
                tracing::error!(
                    shard = %shard.id, gid = %found.gid,
                    "whether this transaction was decided is not known before a restart reads the commit log"
                );
                return Ok(());
            }
        };
        let mut refused = None;
        for role in by_likelihood(&config.server_roles, found.owner.as_deref()) {
            match end_as(config, shard, role, found, verb).await {
                Ok(Ended::Now) => {
                    tracing::warn!(
                        shard = %shard.id, gid = %found.gid,
                        "a prepared transaction without a session was {words}"
                    );
                    return Ok(());
                }
                Ok(Ended::Before) => return Ok(()),
                Err(error) => drop(refused.get_or_insert(error.context(format!("as {}", role.name)))),
            }
        }
        let owner = found.owner.as_deref().unwrap_or("a role that is gone");
        let error = refused.unwrap_or_else(|| anyhow::anyhow!("no [[server_roles]] to log in as"));
        Err(error.context(format!("{} of {owner}", found.gid)))
    }

    fn report_foreign(&self, shard: &Shard, found: &Found) {
        if found.old {
            tracing::error!(
                shard = %shard.id, gid = %found.gid,
                "a transaction that an instance of this name has prepared, by another commit log than the one at hand, \
                 is left as it is: bring that log back, or end it by hand on all shards alike"
            );
        }
    }
}

/// What could not be ended on a shard.
#[derive(Default)]
struct Failed {
    gids: HashSet<String>,
    /// The first of them.
    error: Option<anyhow::Error>,
}

impl Failed {
    fn add(&mut self, gid: &str, error: anyhow::Error) {
        self.gids.insert(gid.to_owned());
        self.error.get_or_insert(error);
    }

    /// What was decided and has ended on this shard.
    fn ended<'a>(&'a self, open: &'a Open, shard: &'a str) -> impl Iterator<Item = &'a String> {
        let here = open.iter().filter(move |(_, shards)| shards.iter().any(|of| of == shard));
        here.map(|(gid, _)| gid).filter(|gid| !self.gids.contains(*gid))
    }
}

/// A step that a server is given so long for.
async fn in_time<T>(config: &Config, step: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let patience = config.proxy.connect_timeout + config.health.timeout;
    let answer = tokio::time::timeout(patience, step).await;
    answer.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {patience:?}")))
}

/// What became of a prepared transaction.
enum Ended {
    Now,
    /// By its session, meanwhile.
    Before,
}

/// Server roles, with the one first that most likely has prepared it.
fn by_likelihood<'a>(roles: &'a [ServerRole], owner: Option<&str>) -> Vec<&'a ServerRole> {
    let mut roles: Vec<_> = roles.iter().collect();
    roles.sort_by_key(|role| Some(&*role.name) != owner);
    roles
}

/// Only who has prepared it may end it, and that is the role which the session had set, or which the server sets for the
/// login: whoever may set it may end what it has prepared.
async fn end_as(config: &Config, shard: &Shard, role: &ServerRole, found: &Found, verb: &str) -> anyhow::Result<Ended> {
    let client = catalog::connect(&shard.primary, role, config.proxy.connect_timeout).await?;
    if let Some(owner) = &found.owner {
        // Fails for a superuser that is not let be the owner, too, and then needs it not.
        let set = client.batch_execute(&format!("SET ROLE {}", quoted(owner))).await;
        if set.as_ref().is_err_and(tokio_postgres::Error::is_closed) {
            set.map_err(catalog::plain)?;
        }
    }
    match client.batch_execute(&format!("{verb} {}", super::literal(&found.gid))).await {
        Ok(()) => Ok(Ended::Now),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_OBJECT) => Ok(Ended::Before),
        Err(error) => Err(catalog::plain(error)),
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

async fn found(client: &Client, prefix: &str) -> anyhow::Result<Vec<Found>> {
    // A standby does not show what it has received prepared: nobody may take that for committed. Asked before, since it
    // may be promoted between the two.
    let standby: bool =
        client.query_one("SELECT pg_catalog.pg_is_in_recovery()", &[]).await.map_err(catalog::plain)?.get(0);
    if standby {
        bail!("the server is in recovery: what it has prepared is not known");
    }
    const QUERY: &str = "
        SELECT gid, owner::text, prepared < pg_catalog.now() - interval '1 minute'
        FROM pg_catalog.pg_prepared_xacts
        WHERE database = pg_catalog.current_database() AND pg_catalog.left(gid, pg_catalog.length($1)) = $1";
    let rows = client.query(QUERY, &[&prefix]).await.map_err(catalog::plain)?;
    let found = |row: &tokio_postgres::Row| Found { gid: row.get(0), owner: row.get(1), old: row.get(2) };
    Ok(rows.iter().map(found).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_ended_is_not_noted_and_the_rest_is() {
        let shards = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let open: [(&str, Vec<String>); 4] = [
            ("stuck", shards(&["east", "west"])),
            ("ended", shards(&["east"])),
            ("elsewhere", shards(&["west"])),
            ("stuck, too", shards(&["east"])),
        ];
        let open = Open::from(open.map(|(gid, shards)| (gid.to_owned(), shards)));
        let mut failed = Failed::default();
        failed.add("stuck", anyhow::anyhow!("the first"));
        failed.add("stuck, too", anyhow::anyhow!("the second"));
        assert_eq!(failed.ended(&open, "east").collect::<Vec<_>>(), ["ended"]);
        assert_eq!(failed.error.expect("an error").to_string(), "the first");
    }

    #[test]
    fn the_owner_is_tried_first_and_quoted() {
        let role = |name: &str| ServerRole { name: name.into(), password: None };
        let roles = ["a", "b", "c"].map(role);
        let order = |owner| by_likelihood(&roles, owner).iter().map(|role| &*role.name).collect::<String>();
        assert_eq!((order(Some("c")), order(Some("other")), order(None)), ("cab".into(), "abc".into(), "abc".into()));
        assert_eq!(quoted("O\"Hara"), "\"O\"\"Hara\"");
    }
}
