//! Every limit, with its unit and the arithmetic behind it. Relations between limits are asserted at
//! compile time at the end.

use std::time::Duration;

/// Longest request head, in bytes. Browsers and proxies stop at 8 to 16 KiB.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Most header fields in a request head. A browser sends about 20.
pub const HEAD_FIELDS_MAX: usize = 100;

/// What one `recv` may bring: the worker's input scratch, in bytes. It takes the longest message of the default limit with its
/// header in one call, and stays inside a core's L2 cache.
pub const SCRATCH_BYTES: usize = 68 * 1024;

/// Longest PROXY header of version 2, in bytes: the addresses take 216 at most, and what proxies add of TLS a few hundred; a
/// certificate may be among it. Version 1 has 107 (proxy-protocol.txt, section 2.1).
pub const PROXY_HEADER_BYTES_MAX: usize = 8 * 1024;

/// Longest frame header, in bytes: 2, a 64-bit length, a masking key (RFC 6455, section 5.2).
pub const FRAME_HEADER_BYTES_MAX: usize = 2 + 8 + 4;

/// Longest payload of a control frame, in bytes (RFC 6455, section 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// Longest reason in a close frame, in bytes: a control frame's payload less the code.
pub const CLOSE_REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;

/// A connection with this many bytes waiting to be written is not read until they are gone, so that a
/// peer that sends without reading is held back by TCP rather than by our memory.
pub const READ_PAUSE_BYTES: usize = 64 * 1024;

/// How much more than the longest message must be allowed to wait for a client, in bytes: what waits when reading pauses, and
/// what one more read brings, is below it.
pub const QUEUE_BYTES_BEYOND_MESSAGE: usize = 192 * 1024;

/// Largest message a server may be set to take, in bytes. Beyond, a stream of messages serves better.
pub const MESSAGE_BYTES_CEILING: usize = 256 * 1024 * 1024;

/// What is read and discarded from a refused peer before the socket is closed anyway, in bytes: enough
/// for a client in the middle of a large message to read why it was refused. The close timeout bounds it in time.
pub const LINGER_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// Output buffers that grew beyond this are returned to the allocator once they are empty, in bytes.
pub const OUTPUT_KEEP_BYTES: usize = 256 * 1024;

/// An answer made of messages that waits for its client is kept as references to them if it is at least as long as this, in
/// bytes; of less a copy takes as little.
pub const REFERRED_BYTES_MIN: usize = 4 * 1024;

/// Connections accepted in one turn of the loop before it looks at its other sockets.
pub const ACCEPTS_PER_TURN: usize = 64;

/// The same from a listener that all workers share, before it is looked at who has fewer connections.
pub const SHARED_ACCEPTS_PER_TURN: usize = 16;

/// A worker that has so many connections more than another leaves a shared listener to that one.
pub const SHARED_AHEAD_MAX: u64 = 16;

/// Readiness events taken from the kernel in one turn.
pub const EVENTS_PER_TURN: usize = 1024;

/// Connections whose peers have gone that are looked at in one turn: each takes some 10 us, and thousands may go at once, as
/// when a proxy ends.
pub const ENDS_PER_TURN: usize = if cfg!(any(test, fuzzing)) { 3 } else { 32 };

/// Envelopes taken from the mailbox in one turn. Tests have few, and are to see what is left over.
pub const ENVELOPES_PER_TURN: usize = if cfg!(any(test, fuzzing)) { 5 } else { 256 };

/// Pings leave together, at most so many ticks (64 ms each) before they are due. Of 18,000 connections that are pinged every
/// 8 s a ping and its pong cost a seventh less than one by one.
pub const PING_GRID_TICKS: u32 = 8;

/// Longest silence before the kernel's first probe, and longest time between two, in seconds (MAX_TCP_KEEPIDLE and
/// MAX_TCP_KEEPINTVL in Linux's `net/tcp.h`).
pub const KEEPALIVE_S_MAX: u16 = 32_767;

/// Timers fired in one turn: each may be a ping, a send of about 6 us. Tests have few.
pub const TIMERS_PER_TURN: usize = if cfg!(any(test, fuzzing)) { 3 } else { 64 };

