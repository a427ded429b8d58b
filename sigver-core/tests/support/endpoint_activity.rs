//! The roles of an endpoint's connections as its activity reports them.

use std::collections::BTreeMap;

use sigver_core::{Activity, ConnId, Endpoint, Key, Role};

/// What was reported about the open connections.
#[derive(Default)]
pub(crate) struct ReportedRoles(BTreeMap<ConnId, Reported>);

#[derive(Clone)]
enum Reported {
    Idle,
    Opener(Key),
    Joiner(ConnId),
}

impl ReportedRoles {
    pub(crate) fn connect(&mut self, id: ConnId) {
        self.0.insert(id, Reported::Idle);
    }

    /// Polls all activity.
    ///
    /// # Panics
    ///
    /// If it contradicts what was reported before.
    pub(crate) fn poll(&mut self, endpoint: &mut Endpoint) {
        while let Some((id, activity)) = endpoint.poll_activity() {
            let reported = self
                .0
                .get_mut(&id)
                .unwrap_or_else(|| panic!("{activity:?} of {id} after its end"));
            match (activity, reported.clone()) {
                (Activity::Opened { key }, Reported::Idle) => *reported = Reported::Opener(key),
                (Activity::Joined { opener, .. }, Reported::Idle | Reported::Joiner(_)) => {
                    *reported = Reported::Joiner(opener);
                }
                (Activity::Left, Reported::Opener(_) | Reported::Joiner(_)) => *reported = Reported::Idle,
                (Activity::Refused(_), _) => {}
                (Activity::Closed(_), _) => drop(self.0.remove(&id)),
                (activity, _) => panic!("{activity:?} of {id} in another role"),
            }
        }
    }

    /// Asserts that these are the open connections of the endpoint, with their roles and keys.
    pub(crate) fn compare(&self, endpoint: &Endpoint) {
        assert_eq!(self.0.len(), endpoint.counters().hub.connections as usize);
        for (id, reported) in &self.0 {
            let (role, key) = match reported {
                Reported::Idle => (None, None),
                Reported::Opener(key) => (Some(Role::Opener), Some(key)),
                Reported::Joiner(opener) => match self.0.get(opener) {
                    Some(Reported::Opener(key)) => (Some(Role::Joiner), Some(key)),
                    _ => panic!("{id} has joined {opener}, which is no opener"),
                },
            };
            let actual = endpoint.role(*id).filter(|role| *role != Role::Waiting);
            assert_eq!(role, actual, "of {id}");
            if actual.is_some() {
                assert_eq!(key, endpoint.key(*id), "of {id}");
            }
            if role == Some(Role::Opener) {
                assert_eq!(key.and_then(|key| endpoint.opener(key)), Some(*id));
            }
        }
    }
}
