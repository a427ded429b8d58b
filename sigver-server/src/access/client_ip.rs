//! The address of a client, also behind trusted proxies.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use ipnet::IpNet;
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

/// The error of parsing a [`Network`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected an IP address or a network, such as 10.0.0.0/8 or ::1")]
pub struct ParseNetworkError;

impl FromStr for Network {
    type Err = ParseNetworkError;

    fn from_str(text: &str) -> Result<Self, ParseNetworkError> {
        let text = text.trim();
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network
            .map(|network| Self(canonical_network(network)))
            .map_err(|_| ParseNetworkError)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Network {
    /// Whether the address is in this network. An IPv4-mapped IPv6 address counts as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.contains(&ip.to_canonical())
    }
}

/// Whether the address is in one of these networks.
pub(crate) fn any_contains(networks: &[Network], ip: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(ip))
}

/// Returns the one form of an address that is compared and shown: an IPv4-mapped IPv6 address becomes IPv4.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, addr.port()),
        // Not made anew: a link-local address has a scope.
        IpAddr::V6(_) => addr,
    }
}

/// Returns a network of IPv4-mapped IPv6 addresses as a network of IPv4.
fn canonical_network(network: IpNet) -> IpNet {
    let prefix = network.prefix_len().checked_sub(96);
    match (network.addr().to_canonical(), prefix) {
        (ip @ IpAddr::V4(_), Some(prefix)) if network.addr().is_ipv6() => IpNet::new(ip, prefix).unwrap_or(network),
        _ => network,
    }
}

/// Returns the address of a client whose connection comes from `peer`, by its `X-Forwarded-For`. Each proxy appends the address that it
/// was connected from, so the header is read from the right, as long as the address that wrote an entry is trusted. Entries that a client
/// made up are to the left of that.
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
        match parse_hop(hop) {
            Some(ip) => client = ip,
            None => break,
        }
    }
    client
}

/// Parses an entry of `X-Forwarded-For`: an address, which some proxies write with a port.
fn parse_hop(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop.trim_ascii()).ok()?;
    let ip = text
        .parse()
        .or_else(|_| text.parse().map(|addr: SocketAddr| addr.ip()))
        .or_else(|_| text.trim_start_matches('[').trim_end_matches(']').parse());
    ip.ok().map(|ip| ip.to_canonical())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn forwarded_addresses_count_from_the_right_while_trusted() {
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
            ("10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["[::ffff:198.51.100.1]:4711"], "198.51.100.1"),
            ("::ffff:203.0.113.1", &[], "203.0.113.1"),
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
    fn mapped_address_becomes_ipv4_and_any_other_stays() {
        for (addr, expected) in [
            ("[::ffff:192.0.2.1]:80", "192.0.2.1:80"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("[fe80::1%2]:80", "[fe80::1%2]:80"),
        ] {
            assert_eq!(canonical(addr.parse().expect("an address")).to_string(), expected);
        }
    }

    #[test]
    fn network_contains_its_addresses_and_no_other() {
        for (network, address, is_in) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("::1", "::1", true),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("0.0.0.0/0", "::1", false),
            ("::ffff:10.0.0.0/104", "10.1.2.3", true),
            ("::ffff:10.0.0.1", "::ffff:10.0.0.1", true),
            ("::ffff:10.0.0.0/104", "11.0.0.1", false),
            (" 10.0.0.1 ", "10.0.0.1", true),
        ] {
            let parsed: Network = network.parse().expect("a network");
            assert_eq!(parsed.contains(ip(address)), is_in, "{network} {address}");
        }
        for text in ["", "10.0.0.0/33", "10.0.0", "localhost", "10.0.0.0/8/8"] {
            assert_eq!(text.parse::<Network>(), Err(ParseNetworkError), "{text:?}");
        }
    }
}
