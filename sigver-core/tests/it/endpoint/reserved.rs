//! Keys that are reserved for openers whose connection was lost.

use super::*;

const TAKEN: &str = "key-taken";
const OPENED: &str = "opened";

/// Returns the text that opens `tea` with the token in `opened`.
fn with_token(opened: &str) -> String {
    let (_, token) = opened.split_once(r#""token":""#).expect("a token");
    format!(r#"{{"type":"open","key":"tea","token":"{}"}}"#, &token[..32])
}

fn is(outputs: &Outputs, id: ConnId, what: &str) -> bool {
    outputs.of(id).iter().any(|text| text.contains(what))
}

#[test]
fn key_is_reserved_after_a_disconnect_and_free_after_a_close_frame() {
    for (input, is_reserved) in [(Input::Disconnected, true), (Input::Close(Some(1000)), false)] {
        let mut server = default();
        let [opener, other] = [V1; 2].map(|dialect| server.connect(dialect));
        server.text(opener, OPEN);
        server.input(opener, input);
        // The end of the socket after the close frame changes nothing.
        server.input(opener, Input::Disconnected);
        let what = if is_reserved { TAKEN } else { OPENED };
        assert!(is(&server.text(other, OPEN), other, what));
    }
}

#[test]
fn slow_and_silent_openers_keep_their_key_and_take_it_again() {
    for is_slow in [true, false] {
        let mut server = Server::new(|config| config.backlog_bytes = 4_000);
        let [opener, joiner, other] = [V1; 3].map(|dialect| server.connect(dialect));
        let opened = server.text(opener, OPEN).of(opener)[0].to_owned();
        server.text(joiner, JOIN);
        if is_slow {
            server.stalled.insert(opener);
            while server.text(joiner, r#"{"type":"send","data":1}"#).of(joiner).is_empty() {}
            server.run_until(5_000);
        } else {
            // Only the others answer pings.
            for seconds in [25, 50, 75] {
                server.run_until(seconds * 1_000);
                server.input(joiner, Input::Pong);
                server.input(other, Input::Pong);
            }
        }
        assert_eq!(server.endpoint.role(joiner), None, "its opener left");
        // The joiner cannot take the place of its opener.
        assert!(is(&server.text(joiner, OPEN), joiner, TAKEN));
        assert!(is(&server.text(other, &with_token(&opened)), other, OPENED));
        assert_eq!(server.endpoint.counters().hub.reserved, 0);
    }
}

#[test]
fn half_open_opener_is_taken_over_before_the_server_notices() {
    let mut server = default();
    let [opener, joiner, again] = [V1; 3].map(|dialect| server.connect(dialect));
    let opened = server.text(opener, OPEN).of(opener)[0].to_owned();
    server.text(joiner, JOIN);
    let outputs = server.text(again, &with_token(&opened));
    assert_eq!(outputs.of(opener), [r#"{"type":"closed","code":"taken-over"}"#]);
    assert_eq!(outputs.of(joiner), [r#"{"type":"reopened"}"#]);
    assert!(is(&outputs, again, r#""joiners":[{"index":0}]"#));
    // Pairings go on.
    assert_eq!(server.input(opener, Input::Disconnected), []);
    server.text(joiner, r#"{"type":"send","data":1}"#);
    let left = server.text(joiner, r#"{"type":"leave"}"#);
    assert_eq!(
        left,
        [(joiner, "ended-by-joiner"), (again, r#"{"type":"leave","index":0}"#)]
    );
}

#[test]
fn reservation_that_passed_before_a_late_call_restarts() {
    let mut server = default();
    let [opener, other] = [V1; 2].map(|dialect| server.connect(dialect));
    server.text(opener, OPEN);
    server.input(opener, Input::Disconnected);
    server.input(other, Input::Disconnected);
    assert_eq!(server.endpoint.poll_timeout(), Some(at(30_000)));
    // The process was suspended. The open of the opener may not have been read yet.
    server.now = at(100_000);
    assert_eq!(server.handle_timeout(), []);
    assert_eq!(server.endpoint.poll_timeout(), Some(at(130_000)));
    assert_eq!(server.run_until(130_000), []);
    assert_eq!(server.endpoint.poll_timeout(), None);
}

#[test]
fn drain_and_close_all_reserve_nothing() {
    for is_drain in [true, false] {
        let mut server = Server::new(|config| config.close_timeout = Duration::ZERO);
        let opener = server.connect(V1);
        server.text(opener, OPEN);
        if is_drain {
            server.endpoint.drain(at(0), at(0));
            server.run_until(10_000);
        } else {
            server.close_all();
        }
        server.input(opener, Input::Disconnected);
        assert!(server.endpoint.is_finished());
        assert_eq!(server.endpoint.poll_timeout(), None);
    }
}

/// A client that loses many connections ends only its own reservations.
#[test]
fn source_has_a_share_of_the_reservations() {
    let mut server = Server::new(|config| {
        config.keep_alive = Duration::MAX;
        config.limits.connections = NonZeroU32::new(200);
    });
    let victim = server.connect_from(V1, "198.51.100.1").expect("a connection");
    let opened = server.text(victim, OPEN).of(victim)[0].to_owned();
    server.input(victim, Input::Disconnected);
    let lose_many = |server: &mut Server| {
        for _ in 0..400 {
            let id = server.connect(V1);
            server.text(id, r#"{"type":"open"}"#);
            server.input(id, Input::Disconnected);
        }
    };
    lose_many(&mut server);
    assert_eq!(server.endpoint.counters().hub.reserved, 1 + 200 / 8);
    let thief = server.connect(V1);
    assert!(is(&server.text(thief, OPEN), thief, TAKEN));
    let returned = server.connect_from(V1, "198.51.100.1").expect("a connection");
    assert!(is(&server.text(returned, &with_token(&opened)), returned, OPENED));
    // The share refills.
    server.run_until(30_000);
    lose_many(&mut server);
    assert_eq!(server.endpoint.counters().hub.reserved, 200 / 8);
}
