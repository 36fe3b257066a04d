//! Datagrams over a socket that stays open, one at a time.

use super::client::Client;
use super::context::Context;
use super::socket::Socket;
use crate::load::backoff::Backoff;
use std::rc::Rc;

/// Does requests over one socket until there are none left. Losses do not change the socket: its port is what a load
/// balancer knows the client by.
pub(in crate::load) async fn work(context: Rc<Context>, index: u64, socket: Option<Socket>) {
    let run = &context.run;
    let (target, address) = run.target(index);
    let mut backoff = Backoff::new(&run.options);
    let mut client = socket.map(|socket| Client::new(Rc::clone(&context), socket, index, target));
    while let Some(arrival) = run.arrivals.next().await {
        let current = match client.take() {
            Some(client) => client,
            None => match Client::open(&context, index, target, address) {
                Ok(client) => client,
                Err(failure) => {
                    run.failed(target, None, &failure);
                    backoff.failed().await;
                    continue;
                }
            },
        };
        match current.request(arrival).await {
            Ok(()) => backoff.succeeded(),
            Err(failure) => {
                current.failed(&failure);
                backoff.failed().await;
            }
        }
        client = Some(current);
    }
}
