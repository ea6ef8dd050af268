//! The results as one page that needs nothing else: charts, figures, accounts.

mod chart;

use crate::progress::grouped;
use crate::results::{Account, Quantiles, Results, SamplePoint};
use crate::summary;
use chart::{Axis, Chart, Scale, Series};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The whole page.
pub(crate) fn html(results: &Results) -> String {
    let mut out = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
         <title>throng-load {mode}: {url}</title><style>{style}</style>\
         <header><h1>{mode} load</h1>{badge}</header><p class=sub>{url} over {transport}</p>",
        mode = results.mode,
        transport = escape(&results.transport),
        url = escape(&results.url),
        style = include_str!("style.css"),
        badge = badge(results),
    );
    if !results.problems.is_empty() {
        let items: String = results.problems.iter().map(|problem| format!("<li>{}</li>", escape(problem))).collect();
        let _ = write!(out, "<ul class=problems style='margin-top:16px'>{items}</ul>");
    }
    tiles(&mut out, results);
    if !results.verdict.text.is_empty() {
        let _ = write!(out, "<p class=verdict>{}</p>", escape(&results.verdict.text));
    }
    let charts: String = charts(results).iter().map(Chart::html).collect();
    let _ = write!(out, "<div class=charts>{charts}</div><div class=tables>");
    tables(&mut out, results);
    let _ = writeln!(
        out,
        "</div><footer><code>{}</code><br>throng-load {}, {}, Linux {}, {} cores, {} of memory, {} descriptors a table</footer></html>",
        escape(&results.command),
        results.version,
        date(results.started_unix),
        escape(&results.machine.kernel),
        results.machine.cores,
        bytes(results.machine.memory_bytes as f64),
        grouped(results.machine.descriptors_per_table),
    );
    out
}

fn badge(results: &Results) -> &'static str {
    match (results.clean, results.ended_early) {
        (true, false) => "<span class='badge good'>✓ clean: everything is accounted for</span>",
        (true, true) => "<span class='badge good'>✓ clean, ended early</span>",
        (false, _) => "<span class='badge bad'>✗ something was lost or failed</span>",
    }
}

