//! The image of holders: one program that sleeps, in a few dozen bytes, so that nothing has to be fetched.

use super::ComposeError;
use std::io;

/// The image's name. Its tag is raised when its content changes.
pub(super) const NAME: &str = "ringlb-holder";
/// The image's tag.
pub(super) const TAG: &str = "1";
/// Both.
pub(crate) const REFERENCE: &str = "ringlb-holder:1";
/// The program's path in it.
pub(super) const PROGRAM: &str = "/sleep";

/// `again: mov eax, 34 (pause); syscall; jmp again`: pause(2) returns only when a signal was handled.
const X86_64: Machine = Machine { number: 62, code: &[0xb8, 0x22, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7] };

/// `again: mov x0..x4, 0; mov x8, 73 (ppoll); svc 0; b again`: ppoll(2) of nothing without a timeout, as there is no
/// pause(2).
const AARCH64: Machine = Machine {
    number: 183,
    code: &[
        0x00, 0x00, 0x80, 0xd2, 0x01, 0x00, 0x80, 0xd2, 0x02, 0x00, 0x80, 0xd2, 0x03, 0x00, 0x80, 0xd2, 0x04, 0x00,
        0x80, 0xd2, 0x28, 0x09, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4, 0xf9, 0xff, 0xff, 0x17,
    ],
};

/// A kind of processor, and how it is told to sleep.
struct Machine {
    /// `e_machine` (elf(5)).
    number: u16,
    code: &'static [u8],
}

/// A tar archive with the root file system of a holder, for the Engine's architecture, in its words.
pub(super) fn archive(architecture: &str) -> Result<Vec<u8>, ComposeError> {
    let machine = match architecture {
        "amd64" => X86_64,
        "arm64" => AARCH64,
        other => return Err(ComposeError::Architecture { architecture: other.to_owned() }),
    };
    let program = machine.program();
    let mut header = tar::Header::new_ustar();
    let mut write = || -> io::Result<Vec<u8>> {
        header.set_path(PROGRAM.trim_start_matches('/'))?;
        header.set_size(program.len() as u64);
        header.set_mode(0o555);
        header.set_cksum();
        let mut archive = tar::Builder::new(Vec::new());
        archive.append(&header, program.as_slice())?;
        archive.into_inner()
    };
    write().map_err(ComposeError::Image)
}

impl Machine {
    /// A statically linked program of one loadable segment (elf(5)): header, program header, code.
    fn program(&self) -> Vec<u8> {
        const HEADER: u16 = 64;
        const PROGRAM_HEADER: u16 = 56;
        const ADDRESS: u64 = 0x40_0000;
        /// As large as the largest pages of these machines.
        const ALIGNMENT: u64 = 0x1_0000;
        let start = u64::from(HEADER + PROGRAM_HEADER);
        let size = start + self.code.len() as u64;
        let mut program = Vec::new();
        // ELFCLASS64, ELFDATA2LSB, EV_CURRENT, ELFOSABI_NONE, padding.
        program.extend(b"\x7fELF\x02\x01\x01\x00\0\0\0\0\0\0\0\0");
        program.extend(2_u16.to_le_bytes()); // e_type: ET_EXEC
        program.extend(self.number.to_le_bytes());
        program.extend(1_u32.to_le_bytes()); // e_version
        program.extend((ADDRESS + start).to_le_bytes()); // e_entry
        program.extend(u64::from(HEADER).to_le_bytes()); // e_phoff
        program.extend(0_u64.to_le_bytes()); // e_shoff
        program.extend(0_u32.to_le_bytes()); // e_flags
        for half in [HEADER, PROGRAM_HEADER, 1, 0, 0, 0] {
            program.extend(half.to_le_bytes()); // e_ehsize, e_phentsize, e_phnum, and no sections
        }
        program.extend(1_u32.to_le_bytes()); // p_type: PT_LOAD
        program.extend(5_u32.to_le_bytes()); // p_flags: PF_R | PF_X
        for word in [0, ADDRESS, ADDRESS, size, size, ALIGNMENT] {
            program.extend(word.to_le_bytes()); // p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align
        }
        program.extend(self.code);
        program
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    fn program(architecture: &str) -> Vec<u8> {
        let archive = archive(architecture).unwrap();
        let mut archive = tar::Archive::new(archive.as_slice());
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap().to_str(), Some("sleep"));
        let mut program = Vec::new();
        entry.read_to_end(&mut program).unwrap();
        program
    }

    #[test]
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn the_program_of_this_machine_runs_and_sleeps() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sleep");
        fs::write(&path, program(if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" })).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o555)).unwrap();
        let mut child = Command::new(&path).spawn().unwrap();
        let state = || {
            let status = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
            status.rsplit(") ").next().unwrap().chars().next().unwrap()
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while state() != 'S' && Instant::now() < deadline {
            sleep(Duration::from_millis(5));
        }
        let state = state();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(state, 'S');
    }

    #[test]
    fn both_machines_have_a_program_that_jumps_back_to_its_start() {
        assert_eq!(program("amd64")[18], 62);
        let arm = program("arm64");
        assert_eq!(arm[18], 183);
        // The last word is a branch by that many words.
        let branch = u32::from_le_bytes(arm[arm.len() - 4..].try_into().unwrap());
        let words = ((branch << 6).cast_signed()) >> 6;
        assert_eq!(branch >> 26, 5);
        assert_eq!(usize::try_from(-words * 4).unwrap(), AARCH64.code.len() - 4);
    }

    #[test]
    fn the_reference_is_name_and_tag() {
        assert_eq!(REFERENCE, format!("{NAME}:{TAG}"));
    }

    #[test]
    fn another_machine_is_named() {
        assert!(archive("s390x").unwrap_err().to_string().contains("s390x"));
    }
}
