//! The requests of connections: open, join, data, kick, leave, close.

use alloc::{boxed::Box, collections::BTreeMap};
use core::mem;

use crate::{
    hub::{Conn, Hub, Opener, Outputs, State},
    id::{ConnId, Index, Key, PeerId},
    message::{Addressee, OutboundMessage},
    profile::{PayloadKind, RoleLifetime},
    reason::{CloseReason, Refusal, RoleEnd},
};

impl<P> Hub<P> {
    /// Returns whether a connection that requests a role has none. Cancels its role deadline, whatever the result of the request.
    pub(super) fn may_take_role(&mut self, from: ConnId, outputs: &mut Outputs<P>) -> bool {
        match self.conns.get_mut(from).map(|conn| &mut conn.state) {
            None => false,
            Some(State::Opener(_) | State::Joiner { .. }) => {
                self.refuse(from, Refusal::HasRole, outputs);
                false
            }
            Some(State::Idle { deadline }) => {
                let deadline = deadline.take();
                self.cancel_deadline(from, deadline);
                true
            }
        }
    }

    pub(super) fn open(&mut self, from: ConnId, key: Key, id: Option<PeerId>, outputs: &mut Outputs<P>) {
        if !self.may_take_role(from, outputs) {
            return;
        }
        if self.keys.contains_key(&key) {
            return self.refuse(from, Refusal::KeyTaken { key }, outputs);
        }
        let opener = Opener {
            key: key.clone(),
            id,
            joiners: BTreeMap::new(),
            next: 0,
        };
        self.set_state(from, State::Opener(Box::new(opener)));
        self.keys.insert(key.clone(), from);
        outputs.push((from, OutboundMessage::Opened { key }));
    }

    pub(super) fn join(&mut self, from: ConnId, key: Key, id: Option<PeerId>, outputs: &mut Outputs<P>) {
        if !self.may_take_role(from, outputs) {
            return;
        }
        let opener = self.keys.get(&key).copied();
        let Some((opener, State::Opener(its))) = opener.and_then(|id| Some((id, &mut self.conns.get_mut(id)?.state)))
        else {
            return self.refuse(from, Refusal::UnknownKey { key }, outputs);
        };
        if its.joiners.len() >= self.limits.joiners_per_key as usize || its.next == u32::MAX {
            return self.refuse(from, Refusal::TooManyJoiners { key }, outputs);
        }
        let index = Index::new(its.next);
        its.next += 1;
        its.joiners.insert(index, from);
        let opener_id = its.id.clone();
        self.joiners += 1;
        self.set_state(from, State::Joiner { opener, index });
        outputs.push((from, OutboundMessage::Joined { index, id: opener_id }));
        outputs.push((opener, OutboundMessage::PeerJoined { index, id }));
    }

    pub(super) fn data(
        &mut self,
        from: ConnId,
        to: Addressee,
        kind: PayloadKind,
        payload: P,
        outputs: &mut Outputs<P>,
    ) {
        let (recipient, sender, index) = match self.state(from) {
            None => return,
            Some(State::Idle { .. }) => return self.refuse(from, Refusal::NoRole, outputs),
            Some(State::Joiner { opener, index }) => (*opener, Some(*index), None),
            Some(State::Opener(opener)) => match to {
                Addressee::Unnamed => return self.refuse(from, Refusal::NoIndex, outputs),
                Addressee::Malformed => return self.close_into(from, CloseReason::IndexMalformed, outputs),
                Addressee::OutOfRange => {
                    self.counters.dropped += 1;
                    return self.refuse(from, Refusal::UnknownIndex { index: None }, outputs);
                }
                Addressee::Index(index) => match opener.joiners.get(&index) {
                    Some(joiner) => (*joiner, None, Some(index)),
                    // The joiner may have just left: the opener must keep its other joiners.
                    None => {
                        self.counters.dropped += 1;
                        return self.refuse(from, Refusal::UnknownIndex { index: Some(index) }, outputs);
                    }
                },
            },
        };
        // Kinds are ordered: `Object` is less than `Any`.
        if self
            .conns
            .get(recipient)
            .is_some_and(|conn| kind > conn.profile.accepts)
        {
            return self.refuse(from, Refusal::NotAnObject { index }, outputs);
        }
        self.counters.relayed += 1;
        outputs.push((recipient, OutboundMessage::Data { from: sender, payload }));
    }

    pub(super) fn kick(&mut self, from: ConnId, index: Option<Index>, outputs: &mut Outputs<P>) {
        let joiner = match self.conns.get_mut(from).map(|conn| &mut conn.state) {
            None => return,
            Some(State::Idle { .. }) => return self.refuse(from, Refusal::NoRole, outputs),
            Some(State::Joiner { .. }) => return self.refuse(from, Refusal::WrongRole, outputs),
            Some(State::Opener(opener)) => index.and_then(|index| Some((index, opener.joiners.remove(&index)?))),
        };
        match joiner {
            Some((index, joiner)) => {
                self.release(joiner, RoleEnd::Kicked, outputs);
                outputs.push((from, OutboundMessage::PeerLeft { index }));
            }
            None => self.refuse(from, Refusal::UnknownIndex { index }, outputs),
        }
    }

    pub(super) fn leave(&mut self, from: ConnId, outputs: &mut Outputs<P>) {
        match self.state(from) {
            Some(State::Joiner { .. }) => self.resign(from, outputs),
            Some(State::Opener(_)) => self.refuse(from, Refusal::WrongRole, outputs),
            Some(State::Idle { .. }) => self.refuse(from, Refusal::NoRole, outputs),
            None => {}
        }
    }

    pub(super) fn close_key(&mut self, from: ConnId, outputs: &mut Outputs<P>) {
        match self.state(from) {
            Some(State::Opener(_)) => self.resign(from, outputs),
            Some(State::Joiner { .. }) => self.refuse(from, Refusal::WrongRole, outputs),
            Some(State::Idle { .. }) => self.refuse(from, Refusal::NoRole, outputs),
            None => {}
        }
    }

    /// Ends a role at the request of its connection.
    fn resign(&mut self, conn: ConnId, outputs: &mut Outputs<P>) {
        match self.conns.get_mut(conn) {
            Some(Conn { profile, state }) if profile.role_lifetime == RoleLifetime::Reusable => {
                let state = mem::replace(state, State::Idle { deadline: None });
                self.retire(conn, state, outputs);
            }
            // A single-use role ends with its connection.
            Some(_) => self.refuse(conn, Refusal::WrongRole, outputs),
            None => {}
        }
    }
}
