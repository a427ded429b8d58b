//! Owns the command line: flags and environment in, [`Config`] out. Never serves.

use std::{
    ffi::OsString,
    io,
    net::{Ipv6Addr, SocketAddr},
    num::{NonZeroU32, ParseFloatError},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use clap::{
    Arg, ArgMatches, Args, CommandFactory, FromArgMatches, Parser,
    builder::BoolishValueParser,
    error::{ContextKind, ContextValue, ErrorKind},
    parser::ValueSource,
    value_parser,
};
use clap_complete::Shell;
use clap_mangen::Man;
use sigver_server::{Config, ConnectionLimit, MemoryBound, Network, Origin, Origins, Tokens};

use crate::{demo, logging::Format};

/// A signaling server for WebRTC: one side opens a key, others join it, and JSON is relayed between them until they talk directly.
#[derive(Parser)]
#[command(
    version,
    max_term_width = 110,
    after_help = "Every flag is also an environment variable; a flag wins. Lists are separated by commas there.\n\
        RUST_LOG sets what is logged to stderr: error, warn, info (default) or debug.\n\n\
        Behind a proxy on the same machine, for pages of one site:\n  \
        sigver-server --listen 127.0.0.1:8000 --trusted-proxy 127.0.0.1 --allow-origin https://example.org"
)]
struct Cli {
    #[command(flatten)]
    serving: Serving,
    #[command(flatten)]
    admission: Admission,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    sources: Sources,
    #[command(flatten)]
    timeouts: Timeouts,
}

#[derive(Args)]
#[command(next_help_heading = "Serving")]
struct Serving {
    /// Address to listen on, as IP:PORT; port 0 takes a free one. May be given more than once. Default: port 8000 of every
    /// interface, IPv6 and IPv4; the environment variable PORT chooses another port
    #[arg(long, env = "SIGVER_LISTEN", value_name = "ADDR", value_delimiter = ',', value_parser = parse_addr)]
    listen: Vec<SocketAddr>,

    /// Address that serves /metrics in the form of OpenMetrics, for Prometheus and others, as IP:PORT. May be given more than once.
    /// Whoever can reach it can read it
    #[arg(long, env = "SIGVER_ADMIN", value_name = "ADDR", value_delimiter = ',', value_parser = parse_addr)]
    admin: Vec<SocketAddr>,

    /// What the lines of the log look like
    #[arg(long, env = "SIGVER_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    log_format: Format,

    /// Print the whole configuration as it is in effect, where each value is from, the most connections and the most memory, and exit
    #[arg(long, env = "SIGVER_CHECK_CONFIG", value_parser = BoolishValueParser::new())]
    check_config: bool,

    /// Print completions for a shell, and exit
    #[arg(long, env = "SIGVER_COMPLETIONS", value_name = "SHELL")]
    completions: Option<Shell>,

    /// Print the manual page in roff, and exit
    #[arg(long, env = "SIGVER_MAN", value_parser = BoolishValueParser::new())]
    man: bool,

    /// Serve a demonstration page at /: a chat between browsers that find each other through this server
    #[arg(long, env = "SIGVER_DEMO", value_parser = BoolishValueParser::new())]
    demo: bool,
}

#[derive(Args)]
#[command(next_help_heading = "Who may connect")]
struct Admission {
    /// Origin whose pages may connect: `https://example.org`, `https://*.example.org` for every subdomain, or null. May be given more than
    /// once. Programs send no origin and are not concerned. Default: all
    #[arg(long, env = "SIGVER_ALLOW_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    allow_origin: Vec<Origin>,

    /// File with a token a line, one of which a client has to bring: as Authorization: Bearer TOKEN, as subprotocol
    /// sigver.bearer.TOKEN beside its own, or as ?token=TOKEN. Read again on SIGHUP
    #[arg(long, env = "SIGVER_TOKEN_FILE", value_name = "PATH")]
    token_file: Option<PathBuf>,

    /// Address or network (10.0.0.0/8) of a proxy whose X-Forwarded-For is believed. May be given more than once
    #[arg(long, env = "SIGVER_TRUSTED_PROXY", value_name = "NETWORK", value_delimiter = ',')]
    trusted_proxy: Vec<Network>,
}

