//! Slow consumers.

use super::*;

/// The cost of [`RECEIVE`].
const COST: usize = RECEIVE.len() + 2 + Frame::OVERHEAD;

/// An opener, and its stalled joiner with an empty write buffer of this size.
fn stalled(backlog_bytes: usize) -> (Server, ConnId, ConnId) {
    let mut server = Server::new(|config| {
        config.backlog_bytes = backlog_bytes.try_into().expect("small");
        config.bytes_per_second = None;
    });
    let (opener, joiner) = server.pair(V1, Plain);
    server.stalled.insert(joiner);
    (server, opener, joiner)
}

const SEND: &str = r#"{"type":"send","index":0,"data":{"a":1}}"#;
const RECEIVE: &str = r#"{"a":1}"#;

#[test]
fn backlog_at_the_limit_fits_and_one_byte_over_closes() {
    let (mut server, opener, joiner) = stalled(2 * COST);
    assert_eq!(server.text(opener, SEND), [(joiner, RECEIVE)]);
    assert_eq!(server.text(opener, SEND), [(joiner, RECEIVE)]);
    let expected = [
        (joiner, "ended-by-server"),
        (joiner, "close 1013 TooSlow"),
        (opener, r#"{"type":"leave","index":0}"#),
    ];
    assert_eq!(server.text(opener, SEND), expected);
    assert_eq!(server.run_until(5_000), [(5_000, joiner, "abort")]);

    let (mut server, opener, joiner) = stalled(2 * COST - 1);
    assert_eq!(server.text(opener, SEND), [(joiner, RECEIVE)]);
    assert_eq!(server.text(opener, SEND).of(joiner).last(), Some(&"close 1013 TooSlow"));
}

#[test]
fn single_frame_of_any_size_fits_into_an_empty_buffer() {
    let (mut server, opener, joiner) = stalled(1);
    let huge = SEND.replace('1', &"1".repeat(60_000));
    assert_eq!(server.text(opener, &huge).of(joiner).len(), 1);
    assert_eq!(server.text(opener, SEND).of(joiner).last(), Some(&"close 1013 TooSlow"));
}

#[test]
fn written_bytes_free_the_buffer() {
    let (mut server, opener, joiner) = stalled(2 * COST);
    server.text(opener, SEND);
    server.text(opener, SEND);
    server.written(joiner, COST - 1);
    server.written(joiner, 1);
    assert_eq!(server.text(opener, SEND), [(joiner, RECEIVE)]);
    server.written(joiner, usize::MAX);
    assert_eq!(server.text(opener, SEND), [(joiner, RECEIVE)]);
    assert_eq!(server.text(opener, SEND), [(joiner, RECEIVE)]);
    server.written(joiner, COST - 1);
    let outputs = server.text(opener, SEND);
    assert_eq!(
        outputs.of(joiner).last(),
        Some(&"close 1013 TooSlow"),
        "a byte is missing"
    );
}

#[test]
fn pings_and_pongs_fill_the_buffer() {
    let (mut server, _, joiner) = stalled(2 * (2 + Frame::OVERHEAD));
    server.run_until(25_000);
    assert_eq!(server.input(joiner, Input::Ping(b"")), [(joiner, "pong ")]);
    let outputs = server.input(joiner, Input::Ping(b""));
    assert_eq!(outputs.of(joiner).last(), Some(&"close 1013 TooSlow"));

    let (mut server, _, joiner) = stalled(2 * (2 + Frame::OVERHEAD) - 1);
    server.run_until(49_999);
    server.input(joiner, Input::Pong);
    server.now = at(50_000);
    let outputs = server.handle_timeout();
    assert_eq!(
        outputs.of(joiner).last(),
        Some(&"close 1013 TooSlow"),
        "instead of a ping"
    );
}

#[test]
fn pong_payload_fills_the_buffer() {
    let (mut server, _, joiner) = stalled(2 * (3 + 2 + Frame::OVERHEAD) - 1);
    assert_eq!(server.input(joiner, Input::Ping(b"abc")), [(joiner, "pong abc")]);
    let outputs = server.input(joiner, Input::Ping(b"abc"));
    assert_eq!(outputs.of(joiner).last(), Some(&"close 1013 TooSlow"));
}

#[test]
fn slow_joiner_is_closed_alone_and_its_opener_gets_a_notice() {
    let mut server = Server::new(|config| {
        config.backlog_bytes = 1;
        config.bytes_per_second = None;
    });
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

/// A joiner that sends as fast as it may must not fill the buffer of an opener that has had no time to read.
#[test]
fn burst_of_a_client_fills_at_most_a_quarter_of_a_buffer() {
    let mut server = default();
    let (_, joiner) = server.pair(Plain, Plain);
    let message = format!(r#"{{"x":"{}"}}"#, "x".repeat(60_000));
    let mut sent = 0;
    loop {
        let outputs = server.text(joiner, &message);
        sent += message.len();
        if outputs.of(joiner).iter().any(|output| output.starts_with("pause")) {
            break;
        }
    }
    let quarter = 1024 * 1024 / 4;
    assert!(sent > quarter && sent <= quarter + message.len(), "{sent}");
}
