//! Compares `Decoder::decode` and `Dialect::encode` with an independent JSON reader and the protocol page. Uses no hub.

use core::time::Duration;

use sigver_core::{
    CloseReason, Decoder, Dialect, Frame, InboundMessage, Index, Key, Limits, OutboundMessage, Payload, PayloadKind,
    PeerId, Refusal, Token,
};

use crate::{
    json::{Object, Reading, Value, reading},
    reader::{self, Text},
};

/// Longer texts add nothing, and the reader recurses once per bracket.
const LONGEST: usize = 16 * 1024;

/// Indexes of one digit and of many.
const INDEXES: [u32; 3] = [0, 10, u32::MAX - 1];

/// For any text: both dialects decode it according to the protocol page, under limits that it just reaches and just exceeds; and its
/// payload is encoded to the byte, with only an index added.
///
/// # Panics
///
/// If not.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(text) = core::str::from_utf8(bytes) else {
        return;
    };
    if text.len() > LONGEST {
        return;
    }
    let is = reader::read(text);
    if let Text::Object(object) = &is {
        assert_eq!(object.text(), text, "the reader is lossless");
    }
    for dialect in Dialect::ALL {
        for limits in limits_near(text, &is) {
            check_reading(*dialect, text, &is, &limits);
        }
        if let Text::Object(object) = &is {
            check_encoding(*dialect, text, object);
        }
    }
}

/// Returns the default limits, limits that the text just reaches, and each of the latter reduced by one.
fn limits_near(text: &str, is: &Text) -> Vec<Limits> {
    let depth = match is {
        Text::Object(object) => object.depth(),
        Text::Other(depth) => *depth,
        Text::Broken(_) => 4,
    };
    let key_length = |dialect| match is {
        Text::Object(object) => match object.reading(dialect, &Limits::default()) {
            Ok(Reading::Open(request) | Reading::Join(request) | Reading::Meet(request)) => Some(request.key.len()),
            Ok(_) | Err(_) => None,
        },
        Text::Other(_) | Text::Broken(_) => None,
    };
    let key = key_length(Dialect::Plain)
        .or_else(|| key_length(Dialect::V1))
        .unwrap_or(8);
    let mut just = Limits::default();
    just.message_bytes = text.len() as u32;
    just.depth = depth;
    just.key_bytes = key as u32;
    just.join_wait = Duration::from_secs(7);
    let mut all = vec![Limits::default(), just.clone()];
    let less: [fn(&mut Limits) -> &mut u32; 3] = [
        |limits| &mut limits.message_bytes,
        |limits| &mut limits.depth,
        |limits| &mut limits.key_bytes,
    ];
    for one in less {
        let mut limits = just.clone();
        let limit = one(&mut limits);
        *limit = limit.saturating_sub(1);
        all.push(limits);
    }
    all
}

fn check_reading(dialect: Dialect, text: &str, is: &Text, limits: &Limits) {
    let read = Decoder::new(dialect, limits).decode(text);
    if let Ok(InboundMessage::Data { kind, payload, .. } | InboundMessage::UnknownControl { kind, payload, .. }) = &read
    {
        assert_eq!(*kind, payload.kind());
    }
    let read = read.map(reading);
    let is_too_big = text.len() > limits.message_bytes as usize;
    match is {
        Text::Object(object) => assert_eq!(read, object.reading(dialect, limits), "{dialect:?} under {limits:?}"),
        _ if is_too_big => assert_eq!(read, Err(CloseReason::TooBig)),
        Text::Other(depth) if *depth > limits.depth => assert_eq!(read, Err(CloseReason::TooDeep)),
        Text::Other(_) => assert_eq!(read, Err(CloseReason::NotAnObject)),
        Text::Broken(until) => check_invalid_json(dialect, text, until.as_ref(), limits, &read),
    }
}

/// Checks the reason for invalid JSON: the first violation in the text, but depth is counted in brackets before anything is parsed.
fn check_invalid_json(
    dialect: Dialect,
    text: &str,
    until: Option<&Object>,
    limits: &Limits,
    read: &Result<Reading, CloseReason>,
) {
    let brackets = text.bytes().filter(|byte| b"{[".contains(byte)).count();
    let expected = match until.and_then(|object| object.repeats(dialect)) {
        Some(member) => CloseReason::Duplicate(member),
        None => CloseReason::InvalidJson,
    };
    let is_right = match read {
        Err(CloseReason::TooDeep) => brackets > limits.depth as usize,
        Err(reason) => *reason == expected,
        Ok(_) => false,
    };
    assert!(is_right, "{dialect:?}: {read:?} instead of {expected:?}");
}

