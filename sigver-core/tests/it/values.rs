//! What values are as numbers and in a log: enough to tell them apart, and nothing that is secret.

use std::error::Error;

use sigver_core::{
    CloseReason, ConnId, ConnectError, Decoder, Dialect, Hub, InboundMessage, Key, Limits, OutboundMessage, Refusal,
    Stats, Time,
};

/// Two connections of which the second has the place that another had before.
fn ids() -> Result<(Hub, ConnId, ConnId), Box<dyn Error>> {
    let mut hub = Hub::new(Limits::default());
    let profile = Dialect::Plain.profile();
    let first = hub.connect(Time::ZERO, profile)?;
    let gone = hub.connect(Time::ZERO, profile)?;
    assert!(hub.disconnect(gone).is_empty());
    let second = hub.connect(Time::ZERO, profile)?;
    assert_eq!(gone.slot(), second.slot(), "the place is used again");
    assert_ne!(gone, second);
    Ok((hub, first, second))
}

#[test]
fn an_id_is_the_number_that_it_was_made_from() -> Result<(), Box<dyn Error>> {
    let (_, first, second) = ids()?;
    for id in [first, second] {
        assert_eq!(ConnId::from_bits(id.to_bits()), id);
    }
    for bits in [0, 1, 2, u64::from(u32::MAX), 1 << 32, 0xfedc_ba98_7654_3210, u64::MAX] {
        assert_eq!(ConnId::from_bits(bits).to_bits(), bits);
        assert_eq!(ConnId::from_bits(bits).slot(), bits as u32 as usize);
    }
    Ok(())
}

#[test]
fn ids_are_short_in_a_log() -> Result<(), Box<dyn Error>> {
    let (_, first, second) = ids()?;
    assert_eq!(first.to_string(), format!("0:{}", first.to_bits() >> 32));
    assert_eq!(format!("{second:?}"), format!("ConnId({second})"));
    assert_ne!(first.to_string(), second.to_string());
    Ok(())
}

#[test]
fn debug_shows_numbers_and_no_secret() -> Result<(), Box<dyn Error>> {
    let limits = Limits::default();
    assert_eq!(format!("{:?}", Key::new("secret", &limits)?), "Key(6 bytes)");
    let text = r#"{"sdp":"secret"}"#;
    let InboundMessage::Data { payload, .. } = Decoder::new(Dialect::Plain, &limits).decode(text)? else {
        panic!("data is data");
    };
    assert_eq!(format!("{payload:?}"), "Payload(16 bytes)");
    let (mut hub, first, _) = ids()?;
    let open = Decoder::new(Dialect::Plain, &limits).decode(r#"{"type":"open","key":"secret"}"#)?;
    assert_eq!(hub.handle(first, open).len(), 1);
    let shown = format!("{hub:?}");
    assert!(shown.contains("connections: 2") && shown.contains("keys: 1"), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
    Ok(())
}

/// A hub may live on any thread, whatever it carries; errors go wherever errors go. Checked by the compiler.
#[test]
fn values_go_to_other_threads() {
    const fn moves<T: Send + Sync + 'static>() {}
    const fn is_error<T: Error + Send + Sync + 'static>() {}
    moves::<Hub>();
    moves::<Hub<std::rc::Rc<u8>>>();
    moves::<(InboundMessage, OutboundMessage, Key, ConnId, Limits, Stats)>();
    is_error::<CloseReason>();
    is_error::<ConnectError>();
    is_error::<Refusal>();
}
