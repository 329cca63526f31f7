//! The machine's file system: the tests, the daemon and the few programs that they start, each where it is on this host, with the
//! libraries that it names. Nothing is installed in the machine; all of it is in memory.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::image::Image;
use super::modules;
use super::suite::Suite;
use crate::sh;

/// The first process.
const INIT: &str = include_str!("init.sh");
/// What the tests start, besides busybox's tools: its `ip` makes no pairs of interfaces, its shell prefers its own tools, and a copy of its
/// `true` under another name is none.
const PROGRAMS: &[&str] = &["ip", "tc", "unshare", "nsenter", "dash", "true"];
/// Parts of Python's library that are large, and that no test uses.
const NOT_NEEDED: &[&str] = &[
    "config-",
    "dist-packages",
    "distutils",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "sqlite3",
    "test",
    "tkinter",
    "turtledemo",
    "unittest",
    "wsgiref",
    "xmlrpc",
    "_sysconfigdata",
];
/// How much slower an emulated processor is than those that the tests' time limits were made for.
const SLOWNESS: u32 = 10;

/// What is the same for every kernel.
#[derive(Debug)]
pub(super) struct Initrd {
    dir: PathBuf,
    archive: PathBuf,
}

impl Initrd {
    /// Makes it anew: what was built may have changed.
    pub(super) fn make(project: &Path, dir: &Path, suite: &Suite) -> Result<Self> {
        let tree = Tree::new(dir.join("root"))?;
        for program in PROGRAMS {
            tree.program(&in_path(program)?, Path::new("/usr/bin").join(program))?;
        }
        tree.copy(&in_path("busybox")?, "/usr/bin/busybox")?;
        symlink("dash", tree.at("/usr/bin/sh"))?;
        tree.python(project)?;
        tree.suite(project, suite)?;
        tree.copy(
            Path::new("/etc/ssl/certs/ca-certificates.crt"),
            "/etc/ssl/certs/ca-certificates.crt",
        )?;
        for (name, text) in [
            ("/etc/passwd", "root:x:0:0::/root:/bin/sh\n"),
            ("/etc/group", "root:x:0:\n"),
            ("/etc/hosts", ""),
            ("/etc/resolv.conf", ""),
        ] {
            tree.write(name, text.as_bytes(), 0o644)?;
        }
        tree.write("/init", INIT.as_bytes(), 0o755)?;
        let archive = dir.join("root.cpio");
        pack(&tree.root, &archive)?;
        Ok(Self {
            dir: dir.to_owned(),
            archive,
        })
    }

    /// With this kernel's modules and the names of the tests to run: one archive after the other, as the kernel reads them.
    pub(super) fn of(&self, image: &Image, tests: &[String]) -> Result<PathBuf> {
        let tree = Tree::new(self.dir.join("modules"))?;
        let names = tests.join("\n") + "\n";
        tree.write("/suite/tests", names.as_bytes(), 0o644)?;
        for (at, (name, bytes)) in modules::closure(&image.modules)?.iter().enumerate() {
            tree.write(format!("/modules/{at:02}-{name}.ko"), bytes, 0o644)?;
        }
        let modules = self.dir.join("modules.cpio");
        pack(&tree.root, &modules)?;
        let whole = self.dir.join("initrd");
        let mut file = File::create(&whole)?;
        for part in [&self.archive, &modules] {
            file.write_all(&std::fs::read(part)?)?;
        }
        Ok(whole)
    }
}

/// A file system in the making.
struct Tree {
    root: PathBuf,
}

