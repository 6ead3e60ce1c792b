//! Attaching to the cgroup. Links and maps are pinned: when the agent dies the programs stay, and
//! each pod's `onAgentDown` goes on to decide.

use std::{
    fs,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{Program, ProgramError},
};

use super::{
    Cgroup, KernelError, Loaded, PROGRAMS, bpf_syscall,
    pins::{link_pin, remove_pin, remove_unneeded_pins},
    programs::Hook,
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
    /// The maps must be pinned ([`Loaded::pin_maps`]). On an error nothing new stays attached.
    pub fn attach(loaded: Loaded, cgroup: &Cgroup) -> Result<Self, KernelError> {
        let pin_path = loaded.pin_path.clone();
        if let Err(error) = attach_all(&loaded, cgroup) {
            loaded.unpin();
            return Err(error);
        }
        Ok(Self {
            _ebpf: loaded.ebpf,
            pin_path,
        })
    }

    /// Detaches everything and removes every pin but those that [`super::Steering`] left; the error
    /// names those that stay without need.
    pub fn detach(self) -> Result<(), KernelError> {
        remove_unneeded_pins(&self.pin_path)
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

fn attach_all(loaded: &Loaded, cgroup: &Cgroup) -> Result<(), KernelError> {
    let pin_path = loaded.pin_path.clone();
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
