//! An opener or a joiner in a terminal: lines that are typed go to the other side, lines that come from there are printed.
//!
//! ```text
//! cargo run --release --example peer -- ws://localhost:8000 open          # prints the key that the server has made
//! cargo run --release --example peer -- ws://localhost:8000 join KEY      # in another terminal
//! ```
//!
//! Speaks `sigver.v1`. A line that is JSON is sent as it is, any other as a JSON string. An opener's line goes to all of its joiners, one
//! that begins with `N:` to joiner N alone; what it hears is printed with that prefix. Everything else that is to be said goes to stderr.
//! Ends when stdin does, when the opener leaves, or when the server closes.
//!
//! To take from here: how a blocking client reads and writes at the same time ([`Duplex`]), and the messages ([`Received`], [`Sent`]).

use std::{
    collections::BTreeSet,
    error::Error,
    io::{self, BufRead, Read, Write},
    net::TcpStream,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tungstenite::{
    Message, WebSocket,
    client::IntoClientRequest,
    http::HeaderValue,
    protocol::{CloseFrame, Role, frame::coding::CloseCode},
};

const SUBPROTOCOL: &str = "sigver.v1";
const USAGE: &str = "usage: peer URL open [KEY]\n       peer URL join KEY";

/// What a server of `sigver.v1` says.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Received {
    Opened { key: String },
    Joined { index: u32 },
    Join { index: u32 },
    Leave { index: u32 },
    Data { index: Option<u32>, data: Value },
    Closed { code: String },
    Error { code: String, message: String },
}

/// What a client of it says, as far as this one does.
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
    match talk(url, &first) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("peer: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn talk(url: &str, first: &Sent) -> Result<(), Box<dyn Error>> {
    let (mut reader, mut writer) = connect(url)?;
    send(&mut writer, first)?;
    let others = match first {
        Sent::Open { .. } => Others::Joiners(Arc::default()),
        Sent::Join { .. } | Sent::Send { .. } => Others::Opener,
    };
    // It ends with the process: nobody can make a thread leave off reading from a terminal.
    let mut typing = Some((writer, others.clone()));
    loop {
        match reader.read() {
            Ok(Message::Text(text)) => match serde_json::from_str(&text)? {
                // Not before the role is sure, or the first line could be refused.
                Received::Opened { key } => {
                    eprintln!("opened {key}");
                    type_lines(&mut typing);
                }
                Received::Joined { index } => {
                    eprintln!("joined, as number {index}");
                    type_lines(&mut typing);
                }
                Received::Join { index } => {
                    eprintln!("{index} came");
                    others.update(|joiners| _ = joiners.insert(index));
                }
                Received::Leave { index } => {
                    eprintln!("{index} left");
                    others.update(|joiners| _ = joiners.remove(&index));
                }
                Received::Data { index, data } => print(index, &data)?,
                Received::Closed { code } => return Err(code.into()),
                Received::Error { code, message } if typing.is_some() => {
                    return Err(format!("{code}: {message}").into());
                }
                Received::Error { code, message } => eprintln!("{code}: {message}"),
            },
            // The answer to ours, when stdin has ended.
            Ok(Message::Close(Some(close))) if close.code == CloseCode::Normal => return Ok(()),
            Ok(Message::Close(close)) => return Err(closed(close).into()),
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Who is at the other end.
#[derive(Clone)]
enum Others {
    /// A joiner talks to its opener.
    Opener,
    /// An opener talks to those of its joiners that are there.
    Joiners(Arc<Mutex<BTreeSet<u32>>>),
}

impl Others {
    fn update(&self, change: impl FnOnce(&mut BTreeSet<u32>)) {
        match self {
            Self::Opener => {}
            Self::Joiners(joiners) => change(&mut joiners.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    /// What to send for a line that was typed.
    fn address(&self, line: &str) -> Vec<Sent> {
        let Self::Joiners(joiners) = self else {
            return vec![Sent::Send {
                index: None,
                data: data(line),
            }];
        };
        let named = line
            .split_once(':')
            .and_then(|(index, rest)| Some((index.parse().ok()?, rest.trim_start())));
        let (indexes, line) = match named {
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

/// Starts the thread that sends what is typed, the first time.
fn type_lines(typing: &mut Option<(WebSocket<Duplex>, Others)>) {
    if let Some((mut writer, others)) = typing.take() {
        thread::spawn(move || {
            if let Err(problem) = send_lines(&mut writer, &others) {
                eprintln!("peer: {problem}");
            }
        });
    }
}

fn send_lines(writer: &mut WebSocket<Duplex>, others: &Others) -> Result<(), Box<dyn Error>> {
    for line in io::stdin().lock().lines() {
        for message in others.address(&line?) {
            send(writer, &message)?;
        }
    }
    let goodbye = CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    };
    Ok(writer.close(Some(goodbye))?)
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

fn send(writer: &mut WebSocket<Duplex>, message: &Sent) -> Result<(), Box<dyn Error>> {
    Ok(writer.send(Message::text(serde_json::to_string(message)?))?)
}

fn closed(close: Option<CloseFrame>) -> String {
    match close {
        Some(close) => format!("closed by the server: {} {}", u16::from(close.code), close.reason),
        None => "closed by the server".into(),
    }
}

/// Connects, and makes two of the one connection: one to read from, one to write to, each for a thread of its own.
fn connect(url: &str) -> Result<(WebSocket<Duplex>, WebSocket<Duplex>), Box<dyn Error>> {
    let mut request = url.into_client_request()?;
    request
        .headers_mut()
        .insert("Sec-WebSocket-Protocol", HeaderValue::from_static(SUBPROTOCOL));
    let host = request.uri().host().ok_or("the URL names no host")?;
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), request.uri().port_u16().unwrap_or(80)))?;
    // Small messages that wait for an answer must not wait for more to send as well.
    stream.set_nodelay(true)?;
    let duplex = Duplex {
        stream: Arc::new(stream),
        writing: Arc::new(Mutex::new(())),
    };
    // It fails where the server does not echo the subprotocol.
    let (reader, _) = tungstenite::client(request, duplex.clone())?;
    let writer = WebSocket::from_raw_socket(duplex, Role::Client, None);
    Ok((reader, writer))
}

/// A socket for two WebSockets, of which one reads and one writes. The reading one writes as well, pongs and the answer to a close
/// frame: whole frames at a time, since every write is all that there is to write.
#[derive(Clone)]
struct Duplex {
    stream: Arc<TcpStream>,
    writing: Arc<Mutex<()>>,
}

impl Read for Duplex {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.stream).read(buffer)
    }
}

impl Write for Duplex {
    fn write(&mut self, frames: &[u8]) -> io::Result<usize> {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        (&*self.stream).write_all(frames)?;
        Ok(frames.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
