//! The grace for joins of the plain dialect that arrive before the open.

use super::*;

const STOP: &str = "stop reading";
const RESUME: &str = "resume reading";
const PEER_JOINED: &str = r#"{"type":"join"}"#;

/// A server on which a connection may make one attempt at a key, and all of a source ten.
fn server() -> Server {
    Server::new(|config| {
        config.keep_alive = Duration::MAX;
        config.close_timeout = Duration::MAX;
        config.key_attempts_per_minute = NonZeroU32::new(1);
    })
}

/// A server with little room for what clients have not read.
fn slow() -> Server {
    Server::new(|config| {
        config.keep_alive = Duration::MAX;
        config.bytes_per_second = None;
        config.backlog_bytes = 1_000;
    })
}

/// What the opener and the joiner do, in this order: they connect, ask for their role, and the joiner sends data without waiting.
const STEPS: [usize; 2] = [2, 3];

/// Returns every order of the steps of two clients, as the client of each step.
fn orders() -> Vec<Vec<usize>> {
    let mut orders = vec![Vec::new()];
    for _ in 0..STEPS.iter().sum() {
        let extend = |order: &Vec<usize>| {
            let taken = |client: usize| order.iter().filter(|its| **its == client).count();
            let open = [0, 1].into_iter().filter(|client| taken(*client) < STEPS[*client]);
            open.map(|client| [&order[..], &[client]].concat()).collect::<Vec<_>>()
        };
        orders = orders.iter().flat_map(extend).collect();
    }
    orders
}

