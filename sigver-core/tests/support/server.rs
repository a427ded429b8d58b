//! An [`Endpoint`] in virtual time, whose outputs can be compared with strings.

use core::time::Duration;
use std::{
    collections::{BTreeSet, VecDeque},
    net::IpAddr,
};

use sigver_core::{ConnId, ConnectError, Dialect, Endpoint, EndpointConfig, Input, Output, Time};

use crate::describe::describe;

pub(crate) fn at(millis: u64) -> Time {
    Time::from_duration(Duration::from_millis(millis))
}

/// The outputs of one call.
#[derive(Debug)]
pub(crate) struct Outputs(Vec<(ConnId, String)>);

/// The outputs of [`Server::run_until`], with their times in milliseconds.
#[derive(Debug)]
pub(crate) struct Timeline(Vec<(u64, ConnId, String)>);

pub(crate) struct Server {
    pub(crate) endpoint: Endpoint,
    pub(crate) now: Time,
    /// Connections whose frames are not reported as written.
    pub(crate) stalled: BTreeSet<ConnId>,
}

impl Server {
    /// Creates a server with the default configuration, changed by `set`, and without a role deadline.
    pub(crate) fn new(set: impl FnOnce(&mut EndpointConfig)) -> Self {
        let mut config = EndpointConfig::default();
        config.limits.role_deadline = None;
        set(&mut config);
        let mut made = 0x1234_5678_u128..;
        Self {
            // As random as a test needs.
            endpoint: Endpoint::new(config, move || made.next()),
            now: Time::ZERO,
            stalled: BTreeSet::new(),
        }
    }

    pub(crate) fn connect(&mut self, dialect: Dialect) -> ConnId {
        self.connect_from(dialect, "192.0.2.1").expect("a connection")
    }

    pub(crate) fn connect_from(&mut self, dialect: Dialect, client: &str) -> Result<ConnId, ConnectError> {
        let client: IpAddr = client.parse().expect("an address");
        let connected = self.endpoint.connect(self.now, dialect, client);
        self.endpoint.assert_invariants();
        connected
    }

    /// Returns an opener and its joiner.
    pub(crate) fn pair(&mut self, opener: Dialect, joiner: Dialect) -> (ConnId, ConnId) {
        let (opener, joiner) = (self.connect(opener), self.connect(joiner));
        self.text(opener, r#"{"type":"open","key":"tea"}"#);
        self.text(joiner, r#"{"type":"join","key":"tea"}"#);
        (opener, joiner)
    }

    pub(crate) fn input(&mut self, id: ConnId, input: Input<'_>) -> Outputs {
        let outputs = self.endpoint.handle(self.now, id, input);
        self.report(outputs)
    }

    pub(crate) fn text(&mut self, id: ConnId, text: &str) -> Outputs {
        self.input(id, Input::Text(text))
    }

    pub(crate) fn close_all(&mut self) -> Outputs {
        let outputs = self.endpoint.close_all(self.now);
        self.report(outputs)
    }

    pub(crate) fn handle_timeout(&mut self) -> Outputs {
        let outputs = self.endpoint.handle_timeout(self.now);
        self.report(outputs)
    }

    /// Advances the time and handles each timeout when it is due. Returns the outputs.
    pub(crate) fn run_until(&mut self, millis: u64) -> Timeline {
        let mut timeline = Vec::new();
        while let Some(due) = self.endpoint.poll_timeout().filter(|due| *due <= at(millis)) {
            self.now = self.now.max(due);
            let now = self.now.as_duration().as_millis() as u64;
            let Outputs(outputs) = self.handle_timeout();
            timeline.extend(outputs.into_iter().map(|(to, output)| (now, to, output)));
        }
        self.now = at(millis);
        Timeline(timeline)
    }

    /// Reports frames of a stalled connection as written.
    pub(crate) fn written(&mut self, id: ConnId, cost: usize) -> Outputs {
        let outputs = self.endpoint.written(self.now, id, cost);
        self.report(outputs)
    }

    /// Reports the frames of a call as written, except to stalled clients, and returns the outputs of all calls.
    pub(crate) fn report(&mut self, outputs: Vec<(ConnId, Output)>) -> Outputs {
        self.endpoint.assert_invariants();
        let mut outputs = VecDeque::from(outputs);
        let mut described = Vec::new();
        while let Some((to, output)) = outputs.pop_front() {
            described.push((to, describe(&output)));
            if let Output::Send(frame) = output {
                if !self.stalled.contains(&to) {
                    outputs.extend(self.endpoint.written(self.now, to, frame.cost()));
                }
            }
        }
        Outputs(described)
    }
}

impl Outputs {
    /// Returns the outputs for one connection.
    pub(crate) fn of(&self, id: ConnId) -> Vec<&str> {
        let own = self.0.iter().filter(|(to, _)| *to == id);
        own.map(|(_, output)| output.as_str()).collect()
    }
}

impl Timeline {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn last(&self) -> Option<&(u64, ConnId, String)> {
        self.0.last()
    }
}

impl<const N: usize> PartialEq<[(ConnId, &str); N]> for Outputs {
    fn eq(&self, expected: &[(ConnId, &str); N]) -> bool {
        self.0.iter().map(|(to, output)| (*to, output.as_str())).eq(*expected)
    }
}

impl<const N: usize> PartialEq<[(u64, ConnId, &str); N]> for Timeline {
    fn eq(&self, expected: &[(u64, ConnId, &str); N]) -> bool {
        let timeline = self.0.iter().map(|(now, to, output)| (*now, *to, output.as_str()));
        timeline.eq(*expected)
    }
}
