//! The laws of the dialects, each for any text that could be thought of. A law's doc says what it forbids, and by which breakage of
//! the code it was seen to fail.

use core::num::IntErrorKind;
use std::collections::BTreeMap;

use proptest::{prelude::*, sample::Index as Pick};
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use sigver_core::{
    Addressee, CloseReason, Decoder, Dialect, Frame, InboundMessage, Index, Key, Limits, OutboundMessage, Payload,
    PayloadKind, Refusal, RoleEnd,
};

use crate::{
    json::{Object, Reading, carried, reading},
    refusals::refusals,
    search::{SAMPLES, count, for_all, more_often_than, samples},
    texts::{frames, objects},
};

/// What crosses is what was sent, byte for byte: the same text towards a plain joiner; the same text and one `index` towards a plain
/// opener; the same text as the `data` of a frame towards either in `sigver.v1`. It is the whole frame of a plain sender, and the value
/// of `data` of one in `sigver.v1`, whatever JSON it is; only what has no place for one index does not go to a plain peer.
///
/// The protocol page leaves open where the white space around an added member goes; what is pinned here is what
/// `Payload::splice` promises.
///
/// Seen to fail when the text goes on one byte too late behind the spliced index, when the index comes first, when white space
/// around the object is trimmed, and when the payload goes through `serde_json::Value`.
#[test]
fn fidelity() {
    for_all((objects(), any::<u32>()), |(object, number)| {
        let text = object.text();
        let Some(towards_joiner) = carried(Dialect::Plain, &text, Dialect::Plain, None) else {
            return;
        };
        assert_eq!(towards_joiner, text);
        let towards_opener = carried(Dialect::Plain, &text, Dialect::Plain, Some(number));
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
            let towards_joiner = carried(Dialect::V1, &text, Dialect::Plain, None);
            assert_eq!(towards_joiner.as_deref(), Some(data));
            if to == Addressee::Unnamed {
                let towards_opener = carried(Dialect::V1, &text, Dialect::Plain, Some(number));
                assert_eq!(towards_opener, frame.data_with_index(number));
            }
        }
    });
}

/// Whatever the text is, it is a message, or a reason with one of the codes for texts, and never a panic; and every text that is
/// taken can be sent on: it comes out as an object that has the joiner's index and nothing else that is new.
///
/// Seen to fail when a lone surrogate is taken for impossible (`expect`), when text behind the object is let through, when `{}`
/// gets a comma, and when the index goes behind the last member that the server knows.
#[test]
fn total() {
    for_all(texts(), |text| {
        for dialect in Dialect::ALL {
            assert_is_taken_or_not(*dialect, &text);
        }
    });
}

