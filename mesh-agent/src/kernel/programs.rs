//! Which programs go on which hooks, and which programs are there already.

use std::os::fd::BorrowedFd;

use aya::programs::{ProgramInfo, loaded_programs};

use super::{bpf_syscall, pod_sockets};

/// One program of the kernel half.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// Name of the program, and of its link's pin.
    pub program: &'static str,
    /// Name of the hook as bpftool prints it.
    pub name: &'static str,
    /// `enum bpf_attach_type` of include/uapi/linux/bpf.h.
    pub attach_type: u32,
}

/// Every program of the kernel half. What redirects comes last: a call must not be
/// redirected before the rest of its way is there.
pub const PROGRAMS: &[Hook] = &[
    Hook {
        program: "mesh_getsockopt",
        name: "cgroup_getsockopt",
        attach_type: 21,
    },
    Hook {
        program: "mesh_sockops",
        name: "cgroup_sock_ops",
        attach_type: 3,
    },
    Hook {
        program: "mesh_release",
        name: "cgroup_inet_sock_release",
        attach_type: 34,
    },
    Hook {
        program: "mesh_getpeer4",
        name: "cgroup_inet4_getpeername",
        attach_type: 29,
    },
    Hook {
        program: "mesh_getpeer6",
        name: "cgroup_inet6_getpeername",
        attach_type: 30,
    },
    Hook {
        program: "mesh_getsock4",
        name: "cgroup_inet4_getsockname",
        attach_type: 31,
    },
    Hook {
        program: "mesh_getsock6",
        name: "cgroup_inet6_getsockname",
        attach_type: 32,
    },
    Hook {
        program: "mesh_recvmsg4",
        name: "cgroup_udp4_recvmsg",
        attach_type: 19,
    },
    Hook {
        program: "mesh_recvmsg6",
        name: "cgroup_udp6_recvmsg",
        attach_type: 20,
    },
    Hook {
        program: "mesh_sendmsg4",
        name: "cgroup_udp4_sendmsg",
        attach_type: 14,
    },
    Hook {
        program: "mesh_sendmsg6",
        name: "cgroup_udp6_sendmsg",
        attach_type: 15,
    },
    Hook {
        program: "mesh_bind4",
        name: "cgroup_inet4_bind",
        attach_type: 8,
    },
    Hook {
        program: "mesh_bind6",
        name: "cgroup_inet6_bind",
        attach_type: 9,
    },
    Hook {
        program: "mesh_connect4",
        name: "cgroup_inet4_connect",
        attach_type: 10,
    },
    Hook {
        program: "mesh_connect6",
        name: "cgroup_inet6_connect",
        attach_type: 11,
    },
];

/// A program found on one of our hooks.
#[derive(Clone, Debug)]
pub struct AttachedProgram {
    /// Kernel id (`bpftool prog show id N`).
    pub id: u32,
    /// Its name, at most 15 characters.
    pub name: String,
    /// Name of the hook.
    pub hook: &'static str,
}

impl AttachedProgram {
    /// Whether it is one of ours, from this or an earlier run.
    pub fn is_ours(&self) -> bool {
        self.name == pod_sockets::PROGRAM || PROGRAMS.iter().any(|hook| hook.program == self.name)
    }

    /// Whether both are one program on one hook, found in two ways.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.id, self.hook) == (other.id, other.hook)
    }
}

/// The programs on our hooks that act on `cgroup`: with `effective` those of its ancestors too.
pub fn attached_programs(cgroup: BorrowedFd<'_>, effective: bool) -> Vec<AttachedProgram> {
    let found: Vec<(u32, &'static str)> = PROGRAMS
        .iter()
        .flat_map(|hook| {
            bpf_syscall::query_programs(cgroup, hook.attach_type, effective)
                .unwrap_or_default()
                .into_iter()
                .map(|id| (id, hook.name))
        })
        .collect();
    if found.is_empty() {
        return Vec::new();
    }
    let known: Vec<ProgramInfo> = loaded_programs().filter_map(Result::ok).collect();
    found
        .into_iter()
        .map(|(id, hook)| AttachedProgram {
            id,
            name: known
                .iter()
                .find(|program| program.id() == id)
                .and_then(|program| program.name_as_str().map(str::to_owned))
                .unwrap_or_default(),
            hook,
        })
        .collect()
}
