//! Idle connections.

use sigver_benches::{engine::Engine, error::Error, payload};

use crate::run::clients::{self, client_specs, connect_clients};

/// Roles of idle connections.
#[derive(Clone, Copy, Debug)]
pub(crate) enum IdleRoles {
    /// Half openers, half joiners.
    Pairs,
    /// Openers only.
    Openers,
}

/// Connects idle clients, with tags from [`FIRST_IDLE_TAG`] on.
pub(crate) fn connect(engine: &mut Engine, count: usize, roles: IdleRoles) -> Result<(), Error> {
    let joiners = match roles {
        IdleRoles::Pairs => count / 2,
        IdleRoles::Openers => 0,
    };
    let keys = clients::unique_keys(count - joiners);
    connect_clients(engine, &client_specs(&keys, FIRST_IDLE_TAG, payload::open), 0)?;
    let joined = &keys[..joiners];
    connect_clients(
        engine,
        &client_specs(joined, FIRST_IDLE_TAG + 1, payload::join),
        joiners,
    )?;
    Ok(())
}

/// The lowest tag of idle connections.
pub(crate) const FIRST_IDLE_TAG: u64 = 1 << 40;
