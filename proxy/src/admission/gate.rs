//! Whether a connection, or a UDP session, may come in.

use super::{Client, ClientConnections, RateLimit, RateLimiter};
use crate::table::{Service, ServiceState};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use thiserror::Error;

/// Clients of all services that can be near their rate at the same time; see [`RateLimiter::new`]. 2 MiB, made when a
/// service first limits its clients' rate.
const RATES: usize = 65_536;

/// What a proxy's services have let in, exact across data threads.
#[derive(Debug, Default)]
pub struct Gate {
    clients: ClientConnections,
    rates: OnceLock<RateLimiter>,
}

/// What a connection that was let in holds, to be given back by [`Gate::leave`] however it ends.
#[derive(Debug)]
#[must_use = "it holds places until it is given to `Gate::leave`"]
pub struct Admitted {
    /// The service that let it in.
    pub service: Arc<ServiceState>,
    /// Whom it is counted for, if its service limits clients.
    client: Option<Box<Client>>,
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum Refusal {
    /// The client's address is not allowed, or denied.
    #[error("the client's address is not allowed")]
    Denied,
    /// The client opens connections too fast.
    #[error("the client opens connections too fast")]
    ClientRate,
    /// The client has as many connections as it may have.
    #[error("the client has its maximum of connections")]
    ClientFull,
    /// The service has as many connections as it may have.
    #[error("the service has its maximum of connections")]
    ServiceFull,
    /// All backends that could be picked have as many connections as they may have, and nobody may wait.
    #[error("all backends have their maximum of connections")]
    BackendsFull,
    /// All backends are full, and so is the queue.
    #[error("all backends have their maximum of connections and the queue is full")]
    QueueFull,
    /// All backends stayed full for the time that a connection may wait.
    #[error("no backend had a place in time")]
    QueueTimeout,
    /// What a trusted peer sent is no PROXY protocol header.
    #[error("a trusted peer sent no valid PROXY protocol header")]
    HeaderInvalid,
    /// A trusted peer did not send its PROXY protocol header in time.
    #[error("a trusted peer sent no PROXY protocol header in time")]
    HeaderTimeout,
}

impl Gate {
    /// Lets a connection of this client in, or says why not. `now` is the time since a fixed moment.
    ///
    /// The client's address matters only where [`Service::examines_clients`]: there a client without one is refused.
    /// Nothing is counted for who is refused. A client is counted only while its service limits clients: connections from
    /// before a limit was set do not count towards it.
    ///
    /// # Errors
    /// The reason.
    pub fn admit(&self, service: &Service, client: Option<IpAddr>, now: Duration) -> Result<Admitted, Refusal> {
        let admitted = self.readmit(service, client)?;
        // Last, so that who is refused for another reason has not spent anything.
        let rate = service.settings.client_rate;
        if let (Some(client), per_second @ 1..) = (client.map(Client::from), rate.per_second.0) {
            let limit = RateLimit { per_second, burst: rate.burst.0 };
            let rates = self.rates.get_or_init(|| RateLimiter::new(RATES));
            if !rates.check(service.state.scope, client, limit, now).is_admitted() {
                self.leave(admitted);
                return Err(Refusal::ClientRate);
            }
        }
        Ok(admitted)
    }

    /// The same for what another proxy has let in before: it counts towards all limits but the rate.
    ///
    /// # Errors
    /// The reason.
    pub fn readmit(&self, service: &Service, client: Option<IpAddr>) -> Result<Admitted, Refusal> {
        let settings = &service.settings;
        if service.examines_clients() && !client.is_some_and(|client| service.clients.access.admits(client)) {
            return Err(Refusal::Denied);
        }
        let client = client.map(Client::from);
        if !service.state.places.try_enter(settings.max_connections.limit()) {
            return Err(Refusal::ServiceFull);
        }
        let counted = match (client, settings.max_connections_per_client.0) {
            (Some(client), limit @ 1..) => {
                if !self.clients.try_enter(service.state.scope, client, limit) {
                    service.state.places.leave();
                    return Err(Refusal::ClientFull);
                }
                Some(Box::new(client))
            }
            _ => None,
        };
        Ok(Admitted { service: Arc::clone(&service.state), client: counted })
    }

    /// Takes back what a connection held.
    pub fn leave(&self, admitted: Admitted) {
        if let Some(client) = admitted.client {
            self.clients.leave(admitted.service.scope, *client);
        }
        admitted.service.places.leave();
    }
}

#[cfg(test)]
mod tests;
