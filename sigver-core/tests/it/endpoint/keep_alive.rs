//! Pings and silent clients.

use super::*;

#[test]
fn silent_client_misses_two_pings_and_is_closed_when_the_third_is_due() {
    let mut server = default();
    let a = server.connect(Plain);
    assert_eq!(server.endpoint.poll_timeout(), Some(at(25_000)));
    let expected = [
        (25_000, a, "ping"),
        (50_000, a, "ping"),
        (75_000, a, "close 1008 Silent"),
        (80_000, a, "abort"),
    ];
    assert_eq!(server.run_until(1_000_000), expected);
}

#[test]
fn each_client_is_pinged_from_its_own_connect_on() {
    let mut server = default();
    let a = server.connect(Plain);
    server.now = at(1_000);
    let b = server.connect(V1);
    let expected = [
        (25_000, a, "ping"),
        (26_000, b, "ping"),
        (50_000, a, "ping"),
        (51_000, b, "ping"),
    ];
    assert_eq!(server.run_until(74_999), expected);
}

#[test]
fn any_frame_counts_as_an_answer() {
    for frame in FRAMES {
        let mut server = default();
        let a = server.connect(V1);
        server.run_until(74_999);
        server.input(a, frame());
        let expected = [
            (75_000, a, "ping"),
            (100_000, a, "ping"),
            (125_000, a, "close 1008 Silent"),
        ];
        assert_eq!(server.run_until(125_000), expected, "after {:?}", frame());
    }
}

#[test]
fn frames_to_the_client_do_not_count_as_an_answer() {
    let mut server = default();
    let (opener, joiner) = server.pair(Plain, Plain);
    for seconds in (20..80).step_by(20) {
        server.run_until(seconds * 1_000);
        server.text(joiner, "{}");
    }
    let (now, to, output) = &server.run_until(75_000).last().cloned().expect("an output");
    assert_eq!((*now, *to, output.as_str()), (75_000, joiner, "close 4001 OpenerLeft"));
    assert_eq!(server.endpoint.role(opener), None);
}

#[test]
fn paused_client_is_not_closed_as_silent() {
    let mut server = Server::new(|config| config.messages_per_second = NonZeroU32::new(1));
    let a = server.connect(V1);
    // The budget is exhausted until 99 s.
    for _ in 0..100 {
        server.input(a, Input::Pong);
    }
    let expected = [
        (25_000, a, "ping"),
        (50_000, a, "ping"),
        (75_000, a, "ping"),
        (100_000, a, "ping"),
        (125_000, a, "close 1008 Silent"),
    ];
    assert_eq!(server.run_until(125_000), expected);
}

/// The pongs of a client that was paused for its source may be unread. A silent client of the same source was not paused.
#[test]
fn client_paused_for_its_source_is_not_closed_as_silent() {
    let mut server = Server::new(|config| config.messages_per_second_per_source = NonZeroU32::new(1));
    let (paused, silent) = (server.connect(V1), server.connect(V1));
    for _ in 0..80 {
        server.input(paused, Input::Pong);
    }
    let expected = [
        (25_000, paused, "ping"),
        (25_000, silent, "ping"),
        (50_000, paused, "ping"),
        (50_000, silent, "ping"),
        (75_000, paused, "ping"),
        (75_000, silent, "close 1008 Silent"),
    ];
    assert_eq!(server.run_until(75_000), expected);
}

#[test]
fn one_call_sends_64_pings_and_the_next_one_the_rest() {
    let mut server = default();
    let clients: Vec<ConnId> = (0..65).map(|_| server.connect(Plain)).collect();
    server.now = at(25_010);
    let outputs = server.handle_timeout();
    assert!(clients[..64].iter().all(|client| outputs.of(*client) == ["ping"]));
    assert!(outputs.of(clients[64]).is_empty());
    assert_eq!(server.endpoint.poll_timeout(), Some(at(25_000)), "still in the past");
    assert_eq!(server.handle_timeout(), [(clients[64], "ping")]);
    assert_eq!(server.endpoint.poll_timeout(), Some(at(50_010)));
}

#[test]
fn early_call_does_nothing_and_late_call_sends_one_ping() {
    let mut server = default();
    let a = server.connect(Plain);
    server.now = at(24_999);
    assert_eq!(server.handle_timeout(), []);
    server.now = at(70_000);
    assert_eq!(server.handle_timeout(), [(a, "ping")]);
    assert_eq!(server.endpoint.poll_timeout(), Some(at(95_000)));
}

#[test]
fn longest_or_zero_keep_alive_means_no_pings() {
    for keep_alive in [Duration::MAX, Duration::ZERO] {
        let mut server = Server::new(|config| config.keep_alive = keep_alive);
        server.connect(Plain);
        assert_eq!(server.endpoint.poll_timeout(), None);
        assert_eq!(server.handle_timeout(), []);
    }
}

#[test]
fn closed_client_leaves_no_timer() {
    let mut server = Server::new(|config| config.close_timeout = Duration::MAX);
    for input in [Input::Close(None), Input::Binary] {
        let a = server.connect(Plain);
        server.input(a, input);
        assert_eq!(server.endpoint.poll_timeout(), None);
    }
}

#[test]
fn closing_and_gone_clients_are_not_pinged() {
    let mut server = Server::new(|config| config.close_timeout = Duration::MAX);
    let [a, b, c, d] = [Plain; 4].map(|dialect| server.connect(dialect));
    server.input(a, Input::Binary);
    server.input(b, Input::Close(None));
    server.input(c, Input::Disconnected);
    let e = server.connect(Plain);
    assert_eq!(e.slot(), c.slot());
    assert_eq!(server.run_until(25_000), [(25_000, d, "ping"), (25_000, e, "ping")]);
}

/// Slots are reused, so an order by id would let clients of other keys change what follows from a ping.
#[test]
fn clients_whose_ping_is_due_at_the_same_time_are_pinged_in_the_order_of_their_connection() {
    let mut server = default();
    let first = server.connect(Plain);
    let a = server.connect(Plain);
    server.input(first, Input::Disconnected);
    let b = server.connect(Plain);
    assert!(b < a, "it has the slot of the first");
    assert_eq!(server.run_until(25_000), [(25_000, a, "ping"), (25_000, b, "ping")]);
}
