//! The laws of the dialects, for random texts. The documentation of each law names mutations of the code that the law has detected.

use core::{num::IntErrorKind, ops::Range, time::Duration};
use std::collections::BTreeMap;

use proptest::{prelude::*, sample::Index as Pick};
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use sigver_core::{
    Addressee, CloseReason, Decoder, Dialect, Frame, InboundMessage, Index, Key, Limits, OutboundMessage, Payload,
    PayloadKind, PeerId, PresentJoiner, Refusal, RoleEnd, Token,
};

use crate::{
    json::{Object, Reading, reading, relayed},
    refusals::refusals,
    search::{SAMPLES, count, for_all, more_often_than, samples},
    texts::{frames, objects},
};

/// A payload is relayed to the byte. A plain joiner receives the same text, a plain opener the same text with one `index`, and a
/// `sigver.v1` peer the same text as `data`. The payload is the whole text of a plain sender, and the value of `data` of a `sigver.v1`
/// sender. Only a value without a place for one index is not relayed to a plain peer.
///
/// The protocol page does not define the white space around an added member. This checks the documentation of `Payload::splice`.
///
/// Detects a text that continues one byte late after the index, an index that comes first, trimmed white space around the object, and a
/// payload that is converted to `serde_json::Value`.
#[test]
fn payload_is_unchanged_in_every_dialect() {
    for_all((objects(), any::<u32>()), |(object, number)| {
        let text = object.text();
        let Some(towards_joiner) = relayed(Dialect::Plain, &text, Dialect::Plain, None) else {
            return;
        };
        assert_eq!(towards_joiner, text);
        let towards_opener = relayed(Dialect::Plain, &text, Dialect::Plain, Some(number));
        assert_eq!(towards_opener, Some(object.text_with_index(number)));
        assert_enveloped(Dialect::Plain, &text, &text, number);
    });
    for_all((frames(), any::<u32>()), |(frame, number)| {
        let text = frame.text();
        let Ok(InboundMessage::Data { to, kind, .. }) = Decoder::new(Dialect::V1, &Limits::default()).decode(&text)
        else {
            return;
        };
        let data = frame.data().expect("what is sent has data");
        assert_enveloped(Dialect::V1, &text, data, number);
        if kind == PayloadKind::Object {
            let towards_joiner = relayed(Dialect::V1, &text, Dialect::Plain, None);
            assert_eq!(towards_joiner.as_deref(), Some(data));
            if to == Addressee::Unnamed {
                let towards_opener = relayed(Dialect::V1, &text, Dialect::Plain, Some(number));
                assert_eq!(towards_opener, frame.data_with_index(number));
            }
        }
    });
}

/// Every text is a message, or is rejected with 1007 or 1009, without a panic. Every accepted payload can be relayed: the result is an
/// object with the index of the joiner and nothing else that is new.
///
/// Detects a lone surrogate that panics (`expect`), text after the object that is accepted, a comma in `{}`, and an index after the last
/// member that the server reads.
#[test]
fn every_text_is_decoded_or_rejected() {
    for_all(texts(), |text| {
        for dialect in Dialect::ALL {
            assert_is_decoded_or_rejected(*dialect, &text);
        }
    });
}

/// The decoder agrees with the meaning that is known from how a text was assembled, also at each limit, and with `serde_json` for texts
/// that its values can represent. The encoder agrees with `serde_json`.
///
/// Detects an index of any digits or one that is converted to a float, `"index":null` that is read as absent, escapes in `type`, `key` and
/// `index` that are not decoded, a repeated member, and every limit that is off by one.
#[test]
fn decoder_and_encoder_agree_with_other_implementations() {
    let texts = prop_oneof![objects(), frames()];
    for_all(
        (texts, any::<u32>(), [edge(), edge(), edge()]),
        |(object, number, edges)| {
            let text = object.text();
            for dialect in Dialect::ALL {
                for limits in [Limits::default(), limits_near(*dialect, &object, edges)] {
                    let read = Decoder::new(*dialect, &limits).decode(&text).map(reading);
                    assert_eq!(read, object.reading(*dialect, &limits), "{dialect:?}: {text}");
                }
            }

            let value = serde_json::from_str::<Value>(&text);
            let out = relayed(Dialect::Plain, &text, Dialect::Plain, Some(number));
            let (Ok(mut value), Some(out)) = (value, out) else {
                return;
            };
            if let Some(expected) = reading_of(&value, &text) {
                let read = Decoder::new(Dialect::Plain, &Limits::default())
                    .decode(&text)
                    .map(reading);
                assert_eq!(read, Ok(expected), "{text}");
            }
            value["index"] = number.into();
            assert_eq!(serde_json::from_str::<Value>(&out).ok(), Some(value), "{out}");
        },
    );
}

