//! What a run that was killed has left behind.

#[cfg(doc)]
use crate::Links;
use crate::{Error, Namespace, Result};

/// The named namespaces that start with the prefix, sorted: all that a run that was killed can leave behind, since
/// bridges, legs, routes and rules live in them.
///
/// # Errors
/// If the prefix is empty, which would make every namespace of the machine a leftover, or the names cannot be read.
pub fn leftovers(prefix: &str) -> Result<Vec<String>> {
    if prefix.is_empty() {
        return Err(Error::InvalidName {
            kind: "namespace prefix",
            name: String::new(),
            rule: "an empty prefix stands for every namespace of the machine; give the one that yours start with",
        });
    }
    let mut names = Namespace::list()?;
    names.retain(|name| name.starts_with(prefix));
    Ok(names)
}

/// Removes the named namespaces that start with the prefix, their legs first, and returns their names. Processes that live
/// in one keep it alive without its name; ending them is up to the caller. Does all it can and returns every error.
///
/// # Errors
/// Those of [`leftovers`], [`Namespace::remove`] and [`Links::delete_legs`].
pub async fn remove_leftovers(prefix: &str) -> std::result::Result<Vec<String>, Vec<Error>> {
    let names = leftovers(prefix).map_err(|error| vec![error])?;
    let mut errors = Vec::new();
    for name in &names {
        errors.extend(remove_leftover(name).await);
    }
    if errors.is_empty() { Ok(names) } else { Err(errors) }
}

/// Removes one named namespace, its legs first; one that is not there is done already. Does all it can and returns every
/// error.
pub async fn remove_leftover(name: &str) -> Vec<Error> {
    let mut errors = Vec::new();
    // A name without a namespace behind it, as a killed run can leave too, has no legs.
    if let Ok(namespace) = Namespace::open(name) {
        match namespace.links().await {
            Ok(links) => errors.extend(links.delete_legs().await),
            Err(error) => errors.push(error),
        }
    }
    errors.extend(Namespace::remove(name).err());
    errors
}
