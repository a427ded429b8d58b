//! Counters and stages of pairings.

use super::*;

fn stages(server: &Server) -> Vec<(String, u64)> {
    let counted = PairingStage::ALL.iter().zip(server.endpoint.counters().pairings);
    let counted = counted.filter(|(_, count)| *count > 0);
    counted.map(|(stage, count)| (stage.name().to_owned(), count)).collect()
}

fn refused(server: &Server) -> BTreeMap<&'static str, u64> {
    let counters = server.endpoint.counters();
    counters.refused.iter().filter(|(_, count)| *count > 0).collect()
}

fn named<const N: usize>(expected: [(&str, u64); N]) -> Vec<(String, u64)> {
    expected.map(|(name, count)| (name.to_owned(), count)).into()
}

#[test]
fn pairing_reaches_each_stage_once() {
    let mut server = default();
    let [opener, joiner] = [V1, Plain].map(|dialect| server.connect(dialect));
    server.text(opener, OPEN);
    assert_eq!(stages(&server), named([("opened", 1)]));
    server.text(joiner, JOIN);
    assert_eq!(stages(&server), named([("opened", 1), ("joined", 1)]));
    for _ in 0..2 {
        server.text(joiner, "{}");
    }
    let expected = named([("opened", 1), ("joined", 1), ("joiner-spoke", 1)]);
    assert_eq!(stages(&server), expected);
    for _ in 0..2 {
        server.text(opener, r#"{"type":"send","index":0,"data":{}}"#);
    }
    server.text(opener, r#"{"type":"kick","index":0}"#);
    let expected = named([
        ("opened", 1),
        ("joined", 1),
        ("joiner-spoke", 1),
        ("opener-spoke", 1),
        ("both-spoke", 1),
        ("ended-by-kick", 1),
    ]);
    assert_eq!(stages(&server), expected);
}

#[test]
fn pairing_ends_once_with_the_cause() {
    type End = fn(&mut Server, ConnId, ConnId);
    let ends: [(&str, End); 9] = [
        ("ended-by-joiner", |server, _, joiner| {
            drop(server.input(joiner, Input::Disconnected))
        }),
        ("ended-by-joiner", |server, _, joiner| {
            drop(server.input(joiner, Input::Close(None)))
        }),
        ("ended-by-joiner", |server, _, joiner| {
            drop(server.text(joiner, r#"{"type":"leave"}"#))
        }),
        ("ended-by-opener", |server, opener, _| {
            drop(server.input(opener, Input::Disconnected))
        }),
        ("ended-by-opener", |server, opener, _| {
            drop(server.input(opener, Input::Close(None)))
        }),
        ("ended-by-opener", |server, opener, _| {
            drop(server.text(opener, r#"{"type":"close"}"#))
        }),
        ("ended-by-kick", |server, opener, _| {
            drop(server.text(opener, r#"{"type":"kick","index":0}"#));
        }),
        ("ended-by-server", |server, _, joiner| {
            drop(server.input(joiner, Input::Binary))
        }),
        ("ended-by-server", |server, _, _| drop(server.close_all())),
    ];
    for (stage, end) in ends {
        let mut server = default();
        let (opener, joiner) = server.pair(V1, V1);
        end(&mut server, opener, joiner);
        let expected = named([("opened", 1), ("joined", 1), (stage, 1)]);
        assert_eq!(stages(&server), expected);
        server.input(joiner, Input::Disconnected);
        server.input(opener, Input::Disconnected);
        assert_eq!(stages(&server), expected, "nothing ends twice");
    }
}

#[test]
fn pairing_reports_messages_and_times_of_both_sides() {
    let mut server = default();
    let (opener, first) = server.pair(V1, V1);
    server.now = at(1_000);
    let second = server.connect(V1);
    server.text(second, JOIN);
    server.now = at(1_250);
    server.text(second, r#"{"type":"send","data":1}"#);
    server.text(first, r#"{"type":"send","data":1}"#);
    server.now = at(1_500);
    server.text(opener, r#"{"type":"send","index":1,"data":1}"#);
    server.now = at(2_000);
    let outputs = server.endpoint.handle(server.now, second, Input::Disconnected);
    let Some((to, Output::PairingEnded(pairing))) = outputs.into_iter().next() else {
        panic!("the pairing ends");
    };
    assert_eq!(to, second);
    assert_eq!(
        pairing.to_string(),
        "ended-by-joiner: 1 messages of the joiner (first after 0.250 s), 1 of the opener (first after 0.500 s), the last after 0.500 s, in 1.000 s"
    );
}

#[test]
fn joiner_that_joins_again_is_another_pairing() {
    let mut server = default();
    let (_, joiner) = server.pair(V1, V1);
    server.text(joiner, r#"{"type":"leave"}"#);
    server.text(joiner, JOIN);
    server.text(joiner, r#"{"type":"leave"}"#);
    let expected = named([("opened", 1), ("joined", 2), ("ended-by-joiner", 2)]);
    assert_eq!(stages(&server), expected);
}

#[test]
fn traffic_counts_texts_without_headers() {
    let mut server = default();
    let (opener, joiner) = server.pair(V1, Plain);
    server.text(joiner, "{}");
    server.input(opener, Input::Ping(b"not counted"));
    server.text(opener, "{");
    let counters = server.endpoint.counters();
    let received = OPEN.len() + JOIN.len() + "{}".len();
    let sent = [
        r#"{"type":"opened","key":"tea","token":"00000000000000000000000012345678"}"#,
        r#"{"type":"join","index":0}"#,
        r#"{"type":"data","index":0,"data":{}}"#,
    ]
    .concat()
    .len();
    let traffic = |bytes: usize| Traffic {
        messages: 3,
        bytes: bytes as u64,
    };
    assert_eq!((counters.received, counters.sent), (traffic(received), traffic(sent)));
    assert_eq!(
        (counters.hub.relayed, counters.hub.closed, counters.hub.connections),
        (1, 2, 0)
    );
}

#[test]
fn text_that_does_not_fit_into_the_write_buffer_is_not_counted_as_sent() {
    let mut server = Server::new(|config| config.backlog_bytes = 1);
    let (opener, joiner) = server.pair(Plain, Plain);
    server.stalled.insert(joiner);
    server.text(opener, r#"{"index":0}"#);
    let sent = server.endpoint.counters().sent;
    assert_eq!(sent.messages, 2, "the driver may discard the second");
    let outputs = server.text(opener, r#"{"index":0}"#);
    assert_eq!(outputs.of(joiner).last(), Some(&"close 1013 TooSlow"));
    assert_eq!(server.endpoint.counters().sent, sent);
}

#[test]
fn refusals_and_closes_are_counted_by_reason() {
    let mut server = Server::new(|config| config.backlog_bytes = 1);
    let (opener, joiner) = server.pair(V1, V1);
    for (who, text) in [
        (joiner, r#"{"type":"kick","index":0}"#),
        (opener, r#"{"type":"send","index":9,"data":1}"#),
        (joiner, JOIN),
    ] {
        server.text(who, text);
    }
    for dialect in [Plain, V1] {
        let a = server.connect(dialect);
        server.text(a, r#"{"type":"join","key":"coffee"}"#);
    }
    server.run_until(250);
    let a = server.connect(Plain);
    server.input(a, Input::Binary);
    server.stalled.insert(joiner);
    for _ in 0..2 {
        server.input(joiner, Input::Ping(b""));
    }
    let _ = server.close_all();
    let expected = [
        ("binary", 1),
        ("has-role", 1),
        ("too-slow", 1),
        ("unknown-index", 1),
        ("unknown-key", 2),
        ("wrong-role", 1),
    ];
    assert_eq!(refused(&server), BTreeMap::from(expected));
}
