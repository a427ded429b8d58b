//! The server as a library in another program: it listens on a free port, admits clients with a ticket, serves two clients and is shut down
//! through its handle.
//!
//! `cargo run --release --example in_process`

#![allow(clippy::print_stdout, reason = "prints what happens")]

use std::{
    collections::BTreeSet,
    error::Error,
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use sigver_server::{Admission, Config, Denied, Handshake, Permit, Server};
use tungstenite::{Message, WebSocket};

/// Admits each client with a ticket, once. The program issues tickets, for example at login.
#[derive(Debug, Default)]
struct Tickets(Mutex<BTreeSet<String>>);

impl Tickets {
    fn issue(&self, ticket: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(ticket.to_owned());
    }
}

impl Admission for Tickets {
    /// Called for each handshake, on the thread of the connection. It may block.
    fn admit(&self, handshake: &Handshake<'_>) -> Result<Permit, Denied> {
        let ticket = handshake
            .query()
            .and_then(|query| query.strip_prefix("ticket="))
            .unwrap_or_default();
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(ticket) {
            Ok(Permit::default())
        } else {
            Err(Denied::new(403, "no valid ticket"))
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut config = Config::default();
    config.listen = vec!["127.0.0.1:0".parse()?]; // port 0: any free port
    config.endpoint.limits.joiners_per_key = 4;
    let tickets = Arc::new(Tickets::default());
    config.admission.push(Arc::<Tickets>::clone(&tickets));

    let server = Server::bind(config)?;
    let (addr, handle) = (server.local_addr(), server.handle());
    let running = thread::spawn(move || server.run());
    println!("listening on {addr}");

    tickets.issue("opener-ticket");
    tickets.issue("joiner-ticket");
    let mut opener = connect(addr, "opener-ticket")?;
    let mut joiner = connect(addr, "joiner-ticket")?;
    if let Err(error) = connect(addr, "opener-ticket") {
        println!("a used ticket is rejected: {error}");
    }

    send(&mut opener, r#"{"type":"open","key":"tea"}"#)?;
    // The plain dialect does not acknowledge an open. The server sends a pong after it has handled everything before the ping, so the key is
    // open when the pong arrives.
    opener.send(Message::Ping("is the key open?".into()))?;
    while !opener.read()?.is_pong() {}

    send(&mut joiner, r#"{"type":"join","key":"tea"}"#)?;
    receive("opener", &mut opener)?;
    send(&mut joiner, r#"{"type":"offer","sdp":"…"}"#)?;
    receive("opener", &mut opener)?;
    send(&mut opener, r#"{"index":0,"type":"answer","sdp":"…"}"#)?;
    receive("joiner", &mut joiner)?;
    println!("{:?}", handle.stats());

    handle.shutdown();
    println!("opener is closed: {}", opener.read()?);
    running.join().map_err(|_| "the server panicked")??;
    Ok(())
}

fn connect(addr: SocketAddr, ticket: &str) -> Result<WebSocket<TcpStream>, Box<dyn Error>> {
    let stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    Ok(tungstenite::client(format!("ws://{addr}/?ticket={ticket}"), stream)?.0)
}

fn send(socket: &mut WebSocket<TcpStream>, text: &str) -> Result<(), tungstenite::Error> {
    socket.send(text.into())
}

fn receive(name: &str, socket: &mut WebSocket<TcpStream>) -> Result<(), tungstenite::Error> {
    let message = socket.read()?;
    println!("{name} received {message}");
    Ok(())
}
