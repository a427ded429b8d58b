//! The opening handshake: request head, client address, admission, subprotocol.

use std::{io, net::IpAddr};

use sigver_core::Dialect;
use tungstenite::handshake::derive_accept_key;

use crate::{
    access::{Handshake, client_ip, tokens::BEARER},
    config::Config,
    http::{
        head::{self, Head},
        page,
        request::Request,
        response::{Response, switching_protocols},
    },
    sys::stream::Stream,
};

/// An admitted handshake.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Upgrade {
    /// `Sec-WebSocket-Key`.
    key: String,
    /// The subprotocol to echo.
    subprotocol: Option<String>,
    pub(crate) dialect: Dialect,
    /// The address of the client, behind its trusted proxies.
    pub(crate) client: IpAddr,
}

impl Upgrade {
    /// Returns the response that accepts the handshake.
    pub(crate) fn response(&self) -> Vec<u8> {
        switching_protocols(&derive_accept_key(self.key.as_bytes()), self.subprotocol.as_deref())
    }
}

/// Reads one request. Returns an admitted handshake and the bytes after it, or the response to any other request.
///
/// # Errors
///
/// The client has closed the connection, or the socket fails.
pub(crate) fn read(
    stream: &Stream,
    peer: IpAddr,
    config: &Config,
    is_ending: impl Fn() -> bool,
) -> io::Result<Result<(Upgrade, Vec<u8>), Response>> {
    head::read(stream, config.head_limits(), |head| {
        decide(head, peer, config, is_ending())
    })
}

fn decide(head: &Head<'_>, peer: IpAddr, config: &Config, is_ending: bool) -> Result<Upgrade, Response> {
    let mut opening = match Request::of(head)? {
        Request::Upgrade(opening) => opening,
        Request::Plain => return Err(page::respond(head, &config.pages, is_ending)),
    };
    let client = client_ip::client(peer, &config.trusted_proxies, head.headers.all("X-Forwarded-For"));
    let handshake = Handshake {
        client,
        target: head.target,
        headers: head.headers,
    };
    for admission in &config.admission {
        admission
            .admit(&handshake)
            .map_err(|denied| Response::denied(denied.status(), denied.text()))?;
    }
    // A token is a secret, so it is never echoed.
    opening.offers.retain(|name| !name.starts_with(BEARER));
    let (dialect, echo) = Dialect::negotiate(opening.offers);
    Ok(Upgrade {
        key: opening.key.to_owned(),
        subprotocol: echo.map(str::to_owned),
        dialect,
        client,
    })
}

/// Reads a request head and returns the response to it, the length of the head of a handshake, and the client's dialect; `None` if the
/// head is incomplete. The response has the handshake's key in place of what is derived from it. For the fuzz target `head`.
#[cfg(any(test, fuzzing))]
pub fn read_head(bytes: &[u8], pages: &[page::Page]) -> Option<(Vec<u8>, usize, Option<Dialect>)> {
    let config = Config {
        pages: pages.to_vec(),
        ..Config::default()
    };
    let peer = std::net::Ipv4Addr::LOCALHOST.into();
    Some(match head::parse(bytes, |head| decide(head, peer, &config, false))? {
        Err(response) => (response.to_bytes(), 0, None),
        Ok((upgrade, length)) => {
            let response = switching_protocols(&upgrade.key, upgrade.subprotocol.as_deref());
            (response, length, Some(upgrade.dialect))
        }
    })
}

#[cfg(all(test, not(loom)))]
#[path = "../../../fuzz/oracles/head.rs"]
mod oracle;
#[cfg(all(test, not(loom)))]
#[path = "../../../fuzz/oracles/replay.rs"]
mod replay;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{oracle, replay};

    /// Replays the seeds of the fuzz target `head` without a fuzzer.
    #[test]
    fn every_seed_of_head_gets_the_expected_response() -> Result<(), Box<dyn std::error::Error>> {
        replay::replay("head", oracle::check)
    }
}
