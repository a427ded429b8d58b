//! Strategies for frames of clients and messages of the hub.

use core::time::Duration;

use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::Value;
use sigver_core::{
    IceServer, IceServers, Index, Key, Limits, OutboundMessage, Payload, PeerId, PresentJoiner, Refusal, RoleEnd, Token,
};

use crate::{ENDS, Role};

/// Small JSON values, without numbers that `serde_json` writes differently from how it read them.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e9..1e9)
            .prop_filter("1.0 is an integer but not an index", |number: &f64| number.fract()
                != 0.0)
            .prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let name = prop_oneof![4 => any::<String>(), 1 => select(NAMES).prop_map(str::to_owned)];
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            vec((name, inner), 0..3).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

const NAMES: &[&str] = &["type", "key", "index", "data", "id", "wait", "token", "code", "Type"];

/// Frames from a client, most of them almost valid.
pub(crate) fn frames() -> impl Strategy<Value = Value> {
    const TYPES: &[&str] = &[
        "open", "join", "meet", "send", "kick", "close", "leave", "ping", "opened", "waiting", "joined", "data",
        "closed", "error", "pong", "Open", "offer", "",
    ];
    const NEAR: &[&str] = &[
        "00",
        "-1",
        "+1",
        " 0",
        "0 ",
        "0\n",
        "",
        "1.0",
        "1e0",
        "0x1",
        "١",
        "18446744073709551616",
    ];
    let kind = prop_oneof![8 => select(TYPES).prop_map(Value::from), 1 => values()];
    let key = prop_oneof![
        8 => keys().prop_map(|key| Value::from(key.as_str())),
        // Over the limit in characters, and so in bytes. A schema cannot detect keys that are over it only in bytes.
        1 => (255..259_usize).prop_map(|length| Value::from("k".repeat(length))),
        1 => Just(Value::from("")),
        1 => values(),
    ];
    let id = || {
        prop_oneof![
            8 => ids().prop_map(|id| Value::from(id.as_str())),
            1 => select(&["", "i"]).prop_map(|id| Value::from(id.repeat(65))),
            1 => values().prop_filter("a schema cannot count bytes", |id| !id.as_str().is_some_and(is_too_long_in_bytes_only)),
        ]
    };
    let wait = prop_oneof![
        4 => any::<u64>().prop_map(Value::from),
        1 => select(NEAR).prop_map(Value::from),
        1 => Just(Value::from(-1)),
        1 => values(),
    ];
    let index = prop_oneof![
        4 => (0..3_u32).prop_map(Value::from),
        2 => any::<u64>().prop_map(Value::from),
        2 => any::<u64>().prop_map(|number| Value::from(number.to_string())),
        2 => select(NEAR).prop_map(Value::from),
        1 => Just(Value::from(-1)),
        1 => values(),
    ];
    let members = (
        option::weighted(0.9, kind),
        option::of(key),
        option::of(index),
        option::of(id()),
        option::of(id()),
        option::of(wait),
        option::of(values()),
        vec((any::<String>(), values()), 0..2),
    );
    let object = members.prop_map(|(kind, key, index, id, token, wait, data, others)| {
        let named = [
            ("type", kind),
            ("key", key),
            ("index", index),
            ("id", id),
            ("token", token),
            ("wait", wait),
            ("data", data),
        ];
        let named = named
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(others.into_iter().chain(named).collect())
    });
    prop_oneof![16 => object, 1 => values()]
}

/// Whether an id is over the limit, but not in characters.
fn is_too_long_in_bytes_only(id: &str) -> bool {
    id.len() > 64 && id.chars().count() <= 64
}

/// Keys within the limits, with any characters.
fn keys() -> impl Strategy<Value = Key> {
    prop_oneof![
        any::<String>(),
        "[\"\\\\\u{0}-\u{1f}\u{7f}\u{2028}\u{feff}\u{10ffff}{}]{1,64}",
        Just("k".repeat(256)),
    ]
    .prop_filter_map("a key has 1 to 256 bytes", |text| {
        Key::new(&text, &Limits::default()).ok()
    })
}

