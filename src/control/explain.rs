//! What a reason means and what to do about it, in words: the registry says what happened, and here is what an operator who was
//! asked "why was I disconnected?" can answer.

use crate::adapter::centrifugo::codes::{DisconnectCode, reconnects};
use crate::error::{End, Violation};
use crate::worker::{Gone, Why};

pub(super) struct Explained {
    pub(super) means: String,
    pub(super) advice: String,
}

/// What became of that one.
pub(super) fn explain(gone: &Gone) -> Explained {
    match gone.why {
        // The registry's sentences say what to do.
        Why::Refused(refused) => Explained {
            means: format!("the request was answered {} and nothing was opened", gone.code),
            advice: sentence(gone.text.as_deref().unwrap_or(refused.text())),
        },
        Why::Ended(end) => {
            let (means, advice) = end_in_words(end);
            Explained { means: format!("{means}{}", details(gone, end)), advice: advice.to_owned() }
        }
    }
}

/// What is known of this very end.
fn details(gone: &Gone, end: End) -> String {
    let text = gone.text.as_deref().unwrap_or_default();
    match end {
        End::Violation => {
            let found = Violation::ALL.iter().find(|violation| violation.text() == text);
            found.map_or_else(String::new, |violation| format!(" ({}: {})", violation.word(), violation.text()))
        }
        End::ServiceClosed | End::GoingAway | End::Operator if (3000..4000).contains(&gone.code) => {
            let known = DisconnectCode::ALL.iter().find(|code| code.code() == gone.code);
            let name = known.map_or_else(String::new, |code| format!(", {}", code.text()));
            let comes_back =
                if reconnects(gone.code) { "comes back by itself" } else { "does not come back by itself" };
            format!(" (Centrifugo's {}{name}: an SDK {comes_back})", gone.code)
        }
        End::WriteStall | End::SlowReader | End::MemoryShort if gone.queued > 0 || gone.lag > 0 => {
            format!(" ({} bytes waited for it, it was {} messages behind)", gone.queued, gone.lag)
        }
        _ => String::new(),
    }
}

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// What an end means, and what to do.
fn end_in_words(end: End) -> (&'static str, &'static str) {
    match end {
        End::PeerClosed => (
            "the client closed, with this code and reason",
            "Nothing is wrong here: look at what the client, or the page it was in, did",
        ),
        End::PeerGone => (
            "the client's side of the connection ended without a close frame",
            "A closed page, a process that ended, or a proxy between: if it is often, see the proxy's idle timeout",
        ),
        End::PeerReset => (
            "the connection was reset by the client's side or by something between",
            "A crash, a network that changed, or a proxy or firewall that dropped it; clients should come back by themselves",
        ),
        End::ServiceClosed => (
            "the service closed it, with this code and reason",
            "The code is the service's own: for Centrifugo's clients see its table of disconnect codes",
        ),
        End::GoingAway => (
            "the server was shutting down, or ended this connection so that it comes back elsewhere",
            "Expected in a deployment: clients come back by themselves, to another node or to this one",
        ),
        End::Violation => (
            "the client's frames broke the protocol",
            "Look at the client's library: what it sent is no WebSocket (RFC 6455), too long, or too much",
        ),
        End::PingTimeout => (
            "the client was pinged, or probed by the kernel, and nothing came back in time",
            "It lost its network or went to sleep; if that is often, raise --pong-timeout, or see what is between",
        ),
        End::WriteStall => (
            "something waited for the client and its socket took no byte for the whole --write-timeout",
            "It stopped reading, or its network is gone: it comes back to its cursor and misses nothing that is kept",
        ),
        End::SlowReader => (
            "the client read more slowly than it was sent to, until its next message was no longer kept",
            "Send it less, keep more (--history-size, --history-bytes), or let it skip (--slow skip)",
        ),
        End::MemoryShort => (
            "the server was short of memory, and this client had it hold most",
            "See throng_allocated_bytes: give the server more (--max-memory), or look at who does not read",
        ),
        End::Gap => (
            "messages that it wanted are no longer kept, and it has no place to be told so",
            "It can resume at the cursor in the reason; keep more (--history-size, --history-ttl), or use ?frames=json",
        ),
        End::Expired => (
            "the token that it had shown was over",
            "The client connects again with a new one, from the cursor in the reason; give tokens that last longer if that is too often",
        ),
        End::MaxAge => (
            "it was as old as connections get here (--max-connection-age)",
            "Expected: clients come back by themselves, and are spread over the nodes that there are by then",
        ),
        End::Operator => {
            ("an operator disconnected it through the admin port", "Ask who did: the server's log has the moment")
        }
        End::Panic => (
            "the service failed while it handled this connection",
            "A bug in the service: the server's log names it, and throng_panics_total counts",
        ),
        End::Aborted => (
            "the server ended at once, or could not watch the connection",
            "A second signal, a worker that failed, or fs.epoll.max_user_watches: see the server's log",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Refused;
    use crate::worker::Transport;

    fn gone(why: Why, code: u16, text: Option<&str>) -> Gone {
        Gone {
            unix_ms: 0,
            serial: Some(1),
            peer: std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into(),
            user: None,
            transport: Transport::WebSocket,
            why,
            code,
            clean: false,
            text: text.map(Into::into),
            age_s: 0,
            queued: 4096,
            lag: 7,
            topic: None,
        }
    }

    #[test]
    fn every_end_and_every_refusal_is_explained() {
        for &end in End::ALL {
            let Explained { means, advice } = explain(&gone(Why::Ended(end), end.code(), None));
            assert!(means.len() > 20 && advice.len() > 20, "{end:?}: {means} {advice}");
        }
        for &refused in Refused::ALL {
            let Explained { means, advice } = explain(&gone(Why::Refused(refused), refused.code(), None));
            assert!(means.contains(&refused.code().to_string()) && advice.len() > 10, "{refused:?}");
        }
    }

    #[test]
    fn what_is_known_of_this_very_end_is_said() {
        let violation = Violation::InvalidUtf8;
        let why = Why::Ended(End::Violation);
        assert!(explain(&gone(why, 1007, Some(violation.text()))).means.contains("invalid_utf8"));
        let means = explain(&gone(Why::Ended(End::WriteStall), 1013, None)).means;
        assert!(means.contains("4096 bytes") && means.contains("7 messages"), "{means}");
        let means = explain(&gone(Why::Ended(End::ServiceClosed), 3501, Some("bad request"))).means;
        assert!(means.contains("bad request") && means.contains("does not come back"), "{means}");
    }
}
