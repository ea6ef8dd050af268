//! A chat on Centrifugo's official JavaScript SDK: rooms, who is there, what was said before, and reconnects that miss
//! nothing.
//!
//!     npm install --no-save --prefix target centrifuge@5
//!     cargo run --release --example centrifugo_chat
//!
//! Then open http://127.0.0.1:9004/ in two windows. [`Centrifugo`] speaks with the SDK; the service beside it serves the
//! page, the SDK's file, and the tokens by which everybody knows who is who. Arguments: another address, and where the
//! file is.

use std::sync::Arc;
use std::time::{Duration, SystemTime};
use throng::{Answer, Centrifugo, Connection, Decision, Message, Request, Response, Server, Service, TokenKeys};

/// Here for all to see, so that pages come back with their tokens when this example is started again. Yours is a secret.
const SECRET: &[u8] = b"an example's secret, which is none";
const TOKEN_LIFE: Duration = Duration::from_secs(3600);
const SDK: &str = "target/node_modules/centrifuge/dist/centrifuge.js";

/// What there is beside Centrifugo's protocol.
struct Site {
    sdk: Arc<[u8]>,
}

impl Service for Site {
    type State = ();

    fn open(&mut self, _: &Request<'_>) -> Decision<()> {
        Response::refuse(404, "connect to /connection/websocket").into()
    }

    fn message(&mut self, _: &mut Connection<'_, ()>, _: Message<'_>) {}

    fn request(&mut self, request: &Request<'_>) -> Answer {
        match (request.method(), request.path()) {
            ("GET", "/") => {
                Response::new(200).body("text/html; charset=utf-8", include_str!("centrifugo_chat.html")).into()
            }
            ("GET", "/centrifuge.js") => Response::new(200).body("text/javascript", &*self.sdk).into(),
            ("POST", "/token") => token(request.body()).into(),
            _ => Response::refuse(404, "the chat is at /").into(),
        }
    }
}

/// A connection token for whoever says that this is their name. Yours would look at a login first.
fn token(name: &[u8]) -> Response {
    let name = match std::str::from_utf8(name) {
        Ok(name) if (1..=20).contains(&name.chars().count()) && name.chars().all(char::is_alphanumeric) => name,
        _ => return Response::refuse(400, "a name is 1 to 20 letters and digits"),
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let claims = serde_json::json!({ "sub": name, "exp": (now + TOKEN_LIFE).as_secs() });
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET);
    match jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key) {
        Ok(token) => Response::new(200).header("Cache-Control", "no-store").body("text/plain", token),
        Err(error) => Response::refuse(500, &error.to_string()),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:9004".into());
    let file = arguments.next().unwrap_or_else(|| SDK.into());
    let sdk: Arc<[u8]> = std::fs::read(&file)
        .map_err(|error| format!("{file}: {error}; get it by: npm install --no-save --prefix target centrifuge@5"))?
        .into();
    let keys = TokenKeys::new(SECRET);
    let running = Server::new()
        .listen(address.parse()?)
        .history(200, 256 * 1024, Duration::from_secs(3600))
        .presence(true)
        .join_leave(true)
        .client_publish(true)
        .start(move |_| Centrifugo::new(Site { sdk: sdk.clone() }).tokens(keys.clone()))?;
    println!("open http://{}/", running.addresses()[0]);
    running.run_until_signal(Duration::from_secs(1))?;
    Ok(())
}
