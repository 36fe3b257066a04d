//! What is so busy that it should go past the proxy.

use crate::control::message::Protocol;

/// Of which protocols there was something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Busy {
    tcp: bool,
    udp: bool,
}

impl Busy {
    /// Takes note of it. Whether that is news.
    pub fn add(&mut self, protocol: Protocol) -> bool {
        let known = match protocol {
            Protocol::Tcp => &mut self.tcp,
            Protocol::Udp => &mut self.udp,
        };
        !std::mem::replace(known, true)
    }

    /// What there is that was not there before.
    pub fn besides(self, before: Self) -> impl Iterator<Item = Protocol> {
        let tcp = (self.tcp && !before.tcp).then_some(Protocol::Tcp);
        let udp = (self.udp && !before.udp).then_some(Protocol::Udp);
        [tcp, udp].into_iter().flatten()
    }
}
