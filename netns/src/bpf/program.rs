//! BPF programs with named places to jump to. The instruction set:
//! Documentation/bpf/standardization/instruction-set.rst.

use super::Instruction;
use std::os::fd::{AsRawFd, BorrowedFd};

/// A program that is being written. Each label is given once, after all jumps to it; only [`Program::jump_back`] makes loops.
#[derive(Debug)]
pub(crate) struct Program<Label> {
    instructions: Vec<Instruction>,
    /// Jumps whose label has not been given yet, by their places.
    open_jumps: Vec<(usize, Label)>,
}

impl<Label: Copy + PartialEq> Program<Label> {
    pub(crate) const fn new() -> Self {
        Self { instructions: Vec::new(), open_jumps: Vec::new() }
    }

    pub(crate) fn push(&mut self, instruction: Instruction) {
        self.instructions.push(instruction);
    }

    pub(crate) fn extend(&mut self, instructions: impl IntoIterator<Item = Instruction>) {
        self.instructions.extend(instructions);
    }

    /// Where the next instruction will be.
    pub(crate) const fn here(&self) -> usize {
        self.instructions.len()
    }

    /// Jumps to an instruction that is there already. The verifier must see that it ends (Linux 5.3).
    pub(crate) fn jump_back(&mut self, instruction: Instruction, to: usize) {
        let distance = i16::try_from(self.here() + 1 - to).map_or(i16::MIN, |distance| -distance);
        self.instructions.push(instruction.with_offset(distance));
    }

    pub(crate) fn jump(&mut self, instruction: Instruction, to: Label) {
        self.open_jumps.push((self.instructions.len(), to));
        self.instructions.push(instruction);
    }

    /// Makes the jumps to this label end here.
    pub(crate) fn label(&mut self, label: Label) {
        let here = self.instructions.len();
        let instructions = &mut self.instructions;
        self.open_jumps.retain(|(place, to)| {
            if *to != label {
                return true;
            }
            // An offset counts the instructions in between; the verifier takes no program that is too long for it.
            let distance = i16::try_from(here - place - 1).unwrap_or(i16::MAX);
            instructions[*place] = instructions[*place].with_offset(distance);
            false
        });
    }

    /// The program, which ends with that result.
    pub(crate) fn finish(mut self, result: i32) -> Vec<Instruction> {
        self.push(move_value(0, result));
        self.push(exit());
        self.instructions
    }
}

pub(crate) const fn move_register(to: u8, from: u8) -> Instruction {
    Instruction::new(0xbf, to, from, 0, 0)
}

pub(crate) const fn move_value(to: u8, value: i32) -> Instruction {
    Instruction::new(0xb7, to, 0, 0, value)
}

pub(crate) const fn add(to: u8, value: i32) -> Instruction {
    Instruction::new(0x07, to, 0, 0, value)
}

pub(crate) const fn add_register(to: u8, from: u8) -> Instruction {
    Instruction::new(0x0f, to, from, 0, 0)
}

/// On the lower 32 bits, as those that follow with `word` in their name; the upper become zero.
pub(crate) const fn add_word(to: u8, from: u8) -> Instruction {
    Instruction::new(0x0c, to, from, 0, 0)
}

pub(crate) const fn subtract_word(to: u8, from: u8) -> Instruction {
    Instruction::new(0x1c, to, from, 0, 0)
}

pub(crate) const fn negate_word(to: u8) -> Instruction {
    Instruction::new(0x84, to, 0, 0, 0)
}

pub(crate) const fn or_word(to: u8, from: u8) -> Instruction {
    Instruction::new(0x4c, to, from, 0, 0)
}

pub(crate) const fn or_word_value(to: u8, value: i32) -> Instruction {
    Instruction::new(0x44, to, 0, 0, value)
}

pub(crate) const fn xor_word_value(to: u8, value: i32) -> Instruction {
    Instruction::new(0xa4, to, 0, 0, value)
}

