//! Responses to requests that are no WebSocket handshake: pages, health checks, errors.

use crate::http::{head::Head, response::Response};

/// A file that is served over plain HTTP, from memory.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// The path of its URL, such as `/`.
    pub path: &'static str,
    /// Its media type, such as `text/html; charset=utf-8`.
    pub content_type: &'static str,
    /// Its content.
    pub body: &'static str,
}

/// Responds to a request on a port that serves WebSocket.
pub(crate) fn respond(head: &Head<'_>, pages: &[Page], is_ending: bool) -> Response {
    get(head, |path| {
        let page = pages.iter().find(|page| page.path == path);
        match (page, path) {
            _ if head.headers.all("Sec-WebSocket-Key").next().is_some() => Response::STRIPPED,
            (Some(page), _) => Response::page(page.content_type, page.body),
            (None, "/ready") if is_ending => Response::ENDING,
            (None, "/ready" | "/health") => Response::HEALTHY,
            (None, "/") => Response::NO_UPGRADE,
            (None, _) => Response::NOT_FOUND,
        }
    })
}

/// Responds to GET and HEAD with what `find` returns for the path, and to any other method with 405.
pub(crate) fn get(head: &Head<'_>, find: impl FnOnce(&str) -> Response) -> Response {
    match head.method {
        "GET" => find(head.path()),
        "HEAD" => find(head.path()).without_body(),
        _ => Response::METHOD,
    }
}
