//! Clients that try to get the role of another opener of `sigver.v1`, and openers that take their role back with their token.

use serde_json::json;
use sigver_transcripts::{Seen, socket::Client};

use super::{ADDITION, Hostile, Scene, error, message, reset};
use crate::{
    dialect::{join, open},
    judge::{Mismatch, is_same},
    pair,
};

pub(super) const CASES: &[Hostile] = &[
    Hostile {
        name: "guessed-tokens",
        expected: "key-taken; the opener keeps its role",
        act: guessed_tokens,
        ..ADDITION
    },
    Hostile {
        name: "tokens-of-every-kind",
        expected: "close 1007",
        act: tokens,
        section: "Close codes",
        ..ADDITION
    },
    Hostile {
        name: "race-of-takeovers",
        expected: "one client takes the role over, the others are refused",
        act: race,
        ..ADDITION
    },
    Hostile {
        name: "role-that-moves-on-and-on",
        expected: "joiners keep their indexes and are notified each time",
        act: moves,
        ..ADDITION
    },
    Hostile {
        name: "hijack-of-a-lost-key",
        expected: "only the opener's token opens the key",
        act: hijack,
        ..ADDITION
    },
];

fn with_token(request: &str, key: &str, token: &str) -> String {
    json!({ "type": request, "key": key, "token": token }).to_string()
}

/// Receives `opened` and returns its token.
fn receive_token(client: &mut Client) -> Result<String, Mismatch> {
    let opened = message(client)?;
    match (opened["type"].as_str(), opened["token"].as_str()) {
        (Some("opened"), Some(token))
            if token.len() == 32 && token.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) =>
        {
            Ok(token.to_owned())
        }
        _ => Err(Mismatch::new("opened with a token of 32 hexadecimal digits", opened)),
    }
}

/// Connects a client that opens a key, and returns it with its token.
fn opener(scene: &Scene<'_>, key: &str) -> Result<(Client, String), Mismatch> {
    let mut opener = scene.client()?;
    opener.send_text(&open(key))?;
    let token = receive_token(&mut opener)?;
    Ok((opener, token))
}

/// Returns tokens that resemble this one.
fn guesses(token: &str) -> Vec<String> {
    let mut guesses: Vec<String> = vec![
        String::new(),
        "0".repeat(32),
        "0".repeat(64),
        token[1..].to_owned(),
        token[..31].to_owned(),
        format!("{token}0"),
        format!(" {token}"),
        format!("{token}\0"),
        format!("{token}{token}"),
        "__proto__".into(),
    ];
    // One digit is different.
    for place in [0, 15, 31] {
        let digit = if token[place..].starts_with('0') { "1" } else { "0" };
        let mut guess = token.to_owned();
        guess.replace_range(place..=place, digit);
        guesses.push(guess);
    }
    guesses
}

/// Checks that no guess of the token opens the key.
fn expect_no_guess_opens(scene: &Scene<'_>, key: &str, token: &str, client: &mut Client) -> Result<(), Mismatch> {
    for guess in guesses(token) {
        for request in ["open", "meet"] {
            client.send_text(&with_token(request, key, &guess))?;
            scene.expect(client, &error("key-taken", Some(key)))?;
        }
    }
    Ok(())
}

