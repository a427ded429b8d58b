//! [`Hub::deny`]: the replies are those of a wrong guess, and nothing changes.

use std::error::Error;

use sigver_core::{ConnId, Decoder, Dialect, Frame, Hub, InboundMessage, Limits, OutboundMessage, Role, Time};

/// A hub in which one connection has opened `tea`, and another, of either dialect, has no role.
struct Fixture {
    hub: Hub,
    opener: ConnId,
    idle: ConnId,
    dialect: Dialect,
}

impl Fixture {
    fn new(dialect: Dialect) -> Result<Self, Box<dyn Error>> {
        let mut hub = Hub::new(Limits::default());
        let opener = hub.connect(Time::ZERO, Dialect::V1.profile())?;
        let open = message(Dialect::V1, r#"{"type":"open","key":"tea"}"#)?;
        assert_eq!(hub.handle(opener, open).len(), 1);
        let idle = hub.connect(Time::ZERO, dialect.profile())?;
        Ok(Self {
            hub,
            opener,
            idle,
            dialect,
        })
    }

    /// Returns the frames of the outputs.
    fn encode(&self, outputs: Vec<(ConnId, OutboundMessage)>) -> Vec<(ConnId, Option<Frame>)> {
        let encode = |(to, message)| {
            let dialect = if to == self.idle { self.dialect } else { Dialect::V1 };
            (to, dialect.encode(message))
        };
        outputs.into_iter().map(encode).collect()
    }
}

fn message(dialect: Dialect, text: &str) -> Result<InboundMessage, Box<dyn Error>> {
    Ok(Decoder::new(dialect, &Limits::default()).decode(text)?)
}

#[test]
fn denied_request_fails_like_a_wrong_guess() -> Result<(), Box<dyn Error>> {
    for dialect in [Dialect::Plain, Dialect::V1] {
        // A key for which the request fails, and one for which it would succeed.
        for (kind, failing, denied) in [("join", "coffee", "tea"), ("open", "tea", "coffee")] {
            let request = |key| message(dialect, &format!(r#"{{"type":"{kind}","key":"{key}"}}"#));
            let mut fixture = Fixture::new(dialect)?;
            let outputs = fixture.hub.handle(fixture.idle, request(failing)?);
            let refused = fixture.encode(outputs);
            let mut fixture = Fixture::new(dialect)?;
            let outputs = fixture.hub.deny(fixture.idle, request(denied)?);
            let received = fixture.encode(outputs);
            let renamed = |frame| match frame {
                Some(Frame::Text(text)) => Some(Frame::Text(text.replace(failing, denied))),
                other => other,
            };
            let as_denied: Vec<_> = refused.into_iter().map(|(to, frame)| (to, renamed(frame))).collect();
            assert_eq!(received, as_denied, "{dialect:?} {kind}");
            assert_eq!(fixture.hub.role(fixture.idle), None);
            assert_eq!((fixture.hub.stats().keys, fixture.hub.stats().joiners), (1, 0));
            assert_eq!(fixture.hub.poll_timeout(), None, "the deadline ends with the request");
            fixture.hub.assert_invariants();
        }
    }
    Ok(())
}

#[test]
fn other_messages_are_handled_as_usual() -> Result<(), Box<dyn Error>> {
    let mut fixture = Fixture::new(Dialect::V1)?;
    let join = message(Dialect::V1, r#"{"type":"join","key":"tea"}"#)?;
    assert_eq!(fixture.hub.handle(fixture.idle, join).len(), 2);
    assert_eq!(fixture.hub.role(fixture.idle), Some(Role::Joiner));
    assert_eq!(fixture.hub.role(fixture.opener), Some(Role::Opener));
    for (text, answer) in [
        (
            r#"{"type":"open","key":"coffee"}"#,
            r#"{"type":"error","code":"has-role","message":"this socket has a role already: it has to leave or close that first"}"#,
        ),
        (r#"{"type":"send","data":1}"#, r#"{"type":"data","index":0,"data":1}"#),
        (r#"{"type":"leave"}"#, r#"{"type":"leave","index":0}"#),
    ] {
        let outputs = fixture.hub.deny(fixture.idle, message(Dialect::V1, text)?);
        let received = fixture.encode(outputs);
        let frames: Vec<_> = received.into_iter().map(|(_, frame)| frame).collect();
        assert_eq!(frames, [Some(Frame::Text(answer.into()))]);
    }
    assert_eq!(fixture.hub.role(fixture.idle), None);
    let outputs = fixture.hub.disconnect(fixture.idle);
    assert_eq!(fixture.encode(outputs), []);
    let join = message(Dialect::V1, r#"{"type":"join","key":"tea"}"#)?;
    let outputs = fixture.hub.deny(fixture.idle, join);
    assert_eq!(fixture.encode(outputs), [], "dead ids are inert");
    Ok(())
}
