//! Frames that are incomplete, endless, oversize or invalid.

use std::{io::Write, time::Duration};

use sigver_transcripts::{
    Seen,
    socket::{Opcode, Piece, frame},
};

use super::{Hostile, Runs, Scene, pause, reset};
use crate::{
    judge::Mismatch,
    pair::{expect, expect_nothing},
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
        name: "frame-byte-by-byte",
        expected: "the message arrives",
        act: byte_by_byte,
        ..GUARANTEES
    },
    Hostile {
        name: "frames-in-one-write",
        expected: "all arrive, in order",
        act: in_one_write,
        ..GUARANTEES
    },
    Hostile {
        name: "reset-in-mid-frame",
        expected: "no part of the message arrives; peers are notified",
        act: reset_in_mid_frame,
        ..GUARANTEES
    },
    Hostile {
        name: "close-in-mid-message",
        expected: "no part of the message arrives; the close code is echoed",
        act: close_in_mid_message,
        ..CLOSE_CODES
    },
    Hostile {
        name: "frames-behind-a-close",
        expected: "these frames are ignored",
        act: after_close,
        ..CLOSE_CODES
    },
    Hostile {
        name: "frame-that-says-it-is-huge",
        expected: "close 1009, or 1002 for an invalid length",
        act: huge,
        ..LIMITS
    },
    Hostile {
        name: "empty-pieces-without-end",
        expected: "close 1009",
        act: empty_pieces,
        ..LIMITS
    },
    Hostile {
        name: "ping-of-16-KiB",
        expected: "close 1002",
        act: long_ping,
        ..CLOSE_CODES
    },
    Hostile {
        name: "ping-flood",
        expected: "every pong arrives, in order with the data",
        act: ping_flood,
        ..GUARANTEES
    },
    Hostile {
        name: "ping-flood-nobody-reads",
        expected: "other clients are not affected",
        act: unread_pongs,
        ..GUARANTEES
    },
    Hostile {
        name: "pongs-nobody-asked-for",
        expected: "ignored",
        act: pongs,
        ..GUARANTEES
    },
    Hostile {
        name: "mask-of-zeros",
        expected: "accepted; an unmasked frame is close 1002",
        act: masks,
        ..CLOSE_CODES
    },
    Hostile {
        name: "utf-8-broken-between-pieces",
        expected: "close 1007",
        act: broken_utf8,
        ..CLOSE_CODES
    },
    Hostile {
        name: "random-bytes",
        expected: "a valid close code, or the server waits for more",
        act: random_bytes,
        ..CLOSE_CODES
    },
];

fn byte_by_byte(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let mut pair = scene.pair()?;
    let data = r#"{"cut":"🍵"}"#;
    let text = scene.dialect.joiner_sends(data);
    for byte in frame(Opcode::Text, Piece::Last, text.as_bytes()) {
        pair.joiner.send_raw(&[byte])?;
        pause(2);
    }
    scene.expect(&mut pair.opener, &scene.dialect.opener_receives(0, data))?;
    pair.exchange()
}

