//! Calls: clients of Centrifugo's SDKs ask, and are answered at once or later; what they send is said back.
//!
//!     cargo run --release --example rpc
//!
//! With npm's `centrifuge`, at ws://127.0.0.1:9003/connection/websocket:
//!
//!     await client.rpc('whoami', {})                  {data: 'client ... of user ""'}
//!     await client.rpc('slowly', {n: 1})              {data: {n: 1}}, a second later
//!     client.on('message', ({data}) => ...)           'hello', back again
//!     client.send('hello')

use std::time::Duration;
use throng::{
    Centrifugo, Connection, Decision, Handle, JsonError, Message, Mounted, Publication, Request, Response, Rpc,
    RpcAnswer, RpcError, Server, Service,
};

/// What is not Centrifugo's.
struct Nothing;

impl Service for Nothing {
    type State = ();

    fn open(&mut self, _: &Request<'_>) -> Decision<()> {
        Response::refuse(404, "connect to /connection/websocket").into()
    }

    fn message(&mut self, _: &mut Connection<'_, ()>, _: Message<'_>) {}
}

/// The data of a client, to be given back: JSON as JSON.
fn same(data: Message<'_>) -> Result<Publication, JsonError> {
    match data {
        Message::Text(json) => Publication::json(json),
        bytes => Ok(bytes.into()),
    }
}

fn answer(rpc: &Rpc<'_>, handle: &Handle<Mounted<()>>) -> RpcAnswer {
    match rpc.method() {
        "whoami" => {
            let (client, user) = (rpc.caller().client(), rpc.caller().user());
            Publication::from(format!("client {client} of user {user:?}")).into()
        }
        // Where something takes its time, nobody else on this worker waits for it.
        "slowly" => {
            let (handle, token) = (handle.clone(), rpc.token());
            let data = same(rpc.data()).map_err(|error| RpcError::new(400, error.to_string()));
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_secs(1));
                // Whoever has left meanwhile needs no answer.
                let _ = handle.answer_rpc(token, data);
            });
            RpcAnswer::Later(token)
        }
        _ => RpcError::no_such_method().into(),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9003".into());
    let server = Server::new().listen(address.parse()?).start(|seat| {
        let (handle, said) = (seat.handle().clone(), seat.handle().clone());
        Centrifugo::new(Nothing).on_rpc(move |rpc| answer(rpc, &handle)).on_send(move |caller, data| {
            let _ = same(data).map(|data| said.say(caller.id(), data));
        })
    })?;
    println!("listening on {}", server.addresses()[0]);
    server.run_until_signal(Duration::from_secs(1))?;
    Ok(())
}
