//! Every setting there is: one table, from which follow how it is read from a file, the environment and the command line,
//! what is said of a name that is wrong, `throng.toml`, `--help`, `throng config show`, and what a reload may change.
//!
//! A row more is a field of [`Settings`] (or of the library's `Config`), a row here and one in docs/centrifugo.md: a test says
//! if that is missing. Then `throng config default > throng.toml`.

use super::settings::Settings;
use super::value::{Given, Value, size};
use throng::TopicRules;

/// A setting: its name in a file, and all that is known of it.
#[derive(Debug)]
pub(crate) struct Setting<T: 'static> {
    pub(crate) name: &'static str,
    /// What it does, what it costs, and what is to be weighed. A sentence each, without the default.
    pub(crate) doc: &'static str,
    pub(crate) value: fn(&mut T) -> &mut dyn Value,
    /// The field of the library's `Config` that it is.
    field: Option<&'static str>,
    /// Whether a reload changes it.
    pub(crate) is_live: bool,
    pub(crate) flag: Option<Flag>,
    /// What holds where nothing is set, in words, and what could be set.
    pub(crate) unset: Option<(&'static str, &'static str)>,
    /// 0 is the same as nothing.
    zero_is_unset: bool,
    /// A size, which may have a unit.
    is_size: bool,
    /// An environment variable beside the one that follows from the name.
    pub(crate) alias: Option<&'static str>,
    /// What is switched on with it when it comes from a flag or from its alias.
    pub(crate) switches_on: Option<&'static str>,
}

/// How a setting is given on the command line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    /// What stands for its value in the help; empty: it switches something on.
    pub(crate) value: &'static str,
    /// The value is a file that holds it.
    pub(crate) is_file: bool,
}

/// A row of [`SETTINGS`].
const fn row(name: &'static str, value: fn(&mut Settings) -> &mut dyn Value, doc: &'static str) -> Setting<Settings> {
    Setting::new(name, value, doc)
}

/// A row of [`RULES`].
const fn rule(
    name: &'static str,
    value: fn(&mut TopicRules) -> &mut dyn Value,
    doc: &'static str,
) -> Setting<TopicRules> {
    Setting::new(name, value, doc)
}

/// A row that is a field of `Config`.
macro_rules! server {
    ($name:literal, $field:ident, $doc:literal) => {
        row($name, |s: &mut Settings| &mut s.server.$field, $doc).of(stringify!($field))
    };
}

impl<T> Setting<T> {
    const fn new(name: &'static str, value: fn(&mut T) -> &mut dyn Value, doc: &'static str) -> Self {
        Self {
            name,
            doc,
            value,
            field: None,
            is_live: true,
            flag: None,
            unset: None,
            zero_is_unset: false,
            is_size: false,
            alias: None,
            switches_on: None,
        }
    }

    const fn of(mut self, field: &'static str) -> Self {
        self.field = Some(field);
        self
    }

    /// Given on the command line by `--name VALUE`.
    const fn flag(mut self, name: &'static str, value: &'static str) -> Self {
        self.flag = Some(Flag { name, value, is_file: false });
        self
    }

    /// Switched on there by `--name`.
    const fn switch(self, name: &'static str) -> Self {
        self.flag(name, "")
    }

    /// A secret, which a command line would show to others: `--name FILE`.
    const fn file(mut self, flag: &'static str) -> Self {
        self.flag = Some(Flag { name: flag, value: "FILE", is_file: true });
        self
    }

    /// The same with an environment variable that has a short name.
    const fn secret(self, flag: &'static str, alias: &'static str) -> Self {
        let mut row = self.file(flag);
        row.alias = Some(alias);
        row
    }

    /// With its flag or its alias something else is switched on.
    const fn switching_on(mut self, name: &'static str) -> Self {
        self.switches_on = Some(name);
        self
    }

    /// It is a size in bytes.
    const fn bytes(mut self) -> Self {
        self.is_size = true;
        self
    }

    /// Only a start takes it.
    const fn restart(mut self) -> Self {
        self.is_live = false;
        self
    }

    /// Nothing is set by default, which means this; and an example.
    const fn unset(mut self, meaning: &'static str, example: &'static str) -> Self {
        self.unset = Some((meaning, example));
        self
    }

