//! `bpf(2)`, as far as it is needed. The layouts and numbers are those of include/uapi/linux/bpf.h.
#![allow(
    unsafe_code,
    reason = "bpf(2) has no safe wrapper without libbpf; each command is one function with a safe signature"
)]

mod attachment;
mod map;
mod object;
mod program;

pub(crate) use attachment::*;
pub(crate) use map::*;
pub(crate) use object::*;
pub(crate) use program::*;

use crate::{Error, Result};
use std::ffi::CStr;
use std::io;
use std::mem::size_of_val;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;

const VERIFIER_LOG: usize = 64 * 1024;

/// What an object is called in the kernel: by that it is told from others when it is found there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub(crate) struct Name([u8; Self::SIZE]);

impl Name {
    const SIZE: usize = 16;

    /// Of letters, digits and underscores.
    pub(crate) const fn new(text: &str) -> Self {
        let text = text.as_bytes();
        assert!(text.len() < Self::SIZE, "the kernel takes up to 15 bytes");
        let mut name = [0; Self::SIZE];
        name.split_at_mut(text.len()).0.copy_from_slice(text);
        Self(name)
    }
}

/// `struct bpf_insn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    pub(crate) const fn new(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Self {
        // Two bit fields of four bits, which compilers fill from the machine's own end.
        let registers =
            if cfg!(target_endian = "little") { destination | source << 4 } else { destination << 4 | source };
        Self { code, registers, offset, immediate }
    }

    pub(crate) const fn with_offset(self, offset: i16) -> Self {
        Self { offset, ..self }
    }
}

/// Where programs are attached to, and by that what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    /// A network namespace, for the choice of a socket (Linux 5.9).
    SocketLookup,
    /// An interface, for what it receives (`tcx`, Linux 6.6).
    Ingress,
}

impl Hook {
    const fn program_type(self) -> u32 {
        match self {
            Self::SocketLookup => 30,
            Self::Ingress => 3,
        }
    }

    const fn attach_type(self) -> u32 {
        match self {
            Self::SocketLookup => 36,
            Self::Ingress => 46,
        }
    }

    const fn loading(self) -> &'static str {
        match self {
            Self::SocketLookup => "load the sk_lookup program",
            Self::Ingress => "load the program of a bridge's ports",
        }
    }
}

/// Loads a program. If the verifier rejects it, its log is part of the error.
pub(crate) fn load_program(hook: Hook, name: Name, instructions: &[Instruction], license: &CStr) -> Result<OwnedFd> {
    load(hook, name, instructions, license, &mut []).or_else(|cause| {
        if matches!(cause.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) {
            return Err(failed(hook.loading(), cause));
        }
        let mut log = vec![0; VERIFIER_LOG];
        load(hook, name, instructions, license, &mut log).map_err(|cause| {
            let length = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
            let log = String::from_utf8_lossy(&log[..length]);
            let log = if log.is_empty() { String::new() } else { format!("; the verifier says:\n{}", log.trim_end()) };
            Error::Bpf { action: hook.loading(), cause, log }
        })
    })
}

fn load(hook: Hook, name: Name, instructions: &[Instruction], license: &CStr, log: &mut [u8]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buf: u64,
        kern_version: u32,
        prog_flags: u32,
        prog_name: Name,
        prog_ifindex: u32,
        expected_attach_type: u32,
    }
    let attributes = Attributes {
        prog_type: hook.program_type(),
        insn_cnt: u32::try_from(instructions.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        insns: instructions.as_ptr().addr() as u64,
        license: license.as_ptr().addr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: u32::try_from(log.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        log_buf: if log.is_empty() { 0 } else { log.as_mut_ptr().expose_provenance() as u64 },
        kern_version: 0,
        prog_flags: 0,
        prog_name: name,
        prog_ifindex: 0,
        expected_attach_type: hook.attach_type(),
    };
    // SAFETY: the pointers and lengths describe slices that outlive the call; only the log is written to, and it is
    // borrowed mutably.
    unsafe { descriptor(BPF_PROG_LOAD, &attributes) }
}

/// Attaches an `sk_lookup` program to a network namespace for as long as the returned link is open.
pub(crate) fn attach_to_namespace(program: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        prog_fd: u32,
        target_fd: u32,
        attach_type: u32,
        flags: u32,
    }
    let attributes = Attributes {
        prog_fd: number(program),
        target_fd: number(namespace),
        attach_type: Hook::SocketLookup.attach_type(),
        flags: 0,
    };
    // SAFETY: the attributes are those of this command and hold no pointer.
    unsafe { descriptor(BPF_LINK_CREATE, &attributes) }
        .map_err(|cause| failed("attach the sk_lookup program to the network namespace", cause))
}

/// # Safety
/// The attributes must be laid out as the command expects, and the command must answer with a new descriptor.
unsafe fn descriptor<A>(command: libc::c_long, attributes: &A) -> io::Result<OwnedFd> {
    // SAFETY: passed on to the caller.
    let number = unsafe { bpf(command, attributes) }?;
    // SAFETY: the kernel has just opened this descriptor for us (with close-on-exec, as bpf(2) does), nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// # Safety
/// The attributes must be laid out as the command expects; pointers in them must be valid for what it does with them.
unsafe fn bpf<A>(command: libc::c_long, attributes: &A) -> io::Result<i32> {
    // SAFETY: the pointer and the size are those of `attributes`; the rest is passed on to the caller.
    called(unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of_val(attributes)) })
}

/// The same, for commands that answer by writing into the attributes.
///
/// # Safety
/// As above; and whatever the command writes into the attributes must be a value of theirs.
unsafe fn bpf_answered<A>(command: libc::c_long, attributes: &mut A) -> io::Result<i32> {
    // SAFETY: the pointer and the size are those of `attributes`; the rest is passed on to the caller.
    called(unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of_val(attributes)) })
}

fn called(result: libc::c_long) -> io::Result<i32> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}

fn number(descriptor: BorrowedFd<'_>) -> u32 {
    descriptor.as_raw_fd().cast_unsigned()
}

fn failed(action: &'static str, cause: io::Error) -> Error {
    Error::Bpf { action, cause, log: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loading a program attaches it to nothing.
    #[test]
    fn the_verifiers_log_is_part_of_the_error() {
        const EXIT: Instruction = Instruction::new(0x95, 0, 0, 0, 0);
        let error = load_program(Hook::SocketLookup, Name::new("ringlb"), &[EXIT], c"Apache-2.0").unwrap_err();
        let Error::Bpf { cause, log, .. } = &error else { panic!("{error}") };
        // Without the capability nothing is verified.
        assert!(log.contains("R0 !read_ok") || cause.raw_os_error() == Some(libc::EPERM), "{error}");
    }
}
