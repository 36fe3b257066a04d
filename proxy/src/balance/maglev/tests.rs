use super::*;
use proptest::prelude::*;
use std::net::Ipv4Addr;

fn address(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0001 + number))
}

fn equal(count: u32) -> Vec<(IpAddr, u32)> {
    (0..count).map(|number| (address(number), 1)).collect()
}

/// Each entry's backend by its address, which means the same in two tables.
fn owners(backends: &[(IpAddr, u32)], least: u32) -> Vec<IpAddr> {
    Maglev::new(backends, least).entries.iter().map(|&position| backends[usize::from(position)].0).collect()
}

fn moved(one: &[IpAddr], two: &[IpAddr]) -> usize {
    assert_eq!(one.len(), two.len());
    one.iter().zip(two).filter(|(one, two)| one != two).count()
}

#[test]
fn sizes_are_prime_and_suffice() {
    for (size, most) in SIZES {
        let is_prime = (2..size).take_while(|divisor| divisor * divisor <= size).all(|divisor| size % divisor != 0);
        assert!(is_prime, "{size}");
        assert!(size as usize >= 100 * most && size as usize >= 3 * most * most, "{size}");
        assert_eq!(size_for(most), size);
        assert_eq!(size_for(most + 1), SIZES.map(|(size, _)| size).into_iter().find(|&s| s > size).unwrap_or(size));
    }
    assert_eq!(size_for(0), 5_003);
    assert_eq!(size_for(6_553), 655_373);
}

#[test]
fn a_table_does_not_shrink() {
    let large = Maglev::new(&equal(41), 0);
    assert_eq!(large.size(), 65_537);
    assert_eq!(Maglev::new(&equal(1), large.size()).size(), 65_537);
    let empty = Maglev::new(&[], large.size());
    assert_eq!((empty.size(), empty.find(7, |_| true)), (65_537, None));
}

#[test]
fn what_is_not_acceptable_is_passed_over() {
    let table = Maglev::new(&equal(5), 0);
    for client in 0..5_003 {
        let first = table.find(client, |_| true).unwrap();
        let second = table.find(client, |position| position != first).unwrap();
        assert_ne!(first, second);
        assert_eq!(table.find(client, |position| position != first), Some(second));
        assert_eq!(table.find(client, |_| false), None);
    }
}

/// The share of entries that differ between the table of all and that without one, in units of 1/n.
fn moved_by(all: &[(IpAddr, u32)], with: &[IpAddr], gone: usize) -> f64 {
    let mut fewer = all.to_vec();
    fewer.remove(gone);
    let without = owners(&fewer, u32::try_from(with.len()).unwrap());
    moved(with, &without) as f64 * all.len() as f64 / with.len() as f64
}

/// At the most backends of each size, where it is worst. Adding and removing are the same pair of tables.
#[test]
fn one_of_n_moves_at_most_two_nths() {
    for ((size, most), step) in SIZES.into_iter().zip([1, 7, 100]) {
        let all = equal(u32::try_from(most).unwrap());
        let with = owners(&all, 0);
        assert_eq!(with.len(), size as usize);
        for gone in (0..most).step_by(step) {
            let moved = moved_by(&all, &with, gone);
            assert!((0.98..2.0).contains(&moved), "{most} backends without number {gone}: {moved}/n");
        }
    }
}

/// The order of turns and the hash are a promise: another version must place the same clients at the same backends. The
/// expected values come from a second implementation of the definition, in another language.
#[test]
fn a_table_is_the_same_for_ever() {
    let backends = [(address(0), 1), (address(1), 2), (address(2), 5)];
    let table = Maglev::new(&backends, 0);
    let digest = table.entries.iter().fold(0u64, |digest, &entry| digest.wrapping_mul(31).wrapping_add(entry.into()));
    assert_eq!((table.size(), digest), (5_003, 0xb450_6b69_dc5d_64bb));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The bounds of the module's documentation for each backend's number of entries, whatever the weights.
    #[test]
    fn entries_are_shared_by_weight(
        weights in prop::collection::vec(prop_oneof![1u32..10, 1u32..=65_535 * 100], 1..60),
    ) {
        let backends: Vec<_> = (0u32..).map(address).zip(weights.iter().copied()).collect();
        let table = Maglev::new(&backends, 0);
        let whole: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
        let mut counts = vec![0u32; backends.len()];
        for &position in &table.entries {
            counts[usize::from(position)] += 1;
        }
        prop_assert_eq!(counts.iter().sum::<u32>(), table.size());
        for (&count, &weight) in counts.iter().zip(&weights) {
            let (share, count) = (f64::from(weight) / whole, f64::from(count));
            let (size, number) = (f64::from(table.size()), backends.len() as f64);
            prop_assert!(count >= 1.0);
            prop_assert!(count >= share * (size - number) - 1e-6, "{count} of {size} for {weight} of {whole}");
            prop_assert!(count <= share * size + 1.0 + 1e-6, "{count} of {size} for {weight} of {whole}");
        }
    }

    /// The order in which a proxy learnt of the backends makes no difference, nor does when the table is made.
    #[test]
    fn the_same_backends_make_the_same_table(
        backends in prop::collection::hash_map(0u32..1_000, 1u32..100, 1..30),
        seed in any::<u64>(),
    ) {
        let one: Vec<_> = backends.into_iter().map(|(number, weight)| (address(number), weight)).collect();
        let mut two = one.clone();
        fastrand::Rng::with_seed(seed).shuffle(&mut two);
        prop_assert_eq!(owners(&one, 0), owners(&two, 0));
    }
}

/// What is said of sets of addresses in the module's documentation, at the most backends of the smallest size.
#[test]
fn nearly_every_set_of_addresses_is_as_stable() {
    let mut random = fastrand::Rng::with_seed(1);
    let mut moved: Vec<_> = (0..5_000)
        .map(|_| {
            let all: Vec<_> = (0..20).map(|_| (address(random.u32(..1 << 24)), 1)).collect();
            moved_by(&all, &owners(&all, 0), random.usize(..all.len()))
        })
        .collect();
    moved.sort_unstable_by(f64::total_cmp);
    let [median, nearly_worst, worst] = [2_500, 4_975, 4_999].map(|rank| moved[rank]);
    assert!(median < 1.4 && nearly_worst < 2.0 && worst < 3.0, "{median} {nearly_worst} {worst}");
}
