//! Keys that are fetched: at the start, every so often, and when a token names one that is not there. Where it fails, the keys
//! from before stay.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use throng::TokenKeys;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

/// How long a provider has for its answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The least time between two fetches, whatever tokens name: nobody has the server ask its provider all the time.
const AGAIN: Duration = Duration::from_secs(5);

/// The longest set that is read, in bytes.
const BYTES_MAX: u64 = 1024 * 1024;

/// Where systems keep the certificates that they trust: Debian and Alpine, Fedora, SUSE.
const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// A set of keys at a URL.
#[derive(Debug)]
pub(crate) struct Source {
    url: String,
    keys: TokenKeys,
    refresh: Duration,
}

impl Source {
    pub(crate) fn new(url: &str, keys: TokenKeys, refresh: Duration) -> Self {
        Self { url: url.to_owned(), keys, refresh }
    }

    /// Fetches the keys, and says how that went.
    pub(crate) fn fetch(&self) {
        match self.try_fetch() {
            Ok(count) => log::info!("fetched {count} keys of tokens from {}", self.place()),
            Err(error) => {
                log::error!("cannot fetch keys of tokens from {}, those from before stay: {error}", self.place());
            }
        }
    }

    /// Goes on fetching them.
    pub(crate) fn fetch_on(self) {
        loop {
            let begun = Instant::now();
            if self.keys.wait_for_unknown(self.refresh) {
                thread::sleep(AGAIN.saturating_sub(begun.elapsed()));
            }
            // What was named meanwhile is looked for now.
            self.keys.wait_for_unknown(Duration::ZERO);
            self.fetch();
        }
    }

    /// Without what may be a secret in it.
    fn place(&self) -> &str {
        self.url.split(['?', '#']).next().unwrap_or_default()
    }

    fn try_fetch(&self) -> Result<usize, String> {
        let is_https = self.url.starts_with("https://");
        let tls = if is_https { tls()? } else { TlsConfig::default() };
        // For this once: a connection that is kept would be the workers', too.
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .https_only(is_https)
            .max_redirects(3)
            .user_agent(concat!("throng/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build()
            .into();
        let accept = "application/jwk-set+json, application/json";
        let answer = agent.get(&self.url).header("Accept", accept).call().map_err(|error| error.to_string())?;
        let mut json = Vec::new();
        let mut body = answer.into_body().into_reader().take(BYTES_MAX + 1);
        body.read_to_end(&mut json).map_err(|error| error.to_string())?;
        if json.len() as u64 > BYTES_MAX {
            return Err(format!("the answer is longer than {BYTES_MAX} bytes"));
        }
        self.keys.fetched(&json).map_err(|error| error.to_string())
    }
}

fn tls() -> Result<TlsConfig, String> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let mut files = named.into_iter().chain(BUNDLES.map(PathBuf::from));
    let Some(file) = files.find(|file| file.exists()) else {
        return Err("no certificates to trust: install ca-certificates, or name a file with SSL_CERT_FILE".to_owned());
    };
    let pem = std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let certificate = |item| if let Ok(PemItem::Certificate(certificate)) = item { Some(certificate) } else { None };
    let trusted: Vec<_> = parse_pem(&pem).filter_map(certificate).collect();
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(trusted)))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build())
}
