//! Servers that do not do what they should.

use socket2::SockRef;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;
use throng::ws::accept_value;

/// A server that treats every connection in one way; it ends with the test's process.
#[derive(Debug)]
pub(crate) struct Strange {
    pub(crate) url: String,
}

impl Strange {
    /// `treat` gets each connection on a thread of its own.
    pub(crate) fn new(treat: fn(TcpStream)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}/", listener.local_addr().unwrap());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || treat(stream));
            }
        });
        Self { url }
    }

    /// Nobody listens there any more.
    pub(crate) fn gone() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { url: format!("ws://{}/", listener.local_addr().unwrap()) }
    }

    /// It listens, with room for hardly anyone, and takes nobody.
    pub(crate) fn full() -> (Self, socket2::Socket) {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        socket.listen(1).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        (Self { url: format!("ws://{address}/") }, socket)
    }
}

/// The request's head.
pub(crate) fn read_head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// Answers whatever is asked with the same text.
pub(crate) fn answer(mut stream: TcpStream, text: &str) {
    read_head(&mut stream);
    let _ = stream.write_all(text.as_bytes());
    linger(&mut stream);
}

/// A proper handshake.
pub(crate) fn upgrade(stream: &mut TcpStream) {
    let head = read_head(stream);
    upgrade_to(stream, &head);
}

/// The same, once the head has been read. The subprotocol is what was offered.
pub(crate) fn upgrade_to(stream: &mut TcpStream, head: &str) {
    let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
    let accept = String::from_utf8(accept_value(key.as_bytes()).to_vec()).unwrap();
    let subprotocol = head.lines().find(|line| line.starts_with("Sec-WebSocket-Protocol: "));
    let subprotocol = subprotocol.map_or(String::new(), |line| format!("{line}\r\n"));
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{subprotocol}Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    // In two pieces: the head has to be put together.
    let (first, second) = answer.as_bytes().split_at(30);
    let _ = stream.write_all(first);
    thread::sleep(Duration::from_millis(5));
    let _ = stream.write_all(second);
}

/// Reads until the peer ends.
pub(crate) fn linger(stream: &mut TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new());
}

/// Ends with a reset.
pub(crate) fn reset(stream: TcpStream) {
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    drop(stream);
}