pub(crate) const fn shift_word_left_by(to: u8, bits: u8) -> Instruction {
    Instruction::new(0x6c, to, bits, 0, 0)
}

pub(crate) const fn shift_word_right_by(to: u8, bits: u8) -> Instruction {
    Instruction::new(0x7c, to, bits, 0, 0)
}

pub(crate) const fn shift_word_left(to: u8, bits: i32) -> Instruction {
    Instruction::new(0x64, to, 0, 0, bits)
}

pub(crate) const fn shift_word_right(to: u8, bits: i32) -> Instruction {
    Instruction::new(0x74, to, 0, 0, bits)
}

/// From network byte order to the machine's, or the other way around.
pub(crate) const fn swap_word(register: u8) -> Instruction {
    Instruction::new(0xdc, register, 0, 0, 32)
}

/// The same of the lower 16 bits; the others become zero.
pub(crate) const fn swap_half_word(register: u8) -> Instruction {
    Instruction::new(0xdc, register, 0, 0, 16)
}

pub(crate) const fn xor_register(to: u8, from: u8) -> Instruction {
    Instruction::new(0xaf, to, from, 0, 0)
}

pub(crate) const fn multiply(to: u8, by: i32) -> Instruction {
    Instruction::new(0x27, to, 0, 0, by)
}

pub(crate) const fn shift_left(to: u8, bits: i32) -> Instruction {
    Instruction::new(0x67, to, 0, 0, bits)
}

/// Fills with zeros.
pub(crate) const fn shift_right(to: u8, bits: i32) -> Instruction {
    Instruction::new(0x77, to, 0, 0, bits)
}

/// On the lower 32 bits; the upper become zero.
pub(crate) const fn and(to: u8, value: i32) -> Instruction {
    Instruction::new(0x54, to, 0, 0, value)
}

pub(crate) const fn load_word(to: u8, from: u8, offset: i16) -> Instruction {
    Instruction::new(0x61, to, from, offset, 0)
}

pub(crate) const fn load_double_word(to: u8, from: u8, offset: i16) -> Instruction {
    Instruction::new(0x79, to, from, offset, 0)
}

pub(crate) const fn load_byte(to: u8, from: u8, offset: i16) -> Instruction {
    Instruction::new(0x71, to, from, offset, 0)
}

pub(crate) const fn load_half_word(to: u8, from: u8, offset: i16) -> Instruction {
    Instruction::new(0x69, to, from, offset, 0)
}

pub(crate) const fn store_half_word_of(to: u8, offset: i16, from: u8) -> Instruction {
    Instruction::new(0x6b, to, from, offset, 0)
}

pub(crate) const fn store_half_word(to: u8, offset: i16, value: i32) -> Instruction {
    Instruction::new(0x6a, to, 0, offset, value)
}

pub(crate) const fn store_word_of(to: u8, offset: i16, from: u8) -> Instruction {
    Instruction::new(0x63, to, from, offset, 0)
}

pub(crate) const fn store_double_word_of(to: u8, offset: i16, from: u8) -> Instruction {
    Instruction::new(0x7b, to, from, offset, 0)
}

pub(crate) const fn store_word(to: u8, offset: i16, value: i32) -> Instruction {
    Instruction::new(0x62, to, 0, offset, value)
}

/// Puts a word into memory if `R0` is there, and what is there before into `R0` (Linux 5.12).
pub(crate) const fn exchange_word_if_same(to: u8, offset: i16, from: u8) -> Instruction {
    Instruction::new(0xc3, to, from, offset, 0xf1)
}

/// Puts a word into memory after all that came before, and what was there into the register (Linux 5.12).
pub(crate) const fn exchange_word(to: u8, offset: i16, register: u8) -> Instruction {
    Instruction::new(0xc3, to, register, offset, 0xe1)
}

/// Adds to a double word of memory that others change too.
pub(crate) const fn atomic_add(to: u8, offset: i16, from: u8) -> Instruction {
    Instruction::new(0xdb, to, from, offset, 0)
}