    /// As [`unset`](Self::unset), where 0 says so as well.
    const fn zero_is(self, meaning: &'static str, example: &'static str) -> Self {
        let mut row = self.unset(meaning, example);
        row.zero_is_unset = true;
        row
    }

    /// Takes what was given, or says what it must be.
    pub(crate) fn set(&self, into: &mut T, given: &Given<'_>) -> Result<(), String> {
        let value = (self.value)(into);
        match given {
            Given::Text(text) | Given::Raw(text) if self.is_size => match size(text) {
                Some(bytes) => value.set(&Given::Number(bytes.into()))?,
                None => value
                    .set(given)
                    .map_err(|wanted| if text.parse::<i128>().is_ok() { wanted } else { SIZE.to_owned() })?,
            },
            _ => value.set(given)?,
        }
        if self.zero_is_unset && value.show().as_deref() == Some("0") {
            value.unset();
        }
        Ok(())
    }

    /// Its environment variable: its name in capitals, `_` for dots, and `THRONG_` before it.
    pub(crate) fn variable(&self, prefix: &str) -> String {
        variable(&format!("{prefix}{}", self.name))
    }
}

/// The environment variable of a name: throng's own come without their table.
pub(crate) fn variable(name: &str) -> String {
    format!("THRONG_{}", name.strip_prefix("throng.").unwrap_or(name).replace('.', "_").to_uppercase())
}

/// Which setting a field of the library's `Config` is; topics' rules are called as in a file.
pub(crate) fn setting_of(field: &str) -> String {
    let (whole, element) = field.split_at(field.find('[').unwrap_or(field.len()));
    match SETTINGS.iter().find(|setting| setting.field == Some(whole)) {
        Some(setting) => format!("{}{element}", setting.name),
        None => field.replacen("topics.", "channel.", 1),
    }
}

/// What a size is.
const SIZE: &str = "bytes, such as 8589934592, or a string such as \"8G\" or \"64K\"";

pub(crate) const ADDRESS: &str = "http_server.address";
pub(crate) const PORT: &str = "http_server.port";
pub(crate) const LISTEN: &str = "throng.listen";

/// Where the rules of channels without a namespace stand, in a name.
pub(crate) const WITHOUT_NAMESPACE: &str = "channel.without_namespace.";

