//! Owns the dialect `sigver.v1`, both ways: a closed vocabulary in which what is carried is always inside `data`. Never re-serialises
//! a payload.
//!
//! What is wrong with a frame by itself closes its sender; what only the state makes wrong is for the hub to refuse.

use alloc::string::String;
use core::fmt::Write;

use super::{
    Encoded, Payload,
    scan::{self, Members},
};
use crate::{Addressee, CloseReason, InboundMessage, Index, Key, Limits, Member, OutboundMessage, Refusal};

/// The members that this dialect reads. Each may be there once.
const MEMBERS: &[Member] = &[Member::Type, Member::Key, Member::Index, Member::Data];

pub(super) fn decode(
    text: &str,
    limits: &Limits,
    random: impl FnOnce() -> Option<u128>,
) -> Result<InboundMessage, CloseReason> {
    let members = scan::object(text, limits, MEMBERS)?;
    match members.kind.and_then(scan::string).as_deref() {
        Some("open") => Ok(InboundMessage::Open {
            key: match members.key {
                Some(key) => scan::key(key, limits)?,
                None => Key::from_random(random().ok_or(CloseReason::Internal)?, limits)?,
            },
        }),
        Some("join") => Ok(InboundMessage::Join {
            key: scan::key(members.key.ok_or(CloseReason::KeyMissing)?, limits)?,
        }),
        Some("send") => send(&members),
        Some("kick") => match scan::addressee(members.index) {
            Addressee::Index(index) => Ok(InboundMessage::Kick { index }),
            Addressee::Unnamed => Err(CloseReason::IndexMissing),
            Addressee::Malformed => Err(CloseReason::IndexMalformed),
        },
        Some("leave") => Ok(InboundMessage::Leave),
        Some("close") => Ok(InboundMessage::CloseKey),
        Some(_) | None => Err(CloseReason::UnknownMessage),
    }
}

pub(super) fn encode(message: &OutboundMessage, out: &mut String) -> Encoded {
    // Writing to a `String` does not fail.
    let _ = match message {
        OutboundMessage::Opened { key } => {
            out.push_str(r#"{"type":"opened","key":"#);
            scan::quote(key.as_str(), out);
            out.write_char('}')
        }
        OutboundMessage::Joined { index } => write!(out, r#"{{"type":"joined","index":{index}}}"#),
        OutboundMessage::PeerJoined { index } => write!(out, r#"{{"type":"join","index":{index}}}"#),
        OutboundMessage::PeerLeft { index } => write!(out, r#"{{"type":"leave","index":{index}}}"#),
        OutboundMessage::Data { from, payload } => {
            out.push_str(r#"{"type":"data","#);
            let _ = from.map(|index| write!(out, r#""index":{index},"#));
            out.push_str(r#""data":"#);
            out.push_str(payload.as_str());
            out.write_char('}')
        }
        OutboundMessage::Refused(refusal) => refused(refusal, out),
        OutboundMessage::RoleEnded(end) => write!(out, r#"{{"type":"closed","code":"{}"}}"#, end.code()),
        OutboundMessage::Close(reason) => return Encoded::Close(*reason),
    };
    Encoded::Text
}

fn send(members: &Members<'_>) -> Result<InboundMessage, CloseReason> {
    let data = members.data.ok_or(CloseReason::DataMissing)?;
    let to = scan::addressee(members.index);
    if to == Addressee::Malformed {
        return Err(CloseReason::IndexMalformed);
    }
    // Also where an index is named: a joiner may do so, and only the hub knows that it is one.
    let payload = Payload::new(data, scan::place_for_index(data));
    Ok(InboundMessage::Data {
        to,
        shape: payload.shape(),
        payload,
    })
}

fn refused(refusal: &Refusal, out: &mut String) -> core::fmt::Result {
    write!(
        out,
        r#"{{"type":"error","code":"{}","message":"{refusal}""#,
        refusal.code()
    )?;
    match refusal {
        Refusal::KeyTaken { key } | Refusal::UnknownKey { key } | Refusal::TooManyJoiners { key } => {
            out.push_str(r#","key":"#);
            scan::quote(key.as_str(), out);
        }
        Refusal::UnknownIndex { index } | Refusal::NotAnObject { index: Some(index) } => {
            // A number that is too large for an index is not what the client wrote.
            if *index != Index::NOBODY {
                write!(out, r#","index":{index}"#)?;
            }
        }
        Refusal::HasRole
        | Refusal::NoRole
        | Refusal::WrongRole
        | Refusal::NoIndex
        | Refusal::NotAnObject { index: None } => {}
    }
    out.write_char('}')
}
