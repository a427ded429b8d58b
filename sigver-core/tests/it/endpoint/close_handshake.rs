//! Close frames, replies and the close time-out.

use super::*;

#[test]
fn socket_is_aborted_exactly_at_the_close_timeout() {
    let mut server = default();
    let a = server.connect(Plain);
    assert_eq!(server.input(a, Input::Binary), [(a, "close 1003 Binary")]);
    assert_eq!(server.endpoint.sockets(), 1);
    assert_eq!(server.run_until(4_999), []);
    assert_eq!(server.endpoint.sockets(), 1);
    assert_eq!(server.run_until(5_000), [(5_000, a, "abort")]);
    assert_eq!((server.endpoint.sockets(), server.endpoint.poll_timeout()), (0, None));
    assert_eq!(server.input(a, Input::Disconnected), []);
}

#[test]
fn disconnected_socket_is_not_aborted() {
    let mut server = default();
    let [a, b] = [Plain, Plain].map(|dialect| server.connect(dialect));
    server.input(a, Input::Binary);
    server.now = at(1_000);
    server.input(b, Input::Close(Some(1000)));
    assert_eq!(server.input(b, Input::Disconnected), []);
    assert_eq!(server.endpoint.sockets(), 1);
    server.now = at(4_999);
    assert_eq!(server.input(a, Input::Disconnected), []);
    assert_eq!((server.endpoint.sockets(), server.endpoint.poll_timeout()), (0, None));
    assert_eq!(server.run_until(1_000_000), []);
}

