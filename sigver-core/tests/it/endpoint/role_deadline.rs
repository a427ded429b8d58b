//! Clients that request no role in time.

use super::*;

fn with_deadline() -> Server {
    Server::new(|config| {
        config.limits.role_deadline = Some(Duration::from_secs(10));
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
