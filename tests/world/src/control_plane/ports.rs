//! Loopback ports that stay ours until the control plane is gone.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Result, bail};

/// Below the range from which the kernel takes the ports of outgoing connections (32768 and up on Linux): a port from
/// there can be gone between the moment it was found free and the moment its server binds it.
const FIRST: u16 = 20_000;
const BLOCK: u16 = 10;
const BLOCKS: u16 = 1_000;

/// Ten neighbouring ports. The first is held open as the sign that the others are taken, so any number of test
/// processes can choose at once, and the kernel gives the block back whatever happens to the process.
#[derive(Debug)]
pub(super) struct PortBlock {
    sign: TcpListener,
    base: u16,
}

impl PortBlock {
    /// Takes a block that nobody uses, starting the search at a random place.
    pub(super) fn take() -> Result<PortBlock> {
        let start = RandomState::new().hash_one("port block") % u64::from(BLOCKS);
        let start = u16::try_from(start).unwrap_or_default();
        for step in 0..BLOCKS {
            let base = FIRST + (start + step) % BLOCKS * BLOCK;
            let Ok(sign) = listen(base) else { continue };
            if (base + 1..base + BLOCK).all(|port| listen(port).is_ok()) {
                return Ok(PortBlock { sign, base });
            }
        }
        bail!("no ten free loopback ports between {FIRST} and {}", FIRST + BLOCK * BLOCKS)
    }

    /// The n-th port for a server, 1 to 9.
    pub(super) fn port(&self, n: u16) -> u16 {
        assert!((1..BLOCK).contains(&n), "a block has ports 1 to 9, and 0 is its sign");
        debug_assert!(self.sign.local_addr().is_ok());
        self.base + n
    }
}

fn listen(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_are_held_never_overlap() {
        let blocks: Vec<PortBlock> = (0..20).map(|_| PortBlock::take().unwrap()).collect();
        let mut bases: Vec<u16> = blocks.iter().map(|block| block.base).collect();
        bases.sort_unstable();
        bases.dedup();
        assert_eq!(bases.len(), blocks.len());
        assert!(listen(blocks[0].port(9)).is_ok(), "the servers' ports are free for the servers");
    }
}
