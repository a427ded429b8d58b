//! Parsers of the values of flags and variables. White space around a value is ignored.

use std::{
    fmt::Display,
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket},
    str::FromStr,
    time::Duration,
};

use sigver_server::ListenAddr;

/// The items of one value, which are separated by commas or white space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct List<T>(Vec<T>);

/// Returns the items of all values of a flag.
pub(crate) fn flatten<T: Clone>(lists: &[List<T>]) -> Vec<T> {
    lists.iter().flat_map(|list| &list.0).cloned().collect()
}

/// Splits a value into its items.
pub(crate) fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| letter == ',' || letter.is_whitespace())
        .filter(|item| !item.is_empty())
}

/// Parses a list with at least one item.
pub(crate) fn list<T: FromStr<Err: ToString>>(text: &str) -> Result<List<T>, String> {
    let parse = |item: &str| item.parse().map_err(|error: T::Err| error.to_string());
    match text.trim() {
        "" => parse("").map(|item| List(vec![item])),
        _ => items(text).map(parse).collect::<Result<_, _>>().map(List),
    }
}

/// Parses a list of addresses to listen on: TCP addresses and `unix:PATH`.
pub(crate) fn listen_addrs(text: &str) -> Result<List<ListenAddr>, String> {
    let or_unix = |error: String| error + ", or unix:PATH";
    let mut listen = Vec::new();
    for item in items(text) {
        match item.parse() {
            Ok(addr) => listen.push(addr),
            Err(_) => {
                let List(resolved) = addrs(item).map_err(or_unix)?;
                listen.extend(resolved.into_iter().map(ListenAddr::from));
            }
        }
    }
    if listen.is_empty() {
        addrs("").map_err(or_unix)?;
    }
    Ok(List(listen))
}

/// Parses a list of TCP addresses. A host name is resolved, and stands for all of its addresses.
pub(crate) fn addrs(text: &str) -> Result<List<SocketAddr>, String> {
    const EXPECTED: &str = "expected HOST:PORT, as in 127.0.0.1:8000, [::]:8000 or localhost:8000";
    let mut addrs = Vec::new();
    for item in items(text) {
        if let Ok(addr) = item.parse() {
            addrs.push(addr);
            continue;
        }
        let (host, port) = item.rsplit_once(':').ok_or(EXPECTED)?;
        let port: u16 = port.parse().map_err(|_| EXPECTED)?;
        let unbracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if host.is_empty() || (unbracketed.is_none() && host.contains([':', '[', ']', '/'])) {
            return Err(EXPECTED.into());
        }
        let host = unbracketed.unwrap_or(host);
        let resolved = (host, port).to_socket_addrs();
        addrs.extend(usable(
            resolved.map_err(|_| format!("cannot resolve {host}; {EXPECTED}"))?,
        ));
    }
    if addrs.is_empty() {
        return Err(EXPECTED.into());
    }
    Ok(List(addrs))
}

/// Returns the addresses of a host name, each once, without those that this machine does not have: `localhost` is often `::1` as well where
/// there is no IPv6. If none is left, all are returned, so that listening fails with the reason.
fn usable(resolved: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut all: Vec<SocketAddr> = Vec::new();
    for addr in resolved {
        if !all.contains(&addr) {
            all.push(addr);
        }
    }
    let is_local = |ip: IpAddr| {
        let bound = UdpSocket::bind((ip, 0));
        !bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
    };
    let local: Vec<_> = all.iter().copied().filter(|addr| is_local(addr.ip())).collect();
    if local.is_empty() { all } else { local }
}

/// Parses the permissions of a file.
pub(crate) fn mode(text: &str) -> Result<u32, &'static str> {
    let mode = u32::from_str_radix(text.trim(), 8).ok();
    mode.filter(|mode| *mode <= 0o777)
        .ok_or("expected an octal number from 0 to 777, such as 660")
}