#[derive(Args)]
#[command(next_help_heading = "Limits")]
struct Limits {
    /// Connections at the same time; more get HTTP 503. 0: as many as the system can carry
    #[arg(long, env = "SIGVER_CONNECTIONS", value_name = "N", default_value_t = 0)]
    connections: u32,

    /// Joiners of one key at the same time
    #[arg(long, env = "SIGVER_JOINERS_PER_KEY", value_name = "N", default_value_t = 1_000)]
    joiners_per_key: u32,

    /// The longest key, in bytes
    #[arg(long, env = "SIGVER_KEY_BYTES", value_name = "BYTES", default_value_t = 256, value_parser = value_parser!(u32).range(1..))]
    key_bytes: u32,

    /// The longest message, in bytes
    #[arg(long, env = "SIGVER_MESSAGE_BYTES", value_name = "BYTES", default_value_t = 65_536, value_parser = value_parser!(u32).range(1..=i64::from(i32::MAX)))]
    message_bytes: u32,

    /// How deep arrays and objects may nest in a message, itself counted
    #[arg(long, env = "SIGVER_DEPTH", value_name = "N", default_value_t = 128, value_parser = value_parser!(u32).range(1..))]
    depth: u32,

    /// The longest request head, in bytes
    #[arg(long, env = "SIGVER_HEAD_BYTES", value_name = "BYTES", default_value_t = 8_192, value_parser = value_parser!(u32).range(1..))]
    head_bytes: u32,

    /// Bytes that wait for a client that does not read, beside what the system buffers; with more it is closed
    #[arg(
        long,
        env = "SIGVER_BACKLOG_BYTES",
        value_name = "BYTES",
        default_value_t = 1_048_576
    )]
    backlog_bytes: u32,

    /// Messages that a client may send in a second, pings counted; it is read more slowly then, and not closed. 0: no limit
    #[arg(long, env = "SIGVER_MESSAGES_PER_SECOND", value_name = "N", default_value_t = 1_000)]
    messages_per_second: u32,

    /// Bytes that a client may send in a second; it is read more slowly then, and not closed. 0: no limit
    #[arg(
        long,
        env = "SIGVER_BYTES_PER_SECOND",
        value_name = "BYTES",
        default_value_t = 4_194_304
    )]
    bytes_per_second: u32,
}

#[derive(Args)]
#[command(next_help_heading = "Limits for each source: an IPv4 address, or an IPv6 network of 64 bits. 0: no limit")]
struct Sources {
    /// Connections at the same time; more get HTTP 503. Not without --trusted-proxy when there is a proxy: everyone comes from it
    #[arg(long, env = "SIGVER_CONNECTIONS_PER_IP", value_name = "N", default_value_t = 0)]
    connections_per_ip: u32,

    /// Handshakes that are not finished, of clients that connect directly; more get HTTP 503
    #[arg(long, env = "SIGVER_HANDSHAKES_PER_IP", value_name = "N", default_value_t = 0)]
    handshakes_per_ip: u32,

    /// Failed joins, and opens of taken keys, in a minute. Beyond that, for the rest of it, no key is known there: stops the guessing of
    /// keys
    #[arg(long, env = "SIGVER_GUESSES_PER_IP", value_name = "N", default_value_t = 0)]
    guesses_per_ip: u32,
}

#[derive(Args)]
#[command(next_help_heading = "Time, in seconds")]
struct Timeouts {
    /// For a request head to be whole
    #[arg(long, env = "SIGVER_HANDSHAKE_TIMEOUT", value_name = "SECONDS", default_value = "5", value_parser = some_time)]
    handshake_timeout: Duration,

    /// For a client to ask for its first role. 0: no limit
    #[arg(long, env = "SIGVER_ROLE_DEADLINE", value_name = "SECONDS", default_value = "60", value_parser = time)]
    role_deadline: Duration,

    /// From one ping to the next; a client that leaves two without a sign of life is closed
    #[arg(long, env = "SIGVER_KEEP_ALIVE", value_name = "SECONDS", default_value = "25", value_parser = some_time)]
    keep_alive: Duration,

