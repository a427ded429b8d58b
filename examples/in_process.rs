//! The server inside another program: started on a free port, open to those whom the program knows, used by two clients, ended by its
//! handle.
//!
//! `cargo run --release --example in_process`

#![allow(clippy::print_stdout, reason = "it is what the example shows")]

use std::{
    collections::BTreeSet,
    error::Error,
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use sigver_server::{Admission, Config, Denied, Handshake, Server};
use tungstenite::{Message, WebSocket};

/// Lets everyone in who has a ticket, once. Tickets are the program's own: it makes one when somebody logs in, say.
#[derive(Debug, Default)]
struct Tickets(Mutex<BTreeSet<String>>);

impl Tickets {
    fn make(&self, ticket: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(ticket.to_owned());
    }
}

impl Admission for Tickets {
    /// Asked for each handshake, on the connection's own thread: it may take its time.
    fn admit(&self, handshake: &Handshake<'_>) -> Result<(), Denied> {
        let ticket = handshake
            .query()
            .and_then(|query| query.strip_prefix("ticket="))
            .unwrap_or_default();
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(ticket) {
            Ok(())
        } else {
            Err(Denied::new(403, "no ticket, or one that was used"))
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut config = Config::default();
    config.listen = vec!["127.0.0.1:0".parse()?]; // port 0: any that is free
    config.endpoint.limits.joiners_per_key = 4;
    let tickets = Arc::new(Tickets::default());
    config.admission.push(Arc::<Tickets>::clone(&tickets));

    let server = Server::bind(config)?;
    let (addr, handle) = (server.local_addr(), server.handle());
    let running = thread::spawn(move || server.run());
    println!("listening on {addr}");

    tickets.make("ours");
    tickets.make("theirs");
    let mut opener = connect(addr, "ours")?;
    let mut joiner = connect(addr, "theirs")?;
    if let Err(error) = connect(addr, "ours") {
        println!("a third is refused: {error}");
    }

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

fn connect(addr: SocketAddr, ticket: &str) -> Result<WebSocket<TcpStream>, Box<dyn Error>> {
    let stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    Ok(tungstenite::client(format!("ws://{addr}/?ticket={ticket}"), stream)?.0)
}

fn say(socket: &mut WebSocket<TcpStream>, text: &str) -> Result<(), tungstenite::Error> {
    socket.send(text.into())
}

fn hear(who: &str, socket: &mut WebSocket<TcpStream>) -> Result<(), tungstenite::Error> {
    let message = socket.read()?;
    println!("{who} hears {message}");
    Ok(())
}