/// Encodes the decoded text in both dialects.
fn check_encoding(dialect: Dialect, text: &str, object: &Object) {
    match Decoder::new(dialect, &Limits::default()).decode(text) {
        Ok(
            InboundMessage::Open { key, id, .. }
            | InboundMessage::Join { key, id, .. }
            | InboundMessage::Meet { key, id, .. },
        ) => {
            check_key(&key);
            check_id(id);
        }
        Ok(InboundMessage::OpenGenerated { id }) => check_id(id),
        Ok(InboundMessage::Data { payload, .. } | InboundMessage::UnknownControl { payload, .. }) => {
            check_payload(dialect, text, object, payload);
        }
        Ok(InboundMessage::Kick { .. } | InboundMessage::Leave | InboundMessage::CloseKey | InboundMessage::Ping)
        | Err(_) => {}
        Ok(InboundMessage::NotAllowed { .. }) => panic!("no client can send it"),
    }
}

/// Checks that any key is encoded without loss.
fn check_key(key: &Key) {
    let key = || key.clone();
    for message in [
        OutboundMessage::Opened {
            key: key(),
            token: Some(Token::from_random(7)),
            joiners: Vec::new(),
        },
        OutboundMessage::Waiting {
            key: key(),
            wait: Duration::ZERO,
        },
        OutboundMessage::Refused(Refusal::KeyTaken { key: key() }),
        OutboundMessage::Refused(Refusal::UnknownKey { key: key() }),
        OutboundMessage::Refused(Refusal::TooManyJoiners { key: key() }),
        OutboundMessage::Refused(Refusal::TooManyAttempts { key: key() }),
        OutboundMessage::Refused(Refusal::NotAllowed { key: Some(key()) }),
    ] {
        assert_eq!(Dialect::Plain.encode(message.clone()), None);
        let out = encoded(Dialect::V1, &message);
        let Text::Object(object) = reader::read(&out) else {
            panic!("{out} is no object");
        };
        let keys: Vec<_> = values(&object, "key").map(|value| value.decoded.as_deref()).collect();
        assert_eq!(keys, [Some(key().as_str())], "{out}");
    }
}

/// Checks that any id is encoded without loss.
fn check_id(id: Option<PeerId>) {
    let index = Index::new(0);
    let expected: Vec<Option<&str>> = id.iter().map(|id| Some(id.as_str())).collect();
    for message in [
        OutboundMessage::Joined { index, id: id.clone() },
        OutboundMessage::PeerJoined { index, id: id.clone() },
        OutboundMessage::Reopened { id: id.clone() },
    ] {
        let out = encoded(Dialect::V1, &message);
        let Text::Object(object) = reader::read(&out) else {
            panic!("{out} is no object");
        };
        let ids: Vec<_> = values(&object, "id").map(|value| value.decoded.as_deref()).collect();
        assert_eq!(ids, expected, "{out}");
    }
}

fn check_payload(dialect: Dialect, text: &str, object: &Object, payload: Payload) {
    let sent = match dialect {
        Dialect::Plain => text,
        Dialect::V1 => object.data().expect("a send has data"),
    };
    assert_eq!(payload.as_str(), sent);
    let kind = payload.kind();
    let mut message = OutboundMessage::Data { from: None, payload };
    assert_eq!(
        encoded(Dialect::V1, &message),
        format!(r#"{{"type":"data","data":{sent}}}"#)
    );
    assert_eq!(encoded(Dialect::Plain, &message), sent);
    for number in INDEXES {
        if let OutboundMessage::Data { from, .. } = &mut message {
            *from = Some(Index::new(number));
        }
        let expected = format!(r#"{{"type":"data","index":{number},"data":{sent}}}"#);
        assert_eq!(encoded(Dialect::V1, &message), expected);
        // The hub sends only objects to a plain opener.
        if kind == PayloadKind::Object {
            let expected = match dialect {
                Dialect::Plain => Some(object.text_with_index(number)),
                Dialect::V1 => object.data_with_index(number),
            };
            let out = encoded(Dialect::Plain, &message);
            assert_eq!(Some(&out), expected.as_ref());
            check_spliced(&out, number);
        }
    }
}

/// Checks that the text has one `index`, that of the joiner.
fn check_spliced(out: &str, number: u32) {
    let Text::Object(object) = reader::read(out) else {
        panic!("{out} is no object");
    };
    let indexes: Vec<_> = values(&object, "index").map(|value| &value.spelled).collect();
    assert_eq!(indexes, [&number.to_string()], "{out}");
}

fn values<'a>(object: &'a Object, name: &'a str) -> impl Iterator<Item = &'a Value> {
    let named = object.members.iter();
    named
        .filter(move |member| member.name.decoded.as_deref() == Some(name))
        .map(|member| &member.value)
}

fn encoded(dialect: Dialect, message: &OutboundMessage) -> String {
    match dialect.encode(message.clone()) {
        Some(Frame::Text(text)) => text,
        other => panic!("a text, not {other:?}"),
    }
}
