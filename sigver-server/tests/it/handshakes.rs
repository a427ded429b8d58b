//! RFC 6455 section 4.2 and RFC 9112: exact responses to unusual handshakes, however TCP splits them. No part of a request except a
//! subprotocol is echoed. `frames.rs` has the common cases.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use sigver_transcripts::socket::{Opcode, Piece, frame};

use crate::support::{Running, test_config};

const REQUEST_LINE: &str = "GET /chat HTTP/1.1";
const HOST: &str = "Host: server.example.com";
const UPGRADE: &str = "Upgrade: websocket";
const CONNECTION: &str = "Connection: Upgrade";
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
const VERSION: &str = "Sec-WebSocket-Version: 13";

/// Returns a handshake with one of its lines replaced.
fn with(line: &str, other: &str) -> String {
    let lines = [REQUEST_LINE, HOST, UPGRADE, CONNECTION, KEY, VERSION];
    assert!(lines.contains(&line), "{line:?} is a line of the handshake");
    let lines = lines.map(|one| if one == line { other } else { one });
    format!("{}\r\n\r\n", lines.join("\r\n"))
}

/// Returns a handshake with further lines.
fn and(lines: &str) -> String {
    with(HOST, &format!("{HOST}\r\n{lines}"))
}

/// Returns the response to an accepted handshake, with `lines` after the usual headers.
fn accepted(lines: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n{lines}\r\n"
    )
}

/// How a request is split into writes.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Whole,
    Bytes,
}

/// Sends these bytes. Returns what the server sends until it closes.
fn exchange(addr: SocketAddr, bytes: &[u8], cut: Cut) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let size = match cut {
        Cut::Whole => bytes.len(),
        Cut::Bytes => 1,
    };
    for piece in bytes.chunks(size) {
        stream.write_all(piece)?;
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// Frames in the same write as the handshake are handled.
#[test]
fn accepted_handshake_is_answered_byte_for_byte() -> io::Result<()> {
    let server = Running::start(test_config());
    let cases = [
        ("a common handshake", and("X: y"), ""),
        ("empty lines first", format!("\r\n\r\n{}", and("X: y")), ""),
        ("line feeds alone", and("X: y").replace("\r\n", "\n"), ""),
        ("a host with a port", with(HOST, "Host: [::1]:8000"), ""),
        ("an empty host", with(HOST, "Host:"), ""),
        ("a host in capitals", with(HOST, "HOST: SERVER.EXAMPLE.COM"), ""),
        ("capitals", with(UPGRADE, "UPGRADE: WEBSOCKET"), ""),
        (
            "one upgrade of several",
            with(UPGRADE, "Upgrade: h2c\r\nUpgrade: foo/2, websocket"),
            "",
        ),
        ("a header twice", and("Origin: http://a\r\nOrigin: http://b"), ""),
        ("bytes beyond ASCII", and("X: \u{1F375}"), ""),
        (
            "headers that the answer has",
            and("Sec-WebSocket-Accept: AAAA\r\nX-Injected: y"),
            "",
        ),
        (
            "a line break in the target, as a URL has it",
            with(REQUEST_LINE, "GET /%0d%0aX-Injected:%20y HTTP/1.1"),
            "",
        ),
        (
            "a line break in a subprotocol, as a URL has it",
            and("Sec-WebSocket-Protocol: a%0d%0aX-Injected"),
            "Sec-WebSocket-Protocol: a%0d%0aX-Injected\r\n",
        ),
    ];
    let frames = [
        frame(Opcode::Ping, Piece::Last, b"first"),
        frame(Opcode::Close, Piece::Last, &1000_u16.to_be_bytes()),
    ]
    .concat();
    for (what, request, lines) in cases {
        let expected = [accepted(lines).as_bytes(), b"\x8a\x05first", b"\x88\x02\x03\xe8"].concat();
        for cut in [Cut::Whole, Cut::Bytes] {
            let what = format!("{what}, {cut:?}");
            let answer = exchange(server.addr, &[request.as_bytes(), &frames].concat(), cut)
                .map_err(|error| io::Error::other(format!("{what}: {error}")))?;
            assert_eq!(
                String::from_utf8_lossy(&answer),
                String::from_utf8_lossy(&expected),
                "{what}"
            );
        }
    }
    Ok(())
}

/// Load balancers send probes in HTTP/1.0, which has no `Host`, and proxies send whole URLs (RFC 9112 section 3.2.2).
#[test]
fn request_of_http_1_0_or_with_a_url_is_answered() -> io::Result<()> {
    const BAD_REQUEST: &str = "400 Bad Request";
    const OK: &str = "200 OK";
    let server = Running::start(test_config());
    for (request, status) in [
        ("GET /health HTTP/1.0\r\n\r\n", OK),
        ("HEAD /ready HTTP/1.0\r\nHost: a\r\n\r\n", OK),
        ("OPTIONS / HTTP/1.0\r\n\r\n", OK),
        ("GET /health HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", BAD_REQUEST),
        ("GET / HTTP/1.0\r\n\r\n", "426 Upgrade Required"),
        ("GET http://a:8000/health HTTP/1.1\r\nHost: a\r\n\r\n", OK),
        ("GET HTTPS://a/ready?b=/c HTTP/1.1\r\nHost: a\r\n\r\n", OK),
        ("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", "426 Upgrade Required"),
        ("GET http://a/health HTTP/1.1\r\n\r\n", BAD_REQUEST),
        ("GET http://a/none HTTP/1.1\r\nHost: a\r\n\r\n", "404 Not Found"),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", OK),
    ] {
        for cut in [Cut::Whole, Cut::Bytes] {
            let answer = exchange(server.addr, request.as_bytes(), cut)?;
            let answer = String::from_utf8_lossy(&answer);
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
                "{request}: {answer}"
            );
        }
    }
    Ok(())
}

