//! The log of the binary: one line per connection, text and JSON, no secrets, and a limit on repeated warnings.

use std::{
    any::Any,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use rustix::process::Signal;
use sigver_transcripts::{Seen, socket::Client};

use crate::support::{
    connect_from, exchange,
    file::TempFile,
    get, handshake,
    program::{Program, sigver_server},
};

const LOOPBACK: [&str; 2] = ["--listen", "127.0.0.1:0"];

/// Returns the head of a handshake without the empty line at its end.
fn head(target: &str, more: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}"
    )
}

/// Plays a session of an opener, a joiner and a rejected client, which end in different ways.
fn play(mut connect: impl FnMut() -> Client) {
    let (mut opener, mut joiner, mut third) = (connect(), connect(), connect());
    opener
        .send_text(r#"{"type":"open","key":"SECRET-key"}"#)
        .expect("connected");
    opener.sync();
    joiner
        .send_text(r#"{"type":"join","key":"SECRET-key"}"#)
        .expect("connected");
    joiner.send_text(r#"{"sdp":"SECRET-payload"}"#).expect("connected");
    joiner.sync();
    opener
        .send_text(r#"{"sdp":"SECRET-answer","index":0}"#)
        .expect("connected");
    opener.sync();
    third
        .send_text(r#"{"type":"open","key":"SECRET-key"}"#)
        .expect("connected");
    assert!(matches!(third.receive(), Seen::Close(Some(1008), _)));
    joiner.send_text(r#"{"SECRET-broken""#).expect("connected");
    assert!(matches!(
        joiner.receive(),
        Seen::Text(text) if text.contains("SECRET-answer")
    ));
    assert!(matches!(joiner.receive(), Seen::Close(Some(1007), _)));
    drop((joiner, third));
    // The opener closes last, with code 4000 and a private reason.
    let close: Vec<u8> = [&4000u16.to_be_bytes()[..], b"SECRET-reason"].concat();
    let mut frame = vec![0x88, 0x80 | close.len() as u8, 0, 0, 0, 0];
    frame.extend(close);
    opener.send_raw(&frame).expect("connected");
    let echo = loop {
        match opener.receive() {
            Seen::Text(_) => {}
            end => break end,
        }
    };
    assert!(matches!(echo, Seen::Close(Some(4000), _)), "{echo:?}");
}

/// Returns the log with the age of each connection replaced by `N`.
fn without_seconds(log: &str) -> String {
    let mut parts = log.split(" after ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |log, part| match part.split_once(" s: ") {
        Some((seconds, rest)) if seconds.parse::<f64>().is_ok() => format!("{log} after N s: {rest}"),
        _ => format!("{log} after {part}"),
    })
}

#[test]
fn end_of_connection_logs_one_line() {
    let mut program = Program::start(&mut sigver_server(&LOOPBACK));
    play(|| program.client());
    // A client that disconnects without a close frame, and one that is connected at shutdown.
    drop(program.client());
    let mut left = program.client();
    left.sync();
    let log = program.until_logged(" lost after ") + &program.end(Signal::TERM).1;
    let log = without_seconds(&log);
    for part in [
        " closed with 1008 key is taken after N s: no role, plain, messages in 1 (34 bytes), out 0 (0 bytes)",
        " closed with 1007 text is not one JSON object: invalid JSON after N s: joiner, plain, messages in 3 (74 bytes), out 1 (33 bytes)",
        " left with 4000 after N s: opener, plain, messages in 2 (67 bytes), out 2 (49 bytes)",
        " lost after N s: no role, plain, messages in 0 (0 bytes), out 0 (0 bytes)",
        " closed with 1001 server shutting down after ",
    ] {
        assert_eq!(
            log.lines().filter(|line| line.contains(part)).count(),
            1,
            "{part}: {log}"
        );
    }
    for serial in 0..5 {
        let name = format!("#{serial} from 127.0.0.1:");
        assert_eq!(
            log.lines().filter(|line| line.contains(&name)).count(),
            1,
            "{name}: {log}"
        );
    }
}

#[test]
fn json_log_has_one_object_per_line() {
    let program =
        Program::start(sigver_server(&[&LOOPBACK[..], &["--log-format", "json"]].concat()).env("RUST_LOG", "debug"));
    play(|| program.client());
    get(program.addr, "/nothing").expect("an answer");
    let (_, log) = program.end(Signal::TERM);
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for line in &lines {
        for member in ["time", "level", "target", "message"] {
            assert!(line[member].is_string(), "{member} of {line}");
        }
    }
    let end = |ending: &str, role: &str| {
        let found = lines
            .iter()
            .find(|line| line["ending"] == ending && line["role"] == role);
        found.unwrap_or_else(|| panic!("{ending}, {role}: {log}"))
    };
    let opener = end("left", "opener");
    assert_eq!(opener["code"], 4000);
    assert_eq!(opener["reason"], serde_json::Value::Null);
    assert_eq!(opener["dialect"], "plain");
    assert_eq!(opener["client"], "127.0.0.1");
    assert_eq!(opener["conn"], 0);
    assert_eq!(
        (&opener["messages_in"], &opener["messages_out"]),
        (&2.into(), &2.into())
    );
    assert_eq!((&opener["bytes_in"], &opener["bytes_out"]), (&67.into(), &49.into()));
    assert!(opener["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0));
    assert_eq!(end("closed", "no role")["reason"], "key is taken");
    let not_found = lines.iter().find(|line| line["status"] == "404 Not Found");
    let not_found = not_found.unwrap_or_else(|| panic!("no response: {log}"));
    assert_eq!(
        (&not_found["method"], &not_found["path"]),
        (&"GET".into(), &"/nothing".into())
    );
}

/// The server discards some of what a slow consumer was sent. The log and the metrics count it alike.
#[test]
fn messages_count_when_they_are_accepted_for_a_client() {
    let arguments = [
        "--admin",
        "127.0.0.1:0",
        "--log-format",
        "json",
        "--bytes-per-second",
        "0",
    ];
    let mut program = Program::start(&mut sigver_server(&[&LOOPBACK[..], &arguments].concat()));
    let admin = program.admin();
    let metrics = || get(admin, "/metrics").unwrap_or_default();
    let (mut opener, mut joiner) = (program.client(), program.client());
    opener.send_text(r#"{"type":"open","key":"k"}"#).expect("connected");
    opener.sync();
    joiner.send_text(r#"{"type":"join","key":"k"}"#).expect("connected");
    joiner.sync();
    let message = format!(r#"{{"x":"{}","index":0}}"#, "x".repeat(60_000));
    let is_closed = |page: &str| page.contains(r#"sigver_refused_total{reason="too-slow"} 1"#);
    while !is_closed(&metrics()) {
        opener.send_text(&message).expect("connected");
    }
    let mut received = 0;
    while let Seen::Text(_) = joiner.receive() {
        received += 1;
    }
    drop(joiner);
    let log = program.until_logged("reading too slowly");
    let line: serde_json::Value = serde_json::from_str(log.lines().last().unwrap_or_default()).expect("an object");
    let accepted = line["messages_out"].as_u64().expect("a number");
    assert!(received < accepted, "{received} of {accepted} were received");
    let page = metrics();
    // And the opener was told that a joiner is there.
    let total = format!(r#"sigver_messages_total{{direction="out"}} {}"#, accepted + 1);
    assert!(page.contains(&total), "{total}: {page}");
}

/// The line tells whether signaling or ICE has failed.
#[test]
fn pairing_end_logs_one_line() {
    let program = Program::start(sigver_server(&LOOPBACK).env("RUST_LOG", "debug"));
    play(|| program.client());
    let (_, log) = program.end(Signal::TERM);
    let traces: Vec<&str> = log.lines().filter(|line| line.contains(" ended-by-")).collect();
    assert_eq!(traces.len(), 1, "{log}");
    assert!(
        traces[0].contains("#1 from ")
            && traces[0].contains(" ended-by-server: 1 messages of the joiner (first after "),
        "{traces:?}"
    );
}

/// The warning names the limit, with and without a trusted proxy.
#[test]
fn rejection_log_names_the_limit() {
    let rejected_by = |flags: &[&str], hold: fn(&Program) -> Box<dyn Any>| {
        let program = Program::start(&mut sigver_server(&[&LOOPBACK[..], flags].concat()));
        let _held = hold(&program);
        let response = exchange(program.addr, (head("/", "") + "\r\n").as_bytes()).expect("an answer");
        assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
        program.end(Signal::TERM).1
    };
    let upgraded = |program: &Program| -> Box<dyn Any> { Box::new(program.client()) };
    for proxy in ["192.0.2.1", "127.0.0.1"] {
        let log = rejected_by(&["--connections-per-ip", "1", "--trusted-proxy", proxy], upgraded);
        assert!(
            log.contains(" rejected: too many connections from this address"),
            "{log}"
        );
    }
    let log = rejected_by(&["--handshakes-per-ip", "1"], |program| {
        Box::new(TcpStream::connect(program.addr).expect("the server accepts a connection"))
    });
    assert!(
        log.contains(" rejected: too many handshakes from this address"),
        "{log}"
    );
}

/// env_logger takes a word that is not a level for the name of a module.
#[test]
fn errors_are_logged_with_any_rust_log() {
    let tokens = TempFile::with("rust-log", "");
    for (chosen, is_default) in [("", true), (" ", true), ("warning", true), ("my_app=debug", false)] {
        tokens.write("SECRET-token-000\n");
        let mut program = Program::start(
            sigver_server(&LOOPBACK)
                .env("RUST_LOG", chosen)
                .env("SIGVER_TOKEN_FILE", tokens.path()),
        );
        tokens.write("short\n");
        program.signal(Signal::HUP);
        let start = program.until_logged("cannot reload tokens");
        assert_eq!(
            start.contains("RUST_LOG: \"warning\" is not a level"),
            chosen == "warning",
            "{chosen:?}: {start}"
        );
        let (_, log) = program.end(Signal::TERM);
        assert_eq!(log.contains(" ended\n"), is_default, "{chosen:?}: {log}");
    }
}

/// Keys, payloads, tokens and close texts are in no output at any log level.
#[test]
fn output_contains_no_client_secret() {
    let tokens = TempFile::with("logs", "SECRET-token-000\n");
    let path = tokens.path();
    for format in ["text", "json"] {
        let arguments = [
            &LOOPBACK[..],
            &[
                "--log-format",
                format,
                "--token-file",
                path,
                "--attempts",
                "1",
                "--admin",
                "127.0.0.1:0",
            ],
        ]
        .concat();
        let mut program = Program::start(sigver_server(&arguments).env("RUST_LOG", "trace"));
        let admin = program.admin();
        let mut stdout = program.child.stdout.take().expect("stdout is a pipe");
        let with_token = || {
            let mut stream = TcpStream::connect(program.addr).expect("the server accepts a connection");
            let request = head("/?token=SECRET-token-000", "\r\n");
            stream.write_all(request.as_bytes()).expect("it reads");
            Client::after_request(stream).expect("the token is valid").0
        };
        play(with_token);
        // Wrong tokens may be valid elsewhere, so they are secret too.
        for (target, more) in [
            ("/?token=SECRET-wrong-00000", ""),
            ("/path?SECRET-query", "Authorization: Bearer SECRET-wrong-00000\r\n"),
            (
                "/",
                "Sec-WebSocket-Protocol: sigver.v1, sigver.bearer.SECRET-wrong-00000\r\n",
            ),
            ("/", "Cookie: SECRET-cookie\r\nOrigin: https://SECRET.example\r\n"),
            ("/", "Sec-WebSocket-Protocol: sigver.v1, SECRET=\"\r\n"),
        ] {
            let answer = exchange(program.addr, (head(target, more) + "\r\n").as_bytes()).expect("an answer");
            assert!(!answer.contains("SECRET"), "{answer}");
        }
        exchange(program.addr, b"SECRET-method / HTTP/1.1\r\n\r\n").expect("an answer");
        let page = get(admin, "/metrics").expect("the page");
        assert!(
            page.contains("sigver_connections ") && !page.contains("SECRET"),
            "{page}"
        );
        program.signal(Signal::HUP);
        let log = program.until_logged("reloaded 1 token") + &program.end(Signal::TERM).1;
        assert!(log.contains("401 Unauthorized to GET /path"), "{log}");
        assert!(!log.contains("SECRET"), "{log}");
        let mut output = String::new();
        stdout.read_to_string(&mut output).expect("stdout is text");
        assert!(!output.contains("SECRET"), "{output}");
    }
}

#[test]
fn repeated_rejections_are_logged_5_times() {
    let program = Program::start(&mut sigver_server(&[&LOOPBACK[..], &["--connections", "1"]].concat()));
    let mut client = program.client();
    client.sync();
    for _ in 0..40 {
        assert!(Client::connect(program.addr, "/").is_err());
    }
    let (_, log) = program.end(Signal::TERM);
    let rejections = log.lines().filter(|line| line.contains(" rejected: ")).count();
    assert_eq!(rejections, 5, "{log}");
}

/// A flood of one kind of rejection does not hide another.
#[test]
fn each_kind_of_rejection_is_logged() {
    let flags = [&LOOPBACK[..], &["--connections", "2", "--connections-per-ip", "1"]].concat();
    let program = Program::start(&mut sigver_server(&flags));
    let mut client = program.client();
    client.sync();
    for _ in 0..10 {
        assert!(Client::connect(program.addr, "/").is_err());
    }
    let second = connect_from(program.addr, [127, 0, 0, 2].into()).expect("the server accepts a connection");
    let (mut second, _) = handshake(second, "/", "").expect("another address has a limit of its own");
    second.sync();
    assert!(Client::connect(program.addr, "/").is_err());
    let (_, log) = program.end(Signal::TERM);
    for (reason, count) in [
        ("too many connections from this address", 5),
        ("too many connections", 1),
    ] {
        let end = format!(" rejected: {reason}");
        assert_eq!(log.lines().filter(|line| line.ends_with(&end)).count(), count, "{log}");
    }
}

/// Probes and pages would fill the log. Of other requests it shows the method and the path, but not the query.
#[test]
fn probes_and_pages_are_logged_at_debug_only() {
    for level in ["info", "debug"] {
        let mut program = Program::start(sigver_server(&[&LOOPBACK[..], &["--demo"]].concat()).env("RUST_LOG", level));
        let addr = program.addr;
        for path in ["/health", "/ready", "/", "/chat.js", "/none?SECRET"] {
            get(addr, path).expect("an answer");
        }
        exchange(addr, b"OPTIONS / HTTP/1.0\r\n\r\n").expect("an answer");
        exchange(addr, b"POST /health?SECRET HTTP/1.1\r\nHost: x\r\n\r\n").expect("an answer");
        exchange(
            addr,
            (head("/health", "X: y\r\n") + "\r\n").replace("13", "8").as_bytes(),
        )
        .expect("an answer");
        let log = program.until_logged("426 Upgrade Required") + &program.end(Signal::TERM).1;
        for (line, is_at_info) in [
            ("answered 200 OK to GET /health\n", false),
            ("answered 200 OK to GET /ready\n", false),
            ("answered 200 OK to GET /\n", false),
            ("answered 200 OK to GET /chat.js\n", false),
            ("answered 200 OK to OPTIONS /\n", false),
            ("answered 404 Not Found to GET /none\n", true),
            ("answered 405 Method Not Allowed to POST /health\n", true),
            ("answered 426 Upgrade Required to GET /health\n", true),
        ] {
            assert_eq!(log.contains(line), is_at_info || level == "debug", "{line}: {log}");
        }
        assert!(!log.contains("SECRET"), "{log}");
    }
}

/// Clients that are not admitted are those whose address matters most.
#[test]
fn log_names_the_client_behind_a_trusted_proxy() {
    for format in ["text", "json"] {
        let flags = [
            "--listen",
            "[::]:0",
            "--trusted-proxy",
            "127.0.0.1",
            "--allow-origin",
            "https://a",
            "--connections-per-ip",
            "1",
            "--log-format",
            format,
        ];
        let program = Program::start(&mut sigver_server(&flags));
        let addr = SocketAddr::from(([127, 0, 0, 1], program.addr.port()));
        let send = |head: String| exchange(addr, (head + "\r\n").as_bytes()).expect("an answer");
        send(head("/", "X-Forwarded-For: 203.0.113.1\r\nOrigin: https://b\r\n"));
        send("GET /none HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.2\r\n".into());
        send("GET /old HTTP/1.1\r\nX-Forwarded-For: ::ffff:203.0.113.3\r\n".into());
        let connect = || TcpStream::connect(addr).expect("the server accepts a connection");
        let headers = "X-Forwarded-For: 203.0.113.4\r\n";
        let held = handshake(connect(), "/", headers).expect("it is admitted");
        assert!(handshake(connect(), "/", headers).is_err());
        drop(held);
        exchange(addr, b"nonsense\r\n\r\n").expect("an answer");
        let (_, log) = program.end(Signal::TERM);
        let parts = [
            ("203.0.113.1", "answered 403 Forbidden to GET /"),
            ("203.0.113.2", "answered 404 Not Found to GET /none"),
            ("203.0.113.3", "answered 400 Bad Request to GET /old"),
            ("203.0.113.4", "rejected: too many connections from this address"),
            ("203.0.113.4", " after "),
            ("127.0.0.1", "answered 400 Bad Request"),
        ];
        for (client, what) in parts {
            let client = match format {
                "json" => format!(r#""client":"{client}""#),
                _ => format!(" from {client}"),
            };
            let is_found = log.lines().any(|line| line.contains(&client) && line.contains(what));
            assert!(is_found, "{client} {what}: {log}");
        }
        assert!(!log.contains("::ffff:"), "{log}");
    }
}

#[test]
fn opener_of_a_generated_key_is_logged_as_an_opener() {
    let mut program = Program::start(sigver_server(&LOOPBACK).env("RUST_LOG", "info"));
    let (mut opener, _) = handshake(
        TcpStream::connect(program.addr).expect("the server accepts a connection"),
        "/",
        "Sec-WebSocket-Protocol: sigver.v1\r\n",
    )
    .expect("a handshake");
    opener.send_text(r#"{"type":"open"}"#).expect("connected");
    assert!(matches!(opener.receive(), Seen::Text(text) if text.contains("opened")));
    drop(opener);
    let log = program.until_logged(" s: ");
    assert!(log.contains(" s: opener, sigver.v1, "), "{log}");
}
