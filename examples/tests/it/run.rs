//! Runs every example as a process and checks its output.

use std::{
    error::Error,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    process::{Child, ExitStatus, Stdio},
    time::Duration,
};

use sigver_transcripts::{
    Limit, Seen, StepKind, Transcript, Wait, all, play,
    socket::{Client, Opcode, Piece, Sockets, frame},
};
use tungstenite::{
    Message,
    handshake::server::{ErrorResponse, Request, Response},
};

use super::support::{Serving, example};

#[test]
fn in_process_prints_session() {
    let output = example("in_process").output().expect("the example starts");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{printed}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(printed.contains(r#"opener received {"type":"join"}"#), "{printed}");
    assert!(
        printed.contains(r#"opener received {"type":"offer","sdp":"…","index":0}"#),
        "{printed}"
    );
    assert!(
        printed.contains(r#"joiner received {"index":0,"type":"answer","sdp":"…"}"#),
        "{printed}"
    );
    assert!(
        printed.contains("a used ticket is rejected: HTTP error: 403 Forbidden"),
        "{printed}"
    );
    assert!(printed.contains("carol is closed: not allowed"), "{printed}");
    assert!(printed.contains("#0 is alice\n#1 is bob\n"), "{printed}");
    assert!(printed.contains("#1 joined #0\n#0 is Some(Opener) since"), "{printed}");
    assert!(
        printed.contains("kicked #1: true\njoiner is closed: kicked by the opener"),
        "{printed}"
    );
    assert!(printed.contains("opener is closed: server shutting down"), "{printed}");
}

#[test]
fn embed_custom_prints_session() {
    let output = example("embed_custom").output().expect("the example starts");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{printed}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for line in [
        "guest is refused: `key` is unknown: nobody has it open",
        "host received an offer from guest 0: port 4000",
        "guest received an answer: port 4001, nonce 7",
        "guest 0 has left",
        "idle player is closed: no open or join in time",
    ] {
        assert!(printed.lines().any(|it| it == line), "{line}: {printed}");
    }
    assert!(
        printed.contains("Stats { connections: 0, keys: 0, reserved: 0, joiners: 0, waiting: 0, relayed: 2"),
        "{printed}"
    );
}

#[test]
fn embed_axum_closes_slow_consumer() -> Result<(), Box<dyn Error>> {
    closes_slow_consumer(&Serving::start("embed_axum", &[])?)
}

#[test]
fn embed_axum_closes_clients_and_exits_on_sigterm() -> Result<(), Box<dyn Error>> {
    closes_clients_and_exits_on_sigterm("embed_axum")
}

#[test]
fn embed_tokio_closes_slow_consumer() -> Result<(), Box<dyn Error>> {
    closes_slow_consumer(&Serving::start("embed_tokio", &[])?)
}

#[test]
fn embed_tokio_closes_clients_and_exits_on_sigterm() -> Result<(), Box<dyn Error>> {
    closes_clients_and_exits_on_sigterm("embed_tokio")
}

/// A process of `peer`, whose stdout and stderr are read line by line.
struct Terminal {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    err: BufReader<std::process::ChildStderr>,
}

impl Terminal {
    fn start(args: &[&str]) -> Result<Self, Box<dyn Error>> {
        let mut child = example("peer")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Self {
            out: BufReader::new(child.stdout.take().ok_or("no stdout")?),
            err: BufReader::new(child.stderr.take().ok_or("no stderr")?),
            child,
        })
    }

    fn type_line(&mut self, line: &str) -> Result<(), Box<dyn Error>> {
        Ok(writeln!(self.child.stdin.as_mut().ok_or("stdin is closed")?, "{line}")?)
    }

    fn stdout_line(&mut self) -> Result<String, Box<dyn Error>> {
        let mut line = String::new();
        self.out.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    fn stderr_line(&mut self) -> Result<String, Box<dyn Error>> {
        let mut line = String::new();
        self.err.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// Closes stdin and waits for the process to exit.
    fn exit(mut self) -> Result<ExitStatus, Box<dyn Error>> {
        drop(self.child.stdin.take());
        Ok(self.child.wait()?)
    }
}

#[test]
fn peers_exchange_lines_and_exit() -> Result<(), Box<dyn Error>> {
    let server = Serving::start("embed_mio", &[])?;
    let url = format!("ws://{}", server.addr);
    let mut opener = Terminal::start(&[&url, "open"])?;
    let opened = opener.stderr_line()?;
    let key = opened.strip_prefix("opened ").ok_or(opened.clone())?.to_owned();
    let mut joiner = Terminal::start(&[&url, "join", &key])?;
    assert_eq!(joiner.stderr_line()?, "joined with index 0");
    assert_eq!(opener.stderr_line()?, "0 joined");
    let mut other = Terminal::start(&[&url, "join", &key])?;
    assert_eq!(other.stderr_line()?, "joined with index 1");
    assert_eq!(opener.stderr_line()?, "1 joined");

    joiner.type_line("hello, \"you\"")?;
    assert_eq!(opener.stdout_line()?, "0: hello, \"you\"");
    other.type_line(r#"{"sdp":"v=0"}"#)?;
    assert_eq!(opener.stdout_line()?, r#"1: {"sdp":"v=0"}"#);
    opener.type_line("1: to you alone")?;
    opener.type_line("to all")?;
    assert_eq!(other.stdout_line()?, "to you alone");
    assert_eq!(other.stdout_line()?, "to all");
    assert_eq!(joiner.stdout_line()?, "to all");

    assert!(joiner.exit()?.success());
    assert_eq!(opener.stderr_line()?, "0 left");
    opener.type_line("0: too late")?;
    assert_eq!(
        opener.stderr_line()?,
        "unknown-index: `index` names no joiner that is here"
    );
    let mut second = Terminal::start(&[&url, "open", &key])?;
    assert_eq!(
        second.stderr_line()?,
        "peer: key-taken: `key` is taken: another opener has it"
    );
    assert_eq!(second.exit()?.code(), Some(1));

    assert!(opener.exit()?.success());
    assert_eq!(other.stderr_line()?, "opener-left");
    assert_eq!(other.stderr_line()?, format!("waiting for {key}"));
    assert!(other.exit()?.success());
    Ok(())
}

#[test]
fn peer_ignores_messages_of_later_versions() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut peer = Terminal::start(&[&format!("ws://{}", listener.local_addr()?), "join", "tea"])?;
    #[expect(clippy::result_large_err, reason = "required by tungstenite")]
    let echo = |_: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        let header = "sigver.v1".parse().expect("a header value");
        response.headers_mut().insert("Sec-WebSocket-Protocol", header);
        Ok(response)
    };
    let mut server = tungstenite::accept_hdr(listener.accept()?.0, echo).map_err(|error| error.to_string())?;
    for text in [
        r#"{"type":"later"}"#,
        r#"{"type":"pong","later":true}"#,
        r#"{"type":"joined","index":7,"later":true}"#,
    ] {
        server.send(Message::text(text))?;
    }
    assert_eq!(peer.stderr_line()?, "joined with index 7");
    Ok(())
}

/// A token in the URL must not be sent in clear text.
#[test]
fn peer_rejects_wss_urls_without_connecting() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("wss://{}/?token=secret", listener.local_addr()?);
    let mut peer = Terminal::start(&[&url, "open"])?;
    let error = peer.stderr_line()?;
    assert!(error.starts_with("peer: unsupported URL wss:"), "{error}");
    assert!(
        error.contains("no TLS and would send everything in clear text"),
        "{error}"
    );
    assert_eq!(peer.exit()?.code(), Some(1));
    listener.set_nonblocking(true)?;
    assert!(listener.accept().is_err(), "nothing has connected");
    Ok(())
}

#[test]
fn embed_mio_passes_every_transcript() -> Result<(), Box<dyn Error>> {
    const ROLE_DEADLINE: Duration = Duration::from_millis(500);

    fn run(transcript: &Transcript) -> Result<(), Box<dyn Error>> {
        let mut args = Vec::new();
        let waits = StepKind::Wait(Wait::RoleDeadline);
        if transcript.steps.iter().any(|step| step.kind == waits) {
            args.extend(["--role-deadline-ms".to_owned(), ROLE_DEADLINE.as_millis().to_string()]);
        }
        for (limit, value) in &transcript.limits {
            let flag = match limit {
                Limit::Depth => "--depth",
                Limit::JoinersPerKey => "--joiners-per-key",
                Limit::KeyAttempts => "--attempts",
                Limit::KeyBytes => "--key-bytes",
                Limit::MessageBytes => "--message-bytes",
            };
            args.extend([flag.to_owned(), value.to_string()]);
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut serving = Serving::start("embed_mio", &args)?;
        play(transcript, &mut Sockets::new(serving.addr, ROLE_DEADLINE))?;
        assert_eq!(serving.child.try_wait()?, None, "{} ended the process", transcript.name);
        Ok(())
    }

    for transcript in &all()? {
        run(transcript)?;
    }
    Ok(())
}

#[test]
fn embed_mio_closes_slow_consumer() -> Result<(), Box<dyn Error>> {
    closes_slow_consumer(&Serving::start("embed_mio", &[])?)
}

fn closes_slow_consumer(serving: &Serving) -> Result<(), Box<dyn Error>> {
    let mut opener = Client::connect(serving.addr, "/")?;
    opener.send_text(r#"{"type":"open","key":"tea"}"#)?;
    opener.sync();
    let mut joiner = Client::connect(serving.addr, "/")?;
    joiner.send_text(r#"{"type":"join","key":"tea"}"#)?;

    let padding = "x".repeat(60_000);
    for number in 0..200 {
        joiner.send_text(&format!(r#"{{"n":{number},"padding":"{padding}"}}"#))?;
    }
    assert_eq!(joiner.receive(), Seen::Close(Some(4001), "opener left".into()));

    assert_eq!(opener.receive(), Seen::Text(r#"{"type":"join"}"#.into()));
    let mut whole = 0;
    let last = loop {
        match opener.receive() {
            Seen::Text(text) => {
                assert_eq!(text, format!(r#"{{"n":{whole},"padding":"{padding}","index":0}}"#));
                whole += 1;
            }
            last => break last,
        }
    };
    assert_eq!(last, Seen::Close(Some(1013), "reading too slowly".into()));
    assert!(
        (2..100).contains(&whole),
        "expected a joiner's share and the kernel's buffers, not {whole} messages"
    );
    Ok(())
}

#[test]
fn embed_mio_closes_client_that_sends_endless_empty_fragments() -> Result<(), Box<dyn Error>> {
    let serving = Serving::start("embed_mio", &["--message-bytes", "64"])?;
    let mut client = Client::connect(serving.addr, "/")?;
    client.send_frame(Opcode::Text, Piece::More, b"{")?;
    // 7 bytes and 84 times 6 bytes are within 8 times 64 bytes.
    client.send_raw(&frame(Opcode::Continuation, Piece::More, b"").repeat(84))?;
    assert_eq!(client.leftover(), Seen::Nothing);
    client.send_raw(&frame(Opcode::Continuation, Piece::More, b""))?;
    assert_eq!(
        client.receive(),
        Seen::Close(Some(1009), "message over the size limit".into())
    );
    Ok(())
}

#[test]
fn embed_mio_accepts_handshakes_and_rejects_other_requests() -> Result<(), Box<dyn Error>> {
    const HANDSHAKE: &str = "GET /any/path?at=all HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

    let serving = Serving::start("embed_mio", &["--connections", "1"])?;
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), "426 Upgrade Required"),
        (
            "POST / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            "405 Method Not Allowed",
        ),
        (HANDSHAKE.replace("Host: h\r\n", "") + "\r\n", "400 Bad Request"),
        (HANDSHAKE.to_owned() + "Host: h\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.0\r\n\r\n".to_owned(), "505 HTTP Version Not Supported"),
        ("\u{1}\u{2}".to_owned(), "400 Bad Request"),
        (HANDSHAKE.replace("13", "8") + "\r\n", "426 Upgrade Required"),
        (HANDSHAKE.replace("==", "") + "\r\n", "400 Bad Request"),
        (HANDSHAKE.to_owned() + "Content-Length: 1\r\n\r\n", "400 Bad Request"),
        (
            HANDSHAKE.to_owned() + "Sec-WebSocket-Protocol: two words\r\n\r\n",
            "400 Bad Request",
        ),
        (
            HANDSHAKE.to_owned() + "X: " + &"x".repeat(9_000),
            "431 Request Header Fields Too Large",
        ),
        (HANDSHAKE.to_owned(), "408 Request Timeout"),
    ] {
        assert_eq!(serving.status(&request)?, format!("HTTP/1.1 {status}"), "{request}");
    }

    // The request arrives in pieces, followed by the first messages.
    let mut stream = TcpStream::connect(serving.addr)?;
    stream.set_nodelay(true)?;
    let offer = "Sec-WebSocket-Protocol: unknown, sigver.plain\r\n\r\n";
    let open = frame(Opcode::Text, Piece::Last, br#"{"type":"open","key":"tea"}"#);
    let request = [HANDSHAKE.as_bytes(), offer.as_bytes(), &open, &open].concat();
    for piece in request.chunks(101) {
        stream.write_all(piece)?;
    }
    let (mut client, head) = Client::after_request(stream)?;
    assert!(
        head.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
        "{head}"
    );
    assert!(head.contains("\r\nSec-WebSocket-Protocol: sigver.plain\r\n"), "{head}");
    assert!(matches!(client.receive(), Seen::Close(Some(1008), _)), "second open");
    drop(client);

    let first = Client::connect(serving.addr, "/")?;
    let status = serving.status(&format!("{HANDSHAKE}\r\n"))?;
    assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
    drop(first);
    Ok(())
}

#[test]
fn embed_mio_closes_clients_and_exits_on_sigterm() -> Result<(), Box<dyn Error>> {
    closes_clients_and_exits_on_sigterm("embed_mio")
}

fn closes_clients_and_exits_on_sigterm(example: &str) -> Result<(), Box<dyn Error>> {
    let mut serving = Serving::start(example, &[])?;
    let mut client = Client::connect(serving.addr, "/")?;
    serving.terminate()?;
    assert_eq!(client.receive(), Seen::Close(Some(1001), "server shutting down".into()));
    drop(client);
    assert!(serving.wait()?.success());
    Ok(())
}
