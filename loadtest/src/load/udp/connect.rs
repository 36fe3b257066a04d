//! A new socket, and so a new port, for each datagram: how fast a load balancer takes on sessions.

use super::client::Client;
use super::context::Context;
use crate::load::backoff::Backoff;
use std::rc::Rc;

/// Does requests until there are none left.
pub(in crate::load) async fn work(context: Rc<Context>) {
    let run = &context.run;
    let mut backoff = Backoff::new(&run.options);
    while let Some(arrival) = run.arrivals.next().await {
        let (target, address) = run.target(arrival.index);
        // Every request is another client's: an answer that comes when its port is another's does not fit.
        let result = match Client::open(&context, arrival.index, target, address) {
            Ok(client) => client.request(arrival).await,
            Err(failure) => Err(failure),
        };
        match result {
            Ok(()) => backoff.succeeded(),
            Err(failure) => {
                run.failed(target, None, &failure);
                backoff.failed().await;
            }
        }
    }
}
