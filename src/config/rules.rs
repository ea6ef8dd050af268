//! Who may do what with which topics, and what is kept of them: one rule set for every transport.
//!
//! ```text
//!   $chat:room#42,43
//!   | |       `------- user boundary, and the users it is limited to
//!   | `--------------- namespace, up to its boundary
//!   `----------------- private prefix: a subscription token is needed
//! ```

use super::ConfigError;
use std::collections::BTreeMap;
use std::time::Duration;

/// Whom something is allowed. A client is a user by its token, and anonymous (the empty user) without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allow {
    /// Users, whether or not they subscribe to the topic (`allow_..._for_client`).
    pub client: bool,
    /// With either of the others, anonymous clients too (`allow_..._for_anonymous`).
    pub anonymous: bool,
    /// Users that subscribe to the topic (`allow_..._for_subscriber`).
    pub subscriber: bool,
}

impl Allow {
    /// Everybody, anonymous clients too.
    pub const EVERYBODY: Self = Self { client: true, anonymous: true, subscriber: false };

    fn covers(self, user: &str, is_subscriber: bool) -> bool {
        (self.client || self.subscriber && is_subscriber) && (self.anonymous || !user.is_empty())
    }
}

/// What holds for the topics of one namespace. The names are those of Centrifugo's channel options, and so are the
/// defaults: nothing is kept, and clients need a token to subscribe.
///
/// ```
/// use throng::{Allow, TopicRules};
///
/// let chat = TopicRules {
///     presence: true,
///     history_size: 100,
///     history_ttl: std::time::Duration::from_secs(300),
///     allow_subscribe: Allow { client: true, ..Allow::default() },
///     allow_publish: Allow { subscriber: true, ..Allow::default() },
///     ..TopicRules::default()
/// };
/// # assert!(chat.presence);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRules {
    /// How many messages a topic keeps; 0: no history.
    pub history_size: usize,
    /// How many bytes it keeps at most. Default: 1 MiB. The newest message is kept whatever its size.
    pub history_bytes: usize,
    /// How long it keeps them; zero: no history.
    pub history_ttl: Duration,
    /// How long a quiet topic's position outlives its messages. Default: what the rule set says for all.
    pub history_meta_ttl: Option<Duration>,
    /// Topics know who subscribes.
    pub presence: bool,
    /// Subscribers are told of each other's coming and going, if they ask for that.
    pub join_leave: bool,
    /// They are told whether or not they ask for it.
    pub force_push_join_leave: bool,
    /// Clients can come back to their position; those of Centrifugo's protocol if they ask for it.
    pub allow_recovery: bool,
    /// Those can, too, whether or not they ask for it.
    pub force_recovery: bool,
    /// Clients of Centrifugo's protocol that ask for it are told their position.
    pub allow_positioning: bool,
    /// They are told whether or not they ask for it.
    pub force_positioning: bool,
    /// Who may subscribe without a subscription token; `subscriber` means nothing here.
    pub allow_subscribe: Allow,
    /// Who may publish.
    pub allow_publish: Allow,
    /// Who may read what is kept.
    pub allow_history: Allow,
    /// Who may see who is there.
    pub allow_presence: Allow,
    /// Whoever is named behind the user boundary of a topic's name may subscribe, and nobody else.
    pub allow_user_limited_channels: bool,
}

impl Default for TopicRules {
    fn default() -> Self {
        Self {
            history_size: 0,
            history_bytes: 1024 * 1024,
            history_ttl: Duration::ZERO,
            history_meta_ttl: None,
            presence: false,
            join_leave: false,
            force_push_join_leave: false,
            allow_recovery: false,
            force_recovery: false,
            allow_positioning: false,
            force_positioning: false,
            allow_subscribe: Allow::default(),
            allow_publish: Allow::default(),
            allow_history: Allow::default(),
            allow_presence: Allow::default(),
            allow_user_limited_channels: false,
        }
    }
}

