//! Owns what the hub must know of a connection without knowing its dialect. Never decides anything: the hub does.

use crate::Shape;

/// How a connection is to be treated. A dialect has one, [`Dialect::profile`](crate::Dialect::profile); an embedder with a protocol
/// of its own chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Whether the end of its role is the end of the connection.
    pub tenure: Tenure,
    /// What it can be given. Data of another shape is refused to its sender, as [`NotAnObject`](crate::Refusal::NotAnObject).
    pub takes: Shape,
}

/// How many roles a connection may have in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tenure {
    /// One. A [`Refusal`](crate::Refusal) closes it, where [`closes`](crate::Refusal::closes) says so, and so does the end of its role.
    OneRole,
    /// Any number, one at a time. It is told of a refusal, or of the end of its role, and may try again.
    Renewable,
}
