//! The command line: parses flags and environment variables into [`ServeOptions`], and prints what flags such as `--help` ask for.

use std::{
    ffi::{OsStr, OsString},
    io::{self, Write},
    net::{Ipv6Addr, SocketAddr},
    num::{NonZeroU32, NonZeroU64},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::{
    Arg, ArgMatches, Args, CommandFactory, FromArgMatches, Parser,
    builder::Resettable,
    error::{ContextKind, ContextValue, ErrorKind},
    parser::ValueSource,
};
use clap_complete::Shell;
use clap_mangen::Man;
use sigver_server::{
    Config, ConnectionLimit, IceUrl, IceUrls, JwtKeys, ListenAddr, MemoryBound, Network, Origin, Origins, Server,
    Tokens,
};

use crate::{
    demo,
    files::Files,
    logging::Format,
    values::{self, List, number, positive_seconds, seconds, switch},
};

/// The name of the binary, in usage texts and error messages.
pub(crate) const NAME: &str = "sigver-server";

/// The exit code for an invalid command line.
const USAGE: u8 = 2;

/// The port if neither `--listen` nor `PORT` is set.
const DEFAULT_PORT: u16 = 8000;

/// A signaling server for WebRTC: one peer opens a key, others join it, and it relays JSON messages between them.
#[derive(Parser)]
#[command(
    name = NAME,
    version,
    max_term_width = 110,
    after_help = "Every flag is also an environment variable: --key-bytes is SIGVER_KEY_BYTES. Flags take precedence.\n\
        Values of a repeatable flag may also be separated by commas or spaces. An empty variable is unset.\n\
        PORT sets the port if --listen is not given.\n\
        RUST_LOG sets the level of the log on stderr: error, warn, info (default) or debug.\n\n\
        Behind a reverse proxy on the same machine, for pages of one site:\n  \
        sigver-server --listen 127.0.0.1:8000 --trusted-proxy 127.0.0.1 --allow-origin https://example.org"
)]
struct Cli {
    #[command(flatten)]
    serving: Serving,
    #[command(flatten)]
    admission: Admission,
    #[command(flatten)]
    ice: Ice,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    per_ip: PerIp,
    #[command(flatten)]
    timeouts: Timeouts,
}

#[derive(Args)]
#[command(next_help_heading = "Server")]
struct Serving {
    /// HOST:PORT or unix:PATH; repeatable [default: [::]:8000]
    #[arg(long, env = "SIGVER_LISTEN", value_name = "ADDR", value_parser = values::listen_addrs)]
    listen: Vec<List<ListenAddr>>,

    /// Permissions of Unix sockets
    #[arg(long, env = "SIGVER_SOCKET_MODE", value_name = "OCTAL", default_value = "660", value_parser = values::mode)]
    socket_mode: u32,

    /// HOST:PORT that serves /metrics (OpenMetrics); repeatable [default: off]
    #[arg(long, env = "SIGVER_ADMIN", value_name = "ADDR", value_parser = values::addrs)]
    admin: Vec<List<SocketAddr>>,

    /// Log format: text or json
    #[arg(
        long,
        env = "SIGVER_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        hide_possible_values = true,
        ignore_case = true
    )]
    log_format: Format,

    /// Print the effective configuration and its bounds, then exit
    #[arg(long, env = "SIGVER_CHECK_CONFIG", value_parser = switch)]
    check_config: bool,

    /// Print completions for bash, elvish, fish, powershell or zsh, then exit
    #[arg(long, env = "SIGVER_COMPLETIONS", value_name = "SHELL", hide_possible_values = true)]
    completions: Option<Shell>,

    /// Print the manual page in roff, then exit
    #[arg(long, env = "SIGVER_MAN", value_parser = switch)]
    man: bool,

    /// Serve a demo chat at /
    #[arg(long, env = "SIGVER_DEMO", value_parser = switch)]
    demo: bool,
}

#[derive(Args)]
#[command(next_help_heading = "Access control")]
struct Admission {
    /// Origin to allow (https://*.example.org); repeatable [default: all]
    #[arg(long, env = "SIGVER_ALLOW_ORIGIN", value_name = "ORIGIN", value_parser = values::list::<Origin>)]
    allow_origin: Vec<List<Origin>>,

