//! Responses to requests that are no WebSocket handshake: pages, health checks, errors.

use std::{fmt, sync::Arc};

use crate::http::{head::Head, response::Response};

/// A file that is served over plain HTTP, from memory. Clones share the content.
///
/// ```
/// use sigver_server::{Config, Page};
///
/// let mut config = Config::default();
/// let page = Page::new("/robots.txt", "text/plain", *b"User-agent: *\nDisallow: /\n");
/// config.pages.push(page);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Page {
    path: Arc<str>,
    content_type: Arc<str>,
    body: Arc<[u8]>,
}

impl Page {
    /// Creates a page with the path of its URL, such as `/`, its media type, such as `text/html; charset=utf-8`, and its content.
    pub fn new(path: impl Into<Arc<str>>, content_type: impl Into<Arc<str>>, body: impl Into<Arc<[u8]>>) -> Self {
        Self {
            path: path.into(),
            content_type: content_type.into(),
            body: body.into(),
        }
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page")
            .field("path", &self.path)
            .field("content_type", &self.content_type)
            .field("body", &format_args!("{} bytes", self.body.len()))
            .finish()
    }
}

/// Responds to a request on a port that serves WebSocket.
pub(crate) fn respond(head: &Head<'_>, pages: &[Page], is_ready: bool) -> Response {
    get(head, |path| {
        let page = pages.iter().find(|page| *page.path == *path);
        match (page, path) {
            _ if is_stripped(head) => Response::STRIPPED,
            (Some(page), _) => Response::page(&page.content_type, &page.body),
            (None, "/ready") if !is_ready => Response::ENDING,
            (None, "/ready" | "/health") => Response::HEALTHY,
            (None, "/") => Response::NO_UPGRADE,
            (None, _) => Response::NOT_FOUND,
        }
    })
}

/// Whether this is a health probe or the request of a page: what load balancers and browsers send all the time.
pub(crate) fn is_routine(head: &Head<'_>, pages: &[Page]) -> bool {
    ["GET", "HEAD", "OPTIONS"].contains(&head.method)
        && (["/health", "/ready"].contains(&head.path)
            || head.method == "OPTIONS"
            || pages.iter().any(|page| *page.path == *head.path))
        && !is_stripped(head)
        && !head.headers.lists("Upgrade", "websocket")
}

/// Whether this is a handshake without its hop-by-hop headers.
fn is_stripped(head: &Head<'_>) -> bool {
    head.headers.all("Sec-WebSocket-Key").next().is_some()
}

/// Responds to GET and HEAD with what `find` returns for the path, to OPTIONS with the methods, and to any other method with 405.
pub(crate) fn get(head: &Head<'_>, find: impl FnOnce(&str) -> Response) -> Response {
    match head.method {
        "GET" => find(head.path),
        "HEAD" => find(head.path).without_body(),
        "OPTIONS" => Response::OPTIONS,
        _ => Response::METHOD,
    }
}
