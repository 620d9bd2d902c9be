//! Any text as what the sandbox is told to do: a script, a target, `TARGET=SCRIPT`, a file of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox::{Binding, Script, ScriptError, Target};

fuzz_target!(|text: &str| {
    let told = |error: ScriptError| assert!(!error.to_string().is_empty());
    if let Ok(script) = text.parse::<Script>().map_err(told) {
        // As it is bound on the command line.
        let binding: Binding = format!("777={text}").parse().expect("the same script");
        assert_eq!(binding.script, script);
    }
    let _ = text.parse::<Target>().map_err(told);
    let _ = text.parse::<Binding>().map_err(told);
    let _ = Binding::from_toml(text).map_err(told);
});
