//! Tests the client engine with a server that sends its output in parts.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use sigver_benches::{
    engine::{
        Endpoint, Engine,
        connections::{Connections, Handler},
        event::{ConnId, Event},
    },
    frame::{self, Opcode},
};

/// Records all events, and sends a message after the upgrade.
#[derive(Default)]
struct Recorder(Vec<String>);

impl Handler for Recorder {
    fn on_event(&mut self, conns: &mut Connections, id: ConnId, tag: u64, event: Event<'_>) {
        assert_eq!(tag, 7);
        self.0.push(match event {
            Event::Upgraded => {
                conns.send(id, &frame::client_text(b"hello"));
                "upgraded".to_owned()
            }
            Event::Message(text) => format!("message of {} bytes", text.len()),
            Event::Pong(body) => format!("pong {body:?}"),
            Event::Close(code) => format!("close {code:?}"),
            Event::Drained => "drained".to_owned(),
            Event::Disconnected(reason) => format!("disconnected {reason:?}"),
        });
    }
}

fn frame(opcode: Opcode, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame::push_server_header(&mut frame, opcode, body.len());
    frame.extend_from_slice(body);
    frame
}

/// Returns all frames that the server sends after the upgrade.
fn frames() -> Vec<u8> {
    let mut frames = frame(Opcode::Text, &[b'x'; 300]);
    let mut first_part = frame(Opcode::Text, b"abc");
    first_part[0] &= 0x7f;
    frames.extend(first_part);
    frames.extend(frame(Opcode::Ping, b"?"));
    frames.extend(frame(Opcode::Continuation, b"de"));
    frames.extend(frame(Opcode::Pong, b"!"));
    frames.extend(frame(Opcode::Text, &vec![b'y'; 70_000]));
    frames.extend(frame(Opcode::Close, &1001_u16.to_be_bytes()));
    frames
}

/// Serves one client, writes `parts` one by one, and returns what the client has sent after its request.
fn serve(listener: &TcpListener, parts: &[&[u8]]) -> Vec<u8> {
    let (mut stream, _) = listener.accept().expect("a client");
    stream.set_nodelay(true).expect("no delay");
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a request");
        request.push(byte[0]);
    }
    for part in parts {
        stream.write_all(part).expect("the client reads");
        // Lets the client read each part on its own.
        thread::sleep(Duration::from_micros(50));
    }
    read_to_close(&mut stream)
}

fn read_to_close(stream: &mut TcpStream) -> Vec<u8> {
    let mut end = Vec::new();
    frame::push_client_frame(&mut end, Opcode::Close, &1001_u16.to_be_bytes());
    let mut received = Vec::new();
    while !received.ends_with(&end) {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a close frame");
        received.push(byte[0]);
    }
    received
}

fn check(parts: &[&[u8]]) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = Endpoint {
        addr: listener.local_addr().expect("an address"),
        path: "/".to_owned(),
    };
    let (recorder, received) = thread::scope(|scope| {
        let server = scope.spawn(|| serve(&listener, parts));
        let mut engine = Engine::new(&endpoint, Arc::default()).expect("an engine");
        engine.conns().connect(7).expect("a socket");
        let mut recorder = Recorder::default();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !engine.conns().is_empty() && Instant::now() < deadline {
            engine.poll(Duration::from_millis(20), &mut recorder).expect("events");
        }
        (recorder, server.join().expect("server thread"))
    });
    assert_eq!(
        recorder.0,
        [
            "upgraded",
            "message of 300 bytes",
            "message of 5 bytes",
            "pong [33]",
            "message of 70000 bytes",
            "close Some(1001)",
            "disconnected Eof",
        ]
    );
    let mut answers = frame::client_text(b"hello");
    frame::push_client_frame(&mut answers, Opcode::Pong, b"?");
    frame::push_client_frame(&mut answers, Opcode::Close, &1001_u16.to_be_bytes());
    assert_eq!(received, answers);
}

const UPGRADE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

#[test]
fn frames_in_one_write_are_all_dispatched() {
    check(&[&[UPGRADE, &frames()].concat()]);
}

#[test]
fn frames_split_at_every_byte_are_reassembled() {
    let all = [UPGRADE, &frames()].concat();
    // The inside of the long message is uniform, so its edges are sufficient.
    let (start, end) = (UPGRADE.len() + 340, all.len() - 20);
    let mut parts: Vec<&[u8]> = all[..start].chunks(1).collect();
    parts.push(&all[start..end]);
    parts.extend(all[end..].chunks(1));
    check(&parts);
}

#[test]
fn limited_connection_reads_what_it_is_allowed_to() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = Endpoint {
        addr: listener.local_addr().expect("an address"),
        path: "/".to_owned(),
    };
    let all = [UPGRADE, &frames()].concat();
    let (messages, received) = thread::scope(|scope| {
        let server = scope.spawn(|| serve(&listener, &[UPGRADE, &frames()]));
        let mut engine = Engine::new(&endpoint, Arc::default()).expect("an engine");
        engine.conns().set_receive_buffer(Some(16 * 1024));
        let id = engine.conns().connect(7).expect("a socket");
        // More than the burst is not saved up.
        engine.conns().allow_reading(id, usize::MAX, all.len() - 1);
        let mut recorder = Recorder::default();
        let deadline = Instant::now() + Duration::from_secs(20);
        while recorder.0.len() < 5 && Instant::now() < deadline {
            engine.poll(Duration::from_millis(1), &mut recorder).expect("events");
        }
        engine.poll(Duration::from_millis(20), &mut recorder).expect("events");
        let before = recorder.0.len();
        while !engine.conns().is_empty() && Instant::now() < deadline {
            engine.conns().allow_reading(id, 1, 1);
            engine.poll(Duration::from_millis(20), &mut recorder).expect("events");
        }
        assert_eq!(recorder.0.len(), before + 2, "{:?}", recorder.0);
        (before, server.join().expect("server thread"))
    });
    assert_eq!(messages, 5, "the last byte of the close frame is missing");
    assert!(!received.is_empty());
}

#[test]
fn poll_fails_if_stop_flag_is_set() {
    let endpoint = Endpoint {
        addr: ([127, 0, 0, 1], 9).into(),
        path: "/".to_owned(),
    };
    let stop = Arc::new(true.into());
    let mut engine = Engine::new(&endpoint, stop).expect("an engine");
    let error = engine
        .poll(Duration::ZERO, &mut Recorder::default())
        .expect_err("stopped");
    assert_eq!(error.kind(), std::io::ErrorKind::Interrupted);
}