    /// For a client to take its close frame and go
    #[arg(long, env = "SIGVER_CLOSE_TIMEOUT", value_name = "SECONDS", default_value = "5", value_parser = time)]
    close_timeout: Duration,

    /// Over which the closes are spread when the server ends, so that not all clients come back at once
    #[arg(long, env = "SIGVER_DRAIN", value_name = "SECONDS", default_value = "5", value_parser = time)]
    drain: Duration,
}

/// What the command line asks for.
pub(crate) enum Command {
    Serve(Box<Serve>),
    /// Print this, and exit.
    Print(String),
}

/// A server that is asked for.
pub(crate) struct Serve {
    pub(crate) config: Config,
    pub(crate) demo: bool,
    pub(crate) log_format: Format,
    /// What is to be read again on SIGHUP.
    pub(crate) tokens: Option<Arc<Tokens>>,
}

/// Why there is nothing to do.
pub(crate) enum Stop {
    /// It was a question, such as `--help`, and has been answered, as far as stdout took it.
    Answered(io::Result<()>),
    /// The command line is wrong, and how, in one line.
    Wrong(String),
}

/// Reads this process's arguments and environment. A flag wins over the environment.
pub(crate) fn read() -> Result<Command, Stop> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let matches = Cli::command().try_get_matches_from(&arguments);
    let parsed = matches.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    let (cli, matches) = parsed.map_err(|error| {
        if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
            Stop::Answered(error.print())
        } else {
            Stop::Wrong(first_line(&error, &arguments))
        }
    })?;
    if let Some(shell) = cli.serving.completions {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "sigver-server", &mut script);
        return Ok(Command::Print(String::from_utf8_lossy(&script).into_owned()));
    }
    if cli.serving.man {
        return Ok(Command::Print(manual_page()));
    }
    let tokens = match &cli.admission.token_file {
        Some(path) => Some(Tokens::from_file(path).map_err(|problem| Stop::Wrong(problem.to_string()))?),
        None => None,
    };
    let tokens = tokens.map(Arc::new);
    let mut config = cli.config();
    if config.listen.is_empty() {
        config.listen = vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, port()?))];
    }
    if let Some(tokens) = &tokens {
        let tokens = Arc::clone(tokens);
        config.admission.push(tokens);
    }
    if cli.serving.check_config {
        return Ok(Command::Print(effective(&matches, &config)));
    }
    Ok(Command::Serve(Box::new(Serve {
        config,
        demo: cli.serving.demo,
        log_format: cli.serving.log_format,
        tokens,
    })))
}

/// Returns the manual page in roff.
fn manual_page() -> String {
    let page = Man::new(
        Cli::command()
            .name("sigver-server")
            .override_usage("sigver-server [OPTIONS]"),
    )
    .source(concat!("sigver-server ", env!("CARGO_PKG_VERSION")))
    .manual("sigver");
    let mut roff = Vec::new();
    // Writing to a Vec cannot fail.
    let _ = page.render(&mut roff);
    String::from_utf8_lossy(&roff).into_owned()
}

/// Every flag with its value and where that is from, and what follows from all of them.
fn effective(matches: &ArgMatches, config: &Config) -> String {
    let mut text = String::new();
    let mut line = |flag: &str, value: &str, source: &str| {
        text.push_str(&format!("{:36}{source}\n", format!("--{flag} {value}")));
    };
    for arg in Cli::command().get_arguments() {
        let (Some(flag), false) = (arg.get_long(), is_question(arg)) else {
            continue;
        };
        let source = match matches.value_source(arg.get_id().as_str()) {
            Some(ValueSource::CommandLine) => "from the command line",
            Some(ValueSource::EnvVariable) => "from the environment",
            _ => "by default",
        };
        let values: Vec<String> = matches
            .get_raw(arg.get_id().as_str())
            .into_iter()
            .flatten()
            .map(|value| value.to_string_lossy().into_owned())
            .collect();
        match &values[..] {
            [] if flag == "listen" => {
                let source = if std::env::var_os("PORT").is_some() {
                    "from PORT"
                } else {
                    source
                };
                config
                    .listen
                    .iter()
                    .for_each(|addr| line(flag, &addr.to_string(), source));
            }
            [] => line(flag, "none", source),
            values => values.iter().for_each(|value| line(flag, value, source)),
        }
    }
    let limit = ConnectionLimit::of(config);
    let memory = MemoryBound::of(config, limit.connections());
    text.push_str(&format!("\nup to {limit}\n{memory}\n"));
    text
}

