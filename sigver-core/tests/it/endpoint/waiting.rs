//! Joins that wait for their key.

use super::*;

const WAIT: &str = r#"{"type":"join","key":"tea","wait":5}"#;
const WAITING: &str = r#"{"type":"waiting","key":"tea","wait":5}"#;
const UNKNOWN: &str =
    r#"{"type":"error","code":"unknown-key","message":"`key` is unknown: nobody has it open","key":"tea"}"#;

fn server() -> Server {
    Server::new(|config| {
        config.keep_alive = Duration::MAX;
        config.key_attempts_per_minute = NonZeroU32::new(3);
    })
}

#[test]
fn waiter_joins_and_its_pairing_begins_when_the_key_is_opened() {
    let mut server = server();
    let [opener, joiner] = [Plain, V1].map(|dialect| server.connect(dialect));
    server.now = at(1_000);
    assert_eq!(server.text(joiner, WAIT), [(joiner, WAITING)]);
    assert_eq!(server.endpoint.role(joiner), Some(Role::Waiting));
    server.run_until(4_000);
    let joined = [
        (joiner, r#"{"type":"joined","index":0}"#),
        (opener, r#"{"type":"join"}"#),
    ];
    assert_eq!(server.text(opener, OPEN), joined);
    assert_eq!(server.endpoint.role(joiner), Some(Role::Joiner));
    assert_eq!(server.endpoint.poll_timeout(), None);
    server.text(joiner, r#"{"type":"send","data":{}}"#);
    let left = [(joiner, "ended-by-joiner")];
    assert_eq!(server.text(joiner, r#"{"type":"leave"}"#), left);
}

#[test]
fn wait_in_vain_ends_on_time() {
    let mut server = server();
    let joiner = server.connect(V1);
    server.now = at(1_234);
    server.text(joiner, WAIT);
    assert_eq!(server.run_until(100_000), [(6_234, joiner, UNKNOWN)]);
    assert_eq!(server.endpoint.role(joiner), None);
}

/// A join that was refused after its wait may be sent again. A client whose request was not read yet must not be closed.
#[test]
fn late_call_ends_a_wait_and_restarts_a_role_deadline() {
    let mut server = Server::new(|config| {
        config.keep_alive = Duration::MAX;
        config.limits.role_deadline = Some(Duration::from_secs(10));
    });
    let [joiner, idle] = [V1; 2].map(|dialect| server.connect(dialect));
    server.text(joiner, WAIT);
    server.now = at(60_000);
    assert_eq!(server.handle_timeout(), [(joiner, UNKNOWN)]);
    assert_eq!(server.run_until(70_000), [(70_000, idle, "close 1008 NoRoleInTime")]);
}

#[test]
fn join_that_waits_is_one_attempt_whatever_its_result() {
    let mut server = server();
    let [opener, joiner] = [V1; 2].map(|dialect| server.connect(dialect));
    let is_throttled = |server: &mut Server, text| server.text(joiner, text).of(joiner)[0].contains("too-many");
    // One wait ends without an opener, one with a leave, one with a join.
    assert!(!is_throttled(&mut server, WAIT));
    server.run_until(5_000);
    assert!(!is_throttled(&mut server, WAIT));
    server.text(joiner, r#"{"type":"leave"}"#);
    assert!(!is_throttled(&mut server, WAIT));
    // What a waiter sends is refused without a look at the key.
    assert!(server.text(joiner, JOIN).of(joiner)[0].contains("has-role"));
    server.text(opener, OPEN);
    server.text(joiner, r#"{"type":"leave"}"#);
    assert!(is_throttled(&mut server, JOIN));
}

#[test]
fn waiter_that_ends_leaves_no_timer() {
    let mut server = server();
    for input in [Input::Close(None), Input::Disconnected, Input::Binary] {
        let joiner = server.connect(V1);
        server.text(joiner, WAIT);
        server.input(joiner, input);
        server.input(joiner, Input::Disconnected);
        assert_eq!(server.endpoint.poll_timeout(), None);
    }
}
