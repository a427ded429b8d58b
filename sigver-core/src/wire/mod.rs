//! Messages as text: one file for each dialect, and one reader of JSON (`scan`) for both. The codecs do not know
//! roles: the [`Hub`](crate::Hub) decides what depends on them.

pub(crate) mod offers;
mod plain;
mod scan;
mod v1;

use alloc::vec::Vec;

use crate::{
    frame::Frame,
    ice::IceServers,
    limits::Limits,
    message::{InboundMessage, OutboundMessage},
    payload::Payload,
    profile::{PayloadKind, Profile, RoleLifetime},
    reason::CloseReason,
    wire::offers::InvalidSubprotocol,
};

/// A dialect of the protocol: how messages are written as text. `PROTOCOL.md` defines both.
///
/// Clients of both dialects can use one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// The dialect of the original sigver of 2016: no acknowledgements, errors are close codes.
    Plain,
    /// `sigver.v1`: acknowledgements, leave notices, errors that keep the connection open, any JSON value as data.
    V1,
}

impl Dialect {
    /// Every dialect.
    pub const ALL: &'static [Self] = &[Self::Plain, Self::V1];

    /// Returns the WebSocket subprotocol of this dialect (RFC 6455 section 1.9). A client that offers none uses the plain dialect.
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::Plain => "sigver.plain",
            Self::V1 => "sigver.v1",
        }
    }

    /// Parses the values of all `Sec-WebSocket-Protocol` headers of a request. Returns the offered subprotocols in order, for
    /// [`negotiate`](Self::negotiate).
    ///
    /// ```
    /// use sigver_core::Dialect;
    ///
    /// let headers: [&[u8]; 2] = [b"soap, sigver.v1", b"mqtt"];
    /// let offers = Dialect::parse_offers(headers)?;
    /// assert_eq!(offers, ["soap", "sigver.v1", "mqtt"]);
    /// assert_eq!(Dialect::negotiate(offers), (Dialect::V1, Some("sigver.v1")));
    /// # Ok::<(), sigver_core::InvalidSubprotocol>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidSubprotocol`] if one is not a token (RFC 9110 section 5.6.2). The usual response is HTTP 400.
    pub fn parse_offers<'a>(headers: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<&'a str>, InvalidSubprotocol> {
        offers::parse(headers)
    }

    /// Chooses the dialect of a connection from the offered subprotocols, and the subprotocol to echo: the first that names a dialect. A
    /// client that offers only others gets the plain dialect and an echo of its first offer, as from the original sigver: browsers fail a
    /// handshake whose offer is not echoed.
    ///
    /// ```
    /// use sigver_core::Dialect;
    ///
    /// assert_eq!(Dialect::negotiate([]), (Dialect::Plain, None));
    /// assert_eq!(Dialect::negotiate(["soap", "sigver.v1"]), (Dialect::V1, Some("sigver.v1")));
    /// assert_eq!(Dialect::negotiate(["soap", "mqtt"]), (Dialect::Plain, Some("soap")));
    /// ```
    pub fn negotiate<'a>(offers: impl IntoIterator<Item = &'a str>) -> (Self, Option<&'a str>) {
        let mut first = None;
        for offer in offers {
            if let Some(dialect) = Self::ALL.iter().find(|dialect| dialect.subprotocol() == offer) {
                return (*dialect, Some(offer));
            }
            first = first.or(Some(offer));
        }
        (Self::Plain, first)
    }

    /// Returns the profile of connections of this dialect, for [`Hub::connect`](crate::Hub::connect).
    pub const fn profile(self) -> Profile {
        match self {
            Self::Plain => Profile {
                role_lifetime: RoleLifetime::SingleUse,
                accepts: PayloadKind::Object,
            },
            Self::V1 => Profile {
                role_lifetime: RoleLifetime::Reusable,
                accepts: PayloadKind::Any,
            },
        }
    }

    /// Returns the frame for `message`; `None` if the dialect has none.
    pub fn encode(self, message: OutboundMessage) -> Option<Frame> {
        self.encode_with_ice(message, || None)
    }

    /// Like [`encode`](Self::encode), with ICE servers for each pairing of which the message tells. `ice` is called for each. The plain
    /// dialect has none.
    pub fn encode_with_ice(self, message: OutboundMessage, ice: impl FnMut() -> Option<IceServers>) -> Option<Frame> {
        match self {
            Self::Plain => plain::encode(message),
            Self::V1 => v1::encode(message, ice),
        }
    }
}

/// Decodes text messages of one dialect within limits.
///
/// ```
/// use sigver_core::{CloseReason, Decoder, Dialect, InboundMessage, Limits};
///
/// let decoder = Decoder::new(Dialect::V1, &Limits::default());
/// let message = decoder.decode(r#"{"type":"join","key":"tea"}"#)?;
/// assert!(matches!(message, InboundMessage::Join { key, .. } if key.as_str() == "tea"));
/// assert_eq!(decoder.decode("tea"), Err(CloseReason::InvalidJson));
/// # Ok::<(), CloseReason>(())
/// ```
#[derive(Clone, Debug)]
pub struct Decoder {
    dialect: Dialect,
    limits: Limits,
}

impl Decoder {
    /// Creates a decoder. It enforces [`key_bytes`](Limits::key_bytes), [`message_bytes`](Limits::message_bytes), [`depth`](Limits::depth)
    /// and [`join_wait`](Limits::join_wait).
    pub fn new(dialect: Dialect, limits: &Limits) -> Self {
        Self {
            dialect,
            limits: limits.clone(),
        }
    }

    /// Decodes the text of one message.
    ///
    /// # Errors
    ///
    /// The reason to close the sender with: [`CloseReason::TooBig`], or one with code 1007.
    pub fn decode(&self, text: &str) -> Result<InboundMessage, CloseReason> {
        match self.dialect {
            Dialect::Plain => plain::decode(text, &self.limits),
            Dialect::V1 => v1::decode(text, &self.limits),
        }
    }
}

impl Payload {
    /// Creates a payload from a text that is one JSON value. White space around it is removed.
    ///
    /// # Errors
    ///
    /// [`CloseReason::InvalidJson`], [`CloseReason::TooBig`] or [`CloseReason::TooDeep`].
    pub fn new(text: &str, limits: &Limits) -> Result<Self, CloseReason> {
        let value = scan::value(text, limits)?;
        Ok(Self::with_spot(value, scan::place_for_index(value)))
    }
}
