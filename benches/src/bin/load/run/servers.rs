//! The servers that are compared: starting them, learning their address, and ending those that were started here.

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

use crate::{run::affinity::Cores, run::options::Common};

/// A server that can be measured.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) name: String,
    is_yardstick: bool,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// To be started for each measurement.
    Command(Vec<String>),
    /// Runs already, and goes on after us.
    Running { endpoint: Endpoint, pid: Option<u32> },
}

/// A server that runs. Dropping it ends it, if it was started here.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) endpoint: Endpoint,
    /// For reading `/proc`: unknown where there is none, and for a foreign server unless the user says.
    pub(crate) pid: Option<u32>,
    /// Whether the others are measured against this one.
    pub(crate) is_yardstick: bool,
    child: Option<Child>,
}

/// The yardstick, the server under test, and those to compare with, in this order.
pub(crate) fn candidates(common: &Common) -> Result<Vec<Candidate>, Error> {
    let mut candidates = vec![
        Candidate {
            is_yardstick: true,
            ..Candidate::command(&beside("yardstick")?)?
        },
        match &common.server {
            Some(command) => Candidate::command(command)?,
            // Its pace is a limit on one client, and what is measured is the server.
            None => Candidate::command(&format!(
                "{} --messages-per-second 0 --bytes-per-second 0",
                beside("sigver")?
            ))?,
        },
    ];
    for command in &common.against {
        candidates.push(Candidate::command(command)?);
    }
    if let Some(url) = &common.against_url {
        candidates.push(Candidate {
            name: url.clone(),
            is_yardstick: false,
            source: Source::Running {
                endpoint: parse_url(url)?,
                pid: common.against_pid,
            },
        });
    }
    for place in 1..candidates.len() {
        let same = candidates[..place]
            .iter()
            .filter(|earlier| earlier.name == candidates[place].name)
            .count();
        if same > 0 {
            candidates[place].name.push_str(&format!(" ({})", same + 1));
        }
    }
    Ok(candidates)
}

/// The server under test alone, with the limits that it has by default.
pub(crate) fn under_test(command: Option<&str>) -> Result<Candidate, Error> {
    match command {
        Some(command) => Candidate::command(command),
        None => Candidate::command(&beside("sigver")?),
    }
}

impl Candidate {
    fn command(command: &str) -> Result<Self, Error> {
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        let program = words.first().ok_or_else(|| Error::new("empty command"))?;
        let name = program.rsplit('/').next().unwrap_or(program).to_owned();
        Ok(Self {
            name,
            is_yardstick: false,
            source: Source::Command(words),
        })
    }

    /// Starts the server and waits until it says where it listens.
    pub(crate) fn start(&self, cores: Option<Cores>, log: Option<&Path>) -> Result<Server, Error> {
        match &self.source {
            Source::Running { endpoint, pid } => Ok(Server {
                endpoint: endpoint.clone(),
                pid: *pid,
                is_yardstick: false,
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
                    cores.enter_server()?;
                }
                let child = Command::new(&words[0])
                    .args(&words[1..])
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .stderr(errors)
                    .spawn();
                if let Some(cores) = cores {
                    cores.enter_generator()?;
                }
                let child = child.context(format!("cannot start {}", words.join(" ")))?;
                let mut server = Server::started(child)?;
                server.is_yardstick = self.is_yardstick;
                Ok(server)
            }
        }
    }
}

impl Server {
    fn started(mut child: Child) -> Result<Self, Error> {
        let output = child.stdout.take();
        let mut server = Self {
            endpoint: Endpoint {
                addr: SocketAddr::from(([127, 0, 0, 1], 0)),
                path: "/".to_owned(),
            },
            pid: cfg!(target_os = "linux").then(|| child.id()),
            is_yardstick: false,
            child: Some(child),
        };
        let output = output.ok_or_else(|| Error::new("the server has no standard output"))?;
        let (found, address) = mpsc::channel();
        thread::spawn(move || {
            // To the end, so that a server that goes on printing never waits for a reader.
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some(addr) = listening_on(&line) {
                    // Ignored: only the first address is waited for.
                    let _ = found.send(addr);
                }
            }
        });
        server.endpoint.addr = address
            .recv_timeout(START)
            .map_err(|_| Error::new("the server did not print \"listening on HOST:PORT\" within 10 s"))?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Ignored: it may have ended by itself. It is killed, not asked: a foreign server may take its time.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Reads `ws://HOST:PORT/PATH`.
pub(crate) fn parse_url(url: &str) -> Result<Endpoint, Error> {
    let rest = url
        .strip_prefix("ws://")
        .ok_or_else(|| Error::new(format!("{url}: not a ws:// address")))?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let addr = host.to_socket_addrs().context(url)?.next();
    Ok(Endpoint {
        addr: addr.ok_or_else(|| Error::new(format!("{url}: no such host")))?,
        path: if path.is_empty() { "/" } else { path }.to_owned(),
    })
}

fn listening_on(line: &str) -> Option<SocketAddr> {
    let (_, after) = line.split_once("listening on ")?;
    let word = after.split_whitespace().next()?;
    let host = word.trim_start_matches("ws://").trim_end_matches('/');
    host.to_socket_addrs().ok()?.next()
}

fn beside(program: &str) -> Result<String, Error> {
    let me = std::env::current_exe()?;
    let path = me.with_file_name(format!("{program}{}", std::env::consts::EXE_SUFFIX));
    if !path.exists() {
        return Err(Error::new(format!(
            "no {program} beside this program: build it (cargo build --release --workspace) or name a server with --server"
        )));
    }
    let path = path
        .to_str()
        .filter(|path| !path.contains(char::is_whitespace))
        .ok_or_else(|| Error::new("the programs must lie in a directory without white space in its name"))?;
    Ok(format!("{path} --listen 127.0.0.1:0"))
}

const START: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_what_servers_print() {
        let local = Some(SocketAddr::from(([127, 0, 0, 1], 8000)));
        assert_eq!(listening_on("sigver listening on 127.0.0.1:8000"), local);
        assert_eq!(listening_on("[info] listening on ws://127.0.0.1:8000/ now"), local);
        assert_eq!(listening_on("listening on port 8000"), None);
        assert_eq!(listening_on("hello"), None);
    }

    #[test]
    fn urls() {
        let endpoint = parse_url("ws://127.0.0.1:80/a/b").expect("URL");
        assert_eq!(endpoint.addr, SocketAddr::from(([127, 0, 0, 1], 80)));
        assert_eq!(endpoint.path, "/a/b");
        assert_eq!(parse_url("ws://127.0.0.1:80").expect("URL").path, "/");
        parse_url("http://127.0.0.1:80").expect_err("no WebSocket");
        parse_url("ws://127.0.0.1").expect_err("no port");
    }
}