/// Everything but the rules of channels.
pub(crate) const SETTINGS: &[Setting<Settings>] = &[
    row(ADDRESS, |s| &mut s.address, "IP address to listen on; \"\" is every IPv4 address.")
        .unset("127.0.0.1", "\"0.0.0.0\"")
        .restart(),
    row(PORT, |s| &mut s.port, "Port to listen on.").unset("8080", "8000").restart(),
    server!("client.allowed_origins", origins,
        "Origins whose pages may come in, beside those of the server's own host: https://app.example.com, https://*.example.com for all below that host, * for all. Pages that are let in can do what their readers can.")
        .flag("allow-origin", "ORIGIN"),
    row("client.ping_interval", |s| &mut s.client_ping_interval,
        "How often a client of Centrifugo's protocol is pinged. Clients notice a dead server after this and a few seconds, and proxies drop idle connections after 30 s to 300 s; each ping and its pong cost about 15 us of CPU time."),
    row("client.pong_timeout", |s| &mut s.client_pong_timeout,
        "How long such a client has to answer a ping; less than the time between two."),
    row("client.stale_close_delay", |s| &mut s.client_connect_timeout,
        "How long such a client has for its connect command."),
    server!("client.channel_limit", subscriptions_max,
        "Most channels of one client. A subscription takes about 50 bytes, as long as it is there."),
    server!("client.queue_max_size", queue_bytes_max,
        "Most bytes that wait for one client; who has more to wait for is disconnected. At least websocket.message_size_limit and 192 KiB more. It is a bound, and not reserved: a client that keeps up has none.")
        .bytes().zero_is("1 MiB, or what one message needs", "1048576"),
    server!("client.connection_limit", connections_max,
        "Most connections of all kinds at a time; the next one gets a 503. Each has 64 bytes reserved, and costs about 4 KB of the kernel's memory when it is there. More than the descriptor tables hold raises throng.workers.")
        .flag("max-connections", "N").zero_is("what the descriptor tables hold", "1000000").restart(),
    row("client.allow_anonymous_connect_without_token", |s| &mut s.anonymous,
        "Let clients connect without a token, where there is a key for tokens, and read at topics' URLs where channels have no rules; without such a key nobody needs a token.")
        .switch("allow-anonymous"),
    row("client.insecure", |s| &mut s.insecure,
        "Look at no tokens, and let every client do everything, at topics' URLs too. For development."),
    row("client.subscribe_to_user_personal_channel.enabled", |s| &mut s.has_personal_channel,
        "Subscribe users to a channel of their own, #USER. A subscription more for each client."),
    row("client.subscribe_to_user_personal_channel.personal_channel_namespace", |s| &mut s.personal_namespace,
        "The namespace of that channel; empty: none."),
    row("client.token.hmac_secret_key", |s| &mut s.tokens.secret,
        "Secret that connection tokens are signed with (HS256, HS384, HS512), and subscription tokens unless they have their own; with this or any other key Centrifugo's clients need one. At least as long as a hash: 32 random bytes.")
        .secret("token-secret-file", "THRONG_TOKEN_SECRET"),
    row("client.token.hmac_previous_secret_key", |s| &mut s.tokens.previous,
        "The secret before, whose tokens count too while the application takes the new one into use."),
    row("client.token.hmac_previous_secret_key_valid_until", |s| &mut s.tokens.previous_until,
        "Until when that is so, in seconds of Unix time; 0: for ever."),
    row("client.token.rsa_public_key", |s| &mut s.tokens.rsa,
        "Public key in PEM (BEGIN PUBLIC KEY, 2048 to 4096 bits) of tokens that are signed with RS256, RS384 or RS512. A key takes its own algorithms and no others, whatever a token says of itself."),
    row("client.token.ecdsa_public_key", |s| &mut s.tokens.ecdsa,
        "The same for ES256 (P-256) or ES384 (P-384)."),
    row("client.token.jwks_public_endpoint", |s| &mut s.tokens.jwks_url,
        "URL (https, or http where nobody is in between) of the identity provider's public keys, a JWKS (RFC 7517): fetched at the start, every throng.token_jwks_refresh, and when a token names a key (kid) that is not there. Where that fails the keys before stay. https trusts the system's certificates, or those in the file SSL_CERT_FILE.").restart(),
    row("client.token.user_id_claim", |s| &mut s.tokens.user_claim,
        "The claim that names the user."),
    row("client.token.audience", |s| &mut s.tokens.audience, "What a connection token's aud must have; empty: anything."),
    row("client.token.issuer", |s| &mut s.tokens.issuer, "What a connection token's iss must be; empty: anything."),
    row("client.subscription_token.enabled", |s| &mut s.has_subscription_tokens,
        "Check subscription tokens with keys of their own."),
    row("client.subscription_token.hmac_secret_key", |s| &mut s.subscription_tokens.secret,
        "Secret that subscription tokens are signed with, where they have keys of their own.")
        .secret("subscription-token-secret-file", "THRONG_SUBSCRIPTION_TOKEN_SECRET")
        .switching_on("client.subscription_token.enabled"),
    row("client.subscription_token.hmac_previous_secret_key", |s| &mut s.subscription_tokens.previous,
        "The secret before, whose subscription tokens count too."),
    row("client.subscription_token.hmac_previous_secret_key_valid_until", |s| &mut s.subscription_tokens.previous_until,
        "Until when that is so, in seconds of Unix time; 0: for ever."),
    row("client.subscription_token.rsa_public_key", |s| &mut s.subscription_tokens.rsa,
        "As for connection tokens."),
    row("client.subscription_token.ecdsa_public_key", |s| &mut s.subscription_tokens.ecdsa,
        "As for connection tokens."),
    row("client.subscription_token.jwks_public_endpoint", |s| &mut s.subscription_tokens.jwks_url,
        "As for connection tokens.").restart(),
    row("client.subscription_token.user_id_claim", |s| &mut s.subscription_tokens.user_claim,
        "As for connection tokens."),
    row("client.subscription_token.audience", |s| &mut s.subscription_tokens.audience,
        "What a subscription token's aud must have; empty: anything."),
    row("client.subscription_token.issuer", |s| &mut s.subscription_tokens.issuer,
        "What a subscription token's iss must be; empty: anything."),
    row("channel.max_length", |s| &mut s.server.topics.max_length,
        "Longest name of a channel in bytes, at most 255. Names are kept once for each channel and worker that has it."),
    row("channel.history_meta_ttl", |s| &mut s.server.topics.history_meta_ttl,
        "How long a quiet channel's position outlives its messages, while nobody listens. Who comes back later is told of a gap; until then the channel counts for throng.max_topics.")
        .flag("history-meta-ttl", "TIME"),
    row("channel.private_prefix", |s| &mut s.server.topics.private_prefix,
        "What the names of channels start with that need a subscription token; empty: none do. It is \"$\" as soon as anything stands under `channel`, or there is a token secret."),
    row("channel.namespace_boundary", |s| &mut s.server.topics.namespace_boundary,
        "What ends the namespace in a channel's name."),
    row("channel.user_boundary", |s| &mut s.server.topics.user_boundary,
        "What the users stand behind that a channel is for."),
    row("channel.user_separator", |s| &mut s.server.topics.user_separator, "What stands between those users."),
    row("http_api.key", |s| &mut s.api_key,
        "Key of the server API (POST /api/METHOD), whose owner may do everything at topics' URLs too, and where channels have no rules is the only one to publish there, beside users with tokens, unless --client-publish says that everybody may. Without one the API is off.")
        .secret("api-key-file", "THRONG_API_KEY"),
    row("throng.previous_api_key", |s| &mut s.previous_api_key,
        "Another key that counts as much, while applications change over from one to the other."),
    row("http_api.insecure", |s| &mut s.api_insecure,
        "Serve the server API without a key, to everybody who reaches the server.")
        .switch("api-insecure"),
    server!("websocket.message_size_limit", message_bytes_max,
        "Longest message, and longest body of a request, in bytes; a longer one ends the connection (1009, or 413). A message that comes in pieces is kept until it is whole, so each client can make the server hold this much.")
        .bytes().flag("max-message", "BYTES"),
    row("websocket.compression", |s| &mut s.compresses,
        "Compress messages for clients that offer it, as browsers do (permessage-deflate, RFC 7692), at topics' URLs too: fewer bytes for more CPU time on both sides, about 11 us a KB. What is published is compressed once for all. Idle connections cost no more; each worker 0.7 MB.")
        .switch("compression"),
    row("websocket.compression_min_size", |s| &mut s.compression.message_bytes_min,
        "Shorter messages are sent as they are, in bytes: one packet carries them however short they are.")
        .of("compression.message_bytes_min").bytes(),
    row("websocket.compression_level", |s| &mut s.compression.level,
        "1 is the fastest, 9 makes the shortest messages.").of("compression.level"),
    row("http_stream.enabled", |s| &mut s.http_stream, "Centrifugo's SDKs may fall back to /connection/http_stream."),
    row("sse.enabled", |s| &mut s.sse, "Centrifugo's SDKs may fall back to /connection/sse."),
    row("shutdown.timeout", |s| &mut s.drain,
        "At SIGTERM or SIGINT (after throng.drain_delay) everybody is closed with 1001 (Centrifugo's clients with 3001), spread over this time: the longer, the fewer come to the other servers at once. A second signal ends at once.")
        .flag("drain", "TIME"),
    row("log.level", |s| &mut s.log_level,
        "Least important lines to log: off, error, warn, info, debug, trace. debug has a line for each connection that ends.")
        .flag("log-level", "LEVEL"),
    row("log.format", |s| &mut s.log_format,
        "How the log is written: text, or json: an object a line. A flood of lines for one reason is cut to 10 a second and worker, and says how many were left out.")
        .flag("log-format", "FORMAT"),
    // Ours.
    row("throng.listen", |s| &mut s.listen,
        "Addresses with ports to listen on, IPv4 and IPv6, port 0 being any free one; and unix:/PATH for a Unix-domain socket: a dead server's is replaced, and ours removed at the end.")
        .of("listen").flag("listen", "ADDR").unset("127.0.0.1:8080, or what http_server has", "[\"0.0.0.0:80\", \"[::]:80\"]").restart(),
    row("throng.listen_mode", |s| &mut s.listen_mode,
        "Permissions of Unix-domain sockets: whoever may write may connect.")
        .of("listen_unix_mode").flag("listen-mode", "MODE").restart(),
    row("throng.proxy.trusted", |s| &mut s.server.proxies.trusted,
        "Proxies that are believed when they say whose connection they bring: networks, addresses, and unix for whoever comes through the Unix-domain socket. Name no more than them: anybody in it can pretend to be anybody.")
        .of("proxies.trusted").flag("proxy-trusted", "NET").unset("nobody", "[\"10.0.0.0/8\", \"unix\"]"),
    row("throng.proxy.protocol", |s| &mut s.server.proxies.protocol,
        "They begin each connection with a PROXY header, version 1 or 2; one of them that does not is refused (400), health checks too.")
        .of("proxies.protocol").switch("proxy-protocol"),
    row("throng.proxy.header", |s| &mut s.server.proxies.header,
        "They name the client in this header of each request: X-Forwarded-For, where the rightmost address counts that is not trusted, or Forwarded (RFC 7239). The other one is ignored.")
        .of("proxies.header").flag("proxy-header", "NAME").unset("none", "\"X-Forwarded-For\""),
    row("throng.drain_delay", |s| &mut s.drain_delay,
        "At SIGTERM or SIGINT /readyz turns off at once, and for this long the server serves as ever: a load balancer takes as long to notice. Then shutdown.timeout begins.")
        .flag("drain-delay", "TIME"),
    server!("throng.max_connection_age", connection_age_max,
        "A connection is closed when it has been there for so long, up to a tenth earlier so that those who came together do not go together (1001, Centrifugo's clients 3011): clients spread over the servers that there are by then.")
        .flag("max-connection-age", "TIME").zero_is("any age", "\"24h\"").restart(),
    row("throng.open", |s| &mut s.open,
        "Let in whoever reaches the server, though nobody is asked who it is. Without it, and without any key for tokens or for the API, a server listens on loopback alone and answers to names of loopback alone (Host), since a web page could give its own name the address 127.0.0.1.")
        .switch("open"),
    row("throng.token_cookie", |s| &mut s.token_cookie,
        "Name of a cookie in which clients at topics' URLs may bring their token, too; empty: none. It counts where the request names an origin that may come in, or is a GET that no other site has made. Not with `*` in client.allowed_origins. Set it HttpOnly, Secure and SameSite=Lax or Strict."),
    row("throng.token_ed25519_public_key", |s| &mut s.tokens.ed25519,
        "Public key in PEM of connection tokens that are signed with EdDSA (Ed25519)."),
    row("throng.subscription_token_ed25519_public_key", |s| &mut s.subscription_tokens.ed25519,
        "The same of subscription tokens."),
    row("throng.token_jwks_file", |s| &mut s.tokens.jwks_file,
        "File with keys of connection tokens, a JWKS (RFC 7517): public ones, and secrets (oct), each for the tokens that name it (kid)."),
    row("throng.subscription_token_jwks_file", |s| &mut s.subscription_tokens.jwks_file,
        "The same for subscription tokens."),
    row("throng.token_jwks_refresh", |s| &mut s.jwks_refresh,
        "How often the keys at client.token.jwks_public_endpoint are fetched again. A key that is taken back there counts here for as long.").restart(),
    row("throng.admin", |s| &mut s.admin,
        "Address of the admin port: metrics, who is there, topics, why somebody was disconnected, disconnecting, and throng tap (docs/operations.md). One thread more. Beyond loopback it needs throng.admin_key.")
        .flag("admin", "ADDR").unset("no admin port", "\"127.0.0.1:8081\"").restart(),
    row("throng.admin_key", |s| &mut s.admin_key,
        "Key of the admin port: with one, nobody gets anything without it but /healthz and /readyz.")
        .file("admin-key-file").restart(),
    row("throng.public_metrics", |s| &mut s.public_metrics,
        "Serve /metrics on the public port, too, for everybody who reaches it. They hold no names and no secrets, but say how busy the server is.")
        .flag("public-metrics", "BOOL").unset("only where all addresses are loopback, and none a Unix-domain socket", "true"),
    server!("throng.workers", workers,
        "Threads, each with its own event loop and, unless throng.shared_fds, its own descriptor table. More than cores are for more connections than the tables of fewer hold, and slow each other down.")
        .flag("workers", "N").unset("one per core, more where client.connection_limit needs them", "2").restart(),
    server!("throng.pin", pin,
        "Keep each worker on one core: steadier, where nothing else runs on the machine.").switch("pin").restart(),
    server!("throng.shared_fds", shared_descriptors,
        "Leave all workers in one descriptor table: ulimit -n then counts for all of them together.")
        .switch("shared-fds").restart(),
    row("throng.echo", |s| &mut s.echo,
        "Send every message of a WebSocket at a path of its own back to its sender.").switch("echo"),
    server!("throng.max_connections_per_address", connections_per_address_max,
        "Most connections of one source address, IPv6 by its /64; the next one gets a 429. Behind a proxy clients have an address of their own only with throng.proxy. 16 bytes for each connection that there may be, from the start. Switched on and off by a restart alone.")
        .flag("max-connections-per-address", "N").zero_is("no limit of its own", "100"),
    server!("throng.accept_rate", accept_rate,
        "Most connections accepted in a second, and as many at once after a rest; those beyond wait in the kernel.")
        .flag("accept-rate", "N").zero_is("any number", "5000"),
    server!("throng.max_topics", topics_max,
        "Most channels; one more takes the place of an idle one, or gets a 503. Bounds what names alone can make the server hold.")
        .flag("max-topics", "N"),
    server!("throng.slow", slow_readers,
        "What becomes of a subscriber that reads so slowly that its next message is no longer kept: disconnect, or skip: it is told of the gap and goes on from the newest.")
        .flag("slow", "POLICY"),
    row("throng.compression_context", |s| &mut s.compression.context,
        "With websocket.compression: let a connection's messages refer to those before them, within windows of so many bits (9 to 15). Shorter messages for 0.3 to 0.43 MB of memory a connection.")
        .of("compression.context").unset("a message stands for itself", "12"),
    row("throng.command_rate", |s| &mut s.command_rate,
        "Commands a second that a client of Centrifugo's protocol may send in the long run (error 111, then 3013); 0: any number."),
    row("throng.command_burst", |s| &mut s.command_burst,
        "Commands that it may send at once; 0: as throng.command_rate."),
    server!("throng.ping_interval", ping_interval,
        "A bare WebSocket that is silent this long is pinged: proxies drop idle connections after 30 s to 300 s. A ping and its pong cost about 15 us of CPU time.")
        .flag("ping-interval", "TIME"),
    server!("throng.pong_timeout", pong_timeout,
        "A pinged client that sends nothing for this long is closed (1011).").flag("pong-timeout", "TIME"),
    server!("throng.tcp_keepalive", tcp_keepalive,
        "Leave it to the kernel to find out who is gone: no pings to bare WebSockets, no comments to event streams. After throng.ping_interval of silence the kernel probes, and when throng.pong_timeout is over as well (throng.write_timeout, if both are shorter) it gives up. Costs less CPU time; only where no proxy is between, which would get the probes.")
        .switch("tcp-keepalive").restart(),
    server!("throng.head_timeout", head_timeout,
        "Time for a request's head to be complete, from accept, and again for its body. The longer, the longer a slow attacker holds a place.")
        .flag("head-timeout", "TIME"),
    server!("throng.idle_timeout", idle_timeout,
        "A connection between two requests is closed after this time. More than that of the proxy in front, which would otherwise use a connection that is just being closed.")
        .flag("idle-timeout", "TIME"),
    server!("throng.close_timeout", close_timeout,
        "Time for a client's close frame after ours.").flag("close-timeout", "TIME"),
    server!("throng.write_timeout", write_timeout,
        "A client that takes no byte for this long, while something waits for it, is reset. Until then it may hold client.queue_max_size.")
        .flag("write-timeout", "TIME"),
    server!("throng.message_timeout", message_timeout,
        "Time for a WebSocket's message from its first byte to its last, in however many frames and pieces; else the connection is closed (1008).")
        .flag("message-timeout", "TIME"),
    server!("throng.message_rate", message_rate,
        "Most messages and requests a second of one connection, in bursts of up to five seconds' worth: who sends more is not read for a while, and after 10 s of that closed (1008, or 429); 0: no limit.")
        .flag("message-rate", "N"),
    server!("throng.byte_rate", byte_rate, "The same of bytes; 0: no limit.").bytes().flag("byte-rate", "BYTES"),
    server!("throng.control_rate", control_rate,
        "The same of pings, and of pongs that were not asked for; 0: no limit.").flag("control-rate", "N"),
    row("throng.max_memory", |s| &mut s.memory_max,
        "Bytes that may be in use: over it new connections get a 503, and those that hold most are reset until it is enough; 0: no limit. The kernel's memory for sockets comes on top. Switched on and off by a restart alone.")
        .of("memory").bytes().flag("max-memory", "BYTES")
        .unset("half of what the machine or its control group has", "8589934592"),
];