/// Every message of `sigver.v1` but a close is one JSON object with exactly the members in the protocol page, each once, with the right
/// values for any key.
///
/// Detects a key that is quoted without escapes, a misspelled name, and a cleared buffer.
#[test]
fn v1_messages_have_exactly_the_documented_members() {
    let indexes = prop_oneof![0..u32::MAX, Just(0), Just(u32::MAX - 1)];
    for_all((keys(), indexes, ids(), objects()), |(key, index, id, object)| {
        let text = object.text();
        let payload = || match Decoder::new(Dialect::Plain, &Limits::default()).decode(&text) {
            Ok(InboundMessage::Data { payload, .. } | InboundMessage::UnknownControl { payload, .. }) => Some(payload),
            Ok(_) | Err(_) => None,
        };
        for (message, expected) in outputs(&key, Index::new(index), &id, payload) {
            let is_data = matches!(message, OutboundMessage::Data { .. });
            let Some(Frame::Text(frame)) = Dialect::V1.encode(message) else {
                panic!("{expected:?} is text");
            };
            // Floats, and texts that a `Value` cannot represent, are checked by the law of payloads.
            let (Ok(actual), Some(expected)) = (serde_json::from_str::<Value>(&frame), expected.clone()) else {
                assert!(is_data, "{frame}");
                continue;
            };
            assert_eq!(actual, expected, "{frame}");
            if !is_data {
                assert_eq!(frame.len(), expected.to_string().len(), "a member comes twice: {frame}");
            }
        }
    });
}

/// The laws only cover texts that are generated. At least one of thirty is of each of these kinds.
#[test]
fn generated_texts_are_of_every_kind() {
    let mut seen = BTreeMap::new();
    for object in samples(&objects()) {
        let kind = match object.reading(Dialect::Plain, &Limits::default()) {
            Err(CloseReason::Duplicate(_)) => "a repeated member",
            Err(_) => "control with an invalid key",
            Ok(reading) => kind(&reading),
        };
        let by_value = match serde_json::from_str::<Value>(&object.text()) {
            Ok(_) => "within the range of a value",
            Err(_) => "beyond the range of a value",
        };
        let nesting = if object.depth() > 2 { "deep" } else { "flat" };
        count(&mut seen, [kind, by_value, nesting]);
    }
    let expected = [
        "a repeated member",
        "beyond the range of a value",
        "control",
        "control with an invalid key",
        "data",
        "data to a malformed index",
        "data to an index",
        "deep",
        "flat",
        "unknown control",
        "within the range of a value",
    ];
    assert_eq!(more_often_than(SAMPLES / 30, &seen), expected, "of {seen:?}");

    let mut seen = BTreeMap::new();
    for frame in samples(&frames()) {
        let kind = match frame.reading(Dialect::V1, &Limits::default()) {
            Err(CloseReason::Duplicate(_)) => "a repeated member",
            Err(CloseReason::UnknownMessage) => "an unknown message",
            Err(CloseReason::DataMissing) => "no data",
            Err(_) => "another malformed message",
            Ok(Reading::Data(Addressee::Unnamed, PayloadKind::Any, _)) => "data that is not an object",
            Ok(reading) => kind(&reading),
        };
        count(&mut seen, [kind]);
    }
    let expected = [
        "a repeated member",
        "an unknown message",
        "another malformed message",
        "control",
        "data",
        "data that is not an object",
        "data to an index",
        "no data",
    ];
    assert_eq!(more_often_than(SAMPLES / 30, &seen), expected, "of {seen:?}");
}

