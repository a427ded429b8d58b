//! Text messages that the endpoint decodes, and dialects.

use super::*;

#[test]
fn failing_random_source_closes_with_1011() {
    let mut server = default();
    server.endpoint = Endpoint::new(EndpointConfig::default(), || None);
    for text in [r#"{"type":"open"}"#, OPEN, r#"{"type":"meet","key":"tea"}"#] {
        let a = server.connect(V1);
        assert_eq!(server.text(a, text), [(a, "close 1011 Internal")]);
    }
    // Joiners and plain openers need no randomness.
    let (_, joiner) = server.pair(Plain, V1);
    assert_eq!(server.endpoint.role(joiner), Some(Role::Joiner));
}

#[test]
fn key_and_token_are_made_of_the_random_bits() {
    let mut server = default();
    let a = server.connect(V1);
    let opened =
        r#"{"type":"opened","key":"00000000000000000000000012345678","token":"00000000000000000000000012345679"}"#;
    assert_eq!(server.text(a, r#"{"type":"open"}"#), [(a, opened)]);
}

#[test]
fn text_that_does_not_decode_closes_with_its_reason_in_each_dialect() {
    let mut server = Server::new(|config| config.limits.message_bytes = 40);
    for dialect in [Plain, V1] {
        for (text, expected) in [
            ("{", "close 1007 InvalidJson"),
            ("[]", "close 1007 NotAnObject"),
            (&" ".repeat(41), "close 1009 TooBig"),
        ] {
            let a = server.connect(dialect);
            assert_eq!(server.text(a, text), [(a, expected)]);
        }
    }
}

#[test]
fn message_decoded_by_the_driver_is_handled_as_the_text() {
    let texts = [
        [
            (0, OPEN),
            (1, JOIN),
            (1, "{}"),
            (0, r#"{"index":0}"#),
            (0, r#"{"index":7}"#),
            (1, JOIN),
        ],
        [
            (0, OPEN),
            (1, JOIN),
            (1, r#"{"type":"send","data":[1]}"#),
            (0, r#"{"type":"send","index":0,"data":null}"#),
            (1, r#"{"type":"leave"}"#),
            (0, r#"{"type":"close"}"#),
        ],
    ];
    for (dialect, texts) in [Plain, V1].into_iter().zip(texts) {
        let [mut by_text, mut by_message] =
            [(); 2].map(|()| Server::new(|config| config.messages_per_second = NonZeroU32::new(1)));
        let [clients, same] = [&mut by_text, &mut by_message].map(|server| [(); 2].map(|()| server.connect(dialect)));
        assert_eq!(clients, same);
        for (who, text) in texts {
            let message = Decoder::new(dialect, &Limits::default())
                .decode(text)
                .expect("a message");
            let input = Input::Message {
                message,
                text_bytes: text.len(),
                wire_bytes: text.len(),
            };
            let outputs = format!("{:?}", by_text.text(clients[who], text));
            assert_eq!(
                format!("{:?}", by_message.input(clients[who], input)),
                outputs,
                "{text}"
            );
        }
        let counters = [by_text, by_message].map(|server| format!("{:?}", server.endpoint.counters()));
        assert_eq!(counters[0], counters[1]);
    }
}

#[test]
fn plain_and_v1_meet_under_one_key() {
    let mut server = default();
    let (opener, plain) = server.pair(V1, Plain);
    let data = server.text(plain, r#"{"a":1}"#);
    assert_eq!(data, [(opener, r#"{"type":"data","index":0,"data":{"a":1}}"#)]);
    let data = server.text(opener, r#"{"type":"send","index":0,"data":{"b":2}}"#);
    assert_eq!(data.of(plain).len(), 1);
    let refused = server.text(opener, r#"{"type":"send","index":0,"data":2}"#);
    assert!(refused.of(opener)[0].contains("not-an-object"));
}
