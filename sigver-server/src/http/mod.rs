//! HTTP/1, as far as a WebSocket server needs it: request heads, opening handshakes, responses.
//!
//! Knows neither the configuration of the server nor who may connect. Bodies are not read, and every response but 101 ends its connection.

pub(crate) mod head;
pub(crate) mod headers;
pub(crate) mod page;
pub(crate) mod request;
pub(crate) mod response;
