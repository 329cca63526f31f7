//! What cgroups of containers are called, by runtimes that are asked for ids and by those that are not. Looks at nothing: names in, ids out.
//!
//! Inside a container its own root calls cgroups as it likes, and where it is the host's root too (no user namespace), what it makes is root's: so
//! nothing that lies in what is called like a container is what its name says.

use std::path::Path;

use crate::runtimes::ID_CHARS;

/// How runtimes name a container's cgroup, before and after its id: Docker, Podman, containerd (Kubernetes' and nerdctl's) and CRI-O under systemd,
/// and those that make cgroups themselves; Podman has a third way within a unit that starts it (`--cgroups=split`, quadlets).
const CONTAINERS: [(&str, &str); 9] = [
    ("docker-", ".scope"),
    ("libpod-", ".scope"),
    ("cri-containerd-", ".scope"),
    ("nerdctl-", ".scope"),
    ("crio-", ".scope"),
    ("libpod-", ""),
    ("libpod-payload-", ""),
    ("crio-", ""),
    ("", ""),
];
/// The same of what no id is asked of, and of ids in another spelling: LXC, Incus and LXD, systemd's machines, libvirt, and what builds images or runs
/// containers without a daemon.
const OTHERS: [(&str, &str); 17] = [
    ("lxc.payload", ""),
    ("lxc.monitor", ""),
    ("lxc.pivot", ""),
    ("machine-", ".scope"),
    ("systemd-nspawn@", ".service"),
    ("", ".libvirt-lxc"),
    ("", ".libvirt-qemu"),
    ("docker-", ".scope"),
    ("libpod-", ".scope"),
    ("buildah-", ".scope"),
    ("buildkit-", ".scope"),
    ("cri-containerd-", ".scope"),
    ("nerdctl-", ".scope"),
    ("crio-", ".scope"),
    ("runc-", ".scope"),
    ("crun-", ".scope"),
    ("youki-", ".scope"),
];
/// Folders that runtimes keep their containers in, by names that could be anybody's.
const FOLDERS: [&str; 3] = ["lxc", "buildkit", "garden"];
/// Where Podman keeps its pods, whose ids are like containers'.
const PODS: &str = "libpod_parent";

/// The ids of containers whose cgroup may be called so.
pub(super) fn container_ids(name: &str) -> impl Iterator<Item = &str> {
    let inner = CONTAINERS.iter().filter_map(|(before, after)| {
        let inner = name.strip_prefix(before)?;
        inner.strip_suffix(after)
    });
    inner.filter(|text| text.len() == ID_CHARS && is_hex(text))
}

/// Whether a cgroup of this name, in a folder of that, is called like a container. A slice is none: it holds them, and Podman's pods have ids in theirs.
pub(super) fn is_container(above: Option<&str>, name: &str) -> bool {
    let is_of = |(before, after): &(&str, &str)| {
        name.strip_prefix(before)
            .is_some_and(|rest| rest.ends_with(after))
    };
    let is_slice = is_slice(name) && !name.starts_with("lxc.");
    let is_pod = above == Some(PODS) && is_hex(name);
    let has_id = || {
        let mut parts = name.split(|c: char| !c.is_ascii_hexdigit());
        parts.any(|part| part.len() >= ID_CHARS)
    };
    !is_slice && !is_pod && (FOLDERS.contains(&name) || OTHERS.iter().any(is_of) || has_id())
}

/// The container that a cgroup is, or lies in: its own cgroup and its id. Of one in another it is the outer one: what lies in that is called so by its root.
pub(super) fn container_at(cgroup: &Path) -> Option<(&Path, &str)> {
    fn name(path: &Path) -> Option<&str> {
        path.file_name()?.to_str()
    }
    let mut paths: Vec<&Path> = cgroup.ancestors().collect();
    paths.reverse();
    let outermost = paths.into_iter().find(|path| {
        let above = path.parent().and_then(name);
        name(path).is_some_and(|name| is_container(above, name))
    })?;
    let id = container_ids(name(outermost)?).next()?;
    Some((outermost, id))
}

/// Whether the service manager puts units into a cgroup of this name.
pub(super) fn is_slice(name: &str) -> bool {
    name.ends_with(".slice")
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn what_any_runtime_makes_for_a_container_is_called_like_one() {
        for name in [
            ID.to_owned(),
            format!("docker-{ID}.scope"),
            format!("libpod-payload-{ID}"),
            format!("unheard-of-{ID}.scope"),
            format!("{ID}.task"),
            // BuildKit's, inside Docker: shorter.
            "docker-7xv0r2kq9m3n5p8t1w4y6z0ab.scope".to_owned(),
            "lxc".to_owned(),
            "lxc.payload".to_owned(),
            "lxc.payload.web".to_owned(),
            "lxc.payload.web.slice".to_owned(),
            "lxc.monitor.web".to_owned(),
            r"machine-qemu\x2d1\x2dvm.scope".to_owned(),
            "systemd-nspawn@web.service".to_owned(),
            "lxc-812-web.libvirt-lxc".to_owned(),
        ] {
            assert!(is_container(None, &name), "{name}");
        }
        assert!(is_container(Some("docker"), ID));
    }

    #[test]
    fn a_cgroup_is_in_the_outermost_container_above_it_whatever_that_makes_in_its_own() {
        let other = ID.replace('0', "f");
        for (container, rest) in [
            (format!("/machine.slice/libpod-{ID}.scope"), String::new()),
            (
                format!("/machine.slice/libpod-{ID}.scope"),
                "/container/x".to_owned(),
            ),
            (format!("/libpod_parent/{other}/libpod-{ID}"), String::new()),
            (
                format!("/kubepods/burstable/pod1/{ID}"),
                format!("/system.slice/docker-{other}.scope"),
            ),
        ] {
            let cgroup = format!("{container}{rest}");
            let found = container_at(Path::new(&cgroup));
            assert_eq!(found, Some((Path::new(&container), ID)), "{cgroup}");
        }
        for none in [
            "/".to_owned(),
            "/system.slice/bot.service".to_owned(),
            format!("/lxc.payload.web/docker-{ID}.scope"),
            format!("/machine.slice/libpod-conmon-{ID}.scope"),
        ] {
            assert_eq!(container_at(Path::new(&none)), None, "{none}");
        }
    }

    #[test]
    fn what_holds_containers_or_units_is_called_like_none() {
        for name in [
            "docker",
            "docker.service",
            "containerd.service",
            "lxc.service",
            "libpod_parent",
            "machine.slice",
            "machine-web.slice",
            "kubepods",
            "kubepods-pod8dbc0b14_47a8_4b23_9f0e_6a2d1c3b4a5f.slice",
            "pod8dbc0b14-47a8-4b23-9f0e-6a2d1c3b4a5f",
            "session-3.scope",
            "user@0.service",
            "agentbox.service",
        ] {
            assert!(!is_container(Some("libpod"), name), "{name}");
        }
        let slice = format!("machine-libpod_pod_{ID}.slice");
        assert!(!is_container(Some("machine.slice"), &slice));
        assert!(!is_container(Some("libpod_parent"), ID));
    }
}
