//! Which daemons there are to ask.

use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

/// Where a daemon's admin socket is unless its config says otherwise.
pub const DEFAULT: &str = "/run/homeport/homeport.sock";

/// The admin sockets in the directory of [`DEFAULT`], in the order of their names.
pub fn find() -> Vec<PathBuf> {
    let directory = std::path::Path::new(DEFAULT).parent().map(std::fs::read_dir);
    let Some(Ok(entries)) = directory else {
        return Vec::new();
    };
    let mut sockets: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()))
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sock"))
        .collect();
    sockets.sort();
    sockets
}
