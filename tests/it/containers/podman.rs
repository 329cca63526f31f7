//! A Podman of the test's own: everything of it lies in the stage's folder, its processes and containers in the stage's cgroups, its mounts in the
//! stage's. So the janitor finds all of it, also when the test is killed.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use harness::stage::Side;
use harness::world::{AGENT_UID, Client, Who, World, wait_for};

/// The image that containers are made of.
pub(super) const IMAGE: &str = "localhost/agentbox:1";

/// The cgroup that the agent's user runs its containers from, under a service manager of its own; and that manager's, which is the user's.
const USERS: &str = "user.slice/user-2001.slice/user@2001.service/app.slice";
const MANAGER: &str = "user.slice/user-2001.slice/user@2001.service";
/// The uids and gids that are subordinate to the user's.
const SUBORDINATE: &str = "2001:165536:65536\n";

/// Whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Roots,
    /// The agent's user's: without root anywhere.
    Users,
}

/// It, and the service that answers for it while it runs.
pub(super) struct Podman<'a> {
    world: &'a World,
    whose: Whose,
    service: Option<Child>,
    is_aside: bool,
}

/// It while nobody looks after it: the world's daemon is started or ended. The janitor has what is left of it.
pub(super) struct Aside {
    whose: Whose,
    service: Option<Child>,
}

impl Aside {
    /// It again.
    pub(super) fn beside(self, world: &World) -> Podman<'_> {
        Podman {
            world,
            whose: self.whose,
            service: self.service,
            is_aside: false,
        }
    }
}

impl<'a> Podman<'a> {
    /// With an image, and nobody answering at its socket.
    pub(super) fn new(world: &'a World) -> Self {
        Self::of(world, Whose::Roots)
    }

    /// The same of the agent's user, who is nobody's root: its containers are in the cgroups that are the user's.
    pub(super) fn of_user(world: &'a World) -> Self {
        Self::of(world, Whose::Users)
    }

    fn of(world: &'a World, whose: Whose) -> Self {
        let podman = Self {
            world,
            whose,
            service: None,
            is_aside: false,
        };
        std::fs::create_dir_all(podman.folder()).expect("makes a folder");
        // Its older way to networks is not what is installed beside it now.
        let settings = "[network]\nnetwork_backend = \"netavark\"\n";
        std::fs::write(podman.folder().join("containers.conf"), settings).expect("writes");
        // What it keeps elsewhere whatever it is told: the state of runc, its locks, and what it knows of pieces of images.
        let mut elsewhere = vec!["/run", "/dev/shm", "/var/lib"];
        if whose == Whose::Users {
            elsewhere.push("/etc");
        }
        let elsewhere: Vec<&Path> = elsewhere.into_iter().map(Path::new).collect();
        world.stage.shadow(&elsewhere);
        if whose == Whose::Users {
            podman.give_to_user();
        }
        podman.import("tree", IMAGE, |_| ());
        podman
    }

    /// Puts it aside with all that runs.
    pub(super) fn aside(mut self) -> Aside {
        self.is_aside = true;
        Aside {
            whose: self.whose,
            service: self.service.take(),
        }
    }

    /// The user is known to this host, has subordinate uids, and owns what its service manager does.
    fn give_to_user(&self) {
        let (world, dir) = (self.world, self.world.stage.dir());
        let account = format!("finance-bot:x:{AGENT_UID}:{AGENT_UID}::/:/usr/sbin/nologin\n");
        let add = |file: &Path, line: &str| {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            std::fs::write(file, text + line).expect("writes");
        };
        add(&dir.join("etc/passwd"), &account);
        world.stage.on(Side::Host, || {
            for name in ["/etc/subuid", "/etc/subgid"] {
                std::fs::write(name, SUBORDINATE).expect("writes");
            }
        });
        let cgroup = world.stage.cgroups.make(USERS);
        let manager = world.stage.cgroups.make(MANAGER);
        for folder in [manager.as_path(), &cgroup] {
            for at in [
                "",
                "cgroup.procs",
                "cgroup.threads",
                "cgroup.subtree_control",
            ] {
                give(&folder.join(at));
            }
        }
        give(&self.folder());
    }

