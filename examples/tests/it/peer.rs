//! Tests how the example `peer` notices a server that does not answer, and comes back: its decisions in virtual time, and the rest with short
//! times.

use std::{
    error::Error,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use sigver_server::{Config, Server};
use sigver_transcripts::{
    Seen,
    kit::DEADLINE,
    socket::{Client, Opcode, Piece, Target},
};

use tungstenite::{
    Message, WebSocket, accept_hdr,
    handshake::server::{Request, Response},
};

use backoff::{Backoff, Bounds};
use liveness::{Liveness, Step, Times};
use session::{Line, Options, Role};
use socket::connect;

#[path = "../../peer/backoff.rs"]
mod backoff;
#[path = "../../peer/input.rs"]
mod input;
#[path = "../../peer/liveness.rs"]
mod liveness;
#[path = "../../peer/messages.rs"]
mod messages;
#[path = "../../peer/session.rs"]
mod session;
#[path = "../../peer/socket.rs"]
mod socket;

const TIMES: Times = Times {
    connect: Duration::from_secs(10),
    ping_after: Duration::from_secs(30),
    pong_within: Duration::from_secs(20),
};

/// Short, for tests in which the server does not answer.
const SHORT: Duration = Duration::from_millis(50);

/// Longer than a test may take.
const NEVER: Duration = Duration::from_secs(3600);

const SUBPROTOCOL: &str = "sigver.v1";

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn silent_connection_is_pinged_once_then_given_up() {
    let start = Instant::now();
    let mut liveness = Liveness::handshake(TIMES, start);
    liveness.connected(start + seconds(1));
    assert_eq!(liveness.deadline(), start + seconds(31));
    assert_eq!(liveness.timed_out(start + seconds(30)), None);
    assert_eq!(liveness.timed_out(start + seconds(31)), Some(Step::Ping));
    assert_eq!(liveness.deadline(), start + seconds(51));
    assert_eq!(liveness.timed_out(start + seconds(50)), None);
    assert_eq!(liveness.timed_out(start + seconds(51)), Some(Step::GiveUp));
}

#[test]
fn received_bytes_restart_both_waits() {
    let start = Instant::now();
    let mut liveness = Liveness::handshake(TIMES, start);
    liveness.connected(start);
    liveness.received(start + seconds(29));
    assert_eq!(liveness.timed_out(start + seconds(58)), None);
    assert_eq!(liveness.timed_out(start + seconds(59)), Some(Step::Ping));
    liveness.received(start + seconds(78));
    assert_eq!(liveness.deadline(), start + seconds(108));
    assert_eq!(liveness.timed_out(start + seconds(108)), Some(Step::Ping));
}

/// A ping is sent however late the timeout is noticed, for example after the process was stopped.
#[test]
fn late_timeout_sends_ping_before_giving_up() {
    let start = Instant::now();
    let mut liveness = Liveness::handshake(TIMES, start);
    liveness.connected(start);
    assert_eq!(liveness.timed_out(start + seconds(500)), Some(Step::Ping));
    assert_eq!(liveness.deadline(), start + seconds(520));
}

#[test]
fn received_bytes_do_not_extend_handshake() {
    let start = Instant::now();
    let mut liveness = Liveness::handshake(TIMES, start);
    liveness.received(start + seconds(9));
    assert_eq!(liveness.deadline(), start + seconds(10));
    assert_eq!(liveness.timed_out(start + seconds(10)), Some(Step::GiveUp));
}

/// Listens, and calls `serve` with the connection.
fn listen<T: Send + 'static>(
    serve: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> io::Result<(String, thread::JoinHandle<T>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("ws://{}", listener.local_addr()?);
    let thread = thread::spawn(move || serve(listener.accept().expect("a connection").0));
    Ok((url, thread))
}

fn upgrade(stream: TcpStream) -> WebSocket<TcpStream> {
    #[expect(clippy::result_large_err, reason = "required by tungstenite")]
    fn echo(_: &Request, mut response: Response) -> Result<Response, tungstenite::handshake::server::ErrorResponse> {
        let header = SUBPROTOCOL.parse().expect("a header value");
        response.headers_mut().insert("Sec-WebSocket-Protocol", header);
        Ok(response)
    }
    accept_hdr(stream, echo).expect("a handshake")
}

/// Returns the error of a connection attempt.
fn connect_error(url: &str) -> String {
    let times = Times {
        connect: SHORT,
        ..TIMES
    };
    match connect(url, SUBPROTOCOL, times) {
        Ok(_) => "connected".into(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn connect_fails_if_server_does_not_respond() -> Result<(), Box<dyn Error>> {
    // The kernel accepts the connection.
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    let error = connect_error(&format!("ws://{addr}"));
    assert_eq!(error, format!("no response from {addr} within 0.05 s"));
    Ok(())
}

#[test]
fn connect_fails_if_response_is_sent_too_slowly() -> Result<(), Box<dyn Error>> {
    let (url, server) = listen(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n");
        // Until the client disconnects.
        while stream.write_all(b"x").is_ok() {
            thread::sleep(SHORT / 10);
        }
    })?;
    let error = connect_error(&url);
    assert!(error.starts_with("no response from "), "{error}");
    server.join().expect("the server ends");
    Ok(())
}

#[test]
fn silent_server_gets_ping_and_connection_is_given_up() -> Result<(), Box<dyn Error>> {
    let (url, server) = listen(|stream| {
        let websocket = upgrade(stream);
        let mut received = Vec::new();
        websocket.get_ref().read_to_end(&mut received).map(|_| received)
    })?;
    let times = Times {
        ping_after: SHORT,
        pong_within: SHORT,
        ..TIMES
    };
    let (mut reader, writer) = connect(&url, SUBPROTOCOL, times)?;
    let error = reader.read().expect_err("no answer");
    assert_eq!(error.to_string(), "connection lost: no answer to a ping within 0.05 s");
    drop((reader, writer));
    let received = server.join().expect("the server ends")?;
    let ping = messages::Sent::Ping.to_text();
    assert_eq!(received[..2], [0x81, 0x80 | ping.len() as u8], "{received:x?}");
    assert_eq!(received.len(), 6 + ping.len(), "one frame: {received:x?}");
    Ok(())
}

#[test]
fn answered_ping_keeps_connection() -> Result<(), Box<dyn Error>> {
    let (url, server) = listen(|stream| {
        let mut websocket = upgrade(stream);
        while let Ok(message) = websocket.read() {
            assert_eq!(message, Message::text(r#"{"type":"ping"}"#));
            websocket.send(Message::text(r#"{"type":"pong"}"#)).expect("a client");
        }
    })?;
    let times = Times {
        ping_after: SHORT,
        pong_within: NEVER,
        ..TIMES
    };
    let (mut reader, writer) = connect(&url, SUBPROTOCOL, times)?;
    for _ in 0..3 {
        assert_eq!(reader.read()?, Message::text(r#"{"type":"pong"}"#));
    }
    drop((reader, writer));
    server.join().expect("the server ends");
    Ok(())
}

#[test]
fn write_to_server_that_does_not_read_ends_both_halves() -> Result<(), Box<dyn Error>> {
    let (done, wait) = channel::<()>();
    let (url, server) = listen(move |stream| {
        let websocket = upgrade(stream);
        let _ = wait.recv();
        drop(websocket);
    })?;
    let times = Times {
        ping_after: NEVER,
        pong_within: SHORT,
        ..TIMES
    };
    let (mut reader, mut writer) = connect(&url, SUBPROTOCOL, times)?;
    let reading = thread::spawn(move || reader.read().is_err());
    let text = "x".repeat(60_000);
    let error = loop {
        if let Err(error) = writer.send(Message::text(text.as_str())) {
            break error;
        }
    };
    assert_eq!(
        error.to_string(),
        "IO error: connection lost: the server accepts no data"
    );
    assert!(reading.join().expect("the reader ends"));
    drop(done);
    server.join().expect("the server ends");
    Ok(())
}

#[test]
fn time_between_attempts_doubles_up_to_its_bound() {
    let mut backoff = Backoff::new(Bounds {
        first: seconds(1),
        last: seconds(30),
    });
    let bounds: Vec<_> = (0..7).map(|_| backoff.next(u32::MAX).as_secs()).collect();
    assert_eq!(bounds, [1, 2, 4, 8, 16, 30, 30]);
    assert_eq!(backoff.next(0), Duration::ZERO);
    backoff.reset();
    assert_eq!(backoff.next(u32::MAX).as_secs(), 1);
}

/// A proxy whose connections can fall silent without an error, as when a cable is pulled.
struct Cable {
    addr: SocketAddr,
    accepted: Arc<AtomicUsize>,
    /// Connections with a lower number are silent.
    silent: Arc<AtomicUsize>,
}

impl Cable {
    fn to(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let cable = Self {
            addr: listener.local_addr()?,
            accepted: Arc::default(),
            silent: Arc::default(),
        };
        let (accepted, silent) = (Arc::clone(&cable.accepted), Arc::clone(&cable.silent));
        thread::spawn(move || {
            for client in listener.incoming() {
                let number = accepted.fetch_add(1, Ordering::SeqCst);
                let client = client.expect("a connection");
                let server = TcpStream::connect(server).expect("the server is there");
                for (mut from, mut to) in [
                    (
                        client.try_clone().expect("a socket"),
                        server.try_clone().expect("a socket"),
                    ),
                    (server, client),
                ] {
                    let silent = Arc::clone(&silent);
                    thread::spawn(move || {
                        let mut bytes = [0; 4096];
                        loop {
                            let read = from.read(&mut bytes).unwrap_or(0);
                            if silent.load(Ordering::SeqCst) > number {
                                // Neither side learns of the end of the other.
                                thread::sleep(NEVER);
                            }
                            if read == 0 || to.write_all(&bytes[..read]).is_err() {
                                let _ = to.shutdown(std::net::Shutdown::Both);
                                return;
                            }
                        }
                    });
                }
            }
        });
        Ok(cable)
    }

    /// Silences every connection. Later ones work.
    fn pull(&self) {
        self.silent
            .store(self.accepted.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

/// Starts a server.
fn serve() -> Result<SocketAddr, Box<dyn Error>> {
    let mut config = Config::default();
    config.listen = vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()];
    let server = Server::bind(config)?;
    let addr = server.local_addr().ok_or("no TCP address")?;
    // It runs until the process exits.
    thread::spawn(|| server.run());
    Ok(addr)
}

/// A peer on a thread of its own.
struct Peer {
    lines: Sender<String>,
    shown: Receiver<Line>,
    thread: thread::JoinHandle<Result<(), String>>,
}

impl Peer {
    /// Starts a peer that notices a silent connection soon.
    fn start(addr: SocketAddr, role: Role) -> Self {
        let (lines, input) = channel();
        let (show, shown) = channel();
        let options = Options {
            url: format!("ws://{addr}"),
            role,
            times: Times {
                ping_after: SHORT,
                // A busy machine may take long to answer.
                pong_within: Duration::from_secs(2),
                ..TIMES
            },
            backoff: Bounds {
                first: SHORT,
                last: SHORT,
            },
        };
        let thread = thread::spawn(move || {
            let mut show = |line| drop(show.send(line));
            session::run(&options, input, &mut show).map_err(|error| error.to_string())
        });
        Self { lines, shown, thread }
    }

    fn opener() -> Role {
        Role::Opener(Some("tea".into()))
    }

    fn joiner() -> Role {
        Role::Joiner("tea".into())
    }

    fn type_line(&self, line: &str) {
        self.lines.send(line.into()).expect("the peer reads");
    }

    /// Skips lines up to one that is equal.
    fn expect(&self, line: &Line) {
        let mut before = Vec::new();
        loop {
            match self.shown.recv_timeout(DEADLINE) {
                Ok(shown) if shown == *line => return,
                Ok(shown) => before.push(shown),
                Err(error) => panic!("{line:?}: {error} after {before:?}"),
            }
        }
    }

    fn expect_note(&self, text: &str) {
        self.expect(&Line::Note(text.into()));
    }

    fn expect_data(&self, text: &str) {
        self.expect(&Line::Data(text.into()));
    }

    /// Ends the input and returns the result.
    fn end(self) -> Result<(), String> {
        drop(self.lines);
        self.thread.join().expect("the peer does not panic")
    }

    /// Returns the result of a peer that ends before its input.
    fn error(self) -> String {
        let result = self.thread.join().expect("the peer does not panic");
        drop(self.lines);
        result.expect_err("an error")
    }
}

/// A client of `sigver.v1` that is connected to the server directly.
fn client(addr: SocketAddr) -> io::Result<Client> {
    Target::at(addr).connect(Some(SUBPROTOCOL), Instant::now() + DEADLINE)
}

/// Receives a message.
fn message(client: &mut Client) -> Value {
    match client.receive() {
        Seen::Text(text) => serde_json::from_str(&text).expect("JSON"),
        seen => panic!("{seen:?}"),
    }
}

#[test]
fn opener_on_dead_connection_comes_back_and_keeps_its_joiners() -> Result<(), Box<dyn Error>> {
    let server = serve()?;
    let cable = Cable::to(server)?;
    let opener = Peer::start(cable.addr, Peer::opener());
    opener.expect_note("opened tea");
    let mut joiner = client(server)?;
    joiner.send_text(r#"{"type":"join","key":"tea"}"#)?;
    let joined = message(&mut joiner);
    opener.expect_note("0 joined");
    for round in 0..2 {
        cable.pull();
        opener.expect_note("connection lost: no answer to a ping within 2 s; connecting again");
        opener.expect_note("opened tea again, with 0");
        let reopened = message(&mut joiner);
        assert_eq!(
            (&reopened["type"], &reopened["id"]),
            (&"reopened".into(), &joined["id"])
        );
        joiner.send_text(&format!(r#"{{"type":"send","data":{round}}}"#))?;
        opener.expect_data(&format!("0: {round}"));
        opener.type_line("still here");
        assert_eq!(message(&mut joiner)["data"], "still here");
    }
    opener.end()?;
    assert_eq!(message(&mut joiner)["code"], "opener-left");
    Ok(())
}

#[test]
fn joiner_on_dead_connection_joins_again_with_its_id() -> Result<(), Box<dyn Error>> {
    let server = serve()?;
    let cable = Cable::to(server)?;
    let opener = Peer::start(server, Peer::opener());
    opener.expect_note("opened tea");
    let joiner = Peer::start(cable.addr, Peer::joiner());
    joiner.expect_note("joined with index 0");
    opener.expect_note("0 joined");
    cable.pull();
    joiner.expect_note("joined with index 1, to the same opener");
    opener.expect_note("1 joined, formerly 0");
    opener.type_line("1: welcome back");
    joiner.expect_data("welcome back");
    joiner.end()?;
    opener.expect_note("1 left");
    Ok(opener.end()?)
}

/// Lines that are typed while there is no opener are sent to the next one.
#[test]
fn joiner_waits_for_one_opener_after_the_other() -> Result<(), Box<dyn Error>> {
    let server = serve()?;
    let joiner = Peer::start(server, Peer::joiner());
    for number in 0..2 {
        joiner.expect_note("waiting for tea");
        let line = format!("hello {number}");
        joiner.type_line(&line);
        let mut opener = client(server)?;
        opener.send_text(r#"{"type":"open","key":"tea","id":"o"}"#)?;
        assert_eq!(message(&mut opener)["type"], "opened");
        joiner.expect_note(["joined with index 0", "joined with index 0, to the same opener"][number]);
        assert_eq!(message(&mut opener)["type"], "join");
        assert_eq!(message(&mut opener)["data"], Value::from(line));
        opener.send_frame(Opcode::Close, Piece::Last, &1000_u16.to_be_bytes())?;
        joiner.expect_note("opener-left");
    }
    joiner.expect_note("waiting for tea");
    Ok(joiner.end()?)
}

/// The end of the input is noticed in each state without a role.
#[test]
fn peer_ends_with_its_input_while_it_connects_again() -> Result<(), Box<dyn Error>> {
    let (url, server) = listen(|stream| {
        let mut websocket = upgrade(stream);
        let opened = r#"{"type":"opened","key":"tea","token":"t"}"#;
        websocket.send(Message::text(opened)).expect("a client");
        // Nobody listens when it is dropped.
        websocket.read().expect("an open")
    })?;
    let addr = url.trim_start_matches("ws://").parse()?;
    let opener = Peer::start(addr, Peer::opener());
    opener.expect_note("opened tea");
    server.join().expect("the server ends");
    loop {
        match opener.shown.recv_timeout(DEADLINE)? {
            Line::Note(note) if note.starts_with("cannot connect to 127.0.0.1:") => break,
            _ => {}
        }
    }
    Ok(opener.end()?)
}

#[test]
fn peer_ends_if_it_is_kicked_or_key_is_taken() -> Result<(), Box<dyn Error>> {
    let server = serve()?;
    let mut opener = client(server)?;
    opener.send_text(r#"{"type":"open","key":"tea"}"#)?;
    assert_eq!(message(&mut opener)["type"], "opened");
    let joiner = Peer::start(server, Peer::joiner());
    assert_eq!(message(&mut opener)["type"], "join");
    opener.send_text(r#"{"type":"kick","index":0}"#)?;
    assert_eq!(joiner.error(), "kicked");
    let second = Peer::start(server, Peer::opener());
    assert_eq!(second.error(), "key-taken: `key` is taken: another opener has it");
    Ok(())
}

#[test]
fn peer_ends_if_its_role_is_taken_over() -> Result<(), Box<dyn Error>> {
    let (url, server) = listen(|stream| {
        let mut websocket = upgrade(stream);
        for text in [
            r#"{"type":"opened","key":"tea","token":"t"}"#,
            r#"{"type":"closed","code":"taken-over"}"#,
        ] {
            websocket.send(Message::text(text)).expect("a client");
        }
        while websocket.read().is_ok() {}
    })?;
    let opener = Peer::start(url.trim_start_matches("ws://").parse()?, Peer::opener());
    assert_eq!(opener.error(), "taken-over");
    server.join().expect("the server ends");
    Ok(())
}
