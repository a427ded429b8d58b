//! Peers that meet at a key, without an agreement on who opens it.

use super::*;

const MEET: &str = r#"{"type":"meet","key":"pot"}"#;

fn opened(who: char) -> Received {
    frame(who, r#"{"type":"opened","key":"pot"}"#)
}

fn joined(joiner: char, opener: char, index: u32) -> [Received; 2] {
    [
        frame(joiner, &format!(r#"{{"type":"joined","index":{index}}}"#)),
        frame(opener, &format!(r#"{{"type":"join","index":{index}}}"#)),
    ]
}

#[test]
fn first_of_many_becomes_the_opener_and_the_others_join_it() {
    for order in [['A', 'B', 'C'], ['C', 'A', 'B'], ['B', 'C', 'A']] {
        let mut fixture = Fixture::of_idle_clients(&['A', 'B', 'C']);
        let [first, second, third] = order;
        assert_eq!(fixture.send(first, MEET), [opened(first)]);
        assert_eq!(fixture.send(second, MEET), joined(second, first, 0));
        assert_eq!(fixture.send(third, MEET), joined(third, first, 1));
    }
}

#[test]
fn after_the_opener_left_the_first_to_meet_again_is_the_new_opener() {
    let mut fixture = Fixture::of_idle_clients(&['A', 'B', 'C']);
    for who in ['A', 'B', 'C'] {
        let _ = fixture.send(who, MEET);
    }
    let closed = r#"{"type":"closed","code":"opener-left"}"#;
    assert_eq!(fixture.end('A'), [frame('B', closed), frame('C', closed)]);
    assert_eq!(fixture.send('C', MEET), [opened('C')]);
    assert_eq!(fixture.send('B', MEET), joined('B', 'C', 0));
}

#[test]
fn meeting_uses_the_same_keys_as_open_and_join() {
    let mut fixture = Fixture::of_idle_clients(&['A', 'B', 'C']);
    assert_eq!(fixture.send('A', r#"{"type":"open","key":"pot"}"#), [opened('A')]);
    let ids = fixture.send('B', r#"{"type":"meet","key":"pot","id":"b"}"#);
    assert_eq!(ids[1], frame('A', r#"{"type":"join","index":0,"id":"b"}"#));
    let _ = fixture.send('A', r#"{"type":"close"}"#);
    assert_eq!(fixture.send('B', MEET), [opened('B')]);
    assert_eq!(fixture.send('C', r#"{"type":"join","key":"pot"}"#), joined('C', 'B', 0));
}

#[test]
fn waiters_join_the_first_client_that_meets() {
    let mut fixture = Fixture::of_idle_clients(&['A', 'B']);
    let _ = fixture.send('A', r#"{"type":"join","key":"pot","wait":9}"#);
    let received = fixture.send('B', MEET);
    let [joined, join] = joined('A', 'B', 0);
    assert_eq!(received, [opened('B'), joined, join]);
}
