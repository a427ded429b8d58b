//! Owns the plain dialect, both ways. Never re-serialises a payload and never acknowledges.

use alloc::string::String;

use super::{
    Encoded, Payload,
    payload::Spot,
    scan::{self, Members},
};
use crate::{CloseReason, InboundMessage, Limits, Member, OutboundMessage, Shape};

/// The members that this dialect reads. Each may be there once.
const MEMBERS: &[Member] = &[Member::Type, Member::Key, Member::Index];

pub(super) fn decode(text: &str, limits: &Limits) -> Result<InboundMessage, CloseReason> {
    let members = scan::object(text, limits, MEMBERS)?;
    let (to, shape) = (scan::addressee(members.index), Shape::Object);
    if let (Some(kind), Some(key)) = (members.kind, members.key) {
        return match scan::string(kind).as_deref() {
            Some("open") => Ok(InboundMessage::Open {
                key: scan::key(key, limits)?,
            }),
            Some("join") => Ok(InboundMessage::Join {
                key: scan::key(key, limits)?,
            }),
            Some(_) | None => Ok(InboundMessage::Lookalike {
                to,
                shape,
                payload: payload(text, &members),
            }),
        };
    }
    Ok(InboundMessage::Data {
        to,
        shape,
        payload: payload(text, &members),
    })
}

pub(super) fn encode(message: &OutboundMessage, out: &mut String) -> Encoded {
    match message {
        OutboundMessage::Opened { .. }
        | OutboundMessage::Joined { .. }
        | OutboundMessage::PeerLeft { .. }
        | OutboundMessage::Refused(_)
        | OutboundMessage::RoleEnded(_) => Encoded::Nothing,
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

fn payload(text: &str, members: &Members<'_>) -> Payload {
    Payload::new(text, Spot::within(text, members.index, members.last))
}