    /// Where the socket of a world's Podman is.
    pub(super) fn socket(world: &World) -> PathBuf {
        world.stage.dir().join("podman/api.sock")
    }

    fn folder(&self) -> PathBuf {
        self.world.stage.dir().join("podman")
    }

    /// A command of it on the host: as root, in no agent's workload; or as the user, in what is the user's.
    pub(super) fn command(&self, args: &[&str]) -> Command {
        let stage = &self.world.stage;
        let (cgroup, uid) = match self.whose {
            Whose::Roots => ("runtime", None),
            Whose::Users => (USERS, Some(AGENT_UID)),
        };
        let cgroup = stage.cgroups.make(cgroup);
        let mut command = stage.command_in(Side::Host, Some(&cgroup), uid, "podman");
        command
            .env("CONTAINERS_CONF", self.folder().join("containers.conf"))
            .current_dir(self.folder());
        if self.whose == Whose::Users {
            command
                .env("HOME", self.folder())
                .env("XDG_RUNTIME_DIR", self.folder());
        }
        for (option, name) in [
            ("--root", "root"),
            ("--runroot", "runroot"),
            ("--tmpdir", "tmp"),
            ("--network-config-dir", "networks"),
        ] {
            command.arg(option).arg(self.folder().join(name));
        }
        command
            .args(["--cgroup-manager", "cgroupfs", "--events-backend", "none"])
            // Copies, in place of mounts: an image here is a few folders.
            .args(["--storage-driver", "vfs", "--runtime", "runc"])
            .args(["--log-level", "error"])
            .args(args)
            .stdin(Stdio::null());
        command
    }

