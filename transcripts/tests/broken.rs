//! Plays a transcript against servers that do not respond. The failure names the step.

use std::{
    error::Error,
    io::Write,
    net::{SocketAddr, TcpListener},
    thread,
    time::{Duration, Instant},
};

use sigver_transcripts::{
    Transcript, play,
    socket::{Sockets, Target},
};

const TRANSCRIPT: &str = "# A joiner's data.\nA > {\"type\":\"open\",\"key\":\"tea\"}\n";

/// Returns the line, the expected and the received frame or action.
fn failure(addr: SocketAddr) -> Result<(Option<usize>, String, String), Box<dyn Error>> {
    let transcript = Transcript::parse("broken", TRANSCRIPT)?;
    let until = Instant::now() + Duration::from_millis(300);
    let mut stage = Sockets::until(Target::at(addr), Duration::ZERO, until);
    let failure = play(&transcript, &mut stage).err().ok_or("the transcript passed")?;
    Ok((failure.line, failure.expected, failure.seen))
}

#[test]
fn refused_connection_fails_the_first_step() -> Result<(), Box<dyn Error>> {
    let addr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let (line, expected, seen) = failure(addr)?;
    assert_eq!((line, expected.as_str()), (Some(2), "a connection"));
    assert!(seen.contains("refused"), "{seen}");
    Ok(())
}

#[test]
fn missing_handshake_response_fails_the_first_step() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (line, expected, _) = failure(listener.local_addr()?)?;
    assert_eq!((line, expected.as_str()), (Some(2), "a connection"));
    Ok(())
}

#[test]
fn missing_pong_fails_the_first_frame() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        // The head is longer than one read of the client, and the beginning of a frame follows it.
        let padding = "x".repeat(3_000);
        write!(stream, "HTTP/1.1 101 Switching Protocols\r\nX: {padding}\r\n\r\n")?;
        stream.write_all(&[0x81])?;
        Ok::<_, std::io::Error>(stream)
    });
    let (line, expected, seen) = failure(addr)?;
    assert_eq!((line, expected.as_str()), (Some(2), "the frame is handled"));
    assert_eq!(seen, "no pong in time");
    drop(server.join());
    Ok(())
}