    /// Require a bearer token of this file; reloaded on SIGHUP
    #[arg(long, env = "SIGVER_TOKEN_FILE", value_name = "PATH")]
    token_file: Option<PathBuf>,

    /// Require a JSON Web Token of this JWK Set; reloaded on SIGHUP
    #[arg(long, env = "SIGVER_JWT_KEYS", value_name = "PATH")]
    jwt_keys: Option<PathBuf>,

    /// Trust X-Forwarded-For from this IP or CIDR network; repeatable
    #[arg(long, env = "SIGVER_TRUSTED_PROXY", value_name = "NETWORK", value_parser = values::list::<Network>)]
    trusted_proxy: Vec<List<Network>>,
}

#[derive(Args)]
#[command(next_help_heading = "ICE servers (sent to clients of sigver.v1)")]
struct Ice {
    /// URL of a STUN server (stun:HOST:PORT); repeatable [default: none]
    #[arg(long, env = "SIGVER_ICE", value_name = "URL", value_parser = values::list::<IceUrl>)]
    ice: Vec<List<IceUrl>>,

    /// URL of a TURN server (turn:HOST:PORT); repeatable [default: none]
    #[arg(long, env = "SIGVER_TURN", value_name = "URL", value_parser = values::list::<IceUrl>)]
    turn: Vec<List<IceUrl>>,

    /// Secret shared with the TURN servers; reloaded on SIGHUP
    #[arg(long, env = "SIGVER_TURN_SECRET_FILE", value_name = "PATH")]
    turn_secret_file: Option<PathBuf>,

    /// Seconds for which TURN credentials are valid
    #[arg(long, env = "SIGVER_TURN_TTL", value_name = "SECONDS", default_value = "86400", value_parser = number(1, u32::MAX))]
    turn_ttl: u32,
}

#[derive(Args)]
#[command(next_help_heading = "Limits")]
struct Limits {
    /// Maximum connections; 0: as many as the system allows
    #[arg(long, env = "SIGVER_CONNECTIONS", value_name = "N", default_value = "0", value_parser = number(0, u32::MAX))]
    connections: u32,

    /// Maximum joiners of one key
    #[arg(long, env = "SIGVER_JOINERS_PER_KEY", value_name = "N", default_value = "1000", value_parser = number(0, u32::MAX))]
    joiners_per_key: u32,

    /// Maximum length of a key
    #[arg(long, env = "SIGVER_KEY_BYTES", value_name = "BYTES", default_value = "256", value_parser = number(1, u32::MAX))]
    key_bytes: u32,

    /// Maximum length of a message
    #[arg(long, env = "SIGVER_MESSAGE_BYTES", value_name = "BYTES", default_value = "65536", value_parser = number(1, i32::MAX as u32))]
    message_bytes: u32,

    /// Maximum nesting of arrays and objects in a message
    #[arg(long, env = "SIGVER_DEPTH", value_name = "N", default_value = "128", value_parser = number(1, u32::MAX))]
    depth: u32,

    /// Maximum length of an HTTP request head
    #[arg(long, env = "SIGVER_HEAD_BYTES", value_name = "BYTES", default_value = "16384", value_parser = number(1, u32::MAX))]
    head_bytes: u32,

    /// Unsent bytes after which a client is closed
    #[arg(long, env = "SIGVER_BACKLOG_BYTES", value_name = "BYTES", default_value = "1048576", value_parser = number(0, u32::MAX))]
    backlog_bytes: u32,

    /// Unsent bytes of all clients; 0: a quarter of memory
    #[arg(long, env = "SIGVER_BACKLOG_TOTAL", value_name = "BYTES", default_value = "0", value_parser = number(0, u64::MAX))]
    backlog_total: u64,

    /// Rate at which a client is read; 0: no limit
    #[arg(long, env = "SIGVER_MESSAGES_PER_SECOND", value_name = "N", default_value = "1000", value_parser = number(0, u32::MAX))]
    messages_per_second: u32,

