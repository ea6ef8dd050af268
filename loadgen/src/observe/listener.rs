//! Who listens at an address of this machine.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};

/// The state `TCP_LISTEN` in /proc/net/tcp (proc(5)).
const LISTEN: &str = "0A";

/// Processes that hold a listening socket for `target`. Every thread is asked, since each may have a
/// descriptor table of its own. Processes of others cannot be asked and are left out.
pub(crate) fn listening_pids(target: SocketAddr) -> Vec<u32> {
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        if let Ok(table) = File::open(table) {
            inodes.extend(listening_inodes(BufReader::new(table), target));
        }
    }
    if inodes.is_empty() {
        return Vec::new();
    }
    let links: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| holds(*pid, &links)).collect()
}

fn holds(pid: u32, links: &[String]) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.flat_map(|task| fs::read_dir(task.path().join("fd")).into_iter().flatten().flatten()).any(|fd| {
        fs::read_link(fd.path()).is_ok_and(|link| links.iter().any(|wanted| link.as_os_str() == wanted.as_str()))
    })
}

/// Inodes of the listening sockets in a table of /proc/net that would get a connection to `target`. They stand
/// before all others: the rest, which may be millions, is not read.
fn listening_inodes(table: impl BufRead, target: SocketAddr) -> Vec<u64> {
    let mut inodes = Vec::new();
    for line in table.lines().skip(1).map_while(Result::ok) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, local, _, state, _, _, _, _, _, inode, ..] = fields[..] else { continue };
        if state != LISTEN {
            break;
        }
        let Some((address, port)) = local.split_once(':') else { continue };
        let matches = u16::from_str_radix(port, 16) == Ok(target.port())
            && parse_address(address).is_some_and(|ip| ip.is_unspecified() || ip.to_canonical() == target.ip());
        if matches {
            inodes.extend(inode.parse::<u64>());
        }
    }
    inodes
}

/// An address as /proc/net writes it: words of 32 bits, each in the machine's byte order.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let words: Vec<[u8; 4]> = (0..hex.len() / 8)
        .map(|index| u32::from_str_radix(hex.get(index * 8..index * 8 + 8)?, 16).ok().map(u32::to_ne_bytes))
        .collect::<Option<_>>()?;
    match words[..] {
        [v4] => Some(v4.into()),
        [_, _, _, _] => Some(<[u8; 16]>::try_from(words.concat()).ok()?.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_listener_is_found_with_its_process() {
        for address in ["127.0.0.1:0", "0.0.0.0:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let target = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
            assert_eq!(listening_pids(target), [std::process::id()], "{address}");
            drop(listener);
            assert!(listening_pids(target).is_empty());
        }
    }
}
