//! Ids as numbers, and `Debug` and `Display` output without secrets.

use std::error::Error;

use sigver_core::{
    CloseReason, ConnId, ConnectError, Decoder, Dialect, Disconnect, Hub, InboundMessage, Key, Limits, OutboundMessage,
    PeerId, Refusal, Stats, Time, Token,
};

/// Returns two connections, of which the second has a reused slot.
fn ids() -> Result<(Hub, ConnId, ConnId), Box<dyn Error>> {
    let mut hub = Hub::new(Limits::default());
    let profile = Dialect::Plain.profile();
    let first = hub.connect(Time::ZERO, profile)?;
    let gone = hub.connect(Time::ZERO, profile)?;
    assert!(hub.disconnect(Time::ZERO, gone, Disconnect::Clean).is_empty());
    let second = hub.connect(Time::ZERO, profile)?;
    assert_eq!(gone.slot(), second.slot(), "the slot is reused");
    assert_ne!(gone, second);
    Ok((hub, first, second))
}

#[test]
fn id_survives_the_conversion_to_bits() -> Result<(), Box<dyn Error>> {
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
fn id_is_displayed_as_slot_and_generation() -> Result<(), Box<dyn Error>> {
    let (_, first, second) = ids()?;
    assert_eq!(first.to_string(), format!("0:{}", first.to_bits() >> 32));
    assert_eq!(format!("{second:?}"), format!("ConnId({second})"));
    assert_ne!(first.to_string(), second.to_string());
    Ok(())
}

#[test]
fn debug_shows_lengths_and_no_secret() -> Result<(), Box<dyn Error>> {
    let limits = Limits::default();
    assert_eq!(format!("{:?}", Key::new("secret", &limits)?), "Key(6 bytes)");
    assert_eq!(format!("{:?}", PeerId::new("secret")?), "PeerId(6 bytes)");
    assert_eq!(format!("{:?}", Token::new("secret")?), "Token");
    let text = r#"{"sdp":"secret"}"#;
    let InboundMessage::Data { payload, .. } = Decoder::new(Dialect::Plain, &limits).decode(text)? else {
        panic!("data is data");
    };
    assert_eq!(format!("{payload:?}"), "Payload(16 bytes)");
    let (mut hub, first, _) = ids()?;
    let open = Decoder::new(Dialect::Plain, &limits).decode(r#"{"type":"open","key":"secret"}"#)?;
    assert_eq!(hub.handle(Time::ZERO, first, open).len(), 1);
    let shown = format!("{hub:?}");
    assert!(shown.contains("connections: 2") && shown.contains("keys: 1"), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
    Ok(())
}

/// A hub is `Send` and `Sync` for any payload, and errors are too. Checked by the compiler.
#[test]
fn public_types_are_send_and_sync() {
    const fn is_send_sync<T: Send + Sync + 'static>() {}
    const fn is_error<T: Error + Send + Sync + 'static>() {}
    is_send_sync::<Hub>();
    is_send_sync::<Hub<std::rc::Rc<u8>>>();
    is_send_sync::<(InboundMessage, OutboundMessage, Key, ConnId, Limits, Stats)>();
    is_error::<CloseReason>();
    is_error::<ConnectError>();
    is_error::<Refusal>();
}
