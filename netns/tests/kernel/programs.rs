//! Programs at interfaces, as others than this crate see and attach them.
#![allow(unsafe_code, reason = "bpf(2) has no safe wrapper without libbpf")]

use ringlb_netns::Namespace;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_QUERY: libc::c_long = 16;
const SCHED_CLS: u32 = 3;
const TCX_INGRESS: u32 = 46;

/// The numbers of the programs at what the namespace's interface receives, in their order.
pub(crate) fn programs_at(namespace: &Namespace, interface: &str) -> Vec<u32> {
    let mut ids = [0u32; 64];
    let to = ids.as_mut_ptr().expose_provenance() as u64;
    // target_ifindex and attach_type; flags; prog_ids; count; prog_attach_flags, link_ids, link_attach_flags, revision.
    let mut attributes =
        [two(index_of(namespace, interface), TCX_INGRESS), 0, to, two(ids.len() as u32, 0), 0, 0, 0, 0];
    namespace.run(|| bpf(BPF_PROG_QUERY, &mut attributes)).unwrap();
    let count = attributes[3] as u32 as usize;
    ids[..count].to_vec()
}

/// Attaches a program of that name that lets everything go on; gives its number.
pub(crate) fn attach_another(namespace: &Namespace, interface: &str, name: &str) -> u32 {
    // r0 = TCX_NEXT; exit
    let instructions: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    let (code, license) = (instructions.as_ptr().addr() as u64, c"GPL".as_ptr().addr() as u64);
    let half =
        |from| u64::from_ne_bytes(std::array::from_fn(|byte| name.as_bytes().get(from + byte).map_or(0, |b| *b)));
    // prog_type and insn_cnt; insns; license; log_level and log_size; log_buf; kern_version and prog_flags; prog_name.
    let mut attributes = [two(SCHED_CLS, 2), code, license, 0, 0, 0, half(0), half(8)];
    let program = bpf(BPF_PROG_LOAD, &mut attributes);
    // SAFETY: the kernel has just opened it for us.
    let program = unsafe { OwnedFd::from_raw_fd(program.try_into().unwrap()) };
    let of = two(index_of(namespace, interface), program.as_raw_fd().cast_unsigned());
    // target_ifindex and attach_bpf_fd; attach_type and attach_flags; replace_bpf_fd and relative_fd; expected_revision.
    namespace.run(|| bpf(BPF_PROG_ATTACH, &mut [of, two(TCX_INGRESS, 0), 0, 0])).unwrap();
    number_of(&program, "prog_id")
}

/// What the kernel calls a program or map (proc_pid_fdinfo(5)): `prog_id` or `map_id`.
pub(crate) fn number_of(object: &impl AsFd, kind: &str) -> u32 {
    let path = format!("/proc/self/fdinfo/{}", object.as_fd().as_raw_fd());
    let text = std::fs::read_to_string(path).unwrap();
    let number = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(':'));
    number.unwrap_or_else(|| panic!("{text}")).trim().parse().unwrap()
}

fn index_of(namespace: &Namespace, interface: &str) -> u32 {
    namespace.run(|| nix::net::if_::if_nametoindex(interface).unwrap()).unwrap()
}

/// Two fields of four bytes, as they lie in memory.
fn two(first: u32, second: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

fn bpf(command: libc::c_long, attributes: &mut [u64]) -> libc::c_long {
    // SAFETY: the callers' attributes are those of the command, with pointers to what outlives it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of_val(attributes)) };
    assert!(result >= 0, "command {command}: {}", std::io::Error::last_os_error());
    result
}
