//! `bpf(2)`, as far as it is needed. The layouts and numbers are those of include/uapi/linux/bpf.h.
#![allow(
    unsafe_code,
    reason = "bpf(2) has no safe wrapper without libbpf; each command is one function with a safe signature"
)]

use crate::{Error, Result};
use std::ffi::CStr;
use std::io;
use std::mem::{size_of, size_of_val};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_MAP_TYPE_SOCKMAP: u32 = 15;
const BPF_PROG_TYPE_SK_LOOKUP: u32 = 30;
const BPF_SK_LOOKUP: u32 = 36;

const VERIFIER_LOG: usize = 64 * 1024;
const NAME: [u8; 16] = *b"ringlb\0\0\0\0\0\0\0\0\0\0";

/// `struct bpf_insn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    pub(super) const fn new(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Self {
        // Two bit fields of four bits, which compilers fill from the machine's own end.
        let registers =
            if cfg!(target_endian = "little") { destination | source << 4 } else { destination << 4 | source };
        Self { code, registers, offset, immediate }
    }

    pub(super) const fn with_offset(self, offset: i16) -> Self {
        Self { offset, ..self }
    }
}

/// Makes a map of sockets with keys from 0 to `entries - 1`.
pub(super) fn create_socket_map(entries: u32) -> Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        map_type: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        map_flags: u32,
        inner_map_fd: u32,
        numa_node: u32,
        map_name: [u8; 16],
    }
    let attributes = Attributes {
        map_type: BPF_MAP_TYPE_SOCKMAP,
        key_size: size_of::<u32>() as u32,
        value_size: size_of::<u64>() as u32,
        max_entries: entries,
        map_flags: 0,
        inner_map_fd: 0,
        numa_node: 0,
        map_name: NAME,
    };
    // SAFETY: the attributes are those of this command and hold no pointer.
    unsafe { descriptor(BPF_MAP_CREATE, &attributes) }.map_err(|cause| failed("create the map of sockets", cause))
}

/// Puts a socket into the map. The map does not keep it open: a closed socket leaves it.
pub(super) fn put_socket(map: BorrowedFd<'_>, key: u32, socket: BorrowedFd<'_>) -> Result<()> {
    #[repr(C)]
    struct Attributes {
        map_fd: u32,
        padding: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let value: u64 = number(socket).into();
    let attributes = Attributes {
        map_fd: number(map),
        padding: 0,
        key: (&raw const key).addr() as u64,
        value: (&raw const value).addr() as u64,
        flags: 0,
    };
    // SAFETY: key and value have the sizes that the map was made with and outlive the call, which only reads them.
    unsafe { call(BPF_MAP_UPDATE_ELEM, &attributes) }
        .map(|_zero| ())
        .map_err(|cause| failed("put a steered socket into the map of sockets", cause))
}

/// Loads an `sk_lookup` program. If the verifier rejects it, its log is part of the error.
pub(super) fn load_sk_lookup(instructions: &[Instruction], license: &CStr) -> Result<OwnedFd> {
    load(instructions, license, &mut []).or_else(|cause| {
        if matches!(cause.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) {
            return Err(failed("load the sk_lookup program", cause));
        }
        let mut log = vec![0; VERIFIER_LOG];
        load(instructions, license, &mut log).map_err(|cause| {
            let length = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
            let log = String::from_utf8_lossy(&log[..length]);
            let log = if log.is_empty() { String::new() } else { format!("; the verifier says:\n{}", log.trim_end()) };
            Error::Bpf { action: "load the sk_lookup program", cause, log }
        })
    })
}

fn load(instructions: &[Instruction], license: &CStr, log: &mut [u8]) -> io::Result<OwnedFd> {
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
        prog_name: [u8; 16],
        prog_ifindex: u32,
        expected_attach_type: u32,
    }
    let attributes = Attributes {
        prog_type: BPF_PROG_TYPE_SK_LOOKUP,
        insn_cnt: u32::try_from(instructions.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        insns: instructions.as_ptr().addr() as u64,
        license: license.as_ptr().addr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: u32::try_from(log.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        log_buf: if log.is_empty() { 0 } else { log.as_mut_ptr().expose_provenance() as u64 },
        kern_version: 0,
        prog_flags: 0,
        prog_name: NAME,
        prog_ifindex: 0,
        expected_attach_type: BPF_SK_LOOKUP,
    };
    // SAFETY: the pointers and lengths describe slices that outlive the call; only the log is written to, and it is
    // borrowed mutably.
    unsafe { descriptor(BPF_PROG_LOAD, &attributes) }
}

/// Attaches an `sk_lookup` program to a network namespace for as long as the returned link is open.
pub(super) fn attach_sk_lookup(program: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        prog_fd: u32,
        target_fd: u32,
        attach_type: u32,
        flags: u32,
    }
    let attributes =
        Attributes { prog_fd: number(program), target_fd: number(namespace), attach_type: BPF_SK_LOOKUP, flags: 0 };
    // SAFETY: the attributes are those of this command and hold no pointer.
    unsafe { descriptor(BPF_LINK_CREATE, &attributes) }
        .map_err(|cause| failed("attach the sk_lookup program to the network namespace", cause))
}

/// # Safety
/// The attributes must be laid out as the command expects, and the command must answer with a new descriptor.
unsafe fn descriptor<A>(command: libc::c_long, attributes: &A) -> io::Result<OwnedFd> {
    // SAFETY: passed on to the caller.
    let number = unsafe { call(command, attributes) }?;
    // SAFETY: the kernel has just opened this descriptor for us (with close-on-exec, as bpf(2) does), nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// # Safety
/// The attributes must be laid out as the command expects; pointers in them must be valid for what it does with them.
unsafe fn call<A>(command: libc::c_long, attributes: &A) -> io::Result<i32> {
    // SAFETY: the pointer and the size are those of `attributes`; the rest is passed on to the caller.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of_val(attributes)) };
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
        let error = load_sk_lookup(&[EXIT], c"Apache-2.0").unwrap_err();
        let Error::Bpf { cause, log, .. } = &error else { panic!("{error}") };
        // Without the capability nothing is verified.
        assert!(log.contains("R0 !read_ok") || cause.raw_os_error() == Some(libc::EPERM), "{error}");
    }
}