/// Connections visited by a sweep, the tick or the drain in one turn: an echo's p99 beside broadcasts to 18,000 is 0.9 ms with
/// slices of 32 sends, and 1.3 ms with 64 (16: 1.0 ms, and 15 % more CPU a delivery).
/// Tests have few, and are to see slices.
pub const SWEEP_PER_TURN: usize = if cfg!(any(test, fuzzing)) { 3 } else { 32 };

/// Counters of connections by source address for each connection that there may be, at the least and at the most, of two
/// bytes each: 16 bytes a connection, from 128 KiB to 8 MiB, which is where 524,288 connections have 8 each. For what
/// follows see `worker::sources`.
pub const SOURCE_COUNTERS_EACH: usize = 8;
pub const SOURCE_COUNTERS_MIN: usize = 1 << 16;
pub const SOURCE_COUNTERS_MAX: usize = 1 << 22;

/// Connections that a worker looks at in one turn for the control plane, each perhaps a miss in the cache: some 50 us. Tests have
/// few, and are to see slices.
pub const INSPECT_PER_TURN: usize = if cfg!(any(test, fuzzing)) { 3 } else { 512 };

/// Topics of a connection that are named to the control plane.
pub const INSPECT_TOPICS_EACH: usize = 5;

/// Most connections, topics or ends that one answer of the control plane lists.
pub const INSPECT_ROWS_MAX: usize = 1000;

/// How long an answer of the control plane waits for the workers, in milliseconds; then it says who did not answer.
pub const INSPECT_WAIT_MS: u64 = 2000;

/// Ends of connections that a worker remembers, of 120 bytes each beside what was said: 0.5 MB. Tests have few.
pub const RECENT_CLOSES_MAX: usize = if cfg!(any(test, fuzzing)) { 16 } else { 4096 };

/// What all workers together remember, at the most: 7.9 MB, from 16 workers on.
pub const RECENT_CLOSES_TOTAL: usize = 65_536;

/// Refusals that a worker remembers: this part of it.
pub const RECENT_REFUSALS_PART: usize = 4;

/// Longest text or user's name that is remembered with an end, in bytes: with two of them for each end at the most 1 MB more
/// for each worker.
pub const RECENT_TEXT_BYTES_MAX: usize = 123;

/// Frames that wait for whoever taps, those that are shown in a second, bytes that are shown of a payload, connections that one tap
/// follows on a worker, and taps at a time. See `worker::tap`.
pub const TAP_QUEUE_MAX: usize = 1024;
/// See [`TAP_QUEUE_MAX`].
pub const TAP_PER_SECOND_MAX: u32 = 1000;
/// See [`TAP_QUEUE_MAX`].
pub const TAP_PAYLOAD_BYTES_MAX: usize = 512;
/// See [`TAP_QUEUE_MAX`].
pub const TAP_CONNECTIONS_MAX: usize = 1024;
/// See [`TAP_QUEUE_MAX`].
pub const TAPS_MAX: usize = 8;

/// How long a tap lasts unless it is told, and at the most, in seconds.
pub const TAP_S: (u64, u64) = (300, 3600);

/// Marks of when connections came that a worker keeps: 64 KiB at the most. See `worker::ages`.
pub const AGE_MARKS_MAX: usize = 4096;

/// How long accepting pauses after the descriptor table was full, in milliseconds.
pub const ACCEPT_PAUSE_MS: u64 = 100;

/// Clients beyond the limit that a worker answers at a time with all the care that other refusals get; any more are
/// answered as well as one `send` can.
pub const REFUSALS_MAX: usize = 32;

/// Descriptors of a worker's table that are not for connections: stdio, epoll, listeners, the spare, refusals,
/// and room for what the service opens itself.
pub const DESCRIPTORS_RESERVED: usize = 128;

/// Most workers. Ids carry the worker in 16 bits; each has an eventfd in every table.
pub const WORKERS_MAX: usize = 1024;

/// Most connections of one worker: a token carries the slot in 24 bits.
pub const SLOTS_MAX: usize = 1 << 24;

