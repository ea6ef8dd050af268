//! The smallest service: every message goes back to its sender.
//!
//!     cargo run --release --example echo -- --listen 127.0.0.1:9001
//!
//! With `--deflate` it compresses, for clients that offer to.

use std::time::Duration;
use throng::{Accept, Compression, Connection, Decision, Message, Request, Server, Service};

struct Echo;

impl Service for Echo {
    type State = ();

    fn open(&mut self, _: &Request<'_>) -> Decision<()> {
        Accept::new(()).into()
    }

    fn message(&mut self, connection: &mut Connection<'_, ()>, message: Message<'_>) {
        let _ = connection.send(message);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let running = server_from_flags()?.start(|_| Echo)?;
    println!("listening on {}", running.addresses()[0]);
    running.run_until_signal(Duration::from_secs(1))?;
    Ok(())
}

fn server_from_flags() -> Result<Server, Box<dyn std::error::Error>> {
    let mut server = Server::new();
    let mut flags = std::env::args().skip(1);
    while let Some(flag) = flags.next() {
        if flag == "--deflate" {
            server = server.compression(Compression::default().message_bytes_min(0));
            continue;
        }
        let value = flags.next().ok_or_else(|| format!("{flag} needs a value"))?;
        server = match &*flag {
            "--listen" => server.listen(value.parse()?),
            "--workers" => server.workers(value.parse()?),
            "--max-message" => server.message_bytes_max(value.parse()?),
            "--max-connections" => server.connections_max(value.parse()?),
            _ => {
                return Err(format!(
                    "no such flag: {flag} (--listen, --workers, --max-message, --max-connections, --deflate)"
                )
                .into());
            }
        };
    }
    Ok(server)
}
