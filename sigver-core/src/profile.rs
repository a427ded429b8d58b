//! The properties of a dialect that the hub needs.

/// How the hub treats a connection. [`Dialect::profile`](crate::Dialect::profile) returns that of a dialect; an embedder with a protocol of
/// its own chooses one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Whether the connection is closed when its role ends.
    pub role_lifetime: RoleLifetime,
    /// The payloads that the connection accepts. Data of another kind is refused to its sender with
    /// [`NotAnObject`](crate::Refusal::NotAnObject).
    pub accepts: PayloadKind,
}

/// How many roles a connection may have, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleLifetime {
    /// One. The connection is closed when its role ends, and by a [`Refusal`](crate::Refusal) that [closes](crate::Refusal::closes).
    SingleUse,
    /// Any number. The connection stays open after a refusal or the end of its role, and may request another role.
    Reusable,
}

/// The kind of a payload. A peer of the plain dialect accepts JSON objects only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PayloadKind {
    /// One object, to which an index can be added.
    Object,
    /// Any value.
    Any,
}
