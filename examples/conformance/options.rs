//! The command line. Never connects.

use std::{net::ToSocketAddrs, time::Duration};

use clap::{Parser, ValueEnum, error::ErrorKind};
use sigver_transcripts::{Limit, socket::Target};

use crate::dialect::Dialect;

/// Holds any server to sigver's protocol: plays every transcript and every hostile case against it.
#[derive(Parser)]
#[command(name = "conformance")]
pub(crate) struct Options {
    /// The server, as ws://HOST[:PORT][/PATH]
    #[arg(required_unless_present = "list")]
    url: Option<String>,

    /// Run only the cases whose names contain this; may be given more than once
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,

    /// Leave out the cases whose names contain this; may be given more than once
    #[arg(long, value_name = "TEXT")]
    skip: Vec<String>,

    /// List the cases, and run none
    #[arg(long)]
    pub(crate) list: bool,

    /// What is printed
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,

    /// The dialects that the server is held to
    #[arg(long, value_enum, default_value = "both")]
    dialect: Dialects,

    /// How long each case may take
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "10")]
    pub(crate) deadline: Duration,

    /// How long the server waits for a request head. PROTOCOL.md's is 5
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "5")]
    pub(crate) head_deadline: Duration,

    /// The server sends a pong to nobody before everything that follows from earlier frames, of any client: what is missing is
    /// reported without waiting for the deadline. Leave it out if the server's WebSocket library answers pings by itself
    #[arg(long)]
    pub(crate) ordered_pongs: bool,

    /// The server has this limit other than the default: run the transcripts that want just the limits given, and no other case.
    /// NAME is depth, joiners-per-key, key-bytes or message-bytes
    #[arg(long = "set", value_name = "NAME=NUMBER", value_parser = limit)]
    pub(crate) limits: Vec<(Limit, u32)>,

    /// The server closes who asks for no role in this time: run the cases that wait for it, too. PROTOCOL.md's is 60
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) role_deadline: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Tap,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Dialects {
    Plain,
    V1,
    Both,
}

/// Why there is nothing to do.
pub(crate) enum Stop {
    /// It was a question, such as `--help`, and has been answered.
    Answered,
    /// The command line is wrong, and how, in one line.
    Wrong(String),
}

impl Options {
    /// Reads this process's arguments.
    pub(crate) fn read() -> Result<Self, Stop> {
        Self::try_parse().map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                // A reader that has seen enough may close the pipe.
                let _ = error.print();
                Stop::Answered
            }
            _ => {
                let message = error.to_string();
                // What is missing stands in the lines behind the first.
                let line: Vec<&str> = message.lines().take_while(|line| !line.is_empty()).collect();
                let line = line.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
                let line = line.strip_prefix("error: ").unwrap_or(&line);
                Stop::Wrong(format!("{line} (see --help)"))
            }
        })
    }

    /// The dialects that the server is held to.
    pub(crate) fn dialects(&self) -> &'static [Dialect] {
        match self.dialect {
            Dialects::Plain => &[Dialect::Plain],
            Dialects::V1 => &[Dialect::V1],
            Dialects::Both => &[Dialect::Plain, Dialect::V1],
        }
    }

    pub(crate) fn chooses(&self, name: &str) -> bool {
        let contains = |text: &String| name.contains(text);
        (self.only.is_empty() || self.only.iter().any(contains)) && !self.skip.iter().any(contains)
    }

    /// The server. An error is one line about what is wrong.
    pub(crate) fn target(&self) -> Result<Target, String> {
        let url = self.url.as_deref().unwrap_or_default();
        let rest = match url.split_once("://") {
            Some(("ws", rest)) => rest,
            Some(("wss", _)) => {
                return Err(format!(
                    "{url}: TLS is not spoken here; name the server behind the proxy that does, as ws://HOST:PORT"
                ));
            }
            Some(_) | None => return Err(format!("{url}: expected ws://HOST[:PORT][/PATH]")),
        };
        let (host, path) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!(
                "{url:?}: expected a URL without white space or control characters"
            ));
        }
        let is_port = |port: &str| port.parse::<u16>().is_ok();
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| is_port(port));
        let with_port = if has_port {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        let mut addrs = with_port
            .to_socket_addrs()
            .map_err(|error| format!("{host}: {error}"))?;
        Ok(Target {
            addr: addrs.next().ok_or_else(|| format!("{host}: has no address"))?,
            host: host.to_owned(),
            path,
        })
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|duration| !duration.is_zero() && *duration < Duration::from_secs(1_000_000))
        .ok_or_else(|| "expected a number of seconds, more than none".into())
}

fn limit(text: &str) -> Result<(Limit, u32), String> {
    let (name, number) = text.split_once('=').ok_or("expected NAME=NUMBER")?;
    let limit = Limit::parse(name).ok_or("expected depth, joiners-per-key, key-bytes or message-bytes")?;
    Ok((limit, number.parse().map_err(|_| format!("{number:?} is no number"))?))
}
