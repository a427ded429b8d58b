//! Keys that are reserved for openers whose connection was lost.

use super::*;

const OPEN: &str = r#"{"type":"open","key":"pot"}"#;
const WITH_TOKEN: &str = r#"{"type":"open","key":"pot","token":"00000000000000000000000000000001"}"#;

fn opened(who: char, token: u128) -> Received {
    frame(
        who,
        &format!(r#"{{"type":"opened","key":"pot","token":"{token:032x}"}}"#),
    )
}

fn is_refused(received: &[Received], who: char, code: &str) -> bool {
    matches!(received, [Received::Frame(to, error)] if *to == who && error.contains(code))
}

impl Fixture {
    /// A has opened `pot` with token 1, B has joined it, and C and D have no role.
    fn to_lose(set: impl FnOnce(&mut Limits)) -> Self {
        let mut fixture = Self::of_idle_clients(&['A', 'B', 'C', 'D']);
        let mut limits = fixture.limits.clone();
        set(&mut limits);
        fixture.hub = Hub::new(limits.clone());
        fixture.limits = limits;
        fixture.clients.clear();
        for who in ['A', 'B', 'C', 'D'] {
            fixture.connect(who, Dialect::V1);
        }
        assert_eq!(fixture.send_with(1, 'A', OPEN), [opened('A', 1)]);
        let _ = fixture.send('B', r#"{"type":"join","key":"pot"}"#);
        fixture
    }

    fn lose(&mut self, who: char) -> Vec<Received> {
        let (_, id) = self.find(who);
        let outputs = self.hub.disconnect(self.now, id, Disconnect::Lost);
        self.encode(outputs)
    }

    fn close(&mut self, who: char, reason: CloseReason) -> Vec<Received> {
        let (_, id) = self.find(who);
        let outputs = self.hub.close(self.now, id, reason);
        self.encode(outputs)
    }
}

#[test]
fn key_of_a_lost_opener_is_kept_for_its_token_and_its_joiners_are_told() {
    let mut fixture = Fixture::to_lose(|_| {});
    assert_eq!(
        fixture.lose('A'),
        [frame('B', r#"{"type":"closed","code":"opener-left"}"#)]
    );
    let stats = fixture.hub.stats();
    assert_eq!((stats.keys, stats.reserved, stats.joiners), (0, 1, 0));
    for (text, code) in [
        (OPEN, "key-taken"),
        (&WITH_TOKEN.replace("01\"", "02\""), "key-taken"),
        (&WITH_TOKEN.replace("open", "meet").replace("01\"", "02\""), "key-taken"),
        (r#"{"type":"meet","key":"pot"}"#, "unknown-key"),
        (r#"{"type":"join","key":"pot"}"#, "unknown-key"),
    ] {
        assert!(is_refused(&fixture.send_with(2, 'C', text), 'C', code), "{text}");
    }
    assert_eq!(fixture.send_with(3, 'C', WITH_TOKEN), [opened('C', 3)]);
    assert_eq!(fixture.hub.stats().reserved, 0);
    assert_eq!(
        fixture.send('B', r#"{"type":"join","key":"pot"}"#),
        [
            frame('B', r#"{"type":"joined","index":0}"#),
            frame('C', r#"{"type":"join","index":0}"#)
        ]
    );
    assert_eq!(fixture.hub.poll_timeout(), None);
}

#[test]
fn reservation_ends_exactly_when_its_time_is_over() {
    let mut fixture = Fixture::to_lose(|_| {});
    assert_eq!(fixture.run_until(5), []);
    let _ = fixture.lose('A');
    assert_eq!(fixture.hub.poll_timeout(), Some(at(35)));
    assert_eq!(fixture.run_until(34), []);
    assert!(is_refused(&fixture.send_with(2, 'C', OPEN), 'C', "key-taken"));
    assert_eq!(fixture.run_until(35), []);
    assert_eq!((fixture.hub.stats().reserved, fixture.hub.poll_timeout()), (0, None));
    assert_eq!(fixture.send_with(2, 'C', OPEN), [opened('C', 2)]);
    // A token of a key that is free is ignored.
    let _ = fixture.send('C', r#"{"type":"close"}"#);
    assert_eq!(fixture.send_with(4, 'D', WITH_TOKEN), [opened('D', 4)]);
}

#[test]
fn key_is_reserved_after_a_loss_only() {
    for reason in CloseReason::ALL {
        let mut fixture = Fixture::to_lose(|_| {});
        let _ = fixture.close('A', *reason);
        let is_loss = matches!(reason, CloseReason::Silent | CloseReason::TooSlow);
        assert_eq!(fixture.hub.stats().reserved, u32::from(is_loss), "{reason:?}");
        let received = fixture.send_with(2, 'C', OPEN);
        assert_eq!(received == [opened('C', 2)], !is_loss, "{reason:?}");
    }
    let close_frame = |fixture: &mut Fixture| fixture.end('A');
    let close = |fixture: &mut Fixture| fixture.send('A', r#"{"type":"close"}"#);
    let malformed = |fixture: &mut Fixture| fixture.send('A', "{");
    for end in [close_frame, close, malformed] {
        let mut fixture = Fixture::to_lose(|_| {});
        let _ = end(&mut fixture);
        assert_eq!(fixture.send_with(2, 'C', OPEN), [opened('C', 2)]);
    }
}

#[test]
fn loss_of_a_joiner_or_a_waiter_reserves_nothing() {
    let mut fixture = Fixture::to_lose(|_| {});
    let _ = fixture.send('C', r#"{"type":"join","key":"cup","wait":9}"#);
    for who in ['B', 'C', 'D'] {
        let _ = fixture.lose(who);
    }
    assert_eq!((fixture.hub.stats().reserved, fixture.hub.poll_timeout()), (0, None));
}

#[test]
fn key_of_an_opener_that_has_met_is_not_reserved() {
    let meet = r#"{"type":"meet","key":"pot"}"#;
    let mut fixture = Fixture::to_lose(|_| {});
    let _ = fixture.send('A', r#"{"type":"close"}"#);
    assert_eq!(fixture.send_with(2, 'A', meet), [opened('A', 2)]);
    let _ = fixture.lose('A');
    assert_eq!(fixture.send_with(3, 'C', meet), [opened('C', 3)]);
    // How the current opener got the key is decisive.
    let _ = fixture.send_with(4, 'D', &WITH_TOKEN.replace("01\"", "03\""));
    let _ = fixture.lose('D');
    assert_eq!(fixture.hub.stats().reserved, 1);
    let _ = fixture.send_with(5, 'C', &WITH_TOKEN.replace("open", "meet").replace("01\"", "04\""));
    let _ = fixture.lose('C');
    assert_eq!(fixture.hub.stats().reserved, 0);
}

#[test]
fn key_of_an_opener_without_a_token_is_not_reserved() {
    let mut fixture = Fixture::to_lose(|_| {});
    fixture.connect('P', Dialect::Plain);
    for (opener, who) in [('P', 'C'), ('C', 'D')] {
        // Without randomness, a v1 opener has no token either.
        let _ = fixture.send(opener, r#"{"type":"open","key":"cup"}"#);
        let _ = fixture.lose(opener);
        let received = fixture.send(who, r#"{"type":"open","key":"cup"}"#);
        assert_eq!(received, [frame(who, r#"{"type":"opened","key":"cup"}"#)]);
        let _ = fixture.send(who, r#"{"type":"close"}"#);
    }
}

#[test]
fn join_waits_for_a_reserved_key() {
    let mut fixture = Fixture::to_lose(|_| {});
    let _ = fixture.lose('A');
    let waiting = fixture.send('B', r#"{"type":"join","key":"pot","wait":60}"#);
    assert_eq!(waiting, [frame('B', r#"{"type":"waiting","key":"pot","wait":60}"#)]);
    let mut expected = vec![opened('C', 2)];
    expected.extend([
        frame('B', r#"{"type":"joined","index":0}"#),
        frame('C', r#"{"type":"join","index":0}"#),
    ]);
    assert_eq!(fixture.send_with(2, 'C', WITH_TOKEN), expected);
    // The wait does not end with the reservation.
    let _ = fixture.lose('C');
    let _ = fixture.send('B', r#"{"type":"join","key":"pot","wait":60}"#);
    assert_eq!(fixture.run_until(30), []);
    expected[0] = opened('D', 3);
    expected[2] = frame('D', r#"{"type":"join","index":0}"#);
    assert_eq!(fixture.send_with(3, 'D', OPEN), expected);
}

#[test]
fn one_reservation_too_many_ends_the_oldest() {
    let mut fixture = Fixture::to_lose(|limits| limits.reserved_keys = core::num::NonZeroU32::new(2));
    let open = |key: &str| format!(r#"{{"type":"open","key":"{key}"}}"#);
    let _ = fixture.lose('A');
    // The names of the keys are not in the order of the reservations.
    for (who, key) in [('B', "m"), ('C', "a")] {
        let _ = fixture.send_with(2, who, &open(key));
        let _ = fixture.lose(who);
    }
    assert_eq!(fixture.hub.stats().reserved, 2);
    for (key, is_free) in [("m", false), ("a", false), ("pot", true)] {
        let received = fixture.send_with(3, 'D', &open(key));
        assert_eq!(is_refused(&received, 'D', "key-taken"), !is_free, "{key}");
    }
}

#[test]
fn there_are_as_many_reservations_as_connections_by_default() {
    let mut fixture = Fixture::to_lose(|limits| limits.connections = core::num::NonZeroU32::new(4));
    let _ = fixture.lose('A');
    for number in 0..9 {
        let id = fixture.hub.connect(Time::ZERO, Dialect::V1.profile()).expect("a place");
        fixture.clients.insert(0, ('X', Dialect::V1, id));
        let _ = fixture.send_with(2, 'X', &format!(r#"{{"type":"open","key":"{number}"}}"#));
        let _ = fixture.lose('X');
    }
    assert_eq!(fixture.hub.stats().reserved, 4);
}

#[test]
fn time_of_zero_disables_reservations() {
    let mut fixture = Fixture::to_lose(|limits| limits.reserve = Duration::ZERO);
    let _ = fixture.lose('A');
    assert_eq!(fixture.send_with(2, 'C', OPEN), [opened('C', 2)]);
}

#[test]
fn shutdown_ends_reservations() {
    let mut fixture = Fixture::to_lose(|_| {});
    let _ = fixture.lose('A');
    let _ = fixture.hub.shutdown();
    assert_eq!((fixture.hub.stats().reserved, fixture.hub.poll_timeout()), (0, None));
    fixture.hub.assert_invariants();
}
