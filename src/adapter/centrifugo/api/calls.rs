//! The methods that are about a user.

use super::super::call::{Act, Call, Refresh, Subscription};
use super::super::codes::DisconnectCode;
use super::super::protocol::StreamPosition;
use super::super::token::Overrides;
use super::{Failure, lenient, topic};
use crate::json;
use base64::engine::{Engine, general_purpose::STANDARD};
use serde_json::value::RawValue;

requests! {
    /// Ends sessions.
    DisconnectRequest {
        user: String = "lenient",
        client: String = "lenient",
        session: String = "lenient",
        whitelist: Vec<String> = "lenient",
        disconnect: Option<Disconnect> = "lenient",
    }

    /// With which code and reason.
    Disconnect {
        code: u32 = "lenient",
        reason: String = "lenient",
    }

    /// Ends subscriptions.
    UnsubscribeRequest {
        user: String = "lenient",
        channel: String = "lenient",
        client: String = "lenient",
        session: String = "lenient",
    }

    /// Subscribes.
    SubscribeRequest {
        user: String = "lenient",
        channel: String = "lenient",
        client: String = "lenient",
        session: String = "lenient",
        expire_at: i64 = "lenient",
        info: Option<Box<RawValue>> = "lenient",
        b64info: String = "lenient",
        data: Option<Box<RawValue>> = "lenient",
        b64data: String = "lenient",
        recover_since: Option<StreamPosition> = "lenient",
        r#override: Option<Overrides> = "lenient",
    }

    /// Says until when connections may go on.
    RefreshRequest {
        user: String = "lenient",
        client: String = "lenient",
        session: String = "lenient",
        expired: bool = "lenient",
        expire_at: i64 = "lenient",
        info: Option<Box<RawValue>> = "lenient",
    }
}

impl Call {
    fn new(user: String, client: String, session: String, act: Act) -> Result<Self, Failure> {
        match &*user {
            "" => Err(Failure::bad("give `user`, not the empty one: it has no list of sessions")),
            _ => Ok(Self { user: user.into(), client: client.into(), session: session.into(), act }),
        }
    }
}

/// A moment in seconds of Unix time; 0 is never.
fn moment(expire_at: i64) -> Option<u64> {
    u64::try_from(expire_at).ok().filter(|&at| at > 0)
}

/// Bytes in base64, if there are any, go before JSON.
fn bytes(raw: Option<Box<RawValue>>, base64: &str) -> Result<Vec<u8>, Failure> {
    match base64 {
        "" => Ok(raw.map_or_else(Vec::new, |raw| Box::<str>::from(raw).into_string().into_bytes())),
        _ => STANDARD
            .decode(base64)
            .map_err(|error| Failure::bad(format!("`b64data` or `b64info` is not base64: {error}"))),
    }
}

/// A code that closes a session, and a reason that no client takes for more than that.
fn ending(disconnect: Option<Disconnect>) -> Result<(u16, Box<str>), Failure> {
    let default = DisconnectCode::ForceNoReconnect;
    let Some(Disconnect { code, reason }) = disconnect else {
        return Ok((default.code(), default.text().into()));
    };
    let code = match u16::try_from(code) {
        Ok(code @ 3000..=4999) => code,
        _ => return Err(Failure::bad("a `disconnect` has a `code` from 3000 to 4999")),
    };
    match &*reason {
        "" => Ok((code, default.text().into())),
        // The JavaScript client would take its advice, whatever the code.
        json if json::validate(json.as_bytes()).is_ok() => {
            Err(Failure::bad("the `reason` of a `disconnect` must not be JSON"))
        }
        _ => Ok((code, reason.into())),
    }
}

impl DisconnectRequest {
    pub(crate) fn call(self) -> Result<Call, Failure> {
        let Self { user, client, session, whitelist, disconnect } = self;
        let (code, reason) = ending(disconnect)?;
        Call::new(user, client, session, Act::Disconnect { code, reason, whitelist })
    }
}

impl UnsubscribeRequest {
    pub(crate) fn call(self) -> Result<Call, Failure> {
        let Self { user, channel, client, session } = self;
        Call::new(user, client, session, Act::Unsubscribe(topic(&channel)?))
    }
}

impl SubscribeRequest {
    pub(crate) fn call(self) -> Result<Call, Failure> {
        let Self { user, channel, client, session, expire_at, recover_since, r#override, .. } = self;
        let subscription = Subscription {
            topic: topic(&channel)?,
            data: bytes(self.data, &self.b64data)?,
            info: bytes(self.info, &self.b64info)?,
            expire_at: moment(expire_at),
            recover_since: recover_since.map(|since| (since.epoch, since.offset)),
            overrides: r#override.unwrap_or_default(),
        };
        Call::new(user, client, session, Act::Subscribe(Box::new(subscription)))
    }
}

impl RefreshRequest {
    pub(crate) fn call(self) -> Result<Call, Failure> {
        let Self { user, client, session, expired, expire_at, info } = self;
        let refresh = if expired { Refresh::Expired } else { Refresh::Until(moment(expire_at), bytes(info, "")?) };
        Call::new(user, client, session, Act::Refresh(refresh))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Command, Method};
    use super::*;

