//! Request heads that are slow, oversize or invalid, and the results of the handshake.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use sigver_transcripts::{
    kit::retry,
    socket::{Client, Opcode, Piece, Target, frame},
};
use socket2::SockRef;

use super::{Hostile, Runs, Scene, pause};
use crate::{
    dialect::{Dialect, open},
    judge::Mismatch,
};

const CONNECTING: Hostile = Hostile {
    name: "",
    section: "Connecting",
    expected: "",
    runs: Runs::Once,
    is_addition: false,
    waits: false,
    act: |_| Ok(()),
};

const LIMITS: Hostile = Hostile {
    section: "Limits",
    ..CONNECTING
};

pub(super) const CASES: &[Hostile] = &[
    Hostile {
        name: "head-byte-by-byte",
        expected: "accepted",
        act: byte_by_byte,
        ..CONNECTING
    },
    Hostile {
        name: "head-with-the-first-messages",
        expected: "accepted, and the messages are handled",
        act: with_messages,
        ..CONNECTING
    },
    Hostile {
        name: "head-of-any-path",
        expected: "accepted",
        act: any_path,
        ..CONNECTING
    },
    Hostile {
        name: "head-that-offers-compression",
        expected: "accepted without an extension",
        act: compression,
        ..CONNECTING
    },
    Hostile {
        name: "head-that-offers-subprotocols",
        expected: "the selected subprotocol is echoed",
        act: subprotocols,
        ..CONNECTING
    },
    Hostile {
        name: "head-without-one-host",
        expected: "HTTP 400",
        act: hosts,
        ..CONNECTING
    },
    Hostile {
        name: "head-without-upgrade",
        expected: "an HTTP response other than 101",
        act: no_upgrade,
        ..CONNECTING
    },
    Hostile {
        name: "no-head-at-all",
        expected: "an HTTP error, or the connection is closed",
        act: garbage,
        ..CONNECTING
    },
    Hostile {
        name: "head-over-every-limit",
        expected: "HTTP 431, or the connection is closed",
        act: oversize,
        ..LIMITS
    },
    Hostile {
        name: "half-a-head-and-silence",
        expected: "HTTP 408, or the connection is closed, within the head deadline",
        waits: true,
        act: half_head,
        ..LIMITS
    },
    Hostile {
        name: "half-heads-by-the-hundred",
        expected: "other clients are not affected",
        act: many_half_heads,
        ..LIMITS
    },
];

impl Scene<'_> {
    fn dial(&self) -> io::Result<TcpStream> {
        let stream = self.target.dial(self.until)?;
        stream.set_write_timeout(Some(left(self.until)))?;
        Ok(stream)
    }

    /// Sends a handshake request with additional headers. Returns the client and the response head.
    fn upgrade(&self, headers: &str) -> io::Result<(Client, String)> {
        let mut stream = self.dial()?;
        stream.write_all(self.target.request(headers).as_bytes())?;
        Client::after_request_until(stream, self.until)
    }

    /// Sends these bytes. Returns the status of the response; `None` if the connection is closed without one.
    fn status(&self, request: &[u8]) -> Result<Option<u16>, Mismatch> {
        let mut stream = self.dial()?;
        // Fails if the server rejects the request before it has read everything.
        let _ = stream.write_all(request);
        status(&mut stream, self.until)
    }
}

fn left(until: Instant) -> Duration {
    until
        .saturating_duration_since(Instant::now())
        .max(Duration::from_millis(1))
}

/// Reads the status of a response; `None` if the connection is closed without one.
fn status(stream: &mut TcpStream, until: Instant) -> Result<Option<u16>, Mismatch> {
    let mut line = Vec::new();
    let mut bytes = [0; 64];
    while !line.contains(&b'\n') && line.len() < 1_024 {
        stream.set_read_timeout(Some(left(until)))?;
        match retry(|| stream.read(&mut bytes)) {
            Ok(0) => break,
            Ok(read) => line.extend(&bytes[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(Mismatch::new("a response, or the connection is closed", "nothing"));
            }
            // A reset also ends the connection.
            Err(_) => break,
        }
    }
    let line = String::from_utf8_lossy(&line);
    let mut words = line.split_whitespace();
    match (words.next(), words.next().and_then(|code| code.parse().ok())) {
        (None, _) => Ok(None),
        (Some(version), Some(code)) if version.starts_with("HTTP/1.") => Ok(Some(code)),
        _ => Err(Mismatch::new("an HTTP response", &line)),
    }
}

fn expect_status(seen: Option<u16>, expected: &str, is_valid: impl Fn(Option<u16>) -> bool) -> Result<(), Mismatch> {
    if is_valid(seen) {
        return Ok(());
    }
    Err(match seen {
        Some(code) => Mismatch::new(expected, format_args!("HTTP {code}")),
        None => Mismatch::new(expected, "the connection is closed"),
    })
}

fn byte_by_byte(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let mut stream = scene.dial()?;
    for (number, byte) in scene.target.request("").bytes().enumerate() {
        stream.write_all(&[byte])?;
        if number % 8 == 0 {
            pause(1);
        }
    }
    let (mut client, _) = Client::after_request_until(stream, scene.until)?;
    Ok(client.handled()?)
}

fn with_messages(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let key = scene.key();
    let mut stream = scene.dial()?;
    let offer = scene.dialect.offer();
    let header = offer.map_or(String::new(), |offer| format!("Sec-WebSocket-Protocol: {offer}\r\n"));
    let first = frame(Opcode::Text, Piece::Last, open(&key).as_bytes());
    stream.write_all(&[scene.target.request(&header).as_bytes(), &first].concat())?;
    let (mut client, _) = Client::after_request_until(stream, scene.until)?;
    if let Some(opened) = scene.dialect.opened(&key) {
        scene.expect(&mut client, &opened)?;
    }
    client.handled()?;
    scene.joiner(&key, 0)?;
    scene.expect(&mut client, &scene.dialect.peer_joined(0))
}

fn any_path(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let path = scene.target.path.split('?').next().unwrap_or_default();
    for end in ["", "any/path", "%00%ff", "a?b=c", "?"] {
        let target = Target {
            path: format!("{}/{end}", path.trim_end_matches('/')),
            ..scene.target.clone()
        };
        let accepted = target.connect(None, scene.until);
        accepted.map_err(|error| Mismatch::new(format_args!("{} is accepted", target.path), error))?;
    }
    Ok(())
}

/// Returns the value of a header in a response.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    let found = headers.find(|(its_name, _)| its_name.trim().eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.trim())
}

