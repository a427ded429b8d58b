//! Tests how the example `peer` notices a server that does not answer: its decisions in virtual time, and its socket with short times.

use std::{
    error::Error,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use tungstenite::{
    Message, WebSocket, accept_hdr,
    handshake::server::{Request, Response},
};

use liveness::{Liveness, Step, Times};
use socket::connect;

#[path = "../peer/liveness.rs"]
mod liveness;
#[path = "../peer/socket.rs"]
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
    assert_eq!(received[0], 0x89, "a ping: {received:x?}");
    assert_eq!(received.len(), 6, "one frame: {received:x?}");
    Ok(())
}

#[test]
fn answered_ping_keeps_connection() -> Result<(), Box<dyn Error>> {
    let (url, server) = listen(|stream| {
        let mut websocket = upgrade(stream);
        while websocket.read().is_ok() {}
    })?;
    let times = Times {
        ping_after: SHORT,
        pong_within: NEVER,
        ..TIMES
    };
    let (mut reader, writer) = connect(&url, SUBPROTOCOL, times)?;
    for _ in 0..3 {
        assert_eq!(reader.read()?, Message::Pong("".into()));
    }
    drop((reader, writer));
    server.join().expect("the server ends");
    Ok(())
}

#[test]
fn write_to_server_that_does_not_read_ends_both_halves() -> Result<(), Box<dyn Error>> {
    let (done, wait) = std::sync::mpsc::channel::<()>();
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
