//! Every way to put a wrong thing anywhere into a request, without knowing any rule.

use postlane_message::validate::{Limits, rules};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::judge;
use super::support::generate::request;

/// What is put in the place of each value; the place of nothing is the field taken away.
fn junk() -> Vec<Option<Value>> {
    let number = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    vec![
        None,
        Some(Value::Null),
        Some(json!(true)),
        Some(json!(0)),
        Some(number("-1")),
        Some(number("1.5")),
        Some(number("1.0")),
        Some(number("1e999")),
        Some(json!("")),
        Some(json!(" \u{3000}")),
        Some(json!("x")),
        Some(json!("ID\u{0}")),
        Some(json!("http://a b")),
        Some(json!("https://a.example")),
        Some(json!("x".repeat(1001))),
        Some(json!([])),
        Some(json!([1])),
        Some(json!({})),
        Some(json!({"x": 1})),
    ]
}

/// `request` with each of its values in turn replaced by each kind of junk.
pub fn damages(request: &Value) -> Vec<Value> {
    let mut paths = Vec::new();
    walk(request, &mut Vec::new(), &mut paths);
    let mut damages = Vec::new();
    for path in paths {
        for junk in junk() {
            let mut damaged = request.clone();
            put(&mut damaged, &path, junk);
            damages.push(damaged);
        }
    }
    damages
}

/// The paths of all values below `value`; of an array the first item and the last.
fn walk(value: &Value, at: &mut Vec<String>, paths: &mut Vec<Vec<String>>) {
    let below: Vec<(String, &Value)> = match value {
        Value::Object(members) => members
            .iter()
            .map(|(key, value)| (key.clone(), value))
            .collect(),
        Value::Array(items) => {
            let last = items.len().saturating_sub(1);
            let ends = items
                .iter()
                .enumerate()
                .filter(|(n, _)| [0, last].contains(n));
            ends.map(|(n, item)| (n.to_string(), item)).collect()
        }
        _ => Vec::new(),
    };
    for (step, value) in below {
        at.push(step);
        paths.push(at.clone());
        walk(value, at, paths);
        at.pop();
    }
}

fn put(value: &mut Value, path: &[String], junk: Option<Value>) {
    let (last, parents) = path.split_last().unwrap();
    let mut at = value;
    for step in parents {
        at = match at {
            Value::Array(items) => &mut items[step.parse::<usize>().unwrap()],
            at => &mut at[step.as_str()],
        };
    }
    match (at, junk) {
        (Value::Object(members), Some(junk)) => drop(members.insert(last.clone(), junk)),
        (Value::Object(members), None) => drop(members.shift_remove(last)),
        (Value::Array(items), Some(junk)) => items[last.parse::<usize>().unwrap()] = junk,
        (Value::Array(items), None) => drop(items.remove(last.parse::<usize>().unwrap())),
        _ => panic!("no parent"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_damaged_the_rule_that_refuses_it_is_in_the_list(request in request()) {
        let rules = rules(&Limits::default());
        for damaged in damages(&request) {
            if let Err(refusal) = judge(&damaged) {
                let listed = rules.iter().any(|rule| *rule == refusal.rule);
                prop_assert!(listed, "{} is not in the list of rules", refusal);
            }
        }
    }
}
