//! Who is there, and disconnecting them.

use super::params::{self, Params};
use super::text::{Fields, Value, list as listing, wants_table};
use super::{Asked, Desk};
use crate::http::Response;
use crate::service::Request;
use crate::worker::{Filter, Found, Order, Quest, Row, Transport};

const ORDERS: [(&str, Order); 3] = [("queued", Order::Queued), ("lag", Order::Lag), ("age", Order::Age)];

/// What the parameters say; `None`: the connection that is named is not there.
fn filter<T>(desk: &Desk<T>, params: &Params, id: Option<&str>) -> Result<Option<Filter>, Response> {
    let transports = Transport::ALL.map(|transport| (transport.word(), transport));
    let mut filter = Filter {
        id: None,
        user: params.boxed("user"),
        topic: params.topic("topic")?,
        address: params.address()?,
        transport: params.word("transport", &transports)?,
    };
    if let Some(id) = id {
        let (worker, serial) = params::id(id)?;
        filter.id = desk.handle.find(worker, serial);
        return Ok(filter.id.map(|_| filter));
    }
    Ok(Some(filter))
}

/// `GET /connections`.
pub(super) fn list<T>(desk: &Desk<T>, request: &Request<'_>) -> Result<Response, Response> {
    let known = ["sort", "limit", "user", "topic", "address", "transport", "id", "format"];
    let params = Params::read(request, &known)?;
    let (table, limit) = (wants_table(request, &params)?, params.limit()?);
    let order = params.word("sort", &ORDERS)?.unwrap_or(Order::Queued);
    let Some(filter) = filter(desk, &params, params.text("id"))? else {
        return Ok(listing(table, "connections", &[("matched", Value::Number(0))], &[]));
    };
    let only = filter.id.map(|id| id.worker);
    let Asked { found, silent } = desk.ask(Quest::Connections { filter, order, limit }, only);
    let (mut rows, mut matched) = (Vec::new(), 0);
    for (_, found) in found {
        if let Found::Connections { rows: some, matched: of } = found {
            rows.extend(some);
            matched += of;
        }
    }
    let place = |row: &Row| match order {
        Order::Queued => row.queued as u64,
        Order::Lag => row.lag,
        Order::Age => row.age_ms,
    };
    rows.sort_by_key(|row| std::cmp::Reverse(place(row)));
    rows.truncate(limit);
    let head = [("matched", Value::Number(matched as u64)), ("silent_workers", silence(&silent))];
    Ok(listing(table, "connections", &head, &rows.iter().map(fields).collect::<Vec<_>>()))
}

/// The workers that did not answer in time.
pub(super) fn silence(silent: &[u16]) -> Value {
    Value::List(silent.iter().map(u16::to_string).collect())
}

fn fields(row: &Row) -> Fields {
    vec![
        ("id", Value::Text(row.id.to_string())),
        ("address", Value::Text(row.peer.to_string())),
        ("transport", Value::Text(row.transport.word().to_owned())),
        ("protocol", Value::of(Some(row.protocol).filter(|protocol| !protocol.is_empty()))),
        ("user", Value::of(row.user.as_deref())),
        ("age_s", Value::Number(row.age_ms / 1000)),
        ("idle_s", row.idle_ms.map_or(Value::Nothing, |idle| Value::Number(idle / 1000))),
        ("queued_bytes", Value::Number(row.queued as u64)),
        ("held_bytes", Value::Number(row.held as u64)),
        ("lag_messages", Value::Number(row.lag)),
        ("ending", Value::Flag(row.is_ending)),
        ("subscriptions", Value::Number(row.subscriptions as u64)),
        ("topics", Value::List(row.topics.iter().map(|name| name.as_str().to_owned()).collect())),
    ]
}

/// Who is meant, for the log; what a client chose is quoted.
fn about(filter: &Filter) -> String {
    let Filter { id, user, topic, address, transport } = filter;
    let parts = [
        id.map(|id| format!("connection {id}")),
        user.as_ref().map(|user| format!("user {user:?}")),
        topic.as_ref().map(|topic| format!("listeners of {:?}", topic.as_str())),
        address.map(|address| format!("address {address}")),
        transport.map(|transport| format!("transport {}", transport.word())),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// `DELETE /connections/ID`, or of all that the parameters say.
pub(super) fn dismiss<T>(desk: &Desk<T>, request: &Request<'_>, id: Option<&str>) -> Result<Response, Response> {
    let by = ["user", "topic", "address", "transport"];
    let known: Vec<&str> = by.into_iter().filter(|_| id.is_none()).chain(["code", "reason"]).collect();
    let params = Params::read(request, &known)?;
    if id.is_none() && !by.into_iter().any(|name| params.text(name).is_some()) {
        let detail = "say whom: /connections/ID, or one of user, topic, address, transport";
        return Err(Response::refuse(400, detail));
    }
    let code = params.value("code", "a close code that may be sent: 1000, 1008, 3000 to 4999")?;
    if code.is_some_and(|code| !crate::ws::close_code_may_be_sent(code)) {
        return Err(Response::refuse(400, "this close code may not be sent: take 1000, 1008, or 3000 to 4999"));
    }
    let Some(filter) = filter(desk, &params, id)? else {
        return Err(Response::refuse(404, "there is no such connection (any more): /closes may say why"));
    };
    log::info!("told by the admin port, {}, to disconnect {}", request.peer(), about(&filter));
    let only = filter.id.map(|id| id.worker);
    let by_one = only.is_some();
    let Asked { found, silent } = desk.ask(Quest::Dismiss { filter, code, reason: params.boxed("reason") }, only);
    let dismissed: usize =
        found.iter().map(|(_, found)| if let Found::Dismissed(count) = found { *count } else { 0 }).sum();
    if by_one && dismissed == 0 && silent.is_empty() {
        return Err(Response::refuse(404, "there is no such connection (any more): /closes may say why"));
    }
    let mut body = Vec::new();
    let head = [("disconnected", Value::Number(dismissed as u64)), ("silent_workers", silence(&silent))];
    super::text::object(&mut body, &head);
    body.push(b'\n');
    Ok(Response::new(200).body("application/json", body))
}
