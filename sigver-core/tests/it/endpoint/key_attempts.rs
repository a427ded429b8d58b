//! Throttling of failed joins and opens.

use std::num::NonZeroU32;

use super::*;

const UNKNOWN: &str = r#"{"type":"join","key":"guess"}"#;

fn throttled() -> (Server, ConnId) {
    let mut server = Server::new(|config| {
        config.key_attempts_per_minute = NonZeroU32::new(3);
        config.close_timeout = Duration::ZERO;
        config.keep_alive = Duration::MAX;
    });
    let opener = server.connect_from(V1, "198.51.100.1").expect("a connection");
    server.text(opener, OPEN);
    (server, opener)
}

#[test]
fn plain_joins_fail_as_of_an_unknown_key_until_the_minute_is_over() {
    let (mut server, opener) = throttled();
    server.now = at(1_000);
    for text in [UNKNOWN, UNKNOWN, UNKNOWN, JOIN, UNKNOWN, JOIN] {
        let a = server.connect(Plain);
        assert_eq!(server.text(a, text), [(a, "close 1008 UnknownKey")]);
    }
    server.run_until(60_999);
    let a = server.connect(Plain);
    assert_eq!(server.text(a, JOIN), [(a, "close 1008 UnknownKey")]);
    server.run_until(61_000);
    let a = server.connect(Plain);
    assert_eq!(server.text(a, JOIN), [(opener, r#"{"type":"join","index":0}"#)]);
}

#[test]
fn v1_refusals_are_the_same_as_real_ones() {
    let (mut server, _) = throttled();
    let a = server.connect(V1);
    let error = |code: &str, message: &str, key: &str| {
        format!(r#"{{"type":"error","code":"{code}","message":"`key` is {message}","key":"{key}"}}"#)
    };
    let unknown = |key| error("unknown-key", "unknown: nobody has it open", key);
    let taken = |key| error("key-taken", "taken: another opener has it", key);
    assert_eq!(server.text(a, UNKNOWN).of(a), [unknown("guess")]);
    assert_eq!(server.text(a, OPEN).of(a), [taken("tea")]);
    assert_eq!(server.text(a, UNKNOWN).of(a), [unknown("guess")]);
    // Exhausted: the key is open, and the other one is free.
    assert_eq!(server.text(a, JOIN).of(a), [unknown("tea")]);
    assert_eq!(server.text(a, r#"{"type":"open","key":"free"}"#).of(a), [taken("free")]);
    server.run_until(60_000);
    assert_eq!(server.text(a, JOIN).of(a), [r#"{"type":"joined","index":0}"#]);
}

#[test]
fn plain_opens_fail_as_of_a_taken_key() {
    let (mut server, _) = throttled();
    for text in [OPEN, OPEN, OPEN, r#"{"type":"open","key":"free"}"#] {
        let a = server.connect(Plain);
        assert_eq!(server.text(a, text), [(a, "close 1008 KeyTaken")]);
    }
}

#[test]
fn other_sources_and_successful_attempts_are_not_throttled() {
    let (mut server, opener) = throttled();
    let guesser = server.connect(V1);
    for _ in 0..2 {
        server.text(guesser, UNKNOWN);
    }
    for _ in 0..10 {
        assert_eq!(server.text(guesser, JOIN).of(opener).len(), 1, "a join that succeeds");
        server.text(guesser, r#"{"type":"leave"}"#);
    }
    server.text(guesser, UNKNOWN);
    assert_eq!(server.text(guesser, JOIN).of(opener).len(), 0);
    let other = server.connect_from(V1, "192.0.2.2").expect("a connection");
    assert_eq!(server.text(other, JOIN).of(opener).len(), 1);
}

#[test]
fn role_that_a_source_has_is_not_affected() {
    let (mut server, opener) = throttled();
    let [joiner, guesser] = [V1; 2].map(|dialect| server.connect(dialect));
    server.text(joiner, JOIN);
    for _ in 0..5 {
        server.text(guesser, UNKNOWN);
    }
    let data = server.text(joiner, r#"{"type":"send","data":1}"#);
    assert_eq!(data, [(opener, r#"{"type":"data","index":0,"data":1}"#)]);
    assert!(server.text(joiner, JOIN).of(joiner)[0].contains("has-role"));
}

#[test]
fn addresses_of_one_ipv6_network_are_one_source() {
    let (mut server, opener) = throttled();
    for host in 1..=3 {
        let guesser = server.connect_from(Plain, &format!("2001:db8::{host}"));
        server.text(guesser.expect("a connection"), UNKNOWN);
    }
    let same = server.connect_from(Plain, "2001:db8::ffff:1").expect("a connection");
    assert_eq!(server.text(same, JOIN), [(same, "close 1008 UnknownKey")]);
    let other = server.connect_from(Plain, "2001:db8:0:1::1").expect("a connection");
    assert_eq!(server.text(other, JOIN).of(opener).len(), 1);
}

#[test]
fn denied_attempt_meets_the_role_deadline() {
    let mut server = Server::new(|config| {
        config.key_attempts_per_minute = NonZeroU32::new(1);
        config.limits.role_deadline = Some(Duration::from_secs(10));
    });
    let [guesser, a] = [(); 2].map(|()| server.connect_from(V1, "192.0.2.1").expect("a connection"));
    server.text(guesser, UNKNOWN);
    assert!(server.text(a, OPEN).of(a)[0].contains("key-taken"));
    assert_eq!(server.run_until(24_999), []);
}

#[test]
fn attempts_are_unlimited_by_default() {
    let mut server = default();
    let [opener, guesser] = [V1; 2].map(|dialect| server.connect(dialect));
    server.text(opener, OPEN);
    for _ in 0..1_000 {
        server.text(guesser, UNKNOWN);
    }
    assert_eq!(server.text(guesser, JOIN).of(opener).len(), 1);
}
