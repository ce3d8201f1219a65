//! Clients that vanish, one after the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use pgward::demo::cluster::DATABASE;
use pgward_tests::Deployment;
use pgward_wire::frontend;
use pgward_wire::login::{Greeting, Login};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::bench;
use crate::chance::Chance;
use crate::line::{Cut, Gone, Line};
use crate::script::{Author, SORTS, Script};

/// At once.
const CLIENTS: usize = 12;

/// Who they are: listener, user.
const WHO: [(&str, &str); 6] = [
    ("general", "app"),
    ("general", "app"),
    ("general", "nurse"),
    ("general", "analyst"),
    ("general", "keeper"),
    ("emergency", "dispatcher"),
];

/// Bytes of a login that are sent, and received, about.
const LOGIN: usize = 350;
const GREETING: usize = 700;

/// What became of those that vanished, by what they were at.
pub(crate) type Tally = BTreeMap<&'static str, Ends>;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ends {
    /// Cut, the login among it.
    cut_in_login: u64,
    cut: u64,
    /// Said all that they had to say.
    finished: u64,
}

/// Clients that vanish until they are told to stop.
pub(crate) struct Vanishing {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Tally>>,
}

/// What each of them needs to know.
#[derive(Clone)]
struct World {
    ports: BTreeMap<&'static str, (u16, String)>,
    patients: Vec<Uuid>,
    shared: Vec<Uuid>,
}

impl Vanishing {
    pub(crate) fn start(pgward: &Deployment, seed: u64) -> Self {
        let login = |(listener, user): (&'static str, &'static str)| {
            let known = pgward.layout().users.iter().find(|known| known.name == user).expect("a user of the layout");
            (user, (pgward.port(listener), known.password.clone()))
        };
        let shared = bench::patients(pgward);
        let patients = ["us-east", "us-west"].map(|region| pgward.patient(region, 12).id).to_vec();
        let world = World { ports: WHO.into_iter().map(login).collect(), patients, shared };
        let (stop, mut chance) = (Arc::<AtomicBool>::default(), Chance::new(seed));
        let clients = (0..CLIENTS).map(|_| {
            let (world, mut chance, stop) = (world.clone(), chance.split(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut tally = Tally::default();
                while !stop.load(Ordering::Relaxed) {
                    one(&world, &mut chance, &mut tally).await;
                }
                tally
            })
        });
        let clients = clients.collect();
        Self { stop, clients }
    }

    pub(crate) async fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Tally::default();
        for client in self.clients {
            for (sort, ends) in client.await.unwrap() {
                let all = sum.entry(sort).or_default();
                all.cut_in_login += ends.cut_in_login;
                all.cut += ends.cut;
                all.finished += ends.finished;
            }
        }
        sum
    }
}

/// A client from its first byte to its last.
async fn one(world: &World, chance: &mut Chance, tally: &mut Tally) {
    let (sort, write) = *chance.choose(&SORTS);
    let script =
        Author::new(chance.split(), *chance.choose(&world.patients), *chance.choose(&world.shared)).write(write);
    let user = chance.choose(&WHO).1;
    let (port, password) = &world.ports[user];
    let all = LOGIN + script.iter().map(BytesMut::len).sum::<usize>();
    let cut = match chance.below(7) {
        0 => Cut::Sent(chance.below(LOGIN)),
        1 => Cut::Received(chance.below(GREETING)),
        2 | 3 => Cut::Sent(LOGIN + chance.below(all - LOGIN + 1)),
        4 => Cut::Received(GREETING + chance.of_any_size(23)),
        _ => Cut::AtEnd,
    };
    let mut line = Line::open(*port, cut).await;
    let ends = tally.entry(sort).or_default();
    match line.login(login(user, password, chance)).await {
        Err(Gone) => ends.cut_in_login += 1,
        Ok(greeting) => {
            let cancelling = chance.one_in(3) || sort == "sleep";
            let cancels = cancelling.then(|| tokio::spawn(cancel(*port, greeting, chance.split())));
            match talk(&mut line, &script, chance).await {
                Ok(()) => ends.finished += 1,
                Err(Gone) => ends.cut += 1,
            }
            if let Some(cancels) = cancels {
                cancels.await.unwrap();
            }
        }
    }
    line.vanish(chance).await;
}

/// In different versions of the protocol, with parameters that others must not have, now and then with a wrong password.
fn login(user: &str, password: &str, chance: &mut Chance) -> (Login, BytesMut) {
    let params: &[(&str, &str)] = match chance.below(4) {
        0 => &[("application_name", "somebody"), ("search_path", "pg_catalog")],
        1 => &[("options", "-c statement_timeout=1ms -c DateStyle=German")],
        _ => &[],
    };
    let password = if chance.one_in(20) { "wrong" } else { password };
    let (login, mut startup) = Login::new(user, Some(password), DATABASE, params);
    if chance.one_in(3) {
        // 3.2, with long keys for cancelling.
        startup[6..8].copy_from_slice(&2u16.to_be_bytes());
    }
    (login, startup)
}

/// Says the script, in one of three ways.
async fn talk(line: &mut Line, script: &Script, chance: &mut Chance) -> Result<(), Gone> {
    match chance.below(3) {
        // All at once, and perhaps without an ear.
        0 => line.say(&script.concat(), chance.one_in(2)).await?,
        // In pieces that end anywhere.
        1 => {
            let all = script.concat();
            // Not so many that a large value takes for ever.
            let piece = 1 + all.len() / 100 + chance.of_any_size(12);
            for piece in all.chunks(piece) {
                line.say(piece, false).await?;
                if chance.one_in(4) {
                    pause(chance).await;
                }
            }
        }
        // Part by part, each answered.
        _ => {
            for part in script {
                line.say(part, false).await?;
                line.answered().await?;
            }
            pause(chance).await;
        }
    }
    Ok(())
}

async fn pause(chance: &mut Chance) {
    tokio::time::sleep(Duration::from_micros(chance.of_any_size(13) as u64)).await;
}

/// Cancels what this session runs, some time, by a connection that may break, too.
async fn cancel(port: u16, session: Greeting, mut chance: Chance) {
    for _ in 0..=chance.below(3) {
        tokio::time::sleep(Duration::from_micros(chance.of_any_size(17) as u64)).await;
        let mut request = BytesMut::new();
        frontend::put_cancel(&mut request, session.pid, &session.key);
        let cut = if chance.one_in(4) { Cut::Sent(chance.below(request.len())) } else { Cut::AtEnd };
        let mut line = Line::open(port, cut).await;
        let _cut_or_not = line.say(&request, true).await;
        line.vanish(&mut chance).await;
    }
}
