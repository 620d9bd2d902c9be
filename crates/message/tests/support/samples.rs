//! The vendor's samples and the published cases, which the worker's tests read, too.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;

#[derive(serde::Deserialize)]
pub struct Case {
    pub name: String,
    pub payload: Box<RawValue>,
    pub valid: bool,
    pub rule: String,
}

/// The published cases, each a request with its verdict.
pub fn cases() -> Vec<Case> {
    let lines = fs::read_to_string(data().join("validation-cases.jsonl")).unwrap();
    let cases: Vec<Case> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(cases.len(), 143);
    cases
}

/// Their folder; the packages whose tests read this file lie in it and below it.
fn data() -> PathBuf {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let mut folders = packages.map(|package| package.join("tests/data/joinchat"));
    folders.find(|folder| folder.is_dir()).unwrap()
}

/// The JSON files of `folder`, by name.
pub fn files(folder: &str) -> Vec<(String, String)> {
    let mut files: Vec<_> = fs::read_dir(data().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .filter(|path| !path.ends_with("index.json"))
        .map(|path| {
            (
                path.display().to_string(),
                fs::read_to_string(&path).unwrap(),
            )
        })
        .collect();
    files.sort();
    files
}

pub fn requests() -> Vec<(String, String)> {
    let mut requests = files("samples");
    requests.extend(files("samples/recipients"));
    for name in ["000-php-body.txt", "001-php-body.txt"] {
        let path = data().join("samples").join(name);
        requests.push((name.to_owned(), fs::read_to_string(path).unwrap()));
    }
    assert_eq!(requests.len(), 27);
    requests
}
