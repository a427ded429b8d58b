//! Many clients at once, and clients that send more than their peers read.

use std::{io, thread};

use sigver_transcripts::{
    Seen,
    socket::{Client, Opcode, Piece, frame},
};

use super::{Hostile, Runs, Scene, reset};
use crate::{
    dialect::{join, open},
    judge::{Mismatch, is_same},
    pair::{self, Pair},
};

const ROLES: Hostile = Hostile {
    name: "",
    section: "Roles",
    expected: "",
    runs: Runs::InEachDialect,
    is_addition: false,
    waits: false,
    act: |_| Ok(()),
};

const GUARANTEES: Hostile = Hostile {
    section: "Guarantees",
    ..ROLES
};

pub(super) const CASES: &[Hostile] = &[
    Hostile {
        name: "flood-of-one-client",
        expected: "all of it arrives, in order",
        act: flood,
        ..GUARANTEES
    },
    Hostile {
        name: "opener-that-never-reads",
        expected: "close 1013; other clients are not delayed",
        // The server closes an opener that has read nothing for five seconds.
        waits: true,
        act: slow_consumer,
        ..GUARANTEES
    },
    Hostile {
        name: "connections-that-come-and-go",
        expected: "other clients are not affected",
        act: connection_churn,
        ..GUARANTEES
    },
    Hostile {
        name: "joiners-that-vanish-at-once",
        expected: "the next one has the next index",
        act: joiners_vanish,
        ..ROLES
    },
    Hostile {
        name: "opener-that-vanishes-from-a-crowd",
        expected: "every joiner is notified; the key is free in the plain dialect and reserved in sigver.v1",
        act: opener_vanishes,
        ..ROLES
    },
    Hostile {
        name: "race-for-a-key",
        expected: "one client has the key, the others are refused",
        act: race,
        ..ROLES
    },
    Hostile {
        name: "joiners-that-come-and-go",
        expected: "consecutive indexes, none reused",
        act: joiner_churn,
        ..ROLES
    },
    Hostile {
        name: "joiners-of-no-key",
        expected: "every join is refused",
        act: unknown_keys,
        ..ROLES
    },
];

/// The number of joiners in a crowd, which is far below the default limit.
const CROWD: usize = 100;

