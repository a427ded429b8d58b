//! The command line.

use std::{
    net::{Ipv4Addr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use sigver_core::EndpointConfig;

pub(crate) struct Options {
    pub(crate) listen: SocketAddr,
    pub(crate) endpoint: EndpointConfig,
}

impl Options {
    /// Parses `--flag value` pairs. The error is one line.
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8000)),
            endpoint: EndpointConfig::default(),
        };
        while let Some(flag) = args.next() {
            let value = args.next().ok_or_else(|| format!("missing value for {flag}"))?;
            let limits = &mut options.endpoint.limits;
            match flag.as_str() {
                "--listen" => options.listen = parse(&flag, &value)?,
                "--connections" => limits.connections = Some(parse(&flag, &value)?),
                "--joiners-per-key" => limits.joiners_per_key = parse(&flag, &value)?,
                "--key-bytes" => limits.key_bytes = parse(&flag, &value)?,
                "--message-bytes" => limits.message_bytes = parse(&flag, &value)?,
                "--depth" => limits.depth = parse(&flag, &value)?,
                "--attempts" => options.endpoint.key_attempts_per_minute = Some(parse(&flag, &value)?),
                "--role-deadline-ms" => {
                    limits.role_deadline = Some(Duration::from_millis(parse(&flag, &value)?));
                }
                _ => return Err(format!("unknown option {flag}")),
            }
        }
        Ok(options)
    }
}

fn parse<T: FromStr>(flag: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("invalid value {value:?} for {flag}"))
}
