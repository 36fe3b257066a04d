//! A published port on the command line.

use crate::model::{Protocol, PublishedDocument};
use std::str::FromStr;

/// The value of `--publish`: `HOST:TARGET` or `HOST:TARGET/PROTO`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Publish(pub(super) PublishedDocument);

impl FromStr for Publish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (ports, protocol) = match text.split_once('/') {
            None => (text, Protocol::Tcp),
            Some((ports, "tcp")) => (ports, Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some((_, other)) => return Err(format!("{other:?} is neither `tcp` nor `udp`")),
        };
        let (port, target) = ports.split_once(':').ok_or("write HOST:TARGET/PROTO, such as 8080:80/tcp")?;
        Ok(Self(PublishedDocument { port: number(port)?, target: number(target)?, protocol }))
    }
}

fn number(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("{text:?} is not a port from 1 to 65535")),
        Ok(number) => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read() {
        let read = |text: &str| text.parse::<Publish>().map(|Publish(port)| (port.port, port.target, port.protocol));
        assert_eq!(read("8080:80"), Ok((8080, 80, Protocol::Tcp)));
        assert_eq!(read("8080:80/tcp"), Ok((8080, 80, Protocol::Tcp)));
        assert_eq!(read("53:5353/udp"), Ok((53, 5353, Protocol::Udp)));
        for (wrong, reason) in [
            ("8080", "HOST:TARGET/PROTO"),
            ("0:80", "\"0\" is not a port"),
            ("8080:65536", "is not a port"),
            (":80", "is not a port"),
            ("1:2:3", "is not a port"),
            ("8080:80/", "\"\" is neither"),
            ("8080:80/TCP", "is neither"),
        ] {
            assert!(read(wrong).unwrap_err().contains(reason), "{wrong}");
        }
    }
}
