//! Which addresses may be dialed: public ones, and those that the pool names in `allowedRanges`.
//!
//! A partner writes its own DNS records. Without this check they could point us at machines behind our own
//! walls: the loopback interface, the private network, the metadata service of a cloud.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// IPv4 blocks that are no public unicast addresses: the registry of RFC 6890 §2.2.2 as it was later updated,
/// with multicast (RFC 5771).
const SPECIAL_V4: [Ipv4Net; 15] = [
    // "This network", with the unspecified address.
    Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 8),
    // Private use.
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
    // Shared address space behind carrier-grade NAT (RFC 6598).
    Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10),
    // Loopback.
    Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8),
    // Link-local.
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16),
    // Private use.
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    // IETF protocol assignments.
    Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 0, 0), 24),
    // Documentation.
    Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 0), 24),
    // 6to4 relays, deprecated (RFC 7526).
    Ipv4Net::new_assert(Ipv4Addr::new(192, 88, 99, 0), 24),
    // Private use.
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
    // Benchmarks.
    Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15),
    // Documentation.
    Ipv4Net::new_assert(Ipv4Addr::new(198, 51, 100, 0), 24),
    // Documentation.
    Ipv4Net::new_assert(Ipv4Addr::new(203, 0, 113, 0), 24),
    // Multicast.
    Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4),
    // Reserved, with the limited broadcast.
    Ipv4Net::new_assert(Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// All IPv6 global unicast addresses that are given out (RFC 4291 §2.4, and the IANA registry of it). Loopback,
/// unspecified, unique-local, link-local and multicast addresses lie outside.
const GLOBAL_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// Blocks inside [`GLOBAL_V6`] that are not public (RFC 6890 §2.2.3, updated).
const SPECIAL_V6: [Ipv6Net; 4] = [
    // IETF protocol assignments, with Teredo and ORCHID.
    Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    // Documentation.
    Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    // 6to4: it carries any IPv4 address inside.
    Ipv6Net::new_assert(Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    // Documentation (RFC 9637).
    Ipv6Net::new_assert(Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// Addresses of IPv4 machines behind NAT64; the last 32 bits are the IPv4 address (RFC 6052 §2.1).
const NAT64: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

/// Tells whether `ip` may be dialed, given the pool's `allowedRanges`.
pub fn may_dial(ip: IpAddr, allowed: &[IpNet]) -> bool {
    is_public(ip) || lies_in(ip, allowed)
}

/// Tells whether `ip` lies in one of `ranges`; an IPv4-mapped IPv6 address counts as the IPv4 address that it is.
pub fn lies_in(ip: IpAddr, ranges: &[IpNet]) -> bool {
    let ip = ip.to_canonical();
    ranges.iter().any(|range| range.contains(&ip))
}

/// Tells whether `ip` is an address of the public Internet.
fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => !SPECIAL_V4.iter().any(|block| block.contains(&ip)),
        IpAddr::V6(ip) if NAT64.contains(&ip) => {
            let [.., a, b, c, d] = ip.octets();
            is_public(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
        }
        IpAddr::V6(ip) => GLOBAL_V6.contains(&ip) && !SPECIAL_V6.iter().any(|block| block.contains(&ip)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_public_addresses_may_be_dialed_without_a_range() {
        let public = [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "192.169.0.1",
            "223.255.255.255",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2001:200::1",
            "2606:4700::1111",
            "2a00:1450::1",
        ];
        for text in public {
            assert!(may_dial(ip(text), &[]), "{text}");
        }
        let special = [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.1.2.3",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "3fff::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ];
        for text in special {
            assert!(!may_dial(ip(text), &[]), "{text}");
        }
    }

    #[test]
    fn a_listed_range_opens_what_lies_in_it_and_nothing_else() {
        let ranges = ["10.1.0.0/16", "fd00:1::/32"].map(|range| range.parse().unwrap());
        for text in ["10.1.2.3", "::ffff:10.1.2.3", "fd00:1::5", "1.1.1.1"] {
            assert!(may_dial(ip(text), &ranges), "{text}");
        }
        for text in ["10.2.0.1", "127.0.0.1", "fd00:2::5", "::1"] {
            assert!(!may_dial(ip(text), &ranges), "{text}");
        }
    }
}