    /// Rate at which a client is read; 0: no limit
    #[arg(long, env = "SIGVER_BYTES_PER_SECOND", value_name = "BYTES", default_value = "4194304", value_parser = number(0, u32::MAX))]
    bytes_per_second: u32,

    /// Key attempts per minute (10x per IP); 0: no limit
    #[arg(long, env = "SIGVER_ATTEMPTS", value_name = "N", default_value = "0", value_parser = number(0, u32::MAX))]
    attempts: u32,
}

#[derive(Args)]
#[command(next_help_heading = "Limits per client IP (IPv6: per /64 network; 0: no limit)")]
struct PerIp {
    /// Maximum connections (see also --trusted-proxy)
    #[arg(long, env = "SIGVER_CONNECTIONS_PER_IP", value_name = "N", default_value = "0", value_parser = number(0, u32::MAX))]
    connections_per_ip: u32,

    /// Maximum pending handshakes of direct clients
    #[arg(long, env = "SIGVER_HANDSHAKES_PER_IP", value_name = "N", default_value = "0", value_parser = number(0, u32::MAX))]
    handshakes_per_ip: u32,

    /// Message rate of all connections together
    #[arg(long, env = "SIGVER_MESSAGES_PER_SECOND_PER_IP", value_name = "N", default_value = "0", value_parser = number(0, u32::MAX))]
    messages_per_second_per_ip: u32,
}

#[derive(Args)]
#[command(next_help_heading = "Timeouts (in seconds; fractions are allowed)")]
struct Timeouts {
    /// Time to receive a complete request head
    #[arg(long, env = "SIGVER_HANDSHAKE_TIMEOUT", value_name = "SECONDS", default_value = "5", value_parser = positive_seconds)]
    handshake_timeout: Duration,

    /// Time to open, join or meet; 0: no limit
    #[arg(long, env = "SIGVER_ROLE_DEADLINE", value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    role_deadline: Duration,

    /// Ping interval; two missed pings close a client
    #[arg(long, env = "SIGVER_KEEP_ALIVE", value_name = "SECONDS", default_value = "25", value_parser = positive_seconds)]
    keep_alive: Duration,

    /// Time for a client to answer a close frame
    #[arg(long, env = "SIGVER_CLOSE_TIMEOUT", value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    close_timeout: Duration,

    /// Time that /ready is 503 before shutdown begins
    #[arg(long, env = "SIGVER_PRE_STOP_DELAY", value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pre_stop_delay: Duration,

    /// Time over which shutdown spreads close frames
    #[arg(long, env = "SIGVER_DRAIN", value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    drain: Duration,
}

/// A server to run.
pub(crate) struct ServeOptions {
    pub(crate) config: Config,
    pub(crate) demo: bool,
    pub(crate) log_format: Format,
    /// What to reload on SIGHUP.
    pub(crate) files: Files,
    /// Variables that look like those of flags and belong to none.
    pub(crate) unknown_variables: Vec<String>,
}

/// Reason to exit without serving.
pub(crate) enum Exit {
    /// A flag such as `--help` asked for output; the result of writing it to stdout.
    Printed(io::Result<()>),
    /// The command line is invalid; the message is one line.
    Usage(String),
}

impl Exit {
    /// Reports an error on stderr and returns the exit code. A reader that closes the pipe early is not an error.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::Printed(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
                eprintln!("{NAME}: cannot write to stdout: {error}");
                ExitCode::FAILURE
            }
            Self::Printed(_) => ExitCode::SUCCESS,
            Self::Usage(message) => {
                eprintln!("{NAME}: {message}");
                ExitCode::from(USAGE)
            }
        }
    }
}

