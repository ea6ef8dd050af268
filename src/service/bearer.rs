//! Who bare clients are: the token that a request brings, in a header, a subprotocol or a cookie.
//!
//! | in | for |
//! |---|---|
//! | `Authorization: Bearer TOKEN` (RFC 6750, section 2.1) | whoever can set headers |
//! | `Sec-WebSocket-Protocol: throng, bearer.TOKEN` | pages' WebSockets, which cannot; `throng` is selected |
//! | a cookie, if one is configured | pages of the site that set it |
//! | the URL | nobody (RFC 6750, section 5.3): [`has_token`](crate::http::has_token) sees to that |
//!
//! A browser adds the cookie to whatever any page asks for, so it counts only where the request says that it is not a
//! stranger's page: by its Origin, which has been checked before anybody is asked, or in a GET by Fetch Metadata.

use super::{Request, TokenKeys};
use crate::adapter::centrifugo::token::{self, Caps};
use crate::config::Right;
use crate::error::Refused;
use crate::http::{Response, wants_websocket};

/// What a subprotocol starts with that is a token.
const SUBPROTOCOL: &str = "bearer.";

/// Whom a request is from, as its token says.
#[derive(Clone, Debug)]
pub struct Bearer {
    user: Box<str>,
    expire_at: Option<u64>,
    caps: Caps,
}

impl Bearer {
    /// The user; empty for an anonymous one.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// When it is over with what the token gave, in seconds of Unix time; `None`: never.
    pub fn expire_at(&self) -> Option<u64> {
        self.expire_at
    }

    /// Whether the token allows this whatever the topic's rules say (`caps`).
    pub(super) fn is_allowed(&self, right: Right, topic: &str) -> bool {
        self.caps.allow(right, topic)
    }
}

impl TokenKeys {
    /// Whom a request with a connection token is from; `None`: it brings no token. The token may come as
    /// `Authorization: Bearer TOKEN`, as the subprotocol `bearer.TOKEN` beside `throng`, and in a cookie, if one is configured
    /// ([`cookie`](Self::cookie)).
    ///
    /// # Errors
    ///
    /// The response to a request whose token does not count (401), which brings different ones or one that cannot be read (400),
    /// or whose cookie may have been added for a stranger's page (403); it says why. That an Origin is allowed must have been
    /// checked, as [`Server`](crate::Server) does.
    pub fn bearer_of(&self, request: &Request<'_>) -> Option<Result<Bearer, Response>> {
        let cookie = self.cookie_name();
        let token = match given(request, cookie.as_deref()) {
            Ok(token) => token?,
            // Who meant to be somebody is not taken for nobody.
            Err(refusal) => return Some(Err(refusal)),
        };
        let refuse = |why: &str| Response::detailed(Refused::Token, why).header("WWW-Authenticate", "Bearer");
        Some(match token::verify_connection(&token, self, request.unix_seconds) {
            Ok(token) if token.expire_at.is_some_and(|at| at <= request.unix_seconds) => {
                Err(refuse("what the token gave is over (expire_at): get another"))
            }
            Ok(token) => Ok(Bearer { user: token.user.into(), expire_at: token.expire_at, caps: token.caps }),
            Err(error) => Err(refuse(&error.to_string())),
        })
    }
}

/// The one token that a request brings.
fn given(request: &Request<'_>, cookie: Option<&str>) -> Result<Option<String>, Response> {
    let mut explicit = Vec::new();
    for authorization in request.header_values("Authorization") {
        let authorization = std::str::from_utf8(authorization).map_err(|_| {
            let detail = "Authorization is not UTF-8: send it in ASCII, or leave it out";
            Response::detailed(Refused::HeaderUnreadable, detail)
        })?;
        let (scheme, token) = authorization.split_once(' ').unwrap_or((authorization, ""));
        if scheme.eq_ignore_ascii_case("Bearer") {
            explicit.push(token.trim());
        }
    }
    let is_upgrade = wants_websocket(request);
    explicit
        .extend(request.subprotocols().filter(|_| is_upgrade).filter_map(|offered| offered.strip_prefix(SUBPROTOCOL)));
    let cookies: Vec<_> = cookie.map(|name| cookies(request, name)).unwrap_or_default();
    let mut all = explicit.iter().chain(&cookies);
    let Some(token) = all.next() else { return Ok(None) };
    if all.any(|other| other != token) {
        return Err(Refused::TokensDiffer.into());
    }
    if explicit.is_empty() && is_forgeable(request, is_upgrade) {
        return Err(Refused::CookieOrigin.into());
    }
    Ok(Some((*token).to_owned()))
}

/// The values of the cookies of that name (RFC 6265, section 5.4), but for empty ones: it was taken back.
fn cookies<'a>(request: &Request<'a>, name: &str) -> Vec<&'a str> {
    let fields = request.header_values("Cookie").filter_map(|field| std::str::from_utf8(field).ok());
    let pairs = fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let values = pairs.filter(|(own, _)| *own == name).map(|(_, value)| value.trim_matches('"'));
    values.filter(|value| !value.is_empty()).collect()
}

/// Whether a page of anybody's may have had its reader's browser send this. Where there is an Origin, it is one that may.
fn is_forgeable(request: &Request<'_>, is_upgrade: bool) -> bool {
    let mut sites = request.header_values("Sec-Fetch-Site");
    if request.header_values("Origin").next().is_some() {
        return false;
    }
    is_upgrade || !matches!(request.method(), "GET" | "HEAD" | "OPTIONS") || sites.any(|site| site == b"cross-site")
}
