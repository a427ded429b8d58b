//! Clients that request no role in time.

use super::*;

fn with_deadline() -> Server {
    Server::new(|config| {
        config.limits.role_deadline = Some(Duration::from_secs(10));
        config.keep_alive = Duration::MAX;
        config.close_timeout = Duration::MAX;
    })
}

#[test]
fn client_without_a_role_is_closed_at_the_deadline() {
    let mut server = with_deadline();
    let [a, b] = [Plain, V1].map(|dialect| server.connect(dialect));
    assert_eq!(server.endpoint.poll_timeout(), Some(at(10_000)));
    assert_eq!(server.run_until(9_999), []);
    let expected = [
        (10_000, a, "close 1008 NoRoleInTime"),
        (10_000, b, "close 1008 NoRoleInTime"),
    ];
    assert_eq!(server.run_until(1_000_000), expected);
}

#[test]
fn open_join_and_refused_join_meet_the_deadline_and_other_messages_do_not() {
    let mut server = with_deadline();
    let [opener, joiner, refused, other] = [V1; 4].map(|dialect| server.connect(dialect));
    server.text(opener, OPEN);
    server.text(joiner, JOIN);
    server.text(refused, r#"{"type":"join","key":"coffee"}"#);
    server.text(other, r#"{"type":"send","data":1}"#);
    assert_eq!(server.run_until(24_999), [(10_000, other, "close 1008 NoRoleInTime")]);
}

#[test]
fn client_that_left_its_role_has_no_deadline() {
    let mut server = with_deadline();
    let (opener, joiner) = server.pair(V1, V1);
    server.text(joiner, r#"{"type":"leave"}"#);
    server.text(opener, r#"{"type":"close"}"#);
    assert_eq!(server.run_until(24_999), []);
}

#[test]
fn deadlines_that_passed_before_a_late_call_restart() {
    let mut server = with_deadline();
    let [prompt, idle] = [Plain; 2].map(|dialect| server.connect(dialect));
    server.now = at(1_000);
    let later = server.connect(Plain);
    // The process is suspended from 2 s to 18 s. Nothing has been read yet.
    server.now = at(18_000);
    assert_eq!(server.handle_timeout(), []);
    assert_eq!(server.text(prompt, OPEN), []);
    let expected = [
        (28_000, idle, "close 1008 NoRoleInTime"),
        (28_000, later, "close 1008 NoRoleInTime"),
    ];
    assert_eq!(server.run_until(30_000), expected);
}

#[test]
fn call_that_is_a_second_late_is_on_time() {
    let mut server = with_deadline();
    let a = server.connect(Plain);
    server.now = at(11_000);
    assert_eq!(server.handle_timeout(), [(a, "close 1008 NoRoleInTime")]);
}

#[test]
fn late_ping_reveals_that_a_deadline_is_late() {
    let mut server = Server::new(|config| {
        config.limits.role_deadline = Some(Duration::from_secs(10));
        config.keep_alive = Duration::from_secs(5);
    });
    let a = server.connect(Plain);
    server.now = at(10_100);
    assert_eq!(server.handle_timeout(), [(a, "ping")], "the ping was due at 5 s");
    server.text(a, OPEN);
    assert_eq!(server.endpoint.role(a), Some(Role::Opener));
}
