//! The dialect `sigver.v1`: acknowledgements, leave notices, errors. Payloads are inside `data` and passed on unchanged.
//!
//! A message that is invalid in every state closes its sender here. The hub refuses what is invalid in the sender's state.

use alloc::string::String;
use core::fmt::Write;

use crate::{
    frame::Frame,
    ice::IceServers,
    id::PeerId,
    limits::Limits,
    message::{Addressee, AllowedRoles, InboundMessage, OutboundMessage, PresentJoiner},
    payload::Payload,
    reason::{CloseReason, Member, Refusal},
    wire::scan::{self, Members},
};

/// The most bytes that the envelope of data adds to a payload: `{"type":"data","index":4294967295,"data":}` or less.
const ENVELOPE: usize = 48;

/// The members that this dialect reads. Each may occur once.
const MEMBERS: &[Member] = Member::ALL;

pub(super) fn decode(text: &str, limits: &Limits) -> Result<InboundMessage, CloseReason> {
    let members = scan::object(text, limits, MEMBERS)?;
    match members.message_type.and_then(scan::string).as_deref() {
        Some("open") => match members.key {
            Some(key) => Ok(InboundMessage::Open {
                key: scan::key(key, limits)?,
                id: scan::id(members.id)?,
                token: scan::token(members.token)?,
                new_token: None,
            }),
            None => {
                // Nobody has a generated key, so the token is ignored.
                scan::token(members.token)?;
                Ok(InboundMessage::OpenGenerated {
                    id: scan::id(members.id)?,
                })
            }
        },
        Some("join") => Ok(InboundMessage::Join {
            key: scan::key(members.key.ok_or(CloseReason::KeyMissing)?, limits)?,
            id: scan::id(members.id)?,
            wait: scan::wait(members.wait, limits)?,
        }),
        Some("meet") => Ok(InboundMessage::Meet {
            key: scan::key(members.key.ok_or(CloseReason::KeyMissing)?, limits)?,
            id: scan::id(members.id)?,
            token: scan::token(members.token)?,
            new_token: None,
            allowed: AllowedRoles::BOTH,
        }),
        Some("send") => send(&members),
        Some("kick") => match scan::addressee(members.index) {
            Addressee::Index(index) => Ok(InboundMessage::Kick { index: Some(index) }),
            Addressee::OutOfRange => Ok(InboundMessage::Kick { index: None }),
            Addressee::Unnamed => Err(CloseReason::IndexMissing),
            Addressee::Malformed => Err(CloseReason::IndexMalformed),
        },
        Some("leave") => Ok(InboundMessage::Leave),
        Some("close") => Ok(InboundMessage::CloseKey),
        Some("ping") => Ok(InboundMessage::Ping),
        Some(_) | None => Err(CloseReason::UnknownMessage),
    }
}