/// The rules of one namespace, or of the channels without one. Flags are for those without one.
pub(crate) const RULES: &[Setting<TopicRules>] = &[
    rule("history_size", |r| &mut r.history_size,
        "Most messages that a channel keeps for those who come late or read slowly; 0: no history. Needs history_ttl. A message is kept once for all subscribers.")
        .flag("history-size", "N"),
    rule("history_ttl", |r| &mut r.history_ttl, "How long a channel keeps a message; 0: no history.").flag("history-ttl", "TIME"),
    rule("history_bytes", |r| &mut r.history_bytes,
        "Most bytes that a channel keeps; its newest message is kept whatever its size. Throng's own.").bytes().flag("history-bytes", "BYTES"),
    rule("history_meta_ttl", |r| &mut r.history_meta_ttl, "In place of channel.history_meta_ttl.")
        .unset("as channel.history_meta_ttl", "\"1h\""),
    rule("presence", |r| &mut r.presence,
        "Channels know who subscribes. Each subscription takes memory for its client's name and user then.").switch("presence"),
    rule("join_leave", |r| &mut r.join_leave,
        "Subscribers that ask for it, and may see who is there, are told who comes and goes: with many subscribers that is many messages.")
        .switch("join-leave"),
    rule("force_push_join_leave", |r| &mut r.force_push_join_leave, "All of them are told, with join_leave."),
    rule("allow_recovery", |r| &mut r.allow_recovery, "Clients that ask for it come back to their position."),
    rule("force_recovery", |r| &mut r.force_recovery,
        "All clients come back to their position, whether or not they ask for it. Needs history.").switch("force-recovery"),
    rule("allow_positioning", |r| &mut r.allow_positioning, "Clients that ask for it are told their position."),
    rule("force_positioning", |r| &mut r.force_positioning,
        "All clients are told their position. Needs history."),
    rule("allow_subscribe_for_client", |r| &mut r.allow_subscribe.client, "Users may subscribe."),
    rule("allow_subscribe_for_anonymous", |r| &mut r.allow_subscribe.anonymous, "Clients without a user, too."),
    rule("allow_publish_for_client", |r| &mut r.allow_publish.client,
        "Users may publish, at a topic's URL by sending on its WebSocket. The flag is for everybody.")
        .switch("client-publish").switching_on("channel.without_namespace.allow_publish_for_anonymous"),
    rule("allow_publish_for_subscriber", |r| &mut r.allow_publish.subscriber, "Users that subscribe may publish."),
    rule("allow_publish_for_anonymous", |r| &mut r.allow_publish.anonymous,
        "With either of these, clients without a user, too."),
    rule("allow_history_for_client", |r| &mut r.allow_history.client, "Users may read what is kept."),
    rule("allow_history_for_subscriber", |r| &mut r.allow_history.subscriber, "Users that subscribe may read it."),
    rule("allow_history_for_anonymous", |r| &mut r.allow_history.anonymous,
        "With either of these, clients without a user, too."),
    rule("allow_presence_for_client", |r| &mut r.allow_presence.client, "Users may see who is there."),
    rule("allow_presence_for_subscriber", |r| &mut r.allow_presence.subscriber, "Users that subscribe may see it."),
    rule("allow_presence_for_anonymous", |r| &mut r.allow_presence.anonymous,
        "With either of these, clients without a user, too."),
    rule("allow_user_limited_channels", |r| &mut r.allow_user_limited_channels,
        "Whoever is named behind # may subscribe (dialog#42,43), and nobody else."),
];
#[cfg(test)]
mod tests {
    use super::super::elsewhere::{NOT_HERE, RULES_NOT_HERE};
    use super::*;
    use std::time::Duration;

