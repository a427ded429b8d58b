//! Draining and closing at once.

use std::num::NonZeroU32;

use super::*;

#[test]
fn openers_are_closed_last_so_that_joiners_get_1001() {
    let mut server = default();
    let (opener, joiner) = server.pair(V1, Plain);
    let idle = server.connect(V1);
    server.endpoint.drain(Time::ZERO, Time::ZERO);
    assert_eq!(server.endpoint.phase(), Phase::Draining);
    let expected = [
        (0, joiner, "ended-by-server"),
        (0, joiner, "close 1001 ShuttingDown"),
        (0, opener, r#"{"type":"leave","index":0}"#),
        (10, idle, "close 1001 ShuttingDown"),
        (20, opener, "close 1001 ShuttingDown"),
    ];
    assert_eq!(server.run_until(20), expected);
    assert_eq!(server.endpoint.phase(), Phase::Closed);
    assert_eq!(server.endpoint.sockets(), 3);
    let expected = [
        (5_000, joiner, "abort"),
        (5_010, idle, "abort"),
        (5_020, opener, "abort"),
    ];
    assert_eq!(server.run_until(100_000), expected);
    assert_eq!((server.endpoint.sockets(), server.endpoint.poll_timeout()), (0, None));
}

#[test]
fn closes_of_many_clients_are_spread_over_the_drain() {
    let mut server = Server::new(|config| config.close_timeout = Duration::MAX);
    let clients: Vec<ConnId> = (0..1_000).map(|_| server.connect(Plain)).collect();
    server.now = at(1_000);
    server.endpoint.drain(server.now, server.now);
    assert_eq!(server.endpoint.poll_timeout(), Some(at(1_000)));
    assert_eq!(
        server.run_until(1_004),
        [(1_000, clients[0], "close 1001 ShuttingDown")]
    );
    assert_eq!(server.run_until(5_994).len(), 998);
    assert_eq!(server.endpoint.phase(), Phase::Draining);
    let last = clients[999];
    assert_eq!(server.run_until(5_995), [(5_995, last, "close 1001 ShuttingDown")]);
    assert_eq!(server.endpoint.phase(), Phase::Closed);
}

#[test]
fn late_timeout_catches_up() {
    let mut server = default();
    let [a, b, c] = [Plain; 3].map(|dialect| server.connect(dialect));
    server.endpoint.drain(Time::ZERO, Time::ZERO);
    server.now = at(15);
    let expected = [(a, "close 1001 ShuttingDown"), (b, "close 1001 ShuttingDown")];
    assert_eq!(server.handle_timeout(), expected);
    assert_eq!(server.endpoint.poll_timeout(), Some(at(20)));
    assert_eq!(server.run_until(20), [(20, c, "close 1001 ShuttingDown")]);
}

#[test]
fn clients_that_left_during_the_drain_are_skipped() {
    let mut server = default();
    let [a, b, c] = [Plain; 3].map(|dialect| server.connect(dialect));
    server.endpoint.drain(Time::ZERO, Time::ZERO);
    server.input(b, Input::Disconnected);
    let expected = [(0, a, "close 1001 ShuttingDown"), (20, c, "close 1001 ShuttingDown")];
    assert_eq!(server.run_until(20), expected);
}

#[test]
fn clients_communicate_until_it_is_their_turn() {
    let mut server = default();
    let first = server.connect(Plain);
    let (opener, joiner) = server.pair(Plain, Plain);
    server.endpoint.drain(Time::ZERO, Time::ZERO);
    assert_eq!(server.run_until(9), [(0, first, "close 1001 ShuttingDown")]);
    assert_eq!(server.text(joiner, "{}"), [(opener, r#"{"index":0}"#)]);
    assert_eq!(server.text(opener, r#"{"index":0}"#), [(joiner, r#"{"index":0}"#)]);
    assert_eq!(server.run_until(10).len(), 2);
    assert_eq!(server.endpoint.role(joiner), None);
    assert_eq!(server.endpoint.role(opener), Some(Role::Opener));
}

#[test]
fn connections_are_accepted_until_the_given_time_and_then_closed() {
    let mut server = default();
    let [a, b] = [Plain; 2].map(|dialect| server.connect(dialect));
    server.endpoint.drain(at(0), at(100));
    assert_eq!(server.run_until(0), [(0, a, "close 1001 ShuttingDown")]);
    server.now = at(5);
    let c = server.connect(Plain);
    // Before the waiting connections, of which the last may be openers.
    let expected = [(10, c, "close 1001 ShuttingDown"), (20, b, "close 1001 ShuttingDown")];
    assert_eq!(server.run_until(50), expected);
    assert_eq!(
        (server.endpoint.phase(), server.endpoint.poll_timeout()),
        (Phase::Draining, Some(at(100)))
    );
    let d = server.connect(Plain);
    assert_eq!(server.endpoint.poll_timeout(), Some(at(60)));
    assert_eq!(server.run_until(60), [(60, d, "close 1001 ShuttingDown")]);
    server.now = at(95);
    let e = server.connect(V1);
    server.now = at(99);
    let f = server.connect(V1);
    server.now = at(100);
    let refused = server.connect_from(Plain, "192.0.2.1");
    assert_eq!(refused, Err(ConnectError::ShuttingDown));
    let expected = [(105, f, "close 1001 ShuttingDown"), (115, e, "close 1001 ShuttingDown")];
    assert_eq!(server.run_until(115), expected);
    assert_eq!(server.endpoint.phase(), Phase::Closed);
}

#[test]
fn drain_of_nobody_ends_with_the_first_timeout() {
    let mut server = default();
    server.now = at(7);
    server.endpoint.drain(at(7), at(7));
    assert_eq!(server.endpoint.poll_timeout(), Some(at(7)));
    assert_eq!(server.endpoint.phase(), Phase::Draining);
    assert_eq!(server.handle_timeout(), []);
    assert_eq!(
        (server.endpoint.phase(), server.endpoint.poll_timeout()),
        (Phase::Closed, None)
    );
}

#[test]
fn second_drain_changes_nothing() {
    let mut server = default();
    let [a, b] = [Plain; 2].map(|dialect| server.connect(dialect));
    server.endpoint.drain(at(0), at(100));
    server.run_until(0);
    server.endpoint.drain(at(0), at(0));
    assert!(server.connect_from(Plain, "192.0.2.1").is_ok());
    assert_eq!(server.endpoint.poll_timeout(), Some(at(10)));
    assert_eq!((server.endpoint.role(a), server.endpoint.role(b)), (None, None));
    assert_eq!(server.run_until(20).len(), 2);
    let _ = server.close_all();
    server.endpoint.drain(at(20), at(100));
    assert_eq!(server.endpoint.phase(), Phase::Closed);
}

#[test]
fn close_all_closes_everyone_at_once() {
    let mut server = default();
    let (opener, joiner) = server.pair(V1, Plain);
    let expected = [
        (opener, "close 1001 ShuttingDown"),
        (joiner, "ended-by-server"),
        (joiner, "close 1001 ShuttingDown"),
    ];
    assert_eq!(server.close_all(), expected);
    assert_eq!(server.endpoint.phase(), Phase::Closed);
    let refused = server.connect_from(Plain, "192.0.2.1");
    assert_eq!(refused, Err(ConnectError::ShuttingDown));
    assert_eq!(server.close_all(), []);
    assert_eq!(
        server.run_until(5_000),
        [(5_000, opener, "abort"), (5_000, joiner, "abort")]
    );
    assert_eq!(server.endpoint.poll_timeout(), None);
}

#[test]
fn close_all_ends_a_drain() {
    let mut server = default();
    let [a, b] = [Plain; 2].map(|dialect| server.connect(dialect));
    server.endpoint.drain(at(0), at(1_000));
    assert_eq!(server.run_until(0), [(0, a, "close 1001 ShuttingDown")]);
    assert_eq!(server.close_all(), [(b, "close 1001 ShuttingDown")]);
    assert_eq!(server.endpoint.phase(), Phase::Closed);
    let refused = server.connect_from(Plain, "192.0.2.1");
    assert_eq!(refused, Err(ConnectError::ShuttingDown));
}

#[test]
fn connection_over_the_limit_is_rejected_until_one_closes() {
    let mut server = Server::new(|config| config.limits.connections = NonZeroU32::new(1));
    let a = server.connect(Plain);
    let rejected = server.connect_from(Plain, "192.0.2.1");
    assert_eq!(rejected, Err(ConnectError::TooManyConnections));
    server.input(a, Input::Binary);
    assert!(server.connect_from(Plain, "192.0.2.1").is_ok());
    assert_eq!(server.endpoint.sockets(), 2);
}
