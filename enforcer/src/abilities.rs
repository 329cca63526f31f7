//! What agents' processes must not be able to do, and whether they are. Only looks.

use std::path::Path;

use enforcer_proto::principal::AgentName;

use crate::workload;

/// The kernel's names of its capabilities, each in the place of its number (`linux/capability.h`).
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];
/// The only ones that an agent's process may hold. Every other makes frames, changes programs, opens what is another's, makes its holder
/// somebody who can, or stops and starves the daemon; and of one that this list does not know nobody has said that it does not.
const HARMLESS: [&str; 6] = [
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "IPC_LOCK",
    // The daemon's ports are kept by the kernel programs, not by their numbers.
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "WAKE_ALARM",
];
/// Groups whose members can become root, or read and write what root alone should: by a runtime's socket, the bare disks or memory, others'
/// passwords, or the rules of sudo, which are not looked at.
const LIKE_ROOT: [&str; 14] = [
    "admin",
    "disk",
    "docker",
    "incus",
    "incus-admin",
    "kmem",
    "libvirt",
    "lxd",
    "microk8s",
    "root",
    "shadow",
    "staff",
    "sudo",
    "wheel",
];
/// Where the names of groups are looked up; those of a directory service are not.
const GROUPS: &str = "/etc/group";
/// The most processes of one agent that are named; the others are counted.
const NAMED_MAX: usize = 8;
/// The most cgroups below a workload that are looked at: some workloads may make as many as they like.
const BELOW_MAX: usize = 1024;

/// What agents may hold, for people.
#[must_use]
pub fn harmless() -> String {
    HARMLESS.map(|name| format!("CAP_{name}")).join(", ")
}

/// Which processes of agents hold what they must not, a sentence for each agent, given with its workload's folder. Waits for files.
#[must_use]
pub fn problems<'a>(agents: impl Iterator<Item = (&'a AgentName, &'a Path)>) -> Vec<String> {
    problems_by(Path::new(GROUPS), agents)
}

/// The same, with this host's groups in another file.
fn problems_by<'a>(
    groups: &Path,
    agents: impl Iterator<Item = (&'a AgentName, &'a Path)>,
) -> Vec<String> {
    let (groups, unread) = match std::fs::read_to_string(groups) {
        Ok(groups) => (groups, None),
        Err(error) => {
            let why = format!(
                "{} cannot be read, so whether agents' processes are in groups that are as good as root is not known: {error}",
                groups.display()
            );
            (String::new(), Some(why))
        }
    };
    let able = agents.filter_map(|(agent, folder)| too_able(agent, folder, &groups));
    unread.into_iter().chain(able).collect()
}

/// Which of an agent's processes hold what they must not, are root, or are in a group that is as good. `groups` are this host's, as in their file.
fn too_able(agent: &AgentName, folder: &Path, groups: &str) -> Option<String> {
    let (all, is_all) = match workload::all_processes(folder, BELOW_MAX) {
        Ok(all) => all,
        // It has gone since.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            return Some(format!(
                "the workload of agent {agent} cannot be read: {error}"
            ));
        }
    };
    let able = all.into_iter().filter_map(|pid| held_by(pid, groups));
    let able: Vec<String> = able.collect();
    let more = match able.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    if !is_all {
        return Some(format!(
            "agent {agent} has more cgroups than the {BELOW_MAX} that are looked at, so that nobody knows what all its processes hold{}{}{more}",
            if able.is_empty() {
                ""
            } else {
                ": of the others "
            },
            able[..able.len().min(NAMED_MAX)].join(", ")
        ));
    }
    (!able.is_empty()).then(|| {
        format!(
            "of agent {agent} {}{more}: a way around is dropped where it can be seen, but start agents without (enforcer run, or systemd's User= and CapabilityBoundingSet=)",
            able[..able.len().min(NAMED_MAX)].join(", ")
        )
    })
}

/// What a process holds that no agent's may, in words. `groups` are this host's, as in their file.
fn held_by(pid: u32, groups: &str) -> Option<String> {
    let threads = match workload::threads(pid) {
        Ok(threads) => threads,
        Err(error) => return Some(format!("process {pid} cannot be looked at ({error})")),
    };
    // In a user namespace of its own a process holds everything, and nothing of this host's.
    let of_ours = threads.iter().filter(|thread| thread.is_of_our_users);
    let names = too_much(of_ours.fold(0, |all, thread| all | thread.capabilities));
    if !names.is_empty() {
        return Some(format!("process {pid} holds {}", names.join(", ")));
    }
    // Root, and its groups, need no capability for what belongs to them, and no namespace takes that from them: in one of users the kernel
    // compares this host's numbers all the same, and one of mounts begins with all files of this host.
    if threads.iter().any(|thread| thread.uids.contains(&0)) {
        return Some(format!("process {pid} is root"));
    }
    let gids: Vec<u32> = threads.into_iter().flat_map(|thread| thread.gids).collect();
    let names = like_root(groups, &gids);
    (!names.is_empty()).then(|| format!("process {pid} is in {}", names.join(", ")))
}

