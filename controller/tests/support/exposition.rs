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
    /// The values; of a histogram the counts.
    pub(crate) samples: BTreeMap<Labels, u64>,
}

/// The histogram that is being read: its buckets, then its sum, then its count.
#[derive(Default)]
struct Histogram {
    buckets: Vec<(f64, u64)>,
    sum: Option<f64>,
}

impl Histogram {
    /// Takes a line in from behind the metric's name. The last one, its count, is its value.
    fn read(&mut self, rest: &str) -> Option<Option<(Labels, u64)>> {
        if let Some(rest) = rest.strip_prefix("_bucket") {
            let Some((mut labels, count)) = read_sample(rest) else { return Some(None) };
            let bound = labels.remove("le").unwrap_or_else(|| panic!("a bucket without a bound: {rest}"));
            self.buckets.push((bound.replace("+Inf", "inf").parse().unwrap(), count));
            None
        } else if let Some(rest) = rest.strip_prefix("_sum") {
            self.sum = Some(rest.rsplit_once(' ').unwrap().1.parse().unwrap());
            None
        } else {
            let sample = read_sample(rest.strip_prefix("_count")?);
            let buckets = std::mem::take(&mut self.buckets);
            assert!(buckets.is_sorted_by(|one, two| one.0 < two.0 && one.1 <= two.1), "{buckets:?}");
            let count = sample.as_ref().map(|(_, count)| *count);
            assert_eq!(buckets.last().map(|(bound, count)| (*bound, *count)), Some(f64::INFINITY).zip(count));
            assert!(self.sum.take().is_some_and(|sum| sum >= 0.0), "a histogram without its sum: {rest}");
            Some(sample)
        }
    }
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
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line:?}");
            let mut samples = BTreeMap::new();
            let mut histogram = Histogram::default();
            while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
                let rest = line.strip_prefix(name).unwrap_or_else(|| panic!("a sample of another metric: {line:?}"));
                let sample = if kind == "histogram" { histogram.read(rest) } else { Some(read_sample(rest)) };
                let Some(sample) = sample else { continue };
                let (labels, value) = sample.unwrap_or_else(|| panic!("not a sample: {line:?}"));
                assert!(samples.insert(labels, value).is_none(), "a series is there twice: {line:?}");
            }
            assert!(histogram.buckets.is_empty(), "a histogram without its count: {name}");
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
