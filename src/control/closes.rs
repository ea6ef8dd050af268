//! Why somebody was disconnected, or did not come in.

use super::connections::silence;
use super::explain::explain;
use super::params::{self, Params};
use super::text::{Fields, Value, list as listing, wants_table};
use super::{Asked, Desk};
use crate::error::{End, Refused};
use crate::http::{Response, imf_fixdate};
use crate::service::Request;
use crate::topic::TopicName;
use crate::worker::{Found, Gone, GoneFilter, Quest, Why};

/// `GET /closes`.
pub(super) fn list<T>(desk: &Desk<T>, request: &Request<'_>) -> Result<Response, Response> {
    let params = Params::read(request, &["id", "user", "address", "reason", "limit", "format"])?;
    let (table, limit) = (wants_table(request, &params)?, params.limit()?);
    let id = params.text("id").map(params::id).transpose()?;
    let words: Vec<_> = End::ALL
        .iter()
        .map(|end| end.word())
        .chain(Refused::ALL.iter().map(|refused| refused.word()))
        .map(|word| (word, ()))
        .collect();
    params.word("reason", &words)?;
    let filter = GoneFilter {
        serial: id.map(|(_, serial)| serial),
        user: params.boxed("user"),
        address: params.address()?,
        reason: params.boxed("reason"),
    };
    let Asked { found, silent } = desk.ask(Quest::Gone { filter, limit }, id.map(|(worker, _)| worker));
    let mut all: Vec<(u16, Gone)> = Vec::new();
    for (worker, found) in found {
        if let Found::Gone(some) = found {
            all.extend(some.into_iter().map(|gone| (worker, gone)));
        }
    }
    all.sort_by_key(|(_, gone)| std::cmp::Reverse(gone.unix_ms));
    all.truncate(limit);
    let rows: Vec<Fields> = all.iter().map(|(worker, gone)| fields(*worker, gone, table)).collect();
    Ok(listing(table, "closes", &[("silent_workers", silence(&silent))], &rows))
}

fn fields(worker: u16, gone: &Gone, table: bool) -> Fields {
    let (kind, word, text, side) = match gone.why {
        Why::Ended(end) => ("closed", end.word(), end.text(), if end.is_by_client() { "client" } else { "server" }),
        Why::Refused(refused) => ("refused", refused.word(), refused.text(), "server"),
    };
    let explained = explain(gone);
    let date = String::from_utf8_lossy(&imf_fixdate(gone.unix_ms / 1000)).into_owned();
    let mut fields = vec![
        ("time", Value::Text(date)),
        ("id", gone.serial.map_or(Value::Nothing, |serial| Value::Text(format!("{worker}-{serial}")))),
        ("what", Value::Text(kind.to_owned())),
        ("reason", Value::Text(word.to_owned())),
        ("code", Value::Number(u64::from(gone.code))),
        ("side", Value::Text(side.to_owned())),
        ("address", Value::Text(gone.peer.to_string())),
        ("user", Value::of(gone.user.as_deref())),
        ("transport", Value::Text(gone.transport.word().to_owned())),
        ("age_s", Value::Number(u64::from(gone.age_s))),
        ("queued_bytes", Value::Number(u64::from(gone.queued))),
        ("lag_messages", Value::Number(u64::from(gone.lag))),
        ("topic", Value::of(gone.topic.as_ref().map(TopicName::as_str))),
    ];
    let text = gone.text.as_deref().unwrap_or(text);
    if table {
        let mut means = format!("{}. {}", explained.means, explained.advice);
        if !text.is_empty() && !means.to_lowercase().contains(&text.to_lowercase()) {
            means = format!("{text:?}: {means}");
        }
        fields.push(("means", Value::Below(means)));
    } else {
        fields.push(("text", Value::Text(text.to_owned())));
        fields.push(("unix_ms", Value::Number(gone.unix_ms)));
        fields.push(("clean", Value::Flag(gone.clean)));
        fields.push(("means", Value::Text(explained.means)));
        fields.push(("advice", Value::Text(explained.advice)));
    }
    fields
}
