//! The command line.

use std::{
    net::{Ipv4Addr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use sigver_core::Limits;

pub(crate) struct Options {
    pub(crate) listen: SocketAddr,
    pub(crate) limits: Limits,
}

impl Options {
    /// Reads `--flag value` pairs. An error is one line about what is wrong.
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8000)),
            limits: Limits::default(),
        };
        let limits = &mut options.limits;
        while let Some(flag) = args.next() {
            let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
            match flag.as_str() {
                "--listen" => options.listen = read(&flag, &value)?,
                "--connections" => limits.connections = Some(read(&flag, &value)?),
                "--joiners-per-key" => limits.joiners_per_key = read(&flag, &value)?,
                "--key-bytes" => limits.key_bytes = read(&flag, &value)?,
                "--message-bytes" => limits.message_bytes = read(&flag, &value)?,
                "--depth" => limits.depth = read(&flag, &value)?,
                "--role-deadline-ms" => {
                    limits.role_deadline = Some(Duration::from_millis(read(&flag, &value)?));
                }
                _ => return Err(format!("{flag} is not known")),
            }
        }
        Ok(options)
    }
}

fn read<T: FromStr>(flag: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{flag} does not take {value:?}"))
}
