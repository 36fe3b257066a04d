use super::*;
use proptest::prelude::*;
use std::net::Ipv4Addr;

const CLIENTS: u32 = 40_000;

fn address(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0001 + number))
}

/// Clients as they are: one subnet's addresses in a row.
fn client(number: u32) -> u64 {
    hash(Purpose::Client, IpAddr::V4(Ipv4Addr::from_bits(0x0a09_0000 + number)))
}

fn choices(backends: &[(IpAddr, u32)]) -> Vec<IpAddr> {
    let draws = Rendezvous::new(backends.iter().copied());
    (0..CLIENTS).map(|number| backends[draws.highest(client(number)).unwrap()].0).collect()
}

/// The number of clients in a group of probability `share` is binomial. Five standard deviations are exceeded about once in
/// two million times; the five clients on top are for small groups, where the tail is not that of a normal distribution.
fn assert_share(count: usize, share: f64, what: &str) -> Result<(), TestCaseError> {
    let clients = f64::from(CLIENTS);
    let tolerance = 5.0 * (clients * share * (1.0 - share)).sqrt() + 5.0;
    let expected = share * clients;
    prop_assert!((count as f64 - expected).abs() <= tolerance, "{what}: {count} instead of {expected} ± {tolerance}");
    Ok(())
}

/// The logarithm against the library's, over the whole range of draws.
#[test]
fn time_is_minus_the_logarithm() {
    let mut random = fastrand::Rng::with_seed(1);
    let edges = [0, 1, 1 << 12, 1 << 63, (1 << 63) - 1, u64::MAX, u64::MAX - (1 << 12), 0xb504_f333_f9de_6484];
    let draws = (0..100_000).map(|_| random.u64(..) >> random.u32(..64));
    for draw in edges.into_iter().chain(draws) {
        let exact = -(((draw >> 12) as f64 + 0.5) / (1u64 << 52) as f64).ln();
        assert!(time(draw) > 0.0 && (time(draw) / exact - 1.0).abs() < 1e-14, "{draw:#x}: {} {exact}", time(draw));
    }
}

#[test]
fn without_backends_there_is_no_choice() {
    assert_eq!(Rendezvous::new([]).highest(7), None);
}

/// The order in which bids are compared is a promise: another version must send the same clients to the same backends. The
/// expected values come from a second implementation of the definition, in another language.
#[test]
fn choices_are_the_same_for_ever() {
    let choices = choices(&[(address(0), 1), (address(1), 2), (address(2), 5)]);
    let expected = "2222222012002102112221221222200112002222111221212200111211002112";
    let number = |choice: &IpAddr| (0u32..3).find(|&number| address(number) == *choice).unwrap().to_string();
    assert_eq!(choices[..64].iter().map(number).collect::<String>(), expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The probability of each backend is its share; the order of the backends makes no difference.
    #[test]
    fn clients_are_shared_by_weight(
        backends in prop::collection::hash_map(0u32..60_000, prop_oneof![Just(1u32), 1u32..10, 1u32..=65_535 * 100], 1..16),
    ) {
        let mut backends: Vec<_> = backends.into_iter().map(|(number, weight)| (address(number), weight)).collect();
        let choices = choices(&backends);
        let whole: f64 = backends.iter().map(|&(_, weight)| f64::from(weight)).sum();
        for &(address, weight) in &backends {
            let count = choices.iter().filter(|&&choice| choice == address).count();
            assert_share(count, f64::from(weight) / whole, &format!("weight {weight} of {whole}"))?;
        }
        backends.reverse();
        prop_assert_eq!(self::choices(&backends), choices);
    }

    /// Of n equal backends one goes: only its own clients move, 1/n of all, and they spread evenly over the others.
    #[test]
    fn only_the_clients_of_a_backend_that_goes_move(n in 2u32..16, gone in any::<prop::sample::Index>()) {
        let all: Vec<_> = (0..n).map(|number| (address(number), 1)).collect();
        let mut fewer = all.clone();
        let (gone, _) = fewer.remove(gone.index(all.len()));
        let pairs: Vec<_> = choices(&all).into_iter().zip(choices(&fewer)).collect();
        prop_assert!(pairs.iter().all(|(before, after)| before == after || *before == gone));
        let share = 1.0 / f64::from(n);
        assert_share(pairs.iter().filter(|(before, after)| before != after).count(), share, "those that move")?;
        for (address, _) in fewer {
            let taken = pairs.iter().filter(|&&(before, after)| before == gone && after == address).count();
            assert_share(taken, share / f64::from(n - 1), "those that one of the others takes")?;
        }
    }

    /// A weight that grows takes clients to its backend only, whatever the weights are.
    #[test]
    fn a_weight_that_grows_only_attracts(
        weights in prop::collection::vec(1u32..100, 2..10),
        which in any::<prop::sample::Index>(),
    ) {
        let backends: Vec<_> = (0u32..).map(address).zip(weights).collect();
        let mut heavier = backends.clone();
        let changed = which.index(backends.len());
        heavier[changed].1 += 50;
        let mut pairs = choices(&backends).into_iter().zip(choices(&heavier));
        prop_assert!(pairs.all(|(before, after)| before == after || after == backends[changed].0));
    }
}