/// Refusals and warnings of one kind that a worker logs in a second; the rest are counted.
pub const LOG_LINES_PER_SECOND: u32 = 10;

/// Longest name of a topic, in bytes, decoded.
pub const TOPIC_NAME_BYTES_MAX: usize = 255;

/// How deep JSON may nest (RFC 8259, section 9 lets an implementation set limits): one bit each in a `u128`.
pub const JSON_DEPTH_MAX: u32 = 128;

/// How long an `Idempotency-Key` is remembered, in milliseconds.
pub const IDEMPOTENCY_MS: u64 = 5 * 60 * 1000;

/// Most `Idempotency-Key`s of a topic: with keys of 36 bytes (a UUID) about 1.5 MB, with the longest about 4 MB.
pub const IDEMPOTENCY_KEYS_MAX: usize = 10_000;

/// Longest `Idempotency-Key` of a request for a topic, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// What a topic without history keeps for those who are still being sent to: messages, bytes, milliseconds. The minute
/// is far above any write-stall limit, and keeps a million quiet topics from holding their last messages for ever.
pub const LINGER: (usize, usize, u64) = (256, 256 * 1024, 60_000);

/// Longest that a long poll waits, in seconds; who asks for more gets this. Proxies give up after 60 s.
pub const WAIT_S_MAX: u64 = 60;

/// Messages that one subscriber is sent together, in bytes.
pub const JOINED_BYTES_MAX: usize = 64 * 1024;

/// Slices of fan-out after which a worker lets another one sweep: 256 sends, about 2 ms.
pub const SLICES_PER_PERMIT: u32 = 8;

/// Topics looked at, to make room for one more.
pub const ROOM_LOOKS_MAX: usize = 256;

/// How often topics are looked at for what has expired, in milliseconds, and each worker a 64th of its own, so that
/// every one has its turn once a minute.
pub const EXPIRY_LOOK_MS: u64 = 1000;

/// Most topics looked at then.
pub const EXPIRY_LOOKS_MAX: usize = 2048;

/// Most subscriptions a connection may be allowed: 16 bits number them.
pub const SUBSCRIPTIONS_CEILING: usize = u16::MAX as usize;

/// Most bytes of commands in one request beside a session that has no WebSocket, whatever a message may be: as Centrifugo's
/// `max_request_body_size` has it.
pub const CENTRIFUGO_REQUEST_BYTES_MAX: usize = 64 * 1024;

/// Most bytes of payload that a Centrifugo client is given with its subscription, if that is more than the first message:
/// what else it missed follows as ordinary pushes.
pub const CENTRIFUGO_RECOVERED_BYTES: usize = 16 * 1024;

/// Most publications of one answer to a Centrifugo client's question for history.
pub const CENTRIFUGO_HISTORY_MAX: usize = 300;

/// Most bytes of payload in that answer, if that is more than the first message: even where JSON doubles them, they fit
/// what may wait for a client.
pub const CENTRIFUGO_HISTORY_BYTES: usize = 256 * 1024;

/// Most that one request of the server API may ask for: each channel of a broadcast and each command of a batch is one.
pub const API_TASKS_MAX: usize = 10_000;

/// What listing the channels counts for among those, since every worker walks through all of its topics: a batch may do
/// it ten times.
pub const API_LISTING_TASKS: usize = 1_000;

/// Most channels that are listed: the list is put together on one worker, while everybody there waits.
pub const API_CHANNELS_MAX: usize = 20_000;

/// Most bytes of payload that one answer of the server API holds, if that is more than one publication: it is written in one
/// go, while everybody on that worker waits.
pub const API_ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Longest pattern of channels' names, in bytes, and the most alternatives that it may have: a name is compared to each.
pub const API_PATTERN_MAX: (usize, usize) = (255, 16);

/// Most entries of a token's `caps`, and the most bytes of channels that they name together: a session keeps them, a few times
/// as large once they are read.
pub const CAPS_MAX: usize = 64;
/// See [`CAPS_MAX`].
pub const CAPS_BYTES_MAX: usize = 4096;

/// Most keys of a set (JWKS): a token without `kid` is tried with each that has none.
pub const TOKEN_KEYS_MAX: usize = 64;

