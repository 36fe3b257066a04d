//! The services of a network, which can be compared with those of another state of it at the cost of what differs.

use super::{Name, Service, Shared};
use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use std::ops::Deref;

/// Services by name. A copy shares what it does not change.
#[derive(Debug, Clone, Default)]
pub struct Services {
    map: OrdMap<Name, Shared<Service>>,
    origin: Option<Origin>,
}

/// What services were made from by touching a few.
///
/// A comparison of two maps looks at the first entries of all that the two share on the way to what differs, some dozens of
/// places, and each change of a network is compared several times.
#[derive(Debug, Clone)]
struct Origin {
    map: OrdMap<Name, Shared<Service>>,
    /// All names that may have something else in `map`.
    touched: Vec<Name>,
}

/// As many names are remembered: an origin is kept as long as what was made from it.
const FEW: usize = 8;

/// A service before and after.
pub type Difference<'a> = (Option<&'a Shared<Service>>, Option<&'a Shared<Service>>);

impl Services {
    /// Remembers these services as those from which the next changes lead on.
    pub(super) fn begin_change(&mut self) {
        self.origin = Some(Origin { map: self.map.clone(), touched: Vec::new() });
    }

    /// Puts a service in, in place of the one with its name.
    pub(super) fn put(&mut self, service: Shared<Service>) {
        self.touch(&service.name);
        self.map.insert(service.name.clone(), service);
    }

    /// Takes the service of that name away.
    pub(super) fn remove(&mut self, name: &str) -> Option<Shared<Service>> {
        let (name, service) = self.map.remove_with_key(name)?;
        self.touch(&name);
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
        let origin = self.origin.as_ref().filter(|origin| origin.map.ptr_eq(&before.map));
        let touched = origin.map(|origin| {
            let pairs = origin.touched.iter().map(|name| (before.get(name), self.get(name)));
            pairs.filter(|(before, after)| before != after)
        });
        let all = touched.is_none().then(|| {
            before.map.diff(&self.map).map(|difference| match difference {
                DiffItem::Add(_, after) => (None, Some(after)),
                DiffItem::Remove(_, before) => (Some(before), None),
                DiffItem::Update { old: (_, before), new: (_, after) } => (Some(before), Some(after)),
            })
        });
        touched.into_iter().flatten().chain(all.into_iter().flatten())
    }
}

impl Deref for Services {
    type Target = OrdMap<Name, Shared<Service>>;

    fn deref(&self) -> &Self::Target {
        &self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Families;
    use proptest::prelude::*;
    use ringlb_proxy::control::message::ServiceSettings;

    fn service(number: u8) -> Shared<Service> {
        Shared::new(Service {
            name: Name::new(&format!("s{number}")).unwrap(),
            vip: Families::default(),
            settings: ServiceSettings::default(),
            published: Vec::new(),
            backends: OrdMap::new(),
        })
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
        fn differences_are_those_of_a_whole_comparison(steps in prop::collection::vec((0..4u8, 0..30u8), 0..80)) {
            let mut services = Services::default();
            let mut history = vec![services.clone()];
            for (step, number) in steps {
                match step {
                    0 => services.begin_change(),
                    1 => drop(services.remove(&format!("s{number}"))),
                    _ => services.put(service(number)),
                }
                history.push(services.clone());
            }
            for (index, before) in history.iter().enumerate() {
                for after in &history[index..] {
                    let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
                    let pairs = names.map(|name| (before.get(name), after.get(name)));
                    let expected = listed(&mut pairs.filter(|(before, after)| before != after));
                    prop_assert_eq!(listed(&mut after.differences(before)), expected);
                }
            }
        }
    }
}
