//! The servers to compare: starts them, reads their address, and stops those that it has started.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    net::{SocketAddr, ToSocketAddrs},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use sigver_benches::{
    engine::Endpoint,
    error::{Context, Error},
};

use crate::{run::affinity::Cores, run::options::CommonOptions};

/// The signaling protocol of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Plain,
    /// `matchbox_server` (crates.io).
    Matchbox,
    /// `peer` (npm), the PeerJS server.
    PeerJs,
}

impl Protocol {
    /// Returns the protocol in the scheme of a URL, and the WebSocket URL.
    fn of_url(url: &str) -> (Self, &str) {
        match url.split_once('+') {
            Some(("matchbox", url)) => (Self::Matchbox, url),
            Some(("peerjs", url)) => (Self::PeerJs, url),
            _ => (Self::Plain, url),
        }
    }
}

/// A server to measure.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    is_yardstick: bool,
    protocol: Protocol,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// Started for each measurement, with this command.
    Command(Vec<String>),
    /// Already running. It is not stopped.
    Running { endpoint: Endpoint, pid: Option<u32> },
}

/// A running server. If it was started here, it is killed on drop.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) endpoint: Endpoint,
    /// Process ID, to read `/proc`. Unknown on systems without `/proc`, and for a running server without `--against-pid`.
    pub(crate) pid: Option<u32>,
    /// Whether the other servers are compared with this one.
    pub(crate) is_yardstick: bool,
    pub(crate) protocol: Protocol,
    child: Option<Child>,
}

/// Returns the yardstick, the server under test, and the servers to compare with, in this order.
pub(crate) fn targets(common: &CommonOptions) -> Result<Vec<Target>, Error> {
    let targets = vec![
        Target {
            is_yardstick: true,
            ..Target::command(&sibling_command("yardstick")?)?
        },
        match &common.server {
            Some(command) => Target::command(command)?,
            // Rate limits restrict a client. The measurement is about the server.
            None => Target::command(&format!(
                "{} --messages-per-second 0 --bytes-per-second 0",
                sibling_command("sigver-server")?
            ))?,
        },
    ];
    with_others(targets, common)
}

/// Returns the server under test, with its default limits, and the servers to compare with. A yardstick has no limits.
pub(crate) fn limited_targets(common: &CommonOptions) -> Result<Vec<Target>, Error> {
    with_others(vec![target_under_test(common.server.as_deref())?], common)
}

/// Appends the servers to compare with.
fn with_others(mut targets: Vec<Target>, common: &CommonOptions) -> Result<Vec<Target>, Error> {
    for command in &common.against {
        targets.push(Target::command(command)?);
    }
    let (urls, pids) = (&common.against_url, &common.against_pid);
    if !pids.is_empty() && pids.len() != urls.len() {
        return Err(Error::new(format!(
            "{} --against-pid for {} --against-url",
            pids.len(),
            urls.len()
        )));
    }
    for (number, url) in urls.iter().enumerate() {
        let (protocol, websocket_url) = Protocol::of_url(url);
        targets.push(Target {
            name: url.clone(),
            is_yardstick: false,
            protocol,
            source: Source::Running {
                endpoint: parse_url(websocket_url)?,
                pid: pids.get(number).copied(),
            },
        });
    }
    for place in 1..targets.len() {
        let same = targets[..place]
            .iter()
            .filter(|earlier| earlier.name == targets[place].name)
            .count();
        if same > 0 {
            targets[place].name.push_str(&format!(" ({})", same + 1));
        }
    }
    Ok(targets)
}

/// Returns the server under test, with its default limits.
pub(crate) fn target_under_test(command: Option<&str>) -> Result<Target, Error> {
    match command {
        Some(command) => Target::command(command),
        None => Target::command(&sibling_command("sigver-server")?),
    }
}

impl Target {
    fn command(command: &str) -> Result<Self, Error> {
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        let program = words.first().ok_or_else(|| Error::new("empty server command"))?;
        let name = program.rsplit('/').next().unwrap_or(program).to_owned();
        Ok(Self {
            name,
            is_yardstick: false,
            protocol: Protocol::Plain,
            source: Source::Command(words),
        })
    }

