//! Who is on the other side: through Unix-domain sockets, and behind proxies that speak the PROXY protocol or name their clients
//! in a header, as the real binary tells it.
#![cfg(feature = "cli")] // There is no binary without it.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::*;

/// Sources on loopback: one that is trusted, and one that is not.
const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
const LINE: &str = "PROXY TCP4 192.0.2.7 198.51.100.2 4242 80\r\n";

/// A request that is refused, and logged with whom it came from.
const REFUSED: &str = "GET /topics/t?since=x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";

impl Throng {
    /// The answer to a request from that address.
    #[track_caller]
    fn ask(&self, from: IpAddr, request: &str) -> (u16, String) {
        let mut peer = Raw::connect_from(from, self.addrs[0]);
        peer.send(request);
        let answer = peer.response();
        (answer.status, String::from_utf8(answer.body).unwrap())
    }

    #[track_caller]
    /// A line with all of these, which `...` stands between.
    fn until_logged(&self, line: &str) {
        let is_it = |logged: &String| line.split(" ... ").all(|part| logged.contains(part));
        eventually(line, PATIENCE, || self.log().iter().any(is_it));
    }
}

/// A folder of one test's own.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("throng-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("throng.sock")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// A server on a Unix-domain socket, and on an address to be asked at.
fn on_socket(path: &Path, flags: &str) -> Throng {
    let server = Throng::start(&format!("--listen 127.0.0.1:0 {flags} --listen=unix:{}", path.display()));
    eventually("the socket is there", PATIENCE, || is_socket(path));
    server
}

fn upgraded(path: &Path) -> UnixStream {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&upgrade().bytes()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
    stream
}

