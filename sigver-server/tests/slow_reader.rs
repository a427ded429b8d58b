//! A client that does not read costs a bounded amount of memory, and then only itself.

use std::{fs, net::Shutdown, thread};

use sigver_server::Config;
use sigver_transcripts::{
    Seen,
    socket::{Opcode, Piece},
};
use support::{Running, eventually};

#[path = "it/support/mod.rs"]
mod support;

/// What the greedy joiner would like to push through.
const GREED: usize = 100 * 1024 * 1024;

/// What it may cost: the backlog, the kernel's buffers, a message in each hand, and what an allocator keeps for itself.
const COST: usize = 16 * 1024 * 1024;

#[test]
fn slow_opener_is_closed_without_delaying_others() {
    let server = Running::start(Config::default());
    let (mut by_opener, mut by_joiner) = server.pair("bystanders");
    let (mut opener, mut joiner) = server.pair("greedy");
    let mut second = server.client();
    second
        .send_text(r#"{"type":"join","key":"greedy"}"#)
        .expect("it is connected");
    second.sync();

    let before = resident();
    let sender = thread::spawn(move || {
        let message = format!(r#"{{"n":"{}"}}"#, "x".repeat(60_000));
        let sent = (0..GREED / message.len())
            .take_while(|_| joiner.send_text(&message).is_ok())
            .count();
        (sent, joiner.receive())
    });
    let opener_left = Seen::Close(Some(4001), "opener left".into());
    assert_eq!(second.receive(), opener_left, "the other joiner is told");
    assert!(resident().saturating_sub(before) < COST, "memory stays bounded");
    for n in 0..100 {
        by_joiner
            .send_text(&format!(r#"{{"n":{n}}}"#))
            .expect("a bystander is connected");
        assert_eq!(by_opener.receive(), Seen::Text(format!(r#"{{"n":{n},"index":0}}"#)));
    }
    // The one that was too slow reads at last: whole messages, in order, and why it was closed.
    assert_eq!(
        opener.receive(),
        Seen::Text(r#"{"type":"join"}"#.into()),
        "the second joiner came before the flood"
    );
    let mut whole = 0;
    let last = loop {
        match opener.receive() {
            Seen::Text(text) => {
                assert!(
                    text.len() > 60_000 && text.ends_with(r#","index":0}"#),
                    "message {whole} is whole"
                );
                whole += 1;
            }
            other => break other,
        }
    };
    assert_eq!(last, Seen::Close(Some(1013), "reading too slowly".into()));
    let (sent, seen) = sender.join().expect("the sender only sends");
    assert!(whole > 0 && whole <= sent, "{whole} of {sent}");
    // Whoever is still sending when it is closed may lose the close frame to its own bytes.
    assert!(seen == opener_left || seen == Seen::Lost, "{seen:?}");
    drop((opener, second));
    eventually("only the bystanders are left", || server.handle.connections() == 2);
}

/// Who has closed its side may still read: what was on its way, whole, and the answer to its close frame.
#[test]
fn half_closed_client_receives_pending_frames() {
    const MESSAGES: usize = 14;
    let server = Running::start(Config::default());
    let (mut opener, mut joiner) = server.pair("half-closed");
    let message = format!(r#"{{"n":"{}"}}"#, "x".repeat(60_000));
    for _ in 0..MESSAGES {
        joiner.send_text(&message).expect("it is connected");
    }
    joiner.sync();
    opener
        .send_frame(Opcode::Close, Piece::Last, &1000_u16.to_be_bytes())
        .expect("it is connected");
    opener.stream().shutdown(Shutdown::Write).expect("it is connected");
    assert_eq!(joiner.receive(), Seen::Close(Some(4001), "opener left".into()));
    for n in 0..MESSAGES {
        assert!(
            matches!(opener.receive(), Seen::Text(text) if text.len() > 60_000),
            "message {n} is whole"
        );
    }
    assert_eq!(opener.receive(), Seen::Close(Some(1000), String::new()));
}

/// Resident memory of this process, in bytes; the server's and the clients' alike.
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<usize>().ok())
        .unwrap_or(0)
        * 4096
}