fn kind(reading: &Reading) -> &'static str {
    match reading {
        Reading::Open(_)
        | Reading::OpenGenerated(_)
        | Reading::Join(_)
        | Reading::Meet(_)
        | Reading::Kick(_)
        | Reading::Leave
        | Reading::CloseKey
        | Reading::Ping => "control",
        Reading::Data(Addressee::Unnamed, ..) => "data",
        Reading::Data(Addressee::Index(_) | Addressee::OutOfRange, ..) => "data to an index",
        Reading::Data(Addressee::Malformed, ..) => "data to a malformed index",
        Reading::UnknownControl(..) => "unknown control",
    }
}

/// Limits that a short text can reach.
fn tight() -> Limits {
    limits(8, 4, 1_000)
}

/// One more than the margin to a limit: 0 if the text is just over it.
fn edge() -> impl Strategy<Value = u32> {
    prop_oneof![1 => Just(0), 4 => Just(1), 4 => 2..100_u32]
}

/// Returns limits that `object` just reaches or just exceeds.
fn limits_near(dialect: Dialect, object: &Object, [key, depth, size]: [u32; 3]) -> Limits {
    let key_bytes = match object.reading(dialect, &Limits::default()) {
        Ok(Reading::Open(request) | Reading::Join(request) | Reading::Meet(request)) => request.key.len() as u32,
        Ok(_) | Err(_) => 1,
    };
    let message_bytes = object.text().len() as u32;
    limits(
        key_bytes + key - 1,
        object.depth() + depth - 1,
        message_bytes + size - 1,
    )
}

fn limits(key_bytes: u32, depth: u32, message_bytes: u32) -> Limits {
    let mut limits = Limits::default();
    limits.key_bytes = key_bytes;
    limits.depth = depth;
    limits.message_bytes = message_bytes;
    limits
}

/// Returns texts of every kind: valid texts, broken texts, JSON tokens in any order, and anything.
fn texts() -> impl Strategy<Value = String> {
    let edit = (any::<Pick>(), any::<Pick>(), "[\\[\\]{}\",:\\\\u0-9eE+ -]{0,2}");
    let broken = (prop_oneof![objects(), frames()], prop::collection::vec(edit, 0..4)).prop_map(|(object, edits)| {
        let mut text: Vec<char> = object.text().chars().collect();
        for (from, to, instead) in edits {
            let (from, to) = (from.index(text.len() + 1), to.index(text.len() + 1));
            let end = if to > from && to - from < 4 { to } else { from };
            text.splice(from..end, instead.chars());
        }
        text.into_iter().collect()
    });
    let words = [
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "\\",
        "\"type\":",
        "\"key\":",
        "\"index\":",
        "\"open\"",
        "\"send\"",
        "\"data\":",
        "0",
        "-",
        "1e9",
        "null",
        "\\ud800",
        " ",
        "\n",
        "{\"a\":",
        "é",
    ];
    let soup =
        |length| prop::collection::vec(prop::sample::select(words.to_vec()), length).prop_map(|words| words.concat());
    let followed = (objects(), soup(1..3)).prop_map(|(object, more)| object.text() + &more);
    prop_oneof![
        4 => broken,
        1 => followed,
        2 => soup(0..24),
        1 => any::<String>(),
    ]
}

