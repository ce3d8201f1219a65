//! PostgreSQL servers: connections, prioritized pools, health and lag.
//!
//! A [`Fleet`] holds the [`Node`]s of a configuration. A session asks a node for a server of a pool, for its class and
//! server role, and gets a [`Lease`], at once or after waiting its turn; it gives the lease back with a proof that the
//! server is [`Clean`], or drops it, which closes the connection. What a decision needs to know of a node is its
//! [`NodeState`].
//!
//! | file | what |
//! | --- | --- |
//! | `fleet` | the nodes of a configuration, and how a reload carries them over |
//! | `node` | a node: acquiring, state, its tasks |
//! | `pool` | one prioritized pool of a node: admission, budget of connections, stores |
//! | `gate`, `admission` | who is next: the rules as a pure state machine, and waiting at it |
//! | `store`, `connect`, `server`, `budget` | idle servers of one role, opening more (through bb8), one connection |
//! | `own`, `guest` | servers that clients log in to by themselves: of one client, and shared |
//! | `lease` | a server in use, and the proof that gives it back |
//! | `kill` | telling sessions that their server's node is gone |
//! | `watch`, `standing`, `staleness` | what is known of a node; up or down, and the age of a replica's data, as pure rules |
//! | `probe`, `cpu` | asking the nodes |
//!
//! Nothing here knows SQL, beyond the prober's two questions.

mod admission;
mod budget;
mod connect;
mod cpu;
mod error;
mod fleet;
mod gate;
mod guest;
mod kill;
mod lease;
mod memory;
mod node;
mod own;
mod pool;
mod probe;
mod server;
mod staleness;
mod standing;
mod status;
mod store;
mod watch;
mod words;

pub use connect::ConnectError;
pub use error::AcquireError;
pub use fleet::Fleet;
pub use guest::{Credentials, Guest};
pub use lease::{Clean, Lease};
pub use memory::{ServerMemory, Settings};
pub use node::Node;
pub use own::Place;
pub use server::{CancelTarget, Server, send_cancel};
pub use standing::Standing;
pub use status::{NodeStatus, PoolStatus};
pub use watch::{Failure, NodeState, Parameters};
