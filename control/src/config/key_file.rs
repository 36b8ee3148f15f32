//! Files with keys: hex text that only the owner may read.

use std::fmt;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use homeport_proto::security::Key;
use zeroize::Zeroizing;

/// RFC 5944 §5.1: an implementation must support keys of 128 bits or more; a
/// shorter one is a slip.
pub const MIN_KEY_LEN: usize = 16;

/// More than any key needs, in bytes of the file.
const MAX_FILE_LEN: u64 = 4096;

/// A key as it was read; wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// The key for the protocol machines.
    pub fn to_key(&self) -> Key {
        Key::new(self.0.to_vec())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// Why a key file was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFileError {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
}

fn refuse<T>(message: String, help: String) -> Result<T, KeyFileError> {
    Err(KeyFileError { message, help })
}

/// Reads the key in the file at `path`.
///
/// # Errors
/// When there is no such file, when others than its owner may read or change it,
/// and when it does not hold a key of at least [`MIN_KEY_LEN`] bytes in hex.
pub fn read(path: &Path) -> Result<Secret, KeyFileError> {
    let name = path.display();
    let make =
        format!("make one: (umask 077; od -An -tx1 -N16 /dev/urandom | tr -d ' \\n' > {name})");
    let file = open_private(path, "key file", &make)?;
    let mut text = Zeroizing::new(String::new());
    let len = file.metadata().map_or(0, |metadata| metadata.len());
    if len > MAX_FILE_LEN {
        return refuse(format!("the key file {name} is {len} bytes long"), make);
    }
    match file.take(MAX_FILE_LEN).read_to_string(&mut text) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            return not_hex(path);
        }
        Err(error) => {
            return refuse(format!("the key file {name} cannot be read: {error}"), make);
        }
    }
    let Some(key) = from_hex(&text) else {
        return not_hex(path);
    };
    if key.len() < MIN_KEY_LEN {
        return refuse(
            format!("the key in {name} has {} bits; RFC 5944 asks for 128 at least", key.len() * 8),
            make,
        );
    }
    Ok(Secret(key))
}

/// Opens a file that only its owner may use. `what` it is, and how to `make` one, is
/// said when it is not so.
///
/// # Errors
/// When there is no such plain file, and when others may read or change it.
pub(super) fn open_private(
    path: &Path,
    what: &str,
    make: &str,
) -> Result<std::fs::File, KeyFileError> {
    let name = path.display();
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return refuse(format!("there is no {what} {name}"), make.into());
        }
        Err(error) => {
            let help = "run as a user who may read it, or name another file";
            return refuse(format!("the {what} {name} cannot be read: {error}"), help.into());
        }
    };
    // The mode of what was opened, so that nobody can change it in between.
    let metadata = match file.metadata() {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(_) => return refuse(format!("the {what} {name} is no plain file"), make.into()),
        Err(error) => {
            return refuse(format!("the {what} {name} cannot be read: {error}"), make.into());
        }
    };
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return refuse(
            format!("the {what} {name} has mode {mode:04o}: others than its owner may use it"),
            format!("run: chmod 600 {name}"),
        );
    }
    Ok(file)
}

fn not_hex(path: &Path) -> Result<Secret, KeyFileError> {
    refuse(
        format!("the key file {} does not hold hexadecimal digits in pairs", path.display()),
        "write the key as hex text, as in 000102030405060708090a0b0c0d0e0f".into(),
    )
}

/// The bytes that hex text means; white space between digits is left out. `None`
/// when it is none.
fn from_hex(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() / 2));
    let mut high = None;
    for c in text.chars().filter(|c| !c.is_ascii_whitespace()) {
        let digit = u8::try_from(c.to_digit(16)?).ok()?;
        match high.take() {
            None => high = Some(digit),
            Some(high) => bytes.push(high << 4 | digit),
        }
    }
    high.is_none().then_some(bytes)
}
