//! Owns how messages look as text. One file for each dialect; they share the one reader of JSON (`scan`) and what is carried
//! ([`Payload`]). Never knows who has which role: what only a role can decide is reported to the [`Hub`](crate::Hub), which decides.

mod payload;
pub mod plain;
mod scan;

pub use payload::Payload;

use crate::CloseReason;

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
