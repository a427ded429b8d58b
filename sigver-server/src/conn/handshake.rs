//! The opening handshake: request head, client address, admission, subprotocol.

use std::{io, net::IpAddr, sync::Arc};

use sigver_core::Dialect;
use tungstenite::handshake::derive_accept_key;

use crate::{
    access::{Admission, Denied, Handshake, bearer, client_ip, permit::Permit},
    config::Config,
    conn::request_line::RequestLine,
    http::{
        head::{self, Head},
        page,
        request::Request,
        response::{Response, switching_protocols},
    },
    sys::stream::Stream,
};

/// An admitted handshake.
#[derive(Debug)]
pub(crate) struct Upgrade {
    /// `Sec-WebSocket-Key`.
    key: String,
    /// The subprotocol to echo.
    subprotocol: Option<String>,
    pub(crate) dialect: Dialect,
    pub(crate) permit: Permit,
}

/// What the server decides on a request.
pub(crate) struct Decision {
    /// The address of the client, behind its trusted proxies.
    pub(crate) client: IpAddr,
    pub(crate) line: RequestLine,
    /// An admitted handshake, or the response to any other request.
    pub(crate) outcome: Result<Upgrade, Response>,
}

impl Upgrade {
    /// Returns the response that accepts the handshake.
    pub(crate) fn response(&self) -> Vec<u8> {
        switching_protocols(&derive_accept_key(self.key.as_bytes()), self.subprotocol.as_deref())
    }
}

/// Reads one request. Returns the decision and the bytes after the head, or the response to a head that cannot be parsed. What `begin_admission`
/// returns is dropped after the admission.
///
/// # Errors
///
/// The client has closed the connection, or the socket fails.
pub(crate) fn read<T>(
    stream: &Stream,
    peer: IpAddr,
    config: &Config,
    is_ready: impl Fn() -> bool,
    begin_admission: impl Fn() -> T,
) -> io::Result<Result<(Decision, Vec<u8>), Response>> {
    head::read(stream, config.head_limits(), |head| {
        let client = client_ip::client(peer, &config.trusted_proxies, head.headers.all("X-Forwarded-For"));
        Ok(Decision {
            client,
            line: RequestLine::of(head, &config.pages),
            outcome: decide(head, client, config, is_ready(), &begin_admission),
        })
    })
}

fn decide<T>(
    head: &Head<'_>,
    client: IpAddr,
    config: &Config,
    is_ready: bool,
    begin_admission: impl Fn() -> T,
) -> Result<Upgrade, Response> {
    let mut opening = match Request::of(head)? {
        Request::Upgrade(opening) => opening,
        Request::Plain => return Err(page::respond(head, &config.pages, is_ready)),
    };
    let handshake = Handshake {
        client,
        path: head.path,
        query: head.query,
        headers: head.headers,
    };
    let permit = if config.admission.is_empty() {
        Permit::default()
    } else {
        let _pending = begin_admission();
        admit(&handshake, &config.admission)
            .map_err(|denied| Response::denied(denied.status(), denied.text(), denied.reason()))?
    };
    // A token is a secret, so it is never echoed.
    opening.offers.retain(|name| !name.starts_with(bearer::SUBPROTOCOL));
    let (dialect, echo) = Dialect::negotiate(opening.offers);
    Ok(Upgrade {
        key: opening.key.to_owned(),
        subprotocol: echo.map(str::to_owned),
        dialect,
        permit,
    })
}

/// Asks all admissions, until one denies the client.
fn admit(handshake: &Handshake<'_>, admissions: &[Arc<dyn Admission>]) -> Result<Permit, Denied> {
    let mut admissions = admissions.iter();
    admissions.try_fold(Permit::default(), |permit, admission| {
        Ok(permit.and(admission.admit(handshake)?))
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
    let client = std::net::Ipv4Addr::LOCALHOST.into();
    Some(
        match head::parse(bytes, |head| decide(head, client, &config, true, || ()))? {
            Err(response) => (response.to_bytes(), 0, None),
            Ok((upgrade, length)) => {
                let response = switching_protocols(&upgrade.key, upgrade.subprotocol.as_deref());
                (response, length, Some(upgrade.dialect))
            }
        },
    )
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
