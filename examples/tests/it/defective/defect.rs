//! Defects of servers: the known defects of the original sigver that clients can observe, and others. This module implements their
//! effects on messages; the parent and `world` implement those on connections.
//!
//! Some defects of the original are not here because clients cannot observe them, or only after minutes: it never removes joiners that left,
//! each open and join scans all sockets, and it sends no pings. That an open is not acknowledged and that `{"type":"join"}` has no index are
//! properties of the plain dialect; [`Defect::OnlyPlain`] covers them.

use serde_json::{Map, Value, json};
use sigver_core::Dialect;

/// A defect of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    /// No defect.
    None,
    /// A text that is not JSON crashes the process.
    BrokenJsonKills,
    /// A JSON value that is not an object crashes the process.
    NonObjectKills,
    /// A member `hasOwnProperty` crashes the process.
    HasOwnPropertyKills,
    /// An `index` from a socket without a role crashes the process.
    IndexWithoutRoleKills,
    /// An index that is invalid or was never assigned crashes the process.
    IndexOfNobodyKills,
    /// Data to a joiner that has left crashes the process.
    AnswerToGoneKills,
    /// A join while the opener is closing crashes the process. The key is freed only when the connection is closed.
    JoinWhileClosingKills,
    /// Invalid frames, invalid UTF-8 and messages over the limit crash the process.
    BrokenFramesKill,
    /// The index of a joiner is its opener's position in the list of all connections.
    IndexIsThePlaceOfTheOpener,
    /// The index is written as a string.
    IndexAsString,
    /// Joiners are not notified that their opener has left.
    OpenerLeavesInSilence,
    /// A second opener of a key is refused, but receives its joins.
    RefusedOpenerTakesTheKey,
    /// A second open drops the first key and its joiners without notice.
    SecondOpenOrphansTheFirst,
    /// A socket with a role can also join, even its own key.
    RolesAddUp,
    /// A joiner's data with a `type` and a `key` is rejected as an invalid open or join.
    DataIsTakenForControl,
    /// An array from a joiner is relayed, without an index.
    ArrayIsRelayed,
    /// A joiner's data is parsed and serialized again, so its bytes change.
    WrittenAgain,
    /// Any JSON value of any length is accepted as a key.
    AnyKey,
    /// There is no limit on the length of a message.
    NoSizeLimit,
    /// The handshake accepts compression.
    Compresses,
    /// Only the plain dialect is supported.
    OnlyPlain,
    /// An `index` written by a joiner is relayed unchanged.
    JoinerForgesIndex,
    /// Request heads have no timeout.
    HeadsTakeForEver,
    /// A slow consumer blocks all other clients.
    WaitsForReaders,
    /// `sigver.v1` has no ping, meet, wait, id and token, no key is reserved, and a plain join of an unknown key is refused at once.
    WithoutAdditions,
    /// A pong is sent before the replies to earlier requests.
    PongOvertakes,
    /// An invalid id counts as none.
    InvalidIdIsIgnored,
    /// An id reaches no peer.
    IdReachesNobody,
    /// A wait has no limit.
    WaitIsNotCut,
    /// A client that sends `leave` while it waits joins nevertheless.
    LeaveDoesNotEndWait,
    /// The last client to wait for a key is the first to join it.
    WaitersJoinInReverse,
    /// A meet is refused if the key is open.
    MeetOnlyOpens,
    /// A meet is an open or a join, so a key that was opened by it is reserved.
    MeetIsOpenOrJoin,
    /// Every token is valid.
    AnyTokenTakesOver,
    /// A token that a takeover has replaced is still valid.
    OldTokenTakesOver,
    /// Joiners and the previous connection are not notified of a takeover.
    TakeoverInSilence,
    /// `opened` lists no joiners after a takeover.
    TakeoverListsNobody,
    /// The key of an opener that is lost is free at once.
    LostKeyIsFree,
    /// The key of an opener that sends a close frame is reserved as if it were lost.
    ClosedKeyIsReserved,
    /// A plain join of an unknown key is refused at once.
    NoGrace,
    /// A plain join of an unknown key is refused as soon as the client sends something else.
    ReadsDuringGrace,
}

/// The role of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Nothing,
    /// With the number of joins so far.
    Opener(u32),
    /// With the socket of its opener, and its index.
    Joiner(u64, u32),
}

/// The effect of a defect on a message.
pub(crate) enum Effect {
    /// The message is handled normally.
    Nothing,
    /// The process crashes.
    Kill,
    /// This message is handled in its place.
    Replace(String),
    /// The sender is closed with 1007.
    Close,
    /// The message is relayed unchanged to this socket, if it uses the plain dialect.
    Relay(u64),
}

impl Defect {
    /// Returns the effect of the defect on a message from a client.
    pub(crate) fn effect(self, text: &str, dialect: Dialect, role: Role) -> Effect {
        let value: Option<Value> = serde_json::from_str(text).ok();
        let none = Map::new();
        let members = value.as_ref().and_then(Value::as_object).unwrap_or(&none);
        let plain = dialect == Dialect::Plain;
        let has = |name: &str| members.contains_key(name);
        let kill = |kill| if kill { Effect::Kill } else { Effect::Nothing };
        match (self, role) {
            (Self::HasOwnPropertyKills, _) => kill(has("hasOwnProperty")),
            (Self::IndexWithoutRoleKills, Role::Nothing) => kill(plain && has("index") && !has("key")),
            (Self::DataIsTakenForControl, Role::Joiner(..)) if plain && has("type") && has("key") => {
                let control = [json!("open"), json!("join")].contains(&members["type"]);
                if control { Effect::Nothing } else { Effect::Close }
            }
            (Self::ArrayIsRelayed, Role::Joiner(opener, _)) if plain && value.as_ref().is_some_and(Value::is_array) => {
                Effect::Relay(opener)
            }
            (Self::JoinerForgesIndex, Role::Joiner(opener, _)) if plain && has("index") => Effect::Relay(opener),
            (Self::WrittenAgain, Role::Joiner(..)) => match value {
                Some(value) if value.is_object() => Effect::Replace(value.to_string()),
                Some(_) | None => Effect::Nothing,
            },
            (Self::AnyKey, _) => match (members.get("type").and_then(Value::as_str), members.get("key")) {
                (Some(verb @ ("open" | "join")), Some(key)) if key.as_str().is_none_or(str::is_empty) => {
                    Effect::Replace(json!({ "type": verb, "key": key.to_string() }).to_string())
                }
                _ => Effect::Nothing,
            },
            (Self::WithoutAdditions, _) if !plain => without_additions(members),
            (Self::InvalidIdIsIgnored, _) if !plain => {
                let is_valid = |id: &str| (1..=64).contains(&id.len());
                match members.get("id") {
                    Some(id) if !id.as_str().is_some_and(is_valid) => without(members, &["id"]),
                    Some(_) | None => Effect::Nothing,
                }
            }
            _ => Effect::Nothing,
        }
    }
}

fn without_additions(members: &Map<String, Value>) -> Effect {
    match members.get("type").and_then(Value::as_str) {
        Some("ping" | "meet") => Effect::Close,
        Some("open" | "join") => without(members, &["id", "token", "wait"]),
        _ => Effect::Nothing,
    }
}

/// Removes members from a message.
fn without(members: &Map<String, Value>, names: &[&str]) -> Effect {
    if !names.iter().any(|name| members.contains_key(*name)) {
        return Effect::Nothing;
    }
    let mut members = members.clone();
    members.retain(|name, _| !names.contains(&name.as_str()));
    Effect::Replace(Value::Object(members).to_string())
}
