//! Joins that wait for their key.

use super::*;

const KEY: &str = r#""key":"pot""#;

fn join(wait: u32) -> String {
    format!(r#"{{"type":"join",{KEY},"wait":{wait}}}"#)
}

fn waiting(who: char, wait: u32) -> Received {
    frame(who, &format!(r#"{{"type":"waiting",{KEY},"wait":{wait}}}"#))
}

fn unknown(who: char) -> Received {
    let message = "`key` is unknown: nobody has it open";
    frame(
        who,
        &format!(r#"{{"type":"error","code":"unknown-key","message":"{message}",{KEY}}}"#),
    )
}

#[test]
fn waiters_join_in_order_of_arrival_when_the_key_is_opened() {
    // The order of arrival is neither that of the connections nor that of the ends of their waits.
    let mut fixture = Fixture::of_idle_clients(&['A', 'B', 'C']);
    assert_eq!(fixture.send('C', &join(60)), [waiting('C', 60)]);
    assert_eq!(
        fixture.send('A', r#"{"type":"join","key":"pot","wait":5,"id":"a"}"#),
        [waiting('A', 5)]
    );
    let opened = fixture.send('B', r#"{"type":"open","key":"pot","id":"b"}"#);
    assert_eq!(
        opened,
        [
            frame('B', r#"{"type":"opened","key":"pot"}"#),
            frame('C', r#"{"type":"joined","index":0,"id":"b"}"#),
            frame('B', r#"{"type":"join","index":0}"#),
            frame('A', r#"{"type":"joined","index":1,"id":"b"}"#),
            frame('B', r#"{"type":"join","index":1,"id":"a"}"#),
        ]
    );
    assert_eq!(fixture.run_until(1_000), [], "their deadlines are gone");
    assert_eq!(
        fixture.send('A', r#"{"type":"send","data":1}"#),
        [frame('B', r#"{"type":"data","index":1,"data":1}"#)]
    );
}

#[test]
fn wait_ends_with_unknown_key_exactly_when_its_time_is_over() {
    let mut fixture = Fixture::of_idle_clients(&['A', 'B']);
    assert_eq!(fixture.run_until(10), []);
    assert_eq!(fixture.send('A', &join(30)), [waiting('A', 30)]);
    assert_eq!(fixture.hub.poll_timeout(), Some(at(40)));
    assert_eq!(fixture.run_until(39), []);
    assert_eq!(fixture.run_until(40), [unknown('A')]);
    assert_eq!(fixture.hub.poll_timeout(), None);
    // It can wait again, and joins later than it has waited before.
    assert_eq!(fixture.send('A', &join(1)), [waiting('A', 1)]);
    let opened = fixture.send('B', r#"{"type":"open","key":"pot"}"#);
    assert_eq!(opened.len(), 3, "{opened:?}");
    assert_eq!(fixture.run_until(1_000), []);
}

#[test]
fn wait_is_cut_to_the_limit() {
    let mut fixture = Fixture::of_idle_clients(&['A']);
    assert_eq!(fixture.send('A', &join(4_000_000_000)), [waiting('A', 120)]);
    assert_eq!(fixture.run_until(119), []);
    assert_eq!(fixture.run_until(120), [unknown('A')]);
}

#[test]
fn limit_of_zero_disables_waiting() {
    let mut fixture = Fixture::of_idle_clients(&['A']);
    fixture.limits.join_wait = Duration::from_millis(999);
    assert_eq!(fixture.send('A', &join(60)), [unknown('A')]);
}

#[test]
fn wait_for_an_open_key_joins_at_once() {
    let mut fixture = Fixture::of_idle_clients(&['A', 'B']);
    let _ = fixture.send('A', r#"{"type":"open","key":"pot"}"#);
    assert_eq!(
        fixture.send('B', &join(60)),
        [
            frame('B', r#"{"type":"joined","index":0}"#),
            frame('A', r#"{"type":"join","index":0}"#)
        ]
    );
}

#[test]
fn waiter_is_refused_another_role_and_data() {
    for (text, code) in [
        (r#"{"type":"open","key":"pot"}"#, "has-role"),
        (r#"{"type":"open"}"#, "has-role"),
        (r#"{"type":"join","key":"pot"}"#, "has-role"),
        (r#"{"type":"join","key":"cup","wait":9}"#, "has-role"),
        (r#"{"type":"meet","key":"pot"}"#, "has-role"),
        (r#"{"type":"send","data":1}"#, "no-role"),
        (r#"{"type":"kick","index":0}"#, "no-role"),
        (r#"{"type":"close"}"#, "no-role"),
    ] {
        let mut fixture = Fixture::of_idle_clients(&['A', 'B']);
        let _ = fixture.send('A', &join(60));
        let received = match fixture.send('A', text) {
            // Only an endpoint generates keys.
            received if text == r#"{"type":"open"}"# => {
                assert_eq!(received, [close('A', CloseReason::Internal)]);
                continue;
            }
            received => received,
        };
        assert!(
            matches!(&received[..], [Received::Frame('A', error)] if error.contains(code)),
            "{text}: {received:?}"
        );
        // The wait goes on.
        assert_eq!(fixture.hub.stats().waiting, 1);
        assert_eq!(fixture.send('B', r#"{"type":"open","key":"pot"}"#).len(), 3, "{text}");
    }
}

#[test]
fn waiter_that_leaves_or_ends_leaves_nothing_behind() {
    let leave = |fixture: &mut Fixture| fixture.send('A', r#"{"type":"leave"}"#);
    let disconnect = |fixture: &mut Fixture| fixture.end('A');
    for end in [leave, disconnect] {
        let mut fixture = Fixture::of_idle_clients(&['A', 'B']);
        let _ = fixture.send('A', &join(60));
        assert_eq!(end(&mut fixture), []);
        assert_eq!((fixture.hub.stats().waiting, fixture.hub.poll_timeout()), (0, None));
        assert_eq!(
            fixture.send('B', r#"{"type":"open","key":"pot"}"#),
            [frame('B', r#"{"type":"opened","key":"pot"}"#)]
        );
    }
}

#[test]
fn key_has_as_many_waiters_as_it_may_have_joiners() {
    let mut fixture = Fixture::of_idle_clients(&['A', 'B', 'C', 'D']);
    for who in ['A', 'B'] {
        assert_eq!(fixture.send(who, &join(60)), [waiting(who, 60)]);
    }
    let refused = fixture.send('C', &join(60));
    assert!(
        matches!(&refused[..], [Received::Frame('C', error)] if error.contains("too-many-joiners")),
        "{refused:?}"
    );
    // Another key has its own, and one that leaves makes room.
    assert_eq!(fixture.send('C', r#"{"type":"join","key":"cup","wait":9}"#).len(), 1);
    assert_eq!(fixture.send('C', r#"{"type":"leave"}"#), []);
    assert_eq!(fixture.send('A', r#"{"type":"leave"}"#), []);
    assert_eq!(fixture.send('C', &join(60)), [waiting('C', 60)]);
    // All of them join, and then the key is full.
    assert_eq!(fixture.send('D', r#"{"type":"open","key":"pot"}"#).len(), 5);
    let refused = fixture.send('A', &join(60));
    assert!(matches!(&refused[..], [Received::Frame('A', error)] if error.contains("too-many-joiners")));
}

#[test]
fn waiter_has_met_its_role_deadline() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.send('S', &join(100)), [waiting('S', 100)]);
    assert_eq!(fixture.run_until(99), [close('T', CloseReason::NoRoleInTime)]);
    assert_eq!(fixture.run_until(1_000), [unknown('S')]);
}

/// The original project's own test: its joiner connects right behind the open. In every order of both, with a wait of any length, the
/// joiner finds the key.
#[test]
fn join_that_overtakes_the_open_finds_the_key() {
    for join_first in [true, false] {
        for (opener, joiner) in [('A', 'B'), ('B', 'A')] {
            let mut fixture = Fixture::of_idle_clients(&['A', 'B']);
            let (open, join) = (r#"{"type":"open","key":"pot"}"#.to_owned(), join(1));
            let mut sends = [(opener, open), (joiner, join)];
            if join_first {
                sends.reverse();
            }
            let received: Vec<Received> = sends.iter().flat_map(|(who, text)| fixture.send(*who, text)).collect();
            assert!(received.contains(&frame(joiner, r#"{"type":"joined","index":0}"#)));
            assert!(received.contains(&frame(opener, r#"{"type":"join","index":0}"#)));
        }
    }
}

#[test]
fn wait_in_vain_closes_a_connection_with_a_single_use_role() {
    let limits = Limits::default();
    let mut hub = Hub::new(limits.clone());
    let id = hub.connect(Time::ZERO, Dialect::Plain.profile()).expect("no limit");
    let key = Key::new("pot", &limits).expect("a valid key");
    let join = InboundMessage::Join {
        key,
        id: None,
        wait: Duration::from_millis(250),
    };
    let outputs = hub.handle(Time::ZERO, id, join);
    assert!(matches!(outputs[..], [(to, OutboundMessage::Waiting { .. })] if to == id));
    let due = Time::from_duration(Duration::from_millis(250));
    assert_eq!(hub.poll_timeout(), Some(due));
    let outputs = hub.handle_timeout(due);
    assert_eq!(outputs, [(id, OutboundMessage::Close(CloseReason::UnknownKey))]);
    assert_eq!((hub.stats().connections, hub.stats().waiting), (0, 0));
    hub.assert_invariants();
}
