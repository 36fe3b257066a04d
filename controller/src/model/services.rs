//! The services of a network, which can be compared with those of another state of it at the cost of what differs.

use super::{Name, Service, Shared};
use ringlb_proxy::table::map::{Changing, Map};
use std::collections::BTreeSet;
use std::hash::RandomState;

/// Services by name. A copy shares what it does not change.
///
/// Which names there are changes seldom, what a service is with each task. So names lead to numbers in a map that is made for
/// looking up, and numbers to services in one that is made for changes. In a map that is ordered by names a look and a change
/// would touch many times as much memory; they are put in order where somebody is to see them all.
#[derive(Debug, Clone, Default)]
pub struct Services {
    numbers: Map<Name, u64, RandomState, 16>,
    states: Changing<Shared<Service>>,
    /// The number of the next service that comes new.
    next: u64,
    origin: Option<Origin>,
}

/// What services were made from by touching a few.
///
/// A comparison of two maps looks at all that is on the way to what differs, and each change of a network is compared several
/// times.
#[derive(Debug, Clone)]
struct Origin {
    states: Changing<Shared<Service>>,
    /// All names that may have something else in `states`.
    touched: Vec<Name>,
}

/// As many names are remembered: an origin is kept as long as what was made from it.
const FEW: usize = 8;

/// A service before and after.
pub type Difference<'a> = (Option<&'a Shared<Service>>, Option<&'a Shared<Service>>);

impl Services {
    /// The number of services.
    #[must_use]
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether there is no service.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// The service of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Shared<Service>> {
        self.states.get(self.numbers.get(name)?)
    }

    /// The same, for a change of it: the processor is told to fetch what putting it anew is going to touch.
    pub(super) fn get_to_change(&self, name: &str) -> Option<&Shared<Service>> {
        self.states.get_to_change(self.numbers.get(name)?)
    }

    /// The services, in no particular order.
    pub fn values(&self) -> impl Iterator<Item = &Shared<Service>> {
        self.states.iter().map(|(_, service)| service)
    }

    /// The services, in the order of their names.
    pub fn in_order(&self) -> impl DoubleEndedIterator<Item = &Shared<Service>> {
        let mut services: Vec<_> = self.values().collect();
        services.sort_unstable_by(|one, two| one.name.cmp(&two.name));
        services.into_iter()
    }

    /// Remembers these services as those from which the next changes lead on.
    pub(super) fn begin_change(&mut self) {
        self.origin = Some(Origin { states: self.states.clone(), touched: Vec::new() });
    }

    /// Puts a service in, in place of the one with its name.
    pub(super) fn put(&mut self, service: Shared<Service>) {
        self.touch(&service.name);
        let number = self.numbers.get(&service.name).copied().unwrap_or_else(|| {
            let number = self.next;
            self.next += 1;
            self.numbers.insert(service.name.clone(), number);
            number
        });
        self.states.insert(number, service);
    }

    /// Takes the service of that name away.
    pub(super) fn remove(&mut self, name: &str) -> Option<Shared<Service>> {
        let number = *self.numbers.get(name)?;
        let service = self.states.get(&number)?.clone();
        self.touch(&service.name);
        self.numbers.remove(name);
        self.states.remove(&number);
        Some(service)
    }

    fn touch(&mut self, name: &Name) {
        let Some(origin) = &mut self.origin else { return };
        if origin.touched.contains(name) {
            return;
        }
        if origin.touched.len() < FEW {
            origin.touched.push(name.clone());
        } else {
            self.origin = None;
        }
    }

    /// What differs from services of another state of the same network. A service that was put anew differs, whatever it is.
    pub fn differences<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = Difference<'a>> {
        let origin = self.origin.as_ref().filter(|origin| origin.states.is_same(&before.states));
        let touched = origin.map(|origin| origin.touched.iter());
        let all = touched.is_none().then(|| self.names_that_differ(before));
        let names = touched.into_iter().flatten().chain(all.into_iter().flatten());
        names.map(|name| (before.get(name), self.get(name))).filter(|(before, after)| before != after)
    }

    /// All names that may have something else in the other services. A service may have another number there, and its
    /// number there another service.
    fn names_that_differ<'a>(&'a self, other: &'a Self) -> BTreeSet<&'a Name> {
        let (here, there) = self.states.differences(&other.states);
        here.into_iter().chain(there).map(|(_, service)| &service.name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Backends, Families};
    use proptest::prelude::*;
    use ringlb_proxy::control::message::ServiceSettings;

    fn service(number: u8) -> Shared<Service> {
        Shared::new(Service {
            name: Name::new(&format!("s{number}")).unwrap(),
            vip: Families::default(),
            settings: ServiceSettings::default(),
            published: Vec::new(),
            backends: Backends::default(),
        })
    }

    fn anew<'a>(values: impl Iterator<Item = &'a Shared<Service>>) -> Services {
        let mut services = Services::default();
        values.for_each(|service| services.put(service.clone()));
        services
    }

    /// Differences by name, as identities of what is there.
    fn listed(differences: &mut dyn Iterator<Item = Difference<'_>>) -> Vec<(String, [Option<*const Service>; 2])> {
        let mut listed: Vec<_> = differences
            .map(|(before, after)| {
                let name = before.or(after).map(|service| service.name.to_string()).unwrap_or_default();
                (name, [before, after].map(|service| service.map(|service| std::ptr::from_ref(&**service))))
            })
            .collect();
        listed.sort();
        listed
    }

    proptest! {
        /// Whatever was remembered in whatever states of a history, two states differ by what a look at all of both shows.
        #[test]
        fn differences_are_those_of_a_whole_comparison(steps in prop::collection::vec((0..9u8, 0..30u8), 0..80)) {
            let mut services = Services::default();
            let mut history = vec![services.clone()];
            for (step, number) in steps {
                match step {
                    0 => services.begin_change(),
                    1 | 2 => drop(services.remove(&format!("s{number}"))),
                    // With other numbers.
                    3 => services = anew(services.in_order().rev()),
                    _ => services.put(service(number)),
                }
                history.push(services.clone());
            }
            for (index, before) in history.iter().enumerate() {
                for after in &history[index..] {
                    let came = after.values().filter(|service| before.get(&service.name).is_none());
                    let names = before.values().chain(came).map(|service| &service.name);
                    let pairs = names.map(|name| (before.get(name), after.get(name)));
                    let expected = listed(&mut pairs.filter(|(before, after)| before != after));
                    prop_assert_eq!(listed(&mut after.differences(before)), expected);
                }
            }
        }
    }
}
