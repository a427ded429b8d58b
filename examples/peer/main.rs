//! An opener or a joiner in a terminal: sends each line from stdin to the other side, and prints the data that it receives.
//!
//! ```text
//! cargo run --release --example peer -- ws://localhost:8000 open          # prints the key that the server generates
//! cargo run --release --example peer -- ws://localhost:8000 join KEY      # in another terminal
//! ```
//!
//! It uses `sigver.v1`. A line of JSON is sent unchanged, any other line as a JSON string. An opener sends a line to all its joiners, and a
//! line that starts with `N:` to joiner N only. It prints received data with the same prefix. Everything else is printed to stderr.
//!
//! A joiner waits until somebody opens the key. If the connection is lost, the program connects again, as "Advice to clients" in PROTOCOL.md
//! says: an opener takes its key over with its token, and both sides recognize each other by their ids. Lines that are typed meanwhile are sent
//! afterwards; a line that was sent just before may be lost. The program ends at the end of stdin, or if the server rejects it: the key is
//! taken, or its role was ended by its opener or by a program with its token.
//!
//! | file | content |
//! |---|---|
//! | `main.rs` | the command line, stdin and stdout |
//! | `session.rs` | the role: what the program does with each message, and after a lost connection |
//! | `messages.rs` | the messages |
//! | `input.rs` | the thread that sends lines |
//! | `socket.rs` | connects with a time limit; reads and writes at the same time with blocking calls |
//! | `liveness.rs` | when to send a ping, and when the connection counts as dead |
//! | `backoff.rs` | when to connect again |

mod backoff;
mod input;
mod liveness;
mod messages;
mod session;
mod socket;

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::mpsc::channel,
    thread,
    time::Duration,
};

use backoff::Bounds;
use liveness::Times;
use session::{Line, Options, Role};

/// The server sends a WebSocket ping every 25 s by default, so a connection may be silent for longer than `ping_after`.
const TIMES: Times = Times {
    connect: Duration::from_secs(10),
    ping_after: Duration::from_secs(15),
    pong_within: Duration::from_secs(10),
};

const BACKOFF: Bounds = Bounds {
    first: Duration::from_secs(1),
    last: Duration::from_secs(30),
};

const USAGE: &str = "usage: peer URL open [KEY]\n       peer URL join KEY";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (url, role) = match args[..] {
        [url, "open"] => (url, Role::Opener(None)),
        [url, "open", key] => (url, Role::Opener(Some(key.into()))),
        [url, "join", key] => (url, Role::Joiner(key.into())),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    let options = Options {
        url: url.into(),
        role,
        times: TIMES,
        backoff: BACKOFF,
    };
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in io::stdin().lines() {
            match line {
                // Fails if the program ends.
                Ok(line) => drop(sender.send(line)),
                Err(error) => return eprintln!("peer: {error}"),
            }
        }
    });
    match session::run(&options, lines, &mut print) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print(line: Line) {
    match line {
        // Fails if the reader has closed the pipe.
        Line::Data(text) => drop(writeln!(io::stdout(), "{text}")),
        Line::Note(text) => eprintln!("{text}"),
    }
}
