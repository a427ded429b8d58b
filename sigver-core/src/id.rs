//! Owns what names things: connections ([`ConnId`]), joiners of an opener ([`Index`]) and meeting points ([`Key`]). Never holds
//! state.

use alloc::{format, sync::Arc};
use core::fmt;

use crate::{CloseReason, Limits};

/// Names a connection for as long as it lives; afterwards it names nothing.
///
/// Issued by [`Hub::connect`](crate::Hub::connect). A slot is used again after its connection is gone, the whole id is not: an
/// id that outlived its connection is inert in every method, unless exactly a multiple of 2^32 connections came since.
///
/// ```
/// # use sigver_core::{ConnId, Dialect, Hub, Limits, Time};
/// # let mut hub: Hub = Hub::new(Limits::default());
/// # let profile = Dialect::V1.profile();
/// let gone = hub.connect(Time::ZERO, profile)?;
/// assert!(hub.disconnect(gone).is_empty());
/// let next = hub.connect(Time::ZERO, profile)?;
/// assert_eq!(gone.slot(), next.slot()); // the same place in a table
/// assert_ne!(gone, next); // and yet another connection
/// assert_eq!(ConnId::from_bits(next.to_bits()), next); // through an epoll token, say
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

    /// A small number that no other living connection of the same hub has: the place of this connection in a table of the
    /// embedder's own. Slots are given out from 0 and used again.
    pub const fn slot(self) -> usize {
        self.slot as usize
    }

    /// The id as one number, for a token or an atomic.
    pub const fn to_bits(self) -> u64 {
        (self.generation as u64) << 32 | self.slot as u64
    }

    /// The id that [`to_bits`](Self::to_bits) gave. Any other number makes an id that is inert, or another connection's.
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

/// `slot:generation`, short enough for a log line.
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
/// No index is given out twice while the opener lives, and refused joiners use none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(u32);

impl Index {
    /// The index that no joiner ever has. Stands for every number that is too large to be assigned.
    pub const NOBODY: Self = Self(u32::MAX);

    /// The index with this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a meeting point, which an opener opens and joiners join. A `Key` that exists is legal: not empty, not too long.
///
/// Whoever knows a key can join it, so a key is a secret: `Debug` shows its length only, and there is no `Display`.
///
/// ```
/// use sigver_core::{CloseReason, Key, Limits};
///
/// let limits = Limits::default();
/// let key = Key::new("tea", &limits)?;
/// assert_eq!((key.as_str(), format!("{key:?}").as_str()), ("tea", "Key(3 bytes)"));
/// assert_eq!(Key::new("", &limits), Err(CloseReason::KeyEmpty));
/// # Ok::<(), CloseReason>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// Checks a key.
    ///
    /// # Errors
    ///
    /// [`CloseReason::KeyEmpty`] and [`CloseReason::KeyTooLong`] (more than [`Limits::key_bytes`] bytes of UTF-8).
    pub fn new(text: &str, limits: &Limits) -> Result<Self, CloseReason> {
        if text.is_empty() {
            Err(CloseReason::KeyEmpty)
        } else if text.len() > limits.key_bytes as usize {
            Err(CloseReason::KeyTooLong)
        } else {
            Ok(Self(text.into()))
        }
    }

    /// A key that nobody can guess, from 128 random bits: their 32 hexadecimal digits.
    ///
    /// # Errors
    ///
    /// [`CloseReason::KeyTooLong`] where 32 bytes are over the limit.
    pub fn from_random(bits: u128, limits: &Limits) -> Result<Self, CloseReason> {
        Self::new(&format!("{bits:032x}"), limits)
    }

    /// The key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bytes)", self.0.len())
    }
}
