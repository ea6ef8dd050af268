//! `throng token`: what an application's server does for its users, to try things out by hand.

use crate::config::{Flags, Loaded, variables};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Map, Value, json};
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::UNIX_EPOCH;

/// What can be said on the command line.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Whose token it is (sub); nobody's in particular without one
    #[arg(default_value = "")]
    user: String,
    /// For how many seconds it counts (exp); 0: for ever
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    ttl: u64,
    /// Makes it a subscription token, for this channel
    #[arg(long, value_name = "NAME")]
    channel: Option<String>,
    /// More claims, a JSON object: {"caps":[{"channels":["news"],"allow":["sub"]}]}
    #[arg(long, value_name = "JSON", value_parser = |text: &str| serde_json::from_str::<Map<String, Value>>(text))]
    claims: Option<Map<String, Value>>,
    /// File with the settings, whose secret signs it [default: the environment's THRONG_CONFIG, if any]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Prints a token.
pub(crate) fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let settings = Loaded::new(options.config.as_deref(), &variables(), &Flags::default())?.settings;
    let is_own = options.channel.is_some() && settings.has_subscription_tokens;
    let tokens = if is_own { &settings.subscription_tokens } else { &settings.tokens };
    // This chooses the implementation, too.
    if tokens.keys().ok().flatten().is_none() || tokens.secret.is_empty() {
        return Err("there is no secret to sign it with: set client.token.hmac_secret_key in a file that --config names, or THRONG_TOKEN_SECRET. Who has a private key signs with that".into());
    }
    let user_claim = if tokens.user_claim.is_empty() { "sub" } else { &tokens.user_claim };
    let mut claims = Map::from_iter([(user_claim.to_owned(), json!(options.user))]);
    if options.ttl > 0 {
        claims.insert("exp".to_owned(), json!(UNIX_EPOCH.elapsed()?.as_secs().saturating_add(options.ttl)));
    }
    for (name, configured) in [("aud", &tokens.audience), ("iss", &tokens.issuer)] {
        if !configured.is_empty() {
            claims.insert(name.to_owned(), json!(configured));
        }
    }
    claims.extend(options.channel.iter().map(|channel| ("channel".to_owned(), json!(channel))));
    claims.extend(options.claims.clone().unwrap_or_default());
    println!("{}", jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(&tokens.secret))?);
    Ok(ExitCode::SUCCESS)
}
