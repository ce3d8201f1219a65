//! Ends prepared transactions that their session has left behind: at the start, when a node comes up again, when a
//! session could not do it itself, and regularly, since a server may prepare what it was sent long after its session.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
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
    async fn look(&self, config: &Config, shard: &Shard) {
        let patience = config.proxy.connect_timeout + config.health.timeout;
        let ended = tokio::time::timeout(patience, self.end_all(config, shard)).await;
        let error = match ended {
            Ok(Ok(())) => return,
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("no answer within {patience:?}"),
        };
        tracing::warn!(shard = %shard.id, %error, "prepared transactions could not be ended; they are tried again");
        self.look_at(shard.id.as_str(), Instant::now() + SOON);
    }

    /// Ends all that this shard has prepared and that no session owns.
    async fn end_all(&self, config: &Config, shard: &Shard) -> anyhow::Result<()> {
        let shard_id = shard.id.to_string();
        // Before the server is asked: what is decided later may be prepared after it was.
        let open = self.without_owner(self.log.open_transactions());
        let found = found(&self.first_client(config, shard).await?, &self.instance_prefix).await?;
        for found in &found {
            if !found.gid.starts_with(&self.prefix) {
                self.report_foreign(shard, found);
            } else if !self.is_live(&found.gid) {
                self.end(config, shard, found).await?;
            }
        }
        let ended = open.iter().filter(|(_, shards)| shards.contains(&shard_id));
        for (gid, _) in ended {
            self.log.committed(gid, std::slice::from_ref(&shard_id));
        }
        Ok(())
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
    fn the_owner_is_tried_first_and_quoted() {
        let role = |name: &str| ServerRole { name: name.into(), password: None };
        let roles = ["a", "b", "c"].map(role);
        let order = |owner| by_likelihood(&roles, owner).iter().map(|role| &*role.name).collect::<String>();
        assert_eq!((order(Some("c")), order(Some("other")), order(None)), ("cab".into(), "abc".into(), "abc".into()));
        assert_eq!(quoted("O\"Hara"), "\"O\"\"Hara\"");
    }
}
