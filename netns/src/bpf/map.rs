//! Maps: what programs share with each other and with processes.

use super::{Name, bpf, descriptor, failed, number};
use crate::Result;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_MAP_GET_NEXT_KEY: libc::c_long = 4;
const BPF_MAP_TYPE_HASH: u32 = 1;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_SOCKMAP: u32 = 15;
/// Memory for an entry is taken when it is put in.
const BPF_F_NO_PREALLOC: u32 = 1;
/// The values can be mapped into a process (Linux 5.5).
const BPF_F_MMAPABLE: u32 = 1 << 10;

/// What there is to say of a map before anything is in it. Two that are equal in that can take each other's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MapKind {
    pub(super) map_type: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
    pub(super) flags: u32,
    pub(super) name: Name,
}

impl MapKind {
    /// Of sockets, with keys from 0 to `entries - 1`.
    pub(crate) const fn sockets(name: Name, entries: u32) -> Self {
        Self::new(name, BPF_MAP_TYPE_SOCKMAP, [size_of::<u32>(), size_of::<u64>()], entries, 0)
    }

    /// With room for that many entries from keys of eight bytes to numbers of four.
    pub(crate) const fn numbers(name: Name, entries: u32) -> Self {
        let sizes = [size_of::<[u8; 8]>(), size_of::<u32>()];
        Self::new(name, BPF_MAP_TYPE_HASH, sizes, entries, BPF_F_NO_PREALLOC)
    }

    /// Of one value of that size, all zero at first.
    pub(crate) const fn value(name: Name, bytes: usize) -> Self {
        Self::new(name, BPF_MAP_TYPE_ARRAY, [size_of::<u32>(), bytes], 1, 0)
    }

    /// The same, as memory that programs and processes share: a process maps it (mmap(2)).
    pub(crate) const fn shared_value(name: Name, bytes: usize) -> Self {
        Self::new(name, BPF_MAP_TYPE_ARRAY, [size_of::<u32>(), bytes], 1, BPF_F_MMAPABLE)
    }

    const fn new(name: Name, map_type: u32, [key_size, value_size]: [usize; 2], max_entries: u32, flags: u32) -> Self {
        Self { map_type, key_size: key_size as u32, value_size: value_size as u32, max_entries, flags, name }
    }
}

/// Makes a map.
pub(crate) fn create_map(kind: &MapKind) -> Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        map_type: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        map_flags: u32,
        inner_map_fd: u32,
        numa_node: u32,
        map_name: Name,
    }
    let &MapKind { map_type, key_size, value_size, max_entries, flags, name } = kind;
    let attributes = Attributes {
        map_type,
        key_size,
        value_size,
        max_entries,
        map_flags: flags,
        inner_map_fd: 0,
        numa_node: 0,
        map_name: name,
    };
    // SAFETY: the attributes are those of this command and hold no pointer.
    unsafe { descriptor(BPF_MAP_CREATE, &attributes) }.map_err(|cause| {
        let what = match map_type {
            BPF_MAP_TYPE_SOCKMAP => "create the map of sockets",
            BPF_MAP_TYPE_HASH => "create a map of numbers",
            _ => "make memory for programs",
        };
        failed(what, cause)
    })
}

/// Another descriptor of a map.
pub(crate) fn copy(map: BorrowedFd<'_>) -> Result<OwnedFd> {
    map.try_clone_to_owned().map_err(|cause| failed("copy the descriptor of a map", cause))
}

/// Writes the value of a map of [`MapKind::value`] or [`MapKind::shared_value`], which has that size. Who reads meanwhile sees a
/// part of it.
pub(crate) fn write_value(map: BorrowedFd<'_>, value: &[u8]) -> Result<()> {
    update(map, &0u32.to_ne_bytes(), value).map_err(|cause| failed("write a value for programs", cause))
}

/// Puts a socket into a map of [`MapKind::sockets`]. The map does not keep it open: a closed socket leaves it.
pub(crate) fn put_socket(map: BorrowedFd<'_>, key: u32, socket: BorrowedFd<'_>) -> Result<()> {
    let socket: u64 = number(socket).into();
    update(map, &key.to_ne_bytes(), &socket.to_ne_bytes())
        .map_err(|cause| failed("put a steered socket into the map of sockets", cause))
}

/// Puts a number into a map of [`MapKind::numbers`], in place of the one that has the key.
pub(crate) fn put_number(map: BorrowedFd<'_>, key: [u8; 8], value: u32) -> Result<()> {
    update(map, &key, &value.to_ne_bytes()).map_err(|cause| failed("put a number into a map", cause))
}

/// Takes the number of that key out of a map of [`MapKind::numbers`], if there is one.
pub(crate) fn remove_number(map: BorrowedFd<'_>, key: [u8; 8]) -> Result<()> {
    let key = (&raw const key).addr() as u64;
    let attributes = Entry { map_fd: number(map), padding: 0, key, value: 0, flags: 0 };
    // SAFETY: the key has the size that the map was made with and outlives the call, which only reads it.
    match unsafe { bpf(BPF_MAP_DELETE_ELEM, &attributes) } {
        Err(cause) if cause.raw_os_error() != Some(libc::ENOENT) => Err(failed("take a number out of a map", cause)),
        _ => Ok(()),
    }
}

/// All that is in a map of [`MapKind::numbers`] that nobody else writes into.
pub(crate) fn numbers(map: BorrowedFd<'_>) -> Result<Vec<([u8; 8], u32)>> {
    let mut numbers = Vec::new();
    loop {
        let before = numbers.last().map(|(key, _)| key);
        match next_number(map, before) {
            Ok(Some(number)) => numbers.push(number),
            Ok(None) => return Ok(numbers),
            Err(cause) => return Err(failed("read a map of numbers", cause)),
        }
    }
}

/// The entry after the one with that key, in the map's own order.
fn next_number(map: BorrowedFd<'_>, before: Option<&[u8; 8]>) -> io::Result<Option<([u8; 8], u32)>> {
    let (mut key, mut value) = ([0u8; 8], 0u32);
    let before = before.map_or(0, |before| before.as_ptr().addr() as u64);
    let attributes = Entry {
        map_fd: number(map),
        padding: 0,
        key: before,
        value: (&raw mut key).expose_provenance() as u64,
        flags: 0,
    };
    // SAFETY: both keys have the size that the map was made with and outlive the call, which reads the first, if there is one,
    // and writes the second.
    match unsafe { bpf(BPF_MAP_GET_NEXT_KEY, &attributes) } {
        Err(cause) if cause.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        result => result?,
    };
    let attributes = Entry {
        map_fd: number(map),
        padding: 0,
        key: (&raw const key).addr() as u64,
        value: (&raw mut value).expose_provenance() as u64,
        flags: 0,
    };
    // SAFETY: key and value have the sizes that the map was made with and outlive the call, which reads the key and writes the
    // value.
    unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &attributes) }?;
    Ok(Some((key, value)))
}

/// Puts a value into a map that was made for keys and values of these sizes.
fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    let (key, value) = (key.as_ptr().addr() as u64, value.as_ptr().addr() as u64);
    let attributes = Entry { map_fd: number(map), padding: 0, key, value, flags: 0 };
    // SAFETY: key and value have the sizes that the map was made with, as each caller's map has, and outlive the call, which
    // only reads them.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &attributes) }.map(|_zero| ())
}

/// The attributes of commands on a map's entry; `value` is 0 for those that take none, and the next key for the one that looks
/// for it.
#[repr(C)]
struct Entry {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}
