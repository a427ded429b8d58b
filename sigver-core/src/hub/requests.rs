//! The requests of connections: open, join, data, kick, leave, close.

use alloc::{boxed::Box, collections::BTreeMap, vec::Vec};
use core::{mem, time::Duration};

use crate::{
    hub::{Conn, Holder, Hub, NewOpener, Opener, Outputs, State, Waiting},
    id::{ConnId, Index, Key, PeerId},
    message::{Addressee, AllowedRoles, OutboundMessage},
    profile::{PayloadKind, RoleLifetime},
    reason::{CloseReason, Refusal, RoleEnd},
    time::Time,
    token::Token,
};

impl<P> Hub<P> {
    /// Returns whether a connection that requests a role has none. Cancels its role deadline, whatever the result of the request.
    pub(super) fn may_take_role(&mut self, from: ConnId, outputs: &mut Outputs<P>) -> bool {
        match self.conns.get_mut(from).map(|conn| &mut conn.state) {
            None => false,
            Some(State::Opener(_) | State::Joiner { .. } | State::Waiting(_)) => {
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

    pub(super) fn open(
        &mut self,
        from: ConnId,
        key: Key,
        token: Option<&Token>,
        new: NewOpener,
        outputs: &mut Outputs<P>,
    ) {
        let Some(new) = self.request_opener(from, new, outputs) else {
            return;
        };
        match (self.keys.get(&key), token) {
            (None, _) => self.become_opener(from, key, new, outputs),
            (Some(holder), Some(token)) if self.is_token_of(holder, token) => {
                self.take_over(key, from, new, outputs);
            }
            (Some(_), _) => self.refuse(from, Refusal::KeyTaken { key }, outputs),
        }
    }

    pub(super) fn meet(
        &mut self,
        from: ConnId,
        key: Key,
        token: Option<&Token>,
        new: NewOpener,
        allowed: AllowedRoles,
        outputs: &mut Outputs<P>,
    ) {
        let Some(new) = self.request_opener(from, new, outputs) else {
            return;
        };
        // The reply must not depend on the key.
        if !allowed.opener && !allowed.joiner {
            return self.refuse(from, Refusal::NotAllowed { key: Some(key) }, outputs);
        }
        match (self.keys.get(&key), token) {
            (None, _) if allowed.opener => self.become_opener(from, key, new, outputs),
            (Some(Holder::Opener(opener)), None) if allowed.joiner => {
                self.join_opener(*opener, from, key, new.id, outputs);
            }
            (Some(Holder::Reserved { .. }), None) => self.refuse(from, Refusal::UnknownKey { key }, outputs),
            (Some(holder), Some(token)) if !self.is_token_of(holder, token) => {
                self.refuse(from, Refusal::KeyTaken { key }, outputs);
            }
            (Some(_), Some(_)) if allowed.opener => self.take_over(key, from, new, outputs),
            (None | Some(_), _) => self.refuse(from, Refusal::NotAllowed { key: Some(key) }, outputs),
        }
    }

    /// Like [`may_take_role`](Self::may_take_role), for a connection that may become an opener. One with a single-use role gets no token: it is
    /// closed when the role ends, so the role cannot be taken from it.
    fn request_opener(&mut self, from: ConnId, new: NewOpener, outputs: &mut Outputs<P>) -> Option<NewOpener> {
        if !self.may_take_role(from, outputs) {
            return None;
        }
        let is_reusable = self.conns.get(from)?.profile.role_lifetime == RoleLifetime::Reusable;
        let token = new.token.filter(|_| is_reusable);
        Some(NewOpener { token, ..new })
    }

    /// Makes a connection without a role the opener of a key that nobody has open.
    pub(super) fn become_opener(&mut self, from: ConnId, key: Key, new: NewOpener, outputs: &mut Outputs<P>) {
        let opener = Opener {
            key: key.clone(),
            id: new.id,
            token: new.token.clone(),
            reservable: new.reservable,
            joiners: BTreeMap::new(),
            next: 0,
        };
        self.replace_state(from, State::Opener(Box::new(opener)));
        self.keys.insert(key.clone(), Holder::Opener(from));
        let waiters = self.waiters.take(&key);
        let opened = OutboundMessage::Opened {
            key,
            token: new.token,
            joiners: Vec::new(),
        };
        outputs.push((from, opened));
        for waiter in waiters {
            if let Some(State::Waiting(waiting)) = self.replace_state(waiter, State::Idle { deadline: None }) {
                self.cancel_deadline(waiter, waiting.deadline);
                self.enter(from, waiter, waiting.id, outputs);
            }
        }
    }

    pub(super) fn join(
        &mut self,
        now: Time,
        from: ConnId,
        key: Key,
        id: Option<PeerId>,
        wait: Duration,
        outputs: &mut Outputs<P>,
    ) {
        if !self.may_take_role(from, outputs) {
            return;
        }
        match self.keys.get(&key) {
            Some(Holder::Opener(opener)) => self.join_opener(*opener, from, key, id, outputs),
            None | Some(Holder::Reserved { .. }) if wait.is_zero() => {
                self.refuse(from, Refusal::UnknownKey { key }, outputs);
            }
            // All of them join when the key is opened.
            None | Some(Holder::Reserved { .. })
                if self.waiters.count(&key) >= self.limits.joiners_per_key as usize =>
            {
                self.refuse(from, Refusal::TooManyJoiners { key }, outputs);
            }
            None | Some(Holder::Reserved { .. }) => self.wait(now, from, key, id, wait, outputs),
        }
    }

    /// Makes a connection without a role a joiner of an open key, unless the key has as many as it may have.
    fn join_opener(&mut self, opener: ConnId, from: ConnId, key: Key, id: Option<PeerId>, outputs: &mut Outputs<P>) {
        let most = self.limits.joiners_per_key as usize;
        match self.state(opener) {
            Some(State::Opener(its)) if its.joiners.len() < most && its.next < u32::MAX => {
                self.enter(opener, from, id, outputs);
            }
            Some(State::Opener(_) | State::Idle { .. } | State::Joiner { .. } | State::Waiting(_)) | None => {
                self.refuse(from, Refusal::TooManyJoiners { key }, outputs);
            }
        }
    }

    /// Makes a connection without a role the next joiner of an opener that is not full.
    fn enter(&mut self, opener: ConnId, joiner: ConnId, id: Option<PeerId>, outputs: &mut Outputs<P>) {
        let Some(State::Opener(its)) = self.conns.get_mut(opener).map(|conn| &mut conn.state) else {
            return;
        };
        let index = Index::new(its.next);
        its.next += 1;
        its.joiners.insert(index, joiner);
        let opener_id = its.id.clone();
        self.joiners += 1;
        let state = State::Joiner {
            opener,
            index,
            id: id.clone(),
        };
        self.replace_state(joiner, state);
        outputs.push((joiner, OutboundMessage::Joined { index, id: opener_id }));
        outputs.push((opener, OutboundMessage::PeerJoined { index, id }));
    }

    fn wait(
        &mut self,
        now: Time,
        from: ConnId,
        key: Key,
        id: Option<PeerId>,
        wait: Duration,
        outputs: &mut Outputs<P>,
    ) {
        let deadline = now.checked_add(wait);
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, from));
        }
        let waiting = Waiting {
            arrival: self.waiters.push(key.clone(), from),
            key: key.clone(),
            id,
            deadline,
        };
        self.replace_state(from, State::Waiting(Box::new(waiting)));
        outputs.push((from, OutboundMessage::Waiting { key, wait }));
    }

