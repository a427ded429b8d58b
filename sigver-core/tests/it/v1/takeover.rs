//! The role of an opener moves to another connection.

use super::*;

const OPEN: &str = r#"{"type":"open","key":"pot","id":"a"}"#;
const TAKE_OVER: &str = r#"{"type":"open","key":"pot","id":"c","token":"00000000000000000000000000000001"}"#;

impl Fixture {
    /// A has opened `pot` with token 1, B and P have joined it, and C has no role.
    fn with_token() -> Self {
        let mut fixture = Self::of_idle_clients(&['A', 'B', 'C']);
        fixture.connect('P', Dialect::Plain);
        fixture.connect('Q', Dialect::Plain);
        let opened = fixture.send_with(1, 'A', OPEN);
        assert_eq!(opened, [opened_with('A', 1)]);
        let _ = fixture.send('B', r#"{"type":"join","key":"pot","id":"b"}"#);
        let _ = fixture.send('P', r#"{"type":"join","key":"pot"}"#);
        fixture
    }
}

fn opened_with(who: char, token: u128) -> Received {
    frame(
        who,
        &format!(r#"{{"type":"opened","key":"pot","token":"{token:032x}"}}"#),
    )
}

fn is_refused(received: &[Received], who: char, code: &str) -> bool {
    matches!(received, [Received::Frame(to, error)] if *to == who && error.contains(code))
}

#[test]
fn role_moves_with_the_v1_joiners_and_plain_joiners_are_closed() {
    let mut fixture = Fixture::with_token();
    let received = fixture.send_with(2, 'C', TAKE_OVER);
    assert_eq!(
        received,
        [
            frame('A', r#"{"type":"closed","code":"taken-over"}"#),
            frame('B', r#"{"type":"reopened","id":"c"}"#),
            close('P', CloseReason::OpenerLeft),
            frame(
                'C',
                r#"{"type":"opened","key":"pot","token":"00000000000000000000000000000002","joiners":[{"index":0,"id":"b"}]}"#
            ),
        ]
    );
    assert_eq!((fixture.hub.stats().keys, fixture.hub.stats().joiners), (1, 1));
    assert_eq!(
        fixture.send('B', r#"{"type":"send","data":1}"#),
        [frame('C', r#"{"type":"data","index":0,"data":1}"#)]
    );
    assert_eq!(
        fixture.send('C', r#"{"type":"send","index":0,"data":2}"#),
        [frame('B', r#"{"type":"data","data":2}"#)]
    );
    // The count goes on, and the end of the previous connection ends nothing else.
    assert_eq!(fixture.end('A'), []);
    assert_eq!(
        fixture.send('Q', r#"{"type":"join","key":"pot"}"#),
        [frame('C', r#"{"type":"join","index":2}"#)]
    );
    assert_eq!(fixture.end('B'), [frame('C', r#"{"type":"leave","index":0}"#)]);
}

#[test]
fn token_is_valid_once() {
    let mut fixture = Fixture::with_token();
    let _ = fixture.send_with(2, 'C', TAKE_OVER);
    assert!(is_refused(&fixture.send_with(3, 'A', TAKE_OVER), 'A', "key-taken"));
    let current = TAKE_OVER.replace("01\"", "02\"");
    assert_eq!(fixture.send_with(3, 'A', &current).len(), 3);
    // After the key was closed, no token is of use.
    let _ = fixture.send('A', r#"{"type":"close"}"#);
    let last = TAKE_OVER.replace("01\"", "03\"");
    assert_eq!(fixture.send_with(4, 'C', &last), [opened_with('C', 4)]);
    assert!(is_refused(&fixture.send_with(5, 'A', &last), 'A', "key-taken"));
}

#[test]
fn wrong_token_is_refused_and_changes_nothing() {
    for token in [
        "",
        "1",
        "00000000000000000000000000000002",
        "0000000000000000000000000000001",
        "é",
    ] {
        for kind in ["open", "meet"] {
            let mut fixture = Fixture::with_token();
            let text = format!(r#"{{"type":"{kind}","key":"pot","token":"{token}"}}"#);
            assert!(
                is_refused(&fixture.send_with(2, 'C', &text), 'C', "key-taken"),
                "{text}"
            );
            assert_eq!(
                fixture.send('B', r#"{"type":"send","data":1}"#),
                [frame('A', r#"{"type":"data","index":0,"data":1}"#)]
            );
        }
    }
}

#[test]
fn meet_without_a_token_joins_and_with_the_right_one_takes_over() {
    let mut fixture = Fixture::with_token();
    let _ = fixture.end('P');
    let meet = r#"{"type":"meet","key":"pot"}"#;
    assert_eq!(fixture.send_with(2, 'C', meet).len(), 2, "it is a joiner");
    let _ = fixture.send('C', r#"{"type":"leave"}"#);
    let received = fixture.send_with(2, 'C', &TAKE_OVER.replace("open", "meet"));
    assert_eq!(received[0], frame('A', r#"{"type":"closed","code":"taken-over"}"#));
}

#[test]
fn role_cannot_be_taken_from_a_connection_that_has_another() {
    let mut fixture = Fixture::with_token();
    for who in ['A', 'B'] {
        assert!(is_refused(&fixture.send_with(2, who, TAKE_OVER), who, "has-role"));
    }
}

#[test]
fn opener_without_a_token_cannot_be_taken_over() {
    // A plain opener, and one of an embedder without randomness.
    for opener in ['P', 'A'] {
        let mut fixture = Fixture::of_idle_clients(&['A', 'C']);
        fixture.connect('P', Dialect::Plain);
        let received = match opener {
            'P' => fixture.send_with(1, 'P', r#"{"type":"open","key":"pot"}"#),
            _ => fixture.send('A', OPEN),
        };
        assert!(!format!("{received:?}").contains("token"));
        assert!(is_refused(&fixture.send_with(2, 'C', TAKE_OVER), 'C', "key-taken"));
    }
}

#[test]
fn taken_over_connection_may_have_another_role() {
    let mut fixture = Fixture::with_token();
    let _ = fixture.send_with(2, 'C', TAKE_OVER);
    assert_eq!(
        fixture.send('A', r#"{"type":"join","key":"pot"}"#),
        [
            frame('A', r#"{"type":"joined","index":2,"id":"c"}"#),
            frame('C', r#"{"type":"join","index":2}"#)
        ]
    );
}

#[test]
fn opener_that_takes_over_without_an_id_has_none() {
    let mut fixture = Fixture::with_token();
    let text = r#"{"type":"open","key":"pot","token":"00000000000000000000000000000001"}"#;
    let received = fixture.send_with(2, 'C', text);
    assert_eq!(received[1], frame('B', r#"{"type":"reopened"}"#));
    let _ = fixture.send('A', r#"{"type":"join","key":"pot"}"#);
    assert_eq!(fixture.hub.stats().joiners, 2);
}
