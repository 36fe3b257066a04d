//! The hash that lays clients and backends out.
//!
//! Where a client goes must be the same in every proxy, after a restart and in the next version. So this hash is a part of
//! what the algorithms promise and never changes: an address is taken as IPv6 (IPv4 as `::ffff:a.b.c.d`, RFC 4291,
//! section 2.5.5.2), and its two halves in network order are mixed into a number that says what the hash is for. It is no
//! secret: who can choose among many source addresses can choose among backends.

use std::net::IpAddr;

/// What a hash is for. Hashes of one address for different purposes have nothing to do with each other.
#[derive(Debug, Clone, Copy)]
pub enum Purpose {
    /// Where a client stands.
    Client = 1,
    /// A backend's part of a draw for a client.
    Draw = 2,
    /// Where a backend's permutation of a Maglev table starts.
    Offset = 3,
    /// The step of that permutation.
    Skip = 4,
}

/// The hash of an address.
#[must_use]
pub fn hash(purpose: Purpose, address: IpAddr) -> u64 {
    let bits = match address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
    .to_bits();
    let (high, low) = ((bits >> 64) as u64, bits as u64);
    mix(mix(mix(purpose as u64) ^ high) ^ low)
}

/// The first output of SplitMix64 with that seed (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators",
/// OOPSLA 2014, with the constants of the reference implementation). No two numbers give the same.
#[must_use]
pub fn mix(seed: u64) -> u64 {
    let mut bits = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Published outputs of the reference implementation of SplitMix64.
    #[test]
    fn mixing_is_splitmix64() {
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(1_234_567), 6_457_827_717_110_365_317);
    }

    /// If this fails, clients change their backends at an upgrade. The expected values come from a second implementation of
    /// the definition, in another language.
    #[test]
    fn hashes_are_the_same_for_ever() {
        let of = |purpose| ["10.0.0.1", "192.0.2.7", "2001:db8::1"].map(|text| hash(purpose, text.parse().unwrap()));
        let client = [0xa3dd_1564_7865_2842, 0xf893_84a3_998b_d60a, 0x5601_dbdc_6b4d_7b7d];
        let draw = [0xabd5_7909_91df_9998, 0xd570_1241_e8ad_b960, 0x27e5_718b_777f_c656];
        let offset = [0x3989_7cb9_e43c_2457, 0x75bf_d697_1b01_4cbb, 0x2f5c_19f1_836a_4c57];
        let skip = [0xe94f_d498_9306_a4da, 0x28f3_4238_a126_cd54, 0x8501_d71c_22c4_9571];
        assert_eq!(of(Purpose::Client), client);
        assert_eq!(of(Purpose::Draw), draw);
        assert_eq!(of(Purpose::Offset), offset);
        assert_eq!(of(Purpose::Skip), skip);
    }

    #[test]
    fn an_address_is_the_same_in_both_families() {
        let [v4, mapped] = ["192.0.2.7", "::ffff:192.0.2.7"].map(|text| text.parse().unwrap());
        assert_eq!(hash(Purpose::Client, v4), hash(Purpose::Client, mapped));
    }
}
