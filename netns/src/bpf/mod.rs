//! `bpf(2)`, as far as it is needed. The layouts and numbers are those of include/uapi/linux/bpf.h.
#![allow(
    unsafe_code,
    reason = "bpf(2) has no safe wrapper without libbpf; each command is one function with a safe signature"
)]

mod program;

pub(crate) use program::*;

use crate::{Error, Result};
use std::ffi::CStr;
use std::io;
use std::mem::{size_of, size_of_val};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_MAP_TYPE_HASH: u32 = 1;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_SOCKMAP: u32 = 15;
/// Memory for an entry is taken when it is put in.
const BPF_F_NO_PREALLOC: u32 = 1;
/// The values can be mapped into a process (Linux 5.5).
const BPF_F_MMAPABLE: u32 = 1 << 10;

const VERIFIER_LOG: usize = 64 * 1024;
const NAME: [u8; 16] = *b"ringlb\0\0\0\0\0\0\0\0\0\0";

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

/// Makes a map of sockets with keys from 0 to `entries - 1`.
pub(crate) fn create_socket_map(entries: u32) -> Result<OwnedFd> {
    create_map(BPF_MAP_TYPE_SOCKMAP, [size_of::<u32>(), size_of::<u64>()], entries, 0)
        .map_err(|cause| failed("create the map of sockets", cause))
}

/// Makes a map with room for that many entries from keys of eight bytes to numbers of four.
pub(crate) fn create_hash_map(entries: u32) -> Result<OwnedFd> {
    create_map(BPF_MAP_TYPE_HASH, [size_of::<[u8; 8]>(), size_of::<u32>()], entries, BPF_F_NO_PREALLOC)
        .map_err(|cause| failed("create a map of numbers", cause))
}

/// Makes a map of one value of that size, all zero at first.
pub(crate) fn create_value(bytes: usize) -> Result<OwnedFd> {
    create_map(BPF_MAP_TYPE_ARRAY, [size_of::<u32>(), bytes], 1, 0)
        .map_err(|cause| failed("make a value for programs", cause))
}

/// Makes the same, as memory that programs and processes share: a process maps it (mmap(2)).
pub(crate) fn create_shared_value(bytes: usize) -> Result<OwnedFd> {
    create_map(BPF_MAP_TYPE_ARRAY, [size_of::<u32>(), bytes], 1, BPF_F_MMAPABLE)
        .map_err(|cause| failed("make memory that is shared with programs", cause))
}

/// Another descriptor of a map.
pub(crate) fn copy(map: BorrowedFd<'_>) -> Result<OwnedFd> {
    map.try_clone_to_owned().map_err(|cause| failed("copy the descriptor of a map", cause))
}

/// Writes the value of a map of [`create_value`] or [`create_shared_value`], which has that size. Who reads meanwhile sees a part
/// of it.
pub(crate) fn write_value(map: BorrowedFd<'_>, value: &[u8]) -> Result<()> {
    update(map, &0u32.to_ne_bytes(), value).map_err(|cause| failed("write a value for programs", cause))
}

/// Puts a value into a map that was made for keys and values of these sizes.
fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    let (key, value) = (key.as_ptr().addr() as u64, value.as_ptr().addr() as u64);
    let attributes = Entry { map_fd: number(map), padding: 0, key, value, flags: 0 };
    // SAFETY: key and value have the sizes that the map was made with, as each caller's map has, and outlive the call, which
    // only reads them.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &attributes) }.map(|_zero| ())
}

fn create_map(
    map_type: u32,
    [key_size, value_size]: [usize; 2],
    max_entries: u32,
    map_flags: u32,
) -> io::Result<OwnedFd> {
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
        map_type,
        key_size: key_size as u32,
        value_size: value_size as u32,
        max_entries,
        map_flags,
        inner_map_fd: 0,
        numa_node: 0,
        map_name: NAME,
    };
    // SAFETY: the attributes are those of this command and hold no pointer.
    unsafe { descriptor(BPF_MAP_CREATE, &attributes) }
}

