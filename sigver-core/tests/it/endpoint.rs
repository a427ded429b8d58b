//! [`Endpoint`] in virtual time: every behaviour, to the millisecond and the byte.
//!
//! `laws/endpoint.rs` compares random calls with a model; the transcripts show both dialects.

use core::time::Duration;
use std::collections::BTreeMap;

use sigver_core::{
    CloseReason, ConnId, ConnectError, Dialect, Endpoint, EndpointConfig, Frame, InboundMessage, Input, Limits, Output,
    PairingStage, Phase, Role, Time, Traffic,
};

use crate::server::{Server, at};

use Dialect::{Plain, V1};

const OPEN: &str = r#"{"type":"open","key":"tea"}"#;
const JOIN: &str = r#"{"type":"join","key":"tea"}"#;

fn default() -> Server {
    Server::new(|_| {})
}

/// Every input but [`Input::Disconnected`].
fn inputs() -> impl Iterator<Item = Input<'static>> {
    let message = || Plain.decode(OPEN, &Limits::default(), || None).expect("a message");
    [
        Input::Text(OPEN),
        Input::Text("{"),
        Input::Message {
            message: message(),
            text_bytes: OPEN.len(),
            wire_bytes: OPEN.len(),
        },
        Input::Binary,
        Input::Ping(b"hi"),
        Input::Pong,
        Input::Close(Some(1000)),
        Input::Violation(CloseReason::BrokenFraming),
    ]
    .into_iter()
}

