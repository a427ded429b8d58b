//! Data between both dialects.

use super::*;

/// Values of `data`, and what a plain opener receives from its joiner 0; `None` if it accepts no such value.
#[rustfmt::skip]
const DATA: &[(&str, Option<&str>)] = &[
    (r#"{}"#,                                    Some(r#"{"index":0}"#)),
    (r#"{ }"#,                                   Some(r#"{"index":0 }"#)),
    (r#"{"a":1}"#,                               Some(r#"{"a":1,"index":0}"#)),
    (r#"{ "a" : 1 }"#,                           Some(r#"{ "a" : 1,"index":0 }"#)),
    (r#"{"type":"send","data":{"index":1}}"#,    Some(r#"{"type":"send","data":{"index":1},"index":0}"#)),
    (r#"{"type":"open","key":"tea"}"#,           Some(r#"{"type":"open","key":"tea","index":0}"#)),
    // A joiner must not impersonate another.
    (r#"{"index":1}"#,                           Some(r#"{"index":0}"#)),
    (r#"{"\u0069ndex":"1","a":2}"#,              Some(r#"{"\u0069ndex":0,"a":2}"#)),
    // Order, repetition, numbers, escapes and lone surrogates are unchanged.
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
fn data_from_v1_to_v1_is_unchanged_for_any_value() {
    for (data, _) in DATA {
        let mut fixture = Fixture::new();
        let send = format!(r#"{{"type":"send","data":{data}}}"#);
        let expected = format!(r#"{{"type":"data","index":0,"data":{data}}}"#);
        assert_eq!(fixture.send('B', &send), [frame('A', &expected)]);
        let send = format!(r#"{{ "data" : {data} , "index" : "0" , "type" : "send" }}"#);
        let expected = format!(r#"{{"type":"data","data":{data}}}"#);
        assert_eq!(fixture.send('A', &send), [frame('B', &expected)]);
    }
}

#[test]
fn data_from_v1_to_plain_is_the_whole_text_and_must_be_an_object() {
    for (data, with_index) in DATA {
        let mut fixture = Fixture::new();
        let to_joiner = fixture.send('A', &format!(r#"{{"type":"send","index":1,"data": {data} }}"#));
        let to_opener = fixture.send('C', &format!(r#"{{"type":"send","data": {data} }}"#));
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
        assert_eq!(fixture.hub.stats().relayed, if with_index.is_some() { 2 } else { 0 });
    }
}

/// Found by `fuzz/targets/decode.rs`: the given index took the place of the joiner's own, which was then missing in the frame.
#[test]
fn index_from_a_v1_joiner_is_ignored() {
    for (data, with_index) in DATA {
        let mut fixture = Fixture::new();
        let received = fixture.send('C', &format!(r#"{{"type":"send","index":7,"data":{data}}}"#));
        match with_index {
            Some(with_index) => assert_eq!(received, [frame('O', with_index)]),
            None => assert!(matches!(&received[..], [Received::Frame('C', _)])),
        }
    }
}

#[test]
fn plain_text_to_v1_is_data_as_a_whole() {
    for text in [
        r#"{}"#,
        "\t{ \"index\" : 0 ,\r\n\"a\":1e400 } ",
        r#"{"type":"join","index":"0"}"#,
        r#"{"type":"offer","key":"\ud800","index":0,"data":[]}"#,
        r#"{"index":0,"data":1,"data":2}"#,
    ] {
        let mut fixture = Fixture::new();
        let expected = format!(r#"{{"type":"data","index":1,"data":{text}}}"#);
        assert_eq!(fixture.send('P', text), [frame('A', &expected)]);
        if text.contains("index") {
            let expected = format!(r#"{{"type":"data","data":{text}}}"#);
            assert_eq!(fixture.send('O', text), [frame('C', &expected)]);
        }
    }
}

#[test]
fn plain_peers_communicate_unchanged_beside_v1_peers() {
    let mut fixture = Fixture::new();
    let text = r#"{"index":1,"a":[]}"#;
    assert_eq!(fixture.send('O', text), [frame('Q', text)]);
    assert_eq!(fixture.send('Q', r#"{"index":0}"#), [frame('O', r#"{"index":1}"#)]);
}

#[test]
fn data_to_an_unknown_index_is_an_error_in_v1_and_ignored_in_plain() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.send('O', r#"{"index":7}"#), []);
    let notice = fixture.send('A', r#"{"type":"send","index":7,"data":{}}"#);
    assert!(
        matches!(&notice[..], [Received::Frame('A', error)] if error.contains("unknown-index")),
        "{notice:?}"
    );
    assert_eq!((fixture.hub.stats().dropped, fixture.hub.stats().refused), (2, 2));
}
