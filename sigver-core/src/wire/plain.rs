//! The plain dialect: no acknowledgements, errors are close codes. Payloads are passed on unchanged.

use alloc::string::String;

use crate::{
    frame::Frame,
    limits::Limits,
    message::{InboundMessage, OutboundMessage},
    payload::{Payload, Spot},
    profile::PayloadKind,
    reason::{CloseReason, Member},
    wire::scan::{self, Members},
};

/// The members that this dialect reads. Each may occur once.
const MEMBERS: &[Member] = &[Member::Type, Member::Key, Member::Index];

pub(super) fn decode(text: &str, limits: &Limits) -> Result<InboundMessage, CloseReason> {
    let members = scan::object(text, limits, MEMBERS)?;
    let (to, kind) = (scan::addressee(members.index), PayloadKind::Object);
    if let (Some(message_type), Some(key)) = (members.message_type, members.key) {
        return match scan::string(message_type).as_deref() {
            Some("open") => Ok(InboundMessage::Open {
                key: scan::key(key, limits)?,
                id: None,
                token: None,
                new_token: None,
            }),
            Some("join") => Ok(InboundMessage::Join {
                key: scan::key(key, limits)?,
                id: None,
                wait: limits.plain_join_grace,
            }),
            Some(_) | None => Ok(InboundMessage::UnknownControl {
                to,
                kind,
                payload: payload(text, &members),
            }),
        };
    }
    Ok(InboundMessage::Data {
        to,
        kind,
        payload: payload(text, &members),
    })
}

pub(super) fn encode(message: OutboundMessage) -> Option<Frame> {
    match message {
        OutboundMessage::Opened { .. }
        | OutboundMessage::Waiting { .. }
        | OutboundMessage::Joined { .. }
        | OutboundMessage::PeerLeft { .. }
        | OutboundMessage::Reopened { .. }
        | OutboundMessage::Refused(_)
        | OutboundMessage::RoleEnded(_)
        | OutboundMessage::Pong => None,
        OutboundMessage::PeerJoined { .. } => Some(Frame::Text(r#"{"type":"join"}"#.into())),
        OutboundMessage::Data { from: None, payload } => Some(Frame::Text(payload.into_string())),
        OutboundMessage::Data {
            from: Some(index),
            payload,
        } => {
            let mut text = String::new();
            payload.splice(index, &mut text);
            Some(Frame::Text(text))
        }
        OutboundMessage::Close(reason) => Some(Frame::Close(reason)),
    }
}

fn payload(text: &str, members: &Members<'_>) -> Payload {
    Payload::with_spot(text, Spot::within(text, members.index, members.last))
}