/// What a text says to us is what it says by an independent reading, and what we say is what we meant by another's.
///
/// The first reading is known from how the text was made, and covers all of them, also where they just meet a limit; the second is
/// `serde_json`'s own, for those texts that its values can hold.
///
/// Seen to fail when an index may be any digits or goes through a float, when `"index":null` is taken for none, when escapes in
/// `type`, `key` and `index` are not decoded, when a member may come twice, and when any limit is off by one.
#[test]
fn codec() {
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
            let out = carried(Dialect::Plain, &text, Dialect::Plain, Some(number));
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

/// Every output of `sigver.v1` but a close is one JSON object with the members that the protocol page lists and no other, each once, and
/// says what was meant, whatever is in the key.
///
/// Seen to fail when a key is put between quotation marks as it is, when a word is not the page's, and when the buffer is cleared.
#[test]
fn vocabulary() {
    let indexes = prop_oneof![0..u32::MAX, Just(0), Just(u32::MAX - 1)];
    for_all((keys(), indexes, objects()), |(key, index, object)| {
        let text = object.text();
        let payload = || match Decoder::new(Dialect::Plain, &Limits::default()).decode(&text) {
            Ok(InboundMessage::Data { payload, .. } | InboundMessage::UnknownControl { payload, .. }) => Some(payload),
            Ok(_) | Err(_) => None,
        };
        for (message, meant) in outputs(&key, Index::new(index), payload) {
            let is_data = matches!(message, OutboundMessage::Data { .. });
            let Some(Frame::Text(frame)) = Dialect::V1.encode(message) else {
                panic!("{meant:?} is text");
            };
            // Floats, and what a value cannot hold, are for the law of fidelity.
            let (Ok(said), Some(meant)) = (serde_json::from_str::<Value>(&frame), meant.clone()) else {
                assert!(is_data, "{frame}");
                continue;
            };
            assert_eq!(said, meant, "{frame}");
            if !is_data {
                assert_eq!(frame.len(), meant.to_string().len(), "a member comes twice: {frame}");
            }
        }
    });
}

/// The laws say little about texts that nobody makes: each of these kinds is one in thirty at least.
#[test]
fn generated_texts_are_of_every_kind() {
    let mut seen = BTreeMap::new();
    for object in samples(&objects()) {
        let kind = match object.reading(Dialect::Plain, &Limits::default()) {
            Err(CloseReason::Duplicate(_)) => "a member twice",
            Err(_) => "control with a wrong key",
            Ok(reading) => kind(&reading),
        };
        let by_value = match serde_json::from_str::<Value>(&object.text()) {
            Ok(_) => "within what a value can hold",
            Err(_) => "beyond what a value can hold",
        };
        let nesting = if object.depth() > 2 { "deep" } else { "flat" };
        count(&mut seen, [kind, by_value, nesting]);
    }
    let expected = [
        "a member twice",
        "beyond what a value can hold",
        "control",
        "control with a wrong key",
        "data",
        "data to a malformed index",
        "data to an index",
        "deep",
        "flat",
        "lookalike",
        "within what a value can hold",
    ];
    assert_eq!(more_often_than(SAMPLES / 30, &seen), expected, "of {seen:?}");

    let mut seen = BTreeMap::new();
    for frame in samples(&frames()) {
        let kind = match frame.reading(Dialect::V1, &Limits::default()) {
            Err(CloseReason::Duplicate(_)) => "a member twice",
            Err(CloseReason::UnknownMessage) => "an unknown message",
            Err(CloseReason::DataMissing) => "no data",
            Err(_) => "another malformed message",
            Ok(Reading::Data(Addressee::Unnamed, PayloadKind::Any, _)) => "data that is no object",
            Ok(reading) => kind(&reading),
        };
        count(&mut seen, [kind]);
    }
    let expected = [
        "a member twice",
        "an unknown message",
        "another malformed message",
        "control",
        "data",
        "data that is no object",
        "data to an index",
        "no data",
    ];
    assert_eq!(more_often_than(SAMPLES / 30, &seen), expected, "of {seen:?}");
}

fn kind(reading: &Reading) -> &'static str {
    match reading {
        Reading::Open(_)
        | Reading::OpenGenerated
        | Reading::Join(_)
        | Reading::Kick(_)
        | Reading::Leave
        | Reading::CloseKey => "control",
        Reading::Data(Addressee::Unnamed, ..) => "data",
        Reading::Data(Addressee::Index(_) | Addressee::OutOfRange, ..) => "data to an index",
        Reading::Data(Addressee::Malformed, ..) => "data to a malformed index",
        Reading::UnknownControl(..) => "lookalike",
    }
}

/// Limits that a short text can meet.
fn tight() -> Limits {
    limits(8, 4, 1_000)
}

/// One more than what a limit leaves over: 0 where the text is just over it.
fn edge() -> impl Strategy<Value = u32> {
    prop_oneof![1 => Just(0), 4 => Just(1), 4 => 2..100_u32]
}

