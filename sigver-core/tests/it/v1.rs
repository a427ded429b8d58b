//! `sigver.v1`, said to the bare codec and hub, and how it meets the plain dialect, as tables and scenarios to be read.
//!
//! Each row is played on a new [`Scene`]. Under `tea`: **A**, the opener, and **B**, joiner 0, speak `sigver.v1`; **P**, joiner 1,
//! speaks the plain dialect. Under `cup`: **O**, the opener, and **Q**, joiner 1, speak the plain dialect; **C**, joiner 0, speaks
//! `sigver.v1`. **S** speaks `sigver.v1` and has no role, **T** speaks the plain dialect and has none. Two joiners are all that a
//! key may have here.

use core::time::Duration;

use sigver_core::{
    Addressee, CloseReason, ConnId, Decoder, Dialect, Frame, Hub, InboundMessage, Index, Key, KeyError, Limits, Member,
    OutboundMessage, PayloadKind, Refusal, Stats, Time,
};

/// What is wrong with a frame by itself, and what its sender is closed with.
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

    // A member that is read, twice, in any message and however it is spelled.
    (r#"{"type":"leave","type":"leave"}"#,               CloseReason::Duplicate(Member::Type)),
    (r#"{"type":"leave","t\u0079pe":1}"#,                CloseReason::Duplicate(Member::Type)),
    (r#"{"type":"open","key":"a","key":"a"}"#,           CloseReason::Duplicate(Member::Key)),
    (r#"{"type":"leave","key":1,"key":1}"#,              CloseReason::Duplicate(Member::Key)),
    (r#"{"type":"kick","index":0,"index":0}"#,           CloseReason::Duplicate(Member::Index)),
    (r#"{"type":"leave","index":0,"\u0069ndex":0}"#,     CloseReason::Duplicate(Member::Index)),
    (r#"{"type":"send","data":1,"data":1}"#,             CloseReason::Duplicate(Member::Data)),
    (r#"{"type":"leave","data":1,"d\u0061ta":1}"#,       CloseReason::Duplicate(Member::Data)),

    // No type of the vocabulary.
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

    // A key that is none. An open may do without, but `null` is not without.
    (r#"{"type":"join"}"#,                               CloseReason::KeyMissing),
    (r#"{"type":"join","Key":"tea"}"#,                   CloseReason::KeyMissing),
    (r#"{"type":"open","key":null}"#,                    CloseReason::KeyNotString),
    (r#"{"type":"open","key":1}"#,                       CloseReason::KeyNotString),
    (r#"{"type":"join","key":["tea"]}"#,                 CloseReason::KeyNotString),
    (r#"{"type":"join","key":"\udfff"}"#,                CloseReason::KeyNotString),
    (r#"{"type":"open","key":""}"#,                      CloseReason::KeyEmpty),
    (r#"{"type":"join","key":""}"#,                      CloseReason::KeyEmpty),
    (r#"{"type":"open","key":"123456789"}"#,             CloseReason::KeyTooLong),
    (r#"{"type":"join","key":"ééééé"}"#,                 CloseReason::KeyTooLong),

    // An index that is none, from whomever: a send may do without, a kick may not.
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
];

/// Reasons for texts that are not this dialect's to find: there is no text yet, or it is a plain one.
const NOT_FOUND_HERE: &[CloseReason] = &[CloseReason::InvalidUtf8, CloseReason::UnknownType];

/// What is well-formed, in every way of writing it, and what it says.
#[rustfmt::skip]
const WELL_FORMED: &[(&str, Says<'_>)] = &[
    (r#"{"type":"open","key":"pot"}"#,                   Says::Open("pot")),
    (r#"{"type":"join","key":"t\u0065a"}"#,              Says::Join("tea")),
    (r#"{"type":"send","data":1}"#,                      Says::Send(None, PayloadKind::Any, "1")),
    (r#"{"type":"send","index":2,"data":{}}"#,           Says::Send(Some(2), PayloadKind::Object, "{}")),
    (r#"{"type":"send","index":"2","data":[]}"#,         Says::Send(Some(2), PayloadKind::Any, "[]")),
    (r#"{"type":"send","data":{"a":1,"a":2}}"#,          Says::Send(None, PayloadKind::Object, r#"{"a":1,"a":2}"#)),
    (r#"{"type":"send","data":{"index":1}}"#,            Says::Send(None, PayloadKind::Object, r#"{"index":1}"#)),
    (r#"{"type":"kick","index":0}"#,                     Says::Kick(0)),
    (r#"{"type":"kick","index":"10"}"#,                  Says::Kick(10)),
    (r#"{"type":"kick","index":18446744073709551616}"#,  Says::Kick(u32::MAX)),
    (r#"{"type":"leave"}"#,                              Says::Leave),
    (r#"{"type":"close"}"#,                              Says::Close),
    // In any order, with any white space and escapes.
    (" {\t\"data\" : 1 ,\r\n\"type\" : \"send\" } ",     Says::Send(None, PayloadKind::Any, "1")),
    (r#"{"\u0064ata":1,"t\u0079pe":"\u0073end"}"#,       Says::Send(None, PayloadKind::Any, "1")),
    // What is not listed for a message is ignored.
    (r#"{"type":"leave","key":1,"data":[],"a":2}"#,      Says::Leave),
    (r#"{"type":"send","key":null,"data":1}"#,           Says::Send(None, PayloadKind::Any, "1")),
    (r#"{"type":"join","key":"tea","data":1}"#,          Says::Join("tea")),
    // As deep and as long as it may be.
    (r#"{"type":"send","data":[[]]}"#,                   Says::Send(None, PayloadKind::Any, "[[]]")),
    (r#"{"type":"send","data":11111111111111111111111111111111111111111}"#, Says::Send(None, PayloadKind::Any, "11111111111111111111111111111111111111111")),
];

#[derive(Debug, PartialEq, Eq)]
enum Says<'a> {
    Open(&'a str),
    Join(&'a str),
    Send(Option<u32>, PayloadKind, &'a str),
    Kick(u32),
    Leave,
    Close,
}

/// What only the state of affairs makes wrong: who asks for it, the code, and what is said beside the code and its message.
#[rustfmt::skip]
const REFUSALS: &[(char, &str, &str, &str)] = &[
    ('S', r#"{"type":"open","key":"tea"}"#,              "key-taken",        r#","key":"tea""#),
    ('S', r#"{"type":"open","key":"\u0063up"}"#,         "key-taken",        r#","key":"cup""#),
    ('S', r#"{"type":"join","key":"Tea"}"#,              "unknown-key",      r#","key":"Tea""#),
    ('S', r#"{"type":"join","key":"\u0022\n"}"#,         "unknown-key",      r#","key":"\"\n""#),
    ('S', r#"{"type":"join","key":"tea"}"#,              "too-many-joiners", r#","key":"tea""#),
    ('S', r#"{"type":"join","key":"cup"}"#,              "too-many-joiners", r#","key":"cup""#),

    ('A', r#"{"type":"open","key":"tea"}"#,              "has-role",         ""),
    ('A', r#"{"type":"open","key":"pot"}"#,              "has-role",         ""),
    ('A', r#"{"type":"join","key":"cup"}"#,              "has-role",         ""),
    ('B', r#"{"type":"join","key":"tea"}"#,              "has-role",         ""),
    ('C', r#"{"type":"open","key":"pot"}"#,              "has-role",         ""),

    ('S', r#"{"type":"send","data":1}"#,                 "no-role",          ""),
    ('S', r#"{"type":"send","index":0,"data":1}"#,       "no-role",          ""),
    ('S', r#"{"type":"kick","index":0}"#,                "no-role",          ""),
    ('S', r#"{"type":"leave"}"#,                         "no-role",          ""),
    ('S', r#"{"type":"close"}"#,                         "no-role",          ""),

    ('A', r#"{"type":"leave"}"#,                         "wrong-role",       ""),
    ('B', r#"{"type":"close"}"#,                         "wrong-role",       ""),
    ('B', r#"{"type":"kick","index":1}"#,                "wrong-role",       ""),
    ('C', r#"{"type":"kick","index":0}"#,                "wrong-role",       ""),

    ('A', r#"{"type":"send","data":{"index":0}}"#,       "no-index",         ""),

    ('A', r#"{"type":"send","index":2,"data":1}"#,       "unknown-index",    r#","index":2"#),
    ('A', r#"{"type":"send","index":"7","data":{}}"#,    "unknown-index",    r#","index":7"#),
    ('A', r#"{"type":"kick","index":4294967294}"#,       "unknown-index",    r#","index":4294967294"#),
    // No index is as large as that, and it is not repeated.
    ('A', r#"{"type":"send","index":4294967295,"data":1}"#, "unknown-index", ""),
    ('A', r#"{"type":"kick","index":18446744073709551616}"#, "unknown-index", ""),

    // From an opener with the index, from a joiner without.
    ('A', r#"{"type":"send","index":1,"data":"hello"}"#, "not-an-object",    r#","index":1"#),
    ('A', r#"{"type":"send","index":1,"data":[{}]}"#,    "not-an-object",    r#","index":1"#),
    ('A', r#"{"type":"send","index":1,"data":{"index":1,"index":1}}"#, "not-an-object", r#","index":1"#),
    ('C', r#"{"type":"send","data":null}"#,              "not-an-object",    ""),
    ('C', r#"{"type":"send","index":7,"data":0}"#,       "not-an-object",    ""),
    ('C', r#"{"type":"send","data":{"index":1,"index":1}}"#, "not-an-object", ""),
    ('C', r#"{"type":"send","data":{"\u0069ndex":1,"index":1}}"#, "not-an-object", ""),
    ('C', r#"{"type":"send","index":7,"data":{"index":1,"index":1}}"#, "not-an-object", ""),
];

/// Values of `data`, and what each is to a plain opener whose joiner 0 sends it; to one that takes no such value, nothing.
#[rustfmt::skip]
const DATA: &[(&str, Option<&str>)] = &[
    (r#"{}"#,                                    Some(r#"{"index":0}"#)),
    (r#"{ }"#,                                   Some(r#"{"index":0 }"#)),
    (r#"{"a":1}"#,                               Some(r#"{"a":1,"index":0}"#)),
    (r#"{ "a" : 1 }"#,                           Some(r#"{ "a" : 1,"index":0 }"#)),
    (r#"{"type":"send","data":{"index":1}}"#,    Some(r#"{"type":"send","data":{"index":1},"index":0}"#)),
    (r#"{"type":"open","key":"tea"}"#,           Some(r#"{"type":"open","key":"tea","index":0}"#)),
    // No joiner can speak for another.
    (r#"{"index":1}"#,                           Some(r#"{"index":0}"#)),
    (r#"{"\u0069ndex":"1","a":2}"#,              Some(r#"{"\u0069ndex":0,"a":2}"#)),
    // Order, repetition, numbers, escapes and lone surrogates stay as they are.
    (r#"{"b":1e400,"a":-0,"b":1.0}"#,            Some(r#"{"b":1e400,"a":-0,"b":1.0,"index":0}"#)),
    (r#"{"\ud800":"\udfff\/\u0041🫖"}"#,         Some(r#"{"\ud800":"\udfff\/\u0041🫖","index":0}"#)),
    (r#"null"#,                                  None),
    (r#"false"#,                                 None),
    (r#"1E+02"#,                                 None),
    (r#""""#,                                    None),
    (r#""{}""#,                                  None),
    (r#""\ud800\u0000""#,                        None),
    (r#"[ {"index":1} , 9223372036854775808 ]"#, None),
];

#[test]
fn what_is_wrong_with_a_frame_by_itself_has_a_close_reason() {
    for (text, reason) in MALFORMED {
        let message = Decoder::new(Dialect::V1, &tight()).decode(text);
        assert_eq!(message.err(), Some(*reason), "{text}");
    }
}

#[test]
fn every_reason_for_a_text_has_a_row() {
    let is_for_texts = |reason: &&CloseReason| matches!(reason.code(), 1007 | 1009);
    for reason in CloseReason::ALL.iter().filter(is_for_texts) {
        let has_row = MALFORMED.iter().any(|(_, shown)| shown == reason);
        assert_ne!(has_row, NOT_FOUND_HERE.contains(reason), "{reason:?}");
    }
}

#[test]
fn what_is_malformed_closes_its_sender_whatever_its_role_and_nobody_else() {
    for (text, reason) in MALFORMED.iter().filter(|(_, reason)| *reason != CloseReason::TooBig) {
        for who in ['A', 'B', 'S'] {
            let mut scene = Scene::within(&tight());
            let mut expected = vec![close(who, *reason)];
            expected.extend(match who {
                'A' => vec![
                    frame('B', r#"{"type":"closed","code":"opener-left"}"#),
                    close('P', CloseReason::OpenerLeft),
                ],
                'B' => vec![frame('A', r#"{"type":"leave","index":0}"#)],
                _ => vec![],
            });
            assert_eq!(scene.say(who, text), expected, "{who} says {text}");
        }
    }
}

#[test]
fn what_is_well_formed_is_understood_in_every_way_of_writing_it() {
    for (text, says) in WELL_FORMED {
        let message = Decoder::new(Dialect::V1, &tight()).decode(text);
        let understood = match &message {
            Err(reason) => panic!("{reason:?} for {text}"),
            Ok(InboundMessage::Open { key }) => Says::Open(key.as_str()),
            Ok(InboundMessage::OpenGenerated) => panic!("{text} has a key"),
            Ok(InboundMessage::Join { key }) => Says::Join(key.as_str()),
            Ok(InboundMessage::Data { to, kind, payload }) => {
                assert_eq!(payload.kind(), *kind);
                let to = match to {
                    Addressee::Unnamed => None,
                    Addressee::Index(index) => Some(index.get()),
                    Addressee::OutOfRange => Some(u32::MAX),
                    Addressee::Malformed => panic!("{text} closes its sender"),
                };
                Says::Send(to, *kind, payload.as_str())
            }
            Ok(InboundMessage::UnknownControl { .. }) => panic!("only the plain dialect has those: {text}"),
            Ok(InboundMessage::Kick { index }) => Says::Kick(index.map_or(u32::MAX, Index::get)),
            Ok(InboundMessage::Leave) => Says::Leave,
            Ok(InboundMessage::CloseKey) => Says::Close,
        };
        assert_eq!(understood, *says, "{text}");
    }
}

#[test]
fn open_without_key_asks_for_a_generated_one() {
    let open = Decoder::new(Dialect::V1, &Limits::default()).decode(r#"{"type":"open"}"#);
    assert_eq!(open, Ok(InboundMessage::OpenGenerated));
    let key = Key::from_random(0x00ab_cdef, &Limits::default());
    assert_eq!(
        key.as_ref().map(Key::as_str),
        Ok("00000000000000000000000000abcdef"),
        "128 bits are 32 digits"
    );
}

#[test]
fn hub_without_randomness_closes_the_sender() {
    let mut hub = Hub::new(Limits::default());
    let id = hub.connect(Time::ZERO, Dialect::V1.profile()).expect("no limit");
    let outputs = hub.handle(id, InboundMessage::OpenGenerated);
    assert_eq!(outputs, [(id, OutboundMessage::Close(CloseReason::Internal))]);
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
fn the_plain_dialect_makes_no_keys_and_kicks_nobody() {
    for text in [
        r#"{"type":"open"}"#,
        r#"{"type":"kick","index":0}"#,
        r#"{"type":"leave"}"#,
        r#"{"type":"close"}"#,
    ] {
        let message = Decoder::new(Dialect::Plain, &Limits::default()).decode(text);
        assert!(matches!(message, Ok(InboundMessage::Data { .. })), "{text}");
    }
}

#[test]
fn a_refusal_is_said_to_the_one_that_asked_and_harms_nobody() {
    for (who, text, code, beside) in REFUSALS {
        let mut scene = Scene::new();
        let before = scene.hub.stats();
        let heard = scene.say(*who, text);
        let [Seen::Frame(to, error)] = &heard[..] else {
            panic!("{who} says {text}: {heard:?}");
        };
        assert_eq!(to, who, "{text}");
        let start = format!(r#"{{"type":"error","code":"{code}","message":""#);
        let (message, end) = error
            .strip_prefix(&start)
            .and_then(|rest| rest.split_once('"'))
            .unwrap_or_else(|| panic!("{who} says {text}: {error}"));
        assert!(!message.is_empty());
        assert_eq!(end, format!("{beside}}}"), "{who} says {text}");

        let after = scene.hub.stats();
        assert_eq!(after.refused, before.refused + 1);
        let gauges = |stats: Stats| (stats.connections, stats.keys, stats.joiners, stats.closed);
        assert_eq!(gauges(after), gauges(before));
        scene.assert_as_at_first();
    }
}

#[test]
fn every_refusal_has_a_row() {
    for code in Refusal::NAMES {
        assert!(REFUSALS.iter().any(|(_, _, shown, _)| shown == code), "{code}");
    }
}

#[test]
fn data_from_v1_to_v1_is_any_value_to_the_byte() {
    for (data, _) in DATA {
        let mut scene = Scene::new();
        let send = format!(r#"{{"type":"send","data":{data}}}"#);
        let expected = format!(r#"{{"type":"data","index":0,"data":{data}}}"#);
        assert_eq!(scene.say('B', &send), [frame('A', &expected)]);
        let send = format!(r#"{{ "data" : {data} , "index" : "0" , "type" : "send" }}"#);
        let expected = format!(r#"{{"type":"data","data":{data}}}"#);
        assert_eq!(scene.say('A', &send), [frame('B', &expected)]);
    }
}

#[test]
fn data_from_v1_to_plain_is_the_whole_frame_and_only_an_object() {
    for (data, with_index) in DATA {
        let mut scene = Scene::new();
        let to_joiner = scene.say('A', &format!(r#"{{"type":"send","index":1,"data": {data} }}"#));
        let to_opener = scene.say('C', &format!(r#"{{"type":"send","data": {data} }}"#));
        match with_index {
            Some(with_index) => {
                assert_eq!(to_joiner, [frame('P', data)]);
                assert_eq!(to_opener, [frame('O', with_index)]);
            }
            None => {
                let no = "`data` is not one JSON object with at most one `index`, and a peer of the plain protocol takes nothing else";
                let no = format!(r#"{{"type":"error","code":"not-an-object","message":"{no}""#);
                assert_eq!(to_joiner, [frame('A', &format!(r#"{no},"index":1}}"#))]);
                assert_eq!(to_opener, [frame('C', &format!("{no}}}"))]);
            }
        }
        assert_eq!(scene.hub.stats().relayed, if with_index.is_some() { 2 } else { 0 });
    }
}

/// Found by `fuzz/targets/decode.rs`: the index that a joiner named took the place of its own, which was then not in the frame.
#[test]
fn a_joiner_that_names_an_index_speaks_for_itself_all_the_same() {
    for (data, with_index) in DATA {
        let mut scene = Scene::new();
        let heard = scene.say('C', &format!(r#"{{"type":"send","index":7,"data":{data}}}"#));
        match with_index {
            Some(with_index) => assert_eq!(heard, [frame('O', with_index)]),
            None => assert!(matches!(&heard[..], [Seen::Frame('C', _)])),
        }
    }
}

#[test]
fn a_plain_frame_is_data_in_v1_whole() {
    for text in [
        r#"{}"#,
        "\t{ \"index\" : 0 ,\r\n\"a\":1e400 } ",
        r#"{"type":"join","index":"0"}"#,
        r#"{"type":"offer","key":"\ud800","index":0,"data":[]}"#,
        r#"{"index":0,"data":1,"data":2}"#,
    ] {
        let mut scene = Scene::new();
        let expected = format!(r#"{{"type":"data","index":1,"data":{text}}}"#);
        assert_eq!(scene.say('P', text), [frame('A', &expected)]);
        if text.contains("index") {
            let expected = format!(r#"{{"type":"data","data":{text}}}"#);
            assert_eq!(scene.say('O', text), [frame('C', &expected)]);
        }
    }
}

#[test]
fn a_plain_frame_is_a_plain_frame_beside_v1_peers() {
    let mut scene = Scene::new();
    let text = r#"{"index":1,"a":[]}"#;
    assert_eq!(scene.say('O', text), [frame('Q', text)]);
    assert_eq!(scene.say('Q', r#"{"index":0}"#), [frame('O', r#"{"index":1}"#)]);
}

#[test]
fn what_reaches_nobody_costs_a_plain_opener_nothing_and_is_told_to_one_in_v1() {
    let mut scene = Scene::new();
    assert_eq!(scene.say('O', r#"{"index":7}"#), []);
    let told = scene.say('A', r#"{"type":"send","index":7,"data":{}}"#);
    assert!(
        matches!(&told[..], [Seen::Frame('A', error)] if error.contains("unknown-index")),
        "{told:?}"
    );
    assert_eq!((scene.hub.stats().dropped, scene.hub.stats().refused), (2, 2));
}

#[test]
fn a_kick_ends_a_v1_joiners_role_and_closes_a_plain_one() {
    let mut scene = Scene::new();
    let closed = r#"{"type":"closed","code":"kicked"}"#;
    assert_eq!(
        scene.say('A', r#"{"type":"kick","index":0}"#),
        [frame('B', closed), frame('A', r#"{"type":"leave","index":0}"#)]
    );
    assert_eq!(
        scene.say('A', r#"{"type":"kick","index":"1"}"#),
        [
            close('P', CloseReason::Kicked),
            frame('A', r#"{"type":"leave","index":1}"#)
        ]
    );
    // Who was kicked and stays may come again, and is another joiner then.
    assert_eq!(
        scene.say('B', r#"{"type":"join","key":"tea"}"#),
        [
            frame('B', r#"{"type":"joined","index":2}"#),
            frame('A', r#"{"type":"join","index":2}"#)
        ]
    );
    let error = scene.say('A', r#"{"type":"kick","index":0}"#);
    assert!(
        matches!(&error[..], [Seen::Frame('A', error)] if error.contains("unknown-index")),
        "{error:?}"
    );
}

#[test]
fn whoever_leaves_hears_nothing_of_it_and_can_take_any_role() {
    let mut scene = Scene::new();
    assert_eq!(
        scene.say('B', r#"{"type":"leave"}"#),
        [frame('A', r#"{"type":"leave","index":0}"#)]
    );
    assert_eq!(
        scene.say('C', r#"{"type":"leave"}"#),
        [],
        "the plain protocol has no words for it"
    );
    assert_eq!(
        scene.say('B', r#"{"type":"open","key":"pot"}"#),
        [frame('B', r#"{"type":"opened","key":"pot"}"#)]
    );
    assert_eq!(
        scene.say('C', r#"{"type":"join","key":"pot"}"#),
        [
            frame('C', r#"{"type":"joined","index":0}"#),
            frame('B', r#"{"type":"join","index":0}"#)
        ]
    );
    assert_eq!(
        scene.say('C', r#"{"type":"send","data":1}"#),
        [frame('B', r#"{"type":"data","index":0,"data":1}"#)],
        "a joiner of the new key, and of that alone"
    );
}

#[test]
fn a_key_that_is_closed_is_free_at_once_and_its_joiners_are_told_in_their_own_words() {
    let mut scene = Scene::new();
    assert_eq!(
        scene.say('A', r#"{"type":"close"}"#),
        [
            frame('B', r#"{"type":"closed","code":"opener-left"}"#),
            close('P', CloseReason::OpenerLeft),
        ]
    );
    assert_eq!(
        scene.say('B', r#"{"type":"open","key":"tea"}"#),
        [frame('B', r#"{"type":"opened","key":"tea"}"#)],
        "who was its joiner can be its opener"
    );
    assert_eq!(
        scene.say('A', r#"{"type":"join","key":"tea"}"#),
        [
            frame('A', r#"{"type":"joined","index":0}"#),
            frame('B', r#"{"type":"join","index":0}"#)
        ],
        "and who was its opener can be its joiner"
    );
}

#[test]
fn a_key_that_is_opened_anew_counts_from_0_and_knows_nobody_of_before() {
    let mut scene = Scene::new();
    let _ = scene.say('A', r#"{"type":"close"}"#);
    assert_eq!(
        scene.say('A', r#"{"type":"open","key":"tea"}"#),
        [frame('A', r#"{"type":"opened","key":"tea"}"#)]
    );
    for text in [r#"{"type":"send","index":0,"data":1}"#, r#"{"type":"kick","index":0}"#] {
        let error = scene.say('A', text);
        assert!(
            matches!(&error[..], [Seen::Frame('A', error)] if error.contains("unknown-index")),
            "{error:?}"
        );
    }
    let error = scene.say('B', r#"{"type":"send","data":1}"#);
    assert!(
        matches!(&error[..], [Seen::Frame('B', error)] if error.contains("no-role")),
        "{error:?}"
    );
    assert_eq!(
        scene.say('S', r#"{"type":"join","key":"tea"}"#),
        [
            frame('S', r#"{"type":"joined","index":0}"#),
            frame('A', r#"{"type":"join","index":0}"#)
        ]
    );
}

#[test]
fn a_connection_that_ends_is_told_to_both_dialects_in_their_own_words() {
    let mut scene = Scene::new();
    assert_eq!(scene.end('P'), [frame('A', r#"{"type":"leave","index":1}"#)]);
    assert_eq!(scene.end('C'), []);
    assert_eq!(
        scene.end('A'),
        [frame('B', r#"{"type":"closed","code":"opener-left"}"#)]
    );
    assert_eq!(scene.end('O'), [close('Q', CloseReason::OpenerLeft)]);
    assert_eq!(
        scene.say('B', r#"{"type":"open","key":"cup"}"#),
        [frame('B', r#"{"type":"opened","key":"cup"}"#)]
    );
}

#[test]
fn the_deadline_ends_with_the_first_role_that_is_asked_for_and_does_not_come_back() {
    let mut scene = Scene::new();
    // S and T are the only ones that have not asked; the answer does not matter.
    let error = scene.say('S', r#"{"type":"join","key":"nobody's"}"#);
    assert!(
        matches!(&error[..], [Seen::Frame('S', error)] if error.contains("unknown-key")),
        "{error:?}"
    );
    let _ = scene.say('B', r#"{"type":"leave"}"#);
    let _ = scene.say('A', r#"{"type":"close"}"#);
    let late = scene.hub.handle_timeout(Time::from_duration(Duration::from_secs(60)));
    assert_eq!(scene.heard(late), [close('T', CloseReason::NoRoleInTime)]);
    assert_eq!(scene.hub.poll_timeout(), None);
}

#[test]
fn what_asks_for_no_role_does_not_end_the_deadline() {
    for text in [
        r#"{"type":"send","data":1}"#,
        r#"{"type":"leave"}"#,
        r#"{"type":"kick","index":0}"#,
    ] {
        let mut scene = Scene::new();
        let _ = scene.say('S', text);
        let late = scene.hub.handle_timeout(Time::from_duration(Duration::from_secs(60)));
        let expected = ['S', 'T'].map(|who| close(who, CloseReason::NoRoleInTime));
        assert_eq!(scene.heard(late), expected, "{text}");
    }
}

#[test]
fn close_is_a_close_frame_and_the_largest_index_is_written_whole() {
    let close = Dialect::V1.encode(OutboundMessage::Close(CloseReason::TooSlow));
    assert_eq!(close, Some(Frame::Close(CloseReason::TooSlow)));
    let index = Index::new(u32::MAX - 1);
    let notice = Dialect::V1.encode(OutboundMessage::PeerLeft { index });
    assert_eq!(
        notice,
        Some(Frame::Text(r#"{"type":"leave","index":4294967294}"#.into()))
    );
}

#[test]
fn the_dialect_is_the_first_that_is_offered() {
    use Dialect::{Plain, V1};

    for (offers, expected) in [
        (&[][..], (Plain, None)),
        (&["sigver.v1"], (V1, Some("sigver.v1"))),
        (&["sigver.plain"], (Plain, Some("sigver.plain"))),
        (&["sigver.v1", "sigver.plain"], (V1, Some("sigver.v1"))),
        (&["sigver.plain", "sigver.v1"], (Plain, Some("sigver.plain"))),
        (&["soap", "sigver.v1"], (V1, Some("sigver.v1"))),
        (&["soap", "mqtt"], (Plain, Some("soap"))),
        (&["Sigver.v1", "sigver.v2"], (Plain, Some("Sigver.v1"))),
    ] {
        assert_eq!(Dialect::negotiate(offers.iter().copied()), expected, "{offers:?}");
    }
}

/// What a client sees: a frame's text or a close.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Frame(char, String),
    Close(char, CloseReason),
}

fn frame(who: char, text: &str) -> Seen {
    Seen::Frame(who, text.to_owned())
}

fn close(who: char, reason: CloseReason) -> Seen {
    Seen::Close(who, reason)
}

/// Limits that the rows of [`MALFORMED`] and [`WELL_FORMED`] can meet.
fn tight() -> Limits {
    let mut limits = Limits::default();
    limits.key_bytes = 8;
    limits.message_bytes = 64;
    limits.depth = 3;
    limits
}

/// A hub with A, B, P, O, C, Q, S and T.
struct Scene {
    hub: Hub,
    limits: Limits,
    people: Vec<(char, Dialect, ConnId)>,
}

impl Scene {
    fn new() -> Self {
        Self::within(&Limits::default())
    }

    fn within(limits: &Limits) -> Self {
        let mut limits = limits.clone();
        limits.joiners_per_key = 2;
        let mut scene = Self {
            hub: Hub::new(limits.clone()),
            limits,
            people: Vec::new(),
        };
        for (who, dialect, text) in [
            ('A', Dialect::V1, r#"{"type":"open","key":"tea"}"#),
            ('B', Dialect::V1, r#"{"type":"join","key":"tea"}"#),
            ('P', Dialect::Plain, r#"{"type":"join","key":"tea"}"#),
            ('O', Dialect::Plain, r#"{"type":"open","key":"cup"}"#),
            ('C', Dialect::V1, r#"{"type":"join","key":"cup"}"#),
            ('Q', Dialect::Plain, r#"{"type":"join","key":"cup"}"#),
        ] {
            scene.connect(who, dialect);
            let _ = scene.say(who, text);
        }
        scene.connect('S', Dialect::V1);
        scene.connect('T', Dialect::Plain);
        scene
    }

    fn connect(&mut self, who: char, dialect: Dialect) {
        let id = self.hub.connect(Time::ZERO, dialect.profile());
        self.people.push((who, dialect, id.expect("there is a place for it")));
    }

    /// `who` says `text`; who sees what because of it.
    fn say(&mut self, who: char, text: &str) -> Vec<Seen> {
        let (dialect, id) = self.find(who);
        let outputs = match Decoder::new(dialect, &self.limits).decode(text) {
            Ok(message) => self.hub.handle(id, message),
            Err(reason) => self.hub.close(id, reason),
        };
        self.heard(outputs)
    }

    /// The connection of `who` is gone; who sees what because of it.
    fn end(&mut self, who: char) -> Vec<Seen> {
        let outputs = self.hub.disconnect(self.find(who).1);
        self.heard(outputs)
    }

    fn heard(&self, outputs: Vec<(ConnId, OutboundMessage)>) -> Vec<Seen> {
        self.hub.assert_invariants();
        let seen = outputs.into_iter().filter_map(|(to, message)| {
            let known = self.people.iter().find(|(_, _, id)| *id == to);
            let (who, dialect, _) = known.expect("outputs go to those who are there");
            match dialect.encode(message)? {
                Frame::Text(text) => Some(frame(*who, &text)),
                Frame::Close(reason) => Some(close(*who, reason)),
                other => panic!("a message is text or a close, not {other:?}"),
            }
        });
        seen.collect()
    }

    /// Everyone has the role that it had in the beginning, and S can have one.
    fn assert_as_at_first(&mut self) {
        for (index, joiner) in [(0, 'B'), (1, 'P')] {
            let send = format!(r#"{{"type":"send","index":{index},"data":{{}}}}"#);
            let heard = self.say('A', &send);
            assert!(matches!(heard[..], [Seen::Frame(to, _)] if to == joiner), "{heard:?}");
        }
        assert_eq!(
            self.say('C', r#"{"type":"send","data":{}}"#),
            [frame('O', r#"{"index":0}"#)]
        );
        assert_eq!(self.say('Q', "{}"), [frame('O', r#"{"index":1}"#)]);
        let opened = self.say('S', r#"{"type":"open","key":"pot"}"#);
        assert_eq!(opened, [frame('S', r#"{"type":"opened","key":"pot"}"#)]);
    }

    fn find(&self, who: char) -> (Dialect, ConnId) {
        let known = self.people.iter().find(|(name, _, _)| *name == who);
        let (_, dialect, id) = known.expect("one of the scene");
        (*dialect, *id)
    }
}