/// Ids within the limit, with any characters.
fn ids() -> impl Strategy<Value = PeerId> {
    prop_oneof![
        any::<String>(),
        "[\"\\\\\u{0}-\u{1f}\u{7f}]{1,64}",
        Just("i".repeat(64))
    ]
    .prop_filter_map("an id has 1 to 64 bytes", |text| PeerId::new(&text).ok())
}

fn indexes() -> impl Strategy<Value = Index> {
    prop_oneof![Just(0), Just(u32::MAX - 1), 0..u32::MAX].prop_map(Index::new)
}

/// Returns the payload of a `send` with this `data`.
fn payload(data: &Value) -> Payload {
    Payload::new(&data.to_string(), &Limits::default()).expect("a JSON value")
}

/// ICE servers with any text.
pub(crate) fn ice() -> impl Strategy<Value = IceServers> {
    let text = || any::<String>();
    let server = (vec(text(), 0..3), option::of(text()), option::of(text()));
    let server = server.prop_map(|(urls, username, credential)| IceServer {
        urls,
        username,
        credential,
    });
    (vec(server, 0..3), option::of(0..1_000_000_u64)).prop_map(|(servers, seconds)| IceServers {
        servers,
        ttl: seconds.map(Duration::from_secs),
    })
}

/// Every message from the hub to a client except `Close`, which is not a text, with the role of the client.
pub(crate) fn outbound() -> impl Strategy<Value = (Role, OutboundMessage)> {
    let refusal = prop_oneof![
        keys().prop_map(|key| Refusal::KeyTaken { key }),
        keys().prop_map(|key| Refusal::UnknownKey { key }),
        keys().prop_map(|key| Refusal::TooManyJoiners { key }),
        keys().prop_map(|key| Refusal::TooManyAttempts { key }),
        option::of(keys()).prop_map(|key| Refusal::NotAllowed { key }),
        Just(Refusal::HasRole),
        Just(Refusal::NoRole),
        Just(Refusal::WrongRole),
        Just(Refusal::NoIndex),
        option::of(indexes()).prop_map(|index| Refusal::UnknownIndex { index }),
        option::of(indexes()).prop_map(|index| Refusal::NotAnObject { index }),
    ];
    prop_oneof![
        (keys(), any::<u128>(), vec((indexes(), option::of(ids())), 0..3)).prop_map(|(key, bits, joiners)| {
            let joiner = |(index, id)| PresentJoiner { index, id };
            let opened = OutboundMessage::Opened {
                key,
                token: Some(Token::from_random(bits)),
                joiners: joiners.into_iter().map(joiner).collect(),
            };
            (Role::Opener, opened)
        }),
        option::of(ids()).prop_map(|id| (Role::Joiner, OutboundMessage::Reopened { id })),
        (keys(), 1..=120_u64).prop_map(|(key, seconds)| {
            let wait = Duration::from_secs(seconds);
            (Role::Waiting, OutboundMessage::Waiting { key, wait })
        }),
        (indexes(), option::of(ids())).prop_map(|(index, id)| (Role::Joiner, OutboundMessage::Joined { index, id })),
        (indexes(), option::of(ids()))
            .prop_map(|(index, id)| (Role::Opener, OutboundMessage::PeerJoined { index, id })),
        indexes().prop_map(|index| (Role::Opener, OutboundMessage::PeerLeft { index })),
        (option::of(indexes()), prop_oneof![values(), frames()]).prop_map(|(from, data)| {
            let role = from.map_or(Role::Joiner, |_| Role::Opener);
            let payload = payload(&data);
            (role, OutboundMessage::Data { from, payload })
        }),
        (select(&Role::ALL[..]), refusal).prop_map(|(role, refusal)| (role, OutboundMessage::Refused(refusal))),
        (select(ENDS), select(&[Role::Opener, Role::Joiner][..])).prop_map(|(end, role)| {
            let role = match end {
                RoleEnd::OpenerLeft | RoleEnd::Kicked => Role::Joiner,
                RoleEnd::TakenOver => Role::Opener,
                RoleEnd::TokenExpired => role,
            };
            (role, OutboundMessage::RoleEnded(end))
        }),
        select(&Role::ALL[..]).prop_map(|role| (role, OutboundMessage::Pong)),
    ]
}
