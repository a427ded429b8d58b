//! The server inside another program: started on a free port, used by two clients, ended by its handle.
//!
//! `cargo run --release --example in_process`

#![allow(clippy::print_stdout, reason = "it is what the example shows")]

use std::{error::Error, net::SocketAddr, net::TcpStream, thread};

use sigver_server::{Config, Server};
use tungstenite::{Message, WebSocket};

fn main() -> Result<(), Box<dyn Error>> {
    let mut config = Config::default();
    config.listen = vec!["127.0.0.1:0".parse()?]; // port 0: any that is free
    config.limits.joiners_per_key = 4;

    let server = Server::bind(config)?;
    let (addr, handle) = (server.local_addr(), server.handle());
    let running = thread::spawn(move || server.run());
    println!("listening on {addr}");

    let mut opener = connect(addr)?;
    let mut joiner = connect(addr)?;

    say(&mut opener, r#"{"type":"open","key":"tea"}"#)?;
    // The plain protocol does not acknowledge. But a pong comes after all that was sent before its ping has been handled, so now
    // the key is open, and another connection can join it.
    opener.send(Message::Ping("is it open?".into()))?;
    while !opener.read()?.is_pong() {}

    say(&mut joiner, r#"{"type":"join","key":"tea"}"#)?;
    hear("opener", &mut opener)?;
    say(&mut joiner, r#"{"type":"offer","sdp":"…"}"#)?;
    hear("opener", &mut opener)?;
    say(&mut opener, r#"{"index":0,"type":"answer","sdp":"…"}"#)?;
    hear("joiner", &mut joiner)?;
    println!("{:?}", handle.stats());

    handle.shutdown();
    println!("opener is closed: {}", opener.read()?);
    running.join().map_err(|_| "the server has panicked")??;
    Ok(())
}

fn connect(addr: SocketAddr) -> Result<WebSocket<TcpStream>, Box<dyn Error>> {
    let stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    Ok(tungstenite::client(format!("ws://{addr}/"), stream)?.0)
}

fn say(socket: &mut WebSocket<TcpStream>, text: &str) -> Result<(), tungstenite::Error> {
    socket.send(text.into())
}

fn hear(who: &str, socket: &mut WebSocket<TcpStream>) -> Result<(), tungstenite::Error> {
    let message = socket.read()?;
    println!("{who} hears {message}");
    Ok(())
}