/// Connections that a worker ends in one turn because their tokens' time is over.
pub const EXPIRED_PER_TURN: usize = if cfg!(any(test, fuzzing)) { 2 } else { 64 };

/// Tasks of a request to many topics that a worker sees to in one turn. Tests have few, and are to see slices.
pub const ERRAND_TASKS_PER_TURN: usize = if cfg!(any(test, fuzzing)) { 2 } else { 64 };

/// Connections of a user that a worker does something with in one turn, each perhaps a send of about 6 us. Tests have few,
/// and are to see slices.
pub const CALLS_PER_TURN: usize = if cfg!(any(test, fuzzing)) { 2 } else { 64 };

/// Topics that a worker looks at in one turn, to list those that are listened to.
pub const SURVEY_LOOKS_MAX: usize = if cfg!(any(test, fuzzing)) { 2 } else { 2048 };

/// How often a session of Centrifugo's protocol is pinged, and how long it has to answer, unless it is set: Centrifugo's own.
pub const CENTRIFUGO_PING_INTERVAL: Duration = Duration::from_secs(25);
/// See [`CENTRIFUGO_PING_INTERVAL`].
pub const CENTRIFUGO_PONG_TIMEOUT: Duration = Duration::from_secs(8);

/// How long a client has for its connect command, unless it is set: Centrifugo's `client.stale_close_delay`.
pub const CENTRIFUGO_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How many seconds a Centrifugo client has for a new token after its connection or subscription has expired, as
/// Centrifugo has it: the SDKs ask for one when it expires, and not before.
pub const CENTRIFUGO_EXPIRED_S: u64 = 25;

/// After how many milliseconds an EventSource comes back, at random from here to here, so that a million of them do not
/// come in the same second.
pub const EVENT_SOURCE_RETRY_MS: (u64, u64) = (1_000, 5_000);

/// The same for one that was turned away because there is no room.
pub const EVENT_SOURCE_BUSY_RETRY_MS: (u64, u64) = (15_000, 60_000);

/// How long the listeners stay open once a drain has begun, in milliseconds: whom TCP_DEFER_ACCEPT keeps back shows by then.
pub const DRAIN_GRACE_MS: u64 = 1_000;

/// How long after a drain has begun the first connection is closed, in milliseconds: by then no worker takes publications.
pub const DRAIN_QUIET_MS: u64 = 50;

/// How often it is looked at who is left once all have had their turn, in milliseconds.
pub const DRAIN_LOOK_MS: u64 = 100;

/// Bursts in which a connection may send, in seconds' worth of its rate.
pub const RATE_BURST_S: u64 = 5;

/// How long a connection that sent more than it may is not read, in milliseconds.
pub const THROTTLE_MS: u64 = 250;

/// How long a connection may go on sending more than it may, held back as it is, in milliseconds.
pub const THROTTLED_MS_MAX: u64 = 10_000;

/// How often it is looked at how much memory is in use, in milliseconds, while there is something to do.
pub const MEMORY_LOOK_MS: u64 = 50;

/// It is looked at sooner when the workers may have read this part of the budget since.
pub const MEMORY_LOOK_PARTS: u64 = 16;

/// Connections that hold no more than this are left alone when memory is short, and so are logs: in bytes.
pub const SHED_BYTES_MIN: usize = 4096;

const _: () = {
    // A head is parsed in the scratch.
    assert!(HEAD_BYTES_MAX <= SCRATCH_BYTES);
    assert!(READ_PAUSE_BYTES + SCRATCH_BYTES < QUEUE_BYTES_BEYOND_MESSAGE);
    // Refusals fit what is reserved, with as much left again.
    assert!(REFUSALS_MAX * 2 <= DESCRIPTORS_RESERVED);
    // The worker's number fits an id.
    assert!(WORKERS_MAX <= u16::MAX as usize);
    // JSON's nesting is a bit each.
    assert!(JSON_DEPTH_MAX <= u128::BITS);
    // A slot fits the wheel's links, which keep the largest values for themselves.
    assert!(SLOTS_MAX < u32::MAX as usize - 2);
};
