use super::*;
use proptest::prelude::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn every_kind_of_setting_can_be_a_label() {
    let read = read(&labels(&[
        ("ringlb.algorithm", "source-hash"),
        ("ringlb.idle-timeout", "30m"),
        ("ringlb.health-check.interval", "5s"),
        ("ringlb.health.port", "8080"),
        ("ringlb.health.send", "200"),
        ("ringlb.proxy-protocol", "v2"),
        ("ringlb.max-connections", "100"),
        ("ringlb.weight", "7"),
        ("ringlb.prefer-local", "true"),
        ("ringlb.allow", "10.0.0.0/8, 2001:db8::/32"),
        ("ringlb.deny", "10.1.0.0/16"),
        ("ringlb.udp.responses", "1"),
        ("ringlb.retry_budget.percent", "5"),
        ("com.example.team", "web"),
    ]));
    assert_eq!(read.invalid, []);
    let expected: ServiceSettings = serde_json::from_value(serde_json::json!({
        "algorithm": "source-hash", "idle_timeout": "30m", "proxy_protocol": "v2", "max_connections": 100,
        "health_check": {"interval": "5s", "port": 8080, "send": "200"}, "prefer_local": true,
        "allow": ["10.0.0.0/8", "2001:db8::/32"], "deny": ["10.1.0.0/16"], "udp": {"responses": 1},
        "retry_budget": {"percent": 5}, "drain_policy": "keep", "retries": 10, "ejection": {"base": "100ms"},
    }))
    .unwrap();
    assert_eq!(read.settings, expected);
    assert_eq!((read.weight, read.enabled), (Weight(7), true));
}

#[test]
fn an_invalid_label_is_named_and_costs_no_other() {
    let read = read(&labels(&[
        ("ringlb.algorithm", "fastest"),
        ("ringlb.idle-timeout", "soon"),
        ("ringlb.max-connections", "-1"),
        ("ringlb.nonsense", "1"),
        ("ringlb.health.nonsense", "1"),
        ("ringlb.deny", "everybody"),
        ("ringlb.weight", "heavy"),
        ("ringlb.enable", "perhaps"),
        ("ringlb.prefer-local", "yes"),
        ("ringlb.max-lifetime", "1h"),
    ]));
    let names: Vec<_> = read.invalid.iter().map(|(label, _)| label.as_str()).collect();
    let reason = |label: &str| read.invalid.iter().find(|(name, _)| name == label).unwrap().1.clone();
    assert_eq!(
        names,
        [
            "ringlb.algorithm",
            "ringlb.deny",
            "ringlb.enable",
            "ringlb.health.nonsense",
            "ringlb.idle-timeout",
            "ringlb.max-connections",
            "ringlb.nonsense",
            "ringlb.prefer-local",
            "ringlb.weight",
        ]
    );
    assert!(reason("ringlb.algorithm").contains("expected one of"), "{}", reason("ringlb.algorithm"));
    assert!(reason("ringlb.idle-timeout").contains("write such as"), "{}", reason("ringlb.idle-timeout"));
    assert!(reason("ringlb.max-connections").contains("a whole number from"), "{}", reason("ringlb.max-connections"));
    assert!(reason("ringlb.weight").contains("\"heavy\""), "{}", reason("ringlb.weight"));
    assert_eq!(reason("ringlb.nonsense"), "there is no such setting");
    assert!(reason("ringlb.deny").contains("is not a prefix"), "{}", reason("ringlb.deny"));
    let mut expected = Labels::default().settings;
    expected.max_lifetime = "1h".parse().unwrap();
    assert_eq!(read.settings, expected);
    assert_eq!((read.weight, read.enabled), (Weight(1), true));
}

#[test]
fn settings_that_do_not_go_together_are_left_out_together() {
    let read = read(&labels(&[("ringlb.health.send", "PING"), ("ringlb.retries", "1"), ("ringlb.typo", "")]));
    let names: Vec<_> = read.invalid.iter().map(|(label, _)| label.as_str()).collect();
    assert_eq!(names, ["ringlb.health.send", "ringlb.typo"]);
    assert!(read.invalid[0].1.contains("health_check.port is needed"), "{:?}", read.invalid);
    let expected: ServiceSettings = serde_json::from_value(
        serde_json::json!({"retries": 1, "retry_budget": {"percent": 1000}, "ejection": {"base": "100ms"}, "drain_policy": "keep"}),
    )
    .unwrap();
    assert_eq!(read.settings, expected);
}

#[test]
fn a_drain_ends_with_the_task_unless_a_label_says_otherwise() {
    let policy = |pairs: &[(&str, &str)]| read(&labels(pairs)).settings.drain_policy;
    assert_eq!(policy(&[]), DrainPolicy::Keep);
    assert_eq!(Labels::default().settings.drain_policy, DrainPolicy::Keep);
    assert_eq!(policy(&[("ringlb.drain-timeout", "5s")]), DrainPolicy::Reset);
    assert_eq!(policy(&[("ringlb.drain-timeout", "5s"), ("ringlb.drain-policy", "keep")]), DrainPolicy::Keep);
    assert_eq!(policy(&[("ringlb.drain-policy", "reset")]), DrainPolicy::Reset);
    assert_eq!(policy(&[("ringlb.drain-timeout", "no time")]), DrainPolicy::Keep);
}

#[test]
fn a_service_can_be_left_alone() {
    assert!(!read(&labels(&[("ringlb.enable", "false")])).enabled);
    assert!(read(&labels(&[("ringlb.enable", "true")])).enabled);
}

proptest! {
    /// Whatever is in labels: the settings are valid, and each label that is ringlb's is either in them or named.
    #[test]
    fn any_labels_give_valid_settings(
        pairs in prop::collection::btree_map(
            prop_oneof!["ringlb\\.(health|udp|queue|allow|retries|algorithm)(\\.(port|send|length|interval))?", "ringlb\\.[a-z.-]{0,12}", ".{0,8}"],
            prop_oneof!["[0-9]{1,6}(ms|s)?", "rr|p2c|true|false", ".{0,12}"],
            0..8,
        )
    ) {
        let read = read(&pairs);
        prop_assert!(read.settings.check().is_ok());
        for (label, reason) in &read.invalid {
            prop_assert!(pairs.contains_key(label) && !reason.is_empty());
        }
        let valid: BTreeMap<_, _> = pairs.iter().filter(|(label, _)| !read.invalid.iter().any(|(name, _)| name == *label))
            .map(|(label, value)| (label.clone(), value.clone())).collect();
        let again = super::read(&valid);
        prop_assert_eq!(again.invalid, vec![]);
        prop_assert_eq!(again.settings, read.settings);
    }
}
