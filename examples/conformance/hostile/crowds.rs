//! Crowds and floods: many clients at once, and few that send more than anyone reads.

use std::{io, thread};

use sigver_transcripts::{
    Seen,
    socket::{Client, Opcode, Piece, frame},
};

use super::{Hostile, Scene, reset};
use crate::{
    dialect::{join, open},
    judge::{Mismatch, is_same},
    pair::{self, Pair},
};

const ROLES: Hostile = Hostile {
    name: "",
    section: "Roles",
    expected: "",
    in_dialects: true,
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
        expected: "close 1013; nobody else waits for it",
        act: never_reads,
        ..GUARANTEES
    },
    Hostile {
        name: "connections-that-come-and-go",
        expected: "they cost nobody anything",
        act: come_and_go,
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
        expected: "every joiner is told, and the key is free",
        act: opener_vanishes,
        ..ROLES
    },
    Hostile {
        name: "race-for-a-key",
        expected: "one has it, the others are told",
        act: race,
        ..ROLES
    },
    Hostile {
        name: "joiners-that-come-and-go",
        expected: "indexes without gaps, none twice",
        act: joiners_come_and_go,
        ..ROLES
    },
    Hostile {
        name: "joiners-of-no-key",
        expected: "none gets in, whatever it tries",
        act: guesses,
        ..ROLES
    },
];

/// How many joiners make a crowd: well below the default limit.
const CROWD: usize = 100;