/// Parses the arguments and environment variables of this process. Flags take precedence.
pub(crate) fn parse() -> Result<ServeOptions, Exit> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // The help text explains the names of variables once instead of listing them.
    let command = Cli::command().mut_args(|arg| {
        let is_unset = arg.get_env().is_some_and(|name| variable(name).is_none());
        // A negative number is an invalid value, not an unknown flag.
        let takes_value = arg.get_action().takes_values();
        let arg = arg.hide_env(true).allow_negative_numbers(takes_value);
        if is_unset { arg.env(Resettable::Reset) } else { arg }
    });
    let matches = command.try_get_matches_from(&arguments);
    let parsed = matches.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    let (cli, matches) = parsed.map_err(|error| {
        if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
            Exit::Printed(error.print().and_then(|()| io::stdout().flush()))
        } else {
            Exit::Usage(usage_message(&error, &arguments))
        }
    })?;
    if let Some(shell) = cli.serving.completions {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
        return Err(print(&script));
    }
    if cli.serving.man {
        return Err(print(&man_page()));
    }
    let files = cli.files()?;
    let mut config = cli.config();
    if config.listen.is_empty() {
        config.listen = vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, port()?)).into()];
    }
    config.admission.extend(files.admission());
    if let Some(ice) = &files.ice {
        config.ice = Some(Arc::<IceUrls>::clone(ice));
    }
    let unknown_variables = unknown_variables(std::env::vars_os());
    if cli.serving.check_config {
        let printed = print(effective(&matches, &config, &files, &unknown_variables).as_bytes());
        let is_printed = matches!(printed, Exit::Printed(Ok(())));
        return Err(match Server::bind(config) {
            Err(error) if is_printed => Exit::Usage(error.to_string()),
            _ => printed,
        });
    }
    Ok(ServeOptions {
        config,
        demo: cli.serving.demo,
        log_format: cli.serving.log_format,
        files,
        unknown_variables,
    })
}

/// Returns the value of a variable. An empty one is unset, as in files of variables that have a line for each.
fn variable(name: impl AsRef<OsStr>) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.as_encoded_bytes().trim_ascii().is_empty())
}

fn print(output: &[u8]) -> Exit {
    let mut stdout = io::stdout();
    Exit::Printed(stdout.write_all(output).and_then(|()| stdout.flush()))
}

/// Returns the manual page in roff.
fn man_page() -> Vec<u8> {
    let page = Man::new(Cli::command().override_usage(format!("{NAME} [OPTIONS]")))
        .source(concat!("sigver-server ", env!("CARGO_PKG_VERSION")))
        .manual("sigver");
    let mut roff = Vec::new();
    // Writing to a Vec cannot fail.
    let _ = page.render(&mut roff);
    roff
}

/// Returns a line for each flag with its value and source, then the bounds that follow from them.
fn effective(matches: &ArgMatches, config: &Config, files: &Files, unknown_variables: &[String]) -> String {
    let mut text = String::new();
    let mut line = |flag: &str, value: &str, source: &str| {
        text.push_str(&format!("{:35} ({source})\n", format!("--{flag} {value}")));
    };
    for arg in Cli::command().get_arguments() {
        let (Some(flag), false) = (arg.get_long(), prints_and_exits(arg)) else {
            continue;
        };
        let source = match matches.value_source(arg.get_id().as_str()) {
            Some(ValueSource::CommandLine) => "command line",
            Some(ValueSource::EnvVariable) => "environment",
            _ => "default",
        };
        let values: Vec<String> = matches
            .get_raw(arg.get_id().as_str())
            .into_iter()
            .flatten()
            .map(|value| value.to_string_lossy().into_owned())
            .collect();
        let is_port = flag == "listen" && values.is_empty() && variable("PORT").is_some();
        let source = if is_port { "PORT" } else { source };
        match (&values[..], flag) {
            (_, "listen") => config
                .listen
                .iter()
                .for_each(|addr| line(flag, &addr.to_string(), source)),
            ([_, ..], "admin") => config
                .admin
                .iter()
                .for_each(|addr| line(flag, &addr.to_string(), source)),
            ([], "allow-origin") => line(flag, "all", source),
            ([], "admin" | "token-file" | "jwt-keys" | "turn-secret-file") => line(flag, "off", source),
            ([], _) => line(flag, "none", source),
            (values, "allow-origin" | "trusted-proxy" | "ice" | "turn") => values
                .iter()
                .flat_map(|value| values::items(value))
                .for_each(|item| line(flag, item, source)),
            (values, _) => values.iter().for_each(|value| line(flag, value.trim(), source)),
        }
    }
    for line in files.notices() {
        text.push_str(&format!("\n{line}"));
    }
    for name in unknown_variables {
        text.push_str(&format!("\nunknown variable, ignored: {name}"));
    }
    let limit = ConnectionLimit::of(config);
    let memory = MemoryBound::of(config, limit.connections());
    text.push_str(&format!("\nup to {limit}\n{memory}\n"));
    if let Some(warning) = memory.warning() {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text
}

/// Returns the names that begin with `SIGVER_` and belong to no flag, in order. Kubernetes sets variables such as `SIGVER_SERVICE_HOST` and
/// `SIGVER_PORT=tcp://…` for a service named `sigver`: these are left out.
fn unknown_variables(variables: impl Iterator<Item = (OsString, OsString)>) -> Vec<String> {
    let command = Cli::command();
    let is_known = |name: &str| command.get_arguments().any(|arg| arg.get_env() == Some(name.as_ref()));
    let is_of_kubernetes = |name: &str, value: &OsStr| {
        name.starts_with("SIGVER_SERVICE_")
            || name.starts_with("SIGVER_PORT_")
            || (name == "SIGVER_PORT" && value.to_string_lossy().contains("://"))
    };
    let mut names: Vec<String> = variables
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, value)| name.starts_with("SIGVER_") && !is_known(name) && !is_of_kubernetes(name, value))
        .map(|(name, _)| name)
        .collect();
    names.sort();
    names
}