fn in_one_write(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let mut pair = scene.pair()?;
    let data = |number: usize| format!(r#"{{"n":{number}}}"#);
    let frames: Vec<u8> = (0..500)
        .flat_map(|number| {
            frame(
                Opcode::Text,
                Piece::Last,
                scene.dialect.joiner_sends(&data(number)).as_bytes(),
            )
        })
        .collect();
    pair.joiner.send_raw(&frames)?;
    for number in 0..500 {
        scene.expect(&mut pair.opener, &scene.dialect.opener_receives(0, &data(number)))?;
    }
    pair.exchange()
}

/// Returns a text frame without its last bytes.
fn incomplete_frame(text: &str) -> Vec<u8> {
    let mut bytes = frame(Opcode::Text, Piece::Last, text.as_bytes());
    bytes.truncate(bytes.len() - 2);
    bytes
}

fn reset_in_mid_frame(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let key = scene.key();
    let mut opener = scene.opener(&key)?;
    for index in 0..8 {
        let mut joiner = scene.joiner(&key, index)?;
        scene.expect(&mut opener, &scene.dialect.peer_joined(index))?;
        joiner.send_raw(&incomplete_frame(&scene.dialect.joiner_sends(r#"{"cut":"off"}"#)))?;
        reset(joiner);
        if let Some(notice) = scene.dialect.peer_left(index) {
            scene.expect(&mut opener, &notice)?;
        }
    }
    let mut joiner = scene.joiner(&key, 8)?;
    scene.expect(&mut opener, &scene.dialect.peer_joined(8))?;
    opener.send_raw(&incomplete_frame(&scene.dialect.opener_sends(8, r#"{"cut":"off"}"#)))?;
    reset(opener);
    scene.expect(&mut joiner, &scene.dialect.opener_left())?;
    scene.expect_key_without_opener(&key)
}

fn close_in_mid_message(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let mut pair = scene.pair()?;
    let text = scene.dialect.joiner_sends(r#"{"not":"whole"}"#);
    pair.joiner.send_frame(Opcode::Text, Piece::More, text.as_bytes())?;
    pair.joiner
        .send_frame(Opcode::Close, Piece::Last, &1000_u16.to_be_bytes())?;
    scene.expect_close(&mut pair.joiner, &[1000])?;
    scene.expect_leave_notice(&mut pair.opener, 0)
}

fn after_close(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let mut pair = scene.pair()?;
    let late = frame(
        Opcode::Text,
        Piece::Last,
        scene.dialect.joiner_sends(r#"{"too":"late"}"#).as_bytes(),
    );
    let close = frame(Opcode::Close, Piece::Last, &1001_u16.to_be_bytes());
    pair.joiner.send_raw(&[&close[..], &late, &late, &close].concat())?;
    scene.expect_close(&mut pair.joiner, &[1001])?;
    scene.expect_leave_notice(&mut pair.opener, 0)
}

fn huge(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    for (length, codes) in [
        (1_u64 << 32, &[1009][..]),
        (1 << 40, &[1009]),
        ((1 << 63) - 1, &[1009]),
        // RFC 6455 section 5.2: the most significant bit must be 0.
        (u64::MAX, &[1009, 1002]),
    ] {
        let mut client = scene.client()?;
        let header = [&[0x81, 0xff][..], &length.to_be_bytes(), &[0; 4], b"{"].concat();
        client.send_raw(&header)?;
        scene.expect_close(&mut client, codes)?;
    }
    Ok(())
}

fn empty_pieces(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let mut client = scene.client()?;
    client.send_frame(Opcode::Text, Piece::More, b"{")?;
    let pieces = frame(Opcode::Continuation, Piece::More, b"").repeat(10_000);
    // The limit of 8 times the message size is reached after 87,000 fragments.
    for _ in 0..20 {
        if client.send_raw(&pieces).is_err() || client.leftover() != Seen::Nothing {
            break;
        }
    }
    scene.expect_close(&mut client, &[1009])
}

fn long_ping(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    for length in [126, 16 * 1024] {
        let mut client = scene.client()?;
        client.send_frame(Opcode::Ping, Piece::Last, &vec![b'p'; length])?;
        scene.expect_close(&mut client, &[1002])?;
    }
    Ok(())
}

fn ping_flood(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let mut pair = scene.pair()?;
    let pings = frame(Opcode::Ping, Piece::Last, &[b'p'; 125]).repeat(100);
    // Slightly more than the burst of the default rate limit (PROTOCOL.md, "Limits"), because the rest is delayed.
    for _ in 0..12 {
        pair.joiner.send_raw(&pings)?;
        pair.joiner.handled()?;
    }
    pair.exchange()
}

fn unread_pongs(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let client = scene.client()?;
    let pings = frame(Opcode::Ping, Piece::Last, &[b'p'; 125]).repeat(100);
    // The server may close the connection or stop reading from it. The case does not wait for either.
    client.stream().set_write_timeout(Some(Duration::from_millis(200)))?;
    for _ in 0..2_000 {
        if client.stream().write_all(&pings).is_err() {
            break;
        }
    }
    scene.check_bystanders()
}

fn pongs(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let mut pair = scene.pair()?;
    // Without a payload, and with a payload of no ping.
    let mut pongs = [0x8a, 0x80, 0, 0, 0, 0].repeat(100);
    pongs.extend([0x8a, 0x82, 0, 0, 0, 0, b'h', b'm'].repeat(100));
    pair.opener.send_raw(&pongs)?;
    pair.joiner.send_raw(&pongs)?;
    pair.exchange()
}

fn masks(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let mut pair = scene.pair()?;
    let data = r#"{"a":1}"#;
    let text = scene.dialect.joiner_sends(data);
    let short = u8::try_from(text.len()).map_err(|_| Mismatch::new("a text shorter than 256 bytes", &text))?;
    let mask = |mask: u8| {
        let masked = text.bytes().map(|byte| byte ^ mask);
        [0x81, 0x80 | short]
            .into_iter()
            .chain([mask; 4])
            .chain(masked)
            .collect::<Vec<_>>()
    };
    for mask in [mask(0), mask(0xff)] {
        pair.joiner.send_raw(&mask)?;
        expect(&mut pair.opener, scene.dialect, &scene.dialect.opener_receives(0, data))?;
    }
    pair.joiner.send_raw(&[&[0x81, short], text.as_bytes()].concat())?;
    scene.expect_close(&mut pair.joiner, &[1002])?;
    scene.expect_leave_notice(&mut pair.opener, 0)
}

fn broken_utf8(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    for (first, second) in [
        // A character with an invalid second half, an incomplete one, and one that starts within another.
        (&b"{\"a\":\"\xf0\x9f"[..], &b"\xff\x8d\"}"[..]),
        (b"{\"a\":\"\xf0\x9f", b""),
        (b"{\"a\":\"\xf0\x9f", b"\xf0\x9f\"}"),
    ] {
        let mut client = scene.client()?;
        client.send_frame(Opcode::Text, Piece::More, first)?;
        client.send_frame(Opcode::Ping, Piece::Last, b"between")?;
        client.send_frame(Opcode::Continuation, Piece::Last, second)?;
        scene.expect_close(&mut client, &[1007])?;
    }
    Ok(())
}

/// Marsaglia's xorshift generator. Every run uses the same bytes.
struct Xorshift(u64);

impl Xorshift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn random_bytes(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let mut random = Xorshift(0x5167_7665_7221);
    let mut clients = Vec::new();
    for _ in 0..64 {
        let length = random.next() as usize % 300;
        let bytes: Vec<u8> = (0..length).map(|_| (random.next() >> 32) as u8).collect();
        let mut client = scene.client()?;
        client.send_raw(&bytes)?;
        clients.push(client);
    }
    for (number, mut client) in clients.into_iter().enumerate() {
        if number % 2 == 0 {
            reset(client);
            continue;
        }
        // The server may wait for the rest of a frame. After the end of the stream, it must close the connection.
        client.stream().shutdown(std::net::Shutdown::Write)?;
        match client.receive() {
            Seen::Close(None | Some(1000..=1011 | 1013 | 3000..=4999), _) | Seen::Lost => {}
            seen => return Err(Mismatch::new("a close frame, or the end of the connection", seen)),
        }
    }
    expect_nothing(&mut scene.client()?)
}
