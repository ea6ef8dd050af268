//! Where connections come from: addresses of this machine, each with a bounded number of connections.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use throng::sys::Address;

/// First of the addresses taken by default for a loopback target: 127.0.0.1 stays free for others.
const LOOPBACK_FIRST: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 1);

/// The addresses that connections may come from.
#[derive(Clone, Debug)]
pub(crate) enum Sources {
    /// Whatever the kernel chooses.
    Any,
    /// Consecutive runs of addresses: the first, and how many.
    Runs(Vec<(IpAddr, u64)>),
}

impl Sources {
    /// What `--source` says: addresses and networks, separated by commas.
    pub(crate) fn parse(list: &str) -> Result<Self, String> {
        let runs = list.split(',').map(|item| parse_run(item.trim())).collect::<Result<_, _>>()?;
        Ok(Self::Runs(runs))
    }

    /// The default for a target: all of 127.0.0.0/8 for one on it, else what the kernel chooses.
    pub(crate) fn for_target(target: SocketAddr) -> Self {
        match target.ip() {
            IpAddr::V4(ip) if ip.is_loopback() => {
                let count = u64::from(Ipv4Addr::new(127, 255, 255, 254).to_bits() - LOOPBACK_FIRST.to_bits());
                Self::Runs(vec![(LOOPBACK_FIRST.into(), count)])
            }
            _ => Self::Any,
        }
    }

    /// How many addresses there are; `None` when the kernel chooses, which is one for a target.
    pub(crate) fn count(&self) -> Option<u64> {
        match self {
            Self::Any => None,
            Self::Runs(runs) => Some(runs.iter().map(|(_, count)| count).sum()),
        }
    }

    /// Whether all of them can reach an address of `target`'s family.
    pub(crate) fn suits(&self, target: SocketAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Runs(runs) => runs.iter().all(|(first, _)| first.is_ipv4() == target.is_ipv4()),
        }
    }

    /// `count` addresses from number `from` on, for one thread. They start over when they run out.
    pub(crate) fn take(&self, from: u64, count: u64) -> Vec<Address> {
        let Self::Runs(runs) = self else { return Vec::new() };
        let total = self.count().unwrap_or(0);
        (from..from + count)
            .filter_map(|index| nth(runs, index % total))
            .map(|ip| Address::from(SocketAddr::new(ip, 0)))
            .collect()
    }
}

fn nth(runs: &[(IpAddr, u64)], mut index: u64) -> Option<IpAddr> {
    for &(first, count) in runs {
        if index < count {
            return Some(match first {
                IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() + index as u32).into(),
                IpAddr::V6(ip) => std::net::Ipv6Addr::from_bits(ip.to_bits() + u128::from(index)).into(),
            });
        }
        index -= count;
    }
    None
}

/// `ADDRESS` or `ADDRESS/LENGTH`. A network gives its usable addresses: without the first and the last,
/// which are the network's own and the broadcast.
fn parse_run(item: &str) -> Result<(IpAddr, u64), String> {
    let wrong = |what: &str| format!("`{item}` {what}: say ADDRESS or ADDRESS/LENGTH");
    let Some((address, length)) = item.split_once('/') else {
        return item.parse().map(|ip| (ip, 1)).map_err(|_| wrong("is not an address"));
    };
    let address: IpAddr = address.parse().map_err(|_| wrong("is not a network"))?;
    let length: u32 = length.parse().map_err(|_| wrong("has no prefix length"))?;
    let host_bits = if address.is_ipv4() { 32_u32 } else { 128 }
        .checked_sub(length)
        .ok_or_else(|| wrong("is too long a prefix"))?;
    let size = 1_u64.checked_shl(host_bits.min(32)).unwrap_or(u64::MAX);
    let (first, count) = match address {
        IpAddr::V4(ip) => {
            let network = (u64::from(ip.to_bits()) & !(size - 1)) as u32;
            let skip = u32::from(host_bits > 1);
            (Ipv4Addr::from_bits(network + skip).into(), size - 2 * u64::from(skip))
        }
        IpAddr::V6(ip) => {
            let network = ip.to_bits() & !(u128::from(size) - 1);
            let skip = u64::from(host_bits > 1);
            (std::net::Ipv6Addr::from_bits(network + u128::from(skip)).into(), size - skip)
        }
    };
    Ok((first, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(sources: &Sources, from: u64, count: u64) -> Vec<IpAddr> {
        let Sources::Runs(runs) = sources else { panic!("{sources:?}") };
        let total = sources.count().unwrap();
        (from..from + count).map(|index| nth(runs, index % total).unwrap()).collect()
    }

    #[test]
    fn a_list_is_walked_in_order_and_from_the_start_again() {
        let sources = Sources::parse("10.0.0.7, 10.1.0.0/30,10.2.0.9").unwrap();
        let expected: Vec<IpAddr> =
            ["10.0.0.7", "10.1.0.1", "10.1.0.2", "10.2.0.9", "10.0.0.7"].map(|ip| ip.parse().unwrap()).into();
        assert_eq!(sources.count(), Some(4));
        assert_eq!(ips(&sources, 0, 5), expected);
    }

    #[test]
    fn loopback_targets_get_all_of_loopback() {
        let sources = Sources::for_target("127.0.0.1:80".parse().unwrap());
        assert_eq!(ips(&sources, 0, 1)[0].to_string(), "127.1.0.1");
        assert_eq!(ips(&sources, 254, 1)[0].to_string(), "127.1.0.255");
        assert!(sources.count().unwrap() > 16_000_000);
        assert!(Sources::for_target("[::1]:80".parse().unwrap()).count().is_none());
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "a", "1.2.3.4/33", "1.2.3.4/x", "1.2.3"] {
            assert!(Sources::parse(bad).is_err(), "{bad}");
        }
    }
}