fn guessed_tokens(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let key = scene.key();
    let (mut first, token) = opener(scene, &key)?;
    let mut joiner = scene.joiner(&key, 0)?;
    scene.expect(&mut first, &scene.dialect.peer_joined(0))?;
    let mut thief = scene.client()?;
    expect_no_guess_opens(scene, &key, &token, &mut thief)?;
    // The token of another key.
    let other = scene.key();
    thief.send_text(&open(&other))?;
    let own = receive_token(&mut thief)?;
    thief.send_text(r#"{"type":"close"}"#)?;
    thief.send_text(&with_token("open", &key, &own))?;
    scene.expect(&mut thief, &error("key-taken", Some(&key)))?;
    pair::expect_nothing(&mut first)?;
    pair::expect_nothing(&mut joiner)?;
    // The token that was replaced by a takeover.
    let mut second = scene.client()?;
    second.send_text(&with_token("open", &key, &token))?;
    receive_token(&mut second)?;
    thief.send_text(&with_token("open", &key, &token))?;
    scene.expect(&mut thief, &error("key-taken", Some(&key)))?;
    joiner.send_text(&scene.dialect.joiner_sends(r#"{"n":1}"#))?;
    scene.expect(&mut second, &scene.dialect.opener_receives(0, r#"{"n":1}"#))
}

fn tokens(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let key = scene.key();
    let mut opener = scene.opener(&key)?;
    let (long, huge) = (
        format!(r#""{}""#, "t".repeat(65)),
        format!(r#""{}""#, "t".repeat(60_000)),
    );
    for token in ["7", "true", "null", "[]", "{}", r#""\udfff""#, &long, &huge] {
        for request in ["open", "meet"] {
            let mut client = scene.client()?;
            client.send_text(&format!(r#"{{"type":"{request}","key":"{key}","token":{token}}}"#))?;
            scene.expect_close(&mut client, &[1007])?;
        }
    }
    pair::expect_nothing(&mut opener)
}

fn reopened() -> Seen {
    Seen::Text(r#"{"type":"reopened"}"#.into())
}

fn taken_over() -> Seen {
    Seen::Text(r#"{"type":"closed","code":"taken-over"}"#.into())
}

fn race(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let key = scene.key();
    let (mut previous, token) = opener(scene, &key)?;
    let mut joiner = scene.joiner(&key, 0)?;
    scene.expect(&mut previous, &scene.dialect.peer_joined(0))?;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(scene.client()?);
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let request = if number % 2 == 0 { "open" } else { "meet" };
        client.send_text(&with_token(request, &key, &token))?;
    }
    let (opened, refused) = (opened_with_joiner(&key), error("key-taken", Some(&key)));
    let mut openers = Vec::new();
    for mut client in clients {
        match client.receive() {
            seen if is_same(scene.dialect, &opened, &seen) => openers.push(client),
            seen if is_same(scene.dialect, &refused, &seen) => {}
            seen => return Err(Mismatch::new(format_args!("{opened}, or {refused}"), seen)),
        }
    }
    let found = openers.len();
    let Some(opener) = openers.first_mut().filter(|_| found == 1) else {
        return Err(Mismatch::new("1 opener", format_args!("{found} openers")));
    };
    scene.expect(&mut previous, &taken_over())?;
    scene.expect(&mut joiner, &reopened())?;
    opener.send_text(&scene.dialect.opener_sends(0, r#"{"n":1}"#))?;
    scene.expect(&mut joiner, &scene.dialect.joiner_receives(0, r#"{"n":1}"#))
}

fn opened_with_joiner(key: &str) -> Seen {
    Seen::Text(format!(
        r#"{{"type":"opened","key":"{key}","joiners":[{{"index":0}}]}}"#
    ))
}

fn moves(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    // A key may be taken over 30 times at once (PROTOCOL.md, "Takeover").
    const MOVES: usize = 25;

    let key = scene.key();
    let (mut opener, mut token) = opener(scene, &key)?;
    let mut joiner = scene.joiner(&key, 0)?;
    scene.expect(&mut opener, &scene.dialect.peer_joined(0))?;
    let mut next = scene.client()?;
    let mut tokens = vec![token.clone()];
    for number in 0..MOVES {
        // The joiner receives `reopened` before what the next opener sends in the same write.
        let data = format!(r#"{{"n":{number}}}"#);
        next.send_text(&with_token("open", &key, &token))?;
        next.send_text(&scene.dialect.opener_sends(0, &data))?;
        token = receive_token(&mut next)?;
        if tokens.contains(&token) {
            return Err(Mismatch::new("a new token", "a token that was used before"));
        }
        tokens.push(token.clone());
        scene.expect(&mut opener, &taken_over())?;
        scene.expect(&mut joiner, &reopened())?;
        scene.expect(&mut joiner, &scene.dialect.joiner_receives(0, &data))?;
        joiner.send_text(&scene.dialect.joiner_sends(&data))?;
        scene.expect(&mut next, &scene.dialect.opener_receives(0, &data))?;
        // The previous connection stays open, and is the one after the next.
        std::mem::swap(&mut opener, &mut next);
    }
    pair::expect_nothing(&mut next)
}

fn hijack(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let key = scene.key();
    let (mut opener, mut token) = opener(scene, &key)?;
    let mut waiter = scene.client()?;
    for is_reset in [true, false] {
        // The hijacker is a joiner, so it learns at once that the opener is lost.
        let mut hijacker = scene.joiner(&key, 0)?;
        scene.expect(&mut opener, &scene.dialect.peer_joined(0))?;
        if is_reset {
            reset(opener);
        } else {
            opener.vanish()?;
        }
        scene.expect(&mut hijacker, &scene.dialect.opener_left())?;
        hijacker.send_text(&open(&key))?;
        scene.expect(&mut hijacker, &scene.dialect.key_taken(&key))?;
        hijacker.send_text(&json!({ "type": "meet", "key": key }).to_string())?;
        scene.expect(&mut hijacker, &error("unknown-key", Some(&key)))?;
        expect_no_guess_opens(scene, &key, &token, &mut hijacker)?;
        hijacker.send_text(&join(&key))?;
        scene.expect(&mut hijacker, &error("unknown-key", Some(&key)))?;
        waiter.send_text(&json!({ "type": "join", "key": key, "wait": 60 }).to_string())?;
        let waiting = format!(r#"{{"type":"waiting","key":"{key}","wait":60}}"#);
        scene.expect(&mut waiter, &Seen::Text(waiting))?;
        opener = scene.client()?;
        opener.send_text(&with_token("open", &key, &token))?;
        token = receive_token(&mut opener)?;
        scene.expect(&mut opener, &scene.dialect.peer_joined(0))?;
        scene.expect(&mut waiter, &Seen::Text(r#"{"type":"joined","index":0}"#.into()))?;
        waiter.send_text(r#"{"type":"leave"}"#)?;
        scene.expect_leave_notice(&mut opener, 0)?;
        // After `close`, the key is free at once, and the next round starts with a key that anybody may open.
        opener.send_text(r#"{"type":"close"}"#)?;
        opener.send_text(&open(&key))?;
        token = match receive_token(&mut opener)? {
            same if same == token => return Err(Mismatch::new("a new token", "the same token")),
            other => other,
        };
    }
    Ok(())
}