/// The names of the capabilities in a set that are not harmless; one without a name is called by its number.
fn too_much(held: u64) -> Vec<String> {
    let name = |number: u32| {
        let known = CAPABILITIES.get(usize::try_from(number).ok()?);
        match known {
            Some(name) if HARMLESS.contains(name) => None,
            Some(name) => Some(format!("CAP_{name}")),
            None => Some(format!("capability {number}")),
        }
    };
    let numbers = (0..u64::BITS).filter(|number| held >> number & 1 == 1);
    numbers.filter_map(name).collect()
}

/// Which of these groups make root of who is in them.
fn like_root(groups: &str, of: &[u32]) -> Vec<String> {
    let known = groups.lines().filter_map(|line| {
        // name:password:gid:members
        let mut fields = line.split(':');
        let (name, gid) = (fields.next()?, fields.nth(1)?);
        Some((name, gid.parse::<u32>().ok()?))
    });
    let is_one = |(name, gid): &(&str, u32)| of.contains(gid) && LIKE_ROOT.contains(name);
    let names = known.filter(is_one);
    names.map(|(name, _)| format!("group {name}")).collect()
}

#[cfg(test)]
mod tests {
    use rustix::thread::CapabilitySet;

    use super::*;

    #[test]
    fn every_capability_is_too_much_but_the_few_harmless_ones() {
        let all = too_much(u64::MAX);
        assert_eq!(all.len(), 64 - HARMLESS.len());
        for harmful in [
            "CAP_MKNOD",
            "CAP_SYS_BOOT",
            "CAP_SYSLOG",
            "CAP_MAC_ADMIN",
            "CAP_MAC_OVERRIDE",
            "CAP_CHECKPOINT_RESTORE",
            "CAP_KILL",
            "CAP_SYS_NICE",
            // That of a kernel to come.
            "capability 41",
            "capability 63",
        ] {
            assert!(all.iter().any(|name| name == harmful), "{harmful}");
        }
        let harmless = CapabilitySet::AUDIT_WRITE
            | CapabilitySet::BLOCK_SUSPEND
            | CapabilitySet::IPC_LOCK
            | CapabilitySet::NET_BIND_SERVICE
            | CapabilitySet::NET_BROADCAST
            | CapabilitySet::WAKE_ALARM;
        assert_eq!(too_much(harmless.bits()), Vec::<String>::new());
    }

    #[test]
    fn capabilities_stand_in_the_place_of_their_numbers() {
        for (held, name) in [
            (CapabilitySet::CHOWN, "CAP_CHOWN"),
            (CapabilitySet::NET_RAW, "CAP_NET_RAW"),
            (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
            (CapabilitySet::MKNOD, "CAP_MKNOD"),
            (CapabilitySet::SYSLOG, "CAP_SYSLOG"),
            (CapabilitySet::CHECKPOINT_RESTORE, "CAP_CHECKPOINT_RESTORE"),
        ] {
            assert_eq!(too_much(held.bits()), [name]);
        }
    }

    #[test]
    fn groups_that_cannot_be_read_are_not_taken_for_none() {
        let said = problems_by(Path::new("/nowhere/group"), std::iter::empty());
        assert!(
            said.len() == 1 && said[0].contains("/nowhere/group cannot be read"),
            "{said:?}"
        );
        assert!(problems(std::iter::empty()).is_empty());
    }

    #[test]
    fn groups_are_known_by_the_names_this_host_gives_their_numbers() {
        let groups = "root:x:0:\ndisk:x:6:\nusers:x:100:bot\ndocker:x:998:bot\nbroken\n";
        assert_eq!(like_root(groups, &[100, 2001]), Vec::<String>::new());
        assert_eq!(like_root(groups, &[998, 100]), ["group docker"]);
        assert_eq!(like_root(groups, &[0, 6]), ["group root", "group disk"]);
        assert_eq!(like_root("", &[0, 6, 998]), Vec::<String>::new());
    }
}
