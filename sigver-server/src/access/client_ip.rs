//! Owns where clients come from: who is behind a proxy, and how many connections one source may have. Never refuses anyone: it says that
//! there is too much.

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ipnet::IpNet;
use sigver_core::Source;
use thiserror::Error;

/// A range of IP addresses, such as `10.0.0.0/8`, `fd00::/8` or `192.0.2.7`.
///
/// ```
/// let network: sigver_server::Network = "10.0.0.0/8".parse()?;
/// assert!(network.contains("10.1.2.3".parse()?) && !network.contains("11.1.2.3".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

/// Why a text is no [`Network`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected an IP address or a range of them, as in 10.0.0.0/8 or ::1")]
pub struct BadNetwork;

impl FromStr for Network {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map(Self).map_err(|_| BadNetwork)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Network {
    /// Whether the address is in this range. One of IPv4 is, whichever way it is written.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.contains(&ip.to_canonical())
    }
}

/// Whether one of these networks has this address.
pub(crate) fn any_contains(networks: &[Network], ip: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(ip))
}

/// Where a client is whose connection comes from `peer`, by the `X-Forwarded-For` that came with it. Each proxy adds whom it was
/// called by to the right, so it is read from there, for as long as those who wrote it are trusted: what a client made up stands to
/// the left of that.
pub(crate) fn client<'a>(
    peer: IpAddr,
    trusted: &[Network],
    forwarded_for: impl DoubleEndedIterator<Item = &'a [u8]>,
) -> IpAddr {
    let mut client = peer.to_canonical();
    let hops = forwarded_for.rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
    for hop in hops {
        if !any_contains(trusted, client) {
            break;
        }
        match read_hop(hop) {
            Some(ip) => client = ip,
            None => break,
        }
    }
    client
}

/// An entry of `X-Forwarded-For`: an address, which some proxies give with its port.
fn read_hop(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop.trim_ascii()).ok()?;
    let ip = text
        .parse()
        .or_else(|_| text.parse().map(|addr: std::net::SocketAddr| addr.ip()))
        .or_else(|_| text.trim_start_matches('[').trim_end_matches(']').parse());
    ip.ok().map(|ip| ip.to_canonical())
}

/// How many connections and handshakes each source has.
pub(crate) struct Shares {
    connections: u32,
    handshakes: u32,
    held: Mutex<HashMap<Source, Held>>,
}

#[derive(Clone, Copy, Default)]
struct Held {
    connections: u32,
    handshakes: u32,
}

/// One connection's share of what its source may have; given back when it is dropped.
pub(crate) struct Share {
    shares: Arc<Shares>,
    source: Source,
    in_handshake: bool,
}

/// What a source has as much of as it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum TooMany {
    #[error("too many connections from there")]
    Connections,
    #[error("too many handshakes from there")]
    Handshakes,
}

impl Shares {
    pub(crate) fn new(connections: u32, handshakes: u32) -> Self {
        Self {
            connections,
            handshakes,
            held: Mutex::default(),
        }
    }

    /// Whether any source could ever have too much.
    pub(crate) fn are_limited(&self) -> bool {
        self.connections != u32::MAX || self.handshakes != u32::MAX
    }

    /// Takes a share for a connection that begins its handshake.
    pub(crate) fn take(self: &Arc<Self>, source: Source) -> Result<Share, TooMany> {
        let mut all = self.held();
        let held = all.entry(source).or_default();
        let too_many = if held.connections >= self.connections {
            Some(TooMany::Connections)
        } else if held.handshakes >= self.handshakes {
            Some(TooMany::Handshakes)
        } else {
            None
        };
        if let Some(too_many) = too_many {
            // An entry that was made just now has room, unless a limit is zero; then none is ever left behind full.
            if held.connections == 0 {
                all.remove(&source);
            }
            return Err(too_many);
        }
        held.connections += 1;
        held.handshakes += 1;
        Ok(Share {
            shares: Arc::clone(self),
            source,
            in_handshake: true,
        })
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Source, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// The handshake is over.
    pub(crate) fn end_handshake(&mut self) {
        if std::mem::take(&mut self.in_handshake) {
            if let Some(held) = self.shares.held().get_mut(&self.source) {
                held.handshakes -= 1;
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.end_handshake();
        let mut all = self.shares.held();
        if let Some(held) = all.get_mut(&self.source) {
            held.connections -= 1;
            if held.connections == 0 {
                all.remove(&self.source);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn forwarding_is_believed_from_the_right_as_far_as_it_is_trusted() {
        let trusted: Vec<Network> = ["10.0.0.0/8", "fd00::/8", "192.0.2.7"]
            .map(|text| text.parse().expect("a network"))
            .into();
        for (peer, lines, seen) in [
            ("203.0.113.1", &["198.51.100.1"][..], "203.0.113.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("::ffff:10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["6.6.6.6, 198.51.100.1"], "198.51.100.1"),
            (
                "10.0.0.1",
                &["6.6.6.6,198.51.100.1, 10.0.0.2 ,192.0.2.7"],
                "198.51.100.1",
            ),
            ("10.0.0.1", &["6.6.6.6", "198.51.100.1, 10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["10.0.0.9, 10.0.0.8"], "10.0.0.9"),
            ("10.0.0.1", &["198.51.100.1:4711"], "198.51.100.1"),
            ("fd00::1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("fd00::1", &["[2001:db8::1]"], "2001:db8::1"),
            ("fd00::1", &["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", &["198.51.100.1, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1, "], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1, unknown, 10.0.0.2"], "10.0.0.2"),
        ] {
            let seen_as = client(ip(peer), &trusted, lines.iter().map(|line| line.as_bytes()));
            assert_eq!(seen_as, ip(seen), "{peer} {lines:?}");
        }
    }

    #[test]
    fn a_network_is_a_range_or_an_address() {
        for (network, address, is_in) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("::1", "::1", true),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("0.0.0.0/0", "::1", false),
        ] {
            let parsed: Network = network.parse().expect("a network");
            assert_eq!(parsed.contains(ip(address)), is_in, "{network} {address}");
        }
        for text in ["", "10.0.0.0/33", "10.0.0", "localhost", "10.0.0.0/8/8"] {
            assert_eq!(text.parse::<Network>(), Err(BadNetwork), "{text:?}");
        }
    }

    #[test]
    fn a_share_is_had_once_and_given_back() {
        let shares = Arc::new(Shares::new(2, 1));
        let [source, other] = ["192.0.2.1", "192.0.2.2"].map(|text| Source::from(ip(text)));
        let refused = |source| shares.take(source).err();
        let mut first = shares.take(source).expect("there is room");
        assert_eq!(refused(source), Some(TooMany::Handshakes));
        let elsewhere = shares.take(other).expect("others are not concerned");
        first.end_handshake();
        let second = shares.take(source).expect("there is room");
        assert_eq!(refused(source), Some(TooMany::Connections));
        drop(second);
        let mut second = shares.take(source).expect("there is room again");
        second.end_handshake();
        assert_eq!(refused(source), Some(TooMany::Connections));
        drop((first, second, elsewhere));
        assert!(shares.held().is_empty(), "who has nothing costs nothing");
        let none = Arc::new(Shares::new(0, 1));
        assert!(none.take(source).is_err() && none.held().is_empty());
    }
}