impl TopicRules {
    /// Everything is allowed but publishing; 1,000 messages are kept, 1 MiB and 10 minutes at most.
    pub fn open() -> Self {
        Self {
            history_size: 1000,
            history_ttl: Duration::from_secs(600),
            allow_recovery: true,
            allow_positioning: true,
            allow_subscribe: Allow::EVERYBODY,
            allow_history: Allow::EVERYBODY,
            allow_presence: Allow::EVERYBODY,
            ..Self::default()
        }
    }

    pub(crate) fn has_history(&self) -> bool {
        self.history_size > 0 && !self.history_ttl.is_zero()
    }

    /// Whether a client may be given its position, and come back to it, if it asks for that.
    pub(crate) fn may_recover(&self, user: &str) -> bool {
        self.force_recovery || self.allow_recovery || self.allow_history.covers(user, true)
    }

    fn gives(&self, right: Right, user: &str, is_subscriber: bool) -> bool {
        let allow = match right {
            Right::Subscribe => self.allow_subscribe,
            Right::Publish => self.allow_publish,
            Right::Recovery => return self.may_recover(user),
            Right::History => self.allow_history,
            Right::Presence => self.allow_presence,
        };
        allow.covers(user, is_subscriber)
    }
}

/// What a client may do with a topic, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    Subscribe,
    Publish,
    /// To come back to a position.
    Recovery,
    /// To read what is kept.
    History,
    Presence,
}

/// Why a client may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// There are no rules for the topic's namespace.
    UnknownNamespace,
    /// The topic is one of those that need a subscription token.
    Private,
    /// It is for other users.
    Limited,
    /// Its rules do not give this right to such a client.
    Right(Right),
}

impl std::fmt::Display for Denied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::UnknownNamespace => "the topic's namespace (what stands before `:` in its name) is not configured here",
            Self::Private => "a private topic needs a subscription token, which clients of Centrifugo's protocol can show",
            Self::Limited => "the topic is for the users that its name says behind `#`",
            Self::Right(Right::Subscribe) => {
                "to subscribe, a client needs `allow_subscribe_for_client`, and without a token `allow_subscribe_for_anonymous` too"
            }
            Self::Right(Right::Publish) => {
                "to publish, a client needs `allow_publish_for_client`, and without a token `allow_publish_for_anonymous` too; an application's server sends its API key"
            }
            Self::Right(Right::Recovery) => {
                "to come back to a position, a client needs `allow_recovery`, or the right to read what is kept (`allow_history_for_client`)"
            }
            Self::Right(Right::History) => {
                "to read what is kept, a client needs `allow_history_for_client`, and without a token `allow_history_for_anonymous` too"
            }
            Self::Right(Right::Presence) => {
                "to see who is there, a client needs `allow_presence_for_client`, and without a token `allow_presence_for_anonymous` too"
            }
        })
    }
}

/// The rules of all topics.
///
/// ```
/// use throng::{RuleSet, Server, TopicRules};
///
/// let rules = RuleSet::new().namespace("news", TopicRules::open());
/// let server = Server::new().topics(rules); // `news:world` is for everybody, `other` for nobody
/// # let _ = server;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSet {
    /// For topics whose names have no namespace.
    pub without_namespace: TopicRules,
    namespaces: BTreeMap<Box<str>, TopicRules>,
    /// Any namespace will do, and whoever reaches the server may publish to a topic's URL.
    is_open: bool,
    /// What the names of topics start with that need a subscription token; empty: none do. Default: `$`.
    pub private_prefix: String,
    /// What ends the namespace of a name. Default: `:`.
    pub namespace_boundary: String,
    /// What the users stand behind that a topic is limited to. Default: `#`.
    pub user_boundary: String,
    /// What stands between them. Default: `,`.
    pub user_separator: String,
    /// Longest name in bytes, at most 255. Default: 255.
    pub max_length: usize,
    /// How long a quiet topic's position outlives its messages. Default: a day.
    pub history_meta_ttl: Duration,
}

impl Default for RuleSet {
    fn default() -> Self {
        Self::open()
    }
}

