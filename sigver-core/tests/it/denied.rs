//! Keys that are not to be had: what [`Hub::deny`] answers is what whoever guesses wrong gets, and nothing of what is asked for happens.

use std::error::Error;

use sigver_core::{ConnId, Decoder, Dialect, Frame, Hub, InboundMessage, Limits, OutboundMessage, Role, Time};

/// A hub in which somebody has `tea` open, and somebody else, of each dialect, has no role.
struct Scene {
    hub: Hub,
    opener: ConnId,
    idle: ConnId,
    dialect: Dialect,
}

impl Scene {
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

    /// What goes out, as it is on the wire.
    fn wire(&self, outputs: Vec<(ConnId, OutboundMessage)>) -> Vec<(ConnId, Option<Frame>)> {
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
fn a_denied_key_looks_like_one_that_cannot_be_had() -> Result<(), Box<dyn Error>> {
    for dialect in [Dialect::Plain, Dialect::V1] {
        // The one that is asked for in vain, and the one that would be had.
        for (kind, in_vain, denied) in [("join", "coffee", "tea"), ("open", "tea", "coffee")] {
            let ask = |key| message(dialect, &format!(r#"{{"type":"{kind}","key":"{key}"}}"#));
            let mut scene = Scene::new(dialect)?;
            let outputs = scene.hub.handle(scene.idle, ask(in_vain)?);
            let refused = scene.wire(outputs);
            let mut scene = Scene::new(dialect)?;
            let outputs = scene.hub.deny(scene.idle, ask(denied)?);
            let seen = scene.wire(outputs);
            let renamed = |frame| match frame {
                Some(Frame::Text(text)) => Some(Frame::Text(text.replace(in_vain, denied))),
                other => other,
            };
            let as_denied: Vec<_> = refused.into_iter().map(|(to, frame)| (to, renamed(frame))).collect();
            assert_eq!(seen, as_denied, "{dialect:?} {kind}");
            assert_eq!(scene.hub.role(scene.idle), None);
            assert_eq!((scene.hub.stats().keys, scene.hub.stats().joiners), (1, 0));
            assert_eq!(scene.hub.poll_timeout(), None, "it has asked in time");
            scene.hub.assert_invariants();
        }
    }
    Ok(())
}

#[test]
fn everything_else_is_handled_as_ever() -> Result<(), Box<dyn Error>> {
    let mut scene = Scene::new(Dialect::V1)?;
    let join = message(Dialect::V1, r#"{"type":"join","key":"tea"}"#)?;
    assert_eq!(scene.hub.handle(scene.idle, join).len(), 2);
    assert_eq!(scene.hub.role(scene.idle), Some(Role::Joiner));
    assert_eq!(scene.hub.role(scene.opener), Some(Role::Opener));
    for (text, answer) in [
        (
            r#"{"type":"open","key":"coffee"}"#,
            r#"{"type":"error","code":"has-role","message":"this socket has a role already: it has to leave or close that first"}"#,
        ),
        (r#"{"type":"send","data":1}"#, r#"{"type":"data","index":0,"data":1}"#),
        (r#"{"type":"leave"}"#, r#"{"type":"leave","index":0}"#),
    ] {
        let outputs = scene.hub.deny(scene.idle, message(Dialect::V1, text)?);
        let seen = scene.wire(outputs);
        let frames: Vec<_> = seen.into_iter().map(|(_, frame)| frame).collect();
        assert_eq!(frames, [Some(Frame::Text(answer.into()))]);
    }
    assert_eq!(scene.hub.role(scene.idle), None);
    let outputs = scene.hub.disconnect(scene.idle);
    assert_eq!(scene.wire(outputs), []);
    let join = message(Dialect::V1, r#"{"type":"join","key":"tea"}"#)?;
    let outputs = scene.hub.deny(scene.idle, join);
    assert_eq!(scene.wire(outputs), [], "the dead are inert");
    Ok(())
}
