//! Runs the body of a fuzz target over its committed corpus and over random changes of it, as an ordinary test.
//!
//! A file of the corpus is named `taken-…` or `refused-…`, after what is to be made of it. Changes come from a seed, which a
//! failure prints; `RINGLB_SEED=<seed>` runs that one again.

use fastrand::Rng;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// The memory that the whole test may have. What makes somebody else's input larger than this has no limit.
const MEMORY: u64 = 4 << 30;
/// The longest input.
const LONGEST: usize = 64 * 1024;

/// Runs `body`, which says whether it took an input, over the files in `corpus` and `changes` changes of them. `words` are
/// what changes insert besides bytes.
pub(crate) fn run(corpus: &Path, words: &[&[u8]], changes: u64, body: impl Fn(&[u8]) -> bool) {
    let (_, hard) = getrlimit(Resource::RLIMIT_AS).unwrap();
    setrlimit(Resource::RLIMIT_AS, MEMORY.min(hard), hard).unwrap();
    let corpus = read(corpus);
    let wanted = std::env::var("RINGLB_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    if wanted.is_none() {
        for (name, input) in &corpus {
            let taken = run_one(name, input, &body);
            assert_eq!(taken, name.starts_with("taken-"), "{name}: taken?");
        }
    }
    let base = wanted.unwrap_or_else(|| fastrand::u64(..));
    let changes = if wanted.is_some() { 1 } else { changes };
    println!("{changes} changes, first seed {base}");
    let (mut taken, mut refused) = (0, 0);
    for seed in (0..changes).map(|offset| base.wrapping_add(offset)) {
        let input = change(&corpus, words, &mut Rng::with_seed(seed));
        match run_one(&format!("RINGLB_SEED={seed}"), &input, &body) {
            true => taken += 1,
            false => refused += 1,
        }
    }
    println!("{taken} taken, {refused} refused");
    assert!(wanted.is_some() || taken.min(refused) > changes / 100, "too few of one kind: {taken} and {refused}");
}

fn read(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut corpus: Vec<_> = std::fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .filter(|(name, _)| name.starts_with("taken-") || name.starts_with("refused-"))
        .collect();
    // The order of a directory is not the same everywhere, and a seed means the same change only in the same order.
    corpus.sort();
    let taken = corpus.iter().filter(|(name, _)| name.starts_with("taken-")).count();
    assert!(taken.min(corpus.len() - taken) >= 5, "there are too few files in {}", directory.display());
    corpus
}

fn run_one(what: &str, input: &[u8], body: impl Fn(&[u8]) -> bool) -> bool {
    catch_unwind(AssertUnwindSafe(|| body(input)))
        .unwrap_or_else(|_| panic!("{what} fails, {} bytes: {}", input.len(), input.escape_ascii()))
}

/// A file, sometimes with the end of another one, with one to four changes.
fn change(corpus: &[(String, Vec<u8>)], words: &[&[u8]], random: &mut Rng) -> Vec<u8> {
    // Refused files come first. Most changes of one are refused too: those of the others are tried as often.
    let refused = corpus.partition_point(|(name, _)| name.starts_with("refused-"));
    let file = |random: &mut Rng| {
        let half = if random.bool() { &corpus[..refused] } else { &corpus[refused..] };
        half[random.usize(..half.len())].1.clone()
    };
    let mut input = file(random);
    if random.u8(..8) == 0 {
        let other = file(random);
        input.truncate(random.usize(..=input.len()));
        input.extend_from_slice(&other[random.usize(..=other.len())..]);
    }
    let changes = if random.bool() { 1 } else { random.usize(2..=4) };
    for _ in 0..changes {
        let start = random.usize(..=input.len());
        let end = random.usize(start..=input.len().min(start + 40));
        match random.u8(..9) {
            0 if start < input.len() => input[start] ^= 1 << random.u8(..8),
            1 if start < input.len() => input[start] = [0, 1, 0x7f, 0x80, 0xfe, 0xff][random.usize(..6)],
            2 if start < input.len() => input[start] = random.u8(..),
            3 if start < input.len() => input[start] = input[start].wrapping_add_signed(random.i8(-2..=2)),
            4 => drop(input.drain(start..end)),
            5 => drop(input.splice(start..start, input[start..end].to_vec())),
            6 => drop(input.splice(start..end, words[random.usize(..words.len())].iter().copied())),
            7 => drop(input.splice(start..start, words[random.usize(..words.len())].iter().copied())),
            _ => input.truncate(end.max(input.len() / 2)),
        }
    }
    input.truncate(LONGEST);
    input
}
