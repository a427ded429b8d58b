//! Plain joins that arrive before the open of another client.

use sigver_transcripts::{
    Seen,
    socket::{Client, Opcode, Piece, frame},
};

use super::{Hostile, Runs, Scene, pause, reset, text_frame};
use crate::{
    dialect::{Dialect, join, open},
    judge::Mismatch,
};

const ROLES: Hostile = Hostile {
    name: "",
    section: "Roles",
    expected: "",
    runs: Runs::Only(Dialect::Plain),
    is_addition: false,
    waits: false,
    act: |_| Ok(()),
};

pub(super) const CASES: &[Hostile] = &[
    Hostile {
        name: "join-before-its-open",
        expected: "accepted, and what follows is handled in order",
        is_addition: true,
        act: join_first,
        ..ROLES
    },
    Hostile {
        name: "requests-behind-a-join-of-no-key",
        expected: "close 1008",
        act: requests_behind_join,
        ..ROLES
    },
    Hostile {
        name: "joiners-that-vanish-before-the-open",
        expected: "the next one is accepted",
        act: joiners_vanish,
        ..ROLES
    },
];

fn join_first(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    // A busy machine may delay a server with the grace until after it, and one without it until after the open. So most attempts count.
    const MOST: usize = 3;

    let (mut accepted, mut refused) = (0, 0);
    while accepted < MOST {
        match join_then_open(scene)? {
            Ok(()) => accepted += 1,
            Err(_) if refused + 1 < MOST => refused += 1,
            Err(seen) => return Err(Mismatch::new("the joiner is accepted", seen)),
        }
    }
    Ok(())
}

/// Joins and opens a key in this order, on two connections. Returns what the joiner receives if it is refused.
fn join_then_open(scene: &mut Scene<'_>) -> Result<Result<(), Seen>, Mismatch> {
    const MESSAGES: usize = 50;

    let key = scene.key();
    let (mut opener, mut joiner) = (scene.client()?, scene.client()?);
    let data = |number: usize| format!(r#"{{"n":{number}}}"#);
    let behind = (0..MESSAGES).flat_map(|number| text_frame(&data(number)));
    let bytes: Vec<u8> = text_frame(&join(&key)).into_iter().chain(behind).collect();
    joiner.send_raw(&bytes)?;
    // A server without the grace refuses the join meanwhile.
    pause(100);
    opener.send_text(&open(&key))?;
    opener.handled()?;
    // The pong follows the outcome.
    joiner.handled()?;
    match joiner.leftover() {
        Seen::Nothing => {}
        refused @ (Seen::Close(Some(1008), _) | Seen::Lost) => return Ok(Err(refused)),
        seen => return Err(Mismatch::new("nothing, or close 1008", seen)),
    }
    scene.expect(&mut opener, &scene.dialect.peer_joined(0))?;
    for number in 0..MESSAGES {
        scene.expect(&mut opener, &scene.dialect.opener_receives(0, &data(number)))?;
    }
    opener.send_text(&scene.dialect.opener_sends(0, &data(0)))?;
    scene.expect(&mut joiner, &scene.dialect.joiner_receives(0, &data(0)))?;
    Ok(Ok(()))
}

fn requests_behind_join(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let mut clients: Vec<Client> = Vec::new();
    for behind in [
        open(&scene.key()),
        join(&scene.key()),
        r#"{"type":"ping"}"#.into(),
        "[".into(),
        "x".repeat(60_000),
    ] {
        let mut client = scene.client()?;
        let ping = frame(Opcode::Ping, Piece::Last, b"behind");
        client.send_raw(&[text_frame(&join(&scene.key())), text_frame(&behind), ping].concat())?;
        clients.push(client);
    }
    for client in &mut clients {
        scene.expect_close(client, &[1008])?;
    }
    Ok(())
}

fn joiners_vanish(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    const LAST: &str = r#"{"the":"last"}"#;

    let key = scene.key();
    for number in 0..20 {
        let mut joiner = scene.client()?;
        joiner.send_text(&join(&key))?;
        if number % 2 == 0 {
            reset(joiner);
        }
    }
    let mut opener = scene.client()?;
    opener.send_text(&open(&key))?;
    opener.handled()?;
    let mut last = scene.client()?;
    last.send_text(&join(&key))?;
    last.send_text(LAST)?;
    // The server may have noticed the end of the others before or after they joined, and may handle the join of one after the last.
    let (mut joined, mut is_heard) = (0, false);
    loop {
        let seen = if is_heard {
            opener.receive_before_pong()
        } else {
            opener.receive()
        };
        match seen {
            Seen::Nothing if is_heard => return Ok(()),
            seen if seen == scene.dialect.peer_joined(joined) => joined += 1,
            seen if !is_heard && (0..joined).any(|index| seen == scene.dialect.opener_receives(index, LAST)) => {
                is_heard = true
            }
            seen => return Err(Mismatch::new("joins, and the data of the last joiner", seen)),
        }
    }
}