/// The figures that matter most.
fn tiles(out: &mut String, results: &Results) {
    let mut list = vec![
        (grouped(results.opening.opened), "connections opened".to_owned()),
        (
            format!("{}/s", grouped(results.opening.handshakes_per_second as u64)),
            format!("handshakes, {:.1} s in all", results.opening.seconds),
        ),
    ];
    if results.tells_memory() {
        let server = results.memory.server_user;
        list.extend(server.map(|bytes| (format!("{bytes:.0} B"), "server memory a connection".to_owned())));
        list.push((format!("{:.0} B", results.memory.generator_user), "generator memory a connection".to_owned()));
    }
    if let Some(server) = results.measured.server_cores {
        list.push((format!("{server:.2}"), format!("server cores over {:.0} s", results.measured.seconds)));
    }
    if let Some(each) = results.measured.server_cpu_us_each {
        list.push((format!("{each:.1} us"), format!("server CPU a {}", results.measured.unit)));
    }
    if let Some(echo) = &results.echo {
        list.push((format!("{}/s", grouped(echo.answered_per_second as u64)), format!("echoes, {} loop", echo.r#loop)));
        list.push((summary::time(echo.latency_us.p99), "99th percentile of latency".to_owned()));
    }
    if let Some(fanout) = &results.fanout {
        list.push((format!("{}/s", grouped(fanout.account.delivered_per_second as u64)), "deliveries".to_owned()));
        list.push((summary::time(fanout.account.latency_us.p99), "99th percentile of delivery".to_owned()));
        list.push((grouped(fanout.account.lost), "deliveries lost unnoticed".to_owned()));
    }
    if let Some(last) = results.storm.as_ref().and_then(|storm| storm.rounds.last()) {
        list.push((format!("{:.2} s", last.last_seconds), "until the last was back".to_owned()));
    }
    out.push_str("<div class=tiles>");
    for (value, name) in list {
        let _ = write!(out, "<div class='card tile'><b>{value}</b><span>{name}</span></div>");
    }
    out.push_str("</div>");
}

const SECONDS: Axis = Axis { name: "seconds", scale: Scale::Linear, format: plain };

fn charts(results: &Results) -> Vec<Chart> {
    let samples = &results.samples;
    let over_time = |value: fn(&SamplePoint) -> f64| {
        samples.iter().map(|sample| (sample.seconds, value(sample))).collect::<Vec<_>>()
    };
    let line = |name, points| Series { name, points, dots: false };
    let count = Axis { name: "connections", scale: Scale::Linear, format: short };
    let mut charts = vec![
        Chart {
            title: "Open connections",
            note: "over time".to_owned(),
            x: SECONDS,
            y: count,
            series: vec![line("", over_time(|sample| sample.open as f64))],
        },
        Chart {
            title: "Handshakes a second",
            note: "over time".to_owned(),
            x: SECONDS,
            y: Axis { name: "handshakes/s", scale: Scale::Linear, format: short },
            series: vec![line("", rates(samples, |sample| sample.opened))],
        },
        latencies(results),
    ];
    let messages = [
        line("sent", rates(samples, |sample| sample.sent)),
        line("received", rates(samples, |sample| sample.received)),
        line("pings", rates(samples, |sample| sample.pings)),
    ];
    let series: Vec<Series> =
        messages.into_iter().filter(|series| series.points.iter().any(|point| point.1 > 0.0)).collect();
    if !series.is_empty() {
        let title = if series.len() == 1 && series[0].name == "pings" { "Pings a second" } else { "Messages a second" };
        let y = Axis { name: "messages/s", scale: Scale::Linear, format: short };
        charts.push(Chart { title, note: "over time".to_owned(), x: SECONDS, y, series });
    }
    if results.tells_memory() {
        charts.extend(memory(results));
    }
    charts
}

fn latencies(results: &Results) -> Chart {
    let mut series = vec![("handshake", &results.opening.latency_us)];
    series.extend(results.echo.iter().map(|echo| ("echo", &echo.latency_us)));
    series.extend(results.fanout.iter().map(|fanout| ("delivery", &fanout.account.latency_us)));
    series.extend(results.slow.iter().map(|fanout| ("delivery to slow readers", &fanout.account.latency_us)));
    let curve =
        |(name, quantiles): (&'static str, &Quantiles)| Series { name, points: quantiles.curve.clone(), dots: true };
    let of =
        if results.echo.is_some() { "handshake, and echo from the moment each was due" } else { "by share of all" };
    let title = if series.len() == 1 { "Latency of handshakes" } else { "Latency" };
    Chart {
        title,
        note: format!("{of}; log axis"),
        x: Axis { name: "share of all", scale: Scale::Nines, format: percent },
        y: Axis { name: "latency", scale: Scale::Log, format: summary::time },
        series: series.into_iter().filter(|(_, quantiles)| quantiles.count > 0).map(curve).collect(),
    }
}

/// Memory against connections, from the first to the largest number that were open.
fn memory(results: &Results) -> Vec<Chart> {
    let mut growing: Vec<&SamplePoint> = results.samples.iter().collect();
    // Memory is looked at less often than connections: only where it was.
    growing.dedup_by_key(|sample| (sample.generator_bytes, sample.server_bytes, sample.slab_bytes));
    let most = growing.iter().map(|sample| sample.open).max().unwrap_or(0);
    let end = growing.iter().position(|sample| sample.open == most).map_or(0, |index| index + 1);
    growing.truncate(end);
    let Some(&first) = growing.first() else { return Vec::new() };
    let against = |value: &dyn Fn(&SamplePoint) -> f64| {
        growing.iter().map(|sample| (sample.open as f64, value(sample).max(0.0))).collect::<Vec<_>>()
    };
    let x = Axis { name: "connections open", scale: Scale::Linear, format: short };
    let y = Axis { name: "bytes", scale: Scale::Bytes, format: bytes };
    let mut user = Vec::new();
    if first.server_bytes.is_some() {
        let points = against(&|sample| sample.server_bytes.unwrap_or(0) as f64);
        user.push(Series { name: "server", points, dots: false });
    }
    let points = against(&|sample| sample.generator_bytes as f64);
    user.push(Series { name: "generator", points, dots: false });
    let kernel = against(&|sample| sample.slab_bytes as f64 - first.slab_bytes as f64);
    let each = format!("{:.0} B a connection in all", results.memory.kernel);
    vec![
        Chart { title: "User-space memory", note: "against connections".to_owned(), x, y, series: user },
        Chart {
            title: "Kernel memory",
            note: each,
            x,
            y,
            series: vec![Series { name: "slab growth", points: kernel, dots: false }],
        },
    ]
}

/// Changes of a count a second, each over at least a 120th of the run, so that the line is one and not a carpet.
fn rates(samples: &[SamplePoint], count: fn(&SamplePoint) -> u64) -> Vec<(f64, f64)> {
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return Vec::new() };
    let least = (last.seconds - first.seconds) / 120.0;
    let mut points = vec![(first.seconds, 0.0)];
    let mut before = first;
    for sample in samples {
        let seconds = sample.seconds - before.seconds;
        if seconds > 0.0 && seconds >= least {
            points.push((sample.seconds, count(sample).saturating_sub(count(before)) as f64 / seconds));
            before = sample;
        }
    }
    points
}

fn tables(out: &mut String, results: &Results) {
    let connections = &results.connections;
    let mut rows = vec![
        ("wanted", grouped(connections.wanted)),
        ("tried", grouped(connections.attempted)),
        ("opened", grouped(connections.opened)),
        ("failed", grouped(connections.failed)),
    ];
    let classes = |counts: &BTreeMap<String, u64>| {
        counts
            .iter()
            .map(|(word, &count)| format!("{} {}", escape(word), grouped(count)))
            .collect::<Vec<_>>()
            .join("<br>")
    };
    if connections.failed > 0 {
        rows.push(("why", classes(&connections.failures)));
    }
    rows.push(("lost while open", grouped(connections.lost)));
    if connections.lost > 0 {
        rows.push(("why", classes(&connections.losses)));
    }
    if !connections.said.is_empty() {
        let said = connections.said.iter().map(|(word, text)| format!("{}: {}", escape(word), escape(text)));
        rows.push(("what the server said", said.collect::<Vec<_>>().join("<br>")));
    }
    rows.push(("closed by us", classes(&connections.farewells)));
    rows.push(("pings answered", grouped(connections.pings)));
    table(out, "Connections", &rows);
    for (name, connections) in &connections.by_transport {
        let rows = [
            ("opened", grouped(connections.opened)),
            ("failed", grouped(connections.failed)),
            ("why", classes(&connections.failures)),
            ("lost while open", grouped(connections.lost)),
            ("why", classes(&connections.losses)),
            ("closed by us", classes(&connections.farewells)),
        ];
        let rows: Vec<_> = rows.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        table(
            out,
            &format!("Connections over {name}"),
            &[&rows[..], &quantile_rows(&connections.handshake_us)].concat(),
        );
    }
    table(out, "Cost", &cost(results));
    if let Some(echo) = &results.echo {
        let rows = [
            ("sent", grouped(echo.sent)),
            ("answered", grouped(echo.answered)),
            ("missing", grouped(echo.missing)),
            ("not what was sent", grouped(echo.wrong)),
            ("due and never sent", grouped(echo.unsent)),
        ];
        table(out, "Echoes", &[&rows[..], &quantile_rows(&echo.latency_us)].concat());
    }
    for (title, fanout) in [("Deliveries", &results.fanout), ("Deliveries to slow readers", &results.slow)] {
        let Some(fanout) = fanout else { continue };
        let rows = [("published", grouped(fanout.published)), ("publishers", grouped(u64::from(fanout.publishers)))];
        table(out, title, &[&rows[..], &account_rows(&fanout.account)].concat());
        for (name, account) in &fanout.by_transport {
            table(out, &format!("{title} over {name}"), &account_rows(account));
        }
    }
    table(out, "Handshakes", &quantile_rows(&results.opening.latency_us));
}

fn account_rows(account: &Account) -> Vec<(&'static str, String)> {
    let rows = [
        ("subscribers", grouped(account.subscribers)),
        ("expected", grouped(account.expected)),
        ("delivered", grouped(account.delivered)),
        ("lost unnoticed", grouped(account.lost)),
        ("of them behind the last that came", grouped(account.lost_at_end)),
        ("missing behind announced gaps", grouped(account.gap_announced)),
        ("missed by lost connections", grouped(account.missed_by_lost_connections)),
        ("duplicated", grouped(account.duplicated)),
        ("reordered", grouped(account.reordered)),
        ("misrouted", grouped(account.misrouted)),
        ("gaps announced", grouped(account.gaps)),
        ("subscribers that left and came back", grouped(account.reconnecting_subscribers)),
        ("times they came back", grouped(account.reconnects)),
    ];
    [&rows[..], &quantile_rows(&account.latency_us)].concat()
}

fn cost(results: &Results) -> Vec<(&'static str, String)> {
    let (opening, measured, memory) = (&results.opening, &results.measured, &results.memory);
    let mut rows = vec![("generator CPU a handshake", format!("{:.1} us", opening.generator_cpu_us))];
    rows.extend(opening.server_cpu_us.map(|us| ("server CPU a handshake", format!("{us:.1} us"))));
    rows.push(("generator cores while measured", format!("{:.2}", measured.generator_cores)));
    rows.extend(measured.server_cores.map(|cores| ("server cores while measured", format!("{cores:.2}"))));
    rows.extend(
        measured.server_switches_per_second.map(|rate| ("server context switches a second", grouped(rate as u64))),
    );
    rows.extend(memory.kernel_server_socket.map(|bytes| ("kernel memory of a server socket", format!("{bytes:.0} B"))));
    rows.push(("kernel memory of one of ours", format!("{:.0} B", memory.kernel_generator_socket)));
    rows.push(("memory of the whole machine a connection", format!("{:.0} B", memory.machine)));
    rows.push(("closing all", format!("{:.2} s", results.closing.seconds)));
    rows
}

fn quantile_rows(q: &Quantiles) -> Vec<(&'static str, String)> {
    let rows =
        [("p50", q.p50), ("p90", q.p90), ("p99", q.p99), ("p99.9", q.p99_9), ("p99.99", q.p99_99), ("max", q.max)];
    rows.map(|(name, value)| (name, summary::time(value))).into()
}

fn table(out: &mut String, title: &str, rows: &[(&str, String)]) {
    let rows: String = rows.iter().map(|(name, value)| format!("<tr><th>{name}</th><td>{value}</td></tr>")).collect();
    let _ = write!(out, "<section class=card><h2>{title}</h2><table>{rows}</table></section>");
}

/// A number as axes show it: `20k`, `1.5M`.
fn short(number: f64) -> String {
    let scaled = |divisor: f64, unit: &str| format!("{}{unit}", plain(number / divisor));
    match number {
        1e9.. => scaled(1e9, "G"),
        1e6.. => scaled(1e6, "M"),
        1e3.. => scaled(1e3, "k"),
        _ => plain(number),
    }
}

/// At most two decimals, and none that say nothing.
fn plain(number: f64) -> String {
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn bytes(number: f64) -> String {
    let scaled = |power: i32, unit: &str| format!("{} {unit}", plain(number / 1024_f64.powi(power)));
    match number {
        1_073_741_824.0.. => scaled(3, "GiB"),
        1_048_576.0.. => scaled(2, "MiB"),
        1024.0.. => scaled(1, "KiB"),
        _ => format!("{} B", plain(number)),
    }
}

fn percent(share: f64) -> String {
    match share {
        1.0.. => "max".to_owned(),
        _ => format!("{} %", format!("{:.4}", share * 100.0).trim_end_matches('0').trim_end_matches('.')),
    }
}

/// A moment as `2026-01-31 12:00 UTC` (the days are counted as in H. Hinnant's civil_from_days).
fn date(unix: u64) -> String {
    let (days, seconds) = (unix / 86_400, unix % 86_400);
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", seconds / 3600, seconds % 3600 / 60)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0.0, 999.0, 1000.0, 1_500_000.0].map(short), ["0", "999", "1k", "1.5M"]);
        assert_eq!([0.5, 0.999, 1.0].map(percent), ["50 %", "99.9 %", "max"]);
        assert_eq!(bytes(1_610_612_736.0), "1.5 GiB");
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(1_709_210_096), "2024-02-29 12:34 UTC");
        assert_eq!(escape("<a b='c'>&"), "&lt;a b=&#39;c&#39;&gt;&amp;");
    }
}
