//! What managers send: JSON documents, one a line.

use crate::source::docker::facts::ServiceFacts;
use serde::{Deserialize, Serialize};
use std::io;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// The longest line that is sent or read, in bytes: 10,000 services with 1.6 kB each.
pub(super) const MAX_LINE: usize = 16 * 1024 * 1024;

/// The labels that concern ringlb, and so all that is sent of a service's.
pub(super) const LABEL_PREFIX: &str = "ringlb.";

/// A message. A heartbeat is one that says nothing; what a later version says beside the services is passed over.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Message {
    /// All services of the swarm, if this is not a heartbeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) services: Option<Vec<ServiceFacts>>,
}

impl Message {
    /// What workers need of the facts.
    pub(super) fn of(facts: &[ServiceFacts]) -> Self {
        let needed = |facts: &ServiceFacts| {
            let mut needed = facts.clone();
            needed.labels.retain(|name, _| name.starts_with(LABEL_PREFIX));
            needed
        };
        Self { services: Some(facts.iter().map(needed).collect()) }
    }

    /// The message as a line, with its end.
    pub(super) fn line(&self) -> Vec<u8> {
        // Such a document can always be written: its keys are strings.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }

    /// Reads one message; `None` when the other end has said all it had to say.
    pub(super) async fn read(reader: &mut (impl AsyncBufRead + Unpin), max: usize) -> io::Result<Option<Self>> {
        let mut line = Vec::new();
        let limit = u64::try_from(max).unwrap_or(u64::MAX);
        reader.take(limit).read_until(b'\n', &mut line).await?;
        match line.last() {
            None => Ok(None),
            Some(b'\n') => serde_json::from_slice(&line).map(Some).map_err(|error| invalid(&error.to_string())),
            Some(_) if line.len() == max => Err(invalid(&format!("the line is longer than {max} bytes"))),
            Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringlb_proxy::control::message::{Port, Protocol, PublishedPort};
    use std::collections::BTreeMap;

    fn web() -> ServiceFacts {
        let labels = [("ringlb.algorithm", "p2c"), ("owner", "somebody")];
        ServiceFacts {
            id: "id".to_owned(),
            name: "web".to_owned(),
            labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            ports: vec![PublishedPort { published: Port { protocol: Protocol::Udp, number: 53 }, target: 5353 }],
        }
    }

    #[tokio::test]
    async fn what_concerns_ringlb_is_sent_and_nothing_else() {
        let mut bytes = Message::of(&[web()]).line();
        bytes.extend(Message::default().line());
        let mut reader = bytes.as_slice();
        let read = Message::read(&mut reader, MAX_LINE).await.unwrap().unwrap();
        let labels = BTreeMap::from([("ringlb.algorithm".to_owned(), "p2c".to_owned())]);
        assert_eq!(read.services, Some(vec![ServiceFacts { labels, ..web() }]));
        assert_eq!(Message::read(&mut reader, MAX_LINE).await.unwrap(), Some(Message::default()), "a heartbeat");
        assert_eq!(Message::read(&mut reader, MAX_LINE).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_a_later_version_adds_is_passed_over() {
        let mut reader = br#"{"services":[],"more":{"a":1}}
"#
        .as_slice();
        assert_eq!(Message::read(&mut reader, 100).await.unwrap(), Some(Message { services: Some(Vec::new()) }));
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_broken_or_torn_is_an_error() {
        let bytes = Message::of(&[web()]).line();
        let max = bytes.len() - 1;
        let too_long = Message::read(&mut bytes.as_slice(), max).await.unwrap_err();
        assert!(too_long.to_string().contains("longer"), "{too_long}");
        assert!(Message::read(&mut bytes.as_slice(), bytes.len()).await.unwrap().is_some(), "just short enough");
        let torn = Message::read(&mut &bytes[..20], MAX_LINE).await.unwrap_err();
        assert_eq!(torn.kind(), io::ErrorKind::UnexpectedEof);
        let broken = Message::read(&mut b"{\"services\":3}\n".as_slice(), MAX_LINE).await.unwrap_err();
        assert_eq!(broken.kind(), io::ErrorKind::InvalidData);
    }
}
