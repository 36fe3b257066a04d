//! A strict reader of Prometheus' text format 0.0.4: what it takes, every scraper takes.

use std::collections::{BTreeMap, BTreeSet};

pub(crate) type Labels = BTreeMap<String, String>;

/// The metrics of one scrape by their names.
#[derive(Debug, Default)]
pub(crate) struct Exposition(pub(crate) BTreeMap<String, Family>);

#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) help: String,
    pub(crate) kind: String,
    pub(crate) samples: BTreeMap<Labels, u64>,
}

impl Exposition {
    /// Reads a text in which each metric has one help line, one type line and then all its samples, without timestamps.
    pub(crate) fn read(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line has no end");
        let mut families = BTreeMap::new();
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let help = line.strip_prefix("# HELP ").unwrap_or_else(|| panic!("no help line: {line:?}"));
            let (name, help) = help.split_once(' ').unwrap_or_else(|| panic!("no help: {line:?}"));
            assert!(is_name(name), "{line:?}");
            let line = lines.next().unwrap_or_default();
            let kind =
                line.strip_prefix(&format!("# TYPE {name} ")).unwrap_or_else(|| panic!("no type line: {line:?}"));
            assert!(["counter", "gauge"].contains(&kind), "{line:?}");
            let mut samples = BTreeMap::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
                let rest = line.strip_prefix(name).unwrap_or_else(|| panic!("a sample of another metric: {line:?}"));
                let (labels, value) = read_sample(rest).unwrap_or_else(|| panic!("not a sample: {line:?}"));
                assert!(samples.insert(labels, value).is_none(), "a series is there twice: {line:?}");
            }
            let names: BTreeSet<Vec<_>> = samples.keys().map(|labels| labels.keys().collect()).collect();
            assert_eq!(names.len(), 1, "{name} has no samples, or not all have the same labels: {names:?}");
            let family = Family { help: unescaped(help, "\\n"), kind: kind.to_owned(), samples };
            assert!(families.insert(name.to_owned(), family).is_none(), "{name} is there twice");
        }
        Self(families)
    }

    /// The value of one series, if it is there.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.0.get(name)?.samples.get(&labels).copied()
    }
}

/// What comes behind a sample's name.
fn read_sample(rest: &str) -> Option<(Labels, u64)> {
    let mut labels = Labels::new();
    let Some(mut rest) = rest.strip_prefix('{') else {
        return Some((labels, rest.strip_prefix(' ')?.parse().ok()?));
    };
    loop {
        let (name, value) = rest.split_once("=\"")?;
        let end = end_of_string(value)?;
        if !is_name(name) || labels.insert(name.to_owned(), unescaped(&value[..end], "\\n\"")).is_some() {
            return None;
        }
        rest = &value[end + 1..];
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Some((labels, rest.strip_prefix("} ")?.parse().ok()?)),
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.as_bytes()[0].is_ascii_digit()
}

/// Where the first quote is that is not escaped.
fn end_of_string(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(index, character)| {
        let ends = character == '"' && !escaped;
        escaped = character == '\\' && !escaped;
        ends.then_some(index)
    })
}

/// Without escapes; only those of `allowed` characters are known.
fn unescaped(text: &str, allowed: &str) -> String {
    let mut characters = text.chars();
    let mut plain = String::new();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\\' => match characters.next() {
                Some(escaped) if allowed.contains(escaped) => {
                    if escaped == 'n' {
                        '\n'
                    } else {
                        escaped
                    }
                }
                other => panic!("an escape that is none, {other:?}, in {text:?}"),
            },
            character => character,
        });
    }
    plain
}
