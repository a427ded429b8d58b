//! Identifiers: connections ([`ConnId`]), joiners ([`Index`]), keys ([`Key`]) and the names that clients choose for themselves ([`PeerId`]).

use alloc::{format, sync::Arc};
use core::fmt;

use thiserror::Error;

use crate::limits::Limits;

/// Identifies a connection of a hub or endpoint.
///
/// [`Hub::connect`](crate::Hub::connect) returns it. Slots are reused, whole ids are not: every method ignores the id of a connection that is
/// gone. An id can repeat only after 2^32 further connections.
///
/// ```
/// # use sigver_core::{ConnId, Dialect, Disconnect, Hub, Limits, Time};
/// # let mut hub = Hub::new(Limits::default());
/// # let profile = Dialect::V1.profile();
/// let gone = hub.connect(Time::ZERO, profile)?;
/// assert!(hub.disconnect(Time::ZERO, gone, Disconnect::Clean).is_empty());
/// let next = hub.connect(Time::ZERO, profile)?;
/// assert_eq!(gone.slot(), next.slot()); // the same place in a table
/// assert_ne!(gone, next); // but a different connection
/// assert_eq!(ConnId::from_bits(next.to_bits()), next); // as an epoll token, for example
/// # Ok::<(), sigver_core::ConnectError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    slot: u32,
    generation: u32,
}

impl ConnId {
    pub(crate) const fn new(slot: u32, generation: u32) -> Self {
        Self { slot, generation }
    }

    /// Returns a small number that is unique among the present connections of a hub, as an index into tables of the embedder. Slots start at
    /// 0 and are reused.
    pub const fn slot(self) -> usize {
        self.slot as usize
    }

    /// Returns the id as one number, for a token or an atomic.
    pub const fn to_bits(self) -> u64 {
        (self.generation as u64) << 32 | self.slot as u64
    }

    /// Returns the id that [`to_bits`](Self::to_bits) was called on. Another number gives an invalid id, or that of another connection.
    pub const fn from_bits(bits: u64) -> Self {
        Self {
            slot: bits as u32,
            generation: (bits >> 32) as u32,
        }
    }

    pub(crate) const fn generation(self) -> u32 {
        self.generation
    }
}

/// `slot:generation`
impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.slot, self.generation)
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnId({self})")
    }
}

/// A joiner's number at its opener: 0 for the first that joined, then 1, 2, …
///
/// An opener's indexes are never reused while it has its key. A refused joiner uses none. The largest is 2^32 - 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(u32);

impl Index {
    /// Returns the index with this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Returns the number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name under which an opener and its joiners meet. It has 1 to [`Limits::key_bytes`] bytes.
///
/// Clients that know a key can join it, so a key is a secret: `Debug` shows its length only, and there is no `Display`.
///
/// ```
/// use sigver_core::{Key, KeyError, Limits};
///
/// let limits = Limits::default();
/// let key = Key::new("tea", &limits)?;
/// assert_eq!((key.as_str(), format!("{key:?}").as_str()), ("tea", "Key(3 bytes)"));
/// assert_eq!(Key::new("", &limits), Err(KeyError::Empty));
/// # Ok::<(), KeyError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// Creates a key.
    ///
    /// # Errors
    ///
    /// [`KeyError::Empty`], or [`KeyError::TooLong`] if `text` has more than [`Limits::key_bytes`] bytes of UTF-8.
    pub fn new(text: &str, limits: &Limits) -> Result<Self, KeyError> {
        if text.is_empty() {
            Err(KeyError::Empty)
        } else if text.len() > limits.key_bytes as usize {
            Err(KeyError::TooLong)
        } else {
            Ok(Self(text.into()))
        }
    }

    /// Creates a key that cannot be guessed: the 32 hexadecimal digits of 128 random bits from a cryptographically secure source.
    ///
    /// # Errors
    ///
    /// [`KeyError::TooLong`] if [`Limits::key_bytes`] is below 32.
    pub fn from_random(bits: u128, limits: &Limits) -> Result<Self, KeyError> {
        Self::new(&format!("{bits:032x}"), limits)
    }

    /// Returns the key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bytes)", self.0.len())
    }
}

/// A name that a client has chosen for itself, so that its peer recognizes it after a reconnect. It has 1 to
/// [`PeerId::MAX_BYTES`] bytes.
///
/// The hub passes it to the peer and does not read it: it is neither authenticated nor unique. It may be personal data, so `Debug` shows its
/// length only, and there is no `Display`.
///
/// ```
/// use sigver_core::{InvalidPeerId, PeerId};
///
/// let id = PeerId::new("alice's phone")?;
/// assert_eq!((id.as_str(), format!("{id:?}").as_str()), ("alice's phone", "PeerId(13 bytes)"));
/// assert_eq!(PeerId::new(""), Err(InvalidPeerId));
/// # Ok::<(), InvalidPeerId>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(Arc<str>);

impl PeerId {
    /// The longest name in bytes of UTF-8.
    pub const MAX_BYTES: usize = 64;

    /// Creates a name.
    ///
    /// # Errors
    ///
    /// [`InvalidPeerId`] if `text` is empty or longer than [`MAX_BYTES`](Self::MAX_BYTES).
    pub fn new(text: &str) -> Result<Self, InvalidPeerId> {
        if text.is_empty() || text.len() > Self::MAX_BYTES {
            return Err(InvalidPeerId);
        }
        Ok(Self(text.into()))
    }

    /// Returns the name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({} bytes)", self.0.len())
    }
}

/// The error of creating a [`PeerId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[error("`id` is not a string of 1 to 64 bytes")]
pub struct InvalidPeerId;

/// The error of creating a [`Key`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum KeyError {
    /// The text is empty.
    #[error("`key` is empty")]
    Empty,
    /// The text is longer than [`Limits::key_bytes`].
    #[error("`key` over the length limit")]
    TooLong,
}