pub(super) fn encode(message: OutboundMessage, mut ice: impl FnMut() -> Option<IceServers>) -> Option<Frame> {
    let mut text = String::new();
    if let OutboundMessage::Data { payload, .. } = &message {
        text.reserve(payload.as_str().len() + ENVELOPE);
    }
    let out = &mut text;
    // Writing to a `String` does not fail.
    let _ = match message {
        OutboundMessage::Opened { key, token, joiners } => {
            out.push_str(r#"{"type":"opened","key":"#);
            scan::quote(key.as_str(), out);
            if let Some(token) = token {
                out.push_str(r#","token":"#);
                scan::quote(token.as_str(), out);
            }
            write_joiners(&joiners, ice, out);
            out.write_char('}')
        }
        OutboundMessage::Waiting { key, wait } => {
            out.push_str(r#"{"type":"waiting","key":"#);
            scan::quote(key.as_str(), out);
            write!(out, r#","wait":{}}}"#, wait.as_secs())
        }
        OutboundMessage::Joined { index, id } => {
            let _ = write!(out, r#"{{"type":"joined","index":{index}"#);
            write_id(id.as_ref(), out);
            write_ice(ice(), out);
            out.write_char('}')
        }
        OutboundMessage::PeerJoined { index, id } => {
            let _ = write!(out, r#"{{"type":"join","index":{index}"#);
            write_id(id.as_ref(), out);
            write_ice(ice(), out);
            out.write_char('}')
        }
        OutboundMessage::PeerLeft { index } => write!(out, r#"{{"type":"leave","index":{index}}}"#),
        OutboundMessage::Data { from, payload } => {
            out.push_str(r#"{"type":"data","#);
            let _ = from.map(|index| write!(out, r#""index":{index},"#));
            out.push_str(r#""data":"#);
            out.push_str(payload.as_str());
            out.write_char('}')
        }
        OutboundMessage::Reopened { id } => {
            out.push_str(r#"{"type":"reopened""#);
            write_id(id.as_ref(), out);
            out.write_char('}')
        }
        OutboundMessage::Refused(refusal) => write_error(&refusal, out),
        OutboundMessage::RoleEnded(end) => write!(out, r#"{{"type":"closed","code":"{}"}}"#, end.name()),
        OutboundMessage::Pong => out.write_str(r#"{"type":"pong"}"#),
        OutboundMessage::Close(reason) => return Some(Frame::Close(reason)),
    };
    Some(Frame::Text(text))
}

fn send(members: &Members<'_>) -> Result<InboundMessage, CloseReason> {
    let data = members.data.ok_or(CloseReason::DataMissing)?;
    let to = scan::addressee(members.index);
    if to == Addressee::Malformed {
        return Err(CloseReason::IndexMalformed);
    }
    let payload = Payload::with_spot(data, scan::place_for_index(data));
    Ok(InboundMessage::Data {
        to,
        kind: payload.kind(),
        payload,
    })
}

fn write_joiners(joiners: &[PresentJoiner], mut ice: impl FnMut() -> Option<IceServers>, out: &mut String) {
    let mut lead = r#","joiners":["#;
    for PresentJoiner { index, id } in joiners {
        out.push_str(lead);
        let _ = write!(out, r#"{{"index":{index}"#);
        write_id(id.as_ref(), out);
        write_ice(ice(), out);
        out.push('}');
        lead = ",";
    }
    if !joiners.is_empty() {
        out.push(']');
    }
}

fn write_id(id: Option<&PeerId>, out: &mut String) {
    if let Some(id) = id {
        out.push_str(r#","id":"#);
        scan::quote(id.as_str(), out);
    }
}

fn write_ice(ice: Option<IceServers>, out: &mut String) {
    let Some(IceServers { servers, ttl }) = ice.filter(|ice| !ice.servers.is_empty()) else {
        return;
    };
    let mut lead = r#","ice":{"servers":[{"urls":["#;
    for server in &servers {
        out.push_str(lead);
        for (number, url) in server.urls.iter().enumerate() {
            out.push_str(if number == 0 { "" } else { "," });
            scan::quote(url, out);
        }
        out.push(']');
        for (member, value) in [("username", &server.username), ("credential", &server.credential)] {
            if let Some(value) = value {
                let _ = write!(out, r#","{member}":"#);
                scan::quote(value, out);
            }
        }
        out.push('}');
        lead = r#",{"urls":["#;
    }
    out.push(']');
    if let Some(ttl) = ttl {
        let _ = write!(out, r#","ttl":{}"#, ttl.as_secs());
    }
    out.push('}');
}

fn write_error(refusal: &Refusal, out: &mut String) -> core::fmt::Result {
    write!(
        out,
        r#"{{"type":"error","code":"{}","message":"{refusal}""#,
        refusal.name()
    )?;
    match refusal {
        Refusal::KeyTaken { key }
        | Refusal::UnknownKey { key }
        | Refusal::TooManyJoiners { key }
        | Refusal::TooManyAttempts { key }
        | Refusal::NotAllowed { key: Some(key) } => {
            out.push_str(r#","key":"#);
            scan::quote(key.as_str(), out);
        }
        Refusal::UnknownIndex { index: Some(index) } | Refusal::NotAnObject { index: Some(index) } => {
            write!(out, r#","index":{index}"#)?;
        }
        Refusal::NotAllowed { key: None }
        | Refusal::HasRole
        | Refusal::NoRole
        | Refusal::WrongRole
        | Refusal::NoIndex
        | Refusal::UnknownIndex { index: None }
        | Refusal::NotAnObject { index: None } => {}
    }
    out.write_char('}')
}