/// Whether a flag asks something instead of setting something.
fn is_question(arg: &Arg) -> bool {
    ["help", "version", "check_config", "completions", "man"].contains(&arg.get_id().as_str())
}

impl Cli {
    /// What the flags say, each in its place.
    fn config(&self) -> Config {
        let mut config = Config::default();
        config.listen.clone_from(&self.serving.listen);
        config.admin.clone_from(&self.serving.admin);
        if self.serving.demo {
            config.pages = demo::PAGES.to_vec();
        }
        if !self.admission.allow_origin.is_empty() {
            let origins: Origins = self.admission.allow_origin.iter().cloned().collect();
            config.admission.push(Arc::new(origins));
        }
        config.trusted_proxies.clone_from(&self.admission.trusted_proxy);
        let Limits {
            connections,
            joiners_per_key,
            key_bytes,
            message_bytes,
            depth,
            head_bytes,
            backlog_bytes,
            messages_per_second,
            bytes_per_second,
        } = self.limits;
        config.endpoint.limits.connections = or_no_limit(connections);
        config.endpoint.limits.joiners_per_key = joiners_per_key;
        config.endpoint.limits.key_bytes = key_bytes;
        config.endpoint.limits.message_bytes = message_bytes;
        config.endpoint.limits.depth = depth;
        config.head_bytes = head_bytes;
        config.endpoint.backlog_bytes = backlog_bytes;
        config.endpoint.messages_per_second = or_no_limit(messages_per_second);
        config.endpoint.bytes_per_second = or_no_limit(bytes_per_second);
        let Sources {
            connections_per_ip,
            handshakes_per_ip,
            guesses_per_ip,
        } = self.sources;
        config.connections_per_ip = NonZeroU32::new(connections_per_ip);
        config.handshakes_per_ip = NonZeroU32::new(handshakes_per_ip);
        config.endpoint.key_attempts_per_minute = or_no_limit(guesses_per_ip);
        let Timeouts {
            handshake_timeout,
            role_deadline,
            keep_alive,
            close_timeout,
            drain,
        } = self.timeouts;
        config.handshake_timeout = handshake_timeout;
        config.endpoint.limits.role_deadline = (!role_deadline.is_zero()).then_some(role_deadline);
        config.endpoint.keep_alive = keep_alive;
        config.endpoint.close_timeout = close_timeout;
        config.endpoint.drain = drain;
        config
    }
}

/// The port when no address is given.
fn port() -> Result<u16, Stop> {
    let Some(port) = std::env::var_os("PORT") else {
        return Ok(8000);
    };
    let number = port.to_str().and_then(|port| port.parse().ok());
    number.ok_or_else(|| Stop::Wrong(format!("PORT is not a port number: {port:?}")))
}

fn parse_addr(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse()
        .map_err(|_| "expected IP:PORT, as in 127.0.0.1:8000 or [::]:8000")
}

fn time(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error: ParseFloatError| error.to_string())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn some_time(text: &str) -> Result<Duration, String> {
    match time(text)? {
        Duration::ZERO => Err("it has to be more than none".into()),
        some => Ok(some),
    }
}

/// A number, of which zero stands for no limit.
fn or_no_limit(number: u32) -> u32 {
    if number == 0 { u32::MAX } else { number }
}

