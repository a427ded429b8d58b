//! Messages that are deeply nested, oversize, blank or invalid.

use sigver_transcripts::{
    Seen,
    socket::{Opcode, Piece, frame},
};

use super::{Hostile, Runs, Scene};
use crate::{
    dialect::{Dialect, join, open},
    judge::Mismatch,
};

const CLOSE_CODES: Hostile = Hostile {
    name: "",
    section: "Close codes",
    expected: "",
    runs: Runs::InEachDialect,
    is_addition: false,
    waits: false,
    act: |_| Ok(()),
};

const LIMITS: Hostile = Hostile {
    section: "Limits",
    ..CLOSE_CODES
};

const GUARANTEES: Hostile = Hostile {
    section: "Guarantees",
    ..CLOSE_CODES
};

pub(super) const CASES: &[Hostile] = &[
    Hostile {
        name: "nested-60000-deep",
        expected: "close 1007",
        act: deep,
        ..LIMITS
    },
    Hostile {
        name: "white-space-of-1-MiB",
        expected: "close 1009",
        act: white_space,
        ..LIMITS
    },
    Hostile {
        name: "white-space-of-60000-bytes",
        expected: "data arrives with its white space",
        act: white_space_within,
        ..GUARANTEES
    },
    Hostile {
        name: "members-by-the-thousand",
        expected: "the message arrives",
        act: members,
        ..GUARANTEES
    },
    Hostile {
        name: "key-of-60000-bytes",
        expected: "close 1007",
        act: long_key,
        ..LIMITS
    },
    Hostile {
        name: "message-of-16-MiB",
        expected: "close 1009",
        act: endless,
        ..LIMITS
    },
    Hostile {
        name: "texts-that-are-no-json",
        expected: "close 1007",
        act: no_json,
        ..CLOSE_CODES
    },
];

/// Checks that this text closes a client without a role, and a joiner, with this code.
fn expect_close_after(scene: &mut Scene<'_>, text: &str, code: u16) -> Result<(), Mismatch> {
    let mut client = scene.client()?;
    client.send_text(text)?;
    scene.expect_close(&mut client, &[code])?;
    let mut pair = scene.pair()?;
    pair.joiner.send_text(text)?;
    scene.expect_close(&mut pair.joiner, &[code])?;
    scene.expect_leave_notice(&mut pair.opener, 0)
}

fn deep(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let arrays = format!("{}{}", "[".repeat(29_000), "]".repeat(29_000));
    for text in [
        "[".repeat(60_000),
        r#"{"":"#.repeat(15_000),
        scene.dialect.joiner_sends(&format!(r#"{{"a":{arrays}}}"#)),
    ] {
        expect_close_after(scene, &text, 1007)?;
    }
    Ok(())
}

fn white_space(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    expect_close_after(scene, &" ".repeat(1024 * 1024), 1009)
}

fn white_space_within(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let mut pair = scene.pair()?;
    let space = " \t\r\n".repeat(15_000);
    let data = format!(r#"{{"a":[{space}]}}"#);
    pair.joiner.send_text(&scene.dialect.joiner_sends(&data))?;
    scene.expect(&mut pair.opener, &scene.dialect.opener_receives(0, &data))?;
    // In the plain dialect, white space around the message is part of the data. In v1, it surrounds the envelope and is not relayed.
    let text = format!("{space}{}", scene.dialect.joiner_sends(r#"{"a":1}"#));
    pair.joiner.send_text(&text)?;
    let data = match scene.dialect {
        Dialect::Plain => text,
        Dialect::V1 => r#"{"a":1}"#.into(),
    };
    scene.expect(&mut pair.opener, &scene.dialect.opener_receives(0, &data))?;
    pair.exchange()
}

fn members(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let mut pair = scene.pair()?;
    let inner: Vec<String> = (0..4_000).map(|number| format!(r#""{}":1"#, number % 100)).collect();
    let data = format!("{{{}}}", inner.join(","));
    pair.joiner.send_text(&scene.dialect.joiner_sends(&data))?;
    scene.expect(&mut pair.opener, &scene.dialect.opener_receives(0, &data))?;
    pair.exchange()
}

fn long_key(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let key = "k".repeat(60_000);
    for text in [open(&key), join(&key)] {
        let mut client = scene.client()?;
        client.send_text(&text)?;
        scene.expect_close(&mut client, &[1007])?;
    }
    Ok(())
}

fn endless(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let mut client = scene.client()?;
    client.send_frame(Opcode::Text, Piece::More, br#"{"a":""#)?;
    let piece = frame(Opcode::Continuation, Piece::More, &[b'a'; 60_000]);
    for _ in 0..28 {
        // `leftover` sends a ping between the fragments.
        if client.send_raw(&piece.repeat(10)).is_err() || client.leftover() != Seen::Nothing {
            break;
        }
    }
    scene.expect_close(&mut client, &[1009])
}

fn no_json(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    for text in [
        "",
        " ",
        "\0",
        "{\"type\":",
        "\"open\"",
        "[]",
        "null",
        "nul",
        "1e",
        "{}{}",
    ] {
        expect_close_after(scene, text, 1007)?;
    }
    Ok(())
}
