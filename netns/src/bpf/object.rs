//! Programs and maps that are in the kernel already: found by their numbers, told by their names.

use super::{MapKind, Name, bpf_answered, descriptor, failed, number};
use crate::Result;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_MAP_GET_FD_BY_ID: libc::c_long = 14;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;

/// More maps than a program has that this is asked of: of somebody else's, some may be missing.
const MAPS: usize = 16;

/// A map that a program uses.
#[derive(Debug)]
pub(crate) struct UsedMap {
    pub(crate) kind: MapKind,
    pub(crate) descriptor: OwnedFd,
}

/// The maps that a program uses.
pub(crate) fn maps_of(program: BorrowedFd<'_>) -> Result<Vec<UsedMap>> {
    let mut ids = [0; MAPS];
    let told = about_program(program, &mut ids).map_err(|cause| failed("look up the maps of a program", cause))?;
    let used = ids.iter().take(told.map_count as usize).map(|id| {
        let descriptor = by_id(BPF_MAP_GET_FD_BY_ID, *id)?;
        Ok(UsedMap { kind: kind_of(descriptor.as_fd())?, descriptor })
    });
    used.collect::<io::Result<_>>().map_err(|cause| failed("open the maps of a program", cause))
}

/// The program with that number, and its name; `None` if there is none any more.
pub(super) fn program(id: u32) -> io::Result<Option<(Name, OwnedFd)>> {
    match by_id(BPF_PROG_GET_FD_BY_ID, id) {
        Ok(program) => Ok(Some((about_program(program.as_fd(), &mut [])?.name, program))),
        Err(cause) if cause.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(cause) => Err(cause),
    }
}

fn by_id(command: libc::c_long, id: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        id: u32,
        next_id: u32,
        open_flags: u32,
    }
    // SAFETY: the attributes are those of both commands, which open what has the number, and hold no pointer.
    unsafe { descriptor(command, &Attributes { id, next_id: 0, open_flags: 0 }) }
}

/// The beginning of `struct bpf_prog_info`.
#[derive(Default)]
#[repr(C)]
struct ProgramInfo {
    program_type: u32,
    id: u32,
    tag: [u8; 8],
    jited_length: u32,
    translated_length: u32,
    jited_instructions: u64,
    translated_instructions: u64,
    load_time: u64,
    created_by: u32,
    map_count: u32,
    map_ids: u64,
    name: Name,
}

/// The beginning of `struct bpf_map_info`.
#[derive(Default)]
#[repr(C)]
struct MapInfo {
    map_type: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    name: Name,
}

/// What the kernel says of a program, and the numbers of its maps as far as there is room.
fn about_program(program: BorrowedFd<'_>, map_ids: &mut [u32]) -> io::Result<ProgramInfo> {
    let room = u32::try_from(map_ids.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut info = ProgramInfo {
        map_count: room,
        map_ids: map_ids.as_mut_ptr().expose_provenance() as u64,
        ..ProgramInfo::default()
    };
    // SAFETY: the information is that of programs; its only pointer is to numbers that are borrowed mutably, and it says how many
    // have room there.
    unsafe { about(program, &mut info) }?;
    Ok(info)
}

fn kind_of(map: BorrowedFd<'_>) -> io::Result<MapKind> {
    let mut info = MapInfo::default();
    // SAFETY: the information is that of maps and holds no pointer.
    unsafe { about(map, &mut info) }?;
    let MapInfo { map_type, key_size, value_size, max_entries, flags, name, .. } = info;
    Ok(MapKind { map_type, key_size, value_size, max_entries, flags, name })
}

/// # Safety
/// The information must be laid out as the kernel's of such an object, of integers alone; pointers in it must be valid for what
/// is written there.
unsafe fn about<I>(object: BorrowedFd<'_>, info: &mut I) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }
    let mut attributes = Attributes {
        bpf_fd: number(object),
        info_len: size_of::<I>() as u32,
        info: (&raw mut *info).expose_provenance() as u64,
    };
    // SAFETY: the information has the length that is said and is borrowed mutably; the kernel writes that length back. The rest is
    // passed on to the caller.
    unsafe { bpf_answered(BPF_OBJ_GET_INFO_BY_FD, &mut attributes) }.map(|_zero| ())
}