/// Adds to a word of memory and puts what it was before into the register (`BPF_FETCH`, Linux 5.12): nothing that comes before
/// or after is moved past it.
pub(crate) const fn atomic_fetch_add_word(to: u8, offset: i16, register: u8) -> Instruction {
    Instruction::new(0xc3, to, register, offset, 1)
}

/// Compares the lower 32 bits: the 64-bit comparison would extend an address's sign.
pub(crate) const fn jump_if_equal(register: u8, value: i32) -> Instruction {
    Instruction::new(0x16, register, 0, 0, value)
}

pub(crate) const fn jump_unless_equal(register: u8, value: i32) -> Instruction {
    Instruction::new(0x56, register, 0, 0, value)
}

/// Compares all 64 bits, as the verifier wants for pointers.
pub(crate) const fn jump_if_zero(register: u8) -> Instruction {
    Instruction::new(0x15, register, 0, 0, 0)
}

/// Compares all 64 bits.
pub(crate) const fn jump_unless_zero(register: u8) -> Instruction {
    Instruction::new(0x55, register, 0, 0, 0)
}

/// Compares all 64 bits.
pub(crate) const fn jump_unless_same(register: u8, other: u8) -> Instruction {
    Instruction::new(0x5d, register, other, 0, 0)
}

/// Compares the lower 32 bits.
pub(crate) const fn jump_unless_same_word(register: u8, other: u8) -> Instruction {
    Instruction::new(0x5e, register, other, 0, 0)
}

/// Compares the lower 32 bits.
pub(crate) const fn jump_if_same_word(register: u8, other: u8) -> Instruction {
    Instruction::new(0x1e, register, other, 0, 0)
}

/// Whether the lower 32 bits are a number above zero, with a sign.
pub(crate) const fn jump_if_positive_word(register: u8) -> Instruction {
    Instruction::new(0x66, register, 0, 0, 0)
}

/// Whether the lower 32 bits are zero or a number below, with a sign.
pub(crate) const fn jump_unless_positive_word(register: u8) -> Instruction {
    Instruction::new(0xd6, register, 0, 0, 0)
}

/// Compares the lower 32 bits, without a sign.
pub(crate) const fn jump_unless_word_greater(register: u8, than: i32) -> Instruction {
    Instruction::new(0xb6, register, 0, 0, than)
}

/// Compares the lower 32 bits, without a sign.
pub(crate) const fn jump_if_word_greater(register: u8, than: i32) -> Instruction {
    Instruction::new(0x26, register, 0, 0, than)
}

/// Looks at the lower 32 bits.
pub(crate) const fn jump_if_any_bit(register: u8, of: i32) -> Instruction {
    Instruction::new(0x46, register, 0, 0, of)
}

/// Compares all 64 bits, without a sign.
pub(crate) const fn jump_if_greater(register: u8, than: u8) -> Instruction {
    Instruction::new(0x2d, register, than, 0, 0)
}

pub(crate) const fn jump_always() -> Instruction {
    Instruction::new(0x05, 0, 0, 0, 0)
}

/// `BPF_PSEUDO_MAP_FD`: the kernel puts the map's address where the descriptor's number is.
pub(crate) fn load_map(to: u8, map: BorrowedFd<'_>) -> [Instruction; 2] {
    [Instruction::new(0x18, to, 1, 0, map.as_raw_fd()), Instruction::new(0, 0, 0, 0, 0)]
}

/// `BPF_PSEUDO_MAP_VALUE` (Linux 5.2): the address of the value of a map that has one.
pub(crate) fn load_map_value(to: u8, map: BorrowedFd<'_>) -> [Instruction; 2] {
    [Instruction::new(0x18, to, 2, 0, map.as_raw_fd()), Instruction::new(0, 0, 0, 0, 0)]
}

pub(crate) const fn call(helper: i32) -> Instruction {
    Instruction::new(0x85, 0, 0, 0, helper)
}

pub(crate) const fn exit() -> Instruction {
    Instruction::new(0x95, 0, 0, 0, 0)
}
