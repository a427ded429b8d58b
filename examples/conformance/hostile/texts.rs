//! Texts: deep, long, or of nothing but white space.

use sigver_transcripts::{
    Seen,
    socket::{Opcode, Piece, frame},
};

use super::{Hostile, Scene};
use crate::{
    dialect::{Dialect, join, open},
    judge::Mismatch,
};

const CLOSE_CODES: Hostile = Hostile {
    name: "",
    section: "Close codes",
    expected: "",
    in_dialects: true,
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
        expected: "it arrives, or is nothing",
        act: white_space_within,
        ..GUARANTEES
    },
    Hostile {
        name: "members-by-the-thousand",
        expected: "they arrive",
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

/// Checks that a client without a role, and a joiner, are closed for this text with this code.
fn closes(scene: &mut Scene<'_>, text: &str, code: u16) -> Result<(), Mismatch> {
    let mut client = scene.client()?;
    client.send_text(text)?;
    scene.is_closed(&mut client, &[code])?;
    let mut pair = scene.pair()?;
    pair.joiner.send_text(text)?;
    scene.is_closed(&mut pair.joiner, &[code])?;
    scene.hears_of_leaving(&mut pair.opener, 0)
}

fn deep(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let arrays = format!("{}{}", "[".repeat(29_000), "]".repeat(29_000));
    for text in [
        "[".repeat(60_000),
        r#"{"":"#.repeat(15_000),
        scene.dialect.joiner_says(&format!(r#"{{"a":{arrays}}}"#)),
    ] {
        closes(scene, &text, 1007)?;
    }
    Ok(())
}

fn white_space(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    closes(scene, &" ".repeat(1024 * 1024), 1009)
}

fn white_space_within(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let mut pair = scene.pair()?;
    let space = " \t\r\n".repeat(15_000);
    let data = format!(r#"{{"a":[{space}]}}"#);
    pair.joiner.send_text(&scene.dialect.joiner_says(&data))?;
    scene.sees(&mut pair.opener, &scene.dialect.opener_hears(0, &data))?;
    // Around a message it is the sender's own as well, in the plain dialect, and around the envelope in the other.
    let text = format!("{space}{}", scene.dialect.joiner_says(r#"{"a":1}"#));
    pair.joiner.send_text(&text)?;
    let data = match scene.dialect {
        Dialect::Plain => text,
        Dialect::V1 => r#"{"a":1}"#.into(),
    };
    scene.sees(&mut pair.opener, &scene.dialect.opener_hears(0, &data))?;
    pair.talk()
}

fn members(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let mut pair = scene.pair()?;
    let inner: Vec<String> = (0..4_000).map(|number| format!(r#""{}":1"#, number % 100)).collect();
    let data = format!("{{{}}}", inner.join(","));
    pair.joiner.send_text(&scene.dialect.joiner_says(&data))?;
    scene.sees(&mut pair.opener, &scene.dialect.opener_hears(0, &data))?;
    pair.talk()
}

fn long_key(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let key = "k".repeat(60_000);
    for text in [open(&key), join(&key)] {
        let mut client = scene.client()?;
        client.send_text(&text)?;
        scene.is_closed(&mut client, &[1007])?;
    }
    Ok(())
}

fn endless(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let mut client = scene.client()?;
    client.send_frame(Opcode::Text, Piece::More, br#"{"a":""#)?;
    let piece = frame(Opcode::Continuation, Piece::More, &[b'a'; 60_000]);
    for _ in 0..28 {
        // A ping may stand between the pieces.
        if client.send_raw(&piece.repeat(10)).is_err() || client.leftover() != Seen::Nothing {
            break;
        }
    }
    scene.is_closed(&mut client, &[1009])
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
        closes(scene, text, 1007)?;
    }
    Ok(())
}
