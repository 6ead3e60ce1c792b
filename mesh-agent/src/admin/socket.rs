//! The admin socket's place in the file system.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use nix::sys::stat::{Mode, umask};
use tokio::net::UnixListener;

use super::AdminError;

/// The agent's own socket file; dropping this removes it, unless it is another's by now.
#[derive(Debug)]
pub struct AdminSocket {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl AdminSocket {
    /// Binds `path`, readable by root only, in place of a socket that nobody answers any more.
    pub(super) fn bind(path: &Path) -> Result<(Self, UnixListener), AdminError> {
        let error = |source| AdminError::Socket {
            path: path.into(),
            source,
        };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(error)?;
        }
        match fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(AdminError::NoSocket(path.into()));
            }
            Ok(_) if UnixStream::connect(path).is_ok() => {
                return Err(AdminError::Taken(path.into()));
            }
            // Left by an agent that was killed.
            Ok(_) => fs::remove_file(path).map_err(error)?,
            Err(source) if source.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(error(source)),
        }
        let before = umask(Mode::S_IRWXG | Mode::S_IRWXO | Mode::S_IXUSR);
        let listener = UnixListener::bind(path);
        umask(before);
        let listener = listener.map_err(error)?;
        let socket = Self {
            path: path.into(),
            identity: identity(path),
        };
        Ok((socket, listener))
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            let _gone_already = fs::remove_file(&self.path);
        }
    }
}

/// Which file `path` names: device and inode.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path)
        .ok()
        .map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(path: &Path) -> Result<(AdminSocket, UnixListener), AdminError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let _inside = runtime.enter();
        AdminSocket::bind(path)
    }

    #[test]
    fn a_file_that_is_no_socket_stays_and_the_field_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes.txt");
        fs::write(&path, "precious").unwrap();
        let error = bind(&path).unwrap_err().to_string();
        assert!(
            error.contains("agent.adminSocket") && error.contains("notes.txt"),
            "{error}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_socket_that_nobody_answers_is_replaced_and_removed_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let (socket, _listener) = bind(&path).unwrap();
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn what_took_its_place_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let (socket, _listener) = bind(&path).unwrap();
        // Renamed, not removed: its inode number must not be free for the next file.
        fs::rename(&path, directory.path().join("old.sock")).unwrap();
        fs::write(&path, "another's").unwrap();
        drop(socket);
        assert!(path.exists());
    }

    #[test]
    fn a_socket_that_is_answered_is_anothers() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(matches!(bind(&path), Err(AdminError::Taken(_))));
    }
}
