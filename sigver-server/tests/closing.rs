//! Every case in which a connection can end: clients receive the close code, their peers are notified, and threads, descriptors and gauges
//! return to their initial values. The test has a binary of its own because it counts resources of the process.

use std::{net::Shutdown, time::Duration};

use sigver_transcripts::{
    Seen,
    socket::{Client, Opcode, Piece},
};
use socket2::SockRef;
use support::{Running, eventually, resources, test_config};

#[path = "it/support/mod.rs"]
mod support;

/// Pairs per case.
const PAIRS: usize = 100;

/// How one client of a pair ends its connection, and what it receives, unless it has closed its socket.
struct Case {
    name: &'static str,
    end: fn(&mut Client),
    seen: Option<Seen>,
}

fn cases() -> Vec<Case> {
    let case = |name, end, seen| Case { name, end, seen };
    let closed = |code, text: &str| Some(Seen::Close(Some(code), text.to_owned()));
    vec![
        case(
            "close frame",
            |client| send(client, Opcode::Close, &1000_u16.to_be_bytes()),
            closed(1000, ""),
        ),
        case(
            "empty close frame",
            |client| send(client, Opcode::Close, b""),
            Some(Seen::Close(None, "".into())),
        ),
        case(
            "FIN",
            |client| drop(client.stream().shutdown(Shutdown::Write)),
            Some(Seen::Lost),
        ),
        case("FIN in mid-frame", half_a_frame, Some(Seen::Lost)),
        case("RST", reset, None),
        case(
            "malformed",
            |client| send(client, Opcode::Text, b"{"),
            closed(1007, "text is not one JSON object: invalid JSON"),
        ),
        case(
            "second role",
            |client| send(client, Opcode::Text, br#"{"type":"open","key":"x"}"#),
            closed(1008, "second open or join: one role and one key for life"),
        ),
        case(
            "broken framing",
            |client| drop(client.send_raw(&[0xff; 40])),
            closed(1002, "broken WebSocket framing"),
        ),
        case(
            "too big, with more after it",
            |client| send(client, Opcode::Text, &[b' '; 200_000]),
            closed(1009, "message over the size limit"),
        ),
        case(
            "binary",
            |client| send(client, Opcode::Binary, b"0"),
            closed(1003, "binary frame: only text is understood"),
        ),
    ]
}

fn send(client: &mut Client, opcode: Opcode, payload: &[u8]) {
    // Fails if the server closes first; the caller checks what it receives.
    let _ = client.send_frame(opcode, Piece::Last, payload);
}

fn half_a_frame(client: &mut Client) {
    let _ = client.send_raw(&[0x81, 0xff, 0, 0]);
    let _ = client.stream().shutdown(Shutdown::Write);
}

/// Makes closing the socket reset the connection, as a crashed host does.
fn reset(client: &mut Client) {
    SockRef::from(client.stream())
        .set_linger(Some(Duration::ZERO))
        .expect("SO_LINGER is supported");
}

#[test]
fn closed_connections_send_code_and_leak_nothing() {
    let server = Running::start(test_config());
    // The first connections create what is created once.
    drop(server.pair("first"));
    eventually("no client is connected", || server.handle.connection_count() == 0);
    // This may include up to two idle worker threads. A leak would be at least one thread per pair.
    let (threads, descriptors) = resources();
    for case in cases() {
        for opener_ends in [true, false] {
            end_pairs(&server, &case, opener_ends);
        }
    }
    eventually("threads and descriptors are released", || {
        let now = resources();
        now.0 <= threads && now.1 <= descriptors
    });
    server.stop().expect("the server shuts down without an error");
}

fn end_pairs(server: &Running, case: &Case, opener_ends: bool) {
    let context = format!("{}, by {}", case.name, if opener_ends { "openers" } else { "joiners" });
    let pairs = (0..PAIRS).map(|n| server.pair(&n.to_string()));
    let (mut ending, mut others): (Vec<_>, Vec<_>) = pairs
        .map(|(opener, joiner)| {
            if opener_ends {
                (opener, joiner)
            } else {
                (joiner, opener)
            }
        })
        .unzip();
    ending.iter_mut().for_each(case.end);
    match &case.seen {
        Some(seen) => ending
            .iter_mut()
            .for_each(|client| assert_eq!(client.receive(), *seen, "{context}")),
        None => ending.clear(),
    }
    for other in &mut others {
        if opener_ends {
            assert_eq!(
                other.receive(),
                Seen::Close(Some(4001), "opener left".into()),
                "{context}"
            );
        } else {
            assert_eq!(other.leftover(), Seen::Nothing, "{context}");
        }
    }
    drop((ending, others));
    eventually("every connection's thread has exited", || {
        server.handle.connection_count() == 0
    });
    eventually("the hub's gauges are at 0", || {
        let stats = server.handle.stats();
        (stats.connections, stats.keys, stats.joiners) == (0, 0, 0)
    });
}
