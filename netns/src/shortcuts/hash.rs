//! The hash by which maps that are shared with proxies are looked into: the same for programs and for Rust.

use super::packet::R0;
use crate::bpf::{Program, add_register, move_register, multiply, shift_right, xor_register};

/// Odd factors, less than 2³¹ as an instruction has room for.
const FACTORS: [i32; 3] = [0x61c8_8647, 0x2545_f491, 0x517c_c1b7];

/// The hash of addresses and ports, as they lie in memory.
pub(super) fn hash_of(words: [u32; 3]) -> u32 {
    let words = words.into_iter().zip(FACTORS);
    let sum =
        words.fold(0u64, |sum, (word, factor)| sum.wrapping_add(u64::from(word) * u64::from(factor.unsigned_abs())));
    // Ports that follow each other, as a kernel gives them out, would meet without the second product.
    let mixed = (sum ^ sum >> 32).wrapping_mul(u64::from(FACTORS[0].unsigned_abs()));
    (mixed >> 32) as u32
}

/// Has the first register be that of what is in the first two, and in `R0`, which is lost.
pub(super) fn hash<Label: Copy + PartialEq>(program: &mut Program<Label>, [first, second]: [u8; 2]) {
    for (word, factor) in [first, second, R0].into_iter().zip(FACTORS) {
        program.push(multiply(word, factor));
    }
    program.push(add_register(first, second));
    program.push(add_register(first, R0));
    program.push(move_register(R0, first));
    program.push(shift_right(R0, 32));
    program.push(xor_register(first, R0));
    program.push(multiply(first, FACTORS[0]));
    program.push(shift_right(first, 32));
}
