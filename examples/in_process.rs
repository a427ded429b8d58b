//! The server as a library in another program: it listens on a free port, admits clients with a ticket under a name, lets only some open keys,
//! follows what they do, kicks one and is shut down through its handle.
//!
//! `cargo run --release --example in_process`

#![allow(clippy::print_stdout, reason = "prints what happens")]

use std::{
    collections::BTreeMap,
    error::Error,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, sync_channel},
    },
    thread,
};

use sigver_core::Role;
use sigver_server::{Admission, Config, ConnectionId, Denied, Handshake, Permission, Permit, Server, ServerEvent};
use tungstenite::{Message, WebSocket};

/// Admits each client with a ticket, once, under the name that the ticket was issued for. The program issues tickets, for example at login.
#[derive(Debug, Default)]
struct Tickets(Mutex<BTreeMap<String, &'static str>>);

impl Tickets {
    fn issue(&self, ticket: &str, name: &'static str) {
        let mut tickets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.insert(ticket.to_owned(), name);
    }
}

impl Admission for Tickets {
    /// Called for each handshake, on the thread of the connection. It may block.
    fn admit(&self, handshake: &Handshake<'_>) -> Result<Permit, Denied> {
        let ticket = handshake
            .query()
            .and_then(|query| query.strip_prefix("ticket="))
            .unwrap_or_default();
        let mut tickets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match tickets.remove(ticket) {
            Some(name) => Ok(Permit::default()
                .with_identity(name)
                .with_permission(Arc::new(Roles(name)))),
            None => Err(Denied::new(403, "no valid ticket")),
        }
    }
}

/// Lets Alice open keys, and everybody join.
#[derive(Debug)]
struct Roles(&'static str);

impl Permission for Roles {
    /// Called for each open, join and meet, on the thread of the connection. It may block.
    fn may(&self, role: Role, _key: Option<&str>) -> bool {
        role == Role::Joiner || self.0 == "alice"
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (sender, events) = sync_channel(1_000);
    let tickets = Arc::new(Tickets::default());
    let mut config = Config::default();
    config.listen = vec!["127.0.0.1:0".parse()?]; // port 0: any free port
    config.endpoint.limits.joiners_per_key = 4;
    config.admission.push(Arc::<Tickets>::clone(&tickets));
    config.events = Some(sender);

    let server = Server::bind(config)?;
    let (addr, handle) = (server.local_addr().ok_or("it listens on TCP")?, server.handle());
    let running = thread::spawn(move || server.run());
    println!("listening on {addr}");

    for (ticket, name) in [
        ("opener-ticket", "alice"),
        ("joiner-ticket", "bob"),
        ("third-ticket", "carol"),
    ] {
        tickets.issue(ticket, name);
    }
    let mut opener = connect(addr, "opener-ticket")?;
    let mut joiner = connect(addr, "joiner-ticket")?;
    if let Err(error) = connect(addr, "opener-ticket") {
        println!("a used ticket is rejected: {error}");
    }
    let mut third = connect(addr, "third-ticket")?;
    send(&mut third, r#"{"type":"open","key":"coffee"}"#)?;
    println!("carol is closed: {}", third.read()?);

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

    let joined = follow_until_joined(&events)?;
    for info in handle.connections() {
        println!("{} is {:?} since {:?}", info.connection, info.role, info.since);
    }
    println!("kicked {joined}: {}", handle.kick(joined));
    println!("joiner is closed: {}", joiner.read()?);

    handle.shutdown();
    println!("opener is closed: {}", opener.read()?);
    running.join().map_err(|_| "the server panicked")??;
    // The channel has ended with the server.
    println!("{} more events", events.iter().count());
    Ok(())
}

/// Prints events until a connection joins a key.
fn follow_until_joined(events: &Receiver<ServerEvent>) -> Result<ConnectionId, Box<dyn Error>> {
    loop {
        match events.recv()? {
            ServerEvent::Connected {
                connection,
                identity: Some(name),
                ..
            } => println!("{connection} is {name}"),
            ServerEvent::Joined { connection, opener, .. } => {
                println!("{connection} joined {opener}");
                return Ok(connection);
            }
            other => println!("{other:?}"),
        }
    }
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
