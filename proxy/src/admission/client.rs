//! Who counts as one client.

use std::net::IpAddr;

/// A client as limits count it: an IPv4 address, or the /64 of an IPv6 address. A host chooses the lower 64 bits itself
/// (RFC 8981) and so could be as many clients as it likes. An IPv4-mapped IPv6 address is the IPv4 address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Client {
    upper: u64,
    /// 0 for IPv6, never for IPv4: no two clients are the same.
    lower: u64,
}

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self { upper: 0, lower: 0xffff_0000_0000 | u64::from(address.to_bits()) },
            IpAddr::V6(address) => Self { upper: (address.to_bits() >> 64) as u64, lower: 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_the_same_client() {
        let same = |one: &str, two: &str| {
            let [one, two] = [one, two].map(|text| Client::from(text.parse::<IpAddr>().unwrap()));
            one == two
        };
        assert!(same("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
        assert!(!same("0.0.0.0", "::1"));
    }
}
