//! What cards were set to before the agent changed them, in a file, so that it is known also after a
//! crash.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::{Setting, interface::device_of};

/// One card that was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Entry {
    /// Number of its interface.
    pub index: u32,
    /// The card itself. Not known to earlier agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<PathBuf>,
    /// What it was set to.
    pub former: Setting,
    /// What we asked for.
    pub asked: Setting,
    /// What the driver made of it, once it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub made: Option<Setting>,
}

impl Entry {
    /// Whether it is of the card that has this name now, as far as that is known: another one may have its number.
    pub fn is_of(&self, name: &str) -> bool {
        match (&self.device, device_of(name)) {
            (None, _) => true,
            (Some(device), Some(now)) => *device == now,
            // None is behind it, or nothing is known of it.
            (Some(_), None) => !Path::new("/sys/class/net").join(name).exists(),
        }
    }

    /// Whether `now` is what we set, so that nobody else has changed it since.
    pub fn is_ours(&self, now: Setting) -> bool {
        now == self.asked || Some(now) == self.made
    }
}

/// The file, locked: one agent at a time looks after the cards of a network namespace. The kernel releases
/// the lock however the agent ends; the file stays after a crash.
#[derive(Debug)]
pub(super) struct Record {
    file: Flock<File>,
    path: PathBuf,
    entries: Vec<Entry>,
}

impl Record {
    /// Where the record of the network namespace of this process is, in `directory`.
    pub fn path(directory: &Path) -> io::Result<PathBuf> {
        let netns = std::fs::metadata("/proc/self/ns/net")?.ino();
        Ok(directory.join(format!("hardware-stamps-{netns}.json")))
    }

    /// Opens the record of an earlier agent; with `create` makes one where there is none. `None` where
    /// there is none.
    ///
    /// # Errors
    /// `WouldBlock` while another agent has it.
    pub fn open(path: &Path, create: bool) -> io::Result<Option<Self>> {
        if create && let Some(directory) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)?;
        }
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(create)
                .truncate(false)
                .mode(0o600)
                .open(path);
            let file = match file {
                Err(error) if !create && error.kind() == io::ErrorKind::NotFound => {
                    return Ok(None);
                }
                other => other?,
            };
            let mut file = Flock::lock(file, FlockArg::LockExclusiveNonblock)
                .map_err(|(_, errno)| io::Error::from(errno))?;
            if !is_at(&file, path) {
                // The agent that had it removed it just now.
                continue;
            }
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            return Ok(Some(Self {
                file,
                path: path.into(),
                entries: read(&bytes),
            }));
        }
    }

    /// The cards.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Writes an entry down, in the place of an earlier one of the same interface.
    pub fn put(&mut self, entry: Entry) -> io::Result<()> {
        self.entries.retain(|known| known.index != entry.index);
        self.entries.push(entry);
        self.write()
    }

    /// Forgets an interface.
    pub fn remove(&mut self, index: u32) -> io::Result<()> {
        self.entries.retain(|known| known.index != index);
        self.write()
    }

    /// Removes the file.
    pub fn delete(self) -> io::Result<()> {
        // While it is locked: whoever opened it before will find that the path names it no longer.
        std::fs::remove_file(&self.path)
    }

    /// What is written is longer or shorter than before; whole at its beginning at any moment.
    fn write(&self) -> io::Result<()> {
        let bytes = serde_json::to_vec(&self.entries).map_err(io::Error::other)?;
        self.file.write_all_at(&bytes, 0)?;
        self.file.set_len(bytes.len() as u64)
    }
}

/// The entries at the beginning of the file. One that was never written holds none, and neither does one
/// that we have not written.
fn read(bytes: &[u8]) -> Vec<Entry> {
    serde_json::Deserializer::from_slice(bytes)
        .into_iter()
        .next()
        .and_then(Result::ok)
        .unwrap_or_default()
}

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(own), Ok(there)) = (file.metadata(), std::fs::metadata(path)) else {
        return false;
    };
    (own.dev(), own.ino()) == (there.dev(), there.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u32) -> Entry {
        Entry {
            index,
            device: None,
            former: Setting::default(),
            asked: Setting {
                transmit: 1,
                ..Setting::default()
            },
            made: None,
        }
    }

    #[test]
    fn what_was_written_is_there_after_a_crash() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/record");
        assert!(Record::open(&path, false).unwrap().is_none());
        let mut record = Record::open(&path, true).unwrap().unwrap();
        record.put(entry(2)).unwrap();
        record.put(entry(3)).unwrap();
        let made = Some(Setting {
            transmit: 1,
            receive: 12,
            flags: 0,
        });
        let made = Entry { made, ..entry(2) };
        record.put(made.clone()).unwrap();
        record.remove(3).unwrap();
        // As when its holder is killed.
        drop(record);
        let record = Record::open(&path, false).unwrap().unwrap();
        assert_eq!(record.entries(), [made]);
        record.delete().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_card_is_not_taken_for_another_that_has_its_number() {
        assert!(
            entry(1).is_of("lo"),
            "of an agent that did not write it down"
        );
        let of_card = Entry {
            device: Some("/sys/devices/pci0000:00/0000:00:09.0".into()),
            ..entry(1)
        };
        assert!(!of_card.is_of("lo"));
        assert!(of_card.is_of("no-such-name"), "sysfs says nothing of it");
        let written = serde_json::to_vec(std::slice::from_ref(&of_card)).unwrap();
        assert_eq!(read(&written), [of_card]);
        let earlier = serde_json::to_string(&entry(1)).unwrap();
        assert!(!earlier.contains("device"), "{earlier}");
    }

    #[test]
    fn two_agents_do_not_have_it_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record");
        let first = Record::open(&path, true).unwrap().unwrap();
        let second = Record::open(&path, true).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
        drop(first);
        Record::open(&path, true).unwrap().unwrap();
    }

    #[test]
    fn a_write_that_was_cut_short_leaves_the_new_entries() {
        let long = serde_json::to_vec(&[entry(2), entry(3)]).unwrap();
        let short = serde_json::to_vec(&[entry(2)]).unwrap();
        let mut bytes = long;
        bytes[..short.len()].copy_from_slice(&short);
        assert_eq!(read(&bytes), [entry(2)]);
        assert!(read(b"").is_empty() && read(b"nonsense").is_empty());
    }
}
