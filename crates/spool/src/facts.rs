//! What kind of file system the share, or a node's own state, is on.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// A file system by its `statfs` type number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileSystem {
    /// NFS, any version.
    Nfs,
    /// SMB 2 or 3 through the kernel's client.
    Smb,
    /// SMB 1 through the kernel's client.
    Cifs,
    /// Anything in user space: sshfs and others.
    Fuse,
    /// ext2, ext3, ext4.
    Ext4,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
    /// Memory.
    Tmpfs,
    /// An overlay, as in containers.
    Overlay,
    /// Ceph through the kernel's client.
    Ceph,
    /// The host's files in a virtual machine.
    NineP,
    /// A number that is not in the table.
    Other(u64),
}

impl FileSystem {
    /// Reads `statfs.f_type`.
    #[must_use]
    pub const fn from_type(number: u64) -> FileSystem {
        match number {
            0x6969 => FileSystem::Nfs,
            0xFE53_4D42 => FileSystem::Smb,
            0xFF53_4D42 => FileSystem::Cifs,
            0x6573_5546 => FileSystem::Fuse,
            0xEF53 => FileSystem::Ext4,
            0x5846_5342 => FileSystem::Xfs,
            0x9123_683E => FileSystem::Btrfs,
            0x0102_1994 => FileSystem::Tmpfs,
            0x794C_7630 => FileSystem::Overlay,
            0x00C3_6400 => FileSystem::Ceph,
            0x0102_1997 => FileSystem::NineP,
            other => FileSystem::Other(other),
        }
    }

    /// Whether every change of it is made through this kernel. Unknown kinds are taken for remote ones: that costs
    /// polling, the other mistake would cost messages.
    #[must_use]
    pub const fn place(self) -> Place {
        match self {
            FileSystem::Ext4
            | FileSystem::Xfs
            | FileSystem::Btrfs
            | FileSystem::Tmpfs
            | FileSystem::Overlay => Place::Local,
            FileSystem::Nfs
            | FileSystem::Smb
            | FileSystem::Cifs
            | FileSystem::Fuse
            | FileSystem::Ceph
            | FileSystem::NineP => Place::Network,
            FileSystem::Other(_) => Place::Unknown,
        }
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileSystem::Nfs => "nfs",
            FileSystem::Smb => "smb",
            FileSystem::Cifs => "cifs",
            FileSystem::Fuse => "fuse",
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "xfs",
            FileSystem::Btrfs => "btrfs",
            FileSystem::Tmpfs => "tmpfs",
            FileSystem::Overlay => "overlay",
            FileSystem::Ceph => "ceph",
            FileSystem::NineP => "9p",
            FileSystem::Other(number) => return write!(f, "0x{number:x}"),
        })
    }
}

/// Where a file system's changes are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// On this machine only.
    Local,
    /// On other machines too.
    Network,
    /// Not in the table.
    Unknown,
}

/// What is known of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MountFacts {
    /// The kind of file system.
    pub file_system: FileSystem,
    /// The device number, which tells two mounts apart.
    pub device: u64,
}

impl MountFacts {
    /// The facts of whatever mount a local path is on; for a node's own state, which must not be on a network.
    ///
    /// # Errors
    /// A path that cannot be opened.
    pub fn of(path: &Path) -> io::Result<MountFacts> {
        let fd = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        Ok(MountFacts::of_handle(&fd)?)
    }

    pub(crate) fn of_handle(fd: impl AsFd) -> Result<MountFacts, Errno> {
        let number = u64::try_from(rustix::fs::fstatfs(&fd)?.f_type).unwrap_or(0);
        Ok(MountFacts { file_system: FileSystem::from_type(number), device: rustix::fs::fstat(&fd)?.st_dev })
    }
}