fn prints_and_exits(arg: &Arg) -> bool {
    ["help", "version", "check_config", "completions", "man"].contains(&arg.get_id().as_str())
}

impl Cli {
    /// Reads the files that the flags name.
    fn files(&self) -> Result<Files, Exit> {
        let tokens = self.admission.token_file.as_ref().map(Tokens::from_file).transpose();
        let jwt_keys = self.admission.jwt_keys.as_ref().map(JwtKeys::from_file).transpose();
        Ok(Files {
            tokens: tokens.map_err(|error| Exit::Usage(error.to_string()))?.map(Arc::new),
            jwt_keys: jwt_keys.map_err(|error| Exit::Usage(error.to_string()))?.map(Arc::new),
            ice: self.ice.urls()?.map(Arc::new),
        })
    }

    /// Returns the configuration that the flags describe, without tokens and the default address.
    fn config(&self) -> Config {
        let mut config = Config::default();
        config.listen = values::flatten(&self.serving.listen);
        config.socket_mode = self.serving.socket_mode;
        config.admin = values::flatten(&self.serving.admin);
        if self.serving.demo {
            config.pages = demo::pages();
        }
        if !self.admission.allow_origin.is_empty() {
            let origins: Origins = values::flatten(&self.admission.allow_origin).into_iter().collect();
            config.admission.push(Arc::new(origins));
        }
        config.trusted_proxies = values::flatten(&self.admission.trusted_proxy);
        let Limits {
            connections,
            joiners_per_key,
            key_bytes,
            message_bytes,
            depth,
            head_bytes,
            backlog_bytes,
            backlog_total,
            messages_per_second,
            bytes_per_second,
            attempts,
        } = self.limits;
        config.endpoint.limits.connections = NonZeroU32::new(connections);
        config.endpoint.limits.joiners_per_key = joiners_per_key;
        config.endpoint.limits.key_bytes = key_bytes;
        config.endpoint.limits.message_bytes = message_bytes;
        config.endpoint.limits.depth = depth;
        config.head_bytes = head_bytes;
        config.endpoint.backlog_bytes = backlog_bytes;
        config.endpoint.backlog_total_bytes = NonZeroU64::new(backlog_total);
        config.endpoint.messages_per_second = NonZeroU32::new(messages_per_second);
        config.endpoint.bytes_per_second = NonZeroU32::new(bytes_per_second);
        let PerIp {
            connections_per_ip,
            handshakes_per_ip,
            messages_per_second_per_ip,
        } = self.per_ip;
        config.connections_per_ip = NonZeroU32::new(connections_per_ip);
        config.handshakes_per_ip = NonZeroU32::new(handshakes_per_ip);
        config.endpoint.messages_per_second_per_source = NonZeroU32::new(messages_per_second_per_ip);
        config.endpoint.key_attempts_per_minute = NonZeroU32::new(attempts);
        let Timeouts {
            handshake_timeout,
            role_deadline,
            keep_alive,
            close_timeout,
            pre_stop_delay,
            drain,
        } = self.timeouts;
        config.pre_stop_delay = pre_stop_delay;
        config.handshake_timeout = handshake_timeout;
        config.endpoint.limits.role_deadline = (!role_deadline.is_zero()).then_some(role_deadline);
        config.endpoint.keep_alive = keep_alive;
        config.endpoint.close_timeout = close_timeout;
        config.endpoint.drain = drain;
        config
    }
}

