//! Owns the command line: flags and environment in, [`Config`] out. Never serves.

use std::net::{Ipv6Addr, SocketAddr};

use clap::{Parser, error::ErrorKind};
use sigver_server::Config;

use crate::demo;

/// A signaling server for WebRTC: one side opens a key, others join it, and JSON is relayed between them until they talk directly.
#[derive(Parser)]
#[command(
    version,
    after_help = "RUST_LOG sets what is logged to stderr: error, warn, info (default) or debug."
)]
struct Args {
    /// Address to listen on, as IP:PORT; port 0 takes a free one. May be given more than once. Default: port 8000 of every
    /// interface, IPv6 and IPv4; the environment variable PORT chooses another port
    #[arg(long, value_name = "ADDR", value_parser = parse_addr)]
    listen: Vec<SocketAddr>,

    /// The longest message, in bytes. Default: 65536
    #[arg(long, value_name = "N")]
    message_bytes: Option<u32>,

    /// Serve a demonstration page at /: a chat between browsers that find each other through this server
    #[arg(long)]
    demo: bool,
}

/// What the command line asks for.
pub(crate) struct Command {
    pub(crate) config: Config,
    pub(crate) demo: bool,
}

/// Why there is nothing to do.
pub(crate) enum Stop {
    /// It was a question, such as `--help`, and has been answered.
    Answered,
    /// The command line is wrong, and how, in one line.
    Wrong(String),
}

/// Reads this process's arguments and environment. A flag wins over the environment.
pub(crate) fn read() -> Result<Command, Stop> {
    let args = Args::try_parse().map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A reader that has seen enough may close the pipe.
            let _ = error.print();
            Stop::Answered
        }
        _ => Stop::Wrong(first_line(&error.to_string())),
    })?;
    let mut config = Config::default();
    if !args.listen.is_empty() {
        config.listen = args.listen;
    } else if let Some(port) = std::env::var_os("PORT") {
        let number = port.to_str().and_then(|port| port.parse::<u16>().ok());
        let port = number.ok_or_else(|| Stop::Wrong(format!("PORT is not a port number: {port:?}")))?;
        config.listen = vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))];
    }
    if let Some(bytes) = args.message_bytes {
        config.limits.message_bytes = bytes;
    }
    if args.demo {
        config.pages = demo::PAGES.to_vec();
    }
    Ok(Command {
        config,
        demo: args.demo,
    })
}

fn parse_addr(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse()
        .map_err(|_| "expected IP:PORT, as in 127.0.0.1:8000 or [::]:8000")
}

/// The part of clap's message that says what is wrong.
fn first_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or(message);
    format!("{} (see --help)", line.strip_prefix("error: ").unwrap_or(line))
}
