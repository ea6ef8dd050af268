//! A refusal, explained: the status, what the server says in a problem document (RFC 9457) or otherwise, and what to do.

use super::exchange::{Answer, Failed};
use super::text::{escaped, escaped_bytes};
use super::words;
use serde::Deserialize;
use std::time::Duration;

/// How much of a body that is no problem document is read, and how much of it shown, in bytes.
const READ_BYTES_MAX: usize = 64 * 1024;
const SHOWN_BYTES_MAX: usize = 300;

/// How long the body of a refusal may take.
const BODY_TIME_MAX: Duration = Duration::from_secs(2);

/// Longest that a server may have us wait.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

pub(super) const SPEAKS_TLS: &str =
    "what answers there speaks TLS (wss:// or https://), which `throng connect` does not: ask for its port without TLS";

/// Headers that say what would help.
const TELLING: [&str; 6] = ["Location", "WWW-Authenticate", "Retry-After", "Sec-WebSocket-Version", "Upgrade", "Allow"];

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
    code: Option<String>,
}

/// Why the answer is not the one that opens.
pub(super) fn explain(mut answer: Answer) -> Failed {
    let body = answer.body(BODY_TIME_MAX, READ_BYTES_MAX).unwrap_or_default();
    let mut why = format!("refused: {} {}", answer.status, escaped(&answer.reason));
    let is_json = answer.field("Content-Type").is_some_and(|name| name.to_ascii_lowercase().contains("json"));
    let mut is_explained = false;
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) if is_json && (problem.detail.is_some() || problem.title.is_some()) => {
            let text = problem.detail.or(problem.title).unwrap_or_default();
            is_explained = true;
            why.push_str(&format!("\n{}", escaped(&text)));
            if let Some(code) = problem.code {
                why.push_str(&format!(" ({})", escaped(&code)));
            }
        }
        _ => {
            let text = body.trim_ascii();
            let shown = escaped_bytes(&text[..text.len().min(SHOWN_BYTES_MAX)]);
            if !shown.is_empty() {
                why.push_str(&format!("\nit says: {shown}{}", if text.len() > SHOWN_BYTES_MAX { "..." } else { "" }));
            }
        }
    }
    for name in TELLING {
        if let Some(value) = answer.field(name) {
            why.push_str(&format!("\n{name}: {}", escaped(value)));
        }
    }
    if (300..400).contains(&answer.status) {
        why.push_str("\nit is elsewhere: say that URL, or --location to follow");
    } else if let Some(hint) = words::hint(answer.status)
        // Where the server has said what is wrong, it is left to say which flag helps.
        && (!is_explained || hint.contains("--"))
    {
        why.push_str(&format!("\n{hint}"));
    }
    let after = answer.field("Retry-After").and_then(|value| value.parse().ok()).map(Duration::from_secs);
    Failed { why, may_pass: words::status_may_pass(answer.status), after: after.map(|time| time.min(RETRY_AFTER_MAX)) }
}
