//! Datagrams without waiting for answers: as many as go out, or as the rate says.

use super::client::Client;
use super::context::Context;
use super::socket::Socket;
use crate::load::arrivals::Arrival;
use crate::load::backoff::Backoff;
use crate::{ErrorKind, uring};
use std::convert::Infallible;
use std::rc::Rc;

/// So many datagrams are sent before others, the receiver among them, get their turn.
const AT_ONCE: u32 = 16;

/// Sends datagrams over one socket until there are none left to send, and waits for the answers.
pub(in crate::load) async fn work(context: Rc<Context>, index: u64, socket: Option<Socket>) {
    let mut backoff = Backoff::new(&context.run.options);
    let client = match socket {
        Some(socket) => Client::new(Rc::clone(&context), socket, index, context.run.target(index).0),
        None => match open(&context, index, &mut backoff).await {
            Some((client, arrival)) => {
                send(&client, arrival, &mut backoff).await;
                client
            }
            None => return,
        },
    };
    tokio::select! {
        () = send_all(&context, &client, &mut backoff) => {}
        never = receive_all(&client) => match never {},
    }
    let rest = async {
        while client.waiting() > 0 {
            receive(&client).await;
        }
    };
    // Nothing is waited for any more, or what is missing is lost.
    let _ = tokio::time::timeout(context.run.options.timeout, rest).await;
    client.count_lost(client.waiting());
}

/// Opens a socket where that failed before; returns also what is to be sent over it first.
async fn open(context: &Rc<Context>, index: u64, backoff: &mut Backoff) -> Option<(Client, Arrival)> {
    let (target, address) = context.run.target(index);
    loop {
        let arrival = context.run.arrivals.next().await?;
        match Client::open(context, index, target, address) {
            Ok(client) => return Some((client, arrival)),
            Err(failure) => {
                context.run.failed(target, None, &failure);
                backoff.failed().await;
            }
        }
    }
}

async fn send_all(context: &Context, client: &Client, backoff: &mut Backoff) {
    let mut sent = 0;
    while let Some(arrival) = context.run.arrivals.next().await {
        send(client, arrival, backoff).await;
        sent += 1;
        if sent % AT_ONCE == 0 {
            uring::turn().await;
        }
    }
}

async fn send(client: &Client, arrival: Arrival, backoff: &mut Backoff) {
    let mut result = client.send(arrival).await;
    if let Err(failure) = &result
        && failure.kind() == ErrorKind::Refused
    {
        // That was an earlier datagram; this one has not been sent.
        client.failed(failure);
        client.explains_a_loss();
        result = client.send(arrival).await;
    }
    match result {
        Ok(_) => backoff.succeeded(),
        Err(failure) => {
            client.failed(&failure);
            backoff.failed().await;
        }
    }
}

async fn receive_all(client: &Client) -> Infallible {
    loop {
        receive(client).await;
    }
}

async fn receive(client: &Client) {
    if let Err(failure) = client.receive_any().await {
        client.failed(&failure);
        client.explains_a_loss();
    }
}