    const MANUAL: &str = include_str!("../../../../docs/centrifugo.md");

    /// The names in the first column of the tables under a heading.
    fn names(heading: &str) -> Vec<&'static str> {
        let start = MANUAL.find(&format!("\n## {heading}\n")).expect(heading) + 4;
        let section = &MANUAL[start..];
        let section = &section[..section.find("\n## ").unwrap_or(section.len())];
        let rows = section.lines().filter(|line| line.starts_with("| `"));
        let cells = rows.filter_map(|row| row.split('|').nth(1));
        cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
    }

    fn sorted<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn the_manual_has_every_setting_and_no_other() {
        assert_eq!(sorted(names("Settings")), sorted(SETTINGS.iter().map(|setting| setting.name)));
        assert_eq!(sorted(names("Rules of channels")), sorted(RULES.iter().map(|rule| rule.name)));
    }

    #[test]
    fn what_the_manual_says_is_not_here_is_refused_with_what_to_do() {
        let names = names("Not here");
        assert!(names.len() > 20, "{names:?}");
        for name in names {
            let is_set =
                SETTINGS.iter().any(|setting| setting.name == name) || RULES.iter().any(|rule| rule.name == name);
            let is_known = NOT_HERE.iter().chain(RULES_NOT_HERE).any(|(start, _)| name.starts_with(start));
            assert!(is_known && !is_set, "{name}");
        }
    }

    #[test]
    fn every_name_is_there_once_and_is_not_said_to_be_missing() {
        let all = sorted(SETTINGS.iter().map(|setting| setting.name));
        assert!(all.windows(2).all(|pair| pair[0] != pair[1]));
        for (name, instead) in NOT_HERE.iter().chain(RULES_NOT_HERE) {
            assert!(!all.contains(name) && !RULES.iter().any(|rule| rule.name == *name), "{name}");
            assert!(!instead.is_empty(), "{name}");
        }
    }

    /// No two settings are given in the same way.
    #[test]
    fn flags_and_variables_are_there_once() {
        let flags = SETTINGS.iter().filter_map(|s| s.flag).chain(RULES.iter().filter_map(|r| r.flag));
        let flags = sorted(flags.map(|flag| flag.name));
        assert!(flags.windows(2).all(|pair| pair[0] != pair[1]), "{flags:?}");
        let rules = RULES.iter().map(|rule| rule.variable(WITHOUT_NAMESPACE));
        let aliases = SETTINGS.iter().filter_map(|setting| setting.alias.map(ToOwned::to_owned));
        let all: Vec<_> = SETTINGS.iter().map(|setting| setting.variable("")).chain(rules).chain(aliases).collect();
        let all = sorted(all.iter().map(String::as_str));
        assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "{all:?}");
    }

    /// What the library says cannot be has a setting, and with that a line.
    #[test]
    fn every_fault_of_the_library_is_a_settings() {
        let mut config = throng::Config::default();
        (config.message_bytes_max, config.queue_bytes_max) = (64 * 1024, Some(1));
        (config.subscriptions_max, config.accept_rate) = (0, Some(0));
        (config.workers, config.connections_max, config.connections_per_address_max) = (Some(0), Some(0), Some(0));
        (config.ping_interval, config.pong_timeout) = (Duration::ZERO, Duration::ZERO);
        (config.head_timeout, config.idle_timeout) = (Duration::ZERO, Duration::ZERO);
        (config.close_timeout, config.write_timeout) = (Duration::ZERO, Duration::ZERO);
        config.connection_age_max = Some(Duration::ZERO);
        config.proxies.protocol = true;
        config.tcp_keepalive = true;
        config.listen_unix = vec!["throng.sock".into()];
        config.origins = vec!["https://a.example".to_owned(), "b.example".to_owned()];
        config.compression = Some(throng::Compression::default().level(0).context(1));
        let forced = TopicRules { force_recovery: true, ..TopicRules::default() };
        config.topics = throng::RuleSet::new().namespace("news", forced);
        config.topics.max_length = 0;
        config.topics.without_namespace.history_size = 1;
        let mut names: Vec<_> = config.faults().iter().map(|fault| setting_of(fault.field())).collect();
        names.sort_unstable();
        let expected = [
            "channel.max_length",
            "channel.namespaces.news.force_recovery",
            "channel.without_namespace.history_size",
            "client.allowed_origins[1]",
            "client.channel_limit",
            "client.connection_limit",
            "client.queue_max_size",
            "throng.accept_rate",
            "throng.close_timeout",
            "throng.compression_context",
            "throng.head_timeout",
            "throng.idle_timeout",
            "throng.max_connection_age",
            "throng.max_connections_per_address",
            "throng.ping_interval",
            "throng.pong_timeout",
            "throng.proxy.protocol",
            "throng.tcp_keepalive",
            "throng.workers",
            "throng.write_timeout",
            "websocket.compression_level",
        ];
        assert_eq!(names, expected);
    }
}