fn compression(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    let (mut client, head) = scene.upgrade(offer)?;
    if let Some(extensions) = header(&head, "Sec-WebSocket-Extensions") {
        return Err(Mismatch::new("no extension", extensions));
    }
    Ok(client.handled()?)
}

fn subprotocols(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    // These also apply to a server that supports only the plain dialect.
    let mut offers = vec![
        ("", None),
        ("sigver.plain", Some("sigver.plain")),
        ("soap", Some("soap")),
        ("soap, mqtt", Some("soap")),
        ("soap, sigver.plain", Some("sigver.plain")),
    ];
    if scene.bystanders.iter().any(|pair| pair.dialect == Dialect::V1) {
        offers.extend([
            ("sigver.v1", Some("sigver.v1")),
            ("soap,sigver.v1", Some("sigver.v1")),
            ("sigver.v1, sigver.plain", Some("sigver.v1")),
            ("sigver.plain, sigver.v1", Some("sigver.plain")),
        ]);
    }
    for (offer, echo) in offers {
        let line = if offer.is_empty() {
            String::new()
        } else {
            format!("Sec-WebSocket-Protocol: {offer}\r\n")
        };
        let (_, head) = scene.upgrade(&line)?;
        let seen = header(&head, "Sec-WebSocket-Protocol");
        if seen != echo {
            let word = |echo: Option<&str>| echo.map_or("no echo".to_owned(), |echo| format!("{echo} echoed"));
            return Err(Mismatch::new(format_args!("{} for {offer:?}", word(echo)), word(seen)));
        }
    }
    Ok(())
}

fn hosts(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let request = scene.target.request("");
    let host = format!("Host: {}\r\n", scene.target.host);
    for request in [request.replace(&host, ""), request.replace(&host, &host.repeat(2))] {
        let seen = scene.status(request.as_bytes())?;
        expect_status(seen, "HTTP 400", |status| status == Some(400))?;
    }
    Ok(())
}

fn no_upgrade(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let Target { host, path, .. } = scene.target;
    for method in ["GET", "POST", "HEAD", "DELETE"] {
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let seen = scene.status(request.as_bytes())?;
        expect_status(seen, "an HTTP response other than 101", |status| {
            status.is_some_and(|status| status != 101)
        })?;
    }
    Ok(())
}

fn garbage(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let tls = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00\r\n\r\n";
    let http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for bytes in [
        &tls[..],
        http2,
        b"\r\n\r\n\r\nopen tea\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"{}\n\n",
    ] {
        let seen = scene.status(bytes)?;
        expect_status(seen, "an HTTP error, or the connection is closed", |status| {
            status.is_none_or(|status| status >= 400)
        })?;
    }
    Ok(())
}

fn oversize(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let padding = "x".repeat(256 * 1024);
    let one_line = scene.target.request(&format!("X: {padding}\r\n"));
    let many_lines = scene.target.request(&"X: y\r\n".repeat(40_000));
    for request in [one_line, many_lines] {
        let seen = scene.status(request.as_bytes())?;
        expect_status(seen, "HTTP 431, or the connection is closed", |status| {
            status.is_none_or(|status| status == 431)
        })?;
    }
    Ok(())
}

/// Returns the first half of a request.
fn half_a_head(scene: &Scene<'_>) -> Vec<u8> {
    let request = scene.target.request("");
    request.as_bytes()[..request.len() / 2].to_vec()
}

fn half_head(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let seen = scene.status(&half_a_head(scene))?;
    expect_status(seen, "HTTP 408, or the connection is closed", |status| {
        status.is_none_or(|status| status == 408)
    })
}

fn many_half_heads(scene: &mut Scene<'_>) -> Result<(), Mismatch> {
    let half = half_a_head(scene);
    let mut streams = Vec::new();
    for number in 0..100 {
        let mut stream = scene.dial()?;
        stream.write_all(&half[..half.len() * number / 100])?;
        streams.push(stream);
    }
    scene.check_bystanders()?;
    // Half of the connections are reset.
    for stream in streams.iter().step_by(2) {
        // Fails if the server has closed the connection, which is valid.
        let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
    }
    drop(streams);
    scene.check_bystanders()
}
