//! tokio-tungstenite, as its examples have it: a task for each connection, on one thread; what is broadcast goes through
//! tokio's broadcast channel, encoded by each task.
//!
//!     tungstenite PORT HEARTBEAT_SECONDS

use futures_util::{SinkExt, StreamExt};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::{Bytes, Message};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u16>().expect("a number"));
    let (port, heartbeat) = (arguments.next().expect("a port"), arguments.next().unwrap_or(0));
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on {}", listener.local_addr()?);
    let (news, _) = broadcast::channel(1024);
    loop {
        let (stream, _) = listener.accept().await?;
        let news = news.clone();
        tokio::spawn(async move {
            let _ = serve(stream, news, heartbeat).await;
        });
    }
}

async fn serve(
    stream: TcpStream,
    news: broadcast::Sender<Message>,
    heartbeat: u16,
) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    stream.set_nodelay(true)?;
    let mut path = String::new();
    #[expect(clippy::result_large_err, reason = "the library's own")]
    let remember = |request: &Request, response: Response| {
        request.uri().path().clone_into(&mut path);
        Ok(response)
    };
    let mut socket = accept_hdr_async(stream, remember).await?;
    match &*path {
        "/echo" => {
            while let Some(message) = socket.next().await {
                let message = message?;
                if message.is_text() || message.is_binary() {
                    socket.send(message).await?;
                }
            }
        }
        "/pub" => {
            while let Some(message) = socket.next().await {
                let message = message?;
                if message.is_text() || message.is_binary() {
                    let _ = news.send(message);
                }
            }
        }
        _ => {
            let mut news = news.subscribe();
            let every = Duration::from_secs(if heartbeat == 0 { u64::from(u32::MAX) } else { heartbeat.into() });
            let mut beat = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
            loop {
                tokio::select! {
                    said = socket.next() => match said {
                        Some(message) => drop(message?),
                        None => break,
                    },
                    message = news.recv() => match message {
                        Ok(message) => socket.send(message).await?,
                        Err(RecvError::Lagged(_)) => {}
                        Err(RecvError::Closed) => break,
                    },
                    _ = beat.tick() => socket.send(Message::Ping(Bytes::new())).await?,
                }
            }
        }
    }
    Ok(())
}
