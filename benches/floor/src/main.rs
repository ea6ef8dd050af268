//! The floor under every WebSocket server: bare epoll loops that do the least the kernel asks for,
//! and one client that measures them and any real server alike.
//!
//! A server's CPU time per handshake or echo means little by itself: it moves with the machine, the
//! kernel and the hour. Its ratio to the loop below it, taken in the same minute, holds still.
//!
//! The loops parse nothing: whatever starts with `G` is answered by a fixed 101, whatever does not
//! by a fixed frame. They are right for the client in [`drive`] and for nobody else. [`serve`] is the
//! one that any client understands, for a place beside other servers under their load.

mod accept;
mod cpu;
mod drive;
mod echo;
mod serve;
mod sweep;
mod sys;
mod wire;

use std::io;
use std::net::SocketAddrV4;
use std::process::ExitCode;
use std::str::FromStr;

const USAGE: &str = "\
floor accept [--defer] [--listen ADDR]       answer the upgrade, hold the connection
floor echo [--edge] [--listen ADDR]          and answer every frame
floor sweep --connections N [--listen ADDR]  and send everyone a frame each second
floor serve [--listen ADDR]                  /echo, /sub, and /pub for any client, without a check
floor drive handshake --target ADDR --pid PID[,PID] [--count 18000] [--inflight 64]
floor drive echo      --target ADDR --pid PID[,PID] [--connections 100] [--count 300000] [--size 64]
floor drive sweep     --target ADDR --pid PID[,PID] [--connections 18000] [--sweeps 10] [--publish]
all drives also take [--path PATH]; with --publish what is swept is posted there once a second";

/// Nothing here outlives this, whatever became of the script that started it.
const LIFETIME_S: u32 = 900;

fn main() -> ExitCode {
    sys::exit_after(LIFETIME_S);
    let mut args = Args(std::env::args().skip(1).collect());
    match run(&mut args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            eprintln!("floor: {error}\n{USAGE}");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &mut Args) -> io::Result<()> {
    match args.word().as_str() {
        "accept" => {
            let (defer, listen) = (args.flag("--defer"), args.listen()?);
            args.finish()?;
            accept::run(listen, defer)
        }
        "echo" => {
            let (edge, listen) = (args.flag("--edge"), args.listen()?);
            args.finish()?;
            echo::run(listen, edge)
        }
        "sweep" => {
            let (connections, listen) = (args.value("--connections", None)?, args.listen()?);
            args.finish()?;
            sweep::run(listen, connections)
        }
        "serve" => {
            let listen = args.listen()?;
            args.finish()?;
            serve::run(listen)
        }
        "drive" => drive::run(args),
        other => Err(invalid(format!("`{other}` is none of these"))),
    }
}

/// Command line words, taken out as they are recognised; what is left over at the end is an error.
struct Args(Vec<String>);

impl Args {
    /// The first word, or an empty one.
    fn word(&mut self) -> String {
        if self.0.is_empty() { String::new() } else { self.0.remove(0) }
    }

    fn flag(&mut self, name: &str) -> bool {
        let at = self.0.iter().position(|word| word == name);
        at.map(|at| self.0.remove(at)).is_some()
    }

    /// The word after `name`, else the default, else an error.
    fn value<T: FromStr>(&mut self, name: &str, default: Option<T>) -> io::Result<T> {
        let Some(at) = self.0.iter().position(|word| word == name) else {
            return default.ok_or_else(|| invalid(format!("{name} is missing")));
        };
        let value = self.0.drain(at..(at + 2).min(self.0.len())).nth(1).unwrap_or_default();
        value.parse().map_err(|_| invalid(format!("{name} `{value}` is not understood")))
    }

    fn listen(&mut self) -> io::Result<SocketAddrV4> {
        self.value("--listen", Some(SocketAddrV4::new([127, 0, 0, 1].into(), 0)))
    }

    fn finish(&self) -> io::Result<()> {
        self.0.first().map_or(Ok(()), |word| Err(invalid(format!("`{word}` is not understood"))))
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}