/// Returns a parser of numbers from `min` to `max`.
pub(crate) fn number<T>(min: T, max: T) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + PartialOrd + Display + Copy + Send + Sync + 'static,
{
    move |text| match text.trim().parse() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(format!("expected a number from {min} to {max}")),
    }
}

pub(crate) fn seconds(text: &str) -> Result<Duration, &'static str> {
    let seconds = text.trim().parse().ok().map(Duration::try_from_secs_f64);
    seconds
        .and_then(Result::ok)
        .ok_or("expected a number of seconds, such as 5 or 0.5")
}

pub(crate) fn positive_seconds(text: &str) -> Result<Duration, &'static str> {
    match seconds(text) {
        Ok(Duration::ZERO) => Err("expected more than 0 seconds"),
        parsed => parsed,
    }
}

/// Parses the value of a flag that has none on the command line.
pub(crate) fn switch(text: &str) -> Result<bool, &'static str> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "t" | "yes" | "y" | "on" => Ok(true),
        "0" | "false" | "f" | "no" | "n" | "off" => Ok(false),
        _ => Err("expected true or false"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_is_separated_by_commas_or_white_space() {
        for text in ["1,2", "1, 2", " 1 ,2, ", "1 2", "1\t2\r\n", ",1,,2"] {
            assert_eq!(list::<u8>(text), Ok(List(vec![1, 2])), "{text:?}");
        }
        for text in ["", " ", "1,x"] {
            assert!(list::<u8>(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn address_is_an_ip_or_a_host_name_with_a_port() {
        let parse = |text: &str| addrs(text).map(|List(addrs)| addrs);
        assert_eq!(
            parse("127.0.0.1:1, [::1]:2"),
            Ok(vec![
                SocketAddr::from(([127, 0, 0, 1], 1)),
                SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 2))
            ])
        );
        let local = parse("localhost:8000").unwrap_or_default();
        assert!(!local.is_empty(), "localhost is in the file of hosts");
        assert!(
            local.iter().all(|addr| addr.ip().is_loopback() && addr.port() == 8000),
            "{local:?}"
        );
        for text in [
            "",
            ",",
            "8000",
            ":8000",
            "127.0.0.1",
            "localhost",
            "localhost:",
            "localhost:65536",
            "localhost:http",
            "::1:8000",
            "[::1:8000",
            "http://localhost:8000",
            "127.0.0.1:8000,x",
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.starts_with("expected HOST:PORT"), "{text:?}: {error}");
        }
    }

    #[test]
    fn address_to_listen_on_may_be_a_unix_socket() {
        let parse = |text: &str| listen_addrs(text).map(|List(addrs)| format!("{addrs:?}"));
        assert_eq!(
            parse("127.0.0.1:1, unix:/run/a unix:b"),
            Ok("[127.0.0.1:1, unix:/run/a, unix:b]".into())
        );
        for text in ["", " ", "unix:", "unix", "/run/a", "8000", "127.0.0.1:1,x"] {
            let error = parse(text).expect_err(text);
            assert!(
                error.starts_with("expected HOST:PORT") && error.contains("unix:"),
                "{text:?}: {error}"
            );
        }
    }

    #[test]
    fn mode_is_octal() {
        assert_eq!((mode("660"), mode(" 0600 "), mode("0")), (Ok(0o660), Ok(0o600), Ok(0)));
        for text in ["", "8", "1000", "rw", "-1", "0o660"] {
            assert!(mode(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn addresses_of_a_name_are_those_of_this_machine() {
        let [local, other] = ["127.0.0.1:1", "192.0.2.1:1"].map(|text| text.parse().expect("an address"));
        assert_eq!(usable([local, other, local].into_iter()), [local]);
        assert_eq!(usable([other].into_iter()), [other], "listening fails with the reason");
    }

    #[test]
    fn switch_has_the_usual_words() {
        assert_eq!(
            (switch(" Yes "), switch("OFF"), switch("1")),
            (Ok(true), Ok(false), Ok(true))
        );
        assert!(switch("").is_err() && switch("maybe").is_err());
    }
}
