//! Who may come in: the keys of tokens and of the API, which every worker has and a reload changes under their hands.

use crate::config::{Fault, Settings};
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

/// The keys that settings have, read and parsed: files may be other ones by the next time.
#[derive(Debug)]
pub(crate) struct Keys {
    api_key: ApiKey,
    tokens: TokenKeys,
    subscription_tokens: TokenKeys,
}

impl Keys {
    /// # Errors
    ///
    /// One of them cannot be read, or is none: to go on without it would let others in.
    pub(crate) fn of(settings: &Settings) -> Result<Self, Fault> {
        let [tokens, subscription_tokens] = settings.token_keys();
        let mut tokens = tokens?;
        if !settings.token_cookie.is_empty() {
            tokens = tokens.cookie(&settings.token_cookie);
        }
        let api_key = ApiKey::new(&*settings.api_key).or(&*settings.previous_api_key);
        Ok(Self { api_key, tokens, subscription_tokens: subscription_tokens? })
    }
}

impl Access {
    /// Takes these keys in place of those before. What was fetched stays.
    pub(crate) fn take(&self, Keys { api_key, tokens, subscription_tokens }: &Keys) {
        self.api_key.replace(api_key);
        self.tokens.replace(tokens);
        self.subscription_tokens.replace(subscription_tokens);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::{env, fs, process};

    #[test]
    fn a_file_of_keys_that_is_gone_is_an_error_and_not_no_key() {
        let file = env::temp_dir().join(format!("throng-keys-{}.json", process::id()));
        let mut settings = Settings::default();
        settings.tokens.jwks_file = file.display().to_string();
        settings.subscription_tokens = settings.tokens.clone();
        fs::write(&file, r#"{"keys":[{"kty":"oct","alg":"HS256","k":"c2VjcmV0"}]}"#).unwrap();
        let read = |settings: &Settings| Keys::of(settings).map_err(|fault| fault.setting);
        let access = Access::default();
        access.take(&read(&settings).unwrap());
        assert!(!access.tokens.is_empty() && access.subscription_tokens.is_empty());
        fs::remove_file(&file).unwrap();
        assert_eq!(read(&settings).unwrap_err(), "throng.token_jwks_file");
        settings.tokens = crate::config::settings::Tokens::default();
        assert!(read(&settings).is_ok(), "nobody looks at those of subscriptions");
        settings.has_subscription_tokens = true;
        assert_eq!(read(&settings).unwrap_err(), "throng.subscription_token_jwks_file");
    }
}
