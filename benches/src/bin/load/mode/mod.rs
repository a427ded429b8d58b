//! The modes, one module each.

mod bystander;
pub(crate) mod exchange;
pub(crate) mod fairness;
pub(crate) mod idle;
pub(crate) mod many;
pub(crate) mod race;
pub(crate) mod sessions;
pub(crate) mod shares;
pub(crate) mod soak;
pub(crate) mod storm;
pub(crate) mod verify;
