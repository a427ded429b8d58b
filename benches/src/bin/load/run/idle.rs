//! Connections that do nothing.

use sigver_benches::{engine::Engine, error::Error, payload};

use crate::run::admission::{self, admit, entrants};

/// What idle connections are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Roles {
    /// Pairs.
    Half,
    Openers,
}

/// Adds connections whose tags begin at [`FIRST_TAG`].
pub(crate) fn connect(engine: &mut Engine, count: usize, roles: Roles) -> Result<(), Error> {
    let joiners = match roles {
        Roles::Half => count / 2,
        Roles::Openers => 0,
    };
    let keys = admission::keys(count - joiners);
    admit(engine, &entrants(&keys, FIRST_TAG, payload::open), 0)?;
    let joined = &keys[..joiners];
    admit(engine, &entrants(joined, FIRST_TAG + 1, payload::join), joiners)?;
    Ok(())
}

/// Tags from here on are those of idle connections.
pub(crate) const FIRST_TAG: u64 = 1 << 40;
