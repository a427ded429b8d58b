//! What follows the last frame of a connection: what the client still sends, and what it does not read.
#![cfg(target_os = "linux")]

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Shutdown, TcpStream},
    num::NonZeroU32,
    time::Duration,
};

use sigver_server::Config;
use sigver_transcripts::{
    Seen,
    socket::{Client, Opcode, Piece, frame},
};
use socket2::{Domain, Socket, Type};

use crate::support::{Running, connect_from, eventually, handshake, test_config};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// More than the buffers of both sockets and what a server may discard.
const FLOOD_BYTES: usize = 64 * 1024 * 1024;

/// Connects a client whose kernel buffers little.
fn small_client(server: &Running) -> io::Result<Client> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_recv_buffer_size(4096)?;
    socket.connect(&server.addr.into())?;
    Ok(handshake(socket.into(), "/", "")?.0)
}

/// Returns an opener that has not read its messages, which are in the server's kernel, and its joiner.
fn full_opener(server: &Running) -> io::Result<(Client, Client)> {
    let mut opener = small_client(server)?;
    opener.send_text(r#"{"type":"open","key":"full"}"#)?;
    opener.sync();
    let mut joiner = server.client();
    joiner.send_text(r#"{"type":"join","key":"full"}"#)?;
    for _ in 0..2 {
        joiner.send_text(&format!(r#"{{"n":"{}"}}"#, "x".repeat(60_000)))?;
    }
    joiner.sync();
    Ok((opener, joiner))
}

/// Sends until the connection is closed, or until nothing was accepted for a second. Returns the number of bytes.
fn flood(mut stream: &TcpStream) -> io::Result<usize> {
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    let mut sent = 0;
    while sent < FLOOD_BYTES {
        match stream.write(&[0; 65_536]) {
            Ok(count) => sent += count,
            Err(_) => break,
        }
    }
    Ok(sent)
}

#[test]
fn closed_client_that_keeps_sending_is_stopped_by_back_pressure() -> io::Result<()> {
    let mut config = test_config();
    config.endpoint.close_timeout = Duration::from_secs(3600);
    let server = Running::start(config);
    let mut client = server.client();
    client.send_frame(Opcode::Binary, Piece::Last, b"x")?;
    assert!(flood(client.stream())? < FLOOD_BYTES);
    assert_eq!(
        client.receive(),
        Seen::Close(Some(1003), "binary frame: only text is understood".into())
    );
    assert_eq!(server.handle.connection_count(), 1, "it counts until it is aborted");
    Ok(())
}

#[test]
fn rejected_client_that_keeps_sending_is_stopped_by_back_pressure() -> io::Result<()> {
    let mut config = test_config();
    config.endpoint.limits.connections = NonZeroU32::new(1);
    let server = Running::start(config);
    let mut served = server.client();
    let rejected = connect_from(server.addr, LOCALHOST)?;
    assert!(flood(&rejected)? < FLOOD_BYTES / 4);
    served.sync();
    Ok(())
}

#[test]
fn client_counts_until_the_kernel_has_delivered_its_last_bytes() -> io::Result<()> {
    let mut config = test_config();
    config.endpoint.limits.connections = NonZeroU32::new(2);
    config.endpoint.close_timeout = Duration::from_secs(3600);
    let server = Running::start(config);
    let (mut opener, mut joiner) = full_opener(&server)?;
    opener.send_frame(Opcode::Close, Piece::Last, &1000_u16.to_be_bytes())?;
    opener.stream().shutdown(Shutdown::Write)?;
    assert_eq!(joiner.receive(), Seen::Close(Some(4001), "opener left".into()));
    drop(joiner);
    let connect = || handshake(connect_from(server.addr, LOCALHOST)?, "/", "");
    let mut second = None;
    eventually("the joiner is gone", || {
        second = connect().ok();
        second.is_some()
    });
    for _ in 0..20 {
        assert!(connect().is_err());
    }
    assert_eq!(opener.receive(), Seen::Text(r#"{"type":"join"}"#.into()));
    for _ in 0..2 {
        assert!(matches!(opener.receive(), Seen::Text(text) if text.len() > 60_000));
    }
    assert_eq!(opener.receive(), Seen::Close(Some(1000), String::new()));
    eventually("a place is free again", || connect().is_ok());
    Ok(())
}

/// The kernel would keep the rest for minutes, for a client that no longer counts.
fn assert_rest_is_discarded(config: Config, end: impl FnOnce(&mut Client) -> io::Result<()>) -> io::Result<()> {
    let server = Running::start(config);
    let (mut opener, joiner) = full_opener(&server)?;
    end(&mut opener)?;
    drop(joiner);
    eventually("both are gone", || server.handle.connection_count() == 0);
    let outcome = opener.stream().read_to_end(&mut Vec::new());
    assert_eq!(
        outcome.map_err(|error| error.kind()),
        Err(io::ErrorKind::ConnectionReset)
    );
    Ok(())
}

#[test]
fn rest_of_an_aborted_client_is_discarded() -> io::Result<()> {
    let mut config = test_config();
    config.endpoint.close_timeout = Duration::from_millis(100);
    assert_rest_is_discarded(config, |opener| opener.send_frame(Opcode::Binary, Piece::Last, b"x"))
}

#[test]
fn rest_of_a_client_that_left_without_a_close_frame_is_discarded() -> io::Result<()> {
    assert_rest_is_discarded(test_config(), |opener| opener.stream().shutdown(Shutdown::Write))
}

#[test]
fn end_of_a_client_that_has_read_everything_is_orderly() -> io::Result<()> {
    let server = Running::start(test_config());
    let mut client = server.client();
    client.sync();
    client.stream().shutdown(Shutdown::Write)?;
    assert_eq!(client.stream().read_to_end(&mut Vec::new())?, 0);
    Ok(())
}

/// At one message a second, the unread messages would take an hour.
#[test]
fn end_of_a_paused_client_is_noticed() -> io::Result<()> {
    let mut config = test_config();
    config.endpoint.messages_per_second = NonZeroU32::new(1);
    let server = Running::start(config);
    let mut client = server.client();
    client.send_text(r#"{"type":"open","key":"k"}"#)?;
    client.send_raw(&frame(Opcode::Ping, Piece::Last, b"").repeat(3_600))?;
    client.stream().shutdown(Shutdown::Write)?;
    eventually("its key is free", || server.handle.stats().keys == 0);
    eventually("it is gone", || server.handle.connection_count() == 0);
    Ok(())
}

/// tungstenite replaces a close frame with a reserved code by one with this code and text.
#[test]
fn close_frame_with_the_text_of_a_violation_is_echoed() -> io::Result<()> {
    let server = Running::start(test_config());
    for (code, answer) in [
        (1002, Seen::Close(Some(1002), String::new())),
        (1005, Seen::Close(Some(1002), "broken WebSocket framing".into())),
    ] {
        let mut client = server.client();
        let payload = [&u16::to_be_bytes(code)[..], b"Protocol violation"].concat();
        // With more behind it, in the same read.
        let close = frame(Opcode::Close, Piece::Last, &payload);
        client.send_raw(&[close, frame(Opcode::Ping, Piece::Last, b"late")].concat())?;
        assert_eq!(client.receive(), answer);
    }
    Ok(())
}
