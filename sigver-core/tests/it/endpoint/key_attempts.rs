//! Throttling of clients that guess keys.

use std::num::NonZeroU32;

use super::*;

const UNKNOWN: &str = r#"{"type":"join","key":"guess"}"#;
const LEAVE: &str = r#"{"type":"leave"}"#;
const CLOSE: &str = r#"{"type":"close"}"#;

fn throttled() -> (Server, ConnId) {
    let mut server = Server::new(|config| {
        config.key_attempts_per_minute = NonZeroU32::new(3);
        config.close_timeout = Duration::ZERO;
        config.keep_alive = Duration::MAX;
        config.limits.role_deadline = None;
    });
    let opener = server.connect_from(V1, "198.51.100.1").expect("a connection");
    server.text(opener, OPEN);
    (server, opener)
}

fn open(key: &str) -> String {
    format!(r#"{{"type":"open","key":"{key}"}}"#)
}

#[test]
fn connection_is_throttled_after_its_budget_and_recovers_steadily() {
    let (mut server, opener) = throttled();
    server.now = at(1_000);
    let a = server.connect(V1);
    let error = |code: &str, message: &str, key: &str| {
        format!(r#"{{"type":"error","code":"{code}","message":"{message}","key":"{key}"}}"#)
    };
    let unknown = |key| error("unknown-key", "`key` is unknown: nobody has it open", key);
    let taken = |key| error("key-taken", "`key` is taken: another opener has it", key);
    let throttled = |key| {
        error(
            "too-many-attempts",
            "too many attempts at keys: try again in a minute",
            key,
        )
    };
    assert_eq!(server.text(a, UNKNOWN).of(a), [unknown("guess")]);
    assert_eq!(server.text(a, OPEN).of(a), [taken("tea")]);
    assert_eq!(server.text(a, UNKNOWN).of(a), [unknown("guess")]);
    // Exhausted: the key is open, the others are free.
    assert_eq!(server.text(a, JOIN).of(a), [throttled("tea")]);
    assert_eq!(server.text(a, OPEN).of(a), [throttled("tea")]);
    assert_eq!(server.text(a, &open("free")).of(a), [throttled("free")]);
    assert_eq!(server.text(a, UNKNOWN).of(a), [throttled("guess")]);
    server.run_until(20_999);
    assert_eq!(server.text(a, JOIN).of(a), [throttled("tea")]);
    server.run_until(21_000);
    assert_eq!(server.text(a, JOIN).of(opener).len(), 1);
}

/// `open` and `close` of one key after the other would find every key that is taken.
#[test]
fn open_of_a_free_key_is_an_attempt() {
    let (mut server, _) = throttled();
    let a = server.connect(V1);
    for n in 0..3 {
        assert!(server.text(a, &open(&format!("free {n}"))).of(a)[0].contains("opened"));
        server.text(a, CLOSE);
    }
    assert!(server.text(a, &open("free 3")).of(a)[0].contains("too-many-attempts"));
    assert!(server.text(a, JOIN).of(a)[0].contains("too-many-attempts"));
}

#[test]
fn open_without_a_key_is_no_attempt_and_is_never_refused() {
    let (mut server, _) = throttled();
    let a = server.connect(V1);
    for _ in 0..20 {
        assert!(server.text(a, r#"{"type":"open"}"#).of(a)[0].contains("opened"));
        server.text(a, CLOSE);
    }
    for _ in 0..4 {
        server.text(a, UNKNOWN);
    }
    assert!(server.text(a, r#"{"type":"open"}"#).of(a)[0].contains("opened"));
}

#[test]
fn source_has_ten_times_the_budget_of_a_connection() {
    let (mut server, opener) = throttled();
    for n in 0..30 {
        let a = server.connect_from(V1, "192.0.2.9").expect("a connection");
        assert!(server.text(a, UNKNOWN).of(a)[0].contains("unknown-key"), "{n}");
    }
    let a = server.connect_from(V1, "192.0.2.9").expect("a connection");
    assert!(
        server.text(a, JOIN).of(a)[0].contains("too-many-attempts"),
        "the key is open"
    );
    assert!(
        server.text(a, &open("free")).of(a)[0].contains("too-many-attempts"),
        "the key is free"
    );
    let other = server.connect_from(V1, "192.0.2.10").expect("a connection");
    assert_eq!(server.text(other, JOIN).of(opener).len(), 1);
    server.run_until(2_000);
    let a = server.connect_from(Plain, "192.0.2.9").expect("a connection");
    assert_eq!(server.text(a, JOIN), [(opener, r#"{"type":"join","index":1}"#)]);
}

#[test]
fn join_that_succeeds_is_no_attempt() {
    let (mut server, opener) = throttled();
    let guesser = server.connect(V1);
    for _ in 0..2 {
        server.text(guesser, UNKNOWN);
    }
    for _ in 0..10 {
        assert_eq!(server.text(guesser, JOIN).of(opener).len(), 1);
        server.text(guesser, LEAVE);
    }
    server.text(guesser, UNKNOWN);
    assert_eq!(server.text(guesser, JOIN).of(opener).len(), 0);
}

#[test]
fn role_that_a_client_has_is_not_affected() {
    let (mut server, opener) = throttled();
    let joiner = server.connect(V1);
    for _ in 0..2 {
        server.text(joiner, UNKNOWN);
    }
    server.text(joiner, JOIN);
    for _ in 0..5 {
        assert!(server.text(joiner, JOIN).of(joiner)[0].contains("has-role"));
    }
    let data = server.text(joiner, r#"{"type":"send","data":1}"#);
    assert_eq!(data, [(opener, r#"{"type":"data","index":0,"data":1}"#)]);
    server.text(joiner, LEAVE);
    assert!(server.text(joiner, UNKNOWN).of(joiner)[0].contains("unknown-key"));
    assert_eq!(
        server.text(joiner, JOIN).of(opener).len(),
        0,
        "refusals with a role were no attempts, the others were"
    );
}

#[test]
fn addresses_of_one_ipv6_network_are_one_source() {
    let (mut server, opener) = throttled();
    for host in 0..30 {
        let guesser = server.connect_from(V1, &format!("2001:db8::{host}"));
        server.text(guesser.expect("a connection"), UNKNOWN);
    }
    let same = server.connect_from(V1, "2001:db8::ffff:1").expect("a connection");
    assert!(server.text(same, JOIN).of(same)[0].contains("too-many-attempts"));
    let other = server.connect_from(Plain, "2001:db8:0:1::1").expect("a connection");
    assert_eq!(server.text(other, JOIN).of(opener).len(), 1);
}

#[test]
fn refused_attempt_meets_the_role_deadline() {
    let mut server = Server::new(|config| {
        config.key_attempts_per_minute = NonZeroU32::new(1);
        config.limits.role_deadline = Some(Duration::from_secs(10));
    });
    for _ in 0..10 {
        let a = server.connect_from(V1, "192.0.2.1").expect("a connection");
        server.text(a, UNKNOWN);
    }
    let a = server.connect_from(V1, "192.0.2.1").expect("a connection");
    assert!(server.text(a, &open("free")).of(a)[0].contains("too-many-attempts"));
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

/// A key whose opener has no room would otherwise answer later than the others.
#[test]
fn throttled_join_does_not_wait_for_room() {
    let mut server = Server::new(|config| {
        config.key_attempts_per_minute = NonZeroU32::new(1);
        config.backlog_bytes = 1_000;
        config.bytes_per_second = None;
    });
    let opener = server.connect_from(V1, "198.51.100.1").expect("a connection");
    server.text(opener, OPEN);
    let joiner = server.connect(V1);
    server.text(joiner, JOIN);
    server.stalled.insert(opener);
    server.text(joiner, &format!(r#"{{"type":"send","data":"{}"}}"#, "x".repeat(900)));
    let guesser = server.connect(V1);
    server.text(guesser, UNKNOWN);
    assert!(server.text(guesser, JOIN).of(guesser)[0].contains("too-many-attempts"));
}
