//! Joiners that send faster than their opener reads.

use super::*;

const SEND: &str = r#"{"type":"send","data":{"a":1}}"#;

/// A server with this write buffer, and no limits on bytes and messages.
fn server(backlog_bytes: u32) -> Server {
    Server::new(|config| {
        config.backlog_bytes = backlog_bytes;
        config.bytes_per_second = None;
        config.messages_per_second = None;
    })
}

fn joiner(server: &mut Server) -> ConnId {
    let joiner = server.connect(V1);
    server.text(joiner, JOIN);
    joiner
}

/// A message with a number and padding, and what its opener receives.
fn numbered(number: usize, padding: usize) -> String {
    let padding = "x".repeat(padding);
    format!(r#"{{"type":"send","data":{{"n":{number},"x":"{padding}"}}}}"#)
}

fn number(received: &str) -> Option<usize> {
    let (_, rest) = received.split_once(r#""n":"#)?;
    rest.split_once(',')?.0.parse().ok()
}

/// Writes what was returned for an opener, until nothing is left. Returns it.
fn drain(server: &mut Server, opener: ConnId, mut unwritten: usize) -> Vec<String> {
    let mut received = Vec::new();
    while unwritten > 0 {
        let outputs = server.written(opener, unwritten);
        unwritten = 0;
        for output in outputs.of(opener) {
            unwritten += Frame::Text(output.to_owned()).cost();
            received.push(output.to_owned());
        }
    }
    received
}

fn cost(outputs: &[&str]) -> usize {
    outputs
        .iter()
        .map(|output| Frame::Text((*output).to_owned()).cost())
        .sum()
}

#[test]
fn joiner_over_its_share_is_stopped_and_everything_arrives() {
    let mut server = server(64 * 1024);
    let (opener, joiner) = server.pair(V1, V1);
    server.stalled.insert(opener);
    let (mut sent, mut unwritten) = (0, 0);
    let mut is_stopped = false;
    let mut received = Vec::new();
    while !is_stopped {
        let outputs = server.text(joiner, &numbered(sent, 1_000));
        unwritten += cost(&outputs.of(opener));
        received.extend(outputs.of(opener).into_iter().filter_map(number));
        is_stopped = outputs.of(joiner) == ["stop reading"];
        sent += 1;
    }
    // An eighth waits in the queue, after a window of 4 KiB.
    assert!((9..14).contains(&sent), "{sent}");
    // What was read already waits behind.
    for _ in 0..3 {
        assert_eq!(server.text(joiner, &numbered(sent, 1_000)), []);
        sent += 1;
    }
    assert_eq!(server.input(joiner, Input::Ping(b"x")), []);

    let mut outputs = server.written(opener, unwritten - 3_000);
    assert!(outputs.of(joiner).is_empty(), "some of its share waits");
    while outputs.of(joiner).is_empty() {
        let returned = outputs.of(opener);
        received.extend(returned.iter().filter_map(|text| number(text)));
        let unwritten = cost(&returned);
        outputs = server.written(opener, unwritten);
    }
    assert_eq!(outputs.of(joiner), ["pong x", "resume reading"]);
    received.extend(outputs.of(opener).into_iter().filter_map(number));
    server.stalled.clear();
    received.extend(
        server
            .written(opener, usize::MAX)
            .of(opener)
            .into_iter()
            .filter_map(number),
    );
    assert_eq!(received, (0..sent).collect::<Vec<_>>(), "nothing is lost");
    assert_eq!(server.text(joiner, &numbered(sent, 0)).of(opener).len(), 1);
}

#[test]
fn opener_receives_from_its_joiners_in_turn() {
    let mut server = server(64 * 1024);
    let (opener, busy) = server.pair(V1, V1);
    let quiet = joiner(&mut server);
    server.stalled.insert(opener);
    let mut unwritten = 0;
    for sent in 0..12 {
        unwritten += cost(&server.text(busy, &numbered(sent, 1_000)).of(opener));
    }
    assert_eq!(server.text(quiet, &numbered(100, 0)), []);
    assert_eq!(server.text(quiet, &numbered(101, 0)), []);
    let received = drain(&mut server, opener, unwritten);
    let numbers: Vec<_> = received.iter().filter_map(|text| number(text)).collect();
    // Together they are smaller than the next message of the other.
    assert_eq!(numbers[..2], [100, 101], "{numbers:?}");
    assert_eq!(numbers[2..], (numbers[2]..12).collect::<Vec<_>>());
}

/// Sends from a busy and from a quiet joiner while the opener reads slowly. Returns how many bytes the opener has read between each of the
/// quiet joiner's messages and its arrival.
fn waits_beside_busy_joiner(backlog_bytes: u32, padding: usize) -> Vec<usize> {
    let mut server = server(backlog_bytes);
    let (opener, busy) = server.pair(V1, V1);
    let quiet = joiner(&mut server);
    server.stalled.insert(opener);
    let (mut unwritten, mut read, mut is_stopped) = (0, 0, false);
    let (mut sent, mut waits) = (Vec::new(), Vec::new());
    for step in 0..400 {
        let mut outputs = Vec::new();
        // A driver that stops reading when it is told to.
        if !is_stopped {
            outputs.push(server.text(busy, &numbered(1_000, padding)));
        }
        // Four at a time, and much less than its share in all.
        if step % 40 == 0 {
            for _ in 0..4 {
                let number = sent.len();
                sent.push(read);
                outputs.push(server.text(quiet, &numbered(number, 0)));
            }
        }
        // A quarter of a busy message.
        let written = unwritten.min(padding / 4);
        unwritten -= written;
        read += written;
        outputs.push(server.written(opener, written));
        for outputs in &outputs {
            for text in outputs.of(opener) {
                unwritten += Frame::Text(text.to_owned()).cost();
                waits.extend(number(text).and_then(|number| Some(read - sent.get(number)?)));
            }
            match outputs.of(busy)[..] {
                [] => {}
                [.., "stop reading"] => is_stopped = true,
                [.., "resume reading"] => is_stopped = false,
                ref other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(waits.len(), sent.len(), "all have arrived");
    waits
}

#[test]
fn quiet_joiner_waits_for_one_message_of_a_busy_one() {
    // Many messages of the busy joiner fit into its share, or only one does.
    for padding in [1_000, 4_000, 7_500] {
        let waits = waits_beside_busy_joiner(64 * 1024, padding);
        // The one that is being written, and a window of 4 KiB before it.
        let longest = waits.iter().max().copied().unwrap_or_default();
        assert!(longest <= 2 * padding + 4_096 + 1_000, "{padding}: {waits:?}");
    }
}

#[test]
fn frames_of_the_opener_keep_their_place() {
    let mut server = server(64 * 1024);
    let (opener, first) = server.pair(V1, V1);
    let second = joiner(&mut server);
    server.stalled.insert(opener);
    let mut unwritten = 0;
    for sent in 0..10 {
        unwritten += cost(&server.text(first, &numbered(sent, 1_000)).of(opener));
    }
    assert_eq!(
        server.text(opener, r#"{"type":"kick","index":9}"#),
        [],
        "the error waits as well"
    );
    assert_eq!(server.text(second, &numbered(100, 0)), []);
    let received = drain(&mut server, opener, unwritten);
    let [.., before, error, after] = &received[..] else {
        panic!("{received:?}")
    };
    assert_eq!([number(before), number(after)], [Some(9), Some(100)]);
    assert!(error.contains("unknown-index"));
}

#[test]
fn opener_that_reads_nothing_is_closed_after_the_close_timeout_and_its_joiners_continue() {
    let mut server = server(4_000);
    let (opener, joiner) = server.pair(V1, V1);
    server.stalled.insert(opener);
    while server.text(joiner, SEND).of(joiner).is_empty() {}
    assert_eq!(server.text(joiner, r#"{"type":"open","key":"milk"}"#), []);
    let closed = [
        (1_000, opener, "probe progress"),
        (2_000, opener, "probe progress"),
        (3_000, opener, "probe progress"),
        (4_000, opener, "probe progress"),
        (5_000, opener, "close 1013 TooSlow"),
        (5_000, joiner, "ended-by-opener"),
        (5_000, joiner, r#"{"type":"closed","code":"opener-left"}"#),
        (
            5_000,
            joiner,
            r#"{"type":"error","code":"no-role","message":"this socket has no role: it has to open or join a key first"}"#,
        ),
        (
            5_000,
            joiner,
            r#"{"type":"opened","key":"milk","token":"00000000000000000000000012345679"}"#,
        ),
        (5_000, joiner, "resume reading"),
    ];
    assert_eq!(server.run_until(5_000), closed);
}

#[test]
fn opener_that_reads_slowly_is_never_closed() {
    let mut server = server(4_000);
    let (opener, joiner) = server.pair(V1, V1);
    server.stalled.insert(opener);
    while server.text(joiner, SEND).of(joiner).is_empty() {}
    for second in (4..60).step_by(4) {
        let timeline = server.run_until(second * 1_000);
        assert!((0..timeline.len()).len() <= 6, "{timeline:?}");
        server.written(opener, 1);
        // The driver may know of bytes that the kernel has sent.
        server.run_until(second * 1_000 + 500);
        server.endpoint.record_progress(opener);
    }
    assert_eq!(server.endpoint.role(opener), Some(Role::Opener));
}

/// However many joiners there are, what waits for the opener is bounded, and nobody is closed.
#[test]
fn full_buffer_stops_every_joiner_and_no_notice_is_lost() {
    let mut server = server(8_000);
    let opener = server.connect(V1);
    server.text(opener, OPEN);
    let joiners: Vec<_> = (0..100).map(|_| joiner(&mut server)).collect();
    server.stalled.insert(opener);
    let mut received = Vec::new();
    for (place, joiner) in joiners.iter().enumerate() {
        let outputs = server.text(*joiner, &numbered(place, 100));
        received.extend(outputs.of(opener).into_iter().map(str::to_owned));
    }
    let unwritten = received.iter().map(|text| Frame::Text(text.clone()).cost()).sum();
    // One vanishes while it waits, one while its message is in the queue. A new one waits for its turn to join.
    for gone in [99, 5] {
        assert_eq!(
            server.input(joiners[gone], Input::Disconnected).of(opener),
            [] as [&str; 0]
        );
    }
    let late = server.connect(V1);
    assert_eq!(server.text(late, JOIN), [(late, "stop reading")]);
    received.extend(drain(&mut server, opener, unwritten));
    let mut numbers: Vec<_> = received.iter().filter_map(|text| number(text)).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..99).collect::<Vec<_>>());
    let position = |wanted: &str| received.iter().position(|text| text.contains(wanted)).expect(wanted);
    assert!(position(r#""n":5,"#) < position(r#"{"type":"leave","index":5}"#));
    position(r#"{"type":"leave","index":99}"#);
    position(r#"{"type":"join","index":100}"#);
    assert_eq!(server.endpoint.role(late), Some(Role::Joiner));
}

/// A joiner that waits to join has asked for a role in time, and is alive although its pongs are not read.
#[test]
fn waiting_joiner_is_closed_by_no_timeout() {
    let mut server = Server::new(|config| {
        config.backlog_bytes = 40_000;
        config.bytes_per_second = None;
        config.messages_per_second = None;
        config.limits.role_deadline = Some(Duration::from_secs(10));
        config.close_timeout = Duration::MAX;
    });
    let opener = server.connect(V1);
    server.text(opener, OPEN);
    let joiners: Vec<_> = (0..10).map(|_| joiner(&mut server)).collect();
    server.stalled.insert(opener);
    for joiner in joiners {
        while server.text(joiner, SEND).of(joiner).is_empty() {}
    }
    let late = server.connect(V1);
    assert_eq!(server.text(late, JOIN), [(late, "stop reading")]);
    for second in (20..200).step_by(20) {
        let closed = server.run_until(second * 1_000);
        assert!(
            closed.last().is_none_or(|(_, _, output)| output == "ping"),
            "{closed:?}"
        );
        server.input(opener, Input::Pong);
    }
    server.stalled.clear();
    server.written(opener, usize::MAX);
    assert_eq!(server.endpoint.role(late), Some(Role::Joiner));
}

#[test]
fn driver_that_goes_on_reading_loses_the_joiner() {
    let mut server = server(4_000);
    let (opener, joiner) = server.pair(V1, V1);
    server.stalled.insert(opener);
    while server.text(joiner, SEND).of(joiner).is_empty() {}
    let mut held = 0;
    let closed = loop {
        let outputs = server.text(joiner, SEND);
        if !outputs.of(joiner).is_empty() {
            break outputs;
        }
        held += 1;
        assert!(held < 100, "what waits is bounded");
    };
    assert_eq!(
        closed.of(joiner),
        ["ended-by-server", "resume reading", "close 1013 TooSlow"]
    );
    assert!(held > 16);
    assert_eq!(server.endpoint.role(opener), Some(Role::Opener));
}

/// What a joiner waits to send goes to the connection that takes the key over, and not before it has its `opened`.
#[test]
fn takeover_by_another_connection_ends_the_wait() {
    let mut server = server(4_000);
    let (opener, joiner) = server.pair(V1, V1);
    server.stalled.insert(opener);
    while server.text(joiner, SEND).of(joiner).is_empty() {}
    let successor = server.connect(V1);
    let outputs = server.text(
        successor,
        r#"{"type":"open","key":"tea","token":"00000000000000000000000012345678"}"#,
    );
    let [opened, data] = outputs.of(successor)[..] else {
        panic!("{outputs:?}");
    };
    assert!(opened.starts_with(r#"{"type":"opened","key":"tea""#), "{opened}");
    assert_eq!(data, r#"{"type":"data","index":0,"data":{"a":1}}"#);
    assert_eq!(outputs.of(joiner), [r#"{"type":"reopened"}"#, "resume reading"]);
}

/// The pongs of an opener wait behind what it has not read yet.
#[test]
fn reading_is_a_sign_of_life() {
    let mut server = server(40_000);
    let (opener, joiner) = server.pair(V1, V1);
    server.stalled.insert(opener);
    while server.text(joiner, SEND).of(joiner).is_empty() {}
    for second in (4..300).step_by(4) {
        server.run_until(second * 1_000);
        server.written(opener, 1);
        server.input(joiner, Input::Pong);
    }
    assert_eq!(server.endpoint.role(opener), Some(Role::Opener));
}
