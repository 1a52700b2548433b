//! Things that do not belong where they are put: what a hostile or broken writer leaves on a share.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::wait::eventually;

/// A thing of every type that a name can stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Junk {
    /// A file without bytes.
    Empty,
    /// A file of bytes that are no text.
    Garbage,
    /// Well-formed JSON that is no envelope.
    FlatJson,
    /// 100 MB that take no room on the disk.
    Huge,
    /// A directory with a file in it.
    Directory,
    /// A symlink to a file outside the share.
    SymlinkToFile,
    /// A symlink to a directory outside the share.
    SymlinkToDirectory,
    /// A symlink to nothing.
    SymlinkToNothing,
    /// A pipe that nobody writes: a reader that opens it carelessly waits for ever.
    Fifo,
    /// A socket.
    Socket,
}

impl Junk {
    /// All of them.
    pub const ALL: [Junk; 10] = [
        Junk::Empty,
        Junk::Garbage,
        Junk::FlatJson,
        Junk::Huge,
        Junk::Directory,
        Junk::SymlinkToFile,
        Junk::SymlinkToDirectory,
        Junk::SymlinkToNothing,
        Junk::Fifo,
        Junk::Socket,
    ];

    /// Puts it at `path`, in place of what is there, whoever writes there at the same time; `outside` is a directory off
    /// the share, for symlinks to lead to.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn plant(self, path: &Path, outside: &Path) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let fresh = outside.join(format!("junk-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        self.make(&fresh, outside);
        eventually("the junk is planted", || {
            clear(path);
            fs::rename(&fresh, path).is_ok()
        });
    }

    fn make(self, path: &Path, outside: &Path) {
        match self {
            Junk::Empty => fs::write(path, b"").unwrap(),
            Junk::Garbage => {
                fs::write(path, [0xff_u8, 0xfe, 0x00, 0x1b, b'[', b'2', b'J', 0xc3, 0x28]).unwrap();
            }
            Junk::FlatJson => fs::write(path, br#"{"payload": 7, "payload": null}"#).unwrap(),
            Junk::Huge => File::create(path).unwrap().set_len(100_000_000).unwrap(),
            Junk::Directory => {
                fs::create_dir(path).unwrap();
                fs::write(path.join("inside"), b"x").unwrap();
            }
            Junk::SymlinkToFile => {
                let target = outside.join("target");
                fs::write(&target, b"outside").unwrap();
                symlink(target, path).unwrap();
            }
            Junk::SymlinkToDirectory => {
                let target = outside.join("target-dir");
                fs::create_dir_all(&target).unwrap();
                symlink(target, path).unwrap();
            }
            Junk::SymlinkToNothing => symlink(outside.join("nothing"), path).unwrap(),
            Junk::Fifo => mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap(),
            Junk::Socket => drop(UnixListener::bind(path).unwrap()),
        }
    }
}

/// Removes whatever is at `path`.
///
/// # Panics
/// When something is there that cannot be removed.
pub fn clear(path: &Path) {
    let removed = match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(why) => Err(why),
    };
    if let Err(why) = removed {
        // Somebody else may have removed or replaced it meanwhile.
        assert!(!path.is_dir() || why.kind() == ErrorKind::NotFound, "{}: {why}", path.display());
    }
}
