//! Owns how messages look as text. One file for each dialect; they share the one reader of JSON (`scan`) and what is carried
//! ([`Payload`]). Never knows who has which role: what only a role can decide is reported to the [`Hub`](crate::Hub), which decides.

mod offers;
mod payload;
mod plain;
mod scan;
mod v1;

use alloc::{string::String, vec::Vec};

pub use offers::InvalidSubprotocol;
pub use payload::Payload;

use crate::{CloseReason, Frame, InboundMessage, Limits, OutboundMessage, Profile, Shape, Tenure};

/// A way to write messages as text. The project's `PROTOCOL.md` defines both; its transcripts show them.
///
/// Connections of either dialect meet under one key, since the [`Hub`](crate::Hub) knows neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// What a client written from the original page of 2016 says and expects. It acknowledges nothing: a mistake is a close code.
    Plain,
    /// `sigver.v1`: acknowledgements, leave notices, errors that keep the socket, any JSON value as data.
    V1,
}

/// The most that a dialect adds to a payload: `{"type":"data","index":4294967295,"data":}` or less.
const ENVELOPE: usize = 48;

/// What an outbound message is in a dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Encoded {
    /// The dialect has no words for it: nothing is sent.
    Nothing,
    /// A text frame; the text was appended to the buffer.
    Text,
    /// A close frame with this code and text.
    Close(CloseReason),
}

impl Dialect {
    /// Every dialect.
    pub const ALL: &'static [Self] = &[Self::Plain, Self::V1];

    /// The WebSocket subprotocol that names this dialect (RFC 6455 section 1.9). A client that names none speaks the plain one.
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::Plain => "sigver.plain",
            Self::V1 => "sigver.v1",
        }
    }

    /// Reads the values of all `Sec-WebSocket-Protocol` headers of a request: the subprotocols that its client offers, in their order. For
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
    /// [`InvalidSubprotocol`] if one is not a token (RFC 9110 section 5.6.2). The usual answer is HTTP 400.
    pub fn parse_offers<'a>(headers: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<&'a str>, InvalidSubprotocol> {
        offers::parse(headers)
    }

    /// Chooses the dialect of a connection from the subprotocols that its client offers, in that order, and what to echo: the first
    /// that names a dialect. A client that offers only other names speaks the plain dialect, and is echoed the first of them, since a
    /// browser gives up a handshake whose offer gets no echo; so did the original.
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

    /// What to tell [`Hub::connect`](crate::Hub::connect) of a connection that speaks this dialect.
    pub const fn profile(self) -> Profile {
        match self {
            Self::Plain => Profile {
                tenure: Tenure::OneRole,
                takes: Shape::Object,
            },
            Self::V1 => Profile {
                tenure: Tenure::Renewable,
                takes: Shape::Any,
            },
        }
    }

    /// Reads the text of one frame.
    ///
    /// `random` gives 128 random bits, from a source that is fit for secrets, or `None` where it fails. It is asked when a client
    /// wants the server to make a key, and at no other time; only `sigver.v1` has words for that.
    ///
    /// # Errors
    ///
    /// The reason to close its sender with: [`CloseReason::TooBig`], or one of those with code 1007, or [`CloseReason::Internal`]
    /// where `random` failed.
    pub fn decode(
        self,
        text: &str,
        limits: &Limits,
        random: impl FnOnce() -> Option<u128>,
    ) -> Result<InboundMessage, CloseReason> {
        match self {
            Self::Plain => plain::decode(text, limits),
            Self::V1 => v1::decode(text, limits, random),
        }
    }

    /// Returns the frame that says `message`, if the dialect has one. Takes the payload's own text where that is the frame's.
    pub(crate) fn into_frame(self, message: OutboundMessage) -> Option<Frame> {
        let message = match (self, message) {
            (Self::Plain, OutboundMessage::Data { from: None, payload }) => {
                return Some(Frame::Text(payload.into_text()));
            }
            (_, message) => message,
        };
        let mut text = String::new();
        if let OutboundMessage::Data { payload, .. } = &message {
            text.reserve(payload.as_str().len() + ENVELOPE);
        }
        match self.encode(&message, &mut text) {
            Encoded::Nothing => None,
            Encoded::Text => Some(Frame::Text(text)),
            Encoded::Close(reason) => Some(Frame::Close(reason)),
        }
    }

    /// Appends the text of the frame that says `message`, if it is said in a text frame.
    pub fn encode(self, message: &OutboundMessage, out: &mut String) -> Encoded {
        match self {
            Self::Plain => plain::encode(message, out),
            Self::V1 => v1::encode(message, out),
        }
    }
}