    fn call(method: &str, body: &str) -> Result<Call, String> {
        let failed = |failure: Failure| {
            let mut out = Vec::new();
            failure.write(&mut out);
            String::from_utf8(out).unwrap()
        };
        match Command::read(Method::of(method).unwrap(), body.as_bytes()) {
            Ok(Command::Disconnect(request)) => request.call().map_err(failed),
            Ok(Command::Unsubscribe(request)) => request.call().map_err(failed),
            Ok(Command::Subscribe(request)) => request.call().map_err(failed),
            Ok(Command::Refresh(request)) => request.call().map_err(failed),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_user_is_named_and_the_empty_one_is_nobody() {
        for (method, body) in [
            ("disconnect", "{}"),
            ("disconnect", r#"{"user":"","client":"c"}"#),
            ("disconnect", r#"{"user":null}"#),
            ("unsubscribe", r#"{"channel":"a"}"#),
            ("subscribe", r#"{"channel":"a"}"#),
            ("refresh", r#"{"client":"c"}"#),
            ("unsubscribe", r#"{"user":"u"}"#),
            ("subscribe", r#"{"user":"u","channel":"a b"}"#),
            ("subscribe", r#"{"user":"u","channel":"a","b64data":"?"}"#),
            ("disconnect", r#"{"user":"u","disconnect":{}}"#),
            ("disconnect", r#"{"user":"u","disconnect":{"code":2999}}"#),
            ("disconnect", r#"{"user":"u","disconnect":{"code":5000}}"#),
            ("disconnect", r#"{"user":"u","disconnect":{"code":70000}}"#),
            ("disconnect", r#"{"user":"u","disconnect":{"code":4000,"reason":"{\"reconnect\":true}"}}"#),
            ("disconnect", r#"{"user":"u","disconnect":{"code":4000,"reason":"1"}}"#),
        ] {
            let said = call(method, body).unwrap_err();
            assert!(said.starts_with(r#"{"code":107,"message":"bad request: "#), "{method} {body}: {said}");
        }
    }

    #[test]
    fn what_is_to_be_done_is_read_with_its_defaults() {
        let disconnect = call("disconnect", r#"{"user":"u","client":null,"whitelist":["a"]}"#).unwrap();
        assert!(matches!(&disconnect.act, Act::Disconnect { code: 3503, reason, whitelist }
            if &**reason == "force disconnect" && whitelist[..] == ["a".to_owned()]));
        let disconnect = r#"{"user":"u","disconnect":{"code":4500,"reason":"banned"}}"#;
        let disconnect = call("disconnect", disconnect).unwrap();
        assert!(
            matches!(&disconnect.act, Act::Disconnect { code: 4500, reason, .. } if &**reason == "banned"),
            "{disconnect:?}"
        );
        let body = r#"{"user":"u","session":"s","channel":"a","data":{"x": 1},"info":[2],"expire_at":7,"unknown":[],
            "recover_since":{"offset":3,"epoch":"e"},"override":{"force_recovery":{"value":false},"presence":null}}"#;
        let subscribe = call("subscribe", body).unwrap();
        assert_eq!((&*subscribe.user, &*subscribe.client, &*subscribe.session), ("u", "", "s"));
        let Act::Subscribe(subscription) = subscribe.act else { panic!("{subscribe:?}") };
        assert_eq!((&subscription.data[..], subscription.expire_at), (&br#"{"x": 1}"#[..], Some(7)));
        assert_eq!(subscription.info, b"[2]");
        assert_eq!(subscription.recover_since, Some(("e".to_owned(), 3)));
        let expected = Overrides { force_recovery: Some(false), ..Overrides::default() };
        assert_eq!(subscription.overrides, expected);
        let bare = call("subscribe", r#"{"user":"u","channel":"a","data":null,"b64data":"/w==","expire_at":-1}"#);
        let Act::Subscribe(subscription) = bare.unwrap().act else { unreachable!() };
        assert_eq!((&subscription.data[..], subscription.expire_at), (&[0xFF][..], None));
        for (body, expected) in [
            (r#"{"user":"u"}"#, "Until(None, [])"),
            (r#"{"user":"u","expire_at":9,"info":1}"#, "Until(Some(9), [49])"),
            (r#"{"user":"u","expire_at":9,"expired":true}"#, "Expired"),
        ] {
            let Act::Refresh(refresh) = call("refresh", body).unwrap().act else { unreachable!() };
            assert_eq!(format!("{refresh:?}"), expected);
        }
    }
}
