//! The plain protocol, said to the bare codec and hub, as tables to be read.
//!
//! Each row is played on a new [`Scene`]: **A** has opened `tea`, **B** and **C** have joined it as 0 and 2, and 1 is gone again;
//! two joiners are all that a key may have here. **S** has no role. Short limits keep the rows short.

use std::collections::BTreeSet;

use std::num::NonZeroU32;

use core::time::Duration;

use sigver_core::{
    CloseReason, ConnId, ConnectError, Decoder, Dialect, Frame, Hub, Index, Key, Limits, OutboundMessage, Refusal,
    RoleEnd, Time,
};

/// What breaks the protocol: who says what, and the code and text with which that connection is closed, and no other.
#[rustfmt::skip]
const ERRORS: &[(char, &str, u16, &str)] = &[
    // Text that is not one JSON object.
    ('S', r#""#,                                     1007, "text is not one JSON object: invalid JSON"),
    ('S', r#"open tea"#,                             1007, "text is not one JSON object: invalid JSON"),
    ('S', r#"{"type":"open","key":"cup"}{}"#,        1007, "text is not one JSON object: invalid JSON"),
    ('S', r#"{"type":"open","key":"cup",}"#,         1007, "text is not one JSON object: invalid JSON"),
    ('S', r#"{"type":"open","key":"cup""#,           1007, "text is not one JSON object: invalid JSON"),
    ('B', "{\"line\":\"\n\"}",                       1007, "text is not one JSON object: invalid JSON"),
    ('B', r#"{"escape":"\x"}"#,                      1007, "text is not one JSON object: invalid JSON"),
    ('B', "\u{feff}{}",                              1007, "text is not one JSON object: invalid JSON"),
    ('A', r#"{"index":0,'a':1}"#,                    1007, "text is not one JSON object: invalid JSON"),
    ('S', r#"[{"type":"open","key":"cup"}]"#,        1007, "text is not one JSON object: another JSON value"),
    ('S', r#""open""#,                               1007, "text is not one JSON object: another JSON value"),
    ('B', r#"null"#,                                 1007, "text is not one JSON object: another JSON value"),
    ('A', r#"0"#,                                    1007, "text is not one JSON object: another JSON value"),

    // Nesting over the limit, the message itself counted.
    ('B', r#"{"a":[[[[]]]]}"#,                       1007, "nesting over the limit"),
    ('B', r#"{"a":{"b":{"c":{"d":{}}}}}"#,           1007, "nesting over the limit"),
    ('A', r#"{"index":[[[[0]]]]}"#,                  1007, "nesting over the limit"),

    // A duplicated `type`, `key` or `index`, whoever says it.
    ('S', r#"{"type":"open","key":"cup","type":"open"}"#, 1007, "`type` given more than once"),
    ('S', r#"{"type":"open","key":"cup","key":"cup"}"#,   1007, "`key` given more than once"),
    ('S', r#"{"type":"open","\u006bey":"c","key":"c"}"#,  1007, "`key` given more than once"),
    ('B', r#"{"index":0,"index":0}"#,                1007, "`index` given more than once"),
    ('A', r#"{"index":0,"\u0069ndex":2}"#,           1007, "`index` given more than once"),

    // Control with a wrong key, whatever the role.
    ('S', r#"{"type":"open","key":1}"#,              1007, "`key` is not a string"),
    ('S', r#"{"type":"join","key":null}"#,           1007, "`key` is not a string"),
    ('S', r#"{"type":"join","key":["tea"]}"#,        1007, "`key` is not a string"),
    ('S', r#"{"type":"open","key":"\ud800"}"#,       1007, "`key` is not a string"),
    ('B', r#"{"type":"join","key":{}}"#,             1007, "`key` is not a string"),
    ('S', r#"{"type":"open","key":""}"#,             1007, "`key` is empty"),
    ('A', r#"{"type":"open","key":"","index":0}"#,   1007, "`key` is empty"),
    ('S', r#"{"type":"open","key":"123456789"}"#,    1007, "`key` over the length limit"),
    ('S', r#"{"type":"open","key":"ééééé"}"#,        1007, "`key` over the length limit"),
    ('B', r#"{"type":"join","key":"123456789"}"#,    1007, "`key` over the length limit"),

    // A first message with a key and another type.
    ('S', r#"{"type":"Open","key":"cup"}"#,          1007, "first message has a `key` but its `type` is neither open nor join"),
    ('S', r#"{"type":null,"key":"cup"}"#,            1007, "first message has a `key` but its `type` is neither open nor join"),
    ('S', r#"{"type":"offer","key":1,"index":0}"#,   1007, "first message has a `key` but its `type` is neither open nor join"),

    // Data before open or join.
    ('S', r#"{}"#,                                   1008, "first message must contain `type` and `key`: data before open or join"),
    ('S', r#"{"type":"open"}"#,                      1008, "first message must contain `type` and `key`: data before open or join"),
    ('S', r#"{"key":"tea"}"#,                        1008, "first message must contain `type` and `key`: data before open or join"),
    ('S', r#"{"index":"push"}"#,                     1008, "first message must contain `type` and `key`: data before open or join"),

    // Second open or join, even of the same key.
    ('A', r#"{"type":"open","key":"tea"}"#,          1008, "second open or join: one role and one key for life"),
    ('A', r#"{"type":"join","key":"cup","index":0}"#,1008, "second open or join: one role and one key for life"),
    ('B', r#"{"type":"join","key":"tea"}"#,          1008, "second open or join: one role and one key for life"),
    ('B', r#"{"type":"open","key":"cup"}"#,          1008, "second open or join: one role and one key for life"),

    // Key taken, key unknown, too many joiners. Keys are compared as they are, once decoded.
    ('S', r#"{"type":"open","key":"tea"}"#,          1008, "key is taken"),
    ('S', r#"{"type":"open","key":"\u0074ea"}"#,     1008, "key is taken"),
    ('S', r#"{"type":"join","key":"Tea"}"#,          1008, "key is unknown"),
    ('S', r#"{"type":"join","key":"tea "}"#,         1008, "key is unknown"),
    ('S', r#"{"type":"join","key":"tea"}"#,          1013, "too many joiners on the key"),

    // An opener's data without `index`.
    ('A', r#"{}"#,                                   1008, "opener's message has no `index`"),
    ('A', r#"{"type":"join"}"#,                      1008, "opener's message has no `index`"),
    ('A', r#"{"Index":0,"data":{"index":0}}"#,       1008, "opener's message has no `index`"),
    ('A', r#"{"type":"offer","key":"tea"}"#,         1008, "opener's message has no `index`"),

    // Over the size limit by one byte. The size is looked at first.
    ('B', r#"{"a":"111111111111111111111111111111111111111111111111111111111"}"#, 1009, "message over the size limit"),
    ('B', r#"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["#, 1009, "message over the size limit"),
];

/// Every way to spell an index that an opener may try, and what becomes of `{"index":…}`.
#[rustfmt::skip]
const INDEXES: &[(&str, Fate)] = &[
    // An integer, or a string that is one after JSON decoding.
    ("0",                       Fate::Reaches('B')),
    ("2",                       Fate::Reaches('C')),
    (r#""0""#,                  Fate::Reaches('B')),
    (r#""2""#,                  Fate::Reaches('C')),
    (r#""\u0030""#,             Fate::Reaches('B')),

    // It names nobody: gone, never assigned, never to be assigned. An ordinary race, which must not cost the opener its joiners.
    ("1",                       Fate::Dropped),
    (r#""1""#,                  Fate::Dropped),
    ("3",                       Fate::Dropped),
    ("10",                      Fate::Dropped),
    ("4294967295",              Fate::Dropped),
    ("4294967296",              Fate::Dropped),
    ("4294967298",              Fate::Dropped),
    ("18446744073709551615",    Fate::Dropped),
    ("18446744073709551616",    Fate::Dropped),
    (r#""18446744073709551616""#, Fate::Dropped),
    ("100000000000000000000000000000000000000000", Fate::Dropped),

    // Not in the form `0|[1-9][0-9]*`.
    (r#""00""#,                 Fate::Closes("`index` is not a non-negative integer")),
    (r#""02""#,                 Fate::Closes("`index` is not a non-negative integer")),
    ("-0",                      Fate::Closes("`index` is not a non-negative integer")),
    (r#""-0""#,                 Fate::Closes("`index` is not a non-negative integer")),
    ("-1",                      Fate::Closes("`index` is not a non-negative integer")),
    (r#""+1""#,                 Fate::Closes("`index` is not a non-negative integer")),
    ("0.0",                     Fate::Closes("`index` is not a non-negative integer")),
    ("2.0",                     Fate::Closes("`index` is not a non-negative integer")),
    ("1e0",                     Fate::Closes("`index` is not a non-negative integer")),
    ("0E2",                     Fate::Closes("`index` is not a non-negative integer")),
    (r#"" 0""#,                 Fate::Closes("`index` is not a non-negative integer")),
    (r#""0 ""#,                 Fate::Closes("`index` is not a non-negative integer")),
    (r#""0\u0000""#,            Fate::Closes("`index` is not a non-negative integer")),
    (r#""""#,                   Fate::Closes("`index` is not a non-negative integer")),
    (r#""push""#,               Fate::Closes("`index` is not a non-negative integer")),
    (r#""0x0""#,                Fate::Closes("`index` is not a non-negative integer")),
    (r#""٠""#,                  Fate::Closes("`index` is not a non-negative integer")),
    (r#""\ud800""#,             Fate::Closes("`index` is not a non-negative integer")),
    ("null",                    Fate::Closes("`index` is not a non-negative integer")),
    ("true",                    Fate::Closes("`index` is not a non-negative integer")),
    ("[0]",                     Fate::Closes("`index` is not a non-negative integer")),
    (r#"{"0":0}"#,              Fate::Closes("`index` is not a non-negative integer")),

    // JSON has no such numbers.
    ("00",                      Fate::Closes("text is not one JSON object: invalid JSON")),
    ("+1",                      Fate::Closes("text is not one JSON object: invalid JSON")),
    ("0x0",                     Fate::Closes("text is not one JSON object: invalid JSON")),
    (".0",                      Fate::Closes("text is not one JSON object: invalid JSON")),
    ("NaN",                     Fate::Closes("text is not one JSON object: invalid JSON")),
];

enum Fate {
    /// This joiner gets it as it is.
    Reaches(char),
    /// Nobody gets it, and nobody is closed.
    Dropped,
    /// The opener is closed with 1007 and this text.
    Closes(&'static str),
}

/// What C, whose index is 2, says and what A gets.
#[rustfmt::skip]
const TOWARDS_THE_OPENER: &[(&str, &str)] = &[
    // The index is added as the last attribute …
    (r#"{}"#,                                   r#"{"index":2}"#),
    (r#"{"a":1}"#,                              r#"{"a":1,"index":2}"#),
    (r#"{"type":"offer","sdp":"v=0\r\n"}"#,     r#"{"type":"offer","sdp":"v=0\r\n","index":2}"#),
    (" { } ",                                   " {\"index\":2 } "),
    ("\t{ \"a\" : 1 }\n",                       "\t{ \"a\" : 1,\"index\":2 }\n"),
    // … or replaces one of the joiner's own, which cannot speak for another, where it stands.
    (r#"{"index":0}"#,                          r#"{"index":2}"#),
    (r#"{"index":0,"a":1}"#,                    r#"{"index":2,"a":1}"#),
    (r#"{"a":1, "index" : "0" }"#,              r#"{"a":1, "index" : 2 }"#),
    (r#"{"\u0069ndex":-0.0e1,"a":1}"#,          r#"{"\u0069ndex":2,"a":1}"#),
    (r#"{"index":{"index":[0]}}"#,              r#"{"index":2}"#),
    (r#"{"index":null}"#,                       r#"{"index":2}"#),
    // Only the outermost counts, and only that name.
    (r#"{"a":{"index":0}}"#,                    r#"{"a":{"index":0},"index":2}"#),
    (r#"{"Index":0,"a":"\"index\":0"}"#,        r#"{"Index":0,"a":"\"index\":0","index":2}"#),
    // Whatever is not control is data.
    (r#"{"type":"open"}"#,                      r#"{"type":"open","index":2}"#),
    (r#"{"key":"tea"}"#,                        r#"{"key":"tea","index":2}"#),
    (r#"{"type":"OPEN","key":"tea"}"#,          r#"{"type":"OPEN","key":"tea","index":2}"#),
    (r#"{"type":["join"],"key":""}"#,           r#"{"type":["join"],"key":"","index":2}"#),
    // Order, repetition, numbers, escapes and Unicode stay as they are.
    (r#"{"b":1,"a":2,"b":3}"#,                  r#"{"b":1,"a":2,"b":3,"index":2}"#),
    (r#"{"n":[9223372036854775808,1e400,1.0]}"#, r#"{"n":[9223372036854775808,1e400,1.0],"index":2}"#),
    (r#"{"n":-0,"m":1E+02}"#,                   r#"{"n":-0,"m":1E+02,"index":2}"#),
    (r#"{"\ud800":"\udfff\/\u0041"}"#,          r#"{"\ud800":"\udfff\/\u0041","index":2}"#),
    (r#"{"🫖":"\ud83e\uded6"}"#,                r#"{"🫖":"\ud83e\uded6","index":2}"#),
    // As deep and as long as it may be. Brackets in strings do not nest.
    (r#"{"a":"[[[[{{{{\"[[[[","b\\":"[[[["}"#,   r#"{"a":"[[[[{{{{\"[[[[","b\\":"[[[[","index":2}"#),
    (r#"{"deep":[{"er":[]}]}"#,                 r#"{"deep":[{"er":[]}],"index":2}"#),
    (r#"{"a":"11111111111111111111111111111111111111111111111111111111"}"#, r#"{"a":"11111111111111111111111111111111111111111111111111111111","index":2}"#),
];

/// What A says and C gets, byte for byte.
const TOWARDS_A_JOINER: &[&str] = &[
    r#"{"index":2}"#,
    r#"{"index":"2"}"#,
    " { \"a\" : [ ] ,\t\"index\" : 2 }\r\n",
    r#"{"type":"answer","sdp":"v=0\r\n","index":2}"#,
    r#"{"\u0069ndex":"\u0032","a":1}"#,
    r#"{"b":1,"index":2,"a":2,"b":3}"#,
    r#"{"index":2,"n":[9223372036854775808,1e400,1.0,-0]}"#,
    r#"{"index":2,"\ud800":"\udfff\/\u0041","🫖":"\ud83e\uded6"}"#,
    // Not control: `type` is another, or `key` is missing.
    r#"{"type":"offer","key":"tea","index":2}"#,
    r#"{"type":1,"key":"","index":2}"#,
    r#"{"type":"open","index":2}"#,
];

/// What S says and becomes the opener of a key that was free; and how others name that key. It is not answered.
const OPENS: &[(&str, &str)] = &[
    (r#"{"type":"open","key":"cup"}"#, "cup"),
    (r#" { "key" : "cup" , "type" : "open" } "#, "cup"),
    (r#"{"\u0074ype":"op\u0065n","k\u0065y":"c\u0075p"}"#, "cup"),
    (r#"{"type":"open","key":"cup","index":"push","more":[1]}"#, "cup"),
    (r#"{"type":"open","key":"12345678"}"#, "12345678"),
    (r#"{"type":"open","key":"éééé"}"#, r"\u00e9é\u00E9é"),
    (r#"{"type":"open","key":"\ud83e\uded6"}"#, "🫖"),
    (r#"{"type":"open","key":"Tea"}"#, "Tea"),
    (r#"{"type":"open","key":" "}"#, r"\u0020"),
    (r#"{"type":"open","key":"\u0000"}"#, r"\u0000"),
];

/// Every close code and text there is. They are stable: clients compare them.
#[rustfmt::skip]
const CODES: &[(u16, &str)] = &[
    (1001, "server shutting down"),
    (1002, "broken WebSocket framing"),
    (1003, "binary frame: only text is understood"),
    (1007, "text is not valid UTF-8"),
    (1007, "text is not one JSON object: invalid JSON"),
    (1007, "text is not one JSON object: another JSON value"),
    (1007, "nesting over the limit"),
    (1007, "`type` given more than once"),
    (1007, "`key` given more than once"),
    (1007, "`index` given more than once"),
    (1007, "`data` given more than once"),
    (1007, "first message has a `key` but its `type` is neither open nor join"),
    (1007, "`type` is missing or none of sigver.v1"),
    (1007, "`key` is missing"),
    (1007, "`key` is not a string"),
    (1007, "`key` is empty"),
    (1007, "`key` over the length limit"),
    (1007, "`index` is not a non-negative integer"),
    (1007, "`index` is missing"),
    (1007, "`data` is missing"),
    (1008, "no open or join in time"),
    (1008, "first message must contain `type` and `key`: data before open or join"),
    (1008, "second open or join: one role and one key for life"),
    (1008, "key is taken"),
    (1008, "key is unknown"),
    (1008, "opener's message has no `index`"),
    (1008, "no sign of life"),
    (1009, "message over the size limit"),
    (1011, "internal error"),
    (1013, "too many joiners on the key"),
    (1013, "reading too slowly"),
    (4001, "opener left"),
    (4003, "kicked by the opener"),
];

/// Those that only `sigver.v1` has.
const NOT_PLAIN: &[&str] = &[
    "`data` given more than once",
    "`type` is missing or none of sigver.v1",
    "`key` is missing",
    "`index` is missing",
    "`data` is missing",
];

/// Those that no message of the closed connection's own brings about: time, others, or what only an embedder can see.
const NOT_BY_A_MESSAGE: &[&str] = &[
    "server shutting down",
    "broken WebSocket framing",
    "binary frame: only text is understood",
    "text is not valid UTF-8",
    "no open or join in time",
    "no sign of life",
    "internal error",
    "reading too slowly",
    "opener left",
    "kicked by the opener",
];

#[test]
fn errors_close_their_sender_and_nobody_else() {
    for (who, text, code, reason) in ERRORS {
        let mut scene = Scene::new();
        let mut expected = vec![close(*who, *code, reason)];
        if *who == 'A' {
            expected.extend(['B', 'C'].map(|joiner| close(joiner, 4001, "opener left")));
        }
        assert_eq!(scene.say(*who, text), expected, "{who} says {text}");
        if *who != 'A' {
            let still = r#"{"index":2,"still":"here"}"#;
            assert_eq!(scene.say('A', still), [frame('C', still)], "{who} says {text}");
        }
    }
}

#[test]
fn an_index_is_an_integer_or_a_string_that_is_one() {
    for (index, fate) in INDEXES {
        let mut scene = Scene::new();
        let text = format!(r#"{{"index":{index}}}"#);
        let heard = scene.say('A', &text);
        let dropped = scene.hub.stats().dropped;
        match fate {
            Fate::Reaches(who) => assert_eq!((heard, dropped), (vec![frame(*who, &text)], 0), "{text}"),
            Fate::Dropped => assert_eq!((heard, dropped), (vec![], 1), "{text}"),
            Fate::Closes(reason) => assert_eq!(heard.first(), Some(&close('A', 1007, reason)), "{text}"),
        }
    }
}

#[test]
fn an_index_that_is_no_index_means_nothing_from_a_joiner() {
    for (index, fate) in INDEXES {
        let text = format!(r#"{{"index":{index}}}"#);
        let expected = match fate {
            Fate::Closes(reason) if reason.contains("invalid JSON") => close('C', 1007, reason),
            _ => frame('A', r#"{"index":2}"#),
        };
        assert_eq!(Scene::new().say('C', &text), [expected], "{text}");
    }
}

#[test]
fn an_opener_gets_what_a_joiner_says_with_its_index() {
    for (text, expected) in TOWARDS_THE_OPENER {
        assert_eq!(Scene::new().say('C', text), [frame('A', expected)], "{text}");
    }
}

#[test]
fn a_joiner_gets_what_its_opener_says_unchanged() {
    for text in TOWARDS_A_JOINER {
        assert_eq!(Scene::new().say('A', text), [frame('C', text)]);
    }
}

#[test]
fn open_and_join_are_not_answered_and_the_opener_is_told_of_each_joiner() {
    for (text, key) in OPENS {
        let mut scene = Scene::new();
        assert_eq!(scene.say('S', text), [], "{text}");
        for (joiner, number) in [('X', 0), ('Y', 1)] {
            scene.connect(joiner);
            let join = format!(r#"{{"type":"join","key":"{key}"}}"#);
            assert_eq!(scene.say(joiner, &join), [frame('S', r#"{"type":"join"}"#)], "{text}");
            let expected = format!(r#"{{"index":{number}}}"#);
            assert_eq!(scene.say(joiner, "{}"), [frame('S', &expected)], "{text}");
        }
    }
}

#[test]
fn time_closes_those_without_a_role() {
    let mut scene = Scene::new();
    assert_eq!(scene.hub.poll_timeout(), Some(at(60)));
    let early = scene
        .hub
        .handle_timeout(Time::from_duration(Duration::from_nanos(59_999_999_999)));
    assert_eq!(scene.heard(early), []);
    let late = scene.hub.handle_timeout(at(60));
    assert_eq!(scene.heard(late), [close('S', 1008, "no open or join in time")]);
}

#[test]
fn shutdown_closes_everyone() {
    let mut scene = Scene::new();
    let outputs = scene.hub.shutdown();
    let mut heard = scene.heard(outputs);
    heard.sort();
    let expected = ['A', 'B', 'C', 'S'].map(|who| close(who, 1001, "server shutting down"));
    assert_eq!(heard, expected);
    assert_eq!(
        scene.hub.connect(Time::ZERO, Dialect::Plain.profile()),
        Err(ConnectError::ShuttingDown)
    );
}

#[test]
fn connections_over_the_cap_are_refused_and_closed_ones_do_not_count() {
    let mut scene = Scene::new();
    scene.connect('X');
    scene.connect('Y');
    assert_eq!(
        scene.hub.connect(Time::ZERO, Dialect::Plain.profile()),
        Err(ConnectError::TooManyConnections)
    );
    let _ = scene.say('X', "no JSON");
    scene.connect('Z');
}

#[test]
fn the_opener_does_not_notice_that_a_joiner_goes_and_its_joiners_are_closed_when_it_goes() {
    let mut scene = Scene::new();
    let outputs = scene.hub.disconnect(scene.id('B'));
    assert_eq!(scene.heard(outputs), []);
    let outputs = scene.hub.disconnect(scene.id('A'));
    assert_eq!(scene.heard(outputs), [close('C', 4001, "opener left")]);
    assert_eq!(
        scene.say('S', r#"{"type":"open","key":"tea"}"#),
        [],
        "the key is free at once"
    );
}

#[test]
fn nesting_is_measured_in_texts_of_any_length() {
    let limits = Limits::default();
    let depth = limits.depth as usize;
    let lengths = || (0..600).step_by(7).chain([60_000]);
    for filler in lengths().flat_map(|length| ["[".repeat(length), "a".repeat(length)]) {
        let verdict = |depth: usize| {
            let (open, close) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
            let text = format!(r#"{{"filler":"{filler}","brackets":{open}{close}}}"#);
            Decoder::new(Dialect::Plain, &limits).decode(&text).err()
        };
        assert_eq!(verdict(depth), None, "{} bytes more", filler.len());
        let deeper = verdict(depth + 1);
        assert_eq!(deeper, Some(CloseReason::TooDeep), "{} bytes more", filler.len());
    }
    let endless = "[".repeat(limits.message_bytes as usize);
    assert_eq!(
        Decoder::new(Dialect::Plain, &limits).decode(&endless).err(),
        Some(CloseReason::TooDeep)
    );
}

#[test]
fn codes_and_texts_are_stable() {
    let all: BTreeSet<(u16, String)> = CloseReason::ALL
        .iter()
        .map(|reason| (reason.code(), reason.to_string()))
        .collect();
    assert_eq!(all.len(), CloseReason::ALL.len());
    let expected: BTreeSet<(u16, String)> = CODES.iter().map(|(code, text)| (*code, (*text).to_owned())).collect();
    assert_eq!(all, expected);
}

#[test]
fn every_reason_has_a_row() {
    let rows = ERRORS.iter().map(|(_, _, _, reason)| *reason);
    let fates = INDEXES.iter().filter_map(|(_, fate)| match fate {
        Fate::Closes(reason) => Some(*reason),
        Fate::Reaches(_) | Fate::Dropped => None,
    });
    let others = NOT_PLAIN.iter().chain(NOT_BY_A_MESSAGE).copied();
    let shown: Vec<&str> = rows.chain(fates).chain(others).collect();
    for (code, text) in CODES {
        assert!(shown.contains(text), "{code} {text}");
    }
}

#[test]
fn what_plain_has_no_words_for_is_not_sent_and_text_is_appended() {
    let index = Index::new(0);
    let key = Key::new("tea", &Limits::default()).expect("a legal key");
    for message in [
        OutboundMessage::Opened { key },
        OutboundMessage::Joined { index },
        OutboundMessage::PeerLeft { index },
        OutboundMessage::Refused(Refusal::UnknownIndex { index: Some(index) }),
        OutboundMessage::RoleEnded(RoleEnd::OpenerLeft),
    ] {
        assert_eq!(Dialect::Plain.encode(message), None);
    }
    let last = Dialect::Plain.encode(OutboundMessage::Close(CloseReason::TooSlow));
    assert_eq!(last, Some(Frame::Close(CloseReason::TooSlow)));
    let notice = Dialect::Plain.encode(OutboundMessage::PeerJoined { index });
    assert_eq!(notice, Some(Frame::Text(r#"{"type":"join"}"#.into())));
}

/// What a client sees: a frame's text or a close.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    Frame(char, String),
    Close(char, u16, String),
}

fn frame(who: char, text: &str) -> Seen {
    Seen::Frame(who, text.to_owned())
}

fn close(who: char, code: u16, reason: &str) -> Seen {
    Seen::Close(who, code, reason.to_owned())
}

fn at(seconds: u64) -> Time {
    Time::from_duration(Duration::from_secs(seconds))
}

/// A hub with A, B, C and S.
struct Scene {
    hub: Hub,
    limits: Limits,
    ids: Vec<(char, ConnId)>,
}

impl Scene {
    fn new() -> Self {
        let mut limits = Limits::default();
        limits.connections = NonZeroU32::new(6);
        limits.joiners_per_key = 2;
        limits.key_bytes = 8;
        limits.message_bytes = 64;
        limits.depth = 4;
        let mut scene = Self {
            hub: Hub::new(limits.clone()),
            limits,
            ids: Vec::new(),
        };
        scene.connect('A');
        assert_eq!(scene.say('A', r#"{"type":"open","key":"tea"}"#), []);
        for joiner in ['B', 'G', 'C'] {
            scene.connect(joiner);
            let told = scene.say(joiner, r#"{"type":"join","key":"tea"}"#);
            assert_eq!(told, [frame('A', r#"{"type":"join"}"#)]);
            if joiner == 'G' {
                let outputs = scene.hub.disconnect(scene.id('G'));
                assert_eq!(scene.heard(outputs), []);
            }
        }
        scene.connect('S');
        scene
    }

    fn connect(&mut self, who: char) {
        let id = self.hub.connect(Time::ZERO, Dialect::Plain.profile());
        self.ids.push((who, id.expect("there is a place for it")));
    }

    /// `who` says `text`; who sees what because of it.
    fn say(&mut self, who: char, text: &str) -> Vec<Seen> {
        let id = self.id(who);
        let outputs = match Decoder::new(Dialect::Plain, &self.limits).decode(text) {
            Ok(message) => self.hub.handle(id, message),
            Err(reason) => self.hub.close(id, reason),
        };
        self.heard(outputs)
    }

    fn heard(&self, outputs: Vec<(ConnId, OutboundMessage)>) -> Vec<Seen> {
        let seen = outputs.into_iter().filter_map(|(to, message)| {
            let who = self.ids.iter().find(|(_, id)| *id == to);
            let (who, _) = who.expect("outputs go to those who are there");
            match Dialect::Plain.encode(message)? {
                Frame::Text(text) => Some(Seen::Frame(*who, text)),
                Frame::Close(reason) => Some(close(*who, reason.code(), &reason.to_string())),
                other => panic!("a message is text or a close, not {other:?}"),
            }
        });
        seen.collect()
    }

    fn id(&self, who: char) -> ConnId {
        let found = self.ids.iter().find(|(name, _)| *name == who);
        found.expect("one of the scene").1
    }
}
