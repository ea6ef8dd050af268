//! A Unix-domain socket that all workers accept from.
//!
//! SO_REUSEPORT does not spread Unix-domain sockets, and a path has one: so there is one listening socket, made before the
//! descriptor tables part, with a descriptor of the same number in each of them. Whoever parts takes over the copy in
//! its own table; with a table in common each makes one of its own. The socket ends when the last of them is closed.

use super::{Listener, syscall};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// The listening socket at a path, until it is dropped here and in all tables.
#[derive(Debug)]
pub struct LocalListener {
    fd: OwnedFd,
    file: SocketFile,
}

impl LocalListener {
    /// Binds and listens. Whoever may write to the file may connect: `mode` has the permissions, and it never has more than
    /// these. A socket that nobody listens at is replaced; a file that is no socket, or somebody's, is not.
    pub fn bind(path: &Path, mode: u32, backlog: i32) -> io::Result<Self> {
        // Two servers that start at once must not both find the other's socket dead: they take turns. The lock is one of
        // the moment, on the directory, so that nothing is left behind.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let lock = File::open(folder)?;
        let _ = lock.lock();
        remove_stale(path)?;
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM.nonblocking().cloexec(), None)?;
        // The file gets the socket's permissions (unix(7)), less the umask: never more than `mode`, and a moment later that.
        syscall!(fchmod(socket.as_raw_fd(), mode as libc::mode_t))?;
        socket.bind(&socket2::SockAddr::unix(path)?)?;
        let metadata = fs::symlink_metadata(path)?;
        let file = SocketFile { path: path.to_owned(), identity: identity(&metadata) };
        let listen = || {
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
            // Takes no pointers.
            syscall!(listen(socket.as_raw_fd(), backlog))
        };
        match listen() {
            Ok(_) => Ok(Self { fd: socket.into(), file }),
            Err(error) => {
                file.remove();
                Err(error)
            }
        }
    }

    /// What a worker takes its own from.
    pub fn share(&self) -> Share {
        Share(self.fd.as_raw_fd())
    }

    /// What is to be removed at the end.
    pub fn file(&self) -> SocketFile {
        self.file.clone()
    }
}

/// A descriptor that stands in every table made since.
#[derive(Clone, Copy, Debug)]
pub struct Share(RawFd);

impl Share {
    /// The calling thread's own listener. `parted`: its table is a copy of its own, made while the [`LocalListener`] was
    /// there; this may be called once in it.
    pub fn take(self, parted: bool) -> io::Result<Listener> {
        let fd = if parted {
            // SAFETY: the descriptor is open in this thread's table, as the table was copied while it was; nobody else uses
            // that table, and the caller does this once.
            unsafe { OwnedFd::from_raw_fd(self.0) }
        } else {
            // SAFETY: the `LocalListener` stays until all workers have theirs.
            unsafe { BorrowedFd::borrow_raw(self.0) }.try_clone_to_owned()?
        };
        Ok(Listener::shared(fd))
    }
}

/// The name of a socket in the file system.
#[derive(Clone, Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: [i128; 4],
}

/// What tells a file from another that was made in its place, which may get the same inode number: where it is, and when it was
/// made (nobody writes to a socket's file).
fn identity(metadata: &fs::Metadata) -> [i128; 4] {
    [metadata.dev().into(), metadata.ino().into(), metadata.mtime().into(), metadata.mtime_nsec().into()]
}

impl SocketFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it, if it is still the one that was made: another server may have put its own there.
    pub fn remove(&self) {
        let is_own = |metadata: fs::Metadata| identity(&metadata) == self.identity;
        if fs::symlink_metadata(&self.path).is_ok_and(is_own) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes the socket of a server that is gone.
fn remove_stale(path: &Path) -> io::Result<()> {
    let fail = |kind, text: &str| Err(io::Error::new(kind, text));
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return fail(
                io::ErrorKind::AlreadyExists,
                "there is a file that is no socket: remove it, or choose another path",
            );
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Connected; or its queue is full.
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) => Err(error),
    }
}

/// Has an epoll report a listener that several have, edge-triggered, to one of those that wait (epoll_ctl(2),
/// EPOLLEXCLUSIVE).
pub fn watch_exclusively(epoll: &impl AsRawFd, listener: &Listener, token: u64) -> io::Result<()> {
    let mut event =
        libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET | libc::EPOLLEXCLUSIVE) as u32, u64: token };
    // `event` is valid, and only read.
    syscall!(epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, listener.as_raw_fd(), &raw mut event)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("throng-local-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_dead_servers_socket_is_replaced_and_a_live_ones_is_not() {
        let folder = folder("stale");
        let path = folder.join("s");
        let first = LocalListener::bind(&path, 0o600, 8).unwrap();
        assert_eq!(mode(&path), 0o600);
        let error = LocalListener::bind(&path, 0o600, 8).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let own = first.share().take(false).unwrap();
        drop(first);
        let error = LocalListener::bind(&path, 0o600, 8).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "a worker still listens");
        drop(own);
        let second = LocalListener::bind(&path, 0o666, 8).unwrap();
        assert_eq!(mode(&path), 0o666);
        second.file().remove();
        assert!(!path.exists());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let folder = folder("file");
        let path = folder.join("s");
        fs::write(&path, "precious").unwrap();
        assert_eq!(LocalListener::bind(&path, 0o600, 8).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_another_server_put_there_is_not_removed() {
        let folder = folder("other");
        let path = folder.join("s");
        let file = LocalListener::bind(&path, 0o600, 8).unwrap().file();
        // Until the file system's clock has moved on.
        let made = fs::symlink_metadata(&path).unwrap().modified().unwrap();
        let probe = folder.join("probe");
        while fs::write(&probe, "").and_then(|()| fs::metadata(&probe)).unwrap().modified().unwrap() <= made {}
        let second = LocalListener::bind(&path, 0o600, 8).unwrap();
        file.remove();
        assert!(path.exists());
        second.file().remove();
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn who_comes_has_no_address() {
        let folder = folder("peer");
        let path = folder.join("s");
        let local = LocalListener::bind(&path, 0o600, 8).unwrap();
        let listener = local.share().take(false).unwrap();
        assert!(listener.is_shared());
        let _client = UnixStream::connect(&path).unwrap();
        let (_, peer) = listener.accept().unwrap();
        assert!(peer.ip().is_unspecified() && peer.port() == 0);
        local.file().remove();
        fs::remove_dir_all(folder).unwrap();
    }
}
