//! `sigver.v1` on the bare codec and hub, alone and together with the plain dialect, as tables and scenarios.
//!
//! Each row is played on a new [`Fixture`]. Key `tea`: **A**, the opener, and **B**, joiner 0, use `sigver.v1`; **P**, joiner 1, uses the
//! plain dialect. Key `cup`: **O**, the opener, and **Q**, joiner 1, use the plain dialect; **C**, joiner 0, uses `sigver.v1`. **S** uses
//! `sigver.v1` and has no role, **T** uses the plain dialect and has no role. A key may have two joiners.

use core::time::Duration;

use sigver_core::{
    Addressee, CloseReason, ConnId, Decoder, Dialect, Disconnect, Frame, Hub, InboundMessage, Index, Key, KeyError,
    Limits, Member, OutboundMessage, PayloadKind, PeerId, Refusal, Stats, Time, Token,
};

mod data;
mod meeting;
mod reserved;
mod takeover;
mod texts;
mod waiting;

/// Requests that are invalid in the current state: the sender, its text, the code of the error, and its further members.
#[rustfmt::skip]
const REFUSALS: &[(char, &str, &str, &str)] = &[
    ('S', r#"{"type":"open","key":"tea"}"#,              "key-taken",        r#","key":"tea""#),
    ('S', r#"{"type":"open","key":"\u0063up"}"#,         "key-taken",        r#","key":"cup""#),
    ('S', r#"{"type":"join","key":"Tea"}"#,              "unknown-key",      r#","key":"Tea""#),
    ('S', r#"{"type":"join","key":"\u0022\n"}"#,         "unknown-key",      r#","key":"\"\n""#),
    ('S', r#"{"type":"join","key":"tea"}"#,              "too-many-joiners", r#","key":"tea""#),
    ('S', r#"{"type":"join","key":"cup"}"#,              "too-many-joiners", r#","key":"cup""#),
    ('S', r#"{"type":"meet","key":"tea"}"#,              "too-many-joiners", r#","key":"tea""#),

    ('A', r#"{"type":"open","key":"tea"}"#,              "has-role",         ""),
    ('A', r#"{"type":"open","key":"pot"}"#,              "has-role",         ""),
    ('A', r#"{"type":"join","key":"cup"}"#,              "has-role",         ""),
    ('B', r#"{"type":"join","key":"tea"}"#,              "has-role",         ""),
    ('C', r#"{"type":"open","key":"pot"}"#,              "has-role",         ""),
    ('A', r#"{"type":"meet","key":"tea"}"#,              "has-role",         ""),
    ('B', r#"{"type":"meet","key":"pot"}"#,              "has-role",         ""),

    ('S', r#"{"type":"send","data":1}"#,                 "no-role",          ""),
    ('S', r#"{"type":"send","index":0,"data":1}"#,       "no-role",          ""),
    ('S', r#"{"type":"kick","index":0}"#,                "no-role",          ""),
    ('S', r#"{"type":"leave"}"#,                         "no-role",          ""),
    ('S', r#"{"type":"close"}"#,                         "no-role",          ""),

    ('A', r#"{"type":"leave"}"#,                         "wrong-role",       ""),
    ('B', r#"{"type":"close"}"#,                         "wrong-role",       ""),
    ('B', r#"{"type":"kick","index":1}"#,                "wrong-role",       ""),
    ('C', r#"{"type":"kick","index":0}"#,                "wrong-role",       ""),

    ('A', r#"{"type":"send","data":{"index":0}}"#,       "no-index",         ""),

    ('A', r#"{"type":"send","index":2,"data":1}"#,       "unknown-index",    r#","index":2"#),
    ('A', r#"{"type":"send","index":"7","data":{}}"#,    "unknown-index",    r#","index":7"#),
    ('A', r#"{"type":"kick","index":4294967294}"#,       "unknown-index",    r#","index":4294967294"#),
    // No index is as large, and the error does not repeat it.
    ('A', r#"{"type":"send","index":4294967295,"data":1}"#, "unknown-index", ""),
    ('A', r#"{"type":"kick","index":18446744073709551616}"#, "unknown-index", ""),

    // To an opener with the index, to a joiner without.
    ('A', r#"{"type":"send","index":1,"data":"hello"}"#, "not-an-object",    r#","index":1"#),
    ('A', r#"{"type":"send","index":1,"data":[{}]}"#,    "not-an-object",    r#","index":1"#),
    ('A', r#"{"type":"send","index":1,"data":{"index":1,"index":1}}"#, "not-an-object", r#","index":1"#),
    ('C', r#"{"type":"send","data":null}"#,              "not-an-object",    ""),
    ('C', r#"{"type":"send","index":7,"data":0}"#,       "not-an-object",    ""),
    ('C', r#"{"type":"send","data":{"index":1,"index":1}}"#, "not-an-object", ""),
    ('C', r#"{"type":"send","data":{"\u0069ndex":1,"index":1}}"#, "not-an-object", ""),
    ('C', r#"{"type":"send","index":7,"data":{"index":1,"index":1}}"#, "not-an-object", ""),
];

#[test]
fn ids_go_to_the_peer_in_sigver_v1_only() {
    let mut fixture = Fixture::new();
    let _ = fixture.send('A', r#"{"type":"close"}"#);
    let _ = fixture.send('A', r#"{"type":"open","key":"pot","id":"\u0061\""}"#);
    assert_eq!(
        fixture.send('B', r#"{"type":"join","key":"pot","id":"b"}"#),
        [
            frame('B', r#"{"type":"joined","index":0,"id":"a\""}"#),
            frame('A', r#"{"type":"join","index":0,"id":"b"}"#)
        ]
    );
    // The plain dialect ignores the member, and has no place for it.
    assert_eq!(
        fixture.send('T', r#"{"type":"join","key":"pot","id":7,"id":null}"#),
        [frame('A', r#"{"type":"join","index":1}"#)]
    );
    let _ = fixture.end('C');
    let _ = fixture.end('Q');
    assert_eq!(
        fixture.send('S', r#"{"type":"join","key":"cup","id":"s"}"#),
        [
            frame('S', r#"{"type":"joined","index":2}"#),
            frame('O', r#"{"type":"join"}"#)
        ]
    );
}

#[test]
fn hub_without_randomness_closes_the_sender() {
    let mut hub = Hub::new(Limits::default());
    let id = hub.connect(Time::ZERO, Dialect::V1.profile()).expect("no limit");
    let outputs = hub.handle(Time::ZERO, id, InboundMessage::OpenGenerated { id: None });
    assert_eq!(outputs, [(id, OutboundMessage::Close(CloseReason::Internal))]);
}

#[test]
fn refusal_goes_to_its_sender_and_changes_nothing() {
    for (who, text, code, beside) in REFUSALS {
        let mut fixture = Fixture::new();
        let before = fixture.hub.stats();
        let received = fixture.send(*who, text);
        let [Received::Frame(to, error)] = &received[..] else {
            panic!("{who} sends {text}: {received:?}");
        };
        assert_eq!(to, who, "{text}");
        let start = format!(r#"{{"type":"error","code":"{code}","message":""#);
        let (message, end) = error
            .strip_prefix(&start)
            .and_then(|rest| rest.split_once('"'))
            .unwrap_or_else(|| panic!("{who} sends {text}: {error}"));
        assert!(!message.is_empty());
        assert_eq!(end, format!("{beside}}}"), "{who} sends {text}");

        let after = fixture.hub.stats();
        assert_eq!(after.refused, before.refused + 1);
        let gauges = |stats: Stats| (stats.connections, stats.keys, stats.joiners, stats.closed);
        assert_eq!(gauges(after), gauges(before));
        fixture.assert_unchanged();
    }
}

#[test]
fn every_refusal_has_a_row() {
    let by_embedder = ["too-many-attempts", "not-allowed"];
    for code in Refusal::NAMES.iter().filter(|code| !by_embedder.contains(code)) {
        assert!(REFUSALS.iter().any(|(_, _, shown, _)| shown == code), "{code}");
    }
}

#[test]
fn request_that_an_embedder_refuses_changes_nothing_but_the_deadline() {
    let key = || Key::new("pot", &Limits::default()).expect("a valid key");
    let error = r#"{"type":"error","code":"too-many-attempts","message":"too many attempts at keys: try again in a minute","key":"pot"}"#;
    let mut fixture = Fixture::new();
    let mut refuse = |who| {
        let (_, id) = fixture.find(who);
        let outputs = fixture.hub.refuse_request(id, Refusal::TooManyAttempts { key: key() });
        fixture.encode(outputs)
    };
    assert_eq!(refuse('S'), [frame('S', error)]);
    assert_eq!(refuse('T'), [close('T', CloseReason::TooManyAttempts)]);
    assert_eq!(refuse('T'), [], "dead ids are inert");
    for who in ['A', 'B', 'C'] {
        let received = refuse(who);
        assert!(
            matches!(&received[..], [Received::Frame(to, error)] if *to == who && error.contains("has-role")),
            "{received:?}"
        );
    }
    assert_eq!(refuse('Q'), [close('Q', CloseReason::HasRole)]);
    assert_eq!(fixture.hub.poll_timeout(), None);
}

#[test]
fn kick_ends_the_role_of_a_v1_joiner_and_closes_a_plain_one() {
    let mut fixture = Fixture::new();
    let closed = r#"{"type":"closed","code":"kicked"}"#;
    assert_eq!(
        fixture.send('A', r#"{"type":"kick","index":0}"#),
        [frame('B', closed), frame('A', r#"{"type":"leave","index":0}"#)]
    );
    assert_eq!(
        fixture.send('A', r#"{"type":"kick","index":"1"}"#),
        [
            close('P', CloseReason::Kicked),
            frame('A', r#"{"type":"leave","index":1}"#)
        ]
    );
    // A kicked connection that stays open may join again, as another joiner.
    assert_eq!(
        fixture.send('B', r#"{"type":"join","key":"tea"}"#),
        [
            frame('B', r#"{"type":"joined","index":2}"#),
            frame('A', r#"{"type":"join","index":2}"#)
        ]
    );
    let error = fixture.send('A', r#"{"type":"kick","index":0}"#);
    assert!(
        matches!(&error[..], [Received::Frame('A', error)] if error.contains("unknown-index")),
        "{error:?}"
    );
}

#[test]
fn leave_has_no_reply_and_frees_the_connection_for_any_role() {
    let mut fixture = Fixture::new();
    assert_eq!(
        fixture.send('B', r#"{"type":"leave"}"#),
        [frame('A', r#"{"type":"leave","index":0}"#)]
    );
    assert_eq!(
        fixture.send('C', r#"{"type":"leave"}"#),
        [],
        "the plain dialect has no such notice"
    );
    assert_eq!(
        fixture.send('B', r#"{"type":"open","key":"pot"}"#),
        [frame('B', r#"{"type":"opened","key":"pot"}"#)]
    );
    assert_eq!(
        fixture.send('C', r#"{"type":"join","key":"pot"}"#),
        [
            frame('C', r#"{"type":"joined","index":0}"#),
            frame('B', r#"{"type":"join","index":0}"#)
        ]
    );
    assert_eq!(
        fixture.send('C', r#"{"type":"send","data":1}"#),
        [frame('B', r#"{"type":"data","index":0,"data":1}"#)],
        "a joiner of the new key only"
    );
}

#[test]
fn close_frees_the_key_at_once_and_notifies_joiners_in_their_dialect() {
    let mut fixture = Fixture::new();
    assert_eq!(
        fixture.send('A', r#"{"type":"close"}"#),
        [
            frame('B', r#"{"type":"closed","code":"opener-left"}"#),
            close('P', CloseReason::OpenerLeft),
        ]
    );
    assert_eq!(
        fixture.send('B', r#"{"type":"open","key":"tea"}"#),
        [frame('B', r#"{"type":"opened","key":"tea"}"#)],
        "a former joiner can open the key"
    );
    assert_eq!(
        fixture.send('A', r#"{"type":"join","key":"tea"}"#),
        [
            frame('A', r#"{"type":"joined","index":0}"#),
            frame('B', r#"{"type":"join","index":0}"#)
        ],
        "a former opener can join the key"
    );
}

#[test]
fn reopened_key_counts_from_0_without_its_former_joiners() {
    let mut fixture = Fixture::new();
    let _ = fixture.send('A', r#"{"type":"close"}"#);
    assert_eq!(
        fixture.send('A', r#"{"type":"open","key":"tea"}"#),
        [frame('A', r#"{"type":"opened","key":"tea"}"#)]
    );
    for text in [r#"{"type":"send","index":0,"data":1}"#, r#"{"type":"kick","index":0}"#] {
        let error = fixture.send('A', text);
        assert!(
            matches!(&error[..], [Received::Frame('A', error)] if error.contains("unknown-index")),
            "{error:?}"
        );
    }
    let error = fixture.send('B', r#"{"type":"send","data":1}"#);
    assert!(
        matches!(&error[..], [Received::Frame('B', error)] if error.contains("no-role")),
        "{error:?}"
    );
    assert_eq!(
        fixture.send('S', r#"{"type":"join","key":"tea"}"#),
        [
            frame('S', r#"{"type":"joined","index":0}"#),
            frame('A', r#"{"type":"join","index":0}"#)
        ]
    );
}

#[test]
fn disconnect_notifies_peers_in_their_dialect() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.end('P'), [frame('A', r#"{"type":"leave","index":1}"#)]);
    assert_eq!(fixture.end('C'), []);
    assert_eq!(
        fixture.end('A'),
        [frame('B', r#"{"type":"closed","code":"opener-left"}"#)]
    );
    assert_eq!(fixture.end('O'), [close('Q', CloseReason::OpenerLeft)]);
    assert_eq!(
        fixture.send('B', r#"{"type":"open","key":"cup"}"#),
        [frame('B', r#"{"type":"opened","key":"cup"}"#)]
    );
}

#[test]
fn role_deadline_ends_with_the_first_request_and_does_not_return() {
    let mut fixture = Fixture::new();
    // Only S and T have not requested a role. The result of the request does not matter.
    let error = fixture.send('S', r#"{"type":"join","key":"nobody's"}"#);
    assert!(
        matches!(&error[..], [Received::Frame('S', error)] if error.contains("unknown-key")),
        "{error:?}"
    );
    let _ = fixture.send('B', r#"{"type":"leave"}"#);
    let _ = fixture.send('A', r#"{"type":"close"}"#);
    let late = fixture.hub.handle_timeout(Time::from_duration(Duration::from_secs(60)));
    assert_eq!(fixture.encode(late), [close('T', CloseReason::NoRoleInTime)]);
    assert_eq!(fixture.hub.poll_timeout(), None);
}

#[test]
fn other_requests_do_not_end_the_role_deadline() {
    for text in [
        r#"{"type":"send","data":1}"#,
        r#"{"type":"leave"}"#,
        r#"{"type":"kick","index":0}"#,
        r#"{"type":"ping"}"#,
    ] {
        let mut fixture = Fixture::new();
        let _ = fixture.send('S', text);
        let late = fixture.hub.handle_timeout(Time::from_duration(Duration::from_secs(60)));
        let expected = ['S', 'T'].map(|who| close(who, CloseReason::NoRoleInTime));
        assert_eq!(fixture.encode(late), expected, "{text}");
    }
}

#[test]
fn ping_is_answered_in_every_role_and_reaches_nobody_else() {
    for who in ['A', 'B', 'C', 'S'] {
        let mut fixture = Fixture::new();
        assert_eq!(
            fixture.send(who, r#"{"type":"ping"}"#),
            [frame(who, r#"{"type":"pong"}"#)]
        );
        fixture.assert_unchanged();
    }
}

#[test]
fn close_is_a_close_frame_and_the_largest_index_is_encoded() {
    let close = Dialect::V1.encode(OutboundMessage::Close(CloseReason::TooSlow));
    assert_eq!(close, Some(Frame::Close(CloseReason::TooSlow)));
    let index = Index::new(u32::MAX - 1);
    let notice = Dialect::V1.encode(OutboundMessage::PeerLeft { index });
    assert_eq!(
        notice,
        Some(Frame::Text(r#"{"type":"leave","index":4294967294}"#.into()))
    );
}

#[test]
fn first_offered_dialect_is_chosen() {
    use Dialect::{Plain, V1};

    for (offers, expected) in [
        (&[][..], (Plain, None)),
        (&["sigver.v1"], (V1, Some("sigver.v1"))),
        (&["sigver.plain"], (Plain, Some("sigver.plain"))),
        (&["sigver.v1", "sigver.plain"], (V1, Some("sigver.v1"))),
        (&["sigver.plain", "sigver.v1"], (Plain, Some("sigver.plain"))),
        (&["soap", "sigver.v1"], (V1, Some("sigver.v1"))),
        (&["soap", "mqtt"], (Plain, Some("soap"))),
        (&["Sigver.v1", "sigver.v2"], (Plain, Some("Sigver.v1"))),
    ] {
        assert_eq!(Dialect::negotiate(offers.iter().copied()), expected, "{offers:?}");
    }
}

/// What a client receives: a text frame or a close.
#[derive(Debug, PartialEq, Eq)]
enum Received {
    Frame(char, String),
    Close(char, CloseReason),
}

fn frame(who: char, text: &str) -> Received {
    Received::Frame(who, text.to_owned())
}

fn close(who: char, reason: CloseReason) -> Received {
    Received::Close(who, reason)
}

fn at(seconds: u64) -> Time {
    Time::from_duration(Duration::from_secs(seconds))
}

/// A hub with the connections A, B, P, O, C, Q, S and T.
struct Fixture {
    hub: Hub,
    now: Time,
    limits: Limits,
    clients: Vec<(char, Dialect, ConnId)>,
}

impl Fixture {
    fn new() -> Self {
        Self::within(&Limits::default())
    }

    fn within(limits: &Limits) -> Self {
        let mut limits = limits.clone();
        limits.joiners_per_key = 2;
        let mut fixture = Self {
            hub: Hub::new(limits.clone()),
            now: Time::ZERO,
            limits,
            clients: Vec::new(),
        };
        for (who, dialect, text) in [
            ('A', Dialect::V1, r#"{"type":"open","key":"tea"}"#),
            ('B', Dialect::V1, r#"{"type":"join","key":"tea"}"#),
            ('P', Dialect::Plain, r#"{"type":"join","key":"tea"}"#),
            ('O', Dialect::Plain, r#"{"type":"open","key":"cup"}"#),
            ('C', Dialect::V1, r#"{"type":"join","key":"cup"}"#),
            ('Q', Dialect::Plain, r#"{"type":"join","key":"cup"}"#),
        ] {
            fixture.connect(who, dialect);
            let _ = fixture.send(who, text);
        }
        fixture.connect('S', Dialect::V1);
        fixture.connect('T', Dialect::Plain);
        fixture
    }

    /// Returns a hub with clients of `sigver.v1` without a role.
    fn of_idle_clients(clients: &[char]) -> Self {
        let mut limits = Limits::default();
        limits.joiners_per_key = 2;
        limits.role_deadline = None;
        let mut fixture = Self {
            hub: Hub::new(limits.clone()),
            now: Time::ZERO,
            limits,
            clients: Vec::new(),
        };
        for who in clients {
            fixture.connect(*who, Dialect::V1);
        }
        fixture
    }

    /// Advances the time and handles each timeout when it is due. Returns what the clients receive.
    fn run_until(&mut self, seconds: u64) -> Vec<Received> {
        let mut received = Vec::new();
        while let Some(due) = self.hub.poll_timeout().filter(|due| *due <= at(seconds)) {
            self.now = due;
            let outputs = self.hub.handle_timeout(due);
            received.extend(self.encode(outputs));
        }
        self.now = at(seconds);
        received
    }

    fn connect(&mut self, who: char, dialect: Dialect) {
        let id = self.hub.connect(Time::ZERO, dialect.profile());
        self.clients.push((who, dialect, id.expect("within the limit")));
    }

    /// Sends `text` from `who`. Returns what the clients receive.
    fn send(&mut self, who: char, text: &str) -> Vec<Received> {
        let (dialect, id) = self.find(who);
        let outputs = match Decoder::new(dialect, &self.limits).decode(text) {
            Ok(message) => self.hub.handle(self.now, id, message),
            Err(reason) => self.hub.close(self.now, id, reason),
        };
        self.encode(outputs)
    }

    /// Like [`Fixture::send`], with a token for an opener, as from an endpoint.
    fn send_with(&mut self, bits: u128, who: char, text: &str) -> Vec<Received> {
        let (dialect, id) = self.find(who);
        let mut message = Decoder::new(dialect, &self.limits).decode(text).expect("a message");
        if let InboundMessage::Open { new_token, .. } | InboundMessage::Meet { new_token, .. } = &mut message {
            *new_token = Some(Token::from_random(bits));
        }
        let outputs = self.hub.handle(self.now, id, message);
        self.encode(outputs)
    }

    /// Disconnects `who`. Returns what the clients receive.
    fn end(&mut self, who: char) -> Vec<Received> {
        let outputs = self.hub.disconnect(self.now, self.find(who).1, Disconnect::Clean);
        self.encode(outputs)
    }

    fn encode(&self, outputs: Vec<(ConnId, OutboundMessage)>) -> Vec<Received> {
        self.hub.assert_invariants();
        let received = outputs.into_iter().filter_map(|(to, message)| {
            let known = self.clients.iter().find(|(_, _, id)| *id == to);
            let (who, dialect, _) = known.expect("outputs go to connected clients");
            match dialect.encode(message)? {
                Frame::Text(text) => Some(frame(*who, &text)),
                Frame::Close(reason) => Some(close(*who, reason)),
                other => panic!("a message is text or a close, not {other:?}"),
            }
        });
        received.collect()
    }

    /// Asserts that all connections have their first roles, and that S can open a key.
    fn assert_unchanged(&mut self) {
        for (index, joiner) in [(0, 'B'), (1, 'P')] {
            let send = format!(r#"{{"type":"send","index":{index},"data":{{}}}}"#);
            let received = self.send('A', &send);
            assert!(
                matches!(received[..], [Received::Frame(to, _)] if to == joiner),
                "{received:?}"
            );
        }
        assert_eq!(
            self.send('C', r#"{"type":"send","data":{}}"#),
            [frame('O', r#"{"index":0}"#)]
        );
        assert_eq!(self.send('Q', "{}"), [frame('O', r#"{"index":1}"#)]);
        let opened = self.send('S', r#"{"type":"open","key":"pot"}"#);
        assert_eq!(opened, [frame('S', r#"{"type":"opened","key":"pot"}"#)]);
    }

    fn find(&self, who: char) -> (Dialect, ConnId) {
        let known = self.clients.iter().find(|(name, _, _)| *name == who);
        let (_, dialect, id) = known.expect("a client of the fixture");
        (*dialect, *id)
    }
}
