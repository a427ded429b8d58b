//! Owns the plain dialect: what a client written from the original page of 2016 says and expects (subprotocol `sigver.plain`, or
//! none). Never re-serialises a payload and never acknowledges.
//!
//! The project's `PROTOCOL.md` defines it; the transcripts show it.

use alloc::string::String;

use super::{
    Encoded, Payload,
    payload::Lead,
    scan::{self, Members},
};
use crate::{Addressee, CloseReason, InboundMessage, Index, Key, Limits, OutboundMessage};

/// The WebSocket subprotocol that names this dialect (RFC 6455 section 1.9).
pub const SUBPROTOCOL: &str = "sigver.plain";

/// Reads the text of one frame.
///
/// # Errors
///
/// The reason to close its sender with: [`CloseReason::TooBig`], or one of those with code 1007.
pub fn decode(text: &str, limits: &Limits) -> Result<InboundMessage, CloseReason> {
    let members = scan::object(text, limits)?;
    if let (Some(kind), Some(key)) = (members.kind, members.key) {
        let kind = scan::string(kind);
        let parse_key = || {
            let key = scan::string(key).ok_or(CloseReason::KeyNotString)?;
            Key::new(&key, limits)
        };
        return match kind.as_deref() {
            Some("open") => Ok(InboundMessage::Open { key: parse_key()? }),
            Some("join") => Ok(InboundMessage::Join { key: parse_key()? }),
            Some(_) | None => Ok(InboundMessage::Lookalike {
                to: addressee(members.index),
                payload: payload(text, &members),
            }),
        };
    }
    Ok(InboundMessage::Data {
        to: addressee(members.index),
        payload: payload(text, &members),
    })
}

/// Appends the text of the frame that says `message`, if it is said in a text frame.
pub fn encode(message: &OutboundMessage, out: &mut String) -> Encoded {
    match message {
        OutboundMessage::Opened { .. } | OutboundMessage::Joined { .. } | OutboundMessage::PeerLeft { .. } => {
            Encoded::Nothing
        }
        OutboundMessage::PeerJoined { .. } => {
            out.push_str(r#"{"type":"join"}"#);
            Encoded::Text
        }
        OutboundMessage::Data { from, payload } => {
            match from {
                Some(index) => payload.splice(*index, out),
                None => out.push_str(payload.as_str()),
            }
            Encoded::Text
        }
        OutboundMessage::Close(reason) => Encoded::Close(*reason),
    }
}

/// Reads the raw JSON value of `index`: an integer, or a string that is one, as `0|[1-9][0-9]*`.
fn addressee(value: Option<&str>) -> Addressee {
    let Some(value) = value else {
        return Addressee::Unnamed;
    };
    let text = scan::string(value);
    let digits = text.as_deref().unwrap_or(value);
    match digits.as_bytes() {
        [b'0'] | [b'1'..=b'9', ..] if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            // Digits alone fail to parse only when the number is too large to have been assigned.
            Addressee::Index(digits.parse().map_or(Index::NOBODY, Index::new))
        }
        _ => Addressee::Malformed,
    }
}

fn payload(text: &str, members: &Members<'_>) -> Payload {
    let (spot, lead) = match (members.index, members.last) {
        (Some(index), _) => (scan::place(text, index), Lead::Value),
        (None, Some(last)) => {
            let end = scan::place(text, last).end;
            (end..end, Lead::NextMember)
        }
        // Only white space can come before the brace of an object without members.
        (None, None) => {
            let inside = text.find('{').map_or(0, |brace| brace + 1);
            (inside..inside, Lead::FirstMember)
        }
    };
    Payload::new(text, spot, lead)
}