#[test]
fn a_unix_socket_serves_without_addresses_and_is_removed_at_the_end() {
    let folder = Folder::new("serves");
    let path = folder.socket();
    let mut server = on_socket(&path, "--listen-mode 0600 --log-level debug --drain 0.2");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(format!("{REFUSED}\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    server.until_logged("refused peer=unix: ... status=400 reason=bad_parameter");
    // Whoever comes through it comes from anywhere.
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(&plain("/metrics").with("Connection: close").bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    drop(upgraded(&path));
    server.until_logged(" peer=unix: ... reason=peer_");
    server.signal("TERM");
    assert_eq!(server.exit(PATIENCE).code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn all_workers_share_a_unix_socket_and_hold_about_as_much() {
    let folder = Folder::new("share");
    let server = on_socket(&folder.socket(), "--workers 4");
    let clients: Vec<_> = (0..400).map(|_| upgraded(&folder.socket())).collect();
    // What each worker's table holds is 100 of them, of which a worker may be 16 ahead when it looks, and takes 16 then; and
    // a few descriptors of its own.
    let each = server.descriptors();
    let workers = &each[each.len() - 4..];
    assert!(workers.iter().all(|count| (70..=160).contains(count)), "{each:?}");
    drop(clients);
}

#[test]
fn workers_with_one_table_share_a_unix_socket_too() {
    let folder = Folder::new("table");
    let mut server = on_socket(&folder.socket(), "--workers 2 --shared-fds --drain 0.2");
    let clients: Vec<_> = (0..50).map(|_| upgraded(&folder.socket())).collect();
    drop(clients);
    server.signal("TERM");
    assert_eq!(server.exit(PATIENCE).code(), Some(0));
    assert!(!folder.socket().exists());
}

#[test]
fn the_socket_of_a_server_that_was_killed_is_replaced_and_a_running_ones_is_not() {
    let folder = Folder::new("killed");
    let path = folder.socket();
    drop(on_socket(&path, "")); // killed
    assert!(is_socket(&path));
    let _server = on_socket(&path, "");
    let (status, said) = run_to_end(&format!("serve --listen unix:{}", path.display()));
    assert_eq!(status, Some(1));
    assert!(said.contains("another process does; stop it, or choose another path"), "{said}");
    drop(upgraded(&path));
}

#[test]
fn a_server_that_cannot_start_leaves_no_socket() {
    let folder = Folder::new("fails");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (status, _) = run_to_end(&format!("serve --listen {address} --listen unix:{}", folder.socket().display()));
    assert_eq!((status, folder.socket().exists()), (Some(1), false));
}

#[test]
fn nobody_but_a_trusted_proxy_says_who_a_client_is() {
    for flags in ["--proxy-header X-Forwarded-For", "--proxy-header Forwarded", "--proxy-protocol"] {
        let server = Throng::start(&format!("--proxy-trusted 127.0.0.2 {flags}"));
        let named = "X-Forwarded-For: 192.0.2.7\r\nForwarded: for=192.0.2.7\r\n";
        assert_eq!(server.ask(CLIENT, &format!("{REFUSED}{named}\r\n")).0, 400);
        server.until_logged("refused peer=127.0.0.3:");
        let (status, body) = server.ask(CLIENT, &format!("{LINE}{REFUSED}\r\n"));
        assert_eq!(status, 400);
        assert!(body.contains("bad_request_line"), "{body}");
        assert!(!server.log().iter().any(|line| line.contains("192.0.2.7")), "{:?}", server.log());
    }
}

#[test]
fn a_trusted_proxy_names_its_clients_by_the_proxy_protocol() {
    let server = Throng::start("--proxy-trusted 127.0.0.2 --proxy-protocol");
    assert_eq!(server.ask(PROXY, &format!("{LINE}{REFUSED}\r\n")).0, 400);
    server.until_logged("refused peer=192.0.2.7:4242 ... status=400 reason=bad_parameter");
    // Version 2, a byte at a time.
    let mut peer = Raw::connect_from(PROXY, server.addrs[0]);
    let header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C\xC0\0\x02\x08\xC6\x33\x64\x02\x10\x92\0\x50";
    peer.send_cut(&[&header[..], REFUSED.as_bytes(), b"\r\n"].concat(), Cut::ByteByByte);
    assert_eq!(peer.response().status, 400);
    server.until_logged("refused peer=192.0.2.8:4242 ... status=400 reason=bad_parameter");
    // A check of the proxy's own.
    let local = "PROXY UNKNOWN\r\nGET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(server.ask(PROXY, local), (200, "ready\n".to_owned()));
}

#[test]
fn a_trusted_proxy_that_says_nothing_is_refused() {
    let server = Throng::start("--proxy-trusted 127.0.0.2 --proxy-protocol --head-timeout 0.5");
    let (status, body) = server.ask(PROXY, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(status, 400);
    assert!(body.contains("proxy_expected"), "{body}");
    for said in ["", "PROXY TCP4 192.0.2.7", LINE] {
        let mut silent = Raw::connect_from(PROXY, server.addrs[0]);
        silent.send(said);
        assert_eq!(silent.response().status, 408, "{said:?}");
    }
}

#[test]
fn a_trusted_proxy_names_its_clients_by_a_header() {
    for (name, value) in
        [("X-Forwarded-For", "10.9.9.9, 192.0.2.7"), ("Forwarded", "for=10.9.9.9, for=192.0.2.7;proto=https")]
    {
        let server = Throng::start(&format!("--proxy-trusted 127.0.0.2 --proxy-header {name}"));
        assert_eq!(server.ask(PROXY, &format!("{REFUSED}{name}: {value}\r\n\r\n")).0, 400);
        server.until_logged("refused peer=192.0.2.7 ... status=400 reason=bad_parameter");
        let (_, body) = server.ask(PROXY, &format!("{REFUSED}{name}: for=\r\n\r\n"));
        assert!(body.contains("forwarded_invalid"), "{body}");
    }
}

/// Without a restart, and for connections that are there already.
#[test]
fn who_is_trusted_can_be_changed_by_a_reload() {
    let folder = Folder::new("reload");
    let file = folder.0.join("throng.toml");
    let trust = |network: &str| {
        fs::write(&file, format!("[throng.proxy]\ntrusted = [\"{network}\"]\nheader = \"X-Forwarded-For\"\n")).unwrap();
    };
    trust("127.0.0.9");
    let server = Throng::start(&format!("--config {}", file.display()));
    let request = "GET /topics/t?since=x HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n";
    let mut peer = Raw::connect_from(PROXY, server.addrs[0]);
    peer.send(request);
    assert_eq!(peer.answer().status, 400);
    server.until_logged("refused peer=127.0.0.2:");
    trust("127.0.0.2");
    server.signal("HUP");
    server.until_logged("throng.proxy.trusted");
    peer.send(request);
    assert_eq!(peer.answer().status, 400);
    server.until_logged("refused peer=192.0.2.7 ... status=400 reason=bad_parameter");
}

/// The limit is the client's, not the proxy's, over all workers.
#[test]
fn clients_behind_a_proxy_have_a_limit_each() {
    let server =
        Throng::start("--workers 4 --proxy-trusted 127.0.0.2 --proxy-protocol --max-connections-per-address 2");
    let come = |client: &str| {
        let mut peer = Raw::connect_from(PROXY, server.addrs[0]);
        peer.send(format!("PROXY TCP4 {client} 198.51.100.2 4242 80\r\n"));
        peer.send(upgrade().bytes());
        let status = peer.head().status;
        (peer, status)
    };
    let first = come("192.0.2.1");
    let _second = come("192.0.2.1");
    assert_eq!((first.1, come("192.0.2.1").1, come("192.0.2.2").1), (101, 429, 101));
    drop(first);
    eventually("its place is free again", PATIENCE, || come("192.0.2.1").1 == 101);
}

/// The binary, that must refuse what cannot be before it does anything.
#[test]
fn trust_that_means_nothing_is_refused_with_what_to_do() {
    for (flags, hint) in [
        ("--proxy-trusted 10.0.0.0/8", "by the PROXY protocol, or by a header"),
        ("--proxy-protocol", "no proxy is trusted"),
        ("--proxy-trusted 10.0.0.1/8 --proxy-protocol", "such as 10.0.0.0/8"),
        ("--proxy-trusted 10.0.0.0/8 --proxy-header X-Real-IP", "X-Forwarded-For or Forwarded"),
        ("--listen unix:throng.sock", "a whole path"),
        ("--listen-mode 9", "octal"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_throng")).arg("serve").args(flags.split(' ')).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(hint), "{flags}: {said}");
    }
}
