use super::*;
use crate::control::message::{BackendSpec, Change, Delta, ServiceSettings, ServiceSpec, Snapshot};
use crate::control::settings::{CheckPort, EjectionFailures, EjectionShare, SlowStart};
use proptest::prelude::*;

/// A table with its keeper, as the control thread has them, and a clock.
struct World {
    table: Table,
    keeper: Keeper,
    now: Instant,
    random: fastrand::Rng,
    under_way: Vec<CheckOrder>,
}

fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn backend(last: u8) -> BackendSpec {
    BackendSpec { address: address(last), weight: 1, draining: false, backup: false, local: false }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn slow_start(of: u64) -> ServiceSettings {
    ServiceSettings { slow_start: SlowStart(seconds(of)), ..ServiceSettings::default() }
}

fn checked() -> ServiceSettings {
    let mut settings = ServiceSettings::default();
    settings.health_check.port = CheckPort(80);
    settings
}

impl World {
    fn new(settings: ServiceSettings, backends: impl IntoIterator<Item = u8>) -> Self {
        let mut world = Self {
            table: Table::default(),
            keeper: Keeper::default(),
            now: Instant::now(),
            random: fastrand::Rng::with_seed(1),
            under_way: Vec::new(),
        };
        world.snapshot(settings, backends);
        world
    }

    fn spec(settings: ServiceSettings, backends: impl IntoIterator<Item = u8>) -> Arc<ServiceSpec> {
        let (name, vips) = ("s".to_owned(), vec![IpAddr::from([10, 0, 1, 1])]);
        Arc::new(ServiceSpec {
            name,
            vips,
            settings,
            published: Vec::new(),
            backends: backends.into_iter().map(backend).collect(),
        })
    }

    fn snapshot(&mut self, settings: ServiceSettings, backends: impl IntoIterator<Item = u8>) {
        let generation = self.table.generation() + 1;
        let services = vec![Self::spec(settings, backends)];
        self.table = self.table.replaced_by(&Snapshot { generation, services }).unwrap().table;
        self.review();
    }

    /// False if it does not apply.
    fn change(&mut self, change: Change) -> bool {
        let from = self.table.generation();
        let Ok(step) = self.table.changed_by(&Delta { from, to: from + 1, changes: vec![change] }) else {
            return false;
        };
        self.table = step.table;
        self.review();
        true
    }

    fn put(&mut self, backend: BackendSpec) -> bool {
        self.change(Change::PutBackend { service: "s".into(), backend })
    }

    fn settings(&mut self, change: impl FnOnce(&mut ServiceSettings)) {
        let Some(service) = self.table.service("s") else { return };
        let mut settings = ServiceSettings::clone(&service.settings);
        change(&mut settings);
        let backends = service.backends().iter().map(|b| BackendSpec {
            address: b.address,
            weight: b.weight,
            draining: b.draining,
            backup: b.backup,
            local: b.local,
        });
        let spec = ServiceSpec {
            name: "s".into(),
            vips: service.vips.to_vec(),
            settings,
            published: Vec::new(),
            backends: backends.collect(),
        };
        self.change(Change::PutService(Arc::new(spec)));
    }

    fn review(&mut self) {
        let conditions = self.keeper.review(&self.table, "s", self.now, &mut self.random);
        if !conditions.is_empty() {
            self.table = self.table.with_conditions("s", &conditions).unwrap();
        }
    }

    /// The backend cannot be reached so many times.
    fn fail(&mut self, last: u8, times: u16) {
        for _ in 0..times {
            let Some(backend) = self.backend(last) else { return };
            let identity = backend.identity.clone();
            let limit = self.table.service("s").unwrap().settings.ejection.failures.0;
            if identity.note_failure(limit)
                && self.keeper.suspect(&self.table, "s", &identity, self.now, &mut self.random)
            {
                self.review();
            }
        }
    }

    /// Lets time pass, and what is due meanwhile happen when it is due. Checks end at once: those of backends that `well`
    /// names are passed.
    fn pass(&mut self, time: Duration, well: &[u8]) {
        let until = self.now + time;
        loop {
            let next = [self.keeper.next_change(), self.keeper.next_check()].into_iter().flatten().min();
            self.now = next.map_or(until, |next| next.clamp(self.now, until));
            while self.keeper.next_due(self.now).is_some() {
                self.review();
            }
            for order in self.keeper.checks_due(self.now, 100) {
                let passed = well.iter().any(|last| address(*last) == order.address);
                self.end(&order, Some(passed));
            }
            if next.is_none_or(|next| next > until) {
                self.now = until;
                return;
            }
        }
    }

    fn end(&mut self, order: &CheckOrder, passed: Option<bool>) {
        if self.keeper.checked(order, passed, self.now, &mut self.random) {
            self.review();
        }
    }

    fn backend(&self, last: u8) -> Option<&Backend> {
        self.table.service("s")?.backend(address(last))
    }

    fn health(&self, last: u8) -> Health {
        self.backend(last).unwrap().health
    }

    fn warmth(&self, last: u8) -> u8 {
        self.backend(last).unwrap().warmth
    }
}

#[test]
fn a_backend_that_fails_is_ejected_and_comes_back() {
    let mut world = World::new(ServiceSettings::default(), 1..=4);
    let generation = world.table.generation();
    world.fail(1, 4);
    assert_eq!(world.health(1), Health::Healthy);
    world.fail(1, 1);
    assert_eq!((world.health(1), world.table.generation()), (Health::Ejected, generation));
    assert_eq!(world.table.service("s").unwrap().eligible(), [1, 2, 3]);
    world.pass(seconds(9), &[]);
    assert_eq!(world.health(1), Health::Ejected);
    world.pass(seconds(4), &[]);
    assert_eq!(world.health(1), Health::Healthy);
    assert_eq!(world.table.service("s").unwrap().eligible(), [0, 1, 2, 3]);
    // In short order again: for twice the time.
    world.fail(1, 5);
    world.pass(seconds(19), &[]);
    assert_eq!(world.health(1), Health::Ejected);
    world.pass(seconds(7), &[]);
    assert_eq!(world.health(1), Health::Healthy);
}

#[test]
fn no_more_than_the_largest_share_is_ejected() {
    let mut world = World::new(ServiceSettings::default(), 1..=5);
    for last in 1..=5 {
        world.fail(last, 5);
    }
    let ejected =
        |world: &World| (1..=5).filter(|&n| world.backend(n).is_some_and(|b| b.health == Health::Ejected)).count();
    assert_eq!(ejected(&world), 2);
    // Fewer backends may have fewer ejected ones; the only one is never.
    for last in 3..=5 {
        world.change(Change::RemoveBackend { service: "s".into(), address: address(last) });
    }
    assert_eq!(ejected(&world), 1);
    world.settings(|settings| settings.ejection.max_share = EjectionShare(100));
    world.fail(1, 5);
    world.fail(2, 5);
    assert_eq!(ejected(&world), 2);
    world.change(Change::RemoveBackend { service: "s".into(), address: address(2) });
    assert_eq!(world.health(1), Health::Healthy);
}

#[test]
fn ejections_end_when_they_are_switched_off_or_the_backend_is_another() {
    let mut world = World::new(ServiceSettings::default(), 1..=4);
    world.fail(1, 5);
    // The same again changes nothing.
    world.snapshot(ServiceSettings::default(), 1..=4);
    assert_eq!(world.health(1), Health::Ejected);
    world.settings(|settings| settings.ejection.failures = EjectionFailures(0));
    assert_eq!(world.health(1), Health::Healthy);
    world.fail(1, 100);
    assert_eq!(world.health(1), Health::Healthy);
    world.settings(|settings| settings.ejection.failures = EjectionFailures(5));
    world.fail(1, 5);
    assert_eq!(world.health(1), Health::Ejected);
    world.change(Change::RemoveBackend { service: "s".into(), address: address(1) });
    world.put(backend(1));
    assert_eq!(world.health(1), Health::Healthy);
    world.change(Change::RemoveService { service: "s".into() });
    assert!(world.keeper.services.is_empty() && world.keeper.due.is_empty() && world.keeper.checks.is_empty());
}

#[test]
fn a_new_backends_share_rises() {
    let mut world = World::new(slow_start(20), 1..=2);
    assert_eq!([1, 2].map(|last| world.warmth(last)), [WARM; 2], "what is there first is not new");
    world.put(backend(3));
    assert_eq!([1, 3].map(|last| world.warmth(last)), [WARM, 5]);
    world.pass(seconds(10), &[]);
    assert_eq!(world.warmth(3), 50);
    // A change of something else does not begin it anew, nor does the whole table once more.
    world.put(BackendSpec { weight: 7, ..backend(1) });
    world.put(BackendSpec { weight: 9, ..backend(3) });
    world.snapshot(slow_start(20), 1..=3);
    assert_eq!(world.warmth(3), 50);
    world.pass(seconds(9), &[]);
    assert_eq!(world.warmth(3), 95);
    world.pass(seconds(1), &[]);
    assert_eq!(world.warmth(3), WARM);
    assert!(world.keeper.services.is_empty(), "nothing is left to be known");
}

#[test]
fn a_share_rises_after_a_drain_an_ejection_and_bad_checks() {
    let mut world = World::new(slow_start(20), 1..=4);
    world.put(BackendSpec { draining: true, ..backend(1) });
    world.pass(seconds(100), &[]);
    world.put(backend(1));
    assert_eq!(world.warmth(1), 5);
    world.pass(seconds(30), &[]);
    assert_eq!(world.warmth(1), WARM);
    world.put(BackendSpec { weight: 0, ..backend(1) });
    world.put(backend(1));
    assert_eq!(world.warmth(1), 5);

    world.fail(2, 5);
    while world.health(2) == Health::Ejected {
        world.pass(Duration::from_millis(10), &[]);
    }
    assert_eq!(world.warmth(2), 5);
    world.pass(seconds(10), &[]);
    assert!((45..=50).contains(&world.warmth(2)), "{}", world.warmth(2));
    world.settings(|settings| settings.slow_start = SlowStart(Duration::ZERO));
    assert_eq!(world.warmth(2), WARM);

    let mut world = World::new(ServiceSettings { slow_start: SlowStart(seconds(100)), ..checked() }, 1..=2);
    world.pass(seconds(20), &[2]);
    assert_eq!(world.health(1), Health::Unhealthy);
    while world.health(1) == Health::Unhealthy {
        world.pass(seconds(1), &[1, 2]);
    }
    assert!(world.warmth(1) <= 5);
}

#[test]
fn checks_decide_and_end_ejections() {
    let mut world = World::new(checked(), 1..=4);
    world.pass(seconds(30), &[1, 2, 3, 4]);
    world.fail(1, 5);
    assert_eq!(world.health(1), Health::Ejected);
    world.pass(seconds(6), &[1, 2, 3, 4]);
    assert_eq!(world.health(1), Health::Healthy, "a passed check ends an ejection");
    world.pass(seconds(30), &[2, 3, 4]);
    assert_eq!(world.health(1), Health::Unhealthy);
    // A table that is sent once more, or a change of something else, is no reason to think otherwise.
    world.snapshot(checked(), 1..=4);
    world.put(BackendSpec { weight: 2, ..backend(2) });
    world.settings(|settings| settings.algorithm = crate::control::message::Algorithm::Maglev);
    assert_eq!(world.health(1), Health::Unhealthy);
    world.pass(seconds(30), &[1, 2, 3, 4]);
    assert_eq!(world.health(1), Health::Healthy);
    world.pass(seconds(30), &[]);
    assert_eq!(world.table.service("s").unwrap().eligible().len(), 4, "panic");
    world.settings(|settings| settings.health_check.port = CheckPort(0));
    assert!((1..=4).all(|last| world.health(last) == Health::Healthy));
    assert!(world.keeper.checks.is_empty());
}

/// A check that began before the ejection may have been passed before the backend fell; one that could not be made says
/// nothing; one of a backend that was replaced, or made as it was set before, says nothing either.
#[test]
fn stale_checks_say_nothing() {
    let mut world = World::new(checked(), 1..=4);
    world.pass(seconds(5), &[1, 2, 3, 4]);
    world.now += seconds(6);
    let orders = world.keeper.checks_due(world.now, 100);
    assert_eq!(orders.len(), 4);
    let order_of = |last: u8| orders.iter().find(|order| order.address == address(last)).unwrap();
    world.now += seconds(1);
    world.fail(1, 5);
    world.end(order_of(1), Some(true));
    assert_eq!(world.health(1), Health::Ejected);
    world.end(order_of(2), None);
    world.end(order_of(2), Some(false));
    assert_eq!(world.health(2), Health::Healthy);
    world.change(Change::RemoveBackend { service: "s".into(), address: address(3) });
    world.put(backend(3));
    world.end(order_of(3), Some(false));
    assert_eq!(world.health(3), Health::Healthy, "a new one is not known yet");
    world.settings(|settings| settings.health_check.port = CheckPort(81));
    world.end(order_of(4), Some(false));
    assert_eq!(world.health(4), Health::Healthy);
    assert_eq!(world.keeper.checks.len(), 4, "all are checked again");
}

/// Of 200 backends that come at the same time the checks are spread over the interval, and no two intervals are the same.
#[test]
fn checks_do_not_run_in_step() {
    let mut world = World::new(checked(), 1..=200);
    let start = world.now;
    let mut by_part = [0; 10];
    for (at, ..) in &world.keeper.checks {
        by_part[((*at - start).as_secs_f64() / 5.0 * 10.0) as usize] += 1;
    }
    // 20 in each tenth, with a standard deviation of 4.2.
    assert!(by_part.iter().all(|count| (3..=40).contains(count)), "{by_part:?}");
    world.now += seconds(5);
    for order in world.keeper.checks_due(world.now, 1_000) {
        world.end(&order, Some(true));
    }
    let pauses: BTreeSet<_> = world.keeper.checks.iter().map(|(at, ..)| *at - world.now).collect();
    assert_eq!(pauses.len(), 200);
    assert!(pauses.iter().all(|pause| (4.5..=5.5).contains(&pause.as_secs_f64())));
}

#[derive(Debug, Clone)]
enum Event {
    Fail(u8, u16),
    Put(BackendSpec),
    Remove(u8),
    Settings(u16, u16, u16, u64),
    BeginChecks(usize),
    EndCheck(prop::sample::Index, Option<bool>),
    Pass(u64),
    RemoveService,
    Snapshot(u8),
}

fn event() -> impl Strategy<Value = Event> {
    let last = || 1u8..8;
    prop_oneof![
        4 => (last(), 1u16..8).prop_map(|(last, times)| Event::Fail(last, times)),
        3 => (last(), 0u16..3, prop::bool::weighted(0.2), any::<bool>()).prop_map(|(last, weight, draining, backup)| {
            Event::Put(BackendSpec { weight, draining, backup, ..backend(last) })
        }),
        1 => last().prop_map(Event::Remove),
        2 => (0u16..4, 1u16..=100, 0u16..2, 0u64..30).prop_map(|(failures, share, port, slow)| Event::Settings(failures, share, port, slow)),
        2 => (1usize..5).prop_map(Event::BeginChecks),
        4 => (any::<prop::sample::Index>(), any::<Option<bool>>()).prop_map(|(index, passed)| Event::EndCheck(index, passed)),
        3 => (0u64..30_000).prop_map(Event::Pass),
        1 => Just(Event::RemoveService),
        1 => (1u8..8).prop_map(Event::Snapshot),
    ]
}

proptest! {
    /// Whatever happens: what is said of backends has a reason that holds now, the shares and limits are kept, and each
    /// usable backend is checked once at a time exactly where there are checks.
    #[test]
    fn what_is_said_has_a_reason(events in prop::collection::vec(event(), 1..80)) {
        let mut world = World::new(ServiceSettings::default(), 1..=4);
        for event in events {
            match event {
                Event::Fail(last, times) => world.fail(last, times),
                Event::Put(spec) => drop(world.put(spec)),
                Event::Remove(last) => drop(world.change(Change::RemoveBackend { service: "s".into(), address: address(last) })),
                Event::Settings(failures, share, port, slow) => world.settings(|settings| {
                    settings.ejection.failures.0 = failures;
                    settings.ejection.max_share.0 = share;
                    settings.health_check.port.0 = port;
                    settings.slow_start.0 = seconds(slow);
                }),
                Event::BeginChecks(most) => {
                    let orders = world.keeper.checks_due(world.now, most);
                    prop_assert!(orders.len() <= most);
                    world.under_way.extend(orders);
                }
                Event::EndCheck(index, passed) if !world.under_way.is_empty() => {
                    let order = world.under_way.swap_remove(index.index(world.under_way.len()));
                    world.end(&order, passed);
                }
                Event::EndCheck(..) => {}
                Event::Pass(milliseconds) => {
                    world.now += Duration::from_millis(milliseconds);
                    while world.keeper.next_due(world.now).is_some() {
                        world.review();
                    }
                }
                Event::RemoveService => drop(world.change(Change::RemoveService { service: "s".into() })),
                Event::Snapshot(most) => world.snapshot(ServiceSettings::default(), 1..=most),
            }
            let World { table, keeper, now, .. } = &world;
            prop_assert!(keeper.due.first().is_none_or(|(due, _)| due > now), "what is due was dealt with");
            let Some(service) = table.service("s") else {
                prop_assert!(keeper.services.is_empty() && keeper.due.is_empty() && keeper.checks.is_empty());
                continue;
            };
            let settings = &service.settings;
            let known = keeper.services.get("s");
            let (mut ejected, mut usable) = (0, 0);
            for backend in service.backends() {
                let state = known.and_then(|known| known.backends.get(&backend.address));
                usable += usize::from(backend.is_usable());
                let until = state.and_then(|state| state.ejections.until());
                ejected += usize::from(until.is_some());
                prop_assert!(until.is_none_or(|until| until > *now && settings.ejection.is_on() && backend.is_usable()));
                let unhealthy = state.is_some_and(|state| state.checks.is_unhealthy());
                prop_assert!(!unhealthy || settings.health_check.is_on());
                let expected = match (unhealthy, until.is_some()) {
                    (true, _) => Health::Unhealthy,
                    (false, true) => Health::Ejected,
                    (false, false) => Health::Healthy,
                };
                prop_assert_eq!(backend.health, expected);
                let since = state.and_then(|state| state.warming_since).filter(|_| backend.is_healthy());
                let warmth = since.map_or(WARM, |since| slow_start::warmth(*now - since, settings.slow_start.0));
                prop_assert_eq!(backend.warmth, warmth);
                let scheduled = keeper.checks.iter().filter(|(_, _, address)| *address == backend.address).count();
                let under_way = state.is_some_and(|state| state.check == NextCheck::UnderWay);
                let wanted = settings.health_check.is_on() && backend.is_usable();
                prop_assert_eq!(scheduled, usize::from(wanted && !under_way));
            }
            prop_assert!(ejected <= most_ejected(usable, &settings.ejection));
            prop_assert!(known.is_none_or(|known| known.backends.len() <= service.backends().len()));
        }
    }
}
