//! Many connections that do what they like.

use super::{MEGABYTE, Pair, Site, carry, finish};
use crate::survival::chance;
use std::thread;
use std::time::Duration;

const CONNECTIONS: usize = 200;
const TURNS: usize = 40;

/// Any number up to the most, and small ones more often.
fn any_size(chance: &mut fastrand::Rng, most: u64) -> u64 {
    chance.u64(1..=most) >> chance.u32(..18)
}

/// Questions and answers of any size with any pauses, and an end at which either end may go on alone. Gives how much it was.
fn live(mut pair: Pair, mut chance: fastrand::Rng) -> [u64; 2] {
    for _ in 0..TURNS {
        let [question, answer] = [0; 2].map(|_: u64| any_size(&mut chance, 200_000));
        match chance.u8(..10) {
            0 => pair.cross(question),
            1 => pair.turn(question, 0),
            2 => pair.turn(0, answer),
            _ => pair.turn(question, answer),
        }
        thread::sleep(Duration::from_micros(chance.u64(..50_000) >> chance.u32(..10)));
    }
    let rest = any_size(&mut chance, MEGABYTE);
    match chance.u8(..3) {
        0 => {
            finish(&pair.client, &pair.backend);
            carry(&pair.backend, &pair.client, &mut pair.answered, rest).unwrap();
            finish(&pair.backend, &pair.client);
        }
        1 => {
            finish(&pair.backend, &pair.client);
            carry(&pair.client, &pair.backend, &mut pair.asked, rest).unwrap();
            finish(&pair.client, &pair.backend);
        }
        _ => return pair.end(),
    }
    pair.sent()
}

#[test]
fn many_connections_are_whole() {
    let mut chance = chance();
    let site = Site::with(&["--threads", "2"], &[]);
    for _ in 0..2 {
        let before = site.counted();
        // Half of them pass when it begins.
        let mut pairs: Vec<_> = (0..CONNECTIONS).map(|_| site.connect()).collect();
        pairs.iter_mut().step_by(2).for_each(|pair| site.wait_until_it_passes(pair));
        let segments = site.segments();
        let threads: Vec<_> = pairs
            .into_iter()
            .map(|pair| {
                let chance = chance.fork();
                thread::spawn(move || live(pair, chance))
            })
            .collect();
        let sent = threads.into_iter().map(|thread| thread.join().unwrap());
        let sent = sent.fold(before, |[a, b], [c, d]| [a + c, b + d]);
        println!("{} segments came to the proxy, {sent:?} bytes to the ends", site.segments() - segments);
        site.wait_until_all_have_ended();
        assert_eq!(site.counted(), sent);
    }
}
