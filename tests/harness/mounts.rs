//! The host's mount namespace: a bpffs and resolver files of its own, and a way for agents to the programs they run.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// A mount namespace for the stage in `dir`, held by its descriptor alone.
pub(crate) fn new_mounts(dir: &Path) -> OwnedFd {
    let dir = dir.to_owned();
    let make = move || {
        // SAFETY: only this thread moves, and it ends at once.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }
            .expect("makes a mount namespace");
        mount_change(
            "/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        )
        .expect("makes mounts private");
        mount("bpf", dir.join("bpf"), "bpf", MountFlags::empty(), None).expect("mounts a bpffs");
        bind_host_files(&dir);
        open_the_way(&programs());
        OwnedFd::from(File::open("/proc/thread-self/ns/mnt").expect("opens it"))
    };
    std::thread::spawn(make).join().expect("does not panic")
}

/// Puts the stage's resolver files and its list of users in the place of the machine's.
pub(crate) fn bind_host_files(dir: &Path) {
    for name in ["resolv.conf", "hosts", "passwd"] {
        mount_bind(dir.join("etc").join(name), Path::new("/etc").join(name))
            .expect("binds a file of the host's");
    }
}

/// Lays a layer, kept in `place`, over a folder: what is written there is written to it.
pub(crate) fn lay_over(place: &Path, folder: &Path) {
    let (upper, work) = (place.join("upper"), place.join("work"));
    for dir in [&upper, &work] {
        std::fs::create_dir_all(dir).expect("makes a folder");
    }
    // What is laid over is as open to others as what is below.
    let below = std::fs::metadata(folder).expect("is there");
    std::fs::set_permissions(&upper, below.permissions()).expect("sets a mode");
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        folder.display(),
        upper.display(),
        work.display()
    );
    let options = CString::new(options).expect("no zero in a path");
    mount(
        "layer",
        folder,
        "overlay",
        MountFlags::empty(),
        Some(options.as_c_str()),
    )
    .unwrap_or_else(|error| panic!("laying a layer over {}: {error}", folder.display()));
}

/// Where agents find what they run: the project, and the folder of the programs that were built.
fn programs() -> Vec<PathBuf> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let built = std::env::current_exe().expect("a path");
    [project.as_path(), built.parent().expect("a folder")]
        .map(|place| place.canonicalize().expect("exists"))
        .to_vec()
}

/// Makes `places` reachable for every uid where a folder above them is shut, as `/root` is: an empty folder is put over that one, and
/// the places back into it.
fn open_the_way(places: &[PathBuf]) {
    let shut: Vec<(&PathBuf, PathBuf, File)> = places
        .iter()
        .filter_map(|place| Some((place, shut_above(place)?, File::open(place).ok()?)))
        .collect();
    let above: BTreeSet<&PathBuf> = shut.iter().map(|(_, above, _)| above).collect();
    for folder in above {
        mount(
            "way",
            folder,
            "tmpfs",
            MountFlags::empty(),
            Some(c"mode=755"),
        )
        .expect("mounts a tmpfs");
    }
    for (place, _, opened) in &shut {
        std::fs::create_dir_all(place).expect("makes a folder");
        mount_bind(
            format!("/proc/thread-self/fd/{}", opened.as_raw_fd()),
            *place,
        )
        .expect("binds it where it was");
    }
}

/// The topmost folder above `place` that others may not pass through.
fn shut_above(place: &Path) -> Option<PathBuf> {
    let above: Vec<&Path> = place.ancestors().skip(1).collect();
    let is_shut = |folder: &&&Path| {
        let mode = std::fs::metadata(folder).map(|meta| meta.permissions().mode());
        mode.is_ok_and(|mode| mode & 0o001 == 0)
    };
    above
        .iter()
        .rev()
        .find(is_shut)
        .map(|folder| folder.to_path_buf())
}
