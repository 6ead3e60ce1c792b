//! Attaching to the cgroup. Links and maps are pinned: when the agent dies the programs stay, and
//! each pod's `onAgentDown` goes on to decide.

use std::{
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{Program, ProgramError},
};

use super::{
    Cgroup, KernelError, Loaded, PROGRAMS, bpf_syscall, load::PINNED_MAPS, programs::Hook,
};

/// The programs, attached. Dropping this leaves them attached; see [`Attached::detach`].
#[derive(Debug)]
pub struct Attached {
    /// Keeps the maps' and programs' descriptors open.
    _ebpf: Ebpf,
    pin_path: PathBuf,
}

impl Attached {
    /// Attaches every program to `cgroup`. Links of an earlier run on the same cgroup are switched
    /// over to the new programs without a moment in between; others of ours are removed.
    ///
    /// On an error nothing new stays attached.
    pub fn attach(loaded: Loaded, cgroup: &Cgroup) -> Result<Self, KernelError> {
        let pin_path = loaded.pin_path.clone();
        let takes_over = loaded.takes_over;
        let result = attach_all(&loaded, cgroup);
        if let Err(error) = result {
            if !takes_over && let Err(stay) = remove_pins(&pin_path) {
                tracing::error!("{stay}");
            }
            return Err(error);
        }
        Ok(Self {
            _ebpf: loaded.ebpf,
            pin_path,
        })
    }

    /// Detaches everything and removes every pin; the error names those that stay.
    pub fn detach(self) -> Result<(), KernelError> {
        remove_pins(&self.pin_path)
    }
}

/// Where links of ours on `cgroup` are pinned, as far below the usual bpffs as configurations have
/// it.
pub fn pin_directory(cgroup: &Cgroup) -> Option<PathBuf> {
    const BPF_FILESYSTEM: &str = "/sys/fs/bpf";
    const DEPTH: usize = 3;
    let id = cgroup.id().ok()?;
    let holds_link = |directory: &Path| {
        PROGRAMS.iter().any(|hook| {
            bpf_syscall::open_pin(&link_pin(directory, hook))
                .and_then(|link| bpf_syscall::link_cgroup(link.as_fd()))
                .is_ok_and(|on| on == id)
        })
    };
    let mut level = vec![PathBuf::from(BPF_FILESYSTEM)];
    for _ in 0..=DEPTH {
        if let Some(found) = level.iter().find(|directory| holds_link(directory)) {
            return Some(found.clone());
        }
        level = level
            .iter()
            .filter_map(|directory| fs::read_dir(directory).ok())
            .flatten()
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect();
    }
    None
}

fn link_pin(pin_path: &Path, hook: &Hook) -> PathBuf {
    pin_path.join(format!("link_{}", hook.program))
}

fn attach_all(loaded: &Loaded, cgroup: &Cgroup) -> Result<(), KernelError> {
    let pin_path = loaded.pin_path.clone();
    if !loaded.takes_over {
        // Pins of another shape, or half a set: nothing of them can be used.
        remove_pins(&pin_path)?;
        pin_maps(&loaded.ebpf, &pin_path)?;
    }
    let cgroup_id = cgroup.id()?;
    for hook in PROGRAMS {
        let pin = link_pin(&pin_path, hook);
        let program = loaded
            .ebpf
            .program(hook.program)
            .ok_or(KernelError::Missing(hook.program))?;
        if switch_over(&pin, program, cgroup_id) {
            continue;
        }
        remove_pin(&pin).map_err(|source| KernelError::Pin {
            path: pin.clone(),
            source,
        })?;
        attach(program, cgroup, hook, &pin).map_err(|source| KernelError::Program {
            program: hook.program,
            source: Box::new(source),
        })?;
    }
    Ok(())
}

fn pin_maps(ebpf: &Ebpf, pin_path: &Path) -> Result<(), KernelError> {
    for &name in PINNED_MAPS {
        let path = pin_path.join(name);
        let map = ebpf.map(name).ok_or(KernelError::Missing(name))?;
        map.pin(&path).map_err(|error| KernelError::Pin {
            path,
            source: io::Error::other(error.to_string()),
        })?;
    }
    Ok(())
}

/// Points an earlier run's link at `program`; `false` if there is none that fits.
fn switch_over(pin: &Path, program: &Program, cgroup_id: u64) -> bool {
    let (Ok(link), Ok(program)) = (bpf_syscall::open_pin(pin), program.fd()) else {
        return false;
    };
    let link: OwnedFd = link;
    bpf_syscall::link_cgroup(link.as_fd()).is_ok_and(|id| id == cgroup_id)
        && bpf_syscall::update_link(link.as_fd(), program.as_fd()).is_ok()
}

/// Attaches `program` beside those of others and pins the link. By hand, because aya cannot turn
/// every kind of cgroup link into one that can be pinned.
fn attach(program: &Program, cgroup: &Cgroup, hook: &Hook, pin: &Path) -> Result<(), ProgramError> {
    let link = bpf_syscall::create_link(program.fd()?.as_fd(), cgroup.as_fd(), hook.attach_type)?;
    bpf_syscall::pin(link.as_fd(), pin)?;
    Ok(())
}

fn remove_pin(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes every pin of ours, connect first: no connect is redirected while its helpers go. Goes on
/// past a pin that cannot be removed.
fn remove_pins(pin_path: &Path) -> Result<(), KernelError> {
    let links = PROGRAMS.iter().rev().map(|hook| link_pin(pin_path, hook));
    for link in links.clone() {
        // Removing the pin alone detaches too, but in a kernel worker, some time later. A link of an
        // earlier kernel or of a cgroup that is gone has nothing to detach.
        let _pin_goes_anyway =
            bpf_syscall::open_pin(&link).and_then(|link| bpf_syscall::detach_link(link.as_fd()));
    }
    let maps = PINNED_MAPS.iter().map(|map| pin_path.join(map));
    let stay: Vec<String> = links
        .chain(maps)
        .filter_map(|pin| {
            let error = remove_pin(&pin).err()?;
            Some(format!("{} ({error})", pin.display()))
        })
        .collect();
    if stay.is_empty() {
        Ok(())
    } else {
        Err(KernelError::PinsStay(stay.join(", ")))
    }
}
