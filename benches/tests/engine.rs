//! The client engine against a server that sends what it has to say in pieces.

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

/// Writes down what happens, and asks a question once it may.
#[derive(Default)]
struct Diary(Vec<String>);

impl Handler for Diary {
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
            Event::Ended(ending) => format!("ended {ending:?}"),
        });
    }
}

fn frame(opcode: Opcode, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame::push_server_header(&mut frame, opcode, body.len());
    frame.extend_from_slice(body);
    frame
}

/// Everything that the server says after the upgrade.
fn speech() -> Vec<u8> {
    let mut speech = frame(Opcode::Text, &[b'x'; 300]);
    let mut first_part = frame(Opcode::Text, b"abc");
    first_part[0] &= 0x7f;
    speech.extend(first_part);
    speech.extend(frame(Opcode::Ping, b"?"));
    speech.extend(frame(Opcode::Continuation, b"de"));
    speech.extend(frame(Opcode::Pong, b"!"));
    speech.extend(frame(Opcode::Text, &vec![b'y'; 70_000]));
    speech.extend(frame(Opcode::Close, &1001_u16.to_be_bytes()));
    speech
}

/// Serves one client, writes the pieces one by one, and returns what the client has sent after its request.
fn serve(listener: &TcpListener, pieces: &[&[u8]]) -> Vec<u8> {
    let (mut stream, _) = listener.accept().expect("a client");
    stream.set_nodelay(true).expect("no delay");
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a request");
        request.push(byte[0]);
    }
    for piece in pieces {
        stream.write_all(piece).expect("the client reads");
        // So that pieces arrive as pieces.
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

fn check(pieces: &[&[u8]]) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = Endpoint {
        addr: listener.local_addr().expect("an address"),
        path: "/".to_owned(),
    };
    let (diary, received) = thread::scope(|scope| {
        let server = scope.spawn(|| serve(&listener, pieces));
        let mut engine = Engine::new(&endpoint, Arc::default()).expect("an engine");
        engine.conns().connect(7).expect("a socket");
        let mut diary = Diary::default();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !engine.conns().is_empty() && Instant::now() < deadline {
            engine.poll(Duration::from_millis(20), &mut diary).expect("events");
        }
        (diary, server.join().expect("the server is content"))
    });
    assert_eq!(
        diary.0,
        [
            "upgraded",
            "message of 300 bytes",
            "message of 5 bytes",
            "pong [33]",
            "message of 70000 bytes",
            "close Some(1001)",
            "ended Eof",
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
fn everything_at_once() {
    check(&[&[UPGRADE, &speech()].concat()]);
}

#[test]
fn byte_by_byte_at_the_edges_of_frames() {
    let all = [UPGRADE, &speech()].concat();
    // The long text's inside is all alike: its edges are enough.
    let (start, end) = (UPGRADE.len() + 340, all.len() - 20);
    let mut pieces: Vec<&[u8]> = all[..start].chunks(1).collect();
    pieces.push(&all[start..end]);
    pieces.extend(all[end..].chunks(1));
    check(&pieces);
}

#[test]
fn a_set_flag_ends_polling() {
    let endpoint = Endpoint {
        addr: ([127, 0, 0, 1], 9).into(),
        path: "/".to_owned(),
    };
    let stop = Arc::new(true.into());
    let mut engine = Engine::new(&endpoint, stop).expect("an engine");
    let error = engine.poll(Duration::ZERO, &mut Diary::default()).expect_err("stopped");
    assert_eq!(error.kind(), std::io::ErrorKind::Interrupted);
}
