//! A server within the test, for Centrifugo's clients alone.
//!
//! Not part of `support`, which knows nothing of the library: `#[path = "support/site.rs"] mod site;`.

use std::net::SocketAddr;
use throng::{Centrifugo, Connection, Decision, Handle, Message, Mounted, Request, Response, Running, Server, Service};

/// The service beside the sessions: it has no connections.
#[derive(Debug)]
pub(crate) struct Nothing;

impl Service for Nothing {
    type State = ();

    fn open(&mut self, _: &Request<'_>) -> Decision<()> {
        Response::refuse(404, "connect to /connection/websocket").into()
    }

    fn message(&mut self, _: &mut Connection<'_, ()>, _: Message<'_>) {}
}

/// A running server, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Site {
    running: Option<Running<Mounted<()>>>,
    pub(crate) handle: Handle<Mounted<()>>,
    pub(crate) address: SocketAddr,
}

impl Site {
    /// On a free port.
    pub(crate) fn run(server: Server, service: impl Fn() -> Centrifugo<Nothing> + Send + Sync + 'static) -> Self {
        let server = server.listen("127.0.0.1:0".parse().expect("an address"));
        let running = server.start(move |_| service()).expect("it starts");
        let (handle, address) = (running.handle(), running.addresses()[0]);
        Self { running: Some(running), handle, address }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.handle.abort();
        if let Some(running) = self.running.take() {
            running.wait().expect("it ends");
        }
    }
}
