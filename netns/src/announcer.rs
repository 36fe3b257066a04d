//! Telling the neighbours at once where a new VIP is.
//!
//! A machine that asked for an address before it was there asks again only after a second (`retrans_time_ms`, ip-sysctl), and
//! one that knows it at another place notices after longer still. Both take the word of an announcement: an ARP announcement
//! (RFC 5227, 3) for IPv4, an unsolicited neighbour advertisement (RFC 4861, 7.2.6) for IPv6.

use crate::syscalls::LinkSocket;
use crate::{Links, Result};
use ipnet::IpNet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Announces addresses of one interface.
#[derive(Debug, Clone)]
pub(crate) struct Announcer {
    socket: Arc<LinkSocket>,
    mac: [u8; 6],
}

impl Announcer {
    /// For that interface; `None` if there is none, or none with a hardware address, or the process may not send frames
    /// (`CAP_NET_RAW`): announcements make VIPs reachable sooner, and everything works without them.
    pub(crate) async fn of(links: &Links, interface: &str) -> Result<Option<Self>> {
        let Some(link) = links.link(interface).await? else { return Ok(None) };
        let Some(mac) = link.mac else { return Ok(None) };
        match links.namespace().run(|| LinkSocket::open(link.index))? {
            Ok(socket) => Ok(Some(Self { socket: Arc::new(socket), mac })),
            Err(cause) => {
                tracing::debug!(namespace = links.namespace().label(), %cause, "cannot announce VIPs");
                Ok(None)
            }
        }
    }

    /// Announces the prefix if it is a single address.
    ///
    /// # Errors
    /// If the frame cannot be sent, as when the interface is down.
    pub(crate) fn announce(&self, prefix: IpNet) -> io::Result<()> {
        if prefix.prefix_len() != prefix.max_prefix_len() {
            return Ok(());
        }
        match prefix.addr() {
            IpAddr::V4(address) => self.socket.send(&arp_announcement(self.mac, address)),
            IpAddr::V6(address) => self.socket.send(&advertisement(self.mac, address)),
        }
    }
}

const BROADCAST: [u8; 6] = [0xff; 6];
/// Of the group of all nodes, ff02::1 (RFC 2464, 7).
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ICMPV6: u8 = 58;

/// An Ethernet frame.
fn arp_announcement(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
    // Ethernet and IPv4, the lengths of their addresses, and that it is a request (RFC 826).
    const REQUEST: [u8; 8] = [0, 1, 0x08, 0x00, 6, 4, 0, 1];
    let address = address.octets();
    [&BROADCAST[..], &mac, &ETHERTYPE_ARP, &REQUEST, &mac, &address, &[0; 6], &address].concat()
}

/// An Ethernet frame.
fn advertisement(mac: [u8; 6], address: Ipv6Addr) -> Vec<u8> {
    const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
    const TYPE_AND_CODE: [u8; 2] = [136, 0];
    const OVERRIDE: [u8; 4] = [0x20, 0, 0, 0];
    /// Its type and its length in units of 8 bytes.
    const TARGET_MAC: [u8; 2] = [2, 1];
    /// Shows that no router has passed it on.
    const HOP_LIMIT: u8 = 255;
    let (source, destination) = (address.octets(), ALL_NODES.octets());
    let mut message = [&TYPE_AND_CODE[..], &[0, 0], &OVERRIDE, &source, &TARGET_MAC, &mac].concat();
    let length = [0, message.len() as u8];
    // With the pseudo-header of RFC 8200, 8.1.
    let summed = [&source[..], &destination, &[0, 0], &length, &[0, 0, 0, ICMPV6], &message].concat();
    message[2..4].copy_from_slice(&checksum(&summed).to_be_bytes());
    let header = [&[0x60, 0, 0, 0][..], &length, &[ICMPV6, HOP_LIMIT], &source, &destination].concat();
    [&ALL_NODES_MAC[..], &mac, &ETHERTYPE_IPV6, &header, &message].concat()
}

/// RFC 1071, of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0x42, 10, 0, 0, 2];

    #[test]
    fn an_arp_announcement_names_the_address_twice() {
        let frame = arp_announcement(MAC, Ipv4Addr::new(10, 0, 0, 9));
        assert_eq!(frame.len(), 14 + 28);
        assert_eq!(frame[..14], [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0x42, 10, 0, 0, 2, 8, 6]);
        assert_eq!(frame[22..32], [2, 0x42, 10, 0, 0, 2, 10, 0, 0, 9]);
        assert_eq!(frame[32..], [0, 0, 0, 0, 0, 0, 10, 0, 0, 9]);
    }

    #[test]
    fn an_advertisements_checksum_is_right() {
        let frame = advertisement(MAC, "fd00::1:9".parse().unwrap());
        assert_eq!(frame.len(), 14 + 40 + 32);
        let pseudo_header = [&frame[22..54], &[0, 0, 0, 32, 0, 0, 0, 58], &frame[54..]].concat();
        assert_eq!(checksum(&pseudo_header), 0, "a receiver's sum over everything");
    }
}
