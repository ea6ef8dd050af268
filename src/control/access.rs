//! Who may use the admin port: no page, whatever the browser, and beyond loopback only who has the key.
//!
//! A page can make its reader's browser send requests to 127.0.0.1, and, by a name that it has changed to mean 127.0.0.1 (DNS
//! rebinding), read the answers. Browsers cannot leave out `Origin` and `Sec-Fetch-Site` where they have them, and cannot lie
//! about `Host`.

use crate::config::ConfigError;
use crate::http::{Response, is_loopback};
use crate::service::{ApiKey, Request};
use std::net::SocketAddr;

pub(super) struct Access {
    key: Option<ApiKey>,
}

impl Access {
    /// # Errors
    ///
    /// Beyond loopback there must be a key.
    pub(super) fn new(key: Option<ApiKey>, address: SocketAddr) -> Result<Self, ConfigError> {
        if key.is_none() && !address.ip().is_loopback() {
            return Err(ConfigError::new(
                "listen",
                format!(
                    "the admin port cannot listen on {address} without a key: who reaches it may see and disconnect everybody; set a key, or listen on 127.0.0.1"
                ),
            ));
        }
        Ok(Self { key })
    }

    /// Whether the request may be answered. A probe needs no key.
    pub(super) fn check(&self, request: &Request<'_>, probe: bool) -> Result<(), Response> {
        let has_origin = request.header_values("Origin").next().is_some();
        let site = request.header_values("Sec-Fetch-Site").next();
        if has_origin || site.is_some_and(|site| site != b"none") {
            return Err(Response::refuse(403, "pages may not talk to the admin port: use a tool such as curl"));
        }
        match &self.key {
            _ if probe => Ok(()),
            Some(key) if key.is_in(request) == Some(true) => Ok(()),
            Some(_) => {
                let detail = "the admin port wants its key: send it as `X-API-Key: KEY` or `Authorization: apikey KEY`";
                Err(Response::refuse(401, detail).header("WWW-Authenticate", "apikey"))
            }
            None if request.header("Host").is_none_or(is_loopback) => Ok(()),
            None => Err(Response::refuse(
                403,
                "without a key the admin port answers only to localhost and loopback addresses as Host",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_loopback_a_key_is_needed() {
        let (here, everywhere) = (([127, 0, 0, 1], 1).into(), ([0, 0, 0, 0], 1).into());
        assert!(Access::new(None, here).is_ok());
        assert!(Access::new(None, everywhere).is_err_and(|error| error.to_string().contains("key")));
        assert!(Access::new(Some(ApiKey::new("k")), everywhere).is_ok());
    }
}