impl Tree {
    fn new(root: PathBuf) -> Result<Self> {
        if root.exists() {
            std::fs::remove_dir_all(&root)?;
        }
        let tree = Self { root };
        for dir in [
            "usr/bin",
            "usr/sbin",
            "usr/lib",
            "usr/lib64",
            "proc",
            "sys",
            "dev",
            "tmp",
            "run",
            "root",
        ] {
            std::fs::create_dir_all(tree.root.join(dir))?;
        }
        for dir in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{dir}"), tree.root.join(dir))?;
        }
        Ok(tree)
    }

    fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn write(&self, path: impl AsRef<Path>, bytes: &[u8], mode: u32) -> Result<()> {
        let at = self.made(path)?;
        std::fs::write(&at, bytes)?;
        Ok(std::fs::set_permissions(
            at,
            PermissionsExt::from_mode(mode),
        )?)
    }

    /// The place of a file, its folder made.
    fn made(&self, path: impl AsRef<Path>) -> Result<PathBuf> {
        let at = self.at(path);
        std::fs::create_dir_all(at.parent().context("a folder")?)?;
        Ok(at)
    }

    fn copy(&self, from: &Path, to: impl AsRef<Path>) -> Result<()> {
        let at = self.made(to)?;
        std::fs::copy(from, at).with_context(|| format!("copying {}", from.display()))?;
        Ok(())
    }

    fn folder(&self, from: &Path, leave_out: &[&str]) -> Result<()> {
        for entry in
            std::fs::read_dir(from).with_context(|| format!("reading {}", from.display()))?
        {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if leave_out.iter().any(|left_out| name.starts_with(left_out)) {
                continue;
            }
            if path.is_dir() {
                self.folder(&path, &[])?;
            } else {
                self.copy(&path, &path)?;
            }
        }
        Ok(())
    }

    /// A program, and the libraries it names.
    fn program(&self, from: &Path, to: impl AsRef<Path>) -> Result<()> {
        self.copy(from, to)?;
        self.libraries(from)
    }

    fn libraries(&self, of: &Path) -> Result<()> {
        let said = sh::output(Command::new("ldd").arg(of))?;
        let paths: BTreeSet<&str> = said
            .split_whitespace()
            .filter(|word| word.starts_with('/') && !word.ends_with(':'))
            .collect();
        for library in paths.iter().map(Path::new) {
            if !self.at(library).exists() {
                self.copy(library, library)?;
            }
        }
        Ok(())
    }

    /// The same without what only a debugger reads, which would be most of it.
    fn stripped(&self, from: &Path) -> Result<()> {
        let at = self.made(from)?;
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(&at).arg(from);
        sh::run(strip)?;
        self.libraries(from)
    }

    /// The system's Python, its library, and the one package that the silent far side uses.
    fn python(&self, project: &Path) -> Result<()> {
        let python = Path::new("/usr/bin/python3");
        self.program(python, python)?;
        let ask = "import sysconfig; print(sysconfig.get_path('stdlib'))";
        let said = sh::output(Command::new(python).args(["-c", ask]))?;
        let library = Path::new(said.trim());
        self.folder(library, NOT_NEEDED)?;
        for name in ["_ssl", "_ctypes", "_hashlib"] {
            self.libraries(&extension(library, name)?)?;
        }
        let venv = project.join("target/venv");
        self.copy(&venv.join("pyvenv.cfg"), venv.join("pyvenv.cfg"))?;
        let version = library.file_name().context("a name")?;
        let packages = venv.join("lib").join(version).join("site-packages");
        self.folder(&packages.join("dnslib"), &[])?;
        let link = self.made(venv.join("bin/python"))?;
        Ok(symlink(python, link)?)
    }

    /// The tests where they were built, which is where they look for what they start.
    fn suite(&self, project: &Path, suite: &Suite) -> Result<()> {
        self.stripped(&suite.program)?;
        self.stripped(&suite.enforcer)?;
        self.folder(&project.join("tests/world"), &[])?;
        let environment = format!(
            "PROGRAM='{}'\nENFORCER_BIN='{}'\nENFORCER_TEST_SLOWNESS={SLOWNESS}\nexport PROGRAM ENFORCER_BIN ENFORCER_TEST_SLOWNESS\n",
            suite.program.display(),
            suite.enforcer.display()
        );
        self.write("/suite/environment", environment.as_bytes(), 0o644)
    }
}

fn extension(library: &Path, name: &str) -> Result<PathBuf> {
    let dir = library.join("lib-dynload");
    let found = std::fs::read_dir(&dir)?.flatten().find(|entry| {
        let file = entry.file_name().to_string_lossy().into_owned();
        file.split('.').next() == Some(name)
    });
    let found = found.with_context(|| format!("nothing in {} is called {name}", dir.display()))?;
    Ok(found.path())
}

fn in_path(name: &str) -> Result<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/bin"].map(PathBuf::from);
    let found = std::env::split_paths(&paths)
        .chain(usual)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file());
    found.with_context(|| format!("{name} is not installed"))
}

/// Not compressed: an emulated processor takes longer to unpack it than the host to hand it over.
fn pack(root: &Path, archive: &Path) -> Result<()> {
    let packed = Command::new("sh")
        .current_dir(root)
        .args(["-c", "find . | cpio --quiet -o -H newc"])
        .stdout(File::create(archive)?)
        .status()
        .context("cannot start a shell")?;
    ensure!(packed.success(), "cpio ended with {packed}");
    Ok(())
}
