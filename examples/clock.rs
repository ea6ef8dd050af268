//! Server push: every connection gets the time once a second.
//!
//!     cargo run --release --example clock
//!
//! A client that reads slowly is not sent a time that is old by the time it arrives: as long as something waits for
//! it, its ticks are left out, and it costs no memory. One that reads nothing at all is reset after the write timeout.

use std::time::{Duration, SystemTime};
use throng::{Accept, Connection, Decision, Message, Request, Server, Service};

struct Clock;

impl Service for Clock {
    /// How many ticks were left out.
    type State = u32;

    fn open(&mut self, _: &Request<'_>) -> Decision<u32> {
        Accept::new(0).into()
    }

    fn tick(&mut self, connection: &mut Connection<'_, u32>) {
        if connection.queued_bytes() > 0 {
            *connection.state() += 1;
            return;
        }
        let left_out = std::mem::take(connection.state());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let text = format!("{{\"time\":{:.3},\"left_out\":{left_out}}}", now.as_secs_f64());
        // Nothing waits for this client, so there is room.
        let _ = connection.send(&*text);
    }

    fn message(&mut self, connection: &mut Connection<'_, u32>, _: Message<'_>) {
        connection.close(1008, "this clock only tells the time");
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9002".into());
    let running = Server::new().listen(address.parse()?).tick_interval(Duration::from_secs(1)).start(|_| Clock)?;
    println!("listening on {}", running.addresses()[0]);
    running.run_until_signal(Duration::from_secs(1))?;
    Ok(())
}
