//! fastwebsockets behind hyper, as its examples have it: a task for each connection, on one thread; subscribers are split, so
//! that reading does not wait for what is broadcast.
//!
//!     fastwebsockets PORT HEARTBEAT_SECONDS

use fastwebsockets::{FragmentCollector, Frame, OpCode, Payload, WebSocketError, upgrade};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::broadcast::{self, error::RecvError};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type News = broadcast::Sender<Bytes>;

fn main() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(tokio::task::LocalSet::new().run_until(listen()))
}

async fn listen() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u16>().expect("a number"));
    let (port, heartbeat) = (arguments.next().expect("a port"), arguments.next().unwrap_or(0));
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on {}", listener.local_addr()?);
    let (news, _) = broadcast::channel(1024);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let news: News = news.clone();
        tokio::task::spawn_local(async move {
            let service = service_fn(move |request| switch(request, news.clone(), heartbeat));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
        });
    }
}

async fn switch(
    mut request: Request<Incoming>,
    news: News,
    heartbeat: u16,
) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let (response, socket) = upgrade::upgrade(&mut request)?;
    let path = request.uri().path().to_owned();
    tokio::task::spawn_local(async move {
        let _ = match &*path {
            "/echo" => echo(socket).await,
            "/pub" => publish(socket, news).await,
            _ => subscribe(socket, news, heartbeat).await,
        };
    });
    Ok(response)
}

async fn echo(socket: upgrade::UpgradeFut) -> Result<(), WebSocketError> {
    let mut socket = FragmentCollector::new(socket.await?);
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => socket.write_frame(frame).await?,
            _ => {}
        }
    }
}

async fn publish(socket: upgrade::UpgradeFut, news: News) -> Result<(), WebSocketError> {
    let mut socket = FragmentCollector::new(socket.await?);
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => drop(news.send(Bytes::copy_from_slice(&frame.payload))),
            _ => {}
        }
    }
}

async fn subscribe(socket: upgrade::UpgradeFut, news: News, heartbeat: u16) -> Result<(), WebSocketError> {
    let (mut reader, mut writer) = socket.await?.split(tokio::io::split);
    let mut news = news.subscribe();
    let (answers, mut answered) = tokio::sync::mpsc::unbounded_channel::<(OpCode, Vec<u8>)>();
    // Pongs and the answer to a Close go through the task that writes.
    let reading = tokio::task::spawn_local(async move {
        loop {
            let mut answer = |frame: Frame<'_>| {
                let sent = answers.send((frame.opcode, frame.payload.to_vec()));
                async move { sent.map_err(|_| WebSocketError::ConnectionClosed) }
            };
            match reader.read_frame(&mut answer).await {
                Ok(frame) if frame.opcode != OpCode::Close => {}
                _ => return,
            }
        }
    });
    let every = Duration::from_secs(if heartbeat == 0 { u64::from(u32::MAX) } else { heartbeat.into() });
    let mut beat = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
    loop {
        let frame = tokio::select! {
            message = news.recv() => match message {
                Ok(message) => {
                    writer.write_frame(Frame::text(Payload::Borrowed(&message))).await?;
                    continue;
                }
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => break,
            },
            answer = answered.recv() => match answer {
                Some((opcode, payload)) => Frame::new(true, opcode, None, Payload::Owned(payload)),
                None => break,
            },
            _ = beat.tick() => Frame::new(true, OpCode::Ping, None, Payload::Borrowed(&[])),
        };
        writer.write_frame(frame).await?;
    }
    reading.abort();
    Ok(())
}
