//! Who may come in: the keys of tokens and of the API, which every worker has and a reload changes under their hands.

use crate::config::Settings;
use crate::jwks::Source;
use throng::{ApiKey, TokenKeys};

/// The keys. Clones are the same: what one takes, all have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Access {
    pub(crate) api_key: ApiKey,
    /// Of connection tokens; none: tokens are not looked at.
    pub(crate) tokens: TokenKeys,
    /// Of subscription tokens, if they have keys of their own.
    pub(crate) subscription_tokens: TokenKeys,
}

impl Access {
    /// Takes the keys of these settings, which have been found to be such, in place of those before. What was fetched stays.
    pub(crate) fn take(&self, settings: &Settings) {
        self.api_key.replace(&ApiKey::new(&*settings.api_key).or(&*settings.previous_api_key));
        let none = TokenKeys::none;
        let mut tokens = settings.tokens.keys().ok().flatten().unwrap_or_else(none);
        if !settings.token_cookie.is_empty() {
            tokens = tokens.cookie(&settings.token_cookie);
        }
        self.tokens.replace(&tokens);
        let own = settings.has_subscription_tokens.then(|| settings.subscription_tokens.keys().ok().flatten());
        self.subscription_tokens.replace(&own.flatten().unwrap_or_else(none));
    }

    /// Where keys are fetched from.
    pub(crate) fn sources(&self, settings: &Settings) -> Vec<Source> {
        let own =
            settings.has_subscription_tokens.then_some((&settings.subscription_tokens, &self.subscription_tokens));
        let all = [(&settings.tokens, &self.tokens)].into_iter().chain(own);
        let fetched = all.filter(|(tokens, _)| !tokens.jwks_url.is_empty());
        fetched.map(|(tokens, keys)| Source::new(&tokens.jwks_url, keys.clone(), settings.jwks_refresh)).collect()
    }
}
