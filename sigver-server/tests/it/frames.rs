//! Bytes on the wire: handshakes, responses to invalid handshakes, and frames, however TCP splits them. Transcripts test the meaning of
//! messages.

use std::{
    error::Error,
    io::{self, Read, Write},
    iter,
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use sigver_server::Page;
use sigver_transcripts::{
    Seen,
    socket::{Client, Opcode, Piece, frame},
};

use crate::support::{Running, retry, test_config};

/// Timeout of a response, long enough for a busy machine.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The handshake of RFC 6455 section 1.3.
const HANDSHAKE: &str = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://example.com\r\n\
                         Sec-WebSocket-Version: 13\r\n\r\n";

/// The `Sec-WebSocket-Accept` of its response.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The default maximum length of a message.
const MESSAGE_MAX: usize = 65_536;

/// The default maximum length of a request head.
const HEAD_MAX: usize = 16_384;

// ------------------------------------------------------------------------------------------------------------ Split frames

/// The session of a joiner: its handshake, texts around the maximum length of a short header, a fragmented message, pings, a close
/// frame.
struct Session {
    bytes: Vec<u8>,
    /// The texts that the opener receives.
    texts: Vec<String>,
}

impl Session {
    fn new(extra_texts: impl Iterator<Item = String>) -> Self {
        let mut texts: Vec<String> = [10, 125, 126].map(text_of).into();
        texts.extend(extra_texts);
        let mut bytes = [HANDSHAKE.as_bytes(), &text(r#"{"type":"join","key":"tea"}"#)].concat();
        bytes.extend(texts.iter().flat_map(|message| text(message)));
        let fragmented = r#"{"s":"🍵"}"#;
        let (first, second) = fragmented.as_bytes().split_at(8);
        for (opcode, piece, payload) in [
            (Opcode::Ping, Piece::Last, &b"before"[..]),
            (Opcode::Text, Piece::More, first),
            (Opcode::Ping, Piece::Last, b"between"),
            (Opcode::Continuation, Piece::More, b""),
            (Opcode::Continuation, Piece::Last, second),
            (Opcode::Close, Piece::Last, &1000_u16.to_be_bytes()),
        ] {
            bytes.extend(frame(opcode, piece, payload));
        }
        texts.push(fragmented.into());
        Self { bytes, texts }
    }

    /// Plays the session as joiner `index` of `opener`, with one write per piece, and checks what both receive.
    fn play<'a>(
        &self,
        addr: SocketAddr,
        opener: &mut Client,
        index: usize,
        pieces: impl Iterator<Item = &'a [u8]>,
    ) -> io::Result<()> {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        for piece in pieces {
            stream.write_all(piece)?;
            // A round trip of another client shows that an incomplete frame delays no client. It also gives the server time to read
            // this piece alone, which a test can neither force nor observe.
            opener.sync();
        }
        let (mut joiner, _) = Client::after_request(stream)?;
        assert_eq!(opener.receive(), Seen::Text(r#"{"type":"join"}"#.into()));
        for message in &self.texts {
            assert_eq!(opener.receive(), Seen::Text(with_index(message, index)));
        }
        assert_eq!(joiner.receive(), Seen::Close(Some(1000), String::new()));
        assert_eq!(opener.leftover(), Seen::Nothing);
        Ok(())
    }
}

#[test]
fn session_split_at_any_byte_is_unchanged() -> io::Result<()> {
    let server = Running::start(test_config());
    let mut opener = opener(server.addr)?;
    let session = Session::new(iter::empty());
    let bytes = &session.bytes[..];
    for at in 0..bytes.len() {
        let (head, tail) = bytes.split_at(at);
        session.play(server.addr, &mut opener, at, [head, tail].into_iter())?;
    }
    Ok(())
}

#[test]
fn session_sent_byte_by_byte_is_unchanged() -> io::Result<()> {
    let server = Running::start(test_config());
    let session = Session::new(iter::empty());
    session.play(server.addr, &mut opener(server.addr)?, 0, session.bytes.chunks(1))
}

/// The second session exceeds the reader's buffer of 4 KiB and the buffer of the handshake.
#[test]
fn session_in_one_write_with_its_handshake_is_unchanged() -> io::Result<()> {
    let server = Running::start(test_config());
    let mut opener = opener(server.addr)?;
    let few = Session::new(iter::empty());
    few.play(server.addr, &mut opener, 0, iter::once(&few.bytes[..]))?;
    let many = Session::new((8..1000).map(text_of));
    many.play(server.addr, &mut opener, 1, iter::once(&many.bytes[..]))
}

/// Splits at every byte of the header, at both ends of the payload, and around every multiple of the reader's buffer.
#[test]
fn large_frame_split_anywhere_is_relayed() -> io::Result<()> {
    let server = Running::start(test_config());
    let mut opener = opener(server.addr)?;
    let mut joiner = joiner(server.addr)?;
    assert_eq!(opener.receive(), Seen::Text(r#"{"type":"join"}"#.into()));
    for length in [MESSAGE_MAX - 1, MESSAGE_MAX] {
        let message = text_of(length);
        let bytes = text(&message);
        for at in split_points(bytes.len()) {
            let (head, tail) = bytes.split_at(at);
            joiner.send_raw(head)?;
            opener.sync();
            joiner.send_raw(tail)?;
            assert_eq!(opener.receive(), Seen::Text(with_index(&message, 0)), "split at {at}");
        }
    }
    Ok(())
}

#[test]
fn oversized_frame_split_anywhere_is_closed_with_1009() -> io::Result<()> {
    let server = Running::start(test_config());
    let mut opener = opener(server.addr)?;
    let bytes = text(&text_of(MESSAGE_MAX + 1));
    for at in split_points(bytes.len()) {
        let mut joiner = joiner(server.addr)?;
        assert_eq!(opener.receive(), Seen::Text(r#"{"type":"join"}"#.into()));
        let (head, tail) = bytes.split_at(at);
        joiner.send_raw(head)?;
        opener.sync();
        joiner.send_raw(tail)?;
        let closed = Seen::Close(Some(1009), "message over the size limit".into());
        assert_eq!(joiner.receive(), closed, "split at {at}");
    }
    assert_eq!(opener.leftover(), Seen::Nothing);
    Ok(())
}

#[test]
fn message_in_two_fragments_is_relayed_whole() -> io::Result<()> {
    let server = Running::start(test_config());
    let mut opener = opener(server.addr)?;
    let mut joiner = joiner(server.addr)?;
    assert_eq!(opener.receive(), Seen::Text(r#"{"type":"join"}"#.into()));
    let from_joiner = r#"{"s":"é日🍵","n":[1e400,{}]}"#;
    let from_opener = r#"{"s":"é日🍵","index":0}"#;
    for at in 0..=from_joiner.len() {
        send_two_fragments(&mut joiner, from_joiner, at)?;
        let expected = Seen::Text(with_index(from_joiner, 0));
        assert_eq!(opener.receive(), expected, "from the joiner, split at {at}");
    }
    for at in 0..=from_opener.len() {
        send_two_fragments(&mut opener, from_opener, at)?;
        let expected = Seen::Text(from_opener.into());
        assert_eq!(joiner.receive(), expected, "from the opener, split at {at}");
    }
    Ok(())
}

fn send_two_fragments(client: &mut Client, text: &str, at: usize) -> io::Result<()> {
    let (first, second) = text.as_bytes().split_at(at);
    client.send_frame(Opcode::Text, Piece::More, first)?;
    client.send_frame(Opcode::Ping, Piece::Last, b"between")?;
    client.send_frame(Opcode::Continuation, Piece::Last, second)
}

// ------------------------------------------------------------------------------------------------------------ Pongs

/// A pong means that the client's earlier messages are relayed. The opener checks it with a ping of its own.
#[test]
fn pong_follows_earlier_messages() -> io::Result<()> {
    let server = Running::start(test_config());
    let mut opener = opener(server.addr)?;
    let mut joiner = joiner(server.addr)?;
    joiner.sync();
    opener.send_frame(Opcode::Ping, Piece::Last, b"")?;
    assert_receives(&opener, &[served(br#"{"type":"join"}"#), pong(b"")])?;
    // An early pong is a rare race, so there are many rounds.
    for round in 0..500 {
        let message = format!(r#"{{"round":{round}}}"#);
        joiner.send_raw(&[text(&message).repeat(8), frame(Opcode::Ping, Piece::Last, b"message")].concat())?;
        assert_receives(&joiner, &[pong(b"message")])?;
        opener.send_raw(
            &[
                frame(Opcode::Ping, Piece::Last, &[b'p'; 125]),
                frame(Opcode::Ping, Piece::Last, b""),
            ]
            .concat(),
        )?;
        let relayed = served(with_index(&message, 0).as_bytes()).repeat(8);
        assert_receives(&opener, &[relayed, pong(&[b'p'; 125]), pong(b"")])?;
    }
    Ok(())
}

fn assert_receives(client: &Client, frames: &[Vec<u8>]) -> io::Result<()> {
    let expected = frames.concat();
    let mut received = vec![0; expected.len()];
    let mut stream = client.stream();
    stream.read_exact(&mut received)?;
    assert!(received == expected, "unexpected bytes, {} in total", received.len());
    Ok(())
}

#[test]
fn ping_before_violation_is_answered_and_later_ping_is_not() -> io::Result<()> {
    let server = Running::start(test_config());
    let mut client = opener(server.addr)?;
    let ping = |payload| frame(Opcode::Ping, Piece::Last, payload);
    client.send_raw(&[ping(b"1"), ping(b""), text("null"), ping(b"2")].concat())?;
    let reason = "text is not one JSON object: another JSON value";
    let expected = [pong(b"1"), pong(b""), close(1007, reason)].concat();
    assert_eq!(read_to_end(client.stream())?, expected);
    Ok(())
}

// ------------------------------------------------------------------------------------------------------------ Handshakes

#[test]
fn handshake_in_any_legal_spelling_is_accepted() -> Result<(), Box<dyn Error>> {
    let server = Running::start(test_config());
    let cases = [
        ("as in the RFC", HANDSHAKE.into()),
        ("another path", HANDSHAKE.replace("/chat", "/")),
        (
            "a long path",
            HANDSHAKE.replace("/chat", "/a/b%20c/../d?e=f&g=%F0%9F%8D%B5"),
        ),
        (
            "an absolute URL",
            HANDSHAKE.replace("/chat", "http://server.example.com/chat"),
        ),
        (
            "odd case",
            HANDSHAKE
                .replace("Upgrade: websocket", "uPGRADE: WebSocket")
                .replace("Connection: Upgrade", "CONNECTION: uPgRaDe")
                .replace("Sec-WebSocket-", "sec-webSOCKET-"),
        ),
        ("no white space", HANDSHAKE.replace(": ", ":")),
        (
            "much white space",
            HANDSHAKE.replace(": ", ": \t ").replace("\r\nSec", " \t\r\nSec"),
        ),
        (
            "Connection is a list",
            HANDSHAKE.replace("Connection: Upgrade", "Connection: keep-alive, Upgrade"),
        ),
        (
            "two Connection headers",
            HANDSHAKE.replace("Connection: Upgrade", "Connection: keep-alive\r\nConnection: Upgrade"),
        ),
        (
            "a body of no length",
            HANDSHAKE.replace("Origin", "Content-Length: 0\r\nOrigin"),
        ),
        (
            "an offer to compress",
            with_header("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"),
        ),
        ("a head of the largest size", padded_to(HEAD_MAX)),
        ("64 headers", with_header(&["X: y"; 58].join("\r\n"))),
    ];
    for (what, request) in cases {
        let head = accepted(server.addr, &request).map_err(|error| format!("{what}: {error}"))?;
        assert_eq!(header(&head, "Sec-WebSocket-Accept"), Some(ACCEPT), "{what}");
        assert_eq!(header(&head, "Sec-WebSocket-Protocol"), None, "{what}");
        assert_eq!(header(&head, "Sec-WebSocket-Extensions"), None, "{what}");
    }
    Ok(())
}

#[test]
fn one_offered_subprotocol_is_echoed() -> Result<(), Box<dyn Error>> {
    let server = Running::start(test_config());
    for (offer, echo) in [
        ("Sec-WebSocket-Protocol: sigver.plain", "sigver.plain"),
        ("Sec-WebSocket-Protocol: mqtt, sigver.plain, soap", "sigver.plain"),
        (
            "Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Protocol: sigver.plain",
            "sigver.plain",
        ),
        // Browsers fail a handshake if no offer is echoed.
        ("Sec-WebSocket-Protocol: mqtt", "mqtt"),
        ("Sec-WebSocket-Protocol: soap,mqtt", "soap"),
        // Names are case-sensitive.
        ("sec-websocket-protocol:\t,SIGVER.PLAIN ,mqtt", "SIGVER.PLAIN"),
    ] {
        let head = accepted(server.addr, &with_header(offer)).map_err(|error| format!("{offer}: {error}"))?;
        assert_eq!(header(&head, "Sec-WebSocket-Protocol"), Some(echo), "{offer}");
    }
    Ok(())
}

#[test]
fn upgrade_to_path_of_page_is_accepted() -> Result<(), Box<dyn Error>> {
    let mut config = test_config();
    config.pages = vec![Page::new("/chat", "text/html; charset=utf-8", *b"<!doctype html>")];
    let server = Running::start(config);
    let (head, body) = answer(server.addr, "GET /chat?a=b HTTP/1.1\r\nHost: a\r\n\r\n", 0)?;
    assert_eq!(status(&head), "200 OK");
    assert_eq!(header(&head, "Content-Type"), Some("text/html; charset=utf-8"));
    assert_eq!(body, "<!doctype html>");
    let (head, body) = answer(server.addr, "HEAD /chat HTTP/1.1\r\nHost: a\r\n\r\n", 0)?;
    assert_eq!((status(&head), header(&head, "Content-Length")), ("200 OK", Some("15")));
    assert_eq!(body, "");
    accepted(server.addr, HANDSHAKE)?;
    Ok(())
}

// ------------------------------------------------------------------------------------------------------------ Rejected requests

/// The response arrives even if the client has sent more than the server reads: unread bytes would reset the connection and lose it.
#[test]
fn invalid_handshake_receives_complete_response() -> Result<(), Box<dyn Error>> {
    const BAD_REQUEST: &str = "400 Bad Request";
    const UPGRADE_REQUIRED: &str = "426 Upgrade Required";
    const TOO_LARGE: &str = "431 Request Header Fields Too Large";
    const UPGRADE: Option<(&str, &str)> = Some(("Upgrade", "websocket"));
    const VERSION: Option<(&str, &str)> = Some(("Sec-WebSocket-Version", "13"));
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let without = |line: &str| HANDSHAKE.replace(line, "");
    let other_key = |other: &str| HANDSHAKE.replace("dGhlIHNhbXBsZSBub25jZQ==", other);
    let get = HANDSHAKE.replace("Upgrade: websocket\r\nConnection: Upgrade\r\n", "");
    let server = Running::start(test_config());
    let cases = [
        ("plain GET", get.clone(), UPGRADE_REQUIRED, UPGRADE),
        (
            "no Upgrade",
            without("Upgrade: websocket\r\n"),
            UPGRADE_REQUIRED,
            UPGRADE,
        ),
        (
            "no Connection",
            without("Connection: Upgrade\r\n"),
            UPGRADE_REQUIRED,
            UPGRADE,
        ),
        (
            "an upgrade to something else",
            HANDSHAKE.replace("websocket", "h2c"),
            UPGRADE_REQUIRED,
            UPGRADE,
        ),
        ("no key", without(key), BAD_REQUEST, None),
        ("two keys", HANDSHAKE.replace(key, &key.repeat(2)), BAD_REQUEST, None),
        ("an empty key", other_key(""), BAD_REQUEST, None),
        ("a short key", other_key("dGhlIHNhbXBsZQ=="), BAD_REQUEST, None),
        (
            "a key of 17 bytes",
            other_key("dGhlIHNhbXBsZSBub25jZSE="),
            BAD_REQUEST,
            None,
        ),
        (
            "a key that is not base64",
            other_key("dGhlIHNhbXBsZSBub25j*Q=="),
            BAD_REQUEST,
            None,
        ),
        (
            "an older version",
            HANDSHAKE.replace("Version: 13", "Version: 8"),
            UPGRADE_REQUIRED,
            VERSION,
        ),
        (
            "no version",
            without("Sec-WebSocket-Version: 13\r\n"),
            UPGRADE_REQUIRED,
            VERSION,
        ),
        (
            "a subprotocol that is no name",
            with_header("Sec-WebSocket-Protocol: a b"),
            BAD_REQUEST,
            None,
        ),
        ("a body", with_header("Content-Length: 5"), BAD_REQUEST, None),
        (
            "a body in chunks",
            with_header("Transfer-Encoding: chunked"),
            BAD_REQUEST,
            None,
        ),
        (
            "POST of a handshake",
            HANDSHAKE.replace("GET", "POST"),
            "405 Method Not Allowed",
            Some(("Allow", "GET")),
        ),
        (
            "POST",
            get.replace("GET", "POST"),
            "405 Method Not Allowed",
            Some(("Allow", "GET, HEAD, OPTIONS")),
        ),
        (
            "HTTP/1.0",
            HANDSHAKE.replace("HTTP/1.1", "HTTP/1.0"),
            "505 HTTP Version Not Supported",
            None,
        ),
        ("one byte too many", padded_to(HEAD_MAX + 1), TOO_LARGE, None),
        (
            "a long target",
            HANDSHAKE.replace("/chat", &"/chat".repeat(4000)),
            TOO_LARGE,
            None,
        ),
        ("many headers", with_header(&["X: y"; 60].join("\r\n")), TOO_LARGE, None),
        ("garbage", "\u{1F375}\r\n\r\n".into(), BAD_REQUEST, None),
        ("another protocol", "SSH-2.0-OpenSSH_9.9\r\n".into(), BAD_REQUEST, None),
        (
            "the beginning of TLS",
            "\x16\x03\x01\x02\0\x01\0\x01\x7c\x03\x03".into(),
            BAD_REQUEST,
            None,
        ),
        ("a broken header", with_header("no colon"), BAD_REQUEST, None),
    ];
    for (what, request, expected, expected_header) in cases {
        for surplus in [0, 100_000] {
            let what = format!("{what}, {surplus} extra bytes");
            let (head, body) = answer(server.addr, &request, surplus).map_err(|error| format!("{what}: {error}"))?;
            assert_eq!(status(&head), expected, "{what}");
            assert!(!body.is_empty(), "{what}");
            assert_eq!(
                header(&head, "Content-Length"),
                Some(&*body.len().to_string()),
                "{what}"
            );
            assert!(
                header(&head, "Connection").is_some_and(|options| options.starts_with("close")),
                "{what}"
            );
            if let Some((name, value)) = expected_header {
                assert_eq!(header(&head, name), Some(value), "{what}");
            }
        }
    }
    accepted(server.addr, HANDSHAKE)?;
    Ok(())
}

/// Further bytes do not extend the timeout.
#[test]
fn incomplete_head_is_answered_408_after_timeout() -> io::Result<()> {
    const HANDSHAKE_TIMEOUT: Duration = Duration::from_millis(300);
    let mut config = test_config();
    config.handshake_timeout = HANDSHAKE_TIMEOUT;
    let server = Running::start(config);
    let unfinished = HANDSHAKE.trim_end();
    let began = Instant::now();
    let silent = connect(server.addr)?;
    let mut half = connect(server.addr)?;
    let mut dribbling = connect(server.addr)?;
    half.write_all(unfinished.as_bytes())?;
    dribbling.set_read_timeout(Some(HANDSHAKE_TIMEOUT / 30))?;
    // More bytes than the timeout allows.
    let mut trickle = unfinished.bytes().chain(*b"\r\nX: ").chain([b'y'; 6_000]);
    let mut first = [0];
    while let Err(error) = dribbling.read_exact(&mut first) {
        assert!(
            matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
            "{error}"
        );
        let byte = trickle.next().expect("a response before the head is complete");
        dribbling.write_all(&[byte])?;
    }
    assert!(
        began.elapsed() >= HANDSHAKE_TIMEOUT,
        "answered after {:?}",
        began.elapsed()
    );
    dribbling.set_read_timeout(Some(TIMEOUT))?;
    let dribbled = [&first[..], &read_to_end(&dribbling)?].concat();
    for received in [dribbled, read_to_end(&half)?, read_to_end(&silent)?] {
        let (head, body) = split(&received)?;
        assert_eq!(status(&head), "408 Request Timeout");
        assert!(!body.is_empty());
    }
    Ok(())
}

// ------------------------------------------------------------------------------------------------------------ Clients

fn opener(addr: SocketAddr) -> io::Result<Client> {
    let mut client = Client::connect(addr, "/")?;
    client.send_text(r#"{"type":"open","key":"tea"}"#)?;
    client.sync();
    Ok(client)
}

fn joiner(addr: SocketAddr) -> io::Result<Client> {
    let mut client = Client::connect(addr, "/")?;
    client.send_text(r#"{"type":"join","key":"tea"}"#)?;
    Ok(client)
}

fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// Sends a handshake that must be accepted. Returns the head of the response, and checks that the WebSocket works.
fn accepted(addr: SocketAddr, request: &str) -> io::Result<String> {
    let mut stream = connect(addr)?;
    stream.write_all(request.as_bytes())?;
    let (mut client, head) = Client::after_request(stream)?;
    assert_eq!(client.leftover(), Seen::Nothing);
    Ok(head)
}

/// Sends a request and `surplus` extra bytes, half of them after the response has arrived. Returns the head and body of the response, after
/// which the server closes its side.
fn answer(addr: SocketAddr, request: &str, surplus: usize) -> io::Result<(String, String)> {
    let surplus = vec![b'x'; surplus];
    let (first, later) = surplus.split_at(surplus.len() / 2);
    let mut stream = connect(addr)?;
    stream.write_all(&[request.as_bytes(), first].concat())?;
    retry(|| stream.peek(&mut [0]))?;
    // One of these writes fails if the connection is reset.
    for chunk in later.chunks(1000) {
        stream.write_all(chunk)?;
    }
    split(&read_to_end(&stream)?)
}

fn read_to_end(mut stream: &TcpStream) -> io::Result<Vec<u8>> {
    let mut received = Vec::new();
    stream.read_to_end(&mut received)?;
    Ok(received)
}

// ------------------------------------------------------------------------------------------------------------ Texts and bytes

/// Returns a text frame of a client.
fn text(text: &str) -> Vec<u8> {
    frame(Opcode::Text, Piece::Last, text.as_bytes())
}

/// Returns a text frame of the server, of at most 65,535 bytes, with the shortest header.
fn served(text: &[u8]) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("a length of 16 bits");
    match length {
        0..126 => [&[0x81, length as u8], text].concat(),
        126.. => [&[0x81, 126], &length.to_be_bytes()[..], text].concat(),
    }
}

fn pong(payload: &[u8]) -> Vec<u8> {
    [&[0x8a, payload.len() as u8], payload].concat()
}

fn close(code: u16, text: &str) -> Vec<u8> {
    [&[0x88, 2 + text.len() as u8], &code.to_be_bytes()[..], text.as_bytes()].concat()
}

/// Returns a message of this many bytes, at least 8.
fn text_of(length: usize) -> String {
    format!(r#"{{"p":"{}"}}"#, "x".repeat(length - 8))
}

/// Returns what an opener receives for a message of joiner `index`.
fn with_index(text: &str, index: usize) -> String {
    let open = text.strip_suffix('}').expect("an object");
    format!(r#"{open},"index":{index}}}"#)
}

/// Returns where to split a large frame: in its header, near its end, and around every multiple of the reader's buffer.
fn split_points(length: usize) -> impl Iterator<Item = usize> {
    let buffer = 4096;
    let around = (buffer..length).step_by(buffer).flat_map(|at| at - 1..=at + 1);
    (0..=16).chain(around).chain(length - 3..length)
}

/// Returns the handshake with another header.
fn with_header(line: &str) -> String {
    HANDSHAKE.replace("Origin", &format!("{line}\r\nOrigin"))
}

/// Returns the handshake padded to this length by a header.
fn padded_to(length: usize) -> String {
    let least = with_header("X: ").len();
    with_header(&format!("X: {}", "y".repeat(length - least)))
}

/// Splits a response into head and body.
fn split(answer: &[u8]) -> io::Result<(String, String)> {
    let answer = std::str::from_utf8(answer).map_err(io::Error::other)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| io::Error::other(format!("incomplete head: {answer:?}")))?;
    Ok((head.into(), body.into()))
}

fn status(head: &str) -> &str {
    let line = head.lines().next().unwrap_or_default();
    line.strip_prefix("HTTP/1.1 ").unwrap_or(line)
}

/// Returns the value of a header that occurs at most once.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut values = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(its_name, _)| its_name.eq_ignore_ascii_case(name))
        .map(|(_, value)| value);
    let value = values.next();
    assert_eq!(values.next(), None, "{name} occurs once");
    value
}

/// A message that never completes is closed although each fragment is within the limits, with and without pings between them.
#[test]
fn endless_empty_fragments_are_closed_with_1009() {
    for ping in [&[][..], &frame(Opcode::Ping, Piece::Last, b"still here")] {
        let mut config = test_config();
        // The client is blocked in sending until it is aborted.
        config.endpoint.close_timeout = Duration::from_millis(500);
        let server = Running::start(config);
        let mut client = server.client();
        client
            .send_frame(Opcode::Text, Piece::More, b"{")
            .expect("it is connected");
        let mut pieces = frame(Opcode::Continuation, Piece::More, b"").repeat(1_000);
        pieces.extend(ping);
        // The quota is 87 thousand fragments. More may be sent before the close, because buffers fill first.
        let mut sent = 0;
        while sent < 20_000 && client.send_raw(&pieces).is_ok() && server.handle.stats().closed == 0 {
            sent += 1;
        }
        assert!((50..20_000).contains(&sent), "{sent} thousand fragments are sent");
        assert_eq!(
            client.receive(),
            Seen::Close(Some(1009), "message over the size limit".into())
        );
    }
}

/// Pings do not count against the quota of a message.
#[test]
fn endless_pings_are_answered() {
    let mut config = test_config();
    config.endpoint.messages_per_second = None;
    let server = Running::start(config);
    let mut client = server.client();
    for _ in 0..1_000 {
        client
            .send_raw(&frame(Opcode::Ping, Piece::Last, &[7; 100]).repeat(10))
            .expect("it is connected");
        client.sync();
    }
    assert_eq!(client.leftover(), Seen::Nothing);
}
