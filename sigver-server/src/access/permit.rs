//! What an admitted client may do.

use std::{fmt, sync::Arc, time::SystemTime};

use sigver_core::{AllowedRoles, InboundMessage, Key, Role};

/// What an admitted client may do, and for how long. The default allows everything.
///
/// ```
/// use std::{sync::Arc, time::{Duration, SystemTime}};
/// use sigver_core::Role;
/// use sigver_server::{Permission, Permit};
///
/// /// Allows the keys of one team.
/// #[derive(Debug)]
/// struct Team(String);
///
/// impl Permission for Team {
///     fn may(&self, _role: Role, key: Option<&str>) -> bool {
///         key.is_some_and(|key| key.starts_with(&self.0))
///     }
/// }
///
/// let an_hour = Duration::from_secs(3600);
/// let permit = Permit::default()
///     .with_identity("alice")
///     .with_permission(Arc::new(Team("red-".into())))
///     .with_expiry(SystemTime::now() + an_hour);
/// assert!(permit.may(Role::Opener, Some("red-1")) && !permit.may(Role::Joiner, Some("blue-1")));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Permit {
    identity: Option<Arc<str>>,
    expiry: Option<SystemTime>,
    permissions: Vec<Arc<dyn Permission>>,
}

/// Decides about each role that a client asks for.
///
/// It is called on the connection's own thread for every open, join and meet of the client, so it may block: no other client waits. While it
/// blocks, the client is not read.
pub trait Permission: fmt::Debug + Send + Sync {
    /// Whether the client may have this role, [`Opener`](Role::Opener) or [`Joiner`](Role::Joiner), at this key. `None` is a key that the
    /// server is about to generate.
    ///
    /// A client that may not is refused with `not-allowed` and stays connected; in the plain dialect, it is closed with 1008. For a meet, it is
    /// called for both roles.
    fn may(&self, role: Role, key: Option<&str>) -> bool;
}

impl Permit {
    /// Names the client: for the embedder, not for the protocol. The server does not check it and does not log it.
    #[must_use]
    pub fn with_identity(mut self, identity: impl Into<Arc<str>>) -> Self {
        self.identity = Some(identity.into());
        self
    }

    /// Closes the client's connection at this time with 4004. If it has passed, that is at once.
    #[must_use]
    pub fn with_expiry(mut self, expiry: SystemTime) -> Self {
        self.expiry = Some(expiry);
        self
    }

    /// Adds a permission. All of them must allow a role.
    #[must_use]
    pub fn with_permission(mut self, permission: Arc<dyn Permission>) -> Self {
        self.permissions.push(permission);
        self
    }

    /// Returns the name of the client.
    pub fn identity(&self) -> Option<&str> {
        self.identity.as_deref()
    }

    pub(crate) fn shared_identity(&self) -> Option<Arc<str>> {
        self.identity.clone()
    }

    /// Returns when the connection is closed.
    pub fn expiry(&self) -> Option<SystemTime> {
        self.expiry
    }

    /// Whether all permissions allow this.
    pub fn may(&self, role: Role, key: Option<&str>) -> bool {
        self.permissions.iter().all(|permission| permission.may(role, key))
    }

    /// Adds what another admission has decided: the client may do what both allow, until the first expiry. The other's identity comes second.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.identity = self.identity.or(other.identity);
        self.expiry = self.expiry.into_iter().chain(other.expiry).min();
        self.permissions.extend(other.permissions);
        self
    }

    /// Replaces a request that is not allowed, and limits one that may have two results.
    pub(crate) fn restrict(&self, message: InboundMessage) -> InboundMessage {
        if self.permissions.is_empty() {
            return message;
        }
        let may = |role, key: &Key| self.may(role, Some(key.as_str()));
        match message {
            InboundMessage::Open { key, .. } if !may(Role::Opener, &key) => {
                InboundMessage::NotAllowed { key: Some(key) }
            }
            InboundMessage::Join { key, .. } if !may(Role::Joiner, &key) => {
                InboundMessage::NotAllowed { key: Some(key) }
            }
            InboundMessage::OpenGenerated { .. } if !self.may(Role::Opener, None) => {
                InboundMessage::NotAllowed { key: None }
            }
            InboundMessage::Meet {
                key,
                id,
                token,
                new_token,
                ..
            } => InboundMessage::Meet {
                allowed: AllowedRoles {
                    opener: may(Role::Opener, &key),
                    joiner: may(Role::Joiner, &key),
                },
                key,
                id,
                token,
                new_token,
            },
            message @ (InboundMessage::Open { .. }
            | InboundMessage::OpenGenerated { .. }
            | InboundMessage::Join { .. }
            | InboundMessage::NotAllowed { .. }
            | InboundMessage::Data { .. }
            | InboundMessage::UnknownControl { .. }
            | InboundMessage::Kick { .. }
            | InboundMessage::Leave
            | InboundMessage::CloseKey
            | InboundMessage::Ping) => message,
        }
    }
}
