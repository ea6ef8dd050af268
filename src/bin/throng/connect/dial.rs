//! From a host's name to a connection, in bounded time, with the reason in words where there is none.

use super::text::escaped;
use super::words;
use std::fmt::Write;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use throng::client::Url;

/// Connects to the first of the host's addresses that answers.
pub(super) fn dial(url: &Url, timeout: Duration) -> Result<TcpStream, String> {
    let deadline = Instant::now() + timeout;
    let addresses = resolve(url, timeout)?;
    let mut failures = String::new();
    for (at, address) in addresses.iter().enumerate() {
        // What is left is shared by those that are left: a first one that says nothing does not use up all of it.
        let left = deadline.saturating_duration_since(Instant::now()) / (addresses.len() - at) as u32;
        let connected = if left.is_zero() {
            Err(io::ErrorKind::TimedOut.into())
        } else {
            TcpStream::connect_timeout(address, left)
        };
        match connected {
            Ok(stream) => {
                // Small messages are not to wait for acknowledgements.
                stream.set_nodelay(true).map_err(|error| error.to_string())?;
                return Ok(stream);
            }
            Err(error) => {
                let separator = if failures.is_empty() { "" } else { "; " };
                let _ = write!(failures, "{separator}{}", why(*address, &error, left));
            }
        }
    }
    Err(format!("cannot connect to {}: {failures}", escaped(&url.authority)))
}

/// Asks the system in a thread of its own, since the question cannot be given a time.
fn resolve(url: &Url, timeout: Duration) -> Result<Vec<SocketAddr>, String> {
    let (sender, answer) = mpsc::channel();
    let (host, port) = (url.host.clone(), url.port);
    thread::spawn(move || {
        let found = (&*host, port).to_socket_addrs().map(Vec::from_iter);
        // Nobody waits any more when it came too late.
        let _ = sender.send(found);
    });
    let host = escaped(&url.host);
    match answer.recv_timeout(timeout) {
        Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
        Ok(Ok(_)) => Err(format!("the name `{host}` has no address")),
        Ok(Err(error)) => {
            // std has "failed to lookup address information: " in front of what the resolver says.
            let error = error.to_string();
            let said = error.rsplit(": ").next().unwrap_or(&error);
            Err(format!("the name `{host}` cannot be resolved: {}", said.to_lowercase()))
        }
        Err(_) => {
            Err(format!("the name `{host}` was not resolved within {}: is the network up?", words::duration(timeout)))
        }
    }
}

fn why(address: SocketAddr, error: &io::Error, waited: Duration) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("nobody listens on {address}"),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            format!(
                "{address} did not answer within {} (a firewall drops it, or the server accepts nobody)",
                words::duration(waited)
            )
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => format!("there is no way to {address}"),
        _ => format!("{address}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn a_name_that_is_none_is_said_to_be() {
        let error = dial(&url("ws://no-such-host.invalid/"), PATIENCE).unwrap_err();
        assert!(error.contains("no-such-host.invalid") && error.contains("resolve"), "{error}");
    }

    #[test]
    fn whoever_listens_nowhere_is_said_to() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        dial(&url(&format!("ws://{address}/")), PATIENCE).unwrap();
        drop(listener);
        let error = dial(&url(&format!("ws://{address}/")), PATIENCE).unwrap_err();
        assert!(error.contains(&format!("nobody listens on {address}")), "{error}");
    }
}