/// Limits that `object` just meets, or just does not.
fn limits_near(dialect: Dialect, object: &Object, [key, depth, size]: [u32; 3]) -> Limits {
    let key_bytes = match object.reading(dialect, &Limits::default()) {
        Ok(Reading::Open(key) | Reading::Join(key)) => key.len() as u32,
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

/// Texts of any kind: valid ones, valid ones with something broken, soups of what JSON is made of, and anything.
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

/// What `speaker` says with `text` comes to peers in `sigver.v1` as `data`.
fn assert_enveloped(speaker: Dialect, text: &str, data: &str, number: u32) {
    let towards_joiner = carried(speaker, text, Dialect::V1, None);
    assert_eq!(towards_joiner, Some(format!(r#"{{"type":"data","data":{data}}}"#)));
    let towards_opener = carried(speaker, text, Dialect::V1, Some(number));
    let expected = format!(r#"{{"type":"data","index":{number},"data":{data}}}"#);
    assert_eq!(towards_opener, Some(expected));
}

fn assert_is_taken_or_not(dialect: Dialect, text: &str) {
    let message = Decoder::new(dialect, &tight()).decode(text);
    match message {
        Err(reason) => assert!(matches!(reason.code(), 1007 | 1009), "{reason:?}"),
        Ok(InboundMessage::Open { key } | InboundMessage::Join { key }) => {
            assert!(text.contains(key.as_str()) || text.contains('\\'));
        }
        Ok(InboundMessage::Data { to, kind, payload } | InboundMessage::UnknownControl { to, kind, payload }) => {
            let whole = serde_json::from_str::<IgnoredAny>(text);
            assert!(whole.is_ok(), "what is taken is one JSON value");
            let data = serde_json::from_str::<IgnoredAny>(payload.as_str());
            assert!(
                data.is_ok() && text.contains(payload.as_str()),
                "what is carried is one JSON value"
            );
            let goes_to_plain_openers = match dialect {
                Dialect::Plain => true,
                Dialect::V1 => kind == PayloadKind::Object && to == Addressee::Unnamed,
            };
            if !goes_to_plain_openers {
                return;
            }
            assert_eq!(
                carried(dialect, text, Dialect::Plain, None).as_deref(),
                Some(payload.as_str())
            );
            let once = carried(dialect, text, Dialect::Plain, Some(7)).expect("data is carried");
            let again = match dialect {
                Dialect::Plain => {
                    assert_eq!(addressee(&once), Some(Addressee::Index(Index::new(7))));
                    once.clone()
                }
                // It need not be data in the plain dialect.
                Dialect::V1 => format!(r#"{{"type":"send","data":{once}}}"#),
            };
            let again = carried(dialect, &again, Dialect::Plain, Some(7));
            assert_eq!(again, Some(once), "an index is replaced, not added again");
        }
        Ok(
            InboundMessage::OpenGenerated
            | InboundMessage::Kick { .. }
            | InboundMessage::Leave
            | InboundMessage::CloseKey,
        ) => {
            assert_eq!(dialect, Dialect::V1, "the plain dialect has no words for it");
        }
    }
}

fn addressee(text: &str) -> Option<Addressee> {
    match Decoder::new(Dialect::Plain, &Limits::default()).decode(text) {
        Ok(InboundMessage::Data { to, .. } | InboundMessage::UnknownControl { to, .. }) => Some(to),
        Ok(_) | Err(_) => None,
    }
}

/// What plain data says, read from a parsed value; `None` where the value cannot tell, since it takes large integers for floats.
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

/// Keys of all that JSON has to escape, and of all that it has not.
fn keys() -> impl Strategy<Value = Key> {
    let character = prop_oneof![
        2 => any::<char>(),
        1 => prop::char::range('\0', '\u{a0}'),
        1 => prop::sample::select(&['"', '\\', '/', '\u{2028}', '\u{feff}', '🫖']),
    ];
    prop::collection::vec(character, 1..64).prop_map(|characters| {
        let text: String = characters.into_iter().collect();
        Key::new(&text, &Limits::default()).expect("short enough for a key")
    })
}

/// Everything that can be said in `sigver.v1`, and what the protocol page has for it. Data is there if `payload` has some, and without
/// a meaning where a value cannot hold it.
fn outputs(key: &Key, index: Index, payload: impl Fn() -> Option<Payload>) -> Vec<(OutboundMessage, Option<Value>)> {
    let (k, n) = (key.as_str(), index.get());
    let mut outputs = vec![
        (
            OutboundMessage::Opened { key: key.clone() },
            Some(json!({ "type": "opened", "key": k })),
        ),
        (
            OutboundMessage::Joined { index },
            Some(json!({ "type": "joined", "index": n })),
        ),
        (
            OutboundMessage::PeerJoined { index },
            Some(json!({ "type": "join", "index": n })),
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
    ];
    for refusal in refusals(key, index) {
        let mut error = json!({ "type": "error", "code": refusal.name(), "message": refusal.to_string() });
        match refusal {
            Refusal::KeyTaken { .. } | Refusal::UnknownKey { .. } | Refusal::TooManyJoiners { .. } => {
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
            let meant = data.ok().map(|data| match from {
                None => json!({ "type": "data", "data": data }),
                Some(_) => json!({ "type": "data", "index": n, "data": data }),
            });
            outputs.push((OutboundMessage::Data { from, payload }, meant));
        }
    }
    outputs
}