fn flood(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    const MESSAGES: usize = 1_000;

    let mut pair = scene.pair()?;
    let dialect = scene.dialect;
    let data = |number: usize| format!(r#"{{"n":{number},"filling":"{}"}}"#, "x".repeat(400));
    let Pair { opener, joiner, .. } = &mut pair;
    thread::scope(|scope| {
        let sender = scope.spawn(move || {
            let mut texts = (0..MESSAGES).map(|number| dialect.joiner_says(&data(number)));
            texts.try_for_each(|text| joiner.send_text(&text))
        });
        // A server may close a slow consumer, and an opener whose connection was not scheduled for a moment looks like one. So the opener
        // reads from the start, and all messages together are half of the default backlog (PROTOCOL.md, "Limits").
        let reader = scope.spawn(move || {
            (0..MESSAGES).try_for_each(|number| pair::sees(opener, dialect, &dialect.opener_hears(0, &data(number))))
        });
        scene.bystanders_talk()?;
        let panicked = |_| io::Error::other("the flood has panicked");
        sender.join().map_err(panicked)??;
        reader.join().map_err(panicked)?
    })?;
    pair.talk()
}

fn never_reads(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let mut pair = scene.pair()?;
    let data = format!(r#"{{"filling":"{}"}}"#, "x".repeat(60_000));
    let bytes = frame(Opcode::Text, Piece::Last, scene.dialect.joiner_says(&data).as_bytes());
    // Until its sender hears that it has no opener any more, and at most more than any system buffers.
    for number in 0..1_000 {
        if pair.joiner.send_raw(&bytes).is_err() {
            break;
        }
        if number % 20 == 19 {
            scene.bystanders_talk()?;
            if pair.joiner.leftover() != Seen::Nothing {
                break;
            }
        }
    }
    scene.bystanders_talk()?;
    // At last it reads: whole messages, and then why it was closed.
    let whole = scene.dialect.opener_hears(0, &data);
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

fn come_and_go(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let key = scene.key();
    let mut opener = scene.opener(&key)?;
    let mut clients = Vec::new();
    for number in 0..200 {
        let mut client = scene.client()?;
        // Some with a role, some refused, some with nothing said.
        match number % 4 {
            0 => client.send_text(&open(&scene.key()))?,
            1 => client.send_text(&open(&key))?,
            2 => client.send_text(&join(&scene.key()))?,
            _ => {}
        }
        clients.push(client);
    }
    scene.bystanders_talk()?;
    for (number, mut client) in clients.into_iter().enumerate() {
        match number % 3 {
            0 => reset(client),
            1 => client.hang_up(),
            // It may be closed already.
            _ => drop(client.send_frame(Opcode::Close, Piece::Last, &1001_u16.to_be_bytes())),
        }
    }
    let _joiner = scene.joiner(&key, 0)?;
    scene.sees(&mut opener, &scene.dialect.came(0))
}

/// An opener, and a crowd of its joiners.
fn crowd(scene: &mut Scene<'_>, key: &str) -> Result<(Client, Vec<Client>), Mismatch> {
    let mut opener = scene.opener(key)?;
    let mut joiners = Vec::new();
    for index in 0..CROWD {
        joiners.push(scene.joiner(key, index)?);
        scene.sees(&mut opener, &scene.dialect.came(index))?;
    }
    Ok((opener, joiners))
}

fn joiners_vanish(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let key = scene.key();
    let (mut opener, joiners) = crowd(scene, &key)?;
    joiners.into_iter().for_each(reset);
    // In any order.
    let mut left: Vec<Seen> = (0..CROWD).filter_map(|index| scene.dialect.gone(index)).collect();
    while !left.is_empty() {
        let seen = opener.receive();
        let place = left.iter().position(|gone| is_same(scene.dialect, gone, &seen));
        let place = place.ok_or_else(|| Mismatch::new("that a joiner is gone", seen))?;
        left.swap_remove(place);
    }
    let mut joiner = scene.joiner(&key, CROWD)?;
    scene.sees(&mut opener, &scene.dialect.came(CROWD))?;
    joiner.send_text(&scene.dialect.joiner_says(r#"{"I":"am new"}"#))?;
    scene.sees(&mut opener, &scene.dialect.opener_hears(CROWD, r#"{"I":"am new"}"#))
}

fn opener_vanishes(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let key = scene.key();
    let (opener, mut joiners) = crowd(scene, &key)?;
    reset(opener);
    for joiner in &mut joiners {
        scene.sees(joiner, &scene.dialect.opener_left())?;
    }
    scene.opener(&key).map(drop)
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
    let taken = scene.dialect.taken(&key);
    let mut openers = Vec::new();
    for mut client in clients {
        // Whoever has it hears nothing in the plain dialect, and may have been closed by now where it has not.
        client.handled()?;
        let seen = match (scene.dialect.opened(&key), client.leftover()) {
            (None, Seen::Nothing) => None,
            (Some(opened), seen) if is_same(scene.dialect, &opened, &seen) => Some(client.receive()),
            (_, seen) if is_same(scene.dialect, &taken, &seen) => continue,
            (_, seen) => return Err(Mismatch::new(format_args!("that it has the key, or {taken}"), seen)),
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
    scene.sees(opener, &scene.dialect.came(0))
}

fn joiners_come_and_go(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let key = scene.key();
    let mut opener = scene.opener(&key)?;
    for index in 0..200 {
        let mut joiner = scene.joiner(&key, index)?;
        scene.sees(&mut opener, &scene.dialect.came(index))?;
        let data = r#"{"I":"am here"}"#;
        joiner.send_text(&scene.dialect.joiner_says(data))?;
        scene.sees(&mut opener, &scene.dialect.opener_hears(index, data))?;
        joiner.vanish()?;
        if let Some(gone) = scene.dialect.gone(index) {
            scene.sees(&mut opener, &gone)?;
        }
    }
    Ok(())
}

fn guesses(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let key = scene.key();
    let mut opener = scene.opener(&key)?;
    let shorter = &key[..key.len() - 1];
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
        match client.receive() {
            Seen::Close(Some(1008), _) => {}
            Seen::Text(text) if text.contains("unknown-key") => {}
            seen => return Err(Mismatch::new("that the key is unknown", seen)),
        }
    }
    pair::sees_nothing(&mut opener)
}
