//! The control thread's ring: found among all descriptors and restricted. The only test of its program, as it looks for any
//! ring of the process that is not enabled yet.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unsafe_code, reason = "a ring is filled with operations that are to be refused")]

use io_uring::types::Fd;
use io_uring::{IoUring, Probe, opcode, squeue};
use ringlb_proxy::ring::{Ring, enable_for_control};

fn outcome(ring: &mut IoUring, entry: &squeue::Entry) -> i32 {
    // SAFETY: what the entries below point to is constant.
    unsafe { ring.submission().push(entry) }.unwrap();
    ring.submit_and_wait(1).unwrap();
    ring.completion().next().unwrap().result()
}

#[test]
fn the_control_ring_is_found_and_does_only_what_it_is_for() {
    let refused = enable_for_control().unwrap_err();
    assert!(refused.to_string().contains("restrictions of the control ring"), "{refused}");
    let _other = std::thread::spawn(|| Ring::new(std::time::Duration::ZERO).unwrap()).join().unwrap();
    let mut ring = IoUring::builder().setup_r_disabled().build(8).unwrap();
    enable_for_control().unwrap();
    assert_eq!(outcome(&mut ring, &opcode::Close::new(Fd(-1)).build()), -libc::EBADF);
    assert_eq!(outcome(&mut ring, &opcode::Write::new(Fd(-1), c"".as_ptr().cast(), 0).build()), -libc::EBADF);
    for entry in [
        opcode::OpenAt::new(Fd(libc::AT_FDCWD), c"/".as_ptr()).build(),
        opcode::Socket::new(libc::AF_UNIX, libc::SOCK_STREAM, 0).build(),
        opcode::Accept::new(Fd(0), std::ptr::null_mut(), std::ptr::null_mut()).build(),
    ] {
        assert_eq!(outcome(&mut ring, &entry), -libc::EACCES, "{entry:?}");
    }
    let denied = ring.submitter().register_probe(&mut Probe::new()).unwrap_err();
    assert_eq!(denied.raw_os_error(), Some(libc::EACCES));
}
