//! Slow consumers use a bounded amount of memory and affect no other client.

use std::{fs, net::Shutdown, thread, time::Duration};

use sigver_transcripts::{
    Seen,
    socket::{Opcode, Piece},
};
use socket2::SockRef;
use support::{Running, eventually, test_config};

#[path = "it/support/mod.rs"]
mod support;

/// Bytes that the joiner tries to send.
const FLOOD_BYTES: usize = 100 * 1024 * 1024;

/// Maximum growth of memory: the backlog, kernel buffers, messages in transit, and the allocator's overhead.
const MAX_GROWTH: usize = 16 * 1024 * 1024;

#[test]
fn slow_opener_is_closed_without_delaying_others() {
    let mut config = test_config();
    config.endpoint.close_timeout = Duration::from_secs(3);
    let server = Running::start(config);
    let (mut by_opener, mut by_joiner) = server.pair("bystanders");
    let (mut opener, mut joiner) = server.pair("flooded");
    let mut second = server.client();
    second
        .send_text(r#"{"type":"join","key":"flooded"}"#)
        .expect("it is connected");
    second.sync();

    // The server stops reading from a joiner that it has closed. What the joiner's kernel has is discarded in the end.
    let flooding = SockRef::from(joiner.stream());
    let timeout = flooding.set_write_timeout(Some(Duration::from_secs(1)));
    timeout
        .and_then(|()| flooding.set_linger(Some(Duration::ZERO)))
        .expect("sockets have these options");
    let before = resident();
    let sender = thread::spawn(move || {
        let message = format!(r#"{{"n":"{}"}}"#, "x".repeat(60_000));
        let sent = (0..FLOOD_BYTES / message.len())
            .take_while(|_| joiner.send_text(&message).is_ok())
            .count();
        (sent, joiner.receive())
    });
    let opener_left = Seen::Close(Some(4001), "opener left".into());
    assert_eq!(second.receive(), opener_left, "the other joiner is notified");
    assert!(resident().saturating_sub(before) < MAX_GROWTH, "memory stays bounded");
    for n in 0..100 {
        by_joiner
            .send_text(&format!(r#"{{"n":{n}}}"#))
            .expect("a bystander is connected");
        assert_eq!(by_opener.receive(), Seen::Text(format!(r#"{{"n":{n},"index":0}}"#)));
    }
    // The slow opener receives complete messages in order, then the close frame.
    assert_eq!(
        opener.receive(),
        Seen::Text(r#"{"type":"join"}"#.into()),
        "the second joiner joined before the flood"
    );
    let mut count = 0;
    let last = loop {
        match opener.receive() {
            Seen::Text(text) => {
                assert!(
                    text.len() > 60_000 && text.ends_with(r#","index":0}"#),
                    "message {count} is complete"
                );
                count += 1;
            }
            other => break other,
        }
    };
    assert_eq!(last, Seen::Close(Some(1013), "reading too slowly".into()));
    let (sent, seen) = sender.join().expect("the thread only sends");
    assert!(count > 0 && count <= sent, "{count} of {sent}");
    // A client that sends while it is closed may lose the close frame to a reset.
    assert!(seen == opener_left || seen == Seen::Lost, "{seen:?}");
    drop((opener, second));
    eventually("only the bystanders are left", || server.handle.connection_count() == 2);
}

/// A half-closed client can still read pending frames and the answer to its close frame.
#[test]
fn half_closed_client_receives_pending_frames() {
    const MESSAGES: usize = 14;
    let server = Running::start(test_config());
    let (mut opener, mut joiner) = server.pair("half-closed");
    let message = format!(r#"{{"index":0,"n":"{}"}}"#, "x".repeat(60_000));
    for _ in 0..MESSAGES {
        opener.send_text(&message).expect("it is connected");
    }
    opener.sync();
    joiner
        .send_frame(Opcode::Close, Piece::Last, &1000_u16.to_be_bytes())
        .expect("it is connected");
    joiner.stream().shutdown(Shutdown::Write).expect("it is connected");
    for n in 0..MESSAGES {
        assert!(
            matches!(joiner.receive(), Seen::Text(text) if text.len() > 60_000),
            "message {n} is complete"
        );
    }
    assert_eq!(joiner.receive(), Seen::Close(Some(1000), String::new()));
}

/// A joiner that sends faster than its opener reads is slowed down. Everything arrives, and another joiner is served meanwhile.
#[test]
fn opener_that_reads_slowly_receives_everything() {
    const MESSAGES: usize = 100;
    let mut config = test_config();
    config.endpoint.bytes_per_second = None;
    config.endpoint.close_timeout = Duration::from_secs(3600);
    let server = Running::start(config);
    let (mut opener, mut joiner) = server.pair("slow");
    let mut second = server.client();
    second
        .send_text(r#"{"type":"join","key":"slow"}"#)
        .expect("it is connected");
    assert_eq!(opener.receive(), Seen::Text(r#"{"type":"join"}"#.into()));
    let sender = thread::spawn(move || {
        let padding = "x".repeat(60_000);
        for n in 0..MESSAGES {
            joiner
                .send_text(&format!(r#"{{"n":{n},"x":"{padding}"}}"#))
                .expect("a joiner that is not read stays connected");
        }
        joiner
    });
    eventually("the joiner is not read", || {
        let text = server.handle.metrics();
        text.contains("sigver_blocked_joiners 1\n")
    });
    second.send_text(r#"{"second":1}"#).expect("it is connected");
    second.sync();
    let (mut next, mut place_of_second) = (0, None);
    while next < MESSAGES || place_of_second.is_none() {
        let Seen::Text(text) = opener.receive() else {
            panic!("the opener stays connected");
        };
        if text.starts_with(r#"{"second""#) {
            place_of_second = Some(next);
        } else {
            assert!(text.starts_with(&format!(r#"{{"n":{next},"#)), "message {next}");
            next += 1;
        }
    }
    assert!(place_of_second < Some(MESSAGES), "it does not wait for all of them");
    sender.join().expect("the thread only sends").sync();
}

/// Returns the resident memory of this process in bytes, server and clients together.
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<usize>().ok())
        .unwrap_or(0)
        * 4096
}