#[test]
fn open_and_join_meet_in_every_order() {
    assert_eq!(orders().len(), 10);
    for order in orders() {
        for gap in [0, 1, 83] {
            for dialect in [Plain, V1] {
                let mut server = server();
                let mut ids = [None; 2];
                let mut texts = [vec![OPEN], vec![r#"{"behind":"it"}"#, JOIN]];
                let mut outputs = Vec::new();
                for (step, client) in (0..).zip(&order) {
                    assert_eq!(server.run_until(step * gap).len(), 0, "{order:?}");
                    match ids[*client] {
                        None => ids[*client] = Some(server.connect([dialect, Plain][*client])),
                        Some(id) => {
                            let text = texts[*client].pop().expect("one text for each step");
                            outputs.push(server.text(id, text));
                        }
                    }
                }
                let [opener, joiner] = ids.map(|id| id.expect("both have connected"));
                let of = |id| {
                    outputs
                        .iter()
                        .flat_map(move |outputs| outputs.of(id))
                        .collect::<Vec<_>>()
                };
                let (joined, data) = match dialect {
                    Plain => (PEER_JOINED, r#"{"behind":"it","index":0}"#),
                    V1 => (
                        r#"{"type":"join","index":0}"#,
                        r#"{"type":"data","index":0,"data":{"behind":"it"}}"#,
                    ),
                };
                let received = of(opener);
                assert_eq!(received[received.len() - 2..], [joined, data], "{order:?}");
                let second = |client: usize| order.iter().enumerate().filter(|(_, its)| **its == client).nth(1);
                let waits = second(1) < second(0);
                assert_eq!(
                    of(joiner),
                    if waits { vec![STOP, RESUME] } else { Vec::new() },
                    "{order:?}"
                );
                assert_eq!(server.endpoint.poll_timeout(), None, "{order:?}");
            }
        }
    }
}

#[test]
fn join_is_refused_after_the_grace_and_what_follows_it_is_discarded() {
    let mut server = server();
    let joiner = server.connect(Plain);
    server.now = at(1_000);
    assert_eq!(server.text(joiner, JOIN), [(joiner, STOP)]);
    assert_eq!(server.endpoint.role(joiner), Some(Role::Waiting));
    for input in inputs() {
        assert_eq!(server.input(joiner, input), []);
    }
    let refused = [(1_250, joiner, RESUME), (1_250, joiner, "close 1008 UnknownKey")];
    assert_eq!(server.run_until(100_000), refused);
}

#[test]
fn what_follows_a_join_is_handled_in_order_when_the_key_is_opened() {
    let mut server = server();
    let [opener, joiner] = [Plain; 2].map(|dialect| server.connect(dialect));
    server.text(joiner, JOIN);
    for input in [
        Input::Ping(b"hi"),
        Input::Text(r#"{"n":1}"#),
        Input::Pong,
        Input::Close(Some(1000)),
    ] {
        assert_eq!(server.input(joiner, input), []);
    }
    server.run_until(249);
    let opened = [
        (opener, PEER_JOINED),
        (joiner, "pong hi"),
        (opener, r#"{"n":1,"index":0}"#),
        (joiner, "ended-by-joiner"),
        (joiner, "reply 1000"),
    ];
    assert_eq!(server.text(opener, OPEN), opened);
}

/// What followed the join may wait for room in the opener's write buffer.
#[test]
fn what_follows_a_join_waits_for_a_slow_opener() {
    let mut server = slow();
    let [opener, joiner] = [Plain; 2].map(|dialect| server.connect(dialect));
    server.stalled.insert(opener);
    server.text(joiner, JOIN);
    let message = format!(r#"{{"text":"{}"}}"#, "x".repeat(400));
    for _ in 0..3 {
        server.text(joiner, &message);
    }
    let outputs = server.text(opener, OPEN);
    assert_eq!(outputs.of(joiner), <[&str; 0]>::default(), "it stays stopped");
    assert_eq!(server.endpoint.counters().blocked_joiners, 1);
    let mut received = outputs.of(opener).len();
    while received < 4 {
        received += server.written(opener, 10_000).of(opener).len();
    }
    assert_eq!(server.endpoint.counters().blocked_joiners, 0);
}

/// A join that has waited for room in an opener's write buffer begins its grace when that opener leaves.
#[test]
fn grace_begins_when_the_opener_without_room_leaves() {
    let mut server = slow();
    let (opener, first) = server.pair(Plain, Plain);
    let second = server.connect(Plain);
    server.stalled.insert(opener);
    server.text(first, &format!(r#"{{"text":"{}"}}"#, "x".repeat(900)));
    assert_eq!(server.text(second, JOIN), [(second, STOP)]);
    assert_eq!(server.text(second, r#"{"behind":"it"}"#), []);
    server.input(opener, Input::Close(None));
    assert_eq!(server.endpoint.role(second), Some(Role::Waiting));
    let next = server.connect(V1);
    let opened = server.text(next, OPEN);
    assert_eq!(
        opened.of(next)[1..],
        [
            r#"{"type":"join","index":0}"#,
            r#"{"type":"data","index":0,"data":{"behind":"it"}}"#
        ]
    );
    assert_eq!(opened.of(second), [RESUME]);
}

#[test]
fn grace_counts_as_an_attempt_from_its_beginning() {
    let mut server = server();
    for _ in 0..10 {
        let guesser = server.connect(Plain);
        server.text(guesser, JOIN);
    }
    assert_eq!(server.endpoint.counters().hub.waiting, 10);
    let guesser = server.connect(V1);
    assert!(server.text(guesser, JOIN).of(guesser)[0].contains("too-many-attempts"));
}

#[test]
fn throttled_requests_are_refused_as_late_as_joins_of_unknown_keys() {
    for text in [
        JOIN,
        OPEN,
        r#"{"type":"join","key":"free"}"#,
        r#"{"type":"open","key":"free"}"#,
    ] {
        let mut server = server();
        let opener = server.connect_from(V1, "192.0.2.2").expect("a connection");
        server.text(opener, OPEN);
        for n in 0..10 {
            let guesser = server.connect(V1);
            server.text(guesser, &format!(r#"{{"type":"open","key":"{n}"}}"#));
        }
        let [late, gone] = [Plain; 2].map(|dialect| server.connect(dialect));
        for id in [late, gone] {
            assert_eq!(server.text(id, text), [(id, STOP)], "{text}");
            assert_eq!(server.input(id, Input::Ping(b"hi")), [], "{text}");
        }
        server.input(gone, Input::Disconnected);
        let refused = [(250, late, RESUME), (250, late, "close 1013 TooManyAttempts")];
        assert_eq!(server.run_until(100_000), refused, "{text}");
    }
}

#[test]
fn joiner_that_disconnects_or_is_shut_down_leaves_nothing_behind() {
    let mut server = server();
    let [opener, gone, stays] = [Plain; 3].map(|dialect| server.connect(dialect));
    for joiner in [gone, stays] {
        server.text(joiner, JOIN);
    }
    server.input(gone, Input::Disconnected);
    assert_eq!(server.endpoint.counters().hub.waiting, 1);
    let closed = server.close_all();
    assert_eq!(closed.of(stays), [RESUME, "close 1001 ShuttingDown"]);
    assert_eq!(closed.of(opener), ["close 1001 ShuttingDown"]);
    assert_eq!(server.endpoint.poll_timeout(), None);
}

/// After a suspension of the process, the open may not have been read yet.
#[test]
fn late_call_restarts_the_grace() {
    let mut server = server();
    let joiner = server.connect(Plain);
    server.text(joiner, JOIN);
    server.now = at(10_000);
    assert_eq!(server.handle_timeout(), []);
    let refused = [(10_250, joiner, RESUME), (10_250, joiner, "close 1008 UnknownKey")];
    assert_eq!(server.run_until(20_000), refused);
}

#[test]
fn only_the_plain_dialect_has_the_grace_and_zero_disables_it() {
    let mut server = Server::new(|config| config.limits.plain_join_grace = Duration::ZERO);
    let [plain, v1] = [Plain, V1].map(|dialect| server.connect(dialect));
    assert_eq!(server.text(plain, JOIN), [(plain, "close 1008 UnknownKey")]);
    assert!(server.text(v1, JOIN).of(v1)[0].contains("unknown-key"));
    let mut server = default();
    let v1 = server.connect(V1);
    assert!(server.text(v1, JOIN).of(v1)[0].contains("unknown-key"));
}
