//! The command line.

use std::{net::ToSocketAddrs, time::Duration};

use clap::{Parser, ValueEnum, error::ErrorKind};
use sigver_transcripts::{Limit, socket::Target};

use crate::dialect::Dialect;

/// Test a server for conformance with the sigver protocol
#[derive(Parser)]
#[command(name = "conformance")]
pub(crate) struct Options {
    /// Server to test: ws://HOST[:PORT][/PATH]
    #[arg(required_unless_present = "list")]
    url: Option<String>,

    /// Run only cases whose names contain TEXT (repeatable)
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,

    /// Skip cases whose names contain TEXT (repeatable)
    #[arg(long, value_name = "TEXT")]
    skip: Vec<String>,

    /// List the cases and exit
    #[arg(long)]
    pub(crate) list: bool,

    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,

    /// Dialects that the server must support
    #[arg(long, value_enum, default_value = "both")]
    dialect: Dialects,

    /// Skip the cases of ping, id, wait, meet, tokens and reserved keys in sigver.v1, and of the grace for plain joins
    #[arg(long)]
    pub(crate) without_additions: bool,

    /// Time limit per case
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "10")]
    pub(crate) deadline: Duration,

    /// Time that the server waits for a complete request head
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "5")]
    pub(crate) head_deadline: Duration,

    /// Report a missing frame when a pong arrives, without waiting for the deadline. Requires a server that sends each pong after
    /// all results of earlier frames. Do not use it if the server's WebSocket library answers pings
    #[arg(long)]
    pub(crate) ordered_pongs: bool,

    /// Limit of the server that differs from the default (repeatable). Runs only the transcripts for exactly these limits. NAME is
    /// depth, joiners-per-key, key-attempts (per minute and connection), key-bytes or message-bytes
    #[arg(long = "set", value_name = "NAME=NUMBER", value_parser = limit)]
    pub(crate) limits: Vec<(Limit, u32)>,

    /// Time after which the server closes clients without a role. Also runs the cases that wait for it. The default in PROTOCOL.md is 60
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

/// Why the program exits without running a case.
pub(crate) enum Exit {
    /// `--help` was printed.
    Printed,
    /// The command line is invalid. The text is the error in one line.
    Usage(String),
}

impl Options {
    /// Parses the arguments of the process.
    pub(crate) fn read() -> Result<Self, Exit> {
        Self::try_parse().map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                // Fails if the reader has closed the pipe.
                let _ = error.print();
                Exit::Printed
            }
            _ => {
                let message = error.to_string();
                // clap lists missing arguments on the lines after the first.
                let line: Vec<&str> = message.lines().take_while(|line| !line.is_empty()).collect();
                let line = line.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
                let line = line.strip_prefix("error: ").unwrap_or(&line);
                Exit::Usage(format!("{line} (see --help)"))
            }
        })
    }

    /// Returns the dialects that the server must support.
    pub(crate) fn dialects(&self) -> &'static [Dialect] {
        match self.dialect {
            Dialects::Plain => &[Dialect::Plain],
            Dialects::V1 => &[Dialect::V1],
            Dialects::Both => &[Dialect::Plain, Dialect::V1],
        }
    }

    /// Returns whether `--only` and `--skip` select a case.
    pub(crate) fn includes(&self, name: &str) -> bool {
        let contains = |text: &String| name.contains(text);
        (self.only.is_empty() || self.only.iter().any(contains)) && !self.skip.iter().any(contains)
    }

    /// Returns the server to test.
    ///
    /// # Errors
    ///
    /// If the URL is invalid or its host cannot be resolved. The error is one line.
    pub(crate) fn target(&self) -> Result<Target, String> {
        let url = self.url.as_deref().unwrap_or_default();
        let rest = match url.split_once("://") {
            Some(("ws", rest)) => rest,
            Some(("wss", _)) => {
                return Err(format!(
                    "{url}: TLS is not supported; use ws://HOST:PORT of the server behind the TLS proxy"
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
            addr: addrs.next().ok_or_else(|| format!("{host}: no address found"))?,
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
        .ok_or_else(|| "expected a number of seconds greater than 0".into())
}

fn limit(text: &str) -> Result<(Limit, u32), String> {
    let (name, number) = text.split_once('=').ok_or("expected NAME=NUMBER")?;
    let limit =
        Limit::parse(name).ok_or("expected depth, joiners-per-key, key-attempts, key-bytes or message-bytes")?;
    Ok((
        limit,
        number.parse().map_err(|_| format!("{number:?} is not a number"))?,
    ))
}
