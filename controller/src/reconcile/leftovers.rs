//! What an earlier daemon on the same run directory has left behind, and its removal at the start.

use super::{Channel, ControlDirectory};
use ringlb_proxy::control::message::Request;
use std::time::Duration;
use tokio::time::timeout;

/// How long a proxy that was left behind may take to end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Ends the proxies that an earlier daemon has left behind, and removes its control sockets and namespaces. Does all
/// it can; what fails is logged.
pub async fn remove_leftovers(control: &ControlDirectory, name_prefix: &str) {
    match control.networks() {
        Ok(networks) => {
            futures_util::future::join_all(networks.iter().map(|network| end_proxy(control, network))).await;
        }
        Err(error) => tracing::error!(%error, "cannot look for control sockets of an earlier daemon"),
    }
    match ringlb_netns::remove_leftovers(name_prefix).await {
        Ok(names) if names.is_empty() => {}
        Ok(names) => tracing::info!(namespaces = names.join(" "), "removed what an earlier daemon had left behind"),
        Err(errors) => {
            for error in errors {
                tracing::error!(%error, "cannot remove what an earlier daemon has left behind");
            }
        }
    }
}

async fn end_proxy(control: &ControlDirectory, network: &str) {
    // Nobody listens any more if the proxy is gone, too.
    if let Ok(mut channel) = control.connect(network).and_then(Channel::new) {
        let ended = async {
            channel.send(&Request::Shutdown)?;
            // Greetings may still come; the end of the process ends the connection.
            while channel.receive().await.is_ok() {}
            Ok::<_, super::ChannelError>(())
        };
        match timeout(SHUTDOWN_TIMEOUT, ended).await {
            Ok(Ok(())) => tracing::info!(%network, "ended a proxy that an earlier daemon had left behind"),
            Ok(Err(error)) => tracing::warn!(%network, %error, "cannot end a proxy of an earlier daemon"),
            Err(_) => tracing::warn!(%network, "a proxy of an earlier daemon does not end"),
        }
    }
    if let Err(error) = control.remove(network) {
        tracing::error!(%network, %error, "cannot remove a control socket of an earlier daemon");
    }
}
