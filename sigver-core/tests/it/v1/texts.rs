//! Texts and their meaning.

use super::*;

/// Malformed texts, and the close reason of each.
#[rustfmt::skip]
const MALFORMED: &[(&str, CloseReason)] = &[
    // Text that is not one JSON object.
    (r#""#,                                              CloseReason::InvalidJson),
    (r#"leave"#,                                         CloseReason::InvalidJson),
    (r#"{"type":"leave"}{"type":"leave"}"#,              CloseReason::InvalidJson),
    (r#"{"type":"leave",}"#,                             CloseReason::InvalidJson),
    (r#"{"type":"send","data":}"#,                       CloseReason::InvalidJson),
    (r#"{"type":"send","data":01}"#,                     CloseReason::InvalidJson),
    ("{\"type\":\"send\",\"data\":\"\n\"}",              CloseReason::InvalidJson),
    (r#""leave""#,                                       CloseReason::NotAnObject),
    (r#"["leave"]"#,                                     CloseReason::NotAnObject),
    (r#"null"#,                                          CloseReason::NotAnObject),

    // Over a limit. The message itself is one level.
    (r#"{"type":"send","data":[[[]]]}"#,                 CloseReason::TooDeep),
    (r#"{"type":"leave","more":{"a":{"b":{}}}}"#,        CloseReason::TooDeep),
    (r#"{"type":"send","data":"1111111111111111111111111111111111111111"}"#, CloseReason::TooBig),

    // A repeated member, in any message and spelling.
    (r#"{"type":"leave","type":"leave"}"#,               CloseReason::Duplicate(Member::Type)),
    (r#"{"type":"leave","t\u0079pe":1}"#,                CloseReason::Duplicate(Member::Type)),
    (r#"{"type":"open","key":"a","key":"a"}"#,           CloseReason::Duplicate(Member::Key)),
    (r#"{"type":"leave","key":1,"key":1}"#,              CloseReason::Duplicate(Member::Key)),
    (r#"{"type":"kick","index":0,"index":0}"#,           CloseReason::Duplicate(Member::Index)),
    (r#"{"type":"leave","index":0,"\u0069ndex":0}"#,     CloseReason::Duplicate(Member::Index)),
    (r#"{"type":"send","data":1,"data":1}"#,             CloseReason::Duplicate(Member::Data)),
    (r#"{"type":"leave","data":1,"d\u0061ta":1}"#,       CloseReason::Duplicate(Member::Data)),
    (r#"{"type":"join","key":"a","id":"a","id":"a"}"#,   CloseReason::Duplicate(Member::Id)),
    (r#"{"type":"leave","id":1,"\u0069d":1}"#,           CloseReason::Duplicate(Member::Id)),
    (r#"{"type":"join","key":"a","wait":1,"wait":1}"#,   CloseReason::Duplicate(Member::Wait)),
    (r#"{"type":"ping","token":1,"token":1}"#,           CloseReason::Duplicate(Member::Token)),

    // An unknown `type`.
    (r#"{}"#,                                            CloseReason::UnknownMessage),
    (r#"{"key":"tea"}"#,                                 CloseReason::UnknownMessage),
    (r#"{"data":1}"#,                                    CloseReason::UnknownMessage),
    (r#"{"type":null}"#,                                 CloseReason::UnknownMessage),
    (r#"{"type":["open"]}"#,                             CloseReason::UnknownMessage),
    (r#"{"type":"\ud800"}"#,                             CloseReason::UnknownMessage),
    (r#"{"type":"Open","key":"tea"}"#,                   CloseReason::UnknownMessage),
    (r#"{"type":"open ","key":"tea"}"#,                  CloseReason::UnknownMessage),
    (r#"{"type":"offer","sdp":"v=0"}"#,                  CloseReason::UnknownMessage),
    (r#"{"type":"opened","key":"tea"}"#,                 CloseReason::UnknownMessage),
    (r#"{"type":"data","data":1}"#,                      CloseReason::UnknownMessage),

    // An invalid key. `open` may have none, but `null` is not none.
    (r#"{"type":"join"}"#,                               CloseReason::KeyMissing),
    (r#"{"type":"join","Key":"tea"}"#,                   CloseReason::KeyMissing),
    (r#"{"type":"meet"}"#,                               CloseReason::KeyMissing),
    (r#"{"type":"meet","key":""}"#,                      CloseReason::KeyEmpty),
    (r#"{"type":"meet","key":"tea","id":""}"#,           CloseReason::IdMalformed),
    (r#"{"type":"open","key":null}"#,                    CloseReason::KeyNotString),
    (r#"{"type":"open","key":1}"#,                       CloseReason::KeyNotString),
    (r#"{"type":"join","key":["tea"]}"#,                 CloseReason::KeyNotString),
    (r#"{"type":"join","key":"\udfff"}"#,                CloseReason::KeyNotString),
    (r#"{"type":"open","key":""}"#,                      CloseReason::KeyEmpty),
    (r#"{"type":"join","key":""}"#,                      CloseReason::KeyEmpty),
    (r#"{"type":"open","key":"123456789"}"#,             CloseReason::KeyTooLong),
    (r#"{"type":"join","key":"ééééé"}"#,                 CloseReason::KeyTooLong),

    // An invalid index, from any role. `send` may have none, `kick` may not.
    (r#"{"type":"send","index":null,"data":1}"#,         CloseReason::IndexMalformed),
    (r#"{"type":"send","index":-0,"data":1}"#,           CloseReason::IndexMalformed),
    (r#"{"type":"send","index":0.0,"data":1}"#,          CloseReason::IndexMalformed),
    (r#"{"type":"send","index":1e0,"data":1}"#,          CloseReason::IndexMalformed),
    (r#"{"type":"send","index":"01","data":1}"#,         CloseReason::IndexMalformed),
    (r#"{"type":"send","index":" 1","data":1}"#,         CloseReason::IndexMalformed),
    (r#"{"type":"send","index":"","data":1}"#,           CloseReason::IndexMalformed),
    (r#"{"type":"send","index":[0],"data":1}"#,          CloseReason::IndexMalformed),
    (r#"{"type":"kick","index":-1}"#,                    CloseReason::IndexMalformed),
    (r#"{"type":"kick","index":"B"}"#,                   CloseReason::IndexMalformed),
    (r#"{"type":"kick","index":true}"#,                  CloseReason::IndexMalformed),
    (r#"{"type":"kick"}"#,                               CloseReason::IndexMissing),
    (r#"{"type":"kick","data":{"index":0}}"#,            CloseReason::IndexMissing),

    (r#"{"type":"send"}"#,                               CloseReason::DataMissing),
    (r#"{"type":"send","index":0}"#,                     CloseReason::DataMissing),
    (r#"{"type":"send","index":0,"Data":1}"#,            CloseReason::DataMissing),

    // An invalid token. `null` is not none.
    (r#"{"type":"open","key":"tea","token":null}"#,      CloseReason::TokenMalformed),
    (r#"{"type":"open","token":7}"#,                     CloseReason::TokenMalformed),
    (r#"{"type":"meet","key":"tea","token":["a"]}"#,     CloseReason::TokenMalformed),
    (r#"{"type":"meet","key":"tea","token":"\ud800"}"#,  CloseReason::TokenMalformed),

    // An invalid wait: not a number, or in another form. `null` is not none.
    (r#"{"type":"join","key":"tea","wait":null}"#,       CloseReason::WaitMalformed),
    (r#"{"type":"join","key":"tea","wait":"5"}"#,        CloseReason::WaitMalformed),
    (r#"{"type":"join","key":"tea","wait":true}"#,       CloseReason::WaitMalformed),
    (r#"{"type":"join","key":"tea","wait":[5]}"#,        CloseReason::WaitMalformed),
    (r#"{"type":"join","key":"tea","wait":-1}"#,         CloseReason::WaitMalformed),
    (r#"{"type":"join","key":"tea","wait":-0}"#,         CloseReason::WaitMalformed),
    (r#"{"type":"join","key":"tea","wait":1.0}"#,        CloseReason::WaitMalformed),
    (r#"{"type":"join","key":"tea","wait":1e1}"#,        CloseReason::WaitMalformed),

    // An invalid id. `null` is not none.
    (r#"{"type":"open","id":null}"#,                     CloseReason::IdMalformed),
    (r#"{"type":"open","key":"tea","id":1}"#,            CloseReason::IdMalformed),
    (r#"{"type":"join","key":"tea","id":["a"]}"#,        CloseReason::IdMalformed),
    (r#"{"type":"join","key":"tea","id":""}"#,           CloseReason::IdMalformed),
    (r#"{"type":"join","key":"tea","id":"\ud800"}"#,     CloseReason::IdMalformed),
];

/// Reasons that this decoder does not return: there is no text yet, or it is a plain one.
const NOT_FOUND_HERE: &[CloseReason] = &[CloseReason::InvalidUtf8, CloseReason::UnknownType];

/// Valid texts in every spelling, and the decoded message.
#[rustfmt::skip]
const WELL_FORMED: &[(&str, Decoded<'_>)] = &[
    (r#"{"type":"open","key":"pot"}"#,                   Decoded::Open("pot", None)),
    (r#"{"type":"join","key":"t\u0065a"}"#,              Decoded::Join("tea", None)),
    (r#"{"type":"open","key":"pot","id":"a"}"#,          Decoded::Open("pot", Some("a"))),
    (r#"{"type":"open","\u0069d":"\u00e9"}"#,            Decoded::OpenGenerated(Some("é"))),
    (r#"{"id":"null","key":"tea","type":"join"}"#,       Decoded::Join("tea", Some("null"))),
    (r#"{"type":"meet","key":"tea"}"#,                   Decoded::Meet("tea", None)),
    (r#"{"type":"meet","key":"tea","id":"a","wait":-1}"#, Decoded::Meet("tea", Some("a"))),
    (r#"{"type":"open","key":"tea","token":"é"}"#,       Decoded::TakeOver("tea", "é")),
    (r#"{"type":"meet","key":"tea","t\u006fken":""}"#,   Decoded::TakeOver("tea", "")),
    (r#"{"type":"open","token":"é"}"#,                   Decoded::OpenGenerated(None)),
    (r#"{"type":"join","key":"tea","token":null}"#,      Decoded::Join("tea", None)),
    // A wait over the limit is cut to it, however large. 0 is none.
    (r#"{"type":"join","key":"tea","wait":0}"#,          Decoded::Join("tea", None)),
    (r#"{"type":"join","key":"tea","\u0077ait":1}"#,     Decoded::JoinLater("tea", 1)),
    (r#"{"type":"join","key":"tea","wait":120}"#,        Decoded::JoinLater("tea", 120)),
    (r#"{"type":"join","key":"tea","wait":121}"#,        Decoded::JoinLater("tea", 120)),
    (r#"{"type":"join","key":"tea","wait":36893488147419103233}"#, Decoded::JoinLater("tea", 120)),
    (r#"{"type":"open","key":"tea","wait":-1}"#,         Decoded::Open("tea", None)),
    (r#"{"type":"send","data":1}"#,                      Decoded::Send(None, PayloadKind::Any, "1")),
    (r#"{"type":"send","index":2,"data":{}}"#,           Decoded::Send(Some(2), PayloadKind::Object, "{}")),
    (r#"{"type":"send","index":"2","data":[]}"#,         Decoded::Send(Some(2), PayloadKind::Any, "[]")),
    (r#"{"type":"send","data":{"a":1,"a":2}}"#,          Decoded::Send(None, PayloadKind::Object, r#"{"a":1,"a":2}"#)),
    (r#"{"type":"send","data":{"index":1}}"#,            Decoded::Send(None, PayloadKind::Object, r#"{"index":1}"#)),
    (r#"{"type":"kick","index":0}"#,                     Decoded::Kick(0)),
    (r#"{"type":"kick","index":"10"}"#,                  Decoded::Kick(10)),
    (r#"{"type":"kick","index":18446744073709551616}"#,  Decoded::Kick(u32::MAX)),
    (r#"{"type":"leave"}"#,                              Decoded::Leave),
    (r#"{"type":"close"}"#,                              Decoded::Close),
    (r#"{"type":"ping"}"#,                               Decoded::Ping),
    // Any order, white space and escapes.
    (" {\t\"data\" : 1 ,\r\n\"type\" : \"send\" } ",     Decoded::Send(None, PayloadKind::Any, "1")),
    (r#"{"\u0064ata":1,"t\u0079pe":"\u0073end"}"#,       Decoded::Send(None, PayloadKind::Any, "1")),
    // Unknown members are ignored.
    (r#"{"type":"leave","key":1,"data":[],"a":2}"#,      Decoded::Leave),
    (r#"{"type":"send","key":null,"data":1}"#,           Decoded::Send(None, PayloadKind::Any, "1")),
    (r#"{"type":"join","key":"tea","data":1}"#,          Decoded::Join("tea", None)),
    (r#"{"type":"kick","index":0,"id":null}"#,           Decoded::Kick(0)),
    // At the limits of depth and size.
    (r#"{"type":"send","data":[[]]}"#,                   Decoded::Send(None, PayloadKind::Any, "[[]]")),
    (r#"{"type":"send","data":11111111111111111111111111111111111111111}"#, Decoded::Send(None, PayloadKind::Any, "11111111111111111111111111111111111111111")),
];

#[derive(Debug, PartialEq, Eq)]
enum Decoded<'a> {
    Open(&'a str, Option<&'a str>),
    OpenGenerated(Option<&'a str>),
    Join(&'a str, Option<&'a str>),
    JoinLater(&'a str, u64),
    Meet(&'a str, Option<&'a str>),
    TakeOver(&'a str, &'a str),
    Send(Option<u32>, PayloadKind, &'a str),
    Kick(u32),
    Leave,
    Close,
    Ping,
}

#[test]
fn malformed_text_has_a_close_reason() {
    for (text, reason) in MALFORMED {
        let message = Decoder::new(Dialect::V1, &tight()).decode(text);
        assert_eq!(message.err(), Some(*reason), "{text}");
    }
}

#[test]
fn every_close_reason_for_a_text_has_a_row() {
    let is_for_texts = |reason: &&CloseReason| matches!(reason.code(), 1007 | 1009);
    for reason in CloseReason::ALL.iter().filter(is_for_texts) {
        let has_row = MALFORMED.iter().any(|(_, shown)| shown == reason);
        assert_ne!(has_row, NOT_FOUND_HERE.contains(reason), "{reason:?}");
    }
}

#[test]
fn malformed_text_closes_its_sender_only_in_any_role() {
    for (text, reason) in MALFORMED.iter().filter(|(_, reason)| *reason != CloseReason::TooBig) {
        for who in ['A', 'B', 'S'] {
            let mut fixture = Fixture::within(&tight());
            let mut expected = vec![close(who, *reason)];
            expected.extend(match who {
                'A' => vec![
                    frame('B', r#"{"type":"closed","code":"opener-left"}"#),
                    close('P', CloseReason::OpenerLeft),
                ],
                'B' => vec![frame('A', r#"{"type":"leave","index":0}"#)],
                _ => vec![],
            });
            assert_eq!(fixture.send(who, text), expected, "{who} sends {text}");
        }
    }
}

#[test]
fn valid_text_is_decoded_in_every_spelling() {
    for (text, expected) in WELL_FORMED {
        let message = Decoder::new(Dialect::V1, &tight()).decode(text);
        let decoded = match &message {
            Err(reason) => panic!("{reason:?} for {text}"),
            Ok(InboundMessage::Open {
                key,
                token: Some(token),
                new_token: None,
                ..
            }) => Decoded::TakeOver(key.as_str(), token.as_str()),
            Ok(InboundMessage::Open { key, id, .. }) => Decoded::Open(key.as_str(), id.as_ref().map(PeerId::as_str)),
            Ok(InboundMessage::OpenGenerated { id }) => Decoded::OpenGenerated(id.as_ref().map(PeerId::as_str)),
            Ok(InboundMessage::Join { key, id, wait }) if wait.is_zero() => {
                Decoded::Join(key.as_str(), id.as_ref().map(PeerId::as_str))
            }
            Ok(InboundMessage::Join { key, wait, .. }) => Decoded::JoinLater(key.as_str(), wait.as_secs()),
            Ok(InboundMessage::Meet {
                key,
                token: Some(token),
                ..
            }) => Decoded::TakeOver(key.as_str(), token.as_str()),
            Ok(InboundMessage::Meet { key, id, .. }) => Decoded::Meet(key.as_str(), id.as_ref().map(PeerId::as_str)),
            Ok(InboundMessage::Data { to, kind, payload }) => {
                assert_eq!(payload.kind(), *kind);
                let to = match to {
                    Addressee::Unnamed => None,
                    Addressee::Index(index) => Some(index.get()),
                    Addressee::OutOfRange => Some(u32::MAX),
                    Addressee::Malformed => panic!("{text} closes its sender"),
                };
                Decoded::Send(to, *kind, payload.as_str())
            }
            Ok(InboundMessage::UnknownControl { .. }) => panic!("only the plain dialect has those: {text}"),
            Ok(InboundMessage::Kick { index }) => Decoded::Kick(index.map_or(u32::MAX, Index::get)),
            Ok(InboundMessage::NotAllowed { .. }) => panic!("no client can send it: {text}"),
            Ok(InboundMessage::Leave) => Decoded::Leave,
            Ok(InboundMessage::CloseKey) => Decoded::Close,
            Ok(InboundMessage::Ping) => Decoded::Ping,
        };
        assert_eq!(decoded, *expected, "{text}");
    }
}

#[test]
fn open_without_key_requests_a_generated_one() {
    let open = Decoder::new(Dialect::V1, &Limits::default()).decode(r#"{"type":"open"}"#);
    assert_eq!(open, Ok(InboundMessage::OpenGenerated { id: None }));
    let key = Key::from_random(0x00ab_cdef, &Limits::default());
    assert_eq!(
        key.as_ref().map(Key::as_str),
        Ok("00000000000000000000000000abcdef"),
        "128 bits are 32 digits"
    );
}

#[test]
fn id_and_token_have_at_most_64_bytes_after_decoding() {
    for (id, is_valid) in [
        ("i".repeat(64), true),
        ("i".repeat(65), false),
        ("é".repeat(32), true),
        ("é".repeat(33), false),
        (r"\u0069".repeat(64), true),
        (r"\u0069".repeat(65), false),
    ] {
        for text in [
            format!(r#"{{"type":"open","id":"{id}"}}"#),
            format!(r#"{{"type":"open","key":"tea","id":"{id}"}}"#),
            format!(r#"{{"type":"join","key":"tea","id":"{id}"}}"#),
        ] {
            let message = Decoder::new(Dialect::V1, &Limits::default()).decode(&text);
            let expected = if is_valid { None } else { Some(CloseReason::IdMalformed) };
            assert_eq!(message.err(), expected, "{text}");
        }
        for text in [
            format!(r#"{{"type":"open","token":"{id}"}}"#),
            format!(r#"{{"type":"open","key":"tea","token":"{id}"}}"#),
            format!(r#"{{"type":"meet","key":"tea","token":"{id}"}}"#),
        ] {
            let message = Decoder::new(Dialect::V1, &Limits::default()).decode(&text);
            let expected = if is_valid {
                None
            } else {
                Some(CloseReason::TokenMalformed)
            };
            assert_eq!(message.err(), expected, "{text}");
        }
    }
}

#[test]
fn generated_key_over_the_limit_is_an_error() {
    let mut limits = Limits::default();
    limits.key_bytes = 31;
    assert_eq!(Key::from_random(u128::MAX, &limits), Err(KeyError::TooLong));
    limits.key_bytes = 32;
    assert!(Key::from_random(u128::MAX, &limits).is_ok());
}

#[test]
fn v1_control_messages_are_data_in_the_plain_dialect() {
    for text in [
        r#"{"type":"open"}"#,
        r#"{"type":"kick","index":0}"#,
        r#"{"type":"leave"}"#,
        r#"{"type":"close"}"#,
        r#"{"type":"ping"}"#,
    ] {
        let message = Decoder::new(Dialect::Plain, &Limits::default()).decode(text);
        assert!(matches!(message, Ok(InboundMessage::Data { .. })), "{text}");
    }
}

/// Limits that the rows of [`MALFORMED`] and [`WELL_FORMED`] can reach.
fn tight() -> Limits {
    let mut limits = Limits::default();
    limits.key_bytes = 8;
    limits.message_bytes = 64;
    limits.depth = 3;
    limits
}
