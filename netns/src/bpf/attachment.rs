//! Programs at interfaces (`tcx`): each gets what the interface receives, after the one before it has let it go on. They stay
//! when the process ends that has attached them, until they are detached or the interface goes. Interfaces are those of the calling
//! thread's namespace.

use super::{Hook, Name, bpf, bpf_answered, failed, number, object};
use crate::Result;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_DETACH: libc::c_long = 9;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_F_REPLACE: u32 = 1 << 2;
const BPF_F_BEFORE: u32 = 1 << 3;

/// As many as there can be at an interface (`BPF_MPROG_MAX`, include/linux/bpf_mprog.h).
const MOST_PROGRAMS: usize = 64;

/// A program at an interface.
#[derive(Debug)]
pub(crate) struct Attached {
    /// Its number in the kernel.
    pub(crate) id: u32,
    pub(crate) name: Name,
    pub(crate) descriptor: OwnedFd,
}

/// The programs at an interface, in their order; none if there is no such interface.
pub(crate) fn programs_at(index: u32) -> Result<Vec<Attached>> {
    let look = || {
        let mut programs = Vec::new();
        for id in query(index)? {
            let program = object::program(id)?;
            programs.extend(program.map(|(name, descriptor)| Attached { id, name, descriptor }));
        }
        Ok(programs)
    };
    look().map_err(|cause| failed("look for programs at an interface", cause))
}

/// Attaches a program, which must not be there yet, before that one, or as the last.
pub(crate) fn attach_at(index: u32, program: BorrowedFd<'_>, before: Option<&Attached>) -> Result<()> {
    let mut attributes = Attachment::of(index, program);
    if let Some(before) = before {
        attributes.flags = BPF_F_BEFORE;
        attributes.relative_fd = number(before.descriptor.as_fd());
    }
    attributes.call(BPF_PROG_ATTACH).map_err(|cause| failed("attach a program to an interface", cause))
}

/// Puts a program in the place of another one; no packet comes between the two. One that is there already stays. False if the old
/// one is not there any more, or the interface.
pub(crate) fn replace_at(index: u32, old: &Attached, new: BorrowedFd<'_>) -> Result<bool> {
    let mut attributes = Attachment::of(index, new);
    attributes.flags = BPF_F_REPLACE;
    attributes.replace_bpf_fd = number(old.descriptor.as_fd());
    match attributes.call(BPF_PROG_ATTACH) {
        Ok(()) => Ok(true),
        Err(cause) if cause.raw_os_error() == Some(libc::EEXIST) => Ok(true),
        Err(cause) if is_gone(&cause) => Ok(false),
        Err(cause) => Err(failed("replace a program at an interface", cause)),
    }
}

/// Takes a program away, if it and the interface are there.
pub(crate) fn detach_from(index: u32, program: BorrowedFd<'_>) -> Result<()> {
    match Attachment::of(index, program).call(BPF_PROG_DETACH) {
        Err(cause) if is_gone(&cause) => Ok(()),
        result => result.map_err(|cause| failed("detach a program from an interface", cause)),
    }
}

/// The numbers of the programs at an interface.
fn query(index: u32) -> io::Result<Vec<u32>> {
    #[repr(C)]
    struct Attributes {
        target_ifindex: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        prog_ids: u64,
        count: u32,
        padding: u32,
        prog_attach_flags: u64,
        link_ids: u64,
        link_attach_flags: u64,
        revision: u64,
    }
    let mut ids = vec![0; MOST_PROGRAMS];
    let mut attributes = Attributes {
        target_ifindex: index,
        attach_type: Hook::Ingress.attach_type(),
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr().expose_provenance() as u64,
        count: MOST_PROGRAMS as u32,
        padding: 0,
        prog_attach_flags: 0,
        link_ids: 0,
        link_attach_flags: 0,
        revision: 0,
    };
    // SAFETY: the attributes are those of this command; its only pointer is to numbers that outlive the call and are not used
    // otherwise meanwhile, and it says how many have room there.
    match unsafe { bpf_answered(BPF_PROG_QUERY, &mut attributes) } {
        Err(cause) if is_gone(&cause) => return Ok(Vec::new()),
        result => result?,
    };
    ids.truncate(attributes.count as usize);
    Ok(ids)
}

/// No such interface, or no program of that kind there.
fn is_gone(cause: &io::Error) -> bool {
    matches!(cause.raw_os_error(), Some(libc::ENODEV | libc::ENOENT))
}

#[repr(C)]
struct Attachment {
    target_ifindex: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    flags: u32,
    replace_bpf_fd: u32,
    relative_fd: u32,
    expected_revision: u64,
}

impl Attachment {
    fn of(index: u32, program: BorrowedFd<'_>) -> Self {
        Self {
            target_ifindex: index,
            attach_bpf_fd: number(program),
            attach_type: Hook::Ingress.attach_type(),
            flags: 0,
            replace_bpf_fd: 0,
            relative_fd: 0,
            expected_revision: 0,
        }
    }

    fn call(&self, command: libc::c_long) -> io::Result<()> {
        // SAFETY: the attributes are those of both commands and hold no pointer.
        unsafe { bpf(command, self) }.map(|_zero| ())
    }
}
