//! What a container runtime is to be told for a container's clients to trust the proxy: one mount, and the variables of a workload. It only says
//! so: no runtime is asked, and no file is read or written.
//!
//! The run folder is mounted as a whole. A mount of one file holds on to that file, while the daemon replaces the socket when it starts, and its
//! published files whole: in a folder the new ones are seen.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use super::Files;
use super::setup::is_plain;

/// What is not covered by it, in a line.
pub const NOT_COVERED: &str = "not covered: clients that read nothing but a trust store of their own, such as Java's key store (`keytool -importcert` puts ca.pem into it); the image brings `enforcer` itself where it is to ask for windows";
/// What SELinux wants besides, in a line.
pub const SELINUX: &str = "where SELinux confines containers, `:ro,z` in the place of `:ro` has the runtime label the folder for them; that they may connect to the daemon's socket is for the host's own policy to say";
/// What the fragment for Kubernetes is to become part of, in a line.
pub const MERGED: &str = "to be merged into the pod's manifest, or into `spec.template` of what makes it: put the name of the agent's container in the place of AGENT; the daemon is to run on every node where that pod may";

/// The name of the volume in Kubernetes.
const VOLUME: &str = "enforcer";

/// Who is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Runtime {
    /// Options of `podman run` and `podman create`.
    Podman,
    /// Options of `docker run` and `docker create`.
    Docker,
    /// A fragment of a pod's manifest.
    Kubernetes,
}

/// What a container has of the host's.
#[derive(Debug)]
pub struct Shared {
    /// Mounted read-only, at the same path as on the host.
    run_dir: PathBuf,
    env: Vec<(String, String)>,
}

impl Shared {
    /// Of this run folder, with the control socket in it.
    ///
    /// # Errors
    /// When the folder's path would be read otherwise by a shell, a runtime or YAML.
    pub fn of(run_dir: &Path, socket: &Path) -> Result<Self> {
        let files = Files::in_run_dir(run_dir);
        is_plain(&files)?;
        let mut env = files.env();
        env.push(("ENFORCER_SOCKET".to_owned(), socket.display().to_string()));
        Ok(Self {
            run_dir: run_dir.to_owned(),
            env,
        })
    }

    /// For people and scripts: options one a line, of which a shell makes words as they stand, or YAML.
    #[must_use]
    pub fn text(&self, runtime: Runtime) -> String {
        match runtime {
            Runtime::Podman | Runtime::Docker => self
                .options()
                .chunks(2)
                .map(|option| option.join(" ") + "\n")
                .collect(),
            Runtime::Kubernetes => self.yaml(),
        }
    }

    /// For programs.
    #[must_use]
    pub fn json(&self, runtime: Runtime) -> Value {
        let path = &self.run_dir;
        let env: serde_json::Map<String, Value> = self
            .env
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        let mut told = json!({
            "mounts": [{"host": path, "container": path, "read_only": true}],
            "env": env,
        });
        let (name, form) = match runtime {
            Runtime::Podman | Runtime::Docker => ("options", json!(self.options())),
            Runtime::Kubernetes => ("patch", self.patch()),
        };
        told[name] = form;
        told["notes"] = json!(notes(runtime));
        told
    }

    /// Words for `podman run` and `docker run`, which take the same.
    fn options(&self) -> Vec<String> {
        let path = self.run_dir.display();
        let mut words = vec!["-v".to_owned(), format!("{path}:{path}:ro")];
        for (name, value) in &self.env {
            words.extend(["-e".to_owned(), format!("{name}={value}")]);
        }
        words
    }

    fn volume(&self) -> Value {
        // It must be there: one that the kubelet made would be nobody's.
        json!({"name": VOLUME, "hostPath": {"path": self.run_dir, "type": "Directory"}})
    }

    fn mount(&self) -> Value {
        json!({"name": VOLUME, "mountPath": self.run_dir, "readOnly": true})
    }

    fn variables(&self) -> Vec<Value> {
        let variable = |(name, value): &(String, String)| json!({"name": name, "value": value});
        self.env.iter().map(variable).collect()
    }

    fn patch(&self) -> Value {
        json!({"spec": {
            "volumes": [self.volume()],
            "containers": [{"name": "AGENT", "volumeMounts": [self.mount()], "env": self.variables()}],
        }})
    }

    /// The same as [`Shared::patch`]. What is in a list is JSON, which YAML reads as it stands, so nothing in it needs quoting of another kind.
    fn yaml(&self) -> String {
        let variables = self.variables().into_iter();
        let variables: String = variables.map(|one| format!("        - {one}\n")).collect();
        format!(
            "spec:\n  volumes:\n    - {}\n  containers:\n    - name: AGENT\n      volumeMounts:\n        - {}\n      env:\n{variables}",
            self.volume(),
            self.mount()
        )
    }
}

/// What is to be known besides, a line each.
#[must_use]
pub const fn notes(runtime: Runtime) -> [&'static str; 2] {
    match runtime {
        Runtime::Podman | Runtime::Docker => [SELINUX, NOT_COVERED],
        Runtime::Kubernetes => [MERGED, NOT_COVERED],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> Shared {
        let run_dir = Path::new("/run/enforcer");
        Shared::of(run_dir, &run_dir.join("control.sock")).expect("is plain")
    }

    #[test]
    fn options_are_words_as_they_stand_and_name_every_variable_of_a_workload() {
        let text = shared().text(Runtime::Podman);
        assert_eq!(text, shared().text(Runtime::Docker));
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(shlex::split(&text).expect("closes its quotes"), words);
        assert_eq!(words[..2], ["-v", "/run/enforcer:/run/enforcer:ro"]);
        let files = Files::in_run_dir(Path::new("/run/enforcer"));
        for (name, value) in files.env() {
            assert!(text.contains(&format!("\n-e {name}={value}\n")), "{text}");
        }
        assert!(text.ends_with("\n-e ENFORCER_SOCKET=/run/enforcer/control.sock\n"));
        assert_eq!(shared().json(Runtime::Docker)["options"], json!(words));
    }

    #[test]
    fn the_fragment_for_kubernetes_says_in_yaml_what_it_says_in_json() {
        let text = shared().text(Runtime::Kubernetes);
        let items = |before: &str| -> Vec<Value> {
            let lines = text.lines().filter_map(|line| line.strip_prefix(before));
            lines
                .filter_map(|item| serde_json::from_str(item).ok())
                .collect()
        };
        let patch = shared().json(Runtime::Kubernetes)["patch"].clone();
        assert_eq!(json!(items("    - ")), patch["spec"]["volumes"]);
        let container = &patch["spec"]["containers"][0];
        let inside = items("        - ");
        assert_eq!(json!(inside[..1]), container["volumeMounts"]);
        assert_eq!(json!(inside[1..]), container["env"]);
        assert_eq!(container["volumeMounts"][0]["readOnly"], true);
        let rest: Vec<&str> = text.lines().filter(|line| !line.contains('{')).collect();
        let keys = [
            "spec:",
            "  volumes:",
            "  containers:",
            "    - name: AGENT",
            "      volumeMounts:",
            "      env:",
        ];
        assert_eq!(rest, keys);
    }

    #[test]
    fn a_run_folder_that_somebody_would_read_otherwise_is_refused() {
        for odd in ["/run/a b", "/run/a:b", "relative", "/run/$HOME"] {
            let path = Path::new(odd);
            assert!(
                Shared::of(path, &path.join("control.sock")).is_err(),
                "{odd}"
            );
        }
    }
}
