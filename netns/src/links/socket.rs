//! Requests and answers over a netlink socket.

use crate::{Error, Namespace, Result};
use futures_util::StreamExt;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use rtnetlink::proto::sys::AsyncSocket;
use std::io;
use tokio::runtime;

/// Attribute of an error message that holds the kernel's explanation (include/uapi/linux/netlink.h).
const NLMSGERR_ATTR_MSG: u16 = 1;
/// The bits of an attribute's type that are flags (include/uapi/linux/netlink.h).
const ATTRIBUTE_TYPE_MASK: u16 = 0x3fff;
/// The failed request's header, which an error message repeats.
const MESSAGE_HEADER: usize = 16;

/// A netlink socket that was opened inside a namespace and stays in it.
#[derive(Clone, Debug)]
pub(super) struct Socket {
    handle: rtnetlink::Handle,
}

/// The kernel's answer to a request that it did not grant.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) cause: io::Error,
    /// Empty, or the kernel's explanation in parentheses.
    pub(super) detail: String,
}

impl Socket {
    pub(super) fn open(namespace: &Namespace) -> Result<Self> {
        let no_runtime = |_| Error::NoRuntime { namespace: namespace.label().to_owned() };
        let runtime = runtime::Handle::try_current().map_err(no_runtime)?;
        let opened = namespace.run(|| {
            let _context = runtime.enter();
            let (mut connection, handle, _unsolicited) = rtnetlink::new_connection_with_strict_check()?;
            // So that an acknowledgement differs from a connection that ended before there was one.
            connection.set_forward_ack(true);
            let socket = connection.socket_mut().socket_mut();
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            Ok((connection, handle))
        })?;
        let (connection, handle) = opened.map_err(|cause: io::Error| Error::Netlink {
            action: "open a netlink socket".to_owned(),
            namespace: namespace.label().to_owned(),
            cause,
            detail: String::new(),
        })?;
        runtime.spawn(connection);
        Ok(Self { handle })
    }

    /// Makes something that must not exist yet.
    pub(super) async fn create(&self, message: RouteNetlinkMessage) -> Result<(), Refusal> {
        self.acknowledged(message, NLM_F_CREATE | NLM_F_EXCL).await
    }

    /// Makes something beside what exists.
    pub(super) async fn append(&self, message: RouteNetlinkMessage) -> Result<(), Refusal> {
        self.acknowledged(message, NLM_F_CREATE | NLM_F_APPEND).await
    }

    /// Changes or removes something.
    pub(super) async fn change(&self, message: RouteNetlinkMessage) -> Result<(), Refusal> {
        self.acknowledged(message, 0).await
    }

    /// Asks for one thing.
    pub(super) async fn query(&self, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, Refusal> {
        let (answers, _acknowledged) = self.exchange(message, NLM_F_REQUEST).await?;
        if answers.is_empty() { Err(Refusal::closed()) } else { Ok(answers) }
    }

    /// Asks for all there are.
    pub(super) async fn dump(&self, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, Refusal> {
        let (answers, _acknowledged) = self.exchange(message, NLM_F_REQUEST | NLM_F_DUMP).await?;
        Ok(answers)
    }

    async fn acknowledged(&self, message: RouteNetlinkMessage, flags: u16) -> Result<(), Refusal> {
        let (_answers, acknowledged) = self.exchange(message, NLM_F_REQUEST | NLM_F_ACK | flags).await?;
        if acknowledged { Ok(()) } else { Err(Refusal::closed()) }
    }

    async fn exchange(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(Vec<RouteNetlinkMessage>, bool), Refusal> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        let mut stream = self.handle.clone().request(request).map_err(|_closed| Refusal::closed())?;
        let mut answers = Vec::new();
        let mut acknowledged = false;
        while let Some(answer) = stream.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(Refusal::from_kernel(&error)),
                NetlinkPayload::Error(_) => acknowledged = true,
                NetlinkPayload::Overrun(_) => return Err(Refusal::from(io::Error::from_raw_os_error(libc::ENOBUFS))),
                _ => {}
            }
        }
        Ok((answers, acknowledged))
    }
}

impl Refusal {
    pub(super) fn is(&self, error_number: libc::c_int) -> bool {
        self.cause.raw_os_error() == Some(error_number)
    }

    fn closed() -> Self {
        io::Error::new(io::ErrorKind::BrokenPipe, "the netlink socket's task has ended with its runtime").into()
    }

    fn from_kernel(error: &ErrorMessage) -> Self {
        let detail = explanation(&error.header).map_or_else(String::new, |text| format!(" ({text})"));
        Self { cause: error.to_io(), detail }
    }
}

impl From<io::Error> for Refusal {
    fn from(cause: io::Error) -> Self {
        Self { cause, detail: String::new() }
    }
}

/// The kernel's explanation in what follows an error number: the request's header, then attributes (extended
/// acknowledgement, Linux 4.12).
fn explanation(payload: &[u8]) -> Option<String> {
    let mut rest = payload.get(MESSAGE_HEADER..)?;
    while let [length_low, length_high, kind_low, kind_high, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([length_low, length_high]));
        let value = rest.get(4..length)?;
        if u16::from_ne_bytes([kind_low, kind_high]) & ATTRIBUTE_TYPE_MASK == NLMSGERR_ATTR_MSG {
            let text = value.split(|byte| *byte == 0).next()?;
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}