    /// Refuses a join whose key was not opened in time.
    pub(super) fn end_wait(&mut self, conn: ConnId, outputs: &mut Outputs<P>) {
        if let Some(State::Waiting(waiting)) = self.replace_state(conn, State::Idle { deadline: None }) {
            self.cancel_deadline(conn, waiting.deadline);
            self.waiters.remove(&waiting.key, waiting.arrival);
            self.refuse(conn, Refusal::UnknownKey { key: waiting.key }, outputs);
        }
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
            Some(State::Idle { .. } | State::Waiting(_)) => return self.refuse(from, Refusal::NoRole, outputs),
            Some(State::Joiner { opener, index, .. }) => (*opener, Some(*index), None),
            Some(State::Opener(opener)) => match to {
                Addressee::Unnamed => return self.refuse(from, Refusal::NoIndex, outputs),
                Addressee::Malformed => return self.end(from, CloseReason::IndexMalformed, None, outputs),
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
            Some(State::Idle { .. } | State::Waiting(_)) => return self.refuse(from, Refusal::NoRole, outputs),
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
            Some(State::Joiner { .. } | State::Waiting(_)) => self.resign(from, outputs),
            Some(State::Opener(_)) => self.refuse(from, Refusal::WrongRole, outputs),
            Some(State::Idle { .. }) => self.refuse(from, Refusal::NoRole, outputs),
            None => {}
        }
    }

    pub(super) fn close_key(&mut self, from: ConnId, outputs: &mut Outputs<P>) {
        match self.state(from) {
            Some(State::Opener(_)) => self.resign(from, outputs),
            Some(State::Joiner { .. }) => self.refuse(from, Refusal::WrongRole, outputs),
            Some(State::Idle { .. } | State::Waiting(_)) => self.refuse(from, Refusal::NoRole, outputs),
            None => {}
        }
    }

    /// Ends a role at the request of its connection.
    fn resign(&mut self, conn: ConnId, outputs: &mut Outputs<P>) {
        match self.conns.get_mut(conn) {
            Some(Conn { profile, state }) if profile.role_lifetime == RoleLifetime::Reusable => {
                let state = mem::replace(state, State::Idle { deadline: None });
                self.retire(conn, state, None, outputs);
            }
            // A single-use role ends with its connection.
            Some(_) => self.refuse(conn, Refusal::WrongRole, outputs),
            None => {}
        }
    }
}
