//! Which clients may come in.

use super::PrefixSet;
use std::net::IpAddr;

/// An allow and a deny list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccessList {
    /// If it is empty, everybody is allowed.
    allow: PrefixSet,
    deny: PrefixSet,
}

impl AccessList {
    /// An empty `allow` allows everybody; what is in `deny` is refused even if it is in `allow` too.
    #[must_use]
    pub fn new(allow: PrefixSet, deny: PrefixSet) -> Self {
        Self { allow, deny }
    }

    /// Whether a client with this address may come in: O(log n) in the number of prefixes.
    #[must_use]
    pub fn admits(&self, client: IpAddr) -> bool {
        (self.allow.is_empty() || self.allow.contains(client)) && !self.deny.contains(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipnet::IpNet;

    fn list(allow: &[&str], deny: &[&str]) -> AccessList {
        let [allow, deny] = [allow, deny].map(|all| all.iter().map(|one| one.parse::<IpNet>().unwrap()).collect());
        AccessList::new(allow, deny)
    }

    #[test]
    fn deny_wins_and_an_empty_allow_list_allows_all() {
        let admits = |list: &AccessList, client: &str| list.admits(client.parse().unwrap());
        assert!(admits(&list(&[], &[]), "192.0.2.1"));
        let some = list(&["192.0.2.0/24", "2001:db8::/32"], &["192.0.2.128/25", "2001:db8:1::/48"]);
        for (client, expected) in [
            ("192.0.2.1", true),
            ("::ffff:192.0.2.1", true),
            ("192.0.2.128", false),
            ("192.0.3.1", false),
            ("2001:db8::1", true),
            ("2001:db8:1::1", false),
            ("2001:db9::1", false),
        ] {
            assert_eq!(admits(&some, client), expected, "{client}");
        }
        let all_but_one = list(&[], &["192.0.2.1/32"]);
        assert!(!admits(&all_but_one, "192.0.2.1") && admits(&all_but_one, "192.0.2.2"));
    }
}