mod keep_alive {
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
        let leave = || Input::Message {
            message: InboundMessage::Leave,
            text_bytes: 16,
            wire_bytes: 22,
        };
        let frames: [fn() -> Input<'static>; 4] = [
            || Input::Text(r#"{"type":"leave"}"#),
            || Input::Ping(b""),
            || Input::Pong,
            leave,
        ];
        for frame in frames {
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
        let mut server = Server::new(|config| config.messages_per_second = 1);
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
}

mod role_deadline {
    use super::*;

    fn with_deadline() -> Server {
        Server::new(|config| {
            config.limits.role_deadline = Some(Duration::from_secs(10));
            config.close_timeout = Duration::MAX;
        })
    }

    #[test]
    fn client_without_a_role_is_closed_at_the_deadline() {
        let mut server = with_deadline();
        let [a, b] = [Plain, V1].map(|dialect| server.connect(dialect));
        assert_eq!(server.endpoint.poll_timeout(), Some(at(10_000)));
        assert_eq!(server.run_until(9_999), []);
        let expected = [
            (10_000, a, "close 1008 NoRoleInTime"),
            (10_000, b, "close 1008 NoRoleInTime"),
        ];
        assert_eq!(server.run_until(1_000_000), expected);
    }

    #[test]
    fn open_join_and_refused_join_meet_the_deadline_and_other_messages_do_not() {
        let mut server = with_deadline();
        let [opener, joiner, refused, other] = [V1; 4].map(|dialect| server.connect(dialect));
        server.text(opener, OPEN);
        server.text(joiner, JOIN);
        server.text(refused, r#"{"type":"join","key":"coffee"}"#);
        server.text(other, r#"{"type":"send","data":1}"#);
        assert_eq!(server.run_until(24_999), [(10_000, other, "close 1008 NoRoleInTime")]);
    }

    #[test]
    fn client_that_left_its_role_has_no_deadline() {
        let mut server = with_deadline();
        let (opener, joiner) = server.pair(V1, V1);
        server.text(joiner, r#"{"type":"leave"}"#);
        server.text(opener, r#"{"type":"close"}"#);
        assert_eq!(server.run_until(24_999), []);
    }
}

mod close_handshake {
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
            server.endpoint.written(id, usize::MAX);
            assert_eq!(server.endpoint.role(id), None);
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
}

mod write_buffer {
    use super::*;

    /// The cost of [`RECEIVE`].
    const COST: usize = r#"{"index":0}"#.len() + 2 + Frame::OVERHEAD;

    /// A stalled opener with an empty write buffer of this size, and its joiner.
    fn stalled(backlog_bytes: usize) -> (Server, ConnId, ConnId) {
        let mut server = Server::new(|config| config.backlog_bytes = backlog_bytes.try_into().expect("small"));
        let (opener, joiner) = server.pair(Plain, V1);
        server.stalled.insert(opener);
        (server, opener, joiner)
    }

    const SEND: &str = r#"{"type":"send","data":{}}"#;
    const RECEIVE: &str = r#"{"index":0}"#;

    #[test]
    fn backlog_at_the_limit_fits_and_one_byte_over_closes() {
        let (mut server, opener, joiner) = stalled(2 * COST);
        assert_eq!(server.text(joiner, SEND), [(opener, RECEIVE)]);
        assert_eq!(server.text(joiner, SEND), [(opener, RECEIVE)]);
        let expected = [
            (opener, "close 1013 TooSlow"),
            (joiner, "ended-by-opener"),
            (joiner, r#"{"type":"closed","code":"opener-left"}"#),
        ];
        assert_eq!(server.text(joiner, SEND), expected);
        assert_eq!(server.run_until(5_000), [(5_000, opener, "abort")]);

        let (mut server, opener, joiner) = stalled(2 * COST - 1);
        assert_eq!(server.text(joiner, SEND), [(opener, RECEIVE)]);
        assert_eq!(server.text(joiner, SEND).of(opener), ["close 1013 TooSlow"]);
    }

    #[test]
    fn single_frame_of_any_size_fits_into_an_empty_buffer() {
        let (mut server, opener, joiner) = stalled(1);
        let huge = format!(r#"{{"type":"send","data":{{"a":"{}"}}}}"#, "a".repeat(60_000));
        assert_eq!(server.text(joiner, &huge).of(opener).len(), 1);
        assert_eq!(server.text(joiner, SEND).of(opener), ["close 1013 TooSlow"]);
    }

    #[test]
    fn written_bytes_free_the_buffer() {
        let (mut server, opener, joiner) = stalled(2 * COST);
        server.text(joiner, SEND);
        server.text(joiner, SEND);
        server.endpoint.written(opener, COST - 1);
        server.endpoint.written(opener, 1);
        assert_eq!(server.text(joiner, SEND), [(opener, RECEIVE)]);
        server.endpoint.written(opener, usize::MAX);
        assert_eq!(server.text(joiner, SEND), [(opener, RECEIVE)]);
        assert_eq!(server.text(joiner, SEND), [(opener, RECEIVE)]);
        server.endpoint.written(opener, COST - 1);
        assert_eq!(
            server.text(joiner, SEND).of(opener),
            ["close 1013 TooSlow"],
            "a byte is missing"
        );
    }

    #[test]
    fn pings_and_pongs_fill_the_buffer() {
        let (mut server, opener, _) = stalled(2 * (2 + Frame::OVERHEAD));
        server.run_until(25_000);
        assert_eq!(server.input(opener, Input::Ping(b"")), [(opener, "pong ")]);
        assert_eq!(
            server.input(opener, Input::Ping(b"")).of(opener),
            ["close 1013 TooSlow"]
        );

        let (mut server, opener, _) = stalled(2 * (2 + Frame::OVERHEAD) - 1);
        server.run_until(49_999);
        server.input(opener, Input::Pong);
        server.now = at(50_000);
        assert_eq!(
            server.handle_timeout().of(opener),
            ["close 1013 TooSlow"],
            "instead of a ping"
        );
    }

    #[test]
    fn pong_payload_fills_the_buffer() {
        let (mut server, opener, _) = stalled(2 * (3 + 2 + Frame::OVERHEAD) - 1);
        assert_eq!(server.input(opener, Input::Ping(b"abc")), [(opener, "pong abc")]);
        assert_eq!(
            server.input(opener, Input::Ping(b"abc")).of(opener),
            ["close 1013 TooSlow"]
        );
    }

    #[test]
    fn slow_joiner_is_closed_alone_and_its_opener_gets_a_notice() {
        let mut server = Server::new(|config| config.backlog_bytes = 1);
        let (opener, slow) = server.pair(V1, V1);
        let other = server.connect(V1);
        server.text(other, JOIN);
        server.stalled.insert(slow);
        let send = r#"{"type":"send","index":0,"data":1}"#;
        assert_eq!(server.text(opener, send), [(slow, r#"{"type":"data","data":1}"#)]);
        let expected = [
            (slow, "ended-by-server"),
            (slow, "close 1013 TooSlow"),
            (opener, r#"{"type":"leave","index":0}"#),
        ];
        assert_eq!(server.text(opener, send), expected);
        let send = r#"{"type":"send","index":1,"data":2}"#;
        assert_eq!(server.text(opener, send), [(other, r#"{"type":"data","data":2}"#)]);
    }

    #[test]
    fn cost_is_the_length_on_the_wire_and_the_overhead() {
        let text = |len: usize| Frame::Text("a".repeat(len)).wire_len();
        assert_eq!([0, 125, 126, 65_535, 65_536].map(text), [2, 127, 130, 65_539, 65_546]);
        assert_eq!(Frame::Ping.wire_len(), 2);
        assert_eq!(Frame::Pong(Box::new([1, 2])).wire_len(), 4);
        assert_eq!(Frame::CloseReply(None).wire_len(), 2);
        assert_eq!(Frame::CloseReply(Some(1000)).wire_len(), 4);
        assert_eq!(
            Frame::Close(CloseReason::KeyTaken).wire_len(),
            2 + 2 + "key is taken".len()
        );
        assert_eq!(Frame::Ping.cost(), 6);
    }
}

mod rate_limit {
    use super::*;

    #[test]
    fn message_over_a_second_s_worth_pauses_reading() {
        let mut server = Server::new(|config| config.messages_per_second = 10);
        let a = server.connect(V1);
        for _ in 0..10 {
            assert_eq!(server.input(a, Input::Pong), []);
        }
        assert_eq!(server.input(a, Input::Pong), [(a, "pause until 100ms")]);
        assert_eq!(server.input(a, Input::Pong), [(a, "pause until 200ms")]);
        server.now = at(200);
        assert_eq!(server.input(a, Input::Pong), [(a, "pause until 300ms")]);
        server.now = at(1_299);
        for _ in 0..9 {
            assert_eq!(server.input(a, Input::Pong), []);
        }
        assert_eq!(
            server.input(a, Input::Pong),
            [(a, "pause until 1.3s")],
            "refilled but for 1 ms"
        );
        server.now = at(60_000);
        for _ in 0..10 {
            assert_eq!(server.input(a, Input::Pong), []);
        }
        assert_eq!(
            server.input(a, Input::Pong),
            [(a, "pause until 60.1s")],
            "an idle client saves up one second's worth"
        );
    }

    #[test]
    fn texts_messages_pings_and_pongs_count() {
        let mut server = Server::new(|config| config.messages_per_second = 1);
        let leave = || Input::Message {
            message: InboundMessage::Leave,
            text_bytes: 16,
            wire_bytes: 22,
        };
        let frames: [fn() -> Input<'static>; 4] = [
            || Input::Text(r#"{"type":"leave"}"#),
            || Input::Ping(b"hi"),
            || Input::Pong,
            leave,
        ];
        for frame in frames {
            let a = server.connect(V1);
            assert!(!server.input(a, Input::Pong).of(a).contains(&"pause until 1s"));
            assert_eq!(server.input(a, frame()).of(a).last(), Some(&"pause until 1s"));
        }
    }

    #[test]
    fn bytes_over_a_second_s_worth_pause_reading() {
        let mut server = Server::new(|config| config.bytes_per_second = 100);
        let text = format!(r#"{{"type":"leave","a":"{}"}}"#, "a".repeat(60 - 23));
        assert_eq!(text.len(), 60);
        let a = server.connect(V1);
        assert_eq!(server.text(a, &text).of(a).len(), 1);
        assert_eq!(server.text(a, &text).of(a)[1..], ["pause until 200ms"]);
        assert_eq!(
            server.input(a, Input::Ping(&[b'a'; 10])).of(a)[1..],
            ["pause until 300ms"]
        );
        assert_eq!(
            server.input(a, Input::Pong),
            [(a, "pause until 300ms")],
            "a pong counts as 0 bytes"
        );
        let message = Input::Message {
            message: InboundMessage::Leave,
            text_bytes: 1,
            wire_bytes: 70,
        };
        assert_eq!(server.input(a, message).of(a)[1..], ["pause until 1s"]);
    }

    #[test]
    fn stricter_limit_counts() {
        let mut server = Server::new(|config| {
            config.messages_per_second = 1;
            config.bytes_per_second = 10;
        });
        let a = server.connect(V1);
        server.input(a, Input::Ping(&[b'a'; 30]));
        assert_eq!(server.input(a, Input::Pong), [(a, "pause until 2s")]);
        server.input(a, Input::Pong);
        assert_eq!(server.input(a, Input::Pong), [(a, "pause until 3s")]);
    }

    #[test]
    fn each_client_has_its_own_budget_and_is_never_closed() {
        let mut server = Server::new(|config| config.messages_per_second = 1);
        let (opener, busy) = server.pair(Plain, Plain);
        let idle = server.connect(Plain);
        for _ in 0..10_000 {
            let outputs = server.text(busy, "{}");
            assert_eq!(outputs.of(opener), [r#"{"index":0}"#]);
            assert!(outputs.of(busy)[0].starts_with("pause until"));
        }
        assert_eq!(server.input(idle, Input::Pong), []);
        assert_eq!(server.endpoint.role(busy), Some(Role::Joiner));
    }

    #[test]
    fn unlimited_rates_never_pause() {
        let mut server = Server::new(|config| {
            config.messages_per_second = u32::MAX;
            config.bytes_per_second = u32::MAX;
        });
        let a = server.connect(V1);
        for _ in 0..10_000 {
            assert_eq!(server.input(a, Input::Ping(&[b'a'; 125])).of(a).len(), 1);
        }
    }

    #[test]
    fn closed_client_is_not_paused() {
        let mut server = Server::new(|config| config.messages_per_second = 1);
        let a = server.connect(Plain);
        server.input(a, Input::Pong);
        assert_eq!(server.text(a, "{}"), [(a, "close 1008 NoRole")]);
    }
}

mod key_attempts {
    use super::*;

    const UNKNOWN: &str = r#"{"type":"join","key":"guess"}"#;

    fn throttled() -> (Server, ConnId) {
        let mut server = Server::new(|config| {
            config.key_attempts_per_minute = 3;
            config.close_timeout = Duration::ZERO;
            config.keep_alive = Duration::MAX;
        });
        let opener = server.connect_from(V1, "198.51.100.1").expect("a connection");
        server.text(opener, OPEN);
        (server, opener)
    }

    #[test]
    fn plain_joins_fail_as_of_an_unknown_key_until_the_minute_is_over() {
        let (mut server, opener) = throttled();
        server.now = at(1_000);
        for text in [UNKNOWN, UNKNOWN, UNKNOWN, JOIN, UNKNOWN, JOIN] {
            let a = server.connect(Plain);
            assert_eq!(server.text(a, text), [(a, "close 1008 KeyUnknown")]);
        }
        server.run_until(60_999);
        let a = server.connect(Plain);
        assert_eq!(server.text(a, JOIN), [(a, "close 1008 KeyUnknown")]);
        server.run_until(61_000);
        let a = server.connect(Plain);
        assert_eq!(server.text(a, JOIN), [(opener, r#"{"type":"join","index":0}"#)]);
    }

    #[test]
    fn v1_refusals_are_the_same_as_real_ones() {
        let (mut server, _) = throttled();
        let a = server.connect(V1);
        let error = |code: &str, message: &str, key: &str| {
            format!(r#"{{"type":"error","code":"{code}","message":"`key` is {message}","key":"{key}"}}"#)
        };
        let unknown = |key| error("unknown-key", "unknown: nobody has it open", key);
        let taken = |key| error("key-taken", "taken: another opener has it", key);
        assert_eq!(server.text(a, UNKNOWN).of(a), [unknown("guess")]);
        assert_eq!(server.text(a, OPEN).of(a), [taken("tea")]);
        assert_eq!(server.text(a, UNKNOWN).of(a), [unknown("guess")]);
        // Exhausted: the key is open, and the other one is free.
        assert_eq!(server.text(a, JOIN).of(a), [unknown("tea")]);
        assert_eq!(server.text(a, r#"{"type":"open","key":"free"}"#).of(a), [taken("free")]);
        server.run_until(60_000);
        assert_eq!(server.text(a, JOIN).of(a), [r#"{"type":"joined","index":0}"#]);
    }

    #[test]
    fn plain_opens_fail_as_of_a_taken_key() {
        let (mut server, _) = throttled();
        for text in [OPEN, OPEN, OPEN, r#"{"type":"open","key":"free"}"#] {
            let a = server.connect(Plain);
            assert_eq!(server.text(a, text), [(a, "close 1008 KeyTaken")]);
        }
    }

    #[test]
    fn other_sources_and_successful_attempts_are_not_throttled() {
        let (mut server, opener) = throttled();
        let guesser = server.connect(V1);
        for _ in 0..2 {
            server.text(guesser, UNKNOWN);
        }
        for _ in 0..10 {
            assert_eq!(server.text(guesser, JOIN).of(opener).len(), 1, "a join that succeeds");
            server.text(guesser, r#"{"type":"leave"}"#);
        }
        server.text(guesser, UNKNOWN);
        assert_eq!(server.text(guesser, JOIN).of(opener).len(), 0);
        let other = server.connect_from(V1, "192.0.2.2").expect("a connection");
        assert_eq!(server.text(other, JOIN).of(opener).len(), 1);
    }

    #[test]
    fn role_that_a_source_has_is_not_affected() {
        let (mut server, opener) = throttled();
        let [joiner, guesser] = [V1; 2].map(|dialect| server.connect(dialect));
        server.text(joiner, JOIN);
        for _ in 0..5 {
            server.text(guesser, UNKNOWN);
        }
        let data = server.text(joiner, r#"{"type":"send","data":1}"#);
        assert_eq!(data, [(opener, r#"{"type":"data","index":0,"data":1}"#)]);
        assert!(server.text(joiner, JOIN).of(joiner)[0].contains("has-role"));
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_source() {
        let (mut server, opener) = throttled();
        for host in 1..=3 {
            let guesser = server.connect_from(Plain, &format!("2001:db8::{host}"));
            server.text(guesser.expect("a connection"), UNKNOWN);
        }
        let same = server.connect_from(Plain, "2001:db8::ffff:1").expect("a connection");
        assert_eq!(server.text(same, JOIN), [(same, "close 1008 KeyUnknown")]);
        let other = server.connect_from(Plain, "2001:db8:0:1::1").expect("a connection");
        assert_eq!(server.text(other, JOIN).of(opener).len(), 1);
    }

    #[test]
    fn denied_attempt_meets_the_role_deadline() {
        let mut server = Server::new(|config| {
            config.key_attempts_per_minute = 0;
            config.limits.role_deadline = Some(Duration::from_secs(10));
        });
        let a = server.connect(V1);
        assert!(server.text(a, OPEN).of(a)[0].contains("key-taken"));
        assert_eq!(server.run_until(24_999), []);
    }

    #[test]
    fn attempts_are_unlimited_by_default() {
        let mut server = default();
        let [opener, guesser] = [V1; 2].map(|dialect| server.connect(dialect));
        server.text(opener, OPEN);
        for _ in 0..1_000 {
            server.text(guesser, UNKNOWN);
        }
        assert_eq!(server.text(guesser, JOIN).of(opener).len(), 1);
    }
}

mod shutdown {
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
        // Before those that wait, of whom the last may be openers.
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
        let mut server = Server::new(|config| config.limits.connections = 1);
        let a = server.connect(Plain);
        let rejected = server.connect_from(Plain, "192.0.2.1");
        assert_eq!(rejected, Err(ConnectError::TooManyConnections));
        server.input(a, Input::Binary);
        assert!(server.connect_from(Plain, "192.0.2.1").is_ok());
        assert_eq!(server.endpoint.sockets(), 2);
    }
}

mod counters {
    use super::*;

    fn stages(server: &Server) -> Vec<(String, u64)> {
        let counted = PairingStage::ALL.into_iter().zip(server.endpoint.counters().pairings);
        let counted = counted.filter(|(_, count)| *count > 0);
        counted.map(|(stage, count)| (stage.label(), count)).collect()
    }

    fn refused(server: &Server) -> BTreeMap<String, u64> {
        let counters = server.endpoint.counters();
        counters.refused.iter().filter(|(_, count)| *count > 0).collect()
    }

    fn named<const N: usize>(expected: [(&str, u64); N]) -> Vec<(String, u64)> {
        expected.map(|(name, count)| (name.to_owned(), count)).into()
    }

    #[test]
    fn pairing_reaches_each_stage_once() {
        let mut server = default();
        let [opener, joiner] = [V1, Plain].map(|dialect| server.connect(dialect));
        server.text(opener, OPEN);
        assert_eq!(stages(&server), named([("opened", 1)]));
        server.text(joiner, JOIN);
        assert_eq!(stages(&server), named([("opened", 1), ("joined", 1)]));
        for _ in 0..2 {
            server.text(joiner, "{}");
        }
        let expected = named([("opened", 1), ("joined", 1), ("joiner-spoke", 1)]);
        assert_eq!(stages(&server), expected);
        for _ in 0..2 {
            server.text(opener, r#"{"type":"send","index":0,"data":{}}"#);
        }
        server.text(opener, r#"{"type":"kick","index":0}"#);
        let expected = named([
            ("opened", 1),
            ("joined", 1),
            ("joiner-spoke", 1),
            ("opener-spoke", 1),
            ("both-spoke", 1),
            ("ended-by-kick", 1),
        ]);
        assert_eq!(stages(&server), expected);
    }

    #[test]
    fn pairing_ends_once_with_the_cause() {
        type End = fn(&mut Server, ConnId, ConnId);
        let ends: [(&str, End); 9] = [
            ("ended-by-joiner", |server, _, joiner| {
                drop(server.input(joiner, Input::Disconnected))
            }),
            ("ended-by-joiner", |server, _, joiner| {
                drop(server.input(joiner, Input::Close(None)))
            }),
            ("ended-by-joiner", |server, _, joiner| {
                drop(server.text(joiner, r#"{"type":"leave"}"#))
            }),
            ("ended-by-opener", |server, opener, _| {
                drop(server.input(opener, Input::Disconnected))
            }),
            ("ended-by-opener", |server, opener, _| {
                drop(server.input(opener, Input::Close(None)))
            }),
            ("ended-by-opener", |server, opener, _| {
                drop(server.text(opener, r#"{"type":"close"}"#))
            }),
            ("ended-by-kick", |server, opener, _| {
                drop(server.text(opener, r#"{"type":"kick","index":0}"#));
            }),
            ("ended-by-server", |server, _, joiner| {
                drop(server.input(joiner, Input::Binary))
            }),
            ("ended-by-server", |server, _, _| drop(server.close_all())),
        ];
        for (stage, end) in ends {
            let mut server = default();
            let (opener, joiner) = server.pair(V1, V1);
            end(&mut server, opener, joiner);
            let expected = named([("opened", 1), ("joined", 1), (stage, 1)]);
            assert_eq!(stages(&server), expected);
            server.input(joiner, Input::Disconnected);
            server.input(opener, Input::Disconnected);
            assert_eq!(stages(&server), expected, "nothing ends twice");
        }
    }

    #[test]
    fn pairing_reports_messages_and_times_of_both_sides() {
        let mut server = default();
        let (opener, first) = server.pair(V1, V1);
        server.now = at(1_000);
        let second = server.connect(V1);
        server.text(second, JOIN);
        server.now = at(1_250);
        server.text(second, r#"{"type":"send","data":1}"#);
        server.text(first, r#"{"type":"send","data":1}"#);
        server.now = at(1_500);
        server.text(opener, r#"{"type":"send","index":1,"data":1}"#);
        server.now = at(2_000);
        let outputs = server.endpoint.handle(server.now, second, Input::Disconnected);
        let Some((to, Output::PairingEnded(pairing))) = outputs.into_iter().next() else {
            panic!("the pairing ends");
        };
        assert_eq!(to, second);
        assert_eq!(
            pairing.to_string(),
            "ended-by-joiner: 1 messages of the joiner (first after 0.250 s), 1 of the opener (first after 0.500 s), the last after 0.500 s, in 1.000 s"
        );
    }

    #[test]
    fn joiner_that_joins_again_is_another_pairing() {
        let mut server = default();
        let (_, joiner) = server.pair(V1, V1);
        server.text(joiner, r#"{"type":"leave"}"#);
        server.text(joiner, JOIN);
        server.text(joiner, r#"{"type":"leave"}"#);
        let expected = named([("opened", 1), ("joined", 2), ("ended-by-joiner", 2)]);
        assert_eq!(stages(&server), expected);
    }

    #[test]
    fn traffic_counts_texts_without_headers() {
        let mut server = default();
        let (opener, joiner) = server.pair(V1, Plain);
        server.text(joiner, "{}");
        server.input(opener, Input::Ping(b"not counted"));
        server.text(opener, "{");
        let counters = server.endpoint.counters();
        let received = OPEN.len() + JOIN.len() + "{}".len();
        let sent = [
            r#"{"type":"opened","key":"tea"}"#,
            r#"{"type":"join","index":0}"#,
            r#"{"type":"data","index":0,"data":{}}"#,
        ]
        .concat()
        .len();
        let traffic = |bytes: usize| Traffic {
            messages: 3,
            bytes: bytes as u64,
        };
        assert_eq!((counters.received, counters.sent), (traffic(received), traffic(sent)));
        assert_eq!(
            (counters.hub.relayed, counters.hub.closed, counters.hub.connections),
            (1, 2, 0)
        );
    }

    #[test]
    fn text_that_does_not_fit_into_the_write_buffer_is_not_counted_as_sent() {
        let mut server = Server::new(|config| config.backlog_bytes = 1);
        let (opener, joiner) = server.pair(Plain, Plain);
        server.stalled.insert(opener);
        server.text(joiner, "{}");
        let sent = server.endpoint.counters().sent;
        assert_eq!(server.text(joiner, "{}").of(opener), ["close 1013 TooSlow"]);
        assert_eq!(server.endpoint.counters().sent, sent);
    }

    #[test]
    fn refusals_and_closes_are_counted_by_reason() {
        let mut server = Server::new(|config| config.backlog_bytes = 1);
        let (opener, joiner) = server.pair(V1, V1);
        for (who, text) in [
            (joiner, r#"{"type":"kick","index":0}"#),
            (opener, r#"{"type":"send","index":9,"data":1}"#),
            (joiner, JOIN),
        ] {
            server.text(who, text);
        }
        for dialect in [Plain, V1] {
            let a = server.connect(dialect);
            server.text(a, r#"{"type":"join","key":"coffee"}"#);
        }
        let a = server.connect(Plain);
        server.input(a, Input::Binary);
        server.stalled.insert(joiner);
        for _ in 0..2 {
            server.input(joiner, Input::Ping(b""));
        }
        let _ = server.close_all();
        let expected = named([
            ("binary", 1),
            ("has-role", 1),
            ("too-slow", 1),
            ("unknown-index", 1),
            ("unknown-key", 2),
            ("wrong-role", 1),
        ]);
        assert_eq!(refused(&server), expected.into_iter().collect());
    }
}

mod decoding {
    use super::*;

    #[test]
    fn failing_random_source_closes_with_1011() {
        let mut server = default();
        server.endpoint = Endpoint::new(EndpointConfig::default(), || None);
        let [a, b] = [V1; 2].map(|dialect| server.connect(dialect));
        assert_eq!(server.text(a, r#"{"type":"open"}"#), [(a, "close 1011 Internal")]);
        assert_eq!(server.text(b, OPEN), [(b, r#"{"type":"opened","key":"tea"}"#)]);
    }

    #[test]
    fn key_is_made_of_the_random_bits() {
        let mut server = default();
        let a = server.connect(V1);
        let opened = r#"{"type":"opened","key":"00000000000000000000000012345678"}"#;
        assert_eq!(server.text(a, r#"{"type":"open"}"#), [(a, opened)]);
    }

    #[test]
    fn text_that_does_not_decode_closes_with_its_reason_in_each_dialect() {
        let mut server = Server::new(|config| config.limits.message_bytes = 40);
        for dialect in [Plain, V1] {
            for (text, expected) in [
                ("{", "close 1007 InvalidJson"),
                ("[]", "close 1007 NotAnObject"),
                (&" ".repeat(41), "close 1009 TooBig"),
            ] {
                let a = server.connect(dialect);
                assert_eq!(server.text(a, text), [(a, expected)]);
            }
        }
    }

    #[test]
    fn message_decoded_by_the_driver_is_handled_as_the_text() {
        let texts = [
            [
                (0, OPEN),
                (1, JOIN),
                (1, "{}"),
                (0, r#"{"index":0}"#),
                (0, r#"{"index":7}"#),
                (1, JOIN),
            ],
            [
                (0, OPEN),
                (1, JOIN),
                (1, r#"{"type":"send","data":[1]}"#),
                (0, r#"{"type":"send","index":0,"data":null}"#),
                (1, r#"{"type":"leave"}"#),
                (0, r#"{"type":"close"}"#),
            ],
        ];
        for (dialect, texts) in [Plain, V1].into_iter().zip(texts) {
            let [mut by_text, mut by_message] = [(); 2].map(|()| Server::new(|config| config.messages_per_second = 1));
            let [clients, same] =
                [&mut by_text, &mut by_message].map(|server| [(); 2].map(|()| server.connect(dialect)));
            assert_eq!(clients, same);
            for (who, text) in texts {
                let message = dialect.decode(text, &Limits::default(), || None).expect("a message");
                let input = Input::Message {
                    message,
                    text_bytes: text.len(),
                    wire_bytes: text.len(),
                };
                let outputs = format!("{:?}", by_text.text(clients[who], text));
                assert_eq!(
                    format!("{:?}", by_message.input(clients[who], input)),
                    outputs,
                    "{text}"
                );
            }
            let counters = [by_text, by_message].map(|server| format!("{:?}", server.endpoint.counters()));
            assert_eq!(counters[0], counters[1]);
        }
    }

    #[test]
    fn plain_and_v1_meet_under_one_key() {
        let mut server = default();
        let (opener, plain) = server.pair(V1, Plain);
        let data = server.text(plain, r#"{"a":1}"#);
        assert_eq!(data, [(opener, r#"{"type":"data","index":0,"data":{"a":1}}"#)]);
        let data = server.text(opener, r#"{"type":"send","index":0,"data":{"b":2}}"#);
        assert_eq!(data.of(plain).len(), 1);
        let refused = server.text(opener, r#"{"type":"send","index":0,"data":2}"#);
        assert!(refused.of(opener)[0].contains("not-an-object"));
    }
}