impl Ice {
    fn urls(&self) -> Result<Option<IceUrls>, Exit> {
        let usage = |message: &str| Err(Exit::Usage(format!("{message} (see --help)")));
        let (ice, turn) = (values::flatten(&self.ice), values::flatten(&self.turn));
        if let Some(url) = ice.iter().find(|url| url.is_turn()) {
            return usage(&format!(
                "invalid value '{url}' for '--ice <URL>': a TURN server needs credentials, so use --turn"
            ));
        }
        if let Some(url) = turn.iter().find(|url| !url.is_turn()) {
            return usage(&format!(
                "invalid value '{url}' for '--turn <URL>': not a TURN server, so use --ice"
            ));
        }
        match (&self.turn_secret_file, turn.is_empty()) {
            (None, false) => usage("--turn needs --turn-secret-file"),
            (Some(_), true) => usage("--turn-secret-file needs --turn"),
            (None, true) => Ok((!ice.is_empty()).then(|| IceUrls::new(ice))),
            (Some(path), false) => {
                let ttl = Duration::from_secs(self.turn_ttl.into());
                let urls = IceUrls::new(ice).with_turn(turn, path, ttl);
                urls.map(Some).map_err(|error| Exit::Usage(error.to_string()))
            }
        }
    }
}

/// Returns the port to listen on if no address is given.
fn port() -> Result<u16, Exit> {
    let Some(port) = variable("PORT") else {
        return Ok(DEFAULT_PORT);
    };
    let number = port.to_str().and_then(|port| port.trim().parse().ok());
    number.ok_or_else(|| {
        Exit::Usage(format!(
            "invalid value {port:?} for PORT: expected a number from 0 to 65535"
        ))
    })
}