/// Bytes after a rejected request are not parsed as a second one, and no part of a request is in the response.
#[test]
fn rejected_request_is_answered_once_without_echo() -> io::Result<()> {
    const BAD_REQUEST: &str = "400 Bad Request";
    const METHOD: &str = "405 Method Not Allowed";
    const UPGRADE_REQUIRED: &str = "426 Upgrade Required";
    const TOO_LARGE: &str = "431 Request Header Fields Too Large";
    const HTTP_VERSION: &str = "505 HTTP Version Not Supported";
    let server = Running::start(test_config());
    let line = |other: &str| with(REQUEST_LINE, other);
    let cases = [
        // The request line.
        ("no version of HTTP", line("GET /injected"), BAD_REQUEST),
        ("HTTP/1.0", line("GET /injected HTTP/1.0"), HTTP_VERSION),
        ("HTTP/2.0", line("GET /injected HTTP/2.0"), BAD_REQUEST),
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), BAD_REQUEST),
        ("a method in small letters", line("get /injected HTTP/1.1"), METHOD),
        ("HEAD of a handshake", line("HEAD /injected HTTP/1.1"), METHOD),
        ("CONNECT", line("CONNECT injected:80 HTTP/1.1"), METHOD),
        ("an invalid method", line("G(T /injected HTTP/1.1"), BAD_REQUEST),
        ("a space in the target", line("GET /in jected HTTP/1.1"), BAD_REQUEST),
        ("no target", line("GET HTTP/1.1"), BAD_REQUEST),
        // Headers that must occur once (RFC 6455 section 4.2.1). Without an upgrade, Host must too (RFC 9112 section 3.2).
        (
            "no host and no upgrade",
            "GET /injected HTTP/1.1\r\n\r\n".into(),
            BAD_REQUEST,
        ),
        ("no host", with(HOST, "X: injected"), BAD_REQUEST),
        ("two hosts", and("Host: injected"), BAD_REQUEST),
        ("two versions", and("Sec-WebSocket-Version: 8"), UPGRADE_REQUIRED),
        (
            "a list of versions",
            with(VERSION, "Sec-WebSocket-Version: 13, 8"),
            UPGRADE_REQUIRED,
        ),
        ("013", with(VERSION, "Sec-WebSocket-Version: 013"), UPGRADE_REQUIRED),
        ("+13", with(VERSION, "Sec-WebSocket-Version: +13"), UPGRADE_REQUIRED),
        ("a list of keys", with(KEY, &format!("{KEY}, injected")), BAD_REQUEST),
        (
            "a key without its padding",
            with(KEY, KEY.trim_end_matches('=')),
            BAD_REQUEST,
        ),
        (
            "a key in the base64 of URLs",
            with(KEY, &KEY.replace("dGhl", "_-_-")),
            BAD_REQUEST,
        ),
        (
            "another upgrade",
            with(UPGRADE, "Upgrade: websockets"),
            UPGRADE_REQUIRED,
        ),
        (
            "another connection",
            with(CONNECTION, "Connection: keep-alive"),
            UPGRADE_REQUIRED,
        ),
        // Lines that servers parse differently.
        ("a folded header line", and("X: y\r\n injected"), BAD_REQUEST),
        (
            "a folded request line",
            line("GET / HTTP/1.1\r\n X: injected"),
            BAD_REQUEST,
        ),
        (
            "white space before a colon",
            with(UPGRADE, "Upgrade : websocket"),
            BAD_REQUEST,
        ),
        ("white space in a name", and("X Injected: y"), BAD_REQUEST),
        ("no name", and(": injected"), BAD_REQUEST),
        ("NUL in a value", and("X: \0injected"), BAD_REQUEST),
        ("CR in a value", and("X: y\rX-Injected: y"), BAD_REQUEST),
        (
            "CR in a subprotocol",
            and("Sec-WebSocket-Protocol: a\rX-Injected: y"),
            BAD_REQUEST,
        ),
        (
            "a subprotocol in quotes",
            and("Sec-WebSocket-Protocol: \"injected\""),
            BAD_REQUEST,
        ),
        (
            "a header in a subprotocol",
            and("Sec-WebSocket-Protocol: a:injected"),
            BAD_REQUEST,
        ),
        (
            "two lengths",
            and("Content-Length: 0\r\nContent-Length: 5"),
            BAD_REQUEST,
        ),
        ("a length below zero", and("Content-Length: -1"), BAD_REQUEST),
        (
            "a length in chunks",
            and("Content-Length: 0\r\nTransfer-Encoding: chunked"),
            BAD_REQUEST,
        ),
        // Sizes.
        (
            "a long name",
            and(&format!("{}: injected", "X".repeat(17_000))),
            TOO_LARGE,
        ),
        (
            "a long line without an end",
            "GET /".to_owned() + &"x".repeat(17_000),
            TOO_LARGE,
        ),
        ("65 headers", and(&["X: y"; 60].join("\r\n")), TOO_LARGE),
    ];
    for (what, request, status) in cases {
        for cut in [Cut::Whole, Cut::Bytes] {
            let what = format!("{what}, {cut:?}");
            let answer = exchange(server.addr, &[request.as_bytes(), and("X: y").as_bytes()].concat(), cut)
                .map_err(|error| io::Error::other(format!("{what}: {error}")))?;
            let answer = String::from_utf8_lossy(&answer);
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
                "{what}: {answer}"
            );
            assert_eq!(answer.matches("Content-Length: ").count(), 1, "{what}: {answer}");
            assert!(!answer.to_ascii_lowercase().contains("injected"), "{what}: {answer}");
        }
    }
    Ok(())
}