/// Asserts that `sigver.v1` peers receive `data` for the `text` of a sender.
fn assert_enveloped(sender: Dialect, text: &str, data: &str, number: u32) {
    let towards_joiner = relayed(sender, text, Dialect::V1, None);
    assert_eq!(towards_joiner, Some(format!(r#"{{"type":"data","data":{data}}}"#)));
    let towards_opener = relayed(sender, text, Dialect::V1, Some(number));
    let expected = format!(r#"{{"type":"data","index":{number},"data":{data}}}"#);
    assert_eq!(towards_opener, Some(expected));
}

fn assert_is_decoded_or_rejected(dialect: Dialect, text: &str) {
    let message = Decoder::new(dialect, &tight()).decode(text);
    match message {
        Err(reason) => assert!(matches!(reason.code(), 1007 | 1009), "{reason:?}"),
        Ok(
            InboundMessage::Open { key, id, .. }
            | InboundMessage::Join { key, id, .. }
            | InboundMessage::Meet { key, id, .. },
        ) => {
            let id = id.as_ref().map_or("", PeerId::as_str);
            assert!([key.as_str(), id].iter().all(|one| text.contains(one)) || text.contains('\\'));
            assert!(
                id.is_empty() || dialect == Dialect::V1,
                "the plain dialect ignores `id`"
            );
        }
        Ok(InboundMessage::Data { to, kind, payload } | InboundMessage::UnknownControl { to, kind, payload }) => {
            let whole = serde_json::from_str::<IgnoredAny>(text);
            assert!(whole.is_ok(), "an accepted text is one JSON value");
            let data = serde_json::from_str::<IgnoredAny>(payload.as_str());
            assert!(
                data.is_ok() && text.contains(payload.as_str()),
                "a payload is one JSON value"
            );
            let goes_to_plain_openers = match dialect {
                Dialect::Plain => true,
                Dialect::V1 => kind == PayloadKind::Object && to == Addressee::Unnamed,
            };
            if !goes_to_plain_openers {
                return;
            }
            assert_eq!(
                relayed(dialect, text, Dialect::Plain, None).as_deref(),
                Some(payload.as_str())
            );
            let once = relayed(dialect, text, Dialect::Plain, Some(7)).expect("data is relayed");
            let again = match dialect {
                Dialect::Plain => {
                    assert_eq!(addressee(&once), Some(Addressee::Index(Index::new(7))));
                    once.clone()
                }
                // It may be a control message in the plain dialect.
                Dialect::V1 => format!(r#"{{"type":"send","data":{once}}}"#),
            };
            let again = relayed(dialect, &again, Dialect::Plain, Some(7));
            assert_eq!(again, Some(once), "an index is replaced, not added again");
        }
        Ok(
            InboundMessage::OpenGenerated { .. }
            | InboundMessage::Kick { .. }
            | InboundMessage::Leave
            | InboundMessage::CloseKey
            | InboundMessage::Ping,
        ) => {
            assert_eq!(dialect, Dialect::V1, "the plain dialect has no such message");
        }
        Ok(InboundMessage::NotAllowed { .. }) => panic!("no client can send it"),
    }
}

fn addressee(text: &str) -> Option<Addressee> {
    match Decoder::new(Dialect::Plain, &Limits::default()).decode(text) {
        Ok(InboundMessage::Data { to, .. } | InboundMessage::UnknownControl { to, .. }) => Some(to),
        Ok(_) | Err(_) => None,
    }
}

/// Returns the meaning of plain data, from a parsed value; `None` if the value lost it, because large integers are floats.
fn reading_of(value: &Value, text: &str) -> Option<Reading> {
    let to = match value.get("index") {
        None => Addressee::Unnamed,
        Some(Value::Number(number)) if number.as_f64()? >= u64::MAX as f64 => return None,
        Some(Value::Number(number)) => number.as_u64().map_or(Addressee::Malformed, index),
        Some(Value::String(text)) => match text.parse::<u64>() {
            Ok(number) if *text == number.to_string() => index(number),
            Err(error) if *error.kind() == IntErrorKind::PosOverflow => return None,
            Ok(_) | Err(_) => Addressee::Malformed,
        },
        Some(_) => Addressee::Malformed,
    };
    Some(match (value.get("type"), value.get("key")) {
        (Some(_), Some(_)) => Reading::UnknownControl(to, PayloadKind::Object, text.to_owned()),
        _ => Reading::Data(to, PayloadKind::Object, text.to_owned()),
    })
}

fn index(number: u64) -> Addressee {
    match u32::try_from(number) {
        Ok(u32::MAX) | Err(_) => Addressee::OutOfRange,
        Ok(number) => Addressee::Index(Index::new(number)),
    }
}

/// Returns keys of characters that JSON escapes, and of others.
fn keys() -> impl Strategy<Value = Key> {
    characters(1..64).prop_map(|text| Key::new(&text, &Limits::default()).expect("short enough for a key"))
}

/// Returns ids of the same characters.
fn ids() -> impl Strategy<Value = PeerId> {
    characters(1..16).prop_map(|text| PeerId::new(&text).expect("short enough for an id"))
}

fn characters(length: Range<usize>) -> impl Strategy<Value = String> {
    let character = prop_oneof![
        2 => any::<char>(),
        1 => prop::char::range('\0', '\u{a0}'),
        1 => prop::sample::select(&['"', '\\', '/', '\u{2028}', '\u{feff}', '🫖']),
    ];
    prop::collection::vec(character, length).prop_map(|characters| characters.into_iter().collect())
}

/// Returns every message of `sigver.v1`, and its content by the protocol page. Data is included if there is a payload; its content is
/// `None` if a value cannot represent it.
fn outputs(
    key: &Key,
    index: Index,
    id: &PeerId,
    payload: impl Fn() -> Option<Payload>,
) -> Vec<(OutboundMessage, Option<Value>)> {
    let (k, n) = (key.as_str(), index.get());
    let mut outputs = vec![
        (
            OutboundMessage::Opened {
                key: key.clone(),
                token: None,
                joiners: Vec::new(),
            },
            Some(json!({ "type": "opened", "key": k })),
        ),
        (
            OutboundMessage::Opened {
                key: key.clone(),
                token: Some(Token::from_random(n.into())),
                joiners: vec![
                    PresentJoiner { index, id: None },
                    PresentJoiner {
                        index,
                        id: Some(id.clone()),
                    },
                ],
            },
            Some(json!({
                "type": "opened",
                "key": k,
                "token": format!("{n:032x}"),
                "joiners": [{ "index": n }, { "index": n, "id": id.as_str() }],
            })),
        ),
        (
            OutboundMessage::Reopened { id: None },
            Some(json!({ "type": "reopened" })),
        ),
        (
            OutboundMessage::Reopened { id: Some(id.clone()) },
            Some(json!({ "type": "reopened", "id": id.as_str() })),
        ),
        (
            OutboundMessage::RoleEnded(RoleEnd::TakenOver),
            Some(json!({ "type": "closed", "code": "taken-over" })),
        ),
        (
            OutboundMessage::Waiting {
                key: key.clone(),
                wait: Duration::from_secs(n.into()),
            },
            Some(json!({ "type": "waiting", "key": k, "wait": n })),
        ),
        (
            OutboundMessage::Joined { index, id: None },
            Some(json!({ "type": "joined", "index": n })),
        ),
        (
            OutboundMessage::Joined {
                index,
                id: Some(id.clone()),
            },
            Some(json!({ "type": "joined", "index": n, "id": id.as_str() })),
        ),
        (
            OutboundMessage::PeerJoined { index, id: None },
            Some(json!({ "type": "join", "index": n })),
        ),
        (
            OutboundMessage::PeerJoined {
                index,
                id: Some(id.clone()),
            },
            Some(json!({ "type": "join", "index": n, "id": id.as_str() })),
        ),
        (
            OutboundMessage::PeerLeft { index },
            Some(json!({ "type": "leave", "index": n })),
        ),
        (
            OutboundMessage::RoleEnded(RoleEnd::OpenerLeft),
            Some(json!({ "type": "closed", "code": "opener-left" })),
        ),
        (
            OutboundMessage::RoleEnded(RoleEnd::Kicked),
            Some(json!({ "type": "closed", "code": "kicked" })),
        ),
        (OutboundMessage::Pong, Some(json!({ "type": "pong" }))),
    ];
    for refusal in refusals(key, index) {
        let mut error = json!({ "type": "error", "code": refusal.name(), "message": refusal.to_string() });
        match refusal {
            Refusal::KeyTaken { .. }
            | Refusal::UnknownKey { .. }
            | Refusal::TooManyJoiners { .. }
            | Refusal::TooManyAttempts { .. }
            | Refusal::NotAllowed { key: Some(_) } => {
                error["key"] = k.into();
            }
            Refusal::UnknownIndex { .. } | Refusal::NotAnObject { index: Some(_) } => {
                error["index"] = n.into();
            }
            _ => {}
        }
        outputs.push((OutboundMessage::Refused(refusal), Some(error)));
    }
    for from in [None, Some(index)] {
        if let Some(payload) = payload() {
            let data = serde_json::from_str::<Value>(payload.as_str());
            let expected = data.ok().map(|data| match from {
                None => json!({ "type": "data", "data": data }),
                Some(_) => json!({ "type": "data", "index": n, "data": data }),
            });
            outputs.push((OutboundMessage::Data { from, payload }, expected));
        }
    }
    outputs
}