    /// Starts the server and waits until it prints its address.
    pub(crate) fn start(&self, cores: Option<Cores>, log: Option<&Path>) -> Result<Server, Error> {
        match &self.source {
            Source::Running { endpoint, pid } => Ok(Server {
                endpoint: endpoint.clone(),
                pid: *pid,
                is_yardstick: false,
                protocol: self.protocol,
                child: None,
            }),
            Source::Command(words) => {
                let errors = match log {
                    Some(path) => {
                        let file = File::options().create(true).append(true).open(path);
                        Stdio::from(file.context(path.display())?)
                    }
                    None => Stdio::null(),
                };
                if let Some(cores) = cores {
                    cores.move_to_server_core()?;
                }
                let child = Command::new(&words[0])
                    .args(&words[1..])
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .stderr(errors)
                    .spawn();
                if let Some(cores) = cores {
                    cores.move_to_generator_core()?;
                }
                let child = child.context(format!("cannot start {}", words.join(" ")))?;
                let mut server = Server::from_child(child)?;
                server.is_yardstick = self.is_yardstick;
                Ok(server)
            }
        }
    }
}

impl Server {
    fn from_child(mut child: Child) -> Result<Self, Error> {
        let output = child.stdout.take();
        let mut server = Self {
            endpoint: Endpoint {
                addr: SocketAddr::from(([127, 0, 0, 1], 0)),
                path: "/".to_owned(),
            },
            pid: cfg!(target_os = "linux").then(|| child.id()),
            is_yardstick: false,
            protocol: Protocol::Plain,
            child: Some(child),
        };
        let output = output.ok_or_else(|| Error::new("server has no standard output"))?;
        let (found, address) = mpsc::channel();
        thread::spawn(move || {
            // Reads to the end, so that the server never blocks on a full pipe.
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some(addr) = listening_on(&line) {
                    // Ignored: the receiver is gone after the first address.
                    let _ = found.send(addr);
                }
            }
        });
        server.endpoint.addr = address
            .recv_timeout(STARTUP_TIMEOUT)
            .map_err(|_| Error::new("server did not print \"listening on HOST:PORT\" within 10 s"))?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Ignored: it may have exited already. A signal to shut down could take long with some servers.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Parses `ws://HOST:PORT/PATH`.
pub(crate) fn parse_url(url: &str) -> Result<Endpoint, Error> {
    let rest = url
        .strip_prefix("ws://")
        .ok_or_else(|| Error::new(format!("not a ws:// URL: {url}")))?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let addr = host.to_socket_addrs().context(url)?.next();
    Ok(Endpoint {
        addr: addr.ok_or_else(|| Error::new(format!("host not found: {url}")))?,
        path: if path.is_empty() { "/" } else { path }.to_owned(),
    })
}

fn listening_on(line: &str) -> Option<SocketAddr> {
    let (_, after) = line.split_once("listening on ")?;
    let word = after.split_whitespace().next()?;
    let host = word.trim_start_matches("ws://").trim_end_matches('/');
    host.to_socket_addrs().ok()?.next()
}

fn sibling_command(program: &str) -> Result<String, Error> {
    let me = std::env::current_exe()?;
    let path = me.with_file_name(format!("{program}{}", std::env::consts::EXE_SUFFIX));
    if !path.exists() {
        return Err(Error::new(format!(
            "no {program} in the directory of this program: build it (cargo build --release --workspace) or pass --server"
        )));
    }
    let path = path
        .to_str()
        .filter(|path| !path.contains(char::is_whitespace))
        .ok_or_else(|| Error::new("path of the programs contains white space"))?;
    Ok(format!("{path} --listen 127.0.0.1:0"))
}

const STARTUP_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_found_in_server_output() {
        let local = Some(SocketAddr::from(([127, 0, 0, 1], 8000)));
        assert_eq!(listening_on("sigver-server listening on 127.0.0.1:8000"), local);
        assert_eq!(listening_on("[info] listening on ws://127.0.0.1:8000/ now"), local);
        assert_eq!(listening_on("listening on port 8000"), None);
        assert_eq!(listening_on("hello"), None);
    }

    #[test]
    fn websocket_url_is_parsed() {
        let endpoint = parse_url("ws://127.0.0.1:80/a/b").expect("URL");
        assert_eq!(endpoint.addr, SocketAddr::from(([127, 0, 0, 1], 80)));
        assert_eq!(endpoint.path, "/a/b");
        assert_eq!(parse_url("ws://127.0.0.1:80").expect("URL").path, "/");
        parse_url("http://127.0.0.1:80").expect_err("not a WebSocket URL");
        parse_url("ws://127.0.0.1").expect_err("no port");
        assert_eq!(Protocol::of_url("peerjs+ws://h:1/p"), (Protocol::PeerJs, "ws://h:1/p"));
        assert_eq!(Protocol::of_url("ws://h:1/a+b"), (Protocol::Plain, "ws://h:1/a+b"));
    }
}
