//! What Google is to be told: the commands run in a shell as they are printed, and Terraform's own grammar takes the resources.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use harness::world::{enforcer, venv_python};
use serde_json::Value;

/// Stands for gcloud and bq: writes down each word that it is given, and says that nothing is there yet.
const STUB: &str = r#"#!/usr/bin/python3
import json, os, sys
with open(os.environ["CALLS"], "a") as calls:
    print(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]), file=calls)
sys.exit(1 if "describe" in sys.argv else 0)
"#;

const POOL: &str =
    "iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/agents";

/// The example's configuration, with an issuer that a shell would read more into, and an agent with a service account.
fn configuration(dir: &Path) -> String {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../enforcer/example");
    for name in ["enforcer.toml", "policy.toml"] {
        let text = std::fs::read_to_string(example.join(name)).expect("an example");
        let text = text.replace(
            "issuer = \"https://enforcer.example.com/host-a\"",
            "issuer = \"https://enforcer.example.com/$(touch pwned)'`x`${y}\"",
        );
        std::fs::write(dir.join(name), text).expect("written");
    }
    dir.join("enforcer.toml").to_string_lossy().into_owned()
}

fn setup(config: &str, more: &[&str]) -> String {
    let output = Command::new(enforcer())
        .args(["gcp", "setup", "--config", config])
        .args(more)
        .output()
        .expect("runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("a text")
}

#[test]
fn the_commands_say_to_google_what_the_configuration_and_the_policy_need_and_nothing_else_is_run() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = configuration(dir.path());
    for name in ["gcloud", "bq"] {
        let path = dir.path().join(name);
        std::fs::write(&path, STUB).expect("written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("set");
    }
    let script = dir.path().join("setup.sh");
    std::fs::write(&script, setup(&config, &[])).expect("written");
    let calls = dir.path().join("calls");
    let ran = Command::new("/bin/sh")
        .arg(&script)
        .current_dir(dir.path())
        .env("PATH", format!("{}:/usr/bin:/bin", dir.path().display()))
        .env("CALLS", &calls)
        .output()
        .expect("runs");
    assert!(ran.status.success(), "{ran:?}");
    assert!(!dir.path().join("pwned").exists(), "nothing else is run");

    let calls = std::fs::read_to_string(calls).expect("calls");
    let calls: Vec<Vec<String>> = calls
        .lines()
        .map(|line| serde_json::from_str(line).expect("words"))
        .collect();
    let created = calls
        .iter()
        .find(|words| words.contains(&"create-oidc".to_owned()));
    let created = created.expect("a provider");
    for wanted in [
        "host-a",
        "--issuer-uri=https://enforcer.example.com/$(touch pwned)'`x`${y}",
        "--jwk-json-path=/run/enforcer/jwks.json",
        "--attribute-condition=assertion.sub.startsWith('host-a/') && assertion.exp - assertion.iat <= 900",
    ] {
        assert!(
            created.iter().any(|word| word == wanted),
            "{wanted}: {created:?}"
        );
    }
    let said = calls
        .iter()
        .map(|words| words.join(" "))
        .collect::<Vec<_>>();
    for wanted in [
        format!(
            "GRANT `roles/bigquery.dataViewer` ON SCHEMA `demo-project.finance` TO \"principalSet://{POOL}/group/ds:demo-project.finance\""
        ),
        format!(
            "GRANT `roles/bigquery.dataEditor` ON SCHEMA `demo-project.scratch` TO \"principalSet://{POOL}/group/dsw:demo-project.scratch\""
        ),
        format!(
            "projects add-iam-policy-binding demo-project --member principalSet://{POOL}/attribute.host/host-a --role roles/bigquery.jobUser"
        ),
        format!(
            "storage buckets add-iam-policy-binding gs://demo-exports --member principal://{POOL}/subject/host-a/agent/finance-bot --role roles/storage.objectCreator"
        ),
    ] {
        assert!(
            said.iter().any(|call| call.contains(&wanted)),
            "{wanted}: {said:#?}"
        );
    }
    let writes_finance = said
        .iter()
        .any(|call| call.contains("dataEditor` ON SCHEMA `demo-project.finance`"));
    assert!(!writes_finance, "what is only read is bound to be read");
}

/// Prints what Terraform's language makes of a text, by a parser that shares no code with the product.
const PARSED: &str = r#"
import hcl2, json, sys
print(json.dumps(hcl2.loads(sys.stdin.read())))
"#;

#[test]
fn the_resources_are_terraforms_and_say_the_same() {
    use std::io::Write;
    let dir = tempfile::tempdir().expect("a folder");
    let text = setup(&configuration(dir.path()), &["--terraform"]);
    let mut parser = Command::new(venv_python())
        .args(["-c", PARSED])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python runs");
    let mut input = parser.stdin.take().expect("a pipe");
    input.write_all(text.as_bytes()).expect("written");
    drop(input);
    let output = parser.wait_with_output().expect("ends");
    assert!(output.status.success(), "{output:?}");
    let parsed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let said = parsed.to_string();
    for wanted in [
        "google_iam_workload_identity_pool_provider",
        "google_bigquery_dataset_iam_member",
        "google_project_iam_audit_config",
        "google_storage_bucket_iam_member",
        &format!("principalSet://{POOL}/group/dsw:demo-project.scratch"),
        // What would begin a template stands twice.
        "'`x`$${y}",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
}

#[test]
fn who_becomes_an_account_by_the_hosts_own_identity_whose_quota_is_used_and_which_cloud_it_is_is_said()
 {
    let dir = tempfile::tempdir().expect("a folder");
    let config = configuration(dir.path());
    let text = std::fs::read_to_string(&config).expect("reads");
    let own = "uid = 2001\ntoken = \"impersonation\"\nservice_account = \"bot@p.iam.gserviceaccount.com\"\nquota_project = \"billing\"";
    let text = text.replacen("uid = 2001", own, 1);
    let there = "[names]\nuniverse_domain = \"googleapis.cloud.example\"";
    std::fs::write(&config, text.replacen("[names]", there, 1)).expect("written");
    for more in [&[][..], &["--terraform"]] {
        let said = setup(&config, more);
        for wanted in [
            "roles/iam.serviceAccountTokenCreator",
            "serviceAccount:THE-HOSTS-OWN-SERVICE-ACCOUNT",
            "roles/serviceusage.serviceUsageConsumer",
            "serviceAccount:bot@p.iam.gserviceaccount.com",
            "billing",
            "universe_domain",
            "googleapis.cloud.example",
        ] {
            assert!(said.contains(wanted), "{wanted}: {said}");
        }
        assert!(!said.contains("workloadIdentityUser"), "{said}");
    }
}