impl RuleSet {
    /// Nothing is allowed, but what [`without_namespace`](Self::without_namespace) and the namespaces say. An unknown
    /// namespace is an error.
    pub fn new() -> Self {
        Self {
            without_namespace: TopicRules::default(),
            namespaces: BTreeMap::new(),
            is_open: false,
            private_prefix: "$".to_owned(),
            namespace_boundary: ":".to_owned(),
            user_boundary: "#".to_owned(),
            user_separator: ",".to_owned(),
            max_length: crate::limits::TOPIC_NAME_BYTES_MAX,
            history_meta_ttl: Duration::from_secs(24 * 60 * 60),
        }
    }

    /// One rule for all topics, [`TopicRules::open`], and whoever reaches the server may publish to a topic's URL. There are
    /// no private topics. The default of a server.
    pub fn open() -> Self {
        Self { without_namespace: TopicRules::open(), is_open: true, private_prefix: String::new(), ..Self::new() }
    }

    /// Adds the rules of a namespace; in place of those it had.
    #[must_use]
    pub fn namespace(mut self, name: &str, rules: TopicRules) -> Self {
        self.namespaces.insert(name.into(), rules);
        self
    }

    /// Whether this namespace has rules of its own.
    pub fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.contains_key(name)
    }

    /// The namespaces that have rules of their own, by name.
    pub fn namespaces(&self) -> impl Iterator<Item = (&str, &TopicRules)> {
        self.namespaces.iter().map(|(name, rules)| (&**name, rules))
    }

    /// The same without any of these.
    #[must_use]
    pub fn without_namespaces(mut self) -> Self {
        self.namespaces.clear();
        self
    }

    /// Whether nothing was ruled, as [`open`](Self::open) has it.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    fn all(&self) -> impl Iterator<Item = &TopicRules> {
        self.namespaces.values().chain([&self.without_namespace])
    }

    /// Whether any topic has its subscribers told of each other.
    pub(crate) fn any_join_leave(&self) -> bool {
        self.all().any(|rules| rules.join_leave)
    }

    /// What of this cannot be.
    pub(super) fn check(&self, faults: &mut Vec<ConfigError>) {
        for name in self.namespaces.keys() {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if name.len() < 2 || !name.bytes().all(is_plain) {
                let text = format!("the namespace {name:?} cannot be: two or more of A-Z a-z 0-9 - _ .");
                faults.push(ConfigError::new(format!("topics.namespaces.{name}"), text));
            }
        }
        let most = crate::limits::TOPIC_NAME_BYTES_MAX;
        if self.max_length == 0 || self.max_length > most {
            let text = format!("names of topics (channel.max_length) have from 1 to {most} bytes");
            faults.push(ConfigError::new("topics.max_length", text));
        }
        let without =
            ("topics without a namespace".to_owned(), "without_namespace".to_owned(), &self.without_namespace);
        let namespaces = (self.namespaces.iter())
            .map(|(name, rules)| (format!("the namespace {name:?}"), format!("namespaces.{name}"), rules));
        for (whose, path, rules) in namespaces.chain([without]).filter(|(_, _, rules)| !rules.has_history()) {
            let mut fault = |field: &str, text: &str| {
                faults.push(ConfigError::new(format!("topics.{path}.{field}"), format!("{whose}: {text}")));
            };
            let text = "force_recovery and force_positioning need history: give history_size and history_ttl too";
            if rules.force_recovery {
                fault("force_recovery", text);
            } else if rules.force_positioning {
                fault("force_positioning", text);
            } else if rules.history_size > 0 && !self.is_open {
                fault("history_size", "give history_ttl beside history_size, or nothing is kept");
            }
        }
    }

    /// The rules of a topic; `None`: its namespace is unknown.
    pub(crate) fn of(&self, name: &str) -> Option<&TopicRules> {
        if self.namespaces.is_empty() && self.is_open {
            return Some(&self.without_namespace);
        }
        let name = name.strip_prefix(self.private_prefix.as_str()).unwrap_or(name);
        match name.split_once(self.namespace_boundary.as_str()) {
            Some((namespace, _)) if !self.namespace_boundary.is_empty() => {
                self.namespaces.get(namespace).or(self.is_open.then_some(&self.without_namespace))
            }
            _ => Some(&self.without_namespace),
        }
    }

    /// The same for what the server itself does with a topic.
    pub(crate) fn at(&self, name: &str) -> &TopicRules {
        self.of(name).unwrap_or(&self.without_namespace)
    }

    pub(crate) fn is_private(&self, name: &str) -> bool {
        !self.private_prefix.is_empty() && name.starts_with(self.private_prefix.as_str())
    }

    /// Whether this user may subscribe, without a subscription token.
    pub(crate) fn may_subscribe(&self, name: &str, user: &str) -> Result<(), Denied> {
        let rules = self.of(name).ok_or(Denied::UnknownNamespace)?;
        if self.is_named(rules, name, user)? { Ok(()) } else { self.may(Right::Subscribe, name, user, false) }
    }

    /// Whether a topic's name says that it is for this user; an error if it is private, or for others.
    fn is_named(&self, rules: &TopicRules, name: &str, user: &str) -> Result<bool, Denied> {
        if self.is_private(name) {
            return Err(Denied::Private);
        }
        let Some(users) = self.users(name).filter(|_| rules.allow_user_limited_channels) else { return Ok(false) };
        let is_named = match self.user_separator.as_str() {
            "" => users == user,
            separator => users.split(separator).any(|named| named == user),
        };
        if is_named && !user.is_empty() { Ok(true) } else { Err(Denied::Limited) }
    }

    /// Those that a name is limited to.
    fn users<'n>(&self, name: &'n str) -> Option<&'n str> {
        let (_, users) = name.rsplit_once(self.user_boundary.as_str())?;
        (!self.user_boundary.is_empty()).then_some(users)
    }

    /// Whether this user may do that with a topic, being a subscriber or not.
    pub(crate) fn may(&self, right: Right, name: &str, user: &str, is_subscriber: bool) -> Result<(), Denied> {
        let rules = self.of(name).ok_or(Denied::UnknownNamespace)?;
        // What a client may not subscribe to is not to be read by another way.
        if matches!(right, Right::History | Right::Presence) && !is_subscriber {
            self.is_named(rules, name, user)?;
        }
        if rules.gives(right, user, is_subscriber) { Ok(()) } else { Err(Denied::Right(right)) }
    }

    /// What a user's own topic is called.
    pub(crate) fn personal(&self, namespace: &str, user: &str) -> String {
        let boundary = if namespace.is_empty() { "" } else { &self.namespace_boundary };
        format!("{namespace}{boundary}{}{user}", self.user_boundary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(rules: &RuleSet) -> Vec<ConfigError> {
        let mut faults = Vec::new();
        rules.check(&mut faults);
        faults
    }

    const USERS: Allow = Allow { client: true, anonymous: false, subscriber: false };

    fn rules() -> RuleSet {
        let subscriber = Allow { subscriber: true, ..Allow::default() };
        RuleSet::new()
            .namespace("news", TopicRules::open())
            .namespace(
                "team",
                TopicRules { allow_subscribe: USERS, allow_publish: subscriber, ..TopicRules::default() },
            )
            .namespace("own", TopicRules { allow_user_limited_channels: true, ..TopicRules::default() })
    }

    #[test]
    fn a_name_is_ruled_by_its_namespace() {
        let rules = rules();
        for (name, allowed) in [
            ("news:world", Ok(())),
            ("news:", Ok(())),
            ("news:a:b", Ok(())),
            ("$news:world", Err(Denied::Private)),
            ("news", Err(Denied::Right(Right::Subscribe))),
            ("other:world", Err(Denied::UnknownNamespace)),
            (":world", Err(Denied::UnknownNamespace)),
            ("$other:world", Err(Denied::UnknownNamespace)),
            ("team:a", Err(Denied::Right(Right::Subscribe))),
        ] {
            assert_eq!(rules.may_subscribe(name, ""), allowed, "{name}");
        }
        assert_eq!(rules.may_subscribe("team:a", "42"), Ok(()));
        assert_eq!(RuleSet::open().may_subscribe("$any:thing#1", ""), Ok(()));
    }

    #[test]
    fn a_topic_is_limited_to_the_users_that_its_name_says() {
        let rules = rules();
        for (name, user, allowed) in [
            ("own:a#42", "42", true),
            ("own:a#42,43", "43", true),
            ("own:a#42,43", "4", false),
            ("own:a#42", "", false),
            ("own:a#", "", false),
            ("own:a#41#42", "41", false),
            ("own:a", "42", false),
            ("own:#42", "42", true),
        ] {
            assert_eq!(rules.may_subscribe(name, user).is_ok(), allowed, "{name} {user}");
        }
        assert_eq!(rules.personal("own", "42"), "own:#42");
        assert_eq!(rules.personal("", "42"), "#42");
    }

    #[test]
    fn rights_are_for_clients_anonymous_ones_and_subscribers() {
        let rules = rules();
        let publish = |user, is_subscriber| rules.may(Right::Publish, "team:a", user, is_subscriber).is_ok();
        assert!(publish("1", true) && !publish("1", false) && !publish("", true));
        let anyone = Allow { subscriber: true, anonymous: true, client: false };
        assert!(anyone.covers("", true) && !anyone.covers("1", false));
        assert_eq!(rules.may(Right::History, "news:a", "", false), Ok(()));
        assert_eq!(rules.may(Right::Publish, "news:a", "1", true), Err(Denied::Right(Right::Publish)));
        assert!(!Allow { anonymous: true, ..Allow::default() }.covers("", true), "only with one of the others");
    }

    #[test]
    fn what_is_not_for_a_client_is_not_read_by_another_way() {
        let open = TopicRules { allow_user_limited_channels: true, ..TopicRules::open() };
        let rules = RuleSet::new().namespace("aa", open);
        for right in [Right::History, Right::Presence] {
            assert_eq!(rules.may(right, "$aa:x", "1", false), Err(Denied::Private));
            assert_eq!(rules.may(right, "aa:x#1", "2", false), Err(Denied::Limited));
            assert_eq!(rules.may(right, "aa:x#1", "1", false), Ok(()));
            assert_eq!(rules.may(right, "$aa:x", "1", true), Ok(()), "it came with a token");
        }
    }

    #[test]
    fn who_may_come_back_to_a_position_need_not_read_all() {
        let user = |rules: TopicRules| RuleSet::new().namespace("aa", rules).may(Right::Recovery, "aa:x", "1", true);
        assert_eq!(user(TopicRules::default()), Err(Denied::Right(Right::Recovery)));
        for rules in [
            TopicRules { allow_recovery: true, ..TopicRules::default() },
            TopicRules { force_recovery: true, ..TopicRules::default() },
            TopicRules { allow_history: USERS, ..TopicRules::default() },
        ] {
            assert_eq!(user(rules), Ok(()));
        }
    }

    #[test]
    fn what_cannot_be_is_said() {
        for name in ["", "a", "with space", "a:b", "ümlaut"] {
            assert!(!faults(&RuleSet::new().namespace(name, TopicRules::default())).is_empty(), "{name}");
        }
        let forced = TopicRules { force_recovery: true, history_size: 1, ..TopicRules::default() };
        let said = faults(&RuleSet::new().namespace("aa", forced))[0].to_string();
        assert!(said.contains("\"aa\"") && said.contains("force_recovery"), "{said}");
        let half = TopicRules { history_size: 1, ..TopicRules::default() };
        assert_eq!(faults(&RuleSet { without_namespace: half, ..RuleSet::new() }).len(), 1);
        assert_eq!(faults(&RuleSet { max_length: 256, ..RuleSet::new() }).len(), 1);
        assert!(faults(&rules()).is_empty() && faults(&RuleSet::open()).is_empty());
    }
}