/// The part of clap's message that says what is wrong, and where the wrong value is if it is not among the arguments.
fn first_line(error: &clap::Error, arguments: &[OsString]) -> String {
    let message = error.to_string();
    let line = message.lines().next().unwrap_or(&message);
    let line = line.strip_prefix("error: ").unwrap_or(line);
    let flag = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(usage)) => usage.split([' ', '=']).next().unwrap_or(usage),
        _ => "",
    };
    let is_argument = |argument: &OsString| argument.to_string_lossy().starts_with(flag);
    match flag.strip_prefix("--") {
        Some(name) if error.kind() != ErrorKind::UnknownArgument && !arguments.iter().any(is_argument) => {
            let variable = name.to_uppercase().replace('-', "_");
            format!("{line}, from SIGVER_{variable} (see --help)")
        }
        _ => format!("{line} (see --help)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_flag_everything_is_as_the_library_has_it() {
        let cli = Cli::try_parse_from(["sigver-server"]).expect("nothing is required");
        let mut config = cli.config();
        assert_eq!(config.listen, [], "the port may come from PORT");
        config.listen = Config::default().listen;
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn every_flag_is_an_environment_variable_of_its_name() {
        for arg in Cli::command().get_arguments() {
            let Some(flag) = arg.get_long() else { continue };
            let name = format!("SIGVER_{}", flag.to_uppercase().replace('-', "_"));
            assert_eq!(arg.get_env(), Some(name.as_ref()), "--{flag}");
            assert!(arg.get_help_heading().is_some(), "--{flag} has its place in --help");
        }
    }

    #[test]
    fn every_flag_and_its_default_are_on_the_page_for_operators() {
        let page = include_str!("../../../OPERATING.md");
        for arg in Cli::command().get_arguments() {
            let Some(flag) = arg.get_long() else { continue };
            assert!(page.contains(&format!("--{flag}")), "--{flag}");
            if let Some(default) = arg.get_default_values().first() {
                let row = format!("| `--{flag}` | {} |", default.to_string_lossy());
                assert!(page.contains(&row), "{row}");
            }
        }
    }

    #[test]
    fn every_flag_arrives() {
        let cli = Cli::try_parse_from([
            "sigver-server",
            "--listen=127.0.0.1:1,[::1]:2",
            "--admin=127.0.0.1:3",
            "--allow-origin=https://a",
            "--trusted-proxy=10.0.0.0/8,::1",
            "--connections=1",
            "--joiners-per-key=2",
            "--key-bytes=3",
            "--message-bytes=4",
            "--depth=5",
            "--head-bytes=6",
            "--backlog-bytes=7",
            "--messages-per-second=8",
            "--bytes-per-second=9",
            "--connections-per-ip=10",
            "--handshakes-per-ip=11",
            "--guesses-per-ip=12",
            "--handshake-timeout=0.25",
            "--role-deadline=14",
            "--keep-alive=15",
            "--close-timeout=0",
            "--drain=17",
        ]);
        let config = cli.map(|cli| cli.config()).unwrap_or_else(|error| panic!("{error}"));
        let shown = format!("{config:?}");
        for part in [
            "listen: [127.0.0.1:1, [::1]:2]",
            "admin: [127.0.0.1:3]",
            "connections: 1,",
            "joiners_per_key: 2,",
            "key_bytes: 3,",
            "message_bytes: 4,",
            "depth: 5,",
            "role_deadline: Some(14s)",
            "handshake_timeout: 250ms,",
            "head_bytes: 6,",
            "backlog_bytes: 7,",
            "keep_alive: 15s,",
            "close_timeout: 0ns,",
            "messages_per_second: 8,",
            "bytes_per_second: 9,",
            "connections_per_ip: Some(10),",
            "handshakes_per_ip: Some(11),",
            "key_attempts_per_minute: 12,",
            "Exact(\"https://a\")",
            "drain: 17s",
        ] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        assert_eq!(config.trusted_proxies.len(), 2);
    }

    #[test]
    fn zero_is_no_limit_where_it_says_so() {
        let cli = Cli::try_parse_from([
            "sigver-server",
            "--role-deadline=0",
            "--messages-per-second=0",
            "--bytes-per-second=0",
        ]);
        let config = cli.map(|cli| cli.config()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.endpoint.limits.role_deadline, None);
        assert_eq!(
            (config.endpoint.messages_per_second, config.endpoint.bytes_per_second),
            (u32::MAX, u32::MAX)
        );
    }
}