#[test]
fn close_frame_is_answered_with_the_same_code_and_peers_get_notices() {
    for (code, reply) in [(Some(1000), "reply 1000"), (Some(4123), "reply 4123"), (None, "reply")] {
        let mut server = default();
        let (opener, joiner) = server.pair(V1, Plain);
        let third = server.connect(V1);
        server.text(third, JOIN);
        let expected = [
            (joiner, "ended-by-joiner"),
            (joiner, reply),
            (opener, r#"{"type":"leave","index":0}"#),
        ];
        assert_eq!(server.input(joiner, Input::Close(code)), expected);
        let expected = [
            (opener, reply),
            (third, "ended-by-opener"),
            (third, r#"{"type":"closed","code":"opener-left"}"#),
        ];
        assert_eq!(server.input(opener, Input::Close(code)), expected);
        assert_eq!(
            server.run_until(5_000),
            [(5_000, joiner, "abort"), (5_000, opener, "abort")]
        );
    }
}

#[test]
fn close_frame_after_ours_is_not_answered() {
    let mut server = default();
    let a = server.connect(Plain);
    server.input(a, Input::Binary);
    assert_eq!(server.input(a, Input::Close(Some(1003))), []);
    assert_eq!(server.endpoint.sockets(), 1, "the socket is still there");
    assert_eq!(server.run_until(5_000), [(5_000, a, "abort")]);
}

#[test]
fn inputs_of_closing_aborted_and_unknown_connections_do_nothing() {
    let mut server = default();
    let [closing, replied, gone] = [V1; 3].map(|dialect| server.connect(dialect));
    server.input(closing, Input::Binary);
    server.input(replied, Input::Close(None));
    server.input(gone, Input::Disconnected);
    let never = ConnId::from_bits(u64::MAX);
    let (opener, joiner) = server.pair(V1, V1);
    let counted = format!("{:?}", server.endpoint.counters());
    for id in [closing, replied, gone, never] {
        for input in inputs() {
            assert_eq!(server.input(id, input), [], "to {id}");
        }
        server.written(id, usize::MAX);
        assert_eq!(server.endpoint.role(id), None);
    }
    for id in [gone, never] {
        server.endpoint.record_progress(id);
    }
    for id in [gone, never] {
        assert_eq!(server.input(id, Input::Disconnected), []);
    }
    assert_eq!(format!("{:?}", server.endpoint.counters()), counted);
    assert_eq!(server.endpoint.sockets(), 4);
    assert_eq!(
        server.run_until(5_000),
        [(5_000, closing, "abort"), (5_000, replied, "abort")]
    );
    for id in [closing, replied] {
        for input in inputs().chain([Input::Disconnected]) {
            assert_eq!(server.input(id, input), [], "to {id}");
        }
    }
    let roles = [opener, joiner].map(|id| server.endpoint.role(id));
    assert_eq!(roles, [Some(Role::Opener), Some(Role::Joiner)]);
}

#[test]
fn client_that_reads_its_backlog_is_aborted_only_after_a_timeout_without_progress() {
    let mut server = default();
    let (opener, joiner) = server.pair(V1, Plain);
    server.stalled.insert(opener);
    for _ in 0..3 {
        server.text(joiner, "{}");
    }
    server.input(opener, Input::Binary);
    server.input(joiner, Input::Disconnected);
    server.written(opener, 1);
    assert_eq!(server.run_until(5_000), [], "it has read something");
    assert_eq!(server.run_until(9_000), []);
    server.written(opener, 1);
    assert_eq!(server.run_until(14_999), []);
    server.written(opener, 0);
    assert_eq!(server.run_until(15_000), [(15_000, opener, "abort")]);
}

#[test]
fn last_frame_alone_is_no_progress() {
    let mut server = default();
    let a = server.connect(Plain);
    server.stalled.insert(a);
    server.input(a, Input::Binary);
    server.written(a, 100);
    assert_eq!(server.run_until(5_000), [(5_000, a, "abort")]);
}

#[test]
fn client_that_reads_for_ever_is_aborted_after_twelve_timeouts() {
    let mut server = default();
    let a = server.connect(Plain);
    let rejected = server.endpoint.reject(server.now);
    server.input(a, Input::Binary);
    for second in 1..60 {
        server.endpoint.record_progress(a);
        server.endpoint.record_progress(rejected);
        assert_eq!(server.run_until(second * 1_000), []);
    }
    assert_eq!(
        server.run_until(60_000),
        [(60_000, rejected, "abort"), (60_000, a, "abort")]
    );
    assert_eq!(server.endpoint.timers(), 0);
}

#[test]
fn late_call_aborts_no_client_that_may_have_answered() {
    let mut server = default();
    let [a, b] = [Plain; 2].map(|dialect| server.connect(dialect));
    server.input(a, Input::Binary);
    server.input(b, Input::Binary);
    server.now = at(8_000);
    assert_eq!(server.handle_timeout(), []);
    server.input(a, Input::Disconnected);
    assert_eq!(server.run_until(13_000), [(13_000, b, "abort")]);
}

#[test]
fn connections_that_are_gone_leave_no_timer() {
    let mut server = Server::new(|config| config.close_timeout = Duration::from_secs(3600));
    for _ in 0..100 {
        let [lost, closed] = [Plain; 2].map(|dialect| server.connect(dialect));
        assert_eq!(server.endpoint.timers(), 2);
        server.input(lost, Input::Disconnected);
        server.input(closed, Input::Binary);
        assert_eq!(server.endpoint.timers(), 1);
        server.input(closed, Input::Disconnected);
        assert_eq!(server.endpoint.timers(), 0);
    }
}

#[test]
fn longest_close_timeout_means_no_abort() {
    let mut server = Server::new(|config| config.close_timeout = Duration::MAX);
    let a = server.connect(Plain);
    server.input(a, Input::Binary);
    assert_eq!(server.run_until(1_000_000), []);
    assert_eq!(server.endpoint.poll_timeout(), None);
    assert_eq!(server.endpoint.sockets(), 1);
    server.input(a, Input::Disconnected);
    assert_eq!(server.endpoint.sockets(), 0);
}

#[test]
fn binary_message_closes_with_1003_and_violation_with_its_reason() {
    let mut server = default();
    let (opener, joiner) = server.pair(V1, V1);
    let expected = [
        (joiner, "ended-by-server"),
        (joiner, "close 1003 Binary"),
        (opener, r#"{"type":"leave","index":0}"#),
    ];
    assert_eq!(server.input(joiner, Input::Binary), expected);
    for (reason, expected) in [
        (CloseReason::BrokenFraming, "close 1002 BrokenFraming"),
        (CloseReason::InvalidUtf8, "close 1007 InvalidUtf8"),
        (CloseReason::TooBig, "close 1009 TooBig"),
        (CloseReason::Internal, "close 1011 Internal"),
    ] {
        let a = server.connect(Plain);
        assert_eq!(server.input(a, Input::Violation(reason)), [(a, expected)]);
    }
}
