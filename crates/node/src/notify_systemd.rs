//! Telling a service manager how the watcher fares (`sd_notify`): one datagram to `$NOTIFY_SOCKET`.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sendto, socket_with};

/// The service manager's socket cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot tell the service manager")]
pub struct NotifyError {
    source: io::Error,
}

/// A service manager that listens, or none.
#[derive(Debug, Default)]
pub struct ServiceManager {
    listener: Option<(OwnedFd, SocketAddrUnix)>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The one this process's environment names, if any.
    ///
    /// # Errors
    /// It names one whose socket cannot be used.
    pub fn of_process() -> Result<ServiceManager, NotifyError> {
        let watchdog = watchdog_of(
            std::env::var("WATCHDOG_USEC").ok().as_deref(),
            std::env::var("WATCHDOG_PID").ok().as_deref(),
        );
        match std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) {
            Some(name) => ServiceManager::at(&name, watchdog),
            None => Ok(ServiceManager::default()),
        }
    }

    /// The one at this socket: a path, or a name in the abstract namespace behind `@`.
    ///
    /// # Errors
    /// The socket cannot be used.
    pub fn at(name: &OsStr, watchdog: Option<Duration>) -> Result<ServiceManager, NotifyError> {
        let open = || -> rustix::io::Result<(OwnedFd, SocketAddrUnix)> {
            let address = match name.as_bytes().strip_prefix(b"@") {
                Some(hidden) => SocketAddrUnix::new_abstract_name(hidden)?,
                None => SocketAddrUnix::new(name)?,
            };
            let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
            Ok((socket, address))
        };
        let listener = open().map_err(|errno| NotifyError { source: errno.into() })?;
        Ok(ServiceManager { listener: Some(listener), watchdog })
    }

    /// How often it wants a sign of life at least: half of its deadline. `None`: it does not ask for any.
    #[must_use]
    pub fn watchdog_every(&self) -> Option<Duration> {
        self.watchdog.map(|deadline| deadline / 2)
    }

    /// The watcher works, and what it works on.
    ///
    /// # Errors
    /// The service manager went away.
    pub fn ready(&self, status: &str) -> Result<(), NotifyError> {
        self.send(&format!("READY=1\nSTATUS={}", one_line(status)))
    }

    /// What the watcher does now, for `systemctl status`.
    ///
    /// # Errors
    /// The service manager went away.
    pub fn status(&self, status: &str) -> Result<(), NotifyError> {
        self.send(&format!("STATUS={}", one_line(status)))
    }

    /// A sign of life.
    ///
    /// # Errors
    /// The service manager went away.
    pub fn alive(&self) -> Result<(), NotifyError> {
        self.send("WATCHDOG=1")
    }

    /// The watcher ends.
    ///
    /// # Errors
    /// The service manager went away.
    pub fn stopping(&self) -> Result<(), NotifyError> {
        self.send("STOPPING=1")
    }

    fn send(&self, text: &str) -> Result<(), NotifyError> {
        let Some((socket, address)) = &self.listener else { return Ok(()) };
        match sendto(socket, text.as_bytes(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT, address) {
            Ok(_) => Ok(()),
            Err(errno) => Err(NotifyError { source: errno.into() }),
        }
    }
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

/// The deadline for signs of life, when it is this process's.
fn watchdog_of(usec: Option<&str>, pid: Option<&str>) -> Option<Duration> {
    let ours = pid.is_none_or(|pid| pid == std::process::id().to_string());
    let usec: u64 = usec?.parse().ok()?;
    (ours && usec > 0).then(|| Duration::from_micros(usec))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    fn received(listener: &UnixDatagram) -> String {
        let mut bytes = [0_u8; 256];
        let length = listener.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn the_service_manager_hears_readiness_and_life() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let manager = ServiceManager::at(path.as_os_str(), Some(Duration::from_secs(10))).unwrap();
        manager.ready("two\nlines").unwrap();
        assert_eq!(received(&listener), "READY=1\nSTATUS=two lines");
        manager.alive().unwrap();
        assert_eq!(received(&listener), "WATCHDOG=1");
        manager.stopping().unwrap();
        assert_eq!(received(&listener), "STOPPING=1");
        assert_eq!(manager.watchdog_every(), Some(Duration::from_secs(5)));
    }

    #[test]
    fn an_abstract_socket_works_too() {
        use std::os::linux::net::SocketAddrExt as _;
        let name = format!("dispatch-test-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        let manager = ServiceManager::at(OsStr::new(&format!("@{name}")), None).unwrap();
        manager.status("idle").unwrap();
        assert_eq!(received(&listener), "STATUS=idle");
    }

    #[test]
    fn without_a_service_manager_nothing_is_said() {
        let manager = ServiceManager::default();
        manager.ready("x").unwrap();
        assert_eq!(manager.watchdog_every(), None);
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_ours() {
        assert_eq!(watchdog_of(Some("2000000"), None), Some(Duration::from_secs(2)));
        assert_eq!(watchdog_of(Some("2000000"), Some("1")), None);
        assert_eq!(watchdog_of(Some("0"), None), None);
        assert_eq!(watchdog_of(Some("x"), None), None);
    }
}
