//! Rate limits and pauses.

use std::num::NonZeroU32;

use super::*;

#[test]
fn message_over_a_second_s_worth_pauses_reading() {
    let mut server = Server::new(|config| config.messages_per_second = NonZeroU32::new(10));
    let a = server.connect(V1);
    for _ in 0..10 {
        assert_eq!(server.input(a, Input::Pong), []);
    }
    assert_eq!(server.input(a, Input::Pong), [(a, "pause until 100ms")]);
    assert_eq!(server.input(a, Input::Pong), [(a, "pause until 200ms")]);
    server.now = at(200);
    assert_eq!(server.input(a, Input::Pong), [(a, "pause until 300ms")]);
    server.now = at(1_299);
    for _ in 0..9 {
        assert_eq!(server.input(a, Input::Pong), []);
    }
    assert_eq!(
        server.input(a, Input::Pong),
        [(a, "pause until 1.3s")],
        "refilled but for 1 ms"
    );
    server.now = at(60_000);
    for _ in 0..10 {
        assert_eq!(server.input(a, Input::Pong), []);
    }
    assert_eq!(
        server.input(a, Input::Pong),
        [(a, "pause until 60.1s")],
        "an idle client saves up one second's worth"
    );
}

#[test]
fn texts_messages_pings_and_pongs_count() {
    let mut server = Server::new(|config| config.messages_per_second = NonZeroU32::new(1));
    for frame in FRAMES {
        let a = server.connect(V1);
        assert!(!server.input(a, Input::Pong).of(a).contains(&"pause until 1s"));
        assert_eq!(server.input(a, frame()).of(a).last(), Some(&"pause until 1s"));
    }
}