fn flood(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    const MESSAGES: usize = 1_000;

    let mut pair = scene.pair()?;
    let dialect = scene.dialect;
    // The members are not in alphabetical order, which detects servers that serialize data again.
    let data = |number: usize| format!(r#"{{"n":{number},"filling":"{}"}}"#, "x".repeat(400));
    let Pair { opener, joiner, .. } = &mut pair;
    thread::scope(|scope| {
        let sender = scope.spawn(move || {
            let mut texts = (0..MESSAGES).map(|number| dialect.joiner_sends(&data(number)));
            texts.try_for_each(|text| joiner.send_text(&text))
        });
        // A server may close a slow consumer, and an opener whose connection was not scheduled for a moment looks like one. So the opener
        // reads from the start, and all messages together are half of the default backlog (PROTOCOL.md, "Limits").
        let reader = scope.spawn(move || {
            (0..MESSAGES)
                .try_for_each(|number| pair::expect(opener, dialect, &dialect.opener_receives(0, &data(number))))
        });
        scene.check_bystanders()?;
        let panicked = |_| io::Error::other("the flood panicked");
        sender.join().map_err(panicked)??;
        reader.join().map_err(panicked)?
    })?;
    pair.exchange()
}

fn slow_consumer(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let mut pair = scene.pair()?;
    let data = format!(r#"{{"padding":"{}"}}"#, "x".repeat(60_000));
    let bytes = frame(Opcode::Text, Piece::Last, scene.dialect.joiner_sends(&data).as_bytes());
    // Until the sender is notified that its opener has left: a server may slow it down before. 60 MB exceed the buffers of any operating system.
    for number in 0..1_000 {
        if pair.joiner.send_raw(&bytes).is_err() {
            break;
        }
        if number % 20 == 19 {
            scene.check_bystanders()?;
            if pair.joiner.leftover() != Seen::Nothing {
                break;
            }
        }
    }
    scene.check_bystanders()?;
    // The opener now reads complete messages, then the close frame.
    let whole = scene.dialect.opener_receives(0, &data);
    let last = loop {
        match pair.opener.receive() {
            seen @ Seen::Text(_) if is_same(scene.dialect, &whole, &seen) => {}
            seen => break seen,
        }
    };
    match last {
        Seen::Close(Some(1013), _) => Ok(()),
        seen => Err(Mismatch::new("whole messages, then close 1013", seen)),
    }
}

fn connection_churn(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let key = scene.key();
    let mut opener = scene.opener(&key)?;
    let mut clients = Vec::new();
    for number in 0..200 {
        let mut client = scene.client()?;
        // Some clients have a role, some are refused, some send nothing.
        match number % 4 {
            0 => client.send_text(&open(&scene.key()))?,
            1 => client.send_text(&open(&key))?,
            2 => client.send_text(&join(&scene.key()))?,
            _ => {}
        }
        clients.push(client);
    }
    scene.check_bystanders()?;
    for (number, mut client) in clients.into_iter().enumerate() {
        match number % 3 {
            0 => reset(client),
            1 => client.hang_up(),
            // Fails if the client is closed already.
            _ => drop(client.send_frame(Opcode::Close, Piece::Last, &1001_u16.to_be_bytes())),
        }
    }
    let _joiner = scene.joiner(&key, 0)?;
    scene.expect(&mut opener, &scene.dialect.peer_joined(0))
}

/// Connects an opener and [`CROWD`] joiners.
fn crowd(scene: &mut Scene<'_>, key: &str) -> Result<(Client, Vec<Client>), Mismatch> {
    let mut opener = scene.opener(key)?;
    let mut joiners = Vec::new();
    for index in 0..CROWD {
        joiners.push(scene.joiner(key, index)?);
        scene.expect(&mut opener, &scene.dialect.peer_joined(index))?;
    }
    Ok((opener, joiners))
}

fn joiners_vanish(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let key = scene.key();
    let (mut opener, joiners) = crowd(scene, &key)?;
    joiners.into_iter().for_each(reset);
    // The notices arrive in any order.
    let mut notices: Vec<Seen> = (0..CROWD).filter_map(|index| scene.dialect.peer_left(index)).collect();
    while !notices.is_empty() {
        let seen = opener.receive();
        let place = notices.iter().position(|notice| is_same(scene.dialect, notice, &seen));
        let place = place.ok_or_else(|| Mismatch::new("a leave notice", seen))?;
        notices.swap_remove(place);
    }
    let mut joiner = scene.joiner(&key, CROWD)?;
    scene.expect(&mut opener, &scene.dialect.peer_joined(CROWD))?;
    joiner.send_text(&scene.dialect.joiner_sends(r#"{"n":1}"#))?;
    scene.expect(&mut opener, &scene.dialect.opener_receives(CROWD, r#"{"n":1}"#))
}

fn opener_vanishes(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let key = scene.key();
    let (opener, mut joiners) = crowd(scene, &key)?;
    reset(opener);
    for joiner in &mut joiners {
        scene.expect(joiner, &scene.dialect.opener_left())?;
    }
    scene.expect_key_without_opener(&key)
}

fn race(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let key = scene.key();
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(scene.client()?);
    }
    for client in &mut clients {
        client.send_text(&open(&key))?;
    }
    let taken = scene.dialect.key_taken(&key);
    let mut openers = Vec::new();
    for mut client in clients {
        // In the plain dialect, the opener receives nothing. The others may be closed by now.
        client.handled()?;
        let seen = match (scene.dialect.opened(&key), client.leftover()) {
            (None, Seen::Nothing) => None,
            (Some(opened), seen) if is_same(scene.dialect, &opened, &seen) => Some(client.receive()),
            (_, seen) if is_same(scene.dialect, &taken, &seen) => continue,
            (_, seen) => return Err(Mismatch::new(format_args!("the key is opened, or {taken}"), seen)),
        };
        drop(seen);
        openers.push(client);
    }
    let found = openers.len();
    let mut opener = openers.pop().filter(|_| found == 1);
    let opener = opener
        .as_mut()
        .ok_or_else(|| Mismatch::new("1 opener", format_args!("{found} openers")))?;
    let _joiner = scene.joiner(&key, 0)?;
    scene.expect(opener, &scene.dialect.peer_joined(0))
}

fn joiner_churn(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let key = scene.key();
    let mut opener = scene.opener(&key)?;
    for index in 0..200 {
        let mut joiner = scene.joiner(&key, index)?;
        scene.expect(&mut opener, &scene.dialect.peer_joined(index))?;
        let data = r#"{"n":0}"#;
        joiner.send_text(&scene.dialect.joiner_sends(data))?;
        scene.expect(&mut opener, &scene.dialect.opener_receives(index, data))?;
        joiner.vanish()?;
        if let Some(notice) = scene.dialect.peer_left(index) {
            scene.expect(&mut opener, &notice)?;
        }
    }
    Ok(())
}

fn unknown_keys(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let key = scene.key();
    let mut opener = scene.opener(&key)?;
    let shorter = &key[..key.len() - 1];
    let mut clients = Vec::new();
    for guess in [
        shorter,
        &format!("{key}0"),
        &format!(" {key}"),
        &key.to_uppercase(),
        "*",
        "%",
        "../tea",
        "__proto__",
    ] {
        let mut client = scene.client()?;
        client.send_text(&join(guess))?;
        clients.push(client);
    }
    for mut client in clients {
        match client.receive() {
            Seen::Close(Some(1008), _) => {}
            Seen::Text(text) if text.contains("unknown-key") => {}
            seen => return Err(Mismatch::new("the key is unknown", seen)),
        }
    }
    pair::expect_nothing(&mut opener)
}
