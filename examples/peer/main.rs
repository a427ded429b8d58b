//! An opener or a joiner in a terminal: sends each line from stdin to the other side, and prints the data that it receives.
//!
//! ```text
//! cargo run --release --example peer -- ws://localhost:8000 open          # prints the key that the server generates
//! cargo run --release --example peer -- ws://localhost:8000 join KEY      # in another terminal
//! ```
//!
//! It uses `sigver.v1`. A line of JSON is sent unchanged, any other line as a JSON string. An opener sends a line to all its joiners, and a
//! line that starts with `N:` to joiner N only. It prints received data with the same prefix. Everything else is printed to stderr.
//! The program ends at the end of stdin, when the opener leaves, or when the server closes the connection or stops answering. It does not
//! reconnect; "Advice to clients" in PROTOCOL.md says when a client should.
//!
//! | file | content |
//! |---|---|
//! | `main.rs` | the messages, and what the program does with them |
//! | `socket.rs` | connects with a time limit; reads and writes at the same time with blocking calls |
//! | `liveness.rs` | when to send a ping, and when the connection counts as dead |

mod liveness;
mod socket;

use std::{
    collections::BTreeSet,
    error::Error,
    io::{self, BufRead, Write},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use liveness::Times;
use socket::{Writer, connect};

const SUBPROTOCOL: &str = "sigver.v1";

/// The server sends a ping every 25 s by default, so this client sends one only if the connection is lost or the server is set otherwise.
const TIMES: Times = Times {
    connect: Duration::from_secs(10),
    ping_after: Duration::from_secs(30),
    pong_within: Duration::from_secs(30),
};

const USAGE: &str = "usage: peer URL open [KEY]\n       peer URL join KEY";

/// A message from the server in `sigver.v1`.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Received {
    Opened {
        key: String,
    },
    Joined {
        index: u32,
    },
    Join {
        index: u32,
    },
    Leave {
        index: u32,
    },
    Data {
        index: Option<u32>,
        data: Value,
    },
    Closed {
        code: String,
    },
    Error {
        code: String,
        message: String,
    },
    /// A message that a later version has added.
    #[serde(other)]
    Unknown,
}

/// A message to the server, of the kinds that this client uses.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Sent {
    Open {
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<String>,
    },
    Join {
        key: String,
    },
    Send {
        #[serde(skip_serializing_if = "Option::is_none")]
        index: Option<u32>,
        data: Value,
    },
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (url, first) = match args[..] {
        [url, "open"] => (url, Sent::Open { key: None }),
        [url, "open", key] => (url, Sent::Open { key: Some(key.into()) }),
        [url, "join", key] => (url, Sent::Join { key: key.into() }),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(url, &first) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(url: &str, first: &Sent) -> Result<(), Box<dyn Error>> {
    let (mut reader, mut writer) = connect(url, SUBPROTOCOL, TIMES)?;
    send(&mut writer, first)?;
    let recipients = match first {
        Sent::Open { .. } => Recipients::Joiners(Arc::default()),
        Sent::Join { .. } | Sent::Send { .. } => Recipients::Opener,
    };
    // Its thread ends with the process, because reading from a terminal cannot be interrupted.
    let mut input = Some((writer, recipients.clone()));
    loop {
        match reader.read()? {
            Message::Text(text) => match serde_json::from_str(&text)? {
                // Lines are sent only after the role is confirmed, because they would be refused before.
                Received::Opened { key } => {
                    eprintln!("opened {key}");
                    start_input(&mut input);
                }
                Received::Joined { index } => {
                    eprintln!("joined with index {index}");
                    start_input(&mut input);
                }
                Received::Join { index } => {
                    eprintln!("{index} joined");
                    recipients.update(|joiners| _ = joiners.insert(index));
                }
                Received::Leave { index } => {
                    eprintln!("{index} left");
                    recipients.update(|joiners| _ = joiners.remove(&index));
                }
                Received::Data { index, data } => print(index, &data)?,
                Received::Closed { code } => return Err(code.into()),
                Received::Error { code, message } if input.is_some() => {
                    return Err(format!("{code}: {message}").into());
                }
                Received::Error { code, message } => eprintln!("{code}: {message}"),
                Received::Unknown => {}
            },
            // The reply to our close frame, after the end of stdin.
            Message::Close(Some(close)) if close.code == CloseCode::Normal => return Ok(()),
            Message::Close(close) => return Err(closed(close).into()),
            Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_) => {}
        }
    }
}

/// The recipients of a line.
#[derive(Clone)]
enum Recipients {
    /// A joiner sends to its opener.
    Opener,
    /// An opener sends to its current joiners.
    Joiners(Arc<Mutex<BTreeSet<u32>>>),
}

impl Recipients {
    fn update(&self, change: impl FnOnce(&mut BTreeSet<u32>)) {
        match self {
            Self::Opener => {}
            Self::Joiners(joiners) => change(&mut joiners.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    /// Returns the messages to send for a line.
    fn messages(&self, line: &str) -> Vec<Sent> {
        let Self::Joiners(joiners) = self else {
            return vec![Sent::Send {
                index: None,
                data: data(line),
            }];
        };
        let addressed = line
            .split_once(':')
            .and_then(|(index, rest)| Some((index.parse().ok()?, rest.trim_start())));
        let (indexes, line) = match addressed {
            Some((index, rest)) => (BTreeSet::from([index]), rest),
            None => (joiners.lock().unwrap_or_else(PoisonError::into_inner).clone(), line),
        };
        let to = |index| Sent::Send {
            index: Some(index),
            data: data(line),
        };
        indexes.into_iter().map(to).collect()
    }
}

/// Starts the thread that sends lines, unless it is running.
fn start_input(input: &mut Option<(Writer, Recipients)>) {
    if let Some((mut writer, recipients)) = input.take() {
        thread::spawn(move || {
            if let Err(error) = send_lines(&mut writer, &recipients) {
                eprintln!("peer: {error}");
            }
        });
    }
}

fn send_lines(writer: &mut Writer, recipients: &Recipients) -> Result<(), Box<dyn Error>> {
    for line in io::stdin().lock().lines() {
        for message in recipients.messages(&line?) {
            send(writer, &message)?;
        }
    }
    let close = CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    };
    Ok(writer.close(Some(close))?)
}

fn data(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|_| line.into())
}

fn print(index: Option<u32>, data: &Value) -> io::Result<()> {
    let text = match data {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut out = io::stdout().lock();
    match index {
        Some(index) => writeln!(out, "{index}: {text}"),
        None => writeln!(out, "{text}"),
    }
}

fn send(writer: &mut Writer, message: &Sent) -> Result<(), Box<dyn Error>> {
    Ok(writer.send(Message::text(serde_json::to_string(message)?))?)
}

fn closed(close: Option<CloseFrame>) -> String {
    match close {
        Some(close) => format!("closed by the server: {} {}", u16::from(close.code), close.reason),
        None => "closed by the server".into(),
    }
}