/// The attributes of commands on a map's entry; `value` is 0 for those that take none.
#[repr(C)]
struct Entry {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Puts a socket into a map of [`create_socket_map`]. The map does not keep it open: a closed socket leaves it.
pub(crate) fn put_socket(map: BorrowedFd<'_>, key: u32, socket: BorrowedFd<'_>) -> Result<()> {
    let socket: u64 = number(socket).into();
    update(map, &key.to_ne_bytes(), &socket.to_ne_bytes())
        .map_err(|cause| failed("put a steered socket into the map of sockets", cause))
}

/// Puts a number into a map of [`create_hash_map`], in place of the one that has the key.
pub(crate) fn put_number(map: BorrowedFd<'_>, key: [u8; 8], value: u32) -> Result<()> {
    update(map, &key, &value.to_ne_bytes()).map_err(|cause| failed("put a number into a map", cause))
}

/// Takes the number of that key out of a map of [`create_hash_map`], if there is one.
pub(crate) fn remove_number(map: BorrowedFd<'_>, key: [u8; 8]) -> Result<()> {
    let key = (&raw const key).addr() as u64;
    let attributes = Entry { map_fd: number(map), padding: 0, key, value: 0, flags: 0 };
    // SAFETY: the key has the size that the map was made with and outlives the call, which only reads it.
    match unsafe { bpf(BPF_MAP_DELETE_ELEM, &attributes) } {
        Err(cause) if cause.raw_os_error() != Some(libc::ENOENT) => Err(failed("take a number out of a map", cause)),
        _ => Ok(()),
    }
}

/// Loads a program. If the verifier rejects it, its log is part of the error.
pub(crate) fn load_program(hook: Hook, instructions: &[Instruction], license: &CStr) -> Result<OwnedFd> {
    load(hook, instructions, license, &mut []).or_else(|cause| {
        if matches!(cause.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) {
            return Err(failed(hook.loading(), cause));
        }
        let mut log = vec![0; VERIFIER_LOG];
        load(hook, instructions, license, &mut log).map_err(|cause| {
            let length = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
            let log = String::from_utf8_lossy(&log[..length]);
            let log = if log.is_empty() { String::new() } else { format!("; the verifier says:\n{}", log.trim_end()) };
            Error::Bpf { action: hook.loading(), cause, log }
        })
    })
}

fn load(hook: Hook, instructions: &[Instruction], license: &CStr, log: &mut [u8]) -> io::Result<OwnedFd> {
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
        prog_type: hook.program_type(),
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
        expected_attach_type: hook.attach_type(),
    };
    // SAFETY: the pointers and lengths describe slices that outlive the call; only the log is written to, and it is
    // borrowed mutably.
    unsafe { descriptor(BPF_PROG_LOAD, &attributes) }
}

/// Attaches an `sk_lookup` program to a network namespace for as long as the returned link is open.
pub(crate) fn attach_to_namespace(program: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> Result<OwnedFd> {
    attach(Hook::SocketLookup, program, number(namespace))
        .map_err(|cause| failed("attach the sk_lookup program to the network namespace", cause))
}

/// Attaches a program to what an interface of the calling thread's namespace receives, before the programs that are
/// attached there later, for as long as the returned link is open and the interface there.
pub(crate) fn attach_to_interface(program: BorrowedFd<'_>, index: u32) -> Result<OwnedFd> {
    attach(Hook::Ingress, program, index).map_err(|cause| failed("attach a program to a bridge's port", cause))
}

/// Puts another program in the place of the one that a link attaches; no packet comes between the two.
pub(crate) fn replace_program(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    #[repr(C)]
    struct Attributes {
        link_fd: u32,
        new_prog_fd: u32,
        flags: u32,
        old_prog_fd: u32,
    }
    let attributes = Attributes { link_fd: number(link), new_prog_fd: number(program), flags: 0, old_prog_fd: 0 };
    // SAFETY: the attributes are those of this command and hold no pointer.
    unsafe { bpf(BPF_LINK_UPDATE, &attributes) }
        .map(|_zero| ())
        .map_err(|cause| failed("replace the program of a bridge's port", cause))
}

fn attach(hook: Hook, program: BorrowedFd<'_>, target: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        prog_fd: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
    }
    let attributes = Attributes { prog_fd: number(program), target, attach_type: hook.attach_type(), flags: 0 };
    // SAFETY: the attributes are those of this command and hold no pointer.
    unsafe { descriptor(BPF_LINK_CREATE, &attributes) }
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
        let error = load_program(Hook::SocketLookup, &[EXIT], c"Apache-2.0").unwrap_err();
        let Error::Bpf { cause, log, .. } = &error else { panic!("{error}") };
        // Without the capability nothing is verified.
        assert!(log.contains("R0 !read_ok") || cause.raw_os_error() == Some(libc::EPERM), "{error}");
    }
}
