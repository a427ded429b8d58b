//! The plain dialect on the bare codec and hub, as tables.
//!
//! Each row is played on a new [`Fixture`]: **A** has opened `tea`, **B** and **C** have joined it as 0 and 2, and joiner 1 has left. A key
//! may have two joiners. **S** has no role. The limits are low to keep the rows short.

use std::collections::BTreeSet;

use std::num::NonZeroU32;

use core::time::Duration;

use sigver_core::{
    CloseReason, ConnId, ConnectError, Decoder, Dialect, Disconnect, Frame, Hub, Index, Key, Limits, OutboundMessage,
    Refusal, Role, RoleEnd, Time,
};

/// Violations: the sender, its text, and the code and reason with which it alone is closed.
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

    // Nesting over the limit. The message itself is one level.
    ('B', r#"{"a":[[[[]]]]}"#,                       1007, "nesting over the limit"),
    ('B', r#"{"a":{"b":{"c":{"d":{}}}}}"#,           1007, "nesting over the limit"),
    ('A', r#"{"index":[[[[0]]]]}"#,                  1007, "nesting over the limit"),

    // A repeated `type`, `key` or `index`, from any role.
    ('S', r#"{"type":"open","key":"cup","type":"open"}"#, 1007, "`type` given more than once"),
    ('S', r#"{"type":"open","key":"cup","key":"cup"}"#,   1007, "`key` given more than once"),
    ('S', r#"{"type":"open","\u006bey":"c","key":"c"}"#,  1007, "`key` given more than once"),
    ('B', r#"{"index":0,"index":0}"#,                1007, "`index` given more than once"),
    ('A', r#"{"index":0,"\u0069ndex":2}"#,           1007, "`index` given more than once"),

    // A control message with an invalid key, from any role.
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

    // Key taken, key unknown, too many joiners. Keys are compared after JSON decoding.
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

    // Over the size limit by one byte. The size is checked first.
    ('B', r#"{"a":"111111111111111111111111111111111111111111111111111111111"}"#, 1009, "message over the size limit"),
    ('B', r#"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["#, 1009, "message over the size limit"),
];

/// Spellings of an index, and the outcome of `{"index":…}` from an opener.
#[rustfmt::skip]
const INDEXES: &[(&str, Outcome)] = &[
    // An integer, or a string that is one after JSON decoding.
    ("0",                       Outcome::Delivered('B')),
    ("2",                       Outcome::Delivered('C')),
    (r#""0""#,                  Outcome::Delivered('B')),
    (r#""2""#,                  Outcome::Delivered('C')),
    (r#""\u0030""#,             Outcome::Delivered('B')),

    // No such joiner: gone, or never assigned. This is an ordinary race, and the opener keeps its joiners.
    ("1",                       Outcome::Dropped),
    (r#""1""#,                  Outcome::Dropped),
    ("3",                       Outcome::Dropped),
    ("10",                      Outcome::Dropped),
    ("4294967295",              Outcome::Dropped),
    ("4294967296",              Outcome::Dropped),
    ("4294967298",              Outcome::Dropped),
    ("18446744073709551615",    Outcome::Dropped),
    ("18446744073709551616",    Outcome::Dropped),
    (r#""18446744073709551616""#, Outcome::Dropped),
    ("100000000000000000000000000000000000000000", Outcome::Dropped),

    // Not of the form `0|[1-9][0-9]*`.
    (r#""00""#,                 Outcome::Closes("`index` is not a non-negative integer")),
    (r#""02""#,                 Outcome::Closes("`index` is not a non-negative integer")),
    ("-0",                      Outcome::Closes("`index` is not a non-negative integer")),
    (r#""-0""#,                 Outcome::Closes("`index` is not a non-negative integer")),
    ("-1",                      Outcome::Closes("`index` is not a non-negative integer")),
    (r#""+1""#,                 Outcome::Closes("`index` is not a non-negative integer")),
    ("0.0",                     Outcome::Closes("`index` is not a non-negative integer")),
    ("2.0",                     Outcome::Closes("`index` is not a non-negative integer")),
    ("1e0",                     Outcome::Closes("`index` is not a non-negative integer")),
    ("0E2",                     Outcome::Closes("`index` is not a non-negative integer")),
    (r#"" 0""#,                 Outcome::Closes("`index` is not a non-negative integer")),
    (r#""0 ""#,                 Outcome::Closes("`index` is not a non-negative integer")),
    (r#""0\u0000""#,            Outcome::Closes("`index` is not a non-negative integer")),
    (r#""""#,                   Outcome::Closes("`index` is not a non-negative integer")),
    (r#""push""#,               Outcome::Closes("`index` is not a non-negative integer")),
    (r#""0x0""#,                Outcome::Closes("`index` is not a non-negative integer")),
    (r#""٠""#,                  Outcome::Closes("`index` is not a non-negative integer")),
    (r#""\ud800""#,             Outcome::Closes("`index` is not a non-negative integer")),
    ("null",                    Outcome::Closes("`index` is not a non-negative integer")),
    ("true",                    Outcome::Closes("`index` is not a non-negative integer")),
    ("[0]",                     Outcome::Closes("`index` is not a non-negative integer")),
    (r#"{"0":0}"#,              Outcome::Closes("`index` is not a non-negative integer")),

    // Not JSON numbers.
    ("00",                      Outcome::Closes("text is not one JSON object: invalid JSON")),
    ("+1",                      Outcome::Closes("text is not one JSON object: invalid JSON")),
    ("0x0",                     Outcome::Closes("text is not one JSON object: invalid JSON")),
    (".0",                      Outcome::Closes("text is not one JSON object: invalid JSON")),
    ("NaN",                     Outcome::Closes("text is not one JSON object: invalid JSON")),
];

enum Outcome {
    /// This joiner receives it unchanged.
    Delivered(char),
    /// It is dropped, and no connection is closed.
    Dropped,
    /// The opener is closed with 1007 and this text.
    Closes(&'static str),
}

/// Texts of C, whose index is 2, and what A receives.
#[rustfmt::skip]
const TOWARDS_THE_OPENER: &[(&str, &str)] = &[
    // The index is added as the last member …
    (r#"{}"#,                                   r#"{"index":2}"#),
    (r#"{"a":1}"#,                              r#"{"a":1,"index":2}"#),
    (r#"{"type":"offer","sdp":"v=0\r\n"}"#,     r#"{"type":"offer","sdp":"v=0\r\n","index":2}"#),
    (" { } ",                                   " {\"index\":2 } "),
    ("\t{ \"a\" : 1 }\n",                       "\t{ \"a\" : 1,\"index\":2 }\n"),
    // … or replaces the value of an existing `index`, because a joiner must not impersonate another.
    (r#"{"index":0}"#,                          r#"{"index":2}"#),
    (r#"{"index":0,"a":1}"#,                    r#"{"index":2,"a":1}"#),
    (r#"{"a":1, "index" : "0" }"#,              r#"{"a":1, "index" : 2 }"#),
    (r#"{"\u0069ndex":-0.0e1,"a":1}"#,          r#"{"\u0069ndex":2,"a":1}"#),
    (r#"{"index":{"index":[0]}}"#,              r#"{"index":2}"#),
    (r#"{"index":null}"#,                       r#"{"index":2}"#),
    // Only the outermost object counts, and only the exact name.
    (r#"{"a":{"index":0}}"#,                    r#"{"a":{"index":0},"index":2}"#),
    (r#"{"Index":0,"a":"\"index\":0"}"#,        r#"{"Index":0,"a":"\"index\":0","index":2}"#),
    // Everything but control messages is data.
    (r#"{"type":"open"}"#,                      r#"{"type":"open","index":2}"#),
    (r#"{"key":"tea"}"#,                        r#"{"key":"tea","index":2}"#),
    (r#"{"type":"OPEN","key":"tea"}"#,          r#"{"type":"OPEN","key":"tea","index":2}"#),
    (r#"{"type":["join"],"key":""}"#,           r#"{"type":["join"],"key":"","index":2}"#),
    // Order, repetition, numbers, escapes and Unicode are unchanged.
    (r#"{"b":1,"a":2,"b":3}"#,                  r#"{"b":1,"a":2,"b":3,"index":2}"#),
    (r#"{"n":[9223372036854775808,1e400,1.0]}"#, r#"{"n":[9223372036854775808,1e400,1.0],"index":2}"#),
    (r#"{"n":-0,"m":1E+02}"#,                   r#"{"n":-0,"m":1E+02,"index":2}"#),
    (r#"{"\ud800":"\udfff\/\u0041"}"#,          r#"{"\ud800":"\udfff\/\u0041","index":2}"#),
    (r#"{"🫖":"\ud83e\uded6"}"#,                r#"{"🫖":"\ud83e\uded6","index":2}"#),
    // At the limits of depth and size. Brackets in strings do not nest.
    (r#"{"a":"[[[[{{{{\"[[[[","b\\":"[[[["}"#,   r#"{"a":"[[[[{{{{\"[[[[","b\\":"[[[[","index":2}"#),
    (r#"{"deep":[{"er":[]}]}"#,                 r#"{"deep":[{"er":[]}],"index":2}"#),
    (r#"{"a":"11111111111111111111111111111111111111111111111111111111"}"#, r#"{"a":"11111111111111111111111111111111111111111111111111111111","index":2}"#),
];

/// Texts of A that C receives unchanged.
const TOWARDS_A_JOINER: &[&str] = &[
    r#"{"index":2}"#,
    r#"{"index":"2"}"#,
    " { \"a\" : [ ] ,\t\"index\" : 2 }\r\n",
    r#"{"type":"answer","sdp":"v=0\r\n","index":2}"#,
    r#"{"\u0069ndex":"\u0032","a":1}"#,
    r#"{"b":1,"index":2,"a":2,"b":3}"#,
    r#"{"index":2,"n":[9223372036854775808,1e400,1.0,-0]}"#,
    r#"{"index":2,"\ud800":"\udfff\/\u0041","🫖":"\ud83e\uded6"}"#,
    // Not control messages: another `type`, or no `key`.
    r#"{"type":"offer","key":"tea","index":2}"#,
    r#"{"type":1,"key":"","index":2}"#,
    r#"{"type":"open","index":2}"#,
];

/// Texts with which S opens a free key, and another spelling of that key. There is no reply.
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

/// Every close code and text. They are stable: clients compare them.
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
    (1007, "`id` given more than once"),
    (1007, "`wait` given more than once"),
    (1007, "`token` given more than once"),
    (1007, "first message has a `key` but its `type` is neither open nor join"),
    (1007, "`type` is missing or none of sigver.v1"),
    (1007, "`key` is missing"),
    (1007, "`key` is not a string"),
    (1007, "`key` is empty"),
    (1007, "`key` over the length limit"),
    (1007, "`index` is not a non-negative integer"),
    (1007, "`index` is missing"),
    (1007, "`data` is missing"),
    (1007, "`wait` is not a non-negative integer"),
    (1007, "`token` is not a string of at most 64 bytes"),
    (1007, "`id` is not a string of 1 to 64 bytes"),
    (1008, "no open or join in time"),
    (1008, "first message must contain `type` and `key`: data before open or join"),
    (1008, "second open or join: one role and one key for life"),
    (1008, "key is taken"),
    (1008, "key is unknown"),
    (1008, "not allowed"),
    (1008, "opener's message has no `index`"),
    (1008, "no sign of life"),
    (1009, "message over the size limit"),
    (1011, "internal error"),
    (1013, "too many joiners on the key"),
    (1013, "too many attempts at keys"),
    (1013, "reading too slowly"),
    (4001, "opener left"),
    (4003, "kicked by the opener"),
    (4004, "token expired"),
    (4005, "closed by the operator"),
];

/// Reasons of `sigver.v1` only.
const NOT_PLAIN: &[&str] = &[
    "`data` given more than once",
    "`id` given more than once",
    "`wait` given more than once",
    "`token` given more than once",
    "`type` is missing or none of sigver.v1",
    "`key` is missing",
    "`index` is missing",
    "`data` is missing",
    "`wait` is not a non-negative integer",
    "`token` is not a string of at most 64 bytes",
    "`id` is not a string of 1 to 64 bytes",
];

/// Reasons that no message of the closed connection causes: time, other connections, or what only an embedder detects.
const NOT_BY_A_MESSAGE: &[&str] = &[
    "not allowed",
    "token expired",
    "closed by the operator",
    "server shutting down",
    "broken WebSocket framing",
    "binary frame: only text is understood",
    "text is not valid UTF-8",
    "no open or join in time",
    "no sign of life",
    "internal error",
    "too many attempts at keys",
    "reading too slowly",
    "opener left",
    "kicked by the opener",
];

#[test]
fn violation_closes_its_sender_only() {
    for (who, text, code, reason) in ERRORS {
        let mut fixture = Fixture::new();
        let mut expected = vec![close(*who, *code, reason)];
        if *who == 'A' {
            expected.extend(['B', 'C'].map(|joiner| close(joiner, 4001, "opener left")));
        }
        assert_eq!(fixture.send(*who, text), expected, "{who} sends {text}");
        if *who != 'A' {
            let still = r#"{"index":2,"still":"here"}"#;
            assert_eq!(fixture.send('A', still), [frame('C', still)], "{who} sends {text}");
        }
    }
}

/// An endpoint would not read it before the outcome.
#[test]
fn message_behind_a_join_ends_its_grace_in_a_bare_hub() {
    let mut hub = Hub::new(Limits::default());
    let [opener, joiner] = [(); 2].map(|()| hub.connect(Time::ZERO, Dialect::Plain.profile()).expect("a connection"));
    let decoder = Decoder::new(Dialect::Plain, &Limits::default());
    let mut handle = |id, text| hub.handle(Time::ZERO, id, decoder.decode(text).expect("a message"));
    assert!(
        matches!(handle(joiner, r#"{"type":"join","key":"tea"}"#)[..], [(to, OutboundMessage::Waiting { .. })] if to == joiner)
    );
    let closed = handle(joiner, r#"{"data":1}"#);
    assert!(matches!(closed[..], [(to, OutboundMessage::Close(CloseReason::UnknownKey))] if to == joiner));
    assert!(
        matches!(handle(opener, r#"{"type":"open","key":"tea"}"#)[..], [(to, OutboundMessage::Opened { .. })] if to == opener)
    );
    assert_eq!(hub.poll_timeout(), None, "nothing waits");
}

#[test]
fn index_is_an_integer_or_a_string_of_one() {
    for (index, outcome) in INDEXES {
        let mut fixture = Fixture::new();
        let text = format!(r#"{{"index":{index}}}"#);
        let received = fixture.send('A', &text);
        let dropped = fixture.hub.stats().dropped;
        match outcome {
            Outcome::Delivered(who) => assert_eq!((received, dropped), (vec![frame(*who, &text)], 0), "{text}"),
            Outcome::Dropped => assert_eq!((received, dropped), (vec![], 1), "{text}"),
            Outcome::Closes(reason) => assert_eq!(received.first(), Some(&close('A', 1007, reason)), "{text}"),
        }
    }
}

#[test]
fn index_from_a_joiner_is_replaced_even_if_malformed() {
    for (index, outcome) in INDEXES {
        let text = format!(r#"{{"index":{index}}}"#);
        let expected = match outcome {
            Outcome::Closes(reason) if reason.contains("invalid JSON") => close('C', 1007, reason),
            _ => frame('A', r#"{"index":2}"#),
        };
        assert_eq!(Fixture::new().send('C', &text), [expected], "{text}");
    }
}

#[test]
fn opener_receives_data_with_the_index_of_the_joiner() {
    for (text, expected) in TOWARDS_THE_OPENER {
        assert_eq!(Fixture::new().send('C', text), [frame('A', expected)], "{text}");
    }
}

#[test]
fn joiner_receives_data_unchanged() {
    for text in TOWARDS_A_JOINER {
        assert_eq!(Fixture::new().send('A', text), [frame('C', text)]);
    }
}

#[test]
fn open_and_join_have_no_reply_and_the_opener_is_notified() {
    for (text, key) in OPENS {
        let mut fixture = Fixture::new();
        assert_eq!(fixture.send('S', text), [], "{text}");
        for (joiner, number) in [('X', 0), ('Y', 1)] {
            fixture.connect(joiner);
            let join = format!(r#"{{"type":"join","key":"{key}"}}"#);
            assert_eq!(
                fixture.send(joiner, &join),
                [frame('S', r#"{"type":"join"}"#)],
                "{text}"
            );
            let expected = format!(r#"{{"index":{number}}}"#);
            assert_eq!(fixture.send(joiner, "{}"), [frame('S', &expected)], "{text}");
        }
    }
}

#[test]
fn connection_without_a_role_is_closed_at_the_deadline() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.hub.poll_timeout(), Some(at(60)));
    let early = fixture
        .hub
        .handle_timeout(Time::from_duration(Duration::from_nanos(59_999_999_999)));
    assert_eq!(fixture.encode(early), []);
    let late = fixture.hub.handle_timeout(at(60));
    assert_eq!(fixture.encode(late), [close('S', 1008, "no open or join in time")]);
}

#[test]
fn shutdown_closes_every_connection() {
    let mut fixture = Fixture::new();
    let outputs = fixture.hub.shutdown();
    let mut received = fixture.encode(outputs);
    received.sort();
    let expected = ['A', 'B', 'C', 'S'].map(|who| close(who, 1001, "server shutting down"));
    assert_eq!(received, expected);
    assert_eq!(
        fixture.hub.connect(Time::ZERO, Dialect::Plain.profile()),
        Err(ConnectError::ShuttingDown)
    );
}

#[test]
fn connection_over_the_limit_is_refused_until_one_closes() {
    let mut fixture = Fixture::new();
    fixture.connect('X');
    fixture.connect('Y');
    assert_eq!(
        fixture.hub.connect(Time::ZERO, Dialect::Plain.profile()),
        Err(ConnectError::TooManyConnections)
    );
    let _ = fixture.send('X', "no JSON");
    fixture.connect('Z');
}

#[test]
fn leave_is_not_notified_and_the_end_of_the_opener_closes_its_joiners() {
    let mut fixture = Fixture::new();
    let outputs = fixture.hub.disconnect(Time::ZERO, fixture.id('B'), Disconnect::Lost);
    assert_eq!(fixture.encode(outputs), []);
    let outputs = fixture.hub.disconnect(Time::ZERO, fixture.id('A'), Disconnect::Lost);
    assert_eq!(fixture.encode(outputs), [close('C', 4001, "opener left")]);
    assert_eq!(
        fixture.send('S', r#"{"type":"open","key":"tea"}"#),
        [],
        "the key is free at once"
    );
}

#[test]
fn nesting_limit_is_exact_in_texts_of_any_length() {
    let limits = Limits::default();
    let depth = limits.depth as usize;
    let lengths = || (0..600).step_by(7).chain([60_000]);
    for filler in lengths().flat_map(|length| ["[".repeat(length), "a".repeat(length)]) {
        let error = |depth: usize| {
            let (open, close) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
            let text = format!(r#"{{"filler":"{filler}","brackets":{open}{close}}}"#);
            Decoder::new(Dialect::Plain, &limits).decode(&text).err()
        };
        assert_eq!(error(depth), None, "{} bytes more", filler.len());
        let deeper = error(depth + 1);
        assert_eq!(deeper, Some(CloseReason::TooDeep), "{} bytes more", filler.len());
    }
    let endless = "[".repeat(limits.message_bytes as usize);
    assert_eq!(
        Decoder::new(Dialect::Plain, &limits).decode(&endless).err(),
        Some(CloseReason::TooDeep)
    );
}

#[test]
fn close_codes_and_texts_are_stable() {
    let all: BTreeSet<(u16, String)> = CloseReason::ALL
        .iter()
        .map(|reason| (reason.code(), reason.to_string()))
        .collect();
    assert_eq!(all.len(), CloseReason::ALL.len());
    let expected: BTreeSet<(u16, String)> = CODES.iter().map(|(code, text)| (*code, (*text).to_owned())).collect();
    assert_eq!(all, expected);
}

#[test]
fn every_close_reason_has_a_row() {
    let rows = ERRORS.iter().map(|(_, _, _, reason)| *reason);
    let outcomes = INDEXES.iter().filter_map(|(_, outcome)| match outcome {
        Outcome::Closes(reason) => Some(*reason),
        Outcome::Delivered(_) | Outcome::Dropped => None,
    });
    let others = NOT_PLAIN.iter().chain(NOT_BY_A_MESSAGE).copied();
    let shown: Vec<&str> = rows.chain(outcomes).chain(others).collect();
    for (code, text) in CODES {
        assert!(shown.contains(text), "{code} {text}");
    }
}

#[test]
fn plain_encodes_joins_and_closes_and_no_other_notice() {
    let index = Index::new(0);
    let key = Key::new("tea", &Limits::default()).expect("a legal key");
    for message in [
        OutboundMessage::Opened {
            key: key.clone(),
            token: None,
            joiners: Vec::new(),
        },
        OutboundMessage::Reopened { id: None },
        OutboundMessage::Waiting {
            key,
            wait: Duration::ZERO,
        },
        OutboundMessage::Joined { index, id: None },
        OutboundMessage::Pong,
        OutboundMessage::PeerLeft { index },
        OutboundMessage::Refused(Refusal::UnknownIndex { index: Some(index) }),
        OutboundMessage::RoleEnded(RoleEnd::OpenerLeft),
    ] {
        assert_eq!(Dialect::Plain.encode(message), None);
    }
    let last = Dialect::Plain.encode(OutboundMessage::Close(CloseReason::TooSlow));
    assert_eq!(last, Some(Frame::Close(CloseReason::TooSlow)));
    let notice = Dialect::Plain.encode(OutboundMessage::PeerJoined { index, id: None });
    assert_eq!(notice, Some(Frame::Text(r#"{"type":"join"}"#.into())));
}

/// What a client receives: a text frame or a close.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Received {
    Frame(char, String),
    Close(char, u16, String),
}

fn frame(who: char, text: &str) -> Received {
    Received::Frame(who, text.to_owned())
}

fn close(who: char, code: u16, reason: &str) -> Received {
    Received::Close(who, code, reason.to_owned())
}

fn at(seconds: u64) -> Time {
    Time::from_duration(Duration::from_secs(seconds))
}

/// A hub with the connections A, B, C and S.
struct Fixture {
    hub: Hub,
    limits: Limits,
    ids: Vec<(char, ConnId)>,
}

impl Fixture {
    fn new() -> Self {
        let mut limits = Limits::default();
        limits.connections = NonZeroU32::new(6);
        limits.joiners_per_key = 2;
        limits.key_bytes = 8;
        limits.message_bytes = 64;
        limits.depth = 4;
        let mut fixture = Self {
            hub: Hub::new(limits.clone()),
            limits,
            ids: Vec::new(),
        };
        fixture.connect('A');
        assert_eq!(fixture.send('A', r#"{"type":"open","key":"tea"}"#), []);
        for joiner in ['B', 'G', 'C'] {
            fixture.connect(joiner);
            let notice = fixture.send(joiner, r#"{"type":"join","key":"tea"}"#);
            assert_eq!(notice, [frame('A', r#"{"type":"join"}"#)]);
            if joiner == 'G' {
                let outputs = fixture.hub.disconnect(Time::ZERO, fixture.id('G'), Disconnect::Lost);
                assert_eq!(fixture.encode(outputs), []);
            }
        }
        fixture.connect('S');
        fixture
    }

    fn connect(&mut self, who: char) {
        let id = self.hub.connect(Time::ZERO, Dialect::Plain.profile());
        self.ids.push((who, id.expect("within the limit")));
    }

    /// Sends `text` from `who`. Returns what the clients receive.
    /// Sends a message. The grace of a join passes at once.
    fn send(&mut self, who: char, text: &str) -> Vec<Received> {
        let id = self.id(who);
        let mut outputs = match Decoder::new(Dialect::Plain, &self.limits).decode(text) {
            Ok(message) => self.hub.handle(Time::ZERO, id, message),
            Err(reason) => self.hub.close(Time::ZERO, id, reason),
        };
        if self.hub.role(id) == Some(Role::Waiting) {
            outputs.extend(
                self.hub
                    .handle_timeout(Time::from_duration(self.limits.plain_join_grace)),
            );
        }
        self.encode(outputs)
    }

    fn encode(&self, outputs: Vec<(ConnId, OutboundMessage)>) -> Vec<Received> {
        let received = outputs.into_iter().filter_map(|(to, message)| {
            let who = self.ids.iter().find(|(_, id)| *id == to);
            let (who, _) = who.expect("outputs go to connected clients");
            match Dialect::Plain.encode(message)? {
                Frame::Text(text) => Some(Received::Frame(*who, text)),
                Frame::Close(reason) => Some(close(*who, reason.code(), &reason.to_string())),
                other => panic!("a message is text or a close, not {other:?}"),
            }
        });
        received.collect()
    }

    fn id(&self, who: char) -> ConnId {
        let found = self.ids.iter().find(|(name, _)| *name == who);
        found.expect("a client of the fixture").1
    }
}