#[test]
fn bytes_over_a_second_s_worth_pause_reading() {
    let mut server = Server::new(|config| config.bytes_per_second = NonZeroU32::new(100));
    let text = format!(r#"{{"type":"leave","a":"{}"}}"#, "a".repeat(60 - 23));
    assert_eq!(text.len(), 60);
    let a = server.connect(V1);
    assert_eq!(server.text(a, &text).of(a).len(), 1);
    assert_eq!(server.text(a, &text).of(a)[1..], ["pause until 200ms"]);
    assert_eq!(
        server.input(a, Input::Ping(&[b'a'; 10])).of(a)[1..],
        ["pause until 300ms"]
    );
    assert_eq!(
        server.input(a, Input::Pong),
        [(a, "pause until 300ms")],
        "a pong counts as 0 bytes"
    );
    let message = Input::Message {
        message: InboundMessage::Leave,
        text_bytes: 1,
        wire_bytes: 70,
    };
    assert_eq!(server.input(a, message).of(a)[1..], ["pause until 1s"]);
}

#[test]
fn stricter_limit_counts() {
    let mut server = Server::new(|config| {
        config.messages_per_second = NonZeroU32::new(1);
        config.bytes_per_second = NonZeroU32::new(10);
    });
    let a = server.connect(V1);
    server.input(a, Input::Ping(&[b'a'; 30]));
    assert_eq!(server.input(a, Input::Pong), [(a, "pause until 2s")]);
    server.input(a, Input::Pong);
    assert_eq!(server.input(a, Input::Pong), [(a, "pause until 3s")]);
}

#[test]
fn each_client_has_its_own_budget_and_is_never_closed() {
    let mut server = Server::new(|config| config.messages_per_second = NonZeroU32::new(1));
    let (opener, busy) = server.pair(Plain, Plain);
    let idle = server.connect(Plain);
    for _ in 0..10_000 {
        let outputs = server.text(busy, "{}");
        assert_eq!(outputs.of(opener), [r#"{"index":0}"#]);
        assert!(outputs.of(busy)[0].starts_with("pause until"));
    }
    assert_eq!(server.input(idle, Input::Pong), []);
    assert_eq!(server.endpoint.role(busy), Some(Role::Joiner));
}

#[test]
fn connections_of_a_source_share_its_budget() {
    let mut server = Server::new(|config| config.messages_per_second_per_source = NonZeroU32::new(10));
    let mut connect = |client| server.connect_from(V1, client).expect("a connection");
    let [a, b, other] = ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"].map(&mut connect);
    for id in [a, b, a, b, a, b, a, b, a, b] {
        assert_eq!(server.input(id, Input::Pong), []);
    }
    assert_eq!(server.input(a, Input::Pong), [(a, "pause until 100ms")]);
    assert_eq!(server.input(b, Input::Pong), [(b, "pause until 200ms")]);
    assert_eq!(server.input(other, Input::Pong), []);
    server.now = at(100);
    assert_eq!(
        server.input(a, Input::Pong),
        [(a, "pause until 300ms")],
        "they take turns"
    );
    // New connections do not get a new budget.
    for id in [a, b] {
        server.input(id, Input::Disconnected);
    }
    let a = server.connect_from(V1, "2001:db8::3").expect("a connection");
    assert_eq!(server.input(a, Input::Pong), [(a, "pause until 400ms")]);
    server.now = at(1_400);
    for _ in 0..10 {
        assert_eq!(server.input(a, Input::Pong), []);
    }
    assert_eq!(server.input(a, Input::Pong), [(a, "pause until 1.5s")]);
}

#[test]
fn new_connection_of_a_source_over_its_rate_is_paused_from_the_start() {
    let mut server = Server::new(|config| config.messages_per_second_per_source = NonZeroU32::new(10));
    let a = server.connect(V1);
    for _ in 0..15 {
        server.input(a, Input::Pong);
    }
    server.input(a, Input::Disconnected);
    let again = server.connect(V1);
    assert_eq!(server.endpoint.paused_until(server.now, again), Some(at(500)));
    let other = server.connect_from(V1, "192.0.2.99").expect("there is room");
    assert_eq!(server.endpoint.paused_until(server.now, other), None);
    server.now = at(500);
    assert_eq!(server.endpoint.paused_until(server.now, again), None);
    assert_eq!(server.endpoint.paused_until(server.now, a), None, "it is gone");
}

#[test]
fn every_message_counts_against_the_source() {
    for frame in FRAMES {
        let mut server = Server::new(|config| config.messages_per_second_per_source = NonZeroU32::new(1));
        let a = server.connect(V1);
        assert!(!server.input(a, frame()).of(a).contains(&"pause until 1s"));
        let b = server.connect(V1);
        assert_eq!(server.input(b, frame()).of(b).last(), Some(&"pause until 1s"));
    }
}

#[test]
fn stricter_of_connection_and_source_counts() {
    let mut server = Server::new(|config| {
        config.messages_per_second = NonZeroU32::new(2);
        config.messages_per_second_per_source = NonZeroU32::new(4);
    });
    let (a, b, c) = (server.connect(V1), server.connect(V1), server.connect(V1));
    for id in [a, a, b] {
        assert_eq!(server.input(id, Input::Pong), []);
    }
    assert_eq!(server.input(a, Input::Pong), [(a, "pause until 500ms")]);
    assert_eq!(server.input(c, Input::Pong), [(c, "pause until 250ms")]);
}

#[test]
fn unlimited_rates_never_pause() {
    let mut server = Server::new(|config| {
        config.messages_per_second = None;
        config.bytes_per_second = None;
        assert_eq!(config.messages_per_second_per_source, None, "by default");
    });
    let a = server.connect(V1);
    for _ in 0..10_000 {
        assert_eq!(server.input(a, Input::Ping(&[b'a'; 125])).of(a).len(), 1);
    }
}

#[test]
fn closed_client_is_not_paused() {
    let mut server = Server::new(|config| config.messages_per_second = NonZeroU32::new(1));
    let a = server.connect(Plain);
    server.input(a, Input::Pong);
    assert_eq!(server.text(a, "{}"), [(a, "close 1008 NoRole")]);
}

/// Each takeover notifies all joiners, and two connections can take the key from each other for ever.
#[test]
fn takeover_counts_as_the_messages_that_it_causes() {
    let mut server = Server::new(|config| {
        config.keep_alive = Duration::MAX;
        config.messages_per_second = NonZeroU32::new(100);
    });
    let [opener, next] = [V1; 2].map(|dialect| server.connect(dialect));
    let opened = server.text(opener, OPEN).of(opener)[0].to_owned();
    for _ in 0..200 {
        let joiner = server.connect(V1);
        server.text(joiner, JOIN);
    }
    let (_, token) = opened.split_once(r#""token":"#).expect("a token");
    let outputs = server.text(next, &format!(r#"{{"type":"open","key":"tea","token":{token}"#));
    // A notice for each joiner and opener; 100 messages are free.
    assert_eq!(outputs.of(next).last(), Some(&"pause until 1.02s"));
}

#[test]
fn role_deadline_begins_when_the_pause_of_the_source_ends() {
    let mut server = Server::new(|config| {
        config.messages_per_second_per_source = NonZeroU32::new(10);
        config.limits.role_deadline = Some(Duration::from_millis(300));
    });
    let a = server.connect(V1);
    for _ in 0..15 {
        server.input(a, Input::Pong);
    }
    let again = server.connect(V1);
    assert_eq!(server.endpoint.paused_until(server.now, again), Some(at(500)));
    assert_eq!(server.run_until(300), [(300, a, "close 1008 NoRoleInTime")]);
    assert_eq!(server.run_until(800), [(800, again, "close 1008 NoRoleInTime")]);
}
