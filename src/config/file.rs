//! Files that the configuration names: how they are opened, and how complaints show them.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;

use super::error::line;

/// A path in a complaint: on one line, whatever it holds.
pub(super) fn shown(path: &Path) -> String {
    line(path.display().to_string())
}

/// Opens a file to read it. What is not a regular file is refused, and never waited for.
///
/// # Errors
/// The path, and why not.
pub(super) fn open(path: &Path) -> Result<File, String> {
    // Asked before it is opened: some devices do something once they are.
    regular(path, fs::metadata(path))?;
    opened(path)
}

/// Asks again what has been opened: the path may name something else by now. Without the flag the
/// opening of a pipe would wait for its writer.
fn opened(path: &Path) -> Result<File, String> {
    let flag = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flag).open(path);
    let file = file.map_err(|error| format!("{}: {error}", shown(path)))?;
    regular(path, file.metadata())?;
    Ok(file)
}

fn regular(path: &Path, metadata: io::Result<Metadata>) -> Result<(), String> {
    match metadata {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err(format!("{} is not a regular file", shown(path))),
        Err(error) => Err(format!("{}: {error}", shown(path))),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::Command;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let folder = tempfile::tempdir().expect("temp folder");
        let pipe = folder.path().join("pi\npe");
        let made = Command::new("mkfifo").arg(&pipe).status();
        assert!(made.expect("mkfifo").success());
        let others = [folder.path().to_owned(), PathBuf::from("/dev/null")];
        for path in others.iter().chain([&pipe]) {
            // The second is what is left when a path changes between the two looks.
            for verb in [open, opened] {
                let (said, hears) = mpsc::channel();
                let at = path.clone();
                std::thread::spawn(move || said.send(verb(&at).err()));
                let why = hears.recv_timeout(Duration::from_secs(10));
                let why = why.expect("an answer at once").expect("refused");
                assert!(why.ends_with(" is not a regular file"), "{why}");
                assert!(!why.contains(char::is_control), "{why:?}");
            }
        }
    }
}
