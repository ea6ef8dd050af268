//! What is recommended, and needs nothing: it is too much already, for something else, without effect, or harmful.

use super::super::setting::{Need, Place, Proof, Role, Setting, Weight};
use super::{EVERY, Kernels, since, until, with};

pub(super) const ROWS: usize = TABLE.len();

/// A setting of which nothing is needed.
const fn left(name: &'static str, role: Role, arithmetic: &'static str, without: &'static str) -> Setting {
    Setting {
        name,
        place: Place::Sysctl,
        unit: "as the kernel has it",
        role,
        weight: Weight::Advice,
        need: |_, _| Need::Nothing,
        arithmetic,
        without,
        kernels: EVERY,
        proof: Proof::Read,
    }
}

impl Setting {
    const fn on(self, kernels: Kernels) -> Self {
        Self { kernels, ..self }
    }

    const fn tried(self, experiment: &'static str) -> Self {
        Self { proof: Proof::Tried(experiment), ..self }
    }
}

pub(super) const TABLE: [Setting; 22] = [
    left(
        "net.ipv4.tcp_max_syn_backlog",
        Role::Server,
        "nothing: it counts only with tcp_syncookies=0; the queue of half-open connections is bounded by listen()'s backlog",
        "nothing",
    ),
    left(
        "net.ipv4.tcp_rmem",
        Role::Both,
        "nothing: an idle socket has no buffer, whatever the default and the most are",
        "smaller ones save nothing on idle sockets and slow down whoever sends much",
    )
    .tried("idle-buffers"),
    left(
        "net.ipv4.tcp_wmem",
        Role::Both,
        "nothing: as tcp_rmem; what a client that does not read may hold is bounded by TCP_NOTSENT_LOWAT",
        "smaller ones save nothing on idle sockets",
    )
    .tried("idle-buffers"),
    left("net.core.rmem_max", Role::Both, "nothing: it bounds SO_RCVBUF, which throng does not set; TCP's own growth goes by tcp_rmem", "nothing"),
    left("net.core.wmem_max", Role::Both, "nothing: as rmem_max, with SO_SNDBUF and tcp_wmem", "nothing"),
    left(
        "net.ipv4.tcp_notsent_lowat",
        Role::Server,
        "nothing: throng sets it on its sockets, to 16 KiB",
        "for other servers: who does not read holds up to tcp_wmem's most",
    ),
    left(
        "net.ipv4.tcp_keepalive_time",
        Role::Server,
        "nothing: it counts only for sockets with SO_KEEPALIVE, to which `--tcp-keepalive` gives a time of their own; throng pings every 25 s, which proxies see too",
        "2 hours of silence before the first probe: far beyond what proxies and NATs wait",
    ),
    left(
        "net.ipv4.tcp_migrate_req",
        Role::Server,
        "nothing: no listener of throng's goes before the others do; 1 where a second server takes over its port",
        "with 0, what waits in the queue of a listener that closes is reset (ECONNRESET)",
    )
    .on(since(5, 14))
    .tried("migrate-req"),
    left(
        "net.netfilter.nf_conntrack_tcp_timeout_established",
        Role::Server,
        "nothing: 5 days; anything above the ping interval will do",
        "below the ping interval the firewall forgets connections that live, and their packets are INVALID",
    )
    .on(with("nf_conntrack")),
    Setting {
        unit: "microseconds",
        need: |_, _| Need::OneOf(&[0]),
        ..left(
        "net.core.busy_poll",
        Role::Both,
        "0: polling the card instead of sleeping takes a core for each worker",
        "more than 0 buys microseconds for few sockets at the price of all idle time",
    )
    },
    left(
        "net.core.rps_sock_flow_entries",
        Role::Server,
        "nothing where the card has a queue a core; else N rounded up to a power of 2, and a part of it in each queue's rps_flow_cnt",
        "one core does all of the receiving: `mpstat -P ALL` shows it in %soft",
    )
    .on(with("RPS")),
    left(
        "net.core.netdev_max_backlog",
        Role::Server,
        "nothing until the second column of /proc/net/softnet_stat counts",
        "only for RPS, loopback and cards without NAPI: packets dropped before TCP sees them",
    ),
    left(
        "vm.swappiness",
        Role::Both,
        "nothing: sockets are the kernel's and are never swapped",
        "swap only puts off the end; what is swapped is the worker's own memory, and then it stalls",
    ),
    left(
        "net.ipv4.tcp_slow_start_after_idle",
        Role::Server,
        "nothing for messages under 14 KB, the first window; 0 for large ones after a silence",
        "large messages to idle clients take more round trips",
    ),
    left(
        "net.ipv4.tcp_max_orphans",
        Role::Server,
        "nothing: an orphan is a socket that was closed with something unsent; throng waits for the peer or resets",
        "`TCP: too many orphaned sockets`, and they are reset, which is as it should be",
    ),
    left(
        "net.ipv4.tcp_max_tw_buckets",
        Role::Both,
        "nothing: 256 bytes each, for 60 s at most",
        "lowered: TIME_WAIT ends at once, `TCP: time wait bucket table overflow`, and late packets meet new connections",
    ),
    left(
        "net.ipv4.tcp_fin_timeout",
        Role::Both,
        "nothing: it is how long an orphan waits in FIN_WAIT_2, not TIME_WAIT, whose 60 s are fixed",
        "nothing",
    )
    .tried("fin-timeout"),
    left("net.ipv4.tcp_tw_recycle", Role::Both, "nothing: it is gone", "it dropped clients behind one NAT, at random").on(until(4, 12)),
    left("net.ipv4.tcp_low_latency", Role::Both, "nothing: without effect since 4.14", "nothing"),
    left("net.ipv4.tcp_retries2", Role::Server, "nothing: throng closes who does not answer a ping, and resets who takes no byte for 30 s", "15 retries: 924 s and more until the kernel gives a dead peer up"),
    left("net.ipv4.tcp_tw_reuse_delay", Role::Load, "nothing: how long, in ms, tcp_tw_reuse lets a port rest", "nothing").on(since(6, 14)),
    left("net.ipv4.ip_unprivileged_port_start", Role::Server, "80, to listen on port 80 without being root", "bind: EACCES `Permission denied`"),
];