    pub(super) fn must(&self, args: &[&str]) -> String {
        let output = self
            .command(args)
            .output()
            .expect("podman runs: install podman and runc");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "podman {args:?}: {said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// An image of nothing but the places that the host's programs are put, and of what is put into them first.
    pub(super) fn import(&self, name: &str, image: &str, prepare: impl FnOnce(&Path)) {
        let tree = self.folder().join(name);
        for name in ["usr", "etc", "proc", "sys", "dev", "run", "tmp", "var"] {
            std::fs::create_dir_all(tree.join(name)).expect("makes a folder");
        }
        for name in ["bin", "sbin", "lib", "lib64"] {
            std::os::unix::fs::symlink(format!("usr/{name}"), tree.join(name)).expect("links");
        }
        prepare(&tree);
        let tar = self.folder().join(format!("{name}.tar"));
        let packed = Command::new("tar")
            .arg("-C")
            .arg(&tree)
            .arg("-cf")
            .arg(&tar)
            .arg(".")
            .status();
        assert!(packed.expect("tar runs").success());
        let tar = tar.display().to_string();
        self.must(&["import", "--quiet", &tar, image]);
    }

    /// What it answers who asks which containers run.
    pub(super) fn listed(&self) -> String {
        let mut curl = self.world.stage.command(Side::Host, "curl");
        curl.args(["--silent", "--unix-socket"]);
        curl.arg(Self::socket(self.world));
        let output = curl.arg("http://runtime/containers/json").output();
        let output = output.expect("curl runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Has it answer at its socket.
    pub(super) fn serve(&mut self) {
        let socket = Self::socket(self.world);
        let url = format!("unix://{}", socket.display());
        let mut command = self.command(&["system", "service", "--time=0", &url]);
        let log = std::fs::File::create(self.folder().join("service.log")).expect("makes a file");
        let log = command.stdout(Stdio::null()).stderr(log);
        self.service = Some(log.spawn().expect("podman runs"));
        wait_for("the runtime's API", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
    }

    /// Has it answer no more.
    pub(super) fn silence(&mut self) {
        if let Some(mut service) = self.service.take() {
            service.kill().expect("kills");
            service.wait().expect("ends");
        }
    }

    /// A container that waits, of the agent's uid: its name, its label, its network.
    pub(super) fn start(&self, name: &str, label: &str, network: &str) -> String {
        let run = self.world.stage.dir().join("run");
        let volume = format!("{0}:{0}:ro", run.display());
        self.start_with(name, label, network, &["--volume", &volume])
    }

    /// The same with these options in the place of what of the daemon's it has.
    pub(super) fn start_with(
        &self,
        name: &str,
        label: &str,
        network: &str,
        options: &[&str],
    ) -> String {
        let host = ["/usr", "/etc"].map(|path| format!("{path}:{path}:ro"));
        let host = ["--volume", &host[0], "--volume", &host[1]];
        let options = [&["--network", network][..], &host, options].concat();
        self.run(IMAGE, name, label, &options)
    }

    /// One of this image that waits, with these options and the project's own programs.
    pub(super) fn run(&self, image: &str, name: &str, label: &str, options: &[&str]) -> String {
        self.run_command(image, name, label, options, &["sleep", "600"])
    }

    /// The same that does this from its first moment on.
    pub(super) fn run_command(
        &self,
        image: &str,
        name: &str,
        label: &str,
        options: &[&str],
        command: &[&str],
    ) -> String {
        let world = self.world;
        let dir = world.stage.dir();
        let root = world.stage.cgroups.root();
        let parent = format!(
            "/{}/containers",
            root.file_name().expect("a name").display()
        );
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let project = project.canonicalize().expect("exists");
        let at = |path: &Path, how: &str| format!("{0}:{0}:{how}", path.display());
        let volumes = [
            at(&project, "ro"),
            at(&dir.join("agent"), "rw"),
            format!(
                "{}:/etc/resolv.conf:ro",
                dir.join("etc/resolv.conf").display()
            ),
        ];
        let user = match self.whose {
            Whose::Roots => format!("{AGENT_UID}:{AGENT_UID}"),
            // Its own root is the user on the host.
            Whose::Users => "0:0".to_owned(),
        };
        let mut args = vec!["run", "--detach", "--name", name, "--label", label];
        if self.whose == Whose::Roots {
            args.extend(["--cgroup-parent", &parent]);
        }
        args.extend(["--user", &user, "--cap-drop", "all", "--read-only"]);
        args.extend([
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1024:1024",
        ]);
        for volume in &volumes {
            args.extend(["--volume", volume]);
        }
        args.extend(options);
        args.push(image);
        args.extend(command);
        self.must(&args)
    }

    /// A program in a container, with no variables but those that the container was started with.
    pub(super) fn bare(&self, name: &str, program: &Path, args: &[&str]) -> Output {
        let program = program.display().to_string();
        let all = [&["exec", name, &program], args].concat();
        self.command(&all).output().expect("podman runs")
    }

    /// A program in a container, with the variables that the agent's clients have on the host.
    pub(super) fn inside(&self, name: &str, program: &Path, args: &[&str]) -> Output {
        let mut command = self.inside_with(&[], name, program, args);
        command.output().expect("podman runs")
    }

    /// A program in a container that stays, and is spoken to by lines.
    pub(super) fn staying(&self, name: &str, program: &Path, args: &[&str]) -> Client {
        Client::start(self.inside_with(&["--interactive"], name, program, args))
    }

    /// A program in a container as a command, with further options.
    pub(super) fn inside_with(
        &self,
        options: &[&str],
        name: &str,
        program: &Path,
        args: &[&str],
    ) -> Command {
        let like = self.world.run_as(Who::Agent, "true");
        let variables = like.get_envs().filter_map(|(key, value)| {
            Some(format!("--env={}={}", key.to_str()?, value?.to_str()?))
        });
        let variables: Vec<String> = variables.collect();
        let mut all = vec!["exec"];
        all.extend(options);
        all.extend(variables.iter().map(String::as_str));
        let program = program.display().to_string();
        all.extend([name, program.as_str()]);
        all.extend(args);
        self.command(&all)
    }
}

fn give(path: &Path) {
    chown(path, Some(AGENT_UID), Some(AGENT_UID)).expect("gives it away");
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        if self.is_aside {
            return;
        }
        let _ = self
            .command(&["rm", "--all", "--force", "--time", "0"])
            .output();
        if let Some(mut service) = self.service.take() {
            let _ = service.kill();
            let _ = service.wait();
        }
    }
}
