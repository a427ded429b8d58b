//! What an operator does: close connections, kick joiners, free keys.

use sigver_core::Key;

use super::*;

const CLOSE: &str = "close 4005 ClosedByOperator";

fn key() -> Key {
    Key::new("tea", &Limits::default()).expect("a key")
}

/// Closes a connection as an operator does.
fn close(server: &mut Server, id: ConnId) -> Outputs {
    let outputs = server.endpoint.close(server.now, id, CloseReason::ClosedByOperator);
    server.report(outputs)
}

fn kick(server: &mut Server, id: ConnId) -> Outputs {
    let outputs = server.endpoint.kick(server.now, id);
    server.report(outputs)
}

#[test]
fn closed_opener_loses_its_key_at_once() {
    let mut server = default();
    let (opener, joiner) = server.pair(V1, V1);
    assert_eq!(server.endpoint.opener(&key()), Some(opener));
    let expected = [
        (opener, CLOSE),
        (joiner, "ended-by-opener"),
        (joiner, r#"{"type":"closed","code":"opener-left"}"#),
    ];
    assert_eq!(close(&mut server, opener), expected);
    assert_eq!(
        (server.endpoint.opener(&key()), server.endpoint.counters().hub.reserved),
        (None, 0)
    );
    assert!(server.text(joiner, OPEN).of(joiner)[0].contains("opened"));
}

#[test]
fn closed_joiner_leaves_its_opener() {
    let mut server = default();
    let (opener, joiner) = server.pair(V1, Plain);
    let expected = [
        (joiner, "ended-by-server"),
        (joiner, CLOSE),
        (opener, r#"{"type":"leave","index":0}"#),
    ];
    assert_eq!(close(&mut server, joiner), expected);
    assert_eq!(close(&mut server, joiner), []);
    assert_eq!(
        server
            .endpoint
            .counters()
            .refused
            .iter()
            .map(|(_, count)| count)
            .sum::<u64>(),
        0
    );
}

#[test]
fn kick_is_that_of_the_opener() {
    for dialect in [Plain, V1] {
        let mut outputs = Vec::new();
        for by_operator in [false, true] {
            let mut server = default();
            let (opener, joiner) = server.pair(V1, dialect);
            outputs.push(if by_operator {
                kick(&mut server, joiner)
            } else {
                server.text(opener, r#"{"type":"kick","index":0}"#)
            });
        }
        assert_eq!(format!("{:?}", outputs[0]), format!("{:?}", outputs[1]));
        assert!(format!("{:?}", outputs[0]).contains("leave"));
    }
}

#[test]
fn kick_of_a_connection_that_is_no_joiner_does_nothing() {
    let mut server = default();
    let (opener, joiner) = server.pair(V1, V1);
    let waiting = server.connect(V1);
    server.text(waiting, r#"{"type":"join","key":"coffee","wait":100}"#);
    let idle = server.connect(V1);
    for id in [opener, waiting, idle] {
        assert_eq!(kick(&mut server, id), []);
    }
    server.input(joiner, Input::Disconnected);
    assert_eq!(kick(&mut server, joiner), []);
}

/// What a joiner has sent while it waited for room, and what others wait for, is not lost with an operator's call.
#[test]
fn closed_opener_releases_the_joiners_that_wait_for_room() {
    let mut server = Server::new(|config| config.backlog_bytes = 1_000);
    let (opener, joiner) = server.pair(V1, V1);
    server.stalled.insert(opener);
    let data = format!(r#"{{"type":"send","data":"{}"}}"#, "x".repeat(500));
    let is_stopped = (0..10).any(|_| server.text(joiner, &data).of(joiner).contains(&"stop reading"));
    assert!(is_stopped);
    assert!(close(&mut server, opener).of(joiner).contains(&"resume reading"));
}

#[test]
fn reservation_is_ended() {
    let mut server = default();
    let (opener, _) = server.pair(V1, V1);
    assert!(!server.endpoint.end_reservation(&key()), "the key is open");
    server.input(opener, Input::Disconnected);
    let other = server.connect(V1);
    assert!(server.text(other, OPEN).of(other)[0].contains("key-taken"));
    assert!(server.endpoint.end_reservation(&key()));
    assert!(!server.endpoint.end_reservation(&key()));
    assert!(server.text(other, OPEN).of(other)[0].contains("opened"));
}
