//! Outputs of an endpoint as text.

use sigver_core::{Frame, Output};

/// Returns the text of a text frame as it is, and a description that begins with a letter for everything else.
pub(crate) fn describe(output: &Output) -> String {
    match output {
        Output::Send(Frame::Text(text)) => text.clone(),
        Output::Send(Frame::Ping) => "ping".to_owned(),
        Output::Send(Frame::Pong(payload)) => format!("pong {}", String::from_utf8_lossy(payload)),
        Output::Send(Frame::Close(reason)) => format!("close {} {reason:?}", reason.code()),
        Output::Send(Frame::CloseReply(None)) => "reply".to_owned(),
        Output::Send(Frame::CloseReply(Some(code))) => format!("reply {code}"),
        Output::PauseReading(until) => format!("pause until {:?}", until.as_duration()),
        Output::StopReading => "stop reading".to_owned(),
        Output::ResumeReading => "resume reading".to_owned(),
        Output::ProbeProgress => "probe progress".to_owned(),
        Output::Abort => "abort".to_owned(),
        Output::PairingEnded(pairing) => pairing.to_string().chars().take_while(|one| *one != ':').collect(),
        unknown => panic!("an output that the tests do not know: {unknown:?}"),
    }
}
