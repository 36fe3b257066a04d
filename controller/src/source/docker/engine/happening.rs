//! What the Engine tells by itself.

use bollard::models::{EventActor, EventMessage, EventMessageTypeEnum};
use std::collections::HashMap;

/// Something that happened on this node, or on a manager to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Happening {
    /// A container was made or removed, began or ended, or is to end.
    Container {
        /// Its id.
        id: String,
        /// What happened to it.
        action: ContainerAction,
        /// Its labels, and what the Engine says beside them.
        labels: HashMap<String, String>,
    },
    /// A network was made or removed, or a container was connected to it or disconnected.
    Network {
        /// The network's id.
        id: String,
        /// Its name.
        name: String,
        /// Its driver.
        driver: String,
        /// Whether the network itself is new or gone.
        listing: bool,
    },
    /// A service was made, changed or removed.
    Service,
    /// The node's place in the swarm may be another.
    Node,
}

/// What happened to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContainerAction {
    /// It was made, and does not run yet.
    Made,
    /// It runs from now on.
    Started,
    /// It got this signal, if the Engine says which.
    Signalled(Option<i32>),
    /// It runs no more.
    Ended,
    /// It is gone.
    Removed,
    /// It may be another in some other way: its health, or whether it is paused.
    Changed,
}

impl Happening {
    /// Nothing if it does not matter, such as that a container's health is being checked.
    pub(super) fn of(event: EventMessage) -> Option<Self> {
        let EventActor { id, attributes } = event.actor.unwrap_or_default();
        let (id, mut attributes) = (id.unwrap_or_default(), attributes.unwrap_or_default());
        let action = event.action.unwrap_or_default();
        match event.typ? {
            EventMessageTypeEnum::CONTAINER => {
                let action = container_action(&action, &attributes)?;
                Some(Self::Container { id, action, labels: attributes })
            }
            EventMessageTypeEnum::NETWORK => {
                let listing = !matches!(action.as_str(), "connect" | "disconnect");
                let mut attribute = |name| attributes.remove(name).unwrap_or_default();
                Some(Self::Network { id, name: attribute("name"), driver: attribute("type"), listing })
            }
            EventMessageTypeEnum::SERVICE => Some(Self::Service),
            EventMessageTypeEnum::NODE => Some(Self::Node),
            _ => None,
        }
    }
}

fn container_action(action: &str, attributes: &HashMap<String, String>) -> Option<ContainerAction> {
    match action {
        "create" => Some(ContainerAction::Made),
        "start" => Some(ContainerAction::Started),
        "kill" => Some(ContainerAction::Signalled(attributes.get("signal").and_then(|signal| signal.parse().ok()))),
        "die" => Some(ContainerAction::Ended),
        "destroy" => Some(ContainerAction::Removed),
        "pause" | "unpause" => Some(ContainerAction::Changed),
        other => other.starts_with("health_status").then_some(ContainerAction::Changed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Happening> {
        Happening::of(serde_json::from_str(text).unwrap())
    }

    fn container(action: ContainerAction, labels: &[(&str, &str)]) -> Happening {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Happening::Container { id: "a".to_owned(), action, labels: labels.collect() }
    }

    #[test]
    fn an_event_matters_or_not() {
        let task = r#"{"Type":"container","Action":"kill","Actor":{"ID":"a","Attributes":{
            "com.docker.swarm.service.name":"web","signal":"15"}},"scope":"local","time":1}"#;
        let labels = [("com.docker.swarm.service.name", "web"), ("signal", "15")];
        assert_eq!(read(task), Some(container(ContainerAction::Signalled(Some(15)), &labels)));
        for (action, expected) in [
            ("create", Some(ContainerAction::Made)),
            ("start", Some(ContainerAction::Started)),
            ("kill", Some(ContainerAction::Signalled(None))),
            ("die", Some(ContainerAction::Ended)),
            ("destroy", Some(ContainerAction::Removed)),
            ("pause", Some(ContainerAction::Changed)),
            ("health_status: healthy", Some(ContainerAction::Changed)),
            ("exec_start: true", None),
        ] {
            let event = format!(r#"{{"Type":"container","Action":"{action}","Actor":{{"ID":"a"}}}}"#);
            assert_eq!(read(&event), expected.map(|action| container(action, &[])), "{action}");
        }
        let network = |action: &str, attributes: &str| {
            read(&format!(
                r#"{{"Type":"network","Action":"{action}","Actor":{{"ID":"n","Attributes":{{{attributes}}}}}}}"#
            ))
        };
        let expected = |name: &str, driver: &str, listing| {
            let (id, name, driver) = ("n".to_owned(), name.to_owned(), driver.to_owned());
            Some(Happening::Network { id, name, driver, listing })
        };
        assert_eq!(network("connect", r#""name":"net","type":"bridge""#), expected("net", "bridge", false));
        assert_eq!(network("destroy", ""), expected("", "", true));
        assert_eq!(read(r#"{"Type":"service","Action":"update","Actor":{"ID":"s"}}"#), Some(Happening::Service));
        assert_eq!(read(r#"{"Type":"image","Action":"pull","Actor":{"ID":"i"}}"#), None);
    }
}
