//! Puts a child into its cgroup and network namespace between fork and exec.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::write;

/// Makes `command` start inside a cgroup (an open `cgroup.procs`) and, if given, a network namespace.
///
/// The child also dies with the thread that started it, and may open as many files as the hard limit allows.
pub fn place(command: &mut Command, cgroup_procs: OwnedFd, netns: Option<OwnedFd>) {
    let enter = move || -> io::Result<()> {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        // "0" is the process that writes.
        write(&cgroup_procs, b"0")?;
        if let Some(netns) = &netns {
            setns(netns, CloneFlags::CLONE_NEWNET)?;
        }
        Ok(())
    };
    // SAFETY: the closure only makes plain system calls on descriptors opened before the fork; it
    // neither allocates nor takes a lock, so it is sound in the child of a process with threads.
    unsafe { command.pre_exec(enter) };
}
