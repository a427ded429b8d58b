//! Clients of `sigver.v1` that ping without end, or misuse `id`, `wait` and `meet`.

use std::{io::Write, time::Duration};

use serde_json::{Value, json};
use sigver_transcripts::{Seen, socket::Client};

use super::{ADDITION, Hostile, Scene, error, message, text_frame};
use crate::{
    dialect::{join, open},
    judge::Mismatch,
    pair,
};

const CLOSE_CODES: Hostile = Hostile {
    section: "Close codes",
    ..ADDITION
};

const GUARANTEES: Hostile = Hostile {
    section: "Guarantees",
    ..ADDITION
};

pub(super) const CASES: &[Hostile] = &[
    Hostile {
        name: "ping-messages-between-requests",
        expected: "each reply arrives in order",
        act: pings_between_requests,
        ..GUARANTEES
    },
    Hostile {
        name: "ping-messages-nobody-reads",
        expected: "other clients are not affected",
        act: unread_pongs,
        ..GUARANTEES
    },
    Hostile {
        name: "ids-of-every-kind",
        expected: "the peer receives the id unchanged, or close 1007",
        act: ids,
        ..CLOSE_CODES
    },
    Hostile {
        name: "waits-of-every-kind",
        expected: "the wait is cut to the limit, or close 1007",
        act: waits,
        ..CLOSE_CODES
    },
    Hostile {
        name: "waiters-that-vanish-or-leave",
        expected: "the others join in order of arrival",
        act: waiters_vanish,
        ..ADDITION
    },
    Hostile {
        name: "waits-that-are-left",
        expected: "they leave nothing behind",
        act: waits_are_left,
        ..ADDITION
    },
    Hostile {
        name: "race-of-meets",
        expected: "one client has the key, the others join it",
        act: meets,
        ..ADDITION
    },
];

