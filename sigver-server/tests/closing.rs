//! Every way in which a connection can end, by the hundred: who reads gets the code, the other side learns what it should, and
//! threads, descriptors and the hub's gauges return to where they were. One test, since it counts what the whole process has.

use std::{net::Shutdown, time::Duration};

use sigver_server::Config;
use sigver_transcripts::{
    Seen,
    socket::{Client, Opcode, Piece},
};
use socket2::SockRef;
use support::{Running, eventually, resources};

#[path = "it/support/mod.rs"]
mod support;

/// Pairs that end in each way.
const PAIRS: usize = 100;

/// A way in which one of a pair ends, and what it sees then; nothing is seen by one that has no socket any more.
struct Way {
    name: &'static str,
    end: fn(&mut Client),
    seen: Option<Seen>,
}

fn ways() -> Vec<Way> {
    let way = |name, end, seen| Way { name, end, seen };
    let closed = |code, text: &str| Some(Seen::Close(Some(code), text.to_owned()));
    vec![
        way(
            "close frame",
            |client| send(client, Opcode::Close, &1000_u16.to_be_bytes()),
            closed(1000, ""),
        ),
        way(
            "empty close frame",
            |client| send(client, Opcode::Close, b""),
            Some(Seen::Close(None, "".into())),
        ),
        way(
            "FIN",
            |client| drop(client.stream().shutdown(Shutdown::Write)),
            Some(Seen::Lost),
        ),
        way("FIN in mid-frame", half_a_frame, Some(Seen::Lost)),
        way("RST", reset, None),
        way(
            "malformed",
            |client| send(client, Opcode::Text, b"{"),
            closed(1007, "text is not one JSON object: invalid JSON"),
        ),
        way(
            "second role",
            |client| send(client, Opcode::Text, br#"{"type":"open","key":"x"}"#),
            closed(1008, "second open or join: one role and one key for life"),
        ),
        way(
            "broken framing",
            |client| drop(client.send_raw(&[0xff; 40])),
            closed(1002, "broken WebSocket framing"),
        ),
        way(
            "too big, with more behind it",
            |client| send(client, Opcode::Text, &[b' '; 200_000]),
            closed(1009, "message over the size limit"),
        ),
        way(
            "binary",
            |client| send(client, Opcode::Binary, b"0"),
            closed(1003, "binary frame: only text is understood"),
        ),
    ]
}

fn send(client: &mut Client, opcode: Opcode, payload: &[u8]) {
    // The server may have closed before all is sent; what came of it is seen by receiving.
    let _ = client.send_frame(opcode, Piece::Last, payload);
}

fn half_a_frame(client: &mut Client) {
    let _ = client.send_raw(&[0x81, 0xff, 0, 0]);
    let _ = client.stream().shutdown(Shutdown::Write);
}

/// Ends as a host does that has lost its state: closing resets the connection at once.
fn reset(client: &mut Client) {
    SockRef::from(client.stream())
        .set_linger(Some(Duration::ZERO))
        .expect("a socket can be told to linger");
}

#[test]
fn closed_connections_send_code_and_leak_nothing() {
    let server = Running::start(Config::default());
    // The first connection makes what is made once.
    drop(server.pair("first"));
    eventually("nobody is connected", || server.handle.connections() == 0);
    // Threads that wait for the next connection may be among them, two at most: a leak is at least one for each pair.
    let (threads, descriptors) = resources();
    for way in ways() {
        for opener_ends in [true, false] {
            end_pairs(&server, &way, opener_ends);
        }
    }
    eventually("threads and descriptors are what they were", || {
        let now = resources();
        now.0 <= threads && now.1 <= descriptors
    });
    server.stop().expect("the server ends in order");
}

fn end_pairs(server: &Running, way: &Way, opener_ends: bool) {
    let context = format!("{}, by {}", way.name, if opener_ends { "openers" } else { "joiners" });
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
    ending.iter_mut().for_each(way.end);
    match &way.seen {
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
    eventually("every connection's thread has ended", || {
        server.handle.connections() == 0
    });
    eventually("the hub's gauges are at 0", || {
        let stats = server.handle.stats();
        (stats.connections, stats.keys, stats.joiners) == (0, 0, 0)
    });
}