/// Returns the first line of clap's message, with the permitted values, and the variable if the invalid value is from the environment.
fn usage_message(error: &clap::Error, arguments: &[OsString]) -> String {
    let message = error.to_string();
    let line = message.lines().next().unwrap_or(&message);
    let mut line = line.strip_prefix("error: ").unwrap_or(line).to_owned();
    let flag = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(usage)) => usage.split([' ', '=']).next().unwrap_or(usage),
        _ => "",
    };
    if let Some(ContextValue::Strings(values)) = error.get(ContextKind::ValidValue) {
        if !values.is_empty() {
            line += &format!(": expected {}", values.join(", "));
        }
    }
    let is_flag = |argument: &OsString| argument.to_string_lossy().starts_with(flag);
    match flag.strip_prefix("--") {
        Some(name) if error.kind() != ErrorKind::UnknownArgument && !arguments.iter().any(is_flag) => {
            let variable = name.to_uppercase().replace('-', "_");
            line + &format!(" (set by SIGVER_{variable}; see --help)")
        }
        _ => line + " (see --help)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flags_give_the_default_config() {
        let cli = Cli::try_parse_from([NAME]).expect("no flag is required");
        let mut config = cli.config();
        assert_eq!(config.listen, [], "the port may come from PORT");
        config.listen = Config::default().listen;
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn every_flag_has_its_variable_and_heading() {
        for arg in Cli::command().get_arguments() {
            let Some(flag) = arg.get_long() else { continue };
            let name = format!("SIGVER_{}", flag.to_uppercase().replace('-', "_"));
            assert_eq!(arg.get_env(), Some(name.as_ref()), "--{flag}");
            assert!(arg.get_help_heading().is_some(), "--{flag} is under a heading");
        }
    }

    #[test]
    fn operating_md_lists_every_flag_and_default() {
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
    fn every_flag_reaches_the_config() {
        let cli = Cli::try_parse_from([
            NAME,
            "--listen=127.0.0.1:1,[::1]:2 unix:/run/a",
            "--socket-mode=600",
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
            "--backlog-total=18446744073709551615",
            "--messages-per-second=8",
            "--bytes-per-second=9",
            "--connections-per-ip=10",
            "--handshakes-per-ip=11",
            "--attempts=12",
            "--handshake-timeout=0.25",
            "--role-deadline=14",
            "--keep-alive=15",
            "--close-timeout=0",
            "--drain=17",
            "--pre-stop-delay=18",
            "--messages-per-second-per-ip=19",
        ]);
        let config = cli.map(|cli| cli.config()).unwrap_or_else(|error| panic!("{error}"));
        let shown = format!("{config:?}");
        for part in [
            "listen: [127.0.0.1:1, [::1]:2, unix:/run/a], socket_mode: 384",
            "admin: [127.0.0.1:3]",
            "connections: Some(1),",
            "joiners_per_key: 2,",
            "key_bytes: 3,",
            "message_bytes: 4,",
            "depth: 5,",
            "role_deadline: Some(14s)",
            "handshake_timeout: 250ms,",
            "head_bytes: 6,",
            "backlog_bytes: 7,",
            "backlog_total_bytes: Some(18446744073709551615),",
            "keep_alive: 15s,",
            "close_timeout: 0ns,",
            "messages_per_second: Some(8),",
            "bytes_per_second: Some(9),",
            "connections_per_ip: Some(10),",
            "handshakes_per_ip: Some(11),",
            "key_attempts_per_minute: Some(12),",
            "messages_per_second_per_source: Some(19),",
            "Exact(\"https://a\")",
            "drain: 17s",
            "pre_stop_delay: 18s",
        ] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        assert_eq!(config.trusted_proxies.len(), 2);
    }

    #[test]
    fn unknown_variable_is_reported_unless_kubernetes_sets_it() {
        let variables = [
            ("SIGVER_LISTEM", "x"),
            ("SIGVER_PORT", "8000"),
            ("SIGVER_LISTEN", ""),
            ("OTHER", "x"),
            ("SIGVER_SERVICE_HOST", "10.0.0.1"),
            ("SIGVER_PORT_8000_TCP_ADDR", "10.0.0.1"),
        ];
        let os = |(name, value): (&str, &str)| (OsString::from(name), OsString::from(value));
        assert_eq!(
            unknown_variables(variables.map(os).into_iter()),
            ["SIGVER_LISTEM", "SIGVER_PORT"]
        );
        let link = [os(("SIGVER_PORT", "tcp://10.0.0.1:8000"))];
        assert!(unknown_variables(link.into_iter()).is_empty());
    }

    #[test]
    fn help_is_one_line_per_flag() {
        let mut command = Cli::command().mut_args(|arg| arg.hide_env(true)).term_width(100);
        let help = command.render_help().to_string();
        let flags = help.lines().filter(|line| line.trim_start().starts_with('-')).count();
        assert_eq!(flags, command.get_arguments().count(), "{help}");
        let (_, options) = help.split_once("Options:").expect("clap prints a heading");
        let options = options.split("Every flag").next().unwrap_or(options);
        let others = options.lines().filter(|line| !line.trim_start().starts_with('-'));
        assert!(
            others.clone().all(|line| line.is_empty() || !line.starts_with(' ')),
            "{help}"
        );
    }

    #[test]
    fn zero_disables_rates_and_role_deadline() {
        let cli = Cli::try_parse_from([
            NAME,
            "--role-deadline=0",
            "--messages-per-second=0",
            "--bytes-per-second=0",
        ]);
        let config = cli.map(|cli| cli.config()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.endpoint.limits.role_deadline, None);
        assert_eq!(
            (config.endpoint.messages_per_second, config.endpoint.bytes_per_second),
            (None, None)
        );
    }
}