fn pong() -> Seen {
    Seen::Text(r#"{"type":"pong"}"#.into())
}

fn waiting(key: &str, seconds: u32) -> Seen {
    Seen::Text(format!(r#"{{"type":"waiting","key":"{key}","wait":{seconds}}}"#))
}

fn pings_between_requests(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    const PINGS: usize = 300;

    let mut client = scene.client()?;
    let request = text_frame(r#"{"type":"send","data":1}"#);
    let ping = text_frame(r#"{"type":"ping","data":{"type":"pong"}}"#);
    client.send_raw(&[&request[..], &ping].concat().repeat(PINGS))?;
    for _ in 0..PINGS {
        scene.expect(&mut client, &error("no-role", None))?;
        scene.expect(&mut client, &pong())?;
    }
    Ok(())
}

fn unread_pongs(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let client = scene.client()?;
    let pings = text_frame(r#"{"type":"ping"}"#).repeat(100);
    // The server may close the connection or stop reading from it. The case does not wait for either.
    client.stream().set_write_timeout(Some(Duration::from_millis(200)))?;
    for _ in 0..2_000 {
        if client.stream().write_all(&pings).is_err() {
            break;
        }
    }
    let mut other = scene.client()?;
    other.send_text(r#"{"type":"ping"}"#)?;
    scene.expect(&mut other, &pong())?;
    scene.check_bystanders()
}

fn ids(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let key = scene.key();
    let mut opener = scene.opener(&key)?;
    let longest = "é".repeat(32);
    let valid = [
        "0",
        &longest,
        // Quoted again, these are one string.
        r#"","index":7,"x":""#,
        "\u{0}\n\u{1f}\u{7f}\\",
        "</script>🍵",
    ];
    for (index, id) in valid.iter().enumerate() {
        let mut joiner = scene.client()?;
        joiner.send_text(&json!({ "type": "join", "key": key, "id": id }).to_string())?;
        scene.expect(
            &mut joiner,
            &Seen::Text(format!(r#"{{"type":"joined","index":{index}}}"#)),
        )?;
        let notice = json!({ "type": "join", "index": index, "id": id });
        scene.expect(&mut opener, &Seen::Text(notice.to_string()))?;
        joiner.vanish()?;
        scene.expect_leave_notice(&mut opener, index)?;
    }
    let huge = format!(r#""{}""#, "i".repeat(60_000));
    let long = format!(r#""{longest}i""#);
    for id in [
        "7",
        "true",
        "null",
        "[]",
        r#"{"id":"i"}"#,
        r#""""#,
        r#""\ud800""#,
        &long,
        &huge,
    ] {
        for request in ["open", "join", "meet"] {
            let mut client = scene.client()?;
            client.send_text(&format!(r#"{{"type":"{request}","key":"{key}","id":{id}}}"#))?;
            scene.expect_close(&mut client, &[1007])?;
        }
    }
    pair::expect_nothing(&mut opener)
}

fn waits(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let key = scene.key();
    let request = |wait: &str| format!(r#"{{"type":"join","key":"{key}","wait":{wait}}}"#);
    let mut client = scene.client()?;
    for (wait, seconds) in [
        ("120", 120),
        ("18446744073709551616", 120),
        (&"9".repeat(60_000), 120),
        ("119", 119),
    ] {
        client.send_text(&request(wait))?;
        scene.expect(&mut client, &waiting(&key, seconds))?;
        client.send_text(r#"{"type":"leave"}"#)?;
    }
    client.send_text(&request("0"))?;
    scene.expect(&mut client, &error("unknown-key", Some(&key)))?;
    for wait in ["-1", "-0", "1.0", "1e2", "00", r#""60""#, "null", "true", "[60]", "{}"] {
        let mut client = scene.client()?;
        client.send_text(&request(wait))?;
        scene.expect_close(&mut client, &[1007])?;
    }
    Ok(())
}

fn wait_for(key: &str, id: usize) -> String {
    format!(r#"{{"type":"join","key":"{key}","wait":120,"id":"{id}"}}"#)
}

fn waiters_vanish(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    const WAITERS: usize = 150;

    let key = scene.key();
    let mut waiters = Vec::new();
    for number in 0..WAITERS {
        let mut client = scene.client()?;
        client.send_text(&wait_for(&key, number))?;
        scene.expect(&mut client, &waiting(&key, 120))?;
        waiters.push(client);
    }
    let mut left: Vec<(usize, Client)> = Vec::new();
    for (number, mut client) in waiters.into_iter().enumerate() {
        match number % 3 {
            0 => left.push((number, client)),
            1 => client.vanish()?,
            _ => {
                client.send_text(r#"{"type":"leave"}"#)?;
                client.send_text(r#"{"type":"ping"}"#)?;
                scene.expect(&mut client, &pong())?;
            }
        }
    }
    let mut opener = scene.opener(&key)?;
    for (index, (number, client)) in left.iter_mut().enumerate() {
        let joined = format!(r#"{{"type":"joined","index":{index}}}"#);
        scene.expect(client, &Seen::Text(joined))?;
        let notice = format!(r#"{{"type":"join","index":{index},"id":"{number}"}}"#);
        scene.expect(&mut opener, &Seen::Text(notice))?;
    }
    for (index, (_, client)) in left.iter_mut().enumerate() {
        client.send_text(&scene.dialect.joiner_sends("{}"))?;
        scene.expect(&mut opener, &scene.dialect.opener_receives(index, "{}"))?;
    }
    pair::expect_nothing(&mut opener)
}

fn waits_are_left(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    /// All of them together exceed the default limit of clients that wait for a key (PROTOCOL.md, "Limits"). Those of one client do not
    /// exceed its message rate.
    const CLIENTS: usize = 4;
    const WAITS: usize = 260;

    let key = scene.key();
    let (request, leave) = (text_frame(&wait_for(&key, 0)), text_frame(r#"{"type":"leave"}"#));
    let waits = [&request[..], &leave].concat().repeat(WAITS);
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = scene.client()?;
        client.send_raw(&waits)?;
        clients.push(client);
    }
    for client in &mut clients {
        for _ in 0..WAITS {
            scene.expect(client, &waiting(&key, 120))?;
        }
        client.send_text(r#"{"type":"leave"}"#)?;
        scene.expect(client, &error("no-role", None))?;
    }
    let last = clients.first_mut().ok_or_else(|| Mismatch::new("a client", "none"))?;
    last.send_text(&wait_for(&key, 1))?;
    scene.expect(last, &waiting(&key, 120))?;
    let mut opener = scene.opener(&key)?;
    scene.expect(&mut opener, &Seen::Text(r#"{"type":"join","index":0,"id":"1"}"#.into()))?;
    pair::expect_nothing(&mut opener)
}

fn meets(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let key = scene.key();
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(scene.client()?);
    }
    // The first opener is lost. A key that was opened by a meet is not reserved.
    let mut opener = meet_at_once(scene, &key, &mut clients)?;
    opener.vanish()?;
    for client in &mut clients {
        scene.expect(client, &scene.dialect.opener_left())?;
    }
    let mut opener = meet_at_once(scene, &key, &mut clients)?;
    let mut late = scene.client()?;
    late.send_text(&open(&key))?;
    scene.expect(&mut late, &scene.dialect.key_taken(&key))?;
    late.send_text(&join(&key))?;
    let index = clients.len();
    scene.expect(&mut opener, &scene.dialect.peer_joined(index))
}

/// Lets all clients meet at the same time. Removes and returns the one that becomes the opener.
fn meet_at_once(scene: &Scene<'_>, key: &str, clients: &mut Vec<Client>) -> Result<Client, Mismatch> {
    let meet = json!({ "type": "meet", "key": key }).to_string();
    for client in clients.iter_mut() {
        client.send_text(&meet)?;
    }
    let (mut openers, mut indexes) = (Vec::new(), Vec::new());
    for (number, client) in clients.iter_mut().enumerate() {
        let reply = message(client)?;
        match (reply["type"].as_str(), reply["index"].as_u64()) {
            (Some("opened"), None) => openers.push(number),
            (Some("joined"), Some(index)) => indexes.push(index),
            _ => return Err(Mismatch::new("opened or joined", reply)),
        }
    }
    let &[opener] = &openers[..] else {
        return Err(Mismatch::new("1 opener", format_args!("{} openers", openers.len())));
    };
    indexes.sort_unstable();
    if !indexes.iter().copied().eq(0..clients.len() as u64 - 1) {
        return Err(Mismatch::new("each index once", Value::from(indexes)));
    }
    let mut opener = clients.remove(opener);
    for index in 0..clients.len() {
        scene.expect(&mut opener, &scene.dialect.peer_joined(index))?;
    }
    Ok(opener)
}
